"""The files inside a file, a folder or an archive, one after the other, without unpacking anything on disk.

Names inside archives are names and nothing else: no path is ever made from them, so none can escape.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from jaxtraffic.errors import DataError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz")
"""Endings of the archives that are looked into."""

MAX_DEPTH = 3
"""Archives within archives."""

MAX_EXPANSION = 2000
"""Times that a member of a zip archive may be larger than its compressed bytes; more is refused as a bomb."""

MAX_BYTES = 64 << 30
"""Decompressed bytes read of one member at most."""

_SPOOL = 64 << 20
# what zipfile and tarfile raise on damaged bytes; some of it is meant by nobody
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, TypeError, LookupError, OverflowError, AttributeError),
    MemoryError,
)


class Document(NamedTuple):
    """A file to read.

    Attributes:
        where: path for messages, `file!name in the archive` inside archives.
        name: path below the place that was asked for, with `/` between parts, archives counted as folders without
            their ending.
        stream: its bytes; open until the next document is asked for.
    """

    where: str
    name: PurePosixPath
    stream: BinaryIO


def is_archive(path: Path) -> bool:
    """Whether the name ends as that of an archive."""
    return path.name.lower().endswith(ARCHIVES)


def documents(place: Path, endings: tuple[str, ...]) -> Iterator[Document]:
    """Yields the files with one of the endings (lower case), in order of their names; in a tar archive, in its order.

    Args:
        place: a file (which is its own only document, whatever its ending), a folder or an archive.
        endings: such as (".json",).

    Raises:
        DataError: a file that cannot be opened, or an archive that is damaged, encrypted, or expands beyond measure.
    """
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.is_file() and path.name.lower().endswith(endings):
                yield from _plain(path, PurePosixPath(path.relative_to(place).as_posix()))
            elif path.is_file() and is_archive(path):
                yield from _archive(path, PurePosixPath(path.relative_to(place).as_posix()), endings)
    elif is_archive(place) and not place.name.lower().endswith(endings):
        yield from _archive(place, PurePosixPath(place.name), endings)
    else:
        yield from _plain(place, PurePosixPath(place.name))


def _plain(path: Path, name: PurePosixPath) -> Iterator[Document]:
    try:
        with path.open("rb") as stream:
            yield Document(str(path), name, stream)
    except OSError as error:
        raise _unreadable(str(path), error) from error


def _archive(path: Path, name: PurePosixPath, endings: tuple[str, ...]) -> Iterator[Document]:
    try:
        with path.open("rb") as stream:
            yield from _members(stream, str(path), _stem(name), endings, depth=1)
    except OSError as error:
        raise _unreadable(str(path), error) from error


def _members(
    stream: BinaryIO, where: str, name: PurePosixPath, endings: tuple[str, ...], depth: int
) -> Iterator[Document]:
    if depth > MAX_DEPTH:
        raise DataError(where, f"archives nested more than {MAX_DEPTH} deep", remedy="unpack the inner ones")
    walk = _zip_members if where.lower().endswith(".zip") else _tar_members
    for inner, member in walk(stream, where):
        inside, place = name / inner, f"{where}!{inner}"
        if inner.name.lower().endswith(endings):
            yield Document(place, inside, member)
        elif inner.name.lower().endswith(ARCHIVES):
            # a zip archive is read from its end: the inner one has to be there as a whole
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as whole:
                shutil.copyfileobj(member, whole, 1 << 20)
                whole.seek(0)
                yield from _members(whole, place, _stem(inside), endings, depth + 1)


def _zip_members(stream: BinaryIO, where: str) -> Iterator[tuple[PurePosixPath, BinaryIO]]:
    with _named(where):
        archive = zipfile.ZipFile(stream)  # noqa: SIM115  it holds nothing but the stream, which is closed elsewhere
        infos = sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)
    for info in infos:
        place = f"{where}!{info.filename}"
        if info.flag_bits & 1:
            raise DataError(place, "encrypted", expected="an archive without password", remedy="unpack it first")
        limit = min(MAX_BYTES, MAX_EXPANSION * max(info.compress_size, 1 << 10))
        with _named(place):
            member = archive.open(info)
        with member:
            yield _safe_name(info.filename), io.BufferedReader(_Guarded(member, place, limit), 1 << 16)


def _tar_members(stream: BinaryIO, where: str) -> Iterator[tuple[PurePosixPath, BinaryIO]]:
    with _named(where):
        archive = tarfile.open(fileobj=stream, mode="r|*")  # noqa: SIM115  closed below
    with contextlib.closing(archive):
        while True:
            with _named(where):
                info = archive.next()
                member = archive.extractfile(info) if info is not None and info.isreg() else None
            if info is None:
                return
            if member is not None:
                place = f"{where}!{info.name}"
                yield _safe_name(info.name), io.BufferedReader(_Guarded(member, place, MAX_BYTES), 1 << 16)


class _Guarded(io.RawIOBase):
    """Bytes of a member: damage becomes an error of ours, and more bytes than the limit as well."""

    def __init__(self, member: BinaryIO, where: str, limit: int):
        self._member, self._where, self._left = member, where, limit

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer) -> int:
        """Reads into a buffer; 0 at the end."""
        with _named(self._where):
            data = self._member.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(self._where, "expands beyond measure", expected="an archive of flows")
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Damage in an archive as an error of ours that names it."""
    try:
        yield
    except OSError as error:
        raise _unreadable(where, error) from error
    except _DAMAGED as error:
        raise DataError(
            where, f"damaged archive ({error})", remedy="fetch the file again and compare its checksum"
        ) from error


def _unreadable(where: str, error: OSError) -> DataError:
    return DataError(
        where, f"cannot be read: {error.strerror or error}", expected="a readable file", remedy="check the path"
    )


def _safe_name(name: str) -> PurePosixPath:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return PurePosixPath(*parts) if parts else PurePosixPath("unnamed")


def _stem(name: PurePosixPath) -> PurePosixPath:
    for ending in sorted(ARCHIVES, key=len, reverse=True):
        if name.name.lower().endswith(ending):
            return name.with_name(name.name[: -len(ending)] or "archive")
    return name
