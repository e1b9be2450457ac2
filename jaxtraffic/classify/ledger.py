"""What a campaign has on disk: finished runs, and a checkpoint of those that train, so that a killed one goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Sharding

from jaxtraffic.classify.config import RunResult
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.train.checkpoint import Checkpoints

KEPT = 2
"""Checkpoints kept."""


@dataclasses.dataclass
class Standing:
    """Where a campaign stands at a checkpoint.

    Attributes:
        config: name of the configuration that trains.
        runs: (fold, seed) in each slot, or None for an idle one.
        results: finished runs before it.
        seconds: spent on the run of each slot.
    """

    config: str
    runs: list[tuple[int, int] | None]
    results: int
    seconds: list[float]


class Ledger:
    """results.jsonl, standing.json and checkpoints/ of a campaign's folder; with no folder it keeps results only."""

    def __init__(self, folder: Path | None, described: dict[str, Any], *, resume: bool):
        """Opens the folder.

        Raises:
            ConfigError: it holds a campaign and `resume` is False, or another campaign than this.
        """
        self.folder, self.results = folder, []
        self.standing: Standing | None = None
        self.step = 0
        self._checkpoints: Checkpoints | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "campaign.json"
        described = json.loads(json.dumps(described))
        if path.exists():
            if not resume:
                raise ConfigError(f"{folder} holds a campaign already; resume it, or choose another folder")
            self._check(path, described)
        else:
            _write(path, json.dumps(described, indent=1))
        self._checkpoints = Checkpoints(folder / "checkpoints", keep=KEPT)
        step = self._checkpoints.latest()
        if step is not None:
            self._read(step)
        self._write_results()

    def _check(self, path: Path, described: dict[str, Any]) -> None:
        try:
            stored = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"{path} is not readable JSON ({error}); choose another folder") from error
        for name, value in described.items():
            if stored.get(name) != value:
                raise ConfigError(f"{path} was written by another campaign: its {name} differ; choose another folder")

    def _read(self, step: int) -> None:
        path = self.folder / "standing.json"
        try:
            stored = json.loads(path.read_text())[str(step)]
            runs = [None if run is None else tuple(run) for run in stored["runs"]]
            self.standing = Standing(stored["config"], runs, stored["results"], stored["seconds"])
            lines = (self.folder / "results.jsonl").read_text().splitlines()[: self.standing.results]
            self.results = [RunResult(**json.loads(line)) for line in lines]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(path, f"does not fit the checkpoint ({error})", remedy="start a new folder") from error
        if len(self.results) != self.standing.results:
            raise DataError(self.folder / "results.jsonl", f"has fewer than {self.standing.results} finished runs")
        self.step = step

    def add(self, result: RunResult) -> None:
        """Notes a finished run; it counts once the next checkpoint is written."""
        self.results.append(result)
        if self.folder is not None:
            with (self.folder / "results.jsonl").open("a") as file:
                file.write(json.dumps(dataclasses.asdict(result)) + "\n")

    def _write_results(self) -> None:
        """results.jsonl without the lines of runs that a resumed campaign will finish again."""
        lines = (json.dumps(dataclasses.asdict(result)) + "\n" for result in self.results)
        _write(self.folder / "results.jsonl", "".join(lines))

    def save(self, standing: Standing, slots: Any) -> None:
        """Writes a checkpoint; the standing comes first, under the checkpoint's number, so that either fits."""
        if self.folder is None:
            return
        self.step += 1
        path = self.folder / "standing.json"
        stored: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            stored = json.loads(path.read_text())
        stored = {number: one for number, one in stored.items() if self.step - KEPT <= int(number) < self.step}
        _write(path, json.dumps(stored | {str(self.step): dataclasses.asdict(standing)}, indent=1))
        self._checkpoints.save(self.step, slots._asdict())

    def restore(self, like: Any, sharding: Sharding) -> Any:
        """The slots of the newest checkpoint."""
        found = self._checkpoints.restore(like._asdict(), sharding, self.step)
        return type(like)(**found)

    def line(self, **figures: Any) -> None:
        """Appends a line to metrics.jsonl."""
        if self.folder is not None:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(figures) + "\n")

    def close(self) -> None:
        """Closes the checkpoints."""
        if self._checkpoints is not None:
            self._checkpoints.__exit__()


def _write(path: Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or nothing."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def shape_of(make: Any, width: int) -> Any:
    """Shapes of the slots that `make` gives for so many runs."""
    numbers = [jax.ShapeDtypeStruct((width,), "int32")] * 4
    return jax.eval_shape(make, *numbers)
