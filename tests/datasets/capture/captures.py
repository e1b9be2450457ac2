"""Packets and capture files made byte by byte, independently of the reader."""

import io
import socket
import struct
from collections import Counter

import numpy as np

from jaxtraffic.datasets.capture import containers, network
from jaxtraffic.datasets.capture.packets import joined

MICRO, NANO = 0xA1B2C3D4, 0xA1B23C4D


def pcap(frames, *, link=1, order="<", magic=MICRO, snap=262144, originals=None):
    """frames: (time in units of the file since 1970, bytes)."""
    per_second = 1_000_000_000 if magic == NANO else 1_000_000
    out = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snap, link)
    for index, (time, frame) in enumerate(frames):
        original = originals[index] if originals else len(frame)
        frame = frame[:snap]
        out += struct.pack(f"{order}IIII", *divmod(time, per_second), len(frame), original) + frame
    return out


def padded(data):
    return data + bytes(-len(data) % 4)


def block(kind, body, order="<"):
    size = len(body) + 12
    return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)


def section(order="<"):
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link=1, order="<", snap=0, options=()):
    """options: (code, bytes)."""
    body = struct.pack(f"{order}HHI", link, 0, snap)
    for code, value in options:
        body += struct.pack(f"{order}HH", code, len(value)) + padded(value)
    return block(1, body + (struct.pack(f"{order}HH", 0, 0) if options else b""), order)


def enhanced(units, frame, order="<", which=0, original=None, options=b""):
    original = len(frame) if original is None else original
    body = struct.pack(f"{order}IIIII", which, units >> 32, units & 0xFFFFFFFF, len(frame), original)
    return block(6, body + padded(frame) + options, order)


def simple(frame, order="<", original=None):
    return block(3, struct.pack(f"{order}I", len(frame) if original is None else original) + padded(frame), order)


def obsolete(units, frame, order="<", which=0):
    body = struct.pack(f"{order}HHIIII", which, 0, units >> 32, units & 0xFFFFFFFF, len(frame), len(frame))
    return block(2, body + padded(frame), order)


def ipv4(body, protocol, *, source="10.0.0.1", target="192.0.2.9", options=b"", total=None, fragment=0, identity=7):
    header = 20 + len(options)
    total = header + len(body) if total is None else total
    fields = (0x40 | header // 4, 0, total, identity, fragment, 64, protocol, 0)
    return struct.pack(">BBHHHBBH", *fields) + address(source) + address(target) + options + body


def ipv6(body, following, *, source="2001:db8::1", target="2001:db8::2:9", length=None):
    length = len(body) if length is None else length
    return struct.pack(">IHBB", 6 << 28, length, following, 64) + address(source) + address(target) + body


def address(text):
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def tcp(payload=b"", *, source=50000, target=443, flags=0x10, options=b""):
    header = 20 + len(options)
    return struct.pack(">HHIIBBHHH", source, target, 1, 2, header // 4 << 4, flags, 1000, 0, 0) + options + payload


def udp(payload=b"", *, source=50000, target=53, length=None):
    return struct.pack(">HHHH", source, target, 8 + len(payload) if length is None else length, 0) + payload


def fragment(following, offset=0, more=False, identity=77):
    return struct.pack(">BBHI", following, 0, offset | more, identity)


def ethernet(body, kind=0x0800):
    return bytes(range(12)) + struct.pack(">H", kind) + body


def blocks_of(data, **options):
    return containers.packet_blocks(io.BytesIO(data), "test.pcap", **options)


def framed(data, **options):
    """(captured bytes, original length, time, link type) of each packet, as the reader finds them."""
    out = []
    for one in blocks_of(data, **options):
        for index in range(one.offset.size):
            start = int(one.offset[index])
            captured = one.data[start : start + int(one.captured[index])].tobytes()
            out.append((captured, int(one.original[index]), int(one.time[index]), int(one.link[index])))
    return out


def decoded(data, **options):
    """Packets and counts of a file."""
    parts, counts = [], Counter()
    for one in blocks_of(data, **options):
        packets, left_out = network.decode(one)
        parts.append(packets)
        counts.update(left_out)
    return joined(parts), counts


def decode_one(frame, *, link=1, original=None):
    """The only packet of a capture of one frame as a dictionary, or the reason why there is none."""
    packets, counts = decoded(pcap([(0, frame)], link=link, originals=[len(frame) if original is None else original]))
    if not len(packets):
        ((reason, number),) = counts.items()
        assert number == 1
        return reason
    assert len(packets) == 1 and not counts
    packet = {name: int(getattr(packets, name)[0]) for name in packets.__dataclass_fields__}
    return {name: value for name, value in packet.items() if name not in ("number", "time")}


def number(text):
    value = int.from_bytes(address(text), "big")
    return value >> 64, value & (1 << 64) - 1


def random_frames(n, seed=0):
    """(time in microseconds, Ethernet frame): a few TCP and UDP conversations over IPv4 and IPv6."""
    rng = np.random.default_rng(seed)
    frames, time = [], 1_600_000_000_000_000
    for _ in range(n):
        time += int(rng.integers(0, 400_000))
        host, port, back = int(rng.integers(1, 4)), int(rng.integers(0, 3)), rng.random() < 0.5
        payload = bytes(int(rng.choice([0, 0, 10, 500])))
        ports = (443, 50000 + port) if back else (50000 + port, 443)
        is_tcp = rng.random() < 0.7
        flags = int(rng.choice([0x10, 0x02, 0x12, 0x11, 0x18]))
        body = (
            tcp(payload, source=ports[0], target=ports[1], flags=flags)
            if is_tcp
            else udp(payload, source=ports[0], target=ports[1])
        )
        if rng.random() < 0.5:
            ends = (f"10.0.0.{host}", "192.0.2.9")
            packet, kind = ipv4(body, 6 if is_tcp else 17, source=ends[back], target=ends[not back]), 0x0800
        else:
            ends = (f"2001:db8::{host}", "2001:db8::9")
            packet, kind = ipv6(body, 6 if is_tcp else 17, source=ends[back], target=ends[not back]), 0x86DD
        frames.append((time, ethernet(packet, kind)))
    return frames
