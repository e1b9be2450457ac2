"""The packets that a packet series stands for: addresses, TCP flags and options, and times, as `pcap` says."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from jaxtraffic.datasets.export.packet_bytes import ACK, TCP, TCP_HEADER, UDP, UDP_HEADER, Conversations, ip_header
from jaxtraffic.datasets.export.tcp_options import MAX_OPTIONS, SYN, TIMESTAMPS, has_timestamps
from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

log = logging.getLogger("jaxtraffic.datasets")

START = 1_700_000_000
"""Seconds since 1970 of the first flow where the caller states none: 14 November 2023."""

SPACING = 0.01
"""Seconds from the start of a flow to that of the next."""

ROUND_TRIP = 0.02
"""Seconds from SYN to SYN+ACK of a handshake that is put before a flow."""

CLIENT_NETWORK = {4: "10.0.0.0/8", 6: "fd00::/8"}
"""Where clients are, by version of IP."""

SERVER_PORT = 443

_FIRST_PORT, _PORTS, _CLIENTS, _SERVERS = 49_152, 16_384, (1 << 24) - 2, (1 << 17) - 2
_LATEST = 2.0**32  # seconds since 1970 that a capture can hold
_OPTIONS = 20  # bytes of options of a handshake that a series says nothing of
PSH = 8
_PROTOCOLS = {"tcp": TCP, "udp": UDP}


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        flows: flows in the files.
        packets: packets in the files, handshakes that were put before flows included.
        dropped: reason -> flows left out.
        longest_pause: seconds between two packets of a flow at most: an idle timeout has to be longer.
        longest_flow: seconds from the first to the last packet of a flow at most: so does an active timeout.
    """

    flows: int
    packets: int
    dropped: dict[str, int]
    longest_pause: float
    longest_flow: float


def conversations(
    flows: PacketSeries,
    *,
    transport: str | np.ndarray = "tcp",
    ip_version: int = 4,
    handshake: bool = False,
    start: float = START,
    spacing: float | np.ndarray = SPACING,
    impossible: str = "error",
) -> tuple[Conversations, np.ndarray, Exported]:
    """The packets that `write_pcap` writes, the indices of the flows they are of, and what it returns."""
    flows.check()
    if ip_version not in CLIENT_NETWORK or impossible not in ("error", "drop"):
        raise ConfigError(
            f'ip_version must be 4 or 6 and impossible "error" or "drop"; got {ip_version!r} and {impossible!r}'
        )
    protocol = _protocols(transport, len(flows))
    kept, dropped = _possible(flows, protocol, ip_version, impossible)
    if kept.size < len(flows):
        flows, protocol = flows[kept], protocol[kept]
        spacing = np.asarray(spacing)[kept] if np.ndim(spacing) else spacing
    mask = np.asarray(flows.mask)
    counts = mask.sum(axis=1).astype(np.int64)
    size, direction = np.asarray(flows.size)[mask].astype(np.int64), np.asarray(flows.direction)[mask]
    seconds = np.asarray(flows.iat)[mask].astype(np.float64)
    seconds[starts_of(counts)] = 0.0
    options, payload, flags = _segments(flows.size_layer, size, direction, counts, protocol, ip_version, handshake)
    if handshake:
        tcp = np.flatnonzero(protocol == TCP)
        at = np.repeat(starts_of(counts)[tcp], 3)
        seconds[starts_of(counts)[tcp]] = 1e-4
        hello = {"seconds": (0.0, ROUND_TRIP, 1e-4), "direction": (1, -1, 1), "payload": (0, 0, 0)}
        hello |= {"options": (_OPTIONS, _OPTIONS, TIMESTAMPS), "flags": (SYN, SYN | ACK, ACK)}
        seconds, direction, payload, options, flags = (
            np.insert(values, at, np.tile(np.array(hello[name], values.dtype), tcp.size))
            for name, values in (
                ("seconds", seconds), ("direction", direction), ("payload", payload), ("options", options),
                ("flags", flags),
            )
        )  # fmt: skip
        counts = counts + np.where(protocol == TCP, 3, 0)
    time, longest_flow = _times(seconds, counts, start, spacing)
    client, server = _addresses(np.asarray(flows.label), ip_version)
    index = np.arange(counts.size)
    packets = Conversations(
        counts,
        protocol,
        client,
        server,
        (_FIRST_PORT + index // _CLIENTS % _PORTS).astype(np.uint16),
        np.full(counts.size, SERVER_PORT, np.uint16),
        time,
        direction,
        payload,
        options,
        flags,
    )
    pause = float(seconds.max(initial=0.0))
    return packets, kept, Exported(int(counts.size), int(counts.sum()), dropped, pause, longest_flow)


def _protocols(transport: str | np.ndarray, n: int) -> np.ndarray:
    """[flow] uint8."""
    values = np.atleast_1d(np.asarray(transport))
    numbers = np.array([_PROTOCOLS.get(str(value), 0) for value in values]) if values.dtype.kind in "UO" else values
    if not np.isin(numbers, (TCP, UDP)).all() or numbers.size not in (1, n) or numbers.ndim > 1:
        raise ConfigError(f'transport must be "tcp" or "udp", or one of these or 6 or 17 for each of the {n} flows')
    return np.broadcast_to(numbers.astype(np.uint8), n).copy()


def _possible(flows: PacketSeries, protocol: np.ndarray, ip_version: int, impossible: str) -> tuple[np.ndarray, dict]:
    """Indices of the flows that a capture can hold, and how many it cannot; refuses the first where asked to."""
    mask = np.asarray(flows.mask)
    least = ip_header(ip_version) + np.where(protocol == TCP, TCP_HEADER, UDP_HEADER)
    least = least if flows.size_layer == "ip" else np.zeros_like(least)
    empty, small = ~mask.any(axis=1), mask & (np.asarray(flows.size) < least[:, None])
    wrong = {
        "flows without packets": empty,
        "flows with a packet smaller than its headers": small.any(axis=1),
    }
    dropped = {reason: int(rows.sum()) for reason, rows in wrong.items() if rows.any()}
    bad = empty | small.any(axis=1)
    if dropped and impossible == "error":
        flow = int(np.argmax(bad))
        problem = "has no packets"
        if not empty[flow]:
            packet = int(np.argmax(small[flow]))
            name = "TCP" if protocol[flow] == TCP else "UDP"
            problem = (
                f"has {int(flows.size[flow, packet])} bytes in packet {packet + 1}; the headers of IPv{ip_version} and "
                f"{name} alone are {least[flow]}"
            )
        raise ConfigError(
            f"flow {flow + 1} {problem}; {int(bad.sum())} of {len(flows)} flows cannot be written: "
            'choose impossible="drop" to leave them out'
        )
    if dropped:
        log.warning("%d of %d flows not written: %s", int(bad.sum()), len(flows), dropped)
    return np.flatnonzero(~bad), dropped


def _segments(
    size_layer: str,
    size: np.ndarray,
    direction: np.ndarray,
    counts: np.ndarray,
    protocol: np.ndarray,
    ip_version: int,
    handshake: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[packet] bytes of TCP options, bytes of payload, and flags, as the module says."""
    is_tcp = np.repeat(protocol == TCP, counts)
    least = ip_header(ip_version) + np.where(is_tcp, TCP_HEADER, UDP_HEADER)
    room = size - least if size_layer == "ip" else size
    fits = (room <= MAX_OPTIONS) & (room % 4 == 0) if size_layer == "ip" else room == 0
    first = np.zeros(size.size, bool)
    first[starts_of(counts)] = not handshake
    flow = np.repeat(np.arange(counts.size), counts)
    syn = is_tcp & first & (direction > 0) & fits
    # the first packet of the server in flows that begin with SYN, or with the server
    greeted = np.zeros(counts.size, bool)
    greeted[flow[syn]] = True
    down = np.flatnonzero(direction < 0)
    earliest = down[np.diff(flow[down], prepend=-1) != 0]
    syn_ack = is_tcp & first & (direction < 0)
    syn_ack[earliest[is_tcp[earliest] & greeted[flow[earliest]] & fits[earliest]]] = True
    opening = syn | syn_ack
    flags = np.where(is_tcp, np.where(syn, SYN, ACK), 0)
    flags[syn_ack] |= SYN
    options = np.where(opening & fits, room, 0) if size_layer == "ip" else np.where(opening, _OPTIONS, 0)
    agreed = np.full(counts.size, handshake)
    agreed[flow[syn]] = True
    agreed[flow[opening & ~has_timestamps(options)]] = False
    stamped = is_tcp & ~opening & agreed[flow]
    if size_layer == "ip":
        stamped = (stamped & (room >= TIMESTAMPS)) | (is_tcp & ~opening & (room == TIMESTAMPS))
    options[stamped] = TIMESTAMPS
    payload = room - options if size_layer == "ip" else room
    flags[is_tcp & ~opening & (payload > 0)] |= PSH
    return options, payload, flags.astype(np.uint8)


def _times(
    seconds: np.ndarray, counts: np.ndarray, start: float, spacing: float | np.ndarray
) -> tuple[np.ndarray, float]:
    """[packet] int64 nanoseconds since 1970, and the seconds of the longest flow."""
    if np.ndim(spacing) and np.shape(spacing) != counts.shape:
        raise ConfigError(f"spacing must be seconds, or one number for each of the {counts.size} flows")
    after = np.asarray(spacing, np.float64) if np.ndim(spacing) else np.arange(counts.size) * float(spacing)
    duration = np.add.reduceat(seconds, starts_of(counts)) if counts.size else np.zeros(0)
    latest = float((after + duration).max(initial=0.0)) + start
    if not (start >= 0 and after.min(initial=0.0) >= 0 and latest < _LATEST):
        raise ConfigError(
            f"times must lie from 1970 to 2106, which is what a capture can hold; got start {start} s, a first "
            f"flow {after.min(initial=0.0):.6g} s after it, and a last packet at {latest:.6g} s"
        )
    # whole numbers from here on: sums stay exact, and a wrap of the running sum cancels within a flow
    step = np.rint(seconds * 1e9).astype(np.int64)
    total = np.cumsum(step)
    elapsed = total - np.repeat((total - step)[starts_of(counts)], counts)
    begin = int(start) * 10**9 + round((start - int(start)) * 1e9) + np.rint(after * 1e9).astype(np.int64)
    return np.repeat(begin, counts) + elapsed, float(duration.max(initial=0.0))


def _addresses(label: np.ndarray, ip_version: int) -> tuple[np.ndarray, np.ndarray]:
    """[flow, 4 or 16] uint8 addresses: one client for each flow, one server for each class."""
    client, server = np.arange(label.size) % _CLIENTS + 1, label.astype(np.int64) % _SERVERS + 1
    if ip_version == 4:
        return _bytes((10 << 24) + client, ">u4"), _bytes(0xC6120000 + server, ">u4")
    addresses = []
    for prefix, host in ((0xFD00 << 48, client), (0x20010DB8 << 32, server)):
        both = np.stack([np.full(label.size, prefix, np.uint64), host.astype(np.uint64)], axis=1)
        addresses.append(_bytes(both, ">u8"))
    return addresses[0], addresses[1]


def _bytes(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """[flow, byte] of [flow] or [flow, number]."""
    width = np.dtype(dtype).itemsize * int(np.prod(numbers.shape[1:]))
    return numbers.astype(dtype).view(np.uint8).reshape(numbers.shape[0], width)
