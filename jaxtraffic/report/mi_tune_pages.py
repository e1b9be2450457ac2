"""One page on what fine-tuning on flows selected by information changed, and what it did not."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from rich.table import Table
from rich.text import Text

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.figures import REAL_COLOUR, SYNTHETIC_COLOUR, Drawing, new_figure
from jaxtraffic.report.page import command_text, fact_text, flatten
from jaxtraffic.report.write import write_atomically, write_picture

__all__ = ["CHANGED", "METRICS", "Metric", "change_table", "class_rows", "verdict", "write_mi_tune"]

CHANGED = 2.0
"""Standard errors beyond which a change is called one."""
_SETS = {"before": "reference.before.", "random": "reference.random.", "tuned": ""}
_PAIRS = ("tuned_minus_before", "random_minus_before", "tuned_minus_random")


class Metric(NamedTuple):
    """One row: key of its changes, key of its levels, title, where a good generator ends, meaning, decimals."""

    key: str
    level: str
    title: str
    goal: str
    meaning: str
    digits: int = 3


METRICS = (
    Metric(
        "weighted_f1",
        "utility.weighted_f1_synthetic",
        "weighted F1",
        "higher",
        "XGBoost trained on generated flows, tested on real ones.",
    ),
    Metric("macro_f1", "utility.macro_f1_synthetic", "macro F1", "higher", "The same, every class counting alike."),
    Metric(
        "discriminative",
        "discriminative.score",
        "discriminative score",
        "\N{RIGHTWARDS ARROW} 0",
        "Accuracy above one half of XGBoost at telling generated flows from training flows.",
    ),
    Metric(
        "information",
        "information.mean",
        "information (nats)",
        "",
        "Squared form on fresh flows, by the network of the column itself: higher means that it tells classes apart "
        "more, not that its flows are better.",
    ),
    Metric(
        "distinct_share",
        "fidelity.distinct_share",
        "distinct sequences",
        "\N{RIGHTWARDS ARROW} real",
        "Coverage: share of distinct sequences among equally many flows; the rest repeat another one exactly.",
    ),
    Metric(
        "copy_rate",
        "fidelity.copy_rate",
        "copies of training flows",
        "\N{RIGHTWARDS ARROW} real",
        "Share of flows whose sequence is in the training set, bit for bit.",
    ),
    Metric(
        "mean_packets",
        "fidelity.mean_packets",
        "packets a flow",
        "\N{RIGHTWARDS ARROW} real",
        "Among the first 30.",
        2,
    ),
    Metric(
        "held_out_loss",
        "loss.held_out",
        "held-out loss",
        "lower",
        "The generator's training loss on real flows that it did not see: rises where tuning forgets real traffic.",
        4,
    ),
)


def write_mi_tune(folder: str | Path, judgements: Mapping[str, Any], config: Mapping[str, Any]) -> Path:
    """Writes figures/classes.png, report.html and, last, report.json.

    Args:
        folder: the run folder, which exists.
        judgements: flat keys, as experiments/mi_tune.py makes them: levels of the tuned set as they are, of the others
            under reference.before., reference.random. and reference.fresh_real.; change.<pair>.<metric> and _stderr;
            per_class., round., candidates., adapters. and timing. keys.
        config: what config.json holds.

    Returns:
        Path of report.html.

    Raises:
        ConfigError: a `data.source` that is neither "real" nor "simulated", or no change to report.
    """
    folder, data = Path(folder), config["data"]
    if data.get("source") not in ("real", "simulated"):
        raise ConfigError(f'config data.source must be "real" or "simulated", got {data.get("source")!r}')
    if not any(key.startswith("change.") for key in judgements):
        raise ConfigError("a page of tuning needs changes to report (keys change.*)")
    judgements = {key: _plain(value) for key, value in judgements.items()}
    drawings = draw_classes(judgements)
    shown = [write_picture(folder / "figures", drawing) for drawing in drawings]
    path = folder / "report.html"
    write_atomically(path, _render(judgements, config, shown).encode("utf-8", errors="backslashreplace"))
    head = {
        "data.source": data["source"],
        "data.name": data.get("name"),
        "n": judgements.get("data.n_synthetic"),
        "seed": config.get("seed"),
    }
    text = json.dumps(head | judgements | head, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / "report.json", text.encode("ascii"))
    return path


def verdict(judgements: Mapping[str, Any]) -> list[str]:
    """What changed beyond its standard error and what did not, in sentences; the first is the answer."""
    utility, own = METRICS[0], _change(judgements, "tuned_minus_random", "weighted_f1")
    old, new = (_level(judgements, name, utility) for name in ("before", "tuned"))
    gain = _change(judgements, "tuned_minus_before", "weighted_f1")
    did = {1: "raised", -1: "lowered", 0: "did not measurably change"}[_direction(gain)]
    selection = {
        1: "so the selection by information itself helped",
        -1: "so random flows would have been the better choice",
        0: "so an effect of the selection itself could not be told from noise",
    }[_direction(own)]
    sentences = [
        f"Tuning on the flows that rank highest {did} what generated flows are worth as training data: weighted F1 "
        f"{number(old, 3)} before, {number(new, 3)} after ({_signed(gain)}). Against the same tuning on random flows "
        f"the difference is {_signed(own)}, {selection}."
    ]
    for pair, words in (
        ("tuned_minus_before", "After tuning, against before"),
        ("random_minus_before", "After the same tuning on random flows, against before"),
        ("tuned_minus_random", "Selected against random flows"),
    ):
        moved, still = [], []
        for metric in METRICS:
            change = _change(judgements, pair, metric.key)
            if change is None:
                continue
            if _direction(change):
                way = "rose" if change[0] > 0 else "fell"
                size, error = (number(abs(part), metric.digits) for part in change)
                moved.append(f"{metric.title} {way} by {size} \N{PLUS-MINUS SIGN} {error}")
            else:
                still.append(metric.title)
        said = "; ".join(moved) or "nothing changed by more than two standard errors"
        rest = f". Within two standard errors: {', '.join(still)}" if moved and still else ""
        sentences.append(f"{words}: {said}{rest}.")
    ceiling = judgements.get("information.ceiling")
    above = [name for name in _SETS if ceiling is not None and (_level(judgements, name, METRICS[3]) or 0) > ceiling]
    if above:
        sentences.append(
            f"The measured information ({', '.join(above)}) is above H(label) = {number(ceiling, 2)} nats, the most "
            "that series can tell: the excess is error of the network, and the ranking may follow that error."
        )
    return sentences


def change_table(judgements: Mapping[str, Any]) -> Table:
    """A rich table of levels and changes; changes beyond two standard errors are bold."""
    table = Table(title="What tuning changed", title_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("good", style="dim", no_wrap=True)
    for title in ("before", "random", "tuned"):
        table.add_column(title, justify="right")
    table.add_column("fresh real", justify="right", style="dim")
    for pair in _PAIRS:
        table.add_column(pair.replace("_", " ").replace("minus", "\N{MINUS SIGN}"), justify="right")
    for row in _rows(judgements):
        cells = [Text(change["text"], "bold" if change["beyond"] else "") for change in row["changes"]]
        table.add_row(row["metric"].title, row["metric"].goal, *row["levels"], row["fresh_real"], *cells)
    return table


def class_rows(judgements: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One dict a class, frequent ones first: name, n_test, and f1_* and mi_* of each set where there are any."""
    start, found = "per_class.", {}
    for key, value in judgements.items():
        if key.startswith(start):
            # Class names may hold dots; the figure does not.
            name, figure = key[len(start) :].rsplit(".", 1)
            found.setdefault(name, {"name": name})[figure] = value
    return sorted(found.values(), key=lambda row: -(row.get("n_test") or 0))


def draw_classes(judgements: Mapping[str, Any]) -> list[Drawing]:
    """Change of F1 against change of information, a point a class; left out with fewer than two classes."""
    figure, axes = new_figure(7.5, 3.6, ncols=2, sharey=True)
    drawn = 0
    for ax, old in zip(axes, ("before", "random")):
        keys = ("mi_tuned", f"mi_{old}", "f1_tuned", f"f1_{old}")
        rows = [row for row in class_rows(judgements) if all(row.get(key) is not None for key in keys)]
        x, y = ([row[keys[i]] - row[keys[i + 1]] for row in rows] for i in (0, 2))
        n_test = np.array([row["n_test"] for row in rows], float)
        sizes = 8 + 140 * n_test / max(n_test.max(initial=1), 1)
        colour = REAL_COLOUR if old == "before" else SYNTHETIC_COLOUR
        ax.axhline(0, color="#999999", linewidth=0.8)
        ax.axvline(0, color="#999999", linewidth=0.8)
        ax.scatter(x, y, s=sizes, color=colour, alpha=0.55, linewidth=0)
        ax.set_title(f"tuned \N{MINUS SIGN} {old}", fontsize=10, loc="left")
        ax.set_xlabel("change of information (nats)", fontsize=9)
        drawn = max(drawn, len(rows))
    axes[0].set_ylabel("change of F1", fontsize=9)
    caption = (
        "Classes: does a class whose flows gained information gain F1, too? One point a class, its area the number of "
        "test flows; means over repeats, no error bars: F1 of a class with few test flows is noise."
    )
    return [Drawing("classes", figure, caption)] if drawn > 1 else []


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number with a real minus sign, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _render(judgements: Mapping[str, Any], config: Mapping[str, Any], figures: list[dict[str, str]]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["fact"] = fact_text
    environment.filters["number"] = number
    template = importlib.resources.files(__package__).joinpath("mi_tune.html.j2").read_text(encoding="utf-8")
    data, device = config["data"], config.get("device")
    if isinstance(device, Mapping):
        device = f"{device['count']} x {device['kind']}"
    return environment.from_string(template).render(
        simulated=data["source"] == "simulated",
        notice=data.get("notice"),
        data_name=str(data.get("name", "unnamed")),
        model=str(config.get("model_title") or "generator"),
        verdict=verdict(judgements),
        rows=_rows(judgements),
        repeats=judgements.get("tuning.repeats", 1),
        classes=class_rows(judgements),
        rounds=_rounds(judgements),
        agreements=_agreements(judgements),
        per_class=judgements.get("candidates.per_class"),
        figures=figures,
        facts={
            "Data": {"Data set": data.get("name")}
            | {title: judgements.get(f"data.{key}") for key, title in _COUNTS.items()},
            "Tuning": _tuning(config),
            "Adapters": {
                "Parameters of the model": judgements.get("model.parameters"),
                "Parameters of its adapters": judgements.get("adapters.parameters"),
                "Share": judgements.get("adapters.share"),
            },
            "Where it ran": _without_none(
                {
                    "Device": device,
                    "Git revision": config.get("git_revision"),
                    "Seed": config.get("seed"),
                    "Tuning and judging, seconds": judgements.get("timing.tune_and_judge_seconds"),
                }
            ),
        },
        share=judgements.get("adapters.share"),
        command=command_text(config.get("command")),
        config_text=json.dumps(config, indent=2, default=str, ensure_ascii=False),
    )


_COUNTS = {
    "n_train": "Training flows",
    "n_test": "Test flows",
    "n_synthetic": "Generated flows",
    "n_classes": "Classes",
}


def _tuning(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a tuning, of all that config.json holds."""
    given = flatten(config.get("tuning") or {}) | {"repeats": config.get("repeats")}
    return _without_none({title: given.get(key) for key, title in _SETTINGS.items()})


_SETTINGS = {
    "rank": "Ranked by",
    "candidates": "Candidates a class",
    "keep": "Kept of them",
    "rounds": "Rounds",
    "repeats": "Repeats",
    "guidance": "Guidance of candidates",
    "adapters.kind": "Adapters",
    "adapters.rank": "Rank of adapters",
    "adapters.alpha": "Alpha",
    "train.steps": "Steps a round",
    "train.batch_size": "Batch",
    "train.learning_rate": "Learning rate",
}


def _rows(judgements: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for metric in METRICS:
        levels = [number(_level(judgements, name, metric), metric.digits) for name in _SETS]
        found = [_change(judgements, pair, metric.key) for pair in _PAIRS]
        if any(found):
            changed = [{"text": _signed(each, metric.digits), "beyond": _direction(each) != 0} for each in found]
            real = number(judgements.get(f"reference.fresh_real.{metric.level}"), metric.digits)
            meaning = metric.meaning
            if metric.key == "information" and judgements.get("information.ceiling") is not None:
                meaning += f" No series tells more than H(label) = {number(judgements['information.ceiling'], 2)} nats."
            if metric.key in ("weighted_f1", "macro_f1"):
                # What the same classifier scores that was trained on the real training flows.
                real = number(judgements.get(metric.level.replace("_synthetic", "_real")), metric.digits)
            rows.append(
                {"metric": metric, "meaning": meaning, "levels": levels, "fresh_real": real, "changes": changed}
            )
    return rows


def _rounds(judgements: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for key, value in judgements.items():
        if key.startswith("round."):
            _, index, arm, figure = key.split(".")
            found.setdefault((arm, int(index)), {"arm": arm, "number": int(index) + 1})[figure] = value
    return [found[key] for key in sorted(found, key=lambda key: (key[0] != "tuned", key[1]))]


def _agreements(judgements: Mapping[str, Any]) -> list[dict[str, Any]]:
    titles = {
        "squared_path_wise": "squared and path-wise",
        "squared_product": "squared and product",
        "path_wise_product": "path-wise and product",
    }
    start = "candidates.spearman."
    return [
        {"title": title, "value": judgements[start + key], "stderr": judgements.get(f"{start}{key}_stderr")}
        for key, title in titles.items()
        if judgements.get(start + key) is not None
    ]


def _level(judgements: Mapping[str, Any], name: str, metric: Metric) -> float | None:
    return judgements.get(_SETS[name] + metric.level)


def _change(judgements: Mapping[str, Any], pair: str, metric: str) -> tuple[float, float] | None:
    value, stderr = (judgements.get(f"change.{pair}.{metric}{part}") for part in ("", "_stderr"))
    return None if value is None or stderr is None else (value, stderr)


def _direction(change: tuple[float, float] | None) -> int:
    """1 or -1 where a change is beyond two standard errors, else 0."""
    if change is None or not abs(change[0]) > CHANGED * change[1]:
        return 0
    return 1 if change[0] > 0 else -1


def _signed(change: tuple[float, float] | None, digits: int = 3) -> str:
    if change is None:
        return "\N{EN DASH}"
    return f"{number(change[0], digits, sign=True)} \N{PLUS-MINUS SIGN} {number(change[1], digits)}"


def _without_none(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value is not None}


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
