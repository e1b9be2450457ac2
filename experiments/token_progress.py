"""The progress bar of a token generator's fit, which is two trainings or one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from jaxtraffic.train import ProgressReport


@contextmanager
def epochs_shown(
    console: Console, name: str, most: int, *, selects: bool = True
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives the `report` of `token_runs.fit`, which counts the epochs, at most `most` each, of selection and refit."""
    before = most if selects else 0
    words = "selection and refit, at most" if selects else "training"
    with ProgressReport(console, f"{name}: epochs of {words}", before + most) as progress:
        yield lambda line: progress.update(int(line["epoch"]) + before * (line["phase"] == "refit"), loss=line["loss"])
