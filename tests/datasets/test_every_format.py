"""Damaged files of every format: our own errors or flows, in bounded time and memory, and nothing else happens.

The copies are read in a process of their own (`every_format_worker`), which sees what is opened, started and imported.
"""

import io
import itertools
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets.catalogue import DATASETS
from jaxtraffic.datasets.conversion import MANIFEST, convert, converted_sources, read_converted
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.interchange import read_parquet
from jaxtraffic.datasets.labelled import merge
from jaxtraffic.datasets.loading import load_labelled
from jaxtraffic.datasets.reading import read_source
from jaxtraffic.errors import DataError
from tests.datasets.every_format import EXPANDING, FORMATS

ROOT = Path(__file__).parents[2]
SEED = 1


def results(folder, copies, names):
    """What the worker says of each format; formats after one that killed it are missing."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.datasets.every_format_worker", str(folder), str(copies), str(SEED), *names],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=3_600,
    )
    found = {entry["format"]: entry for entry in map(json.loads, done.stdout.splitlines())}
    # polars says on standard error what it panicked on, also where the reader turned that into an error of ours
    return found, f"exit status {done.returncode}: {done.stderr[-3000:]}"


def judge(found, copies, name, output):
    assert name in found, f"the process died ({output})"
    result = found[name]
    assert result["failures"] == []
    assert result["copies"] == copies == result["refused"] + result["read"]
    assert result["refused"] > copies / 5, "damage that nothing notices is no damage"
    assert result["longest_s"] < 10
    assert result["memory_mib"] < 1024


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """20 copies of every format, in one process."""
    return results(tmp_path_factory.mktemp("few"), 20, FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_raise_our_errors_and_do_nothing_else(few, name):
    judge(few[0], 20, name, few[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files_raise_our_errors_and_do_nothing_else(tmp_path, name):
    found, output = results(tmp_path, 2_000, [name])
    judge(found, 2_000, name, output)
    assert found[name]["read"] > 0, "copies that are refused at the door test nothing behind it"
    print(json.dumps(found[name]))  # noqa: T201  seen with pytest -rP


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPANDING)
def test_small_files_that_expand_take_no_memory(tmp_path, name):
    found, output = results(tmp_path, 8, [name])
    assert name in found, f"the process died ({output})"
    assert found[name]["failures"] == []
    assert found[name]["memory_mib"] < 1024
    print(json.dumps(found[name]))  # noqa: T201


def test_every_set_is_among_the_formats():
    assert {entry.dataset for entry in FORMATS.values()} - {None} == set(DATASETS)


def test_the_worker_notices_what_no_reader_may_do(tmp_path):
    script = """
import json, sys, time
from pathlib import Path
from tests.datasets import every_format, every_format_worker as worker
def evil(source):
    text = source.read_text()
    if text == "write": Path(sys.argv[1]).with_name("outside").write_text("x")
    if text == "start": __import__("os").system("true")
    if text == "run": exec("1 + 1")
    if text == "pickle": __import__("pickle").loads(b"cos\\nsystem\\n.")
    if text == "read": open("/etc/passwd").read()
    if text == "raise": raise ValueError("not ours")
    if text == "hang": time.sleep(60)
    if text == "leave": (source.parent / "left").write_text("x")
    return [1]
def make(folder):
    (folder / "file").write_text("fine")
    return folder / "file", folder / "file"
worker.LIMIT_S = 0.3
for word in sys.argv[2:]:
    copies = lambda data, n, seed, word=word: iter([word.encode()])
    every_format.FORMATS[word] = every_format.Format(make, copies, read=evil)
worker.main(Path(sys.argv[1]), 1, 0, sys.argv[2:])
"""
    words = ["fine", "write", "start", "run", "pickle", "read", "raise", "hang", "leave"]
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-c", script, str(tmp_path / "scratch"), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
    failures = {entry["format"]: " ".join(entry["failures"]) for entry in map(json.loads, done.stdout.splitlines())}
    assert failures.pop("fine") == ""
    marks = ["outside", "os.system", "exec", "pickle.find_class", "/etc/passwd", "not ours", "TooLong", "left"]
    for (word, text), mark in zip(failures.items(), marks, strict=True):
        assert mark in text, (word, text)
    assert not (tmp_path / "outside").exists()


ELSEWHERE = ("../../", "/{}/", "..\\..\\", "a/../../../../", "C:\\")
"""Where names of members of an archive may point to."""


def with_names_elsewhere(data, secret):
    """The same archive, its members called like files outside; a tar also holds links to a file outside."""
    out = io.BytesIO()
    prefixes = itertools.cycle(prefix.format(secret.parent) for prefix in ELSEWHERE)
    if zipfile.is_zipfile(io.BytesIO(data)):
        old = zipfile.ZipFile(io.BytesIO(data))
        with zipfile.ZipFile(out, "w") as new:
            for info in old.infolist():
                new.writestr(next(prefixes) + info.filename, old.read(info))
        return out.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w:gz") as new:
        members = {info.name: old.extractfile(info).read() for info in old if info.isreg()}
        for name, content in members.items():
            info = tarfile.TarInfo(next(prefixes) + name)
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(next(iter(members)))
            info.type, info.linkname = kind, str(secret)
            new.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize("name", [name for name in FORMATS if name.endswith((".zip", ".tar.gz", "of zips"))])
def test_names_in_archives_lead_nowhere(tmp_path, name):
    """Nothing is written where they point to, no link is followed, and the flows are those of the archive before."""
    fmt = FORMATS[name]
    root = tmp_path / "a" / "b" / "c" / "d"
    root.mkdir(parents=True)
    file, source = fmt.make(root)
    # read through a link, it would be refused
    (tmp_path / "secret").write_text("no flows")
    options = fmt.options()[0] if fmt.dataset else None
    expected = fmt.flows(source, options)
    file.write_bytes(with_names_elsewhere(file.read_bytes(), tmp_path / "secret"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert fmt.flows(source, options) == expected > 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


KINDS = {
    "cesnet_tls": "*.csv.gz",
    "cesnet_tls_year": "*.csv.xz",
    "mirage19": "*.json",
    "mirage22": "*.zip",
    "utmobilenet21": "*.csv",
    "ucdavis19": "*.txt",
    "appclassnet": "*_x.npy",
    "pcap": "*.pcap",
    "tcbench": "*.parquet",
    "nfstream": "*.csv",
    "parquet": "*.parquet",
}
"""Sets of several sources -> files to damage."""


@pytest.mark.parametrize("name", KINDS)
def test_conversion_of_a_damaged_source_leaves_nothing_that_looks_complete(tmp_path, monkeypatch, name):
    dataset, raw, out = DATASETS[name], tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    if name == "parquet":
        FORMATS["parquet"].make(tmp_path)
        for number in range(3):
            (raw / f"{number}.parquet").write_bytes((tmp_path / "f.parquet").read_bytes())
    elif name in ("tcbench", "nfstream"):
        for number in range(3):
            dataset.simulate(raw / str(number), 12, number)
    else:
        dataset.simulate(raw, 20, 0)
    # blocks and shards of a few flows, so that shards are written before the damage is met
    for module, size in (("mirage.sets", "BLOCK_FLOWS"), ("appclassnet", "BLOCK_FLOWS"), ("ucdavis", "BLOCK_FILES")):
        monkeypatch.setattr(f"jaxtraffic.datasets.{module}.{size}", 2)
    options = ReadOptions(12, size_layer="payload" if name == "nfstream" else None)
    sources = dataset.find(raw)
    assert len(sources) > 1
    victim = sorted(path for path in sources[-1].rglob(KINDS[name]))[-1] if sources[-1].is_dir() else sources[-1]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) - 7])
    with pytest.raises(DataError, match=victim.name.split(".")[0]):
        convert(dataset, raw, out, options=options, workers=1, shard_flows=2)
    assert not (out / MANIFEST).exists()
    for refused in (converted_sources, read_converted):
        with pytest.raises(DataError, match="not complete"):
            refused(out)
    with pytest.raises(DataError, match="not complete"):
        load_labelled(name, path=out, length=12, curated=False, workers=1)
    # what is there is whole, and belongs to sources that are done
    records = [json.loads(path.read_text()) for path in (out / "sources").glob("*.json")]
    assert len(records) == len(sources) - 1
    shards = {path.name for path in (out / "shards").iterdir()}
    assert {shard for record in records for shard in record["shards"]} <= shards
    assert all(pl.read_parquet(out / "shards" / shard).height <= 2 or name != "appclassnet" for shard in shards)
    # with the source repaired it goes on, and gives what reading gives
    victim.write_bytes(whole)
    assert sum(
        not record.fresh for record in convert(dataset, raw, out, options=options, workers=1, shard_flows=2)
    ) == (len(sources) - 1)
    table = read_converted(out)
    expected = merge([read_source(dataset, source, options) for source in sources], raw)
    for field in ("size", "direction", "iat", "label"):
        np.testing.assert_array_equal(getattr(table.flows, field), getattr(expected.flows, field))


def test_a_damaged_table_beside_others_is_not_passed_over(tmp_path):
    file, _ = FORMATS["nfstream.parquet"].make(tmp_path)
    (tmp_path / "second.parquet").write_bytes(file.read_bytes()[:-9])
    nfstream = DATASETS["nfstream"]
    assert tmp_path / "second.parquet" in nfstream.find(tmp_path)
    with pytest.raises(DataError, match=r"second\.parquet.*truncated"):
        load_labelled("nfstream", path=tmp_path, size_layer="payload", curated=False, workers=1)


@pytest.mark.parametrize(("rows", "length"), [(3, 10**9), (3, 1 << 26), (3, 10**30)])
def test_an_absurd_length_in_the_metadata_takes_no_memory(tmp_path, rows, length):
    row = {"size": [1], "direction": [1], "iat": [0.0], "label": 0, "class_name": "a"}
    own = {"format": 1, "name": "x", "size_layer": "ip", "source": "real", "length": length, "class_names": ["a"]}
    pl.DataFrame([row] * rows).write_parquet(tmp_path / "a.parquet", metadata={"jaxtraffic": json.dumps(own)})
    with pytest.raises(DataError, match="states a length of 1?.*longest flow has 1"):
        read_parquet(tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet", length=2).length == 2


@pytest.mark.parametrize("field", ["name", "class_names"])
def test_half_a_surrogate_pair_in_the_metadata_is_refused(tmp_path, field):
    row = {"size": [1], "direction": [1], "iat": [0.0], "label": 0}
    own = {"format": 1, "name": "x", "size_layer": "ip", "source": "real", "length": 3, "class_names": ["a"]}
    own[field] = "\ud800" if field == "name" else ["\ud800"]
    pl.DataFrame([row]).write_parquet(tmp_path / "a.parquet", metadata={"jaxtraffic": json.dumps(own)})
    with pytest.raises(DataError, match="not the JSON we write"):
        read_parquet(tmp_path / "a.parquet")
