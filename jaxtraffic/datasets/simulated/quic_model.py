"""A packet-level model of QUIC flows as a passive monitor sees them, for all flows of a service at once.

Handshake (RFC 9000 section 17, RFC 9001 section 4): padded client Initial, server flight of certificate size within the
amplification limit, client Handshake packets, tickets; or 0-RTT. Then rounds of request and response in full datagrams,
with acknowledgements, pauses, loss before the monitor, probe timeouts, and flows given up early.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxtraffic.datasets.simulated.quic_services import APPS, BROWSERS, Atoms, Client, Service

MAX_ROUNDS = 5
MAX_DATAGRAMS = 32
"""Full datagrams of one body; a larger body ends here, far beyond the packets that are kept."""

_TAG = 16  # AEAD tag, RFC 9001 section 5.3
_SHORT = 1 + 2 + _TAG  # short header byte, packet number, tag; the connection identifier comes on top


@dataclasses.dataclass(frozen=True)
class Packets:
    """All packets of a block of flows, packed to the left.

    Attributes:
        size: [flow, position] int32, UDP payload bytes.
        direction: [flow, position] int8, +1 client to server, -1 back, 0 after the last packet.
        gap_ms: [flow, position] int32, whole milliseconds since the packet before.
        client: [flow] int, index into `CLIENTS`.
    """

    size: np.ndarray
    direction: np.ndarray
    gap_ms: np.ndarray
    client: np.ndarray


CLIENTS: tuple[Client, ...] = tuple(client for _, client in BROWSERS + APPS)
"""All client implementations."""


class _Columns:
    """Packets of n flows, position after position; a position may be void in some of the flows."""

    def __init__(self, n: int):
        self.n = n
        self._blocks: list[tuple[np.ndarray, ...]] = []

    def add(self, size: np.ndarray, direction: int | np.ndarray, valid: np.ndarray, pause_ms: object = 0.0) -> None:
        """Adds positions, [flow] or [flow, position]; `pause_ms` comes on top of the round trips."""
        size = np.asarray(size).reshape(self.n, -1)
        columns = [
            np.asarray(part).reshape(self.n, -1) if np.ndim(part) else part for part in (direction, valid, pause_ms)
        ]
        self._blocks.append((size, *(np.broadcast_to(part, size.shape) for part in columns)))

    def stack(self) -> tuple[np.ndarray, ...]:
        """Size, direction, valid, pause_ms, each [flow, position]."""
        return tuple(np.concatenate(parts, axis=1) for parts in zip(*self._blocks, strict=True))


def simulate_flows(service: Service, n: int, rng: np.random.Generator) -> Packets:
    """Simulates `n` flows of a service.

    Args:
        service: what they are like.
        n: how many.
        rng: NumPy generator; the same state gives the same flows.
    """
    client = _choose_client(service, n, rng)
    initial, client_id, ack_every = (
        np.array([getattr(entry, field) for entry in CLIENTS])[client]
        for field in ("initial", "connection_id", "ack_every")
    )
    columns = _Columns(n)
    resumed = rng.random(n) < service.resumed
    _handshake(columns, service, initial, client_id, resumed, rng)
    rounds = np.clip(rng.geometric(1 / service.rounds, n), 1, MAX_ROUNDS)
    for number in range(MAX_ROUNDS):
        active = rounds > number
        if active.any():
            _round(columns, service, number, active, resumed, client_id, ack_every, rng)
    size, direction, valid, pause = columns.stack()
    valid = _lose(valid, size, rng)
    size, direction, valid, pause = _repeat(size, direction, valid, pause, rng)
    keep = _pack(valid)
    given_up = np.where(rng.random(n) < 0.07, rng.integers(2, 10, n), keep.shape[1])
    inside = np.arange(keep.shape[1]) < np.minimum(valid.sum(axis=1), given_up)[:, None]
    width = max(int(inside.sum(axis=1).max(initial=1)), 1)
    size, direction, pause, inside = (
        part[:, :width]
        for part in (*(np.take_along_axis(part, keep, axis=1) for part in (size, direction, pause)), inside)
    )
    direction = np.where(inside, direction, 0).astype(np.int8)
    gap = np.where(inside, _gaps(direction, pause, service, rng), 0)
    return Packets(np.where(inside, size, 0).astype(np.int32), direction, gap.astype(np.int32), client)


def _choose_client(service: Service, n: int, rng: np.random.Generator) -> np.ndarray:
    weights = [(1 - service.mobile) * weight for weight, _ in BROWSERS] + [
        service.mobile * weight for weight, _ in APPS
    ]
    return rng.choice(len(CLIENTS), n, p=np.array(weights) / np.sum(weights))


def _draw(atoms: Atoms, n: int, rng: np.random.Generator) -> np.ndarray:
    weights = np.array([weight for weight, _ in atoms])
    return np.array([value for _, value in atoms], float)[rng.choice(len(atoms), n, p=weights / weights.sum())]


def _handshake(
    columns: _Columns,
    service: Service,
    initial: np.ndarray,
    client_id: np.ndarray,
    resumed: np.ndarray,
    rng: np.random.Generator,
) -> None:
    n, stack = columns.n, service.stack
    every = np.ones(n, bool)
    columns.add(initial, 1, every)
    # probe timeout: the first Initial or its answer was lost behind the monitor
    columns.add(initial, 1, rng.random(n) < 0.02, 300 + rng.exponential(60, n))
    early = _request_size(service, 0, n, rng) + 26 + stack.connection_id
    columns.add(np.minimum(early, 1200), 1, resumed)
    # Initial with ServerHello, EncryptedExtensions, Certificate, CertificateVerify (DER: 70 to 72 bytes), Finished
    chain = _draw(stack.chains, n, rng)
    signature = rng.choice([70, 71, 72], n, p=[0.25, 0.5, 0.25])
    flight = np.where(resumed, 370, 340 + chain + signature) + 2 * client_id
    sizes, full = _datagrams(flight, stack.datagram, 6)
    columns.add(sizes[:, :2], -1, full[:, :2])
    # padded again, because it acknowledges an Initial; it also lifts the amplification limit of three times
    columns.add(initial, 1, every)
    columns.add(sizes[:, 2:], -1, full[:, 2:])
    columns.add(71 + stack.connection_id + rng.integers(0, 3, n), 1, every)
    columns.add(stack.ticket + client_id + rng.choice([0, 0, 0, 4, 31], n), -1, rng.random(n) < 0.9)
    columns.add(_SHORT + stack.connection_id + 5 + rng.integers(0, 2, n), 1, rng.random(n) < 0.6)


def _round(
    columns: _Columns,
    service: Service,
    number: int,
    active: np.ndarray,
    resumed: np.ndarray,
    client_id: np.ndarray,
    ack_every: np.ndarray,
    rng: np.random.Generator,
) -> None:
    n, stack = columns.n, service.stack
    pause = 0.0 if number == 0 else service.think_ms * np.exp(rng.normal(0, 1.1, n))
    request = _request_size(service, number, n, rng)
    # a first request in 0-RTT has gone out with the Initial
    asks = active & ~(resumed & (number == 0))
    columns.add(np.minimum(request + _SHORT + stack.connection_id, 1200), 1, asks, pause)
    uploads = asks & (rng.random(n) < service.upload)
    body = np.where(uploads, 1500 * np.exp(rng.normal(0, 1.0, n)), 0)
    sizes, full = _datagrams(body, 1200, 12)
    columns.add(sizes, 1, full)
    columns.add(_SHORT + client_id + 5 + rng.integers(0, 3, n), -1, asks & (uploads | (rng.random(n) < stack.lone_ack)))
    headers = active & (rng.random(n) < service.header_packet)
    columns.add(_SHORT + client_id + 120 + rng.integers(0, 40, n), -1, headers, rng.exponential(8, n))
    tail = rng.random(n) < service.tail
    usual = _draw(service.objects, n, rng) * np.exp(rng.normal(0, service.object_spread, n))
    body = np.where(tail, service.tail_median * np.exp(rng.normal(0, 1.0, n)), usual)
    sizes, full = _datagrams(np.where(active, body + _SHORT + client_id, 0), stack.datagram, MAX_DATAGRAMS)
    # one acknowledgement for every `ack_every` datagrams and, mostly, one for the last
    position = np.arange(MAX_DATAGRAMS)
    last = position == full.sum(axis=1)[:, None] - 1
    acked = full & (((position + 1) % ack_every[:, None] == 0) | (last & (rng.random((n, 1)) < 0.8)))
    ranges = rng.choice([5, 6, 7, 9, 12], (n, MAX_DATAGRAMS), p=[0.4, 0.3, 0.15, 0.1, 0.05])
    acks = _SHORT + stack.connection_id + ranges
    both = (np.stack(pair, axis=2).reshape(n, -1) for pair in ((sizes, acks), (full, acked)))
    both_sizes, both_valid = both
    columns.add(both_sizes, np.tile(np.array([-1, 1], np.int8), (n, MAX_DATAGRAMS)), both_valid)


def _request_size(service: Service, number: int, n: int, rng: np.random.Generator) -> np.ndarray:
    size = _draw(service.request, n, rng) * np.exp(rng.normal(0, service.request_spread, n))
    # later requests refer to header fields sent before (QPACK)
    return size if number == 0 else 24 + size * 0.35


def _datagrams(body: np.ndarray, datagram: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes [flow, most] of the datagrams of a body, and which of them exist."""
    left = np.asarray(body)[:, None] - np.arange(most) * datagram
    return np.clip(left, 30, datagram), left > 0


def _lose(valid: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Loses 0.4 % of the packets before the monitor, never the first."""
    lost = rng.random(size.shape) < 0.004
    lost[:, 0] = False
    return valid & ~lost


def _repeat(
    size: np.ndarray, direction: np.ndarray, valid: np.ndarray, pause: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Sends 0.6 % of the packets with data twice, after a timeout: lost behind the monitor."""
    again = valid & (size > 60) & (rng.random(size.shape) < 0.006)
    timeout = 40 + rng.exponential(60, size.shape)
    pairs = ((size, size), (direction, direction), (valid, again), (pause, timeout))
    return tuple(np.stack(pair, axis=2).reshape(len(size), -1) for pair in pairs)


def _pack(valid: np.ndarray) -> np.ndarray:
    """[flow, position] order that puts the valid positions first, in their old order."""
    return np.argsort(~valid, axis=1, kind="stable")


def _gaps(direction: np.ndarray, pause: np.ndarray, service: Service, rng: np.random.Generator) -> np.ndarray:
    """Whole milliseconds: round trips to client and server where the direction turns, pacing within a burst."""
    n, width = direction.shape
    to_server = service.stack.rtt_ms * np.exp(rng.normal(0, 0.35, (n, 1)))
    to_client = 4.0 * np.exp(rng.normal(0, 0.9, (n, 1)))
    jitter = rng.gamma(4.0, 0.25, (n, width))
    turned = np.zeros((n, width), bool)
    turned[:, 1:] = direction[:, 1:] != direction[:, :-1]
    trip = np.where(direction < 0, to_server, to_client) * jitter
    gap = np.where(turned, trip, rng.exponential(0.35, (n, width))) + pause
    gap[:, 0] = 0
    return np.floor(gap)
