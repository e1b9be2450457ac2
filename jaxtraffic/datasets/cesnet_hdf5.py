"""CESNET-QUIC22 as cesnet-datazoo stores it: one PyTables table a day at `/flows/DYYYYMMDD`.

Read without cesnet-datazoo (which needs torch). Base dtypes and compression are not documented, so nothing here depends
on them: values are judged as numbers, and padding is `direction == 0` and nothing else.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from jaxtraffic.datasets.cesnet import DNS_PORTS
from jaxtraffic.datasets.curation import is_dns_name
from jaxtraffic.datasets.labels import LabelIndex
from jaxtraffic.datasets.ppi import FIELDS, MAX_PACKETS
from jaxtraffic.datasets.ragged import REMEDY, Ragged, check_values, pad
from jaxtraffic.errors import DataError
from jaxtraffic.series import PacketSeries

log = logging.getLogger("jaxtraffic.datasets")

ROWS_PER_CHUNK = 100_000
"""Rows of a table held in memory at a time."""

_DAY = re.compile(r"D\d{8}")
_FETCH_AGAIN = "fetch the file again and compare its size with the published one; a download that broke off looks so"


def find_files(folder: Path) -> list[Path]:
    """HDF5 files of CESNET-QUIC22 under a data root, smallest subset first.

    Args:
        folder: data root, `cesnet-quic22` itself, or the folder of one size.
    """
    found: set[Path] = set()
    for layout in (".", "*", "cesnet-quic22", "cesnet-quic22/*"):
        found.update(folder.glob(f"{layout}/CESNET-QUIC22*.h5"))
    sizes = ["XS", "S", "M", "L"]

    def order(path: Path) -> tuple[int, str]:
        size = path.stem.rpartition("-")[2]
        return (sizes.index(size) if size in sizes else len(sizes), str(path))

    return sorted(found, key=order)


def read_hdf5(path: str | Path, *, days: int = 1) -> tuple[PacketSeries, np.ndarray]:
    """Reads the first `days` day tables of a datazoo file.

    Args:
        path: a `CESNET-QUIC22-<SIZE>.h5`.
        days: how many of its tables to read, earliest first; all where there are fewer.

    Returns:
        The flows, labelled by APP in alphabetical order, and is_dns [flow] bool (by application and category name, and
        by port where the file has ports).

    Raises:
        DataError: PyTables is not installed, the file is truncated or no HDF5 file, or a row is wrong.
    """
    path = Path(path)
    try:
        tables = importlib.import_module("tables")
    except ImportError as error:
        raise DataError(
            path, "reading HDF5 needs PyTables", remedy="install it with the extra: jaxtraffic[hdf5]"
        ) from error
    # the C library would print its own stack of errors beside ours
    tables.silence_hdf5_messages(True)
    labels = LabelIndex()
    parts = []
    try:
        with tables.open_file(str(path), mode="r") as file:
            for table in _day_tables(tables, file, path)[:days]:
                parts += list(_read_table(table, path, labels))
    except (tables.HDF5ExtError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            path,
            f"not a readable HDF5 file ({reason[:120]})",
            expected="a complete HDF5 file of cesnet-datazoo",
            remedy=_FETCH_AGAIN,
        ) from error
    if not parts:
        raise DataError(path, "no flows: its day tables are empty", remedy=_FETCH_AGAIN)
    label, names = labels.finish()
    size, direction, iat, is_dns = (np.concatenate(column) for column in zip(*parts, strict=True))
    flows = PacketSeries(
        size, direction, iat, label, class_names=names, name="cesnet_quic", size_layer="payload", source="real"
    )
    return flows.check(), is_dns


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


def _read_table(table: Any, path: Path, labels: LabelIndex) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields (size, direction, iat, is_dns) of chunks of a day table."""
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
    for start in range(0, table.nrows, ROWS_PER_CHUNK):
        rows = table.read(start, start + ROWS_PER_CHUNK)
        names = {field: _names(rows[field], enum, where, start, field) for field, enum in enums.items()}
        block = _unpad(rows["PPI"], where, start)
        check_values(block, where, FIELDS, first_row=start + 1)
        is_dns = np.zeros(rows.size, bool)
        for column in names.values():
            dns = [name for name in column.unique().to_list() if is_dns_name(name)]
            is_dns |= column.is_in(dns).to_numpy()
        for field in ("SRC_PORT", "DST_PORT"):
            if field in table.colnames:
                is_dns |= np.isin(rows[field], DNS_PORTS)
        labels.add(names["APP"])
        yield *pad(block, MAX_PACKETS, iat_per_second=1000), is_dns


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


def _unpad(ppi: np.ndarray, where: str, start: int) -> Ragged:
    """[flow, channel, 30] into flat values in the order of the flows."""
    iat, direction, size = ppi[:, 0], ppi[:, 1], ppi[:, 2]
    # NaN counts as a packet, so that the check of values refuses it
    mask = direction != 0
    late = (mask[:, 1:] & ~mask[:, :-1]).any(axis=1)
    if late.any():
        row = int(np.argmax(late))
        raise DataError(
            where,
            "a packet after the padding",
            row=start + row + 1,
            field="PPI",
            expected="direction 0 only after the last packet",
            remedy=REMEDY,
        )
    return Ragged(mask.sum(axis=1, dtype=np.int64), size[mask], direction[mask], iat[mask])
