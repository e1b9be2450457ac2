"""Bytes of NetFlow tables (plain, in gzip or xz, or the only table of an archive), in blocks of whole rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jaxtraffic.datasets.csv_blocks import BLOCK_BYTES, FETCH_AGAIN, decompress
from jaxtraffic.datasets.documents import documents, is_archive
from jaxtraffic.errors import DataError

ENDINGS = (".csv", ".csv.uniqblacklistremoved", ".txt", ".tsv")
"""Endings of the tables inside archives; the second is that of UGR'16."""

_COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ\x00")


def row_blocks(path: Path, *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yields blocks of about `block_bytes` that end at the end of a row.

    A line longer than two blocks is handed on in pieces, for the parser to refuse.

    Raises:
        DataError: a file that cannot be read, is empty or damaged, or an archive of no table or of several.
    """
    held = b""
    for piece in _pieces(path, block_bytes):
        held += piece
        end = held.rfind(b"\n") + 1
        if end and len(held) >= block_bytes:
            yield held[:end]
            held = held[end:]
        elif len(held) >= 2 * block_bytes:
            yield held
            held = b""
    if held:
        yield held


def has_tabs(block: bytes) -> bool:
    """Whether the first row is split by tabs, not by commas."""
    first = block[: block.find(b"\n") + 1 or len(block)]
    return b"\t" in first and b"," not in first


def is_utf8(block: bytes) -> bool:
    """Whether the bytes are UTF-8 text."""
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pieces(path: Path, block_bytes: int) -> Iterator[bytes]:
    if path.is_dir():
        raise DataError(path, "a folder", expected="a table of NetFlow records", remedy="name the file")
    if is_archive(path):
        yield from _only_document(path, block_bytes)
        return
    try:
        with path.open("rb") as file:
            start = file.read(block_bytes)
            if not start:
                raise DataError(path, "empty file (0 bytes)", expected="a table", remedy=FETCH_AGAIN)
            if not start.startswith(_COMPRESSED):
                while start:
                    yield start
                    start = file.read(block_bytes)
                return
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise DataError(path, problem, expected="a readable file", remedy="check the path") from error
    yield from decompress(path, block_bytes=block_bytes)


def _only_document(path: Path, block_bytes: int) -> Iterator[bytes]:
    first = None
    for document in documents(path, ENDINGS):
        if first is not None:
            raise DataError(
                path, f"holds several tables ({first}, {document.name})", remedy="unpack it and name one of them"
            )
        first = document.name
        while piece := document.stream.read(block_bytes):
            yield piece
    if first is None:
        raise DataError(path, "holds no table", expected=f"a file ending in {', '.join(ENDINGS)}", remedy=FETCH_AGAIN)
