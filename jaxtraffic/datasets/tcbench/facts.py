"""What the columns of a table of tcbench say of a flow beside its packets."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from jaxtraffic.datasets.cesnet.day_files import DNS_PORTS
from jaxtraffic.datasets.flow_block import FACTS
from jaxtraffic.datasets.interchange import refuse_rows
from jaxtraffic.datasets.tcbench.layout import Layout

CDT_AS_UTC = 5 * 3600.0
"""Seconds that the times of dev utmobilenet21 lack: it reads "19:07:17 CDT" as 19:07:17 UTC."""

_PROTOCOL = ("ip_proto", "proto_id", "proto", "protocol")
_NUMBERS = {"tcp": "6", "udp": "17"}
_PACKETS = ("flow_metadata_bf_num_packets", "packets", "num_pkts")
_TEXTS = {
    "category": ("app_category",),
    "device": ("device_name", "device_id", "flow_metadata_bf_device"),
    "activity": ("flow_metadata_bf_activity", "activity", "action"),
}
STARTS = ("unixtime", "pkts_timestamp", "packet_data_timestamp", "first")
"""Columns that may hold epoch times, of packets or of flows."""

_OTHERS = ("partition", "folder", "fname", "flow_id", "src_port", "dst_port", "src_ip_is_private", "is_valid_handshake")


def wanted_columns(columns: pl.Schema) -> list[str]:
    """Columns that facts are taken from, out of those of a file."""
    names = (*_PROTOCOL, *_PACKETS, *(name for group in _TEXTS.values() for name in group), *STARTS, *_OTHERS)
    return [name for name in names if name in columns]


def facts_of(frame: pl.DataFrame, layout: Layout, path: Path, first_row: int) -> dict[str, object]:
    """Facts of a block of rows: name in `FACTS` -> [flow] series.

    Raises:
        DataError: a port, protocol or number of packets that is no number.
    """
    facts: dict[str, object] = {name: frame[column] for name in _TEXTS if (column := _first(frame, _TEXTS[name]))}
    facts = {name: column for name, column in facts.items() if column.dtype in (pl.String, pl.Categorical)}
    if layout.dataset == "ucdavis19":
        facts["protocol"] = pl.Series([17], dtype=pl.Int16).new_from_index(0, frame.height)  # QUIC, all of it
    elif column := _first(frame, _PROTOCOL):
        text = frame[column].cast(pl.String).str.to_lowercase().replace(_NUMBERS)
        facts["protocol"] = _numbers(text, frame[column], FACTS["protocol"], path, first_row)
    for name in ("src_port", "dst_port"):
        if name in frame.columns:
            facts[name] = _numbers(frame[name].cast(pl.String), frame[name], pl.Int32(), path, first_row)
    facts |= _ports(facts.pop("src_port", None), facts.pop("dst_port", None), frame, layout)
    if column := _first(frame, _PACKETS):
        facts["packets"] = _numbers(frame[column].cast(pl.String), frame[column], pl.Int64(), path, first_row)
    if (start := _start(frame, layout)) is not None:
        facts["start"] = start
    facts |= _places(frame, layout)
    facts["is_background"] = frame["app"].cast(pl.String) == "background"
    if "is_valid_handshake" in frame.columns and frame.schema["is_valid_handshake"] == pl.Boolean:
        facts["has_handshake"] = frame["is_valid_handshake"]
    return facts


def _first(frame: pl.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in frame.columns), None)


def _numbers(text: pl.Series, raw: pl.Series, kind: pl.DataType, path: Path, first_row: int) -> pl.Series:
    """Whole numbers out of cells that hold them as numbers, floats or text; null stays null."""
    value = text.cast(pl.Float64, strict=False)
    number = value.cast(kind, strict=False)
    exact = (number.cast(pl.Float64) == value) & (number >= 0)
    wrong = raw.is_not_null() & ~exact.fill_null(False)
    refuse_rows(wrong, "not a whole number", raw.name, "a number of 0 or more", path, first_row=first_row)
    return number


def _ports(
    source: pl.Series | None, target: pl.Series | None, frame: pl.DataFrame, layout: Layout
) -> dict[str, pl.Series]:
    """Ports of client and server, and whether one is that of DNS; the source of a flow is the client.

    In dev utmobilenet21 the source is that of the first packet, and the client the side with a private address.
    """
    if source is None or target is None:
        return {}
    ends = pl.DataFrame({"source": source, "target": target})
    if (layout.dataset, layout.generation) == ("utmobilenet21", "dev"):
        if frame.schema.get("src_ip_is_private") != pl.Boolean:
            return {}
        swap = ~frame["src_ip_is_private"].fill_null(True)
    else:
        swap = pl.Series([False]).new_from_index(0, frame.height)
    ends = ends.with_columns(swap=swap)
    client, server = pl.col("source"), pl.col("target")
    return ends.select(
        client_port=pl.when("swap").then(server).otherwise(client),
        server_port=pl.when("swap").then(client).otherwise(server),
        is_dns=client.is_in(DNS_PORTS) | server.is_in(DNS_PORTS),
    ).to_dict()


def _start(frame: pl.DataFrame, layout: Layout) -> pl.Series | None:
    """Seconds since 1970 of the first packet, from float64 columns only."""
    column = _first(frame, STARTS)
    if column is None or layout.exported:
        return None
    values = frame[column]
    if isinstance(values.dtype, pl.List) and values.dtype.inner == pl.Float64:
        values = values.list.first()
    if values.dtype != pl.Float64:
        return None
    # an epoch in seconds, and nothing else under that name
    values = values.set(~values.is_between(0, 1e11).fill_null(False), None)
    return values + CDT_AS_UTC if (layout.dataset, layout.generation) == ("utmobilenet21", "dev") else values


def _places(frame: pl.DataFrame, layout: Layout) -> dict[str, pl.Series]:
    """The fact "partition", and "capture" where the table names the file of a flow."""
    # dev utmobilenet21 calls the location of the recording "partition"
    names = ("folder",) if (layout.dataset, layout.generation) == ("utmobilenet21", "dev") else ("partition",)
    texts = {
        name: frame[name].cast(pl.String)
        for name in (*names, "fname", "flow_id", "device_id")
        if name in frame.columns and frame.schema[name] in (pl.String, pl.Categorical)
    }
    places = {"partition": texts[names[0]]} if names[0] in texts else {}
    file = next((texts[name] for name in ("fname", "flow_id") if name in texts), None)
    if file is not None:
        folder = places.get("partition", texts.get("device_id"))
        places["capture"] = file if folder is None else folder + "/" + file
    return places
