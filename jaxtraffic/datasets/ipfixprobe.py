"""Flows of ipfixprobe with packet series (`-p pstats`), as CSV that NEMEA's logger writes.

The header names types and fields (`uint16* PPI_PKT_LENGTHS,time* PPI_PKT_TIMES,int8* PPI_PKT_DIRECTIONS`), arrays stand
as `[1|-1|1]` and times as `2016-10-28T17:07:52.625696` in UTC (github.com/CESNET/ipfixprobe, tests/functional/outputs).
Sizes are bytes of transport payload; packets without payload are left out by ipfixprobe unless `includezeroes` is set;
+1 is from the source of the flow. This is where the packet series of all CESNET data sets come from.

ipfixprobe does not classify: the label is a column that was added (`LABEL`), or else the name of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.cesnet.day_files import DNS_PORTS
from jaxtraffic.datasets.csv_blocks import parse_rows, read_header
from jaxtraffic.datasets.dataset import Dataset
from jaxtraffic.datasets.documents import documents
from jaxtraffic.datasets.flow_block import FACTS, FlowBlock, ReadOptions, check_layer, make_block
from jaxtraffic.datasets.interchange import refuse_rows
from jaxtraffic.datasets.nfstream import row_blocks
from jaxtraffic.datasets.ragged import REMEDY, Fields, Ragged, locate
from jaxtraffic.datasets.tcbench.tables import gaps
from jaxtraffic.errors import DataError

FIELDS = Fields("PPI_PKT_LENGTHS", "PPI_PKT_DIRECTIONS", "PPI_PKT_TIMES", "seconds")

_LISTS = (FIELDS.size, FIELDS.direction, FIELDS.iat)
_NUMBERS = {"PROTOCOL": "protocol", "SRC_PORT": "client_port", "DST_PORT": "server_port"}
_PACKETS = ("PACKETS", "PACKETS_REV")
_FETCH_AGAIN = "export the flows again with `ipfixprobe -p pstats` and NEMEA's logger -t"


def find(place: Path) -> list[Path]:
    """CSV files of ipfixprobe with packet series, a file or those under a folder, in order of their paths."""
    if place.is_file():
        return [place] if _is_table(place) else []
    return [path for path in sorted(place.rglob("*.csv")) if path.is_file() and _is_table(path)]


def _is_table(path: Path) -> bool:
    if path.suffix != ".csv":
        return False
    try:
        with path.open("rb") as file:
            names, _ = read_header(file.readline(1 << 16), path)
    except (DataError, OSError):
        return False
    return set(_LISTS) <= set(_fields(names))


def _fields(names: list[str]) -> list[str]:
    """Names without their types."""
    return [name.split()[-1] if name.split() else name for name in names]


def read(path: Path, options: ReadOptions, *, label: str = "LABEL") -> Iterator[FlowBlock]:
    """Reads CSV of ipfixprobe.

    Args:
        path: the file.
        options: of the reading.
        label: column that holds the class; without it all flows are of one class, named as the file.

    Raises:
        DataError: not such a file, or a row that is no flow.
        ConfigError: sizes of another layer than "payload" are asked for.
    """
    check_layer(options, ("payload",), "ipfixprobe")
    first_row = 1
    for document in documents(path, (".csv",)):
        blocks = row_blocks(document.stream, path)
        first = next(blocks, b"")
        if not first:
            raise DataError(path, "empty file (0 bytes)", expected="CSV with a header", remedy=_FETCH_AGAIN)
        names, block = read_header(first, path)
        names = _fields(names)
        for name in _LISTS:
            if name not in names:
                expected = f"CSV of ipfixprobe; found {', '.join(names[:10])}"
                raise DataError(path, "missing column", field=name, expected=expected, remedy=_FETCH_AGAIN)
        wanted = dict.fromkeys((*_LISTS, *_NUMBERS, *_PACKETS, "TIME_FIRST", label))
        wanted = [name for name in wanted if name in names]
        while block is not None:
            frame = parse_rows(block, names, wanted, path, first_row=first_row)
            if frame.height:
                yield _block(frame, label, document.name.stem, options, path, first_row)
            first_row += frame.height
            block = next(blocks, None)
    if first_row == 1:
        raise DataError(path, "no rows", expected="one row for each flow", remedy=_FETCH_AGAIN)


def _block(frame: pl.DataFrame, label: str, stem: str, options: ReadOptions, path: Path, first_row: int) -> FlowBlock:
    texts = {name: _split(frame[name], path, first_row) for name in _LISTS}
    counts = texts[FIELDS.size].list.len().to_numpy().astype(np.int64)
    flat = {}
    for name, column in texts.items():
        differs = column.list.len() != pl.Series(counts)
        refuse_rows(
            differs, f"not as many values as {FIELDS.size}", name, "arrays of one length", path, first_row=first_row
        )
        cells = column.filter(counts > 0).explode()
        values = _microseconds(cells) if name == FIELDS.iat else cells.cast(pl.Int64, strict=False)
        if values.null_count():
            at = int(np.argmax(values.is_null().to_numpy()))
            row, packet = locate(counts, at)
            kind = "a time" if name == FIELDS.iat else "a whole number"
            problem = f"{cells[at]!r} of packet {packet + 1} is not {kind}"
            raise DataError(path, problem, row=first_row + row, field=name, expected="[1|2|3]", remedy=REMEDY)
        flat[name] = values.to_numpy()
    # seconds since the earliest time of the block: float64 then holds microseconds exactly enough
    time = (flat[FIELDS.iat] - flat[FIELDS.iat].min(initial=np.iinfo(np.int64).max)) / 1e6
    raw = Ragged(counts, flat[FIELDS.size], flat[FIELDS.direction], time)
    packets = Ragged(counts, raw.size, raw.direction, gaps(raw, path, FIELDS, first_row))
    if label in frame.columns:
        classes = frame[label]
        refuse_rows(classes.is_null(), "empty", label, "a class in every row", path, first_row=first_row)
    else:
        classes = pl.Series([stem]).new_from_index(0, frame.height)
    facts = _facts(frame, path, first_row)
    return make_block(packets, classes, facts, options, path, FIELDS, size_layer="payload", first_row=first_row)


def _split(column: pl.Series, path: Path, first_row: int) -> pl.Series:
    wrong = ~column.str.contains(r"^\[[^\[\]]*\]$").fill_null(False)
    refuse_rows(wrong, "no array", column.name, "[1|-1|1]", path, first_row=first_row)
    inner = column.str.strip_chars("[]")
    # an empty array has no values, where splitting would find one empty one
    values = (
        pl.when(pl.col("inner") != "").then(pl.col("inner").str.split("|")).otherwise(pl.lit([], pl.List(pl.String)))
    )
    return pl.DataFrame({"inner": inner}).select(values.alias(column.name)).to_series()


def _microseconds(text: pl.Series) -> pl.Series:
    """Microseconds since 1970 of ISO times in UTC, null where a text is none."""
    return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False).dt.epoch("us")


def _facts(frame: pl.DataFrame, path: Path, first_row: int) -> dict[str, object]:
    facts: dict[str, object] = {}
    for column, name in _NUMBERS.items():
        if column in frame.columns:
            facts[name] = _number(frame[column], FACTS[name], path, first_row)
    if set(_PACKETS) <= set(frame.columns):
        facts["packets"] = sum(_number(frame[name], pl.Int64(), path, first_row) for name in _PACKETS)
    if {"client_port", "server_port"} <= set(facts):
        facts["is_dns"] = facts["client_port"].is_in(DNS_PORTS) | facts["server_port"].is_in(DNS_PORTS)
    if "TIME_FIRST" in frame.columns:
        start = _microseconds(frame["TIME_FIRST"])
        refuse_rows(start.is_null(), "not a time", "TIME_FIRST", "2016-10-28T17:07:52.6", path, first_row=first_row)
        facts["start"] = start / 1e6
    return facts


def _number(text: pl.Series, kind: pl.DataType, path: Path, first_row: int) -> pl.Series:
    number = text.cast(kind, strict=False)
    wrong = ~(number >= 0).fill_null(False)
    refuse_rows(wrong, "not a whole number", text.name, "a number of 0 or more", path, first_row=first_row)
    return number


IPFIXPROBE = Dataset(
    name="ipfixprobe",
    title="flows of ipfixprobe with packet series (-p pstats), CSV of NEMEA's logger",
    obtain="ipfixprobe -i 'pcap;file=capture.pcap' -p pstats -o 'unirec;i=f:flows.trapcap:buffer=off;p=(pstats)', then "
    "logger -i f:flows.trapcap -t > flows.csv",
    licence="that of the traffic",
    find=find,
    read=read,
    size_layers=("payload",),
    needs_path=True,
)
"""Entry of the catalogue."""
