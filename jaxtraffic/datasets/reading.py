"""Sources of a set, read one by one or in parallel processes, with the results in the order of the sources."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

from jaxtraffic.datasets.dataset import Dataset
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, no_flows
from jaxtraffic.datasets.labelled import LabelledFlows, from_blocks
from jaxtraffic.errors import ConfigError, DataError

log = logging.getLogger("jaxtraffic.datasets")

DAMAGED = "sources that cannot be read"
"""How they are counted where they are left out."""

PARALLEL_BYTES = 64 << 20
"""Sets under this size are read faster by one process than others start (each imports jax and polars)."""


def read_source(dataset: Dataset, path: Path, options: ReadOptions, days: int | None = None) -> LabelledFlows:
    """Reads one source whole, or its first days where it holds more days than are wanted."""
    blocks = dataset.read(path, options)
    if days is not None:
        blocks = first_days(blocks, days)
    return from_blocks(blocks, path, name=dataset.name, length=options.length)


def skipping_damaged(dataset: Dataset) -> Dataset:
    """The same set, whose sources that cannot be read whole and right are left out, counted and logged.

    A source is held in memory until it has been read to its end.
    """
    return dataclasses.replace(dataset, read=functools.partial(_whole_or_nothing, dataset.read, dataset.size_layers[0]))


def _whole_or_nothing(
    read: Callable[[Path, ReadOptions], Iterator[FlowBlock]], layer: str, path: Path, options: ReadOptions
) -> Iterator[FlowBlock]:
    try:
        blocks = list(read(path, options))
    except DataError as error:
        log.warning("left out: %s", error)
        blocks = [no_flows({DAMAGED: 1}, layer)]
    yield from blocks


def bound_options(read: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments that are bound to a reader, also to one inside `skipping_damaged`."""
    options: dict[str, Any] = {}
    while isinstance(read, functools.partial):
        options = {**read.keywords, **options}
        read = read.args[0] if read.func is _whole_or_nothing else read.func
    return options


def first_days(blocks: Iterator[FlowBlock], days: int) -> Iterator[FlowBlock]:
    """Blocks of the first days, of a source that yields day after day; what comes later is not read."""
    seen: set[int] = set()
    for block in blocks:
        if "day" in block.facts.columns:
            seen.update(block.facts["day"].drop_nulls().unique())
        if len(seen) > days:
            return
        yield block


def read_sources(
    dataset: Dataset,
    sources: Sequence[Path],
    options: ReadOptions,
    *,
    days: int | None = None,
    workers: int | None = None,
) -> Iterator[LabelledFlows]:
    """Reads sources and yields them in their order: see `each` and `read_source`."""
    return each(read_source, dataset, sources, options, days, workers=workers)


def each(
    function: Callable[..., Any],
    dataset: Dataset,
    sources: Sequence[Path],
    *arguments: Any,
    workers: int | None = None,
) -> Iterator[Any]:
    """Yields function(dataset, source, *arguments) for each source, in order.

    Args:
        function: of a module, so that other processes can find it.
        dataset: entry of the catalogue.
        sources: files, archives or folders.
        *arguments: passed on.
        workers: processes; 1: this one alone; None: one for each core, or this one alone for little data.

    Raises:
        DataError: what the function raises, or a process that died.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if workers is None:
        workers = 1 if _less_than(sources, PARALLEL_BYTES) else joblib.cpu_count()
    workers = min(workers, len(sources))
    if workers <= 1:
        for source in sources:
            yield function(dataset, source, *arguments)
        return
    # a generator that hands out results in order and starts new work only as they are taken: memory stays bounded
    pool = joblib.Parallel(n_jobs=workers, return_as="generator", pre_dispatch="2*n_jobs", batch_size=1)
    try:
        parent = os.getpid()
        yield from pool(joblib.delayed(_in_child)(parent, function, dataset, source, *arguments) for source in sources)
    except (TerminatedWorkerError, BrokenProcessPool) as error:
        raise DataError(
            sources[0].parent,
            "a reading process was killed, perhaps for want of memory",
            remedy="read with fewer workers (--workers 1)",
        ) from error


_watched: set[int] = set()


def _in_child(parent: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process that ends when its parent does.

    A process of the pool does not notice that its parent was killed: it would go on reading, and then wait for minutes.
    """
    if parent not in _watched and os.getpid() != parent:
        _watched.add(parent)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return function(*arguments)


def _end_with(parent: int, *, seconds: float = 0.5) -> None:
    while os.getppid() == parent:
        time.sleep(seconds)
    os._exit(1)


def source_bytes(source: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = source.rglob("*") if source.is_dir() else [source]
    return sum(path.stat().st_size for path in files if path.is_file())


def _less_than(sources: Sequence[Path], limit: int) -> bool:
    total = 0
    for source in sources:
        total += source_bytes(source)
        if total >= limit:
            return False
    return True
