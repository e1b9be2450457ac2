"""The applications of simulated traffic: number k is the same for every seed.

Applications are invented. Their parameters come from sequences that spread evenly, so that neighbours in number differ;
they share server stacks (certificates, records, tickets), and their requests and objects vary from flow to flow, so
that no application can be told by one value alone.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from jaxtraffic.datasets.simulated.quic_services import Service, Stack

FIRST_SERVER = 0xC6120000
"""198.18.0.0, the first address of the block for benchmarks (RFC 2544)."""

_SERVER_BLOCK = 1 << 17  # addresses of 198.18.0.0/15


@dataclasses.dataclass(frozen=True)
class ServerStack:
    """What the servers of one operator have in common.

    Attributes:
        chains: bytes of the Certificate message, the usual chain and the rarer one.
        modern: share of TLS 1.3 among its connections.
        ticket: bytes of the session tickets after the handshake.
        record: bytes of a TLS record of a large body.
        window: segments of the first congestion window.
        quick: probability that a lone segment is acknowledged at once.
    """

    chains: tuple[int, int]
    modern: float
    ticket: int
    record: int
    window: int
    quick: float


@dataclasses.dataclass(frozen=True)
class Application:
    """One class of flows; sizes in bytes of application data, times in milliseconds.

    Attributes:
        stack: its servers.
        hello: bytes of the ClientHello of its own client library, where no browser is used.
        own_client: share of flows from that library.
        resumed: share of resumed sessions.
        request: median bytes of a request.
        small: median bytes of the small objects.
        large: median bytes of the large ones.
        large_share: share of the large ones.
        rounds: mean number of requests of a flow.
        pause: median time between a response and the next request.
        busy: median time that the server takes to answer.
        trip: median round trip to the server.
        upload: share of requests with a body.
        body: median bytes of such a body.
        plain: share of TCP flows without TLS, to port 80.
        closes: shares of flows that the client ends, the server ends, that are reset, and that are left open.
    """

    stack: ServerStack
    hello: int
    own_client: float
    resumed: float
    request: int
    small: int
    large: int
    large_share: float
    rounds: float
    pause: float
    busy: float
    trip: float
    upload: float
    body: int
    plain: float
    closes: tuple[float, float, float, float]


STACKS = (
    ServerStack((2306, 3941), 0.95, 508, 16_384, 10, 0.5),
    ServerStack((2871, 2644), 0.9, 374, 4_096, 10, 0.3),
    ServerStack((4120, 4489), 0.6, 226, 16_384, 10, 0.7),
    ServerStack((3212, 3340), 0.8, 574, 8_192, 20, 0.4),
    ServerStack((5210, 2093), 0.35, 180, 1_369, 10, 0.6),
    ServerStack((1830, 1752), 1.0, 560, 16_384, 32, 0.25),
)
"""Operators; a content delivery network serves many applications."""


def _spread(index: int, dimension: int) -> float:
    """Value in [0, 1) of an additive recurrence: even over `index` in each dimension."""
    root = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)[dimension] ** 0.5
    return (0.5 + (index + 1) * root) % 1.0


def _between(low: float, high: float, place: float) -> float:
    """Between two positive values on a logarithmic scale."""
    return low * (high / low) ** place


@functools.cache
def application(index: int) -> Application:
    """Application number `index`, from 0 on; there is no last one."""
    place = functools.partial(_spread, index)
    client_end, server_end, reset = 0.35 + 0.3 * place(14), 0.1 + 0.25 * place(13), 0.05 + 0.15 * place(12)
    total = client_end + server_end + reset + 0.15
    return Application(
        stack=STACKS[int(place(0) * len(STACKS))],
        hello=int(170 + 180 * place(1)),
        own_client=0.6 * place(2),
        resumed=0.1 + 0.4 * place(3),
        request=int(_between(90, 1300, place(4))),
        small=int(_between(80, 2500, place(5))),
        large=int(_between(4_000, 120_000, place(6))),
        large_share=0.1 + 0.6 * place(7),
        rounds=1.2 + 3.3 * place(8),
        pause=_between(15, 3_000, place(9)),
        busy=_between(2, 90, place(10)),
        trip=_between(4, 60, place(11)),
        upload=0.5 * place(12) ** 3,
        body=int(_between(600, 30_000, place(13))),
        plain=0.06 * place(14),
        closes=(client_end / total, server_end / total, reset / total, 0.15 / total),
    )


def server_address(app: np.ndarray, replica: np.ndarray) -> np.ndarray:
    """[flow] uint32 address of a replica (from 0 to 3) of an application, the same for every seed."""
    return (FIRST_SERVER + 10 + (np.asarray(app, np.int64) * 5 + replica) * 37 % (_SERVER_BLOCK - 20)).astype(np.uint32)


def quic_service(index: int) -> Service:
    """Application number `index` as the QUIC model takes it."""
    app = application(index)
    number = STACKS.index(app.stack)
    stack = Stack(
        provider=f"operator-{number}",
        chains=((0.75, app.stack.chains[0]), (0.25, app.stack.chains[1])),
        datagram=(1250, 1232, 1200, 1350, 1280, 1252)[number],
        connection_id=(8, 8, 20, 12, 16, 8)[number],
        ticket=app.stack.ticket,
        rtt_ms=app.trip,
        lone_ack=app.stack.quick,
    )
    return Service(
        tag=f"app-{index}",
        category="simulated",
        stack=stack,
        flows=1,
        request=((0.7, app.request), (0.3, int(app.request * 1.3) + 40)),
        objects=((1 - app.large_share, app.small), (app.large_share, app.large)),
        request_spread=0.12,
        object_spread=0.4,
        tail=0.15,
        tail_median=5_000.0,
        rounds=min(app.rounds, 4.0),
        resumed=app.resumed,
        upload=app.upload,
        think_ms=app.pause,
        mobile=app.own_client,
    )
