"""The connections among packets, and the table of those that are open.

A connection is a 5-tuple in both directions: its sides a and b are ordered by address and port, whoever began.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxtraffic.datasets.capture.packets import Packets

MAX_PACKETS = 1 << 16
"""Packets that are grouped at a time: their positions have to fit into 16 bits."""

STATE = np.dtype(
    [
        ("clock", "i8"),  # latest time of the connection, nanoseconds since 1970
        ("start", "i8"),  # time of the first packet of its open flow
        ("first", "i8"),  # number of that packet in the file
        ("packets", "i8"),  # packets of the open flow that count
        ("run", "i8"),  # last run of the open flow in the log of packets
        ("seen", "u1"),  # handshake of the open flow
        ("client", "i1"),  # client of the connection as the handshake says: 1 a, 0 b, -1 not known
        ("first_from_a", "?"),  # who sent the first packet of the connection
        ("closed", "?"),  # whether FIN or RST came
    ]
)
"""What is known of an open connection and of its open flow."""


@dataclasses.dataclass(frozen=True)
class Groups:
    """Packets sorted by connection.

    Attributes:
        order: [packet] positions of the packets: connection after connection, each in the order of arrival.
        first: [connection] where each starts in that order.
        last: [connection] where its last packet is.
        of_packet: [packet] number of the connection, in that order.
        from_a: [packet] bool, whether a sent it, in that order.
        key: [connection, 5] uint64: address of a (upper and lower half), of b, and version, protocol and ports.
    """

    order: np.ndarray
    first: np.ndarray
    last: np.ndarray
    of_packet: np.ndarray
    from_a: np.ndarray
    key: np.ndarray


def group(packets: Packets) -> Groups:
    """Sorts at most `MAX_PACKETS` packets, at least one, by connection."""
    words, from_a = _words(packets)
    position = np.arange(len(packets), dtype=np.uint64)
    # 48 bits of the hash and the position in one integer: the fastest sort that NumPy has
    code = np.sort(_hash(words) & ~np.uint64(0xFFFF) | position)
    order = (code & np.uint64(0xFFFF)).astype(np.int64)
    starts = _changes(words, order)
    if not np.array_equal(starts[1:], np.diff(code >> np.uint64(16)) != 0):
        # two connections have the same hash
        order = np.lexsort((position, *words))
        starts = _changes(words, order)
    first = np.flatnonzero(starts)
    key = np.stack([word[order[first]] for word in words], axis=1)
    last = np.append(first[1:], order.size) - 1
    return Groups(order, first, last, np.cumsum(starts) - 1, from_a[order], key)


def _words(packets: Packets) -> tuple[list[np.ndarray], np.ndarray]:
    """Five uint64 a packet that say its connection, and whether its sender is side a."""
    high, low, port = packets.source_high, packets.source_low, packets.source_port.astype(np.uint64)
    other_high, other_low, other_port = packets.target_high, packets.target_low, packets.target_port.astype(np.uint64)
    from_a = (low < other_low) | ((low == other_low) & (port <= other_port))
    from_a = (high < other_high) | ((high == other_high) & from_a)
    sixteen = np.uint64(16)
    kind = (packets.version.astype(np.uint64) << np.uint64(8) | packets.protocol.astype(np.uint64)) << np.uint64(32)
    ports = np.where(from_a, port << sixteen | other_port, other_port << sixteen | port)
    return [
        np.where(from_a, high, other_high),
        np.where(from_a, low, other_low),
        np.where(from_a, other_high, high),
        np.where(from_a, other_low, low),
        kind | ports,
    ], from_a


def _hash(words: list[np.ndarray]) -> np.ndarray:
    """[packet] uint64, with well mixed upper bits (the steps of splitmix64)."""
    mixed = np.full(words[0].size, 0x9E3779B97F4A7C15, np.uint64)
    for word in words:
        mixed = (mixed ^ word) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
    return mixed * np.uint64(0x94D049BB133111EB)


def _changes(words: list[np.ndarray], order: np.ndarray) -> np.ndarray:
    """[packet] bool, where another connection begins in an order of the packets."""
    changes = np.zeros(order.size, bool)
    changes[0] = True
    for word in words:
        word = word[order]
        changes[1:] |= word[1:] != word[:-1]
    return changes


class Connections:
    """Open connections by key.

    Attributes:
        state: [slot] of the type `STATE`.
        key: [slot, 5] uint64, as in `Groups`.
    """

    def __init__(self) -> None:
        self.state = np.zeros(1024, STATE)
        self.key = np.zeros((1024, 5), np.uint64)
        self._slot_of: dict[bytes, int] = {}
        self._used = np.zeros(1024, bool)

    def __len__(self) -> int:
        """Number of open connections."""
        return len(self._slot_of)

    def find(self, key: np.ndarray) -> np.ndarray:
        """[connection] slots, -1 for connections that are not in the table."""
        find = self._slot_of.get
        return np.array([find(name, -1) for name in _names(key)], np.int64)

    def open(self, key: np.ndarray) -> np.ndarray:
        """[connection] slots of connections that were not in the table and are now."""
        while self._used.size - len(self._slot_of) < len(key):
            self.state = np.concatenate([self.state, np.zeros_like(self.state)])
            self.key = np.concatenate([self.key, np.zeros_like(self.key)])
            self._used = np.concatenate([self._used, np.zeros_like(self._used)])
        slots = np.flatnonzero(~self._used)[: len(key)]
        self._used[slots], self.key[slots] = True, key
        self._slot_of.update(zip(_names(key), slots.tolist(), strict=True))
        return slots

    def close(self, slots: np.ndarray) -> None:
        """Takes connections out of the table."""
        for name in _names(self.key[slots]):
            del self._slot_of[name]
        self._used[slots] = False

    def slots(self) -> np.ndarray:
        """Slots of all open connections."""
        return np.flatnonzero(self._used)


def _names(key: np.ndarray) -> list[bytes]:
    return np.ascontiguousarray(key).view("V40")[:, 0].tolist() if len(key) else []
