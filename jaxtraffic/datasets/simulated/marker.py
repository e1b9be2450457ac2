"""The file that says of a folder that what lies in and below it is simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxtraffic.datasets.roots import replacing

MARKER = "simulated.json"
"""File at the top of a simulated set that says so and from what it was made."""

_DEPTH = 6  # folders between a file of a set and the top of the set, at most


def write_marker(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the marker; last, so that its presence says that the set is complete."""
    with replacing(folder / MARKER) as temporary:
        temporary.write_text(json.dumps({"simulated": True, **settings}, indent=1) + "\n")


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Settings of the simulated set in a folder; None where there is no such set."""
    try:
        return json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return None


def is_simulated(path: str | Path) -> bool:
    """Whether a file or folder belongs to a simulated set: the marker lies in it or a few folders above."""
    path = Path(path).absolute()
    return any((folder / MARKER).is_file() for folder in [path, *path.parents[:_DEPTH]])
