"""Captures written from arrays: Ethernet, IPv4 and IPv6, TCP and UDP frames in pcap and pcapng files.

Payloads are zeros. Formats: libpcap (draft-ietf-opsawg-pcap), pcapng (draft-ietf-opsawg-pcapng), RFC 791, RFC 8200,
RFC 9293, RFC 768. Thousands of frames are laid out at a time with NumPy; dpkt builds the same bytes one by one, some
fifteen times more slowly, and is what the tests compare with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxtraffic.datasets.export.tcp_options import SYN, milliseconds, option_bytes
from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.errors import ConfigError, DataError

TCP, UDP = 6, 17
"""IP protocol numbers."""

FIN, ACK = 1, 16
"""TCP flags beside SYN (RFC 9293 section 3.1)."""

LINKS = {"ethernet": 1, "raw": 101}
"""Link types (LINKTYPE_ETHERNET, LINKTYPE_RAW), as in the header of a capture."""

CONTAINERS = ("pcap", "pcapng")

TCP_HEADER, UDP_HEADER = 20, 8
"""Bytes of the transport header without options."""

_BLOCK_BYTES = 8 << 20
_SNAP = 262_144
_CLIENT_MAC, _SERVER_MAC = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2"

_ETHERNET = np.dtype([("destination", "u1", 6), ("source", "u1", 6), ("type", ">u2")])
_IP = {
    4: np.dtype(
        [
            ("version", "u1"),
            ("service", "u1"),
            ("length", ">u2"),
            ("identification", ">u2"),
            ("fragment", ">u2"),
            ("ttl", "u1"),
            ("protocol", "u1"),
            ("checksum", ">u2"),
            ("source", "u1", 4),
            ("destination", "u1", 4),
        ]
    ),
    6: np.dtype(
        [
            ("version", ">u4"),
            ("length", ">u2"),
            ("protocol", "u1"),
            ("ttl", "u1"),
            ("source", "u1", 16),
            ("destination", "u1", 16),
        ]
    ),
}
_TCP = np.dtype(
    [
        ("source", ">u2"),
        ("destination", ">u2"),
        ("sequence", ">u4"),
        ("acknowledgement", ">u4"),
        ("offset", "u1"),
        ("flags", "u1"),
        ("window", ">u2"),
        ("checksum", ">u2"),
        ("urgent", ">u2"),
    ]
)
_UDP = np.dtype([("source", ">u2"), ("destination", ">u2"), ("length", ">u2"), ("checksum", ">u2")])
_PCAP_RECORD = np.dtype([(name, "<u4") for name in ("seconds", "fraction", "captured", "original")])
_PCAPNG_RECORD = np.dtype(
    [(name, "<u4") for name in ("type", "total", "interface", "high", "low", "captured", "original")]
)


def ip_header(version: int) -> int:
    """Bytes of an IP header without options or extensions."""
    return _IP[version].itemsize


@dataclasses.dataclass(frozen=True)
class Conversations:
    """Packets of flows as they go over the wire, flow after flow, those of a flow in order of time.

    Attributes:
        counts: [flow] int64, packets of each flow.
        protocol: [flow] uint8, 6 TCP or 17 UDP.
        client: [flow, 4] or [flow, 16] uint8, address; its width says which version of IP.
        server: as `client`.
        client_port: [flow] uint16.
        server_port: [flow] uint16.
        time: [packet] int64, nanoseconds since 1970 (UTC).
        direction: [packet] int8, +1 from the client, -1 back.
        payload: [packet] integers, bytes after the transport header.
        options: [packet] integers, bytes of TCP options, multiples of 4 up to 40; 0 for UDP.
        flags: [packet] uint8, TCP flags; 0 for UDP.
    """

    counts: np.ndarray
    protocol: np.ndarray
    client: np.ndarray
    server: np.ndarray
    client_port: np.ndarray
    server_port: np.ndarray
    time: np.ndarray
    direction: np.ndarray
    payload: np.ndarray
    options: np.ndarray
    flags: np.ndarray

    @property
    def ip_version(self) -> int:
        """4 or 6."""
        return 4 if self.client.shape[1] == 4 else 6


@contextlib.contextmanager
def capture_writer(
    path: Path, *, container: str = "pcap", link: str = "ethernet", nanosecond: bool = True
) -> Iterator[Callable[[Conversations], None]]:
    """Gives a function that adds packets to a capture; the file is complete when the block ends well, or not there.

    What is added at a time is in order of time; packets of the same time stay in the order of the flows. About
    120 bytes of memory a packet are needed for it.

    Args:
        path: the file; compressed where the name ends in `.gz`.
        container: "pcap" or "pcapng".
        link: "ethernet", or "raw" for frames that begin with the IP header.
        nanosecond: resolution of times: nanoseconds, or microseconds (rounded).

    Raises:
        ConfigError: unknown container or link.
        DataError: the file cannot be written.
    """
    if container not in CONTAINERS or link not in LINKS:
        raise ConfigError(
            f"a capture is of {' or '.join(CONTAINERS)} and {' or '.join(LINKS)}, not {container}, {link}"
        )
    try:
        with replacing(path) as temporary, contextlib.ExitStack() as files:
            stream = files.enter_context(temporary.open("wb"))
            if path.name.lower().endswith(".gz"):
                stream = files.enter_context(gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0))
            stream.write(_file_header(container, link, nanosecond))
            yield functools.partial(_add, stream, container=container, link=link, nanosecond=nanosecond)
    except OSError as error:
        raise DataError(
            path, f"cannot be written: {error.strerror or error}", remedy="name a folder that can be written"
        ) from error


def _add(stream: BinaryIO, packets: Conversations, **form: Any) -> None:
    for block in encode(packets, **form):
        stream.write(block.data)


def _file_header(container: str, link: str, nanosecond: bool) -> bytes:
    if container == "pcap":
        magic = 0xA1B23C4D if nanosecond else 0xA1B2C3D4
        numbers = np.array([magic, 2 | 4 << 16, 0, 0, _SNAP, LINKS[link]], "<u4")
        return numbers.tobytes()
    section = np.array([0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0xFFFFFFFF, 0xFFFFFFFF, 28], "<u4")
    resolution = 9 if nanosecond else 6  # option if_tsresol: 9, 1 byte long
    interface = np.array([1, 32, LINKS[link], _SNAP, 9 | 1 << 16, resolution, 0, 32], "<u4")
    return section.tobytes() + interface.tobytes()


def encode(packets: Conversations, *, container: str, link: str, nanosecond: bool) -> Iterator[np.ndarray]:
    """Yields the records of a capture in order of time, [byte] uint8, some megabytes at a time."""
    order = np.argsort(packets.time, kind="stable")
    flow = np.repeat(np.arange(packets.counts.size), packets.counts)
    sequence, acknowledgement = sequence_numbers(packets)
    echo = _echo(packets)
    transport = np.where(packets.protocol[flow] == TCP, TCP_HEADER + packets.options, UDP_HEADER)
    inside = (ip_header(packets.ip_version) + transport + packets.payload).astype(np.int64)
    ends = np.cumsum(inside[order] + 64)
    begin = 0
    while begin < order.size:
        reached = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, reached + _BLOCK_BYTES)), begin + 1)
        rows = order[begin:end]
        wire = _Rows(
            packets, rows, flow[rows], inside[rows], sequence[rows], acknowledgement[rows], echo[rows], rows & 0xFFFF
        )
        yield _records(wire, container, link, nanosecond)
        begin = end


def sequence_numbers(packets: Conversations) -> tuple[np.ndarray, np.ndarray]:
    """[packet] uint32 sequence and acknowledgement numbers: each side acknowledges all that the other has sent so far.

    The first numbers of a flow are made from its index. The acknowledgement number is 0 without the flag ACK.
    """
    first = starts_of(packets.counts)
    moved = packets.payload + (packets.flags & SYN > 0) + (packets.flags & FIN > 0)
    is_up = packets.direction > 0
    sent = []
    for own in (is_up, ~is_up):
        before = np.cumsum(moved * own) - moved * own
        sent.append(before - np.repeat(before[first[packets.counts > 0]], packets.counts[packets.counts > 0]))
    index = np.arange(packets.counts.size, dtype=np.int64)
    start_up = np.repeat(index * 2_654_435_761 + 1_000, packets.counts)
    start_down = np.repeat(index * 2_246_822_519 + 70_000, packets.counts)
    up, down = start_up + sent[0], start_down + sent[1]
    acknowledgement = np.where(packets.flags & ACK, np.where(is_up, down, up), 0)
    return (np.where(is_up, up, down) & 0xFFFFFFFF).astype(np.uint32), (acknowledgement & 0xFFFFFFFF).astype(np.uint32)


def _echo(packets: Conversations) -> np.ndarray:
    """[packet] uint32 milliseconds of the last packet from the other side of the flow, 0 where there is none."""
    position = np.arange(packets.time.size)
    first = np.repeat(starts_of(packets.counts), packets.counts)
    is_up = packets.direction > 0
    last_up = np.maximum.accumulate(np.where(is_up, position, -1))
    last_down = np.maximum.accumulate(np.where(is_up, -1, position))
    last = np.where(is_up, last_down, last_up)
    return np.where(last >= first, milliseconds(packets.time[last]), 0).astype(np.uint32)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Packets of a block in order of time; inside is the IP total length, the others as in `encode`."""

    packets: Conversations
    rows: np.ndarray
    flow: np.ndarray
    inside: np.ndarray
    sequence: np.ndarray
    acknowledgement: np.ndarray
    echo: np.ndarray
    identification: np.ndarray

    def take(self, chosen: np.ndarray) -> _Rows:
        """Some of the packets."""
        names = [field.name for field in dataclasses.fields(self)][1:]
        return _Rows(self.packets, *(getattr(self, name)[chosen] for name in names))


def _records(wire: _Rows, container: str, link: str, nanosecond: bool) -> np.ndarray:
    """[byte] uint8: record headers, frames and what follows them."""
    length = wire.inside + (_ETHERNET.itemsize if link == "ethernet" else 0)
    ticks = wire.packets.time[wire.rows]
    if not nanosecond:
        ticks = (ticks + 500) // 1000
    header = np.zeros(length.size, _PCAP_RECORD if container == "pcap" else _PCAPNG_RECORD)
    header["captured"] = header["original"] = length
    total = header.itemsize + length
    if container == "pcap":
        header["seconds"], header["fraction"] = np.divmod(ticks, 10**9 if nanosecond else 10**6)
    else:
        total += -length % 4 + 4
        header["type"], header["total"] = 6, total
        header["high"], header["low"] = ticks >> 32, ticks & 0xFFFFFFFF
    begin = np.cumsum(total) - total
    out = np.zeros(int(total.sum()), np.uint8)
    _put(out, begin, header)
    if container == "pcapng":
        _put(out, begin + total - 4, total.astype("<u4"))
    begin = begin + header.itemsize
    if link == "ethernet":
        _put(out, begin, _ethernet(wire))
        begin = begin + _ETHERNET.itemsize
    protocol = wire.packets.protocol[wire.flow]
    for number in (TCP, UDP):
        chosen = np.flatnonzero(protocol == number)
        if chosen.size:
            _put_packets(out, begin[chosen], wire.take(chosen), number)
    return out


def _put(out: np.ndarray, begin: np.ndarray, values: np.ndarray) -> None:
    """Lays the bytes of each of the values, [packet] of any type or [packet, byte], at its place."""
    if not begin.size:
        return
    matrix = np.ascontiguousarray(values).view(np.uint8).reshape(begin.size, -1)
    out[begin[:, None] + np.arange(matrix.shape[1])] = matrix


def _ethernet(wire: _Rows) -> np.ndarray:
    header = np.zeros(wire.rows.size, _ETHERNET)
    is_up = (wire.packets.direction[wire.rows] > 0)[:, None]
    client, server = (np.frombuffer(mac, np.uint8) for mac in (_CLIENT_MAC, _SERVER_MAC))
    header["source"], header["destination"] = np.where(is_up, client, server), np.where(is_up, server, client)
    header["type"] = 0x0800 if wire.packets.ip_version == 4 else 0x86DD
    return header


def _put_packets(out: np.ndarray, begin: np.ndarray, wire: _Rows, protocol: int) -> None:
    """Lays IP and transport headers of one protocol; payloads stay zeros."""
    packets = wire.packets
    is_up = packets.direction[wire.rows] > 0
    swap = is_up[:, None]
    client, server = packets.client[wire.flow], packets.server[wire.flow]
    address = np.where(swap, client, server), np.where(swap, server, client)
    ip = _ip_header(packets.ip_version, wire, address, protocol)
    port = packets.client_port[wire.flow], packets.server_port[wire.flow]
    transport = np.zeros(wire.rows.size, _TCP if protocol == TCP else _UDP)
    transport["source"], transport["destination"] = np.where(is_up, *port), np.where(is_up, *port[::-1])
    length = wire.inside - ip.itemsize
    total = _words(np.concatenate(address, axis=1)) + protocol + length
    if protocol == TCP:
        n_options, flags = packets.options[wire.rows], packets.flags[wire.rows]
        transport["sequence"], transport["acknowledgement"] = wire.sequence, wire.acknowledgement
        transport["offset"], transport["flags"] = (TCP_HEADER + n_options) // 4 << 4, flags
        transport["window"] = 0xFFFF
        options = option_bytes(n_options, flags, packets.time[wire.rows], wire.echo)
        transport["checksum"] = _checksum(total + _words(transport) + _words(options))
        for n in np.unique(n_options[n_options > 0]):
            chosen = n_options == n
            _put(out, begin[chosen] + ip.itemsize + _TCP.itemsize, options[chosen, :n])
    else:
        transport["length"] = length
        checksum = _checksum(total + _words(transport))
        transport["checksum"] = np.where(checksum == 0, 0xFFFF, checksum)  # 0 says that there is none
    _put(out, begin, ip)
    _put(out, begin + ip.itemsize, transport)


def _ip_header(version: int, wire: _Rows, address: tuple[np.ndarray, np.ndarray], protocol: int) -> np.ndarray:
    header = np.zeros(wire.rows.size, _IP[version])
    header["protocol"], header["ttl"] = protocol, 64
    header["source"], header["destination"] = address
    if version == 4:
        header["version"], header["length"] = 0x45, wire.inside
        header["identification"], header["fragment"] = wire.identification, 0x4000  # do not fragment
        header["checksum"] = _checksum(_words(header))
    else:
        header["version"], header["length"] = 6 << 28, wire.inside - header.itemsize
    return header


def _words(values: np.ndarray) -> np.ndarray:
    """[packet] sum of the 16-bit words of headers or [packet, byte]."""
    return (
        np.ascontiguousarray(values).view(np.uint8).reshape(values.shape[0], -1).view(">u2").sum(axis=1, dtype=np.int64)
    )


def _checksum(total: np.ndarray) -> np.ndarray:
    """[packet] internet checksum (RFC 1071) of sums of words."""
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
