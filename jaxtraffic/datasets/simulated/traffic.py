"""The one simulator that every written layout takes its packets from."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.simulated.applications import Application, application, server_address
from jaxtraffic.datasets.simulated.tls_model import ACK, FIN, PSH, RST, SYN, Packets, simulate_tls
from jaxtraffic.datasets.simulated.udp_model import shuffle_in, simulate_lookups, simulate_quic
from jaxtraffic.errors import ConfigError

TCP, UDP = 6, 17
"""IP protocol numbers."""

__all__ = ["ACK", "FIN", "PSH", "RST", "SYN", "TCP", "UDP", "Traffic", "simulate_traffic"]

_AT_ONCE = 8_192


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
    dns: bool = False,
) -> Traffic:
    """Simulates flows of applications that differ in certificates, requests, objects, rounds and pauses.

    Application k is the same for every seed. No two flows of a call share addresses, ports and protocol; a client has a
    port for each flow. `max_packets` cuts: a smaller value gives the first packets of the same flows.

    Args:
        n_flows: flows, dealt over the applications unevenly, at least one each where n_flows allows.
        seed: the same seed gives the same traffic.
        n_apps: number of applications.
        transport: "tcp" (TLS over TCP with handshake and acknowledgements), "udp" (QUIC), or "both".
        start: seconds since 1970 of the earliest flow.
        duration: seconds over which flows start.
        max_packets: packets of a flow at most.
        dns: whether a tenth of the UDP flows, each with the application that it is for, are lookups at port 53.

    Raises:
        ConfigError: an unknown transport, or a number that makes no sense.
    """
    if transport not in ("tcp", "udp", "both"):
        raise ConfigError(f"unknown transport {transport!r}; choose from: tcp, udp, both")
    if n_flows < 0 or n_apps < 1 or max_packets < 1:
        raise ConfigError(f"impossible traffic: {n_flows} flows, {n_apps} applications, {max_packets} packets")
    rng = np.random.default_rng([29, *np.atleast_1d(seed)])
    popularity = 1.0 / np.arange(1, n_apps + 1) ** 0.7
    app = rng.choice(n_apps, n_flows, p=popularity / popularity.sum())
    if n_flows >= n_apps:
        # anywhere in the day, not at its start
        app[rng.choice(n_flows, n_apps, replace=False)] = np.arange(n_apps)
    protocol = np.full(n_flows, UDP if transport == "udp" else TCP, np.uint8)
    if transport == "both":
        protocol[rng.random(n_flows) < 0.4] = UDP
    lookup = dns & (protocol == UDP) & (rng.random(n_flows) < 0.1)
    apps = [application(number) for number in range(n_apps)]
    plain = (protocol == TCP) & (rng.random(n_flows) < np.array([entry.plain for entry in apps])[app])
    begin = np.sort(rng.integers(0, max(int(duration * 1e6), 1), n_flows))
    begin -= begin[:1].sum()
    client, client_port = _clients(n_flows, rng)
    parts = [
        _simulate_part(apps, app[part], protocol[part], plain[part], lookup[part], rng).head(max_packets)
        for part in (slice(first, first + _AT_ONCE) for first in range(0, max(n_flows, 1), _AT_ONCE))
    ]
    columns = ("counts", "time", "direction", "payload", "header", "flags")
    counts, elapsed, *rest = (np.concatenate([getattr(part, name) for part in parts]) for name in columns)
    return Traffic(
        counts,
        app.astype(np.int32),
        protocol,
        client,
        server_address(app, rng.integers(0, 4, n_flows)),
        client_port,
        np.where(lookup, 53, np.where(plain, 80, 443)).astype(np.uint16),
        (round(start * 1e6) + np.repeat(begin, counts) + elapsed) * 1000,
        *rest,
    )


def _simulate_part(
    apps: list[Application],
    app: np.ndarray,
    protocol: np.ndarray,
    plain: np.ndarray,
    lookup: np.ndarray,
    rng: np.random.Generator,
) -> Packets:
    """Packets of some thousand flows, by the model that each belongs to."""
    tcp, quic, names = (np.flatnonzero(those) for those in (protocol == TCP, (protocol == UDP) & ~lookup, lookup))
    parts = [
        (tcp, simulate_tls(apps, app[tcp], plain[tcp], rng)),
        (quic, simulate_quic(app[quic], rng)),
        (names, simulate_lookups(app[names], rng)),
    ]
    return shuffle_in(parts, app.size)


def _clients(n_flows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Addresses and ports of the clients; some clients are busier than others, and none uses a port twice."""
    n_clients = max(n_flows // 20, 8)
    who = (n_clients * rng.random(n_flows) ** 2).astype(np.int64)
    order = np.argsort(who, kind="stable")
    counts = np.bincount(who, minlength=n_clients)
    rank = np.empty(n_flows, np.int64)
    rank[order] = np.arange(n_flows) - np.repeat(starts_of(counts), counts)
    ports = 61_000 - 32_768
    # 7,919 and 104,729 are prime to what they are reduced by, so that no value comes back early
    port = 32_768 + (rng.integers(0, ports, n_clients)[who] + 7_919 * rank) % ports
    host = who + n_clients * (rank // ports)
    addresses = (1 << 24) - 2
    address = 0x0A000001 + (int(rng.integers(0, addresses)) + 104_729 * host) % addresses
    return address.astype(np.uint32), port.astype(np.uint16)
