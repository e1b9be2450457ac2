"""Which files and flows a command is about, and the bar that shows how far it is."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from jaxtraffic import datasets
from jaxtraffic.command.screen import progress
from jaxtraffic.datasets import reading
from jaxtraffic.errors import ConfigError

Layer = Literal["ip", "payload"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the files are."""

    name: tyro.conf.Positional[str]
    """Data set: see `data list`."""
    path: Path | None = None
    """File or folder to read instead of searching the data root."""
    data_root: Path | None = None
    """Folder of the data sets; default: the environment variable JAXTRAFFIC_DATA, else the user's cache."""
    label: str | None = None
    """Captures: where labels come from: auto, folder, file, a template such as {label}/{device}.pcap, or a table."""
    reader: tuple[str, ...] = ()
    """Further options of the reader as NAME=VALUE, such as idle_timeout=120 or client_network=10.0.0.0/8 (captures)."""
    skip_damaged: bool = False
    """Leave out files that cannot be read, and count them, instead of refusing the set."""
    workers: int | None = None
    """Processes that read; default: one for each core where it pays."""
    json: bool = False
    """Print JSON."""

    @property
    def dataset(self) -> datasets.Dataset:
        """The entry of the catalogue, with the options of the reader bound."""
        dataset = datasets.describe(self.name)
        options = datasets.reader_options(self.name, label=self.label, more=self.reader)
        if options:
            dataset = dataclasses.replace(dataset, read=functools.partial(dataset.read, **options))
        return reading.skipping_damaged(dataset) if self.skip_damaged else dataset

    def sources(self) -> tuple[list[Path], bool]:
        """Sources, and whether they are simulated; a stand-in is never made."""
        dataset = dataclasses.replace(self.dataset, stand_in=None)
        if dataset.needs_path and self.path is None:
            raise ConfigError(f"{self.name} needs --path: the file or folder to read")
        return datasets.find_sources(dataset, self.path, datasets.data_root(self.data_root))

    @property
    def searched(self) -> Path:
        """The file or folder that is searched."""
        return self.path or datasets.data_root(self.data_root)


@dataclasses.dataclass(frozen=True)
class Flows(Place):
    """Which flows."""

    no_curation: bool = False
    """Apply no rule of curation: every flow and packet of the files, but for flows without packets."""
    tier: str = "all"
    """Classes to keep: 50 (the 50 most popular) or all."""
    max_flows: int | None = None
    """Keep at most so many flows, drawn in proportion to the classes."""
    min_packets: int | None = None
    """Drop flows with fewer packets."""
    min_flows: int | None = None
    """Drop classes with fewer flows."""
    days: int | None = None
    """Days to read, for sets organised by day."""
    length: int | None = None
    """Packets kept of a flow."""
    size_layer: Layer | None = None
    """Layer of the sizes, for sets that know both."""
    seed: int = 0
    """Seed of the draw of --max-flows."""

    def load(self) -> tuple[datasets.LabelledFlows, list[datasets.Dropped]]:
        """Loads them."""
        names = ("tier", "max_flows", "min_packets", "min_flows", "days", "length", "size_layer", "seed")
        return datasets.load_labelled(
            self.name,
            path=self.path,
            data_root=self.data_root,
            curated=not self.no_curation,
            workers=self.workers,
            skip_damaged=self.skip_damaged,
            reader=datasets.reader_options(self.name, label=self.label, more=self.reader),
            **{name: getattr(self, name) for name in names},
        )


class Bar:
    """Progress over sources, each as heavy as its bytes."""

    def __init__(self, verb: str, sources: Sequence[Path]):
        self._weights = [datasets.source_bytes(path) for path in sources]
        self._progress = progress()
        total = sum(self._weights)
        self._task = self._progress.add_task(verb, total=total, done=f"0/{len(sources)} sources")
        self._done, self._flows = 0, 0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, flows: int) -> None:
        """One more source is done."""
        weight = self._weights[self._done]
        self._done += 1
        self._flows += flows
        text = f"{self._done}/{len(self._weights)} sources, {self._flows:,} flows"
        self._progress.update(self._task, advance=weight, done=text)
