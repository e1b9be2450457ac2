"""Parquet: exact round trips, the columns of others, and every refusal."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtraffic.datasets import read_parquet, split, write_parquet
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.series import PacketSeries

SHARED = Path(__file__).parents[3] / "shared" / "data"


def random_series(seed=0, n=50, length=30, group=False):
    rng = np.random.default_rng(seed)
    mask = np.arange(length) < rng.integers(0, length + 1, n)[:, None]
    iat = np.where(mask, rng.exponential(0.1, (n, length)), 0).astype(np.float32)
    iat[:, :1] = 0
    return PacketSeries(
        np.where(mask, rng.integers(0, 32_768, (n, length)), 0).astype(np.int16),
        np.where(mask, rng.choice([1, -1], (n, length)), 0).astype(np.int8),
        iat,
        rng.integers(0, 3, n).astype(np.int32),
        group=rng.integers(5, 90, n).astype(np.int32) if group else None,
        class_names=("zulu", "alpha", "never seen", "mike"),
        name="a set",
        size_layer="payload",
        source="simulated",
    ).check()


def assert_equal(one, other):
    for name in ("size", "direction", "iat", "label", "group"):
        left, right = getattr(one, name), getattr(other, name)
        if left is None:
            assert right is None
            continue
        np.testing.assert_array_equal(left, right)
        assert left.dtype == right.dtype
    for name in ("class_names", "name", "size_layer", "source"):
        assert getattr(one, name) == getattr(other, name)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40), st.sampled_from([1, 5, 30, 64]), st.booleans())
def test_round_trip_is_exact(tmp_path_factory, seed, n, length, group):
    path = tmp_path_factory.mktemp("round") / "flows.parquet"
    flows = random_series(seed, n, length, group)
    write_parquet(flows, path)
    assert_equal(read_parquet(path), flows)


def test_columns_on_disk_are_those_of_a_run_folder(tmp_path):
    path = tmp_path / "new" / "samples.parquet"
    flows = random_series()
    write_parquet(flows, path, iat=False)
    frame = pl.read_parquet(path)
    assert frame.columns == ["size", "direction", "label", "class_name"]
    assert frame.schema["size"] == pl.List(pl.Int16)
    assert frame.schema["direction"] == pl.List(pl.Int8)
    assert frame["size"].list.len().to_list() == flows.n_packets.tolist()
    assert frame["class_name"].to_list() == [flows.class_names[label] for label in flows.label]
    read = read_parquet(path)
    np.testing.assert_array_equal(read.signed_size, flows.signed_size)
    assert not read.iat.any()
    assert [entry.name for entry in path.parent.iterdir()] == ["samples.parquet"], "no temporary file is left"


def test_writing_replaces_and_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "flows.parquet"
    write_parquet(random_series(1), path)
    write_parquet(random_series(2), path)
    assert_equal(read_parquet(path), random_series(2))

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(DataError, match="No space left"):
        write_parquet(random_series(3), path)
    assert_equal(read_parquet(path), random_series(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["flows.parquet"]


def good():
    return {
        "app": ["b", "a", "b"],
        "pkts_size": [[100, 0, 1500], [60], [52, 40]],
        "pkts_dir": [[1, -1, -1], [-1], [1, 1]],
        "pkts_iat": [[0.0, 0.5, 0.25], [0.0], [0.0, 1.5]],
        "capture": ["x", "y", "x"],
    }


def write(tmp_path, columns, **kwargs):
    path = tmp_path / "data.parquet"
    pl.DataFrame(columns, strict=False, **kwargs).write_parquet(path)
    return path


def test_columns_of_others(tmp_path):
    flows = read_parquet(write(tmp_path, good()), group="capture")
    assert flows.class_names == ("a", "b")
    assert flows.label.tolist() == [1, 0, 1]
    assert flows.group.tolist() == [0, 1, 0]
    assert flows.size[0, :4].tolist() == [100, 0, 1500, 0]
    assert flows.direction[0, :4].tolist() == [1, -1, -1, 0]
    assert flows.iat[2, :3].tolist() == [0, 1.5, 0]
    assert (flows.size_layer, flows.source, flows.name, flows.length) == ("ip", "real", "data", 30)


def test_longer_flows_are_cut_and_the_first_time_is_zero(tmp_path):
    columns = good() | {"pkts_iat": [[7.0, 0.5, 0.25], [0.0], [0.0, 1.5]]}
    flows = read_parquet(write(tmp_path, columns), length=2)
    assert flows.size.tolist() == [[100, 0], [60, 0], [52, 40]]
    assert flows.n_packets.tolist() == [2, 1, 2]
    assert flows.iat[0].tolist() == [0, 0.5]
    with pytest.raises(ConfigError, match="length"):
        read_parquet(write(tmp_path, good()), length=0)


def test_without_times_they_are_zero(tmp_path):
    columns = good()
    del columns["pkts_iat"]
    assert not read_parquet(write(tmp_path, columns)).iat.any()


def ours(label, **more):
    return {"size": [[1], [2], [3]], "direction": [[1], [1], [-1]], "label": label} | more


def test_labels_as_names_or_as_indices(tmp_path):
    by_name = read_parquet(write(tmp_path, ours(["b", "a", "b"])))
    assert (by_name.class_names, by_name.label.tolist()) == (("a", "b"), [1, 0, 1])
    by_index = read_parquet(write(tmp_path, ours([5, 2, 5], class_name=["b", "a", "b"])))
    assert (by_index.class_names, by_index.label.tolist()) == (("a", "b"), [1, 0, 1])


REFUSED = [
    ("no sizes", lambda c: c.pop("pkts_size"), None, "pkts_size", "missing column"),
    ("no directions", lambda c: c.pop("pkts_dir"), None, "pkts_dir", "missing column"),
    ("no labels", lambda c: c.pop("app"), None, "app", "missing column"),
    ("no list", lambda c: c.update(pkts_size=[1, 2, 3]), None, "pkts_size", "column of Int64"),
    ("text in lists", lambda c: c.update(pkts_size=[["a"], ["b"], ["c"]]), None, "pkts_size", "column of List(String)"),
    ("broken bytes", lambda c: c.update(pkts_size=[[1.5, 1, 1], [1], [1, 1]]), None, "pkts_size", "List(Float64)"),
    ("unequal lists", lambda c: c.update(pkts_dir=[[1, -1, -1], [1, 1], [1, 1]]), 2, "pkts_dir", "2 values, but"),
    ("unequal times", lambda c: c.update(pkts_iat=[[0, 0, 0], [0], [0, 0, 0]]), 3, "pkts_iat", "3 values, but"),
    (
        "negative size",
        lambda c: c.update(pkts_size=[[1, 1, 1], [1], [1, -4]]),
        3,
        "pkts_size",
        "size of packet 2 is -4",
    ),
    ("large size", lambda c: c.update(pkts_size=[[1, 32768, 1], [1], [1, 4]]), 1, "pkts_size", "is 32768"),
    (
        "direction 0",
        lambda c: c.update(pkts_dir=[[1, -1, 0], [1], [1, 1]]),
        1,
        "pkts_dir",
        "direction of packet 3 is 0",
    ),
    ("negative time", lambda c: c.update(pkts_iat=[[0, 0, 0], [0], [0, -1.0]]), 3, "pkts_iat", "is -1.0"),
    ("NaN time", lambda c: c.update(pkts_iat=[[0, 0, 0], [float("nan")], [0, 1]]), 2, "pkts_iat", "is nan"),
    ("infinite time", lambda c: c.update(pkts_iat=[[0, 0, 0], [0], [0, float("inf")]]), 3, "pkts_iat", "is inf"),
    ("null list", lambda c: c.update(pkts_size=[[1, 1, 1], None, [1, 1]]), 2, "pkts_size", "null"),
    ("null in a list", lambda c: c.update(pkts_dir=[[1, 1, 1], [1], [1, None]]), 3, "pkts_dir", "null in the list"),
    ("null label", lambda c: c.update(app=["a", None, "b"]), 2, "app", "null"),
    ("null group", lambda c: c.update(capture=["a", "b", None]), 3, "capture", "null"),
    ("no group", lambda c: c.pop("capture"), None, "capture", "missing column"),
    ("number as label", lambda c: c.update(app=[0.5, 1.5, 2.5]), None, "app", "column of Float64"),
]


@pytest.mark.parametrize(
    ("change", "row", "field", "words"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_bad_columns_are_refused(tmp_path, change, row, field, words):
    columns = good()
    change(columns)
    path = write(tmp_path, columns)
    with pytest.raises(DataError) as refusal:
        read_parquet(path, group="capture")
    assert (refusal.value.path, refusal.value.row, refusal.value.field) == (str(path), row, field)
    assert words in str(refusal.value)


def test_labels_and_names_that_disagree_are_refused(tmp_path):
    with pytest.raises(DataError, match="row 3, field class_name"):
        read_parquet(write(tmp_path, ours([0, 1, 0], class_name=["a", "b", "c"])))
    with pytest.raises(DataError, match="class_name: missing column"):
        read_parquet(write(tmp_path, ours([0, 1, 0])))


def test_no_rows(tmp_path):
    schema = {"app": pl.String, "pkts_size": pl.List(pl.Int16), "pkts_dir": pl.List(pl.Int8)}
    with pytest.raises(DataError, match="no rows"):
        read_parquet(write(tmp_path, {name: [] for name in schema}, schema=schema))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: b"", "empty file"),
        (lambda data: b"no parquet at all", "not a parquet file"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: b"PAR1", "damaged"),
        (lambda data: b"PAR1" + b"\xff" * 40 + b"PAR1", "damaged"),
        (lambda data: data[:20] + b"\xff" * 40 + data[60:], "damaged"),
    ],
)
def test_bad_files_are_refused(tmp_path, spoil, words):
    path = write(tmp_path, good())
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError) as refusal:
        read_parquet(path)
    assert str(path) in str(refusal.value)
    assert words in str(refusal.value)


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.parquet"):
        with pytest.raises(DataError, match="cannot be read"):
            read_parquet(path)


@pytest.mark.parametrize("own", ["{", "[]", "{}", json.dumps({"format": 9}), json.dumps({"format": 1, "name": 3})])
def test_metadata_of_another_kind_are_refused(tmp_path, own):
    path = tmp_path / "flows.parquet"
    pl.DataFrame(ours(["a", "b", "c"])).write_parquet(path, metadata={"jaxtraffic": own})
    with pytest.raises(DataError, match="field metadata jaxtraffic"):
        read_parquet(path)


def test_paths_are_no_patterns(tmp_path):
    path = tmp_path / "a[1]*.parquet"
    write_parquet(random_series(), path)
    assert_equal(read_parquet(path), random_series())


@pytest.mark.parametrize(
    ("file", "group", "flows", "at_least_10"),
    [
        ("iot_sentinel", "capture", 11_975, 6_266),
        ("protocol_pool", "source", 8_569, 4_104),
        ("doh_tunnels_iot", "capture", 1_772, 1_772),
    ],
)
def test_real_flows(tmp_path, file, group, flows, at_least_10):
    folder = Path(os.environ.get("JAXTRAFFIC_DATA", SHARED))
    path = folder / f"{file}.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}: set JAXTRAFFIC_DATA to the folder of the shared data")
    series = read_parquet(path, group=group)
    assert len(series) == flows
    assert int((series.n_packets >= 10).sum()) == at_least_10
    frame = pl.read_parquet(path)
    for index in (0, 17, flows - 1):
        n = series.n_packets[index]
        assert series.size[index, :n].tolist() == frame["pkts_size"][index].to_list()
        assert series.direction[index, :n].tolist() == frame["pkts_dir"][index].to_list()
        assert series.class_names[series.label[index]] == frame["app"][index]
    write_parquet(series, tmp_path / "copy.parquet")
    assert_equal(read_parquet(tmp_path / "copy.parquet"), series)
    parts = split(series)
    assert set(parts.test.group.tolist()).isdisjoint(parts.train.group.tolist())
    assert (parts.train.counts() > 0).all()


def test_a_time_that_no_float32_holds_is_refused_by_name(tmp_path):
    frame = pl.DataFrame({"size": [[1, 2]], "direction": [[1, 1]], "iat": [[0.0, 1e39]], "label": ["a"]})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 1, field iat.*packet 2 is 1e[+]39"):
        read_parquet(tmp_path / "a.parquet")


def test_a_path_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.parquet")
    with pytest.raises(DataError, match="not UTF-8"):
        write_parquet(random_series(), path)
    write_parquet(random_series(), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").rename(path)
    with pytest.raises(DataError, match="not UTF-8"):
        read_parquet(path)
