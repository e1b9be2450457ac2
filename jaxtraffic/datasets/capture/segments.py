"""Where flows begin among packets that are sorted by connection and, within one, by their order in the file."""

from __future__ import annotations

import numpy as np

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10


def clocks(time: np.ndarray, first: np.ndarray, carried: np.ndarray) -> tuple[np.ndarray, int]:
    """Times that never go backwards within a connection.

    Args:
        time: [packet] nanoseconds.
        first: [connection] position of its first packet.
        carried: [connection] latest time seen before these packets.

    Returns:
        [packet] the latest time of the connection so far, and how many packets were earlier than that.
    """
    before = np.empty_like(time)
    before[1:] = time[:-1]
    before[first] = carried
    back = np.flatnonzero(time < before)
    if not back.size:
        return time, 0
    clock, late = time.copy(), 0
    ends = np.append(first[1:], time.size)
    for one in np.unique(np.searchsorted(first, back, side="right") - 1).tolist():
        part = slice(first[one], ends[one])
        clock[part] = np.maximum(np.maximum.accumulate(time[part]), carried[one])
        late += int(np.count_nonzero(clock[part] > time[part]))
    return clock, late


def connection_starts(
    idle: np.ndarray, flags: np.ndarray, first: np.ndarray, group: np.ndarray, closed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where connections begin anew: after a pause, and at a SYN after FIN or RST.

    Args:
        idle: [packet] bool, packets that begin anew because of time, or because there was none before.
        flags: [packet] of TCP, 0 for UDP.
        first: [group] position of the first packet of each 5-tuple.
        group: [packet] number of its 5-tuple.
        closed: [group] bool, whether FIN or RST was seen before these packets.

    Returns:
        [packet] bool, and [group] whether the connection is closed after its last packet.
    """
    closing = (flags & (FIN | RST)) != 0
    if not closing.any() and not closed.any():
        return idle, closed
    position, begin = np.arange(flags.size), first[group]

    def last(mark: np.ndarray, ahead: int, otherwise: np.ndarray) -> np.ndarray:
        """[packet] position of the last mark of its group, at the packet itself at most where `ahead` is 0."""
        latest = np.maximum.accumulate(np.where(mark, position, -1))
        if ahead:
            latest = np.concatenate([[-1], latest[:-1]])
        return np.where(latest >= begin, latest, otherwise)

    # before the first packet of a group stand a close that was carried over (-1), or nothing (-2)
    nothing = begin - 2
    carried = nothing + closed[group]
    close_before = last(closing, 1, carried)
    syn = (flags & (SYN | ACK)) == SYN
    # A SYN starts anew where a close came before it with no start between. The starts between are pauses, and earlier
    # SYNs: of two SYNs after one close, the first was the start.
    start = syn & (close_before > nothing)
    start &= (close_before >= last(syn, 1, nothing)) & (close_before >= last(idle, 0, nothing))
    start |= idle
    end = np.append(first[1:], flags.size) - 1
    close, begun = last(closing, 0, carried)[end], last(start, 0, nothing)[end]
    return start, (close > nothing[end]) & (close >= begun)


def active_starts(clock: np.ndarray, first: np.ndarray, start: np.ndarray, active: int) -> np.ndarray:
    """Where flows begin because the one before lasted too long.

    Args:
        clock: [packet] nanoseconds, never backwards within a connection.
        first: [connection] position of its first packet.
        start: [connection] when its flow began.
        active: nanoseconds that a flow may last.

    Returns:
        [packet] bool.
    """
    begins = np.zeros(clock.size, bool)
    ends = np.append(first[1:], clock.size)
    long = np.flatnonzero(clock[ends - 1] - start > active)
    for one in long.tolist():
        at, end, begin = int(first[one]), int(ends[one]), int(start[one])
        while True:
            at += int(np.searchsorted(clock[at:end], begin + active, side="right"))
            if at >= end:
                break
            begins[at], begin = True, int(clock[at])
    return begins
