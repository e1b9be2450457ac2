"""Packets of a capture as they lie in its file: a block of bytes and where each packet stands in it."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxtraffic.errors import DataError

PADDING = 64
"""Zero bytes behind the data of a block, so that a header may be read from any position inside the data."""

MAX_CAPTURED = 256 << 10
"""Captured bytes that one packet may have; the largest snap length of libpcap."""

MAX_PACKETS = 1 << 16
"""Packets of a block at most."""


@dataclasses.dataclass(frozen=True)
class PacketBlock:
    """A block of packets.

    Attributes:
        data: uint8, bytes of the file, then `PADDING` zero bytes. The buffer is used again
            for the next block: what is needed longer has to be copied.
        offset: [packet] int64, where the captured bytes of each packet start in `data`.
        captured: [packet] int64, captured bytes, all of them inside `data`.
        original: [packet] int64, bytes of the packet on the wire.
        time: [packet] int64, nanoseconds since 1970 (UTC).
        link: [packet] int64, link types (the numbers of tcpdump.org).
        first: number of the first packet in the file, from 0.
        untimed: how many of them the file gives no time for (pcapng simple packet blocks).
    """

    data: np.ndarray
    offset: np.ndarray
    captured: np.ndarray
    original: np.ndarray
    time: np.ndarray
    link: np.ndarray
    first: int
    untimed: int = 0


def at_any_byte(data: np.ndarray, dtype: str) -> np.ndarray:
    """A view on bytes that gives the number of the type that starts at each of them, aligned or not."""
    kind = np.dtype(dtype)
    return np.ndarray((max(data.size - kind.itemsize + 1, 0),), kind, data, strides=(1,))


def damaged(where: str, problem: str, packet: int, position: int) -> DataError:
    """Error for a file whose packet `packet` (from 0), at byte `position`, cannot be right."""
    return DataError(
        where,
        f"{problem} in packet {packet + 1} (byte {position})",
        expected="a capture without damage",
        remedy="fetch the file again and compare its checksum, or cut it before that packet with editcap",
    )
