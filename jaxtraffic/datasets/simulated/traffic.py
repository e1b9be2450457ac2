"""The one simulator that every written layout takes its packets from."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxtraffic.datasets.ragged import starts_of

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
"""TCP flags (RFC 9293 section 3.1)."""

TCP, UDP = 6, 17
"""IP protocol numbers."""


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Packets of simulated flows: flows in order of their start, the packets of each end to end and in order of time.

    Attributes:
        counts: [flow] int64, packets of each flow, at least 1.
        app: [flow] int32, index of the application.
        protocol: [flow] uint8, 6 TCP or 17 UDP.
        client: [flow] uint32, IPv4 address in 10.0.0.0/8.
        server: [flow] uint32, IPv4 address in 198.18.0.0/15.
        client_port: [flow] uint16, from 32768.
        server_port: [flow] uint16, 443, 80 or 53.
        time: [packet] int64, nanoseconds since 1970 (UTC), whole microseconds.
        direction: [packet] int8, +1 from the client, -1 back.
        payload: [packet] int32, bytes of TCP or UDP payload, 0 for pure acknowledgements and handshakes.
        header: [packet] int32, bytes of IPv4 and TCP or UDP headers; IP total length is header + payload.
        tcp_flags: [packet] uint8, 0 for UDP.
    """

    counts: np.ndarray
    app: np.ndarray
    protocol: np.ndarray
    client: np.ndarray
    server: np.ndarray
    client_port: np.ndarray
    server_port: np.ndarray
    time: np.ndarray
    direction: np.ndarray
    payload: np.ndarray
    header: np.ndarray
    tcp_flags: np.ndarray

    def __len__(self) -> int:
        """Number of flows."""
        return self.counts.size

    @property
    def flow(self) -> np.ndarray:
        """[packet] index of the flow."""
        return np.repeat(np.arange(self.counts.size), self.counts)

    @property
    def iat(self) -> np.ndarray:
        """[packet] float64 seconds since the packet before in the same flow, 0 for the first."""
        gap = np.diff(self.time, prepend=self.time[:1]) / 1e9
        gap[starts_of(self.counts)] = 0.0
        return gap


def simulate_traffic(
    n_flows: int,
    *,
    seed: int | tuple[int, ...] = 0,
    n_apps: int = 5,
    transport: str = "both",
    start: float = 1_556_650_800.0,
    duration: float = 3_600.0,
    max_packets: int = 100,
) -> Traffic:
    """Simulates flows of applications that differ in sizes, rounds and pauses.

    Args:
        n_flows: flows, dealt over the applications unevenly, at least one each where n_flows allows.
        seed: the same seed gives the same traffic.
        n_apps: number of applications.
        transport: "tcp" (TLS over TCP with handshake and acknowledgements), "udp" (QUIC), or "both".
        start: seconds since 1970 of the earliest flow.
        duration: seconds over which flows start.
        max_packets: packets of a flow at most.
    """
    rng = np.random.default_rng([29, *np.atleast_1d(seed)])
    popularity = 1.0 / np.arange(1, n_apps + 1) ** 0.7
    app = rng.choice(n_apps, n_flows, p=popularity / popularity.sum())
    app[: min(n_apps, n_flows)] = np.arange(min(n_apps, n_flows))
    protocol = np.full(n_flows, {"tcp": TCP, "udp": UDP}.get(transport, TCP), np.uint8)
    if transport == "both":
        protocol[rng.random(n_flows) < 0.4] = UDP
    # placeholder of the protocol models: see the helper
    counts = np.minimum(3 + rng.geometric(1 / (8 + 4 * (app % 5))), max_packets)
    n = int(counts.sum())
    flow = np.repeat(np.arange(n_flows), counts)
    position = np.arange(n) - np.repeat(starts_of(counts), counts)
    direction = np.where(rng.random(n) < 0.45, 1, -1).astype(np.int8)
    payload = rng.integers(1, 1400, n)
    is_tcp = protocol[flow] == TCP
    direction[position == 0] = 1
    direction[is_tcp & (position < 3)] = np.array([1, -1, 1])[position[is_tcp & (position < 3)]]
    payload[is_tcp & ((position < 3) | (rng.random(n) < 0.25))] = 0
    flags = np.where(is_tcp, np.where(payload > 0, PSH | ACK, ACK), 0)
    flags[is_tcp & (position == 0)] = SYN
    flags[is_tcp & (position == 1)] = SYN | ACK
    begin = np.sort(rng.integers(0, int(duration * 1e6), n_flows))
    gap = rng.exponential(5_000 * (1 + app[flow]), n).astype(np.int64)
    gap[position == 0] = 0
    total = np.cumsum(gap)
    elapsed = total - np.repeat(total[starts_of(counts)], counts)
    time = (int(start * 1e6) + begin[flow] + elapsed) * 1000
    return Traffic(
        counts.astype(np.int64),
        app.astype(np.int32),
        protocol,
        (0x0A000000 + rng.integers(1, 1 << 16, n_flows)).astype(np.uint32),
        (0xC6120000 + rng.integers(1, 1 << 16, n_flows)).astype(np.uint32),
        rng.integers(32_768, 61_000, n_flows).astype(np.uint16),
        np.full(n_flows, 443, np.uint16),
        time,
        direction,
        payload.astype(np.int32),
        np.where(is_tcp, np.where(position < 2, 60, 52), 28).astype(np.int32),
        flags.astype(np.uint8),
    )
