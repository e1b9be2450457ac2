"""Our own parquet as a data set: one file, a folder of files, or a converted folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.conversion import converted_sources, is_converted, read_converted
from jaxtraffic.datasets.dataset import Dataset
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, check_layer, make_block
from jaxtraffic.datasets.interchange import OURS, read_labelled
from jaxtraffic.datasets.labelled import LabelledFlows, cut_to, merge
from jaxtraffic.datasets.ragged import Ragged
from jaxtraffic.errors import ConfigError, DataError


def find(place: Path) -> list[Path]:
    """The file itself, the parquet files of a folder (not searched deeper), or the shards of a conversion."""
    if place.is_dir():
        return converted_sources(place)[1] if is_converted(place) else sorted(place.glob("*.parquet"))
    return [place]


def read(path: Path, options: ReadOptions) -> Iterator[FlowBlock]:
    """Yields the flows of one file as a block."""
    table = read_labelled(path, length=options.length, allow_empty=True)
    flows = table.flows
    check_layer(options, (flows.size_layer,), str(path))
    mask = flows.mask
    packets = Ragged(mask.sum(axis=1, dtype=np.int64), flows.size[mask], flows.direction[mask], flows.iat[mask])
    names = pl.Series(flows.class_names, dtype=pl.String)
    facts = {name: table.facts[name] for name in table.facts.columns}
    if flows.group is not None and "capture" not in facts:
        # blocks have no groups: as captures they go with the flows, and flows of one group stay together
        facts["capture"] = [f"{path.name} group {number}" for number in flows.group.tolist()]
    label = names[flows.label]
    yield make_block(packets, label, facts, options, path, OURS, size_layer=flows.size_layer, source=flows.source)


def read_place(place: Path, *, group: str | None = None, length: int | None = None) -> LabelledFlows:
    """Reads a file (as `read_parquet`, with its own order of classes), a folder of files or a converted folder.

    Raises:
        DataError: see `read_parquet`.
        ConfigError: group together with a folder.
    """
    if not place.is_dir():
        return read_labelled(place, group=group, length=length)
    if group is not None:
        raise ConfigError("group names a column of one parquet file; a folder has the captures of its facts")
    if is_converted(place):
        return cut_to(read_converted(place), length, place)
    files = find(place)
    if not files:
        raise DataError(place, "no parquet file in this folder", remedy="name a file, or a folder of *.parquet files")
    return merge([read_labelled(path, length=length) for path in files], place)


PARQUET = Dataset(
    name="parquet",
    title="labelled flows of your own in a parquet file",
    obtain="write a file with the columns size, direction, iat and label, or app, pkts_size, pkts_dir and pkts_iat",
    licence="yours",
    find=find,
    read=read,
    size_layers=("ip", "payload"),
    min_packets=10,
    min_flows=10,
    needs_path=True,
)
