"""MIRAGE-2019 and MIRAGE-22: what is read is what a plain loop over the JSON finds."""

import io
import json
import zipfile

import polars as pl
import pytest

from jaxtraffic.datasets.flow_block import FACTS, ReadOptions
from jaxtraffic.datasets.mirage import json_flows as mirage_json
from jaxtraffic.datasets.mirage import sets as mirage
from jaxtraffic.datasets.mirage.sets import MIRAGE19, MIRAGE22
from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.simulated import mirage as simulated
from jaxtraffic.datasets.simulated.traffic import simulate_traffic
from jaxtraffic.errors import ConfigError
from tests.datasets.mirage.raw_files import NAME22, NAN, WAZE, WHOLE, document, entry, one, refused, write

N = 300


def as_rows(blocks):
    """(label, [(size, direction, iat)], facts) of each flow."""
    rows = []
    for block in blocks:
        packets = block.packets
        for at, begin in enumerate(starts_of(packets.counts).tolist()):
            span = slice(begin, begin + int(packets.counts[at]))
            values = (packets.size[span], packets.direction[span], packets.iat[span])
            rows.append((block.label[at], list(zip(*(v.tolist() for v in values))), block.facts.row(at, named=True)))
    return rows


def by_plain_loop(documents, sizes="L4_payload_bytes"):
    """The same by a loop over (folder, name, text), which knows nothing of the reader."""
    rows = []
    for folder, name, text in documents:
        for key, value in json.loads(text).items():
            lists, metadata = value["packet_data"], value["flow_metadata"]
            label = metadata["BF_label"]
            if label.lower() != name.split("_")[1].lower() or metadata.get("BF_activity") == "Unknown":
                label = "background"
            packets = []
            for at in range(len(lists["packet_dir"])):
                sign = {0: 1, 1: -1}[lists["packet_dir"][at]]
                packets.append((lists[sizes][at], sign, lists["iat"][at]))
            _, client_port, _, server_port, protocol = key.split(",")
            facts = {
                "packets": metadata["BF_num_packets"],
                "capture": f"{folder}/{name}",
                "protocol": int(protocol),
                "client_port": int(client_port),
                "server_port": int(server_port),
                "is_background": label == "background",
                "device": metadata.get("BF_device", folder),
            }
            if "timestamp" in lists:
                facts |= {"start": lists["timestamp"][0], "activity": metadata["BF_activity"]}
            rows.append((label, packets, facts))
    return rows


def check_equal(found, expected):
    assert len(found) == len(expected) > 0
    for (label, packets, facts), (label_, packets_, facts_) in zip(found, expected, strict=True):
        assert (label, packets) == (label_, packets_)
        assert {name: facts[name] for name in facts_} == facts_


def read_all(dataset, place, options=WHOLE):
    return [block for source in dataset.find(place) for block in dataset.read(source, options)]


def documents22(folder):
    for path in sorted(folder.rglob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                yield path.stem, name.split("/")[-1], archive.read(name)


@pytest.fixture(scope="module")
def place19(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirage19")
    MIRAGE19.simulate(folder / "folder", N, 5)
    MIRAGE19.simulate(folder / "packed", N, 5, packed=True)
    return folder


@pytest.fixture(scope="module")
def place22(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirage22")
    MIRAGE22.simulate(folder / "folder", N, 5)
    MIRAGE22.simulate(folder / "packed", N, 5, packed=True)
    return folder


def test_mirage19_is_what_a_plain_loop_finds(place19):
    paths = sorted((place19 / "folder").rglob("*.json"))
    expected = by_plain_loop((path.parent.name, path.name, path.read_text()) for path in paths)
    check_equal(as_rows(read_all(MIRAGE19, place19 / "folder")), expected)
    assert {path.parent.name for path in paths} == set(simulated.DEVICES19)
    assert max(len(packets) for _, packets, _ in expected) == 32 < max(row["packets"] for *_, row in expected)


def test_mirage19_archive_reads_as_the_folder(place19):
    packed = as_rows(read_all(MIRAGE19, place19 / "packed"))
    order = {f"{path.parent.name}/{path.name}": at for at, path in enumerate(MIRAGE19.find(place19 / "folder"))}
    packed.sort(key=lambda row: order[row[2]["capture"]])
    assert packed == as_rows(read_all(MIRAGE19, place19 / "folder"))


@pytest.mark.parametrize(("layer", "sizes"), [(None, "L4_payload_bytes"), ("ip", "IP_packet_bytes")])
def test_mirage22_is_what_a_plain_loop_finds(place22, layer, sizes):
    blocks = read_all(MIRAGE22, place22 / "folder", ReadOptions(length=10_000, size_layer=layer))
    check_equal(as_rows(blocks), by_plain_loop(documents22(place22 / "folder"), sizes))
    assert {block.size_layer for block in blocks} == {layer or "payload"}


def test_mirage22_outer_zip_and_unpacked_files_read_as_the_zips(place22, tmp_path):
    expected = as_rows(read_all(MIRAGE22, place22 / "folder"))
    assert as_rows(read_all(MIRAGE22, place22 / "packed")) == expected
    for app, name, text in documents22(place22 / "folder"):
        write(tmp_path / "Raw_JSON" / app, text, name)
    assert as_rows(read_all(MIRAGE22, tmp_path)) == expected


@pytest.mark.parametrize("year", [19, 22])
def test_flows_are_those_simulated(year, place19, place22):
    dataset, place, settings, kept = (
        (MIRAGE19, place19, simulated.YEAR19, 32) if year == 19 else (MIRAGE22, place22, simulated.YEAR22, 10_000)
    )
    expected = []
    for batch, first in enumerate(range(0, N, 50)):
        traffic = simulate_traffic(
            min(50, N - first),
            seed=(year, 5, batch),
            n_apps=len(settings.classes),
            start=settings.start + batch * (len(settings.classes) - 1) * 60,
            max_packets=settings.max_packets,
        )
        for at, begin in enumerate(starts_of(traffic.counts).tolist()):
            span = slice(begin, begin + min(int(traffic.counts[at]), kept))
            iat = [round(gap, 6) for gap in traffic.iat[span].tolist()]
            packets = list(zip(traffic.payload[span].tolist(), traffic.direction[span].tolist(), iat, strict=True))
            expected.append((settings.classes[traffic.app[at]], packets))
    found = as_rows(read_all(dataset, place / "folder"))
    assert sorted((label, packets) for label, packets, _ in found) == sorted(expected)
    assert dataset.published.flows_per_class.keys() == set(settings.classes)


def test_same_seed_gives_the_same_bytes(tmp_path):
    for dataset, packed in ((MIRAGE19, False), (MIRAGE19, True), (MIRAGE22, False), (MIRAGE22, True)):
        contents = []
        for at in range(3):
            folder = tmp_path / f"{dataset.name}-{packed}-{at}"
            dataset.simulate(folder, 40, at // 2, packed=packed)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            contents.append([(str(path.relative_to(folder)), path.read_bytes()) for path in files])
        assert contents[0] == contents[1] != contents[2]


def test_published_totals_include_background():
    assert (MIRAGE19.published.flows, MIRAGE19.published.classes) == (122_007, 21)
    assert (MIRAGE22.published.flows, MIRAGE22.published.classes) == (59_071, 10)


def test_trap_2_mirage_direction_0_is_upload(tmp_path):
    block = one(write(tmp_path, document(entry(3, packet_dir=[0, 1, 0]))))
    assert block.packets.direction.tolist() == [1, -1, 1]


def test_trap_10_a_real_acknowledgement_of_size_0_and_iat_0_survives(tmp_path):
    path = write(tmp_path, document(entry(3, L4_payload_bytes=[10, 0, 20], iat=[0, 0, 0.5])))
    block = one(path)
    assert block.packets.size.tolist() == [10, 0, 20] and block.packets.iat.tolist() == [0, 0, 0.5]
    assert block.size_layer == "payload" and not block.dropped


def test_without_acknowledgements_time_goes_on(tmp_path):
    lists = {"L4_payload_bytes": [0, 10, 0, 0, 20], "iat": [0, 1, 2, 3, 4], "packet_dir": [0, 1, 0, 0, 1]}
    lists |= {"IP_packet_bytes": [40, 50, 40, 40, 60]}
    path = write(tmp_path, document(entry(5, **lists)))
    for layer, sizes in ((None, [10, 20]), ("ip", [50, 60])):
        block = one(path, ReadOptions(payload_only=True, size_layer=layer), MIRAGE22)
        assert block.packets.size.tolist() == sizes and block.packets.iat.tolist() == [0, 9]
        assert block.dropped == {"packets without payload": 3} and block.facts["packets"].to_list() == [5]


def test_mirage19_has_no_ip_sizes(tmp_path):
    with pytest.raises(ConfigError, match="payload only"):
        list(MIRAGE19.read(write(tmp_path, document(entry())), ReadOptions(size_layer="ip")))


LABELS = [
    ("com.waze", "com.waze", {}, "com.waze"),
    ("com.waze", "com.trello", {}, "background"),
    ("None", "com.waze", {}, "background"),
    ("None", "None", {}, "background"),
    ("com.slack", "com.Slack", {}, "com.Slack"),
    ("com.Slack", "com.slack", {}, "com.Slack"),
    ("org.other", "org.Other", {}, "org.Other"),
    ("com.waze", NAN, {}, "background"),
    ("com.waze", "NaN", {}, "background"),
    ("com.waze", None, {}, "background"),
    ("com.waze", "com.waze", {"BF_activity": "chat"}, "com.waze"),
    ("com.waze", "com.waze", {"BF_activity": NAN}, "com.waze"),
    ("com.waze", "com.waze", {"BF_activity": "Unknown"}, "background"),
]


@pytest.mark.parametrize(("package", "label", "metadata", "expected"), LABELS)
@pytest.mark.parametrize("nested", [False, True])
def test_label_is_that_of_the_file_or_background(tmp_path, package, label, metadata, expected, nested):
    flow = entry(2, label)
    flow["flow_metadata"] |= metadata
    if nested:
        flow["flow_metadata"] = {"BF": {name[3:]: value for name, value in flow["flow_metadata"].items()}}
    block = one(write(tmp_path, document(flow), NAME22.format(package)), dataset=MIRAGE22)
    assert block.label.to_list() == [expected]
    assert block.facts["is_background"].to_list() == [expected == "background"]
    activity = metadata.get("BF_activity")
    assert block.facts["activity"].to_list() == [activity if isinstance(activity, str) else None]


HANDSHAKES = [
    (6, [0, 1, 0, 0], [0, 0, 0, 9], True),
    (6, [0, 1, 0, 0], [0, 0, 7, 9], False),
    (6, [1, 0, 1, 0], [0, 0, 0, 9], False),
    (6, [0, 1], [0, 0], False),
    (17, [0, 1, 0, 0], [0, 0, 0, 9], None),
]


@pytest.mark.parametrize(("protocol", "directions", "sizes", "expected"), HANDSHAKES)
def test_handshake_is_up_down_up_without_payload(tmp_path, protocol, directions, sizes, expected):
    n = len(sizes)
    flow = {f"10.0.0.1,1,10.0.0.2,443,{protocol}": entry(n, packet_dir=directions, L4_payload_bytes=sizes)}
    assert one(write(tmp_path, flow)).facts["has_handshake"].to_list() == [expected]


@pytest.mark.parametrize(
    ("n", "stated", "expected"),
    [(4, 4, 4), (32, 900, 900), (4, 900, None), (4, 3, None), (4, NAN, 4), (32, "NaN", None), (32, 10**30, None)],
)
def test_packets_of_the_whole_flow_where_list_and_metadata_agree(tmp_path, n, stated, expected):
    flow = entry(n)
    flow["flow_metadata"]["BF_num_packets"] = stated
    assert one(write(tmp_path, document(flow))).facts["packets"].to_list() == [expected]


def test_start_is_float64_and_known_in_mirage22_only(tmp_path):
    path = write(tmp_path, document(entry(2, timestamp=[1619005751.123456, 1619005752.0])))
    facts = one(path, dataset=MIRAGE22).facts
    assert facts["start"].dtype == pl.Float64 and facts["start"].to_list() == [1619005751.123456]
    assert not {"start", "activity"} & set(one(path).facts.columns)
    assert all(facts.schema[name] == FACTS[name] for name in facts.columns)


def test_sizes_of_joined_segments_are_cut_and_counted(tmp_path):
    block = one(write(tmp_path, document(entry(2, L4_payload_bytes=[40_000, 10]))))
    assert block.packets.size.tolist() == [32_767, 10] and sum(block.dropped.values()) == 1
    refused(write(tmp_path, document(entry(2, L4_payload_bytes=[70_000, 10]))), "L4_payload_bytes", "70000")


@pytest.mark.parametrize("chunk", [1, 50, 1_000])
@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"separators": (",", ":")}])
def test_any_chunk_and_spelling_gives_the_same(tmp_path, monkeypatch, chunk, layout):
    flows = [entry(3), entry(7, TCP_flags=["PA", "A"], is_clear=[0, 1]), entry(1, L4_raw_payload=["de", [{"a": 1}]])]
    flows += [{name: flow[name] for name in reversed(flow)} for flow in (entry(5), entry(2, heuristic=[], iat=[0, 1]))]
    whole = as_rows([one(write(tmp_path, document(*flows)))])
    monkeypatch.setattr(mirage_json, "CHUNK", chunk)
    assert as_rows([one(write(tmp_path, document(*flows), **layout))]) == whole and len(whole) == 5


@pytest.mark.parametrize("chunk", [1, 70, 1 << 20])
def test_what_is_not_used_never_reaches_json(monkeypatch, chunk):
    monkeypatch.setattr(mirage_json, "CHUNK", chunk)
    flows = document(entry(9), entry(7, TCP_flags=["PA", "A"]))
    for _, value in mirage_json.flows(io.BytesIO(json.dumps(flows).encode()), "x.json"):
        lists = value["packet_data"]
        assert lists["L4_raw_payload"] == lists["src_port"] == lists.get("TCP_flags", []) == []
        assert value["flow_features"] == {} and len(lists["iat"]) > 0


def test_blocks_are_bounded_and_rows_are_numbered_through(tmp_path, monkeypatch):
    monkeypatch.setattr(mirage, "BLOCK_FLOWS", 2)
    path = write(tmp_path, document(*[entry(2)] * 5))
    assert [len(block) for block in MIRAGE19.read(path, WHOLE)] == [2, 2, 1]
    refused(write(tmp_path, document(*[entry(2)] * 4, entry(2, iat=[0, -1]))), "row 5", "packet_data.iat", "-1")


def test_texts_that_utf8_cannot_hold_do_no_harm(tmp_path):
    flow = entry(2, "com.\ud800")
    flow["flow_metadata"]["BF_device"] = "\udfff"
    assert one(write(tmp_path, document(flow))).facts["device"].to_list() == ["?"]


def test_find_mirage19(tmp_path, place19):
    root = tmp_path / "mirage19" / simulated.TOP19
    files = [write(root / device, {}, WAZE) for device in simulated.DEVICES19]
    write(root / "Mi5_38_a4_ed_18_cc_bf", {}, "._" + WAZE)
    write(tmp_path / "other", {}, "flows.json")
    write(tmp_path / "simulated" / "mirage19", {}, WAZE)
    for place in (tmp_path, tmp_path / "mirage19", root):
        assert MIRAGE19.find(place) == sorted(files)
    assert MIRAGE19.find(files[0].parent) == MIRAGE19.find(files[0]) == [files[0]]
    assert MIRAGE19.find(tmp_path / "other") == MIRAGE19.find(tmp_path / "nothing") == []
    archive = place19 / "packed" / f"{simulated.TOP19}_v2.tar.gz"
    assert MIRAGE19.find(place19 / "packed") == MIRAGE19.find(archive) == [archive]
    assert MIRAGE22.find(archive) == MIRAGE22.find(place19) == MIRAGE22.find(root) == []


def test_find_mirage22(tmp_path, place22):
    raw = tmp_path / "mirage22" / simulated.TOP22 / "Raw_JSON"
    inner = write(raw, b"", "Slack.zip")
    write(raw.parent / "Preprocessed_pickle", b"", "Slack.zip")
    write(raw.parent / "Preprocessed_pickle", {}, NAME22.format("com.Slack"))
    outer = write(tmp_path / "mirage22", b"", f"{simulated.TOP22}.zip")
    for place in (tmp_path, tmp_path / "mirage22", raw.parent, raw, inner):
        assert MIRAGE22.find(place) == [inner]
    assert MIRAGE22.find(outer) == [outer]
    teams = write(raw / "Teams" / "Teams", {}, NAME22.format("com.microsoft.teams"))
    write(raw, b"", "Teams.zip")
    assert MIRAGE22.find(tmp_path) == sorted([inner, teams])
    assert MIRAGE22.find(raw / "Teams") == MIRAGE22.find(teams) == [teams]
    assert MIRAGE22.find(place22 / "packed") == [place22 / "packed" / f"{simulated.TOP22}.zip"]
    assert len(MIRAGE22.find(place22 / "folder")) == 9
    assert MIRAGE19.find(tmp_path) == MIRAGE19.find(place22) == []
