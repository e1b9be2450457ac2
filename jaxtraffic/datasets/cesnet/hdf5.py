"""The CESNET sets as cesnet-datazoo stores them: one PyTables table a day at `/flows/DYYYYMMDD`.

Read without cesnet-datazoo (which needs torch). Base dtypes and compression are not documented, so nothing here depends
on them: values are judged as numbers, and padding is `direction == 0` and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from jaxtraffic.datasets.cesnet.day_files import DNS_PORTS, day_number, own_folders
from jaxtraffic.datasets.cesnet.hdf5_check import survives
from jaxtraffic.datasets.cesnet.ppi import FIELDS, MAX_PACKETS
from jaxtraffic.datasets.cesnet.utc_times import epoch_seconds
from jaxtraffic.datasets.curation import is_dns_name
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, check_layer, make_block
from jaxtraffic.datasets.ragged import REMEDY, Ragged
from jaxtraffic.errors import DataError, JaxTrafficError

log = logging.getLogger("jaxtraffic.datasets")

ROWS_PER_CHUNK = 20_000
"""Rows of a table held in memory at a time."""

MAX_EXPANSION = 2000
"""Times that the rows of a table may be larger than its file; more cannot come from compression."""

SUBSETS = ("XS", "S", "M", "L")
"""Sizes that cesnet-datazoo offers beside the whole set, whose file has no suffix."""

EMPTY_TABLES = "day tables without rows"
"""Rule under which an empty day table is counted as left out."""

_DAY = re.compile(r"D\d{8}")
_FETCH_AGAIN = "fetch the file again and compare its size with the published one; a download that broke off looks so"


def find_files(folder: Path, title: str = "CESNET-QUIC22") -> list[Path]:
    """HDF5 files of a set under a folder, smallest subset first.

    Args:
        folder: data root, the folder of the set, or the folder of one size.
        title: name of the set.
    """
    own = own_folders(folder, title) if folder.is_dir() else []
    found = {path for place in (folder, *own) for layout in (".", "*") for path in place.glob(f"{layout}/{title}*.h5")}

    def order(path: Path) -> tuple[int, str]:
        size = path.stem.rpartition("-")[2]
        return (SUBSETS.index(size) if size in SUBSETS else len(SUBSETS), str(path))

    return sorted(found, key=order)


def read(path: Path, options: ReadOptions, title: str = "CESNET-QUIC22", protocol: int = 17) -> Iterator[FlowBlock]:
    """Reads a datazoo file, day after day, in blocks of rows.

    Args:
        path: such as `CESNET-QUIC22-XS.h5`.
        options: of the reading.
        title: name of the set, for messages.
        protocol: 6 TCP or 17 UDP, where no column says it.

    Raises:
        ConfigError: sizes of the IP layer are asked for.
        DataError: PyTables is not installed, the file is truncated or no HDF5 file, or a row is wrong.
    """
    check_layer(options, ("payload",), title)
    try:
        tables = importlib.import_module("tables")
    except ImportError as error:
        raise DataError(
            path, "reading HDF5 needs PyTables", remedy="install it with the extra: jaxtraffic[hdf5]"
        ) from error
    # the C library would print its own stack of errors beside ours
    tables.silence_hdf5_messages(True)
    if not survives(path.absolute()):
        raise DataError(
            path,
            "not a readable HDF5 file (the HDF5 library crashes on it)",
            expected="a complete HDF5 file of cesnet-datazoo",
            remedy=_FETCH_AGAIN,
        )
    try:
        with _without_pickle(tables), tables.open_file(str(path), mode="r") as file:
            empty = 0
            days = _day_tables(tables, file, path)
            for table in days:
                empty += not table.nrows
                yield from _read_table(table, path, options, protocol)
            if empty == len(days):
                raise DataError(path, "no flows: its day tables are empty", remedy=_FETCH_AGAIN)
            if empty:
                log.warning("%s: %d of %d day tables are empty", path, empty, len(days))
    except JaxTrafficError:
        raise
    except Exception as error:
        # a damaged file makes PyTables raise anything: KeyError, TypeError, UnicodeDecodeError, HDF5ExtError
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            path,
            f"not a readable HDF5 file ({reason[:120]})",
            expected="a complete HDF5 file of cesnet-datazoo",
            remedy=_FETCH_AGAIN,
        ) from error


@contextlib.contextmanager
def _without_pickle(tables: Any) -> Iterator[None]:
    """PyTables unpickles attributes that look pickled, which runs code out of the file; here they stay bytes."""
    module = importlib.import_module(f"{tables.__name__}.attributeset")

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("pickled attributes are not read")

    kept = module.pickle
    module.pickle = SimpleNamespace(loads=refuse, dumps=kept.dumps, UnpicklingError=kept.UnpicklingError)
    try:
        yield
    finally:
        module.pickle = kept


def _day_tables(tables: Any, file: Any, path: Path) -> list[Any]:
    expected = "tables /flows/DYYYYMMDD"
    if "/flows" not in file:
        raise DataError(
            path, "missing group", field="/flows", expected=expected, remedy="give a file of cesnet-datazoo"
        )
    days = [
        node for node in file.iter_nodes("/flows") if _DAY.fullmatch(node._v_name) and isinstance(node, tables.Table)
    ]
    if not days:
        raise DataError(path, "no day table", field="/flows", expected=expected, remedy="give a file of cesnet-datazoo")
    return sorted(days, key=lambda table: table._v_name)


def _read_table(table: Any, path: Path, options: ReadOptions, protocol: int) -> Iterator[FlowBlock]:
    """Yields the blocks of a day table; one that counts the day as left out where the table has no rows."""
    where = f"{path}:{table._v_pathname}"
    for name in ("PPI", "APP"):
        if name not in table.colnames:
            raise DataError(where, "missing column", field=name, expected="columns PPI and APP", remedy=_FETCH_AGAIN)
    shape = table.coldtypes["PPI"].shape
    if len(shape) != 2 or shape[0] not in (3, 4) or shape[1] != MAX_PACKETS:
        raise DataError(
            where, f"shape {shape}", field="PPI", expected="(3, 30) or (4, 30): times, directions, sizes[, push flags]"
        )
    enums = {name: _enum_names(table, name, where) for name in ("APP", "CATEGORY") if name in table.colnames}
    day = day_number(table._v_name)
    if table.nrows * table.rowsize > MAX_EXPANSION * max(path.stat().st_size, 1 << 16):
        raise DataError(where, f"{table.nrows} rows, more than the file can hold", remedy=_FETCH_AGAIN)
    for start in range(0, max(table.nrows, 1), ROWS_PER_CHUNK):
        rows = table.read(start, start + ROWS_PER_CHUNK)
        names = {field: _names(rows[field], enum, where, start, field) for field, enum in enums.items()}
        yield make_block(
            unpad(rows["PPI"], where, first_row=start + 1),
            names["APP"],
            _facts(rows, names, protocol) | {"day": day},
            options,
            where,
            FIELDS,
            size_layer="payload",
            first_row=start + 1,
            iat_per_second=1000,
            dropped={} if table.nrows else {EMPTY_TABLES: 1},
        )


def _facts(rows: np.ndarray, names: dict[str, pl.Series], protocol: int) -> dict[str, object]:
    facts: dict[str, object] = {
        "protocol": protocol,
        "is_background": names["APP"].str.ends_with("-background"),
    }
    if "CATEGORY" in names:
        facts["category"] = names["CATEGORY"]
    is_dns = np.zeros(rows.size, bool)
    for column in names.values():
        is_dns |= column.is_in([name for name in column.unique().to_list() if is_dns_name(name)]).to_numpy()
    fields = rows.dtype.names
    for field, fact in (("SRC_PORT", "client_port"), ("DST_PORT", "server_port"), ("PROTOCOL", "protocol")):
        if field in fields:
            facts[fact] = _integers(rows[field])
    for fact in ("client_port", "server_port"):
        if fact in facts:
            is_dns |= facts[fact].is_in(DNS_PORTS).fill_null(False).to_numpy()
    if "PACKETS" in fields and "PACKETS_REV" in fields:
        facts["packets"] = _integers(rows["PACKETS"]).cast(pl.Int64) + _integers(rows["PACKETS_REV"]).cast(pl.Int64)
    if "TIME_FIRST" in fields:
        facts["start"] = _seconds(rows["TIME_FIRST"])
    return facts | {"is_dns": is_dns}


def _integers(values: np.ndarray) -> pl.Series:
    """[flow] Int32, null where a value is no whole number from 0 to 2**31 - 1 or where the column is no number."""
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        return pl.Series([None] * len(values), dtype=pl.Int32)
    valid = (values >= 0) & (values < 2**31) & (values == np.floor(values))
    return pl.Series(np.where(valid, values, 0).astype(np.int32)).set(~pl.Series(valid), None)


def _seconds(values: np.ndarray) -> pl.Series:
    """[flow] Float64 seconds since 1970 of numbers, or of text; never by way of the machine's own time zone."""
    if values.ndim == 1 and values.dtype.kind in "iuf":
        seconds = values.astype(np.float64)
        return pl.Series(np.where(np.isfinite(seconds), seconds, np.nan)).fill_nan(None)
    if values.ndim == 1 and values.dtype.kind == "S":
        return epoch_seconds(pl.Series(np.char.decode(values, "ascii", "replace").tolist(), dtype=pl.String))
    return pl.Series([None] * len(values), dtype=pl.Float64)


def _enum_names(table: Any, field: str, where: str) -> dict[int, str]:
    """Code -> name. The codes are read, and not taken for positions: nothing promises that they are dense."""
    try:
        return {int(code): name for name, code in table.get_enum(field)}
    except (TypeError, KeyError) as error:
        raise DataError(
            where, "not an enumerated column", field=field, expected="an EnumCol with names", remedy=_FETCH_AGAIN
        ) from error


def _names(codes: np.ndarray, enum: dict[int, str], where: str, start: int, field: str) -> pl.Series:
    known = np.isin(codes, list(enum))
    if not known.all():
        row = int(np.argmin(known))
        raise DataError(
            where,
            f"code {codes[row]} has no name",
            row=start + row + 1,
            field=field,
            expected="a code of the enumeration of the column",
            remedy=REMEDY,
        )
    return pl.Series(field, codes.astype(np.int64)).replace_strict(enum, return_dtype=pl.String)


def unpad(ppi: np.ndarray, where: str | Path, *, first_row: int = 1) -> Ragged:
    """Flat values of padded packets, [flow, channel, 30] with channels times, directions, sizes[, push flags].

    Raises:
        DataError: a packet after the padding.
    """
    iat, direction, size = ppi[:, 0], ppi[:, 1], ppi[:, 2]
    # NaN counts as a packet, so that the check of values refuses it
    mask = direction != 0
    late = (mask[:, 1:] & ~mask[:, :-1]).any(axis=1)
    if late.any():
        row = int(np.argmax(late))
        raise DataError(
            where,
            "a packet after the padding",
            row=first_row + row,
            field="PPI",
            expected="direction 0 only after the last packet",
            remedy=REMEDY,
        )
    return Ragged(mask.sum(axis=1, dtype=np.int64), size[mask], direction[mask], iat[mask])
