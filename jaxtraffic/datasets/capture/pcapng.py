"""The packets of a pcapng file (draft-ietf-opsawg-pcapng): sections, interfaces, and three kinds of packet blocks."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

import numpy as np

from jaxtraffic.datasets.capture.packet_block import MAX_CAPTURED, MAX_PACKETS, PacketBlock, at_any_byte, damaged
from jaxtraffic.errors import DataError

SECTION, INTERFACE, OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
"""Types of blocks; all others say nothing about packets and are passed over."""

MAX_BLOCK = 16 << 20
"""Bytes of a block at most, as in Wireshark."""

MAX_INTERFACES = 1 << 16
"""Interfaces of a section at most."""

_SMALLEST = {SECTION: 28, INTERFACE: 20, OBSOLETE_PACKET: 32, SIMPLE_PACKET: 16, ENHANCED_PACKET: 32}
_PACKETS = (ENHANCED_PACKET, SIMPLE_PACKET, OBSOLETE_PACKET)
_RESOLUTION, _OFFSET = 9, 14
# the year 2200: with it, differences and timeouts in nanoseconds fit into 64 bits
_MAX_SECONDS = 7_258_118_400


@dataclasses.dataclass(frozen=True)
class _Interface:
    """An interface: link type, snap length (0: none), option if_tsresol, seconds to add, and where it was described."""

    link: int
    snap: int
    resolution: int
    offset: int
    position: int


def pcapng_blocks(window) -> Iterator[PacketBlock]:
    """Yields the blocks of packets of a window that stands at a section header.

    Returns:
        How many packets there were, and the bytes left at the end.

    Raises:
        DataError: a version that is not read, or damage.
    """
    order, interfaces = "<", []
    at, packets, time = 0, 0, 0
    while True:
        starts, kinds, at = _scan(window, at, order, interfaces, packets)
        if starts:
            block = _packets(window, np.array(starts), np.array(kinds), order, interfaces, packets, time)
            packets += len(starts)
            time = int(block.time[-1])
            yield block
            continue
        if window.end - at >= 12 and struct.unpack_from("<I", window.data, at)[0] == SECTION:
            order = _byte_order(window, at)
            size = struct.unpack_from(f"{order}I", window.data, at + 4)[0]
            _check_size(window, SECTION, size, at, packets)
            if window.end - at >= size:
                (major,) = struct.unpack_from(f"{order}H", window.data, at + 12)
                if major != 1:
                    raise DataError(window.where, f"pcapng version {major}, which is not read", expected="version 1.0")
                _check_trailer(window, order, size, at, packets)
                interfaces, at = [], at + size
                continue
        if not window.refill(at):
            return packets, window.end
        at = 0


def _byte_order(window, at: int) -> str:
    magic = window.data[at + 8 : at + 12]
    for order, name in (("<", "little"), (">", "big")):
        if int.from_bytes(magic, name) == 0x1A2B3C4D:
            return order
    raise DataError(
        window.where,
        f"section header without byte order at byte {window.base + at}",
        expected="the number 1A2B3C4D",
        remedy="fetch the file again and compare its checksum",
    )


def _scan(window, at: int, order: str, interfaces: list[_Interface], packets: int) -> tuple[list[int], list[int], int]:
    """Positions and types of whole packet blocks from `at` on, and where the block after them starts.

    It stops before a section header, and before a block that is not at hand as a whole. Interfaces on the way are added
    to the list.
    """
    unpack = struct.Struct(f"{order}II").unpack_from
    data, end = window.data, window.end
    last = end - 8
    starts: list[int] = []
    kinds: list[int] = []
    while at <= last and len(starts) < MAX_PACKETS:
        kind, size = unpack(data, at)
        if kind == SECTION:
            break
        following = at + size
        if size < 32 or size & 3 or size > MAX_BLOCK:
            _check_size(window, kind, size, at, packets + len(starts))
        if following > end:
            break
        if kind in _PACKETS:
            starts.append(at)
            kinds.append(kind)
        else:
            _check_trailer(window, order, size, at, packets + len(starts))
            if kind == INTERFACE:
                if len(interfaces) >= MAX_INTERFACES:
                    raise damaged(window.where, "too many interfaces", packets + len(starts), window.base + at)
                interfaces.append(_interface(window, at, size, order, packets + len(starts)))
        at = following
    return starts, kinds, at


def _check_size(window, kind: int, size: int, at: int, packets: int) -> None:
    if size < _SMALLEST.get(kind, 12) or size & 3 or size > MAX_BLOCK:
        raise damaged(window.where, f"block of type {kind:#x} with length {size} at or", packets, window.base + at)


def _check_trailer(window, order: str, size: int, at: int, packets: int) -> None:
    if struct.unpack_from(f"{order}I", window.data, at + size - 4)[0] != size:
        raise damaged(window.where, "block whose two lengths differ at or", packets, window.base + at)


def _interface(window, at: int, size: int, order: str, packets: int) -> _Interface:
    data = window.data
    link, snap = struct.unpack_from(f"{order}HxxI", data, at + 8)
    resolution, offset = 6, 0
    option, end = at + 16, at + size - 4
    while option + 4 <= end:
        code, length = struct.unpack_from(f"{order}HH", data, option)
        if code == 0:
            break
        if option + 4 + length > end:
            raise damaged(window.where, "interface option beyond its block at or", packets, window.base + option)
        if code == _RESOLUTION and length >= 1:
            resolution = data[option + 4]
        elif code == _OFFSET and length >= 8:
            (offset,) = struct.unpack_from(f"{order}q", data, option + 4)
        option += 4 + (length + 3 & ~3)
    return _Interface(link, snap, resolution, offset, window.base + at)


def _packets(
    window, starts: np.ndarray, kinds: np.ndarray, order: str, interfaces: list[_Interface], first: int, time: int
) -> PacketBlock:
    """The packets of the packet blocks at `starts`; `time` is that of the packet before."""
    data = np.frombuffer(window.data, np.uint8)
    words, halves = at_any_byte(data, f"{order}u4"), at_any_byte(data, f"{order}u2")
    simple, obsolete = kinds == SIMPLE_PACKET, kinds == OBSOLETE_PACKET
    size = words[starts + 4].astype(np.int64)

    def refuse(wrong: np.ndarray, problem: str) -> None:
        if wrong.any():
            at = int(np.argmax(wrong))
            raise damaged(window.where, problem, first + at, window.base + int(starts[at]))

    refuse(words[starts + size - 4] != size, "block whose two lengths differ")
    which = words[starts + 8].astype(np.int64)
    if obsolete.any():
        which[obsolete] = halves[starts[obsolete] + 8]
    which[simple] = 0
    refuse(which >= len(interfaces), "interface that was not described")
    refuse(np.array([one.position for one in interfaces])[which] > starts + window.base, "interface described later")
    captured, original = words[starts + 20].astype(np.int64), words[starts + 24].astype(np.int64)
    header = np.where(simple, 12, 28)
    if simple.any():
        length = words[starts[simple] + 8].astype(np.int64)
        snap = interfaces[0].snap
        original[simple] = length
        captured[simple] = np.minimum(length, snap) if snap else length
    refuse(captured > MAX_CAPTURED, f"captured length beyond {MAX_CAPTURED}")
    refuse(header + captured + 4 > size, "captured length beyond its block")
    units = words[starts + 12].astype(np.uint64) << np.uint64(32) | words[starts + 16].astype(np.uint64)
    nanoseconds, beyond = _times(units, which, interfaces)
    refuse(beyond & ~simple, "time before 1970 or after 2200")
    if simple.any():
        nanoseconds = _without_times(nanoseconds, simple, time)
    link = np.array([one.link for one in interfaces], np.int64)[which]
    return PacketBlock(data, starts + header, captured, original, nanoseconds, link, first, int(simple.sum()))


def _times(units: np.ndarray, which: np.ndarray, interfaces: list[_Interface]) -> tuple[np.ndarray, np.ndarray]:
    """[packet] nanoseconds since 1970, and whether a time is out of range (it is 0 there)."""
    resolutions = np.array([one.resolution for one in interfaces])
    resolution = resolutions[which]
    seconds, nanoseconds = np.zeros(units.size, np.uint64), np.zeros(units.size, np.uint64)
    for code in np.unique(resolutions):
        at = resolution == code
        seconds[at], nanoseconds[at] = _split(units[at], int(code))
    # options may say any number: those that cannot be a time are kept out of the sum
    offset = np.array([max(min(one.offset, 1 << 40), -(1 << 40)) for one in interfaces], np.int64)[which]
    total = np.minimum(seconds, 1 << 40).astype(np.int64) + offset
    beyond = (total < 0) | (total > _MAX_SECONDS)
    return np.where(beyond, 0, total) * 1_000_000_000 + nanoseconds.astype(np.int64), beyond


def _split(units: np.ndarray, code: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole seconds and nanoseconds beyond them of times in the unit that if_tsresol `code` says, both uint64."""
    if code & 0x80:
        exponent = code & 0x7F
        if exponent > 63:
            return np.zeros_like(units), np.zeros_like(units)
        seconds = units >> np.uint64(exponent)
        rest = units & np.uint64((1 << exponent) - 1)
        # 2^34 * 10^9 is the largest product that fits: finer bits are below a nanosecond
        finer = max(exponent - 34, 0)
        return seconds, (rest >> np.uint64(finer)) * np.uint64(1_000_000_000) >> np.uint64(exponent - finer)
    if code > 19:
        nanoseconds = units // np.uint64(10 ** (code - 9)) if code < 29 else np.zeros_like(units)
        return nanoseconds // np.uint64(1_000_000_000), nanoseconds % np.uint64(1_000_000_000)
    seconds, rest = np.divmod(units, np.uint64(10**code))
    rest = rest * np.uint64(10 ** (9 - code)) if code <= 9 else rest // np.uint64(10 ** (code - 9))
    return seconds, rest


def _without_times(time: np.ndarray, simple: np.ndarray, before: int) -> np.ndarray:
    """Times in which packets without one have that of the packet before them."""
    known = np.maximum.accumulate(np.where(simple, -1, np.arange(time.size)))
    return np.where(known >= 0, time[known], before)
