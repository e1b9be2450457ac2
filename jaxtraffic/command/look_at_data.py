"""`python -m jaxtraffic data list | info | verify | head`: what a set is and what is on disk."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from jaxtraffic import datasets
from jaxtraffic.command.places import Bar, Flows, Layer, Place
from jaxtraffic.command.screen import dropped_lines, show, table
from jaxtraffic.datasets import verification
from jaxtraffic.datasets.loading import sources_at
from jaxtraffic.errors import ConfigError, DataError

_NUMBERS = ("published", "found", "flows", "packets")
_STYLES = {"match": "green", "differs": "bold red", "missing": "bold red", "unknown": "bold red", "part": "yellow"}


@dataclasses.dataclass(frozen=True)
class List:
    """Lists the data sets and which of them are in the data root."""

    data_root: Path | None = None
    """Folder of the data sets; default: the environment variable JAXTRAFFIC_DATA, else the user's cache."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Prints the table."""
        root = datasets.data_root(self.data_root)
        rows, problems = [], []
        for name, dataset in datasets.DATASETS.items():
            found = None if dataset.needs_path else 0
            if found is not None and root.is_dir():
                try:
                    found = len(sources_at(dataset, root))
                except DataError as error:
                    problems.append(f"{name}: {error}")
            rows.append(
                {
                    "name": name,
                    "title": dataset.title,
                    "sizes": "/".join(dataset.size_layers),
                    "packets": dataset.length,
                    "times": dataset.has_times,
                    "licence": dataset.licence,
                    "sources": found,
                }
            )
        columns = ("name", "title", "sizes", "packets", "times", "sources")
        # what is said in brackets, and the licence, would make the table too wide for a terminal: `info` says them
        shown = [
            (row["name"], _short(row["title"]), row["sizes"], row["packets"], _yes(row["times"]), row["sources"])
            for row in rows
        ]
        lines = [
            table(f"Data sets; sources found in {root}", columns, shown, numbers=("packets", "sources")),
            "Sources: - means that the place is given with --path. More of one: python -m jaxtraffic data info NAME",
            *problems,
        ]
        show({"data_root": str(root), "datasets": rows, "problems": problems}, lines, as_json=self.json)
        return 0


def _short(title: str) -> str:
    return re.split(r" \(|, | of | in |: ", title)[0]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


@dataclasses.dataclass(frozen=True)
class Info(Place):
    """Says what a data set is, how it is got and curated, what was published of it, and what is on disk."""

    def run(self) -> int:
        """Prints it."""
        dataset = self.dataset
        if self.path is not None and not self.path.exists():
            raise DataError(self.path, "no such file or folder", remedy="check the path; " + dataset.obtain)
        search = self.searched.exists() and (self.path or not dataset.needs_path)
        found = sources_at(dataset, self.searched) if search else []
        published = dataset.published
        facts: dict[str, Any] = {
            "name": dataset.name,
            "title": dataset.title,
            "licence": dataset.licence,
            "obtain": dataset.obtain,
            "size layers": list(dataset.size_layers),
            "packets kept of a flow": dataset.length,
            "times": "seconds" if dataset.has_times else "none in this set",
            "curation": _curation(dataset),
            "published flows": published and published.flows,
            "published classes": published and published.classes,
            "published in": published and published.source,
            "searched": str(self.searched),
            "sources found": len(found),
            "first sources": [str(path) for path in found[:5]],
        }
        rows = [(key, "; ".join(map(str, value)) if isinstance(value, list) else value) for key, value in facts.items()]
        show(facts, [table(dataset.name, ("what", "value"), rows)], as_json=self.json)
        return 0


def _curation(dataset: datasets.Dataset) -> list[str]:
    rules = ["packets without payload are left out"] if dataset.payload_only else []
    rules += [f"{rule.name}: drops {rule.detail}" for rule in dataset.rules]
    least = dataset.min_flows or "500 (200 in sets under 100,000 flows)"
    return [*rules, f"min_packets: {dataset.min_packets}", f"min_flows of a class: {least}"]


@dataclasses.dataclass(frozen=True)
class Verify(Place):
    """Counts files, flows and classes on disk and compares with published figures; exit code 1: they differ."""

    size_layer: Layer | None = None
    """Layer of the sizes, for sets that cannot be read without it."""

    def run(self) -> int:
        """Reads everything and prints the comparison."""
        dataset = self.dataset
        sources, simulated = self.sources()
        clock = time.perf_counter()
        with Bar("reading", sources) as bar:
            found = verification.summarise(
                dataset,
                sources,
                size_layer=self.size_layer,
                workers=self.workers,
                report=lambda part: bar.step(part.flows),
            )
        seconds = time.perf_counter() - clock
        checks = verification.verify(dataset, found)
        content = {
            "name": dataset.name,
            "searched": str(self.searched),
            "simulated": simulated,
            "published_in": dataset.published and dataset.published.source,
            "checks": [dataclasses.asdict(check) for check in checks],
            "left_out": dict(found.left_out),
            "size_layers": sorted(found.size_layers),
            "packets": found.packets,
            "seconds": round(seconds, 3),
            "holds": verification.holds(checks),
        }
        rows = [(check.what, check.published, check.found, _verdict(check.verdict)) for check in checks]
        lines: list[Any] = [
            table(
                f"{dataset.title}: {self.searched}", ("what", "published", "found", "verdict"), rows, numbers=_NUMBERS
            )
        ]
        lines += [f"left out while reading: {number:,} {name}" for name, number in found.left_out.items()]
        lines.append(f"{found.flows:,} flows read in {seconds:.1f} s; sizes: {', '.join(sorted(found.size_layers))}")
        if dataset.published:
            lines.append(f"published figures: {dataset.published.source}")
        if simulated:
            lines.append("These files are simulated: their counts are not those of the real set.")
        show(content, lines, as_json=self.json)
        return 0 if verification.holds(checks) else 1


def _verdict(verdict: str) -> Text:
    return Text(verdict, style=_STYLES.get(verdict, "dim"))


@dataclasses.dataclass(frozen=True)
class Head(Flows):
    """Shows the first flows of a set as they are loaded."""

    n: int = 10
    """Flows to show."""

    def run(self) -> int:
        """Loads and prints."""
        if self.n < 1:
            raise ConfigError(f"--n must be at least 1, got {self.n}")
        found, dropped = self.load()
        flows = found.flows[: self.n]
        rows = []
        for index in range(len(flows)):
            count = int(flows.n_packets[index])
            rows.append(
                {
                    "label": flows.class_names[flows.label[index]],
                    "packets": count,
                    "signed_size": flows.signed_size[index, :count].tolist(),
                    "iat": [float(value) for value in flows.iat[index, :count]],
                    "facts": {name: _plain(value) for name, value in found.facts.row(index, named=True).items()},
                }
            )
        content = {
            "flows": len(found),
            "classes": dict(zip(found.flows.class_names, found.flows.counts().tolist(), strict=True)),
            "size_layer": found.flows.size_layer,
            "source": found.flows.source,
            "dropped": [dataclasses.asdict(entry) for entry in dropped],
            "head": rows,
        }
        shown = [
            (row["label"], row["packets"], _series(row["signed_size"], "{:+d}"), _series(row["iat"], "{:.4g}"))
            for row in rows
        ]
        columns = ("label", "packets", "signed size (bytes)", "IAT (s)")
        lines = [
            table(f"{found.flows.name}: first {len(rows)} of {len(found):,} flows", columns, shown, numbers=_NUMBERS),
            f"{len(content['classes'])} classes, {found.flows.source}, sizes of the {found.flows.size_layer} layer",
            *dropped_lines(dropped),
        ]
        show(content, lines, as_json=self.json)
        return 0


def _series(values: Sequence[float], form: str, most: int = 8) -> str:
    text = " ".join(form.format(value) for value in values[:most])
    return text + (" ..." if len(values) > most else "")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
