"""TCP and UDP packets as columns: what is left of a block of packets once its headers are read."""

from __future__ import annotations

import dataclasses

import numpy as np

WHOLE, FIRST_FRAGMENT, LATER_FRAGMENT = range(3)
"""Whether a packet is a whole one, the fragment with the transport header, or another fragment."""


@dataclasses.dataclass(frozen=True)
class Packets:
    """Packets in the order of their file, one element of each array a packet.

    Attributes:
        number: int64, number of the packet in its file, from 0.
        time: int64, nanoseconds since 1970 (UTC).
        version: uint8, 4 or 6.
        protocol: uint8, 6 TCP or 17 UDP; in later fragments of IPv6 it may be an extension header.
        source_high: uint64, upper half of the IPv6 address of the sender; 0 for IPv4.
        source_low: uint64, lower half of it, or the IPv4 address.
        target_high: uint64, as source_high, of the receiver.
        target_low: uint64, as source_low, of the receiver.
        source_port: uint16; 0 in later fragments.
        target_port: uint16; 0 in later fragments.
        flags: uint8, of TCP.
        size: int64, total length of the IP packet in bytes.
        payload: int64, bytes behind the TCP or UDP header; in later fragments all behind the IP headers.
        fragment: uint8, WHOLE, FIRST_FRAGMENT or LATER_FRAGMENT.
        identification: uint32, of fragments.
    """

    number: np.ndarray
    time: np.ndarray
    version: np.ndarray
    protocol: np.ndarray
    source_high: np.ndarray
    source_low: np.ndarray
    target_high: np.ndarray
    target_low: np.ndarray
    source_port: np.ndarray
    target_port: np.ndarray
    flags: np.ndarray
    size: np.ndarray
    payload: np.ndarray
    fragment: np.ndarray
    identification: np.ndarray

    def __len__(self) -> int:
        """Number of packets."""
        return self.number.size

    def __getitem__(self, which) -> Packets:
        """The packets that a slice, a mask or an array of positions chooses."""
        return Packets(**{name: getattr(self, name)[which] for name in NAMES})


NAMES = tuple(field.name for field in dataclasses.fields(Packets))


def joined(parts: list[Packets]) -> Packets:
    """Packets of several parts, one after the other; at least one part."""
    if len(parts) == 1:
        return parts[0]
    return Packets(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in NAMES})
