"""Framing of pcap and pcapng files."""

import gzip
import io
import struct

import pytest

from jaxtraffic.datasets.capture import containers
from jaxtraffic.errors import DataError
from tests.datasets.capture.captures import (
    MICRO,
    NANO,
    block,
    enhanced,
    framed,
    interface,
    obsolete,
    pcap,
    random_frames,
    section,
    simple,
)

FRAMES = [(1_600_000_000_123_456, b"a" * 60), (1_600_000_001_000_001, b"b"), (1_700_000_000_999_999, b"c" * 700)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(MICRO, 1000), (NANO, 1)])
@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 20])
def test_pcap_of_each_byte_order_and_resolution(order, magic, unit, block_bytes):
    found = framed(pcap(FRAMES, order=order, magic=magic), block_bytes=block_bytes)
    assert found == [(data, len(data), time * unit, 1) for time, data in FRAMES]


def test_cut_packets_keep_their_length_on_the_wire():
    assert framed(pcap(FRAMES, snap=50))[2] == (b"c" * 50, 700, FRAMES[2][0] * 1000, 1)


def test_the_length_of_a_frame_check_sequence_is_not_part_of_the_link_type():
    assert framed(pcap(FRAMES, link=1 | 0x04000000 | 2 << 28))[0][3] == 1


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (struct.pack("<I", 0xA1B2CD34), "Kuznetzov"),
        (struct.pack(">I", 0xA1B2CD34), "Kuznetzov"),
        (struct.pack("<I", 0x1C0001AC), "IXIA"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh9", "bzip2"),
        (b"snoop\0\0\0", "snoop"),
        (b"hello", "not a capture"),
        (b"\xa1", "not a capture"),
        (b"", "empty file"),
        (gzip.compress(b"", mtime=0), "empty file"),
    ],
)
def test_other_files_are_refused_by_name(head, name):
    with pytest.raises(DataError, match=name):
        framed(head + bytes(40) * bool(head and len(head) > 1 and not head.startswith(b"\x1f")))


def test_versions_of_other_layouts_are_refused():
    data = bytearray(pcap(FRAMES))
    data[6:8] = struct.pack("<H", 2)
    with pytest.raises(DataError, match=r"version 2\.2"):
        framed(bytes(data))


def test_link_types_are_refused_by_name():
    with pytest.raises(DataError, match="radiotap"):
        framed(pcap(FRAMES, link=127))
    with pytest.raises(DataError, match="number 9999"):
        framed(pcap(FRAMES, link=9999))


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_every_cut_is_refused_or_keeps_what_came_before(kind):
    data = pcap(FRAMES) if kind == "pcap" else section() + interface() + b"".join(enhanced(5, f) for _, f in FRAMES)
    whole = framed(data)
    ends = set()
    for length in range(24 if kind == "pcap" else 4, len(data)):
        try:
            ends.add(len(framed(data[:length])))
            continue
        except DataError as error:
            assert "came before" in str(error) and "allow_truncated=True" in str(error)
            before = int(str(error).split(";")[1].split()[0])
        counts = containers.Counter()
        assert framed(data[:length], allow_truncated=True, counts=counts) == whole[:before]
        assert counts == {containers.CUT_PACKETS: 1}
    assert ends == {0, 1, 2}


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 300_000])
def test_absurd_lengths_are_damage_and_cost_no_memory(length):
    data = bytearray(pcap([*FRAMES, (0, bytes(400_000))], snap=1 << 20))
    data[24 + 8 : 24 + 12] = struct.pack("<I", length)
    for allow in (False, True):
        with pytest.raises(DataError, match="captured length"):
            framed(bytes(data), allow_truncated=allow)
    data = section() + interface() + enhanced(0, b"abcd")
    for place, match in ((-36 + 20, "captured length"), (-36 + 4, "with length|middle of packet 1")):
        bad = bytearray(data)
        bad[place : place + 4] = struct.pack("<I", length)
        with pytest.raises(DataError, match=match):
            framed(bytes(bad))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("block_bytes", [1, 64, 1 << 20])
def test_pcapng_blocks_of_every_kind(order, block_bytes):
    data = section(order) + block(5, bytes(20), order) + interface(1, order) + interface(101, order, snap=3)
    data += block(0xBAD, b"\0\0\0\x01secret..", order) + block(10, bytes(40), order) + block(4, bytes(8), order)
    data += enhanced(7_000_001, b"first", order, original=90, options=struct.pack(f"{order}HHII", 2, 4, 1, 0))
    data += enhanced(8_000_000, b"second", order, which=1) + obsolete(9_000_000, b"third", order, which=1)
    data += simple(b"fourth", order) + block(0x40000BAD, bytes(12), order) + enhanced(10_000_000, b"", order)
    assert framed(data, block_bytes=block_bytes) == [
        (b"first", 90, 7_000_001_000, 1),
        (b"second", 6, 8_000_000_000, 101),
        (b"third", 5, 9_000_000_000, 101),
        (b"fourth", 6, 9_000_000_000, 1),
        (b"", 0, 10_000_000_000, 1),
    ]


def test_simple_packets_are_cut_at_the_snap_length_of_the_first_interface():
    data = section() + interface(snap=4) + interface(link=101) + simple(b"abcd", original=9)
    assert framed(data) == [(b"abcd", 9, 0, 1)]


def test_sections_of_both_byte_orders_have_their_own_interfaces():
    data = section("<") + interface(1, "<") + enhanced(1, b"one", "<")
    data += section(">") + interface(101, ">") + enhanced(2, b"two", ">") + section("<") + interface(113)
    data += enhanced(3, b"three")
    assert [(one[0], one[3]) for one in framed(data)] == [(b"one", 1), (b"two", 101), (b"three", 113)]
    with pytest.raises(DataError, match="not described"):
        framed(data + section("<") + enhanced(3, b"four"))


def test_an_interface_has_to_come_before_its_packets():
    data = section() + interface() + enhanced(3, b"one", which=1) + interface(101) + enhanced(4, b"two", which=1)
    for block_bytes in (40, 1 << 20):
        with pytest.raises(DataError, match="interface"):
            framed(data, block_bytes=block_bytes)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("code", "units", "nanoseconds"),
    [
        (6, 1_600_000_000_123_456, 1_600_000_000_123_456_000),
        (9, 1_600_000_000_123_456_789, 1_600_000_000_123_456_789),
        (3, 1_600_000_000_123, 1_600_000_000_123_000_000),
        (0, 1_600_000_000, 1_600_000_000_000_000_000),
        (11, 160_000_000_012, 1_600_000_000),
        (12, 16_000_000_000_123_456_789, 16_000_000_000_123_456),
        (0x80, 1_600_000_000, 1_600_000_000_000_000_000),
        (0x80 | 20, (1_600_000_000 << 20) + (1 << 19), 1_600_000_000_500_000_000),
        (0x80 | 32, (1_600_000_000 << 32) + (3 << 30), 1_600_000_000_750_000_000),
        (0x80 | 40, (1_600_000 << 40) + (1 << 38), 1_600_000_250_000_000),
        (0x80 | 63, 1 << 62, 500_000_000),
        (127, 5, 0),
        (0xFF, 5, 0),
    ],
)
def test_resolutions_of_time(order, code, units, nanoseconds):
    data = section(order) + interface(1, order, options=[(2, b"eth0"), (9, bytes([code]))])
    assert framed(data + enhanced(units, b"x", order))[0][2] == nanoseconds


def test_the_offset_of_time_and_interfaces_with_units_of_their_own():
    data = section() + interface(options=[(14, struct.pack("<q", 1_600_000_000)), (9, b"\x06")])
    data += interface(options=[(9, b"\x09"), (14, struct.pack("<q", -5))]) + interface()
    data += enhanced(1, b"a") + enhanced(6_000_000_000, b"b", which=1) + enhanced(1, b"c", which=2)
    assert [one[2] for one in framed(data)] == [1_600_000_000_000_001_000, 1_000_000_000, 1000]


@pytest.mark.parametrize("options", [[(9, b"\x00")], [(14, struct.pack("<q", -(1 << 63)))]])
def test_times_that_no_capture_has_are_refused(options):
    data = section() + interface(options=options) + enhanced((1 << 63) if options[0][0] == 9 else 5, b"x")
    with pytest.raises(DataError, match="1970"):
        framed(data)


def test_damage_in_blocks_names_the_packet():
    data = section() + interface() + enhanced(1, b"abcd") + enhanced(2, b"efgh")
    broken = bytearray(data)
    broken[-4:] = struct.pack("<I", 40)
    with pytest.raises(DataError, match="packet 2"):
        framed(bytes(broken))
    for kind, header in ((enhanced(2, b"efgh"), 20), (obsolete(2, b"efgh"), 20), (simple(b"efgh"), 8)):
        longer = bytearray(kind)
        longer[header] = 5
        with pytest.raises(DataError, match="beyond its block in packet 1"):
            framed(section() + interface() + bytes(longer))
    with pytest.raises(DataError, match="byte order"):
        framed(data + struct.pack("<IIIII", 0x0A0D0D0A, 28, 7, 0, 0) + bytes(8))
    with pytest.raises(DataError, match="version 2"):
        framed(block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)))
    with pytest.raises(DataError, match="option"):
        framed(section() + block(1, struct.pack("<HHIHH", 1, 0, 0, 9, 200)))


def test_gzip_of_several_members_and_damage_in_it():
    data = pcap(random_frames(400))
    whole = framed(data)
    packed = gzip.compress(data[:5000]) + gzip.compress(data[5000:])
    assert framed(packed) == whole
    assert framed(packed, block_bytes=1000) == whole
    with pytest.raises(DataError, match="came before"):
        framed(packed[:-200])
    kept = framed(packed[:-200], allow_truncated=True)
    assert len(kept) > 0 and kept == whole[: len(kept)]
    broken = bytearray(packed)
    broken[300] ^= 0xFF
    with pytest.raises(DataError):
        framed(bytes(broken))


def test_a_capture_without_packets_is_whole():
    assert framed(pcap([])) == [] and framed(section()) == [] and framed(section() + interface()) == []


def test_a_stream_that_fails_is_named():
    class Failing(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            raise OSError(5, "Input/output error")

    with pytest.raises(DataError, match=r"here\.pcap: cannot be read: Input/output error"):
        list(containers.packet_blocks(Failing(), "here.pcap"))
