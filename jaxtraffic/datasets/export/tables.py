"""Packet series in forms that leave this library: NumPy archives, and parquet with the columns of tcbench.

Both say in their metadata what they hold (name, size layer, source, class names), both read back to the same series,
and both are complete or not there: they are written beside their place and then renamed.

The archive is plain NumPy: `numpy.load(path, allow_pickle=False)` gives `size`, `direction`, `iat`, `mask` [flow,
packet], `label` [flow], `class_names` (text), `metadata` (JSON text) and, where flows have groups, `group`.

The parquet files have one row a flow and lists without padding. Directions of "dev" are +1 client, -1 server. tcbench
v1 has no one polarity (see `tcbench.layout`); files in its columns that we write take 1 for the client and 0 for the
server, as in its UCDAVIS19 and UTMOBILENET21, and as those who read 0 as -1 and all else as +1 expect. v1 files hold
`pkts_iat` beside `timetofirst`, as those of UCDAVIS19, because sums of times do not give the times back bit for bit.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.interchange import FORMAT, KEY, metadata_of
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.tcbench.layout import GENERATIONS
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.series import PacketSeries

MAX_EXPANSION = 2000
"""Times that an array may be larger than its compressed bytes; more is refused as a bomb."""

_EXPECTED = "an archive that write_npz wrote"
_REMEDY = "export the flows again"
_ARRAYS = {"size": np.int16, "direction": np.int8, "iat": np.float32, "label": np.int32}
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError),
    *(ValueError, KeyError, TypeError, SyntaxError, OverflowError, MemoryError),
)


def write_npz(flows: PacketSeries, path: str | Path) -> None:
    """Writes flows to a compressed NumPy archive, which `read_npz` gives back exactly.

    Args:
        flows: checked flows.
        path: the file, as named (no ending is added); its folder is made where needed.

    Raises:
        DataError: the file cannot be written.
    """
    arrays = {name: np.asarray(getattr(flows, name)) for name in _ARRAYS}
    arrays["mask"] = np.asarray(flows.mask)
    arrays["class_names"] = np.array(flows.class_names, dtype=np.str_)
    arrays["metadata"] = np.array(json.dumps(metadata_of(flows)))
    if flows.group is not None:
        arrays["group"] = np.asarray(flows.group)
    try:
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise _unwritable(path, error) from error


def read_npz(path: str | Path) -> PacketSeries:
    """Reads what `write_npz` wrote.

    Raises:
        DataError: no archive, a damaged one, arrays that are missing or are no packet series.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return _series(archive, path)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise DataError(path, problem, expected=_EXPECTED, remedy="check the path") from error
    except _DAMAGED as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(path, f"damaged archive ({reason})", expected=_EXPECTED, remedy=_REMEDY) from error


def _series(archive: zipfile.ZipFile, path: Path) -> PacketSeries:
    held = {name.removesuffix(".npy") for name in archive.namelist()}
    for name in (*_ARRAYS, "class_names", "metadata"):
        if name not in held:
            raise DataError(path, "missing array", field=name, expected=_EXPECTED, remedy=_REMEDY)
    own = json.loads(str(_array(archive, "metadata", path)[()]))
    texts = [own[name] for name in ("name", "size_layer", "source")]
    if own["format"] != FORMAT or not all(isinstance(text, str) for text in texts):
        raise ValueError("not the metadata we write")
    names = _array(archive, "class_names", path)
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(path, f"array of {names.dtype}", field="class_names", expected="names", remedy=_REMEDY)
    # halves of surrogate pairs, which NumPy and JSON can hold and UTF-8 cannot
    "".join((*names.tolist(), *texts)).encode()
    group = _array(archive, "group", path) if "group" in held else None
    if group is not None and group.dtype.kind not in "iu":
        raise DataError(path, f"array of {group.dtype}", field="group", expected="integers", remedy=_REMEDY)
    try:
        return PacketSeries(
            **{name: _array(archive, name, path) for name in _ARRAYS},
            group=group,
            class_names=tuple(names.tolist()),
            name=texts[0],
            size_layer=texts[1],
            source=texts[2],
        ).check()
    except ConfigError as error:
        raise DataError(path, str(error), expected=_EXPECTED, remedy=_REMEDY) from error


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """An array of the archive, whose header is held against the bytes that are there."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > MAX_EXPANSION * max(info.compress_size, 1 << 10):
        raise DataError(path, "expands beyond measure", field=name, expected=_EXPECTED, remedy=_REMEDY)
    with archive.open(info) as member:
        data = member.read()
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"array format {version}")
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # the header is a Python literal: damage shows in any error of the parser
        raise ValueError(f"no array header in {name}") from error
    left = len(data) - stream.tell()
    n = 1
    for extent in shape:
        n *= extent
    if dtype.hasobject or min(shape, default=0) < 0 or fortran and len(shape) > 1 or n * dtype.itemsize != left:
        problem = f"header says {shape} of {dtype}, {left} bytes follow"
        raise DataError(path, problem, field=name, expected=_EXPECTED, remedy=_REMEDY)
    return np.frombuffer(data, dtype, count=n, offset=stream.tell()).reshape(shape).copy()


def write_tcbench_parquet(flows: PacketSeries, path: str | Path, generation: str = "dev") -> None:
    """Writes flows in the columns that tcbench's tables share.

    "dev": row_id, app, app_category (null: not known here), packets, bytes, pkts_size, pkts_dir, pkts_iat,
    pkts_timetofirst, pkts_size_times_dir, pkts_len. "v1": row_id, app, packets, pkts_size, pkts_dir, timetofirst,
    pkts_iat. `packets` and `bytes` are those of the series, not of whole flows. The size layer stands in the metadata.

    Args:
        flows: checked flows.
        path: the file; its folder is made where needed.
        generation: "dev" or "v1".

    Raises:
        ConfigError: an unknown generation.
        DataError: the file cannot be written.
    """
    if generation not in GENERATIONS:
        raise ConfigError(f"unknown generation {generation!r}; choose from: {', '.join(GENERATIONS)}")
    iat = np.asarray(flows.iat)
    direction = np.asarray(flows.direction)
    frame = pl.DataFrame(
        {
            "app": pl.Series(np.asarray(flows.label)).replace_strict(
                dict(enumerate(flows.class_names)), return_dtype=pl.String
            ),
            "packets": np.asarray(flows.n_packets),
            "pkts_size": np.asarray(flows.size),
            "pkts_dir": direction if generation == "dev" else (direction > 0).astype(np.int8),
            "pkts_iat": iat,
            "elapsed": np.cumsum(iat.astype(np.float64), axis=1),
            "signed": np.asarray(flows.size, np.int64) * direction,
        }
    ).with_row_index("row_id")
    series = ("pkts_size", "pkts_dir", "pkts_iat", "elapsed", "signed")
    frame = frame.with_columns(pl.col(name).arr.to_list().list.head(pl.col("packets")) for name in series)
    frame = frame.select(_columns_dev() if generation == "dev" else _columns_v1())
    own = metadata_of(flows) | {"tcbench": {"generation": generation}}
    try:
        with replacing(Path(path)) as temporary:
            frame.write_parquet(temporary, metadata={KEY: json.dumps(own)})
    except OSError as error:
        raise _unwritable(path, error) from error


def _columns_dev() -> list[pl.Expr]:
    size = pl.col("pkts_size")
    return [
        pl.col("row_id").cast(pl.UInt32),
        pl.col("app"),
        pl.lit(None, pl.String).alias("app_category"),
        pl.col("packets").cast(pl.UInt64),
        size.cast(pl.List(pl.UInt64)).list.sum().alias("bytes"),
        size.cast(pl.List(pl.UInt32)),
        pl.col("pkts_dir").cast(pl.List(pl.Int32)),
        pl.col("pkts_iat"),
        pl.col("elapsed").cast(pl.List(pl.Float32)).alias("pkts_timetofirst"),
        pl.col("signed").alias("pkts_size_times_dir"),
        pl.col("packets").cast(pl.UInt32).alias("pkts_len"),
    ]


def _columns_v1() -> list[pl.Expr]:
    return [
        pl.col("row_id").cast(pl.Int64),
        pl.col("app").cast(pl.Categorical),
        pl.col("packets").cast(pl.Int64),
        pl.col("pkts_size").cast(pl.List(pl.Int64)),
        pl.col("pkts_dir").cast(pl.List(pl.Int64)),
        pl.col("elapsed").alias("timetofirst"),
        pl.col("pkts_iat").cast(pl.List(pl.Float64)),
    ]


def _unwritable(path: str | Path, error: OSError) -> DataError:
    return DataError(path, f"cannot be written: {error.strerror or error}", remedy="choose another path")
