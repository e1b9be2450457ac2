"""Large CSV files in gzip or xz, in blocks of whole rows and in bounded memory.

The whole stream is decompressed and its checksum compared, so that a truncated or damaged file is refused and never
read in part.
"""

from __future__ import annotations

import csv
import io
import itertools
import lzma
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from isal import isal_zlib

from jaxtraffic.datasets.ragged import REMEDY
from jaxtraffic.errors import DataError

BLOCK_BYTES = 8 << 20
"""Decompressed bytes handled at a time."""

FETCH_AGAIN = "fetch the file again and compare its checksum"

XZ_MEMORY = 256 << 20
"""Bytes that the decompressor of an xz file may take; `xz -9`, the largest preset, needs 65 MiB."""

MAX_ROW_BYTES = 1 << 20
"""A line that is longer is none where its block cannot be parsed."""

_READ_BYTES = 1 << 20
_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"


def decompress(path: Path, *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file, at most `block_bytes` at a time.

    Args:
        path: an xz file where its name ends in `.xz`, else a gzip file; of one or several streams (members), and zero
            bytes may follow each as filling.
        block_bytes: largest piece.

    Raises:
        DataError: a file that cannot be opened, is empty, is not compressed so, is damaged or ends early.
    """
    is_xz = path.name.lower().endswith(".xz")
    magic, kind = (_XZ, "an xz") if is_xz else (_GZIP, "a gzip")
    try:
        with path.open("rb") as file:
            data = file.read(_READ_BYTES)
            if not data:
                raise DataError(path, "empty file (0 bytes)", expected=f"{kind} file", remedy=FETCH_AGAIN)
            if not data.startswith(magic[: len(data)]):
                ending = ".csv.xz" if is_xz else ".csv.gz"
                raise DataError(path, f"not {kind} file", expected=f"a {ending} file", remedy=FETCH_AGAIN)
            walk = _xz_stream if is_xz else _gzip_member
            while data:
                data = yield from walk(file, data, path, block_bytes)
                # a further stream may follow, and zero bytes are allowed as filling
                data = data.lstrip(b"\0")
                while not data and (more := file.read(_READ_BYTES)):
                    data = more.lstrip(b"\0")
                if not data.startswith(magic[: len(data)]):
                    problem = f"damaged {kind.split()[-1]} stream (other bytes after its end)"
                    raise DataError(path, problem, remedy=FETCH_AGAIN)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise DataError(path, problem, expected="a readable file", remedy="check the path") from error


def _gzip_member(file: io.BufferedReader, data: bytes, path: Path, block_bytes: int) -> Iterator[bytes]:
    """Yields the bytes of the gzip member that begins with `data`; returns what was read beyond it."""
    # three times as fast as zlib, of which it is a drop-in
    member = isal_zlib.decompressobj(wbits=31)
    while True:
        try:
            out = member.decompress(data, block_bytes)
        except isal_zlib.error as error:
            raise DataError(path, f"damaged gzip stream ({error})", remedy=FETCH_AGAIN) from error
        if out:
            yield out
        if member.eof:
            return member.unused_data
        data = member.unconsumed_tail or file.read(_READ_BYTES)
        if not data and not out:
            raise DataError(path, "truncated: the gzip stream ends early", remedy=FETCH_AGAIN)


def _xz_stream(file: io.BufferedReader, data: bytes, path: Path, block_bytes: int) -> Iterator[bytes]:
    """Yields the bytes of the xz stream that begins with `data`; returns what was read beyond it."""
    stream = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    while True:
        try:
            out = stream.decompress(data, block_bytes)
        except lzma.LZMAError as error:
            raise DataError(path, f"damaged xz stream ({error})", remedy=FETCH_AGAIN) from error
        if out:
            yield out
        if stream.eof:
            return stream.unused_data
        data = b""
        if stream.needs_input:
            data = file.read(_READ_BYTES)
            if not data:
                raise DataError(path, "truncated: the xz stream ends early", remedy=FETCH_AGAIN)


def row_blocks(path: Path, *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yields blocks of about `block_bytes` that end at the end of a row; the first begins with the header.

    A line end inside quotes is no end of a row. Where a quote never closes, a block of twice the size is handed on as
    it is, for the parser to refuse.

    Raises:
        DataError: see `decompress`.
    """
    pieces: list[bytes] = []
    held = 0
    for piece in decompress(path, block_bytes=block_bytes):
        pieces.append(piece)
        held += len(piece)
        if held < block_bytes:
            continue
        buffer = b"".join(pieces)
        end = _last_row_end(buffer) or (len(buffer) if held >= 2 * block_bytes else 0)
        if end:
            yield buffer[:end]
        pieces = [buffer[end:]]
        held = len(pieces[0])
    if held:
        yield b"".join(pieces)


def _last_row_end(buffer: bytes) -> int:
    """Position after the last line end that stands outside quotes, 0 where there is none."""
    end = buffer.rfind(b"\n") + 1
    odd = buffer.count(b'"', 0, end) % 2
    while end and odd:
        earlier = buffer.rfind(b"\n", 0, end - 1) + 1
        odd = (odd - buffer.count(b'"', earlier, end)) % 2
        end = earlier
    return end


def read_header(block: bytes, path: Path) -> tuple[list[str], bytes]:
    """Column names of the first row, and the rest of the block.

    Raises:
        DataError: a header that is not text or names a column twice.
    """
    end = block.find(b"\n") + 1 or len(block)
    try:
        names = next(csv.reader([block[:end].decode("utf-8-sig")]), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, "the header is no line of text", expected="column names", remedy=FETCH_AGAIN) from error
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(path, "column named twice", field=twice[0], expected="each name once", remedy=FETCH_AGAIN)
    return names, block[end:]


def parse_rows(
    block: bytes, names: Sequence[str], wanted: Sequence[str], path: Path, *, first_row: int = 1
) -> pl.DataFrame:
    """Parses the wanted columns of a block of rows as text; empty cells are null.

    Args:
        block: whole rows without the header.
        names: all columns of the file.
        wanted: columns to return.
        path: file, for messages.
        first_row: 1-based number of the first row of the block in its file.

    Raises:
        DataError: invalid UTF-8, a row of another number of fields, an unclosed quote.
    """
    if not block.isascii():
        _refuse_bad_text(block, path, first_row)
    if block and not block.endswith(b"\n"):
        # polars passes over an empty field too many at the very end of its input
        block += b"\n"
    if len(block) < block.count(b"\n") * len(names):
        # rows too short for their commas, unless line ends stand in quotes: polars would first fill them all up with
        # nulls, in memory
        _refuse_bad_row(block, names, path, first_row)
    columns = [f"c{index}" for index in range(len(names))]
    try:
        # all columns, not the wanted ones only: polars counts the fields of a row only then
        frame = pl.read_csv(io.BytesIO(",".join(columns).encode() + b"\n" + block), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        _refuse_bad_row(block, names, path, first_row)
        reason = str(error).splitlines()[0]
        raise DataError(
            path,
            f"rows {first_row} and on cannot be parsed ({reason})",
            expected=f"CSV of {len(names)} columns",
            remedy=FETCH_AGAIN,
        ) from error
    if frame[columns[-1]].null_count() and _separators(block) != frame.height * (len(names) - 1):
        # not an empty cell but a short row, which polars fills up with nulls
        _refuse_bad_row(block, names, path, first_row)
    return frame.select(pl.col(columns[names.index(name)]).alias(name) for name in wanted)


def _separators(block: bytes) -> int:
    """Commas outside quotes."""
    if b'"' not in block:
        return block.count(b",")
    text = np.frombuffer(block, np.uint8)
    # sums wrap at 256, which leaves their last bit, inside or outside, as it is
    inside = np.cumsum(text == ord('"'), dtype=np.uint8) & 1
    return int(np.count_nonzero((text == ord(",")) & (inside == 0)))


def _refuse_bad_text(block: bytes, path: Path, first_row: int) -> None:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        # exact where no quoted field holds a line end, which no CESNET column does
        row = first_row + block.count(b"\n", 0, error.start)
        raise DataError(path, "invalid UTF-8", row=row, expected="UTF-8 text", remedy=REMEDY) from error


def _refuse_bad_row(block: bytes, names: Sequence[str], path: Path, first_row: int) -> None:
    """Raises DataError for the first row that has not one field for each column, if there is one."""
    expected = f"{len(names)} fields"
    start = 0
    while len(block) - start > MAX_ROW_BYTES:
        end = block.rfind(b"\n", start, start + MAX_ROW_BYTES) + 1
        if not end:
            # taken apart, millions of fields would fill the memory
            row = first_row + block.count(b"\n", 0, start)
            raise DataError(path, f"a line of over {MAX_ROW_BYTES} bytes", row=row, expected=expected, remedy=REMEDY)
        start = end
    rows = csv.reader(io.StringIO(block.decode("utf-8"), newline=""), strict=True)
    for row in itertools.count(first_row):
        try:
            fields = next(rows, None)
        except csv.Error as error:
            raise DataError(path, f"not CSV ({error})", row=row, expected=expected, remedy=REMEDY) from error
        if fields is None:
            return
        if len(fields) != len(names):
            raise DataError(path, f"{len(fields)} fields", row=row, expected=expected, remedy=REMEDY)
