"""Gives the fragments of an IP packet the ports that only its first fragment has.

Every fragment stays a packet of its own; nothing is put together. A fragment belongs to the first fragment with the
same addresses, protocol and identification (IPv6: addresses and identification, RFC 8200) that came last before it, or,
where there is none, to the first such one that follows soon. Both are looked for within numbers of packets of the file,
so that no result depends on the blocks in which a file is read.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from jaxtraffic.datasets.capture.packets import FIRST_FRAGMENT, LATER_FRAGMENT, WHOLE, Packets, joined

BEFORE = 65_536
"""How many packets of the file ago a first fragment may have come."""

AFTER = 1_024
"""How many packets of the file later a first fragment may come."""

SECONDS = 30
"""Seconds that the parts of a packet may lie apart, as in Linux (net.ipv4.ipfrag_time)."""

UNMATCHED = "fragments whose first fragment is not there"


class Fragments:
    """Matches fragments in a stream of packets; packets that wait for a first fragment hold back those behind them."""

    def __init__(self) -> None:
        self._waiting: Packets | None = None
        self._firsts: Packets | None = None
        self.counts: Counter[str] = Counter()

    def add(self, packets: Packets, last: int) -> Packets:
        """The packets that nothing more can be learned of: whole packets and fragments with ports, in their order.

        Args:
            packets: the next ones of the file.
            last: number of the last packet of the file that was read, also where it is none of `packets`.
        """
        if self._waiting is None and not (packets.fragment != WHOLE).any():
            return packets
        return self._match(packets, last)

    def finish(self) -> Packets | None:
        """The packets that waited, once the file has ended; None where there are none."""
        return None if self._waiting is None else self._match(self._waiting[:0], None)

    def _match(self, packets: Packets, last: int | None) -> Packets:
        packets = packets if self._waiting is None else joined([self._waiting, packets])
        self._waiting = None
        if not len(packets):
            return packets
        later = np.flatnonzero(packets.fragment == LATER_FRAGMENT)
        here = packets[packets.fragment == FIRST_FRAGMENT]
        firsts = here if self._firsts is None else joined([self._firsts, here])
        # those that waited bring their first fragments a second time
        _, single = np.unique(firsts.number, return_index=True)
        firsts = firsts[single]
        match = _matches(packets[later], firsts)
        ready = len(packets)
        if last is not None:
            open_ones = later[(match < 0) & (packets.number[later] + AFTER > last)]
            ready = int(open_ones[0]) if open_ones.size else ready
        done = later < ready
        newest = int(packets.number[ready - 1]) if ready else int(packets.number[0]) - 1
        packets, self._waiting = packets[:ready], packets[ready:] if ready < len(packets) else None
        later, match = later[done], match[done]
        kept = firsts[firsts.number > newest - BEFORE]
        self._firsts = kept if len(kept) else None
        return self._with_ports(packets, later[match >= 0], firsts[match[match >= 0]], later[match < 0])

    def _with_ports(self, packets: Packets, found: np.ndarray, firsts: Packets, lost: np.ndarray) -> Packets:
        if found.size:
            columns = {name: getattr(packets, name).copy() for name in ("protocol", "source_port", "target_port")}
            for name, values in columns.items():
                values[found] = getattr(firsts, name)
            packets = dataclasses.replace(packets, **columns)
        if lost.size:
            self.counts[UNMATCHED] += int(lost.size)
            packets = packets[np.delete(np.arange(len(packets)), lost)]
        return packets


def _matches(later: Packets, firsts: Packets) -> np.ndarray:
    """[later fragment] position of its first fragment, -1 where there is none."""
    match = np.full(len(later), -1)
    if not len(later) or not len(firsts):
        return match
    both = joined([firsts, later])
    # IPv6 does not say the protocol of the whole packet in later fragments
    protocol = np.where(both.version == 4, both.protocol, 0)
    columns = (both.source_high, both.source_low, both.target_high, both.target_low)
    order = np.lexsort((both.number, both.identification, protocol, both.version, *columns))
    changes = np.zeros(order.size, bool)
    changes[0] = True
    for column in (both.identification, protocol, both.version, *columns):
        changes[1:] |= np.diff(column[order].astype(np.uint64)) != 0
    group = np.empty(order.size, np.int64)
    group[order] = np.cumsum(changes)
    # group and number of the packet in one integer: those of first fragments are sorted, the others searched in them
    code = (group << 40) + both.number
    mine, theirs = code[: len(firsts)], code[len(firsts) :]
    sort = np.argsort(mine)
    place = np.searchsorted(mine[sort], theirs)
    for candidate, reach in ((place - 1, BEFORE), (place, AFTER)):
        inside = (candidate >= 0) & (candidate < sort.size) & (match < 0)
        first = sort[np.clip(candidate, 0, sort.size - 1)]
        near = np.abs(later.number - firsts.number[first]) < reach
        near &= np.abs(later.time - firsts.time[first]) <= SECONDS * 1_000_000_000
        inside &= near & (group[: len(firsts)][first] == group[len(firsts) :])
        match[inside] = first[inside]
    return match
