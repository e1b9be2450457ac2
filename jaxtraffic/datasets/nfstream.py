"""Flows of NFStream with their first packets (`NFStreamer(source, splt_analysis=N)`), from CSV, parquet or a DataFrame.

Columns, as in `nfstream/flow.py` and `nfstream/engine/lib_engine.c` of NFStream 6.5: lists `splt_direction` (0 from the
source of the flow, 1 back, -1 padding), `splt_ps` (bytes) and `splt_piat_ms` (milliseconds, first 0), in CSV as text
"[0, 1, -1]"; the source is the sender of the first packet. Padding is told by the direction alone.

What the sizes are depends on `accounting_mode` of the NFStreamer, which no file states, so that one has to say it:

    0 (NFStream's default)  bytes of the frame: 14 B of Ethernet, and 4 B where vlan_id says 802.1Q, are taken off,
                            which gives IP lengths; short packets keep the padding that Ethernet adds up to 60 B
    1                       IP total length                                             --size-layer ip
    2                       length after the IP header: neither layer, refused
    3                       transport payload                                           --size-layer payload

The label is nDPI's guess (`application_name`) unless another column is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from jaxtraffic.datasets.cesnet.day_files import DNS_PORTS
from jaxtraffic.datasets.csv_blocks import parse_rows, read_header
from jaxtraffic.datasets.dataset import Dataset
from jaxtraffic.datasets.documents import documents
from jaxtraffic.datasets.flow_block import FACTS, FlowBlock, ReadOptions, check_layer, make_block
from jaxtraffic.datasets.interchange import is_readable, parquet_errors, parquet_metadata, ragged_lists, refuse_rows
from jaxtraffic.datasets.labelled import LabelledFlows, from_blocks
from jaxtraffic.datasets.ragged import REMEDY, Fields, Ragged, locate, starts_of
from jaxtraffic.datasets.simulated.nfstream import simulate
from jaxtraffic.errors import ConfigError, DataError

BLOCK_ROWS = 32_768
"""Flows read at a time from parquet."""

BLOCK_BYTES = 4 << 20
"""Bytes of CSV handled at a time."""

MAX_ROW_BYTES = 64 << 20
"""A line of CSV that is longer is none."""

FIELDS = Fields(size="splt_ps", direction="splt_direction", iat="splt_piat_ms", iat_unit="milliseconds")

_LISTS = (FIELDS.size, FIELDS.direction, FIELDS.iat)
_LAYERS = {0: "ip", 1: "ip", 3: "payload"}
_MODES = {"ip": 1, "payload": 3}
_NUMBERS = {
    "protocol": "protocol",
    "src_port": "client_port",
    "dst_port": "server_port",
    "bidirectional_packets": "packets",
    "bidirectional_first_seen_ms": "start",
    "vlan_id": "vlan",
}
_CATEGORY = "application_category_name"
_LIST = re.compile(r"^\s*\[[-0-9, ]*\]\s*$")
_FETCH_AGAIN = "write the flows again with NFStreamer(source, splt_analysis=30)"


def find(place: Path) -> list[Path]:
    """Tables of NFStream in a file or under a folder, in order of their paths: CSV and parquet with its columns."""
    if place.is_file():
        return [place] if _is_table(place) else []
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    tables = {path for path in files if _is_table(path)}
    # beside tables, a damaged one is not passed over: the reader refuses it, with its reason
    damaged = {path for path in files if tables and path.suffix == ".parquet" and not is_readable(path)}
    return [path for path in files if path in tables | damaged]


def _is_table(path: Path) -> bool:
    try:
        if path.suffix == ".parquet":
            parquet_metadata(path)
            with parquet_errors(path):
                return set(_LISTS) <= set(pl.read_parquet_schema(path))
        if path.suffix != ".csv":
            return False
        with path.open("rb") as file:
            names, _ = read_header(file.readline(1 << 16), path)
    except (DataError, OSError):
        return False
    return set(_LISTS) <= set(names)


def read(
    path: Path, options: ReadOptions, *, accounting_mode: int | None = None, label: str = "application_name"
) -> Iterator[FlowBlock]:
    """Reads a table of NFStream.

    Args:
        path: a .parquet file, or CSV whatever its ending.
        options: of the reading; size_layer "ip" stands for accounting_mode=1 and "payload" for accounting_mode=3.
        accounting_mode: that of the NFStreamer; None: as size_layer says.
        label: column that holds the class.

    Raises:
        ConfigError: neither accounting_mode nor size_layer is given, or they disagree.
        DataError: not a table of NFStream, or a row that is no flow.
    """
    mode = check_mode(accounting_mode, options)
    frames = _parquet_frames(path, label) if path.suffix == ".parquet" else _csv_frames(path, label)
    first_row = 1
    for frame in frames:
        yield _block(frame, mode, label, options, path, first_row)
        first_row += frame.height
    if first_row == 1:
        raise DataError(path, "no rows", expected="one row for each flow", remedy=_FETCH_AGAIN)


def from_nfstream(
    frame: Any,
    *,
    accounting_mode: int,
    label: str = "application_name",
    length: int = 30,
    payload_only: bool = False,
) -> LabelledFlows:
    """Flows out of a DataFrame of pandas or polars, such as `NFStreamer(..., splt_analysis=30).to_pandas()`.

    Args:
        frame: anything with `columns` and `frame[name]`.
        accounting_mode: that of the NFStreamer.
        label: column that holds the class.
        length: packets of a flow to keep.
        payload_only: leave out packets without payload; for accounting_mode=3.

    Returns:
        `.flows` (a PacketSeries) and `.facts`, flow by flow in the order of the rows.

    Raises:
        ConfigError: an accounting mode that gives no size layer, or nothing that could be a DataFrame.
        DataError: missing columns, no rows, or a row that is no flow.
    """
    options = ReadOptions(length=length, payload_only=payload_only)
    mode = check_mode(accounting_mode, options)
    try:
        names = [str(name) for name in frame.columns]
        wanted = _wanted(names, label, "DataFrame")
        table = pl.DataFrame({name: _series(frame[name], name) for name in wanted})
    except (AttributeError, TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"from_nfstream needs a DataFrame of NFStream ({reason})") from error
    if not table.height:
        raise DataError("DataFrame", "no rows", expected="one row for each flow", remedy=_FETCH_AGAIN)
    blocks = [_block(table, mode, label, options, Path("DataFrame"), 1)]
    return from_blocks(blocks, "DataFrame", name="nfstream", length=length)


def _series(column: Any, name: str) -> pl.Series:
    if isinstance(column, pl.Series):
        return column
    values = column.tolist()
    if name in _LISTS:
        # a cell may be a list, a tuple, an array or text
        values = [
            list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value for value in values
        ]
        return pl.Series(name, values)
    # pandas writes NaN where a number is missing
    return pl.Series(name, values, strict=False, nan_to_null=True)


def check_mode(accounting_mode: int | None, options: ReadOptions) -> int:
    """The accounting mode out of what is asked for.

    Raises:
        ConfigError: nothing says it, two things say it differently, or it gives no size layer.
    """
    if accounting_mode is None:
        if options.size_layer is None:
            raise ConfigError(
                "NFStream's files do not say what their sizes are: give --size-layer payload (size_layer='payload') "
                "for flows made with accounting_mode=3, --size-layer ip for accounting_mode=1; for frames "
                "(accounting_mode=0, NFStream's default) use nfstream.read(..., accounting_mode=0), or write the "
                "flows again with accounting_mode=3"
            )
        check_layer(options, tuple(_MODES), "NFStream")
        return _MODES[options.size_layer]
    if accounting_mode not in _LAYERS:
        raise ConfigError(
            f"accounting_mode={accounting_mode} gives sizes that are neither IP lengths nor payload; "
            "write the flows again with NFStreamer(..., accounting_mode=3)"
        )
    check_layer(options, (_LAYERS[accounting_mode],), f"NFStream with accounting_mode={accounting_mode}")
    return accounting_mode


def _wanted(names: list[str], label: str, path: str | Path) -> list[str]:
    for name in (*_LISTS, label):
        if name not in names:
            raise DataError(
                path,
                "missing column",
                field=name,
                expected=f"a table of NFStream; found {', '.join(names[:10])}",
                remedy=_FETCH_AGAIN if name in _LISTS else "name the column of the classes",
            )
    return [name for name in dict.fromkeys((*_LISTS, label, *_NUMBERS, _CATEGORY)) if name in names]


def _parquet_frames(path: Path, label: str) -> Iterator[pl.DataFrame]:
    parquet_metadata(path)
    with parquet_errors(path):
        wanted = _wanted(list(pl.read_parquet_schema(path)), label, path)
    first = 0
    while True:
        with parquet_errors(path):
            frame = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(wanted)
            frame = frame.slice(first, BLOCK_ROWS).collect()
        if frame.height:
            yield frame
        first += frame.height
        if frame.height < BLOCK_ROWS:
            return


def _csv_frames(path: Path, label: str) -> Iterator[pl.DataFrame]:
    for document in documents(path, (".csv",)):
        blocks = row_blocks(document.stream, path)
        first = next(blocks, b"")
        if not first:
            raise DataError(path, "empty file (0 bytes)", expected="CSV with a header", remedy=_FETCH_AGAIN)
        names, block = read_header(first, path)
        wanted = _wanted(names, label, path)
        first_row = 1
        while True:
            frame = parse_rows(block, names, wanted, path, first_row=first_row)
            if frame.height:
                yield frame
            first_row += frame.height
            block = next(blocks, None)
            if block is None:
                return


def row_blocks(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    """Blocks of about `BLOCK_BYTES` that end at the end of a row; a line end inside quotes is no end of a row.

    Raises:
        DataError: a row longer than `MAX_ROW_BYTES`, as where a quote never closes.
    """
    held = b""
    try:
        while data := stream.read(BLOCK_BYTES):
            held += data
            end = held.rfind(b"\n") + 1
            if held.count(b'"', 0, end) % 2:
                # inside quotes: back to the end of the row before the one that opened them
                end = held.rfind(b"\n", 0, held.rfind(b'"', 0, end)) + 1
            if end:
                yield held[:end]
                held = held[end:]
            elif len(held) > MAX_ROW_BYTES:
                raise DataError(path, f"a row of more than {MAX_ROW_BYTES} bytes", expected="CSV", remedy=_FETCH_AGAIN)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}", remedy="check the path") from error
    if held:
        yield held


def _block(frame: pl.DataFrame, mode: int, label: str, options: ReadOptions, path: Path, first_row: int) -> FlowBlock:
    frame = frame.with_columns(_as_lists(frame[name], path, first_row) for name in _LISTS)
    raw = ragged_lists(frame, FIELDS, path, first_row=first_row)
    numbers = {
        name: _number(frame[column], name, path, first_row)
        for column, name in _NUMBERS.items()
        if column in frame.columns
    }
    packets = _without_padding(raw, path, first_row)
    if mode == 0:
        packets = _without_ethernet(packets, numbers.get("vlan"), path, first_row)
    facts: dict[str, object] = {name: value for name, value in numbers.items() if name != "vlan"}
    if "start" in facts:
        facts["start"] = numbers["start"] / 1000.0
    if {"client_port", "server_port"} <= set(facts):
        facts["is_dns"] = numbers["client_port"].is_in(DNS_PORTS) | numbers["server_port"].is_in(DNS_PORTS)
    if _CATEGORY in frame.columns and frame.schema[_CATEGORY] == pl.String:
        facts["category"] = frame[_CATEGORY]
    classes = frame[label]
    if not (
        classes.dtype in (pl.String, pl.Categorical) or classes.dtype.is_integer() or isinstance(classes.dtype, pl.Enum)
    ):
        raise DataError(path, f"column of {classes.dtype}", field=label, expected="names", remedy=_FETCH_AGAIN)
    refuse_rows(classes.is_null(), "null", label, "a class in every row", path, first_row=first_row)
    return make_block(
        packets,
        classes.cast(pl.String),
        facts,
        options,
        path,
        FIELDS,
        size_layer=_LAYERS[mode],
        first_row=first_row,
        iat_per_second=1000,
    )


def _as_lists(column: pl.Series, path: Path, first_row: int) -> pl.Series:
    """Lists out of text such as "[0, 1, -1]"; other columns as they are."""
    if column.dtype != pl.String:
        return column
    expected = "a list as [0, 1, -1]"
    refuse_rows(column.is_null(), "empty", column.name, expected, path, first_row=first_row)
    refuse_rows(
        ~column.str.contains(_LIST.pattern), "no list of numbers", column.name, expected, path, first_row=first_row
    )
    try:
        return column.str.json_decode(pl.List(pl.Int64))
    except pl.exceptions.PolarsError as error:
        for row, text in enumerate(column):
            if not _is_json(text):
                raise DataError(
                    path, "no list of numbers", row=first_row + row, field=column.name, expected=expected, remedy=REMEDY
                ) from error
        raise DataError(path, "no lists of numbers", field=column.name, expected=expected, remedy=REMEDY) from error


def _is_json(text: str) -> bool:
    return re.fullmatch(r"\s*\[\s*(-?(0|[1-9][0-9]{0,18})(\s*,\s*-?(0|[1-9][0-9]{0,18}))*)?\s*\]\s*", text) is not None


def _number(column: pl.Series, name: str, path: Path, first_row: int) -> pl.Series:
    """Whole numbers out of numbers, floats or text; null stays null."""
    value = column.cast(pl.Float64, strict=False)
    kind = pl.Int32() if name == "vlan" else FACTS[name]
    number = value.cast(kind, strict=False)
    exact = (number.cast(pl.Float64) == value) & value.is_finite() & (value >= 0)
    wrong = column.is_not_null() & ~exact.fill_null(False)
    refuse_rows(wrong, "not a whole number", column.name, "a number of 0 or more", path, first_row=first_row)
    return number


def _without_padding(raw: Ragged, path: Path, first_row: int) -> Ragged:
    """Packets in front of the padding, with +1 from the source and -1 back."""
    keep = raw.direction != -1
    counts = np.bincount(np.repeat(np.arange(raw.counts.size), raw.counts)[keep], minlength=raw.counts.size)
    position = np.arange(raw.size.size) - np.repeat(starts_of(raw.counts), raw.counts)
    wrong = keep != (position < np.repeat(counts, raw.counts))
    other = keep & (raw.direction != 0) & (raw.direction != 1)
    for bad, problem in ((wrong, "padding (-1) before a packet"), (other, "direction")):
        if bad.any():
            at = int(np.argmax(bad))
            row, packet = locate(raw.counts, at)
            said = problem if bad is wrong else f"direction of packet {packet + 1} is {raw.direction[at]}"
            raise DataError(
                path,
                said,
                row=first_row + row,
                field=FIELDS.direction,
                expected="0 (from the source), 1 (back), and -1 after the last packet",
                remedy=REMEDY,
            )
    direction = np.where(raw.direction[keep] == 0, 1, -1).astype(np.int8)
    return Ragged(counts.astype(np.int64), raw.size[keep], direction, raw.iat[keep])


def _without_ethernet(packets: Ragged, vlan: pl.Series | None, path: Path, first_row: int) -> Ragged:
    header = np.full(packets.counts.size, 14)
    if vlan is not None:
        header += np.where(vlan.fill_null(0).to_numpy() > 0, 4, 0)
    size = packets.size.astype(np.int64) - np.repeat(header, packets.counts)
    if (size < 0).any():
        at = int(np.argmax(size < 0))
        row, packet = locate(packets.counts, at)
        raise DataError(
            path,
            f"size of packet {packet + 1} is {packets.size[at]}, less than an Ethernet header",
            row=first_row + row,
            field=FIELDS.size,
            expected="bytes of frames (accounting_mode=0)",
            remedy="say the accounting mode that the flows were made with",
        )
    return Ragged(packets.counts, size, packets.direction, packets.iat)


NFSTREAM = Dataset(
    name="nfstream",
    title="flows of NFStream with splt_analysis, CSV or parquet",
    obtain="NFStreamer('capture.pcap', splt_analysis=30, accounting_mode=3).to_csv('flows.csv'), then name the file "
    "and say --size-layer payload",
    licence="that of the traffic",
    find=find,
    read=read,
    size_layers=("payload", "ip"),
    needs_path=True,
    simulate=simulate,
)
"""Entry of the catalogue."""
