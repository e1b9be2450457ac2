"""Reading metrics.jsonl, what training logged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jaxtraffic.errors import DataError


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl as dicts; none where the file is missing, as with a generator that needs no training.

    Raises:
        DataError: a line that is no JSON object, with its number.
    """
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(path, f"no JSON: {error}", row=number, expected="one JSON object a line") from error
        if not isinstance(line, dict):
            raise DataError(path, "no JSON object", row=number, expected="one JSON object a line")
        lines.append(line)
    return lines


def series_of(lines: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Steps and finite values of one logged quantity; lines without it are passed over."""
    pairs = [
        (float(line.get("step", index)), float(line[name]))
        for index, line in enumerate(lines, start=1)
        if isinstance(line.get(name), int | float) and math.isfinite(line[name])
    ]
    return [step for step, _ in pairs], [value for _, value in pairs]


def last_value(lines: list[dict[str, Any]], name: str) -> float | None:
    """The last finite value of one logged quantity."""
    _, values = series_of(lines, name)
    return values[-1] if values else None
