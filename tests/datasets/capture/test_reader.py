"""Capture files into blocks of flows."""

import functools
import gzip
import io
import socket
from collections import Counter

import dpkt
import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets.capture import reader
from jaxtraffic.datasets.capture.flow_table import FlowTable
from jaxtraffic.datasets.capture.reader import read_capture, read_stream
from jaxtraffic.datasets.flow_block import FACTS, ReadOptions
from jaxtraffic.errors import ConfigError, DataError
from tests.datasets.capture.captures import (
    enhanced,
    ethernet,
    interface,
    ipv4,
    ipv6,
    pcap,
    random_frames,
    section,
    simple,
    tcp,
    udp,
)
from tests.datasets.capture.plain_flows import SECOND, plain_flows


def read(data, options=None, **keywords):
    keywords = {"label": "app", "capture": "x.pcap"} | keywords
    return list(read_stream(io.BytesIO(data), "x.pcap", options or ReadOptions(), **keywords))


def dropped(blocks):
    total = Counter()
    for block in blocks:
        total.update(block.dropped)
    return dict(total)


def as_rows(blocks):
    rows = []
    for block in blocks:
        ends = np.cumsum(block.packets.counts)
        for row, (facts, label) in enumerate(zip(block.facts.to_dicts(), block.label.to_list())):
            part = slice(int(ends[row] - block.packets.counts[row]), int(ends[row]))
            packets = {name: getattr(block.packets, name)[part].tolist() for name in ("size", "direction", "iat")}
            rows.append(facts | packets | {"label": label})
    return sorted(rows, key=lambda row: (row["start"], row["client_port"], row["server_port"], row["protocol"]))


def plain_rows(frames):
    """Packets by dpkt, for the plain flow table."""
    for number, (time, frame) in enumerate(frames):
        ip = dpkt.ethernet.Ethernet(frame).data
        segment, version = ip.data, 4 if isinstance(ip, dpkt.ip.IP) else 6
        is_tcp = isinstance(segment, dpkt.tcp.TCP)
        size = ip.len if version == 4 else ip.plen + 40
        ends = (int.from_bytes(ip.src, "big"), segment.sport, int.from_bytes(ip.dst, "big"), segment.dport)
        flags = segment.flags if is_tcp else 0
        yield (number, time * 1000, version, 6 if is_tcp else 17, *ends, flags, size, len(segment.data))


@pytest.mark.parametrize("payload_only", [False, True])
@pytest.mark.parametrize("layer", ["ip", "payload"])
@pytest.mark.parametrize("block_bytes", [4000, 8 << 20])
def test_equal_to_dpkt_and_a_dictionary(payload_only, layer, block_bytes):
    frames = random_frames(1500, seed=1)
    options = ReadOptions(length=7, payload_only=payload_only, size_layer=layer)
    blocks = read(pcap(frames), options, block_bytes=block_bytes, idle_timeout=5, active_timeout=60)
    expected, late = plain_flows(
        list(plain_rows(frames)), length=7, payload_only=payload_only, layer=layer, idle=5 * SECOND, active=60 * SECOND
    )
    wanted = [
        {
            "start": flow["start"] / 1e9,
            "protocol": flow["protocol"],
            "client_port": flow["client"][1],
            "server_port": flow["server"][1],
            "packets": flow["packets"],
            "is_dns": False,
            "has_handshake": flow["handshake"] if flow["protocol"] == 6 else None,
            "capture": "x.pcap",
            "size": flow["size"],
            "direction": flow["direction"],
            "iat": pytest.approx(np.diff(flow["time"], prepend=flow["time"][:1]) / 1e9, abs=1e-12),
            "label": "app",
        }
        for flow in expected
    ]
    wanted.sort(key=lambda row: (row["start"], row["client_port"], row["server_port"], row["protocol"]))
    assert as_rows(blocks) == wanted and not late and len(wanted) > 100
    assert {block.size_layer for block in blocks} == {layer}
    empty = sum(row[-1] == 0 for row in plain_rows(frames))
    assert dropped(blocks) == ({"packets without payload": empty} if payload_only else {})
    for block in blocks:
        assert block.facts.schema == {name: FACTS[name] for name in block.facts.columns}


def test_pcapng_and_gzip_and_path_give_the_same(tmp_path):
    frames = random_frames(200)
    rows = as_rows(read(pcap(frames)))
    assert as_rows(read(section() + interface() + b"".join(enhanced(*one) for one in frames))) == rows
    assert as_rows(read(gzip.compress(pcap(frames)))) == rows
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(frames))
    assert as_rows(read_capture(path, ReadOptions(), label="app")) == rows
    (block,) = read_capture(path, ReadOptions(), label="app", capture="folder/x.pcap")
    assert block.facts["capture"].unique().to_list() == ["folder/x.pcap"]
    with pytest.raises(DataError, match="No such file"):
        list(read_capture(tmp_path / "none.pcap", ReadOptions(), label="app"))


def conversation():
    """A handshake, an answer of size 0 at the same time as what is before, and the end."""
    sides = [("10.0.0.1", "192.0.2.9"), ("192.0.2.9", "10.0.0.1")]
    out = []
    for time, back, flags, payload in (
        (0, 0, 0x02, b""),
        (20, 1, 0x12, b""),
        (40, 0, 0x18, b"hello"),
        (40, 1, 0x10, b""),
        (60, 1, 0x18, bytes(1000)),
        (80, 0, 0x11, b""),
    ):
        ports = {"source": 443, "target": 50000} if back else {}
        ends = dict(zip(("source", "target"), sides[back]))
        out.append((time * 1000, ethernet(ipv4(tcp(payload, flags=flags, **ports), 6, **ends))))
    return out


def test_a_packet_of_size_0_and_iat_0_survives():
    (row,) = as_rows(read(pcap(conversation()), ReadOptions(size_layer="payload")))
    assert row["size"] == [0, 0, 5, 0, 1000, 0] and row["direction"] == [1, -1, 1, -1, -1, 1]
    assert row["iat"] == pytest.approx([0, 0.02, 0.02, 0, 0.02, 0.02]) and row["iat"][3] == 0
    assert row["has_handshake"] is True and row["packets"] == 6 and row["label"] == "app"


def test_payload_only_keeps_the_time_that_passed():
    (row,) = as_rows(read(pcap(conversation()), ReadOptions(size_layer="payload", payload_only=True)))
    assert row["size"] == [5, 1000] and row["packets"] == 2 and row["start"] == 0
    assert row["iat"] == pytest.approx([0, 0.02])


def test_the_client_is_inside_the_client_network():
    data = pcap(conversation()[1:2])
    for network, client in (
        (None, 50000),
        ("192.0.0.0/8", 443),
        ("10.0.0.0/8", 50000),
        ("fd00::/8, 192.0.2.9/32", 443),
        ("0.0.0.0/0", 50000),
        ("8.8.8.8/32", 50000),
    ):
        (row,) = as_rows(read(data, client_network=network))
        assert row["client_port"] == client
        assert row["direction"] == [-1 if client == 50000 else 1]
    six = pcap([(0, ethernet(ipv6(udp(), 17), 0x86DD))])
    for network, client in ((None, 50000), ("2001:db8::2:0/112", 53), ("2001:db8::1/128", 50000), ("::/0", 50000)):
        (row,) = as_rows(read(six, client_network=network))
        assert row["client_port"] == client
    (row,) = as_rows(
        read(pcap([(0, ethernet(ipv4(udp(), 17, source="192.0.2.9", target="10.0.0.1")))]), client_network="0.0.0.0/0")
    )
    assert row["client_port"] == 50000, "where both sides are inside, the network says nothing"
    with pytest.raises(ConfigError, match="client_network"):
        read(data, client_network="ten")


def test_labels_from_a_function_of_the_ends():
    frames = random_frames(500)
    seen = []

    def label(frame):
        seen.append(frame)
        return frame.select(
            pl.when(pl.col("protocol") == 17).then(None).otherwise(pl.col("server_address"))
        ).to_series()

    whole = as_rows(read(pcap(frames)))
    blocks = read(pcap(frames), label=label)
    rows = as_rows(blocks)
    assert [{**row, "label": "app"} for row in rows] == [row for row in whole if row["protocol"] == 6]
    assert dropped(blocks) == {reader.UNLABELLED: len(whole) - len(rows)}
    assert seen[0].columns == [
        *("client_address", "client_port", "server_address", "server_port", "protocol", "start"),
    ]
    ends = set(seen[0]["client_address"]) | set(seen[0]["server_address"])
    hosts = [f"10.0.0.{k}" for k in (1, 2, 3)] + [f"2001:db8::{k}" for k in (1, 2, 3)]
    assert ends == {"192.0.2.9", "2001:db8::9", *hosts}
    assert {row["label"] for row in rows} <= ends
    with pytest.raises(ConfigError, match="gave 1 labels"):
        read(pcap(frames), label=lambda frame: pl.Series(["a"]))


def test_addresses_are_written_as_others_write_them():
    frames = random_frames(50)
    seen = []
    read(pcap(frames), label=lambda frame: (seen.append(frame), frame["client_address"])[1])
    pairs = set()
    for _, frame in frames:
        ip = dpkt.ethernet.Ethernet(frame).data
        family = socket.AF_INET if len(ip.src) == 4 else socket.AF_INET6
        pairs.add(frozenset((socket.inet_ntop(family, ip.src), socket.inet_ntop(family, ip.dst))))
    assert {frozenset(row) for row in seen[0].select("client_address", "server_address").iter_rows()} == pairs


@pytest.mark.parametrize(
    ("ports", "is_dns"), [((50000, 53), True), ((5353, 5353), True), ((853, 1), True), ((1, 2), False)]
)
def test_dns_by_either_port(ports, is_dns):
    body = udp(b"q", source=ports[0], target=ports[1])
    (row,) = as_rows(read(pcap([(0, ethernet(ipv4(body, 17)))])))
    assert row["is_dns"] is is_dns and row["has_handshake"] is None


def test_sizes_beyond_16_bits_are_cut_and_counted():
    data = pcap([(0, ethernet(ipv4(tcp(bytes(40_000)), 6))), (1, ethernet(ipv4(tcp(bytes(9)), 6)))])
    blocks = read(data)
    assert as_rows(blocks)[0]["size"] == [32767, 49] and dropped(blocks) == {reader.CLIPPED: 1}


def test_what_is_left_out_is_counted_to_the_last_packet():
    frames = random_frames(300)
    frames[10] = (frames[10][0], ethernet(bytes(28), 0x0806))
    frames[20] = (frames[20][0], ethernet(ipv4(bytes(8), 1)))
    frames[30] = (frames[30][0], frames[30][1][:20])
    blocks = read(pcap(frames) + bytes(5), allow_truncated=True)
    assert dropped(blocks) == {
        "packets that are not IP": 1,
        "packets of other protocols than TCP and UDP": 1,
        "malformed packets: the frame ends before its headers": 1,
        "last packets cut by the end of the file": 1,
    }
    assert sum(block.facts["packets"].sum() for block in blocks) == 297
    with pytest.raises(DataError, match="300 packet"):
        read(pcap(frames) + bytes(5))


def test_packets_without_time_are_counted():
    frame = ethernet(ipv4(udp(), 17))
    blocks = read(section() + interface() + enhanced(5_000_000, frame) + simple(frame))
    assert dropped(blocks) == {reader.UNTIMED: 1}
    (row,) = as_rows(blocks)
    assert row["iat"] == [0, 0] and row["start"] == 5


def test_a_capture_of_refused_link_types_only_is_refused_by_name():
    frame = ethernet(ipv4(udp(), 17))
    data = section() + interface(105) + interface(239) + interface(1) + enhanced(1, frame) + enhanced(2, frame, which=1)
    with pytest.raises(DataError, match=r"IEEE 802\.11 \(105\), NFLOG \(239\)"):
        read(data)
    blocks = read(data + enhanced(3, frame, which=2))
    assert len(as_rows(blocks)) == 1
    assert dropped(blocks) == {"packets of link type IEEE 802.11 (105)": 1, "packets of link type NFLOG (239)": 1}


def test_a_capture_without_flows_says_what_was_left_out():
    (block,) = read(pcap([(0, ethernet(bytes(28), 0x0806))]))
    assert len(block) == 0 and block.dropped == {"packets that are not IP": 1}
    assert read(pcap([])) == []


def test_many_flows_come_in_blocks():
    frames = [(k * 1000, ethernet(ipv4(udp(source=k % 60000 + 1, target=k // 60000 + 1), 17))) for k in range(9000)]
    blocks = read(pcap(frames))
    assert sum(map(len, blocks)) == 9000
    assert sum(map(len, read(pcap(frames), max_flows=100))) == 9000, "the end of a file ends no flow early"


def test_the_limit_of_the_table_is_counted(monkeypatch):
    monkeypatch.setattr(reader, "FlowTable", functools.partial(FlowTable, round_packets=100))
    frames = [(k * 1000, ethernet(ipv4(udp(source=k % 250 + 1), 17))) for k in range(1000)]
    blocks = read(pcap(frames), max_flows=200)
    assert sum(map(len, blocks)) > 250 and sum(block.facts["packets"].sum() for block in blocks) == 1000
    assert dropped(blocks) == {
        "flows ended early because the table of open flows was full": sum(map(len, blocks)) - 200
    }


@pytest.mark.parametrize(
    "keywords",
    [{"idle_timeout": 0}, {"active_timeout": -1}, {"idle_timeout": float("nan")}, {"max_flows": 0}],
)
def test_settings_that_do_not_fit(keywords):
    with pytest.raises(ConfigError, match=next(iter(keywords))):
        read(pcap([]), **keywords)
    with pytest.raises(ConfigError, match="layer"):
        read(pcap([]), ReadOptions(size_layer="frame"))
