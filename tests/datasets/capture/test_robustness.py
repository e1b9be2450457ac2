"""Damaged captures: nothing but our own errors leaves the reader, in bounded memory and time."""

import gzip
import io
import struct
import tracemalloc

import numpy as np
import pytest

from jaxtraffic.datasets.capture.packet_block import MAX_CAPTURED
from jaxtraffic.datasets.capture.reader import read_stream
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.errors import JaxTrafficError
from tests.datasets.capture.captures import (
    block,
    enhanced,
    ethernet,
    fragment,
    interface,
    ipv4,
    ipv6,
    obsolete,
    pcap,
    random_frames,
    section,
    simple,
    udp,
)
from tests.datasets.capture.test_network import LINKS
from tests.datasets.robustness import mutated_copies


def mixed_frames():
    frames = random_frames(40)
    time = frames[-1][0]
    body = udp(bytes(60))
    extra = [frame for link, frame, _ in LINKS.values() if link == 1]
    extra += [ethernet(ipv4(body[:40], 17, fragment=0x2000)), ethernet(ipv4(body[40:], 17, fragment=5))]
    extra += [
        ethernet(ipv6(fragment(17, 0, True) + body, 44), 0x86DD),
        ethernet(ipv6(fragment(17, 40) + body, 44), 0x86DD),
    ]
    return frames + [(time + k, frame) for k, frame in enumerate(extra)]


def mixed_pcapng():
    out = section("<") + interface(options=[(9, b"\x09"), (14, bytes(8))]) + interface(101) + block(5, bytes(20))
    for index, (time, frame) in enumerate(mixed_frames()):
        out += (enhanced(time * 1000, frame), simple(frame), obsolete(time * 1000, frame))[
            index % 3 if index > 30 else 0
        ]
    out += section(">") + interface(0, ">") + interface(113, ">", options=[(9, b"\x8a")])
    for link, which in ((0, 0), (113, 1)):
        for number, (of_link, frame, _) in enumerate(LINKS.values()):
            if of_link == link:
                out += enhanced((1_700_000_000 << 10) + number, frame, ">", which=which)
    return out


FILES = {
    "pcap": pcap(mixed_frames()),
    "pcapng": mixed_pcapng(),
    "gzip": gzip.compress(pcap(mixed_frames())),
    **{
        f"link {link}": pcap([(k, LINKS[n][1]) for k, n in enumerate(LINKS) if LINKS[n][0] == link], link=link)
        for link in (9, 51, 276)
    },
}


def read_all(copies):
    """Reads damaged copies; how many were read whole, and how many packets of them."""
    good = packets = 0
    for index, copy in enumerate(copies):
        options = ReadOptions(4, payload_only=index % 2 == 0, size_layer=["ip", "payload"][index % 3 == 0])
        try:
            blocks = read_stream(
                io.BytesIO(copy),
                "copy",
                options,
                label="x",
                capture="copy",
                allow_truncated=index % 2 == 1,
                block_bytes=700 if index % 5 == 0 else 1 << 20,
            )
            packets += sum(int(block.facts["packets"].sum()) for block in blocks)
            good += 1
        except JaxTrafficError as error:
            assert str(error).startswith("copy")
    return good, packets


def test_the_undamaged_files_are_read():
    assert read_all(FILES.values())[0] == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_damaged_copies(name):
    good, packets = read_all(mutated_copies(FILES[name], 50, 1))
    assert good < 50
    assert (good > 0 and packets > 0) or name == "gzip"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_damaged_copies_many(name):
    good, _ = read_all(mutated_copies(FILES[name], 2000, 2))
    assert good < 2000


def test_damage_inside_packets_refuses_nothing():
    """Packets are not the file: whatever they hold, the file is read to its end."""
    rng = np.random.default_rng(0)
    frames = mixed_frames()
    for _ in range(40):
        damaged = []
        for time, frame in frames:
            frame = bytearray(frame)
            for place in rng.integers(0, len(frame), int(rng.integers(0, 6))):
                frame[place] = int(rng.choice([0, 1, 0x45, 0x60, 0xFF, int(rng.integers(0, 256))]))
            damaged.append((time, bytes(frame)))
        blocks = list(read_stream(io.BytesIO(pcap(damaged)), "x", ReadOptions(), label="x", capture="x"))
        known = sum(int(block.facts["packets"].sum()) for block in blocks)
        left_out = sum(
            number
            for one in blocks
            for name, number in one.dropped.items()
            if name.startswith(("packets that are not", "packets of", "malformed", "fragments", "packets cut"))
        )
        assert known + left_out == len(frames)


@pytest.mark.parametrize("kind", ["pcap", "pcapng", "gzip"])
def test_memory_is_bounded_whatever_the_lengths_say(kind):
    if kind == "pcapng":
        data = section() + interface() + struct.pack("<II", 6, 0xFFFFFFFC) + bytes(50)
        data += b"".join(enhanced(k, bytes(100)) for k in range(100))
    else:
        data = pcap([(k, bytes(2000)) for k in range(20)]) + struct.pack("<IIII", 0, 0, MAX_CAPTURED, 2**32 - 1)
    if kind == "gzip":
        # some kilobytes that become megabytes: half a million packets without bytes
        data = gzip.compress(pcap([]) + bytes(6 << 20), 1)
        assert len(data) < 100 << 10
    tracemalloc.start()
    try:
        for one in read_stream(io.BytesIO(data), "x", ReadOptions(), label="x", capture="x", allow_truncated=True):
            assert len(one) == 0
    except JaxTrafficError:
        assert kind == "pcapng"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20


def test_random_bytes_behind_each_kind_of_header():
    rng = np.random.default_rng(3)
    for head in (b"", b"\x1f\x8b", pcap([]), section(), section(">") + interface(1, ">"), gzip.compress(pcap([]))[:-9]):
        read_all(head + rng.integers(0, 256, int(size), dtype=np.uint8).tobytes() for size in rng.integers(0, 3000, 20))
