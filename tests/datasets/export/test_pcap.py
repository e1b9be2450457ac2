import collections
import csv
import gzip
import math
import socket
import struct

import dpkt
import numpy as np
import pytest

from jaxtraffic.datasets.capture.reader import read_capture
from jaxtraffic.datasets.capture.sets import read_pcap
from jaxtraffic.datasets.export.pcap import safe_name, write_pcap, write_pcap_folder
from jaxtraffic.datasets.export.series_packets import CLIENT_NETWORK, START
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.series import PacketSeries

LONG = 1e9
"""Seconds that no flow pauses."""

LEAST = {("tcp", 4): 40, ("udp", 4): 28, ("tcp", 6): 60, ("udp", 6): 48}
KINDS = [(layer, transport, version) for layer in ("ip", "payload") for transport, version in LEAST]


def series(layer="ip", transport="tcp", version=4, n=120, length=12, seed=0, client_first=False):
    """Random flows: sizes at and near the headers, size 0, the largest size, IATs of 0, flows of one packet."""
    rng = np.random.default_rng(seed)
    least = LEAST[transport, version] if layer == "ip" else 0
    size = rng.integers(least, 1600, (n, length))
    small = rng.random(size.shape) < 0.4
    size[small] = least + rng.choice([0, 0, 1, 3, 4, 8, 12, 13, 16, 20, 24, 28, 32, 36, 40, 44], small.sum())
    size[rng.random(size.shape) < 0.3] = least
    size[0, 0], size[1, -1] = 32_767, 32_767
    direction = rng.choice([-1, 1], size.shape)
    if client_first:
        direction[:, 0] = 1
    iat = rng.exponential(0.05, size.shape)
    iat[rng.random(size.shape) < 0.3] = 0
    iat[:, 0] = 0
    mask = np.arange(length) < rng.integers(1, length + 1, n)[:, None]
    mask[1] = True
    return PacketSeries(
        np.where(mask, size, 0).astype(np.int16),
        np.where(mask, direction, 0).astype(np.int8),
        np.where(mask, iat, 0).astype(np.float32),
        rng.integers(0, 3, n).astype(np.int32),
        class_names=("mail", "video/live", "voice"),
        size_layer=layer,
    )


def one(sizes, directions, iats=None, layer="ip"):
    """A series of one flow."""
    iats = [0.0] * len(sizes) if iats is None else iats
    columns = (np.array([sizes], np.int16), np.array([directions], np.int8), np.array([iats], np.float32))
    return PacketSeries(*columns, np.zeros(1, np.int32), class_names=("a",), size_layer=layer)


def packets_of(path):
    """All packets by dpkt, one by one: (nanoseconds, ip, transport), checksums and lengths verified."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    unit = {0xA1B23C4D: 1, 0xA1B2C3D4: 1000}[struct.unpack("<I", data[:4])[0]]
    at, packets = 24, []
    while at < len(data):
        seconds, fraction, captured, original = struct.unpack_from("<IIII", data, at)
        assert captured == original
        frame = dpkt.ethernet.Ethernet(data[at + 16 : at + 16 + captured])
        ip = frame.data
        packets.append((seconds * 10**9 + fraction * unit, ip, ip.data))
        verify(ip, captured - 14)
        at += 16 + captured
    return packets


def verify(ip, captured):
    is_v4 = isinstance(ip, dpkt.ip.IP)
    assert captured == (ip.len if is_v4 else ip.plen + 40)
    header = len(ip) - len(ip.data)
    pseudo = ip.src + ip.dst + struct.pack(">IHH", captured - header, 0, ip.p)
    assert dpkt.in_cksum(pseudo + bytes(ip.data)) == 0 and ip.data.sum != 0
    if is_v4:
        assert dpkt.in_cksum(ip.pack_hdr() + bytes(ip.opts)) == 0
    assert not any(ip.data.data)
    if isinstance(ip.data, dpkt.udp.UDP):
        assert ip.data.ulen == captured - header


def size_of(ip, layer):
    total = ip.len if isinstance(ip, dpkt.ip.IP) else ip.plen + 40
    return total if layer == "ip" else len(ip.data.data)


def flows_of(path, layer):
    """Flows by dpkt, in order of clients: [(nanoseconds, direction, size), ...]."""
    flows = collections.defaultdict(list)
    for time, ip, transport in packets_of(path):
        up = transport.dport == 443
        client = (ip.src, transport.sport) if up else (ip.dst, transport.dport)
        flows[client].append((time, 1 if up else -1, size_of(ip, layer)))
    return [flows[client] for client in sorted(flows)]


def expect(flows, index):
    mask = flows.direction[index] != 0
    return flows.size[index][mask].tolist(), flows.direction[index][mask].tolist(), flows.iat[index][mask].astype(float)


@pytest.mark.parametrize(("layer", "transport", "version"), KINDS)
def test_every_packet_is_valid_and_as_in_the_series(tmp_path, layer, transport, version):
    flows = series(layer, transport, version)
    result = write_pcap(flows, tmp_path / "x.pcap", transport=transport, ip_version=version)
    found = flows_of(tmp_path / "x.pcap", layer)
    assert (result.flows, result.packets) == (len(flows), int(flows.n_packets.sum())) and len(found) == len(flows)
    for index, packets in enumerate(found):
        times, directions, sizes = (list(column) for column in zip(*packets))
        size, direction, iat = expect(flows, index)
        assert (sizes, directions) == (size, direction)
        assert times[0] == START * 10**9 + index * 10**7
        np.testing.assert_allclose(np.diff(times) / 1e9, iat[1:], atol=1e-9, rtol=0)
    times = [time for time, _, _ in packets_of(tmp_path / "x.pcap")]
    assert times == sorted(times)


def read_back(path, layer="ip", **reading):
    reading = {"idle_timeout": LONG, "active_timeout": LONG, **reading}
    blocks = list(read_capture(path, ReadOptions(length=40, size_layer=layer), label="a", **reading))
    flows = []
    for block in blocks:
        ends = np.cumsum(block.packets.counts)
        for start, end, count in zip(block.facts["start"].to_list(), ends, block.packets.counts):
            rows = slice(end - count, end)
            packets = block.packets
            flows.append((start, packets.size[rows], packets.direction[rows], packets.iat[rows]))
    return sorted(flows, key=lambda flow: flow[0])


@pytest.mark.parametrize(("layer", "transport", "version"), KINDS)
@pytest.mark.parametrize("known", ["flags", "network"])
def test_round_trip_through_the_reader(tmp_path, layer, transport, version, known):
    flows = series(layer, transport, version, client_first=transport == "udp" and known == "flags", seed=3)
    write_pcap(flows, tmp_path / "x.pcap", transport=transport, ip_version=version)
    network = {} if known == "flags" else {"client_network": CLIENT_NETWORK[version]}
    found = read_back(tmp_path / "x.pcap", layer, **network)
    assert len(found) == len(flows)
    for index, (start, sizes, directions, iats) in enumerate(found):
        size, direction, iat = expect(flows, index)
        assert (sizes.tolist(), directions.tolist()) == (size, direction)
        np.testing.assert_allclose(iats, iat, atol=1e-6, rtol=0)
        assert start == pytest.approx(START + index * 0.01, abs=1e-6)


def test_udp_that_the_server_begins_is_turned_round_unless_the_network_of_clients_is_known(tmp_path):
    write_pcap(one([100, 200], [-1, 1]), tmp_path / "x.pcap", transport="udp")
    for network, directions in (({}, [1, -1]), ({"client_network": CLIENT_NETWORK[4]}, [-1, 1])):
        (found,) = read_back(tmp_path / "x.pcap", **network)
        assert found[2].tolist() == directions


def test_a_udp_checksum_of_zero_is_written_as_all_ones(tmp_path):
    n = 1 << 16  # addresses that follow each other go through every checksum
    ones = np.ones((n, 1))
    flows = PacketSeries(
        (28 * ones).astype(np.int16),
        ones.astype(np.int8),
        np.zeros((n, 1), np.float32),
        np.zeros(n, np.int32),
        class_names=("a",),
    )
    write_pcap(flows, tmp_path / "x.pcap", transport="udp")
    frames = np.frombuffer((tmp_path / "x.pcap").read_bytes()[24:], np.uint8).reshape(n, 16 + 14 + 28)
    checksum = np.ascontiguousarray(frames[:, -2:]).view(">u2").ravel()
    assert (checksum != 0).all() and (checksum == 0xFFFF).any()


def test_microseconds_keep_the_time_since_the_first_packet_to_a_microsecond(tmp_path):
    flows = series(n=30)
    write_pcap(flows, tmp_path / "x.pcap", nanosecond=False)
    for index, packets in enumerate(flows_of(tmp_path / "x.pcap", "ip")):
        elapsed = np.array([time for time, _, _ in packets]) - packets[0][0]
        np.testing.assert_allclose(elapsed / 1e9, np.cumsum(expect(flows, index)[2]), atol=1e-6, rtol=0)


def test_the_first_packets_without_payload_are_a_handshake_with_the_options_of_their_size(tmp_path):
    for extra in range(0, 41, 4):
        flows = one([40 + extra, 40 + extra, 52, 500, 52], [1, -1, 1, 1, -1])
        write_pcap(flows, tmp_path / "x.pcap")
        segments = [transport for _, _, transport in packets_of(tmp_path / "x.pcap")]
        syn, ack, push = dpkt.tcp.TH_SYN, dpkt.tcp.TH_ACK, dpkt.tcp.TH_PUSH
        assert [segment.flags for segment in segments] == [syn, syn | ack, ack, push | ack, ack]
        assert [len(segment.opts) for segment in segments[:3]] == [extra, extra, 12]
        assert len(segments[3].opts) == (12 if extra >= 16 else 0)
        kinds = [kind for kind, _ in dpkt.tcp.parse_opts(segments[0].opts)]
        assert (dpkt.tcp.TCP_OPT_MSS in kinds) == (extra >= 4)
        assert (dpkt.tcp.TCP_OPT_TIMESTAMP in kinds) == (extra >= 16)
        assert [kind for kind, _ in dpkt.tcp.parse_opts(segments[2].opts)] == [1, 1, dpkt.tcp.TCP_OPT_TIMESTAMP]


def test_timestamps_echo_the_last_of_the_other_side(tmp_path):
    flows = one([60, 60, 52, 500, 52], [1, -1, 1, 1, -1], [0, 0.01, 0.01, 0.5, 0.02])
    write_pcap(flows, tmp_path / "x.pcap")
    stamps = []
    for time, _, segment in packets_of(tmp_path / "x.pcap"):
        options = dict(dpkt.tcp.parse_opts(segment.opts))
        value, echo = struct.unpack(">II", options[dpkt.tcp.TCP_OPT_TIMESTAMP])
        assert value == time // 10**6 % 2**32
        stamps.append((value, echo))
    assert [echo for _, echo in stamps] == [0, stamps[0][0], stamps[1][0], stamps[1][0], stamps[3][0]]


def test_each_side_acknowledges_what_the_other_has_sent(tmp_path):
    write_pcap(series(seed=5), tmp_path / "x.pcap")
    sent: dict = {}
    for _, ip, segment in packets_of(tmp_path / "x.pcap"):
        here, there = (ip.src, segment.sport, ip.dst), (ip.dst, segment.dport, ip.src)
        moved = len(segment.data) + bool(segment.flags & dpkt.tcp.TH_SYN)
        assert sent.get(here, segment.seq) == segment.seq
        if segment.flags & dpkt.tcp.TH_ACK:
            assert sent.get(there, segment.ack) == segment.ack
        sent[here] = (segment.seq + moved) % 2**32


def test_a_flow_that_the_server_begins_says_so_by_syn_ack_even_with_payload(tmp_path):
    for size in (40, 700):
        write_pcap(one([size, 40, 600], [-1, 1, 1]), tmp_path / "x.pcap")
        first, second, _ = (segment for _, _, segment in packets_of(tmp_path / "x.pcap"))
        assert first.flags == dpkt.tcp.TH_SYN | dpkt.tcp.TH_ACK and len(first.data) == size - 40
        assert second.flags == dpkt.tcp.TH_ACK


def test_a_handshake_put_before_a_flow_is_three_more_packets(tmp_path):
    flows = one([500, 40, 60, 900], [-1, 1, 1, -1], [0, 0.5, 0.25, 0])
    result = write_pcap(flows, tmp_path / "x.pcap", handshake=True)
    (packets,) = flows_of(tmp_path / "x.pcap", "ip")
    flags = [segment.flags for _, _, segment in packets_of(tmp_path / "x.pcap")]
    assert result.packets == 7 and flags[:3] == [2, 18, 16] and not any(flag & 2 for flag in flags[3:])
    assert [packet[1:] for packet in packets] == [
        (1, 60), (-1, 60), (1, 52), (-1, 500), (1, 40), (1, 60), (-1, 900),
    ]  # fmt: skip
    gaps = np.diff([packet[0] for packet in packets])
    assert gaps.tolist() == [20_000_000, 100_000, 100_000, 500_000_000, 250_000_000, 0]
    (found,) = read_back(tmp_path / "x.pcap")
    assert found[2].tolist() == [1, -1, 1, -1, 1, 1, -1]


def test_transports_may_differ_by_flow_and_handshakes_are_for_tcp_only(tmp_path):
    flows = series(n=40)
    transport = np.array(["tcp", "udp"])[np.arange(40) % 2]
    result = write_pcap(flows, tmp_path / "x.pcap", transport=transport, handshake=True)
    assert result.packets == int(flows.n_packets.sum()) + 3 * 20
    numbers = write_pcap(flows, tmp_path / "y.pcap", transport=np.where(transport == "tcp", 6, 17), handshake=True)
    assert numbers == result and (tmp_path / "x.pcap").read_bytes() == (tmp_path / "y.pcap").read_bytes()


@pytest.mark.parametrize(("transport", "version"), list(LEAST))
def test_a_size_below_the_headers_is_refused_by_name_or_dropped(tmp_path, transport, version):
    least = LEAST[transport, version]
    flows = series("ip", transport, version, n=10)
    size = flows.size.copy()
    size[6, 0] = least - 1
    flows = flows.replace(size=size)
    with pytest.raises(
        ConfigError, match=f"flow 7 has {least - 1} bytes in packet 1; .* {transport.upper()} alone are {least}"
    ):
        write_pcap(flows, tmp_path / "x.pcap", transport=transport, ip_version=version)
    assert not list(tmp_path.iterdir())
    result = write_pcap(flows, tmp_path / "x.pcap", transport=transport, ip_version=version, impossible="drop")
    assert result.dropped == {"flows with a packet smaller than its headers": 1} and result.flows == 9
    assert len(flows_of(tmp_path / "x.pcap", "ip")) == 9


def test_flows_without_packets_are_refused_or_dropped(tmp_path):
    flows = series(n=4)
    columns = {name: getattr(flows, name).copy() for name in ("size", "direction", "iat")}
    for values in columns.values():
        values[2] = 0
    flows = flows.replace(**columns)
    with pytest.raises(ConfigError, match="flow 3 has no packets"):
        write_pcap(flows, tmp_path / "x.pcap")
    assert write_pcap(flows, tmp_path / "x.pcap", impossible="drop").dropped == {"flows without packets": 1}


def test_no_flow_at_all_is_a_capture_without_packets(tmp_path):
    for version in (4, 6):
        result = write_pcap(series(n=4)[:0], tmp_path / "x.pcap", ip_version=version)
        assert (result.flows, result.packets, len((tmp_path / "x.pcap").read_bytes())) == (0, 0, 24)


def test_times_and_options_that_no_capture_can_hold_are_refused(tmp_path):
    flows, path = one([60, 60], [1, -1], [0, 5e9]), tmp_path / "x.pcap"
    with pytest.raises(ConfigError, match="1970 to 2106"):
        write_pcap(flows, path)
    flows = series(n=2)
    for wrong in (
        {"start": -1},
        {"start": math.nan},
        {"spacing": -1.0},
        {"spacing": math.nan},
        {"spacing": np.zeros(3)},
        {"transport": "sctp"},
        {"transport": np.array([6, 6, 6])},
        {"ip_version": 5},
        {"impossible": "ignore"},
    ):
        with pytest.raises(ConfigError):
            write_pcap(flows, path, **wrong)
    assert not path.exists()


def test_starts_are_exact_in_nanoseconds_and_may_be_given(tmp_path):
    flows = series(n=3, length=1)
    write_pcap(flows, tmp_path / "x.pcap", start=1_700_000_000.25, spacing=np.array([2.0, 0.5, 0.000001]))
    assert [packets[0][0] for packets in flows_of(tmp_path / "x.pcap", "ip")] == [
        1_700_000_002_250_000_000,
        1_700_000_000_750_000_000,
        1_700_000_000_250_001_000,
    ]


def test_what_was_written_states_the_longest_pause_and_flow(tmp_path):
    result = write_pcap(one([60, 60, 60], [1, -1, 1], [0, 300, 100]), tmp_path / "x.pcap")
    assert (result.longest_pause, result.longest_flow) == (300, 400)


def test_a_compressed_capture_holds_the_same_bytes_and_is_the_same_each_time(tmp_path):
    flows = series(n=20)
    for name in ("x.pcap", "x.pcap.gz", "y.pcap.gz"):
        write_pcap(flows, tmp_path / name)
    packed = (tmp_path / "x.pcap.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "x.pcap").read_bytes()
    assert packed == (tmp_path / "y.pcap.gz").read_bytes()


def test_a_table_of_the_flows_labels_one_capture_of_all_classes(tmp_path):
    for version in (4, 6):
        flows = series(version=version, n=50, seed=2)
        write_pcap(flows, tmp_path / "x.pcap", ip_version=version, labels=tmp_path / "labels.csv")
        with (tmp_path / "labels.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["label"] for row in rows] == [flows.class_names[label] for label in flows.label]
        family = {4: socket.AF_INET, 6: socket.AF_INET6}[version]
        clients = {(socket.inet_pton(family, row["client_address"]), int(row["client_port"])) for row in rows}
        assert len(clients) == 50
        read = read_pcap(tmp_path / "x.pcap", ReadOptions(), idle_timeout=LONG, active_timeout=LONG)
        found = [pair for block in read for pair in zip(block.facts["start"], block.label)]
        assert [label for _, label in sorted(found)] == [row["label"] for row in rows]


def test_a_folder_has_a_capture_and_a_row_for_each_class(tmp_path):
    flows = series(n=60, seed=4, client_first=True)
    transport = np.where(np.arange(60) % 2, 6, 17)
    result = write_pcap_folder(flows, tmp_path / "out", transport=transport)
    assert result.flows == 60
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "labels.csv", "mail.pcap", "video_live.pcap", "voice.pcap",
    ]  # fmt: skip
    found = collections.Counter()
    for path in (tmp_path / "out").glob("*.pcap"):
        for block in read_pcap(path, ReadOptions(), idle_timeout=LONG, active_timeout=LONG):
            found.update(block.label.to_list())
    assert found == {name: int(n) for name, n in zip(flows.class_names, flows.counts())}
    with pytest.raises(DataError, match="not an empty folder"):
        write_pcap_folder(flows, tmp_path / "out")


def test_a_folder_that_fails_is_not_there(tmp_path):
    flows = series(n=60)
    size = flows.size.copy()
    size[np.flatnonzero(flows.label == 2)[0], 0] = 1
    with pytest.raises(ConfigError):
        write_pcap_folder(flows.replace(size=size), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_file_names_of_classes_are_safe_and_distinct():
    taken: set[str] = set()
    names = ["a/b", "a b", "A_B", "../..", "", "con", "nul.x", "é", "x" * 300, ".hidden"]
    assert [safe_name(name, taken) for name in names] == [
        "a_b", "a_b-2", "A_B-3", "_", "class", "con_", "nul.x_", "_-2", "x" * 100, "hidden",
    ]  # fmt: skip


def test_a_file_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_pcap(series(n=2), tmp_path / "file" / "x.pcap")
