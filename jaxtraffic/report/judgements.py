"""The rows in which pages and terminals show judgements beside their references."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxtraffic.report.goals import TARGETS, Group, Metric
from jaxtraffic.report.metrics import GROUPS, METRICS

THIS_RUN = ""
GENERATED = "generated"
"""Name of this run's set among curves; its figures carry no prefix."""
TITLES = {
    "fresh_real": "fresh real",
    "bootstrap": "bootstrap copy",
    "marginals": "marginals",
    "random_half": "random half",
    "capture_half": "capture half",
}
REAL_SETS = ("fresh_real", "bootstrap", "random_half", "capture_half")
_MODELS = {
    "xgboost": "XGBoost",
    "random_forest": "random forest",
    "naive_bayes": "naive Bayes",
    "mlp": "MLP",
    "resnet": "ResNet",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One value of the table: its text, its standard error as text ("" where none), and whether it is the best."""

    text: str
    stderr: str
    best: bool


MISSING = "\N{EN DASH}"
"""Text of a cell without a value."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric with a cell for each column; a heading of the rows below it has none."""

    metric: Metric
    n: int | None
    cells: tuple[Cell, ...]

    @property
    def below(self) -> bool:
        """Whether it varies the row above it."""
        return bool(self.metric.short)


@dataclasses.dataclass(frozen=True)
class Section:
    """Rows of one group of metrics, with a cell for every column."""

    group: Group
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table: its key, title, and whether its flows are real rather than generated."""

    key: str
    title: str
    real: bool


def columns_of(judgements: Mapping[str, Any], this_run: str) -> list[Column]:
    """This run first, then fresh real, bootstrap copy, marginals and whatever other references were judged."""
    found = dict.fromkeys(key.split(".")[1] for key in judgements if key.startswith("reference."))
    order = [name for name in TITLES if name in found] + [name for name in found if name not in TITLES]
    columns = [Column(name, TITLES.get(name, name), name in REAL_SETS) for name in order]
    return [Column(THIS_RUN, f"{this_run} (this run)", False), *columns]


def rows_of(judgements: Mapping[str, Any], columns: Sequence[Column]) -> list[Row]:
    """Rows of `METRICS` that at least one column has a value for; the best is chosen among generated sets only."""
    return _rows(judgements, columns, METRICS)


def headline_rows(judgements: Mapping[str, Any], columns: Sequence[Column]) -> list[Row]:
    """The few rows that are read first; all there are where none of these was judged."""
    rows = _rows(judgements, columns, [metric for metric in METRICS if metric.headline])
    return [dataclasses.replace(row, metric=dataclasses.replace(row.metric, short="")) for row in rows] or rows_of(
        judgements, columns
    )


def sections_of(judgements: Mapping[str, Any], columns: Sequence[Column]) -> list[Section]:
    """All rows by group, in the order of `GROUPS`; groups of which nothing was judged are left out."""
    rows = rows_of(judgements, columns)
    sections = (Section(group, tuple(row for row in rows if row.metric.group == group.key)) for group in GROUPS)
    return [section for section in sections if section.rows]


def per_class_f1(judgements: Mapping[str, Any]) -> list[tuple[str, float, float, int]]:
    """(class name, F1 trained on real, F1 trained on generated, test flows) of each class that was tested."""
    start, end = "utility.per_class.", ".f1_real"
    names = [key[len(start) : -len(end)] for key in judgements if key.startswith(start) and key.endswith(end)]
    rows = []
    for name in names:
        values = [number_of(judgements, f"{start}{name}.{figure}") for figure in ("f1_real", "f1_synthetic", "n_test")]
        if values[0] is not None and values[1] is not None:
            rows.append((name, values[0], values[1], int(values[2] or 0)))
    return rows


def number_of(judgements: Mapping[str, Any], key: str | None, column: str = THIS_RUN) -> float | None:
    """A finite figure of this run or of a reference; None where there is none."""
    if key is None:
        return None
    value = judgements.get(f"reference.{column}.{key}" if column else key)
    return float(value) if isinstance(value, numbers.Real) and math.isfinite(value) else None


def number_text(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A figure with a true minus, and a plus where it is `signed`; what rounds to 0 has no sign."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def multiples_of(judgements: Mapping[str, Any], pattern: str, column: str = THIS_RUN) -> list[tuple[str, float]]:
    """(what `*` stands for, figure) of the keys that fit a pattern: models in their order, multiples rising."""
    prefix = f"reference.{column}." if column else ""
    names = _names(judgements, pattern, [prefix])
    found = ((name, number_of(judgements, pattern.replace("*", name), column)) for name in names)
    return [(name, value) for name, value in found if value is not None]


def _rows(judgements: Mapping[str, Any], columns: Sequence[Column], metrics: Iterable[Metric]) -> list[Row]:
    prefixes = [f"reference.{column.key}." if column.key else "" for column in columns]
    rows = []
    for metric in metrics:
        if "*" not in metric.key:
            row = _row(judgements, columns, metric)
            rows += [] if row is None else [row]
            continue
        expanded = [_expand(metric, name) for name in _names(judgements, metric.key, prefixes)]
        found = [row for row in (_row(judgements, columns, one) for one in expanded) if row is not None]
        if found:
            rows += [Row(metric, None, ()), *found]
    return rows


def _row(judgements: Mapping[str, Any], columns: Sequence[Column], metric: Metric) -> Row | None:
    values = [number_of(judgements, metric.key, column.key) for column in columns]
    if all(value is None for value in values):
        return None
    generated = [None if column.real else value for value, column in zip(values, columns)]
    real = [number_of(judgements, metric.key, name) for name in TARGETS]
    best = metric.best(generated, next((value for value in real if value is not None), None))
    errors = [number_of(judgements, metric.stderr, column.key) for column in columns]
    cells = tuple(
        Cell(
            MISSING if value is None else number_text(value, metric.digits, signed=metric.signed),
            "" if error is None else number_text(error, metric.digits),
            index in best,
        )
        for index, (value, error) in enumerate(zip(values, errors))
    )
    n = number_of(judgements, metric.n)
    return Row(metric, None if n is None else int(n), cells)


def _expand(metric: Metric, name: str) -> Metric:
    multiple = re.fullmatch(r"\d+", name)
    short = f"{name} \N{MULTIPLICATION SIGN}" if multiple else _MODELS.get(name, name.replace("_", " "))
    return dataclasses.replace(
        metric,
        key=metric.key.replace("*", name),
        stderr=metric.stderr and metric.stderr.replace("*", name),
        title=f"{metric.title}, {short}",
        short=short,
        meaning="",
        blind_spot="",
    )


def _names(judgements: Mapping[str, Any], pattern: str, prefixes: Sequence[str]) -> list[str]:
    """What `*` stands for in the keys that fit, behind any of the prefixes; known models first, numbers rising."""
    before, after = pattern.split("*")
    found = set()
    for prefix in prefixes:
        for key in judgements:
            if key.startswith(prefix + before) and key.endswith(after):
                name = key[len(prefix + before) : len(key) - len(after)]
                found |= {name} if name and "." not in name else set()
    known = list(_MODELS)
    return sorted(found, key=lambda name: (known.index(name) if name in known else len(known), len(name), name))
