"""Puts packets into bidirectional flows, in rounds of many packets at a time.

A flow is what ipfixprobe makes of the packets of one 5-tuple (both directions, IP version included), with these ends:

- idle: a packet that comes more than `idle_timeout` after the one before starts a new flow;
- close: a SYN without ACK after FIN or RST starts a new flow; what else comes after FIN or RST stays with the old one;
- active: a packet that comes more than `active_timeout` after the first one of the flow starts a new flow.

Idle and close end the connection as well, active does not: the flows that it cuts a connection into have the same
client. The client is the sender of the first SYN without ACK or the receiver of the first SYN with ACK, whichever came
first, else the sender of the first packet. Times within a 5-tuple never go backwards: a packet that is earlier than one
before it has the time of that one.

Rounds have a fixed number of packets, and what is forgotten (idle flows, and the oldest ones of a full table) is
forgotten between rounds only: results do not depend on the blocks in which packets come.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from jaxtraffic.datasets.capture import segments
from jaxtraffic.datasets.capture.connections import MAX_PACKETS, STATE, Connections, Groups, group
from jaxtraffic.datasets.capture.packet_log import NO_RUN, PacketLog
from jaxtraffic.datasets.capture.packets import Packets, joined
from jaxtraffic.datasets.capture.segments import ACK, SYN

EARLY = "flows ended early because the table of open flows was full"
BACKWARDS = "packets earlier than the one before (kept, inter-arrival time 0)"
EMPTY = "packets without payload"

_SEEN_SYN, _SEEN_SYN_ACK = 1, 2
_MAX_SIZE = 1 << 30
_NEVER = np.iinfo(np.int64).min


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """How packets become flows.

    Attributes:
        length: packets of a flow to keep.
        payload_only: packets without payload are not kept and not counted; they still drive times, ends and direction.
        size_layer: "ip" or "payload".
        idle_timeout: nanoseconds.
        active_timeout: nanoseconds.
        max_flows: flows that the table holds between rounds.
    """

    length: int = 30
    payload_only: bool = False
    size_layer: str = "ip"
    idle_timeout: int = 65_000_000_000
    active_timeout: int = 300_000_000_000
    max_flows: int = 1_000_000


@dataclasses.dataclass(frozen=True)
class Flows:
    """Finished flows, in the order of their first packets; sides a and b as in `Connections`.

    Attributes:
        key: [flow, 5] uint64, as in `Groups`.
        a_is_client: [flow] bool, by handshake or first packet.
        start: [flow] int64, time of the first packet, nanoseconds since 1970.
        first: [flow] int64, number of the first packet in the file.
        packets: [flow] int64, all packets; those with payload where only they count.
        handshake: [flow] bool, whether a SYN and a SYN+ACK were seen.
        counts: [flow] int64, packets that were kept.
        size: [packet] int32, bytes of kept packets, flow after flow.
        from_a: [packet] bool, whether a sent the packet.
        time: [packet] int64, nanoseconds since 1970, never backwards within a flow.
    """

    key: np.ndarray
    a_is_client: np.ndarray
    start: np.ndarray
    first: np.ndarray
    packets: np.ndarray
    handshake: np.ndarray
    counts: np.ndarray
    size: np.ndarray
    from_a: np.ndarray
    time: np.ndarray

    def __len__(self) -> int:
        """Number of flows."""
        return self.start.size


class FlowTable:
    """Flows that are not finished yet.

    Attributes:
        counts: rule -> number of what was left out or changed so far.
    """

    def __init__(self, settings: FlowSettings, *, round_packets: int = MAX_PACKETS):
        self.counts: Counter[str] = Counter()
        self._settings, self._round_packets = settings, round_packets
        self._parts: list[Packets] = []
        self._waiting = 0
        self._open = Connections()
        self._log = PacketLog()

    def add(self, packets: Packets) -> list[Flows]:
        """Takes packets in the order of their file; gives the flows that are finished, one block a round."""
        if len(packets):
            self._parts.append(packets)
            self._waiting += len(packets)
        if self._waiting < self._round_packets:
            return []
        waiting = joined(self._parts)
        whole = len(waiting) - len(waiting) % self._round_packets
        self._parts, self._waiting = [waiting[whole:]], len(waiting) - whole
        return [self._round(waiting[at : at + self._round_packets]) for at in range(0, whole, self._round_packets)]

    def finish(self) -> list[Flows]:
        """Gives the flows that are left once the file has ended."""
        done = [self._round(joined(self._parts), at_end=True)] if self._waiting else []
        self._parts, self._waiting = [], 0
        slots = self._open.slots()
        slots = slots[np.argsort(self._open.state["first"][slots], kind="stable")]
        for at in range(0, slots.size, MAX_PACKETS):
            part = slots[at : at + MAX_PACKETS]
            done.append(self._flows(self._open.key[part], self._open.state[part]))
            self._open.close(part)
        return [flows for flows in done if len(flows)]

    def _round(self, packets: Packets, *, at_end: bool = False) -> Flows:
        """Puts the packets of a round into their flows; gives those that are finished."""
        groups = group(packets)
        slot = self._open.find(groups.key)
        known = slot >= 0
        old = self._open.state[slot]
        packets = packets[groups.order]
        rows, fresh, of_row = self._place(packets, groups, old, known)
        last = np.append(of_row[1:] != of_row[:-1], True)
        ended = np.flatnonzero(known & fresh[np.flatnonzero(np.append(True, last[:-1]))])
        keys = [groups.key[ended], groups.key[of_row[~last]]]
        done = [old[ended], rows[~last]]
        slot[~known] = self._open.open(groups.key[~known])
        self._open.state[slot] = rows[last]
        for slots in [] if at_end else self._forgotten(int(packets.time.min())):
            keys.append(self._open.key[slots])
            done.append(self._open.state[slots])
            self._open.close(slots)
        flows = self._flows(np.concatenate(keys), np.concatenate(done))
        slots = self._open.slots()
        self._open.state["run"][slots] = self._log.compact(self._open.state["run"][slots])
        return flows

    def _place(
        self, packets: Packets, groups: Groups, old: np.ndarray, known: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cuts sorted packets into parts, each of one flow, and keeps what is to be kept of them.

        Returns:
            [part] states after its packets, [part] whether it is the start of a flow (and not the rest of the open
            one), and [part] its connection.
        """
        settings, first = self._settings, groups.first
        clock, late = segments.clocks(packets.time, first, np.where(known, old["clock"], _NEVER))
        before = np.concatenate([clock[:1], clock[:-1]])
        before[first] = np.where(known, old["clock"], clock[first])
        idle = clock - before > settings.idle_timeout
        idle[first[~known]] = True
        start, closed = segments.connection_starts(idle, packets.flags, first, groups.of_packet, known & old["closed"])
        # connections: those that start, and those that go on from before this round
        border = start.copy()
        border[first] = True
        whole = np.flatnonzero(border)
        carried = old[groups.of_packet[whole]]
        goes_on = ~start[whole]
        begun = np.where(goes_on, carried["start"], clock[whole])
        cut = segments.active_starts(clock, whole, begun, settings.active_timeout)
        at = np.flatnonzero(border | cut)
        fresh = start[at] | cut[at]
        of_row = groups.of_packet[at]
        rows = old[of_row]
        rows["start"] = np.where(fresh, clock[at], rows["start"])
        rows["first"] = np.where(fresh, packets.number[at], rows["first"])
        rows["run"] = np.where(fresh, NO_RUN, rows["run"])
        end = np.append(at[1:], clock.size)
        rows["clock"] = clock[end - 1]
        rows["closed"] = closed[of_row]
        connection = np.cumsum(border)[at] - 1
        sender = np.where(goes_on, carried["first_from_a"], groups.from_a[whole])
        rows["first_from_a"] = sender[connection]
        self._handshakes(rows, fresh, packets.flags, groups.from_a, at, end, whole, goes_on, carried, connection)
        self._keep(rows, fresh, packets, groups.from_a, clock, at)
        if late:
            self.counts[BACKWARDS] += late
        return rows, fresh, of_row

    @staticmethod
    def _handshakes(rows, fresh, flags, from_a, at, end, whole, goes_on, carried, connection) -> None:
        """Fills in what the handshake says: whether a flow has one, and who the client of the connection is."""
        syn = (flags & SYN) != 0
        answer = syn & ((flags & ACK) != 0)
        seen = np.where(answer, _SEEN_SYN_ACK, np.where(syn, _SEEN_SYN, 0)).astype(np.uint8)
        rows["seen"] = np.bitwise_or.reduceat(seen, at) | np.where(fresh, 0, rows["seen"])
        place = np.flatnonzero(syn)
        # the first SYN of each connection in this round; it says nothing of the parts that end before it
        nearest = np.append(place, flags.size)[np.searchsorted(place, whole)]
        inside = nearest < np.append(whole[1:], flags.size)
        nearest = np.where(inside, nearest, flags.size)
        client = np.append(from_a != answer, False)[nearest].astype(np.int8)
        before = np.where(goes_on, carried["client"], -1)
        told = nearest[connection] < end
        rows["client"] = np.where(before[connection] >= 0, before[connection], np.where(told, client[connection], -1))

    def _keep(self, rows, fresh, packets: Packets, from_a, clock, at) -> None:
        """Counts the packets of each part and logs the first ones of its flow."""
        settings = self._settings
        counted = packets.payload > 0 if settings.payload_only else np.ones(clock.size, bool)
        if settings.payload_only and not counted.all():
            self.counts[EMPTY] += int(np.count_nonzero(~counted))
        before = np.where(fresh, 0, rows["packets"])
        number = np.add.reduceat(counted, at, dtype=np.int64)
        rows["packets"] = before + number
        total = np.cumsum(counted) - counted
        length = np.diff(np.append(at, clock.size))
        keep = counted & (total < np.repeat(total[at] + settings.length - before, length))
        size = packets.size if settings.size_layer == "ip" else packets.payload
        kept = np.add.reduceat(keep, at, dtype=np.int64)
        rows["run"] = self._log.append(np.minimum(size[keep], _MAX_SIZE), from_a[keep], clock[keep], kept, rows["run"])

    def _forgotten(self, now: int) -> list[np.ndarray]:
        """Slots of connections that have gone idle, and of the oldest ones beyond the limit of the table."""
        slots = self._open.slots()
        clock = self._open.state["clock"][slots]
        # `now` is the earliest time of the round, so that one wrong time in the future ends nothing
        idle = clock < now - self._settings.idle_timeout
        slots, gone = slots[~idle], slots[idle]
        over = slots.size - self._settings.max_flows
        if over <= 0:
            return [gone]
        self.counts[EARLY] += over
        clock, number = self._open.state["clock"][slots], self._open.state["first"][slots]
        limit = np.partition(clock, over - 1)[over - 1]
        # of those that are equally old, the ones that began first
        tied = np.flatnonzero(clock == limit)
        tied = tied[np.argsort(number[tied])][: over - np.count_nonzero(clock < limit)]
        return [gone, slots[clock < limit], slots[tied]]

    def _flows(self, key: np.ndarray, state: np.ndarray) -> Flows:
        """Finished flows out of their states, in the order of their first packets."""
        order = np.argsort(state["first"], kind="stable")
        key, state = key[order], state[order]
        counts, size, from_a, time = self._log.take(state["run"])
        # packets of a host to its own port: a sent all of them
        same = (key[:, 0] == key[:, 2]) & (key[:, 1] == key[:, 3])
        same &= (key[:, 4] >> np.uint64(16) & np.uint64(0xFFFF)) == (key[:, 4] & np.uint64(0xFFFF))
        told = np.where(state["client"] >= 0, state["client"] == 1, state["first_from_a"])
        return Flows(
            key=key,
            a_is_client=told | same,
            start=state["start"].copy(),
            first=state["first"].copy(),
            packets=state["packets"].copy(),
            handshake=state["seen"] == (_SEEN_SYN | _SEEN_SYN_ACK),
            counts=counts,
            size=size,
            from_a=from_a,
            time=time,
        )

    @staticmethod
    def nothing() -> Flows:
        """No flows."""
        return FlowTable(FlowSettings())._flows(np.zeros((0, 5), np.uint64), np.zeros(0, STATE))
