"""What the catalogue knows of a data set: how its files are found, read, curated, verified and simulated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule of curation that looks at what is known of a flow.

    Attributes:
        name: a word, as in the table of what was dropped.
        detail: one line for people: what the flows are that it drops.
        keep: takes the facts, one row a flow; [flow] bool, which flows stay. A fact that is null keeps its flow.
    """

    name: str
    detail: str
    keep: Callable[[pl.DataFrame], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Published:
    """What the publishers, or those who measured it, say of a set as it lies on disk, before any curation.

    Attributes:
        source: where the figures stand.
        files: files that flows come from (the fact "capture"), inside archives or not.
        flows: flows.
        classes: classes, background included.
        smallest: flows of the smallest class.
        largest: flows of the largest class.
        flows_per_class: class name -> flows, where published.
        flows_per_partition: partition -> flows, where published.
        complete: False where a part of the set is enough to work with (days of a set of weeks): then fewer flows are
            no difference, and only classes and partitions that should not exist are.
    """

    source: str
    files: int | None = None
    flows: int | None = None
    classes: int | None = None
    smallest: int | None = None
    largest: int | None = None
    flows_per_class: Mapping[str, int] = dataclasses.field(default_factory=dict)
    flows_per_partition: Mapping[str, int] = dataclasses.field(default_factory=dict)
    complete: bool = True


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, or a format.

    Attributes:
        name: as on the command line, snake_case.
        title: one line of what it is.
        obtain: how a user gets the real data, and where they belong.
        licence: of the data.
        find: takes a folder (a data root, the folder of the set, or a part of it) or a file, and gives the sources in
            order: files, archives or folders that are read one by one, in parallel processes. Empty: nothing found.
        read: takes a source and yields blocks of flows. Must be picklable: a function of a module, or a
            functools.partial of one.
        size_layers: what the sizes can be, the usual one first.
        length: packets of a flow that are kept where the user does not say.
        payload_only: whether curation leaves out packets without payload.
        rules: rules of curation on facts, in order.
        min_packets: packets a flow needs.
        min_flows: flows a class needs; None: 500, or 200 in sets under 100,000 flows (the thesis).
        has_times: False where the set has no times at all: IATs are 0 and mean nothing.
        published: figures to verify against.
        days: sources that are read where the user does not say, earliest first, for sets organised by day; None: all.
        stand_in: takes a data root and makes a small simulated set there, for a set whose absence should not stop a
            first run; gives its folder. None: absence is an error.
        needs_path: whether the files have no usual place, so that the user has to say where they are.
        warn: takes the facts of all flows read and logs what a user should know of them.
        beside: takes a source and gives the files beside it that its reader may also read, such as a table of labels.
        simulate: writes about `n_flows` simulated flows in the true layout under a folder: simulate(folder, n_flows,
            seed). None where simulation makes no sense.
    """

    name: str
    title: str
    obtain: str
    licence: str
    find: Callable[[Path], list[Path]]
    read: Callable[[Path, ReadOptions], Iterator[FlowBlock]]
    size_layers: tuple[str, ...]
    length: int = 30
    payload_only: bool = False
    rules: tuple[Rule, ...] = ()
    min_packets: int = 1
    min_flows: int | None = None
    has_times: bool = True
    published: Published | None = None
    days: int | None = None
    stand_in: Callable[[Path], Path] | None = None
    needs_path: bool = False
    warn: Callable[[pl.DataFrame], None] | None = None
    beside: Callable[[Path], list[Path]] | None = None
    simulate: Callable[[Path, int, int], None] | None = None
