"""Packet series together with what else is known of each flow and what was dropped on the way."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.flow_block import FlowBlock
from jaxtraffic.datasets.labels import LabelIndex
from jaxtraffic.datasets.ragged import pad
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.series import PacketSeries

SECONDS_OF_A_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class LabelledFlows:
    """Flows, facts and counts.

    Attributes:
        flows: packet series.
        facts: one row a flow, columns out of `flow_block.FACTS`: times, ports, captures, partitions, ...
        left_out: what readers left out: "packets without payload" and the like -> how many.
    """

    flows: PacketSeries
    facts: pl.DataFrame
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """Number of flows."""
        return len(self.flows)

    def __getitem__(self, index: np.ndarray) -> LabelledFlows:
        """Flows chosen by a boolean or an integer array; counts stay."""
        chosen = np.flatnonzero(index) if index.dtype == bool else index
        return dataclasses.replace(self, flows=self.flows[index], facts=self.facts[chosen])


def from_blocks(blocks: Iterable[FlowBlock], path: str | Path, *, name: str, length: int) -> LabelledFlows:
    """Collects the blocks of one source, with its classes in alphabetical order.

    Args:
        blocks: what a reader yields.
        path: the source, for messages.
        name: of the data set.
        length: packet positions.

    Raises:
        DataError: the blocks do not agree on the layer of their sizes.
    """
    labels, parts, facts, counts, layers, sources = LabelIndex(), [], [], Counter(), set(), set()
    for block in blocks:
        counts.update(block.dropped)
        if not len(block):
            continue
        layers.add(block.size_layer)
        sources.add(block.source)
        labels.add(block.label)
        facts.append(block.facts)
        parts.append(pad(block.packets, length, iat_per_second=1))
    if len(layers) > 1:
        raise DataError(path, f"sizes of several layers: {', '.join(sorted(layers))}", expected="one layer")
    label, names = labels.finish()
    empty = (np.zeros((0, length), np.int16), np.zeros((0, length), np.int8), np.zeros((0, length), np.float32))
    size, direction, iat = (np.concatenate(column) for column in zip(*parts)) if parts else empty
    flows = PacketSeries(
        size,
        direction,
        iat,
        label,
        class_names=names,
        name=name,
        size_layer=layers.pop() if layers else "payload",
        source="simulated" if "simulated" in sources else "real",
    )
    frame = pl.concat(facts, how="diagonal") if facts else pl.DataFrame({"packets": pl.Series([], dtype=pl.Int64)})
    # not checked again: the values have passed `make_block`
    return LabelledFlows(flows, frame, dict(counts))


def merge(parts: Sequence[LabelledFlows], path: str | Path) -> LabelledFlows:
    """Joins parts of one set, flow after flow; classes in alphabetical order, counts of one name added up.

    Where every part has groups they stay, and those of different parts are different.

    Raises:
        DataError: parts of different length or size layer.
    """
    if len(parts) == 1:
        return parts[0]
    full = [part for part in parts if len(part)] or list(parts[:1])
    first = full[0].flows
    for part in full[1:]:
        for field in ("length", "size_layer"):
            if getattr(part.flows, field) != getattr(first, field):
                raise DataError(
                    path,
                    f"parts disagree: {field} {getattr(first, field)} and {getattr(part.flows, field)}",
                    expected="parts that were read or converted with the same options",
                )
    names = tuple(sorted({name for part in full for name in part.flows.class_names}))
    number = {name: index for index, name in enumerate(names)}
    label = [
        np.array([number[name] for name in part.flows.class_names], np.int32)[part.flows.label]
        if len(part)
        else part.flows.label
        for part in full
    ]
    arrays = {
        field: np.concatenate([getattr(part.flows, field) for part in full]) for field in ("size", "direction", "iat")
    }
    flows = first.replace(
        **arrays,
        label=np.concatenate(label),
        group=_groups_apart([part.flows.group for part in full]),
        class_names=names,
        source="simulated" if any(part.flows.source == "simulated" for part in full) else first.source,
    )
    facts = pl.concat([part.facts for part in full], how="diagonal")
    return LabelledFlows(flows, facts, dict(sum((Counter(part.left_out) for part in parts), Counter())))


def cut_to(table: LabelledFlows, length: int | None, place: Path) -> LabelledFlows:
    """The first `length` packets of the flows of a converted folder; None: all that are there.

    Raises:
        ConfigError: more packets than were converted.
    """
    flows = table.flows
    if length is None or length == flows.length:
        return table
    if length > flows.length:
        raise ConfigError(f"{place} holds {flows.length} packets of a flow, not {length}; convert it again")
    cut = {name: np.ascontiguousarray(getattr(flows, name)[:, :length]) for name in ("size", "direction", "iat")}
    return dataclasses.replace(table, flows=flows.replace(**cut))


def _groups_apart(groups: Sequence[np.ndarray | None]) -> np.ndarray | None:
    if any(group is None for group in groups):
        return None
    apart, used = [], 0
    for group in groups:
        # numbered from 0 on, so that adding up stays small whatever the numbers are
        distinct, number = np.unique(group, return_inverse=True)
        apart.append((number + used).astype(np.int32))
        used += distinct.size
    return np.concatenate(apart)


def grouped_by_capture(table: LabelledFlows) -> LabelledFlows:
    """Flows of one capture share a group, where captures are known and hold more than one flow each."""
    if "capture" not in table.facts.columns:
        return table
    capture = table.facts["capture"]
    if capture.null_count() or capture.n_unique() in (1, len(table)):
        return table
    group = capture.rank("dense").cast(pl.Int32).to_numpy() - 1
    return dataclasses.replace(table, flows=table.flows.replace(group=group))


def dated(table: LabelledFlows) -> LabelledFlows:
    """Flows whose recording period no file name says get the day (UTC) on which they start, for splits by time."""
    if "start" not in table.facts.columns:
        return table
    day = (pl.col("start") / SECONDS_OF_A_DAY).floor().cast(pl.Int32, strict=False)
    known = pl.coalesce("day", day) if "day" in table.facts.columns else day
    return dataclasses.replace(table, facts=table.facts.with_columns(known.alias("day")))
