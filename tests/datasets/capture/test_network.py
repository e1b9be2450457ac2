"""Link layers, IP, TCP and UDP: frames made by hand, and dpkt as an independent reader."""

import struct

import dpkt
import numpy as np
import pytest

from jaxtraffic.datasets.capture import layers, network
from jaxtraffic.datasets.capture.link_types import LINK_TYPES, READ_LINK_TYPES
from jaxtraffic.datasets.capture.packets import FIRST_FRAGMENT, LATER_FRAGMENT, WHOLE
from tests.datasets.capture.captures import (
    address,
    decode_one,
    decoded,
    enhanced,
    ethernet,
    fragment,
    interface,
    ipv4,
    ipv6,
    number,
    pcap,
    random_frames,
    section,
    tcp,
    udp,
)

BODY = tcp(b"12345", flags=0x18)
V4, V6 = ipv4(BODY, 6), ipv6(BODY, 6)


def expected(
    version, size, payload, *, source="10.0.0.1", target="192.0.2.9", protocol=6, ports=(50000, 443), flags=0x18
):
    if version == 6 and source == "10.0.0.1":
        source, target = "2001:db8::1", "2001:db8::2:9"
    (source_high, source_low), (target_high, target_low) = number(source), number(target)
    return {
        "version": version,
        "protocol": protocol,
        "source_high": source_high,
        "source_low": source_low,
        "target_high": target_high,
        "target_low": target_low,
        "source_port": ports[0],
        "target_port": ports[1],
        "flags": flags,
        "size": size,
        "payload": payload,
        "fragment": WHOLE,
        "identification": 0,
    }


IS_V4, IS_V6 = expected(4, 45, 5), expected(6, 65, 5)


def vlan(body, kind, tag=0x8100, outer=True):
    inner = struct.pack(">HH", 100, kind) + body
    return ethernet(inner, tag) if outer else inner


def cooked(body, kind):
    return struct.pack(">HHH8sH", 0, 1, 6, b"abcdef", kind) + body


def cooked2(body, kind):
    return struct.pack(">HHIHBB8s", kind, 0, 3, 1, 0, 6, b"abcdef") + body


def pppoe(body, protocol=b"\x00\x21"):
    return struct.pack(">BBHH", 0x11, 0, 5, len(body) + len(protocol)) + protocol + body


def mpls(body, labels=1):
    return b"".join(struct.pack(">I", 99 << 12 | (k == labels - 1) << 8 | 64) for k in range(labels)) + body


LINKS = {
    "ethernet": (1, ethernet(V4), IS_V4),
    "ethernet, IPv6": (1, ethernet(V6, 0x86DD), IS_V6),
    "ethernet with padding": (1, ethernet(V4) + bytes(9), IS_V4),
    "VLAN": (1, vlan(V4, 0x0800), IS_V4),
    "VLAN, IPv6": (1, vlan(V6, 0x86DD), IS_V6),
    "QinQ 88a8": (1, vlan(vlan(V4, 0x0800, outer=False), 0x8100, tag=0x88A8), IS_V4),
    "QinQ 9100": (1, vlan(vlan(V6, 0x86DD, outer=False), 0x8100, tag=0x9100), IS_V6),
    "three VLAN tags": (
        1,
        vlan(vlan(vlan(V4, 0x0800, outer=False), 0x8100, outer=False), 0x8100),
        IS_V4,
    ),
    "MPLS": (1, ethernet(mpls(V4), 0x8847), IS_V4),
    "MPLS of three labels, IPv6": (1, ethernet(mpls(V6, 3), 0x8847), IS_V6),
    "MPLS multicast": (1, ethernet(mpls(V4), 0x8848), IS_V4),
    "MPLS in VLAN": (1, vlan(mpls(V4, 2), 0x8847), IS_V4),
    "PPPoE session": (1, ethernet(pppoe(V4), 0x8864), IS_V4),
    "PPPoE session, IPv6": (1, ethernet(pppoe(V6, b"\x00\x57"), 0x8864), IS_V6),
    "PPPoE in VLAN": (1, vlan(pppoe(V4), 0x8864), IS_V4),
    "LLC and SNAP": (1, ethernet(b"\xaa\xaa\x03\0\0\0\x08\0" + V4, 53), IS_V4),
    "PPP": (9, b"\xff\x03\x00\x21" + V4, IS_V4),
    "PPP without address": (9, b"\x00\x57" + V6, IS_V6),
    "PPP with one byte of protocol": (9, b"\x21" + V4, IS_V4),
    "PPP with MPLS": (9, b"\xff\x03\x02\x81" + mpls(V4), IS_V4),
    "PPP in HDLC": (50, b"\xff\x03\x00\x21" + V4, IS_V4),
    "Cisco HDLC in the link type of PPP": (50, b"\x0f\0\x08\0" + V4, IS_V4),
    "Cisco HDLC in the link type of PPP, multicast": (50, b"\x8f\0\x86\xdd" + V6, IS_V6),
    "PPPoE as link": (51, pppoe(V4), IS_V4),
    "raw 12": (12, V4, IS_V4),
    "raw 14": (14, V6, IS_V6),
    "raw 101": (101, V4, IS_V4),
    "raw 101, IPv6": (101, V6, IS_V6),
    "raw IPv4": (228, V4, IS_V4),
    "raw IPv6": (229, V6, IS_V6),
    "Cisco HDLC": (104, b"\x0f\0\x08\0" + V4, IS_V4),
    "Cisco HDLC, IPv6": (104, b"\x0f\0\x86\xdd" + V6, IS_V6),
    "cooked v1": (113, cooked(V4, 0x0800), IS_V4),
    "cooked v1, VLAN": (113, cooked(vlan(V6, 0x86DD, outer=False), 0x8100), IS_V6),
    "cooked v2": (276, cooked2(V4, 0x0800), IS_V4),
    "cooked v2, IPv6": (276, cooked2(V6, 0x86DD), IS_V6),
    "NULL of a little host": (0, struct.pack("<I", 2) + V4, IS_V4),
    "NULL of a big host": (0, struct.pack(">I", 2) + V4, IS_V4),
    **{f"NULL, IPv6 of family {k}": (0, struct.pack("<I", k) + V6, IS_V6) for k in (10, 24, 28, 30)},
    "LOOP": (108, struct.pack(">I", 2) + V4, IS_V4),
    "LOOP, IPv6": (108, struct.pack(">I", 24) + V6, IS_V6),
    "ARP": (1, ethernet(bytes(28), 0x0806), network.NOT_IP),
    "spanning tree": (1, ethernet(b"BB\x03" + bytes(35), 38), network.NOT_IP),
    "short LLC": (1, ethernet(b"BB", 2), network.NOT_IP),
    "PPPoE discovery": (1, ethernet(bytes(20), 0x8863), network.NOT_IP),
    "PPP link control": (9, b"\xff\x03\xc0\x21" + bytes(8), network.NOT_IP),
    "NULL of another family": (0, struct.pack("<I", 7) + V4, network.NOT_IP),
    "raw of another version": (101, b"\x50" + V4, network.NOT_IP),
    "Cisco SLARP": (104, b"\x8f\0\x80\x35" + bytes(18), network.NOT_IP),
    "MPLS with Ethernet": (1, ethernet(mpls(bytes(40)), 0x8847), network.NOT_IP),
    "nine VLAN tags": (
        1,
        ethernet(struct.pack(">HH", 1, 0x8100) * 8 + struct.pack(">HH", 1, 0x0800) + V4, 0x8100),
        network.NOT_IP,
    ),
    "no IP behind the type": (1, ethernet(V6, 0x0800), "malformed packets: IP version"),
}


@pytest.mark.parametrize("name", LINKS)
def test_link_layers(name):
    link, frame, result = LINKS[name]
    assert decode_one(frame, link=link) == result


def test_every_link_type_that_is_read_has_a_fixture_and_a_name():
    assert {link for link, _, _ in LINKS.values()} == set(READ_LINK_TYPES) == set(layers._LINKS)
    assert set(READ_LINK_TYPES) <= set(LINK_TYPES)


@pytest.mark.parametrize("name", LINKS)
def test_link_layers_cut_at_every_byte(name):
    link, frame, result = LINKS[name]
    outcomes = set()
    for length in range(len(frame)):
        outcome = decode_one(frame[:length], link=link, original=len(frame))
        if isinstance(result, dict) and isinstance(outcome, dict):
            assert outcome == result, "what is read of a cut packet is what is read of the whole one"
        elif isinstance(outcome, dict):
            pytest.fail(f"read something else from {length} bytes")
        outcomes.add(outcome if isinstance(outcome, str) else "read")
    assert network.CUT in outcomes


def test_several_link_types_in_a_file_and_one_that_is_not_read():
    data = section() + interface(1) + interface(101) + interface(127)
    data += enhanced(1, ethernet(V4)) + enhanced(2, V6, which=1) + enhanced(3, V6, which=2) + enhanced(4, V4, which=1)
    packets, counts = decoded(data)
    assert packets.version.tolist() == [4, 6, 4] and packets.number.tolist() == [0, 1, 3]
    assert counts == {"packets of link type IEEE 802.11 with radiotap header (127)": 1}


def extension(following, length=8, fill=0):
    return bytes([following, length // 8 - 1]) + bytes([fill]) * (length - 2)


def authentication(following, length=16):
    return bytes([following, length // 4 - 2]) + bytes(length - 2)


CASES = {
    "IPv4 options": (ipv4(BODY, 6, options=bytes(12)), expected(4, 57, 5)),
    "TCP options": (ipv4(tcp(b"12345", flags=0x18, options=bytes(12)), 6), expected(4, 57, 5)),
    "UDP": (ipv4(udp(b"123"), 17), expected(4, 31, 3, protocol=17, ports=(50000, 53), flags=0)),
    "UDP shorter than IP": (
        ipv4(udp(b"123", length=9), 17),
        expected(4, 31, 1, protocol=17, ports=(50000, 53), flags=0),
    ),
    "UDP longer than IP": (
        ipv4(udp(b"123", length=99), 17),
        expected(4, 31, 3, protocol=17, ports=(50000, 53), flags=0),
    ),
    "UDP of length 0": (ipv4(udp(b"123", length=0), 17), expected(4, 31, 3, protocol=17, ports=(50000, 53), flags=0)),
    "IPv6 UDP": (ipv6(udp(b"1"), 17), expected(6, 49, 1, protocol=17, ports=(50000, 53), flags=0)),
    "segmentation offload": (ipv4(tcp(bytes(3000), flags=0x18), 6, total=0), expected(4, 3040, 3000)),
    "segmentation offload, IPv6": (ipv6(tcp(bytes(3000), flags=0x18), 6, length=0), expected(6, 3060, 3000)),
    "length beyond the frame": (ipv4(BODY, 6, total=1500), expected(4, 1500, 1460)),
    "IPv4 with authentication header": (ipv4(authentication(6) + BODY, 51), expected(4, 61, 5)),
    "hop-by-hop": (ipv6(extension(6) + BODY, 0), expected(6, 73, 5)),
    "routing": (ipv6(extension(6, 24) + BODY, 43), expected(6, 89, 5)),
    "destination options": (ipv6(extension(6, 16) + BODY, 60), expected(6, 81, 5)),
    "authentication header": (ipv6(authentication(6, 24) + BODY, 51), expected(6, 89, 5)),
    "mobility": (ipv6(extension(6) + BODY, 135), expected(6, 73, 5)),
    "chain": (
        ipv6(extension(43) + extension(60, 24) + extension(51) + authentication(6) + BODY, 0),
        expected(6, 121, 5),
    ),
    "eight extension headers": (ipv6(extension(60) * 7 + extension(6) + BODY, 60), expected(6, 129, 5)),
    "nine extension headers": (ipv6(extension(60) * 8 + extension(6) + BODY, 60), "IPv6 extension headers"),
    "extension header beyond the packet": (ipv6(extension(6, 2040)[:30], 0), "IPv6 extension headers"),
    "atomic fragment": (ipv6(fragment(6) + BODY, 44), expected(6, 73, 5) | {"identification": 77}),
    "first fragment": (
        ipv4(BODY, 6, fragment=0x2000, identity=7),
        expected(4, 45, 5) | {"fragment": FIRST_FRAGMENT, "identification": 7},
    ),
    "do not fragment": (ipv4(BODY, 6, fragment=0x4000), IS_V4),
    "later fragment": (
        ipv4(BODY, 6, fragment=0x2003, identity=9),
        expected(4, 45, 25, ports=(0, 0), flags=0) | {"fragment": LATER_FRAGMENT, "identification": 9},
    ),
    "last fragment, IPv6": (
        ipv6(fragment(6, 1480) + bytes(33), 44),
        expected(6, 81, 33, ports=(0, 0), flags=0) | {"fragment": LATER_FRAGMENT, "identification": 77},
    ),
    "later fragment of a packet with options, IPv6": (
        ipv6(fragment(60, 1480) + bytes(33), 44),
        expected(6, 81, 33, protocol=60, ports=(0, 0), flags=0) | {"fragment": LATER_FRAGMENT, "identification": 77},
    ),
    "ICMP": (ipv4(bytes(8), 1), network.OTHER),
    "IPv6 ICMP": (ipv6(bytes(8), 58), network.OTHER),
    "nothing": (ipv6(b"", 59), network.OTHER),
    "GRE": (ipv4(b"\0\0\x08\0" + V4, 47), network.OTHER),
    "IP in IP": (ipv4(V4, 4), network.OTHER),
    "4 in 6": (ipv6(V4, 4), network.OTHER),
    "ESP": (ipv6(bytes(40), 50), network.OTHER),
    "IPv4 header length": (b"\x44" + V4[1:], "IPv4 header length"),
    "IPv4 total length": (ipv4(BODY, 6, total=19), "IPv4 total length"),
    "TCP beyond IP": (ipv4(BODY, 6, total=39), "IP length ends before the TCP or UDP header"),
    "UDP beyond IP": (ipv4(udp(), 17, total=27), "IP length ends before the TCP or UDP header"),
    "TCP header of 16 bytes": (ipv4(BODY[:12] + b"\x40" + BODY[13:], 6), "TCP header length"),
    "TCP header beyond IP": (ipv4(BODY[:12] + b"\xf0" + BODY[13:], 6), "TCP header length"),
    "UDP length": (ipv4(udp(b"1", length=7), 17), "UDP length"),
}


@pytest.mark.parametrize("name", CASES)
def test_ip_tcp_and_udp(name):
    packet, result = CASES[name]
    if isinstance(result, str) and result != network.OTHER:
        result = f"malformed packets: {result}"
    link, frame = (1, ethernet(packet, 0x86DD if packet[0] >> 4 == 6 else 0x0800))
    assert decode_one(frame, link=link) == result


def test_sizes_do_not_depend_on_what_was_captured():
    frame = ethernet(ipv4(tcp(bytes(1000), flags=0x18), 6))
    assert decode_one(frame[:54], original=len(frame)) == expected(4, 1040, 1000)
    assert decode_one(frame[:48], original=len(frame)) == expected(4, 1040, 1000)
    assert decode_one(frame[:47], original=len(frame)) == network.CUT
    assert decode_one(frame[:33], original=len(frame)) == network.CUT
    assert decode_one(frame[:10]) == "malformed packets: the frame ends before its headers"
    assert decode_one(frame[:33]) == "malformed packets: the frame ends before its headers"
    # the length of an offloaded packet is that of its frame on the wire
    frame = ethernet(ipv4(tcp(bytes(1000), flags=0x18), 6, total=0))
    assert decode_one(frame[:60], original=len(frame)) == expected(4, 1040, 1000)


def test_a_block_cut_short_reads_nothing_of_its_neighbour():
    frame = ethernet(V4)
    packets, counts = decoded(pcap([(0, frame[:40]), (1, frame), (2, frame[:20])], originals=[59, 59, 59]))
    assert packets.number.tolist() == [1] and counts == {network.CUT: 2}


@pytest.mark.parametrize("block_bytes", [997, 1 << 20])
def test_equal_to_dpkt(block_bytes):
    frames = random_frames(1500, seed=3)
    packets, counts = decoded(pcap(frames), block_bytes=block_bytes)
    assert not counts and len(packets) == len(frames)
    for index, (time, frame) in enumerate(frames):
        ip = dpkt.ethernet.Ethernet(frame).data
        version = 4 if isinstance(ip, dpkt.ip.IP) else 6
        segment = ip.data
        is_tcp = isinstance(segment, dpkt.tcp.TCP)
        row = {name: int(getattr(packets, name)[index]) for name in packets.__dataclass_fields__}
        source = row["source_high"] << 64 | row["source_low"]
        assert source.to_bytes(16, "big")[-len(ip.src) :] == ip.src
        target = row["target_high"] << 64 | row["target_low"]
        assert target.to_bytes(16, "big")[-len(ip.dst) :] == ip.dst
        assert (row["version"], row["protocol"]) == (version, 6 if is_tcp else 17)
        assert (row["source_port"], row["target_port"]) == (segment.sport, segment.dport)
        assert row["flags"] == (segment.flags if is_tcp else 0)
        assert row["size"] == (ip.len if version == 4 else ip.plen + 40)
        assert row["payload"] == len(segment.data)
        assert row["time"] == time * 1000
    assert np.unique(packets.version).tolist() == [4, 6] and np.unique(packets.protocol).tolist() == [6, 17]


def test_address_of_fixtures():
    assert address("10.0.0.1") == b"\x0a\0\0\x01" and number("2001:db8::1") == (0x20010DB8 << 32, 1)
