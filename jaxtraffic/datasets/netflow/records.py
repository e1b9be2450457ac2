"""NetFlow records: tables with one row for each flow in one direction, with counts in the place of packets.

Three layouts are read: that of NetShare (netsharecmu/NetShare, traces/), the original files of UGR'16 (Maciá-Fernández
and others, "UGR'16", Computers & Security 2018), and CIDDS-001 (Ring and others, 2017). They may be plain, compressed
by gzip, or the only table of an archive, and are split by commas or by tabs.

What the publishers leave open, and what is done here: times of UGR'16 and CIDDS have no zone and are taken as UTC;
class names that differ by capital letters alone are one class, spelt as most records spell it.
"""

from __future__ import annotations

import dataclasses
import gzip
import ipaddress
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.csv_blocks import FETCH_AGAIN, parse_rows, read_header
from jaxtraffic.datasets.labels import LabelIndex
from jaxtraffic.datasets.netflow import fields
from jaxtraffic.datasets.netflow.text import has_tabs, is_utf8, row_blocks
from jaxtraffic.datasets.ragged import REMEDY
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.marker import is_simulated
from jaxtraffic.errors import ConfigError, DataError

log = logging.getLogger("jaxtraffic.datasets")

__all__ = [
    "FlowRecords", "read_cidds", "read_flow_records", "read_netshare", "read_ugr16", "write_netshare",
]  # fmt: skip

UGR16_COLUMNS = ("te", "td", "sa", "da", "sp", "dp", "pr", "flg", "fwd", "stos", "pkt", "byt", "type")
"""Columns of the files of UGR'16, which have no header: end, duration, source, destination, ports, protocol, flags,
forwarding status, type of service, packets, bytes, label."""

NO_TYPE = "-"
"""Name of the type of records that have none."""


@dataclasses.dataclass(frozen=True)
class FlowRecords:
    """Records in the order of their file; arrays are [record].

    Attributes:
        source_address: int64; below 2**32 an IPv4 address, else 2**32 + i stands for `hosts[i]`.
        destination_address: int64, as the source address.
        source_port: int32, 0 where the protocol has none.
        destination_port: int32; for ICMP 256 * type + code, as in NetFlow.
        protocol: int64, IANA number.
        start: float64 seconds since 1970 (UTC).
        duration: float64 seconds.
        packets: int64; 0 is possible, as exporters that count one direction only write it.
        bytes: int64, of IP packets.
        label: int32, index into `class_names`.
        type: int32, index into `type_names`: the kind of attack, or again the label where there is no more.
        hosts: hosts that have no IPv4 address: IPv6 addresses, and names as in CIDDS.
        class_names: in alphabetical order.
        type_names: in alphabetical order.
        name: of the set or layout.
        source: "real" or "simulated".
        dropped: field -> rows left out because of it, where the reader was told to.
    """

    source_address: np.ndarray
    destination_address: np.ndarray
    source_port: np.ndarray
    destination_port: np.ndarray
    protocol: np.ndarray
    start: np.ndarray
    duration: np.ndarray
    packets: np.ndarray
    bytes: np.ndarray
    label: np.ndarray
    type: np.ndarray
    hosts: tuple[str, ...]
    class_names: tuple[str, ...]
    type_names: tuple[str, ...]
    name: str
    source: str = "real"
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """Number of records."""
        return self.start.size

    def address_text(self, address: np.ndarray) -> list[str]:
        """Dotted addresses, IPv6 addresses and names of a column of addresses."""
        return [
            str(ipaddress.IPv4Address(value)) if value < fields.FIRST_HOST else self.hosts[value - fields.FIRST_HOST]
            for value in np.asarray(address).tolist()
        ]


NUMERIC = {
    "source_address": np.int64, "destination_address": np.int64, "source_port": np.int32, "destination_port": np.int32,
    "protocol": np.int64, "start": np.float64, "duration": np.float64, "packets": np.int64, "bytes": np.int64,
}  # fmt: skip
"""Columns that are numbers, and their types."""

_EXPECTED = {
    "source_address": "an IPv4 or IPv6 address, a number below 2**32, or a name such as EXT_SERVER",
    "source_port": "a port from 0 to 65535",
    "protocol": "a protocol name such as TCP, or its number",
    "duration": "finite seconds, 0 or more",
    "packets": "a whole number, 0 or more",
    "label": "a class name",
}
_EXPECTED |= {"destination_address": _EXPECTED["source_address"], "destination_port": _EXPECTED["source_port"]}
_EXPECTED |= {"bytes": _EXPECTED["packets"]}


@dataclasses.dataclass(frozen=True)
class _Layout:
    """A layout: `columns` says where each column of ours stands; the first name that a file has counts."""

    name: str
    columns: dict[str, tuple[str, ...]]
    start: Callable[[pl.Series, pl.Series], pl.Series]
    time: str
    type_column: str


def _columns(*names: str) -> dict[str, tuple[str, ...]]:
    keys = (*list(NUMERIC), "label")
    return {key: tuple(name.split("|")) for key, name in zip(keys, names, strict=True)}


_NETSHARE = _Layout(
    "netshare",
    _columns("srcip", "dstip", "srcport", "dstport", "proto", "ts", "td", "pkt", "byt", "label|type"),
    lambda cell, duration: fields.seconds(fields.numbers(cell)),
    "microseconds since 1970",
    "type",
)
_UGR16 = _Layout(
    "ugr16",
    _columns("sa", "da", "sp", "dp", "pr", "te", "td", "pkt", "byt", "type"),
    # the stamp is that of the END of the record
    lambda cell, duration: fields.moments(cell) - duration,
    "a time such as 2016-06-20 00:07:11",
    "type",
)
_CIDDS = _Layout(
    "cidds",
    _columns(
        "Src IP Addr", "Dst IP Addr", "Src Pt", "Dst Pt", "Proto", "Date first seen", "Duration", "Packets", "Bytes",
        "class|label",
    ),
    lambda cell, duration: fields.moments(cell),
    "a time such as 2017-03-15 00:01:16.632",
    "attackType",
)  # fmt: skip
_LATEST = 4e9  # seconds since 1970; later times are times in another unit


def read_netshare(path: str | Path, *, max_records: int | None = None, bad_rows: str = "refuse") -> FlowRecords:
    """Reads a table of NetShare: `srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt`, and `label` or `type` or both.

    Times are MICROSECONDS since 1970, durations seconds; addresses are numbers or dotted. Where `label` is missing, the
    `type` is the label.

    Args:
        path: the file.
        max_records: records from the start that are enough; None: all.
        bad_rows: "refuse" the file for a row with a value that no record can have, or "drop" and count such rows.

    Raises:
        DataError: no such table, or a bad row.
        ConfigError: an impossible option.
    """
    return _read(path, _NETSHARE, max_records, bad_rows)


def read_ugr16(path: str | Path, *, max_records: int | None = None, bad_rows: str = "refuse") -> FlowRecords:
    """Reads an original file of UGR'16: no header, 13 columns (`UGR16_COLUMNS`).

    Its stamp is the END of a record, so the start is the stamp less the duration. Arguments and errors as those of
    `read_netshare`.
    """
    return _read(path, _UGR16, max_records, bad_rows)


def read_cidds(path: str | Path, *, max_records: int | None = None, bad_rows: str = "refuse") -> FlowRecords:
    """Reads a week of CIDDS-001 (`Date first seen,Duration,Proto,Src IP Addr,...,class,attackType,...`).

    Bytes may be written as `1.2 M`, fields are filled with spaces, and hosts may be names (EXT_SERVER, 10008_34).
    Arguments and errors as those of `read_netshare`.
    """
    return _read(path, _CIDDS, max_records, bad_rows)


def read_flow_records(path: str | Path, *, max_records: int | None = None, bad_rows: str = "refuse") -> FlowRecords:
    """Reads a table in any of the layouts, which its first row tells. Arguments and errors as those of the readers."""
    return _read(path, None, max_records, bad_rows)


def _read(path: str | Path, layout: _Layout | None, max_records: int | None, bad_rows: str) -> FlowRecords:
    if bad_rows not in ("refuse", "drop"):
        raise ConfigError(f"bad_rows must be refuse or drop, got {bad_rows!r}")
    if max_records is not None and max_records < 1:
        raise ConfigError(f"max_records must be at least 1, got {max_records}")
    path = Path(path)
    limit = max_records or np.inf
    hosts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    labels, types = LabelIndex(), LabelIndex()
    parts: list[dict[str, np.ndarray]] = []
    held, first_row, names, tabs = 0, 1, None, False
    for block in row_blocks(path):
        if names is None:
            tabs = has_tabs(block)
        if tabs:
            block = block.replace(b"\t", b",")
        if names is None:
            layout, names, block = _recognise(layout, block, path)
        frame = _parse(block, layout, names, path, first_row)
        n_rows = frame.height
        if bad_rows == "refuse":
            # rows beyond those that are asked for are not judged
            frame = frame.head(int(min(limit - held, n_rows)))
        columns = _convert(frame, layout, hosts, path, first_row, dropped if bad_rows == "drop" else None)
        first_row += n_rows
        take = int(min(limit - held, columns["start"].len()))
        labels.add(columns["label"].head(take))
        types.add(columns["type"].head(take))
        parts.append({name: columns[name].head(take).to_numpy().astype(kind) for name, kind in NUMERIC.items()})
        held += take
        if held >= limit:
            break
    if not held:
        raise DataError(path, "holds no records", expected="a table of NetFlow records", remedy=FETCH_AGAIN)
    if dropped:
        log.warning("%s: left out %d rows with bad values: %s", path, sum(dropped.values()), dropped)
    label, class_names = _folded(*labels.finish())
    kind, type_names = _folded(*types.finish())
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in NUMERIC}
    return FlowRecords(
        **arrays, label=label, type=kind, hosts=tuple(hosts), class_names=class_names, type_names=type_names,
        name=layout.name, source="simulated" if is_simulated(path) else "real", dropped=dropped,
    )  # fmt: skip


def _recognise(layout: _Layout | None, block: bytes, path: Path) -> tuple[_Layout, list[str], bytes]:
    """The layout, the names of the columns, and the first block without its header, if it has one."""
    first = block[: block.find(b"\n") + 1 or len(block)].decode("utf-8", errors="replace").strip().split(",")
    if len(first) == len(UGR16_COLUMNS) and "te" not in first:
        is_time = fields.moments(pl.Series(first[:1]))[0] is not None
        if layout is _UGR16 or (layout is None and is_time):
            return _UGR16, list(UGR16_COLUMNS), block
    head, rest = read_header(block, path)
    head = [name.strip() for name in head]
    if layout is None:
        layout = next((known for known in (_NETSHARE, _CIDDS, _UGR16) if known.columns["start"][0] in head), None)
    if layout is None:
        problem = "no layout of NetFlow records that is known"
        if {"srcip", "time", "pkt_len"} <= set(head):
            problem = "a table of packets as NetShare makes it, not of records"
        raise DataError(path, problem, expected="the columns of NetShare, UGR'16 or CIDDS-001", remedy="check the file")
    missing = [choices for choices in layout.columns.values() if not set(choices) & set(head)]
    if missing:
        raise DataError(
            path,
            "column missing",
            field=" or ".join(missing[0]),
            expected=f"the columns of {layout.name}",
            remedy="check that this is a file of that set, or give the column that name",
        )
    return layout, head, rest


def _parse(block: bytes, layout: _Layout, names: list[str], path: Path, first_row: int) -> pl.DataFrame:
    """Text of the columns that the layout has, under our names; "type" where the file has one."""
    where = {key: next(name for name in choices if name in names) for key, choices in layout.columns.items()}
    if layout.type_column in names:
        where["type"] = layout.type_column
    # nobody says how CIDDS encodes its descriptions; they are not read, but must not stop the rest
    if layout is _CIDDS and not is_utf8(block):
        block = block.decode("cp1252", errors="replace").encode()
    frame = parse_rows(block, names, list(dict.fromkeys(where.values())), path, first_row=first_row)
    return frame.select(fields.trimmed(frame[name]).alias(key) for key, name in where.items())


def _convert(
    text: pl.DataFrame,
    layout: _Layout,
    hosts: dict[str, int],
    path: Path,
    first_row: int,
    dropped: dict[str, int] | None,
) -> dict[str, pl.Series]:
    """Columns as values; a row with a bad one is refused, or left out and counted in `dropped`."""
    duration = fields.numbers(text["duration"])
    duration = duration.set(~(duration >= 0).fill_null(False), None)
    protocol = fields.protocols(text["protocol"])
    start = layout.start(text["start"], duration)
    columns = {
        "source_address": fields.addresses(text["source_address"], hosts),
        "destination_address": fields.addresses(text["destination_address"], hosts),
        "source_port": fields.ports(text["source_port"], protocol),
        "destination_port": fields.ports(text["destination_port"], protocol),
        "protocol": protocol,
        # before the start, which a bad duration may spoil
        "duration": duration,
        "start": start.set(~start.is_between(0, _LATEST).fill_null(False), None),
        "packets": fields.counts(text["packets"]),
        "bytes": fields.counts(text["bytes"]),
        "label": text["label"],
        "type": text["type" if "type" in text.columns else "label"].fill_null(NO_TYPE).replace({"---": NO_TYPE}),
    }
    bad = {key: values.is_null() for key, values in columns.items()}
    if not any(wrong.any() for wrong in bad.values()):
        return columns
    if dropped is None:
        raise _bad_row(bad, text, layout, path, first_row)
    right = pl.Series(np.ones(text.height, bool))
    for key, wrong in bad.items():
        n_wrong = int((right & wrong).sum())
        if n_wrong:
            dropped[key] = dropped.get(key, 0) + n_wrong
        right = right & ~wrong
    return {key: values.filter(right) for key, values in columns.items()}


def _bad_row(bad: dict[str, pl.Series], text: pl.DataFrame, layout: _Layout, path: Path, first_row: int) -> DataError:
    """The error that names the first bad value."""
    row, key = min(
        ((int(wrong.arg_max()), key) for key, wrong in bad.items() if wrong.any()), key=lambda place: place[0]
    )
    cell = text[key][row]
    problem = "empty" if cell is None else f"{key.replace('_', ' ')} is {cell[:80]!r}"
    expected = layout.time if key == "start" else _EXPECTED[key]
    field = " or ".join(layout.columns[key])
    return DataError(path, problem, row=first_row + row, field=field, expected=expected, remedy=REMEDY)


def _folded(label: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Brings names that differ by capital letters alone together, under the most frequent spelling."""
    counts = np.bincount(label, minlength=len(names))
    spelling: dict[str, int] = {}
    for number, name in enumerate(names):
        best = spelling.setdefault(name.lower(), number)
        if counts[number] > counts[best]:
            spelling[name.lower()] = number
    kept = sorted(spelling.values(), key=lambda number: names[number])
    place = {number: position for position, number in enumerate(kept)}
    order = np.array([place[spelling[name.lower()]] for name in names], np.int32)
    return order[label], tuple(names[number] for number in kept)


def write_netshare(records: FlowRecords, path: str | Path, *, addresses: str = "number") -> None:
    """Writes records in the layout of NetShare, compressed where the name ends in `.gz`.

    `read_netshare` reads the same records again: times to the microsecond, the rest exactly.

    Args:
        records: to write; where label and type are the same, only `type` is written, as in UGR'16 there.
        path: the file, which appears whole or not at all.
        addresses: "number" as NetShare ships UGR'16, or "text"; hosts without IPv4 address are always text.

    Raises:
        ConfigError: unknown form of addresses.
        DataError: the file cannot be written.
    """
    if addresses not in ("number", "text"):
        raise ConfigError(f"addresses must be number or text, got {addresses!r}")
    path = Path(path)
    columns: dict[str, object] = {}
    for name, values in (("srcip", records.source_address), ("dstip", records.destination_address)):
        text = np.array(records.address_text(values), object)
        number = (addresses == "number") & (values < fields.FIRST_HOST)
        columns[name] = np.where(number, values.astype(str), text).tolist()
    columns |= {"srcport": records.source_port, "dstport": records.destination_port}
    columns["proto"] = [fields.PROTOCOL_NAMES.get(number, str(number)) for number in records.protocol.tolist()]
    columns |= {"ts": np.rint(records.start * 1e6).astype(np.int64), "td": records.duration}
    columns |= {"pkt": records.packets, "byt": records.bytes}
    if (records.class_names, records.label.tolist()) != (records.type_names, records.type.tolist()):
        columns["label"] = np.array(records.class_names, object)[records.label].tolist()
    columns["type"] = np.array(records.type_names, object)[records.type].tolist()
    data = pl.DataFrame(columns).write_csv().encode()
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
        raise DataError(path, problem, remedy="choose a folder that can be written") from error
