"""The services of the simulated stand-in: what each one's QUIC traffic looks like.

The services are invented; the mechanisms are those of RFC 9000 and RFC 9001. Services of one provider share its server
stack (certificates, datagram size, connection identifiers), so that only requests and objects tell them apart, which is
what makes the real set hard as well.
"""

from __future__ import annotations

import dataclasses

Atoms = tuple[tuple[float, int], ...]
"""(weight, bytes) pairs."""


@dataclasses.dataclass(frozen=True)
class Stack:
    """A provider's server.

    Attributes:
        provider: its name.
        chains: certificate chains in use, (weight, bytes of the Certificate message).
        datagram: UDP payload of a full server datagram in bytes.
        connection_id: bytes of the connection identifier that clients put into their packets.
        ticket: bytes of HANDSHAKE_DONE, session tickets and HTTP/3 settings after the handshake.
        rtt_ms: median round trip from the monitor to the server.
        lone_ack: probability that a request is acknowledged in a packet of its own.
    """

    provider: str
    chains: Atoms
    datagram: int
    connection_id: int
    ticket: int
    rtt_ms: float
    lone_ack: float


@dataclasses.dataclass(frozen=True)
class Service:
    """One class of flows.

    Attributes:
        tag: label, as in APP.
        category: as in CATEGORY.
        stack: its server.
        flows: flows of this service in a set of the default size.
        request: usual header bytes of the first request, (weight, bytes).
        request_spread: sigma of the log-normal factor on them, which stands for paths and cookies.
        objects: usual response bodies, (weight, bytes).
        object_spread: sigma of the log-normal factor on those.
        tail: probability that a body comes from the log-normal tail instead.
        tail_median: median bytes of the tail.
        rounds: mean of the requests in a flow, from 1 to 5.
        resumed: probability of 0-RTT.
        upload: probability that a round sends a body to the server.
        header_packet: probability that response headers leave in a packet of their own.
        think_ms: median pause before a further request.
        port: UDP port of the server.
        mobile: probability of an app's client in place of a browser.
        mixed: a background class: many small services, each on some stack, with requests and objects of its own.
    """

    tag: str
    category: str
    stack: Stack
    flows: int
    request: Atoms
    objects: Atoms
    request_spread: float = 0.06
    object_spread: float = 0.02
    tail: float = 0.3
    tail_median: float = 4000.0
    rounds: float = 2.0
    resumed: float = 0.25
    upload: float = 0.0
    header_packet: float = 0.2
    think_ms: float = 150.0
    port: int = 443
    mobile: float = 0.3
    mixed: bool = False


@dataclasses.dataclass(frozen=True)
class Client:
    """A client implementation.

    Attributes:
        agent: QUIC_USERAGENT.
        initial: bytes of its padded Initial datagrams.
        connection_id: bytes of the connection identifier that servers put into their packets.
        ack_every: packets per acknowledgement.
    """

    agent: str
    initial: int
    connection_id: int
    ack_every: int


BROWSERS = (
    (0.62, Client("browser-c", 1250, 0, 2)),
    (0.2, Client("browser-f", 1357, 3, 4)),
    (0.18, Client("browser-s", 1200, 8, 2)),
)
APPS = (
    (0.6, Client("app-c", 1250, 0, 10)),
    (0.25, Client("app-c-old", 1350, 0, 2)),
    (0.15, Client("app-s", 1252, 8, 2)),
)
"""(weight, client) pairs."""

_NORTH = Stack("North", ((0.8, 2306), (0.2, 2331)), 1250, 8, 512, 6.0, 0.5)
_SOUTH = Stack("South", ((0.7, 2871), (0.3, 2644)), 1232, 8, 398, 9.0, 0.25)
_EAST = Stack("East", ((0.55, 2093), (0.45, 2120)), 1200, 20, 620, 4.0, 0.7)
_WEST = Stack("West", ((0.9, 3712), (0.1, 3688)), 1350, 12, 260, 22.0, 0.4)
_OTHER = Stack("Other", ((0.5, 2500), (0.5, 3300)), 1280, 8, 300, 35.0, 0.4)
_RESOLVER = Stack("Resolver", ((1.0, 1640),), 1232, 8, 210, 5.0, 0.3)

STACKS = (_NORTH, _SOUTH, _EAST, _WEST, _OTHER)
"""Stacks on which background services run."""

SERVICES = (
    Service("video-stream", "Streaming media", _NORTH, 6000, ((0.7, 690), (0.3, 742)), ((0.5, 61000), (0.5, 98000)),
            object_spread=0.3, tail=0.25, tail_median=30000, rounds=1.6, resumed=0.45, mobile=0.5),
    Service("web-search", "Search", _NORTH, 3100, ((0.6, 432), (0.4, 561)), ((0.5, 9800), (0.5, 1420)),
            request_spread=0.15, object_spread=0.1, tail=0.45, tail_median=6000, rounds=2.6, resumed=0.5),
    Service("social-feed", "Social", _SOUTH, 2200, ((0.5, 870), (0.5, 610)), ((0.6, 2900), (0.4, 540)),
            request_spread=0.12, object_spread=0.06, tail=0.4, tail_median=5200, rounds=2.8, upload=0.15, mobile=0.8),
    Service("web-static", "Content delivery", _NORTH, 1700, ((0.6, 206), (0.4, 251)),
            ((0.4, 5480), (0.3, 15400), (0.3, 812)),
            tail=0.4, tail_median=5200, rounds=2.2, resumed=0.35),
    Service("default-background", "Other", _OTHER, 1300, ((1.0, 380),), ((1.0, 4000),),
            request_spread=0.08, object_spread=0.08, tail=0.4, rounds=2.2, mixed=True),
    Service("social-media", "Social", _SOUTH, 1100, ((0.6, 402), (0.4, 610)), ((0.4, 14200), (0.6, 31000)),
            request_spread=0.1, object_spread=0.25, tail=0.35, tail_median=12000, rounds=2.0, mobile=0.8),
    Service("cdn-scripts", "Content delivery", _EAST, 900, ((0.7, 172), (0.3, 188)),
            ((0.5, 28200), (0.3, 6120), (0.2, 1910)),
            tail=0.2, tail_median=9000, rounds=1.4, resumed=0.15, mobile=0.05),
    Service("mail-sync", "Mail", _NORTH, 750, ((0.5, 982), (0.5, 1105)), ((0.6, 720), (0.4, 2210)),
            request_spread=0.1, object_spread=0.08, tail=0.3, tail_median=1800, rounds=3.0, upload=0.3, think_ms=600),
    Service("web-fonts", "Content delivery", _NORTH, 650, ((0.6, 198), (0.4, 243)),
            ((0.4, 11020), (0.4, 15744), (0.2, 760)),
            tail=0.25, tail_median=11000, rounds=1.9, resumed=0.35),
    Service("map-tiles", "Maps", _NORTH, 560, ((0.6, 318), (0.4, 344)), ((0.5, 7300), (0.5, 3650)),
            object_spread=0.35, tail=0.2, tail_median=9000, rounds=3.2, think_ms=60),
    Service("chat-photos", "Instant messaging", _SOUTH, 480, ((0.7, 521), (0.3, 548)), ((0.5, 21000), (0.5, 3600)),
            object_spread=0.2, tail=0.3, tail_median=9000, rounds=1.8, upload=0.35, mobile=0.95),
    Service("music-stream", "Streaming media", _WEST, 420, ((1.0, 388),), ((0.7, 42000), (0.3, 16000)),
            object_spread=0.12, tail=0.2, tail_median=9000, rounds=1.7, mobile=0.7),
    Service("shop-front", "E-commerce", _EAST, 370, ((0.5, 505), (0.5, 618)), ((0.5, 8700), (0.5, 2300)),
            request_spread=0.09, object_spread=0.2, tail=0.45, tail_median=5200, rounds=2.5),
    Service("news-site", "News", _EAST, 330, ((0.5, 448), (0.5, 560)), ((0.6, 12800), (0.4, 2600)),
            request_spread=0.09, object_spread=0.2, tail=0.45, tail_median=7200, rounds=2.3),
    Service("game-lobby", "Games", _WEST, 300, ((1.0, 264),), ((0.6, 96), (0.4, 310)),
            tail=0.15, tail_median=900, rounds=3.6, upload=0.55, think_ms=900, mobile=0.6),
    Service("ride-booking", "Transport", _NORTH, 280, ((0.6, 770), (0.4, 905)), ((0.6, 480), (0.4, 1650)),
            request_spread=0.05, object_spread=0.04, tail=0.2, tail_median=2400, rounds=2.6, upload=0.2, mobile=1.0),
    Service("resolver-dns", "DNS", _RESOLVER, 1300, ((1.0, 48),), ((0.6, 96), (0.4, 180)),
            tail=0.05, tail_median=300, rounds=2.2, resumed=0.6, think_ms=400, port=853),
    Service("weather-widget", "Weather", _WEST, 120, ((1.0, 212),), ((1.0, 1330),), tail=0.1, rounds=1.1),
)  # fmt: skip
"""All services; one DNS service and one rare service are there for curation to drop."""
