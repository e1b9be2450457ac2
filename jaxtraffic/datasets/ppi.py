"""The PPI column of CESNET files: text such as `[[0, 7], [1, -1], [1250, 41]]` into flat arrays.

The three lists are inter-packet times in milliseconds, directions and sizes (README of CESNET-QUIC22). The common
spelling is checked by one regular expression and parsed column by column by polars; a block with any other spelling
goes through `json`, row by row, which gives the same values or says which row is wrong and why.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.ragged import REMEDY, Fields, Ragged
from jaxtraffic.errors import DataError

MAX_PACKETS = 30
"""Packets that the exporter keeps of a flow."""

FIELDS = Fields(size="PPI", direction="PPI", iat="PPI", iat_unit="milliseconds")

_EXPECTED = "three lists of numbers of one length, [[inter-packet times], [directions], [sizes]]"
_INTEGER = "-?(?:0|[1-9][0-9]{0,8})"


def parse_ppi(text: pl.Series, path: str | Path, *, first_row: int = 1) -> Ragged:
    """Parses a block of PPI cells.

    Args:
        text: [flow] strings without nulls.
        path: file, for messages.
        first_row: 1-based number of the first flow of the block in its file.

    Returns:
        Flat values, times in milliseconds; what the values are is judged by `ragged.check_values`.

    Raises:
        DataError: a cell that is not three lists of numbers of one length, at most 30.
    """
    block = _parse_common(text)
    if block is None:
        block = _parse_any(text.to_list(), path, first_row)
    if (block.counts > MAX_PACKETS).any():
        row = int(np.argmax(block.counts > MAX_PACKETS))
        raise DataError(
            path,
            f"{block.counts[row]} packets",
            row=first_row + row,
            field="PPI",
            expected=f"at most {MAX_PACKETS} packets",
            remedy=REMEDY,
        )
    return block


def _parse_common(text: pl.Series) -> Ragged | None:
    """Parses cells of plain integers with one separator throughout; None where any cell is spelt otherwise."""
    if not len(text):
        return None
    comma = ", " if ", " in text[0] else ","
    numbers = rf"\[{_INTEGER}(?:{comma}{_INTEGER})*\]"
    if not text.str.contains(rf"\A\[{numbers}{comma}{numbers}{comma}{numbers}\]\z").all():
        return None
    columns = text.str.strip_chars("[]").str.split_exact(f"]{comma}[", 2).struct.unnest()
    counts = columns.select(pl.all().str.count_matches(",", literal=True) + 1).to_numpy().astype(np.int64)
    if (counts != counts[:, :1]).any():
        return None
    iat, direction, size = (columns[name].str.join(",").item().encode() for name in columns.columns)
    signs = _flat_signs(direction, int(counts[:, 0].sum()))
    return Ragged(
        counts[:, 0], _flat_integers(size), _flat_integers(direction) if signs is None else signs, _flat_integers(iat)
    )


def _flat_integers(text: bytes) -> np.ndarray:
    """[number] int32 of text such as `0, 7, 14`: one number a line is what a CSV parser is quickest at."""
    lines = text.translate(bytes.maketrans(b",", b"\n"), b" ")
    return pl.read_csv(io.BytesIO(lines), has_header=False, schema={"number": pl.Int32})["number"].to_numpy()


def _flat_signs(text: bytes, n: int) -> np.ndarray | None:
    """[number] int8 of text of `n` integers such as `1, -1`; None where any is neither 1 nor -1."""
    symbols = np.frombuffer(text.translate(None, b", "), np.uint8)
    ones = np.flatnonzero(symbols == ord("1"))
    minus = symbols == ord("-")
    # n ones and nothing else but signs: every integer has a digit, so each is a single 1
    if ones.size != n or ones.size + np.count_nonzero(minus) != symbols.size:
        return None
    # the first number looks back to the last symbol, which is a 1 and no sign
    return np.where(minus[ones - 1], np.int8(-1), np.int8(1))


def _parse_any(cells: list[str], path: str | Path, first_row: int) -> Ragged:
    """Parses cells in any JSON spelling, row by row."""
    counts = np.zeros(len(cells), np.int64)
    flat: tuple[list[float], list[float], list[float]] = ([], [], [])
    for index, cell in enumerate(cells):
        try:
            triplet = json.loads(cell, parse_constant=_no_constant)
            problem = _shape_problem(triplet)
        except (ValueError, RecursionError):
            problem = f"{_shorten(cell)} is not JSON"
        if problem:
            raise DataError(path, problem, row=first_row + index, field="PPI", expected=_EXPECTED, remedy=REMEDY)
        counts[index] = len(triplet[0])
        for values, target in zip(triplet, flat, strict=True):
            target.extend(values)
    iat, direction, size = (np.asarray(values, np.float64) for values in flat)
    return Ragged(counts, size, direction, iat)


def _shape_problem(triplet: object) -> str | None:
    """Says what keeps a decoded cell from being three lists of numbers of one length."""
    if not isinstance(triplet, list) or not all(isinstance(part, list) for part in triplet):
        return "not a list of lists"
    if len(triplet) != 3:
        return f"{len(triplet)} lists"
    lengths = [len(part) for part in triplet]
    if len(set(lengths)) > 1:
        return "lists of unequal length ({}, {} and {})".format(*lengths)
    for part in triplet:
        for value in part:
            # bool is an int in Python, but true is no number of bytes
            if isinstance(value, bool) or not isinstance(value, int | float) or not _fits_float(value):
                return f"{_shorten(json.dumps(value))} is not a number"
    return None


def _fits_float(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _shorten(text: str, width: int = 40) -> str:
    return repr(text if len(text) <= width else text[: width - 3] + "...")
