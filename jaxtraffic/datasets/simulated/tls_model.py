"""A packet-level model of TLS over TCP and IPv4 as a monitor near the clients sees it, for many flows at once.

Connection: SYN, SYN-ACK, ACK (RFC 9293); segments within the maximum segment size, slow start (RFC 5681), an
acknowledgement for every second segment or when a timer ends (RFC 1122), losses behind the monitor. TLS 1.2 (RFC 5246)
and 1.3 (RFC 8446): ClientHello of a browser, of a library, of a resumption or with a post-quantum key share; the flight
of the server with its certificates; tickets. Then rounds of request and response, and an end by FIN, RST or none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.simulated.applications import Application

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
"""TCP flags (RFC 9293 section 3.1)."""

MAX_ROUNDS = 12
MAX_SEGMENTS = 256
"""Segments of one message; a longer one ends here."""

HOSTS = ((0.3, 1460, 40, 52), (0.42, 1448, 52, 60), (0.28, 1388, 52, 60))
"""(share, payload of a full segment, IPv4 and TCP header, the same with the options of a SYN) of hosts without time
stamps, hosts with them, and hosts with them in a mobile network."""

_NEVER = np.inf
_DELAYED_ACK = 40_000.0  # microseconds, the shortest timer of Linux


@dataclasses.dataclass(frozen=True)
class Packets:
    """Packets of flows, end to end.

    Attributes:
        counts: [flow] int64 packets of each flow.
        time: [packet] int64 microseconds since the first packet of the flow, never decreasing.
        direction: [packet] int8.
        payload: [packet] int32 bytes.
        header: [packet] int32 bytes of IPv4 and TCP or UDP headers.
        flags: [packet] uint8.
    """

    counts: np.ndarray
    time: np.ndarray
    direction: np.ndarray
    payload: np.ndarray
    header: np.ndarray
    flags: np.ndarray

    def head(self, length: int) -> Packets:
        """The first `length` packets of each flow."""
        keep = np.arange(self.time.size) - np.repeat(starts_of(self.counts), self.counts) < length
        columns = (self.time, self.direction, self.payload, self.header, self.flags)
        return Packets(np.minimum(self.counts, length), *(column[keep] for column in columns))


def simulate_tls(apps: Sequence[Application], app: np.ndarray, plain: np.ndarray, rng: np.random.Generator) -> Packets:
    """Simulates TCP flows.

    Args:
        apps: applications.
        app: [flow] index into them.
        plain: [flow] bool, flows without TLS.
        rng: NumPy generator; the same state gives the same flows.
    """
    known = {name: values[app] for name, values in _table(apps).items()}
    wire = _Wire(known, rng)
    every = np.arange(app.size)
    wire.put(every, 1, 0, SYN, header=wire.syn)
    wire.cross(every, -1)
    wire.put(every, -1, 0, SYN | ACK, header=wire.syn)
    wire.cross(every, 1)
    wire.put(every, 1, 0, ACK)
    # some are given up as soon as they stand
    idle = rng.random(app.size) < 0.01
    talking = every[~idle]
    _handshake(wire, talking[~plain[talking]], known, rng)
    # the shares of a geometric distribution beyond the last round go into the last
    rounds = np.minimum(rng.geometric(1 / known["rounds"]), MAX_ROUNDS)
    for number in range(MAX_ROUNDS):
        active = talking[rounds[talking] > number]
        if not active.size:
            break
        _round(wire, active, number, known, rng)
    _close(wire, every, known, plain | idle, rng)
    return wire.finish()


def _table(apps: Sequence[Application]) -> dict[str, np.ndarray]:
    """Parameters by name, [app]."""
    names = [field.name for field in dataclasses.fields(Application) if field.name not in ("stack", "closes")]
    table = {name: np.array([getattr(entry, name) for entry in apps], float) for name in names}
    for name in ("modern", "ticket", "record", "window", "quick"):
        table[name] = np.array([getattr(entry.stack, name) for entry in apps], float)
    table["chains"] = np.array([entry.stack.chains for entry in apps], float)
    table["closes"] = np.cumsum([entry.closes for entry in apps], axis=1)
    return table


class _Wire:
    """The link at the monitor: a clock for each flow, and the packets that have passed."""

    def __init__(self, known: dict[str, np.ndarray], rng: np.random.Generator):
        n = self.n = known["trip"].size
        self.rng = rng
        host = rng.choice(len(HOSTS), n, p=[share for share, *_ in HOSTS])
        self.mss, self.header, self.syn = (np.array(column)[host] for column in list(zip(*HOSTS, strict=True))[1:])
        mobile = host == 2
        # microseconds: round trips from the monitor, and the time that the bottleneck takes for a segment
        self.trip_server = 1000 * known["trip"] * np.exp(rng.normal(0, 0.3, n))
        self.trip_client = 1000 * np.where(mobile, 25.0, 3.0) * np.exp(rng.normal(0, 0.5, n))
        self.pace = np.where(mobile, 400.0, 100.0) * np.exp(rng.normal(0, 0.6, n))
        self.window = known["window"].copy()
        self.quick = known["quick"]
        self.clock = np.zeros(n)
        self.pending = np.full(n, _NEVER)  # when a delayed acknowledgement is due
        self.pending_from = np.zeros(n, np.int8)
        self._passed: list[tuple[np.ndarray, ...]] = []

    def put(
        self,
        flow: np.ndarray,
        direction: int | np.ndarray,
        payload: int | np.ndarray,
        flags: int | np.ndarray,
        *,
        time: np.ndarray | None = None,
        header: np.ndarray | None = None,
    ) -> None:
        """Packets, one for each entry of `flow`, at the clock or at `time`."""
        header = (self.header if header is None else header)[flow]
        time = self.clock[flow] if time is None else time
        columns = ((time, np.int64), (direction, np.int8), (payload, np.int32), (header, np.int32), (flags, np.uint8))
        self._passed.append((flow, *(np.broadcast_to(values, flow.shape).astype(kind) for values, kind in columns)))

    def wait(self, flow: np.ndarray, microseconds: np.ndarray) -> None:
        """Lets time pass."""
        self.clock[flow] += microseconds

    def cross(self, flow: np.ndarray, sender: int) -> None:
        """Lets the round trip to the next sender pass."""
        trip = (self.trip_client if sender > 0 else self.trip_server)[flow]
        self.clock[flow] += trip * self.rng.gamma(25.0, 1 / 25.0, flow.size)

    def send(self, flow: np.ndarray, direction: int, size: np.ndarray, record: np.ndarray | None = None) -> None:
        """Sends messages of `size` bytes, one for each entry of `flow`, in segments; the clock goes to the last."""
        if not flow.size:
            return
        rng, size = self.rng, np.maximum(size.astype(np.int64), 1)
        self._settle(flow, direction)
        mss = self.mss[flow]
        n_segments = np.minimum(-(-size // mss), MAX_SEGMENTS)
        owner = np.repeat(np.arange(flow.size), n_segments)
        first = starts_of(n_segments)
        place = np.arange(owner.size) - first[owner]
        last = place == n_segments[owner] - 1
        payload = np.minimum(size[owner] - place * mss[owner], mss[owner])
        gap = rng.exponential(1.0, owner.size) * self.pace[flow][owner]
        gap[first] = 0.0
        elapsed = np.cumsum(gap)
        # slow start: the window doubles with every round trip
        trip = (self.trip_client + self.trip_server)[flow]
        burst = np.floor(np.log2(place / self.window[flow][owner] + 1))
        time = self.clock[flow][owner] + elapsed - elapsed[first][owner] + burst * trip[owner]
        self.window[flow] = np.minimum(self.window[flow] * 2.0 ** burst[last], 4.0 * MAX_SEGMENTS)
        ends = last
        if record is not None:
            begin = place * mss[owner]
            ends = last | (begin // record[owner] != (begin + payload) // record[owner])
        whose = flow[owner]
        flags = np.where(ends, PSH | ACK, ACK)
        self.put(whose, direction, payload, flags, time=time)
        again = np.flatnonzero(rng.random(owner.size) < 0.004)
        # noticed by later acknowledgements after a round trip, else by the timer
        noticed = n_segments[owner[again]] - place[again] > 3
        late = trip[owner[again]] * (1.1 + rng.exponential(0.2, again.size)) + np.where(noticed, 0.0, 2e5)
        self.put(whose[again], direction, payload[again], flags[again], time=time[again] + late)
        self._acknowledge(flow, -direction, owner, place, last, time)
        finished = time[last]
        np.maximum.at(finished, owner[again], time[again] + late)
        self.clock[flow] = finished

    def _acknowledge(
        self, flow: np.ndarray, sender: int, owner: np.ndarray, place: np.ndarray, last: np.ndarray, time: np.ndarray
    ) -> None:
        """One for every second segment at once; for a lone last one at once or after a while."""
        rng = self.rng
        trip = (self.trip_client if sender > 0 else self.trip_server)[flow] * rng.gamma(25.0, 1 / 25.0, flow.size)
        due = time + trip[owner] + rng.exponential(20.0, time.size)
        lone = last & (place % 2 == 0)
        at_once = (place % 2 == 1) | (lone & (rng.random(time.size) < self.quick[flow][owner]))
        self.put(flow[owner[at_once]], sender, 0, ACK, time=due[at_once])
        delayed = lone & ~at_once
        whose = flow[owner[delayed]]
        self.pending[whose] = due[delayed] + _DELAYED_ACK
        self.pending_from[whose] = sender

    def _settle(self, flow: np.ndarray, direction: int) -> None:
        """A delayed acknowledgement leaves before the next segment, or with it if that comes earlier."""
        waiting = flow[self.pending[flow] < _NEVER]
        spared = (self.pending_from[waiting] == direction) & (self.pending[waiting] >= self.clock[waiting])
        leaves = waiting[~spared]
        self._leave(leaves)
        self.pending[waiting] = _NEVER

    def _leave(self, flow: np.ndarray) -> None:
        self.put(flow, self.pending_from[flow], 0, ACK, time=self.pending[flow])

    def settle_all(self, flow: np.ndarray) -> None:
        """Lets the acknowledgements that wait leave, and time pass until then."""
        waiting = flow[self.pending[flow] < _NEVER]
        self._leave(waiting)
        self.clock[waiting] = np.maximum(self.clock[waiting], self.pending[waiting])
        self.pending[waiting] = _NEVER

    def finish(self) -> Packets:
        """All packets in the order of their flows and times."""
        flow, *columns = (np.concatenate(parts) for parts in zip(*self._passed, strict=True))
        order = np.argsort((flow << 40) + columns[0], kind="stable")
        return Packets(np.bincount(flow, minlength=self.n), *(column[order] for column in columns))


def _handshake(wire: _Wire, flow: np.ndarray, known: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    n = flow.size
    modern = rng.random(n) < known["modern"][flow]
    resumed = rng.random(n) < known["resumed"][flow]
    library = rng.random(n) < known["own_client"][flow]
    hello = np.where(library, known["hello"][flow] + rng.integers(-6, 7, n), 517)
    hello += np.where(resumed, np.where(modern, known["ticket"][flow] / 2 + 40, known["ticket"][flow] - 20), 0)
    hybrid = modern & ~library & (rng.random(n) < 0.25)
    hello = np.where(hybrid, hello + 1216 + rng.integers(0, 60, n), hello)
    wire.wait(flow, 150 + rng.exponential(400, n))
    wire.send(flow, 1, hello)
    wire.cross(flow, -1)
    wire.wait(flow, 300 + rng.exponential(900, n))
    rare = rng.random(n) < 0.2
    chain = known["chains"][flow, rare.astype(int)] + rng.choice([-1, 0, 1], n, p=[0.25, 0.5, 0.25])
    # ServerHello, EncryptedExtensions, CertificateVerify and Finished, or ServerHello, ServerKeyExchange and Done
    flight = np.where(modern, np.where(resumed, 240, 460 + chain), np.where(resumed, 145, 440 + chain))
    wire.send(flow, -1, flight + np.where(hybrid, 1088, 0))
    wire.cross(flow, 1)
    wire.wait(flow, 300 + rng.exponential(1500, n))
    old = ~modern
    wire.send(flow[modern], 1, rng.choice([64, 80], int(modern.sum()), p=[0.7, 0.3]))
    wire.send(flow[old], 1, np.where(resumed[old], 51, 126))
    ticket = flow[old & ~resumed]
    wire.cross(ticket, -1)
    wire.send(ticket, -1, 51 + known["ticket"][ticket])
    wire.cross(ticket, 1)
    # with TLS 1.3 the tickets come while the client asks
    ticket = flow[modern & (rng.random(n) < 0.85)]
    if ticket.size:
        asked = wire.clock.copy()
        wire.cross(ticket, -1)
        wire.send(ticket, -1, known["ticket"][ticket] + rng.choice([0, 0, 62], ticket.size))
        early = ticket[rng.random(ticket.size) < 0.5]
        wire.clock[early] = asked[early]
        late = np.setdiff1d(ticket, early, assume_unique=True)
        wire.cross(late, 1)


def _round(wire: _Wire, flow: np.ndarray, number: int, known: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    n = flow.size
    if number:
        wire.cross(flow, 1)
        wire.wait(flow, 1000 * known["pause"][flow] * np.exp(rng.normal(0, 0.9, n)))
    else:
        wire.wait(flow, 200 + rng.exponential(800, n))
    request = known["request"][flow] * np.exp(rng.normal(0, 0.12, n))
    # later requests refer to header fields sent before (HPACK)
    wire.send(flow, 1, request + 29 if number == 0 else 40 + 0.4 * request)
    uploads = flow[rng.random(n) < known["upload"][flow]]
    wire.wait(uploads, rng.exponential(300, uploads.size))
    wire.send(uploads, 1, known["body"][uploads] * np.exp(rng.normal(0, 0.8, uploads.size)), known["record"][uploads])
    wire.cross(flow, -1)
    wire.wait(flow, 1000 * known["busy"][flow] * np.exp(rng.normal(0, 0.7, n)))
    headers = flow[rng.random(n) < 0.25]
    wire.send(headers, -1, 180 + rng.integers(0, 120, headers.size))
    wire.wait(headers, rng.exponential(3_000, headers.size))
    large = rng.random(n) < known["large_share"][flow]
    median = np.where(large, known["large"][flow], known["small"][flow])
    wire.send(flow, -1, median * np.exp(rng.normal(0, np.where(large, 0.7, 0.3))) + 220, known["record"][flow])


def _close(
    wire: _Wire, flow: np.ndarray, known: dict[str, np.ndarray], silent: np.ndarray, rng: np.random.Generator
) -> None:
    """An end by the client, by the server, by a reset, or none; the silent ones end without an alert of TLS."""
    n = flow.size
    wire.settle_all(flow)
    wire.cross(flow, 1)
    wire.wait(flow, 1e6 * np.exp(rng.normal(0, 1.6, n)))
    kind = (rng.random(n)[:, None] > known["closes"]).sum(axis=1)
    alert = rng.random(n) < 0.6
    for number, ends in ((0, 1), (1, -1)):
        those = flow[kind == number]
        # close_notify, which the other side may find closed already
        told = those[alert[those] & ~silent[those]]
        wire.put(told, ends, np.where(rng.random(told.size) < 0.7, 24, 31), PSH | ACK)
        wire.wait(those, rng.exponential(60, those.size))
        wire.put(those, ends, 0, FIN | ACK)
        wire.cross(those, -ends)
        apart = those[rng.random(those.size) < 0.3]
        wire.put(apart, -ends, 0, ACK)
        wire.wait(apart, rng.exponential(4_000, apart.size))
        wire.put(those, -ends, 0, FIN | ACK)
        wire.cross(those, ends)
        wire.put(those, ends, 0, ACK)
    those = flow[kind == 2]
    both = rng.random(those.size) < 0.5
    # a reset carries no options
    wire.put(those, 1, 0, np.where(both, RST | ACK, RST), header=np.full(n, 40))
