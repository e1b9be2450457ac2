"""Packet series written as captures that tshark, Zeek, nprint or NFStream read, and that read back as they were.

Each flow becomes a conversation of its own between a client in 10.0.0.0/8 (fd00::/8) and a server in 198.18.0.0/15
(2001:db8::/32), port 443: addresses for private use, benchmarks (RFC 2544) and documentation (RFC 3849). Payloads are
zeros, so nothing that looks into them finds anything.

What a series does not say is made up in the way that a reader of captures understands it back:

- TCP: a first packet of the client without payload is a SYN, the first of the server after it a SYN+ACK; in the layer
  "ip" the bytes above the smallest header are TCP options there where they can be (a multiple of 4, at most 40).
  After a handshake with timestamps (16 or more bytes of options) packets of 12 or more bytes above the smallest header
  carry 12 bytes of timestamps; without one, 12 bytes exactly are taken for a pure acknowledgement with timestamps. All
  else is payload. A flow that begins with a packet of the server begins with SYN+ACK, even with payload, so that a
  reader knows who the client is. No flow is closed by FIN or RST.
- UDP has no flags: a flow that begins with a packet of the server is read back with its directions turned round by
  readers that take the first sender for the client, unless they are told that clients are in 10.0.0.0/8 (fd00::/8).
- Times are in whole nanoseconds (or microseconds), summed from the inter-arrival times, each rounded.
- A pause longer than the idle timeout of a reader splits a flow in two, as does a flow longer than its active timeout.
  `Exported` states the longest of both; read with timeouts above them.
"""

from __future__ import annotations

import contextlib
import csv
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtraffic.datasets.export.packet_bytes import Conversations, capture_writer
from jaxtraffic.datasets.export.series_packets import SPACING, START, Exported, conversations
from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.errors import DataError
from jaxtraffic.series import PacketSeries

TABLE = "labels.csv"
"""Name of the file that says which class a capture holds."""

LABEL_COLUMNS = ("client_address", "client_port", "server_address", "server_port", "protocol", "start", "label")
"""Columns of the file that says which class a flow has."""


def write_pcap(
    flows: PacketSeries,
    path: str | Path,
    *,
    transport: str | np.ndarray = "tcp",
    ip_version: int = 4,
    handshake: bool = False,
    start: float = START,
    spacing: float | np.ndarray = SPACING,
    nanosecond: bool = True,
    impossible: str = "error",
    labels: str | Path | None = None,
) -> Exported:
    """Writes flows as one capture with all of their packets in order of time.

    Args:
        flows: checked flows of the layer "ip" (sizes are IP total lengths) or "payload" (bytes of transport payload).
        path: the file, complete or not there; compressed where its name ends in `.gz` (zeros compress well).
        transport: "tcp" or "udp", or [flow] of these or of 6 and 17.
        ip_version: 4 or 6.
        handshake: puts SYN, SYN+ACK and ACK before each TCP flow, which then reads back with three more packets, the
            first of them `start`, the flow's own `ROUND_TRIP` and 0.2 ms later.
        start: seconds since 1970 (UTC) at which the first flow starts.
        spacing: seconds from the start of a flow to that of the next, or [flow] seconds after `start`.
        nanosecond: times in nanoseconds; False: in microseconds, for readers that know nothing else.
        impossible: what to do with flows that no capture can hold: "error", or "drop" them and count. Those are flows
            without packets, and in the layer "ip" those with a packet smaller than its headers (IPv4: 40 bytes for TCP,
            28 for UDP; IPv6: 60 and 48).
        labels: writes a table of the flows there too, CSV with the columns `LABEL_COLUMNS`.

    Raises:
        ConfigError: an impossible flow, a time beyond 2106, or an option that does not fit.
        DataError: the file cannot be written.
    """
    path = Path(path)
    packets, kept, result = conversations(
        flows,
        transport=transport,
        ip_version=ip_version,
        handshake=handshake,
        start=start,
        spacing=spacing,
        impossible=impossible,
    )
    with capture_writer(path, nanosecond=nanosecond) as add:
        add(packets)
    if labels is not None:
        _write_labels(Path(labels), packets, [flows.class_names[label] for label in np.asarray(flows.label)[kept]])
    return result


def write_pcap_folder(flows: PacketSeries, folder: str | Path, **options: object) -> Exported:
    """Writes one capture for each class that has flows, and `labels.csv` with the columns file and label.

    Files are named after the classes, with what is no letter, digit, dot, dash or underscore replaced; the table holds
    the names of the classes as they are. The folder is complete or not there.

    Args:
        flows: as in `write_pcap`.
        folder: that does not exist or is empty.
        options: as in `write_pcap`, but for `labels`.

    Raises:
        ConfigError: as in `write_pcap`.
        DataError: the folder holds something, or cannot be written.
    """
    folder, results, taken = Path(folder), [], set()
    by_flow = {name: np.asarray(options[name]) for name in ("transport", "spacing") if np.ndim(options.get(name, 0))}
    with _whole_folder(folder) as temporary:
        rows = []
        for label in np.flatnonzero(flows.counts()):
            chosen = np.flatnonzero(np.asarray(flows.label) == label)
            file = safe_name(flows.class_names[label], taken) + ".pcap"
            own = {name: values[chosen] for name, values in by_flow.items()}
            results.append(write_pcap(flows[chosen], temporary / file, **{**options, **own}))
            rows.append((file, flows.class_names[label]))
        _write_csv(temporary / TABLE, ("file", "label"), rows)
    return _summed(results)


def safe_name(name: str, taken: set[str]) -> str:
    """A file name (without ending) for a class: safe on every system, and not among `taken`, to which it is added."""
    # letters beyond ASCII are replaced as well: some systems change how they are encoded
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in name)[:100]
    plain = plain.strip(".") or "class"
    if plain.split(".")[0].upper() in {
        "CON",
        "PRN",
        "AUX",
        "NUL",
        *(f"{a}{i}" for a in ("COM", "LPT") for i in range(10)),
    }:
        plain = f"{plain}_"
    chosen, number = plain, 1
    while chosen.casefold() in taken:
        number += 1
        chosen = f"{plain}-{number}"
    taken.add(chosen.casefold())
    return chosen


def _write_labels(path: Path, packets: Conversations, names: list[str]) -> None:
    family = socket.AF_INET if packets.ip_version == 4 else socket.AF_INET6
    begin = packets.time[starts_of(packets.counts)]
    text = [
        [socket.inet_ntop(family, row.tobytes()) for row in addresses] for addresses in (packets.client, packets.server)
    ]
    start = [f"{value // 10**9}.{value % 10**9:09d}" for value in begin.tolist()]
    columns = (text[0], packets.client_port.tolist(), text[1], packets.server_port.tolist(), packets.protocol.tolist())
    _write_csv(path, LABEL_COLUMNS, zip(*columns, start, names))


def _write_csv(path: Path, header: tuple[str, ...], rows: object) -> None:
    try:
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
    except OSError as error:
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the place of `folder` when the block ends well, and is removed when not."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(folder, "is not an empty folder", remedy="name a new one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent) as name:
            whole = Path(name) / "whole"
            whole.mkdir()
            yield whole
            if folder.exists():
                folder.rmdir()
            os.rename(whole, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(path, f"cannot be written: {error.strerror or error}", remedy="name a folder that can be written")


def _summed(results: list[Exported]) -> Exported:
    dropped: dict[str, int] = {}
    for result in results:
        for reason, n in result.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + n
    return Exported(
        sum(result.flows for result in results),
        sum(result.packets for result in results),
        dropped,
        max((result.longest_pause for result in results), default=0.0),
        max((result.longest_flow for result in results), default=0.0),
    )
