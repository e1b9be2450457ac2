"""Finds the packets of a capture file: pcap here, pcapng in `pcapng`; plain or in gzip.

pcap: draft-ietf-opsawg-pcap. The magic number says the byte order and whether times have micro- or nanoseconds. The
variants of Kuznetzov, of IXIA and of Navtel have other record headers and are refused by name.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from jaxtraffic.datasets.capture.link_types import READ_LINK_TYPES, refusal
from jaxtraffic.datasets.capture.packet_block import (
    MAX_CAPTURED,
    MAX_PACKETS,
    PADDING,
    PacketBlock,
    at_any_byte,
    damaged,
)
from jaxtraffic.datasets.capture.pcapng import SECTION, pcapng_blocks
from jaxtraffic.errors import DataError

BLOCK_BYTES = 8 << 20
"""Bytes that are read at a time."""

_FIRST_BYTES = 64 << 10

CUT_PACKETS = "last packets cut by the end of the file"

_PCAP = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
_REFUSED_PCAP = {
    0xA1B2CD34: "modified pcap (Kuznetzov)",
    0xA1E2CB12: "old modified pcap (Kuznetzov)",
    0xA1B234CD: "pcap of Navtel",
    0x1C0001AC: "pcap of IXIA hardware",
    0x1C0001AB: "pcap of IXIA software",
}
_OTHER_FILES = (
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with zstd -d"),
    (b"\xfd7zX", "compressed with xz", "unpack it with xz -d"),
    (b"BZh", "compressed with bzip2", "unpack it with bunzip2"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it with lz4 -d"),
    (b"PK\x03\x04", "a zip archive", "give its captures one by one"),
    (b"snoo", "a snoop capture", "convert it with editcap -F pcapng"),
    (b"TRSN", "a Network Instruments or Sniffer capture", "convert it with editcap -F pcapng"),
    (b"XCP\0", "a NetXRay capture", "convert it with editcap -F pcapng"),
    (b"GMBU", "a Network Monitor capture", "convert it with editcap -F pcapng"),
    (b"RTSS", "a Network Monitor capture", "convert it with editcap -F pcapng"),
)
_EXPECTED = "a pcap or pcapng file, plain or in gzip"


class Window:
    """The bytes of a stream from where the reading stands, in a buffer that is used again and again.

    Attributes:
        where: file, for messages.
        data: bytes at hand, then at least `PADDING` zero bytes.
        end: how many bytes of `data` are of the file.
        base: position in the file of the first of them.
        cut: whether a compressed stream ended in its middle.
    """

    def __init__(self, stream: BinaryIO, where: str, size: int, head: bytes = b""):
        self.where, self._stream, self._size = where, stream, size
        self._next = min(size, _FIRST_BYTES)
        self.data, self.end, self.base, self.cut = bytearray(head + bytes(PADDING)), len(head), 0, False

    def refill(self, at: int) -> bool:
        """Leaves out the bytes before `at` and reads on; False where the file has no more."""
        left, old = self.end - at, self.data
        limit = left + self._next
        # small files are read with small buffers
        self._next = min(4 * self._next, self._size)
        if len(old) < limit + PADDING:
            self.data = bytearray(limit + PADDING)
        self.data[:left] = old[at : self.end]
        self.base, self.end = self.base + at, left
        while self.end < limit and not self.cut:
            n = self._read_into(memoryview(self.data)[self.end : limit])
            if not n:
                break
            self.end += n
        self.data[self.end : self.end + PADDING] = bytes(PADDING)
        return self.end > left

    def _read_into(self, buffer: memoryview) -> int:
        try:
            if not isinstance(self._stream, gzip.GzipFile):
                return self._stream.readinto(buffer)
            # one piece at a time: what came before a sudden end is not lost with it
            part = self._stream.read1(len(buffer))
        except EOFError:
            self.cut = True
            return 0
        except (OSError, zlib.error, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                self.where, f"cannot be read: {reason}", expected=_EXPECTED, remedy="fetch the file again"
            ) from error
        buffer[: len(part)] = part
        return len(part)


class _Rest(io.RawIOBase):
    """A stream of which some bytes were read already."""

    def __init__(self, head: bytes, stream: BinaryIO):
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def packet_blocks(
    stream: BinaryIO,
    where: str,
    *,
    allow_truncated: bool = False,
    counts: Counter[str] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[PacketBlock]:
    """Yields the packets of a pcap or pcapng file, block by block.

    Memory is bounded by about three times `block_bytes`, whatever the lengths in the file say.

    Args:
        stream: bytes of the file, plain or in gzip; read once from its position to its end.
        where: file, for messages.
        allow_truncated: keep what came before where the file ends in the middle of a packet.
        counts: rule -> number, gets what was left out.
        block_bytes: bytes that are read at a time; it changes no result.

    Raises:
        DataError: neither pcap nor pcapng, a variant that is not read, damage, or an end in the middle of a packet.
    """
    counts = Counter() if counts is None else counts
    window = _open(stream, where, block_bytes)
    if not window.end:
        raise DataError(where, "an empty file", expected=_EXPECTED, remedy="fetch the file again")
    head = bytes(window.data[: min(4, window.end)])
    if int.from_bytes(head, "little") == SECTION:
        state = yield from pcapng_blocks(window)
    else:
        state = yield from _pcap_blocks(window, head)
    packets, rest = state
    if rest or window.cut:
        if not allow_truncated:
            raise DataError(
                where,
                f"the file ends in the middle of packet {packets + 1}; {packets} packet(s) came before",
                expected="a whole capture",
                remedy="fetch the file again, or read what came before with allow_truncated=True",
            )
        counts[CUT_PACKETS] += 1


def _open(stream: BinaryIO, where: str, block_bytes: int) -> Window:
    """The first bytes of the stream, decompressed where it is gzip."""
    window = Window(stream, where, 4)
    window.refill(0)
    head = bytes(window.data[: window.end])
    for magic, what, remedy in _OTHER_FILES:
        if head.startswith(magic):
            raise DataError(where, f"{what}, which is not read", expected=_EXPECTED, remedy=remedy)
    if head.startswith(b"\x1f\x8b"):
        window = Window(gzip.GzipFile(fileobj=io.BufferedReader(_Rest(head, stream), 1 << 18)), where, block_bytes)
    else:
        window = Window(stream, where, block_bytes, head)
    window.refill(0)
    return window


def _pcap_blocks(window: Window, head: bytes) -> Iterator[PacketBlock]:
    """Yields blocks; returns how many packets there were, and the bytes left at the end."""
    order, unit = _pcap_order(window.where, head)
    while window.end < 24 and window.refill(0):
        pass
    if window.end < 24:
        return 0, window.end
    major, minor, link = struct.unpack_from(f"{order}4xHH12xI", window.data)
    if (major, minor) not in ((2, 3), (2, 4)):
        raise DataError(
            window.where,
            f"pcap version {major}.{minor}, which is not read",
            expected="version 2.4",
            remedy="convert it with editcap -F pcapng",
        )
    # the upper bits say whether and how long a frame check sequence is (draft-ietf-opsawg-pcap, 4)
    link &= 0x03FFFFFF
    if link not in READ_LINK_TYPES:
        raise refusal(window.where, [link])
    at, packets = 24, 0
    while True:
        starts, at = _records(window, at, struct.Struct(f"{order}8xI").unpack_from)
        if starts:
            yield _pcap_block(window, np.array(starts), order, unit, link, packets)
            packets += len(starts)
            continue
        if window.end - at >= 16:
            (captured,) = struct.unpack_from(f"{order}8xI", window.data, at)
            if captured > MAX_CAPTURED:
                raise damaged(window.where, f"captured length {captured}", packets, window.base + at)
        if not window.refill(at):
            return packets, window.end
        at = 0


def _pcap_order(where: str, head: bytes) -> tuple[str, int]:
    """Byte order for struct, and nanoseconds in a unit of the fraction of times."""
    for order, name in (("<", "little"), (">", "big")):
        magic = int.from_bytes(head, name)
        if len(head) == 4 and magic in _PCAP:
            return order, _PCAP[magic]
        if len(head) == 4 and magic in _REFUSED_PCAP:
            raise DataError(
                where,
                f"{_REFUSED_PCAP[magic]}, which is not read",
                expected=_EXPECTED,
                remedy="convert it with editcap -F pcapng",
            )
    raise DataError(where, f"not a capture (it starts with the bytes {head.hex(' ')})", expected=_EXPECTED)


def _records(window: Window, at: int, unpack) -> tuple[list[int], int]:
    """Positions of the whole records from `at` on, and where the one after them starts."""
    # each length has to be read before the next record can be found: the one loop over packets, kept small
    data, end = window.data, window.end
    last = end - 16
    starts: list[int] = []
    append = starts.append
    for _ in range(MAX_PACKETS):
        if at > last:
            break
        following = at + 16 + unpack(data, at)[0]
        if following > end:
            break
        append(at)
        at = following
    return starts, at


def _pcap_block(window: Window, starts: np.ndarray, order: str, unit: int, link: int, first: int) -> PacketBlock:
    data = np.frombuffer(window.data, np.uint8)
    words = at_any_byte(data, f"{order}u4")
    captured = words[starts + 8].astype(np.int64)
    wrong = captured > MAX_CAPTURED
    if wrong.any():
        at = int(np.argmax(wrong))
        raise damaged(window.where, f"captured length {captured[at]}", first + at, window.base + int(starts[at]))
    time = words[starts].astype(np.int64) * 1_000_000_000 + words[starts + 4].astype(np.int64) * unit
    original = words[starts + 12].astype(np.int64)
    return PacketBlock(data, starts + 16, captured, original, time, np.full(starts.size, link), first)
