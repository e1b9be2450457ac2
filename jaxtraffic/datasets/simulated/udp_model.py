"""UDP flows of simulated traffic: QUIC by its own model, and lookups of names."""

from __future__ import annotations

import numpy as np

from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.simulated.applications import application, quic_service
from jaxtraffic.datasets.simulated.quic_model import simulate_flows
from jaxtraffic.datasets.simulated.tls_model import Packets

UDP_HEADERS = 28
"""Bytes of IPv4 without options and UDP."""

_AT_ONCE = 2_000  # flows of one application that are held as a matrix


def simulate_quic(app: np.ndarray, rng: np.random.Generator) -> Packets:
    """Simulates QUIC flows.

    Args:
        app: [flow] numbers of applications.
        rng: NumPy generator; the same state gives the same flows.
    """
    flows, parts = [np.zeros(0, np.int64)], []
    for number in np.unique(app):
        members = np.flatnonzero(app == number)
        for first in range(0, members.size, _AT_ONCE):
            chosen = members[first : first + _AT_ONCE]
            made = simulate_flows(quic_service(int(number)), chosen.size, rng)
            inside = made.direction != 0
            gap = made.gap_ms * 1000 + rng.integers(0, 1000, made.gap_ms.shape)
            gap[:, 0] = 0
            parts.append((np.cumsum(gap, axis=1)[inside], made.direction[inside], made.size[inside]))
            flows.append(np.repeat(chosen, inside.sum(axis=1)))
    flow = np.concatenate(flows)
    order = np.argsort(flow, kind="stable")
    columns = [np.concatenate(values)[order] for values in zip(*parts, strict=True)] or [np.zeros(0, np.int64)] * 3
    return _packets(np.bincount(flow, minlength=app.size), *columns)


def simulate_lookups(app: np.ndarray, rng: np.random.Generator) -> Packets:
    """Simulates DNS queries with their answers, two packets each (RFC 1035)."""
    n = app.size
    trip = np.array([application(int(number)).trip for number in app.tolist()])
    query = 26 + app % 20 + rng.integers(4, 12, n)
    size = np.stack([query, query + 16 * rng.integers(1, 7, n)], axis=1)
    time = np.stack([np.zeros(n), 400 + 300 * trip * np.exp(rng.normal(0, 0.6, n))], axis=1)
    return _packets(np.full(n, 2), time.ravel(), np.tile([1, -1], n), size.ravel())


def _packets(counts: np.ndarray, time: np.ndarray, direction: np.ndarray, size: np.ndarray) -> Packets:
    n = int(counts.sum())
    return Packets(
        counts.astype(np.int64),
        time.astype(np.int64),
        direction.astype(np.int8),
        size.astype(np.int32),
        np.full(n, UDP_HEADERS, np.int32),
        np.zeros(n, np.uint8),
    )


def shuffle_in(parts: list[tuple[np.ndarray, Packets]], n: int) -> Packets:
    """Brings packets of several models into the order of the flows.

    Args:
        parts: (numbers of the flows, their packets), each flow once.
        n: flows of all parts together.
    """
    counts = np.zeros(n, np.int64)
    for chosen, packets in parts:
        counts[chosen] = packets.counts
    start = starts_of(counts)
    columns = []
    for name in ("time", "direction", "payload", "header", "flags"):
        kind = getattr(parts[0][1], name).dtype
        columns.append(np.zeros(int(counts.sum()), kind))
    for chosen, packets in parts:
        inner = np.arange(packets.time.size) - np.repeat(starts_of(packets.counts), packets.counts)
        place = np.repeat(start[chosen], packets.counts) + inner
        for column, name in zip(columns, ("time", "direction", "payload", "header", "flags"), strict=True):
            column[place] = getattr(packets, name)
    return Packets(counts, *columns)
