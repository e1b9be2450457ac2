"""MIRAGE-2019 and MIRAGE-22: what is wrong, damaged or hostile is refused by name, and nothing else happens."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from jaxtraffic.datasets.mirage import json_flows as mirage_json
from jaxtraffic.datasets.mirage.sets import MIRAGE19, MIRAGE22
from jaxtraffic.datasets.simulated.mirage import TOP19, TOP22
from jaxtraffic.errors import JaxTrafficError
from tests.datasets.mirage.raw_files import NAME22, NAN, WAZE, WHOLE, document, entry, make_zip, one, refused, write
from tests.datasets.robustness import mutated_copies


def without(part, name):
    flow = entry()
    del flow[part][name]
    return document(flow)


BAD = [
    (document({"flow_metadata": {}}), "packet_data"),
    (document({"packet_data": {}}), "flow_metadata"),
    (document(5), "packet_data"),
    (without("packet_data", "packet_dir"), "packet_data.packet_dir"),
    (without("packet_data", "iat"), "packet_data.iat"),
    (without("packet_data", "L4_payload_bytes"), "packet_data.L4_payload_bytes"),
    (without("flow_metadata", "BF_label"), "BF_label"),
    (document(entry(packet_dir=[0, 1, 2, 0])), "packet_dir: direction of packet 3 is 2"),
    (document(entry(packet_dir=[0, 1, 0])), "unequal length"),
    (document(entry(iat=[0, 1, NAN, 1])), "packet_data.iat: value of packet 3 is nan"),
    (document(entry(iat=[0, 1, "NaN", 1])), "packet_data.iat: value of packet 3 is 'NaN'"),
    (document(entry(iat=[0, 1, None, 1])), "packet_data.iat"),
    (document(entry(packet_dir=[0, NAN, 0, 1])), "packet_data.packet_dir"),
    (document(entry(L4_payload_bytes=[0, 1, NAN, 1])), "packet_data.L4_payload_bytes"),
    (document(entry(L4_payload_bytes=[0, 1.5, 2, 1])), "packet_data.L4_payload_bytes"),
    (document(entry(L4_payload_bytes=[0, True, 2, 1])), "packet_data.L4_payload_bytes"),
    (document(entry(L4_payload_bytes=[0, 10**400, 2, 1])), "packet_data.L4_payload_bytes"),
    (document(entry(L4_payload_bytes="5")), "packet_data.L4_payload_bytes"),
    ({"no key": entry()}, "no key of a flow"),
    ({"10.0.0.1,99999,10.0.0.2,443,6": entry()}, "no key of a flow"),
    ([entry()], "one JSON object"),
    (b"", "empty"),
    (b" \n", "empty"),
    (b"\xff\xfe{}", "not text"),
    (json.dumps(document(entry())).encode()[:-1], "not JSON"),
    (json.dumps(document(entry())).encode()[:150], "not JSON"),
    (json.dumps(document(entry())).encode() + b"{}", "goes on after its end"),
    (b'{"a": ' + b"[" * 100_000, "not JSON"),
    (json.dumps(document(entry())).encode().replace(b"[[22, 3, 1]", b"[[22, 3, 1"), "not JSON"),
    (json.dumps(document(entry())).encode().replace(b"[[22, 3, 1]", b"[[22, 3}, 1]"), "not JSON"),
    (b"{1: 2}", "not JSON"),
]


@pytest.mark.parametrize(("content", "words"), BAD)
def test_bad_documents_are_refused_by_name(tmp_path, content, words):
    refused(write(tmp_path, content), words)


def test_a_file_name_without_package_is_refused(tmp_path):
    refused(write(tmp_path, document(entry()), "flows.json"), "no package")


def test_a_flow_beyond_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mirage_json, "CHUNK", 1_000)
    monkeypatch.setattr(mirage_json, "MAX_FLOW", 20_000)
    refused(write(tmp_path, b'{"k": "' + b"x" * 100_000), "more than 20000")
    refused(write(tmp_path, b'{"k": {"TCP_win_size": [' + b"1," * 100_000), "more than 20000")


def test_a_document_without_flows_holds_none(tmp_path):
    assert list(MIRAGE19.read(write(tmp_path, b" { } "), WHOLE)) == []


def test_preprocessed_pickle_and_shadow_files_inside_the_zip_are_left_alone(tmp_path):
    good = json.dumps(document(entry(2, "com.Slack")))
    inner = make_zip({f"Slack/{NAME22.format('com.Slack')}": good, f"__MACOSX/Slack/._{NAME22}": "no JSON"})
    members = {f"{TOP22}/Raw_JSON/Slack.zip": inner, f"{TOP22}/Preprocessed_pickle/x.json": "no JSON"}
    path = write(tmp_path, make_zip(members), f"{TOP22}.zip")
    assert one(path, dataset=MIRAGE22).label.to_list() == ["com.Slack"]
    refused(write(tmp_path, make_zip({}), f"{TOP22}.zip"), "no JSON document", dataset=MIRAGE22)


def test_names_that_escape_from_archives_create_nothing(tmp_path):
    content = json.dumps(document(entry(2))).encode()
    names = [f"../../{WAZE}", f"/tmp/evil/{WAZE}", "..\\..\\1_com.waze_.json"]
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    tar = inside / f"{TOP19}_v2.tar.gz"
    with tarfile.open(tar, "w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("1_com.waze_link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    packed = write(inside, make_zip(dict.fromkeys(names, content)), f"{TOP22}.zip")
    before = sorted(tmp_path.rglob("*"))
    assert sum(len(block) for block in MIRAGE19.read(tar, WHOLE)) == 3
    assert sum(len(block) for block in MIRAGE22.read(packed, WHOLE)) == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_zip_bombs_are_refused(tmp_path):
    name = NAME22.format("com.Slack")
    text = b'{"k": "' + b" " * (32 << 20)
    flat = make_zip({name: text}, compression=zipfile.ZIP_BZIP2)
    assert len(flat) < 2_000
    for content in (flat, make_zip({"Raw_JSON/Slack.zip": flat})):
        refused(write(tmp_path, content, f"{TOP22}.zip"), "beyond measure", dataset=MIRAGE22)
    deep = make_zip({name: b"{}"})
    for _ in range(5):
        deep = make_zip({"inner.zip": deep})
    refused(write(tmp_path, deep, f"{TOP22}.zip"), "nested", dataset=MIRAGE22)


def intact(kind):
    """File name, bytes and data set for the robustness tests; small, so that damage hits something that matters."""
    flows = document(entry(3), entry(12), entry(2, "com.trello", timestamp=[1.6e9, 1.6e9], TCP_flags=["S", "PA"]))
    if kind == "json":
        return WAZE, json.dumps(flows).encode(), MIRAGE19
    if kind == "zip":
        return "Slack.zip", make_zip({f"Slack/{NAME22.format('com.waze')}": json.dumps(flows)}), MIRAGE22
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        info = tarfile.TarInfo(f"{TOP19}/Mi5/{WAZE}")
        info.size = len(text := json.dumps(flows).encode())
        archive.addfile(info, io.BytesIO(text))
    return f"{TOP19}_v2.tar.gz", data.getvalue(), MIRAGE19


def survives(tmp_path, kind, n):
    name, data, dataset = intact(kind)
    assert sum(map(len, dataset.read(write(tmp_path, data, name), WHOLE))) == 3
    n_refused = 0
    for at, damaged in enumerate(mutated_copies(data, n, seed=7)):
        path = write(tmp_path, damaged, name)
        try:
            for block in dataset.read(path, WHOLE):
                assert np.isfinite(block.packets.iat).all() and len(block) == block.facts.height, at
        except JaxTrafficError:
            n_refused += 1
    assert n_refused > n // 4


@pytest.mark.parametrize("kind", ["json", "zip", "tar"])
def test_damaged_files_are_read_or_refused(tmp_path, kind):
    survives(tmp_path, kind, 50)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["json", "zip", "tar"])
def test_many_damaged_files_are_read_or_refused(tmp_path, kind):
    survives(tmp_path, kind, 2_000)
