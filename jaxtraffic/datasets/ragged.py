"""Flows as flat values with a count each: the one place where raw values are judged and padded.

Every reader brings its format into this form, so that all of them refuse the same values with the same words.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from jaxtraffic.errors import DataError

MAX_SIZE = np.iinfo(np.int16).max
"""Largest size in bytes that a packet series holds."""

REMEDY = "correct or remove that row, or fetch the file again from its source"


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Packets of a block of flows, laid end to end.

    Attributes:
        counts: [flow] int64, packets of each flow.
        size: [packet] integers or floats, bytes.
        direction: [packet] integers or floats, +1 or -1.
        iat: [packet] integers or floats in the unit of the format.
    """

    counts: np.ndarray
    size: np.ndarray
    direction: np.ndarray
    iat: np.ndarray


@dataclasses.dataclass(frozen=True)
class Fields:
    """Where each value stands in a format, for messages.

    Attributes:
        size: column of the sizes.
        direction: column of the directions.
        iat: column of the inter-packet times.
        iat_unit: unit of the inter-packet times.
    """

    size: str
    direction: str
    iat: str
    iat_unit: str


def check_values(block: Ragged, path: str | Path, fields: Fields, *, first_row: int = 1) -> None:
    """Raises DataError for the first row of the block that holds a value no packet can have.

    Args:
        block: flat values.
        path: file, for the message.
        fields: names of the columns, for the message.
        first_row: 1-based number of the first flow of the block in its file.
    """
    size, direction, iat = block.size, block.direction, block.iat
    fits = f"whole bytes from 0 to {MAX_SIZE}"
    rules = [
        (direction, (direction != 1) & (direction != -1), fields.direction, "direction", "+1 or -1"),
        (size, ~((size >= 0) & (size <= MAX_SIZE)) | _fraction(size), fields.size, "size", fits),
        (
            iat,
            ~((iat >= 0) & (iat < np.inf)),
            fields.iat,
            "inter-packet time",
            f"finite {fields.iat_unit}, 0 or more",
        ),
    ]
    first: tuple[int, str, str, str] | None = None
    for values, wrong, field, noun, expected in rules:
        if not wrong.any():
            continue
        at = int(np.argmax(wrong))
        row, packet = locate(block.counts, at)
        if first is None or row < first[0]:
            first = (row, field, f"{noun} of packet {packet + 1} is {values[at]}", expected)
    if first is not None:
        row, field, problem, expected = first
        raise DataError(path, problem, row=first_row + row, field=field, expected=expected, remedy=REMEDY)


def _fraction(values: np.ndarray) -> np.ndarray | bool:
    return False if np.issubdtype(values.dtype, np.integer) else values % 1 != 0


def starts_of(counts: np.ndarray) -> np.ndarray:
    """[flow] flat position of the first packet of each flow."""
    return np.cumsum(counts) - counts


def locate(counts: np.ndarray, at: int) -> tuple[int, int]:
    """Flow and packet (both from 0) of the flat position `at`."""
    ends = np.cumsum(counts)
    row = int(np.searchsorted(ends, at, side="right"))
    return row, at - int(ends[row] - counts[row])


def pad(block: Ragged, length: int, *, iat_per_second: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pads or cuts checked flows to `length` packets.

    The IAT of the first packet is set to 0: there is no packet before it, so the value has no meaning.

    Args:
        block: flat values that passed `check_values`.
        length: packet positions of the result.
        iat_per_second: units of `block.iat` in a second, 1000 for milliseconds.

    Returns:
        size [flow, length] int16, direction [flow, length] int8, iat [flow, length] float32 in seconds.
    """
    kept = np.minimum(block.counts, length)
    mask = np.arange(length) < kept[:, None]
    select: np.ndarray | slice = slice(None)
    if (kept != block.counts).any():
        select = (np.arange(block.size.size) - np.repeat(starts_of(block.counts), block.counts)) < length
    iat = block.iat[select].astype(np.float64) / iat_per_second if iat_per_second != 1 else block.iat[select]
    padded = []
    for values, dtype in ((block.size[select], np.int16), (block.direction[select], np.int8), (iat, np.float32)):
        out = np.zeros(mask.shape, dtype)
        out[mask] = values
        padded.append(out)
    size, direction, seconds = padded
    seconds[:, 0] = 0
    return size, direction, seconds
