"""Tables 8.10 to 8.14 from the results of a benchmark of generators: cells, means, deviations, the best in bold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.goals import TARGETS, Metric
from jaxtraffic.report.metrics import METRICS
from jaxtraffic.report.published_generators import DATASETS, TABLES, PublishedScore, published_row

__all__ = [
    "COLUMNS",
    "LAYOUTS",
    "Cell",
    "Column",
    "Half",
    "Part",
    "Row",
    "Table",
    "build",
    "column_of",
    "columns_of",
    "marked",
    "means",
    "metric_of",
    "score",
]

REAL, GENERATED, HAND_CRAFTED = "Real flows", "Generated", "Hand-crafted"
F1_ON_REAL = "real_f1"
"""Column of the F1 that gaps and gains start from; no set of its own."""


class Column(NamedTuple):
    """A column: its key in the results, its title and its group; `ours` is False for what only the thesis judged."""

    name: str
    title: str
    group: str
    ours: bool = True


COLUMNS = (
    Column(F1_ON_REAL, "F1, real", REAL),
    Column("fresh_real", "fresh real", REAL),
    Column("random_half", "random half", REAL),
    Column("capture_half", "half by capture", REAL),
    Column("bootstrap", "bootstrap copy", REAL),
    Column("token_s4", "token S4", GENERATED),
    Column("masked_s4", "masked S4", GENERATED),
    Column("ddpm_s4", "DDPMS4", GENERATED),
    Column("flow_s4", "rectified flow", GENERATED),
    Column("tabddpm", "TabDDPM", GENERATED, ours=False),
    Column("imagentime", "ImagenTime", GENERATED, ours=False),
    Column("marginals", "marginals", GENERATED),
    Column("translation", "Translate", HAND_CRAFTED),
    Column("wrap", "Wrap", HAND_CRAFTED),
    Column("gaussian_noise", "Gaussian", HAND_CRAFTED),
)
"""All columns in order; a table has those that it has values for."""


class Half(NamedTuple):
    """One metric of a table.

    Attributes:
        key: in report.json.
        heading: of the half.
        base: key of the F1 on real flows that it starts from, if any.
        published_real: our column for what the thesis measured of real flows, if it did.
        meaning: in place of the metric's own line, where that speaks of another table.
    """

    key: str
    heading: str
    base: str | None = None
    published_real: str | None = None
    meaning: str = ""


class Layout(NamedTuple):
    """A table of the thesis: number, title, the name of its file, its halves."""

    number: str
    title: str
    name: str
    halves: tuple[Half, ...]


_WEIGHTED, _MACRO = "utility.weighted_f1_real", "utility.macro_f1_real"

LAYOUTS = (
    Layout(
        "8.10",
        "Utility: trained on generated flows, tested on real ones",
        "utility",
        (
            Half(
                "utility.weighted_f1_gap",
                "Weighted F1 gap",
                _WEIGHTED,
                F1_ON_REAL,
                "F1 of XGBoost trained on generated flows minus that of XGBoost trained on real ones, on real test "
                "flows: 0 is as useful as real flows. Fresh real: one half of the training flows against the other.",
            ),
            Half("utility.macro_f1_gap", "Macro F1 gap", _MACRO, F1_ON_REAL),
        ),
    ),
    Layout(
        "8.11",
        "Augmentation: trained on real and generated flows together",
        "augmentation",
        (
            Half("augmentation.weighted_f1_gain", "Weighted F1 gain", _WEIGHTED, F1_ON_REAL),
            Half("augmentation.macro_f1_gain", "Macro F1 gain", _MACRO, F1_ON_REAL),
        ),
    ),
    Layout(
        "8.12",
        "Telling generated flows from real ones",
        "discriminative",
        (
            Half("discriminative.score", "Discriminative score"),
            Half(
                "discriminative.distinct_score",
                "Discriminative score, every sequence once",
                meaning="The same with repeated sequences removed from both sides, so it does not see wrong "
                "frequencies of right sequences.",
            ),
        ),
    ),
    Layout(
        "8.13",
        "Density of positions and correlation of pairs",
        "density",
        (
            Half("density.ks_complement", "Feature-wise density (Kolmogorov-Smirnov complement)"),
            Half("correlation.similarity", "Pairwise correlation (Pearson similarity)"),
        ),
    ),
    Layout(
        "8.14",
        "Alpha-precision and beta-recall",
        "coverage",
        (
            Half("coverage.alpha_precision", "Alpha-precision", None, "fresh_real"),
            Half("coverage.beta_recall", "Beta-recall", None, "fresh_real"),
            Half(
                "coverage.matched.beta_recall",
                "Beta-recall, equal numbers",
                meaning="The same with as many flows in every column: where sequences repeat, beta-recall grows "
                "with their number, and fresh real flows are fewer than generated ones.",
            ),
        ),
    ),
)


class Cell(NamedTuple):
    """A value and its deviation in per cent or points, NaN where there is none, and whether it is the best."""

    mean: float
    sd: float
    best: bool = False

    @property
    def text(self) -> str:
        """As tables show it."""
        if not math.isfinite(self.mean):
            return "\N{EN DASH}"
        # no minus before a zero
        text = f"{self.mean + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "\N{MINUS SIGN}")
        return text + (f" \N{PLUS-MINUS SIGN} {self.sd:.2f}" if math.isfinite(self.sd) else "")


_NONE = Cell(math.nan, math.nan)


class Row(NamedTuple):
    """A data set's tier, an average, or what the thesis has for them."""

    title: str
    published: bool
    cells: tuple[Cell, ...]


class Part(NamedTuple):
    """One half of a table, ready to be shown; `thesis` are all rows that the thesis prints for it."""

    heading: str
    meaning: str
    metric: Metric
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    thesis: tuple[Row, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(group, columns) in order, for the first line of the head."""
        names = [column.group for column in self.columns]
        return [(name, names.count(name)) for name in dict.fromkeys(names)]


class Table(NamedTuple):
    """A table of the thesis, ready to be shown."""

    layout: Layout
    parts: tuple[Part, ...]


def build(results: Sequence[Mapping[str, Any]], sets: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """All tables that the results have values for.

    Args:
        results: lines of results.jsonl: dataset, fold, seed, set, draw, figures.
        sets: what config.json says of each data set: dataset (our name), tier, source.

    Raises:
        ConfigError: no results.
    """
    if not results:
        raise ConfigError("a benchmark of generators needs at least one result")
    tables = []
    for layout in LAYOUTS:
        parts = [part for half in layout.halves if (part := _part(half, results, sets))]
        if parts:
            tables.append(Table(layout, tuple(parts)))
    return tables


def means(results: Iterable[Mapping[str, Any]], name: str, key: str) -> np.ndarray:
    """[run] values of a figure of a set, as fractions; runs without it are left out."""
    values = [run["figures"].get(key) for run in results if run["set"] == name]
    return np.array([value for value in values if value is not None], np.float64)


def score(results: Sequence[Mapping[str, Any]], dataset: str, column: str, half: Half) -> Cell:
    """Mean and standard deviation over folds, seeds and draws of what a column shows for a data set."""
    runs = [run for run in results if run["dataset"] == dataset]
    if column == F1_ON_REAL:
        # the same classifier stands behind every generated set of a run: any of them holds its F1, each draw the same
        runs = [run for run in runs if not run["draw"]]
        generated = {name for name, *_ in COLUMNS[4:]}
        name = next((run["set"] for run in runs if run["set"] in generated and half.base in run["figures"]), None)
        values = means(runs, name, half.base) if name and half.base else np.array([])
    else:
        values = means(runs, column, half.key)
    if not len(values):
        return _NONE
    return Cell(100 * float(values.mean()), 100 * float(values.std(ddof=1)) if len(values) > 1 else math.nan)


def column_of(name: str) -> Column:
    """The column of a set."""
    return next((column for column in COLUMNS if column.name == name), Column(name, name, GENERATED))


def columns_of(results: Iterable[Mapping[str, Any]]) -> list[Column]:
    """All columns in order, those of unknown sets last."""
    known = {column.name for column in COLUMNS}
    others = [name for name in dict.fromkeys(run["set"] for run in results) if name not in known]
    return [*COLUMNS, *map(column_of, others)]


def metric_of(half: Half) -> Metric:
    """What the tables of judgements say of a metric."""
    return next(metric for metric in METRICS if metric.key == half.key)


def _part(half: Half, results: Sequence[Mapping[str, Any]], sets: Mapping[str, Mapping[str, Any]]) -> Part | None:
    metric, columns = metric_of(half), columns_of(results)
    ours = [column for column in columns if column.ours]
    found = {word: {column.name: score(results, word, column.name, half) for column in ours} for word in sets}
    if not any(_has(cell) for row in found.values() for name, cell in row.items() if name != F1_ON_REAL):
        return None
    published = TABLES.get(half.key)
    in_thesis = set()
    if published:
        in_thesis = {half.published_real if name == "real" else name for name in published.average}
    shown = tuple(
        column
        for column in columns
        if column.name in in_thesis or (column.ours and any(_has(row[column.name]) for row in found.values()))
    )
    rows = []
    for word, cells in found.items():
        rows.append(
            marked(Row(_title(sets[word], word), False, tuple(cells.get(c.name, _NONE) for c in shown)), shown, metric)
        )
        if sets[word].get("source") == "real":
            theirs = published_row(half.key, str(sets[word].get("dataset")), str(sets[word].get("tier")))
            if theirs:
                rows.append(_published("thesis", theirs, shown, half))
    if len(found) > 1:
        rows.append(marked(_average(found.values(), shown), shown, metric))
    thesis = []
    if published:
        rows.append(_published("thesis, average", published.average, shown, half))
        thesis = [
            _published(f"{DATASETS[name]}, {_tier(tier)}", row, shown, half)
            for (name, tier), row in published.rows.items()
        ]
    return Part(half.heading, half.meaning or metric.meaning, metric, shown, tuple(rows), tuple(thesis))


def marked(row: Row, columns: Sequence[Column], metric: Metric) -> Row:
    """The row with the best generated set marked; real flows, copies of them among those, cannot win."""
    means = {column.name: cell.mean for cell, column in zip(row.cells, columns) if _has(cell)}
    real = next((means[name] for name in TARGETS if name in means), None)
    values = [
        cell.mean / 100 if _has(cell) and column.group != REAL else None for cell, column in zip(row.cells, columns)
    ]
    # by what is shown: two decimals of a per cent
    fine = dataclasses.replace(metric, digits=4)
    best = fine.best(values, None if real is None else real / 100)
    return row._replace(cells=tuple(cell._replace(best=index in best) for index, cell in enumerate(row.cells)))


def _average(found: Iterable[Mapping[str, Cell]], columns: Sequence[Column]) -> Row:
    """Mean of the data sets' means and its standard deviation over them, where every data set has a value."""
    rows = list(found)
    cells = []
    for column in columns:
        values = np.array([row[column.name].mean if column.name in row else math.nan for row in rows])
        whole = np.isfinite(values).all()
        cells.append(Cell(float(values.mean()), float(values.std(ddof=1))) if whole else _NONE)
    return Row("average", False, tuple(cells))


def _published(title: str, row: Mapping[str, PublishedScore], columns: Sequence[Column], half: Half) -> Row:
    cells = []
    for column in columns:
        found = row.get("real" if column.name == half.published_real else column.name)
        sd = math.nan if found is None or found.sd is None else found.sd
        cells.append(_NONE if found is None else Cell(found.value, sd))
    return Row(title, True, tuple(cells))


def _title(data: Mapping[str, Any], word: str) -> str:
    name = DATASETS.get(str(data.get("dataset")), str(data.get("name") or word))
    tier = str(data.get("tier", "all"))
    return f"{name}, {_tier(tier)}" if tier != "all" or name in DATASETS.values() else name


def _tier(tier: str) -> str:
    return "all classes" if tier == "all" else f"{tier} classes"


def _has(cell: Cell) -> bool:
    return math.isfinite(cell.mean)
