"""Packets of a capture of UTMobileNet2021: rows of tshark's CSV as numbers, block by block.

Numbers are written as decimals (`6.0`), and a cell is empty where it does not belong to the protocol. An ICMP error
shows the packet that it answers as well, in doubled cells (`"1.0,6.0"`): such rows are left out and counted, as is all
that is not TCP or UDP.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import polars as pl

from jaxtraffic.datasets import csv_blocks
from jaxtraffic.datasets.ragged import REMEDY
from jaxtraffic.errors import DataError

PARTITIONS = {
    "Action-Specific Wild Test Data": 43,
    "Deterministic Automated Data": 3438,
    "Randomized Automated Data": 288,
    "Wild Test Data": 14,
}
"""Folders of the set and the number of files in each (tcbench, install guide of utmobilenet21)."""

TCP, UDP = 6, 17

ZONES = {"CDT": -5, "CST": -6}
"""Hours from UTC; CST is not known to occur."""

COLUMNS = (
    "frame.time", "ip.proto", "ip.src", "ip.dst", "tcp.len", "tcp.srcport", "tcp.dstport", "udp.srcport",
    "udp.dstport", "udp.length",
)  # fmt: skip
"""Columns that are read; `ip.len` as well where sizes of the IP layer are wanted."""

DOUBLED = "rows of ICMP errors, which show two packets"
OTHER = "rows that are neither TCP nor UDP over IPv4"
INCOMPLETE = "packets without ports or length (fragments)"
NO_HOST = "packets to or from 127.0.0.1, 0.0.0.0 or 255.255.255.255"

_UDP_HEADER = 8
_NO_HOST = tuple(int(ipaddress.IPv4Address(text)) for text in ("127.0.0.1", "0.0.0.0", "255.255.255.255"))
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = (
    r"^(?P<month>[A-Z][a-z]{2}) {1,2}(?P<day>[0-9]{1,2}), (?P<year>[0-9]{4}) (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
    r":(?P<second>[0-9]{2})\.(?P<fraction>[0-9]{1,9}) (?P<zone>[A-Za-z]{1,8})$"
)
_TIME_EXPECTED = "a time such as 'Apr 30, 2019 19:07:17.184823000 CDT'"
_SCHEMA = {
    "time": pl.Int64,
    "source": pl.Int64,
    "target": pl.Int64,
    "protocol": pl.Int16,
    "payload": pl.Int32,
    "size": pl.Int32,
}


def read_packets(stream: BinaryIO, where: str, layer: str) -> tuple[pl.DataFrame, Counter[str]]:
    """Reads the TCP and UDP packets of a capture, in the order of its rows.

    Args:
        stream: the CSV.
        where: its name, for messages.
        layer: of the column size: "payload" or "ip".

    Returns:
        One row a packet: time (nanoseconds since 1970, int64), source and target (IPv4 address * 65536 + port),
        protocol, payload and size in bytes; and what was left out.

    Raises:
        DataError: a missing column, a row that is no CSV, or a value that no packet can have.
    """
    blocks = _row_blocks(stream)
    block = next(blocks, b"")
    if not block.strip():
        raise DataError(
            where, "empty file", expected="a header and a row for each packet", remedy=csv_blocks.FETCH_AGAIN
        )
    names, block = csv_blocks.read_header(block, where)
    wanted = (*COLUMNS, "ip.len") if layer == "ip" else COLUMNS
    for name in wanted:
        if name not in names:
            raise DataError(
                where,
                "missing column",
                field=name,
                expected=f"a header of tshark (it names {', '.join(names[:6])}, ...)"[:300],
                remedy="give a CSV file of UTMobileNet2021",
            )
    parts, dropped, first_row = [pl.DataFrame(schema=_SCHEMA)], Counter(), 1
    while block is not None:
        # a header without rows is a capture without packets
        if block:
            frame = csv_blocks.parse_rows(block, names, wanted, where, first_row=first_row)
            parts.append(_convert(frame, where, first_row, layer, dropped))
            first_row += frame.height
        block = next(blocks, None)
    return pl.concat(parts), dropped


def _row_blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yields blocks of whole rows; a line end in quotes, which tshark does not write, is none that could be parsed."""
    rest = b""
    while data := stream.read(csv_blocks.BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        # without any line end in sight it is no CSV, and the parser says so
        if end or len(rest) > csv_blocks.BLOCK_BYTES:
            yield rest + data[: end or len(data)]
            rest = data[end or len(data) :]
        else:
            rest += data
    if rest:
        yield rest


def _convert(frame: pl.DataFrame, where: str, first_row: int, layer: str, dropped: Counter[str]) -> pl.DataFrame:
    """Rows as packets; counts in `dropped` what is left out."""
    frame = frame.with_row_index("row", offset=first_row)
    number = pl.col("ip.proto").cast(pl.Float64, strict=False)
    frame = frame.with_columns(
        protocol=pl.when(number.is_in([float(TCP), float(UDP)])).then(number).cast(pl.Int16),
        doubled=pl.col("ip.proto").str.contains(",", literal=True).fill_null(False),
    )
    kept = frame.filter(pl.col("protocol").is_not_null())
    n_doubled = int(frame["doubled"].sum())
    _count(dropped, DOUBLED, n_doubled)
    _count(dropped, OTHER, frame.height - kept.height - n_doubled)
    is_tcp = pl.col("protocol") == TCP
    kept = kept.select(
        "row", "frame.time", "ip.src", "ip.dst", "protocol", *(("ip.len",) if layer == "ip" else ()),
        source_port=pl.when(is_tcp).then("tcp.srcport").otherwise("udp.srcport"),
        target_port=pl.when(is_tcp).then("tcp.dstport").otherwise("udp.dstport"),
        length=pl.when(is_tcp).then("tcp.len").otherwise("udp.length"),
    )  # fmt: skip
    whole = kept.filter(pl.all_horizontal(pl.col("source_port", "target_port", "length").is_not_null()))
    _count(dropped, INCOMPLETE, kept.height - whole.height)
    tcp = whole["protocol"].to_numpy() == TCP
    ends = []
    for end, column in (("source", "src"), ("target", "dst")):
        names = np.where(tcp, f"tcp.{column}port", f"udp.{column}port")
        port = _whole_numbers(whole, f"{end}_port", names, where, 65_535)
        ends.append((_addresses(whole, f"ip.{column}", where) << 16) + port)
    payload = _whole_numbers(whole, "length", np.where(tcp, "tcp.len", "udp.length"), where, 65_535)
    payload = payload - np.where(tcp, 0, _UDP_HEADER)
    _refuse(whole, payload < 0, "length", where, "8 bytes or more: the header of UDP is counted", "udp.length")
    size = payload if layer == "payload" else _whole_numbers(whole, "ip.len", np.array("ip.len"), where, 65_535)
    packets = pl.DataFrame(
        {
            "time": _nanoseconds(whole, where),
            "source": ends[0],
            "target": ends[1],
            "protocol": whole["protocol"],
            "payload": payload,
            "size": size,
        },
        schema=_SCHEMA,
    )
    no_host = pl.Series(np.isin(np.stack(ends) >> 16, _NO_HOST).any(axis=0))
    _count(dropped, NO_HOST, int(no_host.sum()))
    return packets.filter(~no_host)


def _count(dropped: Counter[str], rule: str, n: int) -> None:
    if n:
        dropped[rule] += n


def _refuse(
    frame: pl.DataFrame, wrong: np.ndarray, column: str, where: str, expected: str, field: str | np.ndarray
) -> None:
    """Raises DataError for the first packet that is wrong; `field` is the column of the file, or [packet] columns."""
    if not wrong.any():
        return
    at = int(np.argmax(wrong))
    name = field if isinstance(field, str) else str(np.broadcast_to(field, wrong.shape)[at])
    text = frame[column][at]
    problem = "empty" if text is None else f"{text[:60]!r} is not right"
    raise DataError(where, problem, row=frame["row"][at], field=name, expected=expected, remedy=REMEDY)


def _whole_numbers(frame: pl.DataFrame, column: str, field: np.ndarray, where: str, most: int) -> np.ndarray:
    """[packet] int64 of a column of text such as `443.0`."""
    values = frame[column].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    wrong = ~((values >= 0) & (values <= most)) | (np.where(np.isfinite(values), values, 0) % 1 != 0)
    _refuse(frame, wrong, column, where, f"a whole number from 0 to {most}", field)
    return values.astype(np.int64)


def _addresses(frame: pl.DataFrame, column: str, where: str) -> np.ndarray:
    """[packet] int64 IPv4 addresses. A capture has few, so that a loop over those that differ is no cost."""
    numbers: dict[str | None, int | None] = {}
    for text in frame[column].unique().to_list():
        try:
            numbers[text] = int(ipaddress.IPv4Address(text))
        except ValueError:
            numbers[text] = None
    values = frame[column].replace_strict(numbers, return_dtype=pl.Int64) if numbers else pl.Series([], dtype=pl.Int64)
    _refuse(frame, values.is_null().to_numpy(), column, where, "an IPv4 address", column)
    return values.to_numpy()


def _nanoseconds(frame: pl.DataFrame, where: str) -> np.ndarray:
    """[packet] int64 nanoseconds since 1970 (UTC) of times as tshark prints them, whatever the locale here."""
    part = pl.col("parts").struct.field
    clock = ("year", "day", "hour", "minute", "second")
    # one query for all: a capture is small, and there are thousands
    parts = frame.select(pl.col("frame.time").str.extract_groups(_TIME).alias("parts")).select(
        part("zone"),
        part("zone").replace_strict(ZONES, return_dtype=pl.Int64, default=None).alias("hours"),
        part("month").replace_strict(_MONTHS, range(12), return_dtype=pl.Int64, default=None),
        part("fraction").str.pad_end(9, "0").cast(pl.Int64, strict=False),
        *(part(name).cast(pl.Int64, strict=False) for name in clock),
    )
    unknown = parts["zone"].is_not_null() & parts["hours"].is_null()
    if unknown.any():
        at = int(unknown.arg_max())
        raise DataError(
            where,
            f"unknown time zone {parts['zone'][at]!r}",
            row=frame["row"][at],
            field="frame.time",
            expected=" or ".join(ZONES),
            remedy="write these times in one of those zones",
        )
    numbers = parts.select(pl.exclude("zone").fill_null(-100)).to_dict()
    zone, month, fraction, year, day, hour, minute, second = (
        numbers[name].to_numpy() for name in ("hours", "month", "fraction", *clock)
    )
    missing = (zone == -100) | (month < 0) | (fraction < 0) | (hour < 0) | (minute < 0) | (second < 0)
    # the years that nanoseconds in 64 bits can count
    missing |= (year < 1970) | (year > 2261) | (day < 1) | (hour > 23) | (minute > 59) | (second > 60)
    months = (np.where(missing, 1970, year) - 1970) * 12 + np.where(missing, 0, month)
    begin, end = (those.astype("M8[M]").astype("M8[D]").astype(np.int64) for those in (months, months + 1))
    missing |= day > end - begin
    _refuse(frame, missing, "frame.time", where, _TIME_EXPECTED, "frame.time")
    seconds = ((begin + day - 1) * 24 + hour - zone) * 3600 + minute * 60 + second
    return seconds * 1_000_000_000 + fraction
