"""One page on whether generated flows help a classifier more than Translate does."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich.table import Table
from rich.text import Text

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.figures import REAL_COLOUR, SYNTHETIC_COLOUR, Drawing, new_figure
from jaxtraffic.report.page import command_text, fact_text, flatten
from jaxtraffic.report.token_augmentation_results import (
    METRICS,
    TOKENS,
    Cell,
    Choice,
    Difference,
    answer,
    grouped,
    kind_text,
    ratios_of,
    rows_of,
    title_of,
)
from jaxtraffic.report.write import write_atomically, write_picture

__all__ = ["choice_table", "markdown", "write_token_augmentation"]

_COLOURS = {"translation": SYNTHETIC_COLOUR, "marginals": "#777777", "bootstrap": "#2a8a4a", "wrap": "#8a5a00"}
_SHADES = ("#9ecae1", "#6baed6", REAL_COLOUR, "#08306b")


def choice_table(choices: Sequence[Choice]) -> Table:
    """A rich table of what the validation flows choose; differences beyond their interval are bold."""
    table = Table(title="Cells chosen on validation flows, F1 on test flows", title_justify="left")
    for title in ("classifier", "metric", "method", "chosen in each fold"):
        table.add_column(title)
    for title in ("F1, %", "on none", "on Translate", "on Translate's best"):
        table.add_column(title, justify="right")
    for one in choices:
        parts = [Text(part.text, "bold" if part.sign else "") for part in _differences(one)]
        table.add_row(*_words(one), f"{100 * one.score:.2f}", *parts)
    return table


def markdown(cells: Sequence[Cell], choices: Sequence[Choice]) -> str:
    """The tables for a README: chosen cells, then all cells; differences beyond their interval are bold."""
    lines = ["F1 in per cent on test flows; differences in points with their 95 % interval over folds and seeds.", ""]
    lines.append(
        "| classifier | metric | added | chosen in each fold | F1 | on none | on Translate | on Translate's best |"
    )
    lines.append("|---|---|---|---|---:|---:|---:|---:|")
    for one in choices:
        parts = [_bold(part) for part in _differences(one)]
        lines.append("| " + " | ".join([*_words(one), f"{100 * one.score:.2f}", *parts]) + " |")
    for classifier, metric, own in grouped(cells):
        lines += ["", f"**{classifier}, {metric}: points on no augmentation ({_none_text(own)})**", ""]
        ratios = ratios_of(own)
        lines.append("| added | " + " | ".join(f"{ratio:g} x" for ratio in ratios) + " |")
        lines.append("|---|" + "---:|" * len(ratios))
        for title, row in rows_of(own):
            parts = [_bold(row[ratio].gain) for ratio in ratios]
            lines.append(f"| {title} | " + " | ".join(parts) + " |")
    return "\n".join([*lines, ""])


def write_token_augmentation(
    folder: str | Path, *, cells: Sequence[Cell], choices: Sequence[Choice], config: Mapping[str, Any]
) -> Path:
    """Writes figures/gains.png, tables.md, report.html and, last of all, report.json.

    Args:
        folder: the run folder, which exists.
        cells: of all classifiers and metrics, no augmentation among them.
        choices: likewise.
        config: what config.json holds; `data.source` must be "real" or "simulated".

    Returns:
        The path of report.html.

    Raises:
        ConfigError: no cells, or no `data.source`.
    """
    folder, data = Path(folder), config.get("data") or {}
    if data.get("source") not in ("real", "simulated"):
        raise ConfigError(f'config data.source must be "real" or "simulated", got {data.get("source")!r}')
    if not cells or not choices:
        raise ConfigError("a page of the augmentation test needs cells and choices")
    (folder / "report.json").unlink(missing_ok=True)
    picture = write_picture(folder / "figures", draw_gains(cells))
    write_atomically(folder / "tables.md", markdown(cells, choices).encode())
    path = folder / "report.html"
    page = _render(cells, choices, config, picture)
    write_atomically(path, page.encode("utf-8", errors="backslashreplace"))
    text = json.dumps(_flat(cells, choices, config), indent=2, allow_nan=False) + "\n"
    write_atomically(folder / "report.json", text.encode("ascii"))
    return path


def draw_gains(cells: Sequence[Cell]) -> Drawing:
    """Gain over no augmentation against the ratio: a panel a classifier and metric, a line a method and temperature."""
    groups = list(grouped(cells))
    down = len(groups) // len(METRICS)
    figure, axes = new_figure(8.4, 2.9 * down + 0.5, nrows=down, ncols=len(METRICS), sharex=True, squeeze=False)
    handles: dict[str, Any] = {}
    for ax, (classifier, metric, own) in zip(axes.ravel(), groups, strict=True):
        ratios, rows = ratios_of(own), list(rows_of(own))
        tokens = [title for title, row in rows if row[ratios[0]].kind.method == TOKENS]
        ax.axhline(0, color="#999999", linewidth=0.8)
        for number, (title, row) in enumerate(rows):
            kind = row[ratios[0]].kind
            colour = _COLOURS.get(kind.method, "#b35fa0")
            if title in tokens:
                colour = _SHADES[(tokens.index(title) * len(_SHADES)) // len(tokens)]
            # side by side, so that intervals of one ratio can be told apart
            x = [ratio * 1.035 ** (number - (len(rows) - 1) / 2) for ratio in ratios]
            gains = [row[ratio].gain for ratio in ratios]
            style = {"color": colour, "linestyle": "--" if kind.labels == "balanced" else "-", "linewidth": 1.3}
            handles[title] = ax.plot(x, [100 * gain.mean for gain in gains], marker="o", markersize=3, **style)[0]
            for place, gain in zip(x, gains, strict=True):
                if gain.low is not None:
                    ax.plot([place] * 2, [100 * gain.low, 100 * gain.high], color=colour, linewidth=0.7, alpha=0.6)
        ax.set_xscale("log", base=2)
        ax.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        ax.minorticks_off()
        ax.set_title(f"{classifier}, {metric}", fontsize=10, loc="left")
        ax.grid(axis="y", color="#e4e4e4", linewidth=0.7)
        ax.set_axisbelow(True)
    figure.supxlabel("added flows for each real one", fontsize=9)
    figure.supylabel("points on no augmentation", fontsize=9)
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=8)
    caption = "Mean gain on the test flows over folds and seeds, with 95 % intervals (not corrected for their number)."
    return Drawing("gains", figure, caption)


def _render(
    cells: Sequence[Cell], choices: Sequence[Choice], config: Mapping[str, Any], picture: Mapping[str, Any]
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["fact"] = fact_text
    template = importlib.resources.files(__package__).joinpath("token_augmentation.html.j2").read_text("utf-8")
    data, device = config["data"], config.get("device") or {}
    titles = {"name": "Data set", "n_flows": "Flows", "group": "Folds keep together"}
    settings = {
        "train_share": "Share of training flows",
        "folds": "Folds",
        "seeds": "Seeds",
        "steps": "Steps of networks",
        "trees": "Rounds of XGBoost",
        "pool": "Generated flows of a kind",
    }
    where = {"Git revision": config.get("git_revision")} | flatten(config.get("versions") or {})
    if device:
        where["Device"] = f"{device.get('count')} x {device.get('kind')}"
    return environment.from_string(template).render(
        simulated=data["source"] == "simulated",
        data_name=str(data.get("name", "unnamed")),
        notice=data.get("notice"),
        sentences=answer(cells, choices),
        share=config.get("train_share", 1.0),
        choices=[
            {"words": _words(one), "score": f"{100 * one.score:.2f}", "differences": _differences(one)}
            for one in choices
        ],
        picture=picture,
        grids=[
            {
                "title": f"{classifier}, {metric}",
                "none": _none_text(own),
                "ratios": ratios_of(own),
                "rows": [(title, [row[ratio].gain for ratio in ratios_of(own)]) for title, row in rows_of(own)],
            }
            for classifier, metric, own in grouped(cells)
        ],
        facts={
            "Data": {title: data[key] for key, title in titles.items() if data.get(key) is not None}
            | {"Classes": len(data.get("class_names") or [])},
            "Test": {title: config[key] for key, title in settings.items() if config.get(key) is not None},
            "Where it ran": {title: value for title, value in where.items() if value is not None},
        },
        command=command_text(config.get("command")),
        config_text=json.dumps(config, indent=2, default=str, ensure_ascii=False),
    )


def _flat(cells: Sequence[Cell], choices: Sequence[Choice], config: Mapping[str, Any]) -> dict[str, Any]:
    """Flat keys for report.json, fractions."""
    data = config["data"]
    flat: dict[str, Any] = {"data.source": data["source"], "data.name": data.get("name"), "seed": config.get("seed")}
    flat |= {"n": len(config.get("folds") or []) * len(config.get("seeds") or [])}

    def put(key: str, found: Difference) -> None:
        flat.update({key: found.mean, f"{key}_low": found.low, f"{key}_high": found.high})

    for one in choices:
        base = f"chosen.{one.classifier}.{one.method}.{one.metric}"
        flat[base] = one.score
        put(f"{base}_gain", one.gain)
        put(f"{base}_lead", one.lead)
        put(f"{base}_lead_best", one.lead_best)
    for cell in cells:
        kind = cell.kind
        temperature = "" if kind.temperature is None else f"-t{kind.temperature:g}"
        base = f"cell.{cell.classifier}.{kind.method}{temperature}-{kind.labels}-x{kind.ratio:g}.{cell.metric}"
        flat[base] = cell.score
        put(f"{base}_gain", cell.gain)
    return flat


def _none_text(own: Sequence[Cell]) -> str:
    return next(f"{100 * cell.score:.2f} %" for cell in own if cell.kind.method == "none")


def _words(one: Choice) -> list[str]:
    chosen = ", ".join(map(kind_text, one.kinds))
    return [title_of(one.classifier), METRICS[one.metric], title_of(one.method), chosen]


def _differences(one: Choice) -> list[Difference]:
    return [one.gain, one.lead, one.lead_best]


def _bold(found: Difference) -> str:
    return f"**{found.text}**" if found.sign else found.text
