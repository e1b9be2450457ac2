"""Files of results with one JSON object a line, written as results come and read back by a run that goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def finite(value: Any) -> Any:
    """Without numbers that JSON does not know, which become null."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines: one that a kill cut short has no end."""
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def append_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Adds lines at the end, in one write."""
    with path.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
