"""`python -m jaxtraffic data convert | export | simulate`: sets into other forms."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from jaxtraffic import datasets
from jaxtraffic.command.places import Bar, Flows, Layer, Place
from jaxtraffic.command.screen import dropped_lines, show
from jaxtraffic.datasets import conversion
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.writing import RECORDS
from jaxtraffic.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Convert(Place):
    """Converts a set into a folder of parquet shards, in parallel; the same command again goes on where it stopped."""

    out: Path | None = None
    """Folder of the result; default: converted/NAME in the data root."""
    no_curation: bool = False
    """Keep packets without payload also where the set's curation leaves them out (other rules: on loading)."""
    length: int | None = None
    """Packets kept of a flow."""
    size_layer: Layer | None = None
    """Layer of the sizes, for sets that know both."""

    def run(self) -> int:
        """Converts and prints what was done."""
        dataset = self.dataset
        sources, simulated = self.sources()
        out = self.out or datasets.data_root(self.data_root) / "converted" / dataset.name
        if self.length is not None and self.length < 1:
            raise ConfigError(f"--length must be at least 1, got {self.length}")
        options = ReadOptions(
            self.length or dataset.length, dataset.payload_only and not self.no_curation, self.size_layer
        )
        clock = time.perf_counter()
        with Bar("converting", sources) as bar:
            records = conversion.convert(
                dataset,
                self.searched,
                out,
                options=options,
                simulated=simulated,
                sources=sources,
                workers=self.workers,
                report=lambda record: bar.step(record.flows),
            )
        seconds = time.perf_counter() - clock
        left_out: dict[str, int] = {}
        for record in records:
            for name, number in record.left_out.items():
                left_out[name] = left_out.get(name, 0) + number
        content = {
            "out": str(out),
            "sources": len(records),
            "fresh": sum(record.fresh for record in records),
            "shards": sum(len(record.shards) for record in records),
            "flows": sum(record.flows for record in records),
            "left_out": left_out,
            "seconds": round(seconds, 3),
        }
        # packets without payload that were kept fit no curation that leaves them out
        raw = ", curated=False" if dataset.payload_only and self.no_curation else ""
        lines = [
            f"{content['flows']:,} flows of {content['sources']:,} sources in {content['shards']:,} shards: {out} "
            f"({content['fresh']:,} sources read now, {seconds:.1f} s)",
            *(f"left out while reading: {number:,} {name}" for name, number in left_out.items()),
            f'load it: jaxtraffic.load("{dataset.name}", path="{out}"{raw})',
        ]
        show(content, lines, as_json=self.json)
        return 0


@dataclasses.dataclass(frozen=True)
class Export(Flows):
    """Writes curated flows as our parquet, tcbench's parquet, NumPy npz, or pcap."""

    out: Path | None = None
    """File to write; default: flows.FORMAT in the current folder."""
    format: Literal["parquet", "tcbench", "npz", "pcap"] = "parquet"
    """What to write."""
    transport: Literal["tcp", "udp"] | None = None
    """pcap: transport of the flows; default: as the flows say, else tcp."""
    handshake: bool = False
    """pcap: put a TCP handshake before each flow."""
    impossible: Literal["error", "drop"] = "error"
    """pcap: refuse flows that no capture can hold, such as TCP packets under 40 bytes, or leave them out."""

    def run(self) -> int:
        """Loads, writes, and says what was written."""
        found, dropped = self.load()
        out = self.out or Path("flows.tcbench.parquet" if self.format == "tcbench" else f"flows.{self.format}")
        notes = datasets.export_flows(
            found, out, self.format, transport=self.transport, handshake=self.handshake, impossible=self.impossible
        )
        content = {
            "out": str(out),
            "format": self.format,
            "flows": len(found),
            "classes": len(found.flows.class_names),
            "size_layer": found.flows.size_layer,
            "source": found.flows.source,
            "notes": notes,
            "dropped": [dataclasses.asdict(entry) for entry in dropped],
        }
        lines = [
            f"{len(found):,} flows of {len(found.flows.class_names)} classes ({found.flows.source}, sizes of the "
            f"{found.flows.size_layer} layer): {out}",
            *notes,
            *dropped_lines(dropped),
        ]
        show(content, lines, as_json=self.json)
        return 0


@dataclasses.dataclass(frozen=True)
class Simulate:
    """Writes simulated traffic in the true raw layout of a set, for trying things out and for tests."""

    name: tyro.conf.Positional[str]
    """Data set: see `data list`."""
    out: Path | None = None
    """Folder of the result; default: simulated/NAME in the data root."""
    data_root: Path | None = None
    """Folder of the data sets; default: the environment variable JAXTRAFFIC_DATA, else the user's cache."""
    flows: int = 2000
    """Flows to simulate, about."""
    seed: int = 0
    """The same seed gives the same files."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Writes the files and says where they are."""
        out = self.out or datasets.data_root(self.data_root) / "simulated" / self.name
        clock = time.perf_counter()
        sources = datasets.simulate(self.name, out, n_flows=self.flows, seed=self.seed)
        seconds = time.perf_counter() - clock
        content = {"out": str(out), "sources": [str(path) for path in sources], "seconds": round(seconds, 3)}
        lines = [
            f"simulated {self.name}: {len(sources):,} sources in {out} ({seconds:.1f} s)",
            f"read it: python -m jaxtraffic data {self._look(out, sources)}",
        ]
        show(content, lines, as_json=self.json)
        return 0

    def _look(self, out: Path, sources: Sequence[Path]) -> str:
        """A command that shows what was written, whatever its size."""
        if self.name in RECORDS:
            return f"records {shlex.quote(str(sources[0]))}"
        # a small set has no class that curation would keep
        layer = " --size-layer payload" if self.name == "nfstream" else ""
        return f"head {self.name} --path {shlex.quote(str(out))} --no-curation{layer}"
