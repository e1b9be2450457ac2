"""One page on which generator is best by which measure, as Tables 8.10 to 8.14 of the thesis."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import rich.table
from rich.text import Text

from jaxtraffic.errors import ConfigError
from jaxtraffic.report import generative_benchmark_glance as glance
from jaxtraffic.report.figures import Drawing, new_figure
from jaxtraffic.report.generative_benchmark_tables import (
    F1_ON_REAL,
    GENERATED,
    HAND_CRAFTED,
    LAYOUTS,
    REAL,
    Part,
    Row,
    Table,
    build,
    column_of,
    means,
    score,
)
from jaxtraffic.report.page import command_text, fact_text, flatten
from jaxtraffic.report.published_generators import TABLES, published_row
from jaxtraffic.report.write import write_atomically, write_picture

__all__ = ["answer", "benchmark_tables", "markdown", "plain", "write_generative_benchmark"]

_COLOURS = {REAL: "#777777", GENERATED: "#1f5a99", HAND_CRAFTED: "#d9580d"}
_ABOUT = {
    "fresh_real": "real flows that no generator saw, judged as if generated: what a perfect generator scores. For "
    "utility and augmentation one half of the training flows against the other.",
    "random_half": "one random half of the training flows against the other.",
    "capture_half": "two halves of the training flows that share no capture: the shift between captures alone.",
    "bootstrap": "training flows drawn again with replacement: what a generator that only memorises scores.",
    "token_s4": "autoregressive S4 network over tokens of packet sizes, exact to the byte.",
    "masked_s4": "masked diffusion over the same tokens, with a bidirectional S4 network.",
    "ddpm_s4": "class-conditional diffusion (DDPM) on the S4 backbone, the thesis' own model.",
    "flow_s4": "rectified flow on the same backbone.",
    "marginals": "every packet position drawn by itself from its class: the baseline to beat.",
    "translation": "training flows shifted in time by a hand-crafted augmentation, each with its own magnitude.",
    "wrap": "training flows with packets interpolated, dropped or repeated, each with its own magnitude.",
    "gaussian_noise": "training flows with normal noise of their class's spread on the sizes.",
}


def write_generative_benchmark(
    folder: str | Path, *, results: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> Path:
    """Writes figures/*.png, tables.md, report.html and, last of all, report.json.

    Args:
        folder: the run folder, which exists.
        results: lines of results.jsonl: dataset, fold, seed, set, draw, data, cost, figures (fractions).
        config: what config.json holds; `data.source` must be "real" or "simulated", `data.sets` says of each data set
            of the results what it is, and `train_seconds`, where given, how long models were trained on it.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: no results, or no `data.source`.
    """
    folder, data = Path(folder), config.get("data") or {}
    if data.get("source") not in ("real", "simulated"):
        raise ConfigError(f'config data.source must be "real" or "simulated", got {data.get("source")!r}')
    tables = build(results, data["sets"])
    (folder / "report.json").unlink(missing_ok=True)
    pictures = {
        table.layout.name: write_picture(folder / "figures", drawing)
        for table in tables
        for drawing in [draw_table(table, results, data["sets"])]
    }
    glances = glance.build_glances(results, config)
    write_atomically(folder / "tables.md", markdown(tables, results, glances).encode())
    path = folder / "report.html"
    page = _render(tables, results, config, pictures, glances)
    write_atomically(path, page.encode("utf-8", errors="backslashreplace"))
    text = json.dumps(_flat(results, config), indent=2, allow_nan=False) + "\n"
    write_atomically(folder / "report.json", text.encode("ascii"))
    return path


def benchmark_tables(results: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> list[rich.table.Table]:
    """Rich tables: all at a glance, then a set in each line and a data set in each column; the best bold."""
    shown = glance.rich_tables(glance.build_glances(results, config))
    for table in build(results, config["data"]["sets"]):
        for part in table.parts:
            grid = rich.table.Table(title=Text(f"{part.heading} (Table {table.layout.number})"), title_justify="left")
            grid.add_column("set", no_wrap=True)
            for row in part.rows:
                grid.add_column(Text(row.title), justify="right", style="dim" if row.published else "")
            for index, column in enumerate(part.columns):
                cells = [Text(row.cells[index].text, "bold" if row.cells[index].best else "") for row in part.rows]
                grid.add_row(Text(column.title), *cells, style="dim" if column.group == REAL else "")
            shown.append(grid)
    return shown


def markdown(
    tables: Sequence[Table], results: Sequence[Mapping[str, Any]], glances: Sequence[glance.Glance] = ()
) -> str:
    """The tables for a README: the best bold, rows of the thesis in italics."""
    lines = [f"{_runs(results)} Per cent or percentage points.", "", *glance.markdown(glances)]
    for table in tables:
        for part in table.parts:
            goal = f" ({part.metric.goal_text})" if part.metric.goal_text else ""
            lines += [f"**{part.heading}**{goal}, as Table {table.layout.number}", ""]
            lines.append("| | " + " | ".join(column.title for column in part.columns) + " |")
            lines.append("|---|" + "---:|" * len(part.columns))
            for row in part.rows:
                mark = "*" if row.published else ""
                cells = [
                    f"**{cell.text}**" if cell.best else f"{mark}{cell.text}{mark}" if math.isfinite(cell.mean) else ""
                    for cell in row.cells
                ]
                lines.append(f"| {mark}{row.title}{mark} | " + " | ".join(cells) + " |")
            lines.append("")
    return "\n".join(lines)


def answer(results: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> str:
    """Which generator is hardest to tell from real flows, and which is most useful, in a sentence or two."""
    sets = config["data"]["sets"]
    found = {}
    for layout in LAYOUTS:
        half = layout.halves[0]
        values = {}
        for name in dict.fromkeys(run["set"] for run in results):
            rows = [score(results, word, name, half).mean for word in sets]
            if np.isfinite(rows).all():
                values[name] = float(np.mean(rows))
        found[half.key] = values
    generated = [name for name in found["discriminative.score"] if column_of(name).group == GENERATED]
    if not generated:
        return "No generator was judged, only real flows and hand-crafted fakes."
    apart, gap = found["discriminative.score"], found["utility.weighted_f1_gap"]
    least = min(generated, key=lambda name: abs(apart[name]))
    useful = max((name for name in generated if name in gap), key=lambda name: gap[name], default=None)
    said = f"Hardest to tell from real flows: {column_of(least).title}, "
    said += f"discriminative score {_points(apart[least])} points"
    said += f" (fresh real flows {_points(apart['fresh_real'])})." if "fresh_real" in apart else "."
    if useful is not None:
        said += f" Most useful to train on: {column_of(useful).title}, with a gap of {_points(gap[useful])} points of "
        said += "weighted F1 to real flows."
    return said


def draw_table(table: Table, results: Sequence[Mapping[str, Any]], sets: Mapping[str, Mapping[str, Any]]) -> Drawing:
    """Every run of every set as a dot, in a row for each set: the mean as a bar, the thesis as a diamond."""
    parts, words = table.parts, list(sets)
    names = [
        column
        for column in parts[0].columns
        if column.name != F1_ON_REAL and any(len(means(results, column.name, part.metric.key)) for part in parts)
    ]
    width, height = min(3.3 * len(parts), 7.4) + 1.2, (0.26 * len(names) + 0.75) * len(words) + 0.3
    figure, axes = new_figure(width, height, nrows=len(words), ncols=len(parts), sharey=True, squeeze=False)
    for across, word in enumerate(words):
        runs = [run for run in results if run["dataset"] == word]
        for ax, part in zip(axes[across], parts, strict=True):
            published = TABLES.get(part.metric.key)
            theirs = _published_of(part.metric.key, sets[word]) or (published.average if published else {})
            fresh = means(runs, "fresh_real", part.metric.key)
            if len(fresh):
                ax.axvline(100 * fresh.mean(), color="#aaaaaa", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            for row, column in enumerate(names):
                values, colour = 100 * means(runs, column.name, part.metric.key), _COLOURS[column.group]
                # spread by order, so that runs of equal score can be told apart
                offset = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(len(values))
                ax.plot(values, row + offset, "o", color=colour, markersize=3.6, alpha=0.5, markeredgewidth=0)
                if len(values):
                    ax.plot([values.mean()] * 2, [row - 0.32, row + 0.32], color=colour, linewidth=2)
                if column.name in theirs:
                    ax.plot([theirs[column.name].value], [row], "D", color="#555555", markersize=5, fillstyle="none")
            ax.grid(axis="x", color="#e4e4e4", linewidth=0.7)
            ax.set_axisbelow(True)
            if across == 0:
                ax.set_title(part.heading.split(" (")[0], fontsize=9.5, loc="left")
        left = axes[across][0]
        left.set_yticks(range(len(names)), [column.title for column in names], fontsize=9)
        left.set_ylim(len(names) - 0.5, -0.5)
        if len(words) > 1:
            left.set_ylabel(word, fontsize=9, parse_math=False)
    figure.supxlabel("per cent or percentage points", fontsize=9)
    caption = "Every dot is a draw of a fold and seed, the bar their mean, the dashed line fresh real flows."
    if any(part.thesis for part in parts):
        caption += " Diamond: the thesis, its row for the data set or else its average."
    return Drawing(table.layout.name, figure, caption)


def plain(value: Any) -> Any:
    """JSON without what is not finite (null instead) and without NumPy numbers."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _published_of(key: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    if data.get("source") != "real":
        return {}
    return published_row(key, str(data.get("dataset")), str(data.get("tier")))


def _render(
    tables: Sequence[Table],
    results: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    pictures: Mapping[str, Mapping[str, Any]],
    glances: Sequence[glance.Glance],
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["fact"] = fact_text
    template = importlib.resources.files(__package__).joinpath("generative_benchmark.html.j2").read_text("utf-8")
    data = config["data"]
    judged = list(dict.fromkeys(run["set"] for run in results))
    device = config.get("device") or {}
    facts = {title: config[key] for key, title in (("git_revision", "Git revision"),) if config.get(key) is not None}
    if device:
        facts["Device"] = f"{device.get('count')} x {device.get('kind')}"
    return environment.from_string(template).render(
        simulated=data["source"] == "simulated",
        data_name=str(data.get("name", "unnamed")),
        sets=[_card(word, one, results) for word, one in data["sets"].items()],
        answer=answer(results, config),
        runs=_runs(results),
        glances=glances,
        glance_about=glance.ABOUT,
        tables=[
            {
                "number": table.layout.number,
                "title": table.layout.title,
                "parts": [_part(part) for part in table.parts],
                "picture": pictures[table.layout.name],
            }
            for table in tables
        ],
        about=[(column_of(name).title, _ABOUT[name]) for name in judged if name in _ABOUT],
        costs=_costs(results),
        generators={name: flatten(one) for name, one in (config.get("generators") or {}).items()},
        title_of=lambda name: column_of(name).title,
        facts=facts | flatten(config.get("versions") or {}),
        command=command_text(config.get("command")),
        config_text=json.dumps(config, indent=2, default=str, ensure_ascii=False),
    )


def _part(part: Part) -> dict[str, Any]:
    """What the template shows of one half of a table."""

    def shown(rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [{"title": row.title, "published": row.published, "cells": row.cells} for row in rows]

    theirs = [i for i, _ in enumerate(part.columns) if any(math.isfinite(row.cells[i].mean) for row in part.thesis)]
    return {
        "heading": part.heading,
        "goal": part.metric.goal_text,
        "meaning": part.meaning,
        "blind_spot": part.metric.blind_spot,
        "columns": part.columns,
        "groups": part.groups,
        "rows": shown(part.rows),
        "thesis_columns": [part.columns[i] for i in theirs],
        "thesis": shown([row._replace(cells=tuple(row.cells[i] for i in theirs)) for row in part.thesis]),
    }


def _card(word: str, data: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The data card of a set."""
    counts = [run["data"] for run in results if run["dataset"] == word]
    facts = {
        "Source": data.get("source"),
        "Flows": data.get("n_flows"),
        "Classes": len(data.get("class_names") or []),
        "Packet sizes": {"ip": "IP total length", "payload": "transport payload"}.get(str(data.get("size_layer"))),
        "Folds keep together": data.get("group") or "nothing",
    }
    for key, title in (("data.n_train", "Training flows"), ("data.n_test", "Test flows")):
        values = [count[key] for count in counts if count.get(key) is not None]
        if values:
            facts[f"{title} (mean)"] = round(float(np.mean(values)))
    return {"name": word, "facts": facts, "notice": data.get("notice"), "simulated": data.get("source") == "simulated"}


def _costs(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean seconds of training and sampling by data set and model."""
    rows = []
    for word in dict.fromkeys(run["dataset"] for run in results):
        for name in dict.fromkeys(run["set"] for run in results):
            runs = [run for run in results if run["set"] == name and run["dataset"] == word and run.get("cost")]
            if runs:
                train, sample = (
                    float(np.mean([run["cost"][key] for run in runs])) for key in ("train_seconds", "sample_seconds")
                )
                flows = float(np.mean([run["figures"].get("data.n_synthetic", 0) for run in runs]))
                rows.append(
                    {
                        "dataset": word,
                        "model": column_of(name).title,
                        "train": train,
                        "sample": sample,
                        "rate": flows / sample if sample else 0.0,
                    }
                )
    return rows


def _flat(results: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> dict[str, Any]:
    """Flat keys for report.json: DATASET.SET.group.metric, its .sd and .n over runs; fractions, the thesis' too.

    What models took is DATASET.SET.cost.train_seconds and so on.
    """
    data = config["data"]
    flat: dict[str, Any] = {
        "data.source": data["source"],
        "data.name": data.get("name"),
        "n": len({(run["dataset"], run["fold"], run["seed"]) for run in results}),
        "folds": len({run["fold"] for run in results}),
        "seeds": len({run["seed"] for run in results}),
        "draws": len({run["draw"] for run in results}),
        "seed": config.get("seed"),
    }
    for word in data["sets"]:
        runs = [run for run in results if run["dataset"] == word]
        for name in dict.fromkeys(run["set"] for run in runs):
            for key in dict.fromkeys(key for run in runs if run["set"] == name for key in run["figures"]):
                values = means(runs, name, key)
                if len(values):
                    base = f"{word}.{name}.{key}"
                    flat |= {base: float(values.mean()), f"{base}.n": len(values)}
                    if len(values) > 1:
                        flat[f"{base}.sd"] = float(values.std(ddof=1))
            costs = [run["cost"] for run in runs if run["set"] == name and run["cost"]]
            for key in costs[0] if costs else ():
                flat[f"{word}.{name}.cost.{key}"] = float(np.mean([cost[key] for cost in costs]))
    for key, table in TABLES.items():
        flat |= {f"published.average.{name}.{key}": round(one.value / 100, 6) for name, one in table.average.items()}
    return flat


def _runs(results: Sequence[Mapping[str, Any]]) -> str:
    counts = {key: len({run[key] for run in results}) for key in ("fold", "seed", "draw")}
    if max(counts.values()) == 1:
        return "One run: one fold and one seed."
    fold, seed, draw = (f"{count} {key}{'s' if count > 1 else ''}" for key, count in counts.items())
    said = f"{fold} and {seed}" if counts["draw"] == 1 else f"{fold}, {seed} and {draw}"
    return f"Mean and standard deviation over {said}."


def _points(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "\N{MINUS SIGN}")
