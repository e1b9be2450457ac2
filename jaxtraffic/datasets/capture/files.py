"""Finds captures in folders: by their ending, or where they have another or none, by their first bytes."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

MAGICS = tuple(
    bytes.fromhex(text) for text in ("a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1", "a1b2cd34", "34cdb2a1", "0a0d0d0a")
)
"""First bytes of pcap files (micro- and nanoseconds, both byte orders, modified) and of pcapng files."""

SURE_ENDINGS = (".pcap", ".pcapng", ".pcap.gz", ".pcapng.gz")
"""Files with these are captures: one that is not is damaged, and the reader says so."""

MAX_DEPTH = 8
"""Levels of folders that are looked into."""

_GZIP = b"\x1f\x8b"
_HEAD = 512  # compressed bytes that hold the first four, whatever name the gzip header has within reason


def has_magic(path: Path) -> bool:
    """Whether the file starts as a capture does, compressed with gzip or not; False where it cannot be read."""
    try:
        with path.open("rb", buffering=0) as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 4)
        except zlib.error:
            return False
    return head[:4] in MAGICS


def is_capture(path: Path) -> bool:
    """Whether a file is, or claims to be, a capture; only files of other endings are opened."""
    return path.name.lower().endswith(SURE_ENDINGS) or has_magic(path)


def find_captures(place: Path, accept: Callable[[Path], bool] = lambda path: True) -> list[Path]:
    """Captures at a place, in order of their paths.

    Files and folders whose name starts with a dot are left out; links to folders are not followed, but `place` may be
    one.

    Args:
        place: a folder, looked into down to `MAX_DEPTH` levels, or a file.
        accept: takes the path of a file before it is opened; False leaves it out.
    """
    if place.is_file():
        return [place] if accept(place) and is_capture(place) else []
    return sorted(path for path in _files(place) if accept(path) and is_capture(path))


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        depth = len(Path(parent).parts) - len(folder.parts)
        folders[:] = [] if depth >= MAX_DEPTH else sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path
