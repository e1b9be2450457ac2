import collections
import gzip
import io
import pickle
import time
import zipfile

import dpkt
import numpy as np
import pytest

from jaxtraffic.datasets.capture.files import has_magic
from jaxtraffic.datasets.capture.iscx_names import WORDS, meaning
from jaxtraffic.datasets.capture.sets import ISCX_LABELS, ISCX_VPN, PCAP, UNSW24
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.simulated.captures import ISCX_FILES, LYING, PLATFORMS, SERVICES
from jaxtraffic.datasets.simulated.traffic import simulate_traffic
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies

OPTIONS = ReadOptions(length=1_000)
WHOLE = {"idle_timeout": 1e9, "active_timeout": 1e9}
MAGIC = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")

# the names of the 140 captures, as in listings of the archives by those who use them, and of those over Tor
LISTING = """
AIMchat1 AIMchat2 ICQchat1 ICQchat2 aim_chat_3a aim_chat_3b email1a email1b email2a email2b facebook_audio1a
facebook_audio1b facebook_audio2a facebook_audio2b facebook_audio3 facebook_audio4 facebook_chat_4a facebook_chat_4b
facebook_video1a facebook_video1b facebook_video2a facebook_video2b facebookchat1 facebookchat2 facebookchat3
ftps_down_1a ftps_down_1b ftps_up_2a ftps_up_2b gmailchat1 gmailchat2 gmailchat3 hangout_chat_4b hangouts_audio1a
hangouts_audio1b hangouts_audio2a hangouts_audio2b hangouts_audio3 hangouts_audio4 hangouts_chat_4a hangouts_video1b
hangouts_video2a hangouts_video2b icq_chat_3a icq_chat_3b netflix1 netflix2 netflix3 netflix4 scp1 scpDown1 scpDown2
scpDown3 scpDown4 scpDown5 scpDown6 scpUp1 scpUp2 scpUp3 scpUp5 scpUp6 sftp1 sftpDown1 sftpDown2 sftpUp1 sftp_down_3a
sftp_down_3b sftp_up_2a sftp_up_2b skype_audio1a skype_audio1b skype_audio2a skype_audio2b skype_audio3 skype_audio4
skype_chat1a skype_chat1b skype_file1 skype_file2 skype_file3 skype_file4 skype_file5 skype_file6 skype_file7
skype_file8 skype_video1a skype_video1b skype_video2a skype_video2b spotify1 spotify2 spotify3 spotify4 vimeo1 vimeo2
vimeo3 vimeo4 voipbuster1b voipbuster2b voipbuster3b voipbuster_4a voipbuster_4b youtube1 youtube2 youtube3 youtube4
youtube5 youtube6 youtubeHTML5_1 Torrent01 torFacebook torGoogle torTwitter torVimeo1 torVimeo2 torVimeo3 torYoutube1
torYoutube2 torYoutube3 vpn_aim_chat1a vpn_aim_chat1b vpn_bittorrent vpn_email2a vpn_email2b vpn_facebook_audio2
vpn_facebook_chat1a vpn_facebook_chat1b vpn_ftps_A vpn_ftps_B vpn_hangouts_audio1 vpn_hangouts_audio2
vpn_hangouts_chat1a vpn_hangouts_chat1b vpn_icq_chat1a vpn_icq_chat1b vpn_netflix_A vpn_sftp_A vpn_sftp_B
vpn_skype_audio1 vpn_skype_audio2 vpn_skype_chat1a vpn_skype_chat1b vpn_skype_files1a vpn_skype_files1b vpn_spotify_A
vpn_vimeo_A vpn_vimeo_B vpn_voipbuster1a vpn_voipbuster1b vpn_youtube_A
"""
NAMES = LISTING.split()


def frames_of(path):
    """(nanoseconds, IP packet) of a capture by dpkt, and whether it is pcapng, and its link type."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    is_ng = data[:4] == b"\x0a\x0d\x0d\x0a"
    reader = (dpkt.pcapng if is_ng else dpkt.pcap).Reader(io.BytesIO(data))
    link = reader.datalink()
    parse = {1: lambda frame: dpkt.ethernet.Ethernet(frame).data, 101: dpkt.ip.IP}[link]
    return [(float(stamp), parse(frame)) for stamp, frame in reader], is_ng, link


def flows_by_hand(path):
    """Flows of a capture in order of start: (server port, directions, IP sizes, times)."""
    flows = collections.defaultdict(lambda: ([], [], []))
    for stamp, ip in frames_of(path)[0]:
        segment = ip.data
        up = segment.dport < 1_024
        key = (ip.p, ip.src, segment.sport, ip.dst, segment.dport)
        key = key if up else (ip.p, ip.dst, segment.dport, ip.src, segment.sport)
        directions, sizes, times = flows[key]
        directions.append(1 if up else -1)
        sizes.append(ip.len if isinstance(ip, dpkt.ip.IP) else ip.plen + 40)
        times.append(stamp)
    return sorted(((key[4], *values) for key, values in flows.items()), key=lambda flow: flow[3][0])


def read_flows(dataset, path, **reading):
    """Flows of a source in order of start: (label, facts, directions, sizes, IATs)."""
    flows = []
    for block in dataset.read(path, OPTIONS, **{**WHOLE, **reading}):
        packets, ends = block.packets, np.cumsum(block.packets.counts)
        for label, facts, end, count in zip(block.label, block.facts.to_dicts(), ends, packets.counts):
            rows = slice(end - count, end)
            flows.append((label, facts, packets.direction[rows], packets.size[rows], packets.iat[rows]))
    return sorted(flows, key=lambda flow: flow[1]["start"])


@pytest.mark.parametrize("dataset", [PCAP, UNSW24, ISCX_VPN], ids=lambda dataset: dataset.name)
def test_simulated_captures_read_as_they_are(tmp_path, dataset):
    dataset.simulate(tmp_path, 200, 7)
    total = 0
    for path in dataset.find(tmp_path):
        found, expected = read_flows(dataset, path), flows_by_hand(path)
        assert len(found) == len(expected)
        total += len(found)
        for (_, facts, direction, size, iat), (port, directions, sizes, times) in zip(found, expected):
            assert (direction.tolist(), size.tolist(), facts["server_port"]) == (directions, sizes, port)
            np.testing.assert_allclose(iat[1:], np.diff(times), atol=1e-6)
            assert facts["start"] == pytest.approx(times[0], abs=1e-6)
            assert facts["is_dns"] == (port == 53)
    assert total == 200


def test_simulated_captures_hold_the_simulated_traffic(tmp_path):
    PCAP.simulate(tmp_path, 200, 7)
    found = sorted(
        (flow for path in PCAP.find(tmp_path) for flow in read_flows(PCAP, path)), key=lambda flow: flow[1]["start"]
    )
    traffic = simulate_traffic(200, seed=(7, 1, 0), n_apps=5, start=1.7e9, dns=True)
    ends = np.cumsum(traffic.counts)
    order = np.argsort(traffic.time[ends - traffic.counts], kind="stable")
    assert [flow[0] for flow in found] == [f"app_{app + 1}" for app in traffic.app[order]]
    for (_, facts, direction, size, iat), index in zip(found, order):
        rows = slice(ends[index] - traffic.counts[index], ends[index])
        assert direction.tolist() == traffic.direction[rows].tolist()
        assert size.tolist() == (traffic.payload[rows] + traffic.header[rows]).tolist()
        np.testing.assert_allclose(iat, traffic.iat[rows], atol=1e-9)
        ports = traffic.client_port[index], traffic.server_port[index]
        assert (facts["client_port"], facts["server_port"], facts["protocol"]) == (*ports, traffic.protocol[index])


@pytest.mark.parametrize("dataset", [PCAP, UNSW24, ISCX_VPN], ids=lambda dataset: dataset.name)
def test_the_same_seed_gives_the_same_bytes(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr("jaxtraffic.datasets.simulated.captures.BATCH", 40)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        dataset.simulate(tmp_path / name, 100, seed)
    contents = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in dataset.find(tmp_path / name)}
        for name in "abc"
    ]
    assert contents[0] == contents[1] and contents[0] != contents[2]
    assert sum(len(read_flows(dataset, path, idle_timeout=3_600)) for path in dataset.find(tmp_path / "a")) == 100


def test_unsw24_says_service_device_and_application(tmp_path):
    UNSW24.simulate(tmp_path, 300, 0)
    paths = UNSW24.find(tmp_path)
    assert len(paths) == len(SERVICES) * len(PLATFORMS)
    seen = set()
    for path in paths:
        for label, facts, *_ in read_flows(UNSW24, path):
            seen.add((label, facts["device"], facts["activity"]))
            assert facts["capture"] == f"{label}_collection/pcap/{facts['device']}/{facts['activity']}.pcapng"
    assert seen == {(service, *platform) for service in SERVICES for platform in PLATFORMS}
    assert UNSW24.published.classes == len(SERVICES)
    assert {flow[0] for flow in read_flows(UNSW24, paths[0], label="{device} {application}")} == {"android app"}
    for label in ("{agent}", "service", "{service"):
        with pytest.raises(ConfigError):
            read_flows(UNSW24, paths[0], label=label)


def test_unsw24_is_found_from_every_level_and_nothing_else_is(tmp_path):
    UNSW24.simulate(tmp_path / "unsw24", 300, 0)
    every = UNSW24.find(tmp_path)
    assert every == UNSW24.find(tmp_path / "unsw24") and len(every) == 24
    service = tmp_path / "unsw24" / "youtube_collection"
    assert len(UNSW24.find(service)) == len(UNSW24.find(service / "pcap")) == 6
    assert UNSW24.find(service / "pcap" / "win" / "chrome.pcapng") == [service / "pcap" / "win" / "chrome.pcapng"]
    for other in ("youtube_collection/pcap/chrome.pcapng", "youtube/pcap/win/chrome.pcapng", "x.pcapng"):
        path = tmp_path / "other" / other
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MAGIC)
        assert UNSW24.find(path) == []
    assert UNSW24.find(tmp_path) == every
    assert UNSW24.find(tmp_path / "nowhere") == []
    with pytest.raises(DataError, match="no path of UNSW24"):
        read_flows(UNSW24, tmp_path / "other" / "x.pcapng")


def test_the_table_knows_every_name_of_iscx():
    assert len(NAMES) == 150
    assert {name for name in NAMES if meaning(name) is None} == set()
    assert sum(meaning(name).vpn == "vpn" for name in NAMES) == 31
    assert {meaning(name)[:2] for name in NAMES} == set(WORDS.values())
    assert {name.split(".")[0] for names in ISCX_FILES.values() for name in names} <= set(NAMES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AIMchat1", ("aim", "chat", "nonvpn")),
        ("aim_chat_3a", ("aim", "chat", "nonvpn")),
        ("hangout_chat_4b", ("hangouts", "chat", "nonvpn")),
        ("hangouts_audio1b", ("hangouts", "voip", "nonvpn")),
        ("facebookvideo1b", ("facebook", "video", "nonvpn")),
        ("gmailchat1", ("gmail", "chat", "nonvpn")),
        ("youtubeHTML5_1", ("youtube", "streaming", "nonvpn")),
        ("Torrent01", ("bittorrent", "p2p", "nonvpn")),
        ("torTwitter", ("tor", "browsing", "nonvpn")),
        ("torYoutube3", ("tor", "streaming", "nonvpn")),
        ("scpDown6", ("scp", "file transfer", "nonvpn")),
        ("vpn_netflix_A", ("netflix", "streaming", "vpn")),
        ("vpn_bittorrent", ("bittorrent", "p2p", "vpn")),
        ("vpn_skype_files1a", ("skype", "file transfer", "vpn")),
        ("vpn_ftps_B", ("ftps", "file transfer", "vpn")),
    ],
)
def test_names_of_iscx_mean(name, expected):
    assert meaning(name) == expected


@pytest.mark.parametrize(
    "name", ["netflix", "youtube", "email", "chrome", "vpn", "", "youtube_2024_05", "skype", "email1z"]
)
def test_names_of_others_mean_nothing(name):
    assert meaning(name) is None


def test_iscx_has_three_kinds_of_labels(tmp_path):
    ISCX_VPN.simulate(tmp_path, 400, 0)
    path = tmp_path / "VPN-PCAPs-02" / "vpn_skype_audio1.pcap"
    facts = {"activity": "skype", "category": "voip", "partition": "vpn", "capture": "vpn_skype_audio1.pcap"}
    for label, expected in zip(ISCX_LABELS, ("skype", "voip", "vpn")):
        flows = read_flows(ISCX_VPN, path, label=label)
        assert flows and {flow[0] for flow in flows} == {expected}
        assert all(flow[1].items() >= facts.items() for flow in flows)
    with pytest.raises(ConfigError, match="one of application"):
        read_flows(ISCX_VPN, path, label="colour")


def test_iscx_captures_have_two_link_types_and_endings_that_lie(tmp_path):
    ISCX_VPN.simulate(tmp_path, 400, 0)
    links, lying = collections.Counter(), set()
    for path in ISCX_VPN.find(tmp_path):
        _, is_ng, link = frames_of(path)
        links[link, "VPN-PCAP" in path.parent.name and "Non" not in path.parent.name] += 1
        if is_ng != (path.suffix == ".pcapng"):
            lying.add(path.name)
    assert lying == set(LYING)
    assert links == {(1, False): 45, (101, True): 29, (1, True): 2}


def test_iscx_is_found_in_its_folders_and_by_its_names(tmp_path):
    ISCX_VPN.simulate(tmp_path / "iscx", 400, 0)
    every = ISCX_VPN.find(tmp_path)
    assert every == sorted(every) and len(every) == 76
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("aim_chat_3a.pcap", "netflix.pcap", "vpn_netflix_A", ".email1a.pcap", "email1b.txt"):
        (flat / name).write_bytes(MAGIC)
    (flat / "youtube1.txt").write_text("no capture")
    assert [path.name for path in ISCX_VPN.find(flat)] == ["aim_chat_3a.pcap", "email1b.txt", "vpn_netflix_A"]
    (tmp_path / "iscx" / "NonVPN-PCAPs-01" / "mystery.pcap").write_bytes(MAGIC)
    (mystery,) = set(ISCX_VPN.find(tmp_path / "iscx")) - set(every)
    with pytest.raises(DataError, match="mystery.pcap: a name that the table"):
        read_flows(ISCX_VPN, mystery)


def test_iscx_archives_are_read_as_their_folders(tmp_path):
    ISCX_VPN.simulate(tmp_path / "unpacked", 300, 0)
    (tmp_path / "packed").mkdir()
    for folder in (tmp_path / "unpacked").iterdir():
        with zipfile.ZipFile(tmp_path / "packed" / f"{folder.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
            archive.writestr("__MACOSX/._aim_chat_3a.pcap", b"xx")
            archive.writestr("readme.txt", b"xx")
    sources = ISCX_VPN.find(tmp_path / "packed")
    assert [path.name for path in sources] == sorted(f"{name}.zip" for name in ISCX_FILES)
    assert ISCX_VPN.find(sources[0]) == sources[:1]
    names = collections.Counter(
        (flow[0], flow[1]["capture"], flow[3].size) for path in sources for flow in read_flows(ISCX_VPN, path)
    )
    plain = collections.Counter(
        (flow[0], flow[1]["capture"], flow[3].size)
        for path in ISCX_VPN.find(tmp_path / "unpacked")
        for flow in read_flows(ISCX_VPN, path)
    )
    assert names == plain and names.total() == 300


def test_captures_are_found_by_their_first_bytes(tmp_path):
    heads = ("d4c3b2a1", "a1b2c3d4", "4d3cb2a1", "a1b23c4d", "0a0d0d0a")
    for number, head in enumerate(heads):
        (tmp_path / f"{number}.bin").write_bytes(bytes.fromhex(head) + bytes(20))
        (tmp_path / f"{number}").write_bytes(gzip.compress(bytes.fromhex(head) + bytes(2_000)))
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"text"))
    (tmp_path / "cut.gz").write_bytes(b"\x1f\x8b\x08")
    (tmp_path / "damaged.pcap").write_text("text")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.pcap").write_bytes(MAGIC)
    found = [path.name for path in PCAP.find(tmp_path)]
    assert found == ["0", "0.bin", "1", "1.bin", "2", "2.bin", "3", "3.bin", "4", "4.bin", "damaged.pcap"]
    assert not has_magic(tmp_path / "nowhere") and PCAP.find(tmp_path / "nowhere") == []
    assert PCAP.find(tmp_path / "0") == [tmp_path / "0"] and PCAP.find(tmp_path / "text.txt") == []
    with pytest.raises(DataError, match="damaged.pcap"):
        read_flows(PCAP, tmp_path / "damaged.pcap")


def test_thousands_of_files_are_looked_through_quickly(tmp_path):
    for number in range(3_000):
        (tmp_path / f"{number:04}.{('bin', 'pcap', 'txt')[number % 3]}").write_bytes(
            MAGIC if number % 3 < 2 else b"text"
        )
    begin = time.perf_counter()
    assert len(PCAP.find(tmp_path)) == 2_000
    assert time.perf_counter() - begin < 2


def test_own_captures_are_labelled_by_folder_file_template_or_table(tmp_path):
    PCAP.simulate(tmp_path, 100, 0)
    path = tmp_path / "app_2" / "app_2_3.pcap.gz"

    def labels(**reading):
        return {flow[0] for flow in read_flows(PCAP, path, **reading)}

    assert labels() == labels(label="folder") == {"app_2"}
    assert labels(label="file") == {"app_2_3"}
    assert labels(label="{device}/{}_{activity}_{label}.pcap.gz", compose="{device}-{label}") == {"app_2-3"}
    (_, facts, *_), *_ = read_flows(PCAP, path, label="{device}/{}_{activity}_{label}.pcap.gz")
    assert (facts["device"], facts["activity"]) == ("app_2", "2")
    assert facts["capture"].endswith("app_2/app_2_3.pcap.gz")
    (tmp_path / "labels.json").write_text('{"app_2/app_2_3.pcap.gz": "mine", "app_2_1.pcap": "mine"}')
    assert labels() == {"mine"}
    assert read_flows(PCAP, path, label="file")[0][1]["capture"] is None  # a capture that is a whole class


def test_captures_and_flows_without_label_are_refused_or_counted(tmp_path):
    PCAP.simulate(tmp_path, 200, 0)
    path = tmp_path / "app_1" / "app_1_1.pcap"
    with pytest.raises(DataError, match="nothing says what its label is"):
        read_flows(PCAP, path, label="{label}.pcapng")
    (block,) = PCAP.read(path, OPTIONS, label="{label}.pcapng", unlabelled="drop")
    assert (len(block), block.dropped) == (0, {"captures without a label": 1})
    flows = flows_by_hand(path)
    n_others = sum(port != 443 for port, *_ in flows)
    assert 0 < n_others < len(flows)
    table = tmp_path / "t.csv"
    table.write_text("server_port,label\n443,secure\n")
    with pytest.raises(DataError, match="a flow is not in the table of labels.*'server_port': (80|53)"):
        read_flows(PCAP, path, label=str(table))
    blocks = list(PCAP.read(path, OPTIONS, label=str(table), unlabelled="drop", **WHOLE))
    assert sum(map(len, blocks)) == len(flows) - n_others
    assert sum(block.dropped.get("flows without a label", 0) for block in blocks) == n_others
    with pytest.raises(ConfigError, match="unlabelled must be"):
        read_flows(PCAP, path, unlabelled="ignore")


@pytest.mark.parametrize("dataset", [PCAP, UNSW24, ISCX_VPN], ids=lambda dataset: dataset.name)
def test_sizes_are_of_the_layer_that_is_asked_for(tmp_path, dataset):
    dataset.simulate(tmp_path, 100, 0)
    path = dataset.find(tmp_path)[0]
    layers = {layer: list(dataset.read(path, ReadOptions(size_layer=layer))) for layer in dataset.size_layers}
    assert [{block.size_layer for block in blocks} for blocks in layers.values()] == [{"ip"}, {"payload"}]
    ip, payload = (np.concatenate([block.packets.size for block in blocks]) for blocks in layers.values())
    assert (ip - payload >= 28).all() and (payload == 0).any()


def test_readers_can_be_pickled():
    for dataset in (PCAP, UNSW24, ISCX_VPN):
        assert pickle.loads(pickle.dumps((dataset.read, dataset.find))) == (dataset.read, dataset.find)


def damage(tmp_path, n):
    PCAP.simulate(tmp_path / "whole", 30, 0)
    outcomes = set()
    for whole in PCAP.find(tmp_path / "whole")[:3]:
        for number, copy in enumerate(mutated_copies(whole.read_bytes()[:20_000], n, seed=3)):
            path = tmp_path / f"{number}{whole.name}"
            path.write_bytes(copy)
            try:
                read_flows(PCAP, path, allow_truncated=True)
                outcomes.add("read")
            except JaxTrafficError:
                outcomes.add("refused")
            path.unlink()
    assert outcomes == {"read", "refused"}


def test_damaged_captures_raise_nothing_but_our_errors(tmp_path):
    damage(tmp_path, 20)


@pytest.mark.slow
def test_many_damaged_captures_raise_nothing_but_our_errors(tmp_path):
    damage(tmp_path, 700)
