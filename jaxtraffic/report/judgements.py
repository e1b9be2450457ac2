"""What each judgement means, and the rows in which pages and terminals show it beside its references."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

THIS_RUN = ""
_REAL_COLUMNS = ("fresh_real", "bootstrap")
_TITLES = {"fresh_real": "fresh real", "bootstrap": "bootstrap copy", "marginals": "marginals"}


@dataclasses.dataclass(frozen=True)
class Metric:
    """One row of the table of judgements.

    Attributes:
        key: flat key without the reference prefix.
        title: name of the row.
        goal: "zero", "higher" or "fresh real": where a good generator ends; "" where the row is there to compare with.
        meaning: one line for a reader who has not met the metric.
        blind_spot: what it cannot see, or what flatters it.
        stderr: key of its standard error, if there is one.
        n: key of the number of flows behind it, if there is one.
        digits: decimals shown.
    """

    key: str
    title: str
    goal: str
    meaning: str
    blind_spot: str
    stderr: str | None = None
    n: str | None = None
    digits: int = 3

    @property
    def goal_text(self) -> str:
        """The goal as the table shows it."""
        return {"": "", "higher": "higher", "zero": "\N{RIGHTWARDS ARROW} 0"}.get(
            self.goal, f"\N{RIGHTWARDS ARROW} {self.goal}"
        )


METRICS = (
    Metric(
        "utility.weighted_f1_real",
        "Weighted F1, trained on real flows",
        "",
        "XGBoost on real test flows: the level that the gaps below start from. Fresh real: trained on one half.",
        "Says how hard the data is, nothing about the generator.",
        n="data.n_test",
    ),
    Metric(
        "utility.weighted_f1_synthetic",
        "Weighted F1, trained on generated flows",
        "higher",
        "The same, trained on generated flows instead. Fresh real: trained on the other half of the training set.",
        "A copy of the training set scores as real flows do.",
        n="data.n_test",
    ),
    Metric(
        "utility.weighted_f1_gap",
        "Utility: weighted F1 gap",
        "higher",
        "The second row minus the first: 0 is as useful as real flows. Fresh real: one half against the other.",
        "Frequent classes and repeated flows rule it; a copy of the training set scores about 0.",
        "utility.weighted_f1_gap_stderr",
        "data.n_test",
    ),
    Metric(
        "utility.macro_f1_gap",
        "Utility: macro F1 gap",
        "higher",
        "The same, every class counting alike.",
        "Classes with a handful of test flows make it noisy.",
        "utility.macro_f1_gap_stderr",
        "data.n_test",
    ),
    Metric(
        "utility.distinct.weighted_f1_gap",
        "Utility, distinct test flows: weighted F1 gap",
        "higher",
        "The same on test flows of which no two share sequence and label.",
        "Weights rare sequences as much as frequent ones, which traffic does not.",
        "utility.distinct.weighted_f1_gap_stderr",
        "data.n_test_distinct",
    ),
    Metric(
        "utility.distinct.macro_f1_gap",
        "Utility, distinct test flows: macro F1 gap",
        "higher",
        "The same, every class counting alike.",
        "Classes with a handful of test flows make it noisy.",
        "utility.distinct.macro_f1_gap_stderr",
        "data.n_test_distinct",
    ),
    Metric(
        "augmentation.weighted_f1_gain",
        "Augmentation: weighted F1 gain",
        "higher",
        "Trained on real and generated flows together minus trained on real ones alone. Fresh real: what the second "
        "half of the training set adds to the first.",
        "Little to gain where real flows are plenty.",
        "augmentation.weighted_f1_gain_stderr",
        "data.n_test",
    ),
    Metric(
        "augmentation.macro_f1_gain",
        "Augmentation: macro F1 gain",
        "higher",
        "The same, every class counting alike.",
        "Classes with a handful of test flows make it noisy.",
        "augmentation.macro_f1_gain_stderr",
        "data.n_test",
    ),
    Metric(
        "discriminative.score",
        "Discriminative score",
        "zero",
        "Accuracy above one half of XGBoost at telling generated flows from training flows; 0.5 is worst.",
        "Copies of training flows pull it below 0. It grows with the number of flows the classifier learns from.",
        "discriminative.stderr",
        "discriminative.n_test",
    ),
    Metric(
        "discriminative.held_out_score",
        "Discriminative score, held-out flows",
        "zero",
        "The same against real flows that the generator never saw.",
        "Compare with fresh real in the row above: both learn from as many flows. Fewer flows, so noisier.",
        "discriminative.held_out_stderr",
        "discriminative.held_out_n_test",
    ),
    Metric(
        "discriminative.distinct_score",
        "Discriminative score, distinct flows",
        "zero",
        "Every sequence once, and none in both parts of the classifier's data.",
        "Does not see wrong frequencies of right sequences.",
        "discriminative.distinct_stderr",
        "discriminative.distinct_n_test",
    ),
    Metric(
        "fidelity.copy_rate",
        "Copies of training flows",
        "fresh real",
        "Share of flows whose sequence is in the training set, bit for bit.",
        "Above fresh real: the generator memorises. Below: it misses the frequent sequences.",
        n="data.n_synthetic",
    ),
    Metric(
        "fidelity.distinct_share",
        "Distinct sequences",
        "fresh real",
        "Share of distinct sequences among equally many flows of each set.",
        "Noise on a frequent sequence counts as new ones.",
        n="fidelity.n_distinct",
    ),
    Metric(
        "fidelity.zero_share",
        "Packets of size 0",
        "fresh real",
        "Share of packets inside a flow whose size is 0.",
        "Always 0 for real flows whose sizes include the IP header.",
    ),
    Metric(
        "fidelity.mean_packets",
        "Packets a flow",
        "fresh real",
        "Mean number of packets among the first 30.",
        "A mean; the figure of flow lengths shows the rest.",
        digits=2,
    ),
)
"""Rows of the table, in order. Of the discriminative family all against training flows unless the title says more."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One value of the table: its text, its standard error as text ("" where none), and whether it is the best."""

    text: str
    stderr: str
    best: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric with a cell for each column."""

    metric: Metric
    n: int | None
    cells: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table: its key, title, and whether its flows are real rather than generated."""

    key: str
    title: str
    real: bool


def columns_of(judgements: Mapping[str, Any], this_run: str) -> list[Column]:
    """This run first, then fresh real, bootstrap copy, marginals and whatever other references were judged."""
    found = dict.fromkeys(key.split(".")[1] for key in judgements if key.startswith("reference."))
    order = [name for name in _TITLES if name in found] + [name for name in found if name not in _TITLES]
    columns = [Column(name, _TITLES.get(name, name), name in _REAL_COLUMNS) for name in order]
    return [Column(THIS_RUN, f"{this_run} (this run)", False), *columns]


def rows_of(judgements: Mapping[str, Any], columns: list[Column]) -> list[Row]:
    """Rows of `METRICS` that at least one column has a value for; the best is chosen among generated sets only."""
    rows = []
    for metric in METRICS:
        values = [_number(judgements, column.key, metric.key) for column in columns]
        if all(value is None for value in values):
            continue
        target = _number(judgements, "fresh_real", metric.key)
        best = _best(metric, values, columns, target)
        cells = tuple(
            Cell(
                _text(value, metric),
                _text(_number(judgements, column.key, metric.stderr), metric, signed=False),
                index == best,
            )
            for index, (value, column) in enumerate(zip(values, columns))
        )
        n = _number(judgements, THIS_RUN, metric.n)
        rows.append(Row(metric, None if n is None else int(n), cells))
    return rows


def per_class_f1(judgements: Mapping[str, Any]) -> list[tuple[str, float, float, int]]:
    """(class name, F1 trained on real, F1 trained on generated, test flows) of each class that was tested."""
    start, end = "utility.per_class.", ".f1_real"
    names = [key[len(start) : -len(end)] for key in judgements if key.startswith(start) and key.endswith(end)]
    rows = []
    for name in names:
        values = [judgements.get(f"{start}{name}.{figure}") for figure in ("f1_real", "f1_synthetic", "n_test")]
        if values[0] is not None and values[1] is not None:
            rows.append((name, float(values[0]), float(values[1]), int(values[2] or 0)))
    return rows


def _number(judgements: Mapping[str, Any], column: str, key: str | None) -> float | None:
    if key is None:
        return None
    value = judgements.get(f"reference.{column}.{key}" if column else key)
    return float(value) if isinstance(value, numbers.Real) and math.isfinite(value) else None


def _best(metric: Metric, values: list[float | None], columns: list[Column], target: float | None) -> int | None:
    """Index of the best generated set, where at least two can be compared."""
    candidates = [i for i, (value, column) in enumerate(zip(values, columns)) if value is not None and not column.real]
    if len(candidates) < 2 or not metric.goal or (metric.goal == "fresh real" and target is None):
        return None
    if metric.goal == "higher":
        return max(candidates, key=lambda i: values[i])
    centre = 0.0 if metric.goal == "zero" else target
    return min(candidates, key=lambda i: abs(values[i] - centre))


def _text(value: float | None, metric: Metric, signed: bool = True) -> str:
    if value is None:
        return "" if not signed else "\N{EN DASH}"
    plus = "+" if signed and ("gap" in metric.key or "gain" in metric.key or "discriminative" in metric.key) else ""
    text = f"{value:{plus}.{metric.digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")
