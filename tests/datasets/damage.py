"""Damage that reaches the inner parsers: other words in a text, other values in a table, damage within an archive."""

import functools
import gzip
import io
import itertools
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from tests.datasets.robustness import mutated_copies

Copies = Callable[[bytes, int, int], Iterator[bytes]]
"""Data, number and seed -> damaged copies."""

TOKENS = (
    *(b"null", b"true", b"{}", b"[]", b"[[1]]", b"-1", b"0", b"1e999", b"-1e999", b"NaN", b"0.5", b"40000", b"1e18"),
    *(b"9" * 30, b"9" * 5000, b"\xff\xfe", b"\x00", b"\n", b",", b'"', b'""', b'"x"', b'"\\ud800"'),
    *(b"../../../etc/passwd", b"__import__('os').system('true')", b"[" * 100_000, b'{"a":' * 50_000, b"y" * 100_000),
)
"""What stands in the place of a word or a number: wrong types, absurd values, deep nesting, text that is none."""

_WORD = re.compile(rb'-?\d+(?:\.\d+)?|"[^"\n]{0,200}"|[A-Za-z_.]+')


def hostile_words(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    """Copies of a text in which one to three words or numbers are something else."""
    rng = np.random.default_rng(seed)
    spans = [match.span() for match in _WORD.finditer(data)]
    for _ in range(n):
        copy = data
        for at in sorted(rng.choice(len(spans), int(rng.integers(1, 4)))[:3], reverse=True):
            start, end = spans[at]
            copy = copy[:start] + TOKENS[int(rng.integers(0, len(TOKENS)))] + copy[end:]
        yield copy


def expanding(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    """Texts that begin well and go on for 32 MB with the same few letters, or with their last row."""
    head = data.partition(b"\n")[0] + b"\n" if b"\n" in data else data[: len(data) // 2]
    last = data.rstrip(b"\n").rpartition(b"\n")[2] + b"\n"
    for unit in itertools.islice((b"\n", b"9", b",", b'"', b" ", b"0,", b"0\t", last), n):
        yield head + unit * ((32 << 20) // len(unit))


def either(*kinds: Copies) -> Copies:
    """Copies of each kind in turn."""

    def copies(data: bytes, n: int, seed: int) -> Iterator[bytes]:
        made = [kind(data, -(-n // len(kinds)), seed + index) for index, kind in enumerate(kinds)]
        return itertools.islice((copy for several in zip(*made) for copy in several), n)

    return copies


def inside(take_apart: Callable[[bytes], tuple[bytes, Callable[[bytes], bytes]]], inner: Copies) -> Copies:
    """Copies whose damage lies within a wrapping that is whole: take_apart gives the content, and what wraps it."""

    def copies(data: bytes, n: int, seed: int) -> Iterator[bytes]:
        content, wrap = take_apart(data)
        return map(wrap, inner(content, n, seed))

    return copies


def of_gzip(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """A gzip file."""
    return gzip.decompress(data), functools.partial(gzip.compress, compresslevel=1)


def of_xz(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """An xz file."""
    return lzma.decompress(data), functools.partial(lzma.compress, preset=0)


def of_zip(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The first file of a zip."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    first = next(iter(members))
    return members[first], lambda content: packed_zip(members | {first: content})


def of_tar(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The first file of a tar.gz."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {info.name: archive.extractfile(info).read() for info in archive if info.isreg()}
    first = next(iter(members))
    return members[first], lambda content: packed_tar(members | {first: content})


def packed_zip(members: dict[str, bytes]) -> bytes:
    """A zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def packed_tar(members: dict[str, bytes]) -> bytes:
    """A tar.gz."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def wrong_tables(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    """Parquet whose bytes are whole and whose values are wrong: types, nulls, lengths of lists, sizes, times."""
    rng = np.random.default_rng(seed)
    metadata = {
        key: value for key, value in pl.read_parquet_metadata(io.BytesIO(data)).items() if not key.startswith("ARROW")
    }
    frame = pl.read_parquet(io.BytesIO(data))
    for _ in range(n):
        copy = frame
        for _ in range(int(rng.integers(1, 3))):
            copy = _wrong_table(copy, rng)
        out = io.BytesIO()
        try:
            copy.write_parquet(out, metadata=_wrong_metadata(metadata, rng), compression="uncompressed")
        except pl.exceptions.PolarsError:
            # no parquet type for it
            out = io.BytesIO(data)
        yield out.getvalue()


def _wrong_table(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    if not frame.width:
        return frame
    names = [name for name in frame.columns if isinstance(frame[name].dtype, pl.List)] or frame.columns
    name = str(rng.choice(names if rng.random() < 0.7 else frame.columns))
    column, row = pl.col(name), pl.int_range(pl.len()) == int(rng.integers(0, max(frame.height, 1)))
    listed = isinstance(frame[name].dtype, pl.List)
    value = [-1, 0, 2, 40_000, 2**31, -(2**63), 2**63 - 1, float("nan"), float("inf"), -0.5, 1e300, None, "x", True]
    value = pl.lit(value[int(rng.integers(0, len(value)))])
    kinds = (
        *(pl.String, pl.Float64, pl.Float32, pl.Int8, pl.UInt64, pl.Boolean, pl.Categorical, pl.Binary, pl.Date),
        *(pl.List(pl.String), pl.List(pl.Float64), pl.List(pl.Boolean), pl.List(pl.List(pl.Int64)), pl.List(pl.Int8)),
        *(pl.Array(pl.Int64, 3), pl.Struct({"a": pl.Int64}), pl.Datetime("ns"), pl.Decimal(10, 2), pl.Null),
    )
    changes = [
        lambda: frame.drop(name),
        lambda: frame.rename({name: str(rng.choice(["size", "label", "app", "pkts_size", "x"]))}),
        lambda: frame.with_columns(column.cast(kinds[int(rng.integers(0, len(kinds)))], strict=False)),
        lambda: frame.with_columns(pl.when(row).then(value).otherwise(column).alias(name)),
        lambda: frame.with_columns(pl.when(row).then(None).otherwise(column).alias(name)),
        lambda: frame.with_columns(value.alias(name)),
        lambda: frame.head(int(rng.integers(0, 3))),
        lambda: pl.concat([frame] * 3),
        lambda: frame.reverse(),
    ]
    if listed:
        changes += 3 * [
            lambda: frame.with_columns(pl.when(row).then(column.list.head(2)).otherwise(column)),
            lambda: frame.with_columns(pl.when(row).then(column.list.concat(value)).otherwise(column)),
            lambda: frame.with_columns(pl.when(row).then(column.list.head(0)).otherwise(column)),
            lambda: frame.with_columns(pl.when(row).then(column.list.eval(pl.element() - 100)).otherwise(column)),
            lambda: frame.with_columns(pl.when(row).then(column.list.eval(pl.lit(None))).otherwise(column)),
            lambda: frame.with_columns(column.list.eval(pl.element() * 1e18)),
        ]
    try:
        return changes[int(rng.integers(0, len(changes)))]()
    except (pl.exceptions.PolarsError, OverflowError, TypeError):
        return frame


def _wrong_metadata(metadata: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
    if not metadata or rng.random() < 0.7:
        return metadata
    key = str(rng.choice(sorted(metadata)))
    text = next(hostile_words(metadata[key].encode(), 1, int(rng.integers(1 << 30)))) if metadata[key] else b""
    return metadata | {key: text.decode(errors="replace")[:100_000]}


TEXT = either(mutated_copies, hostile_words)
TABLE = either(mutated_copies, wrong_tables)
ZIPPED_TEXT = either(mutated_copies, inside(of_zip, TEXT))
