"""The progress bar of a token generator's fit, which is two trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from jaxtraffic.train import ProgressReport


@contextmanager
def epochs_shown(console: Console, name: str, most: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives the `report` of `token_runs.fit`, which counts the epochs, at most `most` each, of selection and refit."""
    with ProgressReport(console, f"{name}: epochs of selection and refit, at most", 2 * most) as progress:
        yield lambda line: progress.update(int(line["epoch"]) + most * (line["phase"] == "refit"), loss=line["loss"])
