"""The benchmark of generators at a glance: for each data set a table, a set in each row and what matters in columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.table
from rich.text import Text

from jaxtraffic.report.generative_benchmark_tables import REAL, Half, Row, columns_of, marked, metric_of, score

__all__ = ["FIGURES", "Glance", "build_glances", "markdown", "rich_tables", "seconds_of"]

FIGURES = (
    Half("utility.weighted_f1_gap", "weighted F1 gap"),
    Half("utility.macro_f1_gap", "macro F1 gap"),
    Half("utility.capture_accuracy_gap", "accuracy gap, captures alike"),
    Half("discriminative.score", "discriminative, train"),
    Half("discriminative.held_out_score", "discriminative, held-out"),
    Half("discriminative.distinct_score", "discriminative, each once"),
    Half("coverage.alpha_precision", "alpha-precision"),
    Half("coverage.beta_recall", "beta-recall"),
    Half("fidelity.copy_rate", "copies of training"),
    Half("fidelity.distinct_share", "distinct"),
)
"""Columns: per cent or percentage points."""

COSTS = {"train_seconds": "training, s", "flows_per_s": "flows/s"}
"""Further columns, of trained models."""

ABOUT = (
    "Discriminative scores of held-out flows are to be compared with that of fresh real flows against training flows. "
    "Training is without compilation and validation, flows/s without compilation."
)


class Line(NamedTuple):
    """A set: title, whether it is of real flows, and texts with whether each is the best of its column."""

    title: str
    real: bool
    cells: tuple[tuple[str, bool], ...]


class Glance(NamedTuple):
    """The table of a data set: its name, a sentence on training time, (heading, goal) of each column, lines."""

    name: str
    note: str
    heads: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]


def build_glances(results: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> list[Glance]:
    """A table for each data set of which there are figures; sets and columns without any are left out.

    Args:
        results: lines of results.jsonl.
        config: what config.json holds: data.sets and train_seconds (of each data set, where it was given).
    """
    return [
        made
        for word in config["data"]["sets"]
        if (made := _glance(results, word, (config.get("train_seconds") or {}).get(word))).lines
    ]


def _glance(results: Sequence[Mapping[str, Any]], word: str, seconds: float | None) -> Glance:
    columns = [column for column in columns_of(results) if column.ours]
    heads, found = [], []
    for half in FIGURES:
        metric = metric_of(half)
        row = Row(word, False, tuple(score(results, word, column.name, half) for column in columns))
        heads.append((half.heading, metric.goal_text))
        found.append([(cell.text, cell.best, cell.mean) for cell in marked(row, columns, metric).cells])
    costs = [_costs(results, word, column.name) for column in columns]
    for name, heading in COSTS.items():
        heads.append((heading, ""))
        found.append([_cost(one[name]) for one in costs])
    kept = [i for i, cells in enumerate(found) if any(math.isfinite(mean) for *_, mean in cells)]
    lines = [
        Line(column.title, column.group == REAL, tuple(found[i][number][:2] for i in kept))
        for number, column in enumerate(columns)
        if any(math.isfinite(found[i][number][2]) for i in kept)
    ]
    return Glance(word, seconds_of(seconds), tuple(heads[i] for i in kept), tuple(lines))


def seconds_of(seconds: float | None) -> str:
    """How long models were trained, in a sentence."""
    if seconds is None:
        return "Each model was trained for as many steps or epochs as it says itself, not for equal times."
    return (
        f"Equal training time: {seconds:g} s for each trained model in each run, made into steps or epochs beforehand "
        "by the pace measured on its flows; a token model takes no more epochs than it is configured for."
    )


def markdown(glances: Iterable[Glance]) -> list[str]:
    """Lines for a README, the best bold."""
    lines = []
    for glance in glances:
        lines += [f"**At a glance: {glance.name}**", "", f"{glance.note} {ABOUT}", ""]
        lines.append("| | " + " | ".join(_headed(*head) for head in glance.heads) + " |")
        lines.append("|---|" + "---:|" * len(glance.heads))
        for line in glance.lines:
            cells = [f"**{text}**" if best else text for text, best in line.cells]
            lines.append(f"| {line.title} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def rich_tables(glances: Iterable[Glance]) -> list[rich.table.Table]:
    """The same for the console: real flows dim."""
    shown = []
    for glance in glances:
        grid = rich.table.Table(title=Text(f"At a glance: {glance.name}. {glance.note}"), title_justify="left")
        grid.add_column("set", no_wrap=True)
        for title, _ in glance.heads:
            grid.add_column(Text(title), justify="right")
        for line in glance.lines:
            cells = [Text(text, "bold" if best else "") for text, best in line.cells]
            grid.add_row(Text(line.title), *cells, style="dim" if line.real else "")
        shown.append(grid)
    return shown


def _headed(title: str, goal: str) -> str:
    return f"{title} ({goal})" if goal else title


def _costs(results: Iterable[Mapping[str, Any]], word: str, name: str) -> dict[str, np.ndarray]:
    """[run] values of each of `COSTS` of a set."""
    runs = [run for run in results if run["dataset"] == word and run["set"] == name and run["cost"]]
    flows = [run["figures"].get("data.n_synthetic", 0) / run["cost"]["sample_seconds"] for run in runs]
    return {
        "train_seconds": np.array([run["cost"]["train_seconds"] for run in runs]),
        "flows_per_s": np.array([rate for rate in flows if rate]),
    }


def _cost(values: np.ndarray) -> tuple[str, bool, float]:
    if not len(values):
        return "", False, math.nan
    digits = 0 if values.mean() >= 100 else 1
    text = f"{values.mean():,.{digits}f}"
    if len(values) > 1:
        text += f" \N{PLUS-MINUS SIGN} {values.std(ddof=1):,.{digits}f}"
    return text, False, float(values.mean())
