"""Conversion: the same flows as reading, resumable after any kill, never complete by half; verification."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets import conversion, labelled, reading, verification
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.errors import ConfigError, DataError
from tests.datasets import fake_set
from tests.datasets.fake_set import FAKE, write

OPTIONS = ReadOptions(length=12)


def flows_of(place):
    return labelled.merge(list(reading.read_sources(FAKE, FAKE.find(place), OPTIONS)), place)


def assert_same(one, other):
    for name in ("size", "direction", "iat", "label"):
        np.testing.assert_array_equal(getattr(one.flows, name), getattr(other.flows, name))
    assert one.flows.class_names == other.flows.class_names
    assert one.flows.size_layer == other.flows.size_layer == "payload"
    assert one.facts.select(sorted(one.facts.columns)).equals(other.facts.select(sorted(other.facts.columns)))
    assert one.left_out == other.left_out


@pytest.fixture
def raw(tmp_path):
    write(tmp_path / "raw", [30, 0, 16, 14])
    return tmp_path / "raw"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_converted_folder_holds_what_was_read(raw, tmp_path, workers):
    out = tmp_path / "out"
    seen = []
    records = conversion.convert(
        FAKE, raw, out, options=OPTIONS, workers=workers, shard_flows=10, report=seen.append, simulated=workers == 2
    )
    assert [record.flows for record in records] == [30, 0, 16, 14]
    assert seen == records
    assert [len(record.shards) for record in records] == [4, 0, 2, 2], "blocks of 7 flows, shards of at most 10"
    table = conversion.read_converted(out, "fake")
    assert_same(table, flows_of(raw))
    assert table.flows.source == ("simulated" if workers == 2 else "real")
    lazy = conversion.scan_shards(out)
    assert lazy.filter(pl.col("class_name") == "web").select(pl.len()).collect().item() == 20 + 1
    # again: nothing is read, unless a source has changed
    again = conversion.convert(FAKE, raw, out, options=OPTIONS, shard_flows=10, simulated=workers == 2)
    assert not any(record.fresh for record in again)
    (raw / "1.flows").write_bytes((raw / "3.flows").read_bytes())
    again = conversion.convert(FAKE, raw, out, options=OPTIONS, shard_flows=10, simulated=workers == 2)
    assert [record.fresh for record in again] == [False, True, False, False]
    assert_same(conversion.read_converted(out), flows_of(raw))


def test_what_a_kill_leaves_is_not_complete_and_is_gone_on_with(raw, tmp_path, monkeypatch):
    out = tmp_path / "out"
    (raw / "2.flows").rename(tmp_path / "kept")
    (raw / "2.flows").write_text("{ broken")
    with pytest.raises(DataError, match=r"2\.flows"):
        conversion.convert(FAKE, raw, out, options=OPTIONS)
    assert conversion.is_converted(out)
    with pytest.raises(DataError, match="not complete.*run the same conversion again"):
        conversion.read_converted(out)
    (tmp_path / "kept").replace(raw / "2.flows")
    # killed in the middle of a shard: a temporary file, and a shard whose record was not written
    (out / "shards" / ".x.parquet.123.tmp").write_bytes(b"PAR1 half")
    (out / "shards" / "2.flows-zzz-000.parquet").write_bytes(b"PAR1 half")
    records = conversion.convert(FAKE, raw, out, options=OPTIONS)
    assert [record.fresh for record in records] == [False, False, True, True]
    assert not list((out / "shards").glob(".*"))
    assert_same(conversion.read_converted(out), flows_of(raw))
    # a shard that is gone is made again; before that, the folder is refused
    shard = out / "shards" / records[0].shards[0]
    shard.unlink()
    with pytest.raises(DataError, match="shard of the manifest is missing"):
        conversion.read_converted(out)
    conversion.convert(FAKE, raw, out, options=OPTIONS)
    assert shard.is_file()


def test_a_write_that_fails_leaves_no_shard(raw, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(DataError, match="No space left on device"):
        conversion.convert(FAKE, raw, tmp_path / "out", options=OPTIONS)
    assert not list((tmp_path / "out" / "shards").iterdir())
    assert not list((tmp_path / "out" / "sources").iterdir())


def test_settings_and_foreign_folders(raw, tmp_path):
    out = tmp_path / "out"
    conversion.convert(FAKE, raw, out, options=OPTIONS)
    with pytest.raises(ConfigError, match=r"other settings \(length\)"):
        conversion.convert(FAKE, raw, out, options=ReadOptions(length=13))
    with pytest.raises(DataError, match="holds fake; expected mirage19"):
        conversion.read_converted(out, "mirage19")
    with pytest.raises(ConfigError, match="holds other files"):
        conversion.convert(FAKE, raw, raw, options=OPTIONS)
    with pytest.raises(DataError, match="no files of a set of the tests"):
        conversion.convert(FAKE, tmp_path / "out" / "sources" / "..", tmp_path / "new", options=OPTIONS)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["sources"][0]["shards"] = ["../../secret.parquet"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="missing"):
        conversion.read_converted(out)


def test_verification_tables_every_match_and_difference(tmp_path):
    write(tmp_path, [30, 16, 14])
    found = verification.summarise(FAKE, FAKE.find(tmp_path))
    assert (found.sources, found.flows, found.size_layers) == (3, 60, {"payload"})
    assert found.flows_per_class == {"web": 10 + 6 + 5, "mail": 10 + 5 + 5, "dns": 10 + 5 + 4}
    assert found.flows_per_day == {100: 60}
    assert found.left_out == {"rows of no flow": 5 + 3 + 2}
    checks = {check.what: check for check in verification.verify(FAKE, found)}
    assert checks["flows"].verdict == checks["files"].verdict == checks["classes"].verdict == "match"
    assert (checks["class web"].published, checks["class web"].found) == (20, 21)
    assert checks["class web"].verdict == checks["class dns"].verdict == "differs"
    assert checks["class mail"].verdict == "match"
    assert checks["partition odd"].verdict == "differs"
    assert checks["flows of the smallest class"].verdict == "not published"
    assert not verification.holds(checks.values())


def test_verification_of_a_part_and_of_strange_classes(tmp_path):
    write(tmp_path, [4])
    part = fake_set.Published(source="s", flows=60, flows_per_class={"web": 3, "mail": 1, "tv": 9}, complete=False)
    dataset = dataclasses.replace(FAKE, published=part)
    found = verification.summarise(dataset, FAKE.find(tmp_path))
    checks = {check.what: check.verdict for check in verification.verify(dataset, found)}
    assert checks["flows"] == checks["class web"] == checks["class tv"] == "part"
    assert checks["class mail"] == "match"
    assert checks["class dns"] == "unknown"
