"""UTMobileNet2021: flows rebuilt from packets against a plain loop over the CSV, signs, times and layouts."""

import csv
import datetime
import hashlib
import zipfile
from collections import Counter

import numpy as np
import pytest

from jaxtraffic.datasets import utmobilenet
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.simulated.utmobilenet import HEADER, captures, simulate
from jaxtraffic.errors import ConfigError
from tests.datasets.utmobilenet_captures import NAME, PHONE, SERVER, packet, read_one, write

# the row of the reference, literally
SAMPLE = (
    '0,1,"Apr 30, 2019 19:07:17.184823000 CDT",886,68,4,1,6,98:f1:70:7c:4b:27,0000,0x00000800,20.0,0.0,870.0,'
    "0x00004405,0.0,64.0,6.0,0x00001eb4,10.145.31.196,162.125.8.7,32.0,818.0,59576.0,443.0,1.0,1.0,0.0,0.0,406.0,0x000016e0,0.0,"
    '"1,1,8",10,19415791.0,4190900276.0,,,,,,,EER'
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root") / "utmobilenet21"
    simulate(folder, 300, 5)
    return folder


def reference(path, layer="payload"):
    """Flows of a file by a plain loop: key -> list of (nanoseconds, source, size)."""
    flows = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["ip.proto"] not in ("6.0", "17.0"):
                continue
            kind = "tcp" if row["ip.proto"] == "6.0" else "udp"
            source = (row["ip.src"], int(float(row[f"{kind}.srcport"])))
            target = (row["ip.dst"], int(float(row[f"{kind}.dstport"])))
            text, fraction = row["frame.time"].removesuffix(" CDT").split(".")
            # days of the month are padded with a blank, which strptime takes
            local = datetime.datetime.strptime(text, "%b %d, %Y %H:%M:%S").replace(tzinfo=datetime.UTC)
            time = (int(local.timestamp()) + 5 * 3600) * 10**9 + int(fraction)
            length = int(float(row["tcp.len"])) if kind == "tcp" else int(float(row["udp.length"])) - 8
            size = length if layer == "payload" else int(float(row["ip.len"]))
            flows.setdefault((frozenset([source, target]), kind), []).append((time, source, size))
    return list(flows.values())


@pytest.mark.parametrize("layer", ["payload", "ip"])
def test_round_trip_equals_a_plain_loop(simulated, layer):
    n_flows = 0
    for path in utmobilenet.find(simulated):
        block = read_one(path, ReadOptions(length=1_000, size_layer=layer))
        flows = reference(path, layer)
        assert block.size_layer == layer
        assert block.packets.counts.tolist() == [len(flow) for flow in flows]
        assert block.packets.size.tolist() == [size for flow in flows for *_, size in flow]
        # in the simulation the client speaks first
        assert block.packets.direction.tolist() == [
            1 if source == flow[0][1] else -1 for flow in flows for _, source, _ in flow
        ]
        gaps = [(b[0] - a[0]) / 1e9 for flow in flows for a, b in zip([flow[0], *flow], flow)]
        np.testing.assert_allclose(block.packets.iat, gaps, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(block.facts["start"], [flow[0][0] / 1e9 for flow in flows])
        assert set(block.label) == {path.name.split("_")[0]}
        n_flows += len(block)
    assert n_flows == 300


def test_round_trip_equals_the_simulated_traffic(simulated):
    written = Counter()
    for app, traffic in captures(300, 5):
        ends = np.cumsum(traffic.counts)
        for flow, end in enumerate(ends):
            part = slice(end - traffic.counts[flow], end)
            key = (app, traffic.time[part][0] / 1e9, *(traffic.payload * traffic.direction)[part].tolist())
            written[key] += 1
    found = Counter()
    for path in utmobilenet.find(simulated):
        block = read_one(path)
        ends = np.cumsum(block.packets.counts)
        for flow, end in enumerate(ends):
            part = slice(end - block.packets.counts[flow], end)
            signed = block.packets.size.astype(int) * block.packets.direction
            found[(block.label[flow], block.facts["start"][flow], *signed[part].tolist())] += 1
    assert found == written


def test_the_row_of_the_reference(tmp_path):
    path = write(tmp_path, [])
    path.write_text(f"{HEADER}\n{SAMPLE}\n")
    block = read_one(path)
    assert (block.packets.size.tolist(), block.packets.direction.tolist(), block.label.to_list()) == (
        [818], [1], ["dropbox"],
    )  # fmt: skip
    # 19:07:17 CDT is 00:07:17 UTC of the next day
    expected = datetime.datetime(2019, 5, 1, 0, 7, 17, 184_823, tzinfo=datetime.UTC).timestamp()
    facts = block.facts.row(0, named=True)
    assert facts["start"] == pytest.approx(expected, abs=1e-6)
    assert facts == facts | {
        "activity": "man-download", "partition": "Wild Test Data", "capture": f"Wild Test Data/{NAME}", "protocol": 6,
        "client_port": 59_576, "server_port": 443, "is_dns": False, "has_handshake": False, "packets": 1,
    }  # fmt: skip
    assert read_one(path, ReadOptions(size_layer="ip")).packets.size.tolist() == [870]


def test_trap_1_utmobilenet_times_are_inter_arrival_times_and_not_times_since_the_first_packet(tmp_path):
    path = write(tmp_path, [packet(0), packet(100), packet(300)])
    np.testing.assert_allclose(read_one(path).packets.iat, [0.0, 0.1, 0.2], atol=1e-12)


def test_trap_2_utmobilenet_direction_is_plus_one_from_the_client(tmp_path):
    # under way when the capture begins: the server is seen first, the phone is the client all the same
    joined = [packet(0, up=False, payload=1_000), packet(1, up=True, payload=0), packet(2, up=False, payload=900)]
    assert read_one(write(tmp_path, joined)).packets.direction.tolist() == [-1, 1, -1]
    # the same between two private or two public addresses: the first sender
    for phone, server in ((PHONE, "192.168.1.1"), ("128.83.1.1", SERVER)):
        rows = [row | {} for row in (packet(n, up=n % 2 == 1, phone=phone, server=server, payload=9) for n in range(3))]
        assert read_one(write(tmp_path, rows)).packets.direction.tolist() == [1, -1, 1]
    # a connection from outside to the phone: who sent the SYN is the client
    rows = [packet(n, up=n % 2 == 1, payload=0) for n in range(3)] + [packet(3, up=False, payload=50)]
    block = read_one(write(tmp_path, rows))
    assert block.packets.direction.tolist() == [1, -1, 1, 1]
    assert block.facts["client_port"].to_list() == [443]


@pytest.mark.parametrize(
    ("address", "private"),
    [("10.0.0.1", True), ("172.16.0.1", True), ("172.32.0.1", False), ("192.168.3.4", True), ("100.64.0.1", True),
     ("100.128.0.1", False), ("11.0.0.1", False), ("162.125.8.7", False)],
)  # fmt: skip
def test_private_addresses(address, private):
    number = int.from_bytes(bytes(map(int, address.split("."))))
    assert utmobilenet.is_private(np.array([number])).tolist() == [private]


def test_trap_3_utmobilenet_epoch_times_keep_their_nanoseconds(tmp_path):
    times = ("Apr 30, 2019 19:07:17.000000001 CDT", "Apr 30, 2019 19:07:17.000000130 CDT")
    block = read_one(write(tmp_path, [packet(**{"frame.time": time}) for time in times]))
    np.testing.assert_allclose(block.packets.iat, [0, 129e-9], rtol=1e-9)
    assert block.facts["start"].dtype.is_float() and block.facts["start"].to_numpy().dtype == np.float64


def test_trap_10_utmobilenet_size_0_and_iat_0_in_the_middle_survive(tmp_path):
    rows = [packet(0, payload=100), packet(0, payload=0), packet(0, up=False, payload=7), packet(5, payload=3)]
    block = read_one(write(tmp_path, rows))
    assert block.size_layer == "payload"
    assert block.packets.size.tolist() == [100, 0, 7, 3]
    assert block.packets.iat.tolist() == [0, 0, 0, 0.005]
    kept = read_one(write(tmp_path, rows), ReadOptions(payload_only=True))
    assert kept.packets.size.tolist() == [100, 7, 3]
    assert kept.dropped == {"packets without payload": 1}


def test_flows_of_two_files_are_never_joined(tmp_path):
    rows = [packet(0, payload=5), packet(1, payload=6)]
    paths = [write(tmp_path, rows, name=NAME.replace("09_4", f"0{n}_4")) for n in (1, 2)]
    assert [len(read_one(path)) for path in paths] == [1, 1]


def test_packets_are_put_in_order_of_time_and_flows_by_protocol(tmp_path):
    rows = [
        packet(9, payload=2),
        packet(3, payload=1),
        packet(4, tcp=False, payload=0),
        packet(5, tcp=False, payload=8),
    ]
    block = read_one(write(tmp_path, rows))
    assert block.packets.counts.tolist() == [2, 2]
    assert block.packets.size.tolist() == [1, 2, 0, 8]
    assert block.facts["protocol"].to_list() == [6, 17]
    assert block.facts["has_handshake"].to_list() == [False, None]


@pytest.mark.slow
def test_blocks_of_a_large_file_are_put_together(tmp_path, monkeypatch, simulated):
    path = utmobilenet.find(simulated)[3]
    whole = read_one(path)
    monkeypatch.setattr("jaxtraffic.datasets.csv_blocks.BLOCK_BYTES", 900)
    parts = read_one(path)
    assert parts.facts.equals(whole.facts)
    np.testing.assert_array_equal(parts.packets.size, whole.packets.size)


@pytest.mark.slow
def test_zip_as_downloaded_gives_the_same_flows(simulated, tmp_path):
    paths = utmobilenet.find(simulated)
    archive = tmp_path / "utmobilenet21" / "UTMobileNet2021.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in paths:
            target.write(path, path.relative_to(simulated))
        target.writestr("__MACOSX/csvs/Wild Test Data/._" + NAME, b"\0\5")
        target.writestr("csvs/notes.csv", b"a,b\n")
    assert utmobilenet.find(tmp_path) == utmobilenet.find(archive) == [archive]
    blocks = list(utmobilenet.read(archive, ReadOptions()))
    plain = {
        name: block for path in paths for block in [read_one(path, ReadOptions())] for name in block.facts["capture"]
    }
    assert len(blocks) == len(paths)
    for block in blocks:
        assert block.facts.equals(plain[block.facts["capture"][0]].facts)


def test_find_takes_roots_and_parts_and_leaves_other_sets(simulated, tmp_path):
    every = utmobilenet.find(simulated)
    assert every and every == sorted(every)
    assert utmobilenet.find(simulated.parent) == every
    folder = every[0].parent
    assert utmobilenet.find(folder) == [path for path in every if path.parent == folder]
    assert utmobilenet.find(every[0]) == [every[0]]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "flows.csv").write_text("x\n")
    (tmp_path / "pretraining.zip").write_bytes(b"")
    assert utmobilenet.find(tmp_path) == utmobilenet.find(tmp_path / "other" / "flows.csv") == []
    assert utmobilenet.find(tmp_path / "nowhere") == []


def test_simulation_is_deterministic_and_has_every_quirk(tmp_path, simulated):
    simulate(tmp_path, 300, 5)
    digests = [
        {path.relative_to(folder): hashlib.md5(path.read_bytes()).digest() for path in utmobilenet.find(folder)}
        for folder in (tmp_path, simulated)
    ]
    assert digests[0] == digests[1]
    texts = [path.read_text() for path in digests[0] and utmobilenet.find(simulated)]
    headers = {text.split("\n", 1)[0] for text in texts}
    assert headers == {HEADER, HEADER.removesuffix(",location")}
    assert any('"1.0,6.0"' in text or '"1.0,17.0"' in text for text in texts)
    assert {path.parts[-2] for path in digests[0]} >= {"Deterministic Automated Data", "Randomized Automated Data"}


def test_an_unknown_layer_is_refused(simulated):
    with pytest.raises(ConfigError):
        read_one(utmobilenet.find(simulated)[0], ReadOptions(size_layer="frame"))
