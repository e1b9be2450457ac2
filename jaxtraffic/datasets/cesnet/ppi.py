"""The PPI column of CESNET files: text such as `[[0, 7], [1, -1], [1250, 41]]` into flat arrays.

The three lists are inter-packet times in milliseconds, directions and sizes (README of CESNET-QUIC22); in
CESNET-TLS-Year22 a fourth follows, push flags, of which the length is checked and nothing kept. The common spelling is
checked by one regular expression and parsed column by column by polars; a block with any other spelling
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

_CHANNELS = {3: "[[inter-packet times], [directions], [sizes]]", 4: "[[times], [directions], [sizes], [push flags]]"}
_WORDS = {(3,): "three", (4,): "four", (3, 4): "three or four"}
_INTEGER = "-?(?:0|[1-9][0-9]{0,8})"


def parse_ppi(text: pl.Series, path: str | Path, *, first_row: int = 1, lists: tuple[int, ...] = (3,)) -> Ragged:
    """Parses a block of PPI cells.

    Args:
        text: [flow] strings without nulls.
        path: file, for messages.
        first_row: 1-based number of the first flow of the block in its file.
        lists: how many lists a cell may hold: (3,), (4,) or (3, 4).

    Returns:
        Flat values, times in milliseconds; what the values are is judged by `ragged.check_values`.

    Raises:
        DataError: a cell that is not so many lists of numbers of one length, at most 30.
    """
    block = _parse_common(text, lists)
    if block is None:
        block = _parse_any(text.to_list(), path, first_row, lists)
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


def _parse_common(text: pl.Series, lists: tuple[int, ...] = (3,)) -> Ragged | None:
    """Parses cells of plain integers with one separator throughout; None where any cell is spelt otherwise."""
    if not len(text):
        return None
    first = text[0]
    n_lists = first.count("[") - 1
    if n_lists not in lists:
        return None
    comma = ", " if ", " in first else ","
    numbers = rf"\[{_INTEGER}(?:{comma}{_INTEGER})*\]"
    if not text.str.contains(rf"\A\[{comma.join([numbers] * n_lists)}\]\z").all():
        return None
    columns = text.str.strip_chars("[]").str.split_exact(f"]{comma}[", n_lists - 1).struct.unnest()
    texts = [column.str.join(";").item().encode() for column in columns]
    # a comma within a list, a semicolon after it: the same for all lists where their lengths agree
    separators = [flat.translate(None, b"0123456789- ") for flat in texts]
    if any(other != separators[0] for other in separators[1:]):
        return None
    ends = np.append(np.flatnonzero(np.frombuffer(separators[0], np.uint8) == ord(";")), len(separators[0]))
    counts = np.diff(ends, prepend=-1)
    iat, direction, size = texts[:3]
    signs = _flat_signs(direction, int(counts.sum()))
    return Ragged(
        counts, _flat_integers(size), _flat_integers(direction) if signs is None else signs, _flat_integers(iat)
    )


def _flat_integers(text: bytes) -> np.ndarray:
    """[number] int32 of text such as `0, 7; 14`: one number a line is what a CSV parser is quickest at."""
    lines = text.translate(bytes.maketrans(b",;", b"\n\n"), b" ")
    return pl.read_csv(io.BytesIO(lines), has_header=False, schema={"number": pl.Int32})["number"].to_numpy()


def _flat_signs(text: bytes, n: int) -> np.ndarray | None:
    """[number] int8 of text of `n` integers such as `1, -1; 1`; None where any is neither 1 nor -1."""
    symbols = np.frombuffer(text.translate(None, b",; "), np.uint8)
    ones = np.flatnonzero(symbols == ord("1"))
    minus = symbols == ord("-")
    # n ones and nothing else but signs: every integer has a digit, so each is a single 1
    if ones.size != n or ones.size + np.count_nonzero(minus) != symbols.size:
        return None
    # the first number looks back to the last symbol, which is a 1 and no sign
    return np.where(minus[ones - 1], np.int8(-1), np.int8(1))


def _parse_any(cells: list[str], path: str | Path, first_row: int, lists: tuple[int, ...]) -> Ragged:
    """Parses cells in any JSON spelling, row by row."""
    counts = np.zeros(len(cells), np.int64)
    flat: tuple[list[float], list[float], list[float]] = ([], [], [])
    expected = f"{_WORDS[lists]} lists of numbers of one length, {_CHANNELS[max(lists)]}"
    for index, cell in enumerate(cells):
        try:
            parts = json.loads(cell, parse_constant=_no_constant)
            problem = _shape_problem(parts, lists)
        except (ValueError, RecursionError):
            problem = f"{_shorten(cell)} is not JSON"
        if problem:
            raise DataError(path, problem, row=first_row + index, field="PPI", expected=expected, remedy=REMEDY)
        counts[index] = len(parts[0])
        for values, target in zip(parts[:3], flat, strict=True):
            target.extend(values)
    iat, direction, size = (np.asarray(values, np.float64) for values in flat)
    return Ragged(counts, size, direction, iat)


def _shape_problem(parts: object, lists: tuple[int, ...]) -> str | None:
    """Says what keeps a decoded cell from being so many lists of numbers of one length."""
    if not isinstance(parts, list) or not all(isinstance(part, list) for part in parts):
        return "not a list of lists"
    if len(parts) not in lists:
        return f"{len(parts)} lists"
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        return f"lists of unequal length ({', '.join(map(str, lengths[:-1]))} and {lengths[-1]})"
    for part in parts:
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
