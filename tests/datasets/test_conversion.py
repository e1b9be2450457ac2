"""Conversion: the same flows as reading, resumable after any kill, never complete by half; verification."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets import conversion, describe, labelled, reading, simulate, verification
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


def test_options_of_the_reader_are_settings(raw, tmp_path):
    def bound(**options):
        return dataclasses.replace(FAKE, read=functools.partial(fake_set.read_called, **options))

    table = tmp_path / "names.csv"
    table.write_text("a")
    out = tmp_path / "out"
    conversion.convert(bound(label=str(table)), raw, out, options=OPTIONS)
    assert not any(record.fresh for record in conversion.convert(bound(label=str(table)), raw, out, options=OPTIONS))
    with pytest.raises(ConfigError, match=r"other settings \(reader\)"):
        conversion.convert(bound(label="folder"), raw, out, options=OPTIONS)
    table.write_text("other")
    with pytest.raises(ConfigError, match=r"other settings \(reader\)"):
        conversion.convert(bound(label=str(table)), raw, out, options=OPTIONS)


def test_a_source_left_out_as_damaged_is_not_done(raw, tmp_path):
    good = (raw / "2.flows").read_bytes()
    (raw / "2.flows").write_text("{ broken")
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"2\.flows"):
        conversion.convert(FAKE, raw, out, options=OPTIONS)
    # to go on without it needs no new folder; and later it is no silent hole
    records = conversion.convert(reading.skipping_damaged(FAKE), raw, out, options=OPTIONS)
    assert [record.fresh for record in records] == [False, False, True, True]
    assert conversion.read_converted(out).left_out[reading.DAMAGED] == 1
    with pytest.raises(DataError, match=r"2\.flows"):
        conversion.convert(FAKE, raw, out, options=OPTIONS)
    stat = (raw / "2.flows").stat()
    (raw / "2.flows").write_bytes(good)
    os.utime(raw / "2.flows", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    conversion.convert(FAKE, raw, out, options=OPTIONS)
    assert_same(conversion.read_converted(out), flows_of(raw))


def test_shards_and_records_of_sources_that_are_gone_are_removed(raw, tmp_path):
    out = tmp_path / "out"
    conversion.convert(FAKE, raw, out, options=OPTIONS, shard_flows=10)
    (raw / "0.flows").rename(raw / "9.flows")
    (raw / "2.flows").unlink()
    records = conversion.convert(FAKE, raw, out, options=OPTIONS, shard_flows=10)
    named = sorted(shard for record in records for shard in record.shards)
    assert sorted(path.name for path in (out / "shards").iterdir()) == named
    assert len(list((out / "sources").iterdir())) == len(records) == 3


def test_names_in_a_folder_that_is_one_source_count(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "mail.flows").write_text("[]")
    before = conversion._fingerprint(folder)
    (folder / "mail.flows").rename(folder / "web.flows")
    assert conversion._fingerprint(folder) != before


def test_sources_of_one_name_from_elsewhere_do_not_meet(tmp_path):
    for name, count in (("a", 5), ("b", 6)):
        write(tmp_path / name, [count], seed=count)
    sources = [tmp_path / "a" / "0.flows", tmp_path / "b" / "0.flows"]
    conversion.convert(FAKE, tmp_path / "c", tmp_path / "out", options=OPTIONS, sources=sources)
    read = labelled.merge(list(reading.read_sources(FAKE, sources, OPTIONS)), "x")
    assert_same(conversion.read_converted(tmp_path / "out"), read)


def test_a_run_killed_at_its_very_start_is_gone_on_with(raw, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".settings.json.abc.tmp").write_text("{")
    (out / ".manifest.json.abc.tmp").write_text("{")
    conversion.convert(FAKE, raw, out, options=OPTIONS)
    assert not list(out.glob(".*"))
    # a record that something else has spoilt is made anew
    record = next((out / "sources").iterdir())
    for spoilt in ("{}", "[]", "null", record.read_text().replace('"shards"', '"shard"')):
        record.write_text(spoilt)
        assert sum(entry.fresh for entry in conversion.convert(FAKE, raw, out, options=OPTIONS)) == 1


def test_the_lazy_frame_has_the_columns_of_every_shard(raw, tmp_path):
    out = tmp_path / "out [1]"
    facts = functools.partial(fake_set.read_called, last="3.flows")
    conversion.convert(dataclasses.replace(FAKE, read=facts), raw, out, options=OPTIONS)
    starts = conversion.scan_shards(out).select("capture", "start").collect()
    known = starts.filter(pl.col("start").is_not_null())["capture"]
    assert known.unique().to_list() == ["3.flows"]
    assert starts.height == 60


_CONVERT = """
import sys, pathlib
from jaxtraffic.datasets import conversion
from tests.datasets.fake_set import SLOW
place, out = map(pathlib.Path, sys.argv[1:])
conversion.convert(SLOW, place, out, options=conversion.ReadOptions(length=12), workers=2, shard_flows=10)
"""


def _converting(place, out):
    return subprocess.Popen([sys.executable, "-c", _CONVERT, place, out], stderr=subprocess.DEVNULL, process_group=0)


def _wait(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def _group(number):
    """Processes of a group that have not ended, by /proc."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) == number and state != "Z":
                alive.append(stat.parent.name)
    return alive


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks into /proc")
@pytest.mark.parametrize(
    "kind",
    [signal.SIGKILL, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (signal.SIGTERM, signal.SIGINT))],
    ids=lambda kind: kind.name,
)
def test_a_killed_conversion_leaves_no_process(tmp_path, kind):
    write(tmp_path / "raw", [8] * 60)
    running = _converting(tmp_path / "raw", tmp_path / "out")
    try:
        assert _wait(lambda: len(list((tmp_path / "out").glob("sources/*.json"))) > 2, 40), "it starts"
        running.send_signal(kind)
        assert running.wait(10) != 0
        assert _wait(lambda: not _group(running.pid), 5), "its children end"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.slow
def test_a_conversion_killed_again_and_again_gives_the_same_bytes(tmp_path):
    simulate("mirage19", tmp_path / "raw", n_flows=6_000, seed=2)
    command = [sys.executable, "-m", "jaxtraffic", "data", "convert", "mirage19", "--path", tmp_path / "raw"]
    command += ["--workers", "2", "--out"]
    started = time.monotonic()
    subprocess.run([*command, tmp_path / "whole"], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    rng = np.random.default_rng(3)
    kills = 0
    for _ in range(12):
        running = subprocess.Popen([*command, tmp_path / "again"], stdout=subprocess.DEVNULL, process_group=0)
        try:
            running.wait(rng.uniform(0.3, 0.8) * seconds)
        except subprocess.TimeoutExpired:
            # the children are left to end by themselves, beside the next run
            running.kill()
            running.wait()
            kills += 1
    assert kills >= 3
    subprocess.run([*command, tmp_path / "again"], check=True, stdout=subprocess.DEVNULL)

    def contents(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    whole, again = contents(tmp_path / "whole"), contents(tmp_path / "again")
    assert len(whole) > 100
    assert whole == again


def test_the_smallest_class_of_a_part_may_be_another():
    part = fake_set.Published(source="s", classes=3, smallest=2, largest=9, complete=False)
    dataset = dataclasses.replace(FAKE, published=part)
    found = verification.Summary(flows=10, files=1, flows_per_class={"web": 4, "mail": 6})
    checks = verification.verify(dataset, found)
    assert {check.what: check.verdict for check in checks}["flows of the smallest class"] == "part"
    assert verification.holds(checks)


def test_a_converted_folder_is_not_taken_for_raw_files(tmp_path):
    mirage19 = describe("mirage19")
    simulate("mirage19", tmp_path / "mirage19", n_flows=40)
    (tmp_path / "mirage19" / "simulated.json").unlink()
    sources = mirage19.find(tmp_path)
    conversion.convert(mirage19, tmp_path, tmp_path / "converted" / "mirage19", options=OPTIONS)
    assert mirage19.find(tmp_path) == sources


def test_a_table_of_labels_that_changes_makes_its_captures_anew(tmp_path):
    place, out = tmp_path / "raw", tmp_path / "out"
    simulate("pcap", place, n_flows=20)
    pcap = describe("pcap")
    first = conversion.convert(pcap, place, out, options=OPTIONS, workers=1)
    files = sorted(path.relative_to(place).as_posix() for path in pcap.find(place))
    (place / "labels.csv").write_text("file,label\n" + "".join(f"{name},relabelled\n" for name in files))
    again = conversion.convert(pcap, place, out, options=OPTIONS, workers=1)
    assert all(record.fresh for record in again)
    assert len(again) == len(first)
    assert conversion.read_converted(out).flows.class_names == ("relabelled",)
