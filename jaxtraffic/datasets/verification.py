"""A set on disk against the figures that its publishers, or those who measured it, give."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from jaxtraffic.datasets.dataset import Dataset, Published
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.reading import each

_SMALLEST = "flows of the smallest class"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What sources hold, before any curation.

    Attributes:
        sources: how many were read.
        files: captures that flows came from, where captures are known, else sources.
        flows: flows in them.
        flows_per_class: class name -> flows.
        flows_per_partition: partition -> flows, where the set has partitions.
        flows_per_day: days since 1970 -> flows, where the set is organised by day.
        packets: packets of the whole flows, where known.
        left_out: what the reader left out.
        size_layers: layers of the sizes.
    """

    sources: int = 0
    files: int = 0
    flows: int = 0
    flows_per_class: Counter[str] = dataclasses.field(default_factory=Counter)
    flows_per_partition: Counter[str] = dataclasses.field(default_factory=Counter)
    flows_per_day: Counter[int] = dataclasses.field(default_factory=Counter)
    packets: int = 0
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    size_layers: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        what: "flows", "class X", "partition Y", ...
        published: the figure, None where none was published.
        found: what is on disk.
        verdict: "match", "differs", "part" (fewer, in a set of which a part is enough), "missing", "unknown" (a class
            or partition that should not be there), "not published".
    """

    what: str
    published: int | None
    found: int | None
    verdict: str


def summarise(
    dataset: Dataset,
    sources: Sequence[Path],
    *,
    size_layer: str | None = None,
    workers: int | None = None,
    report: Callable[[Summary], None] | None = None,
) -> Summary:
    """Reads every source whole and counts; `report` is called with the counts of each source, in order.

    Raises:
        DataError: a source that cannot be read.
    """
    parts = []
    options = ReadOptions(length=dataset.length, size_layer=size_layer)
    for part in each(_summarise_source, dataset, sources, options, workers=workers):
        parts.append(part)
        if report is not None:
            report(part)
    return _add(parts)


def verify(dataset: Dataset, found: Summary) -> list[Check]:
    """Compares counts with the published ones.

    Args:
        dataset: entry of the catalogue.
        found: of `summarise`.

    Returns:
        One check for each figure that is published or found: totals first, then partitions, then classes by flows.
    """
    published = dataset.published or Published(source="none")
    counts = list(found.flows_per_class.values())
    checks = [
        _check("files", published.files, found.files, published),
        _check("flows", published.flows, found.flows, published),
        _check("classes", published.classes, len(counts), published),
        _check(_SMALLEST, published.smallest, min(counts, default=0), published),
        _check("flows of the largest class", published.largest, max(counts, default=0), published),
    ]
    checks += _table("partition", published.flows_per_partition, found.flows_per_partition, published)
    checks += _table("class", published.flows_per_class, found.flows_per_class, published)
    return checks


def holds(checks: Iterable[Check]) -> bool:
    """Whether nothing differs, is missing or should not be there."""
    return not any(check.verdict in ("differs", "missing", "unknown") for check in checks)


def _table(noun: str, expected: Any, found: Counter[str], published: Published) -> list[Check]:
    checks = []
    for name in sorted({*expected, *found}, key=lambda name: (-max(found[name], expected.get(name, 0)), name)):
        what = f"{noun} {name}"
        if name not in expected and expected:
            checks.append(Check(what, None, found[name], "unknown"))
        elif name not in found:
            checks.append(Check(what, expected[name], None, "missing" if published.complete else "part"))
        else:
            checks.append(_check(what, expected.get(name), found[name], published))
    return checks


def _check(what: str, expected: int | None, found: int, published: Published) -> Check:
    if expected is None:
        return Check(what, None, found, "not published")
    if expected == found:
        return Check(what, expected, found, "match")
    if what == _SMALLEST and not published.complete:
        # the smallest class of a part may be one that is not the smallest of the whole
        return Check(what, expected, found, "part")
    return Check(what, expected, found, "part" if found < expected and not published.complete else "differs")


def _summarise_source(dataset: Dataset, source: Path, options: ReadOptions) -> Summary:
    summary = Summary(sources=1)
    classes, partitions, days, left_out = Counter(), Counter(), Counter(), Counter()
    flows, packets, layers, captures = 0, 0, set(), set()
    for block in dataset.read(source, options):
        left_out.update(block.dropped)
        flows += len(block)
        if len(block):
            layers.add(block.size_layer)
        classes.update(_counts(block.label))
        for name, counter in (("partition", partitions), ("day", days)):
            if name in block.facts.columns:
                counter.update(_counts(block.facts[name].drop_nulls()))
        if "capture" in block.facts.columns:
            captures.update(block.facts["capture"].drop_nulls().unique())
        packets += int(block.facts["packets"].sum() or 0)
    return dataclasses.replace(
        summary,
        files=len(captures) or 1,
        flows=flows,
        flows_per_class=classes,
        flows_per_partition=partitions,
        flows_per_day=days,
        packets=packets,
        left_out=left_out,
        size_layers=frozenset(layers),
    )


def _counts(values: pl.Series) -> dict[Any, int]:
    return dict(values.value_counts(name="n").iter_rows())


def _add(parts: Sequence[Summary]) -> Summary:
    def total(field: str) -> Any:
        values = [getattr(part, field) for part in parts]
        return sum(values, Counter()) if values and isinstance(values[0], Counter) else sum(values)

    if not parts:
        return Summary()
    fields = {field.name: total(field.name) for field in dataclasses.fields(Summary) if field.name != "size_layers"}
    return Summary(**fields, size_layers=frozenset().union(*(part.size_layers for part in parts)))
