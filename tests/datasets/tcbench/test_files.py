"""Tables of tcbench as files: which are found, which are refused, their splits, their blocks, and damage."""

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.labelled import from_blocks
from jaxtraffic.datasets.simulated import tcbench as simulated
from jaxtraffic.datasets.tcbench import tables as tcbench
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies
from tests.datasets.tcbench.raw_tables import WHOLE, N, read_all, simulate_tables, v1_rows, write

BAD = {
    "app": ({"app": [None, "b"]}, "row 1, field app: null"),
    "app numbers": ({"app": [1, 2]}, "field app: column of Int64"),
    "lengths": ({"pkts_dir": [[1, 0], [0]]}, "row 1, field pkts_dir: 2 values, but pkts_size has 3"),
    "null list": ({"pkts_size": [[1, 2, 3], None]}, "row 2, field pkts_size: null"),
    "text": ({"pkts_size": ["1", "2"]}, "field pkts_size: column of String"),
    "large": ({"pkts_size": [[1, 2, 3], [70_000]]}, "row 2, field pkts_size: size of packet 1 is 70000"),
    "nan": ({"timetofirst": [[0.0, float("nan"), 1.0], [0.0]]}, "row 1, field timetofirst: inter-packet time"),
    "lone nan": ({"timetofirst": [[0.0, 1.0, 1.0], [float("nan")]]}, "row 2, field timetofirst: inter-packet time"),
    "port": ({"src_port": ["80", "x"], "dst_port": ["1", "2"]}, "row 2, field src_port: not a whole number"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder of each simulated table."""
    tables = [("mirage19", "v1"), ("mirage19", "dev"), ("ucdavis19", "dev"), ("utmobilenet21", "v1")]
    return simulate_tables(tmp_path_factory, tables)


@pytest.mark.parametrize(("columns", "message"), BAD.values(), ids=BAD)
def test_bad_rows_are_refused_with_row_and_field(tmp_path, columns, message):
    path = write(tmp_path / "mirage19.parquet", v1_rows(conn_id=["x", "y"], **columns))
    with pytest.raises(DataError, match=message):
        read_all([path])


@pytest.mark.parametrize("name", ["app", "pkts_size", "pkts_dir", "timetofirst"])
def test_missing_columns_are_named(tmp_path, name):
    rows = v1_rows(conn_id=["x", "y"])
    rows.pop(name)
    with pytest.raises(DataError, match=f"mirage19.parquet, field {name}.*missing column"):
        read_all([write(tmp_path / "mirage19.parquet", rows)])


def test_files_that_are_no_tables(tmp_path, folders):
    path = tmp_path / "mirage19.parquet"
    data = tcbench.find(folders["mirage19", "v1"])[0].read_bytes()
    for content, problem in ((b"", "empty file"), (b"text", "not a parquet"), (data[:-300], "truncated")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path.name}: {problem}"):
            read_all([path])
    write(path, v1_rows(conn_id=["x", "y"])).write_bytes(path.read_bytes())
    pl.read_parquet(path).head(0).write_parquet(path)
    with pytest.raises(DataError, match="no rows"):
        read_all([path])
    with pytest.raises(DataError, match="cannot be read"):
        read_all([tmp_path / "none.parquet"])
    splits = next(folders["mirage19", "v1"].rglob("*_splits.parquet"))
    with pytest.raises(DataError, match="read_tcbench_split"):
        read_all([splits])


def test_find_takes_its_own_tables_and_no_others(folders, tmp_path):
    root = folders["ucdavis19", "dev"]
    names = ["ucdavis19.parquet", "ucdavis19_human.parquet", "ucdavis19_script.parquet"]
    assert [path.name for path in tcbench.find(root)] == names
    assert tcbench.find(root / "ucdavis19" / "curated" / names[1]) == [root / "ucdavis19" / "curated" / names[1]]
    assert tcbench.find(next(root.rglob("*_splits.parquet"))) == []
    assert tcbench.find(tmp_path) == tcbench.find(tmp_path / "none") == []
    # the columns in which the README describes flows of one's own
    write(tmp_path / "own.parquet", {"app": ["a"], "pkts_size": [[1]], "pkts_dir": [[1]]})
    pl.DataFrame({"size": [[1]], "direction": [[1]], "label": ["x"]}).write_parquet(tmp_path / "series.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    assert tcbench.find(tmp_path) == []
    # damage is the reader's to name
    assert tcbench.find(tmp_path / "noise.parquet") == [tmp_path / "noise.parquet"]


def test_find_does_not_read_flows_twice(tmp_path):
    place = tmp_path / "mirage22" / "preprocessed"
    (place / "imc23").mkdir(parents=True)
    for name in ("imc23/mirage22_filtered_minpkts10", "imc23/mirage22_filtered_minpkts1000", "mirage22"):
        write(place / f"{name}.parquet", v1_rows(conn_id=["x", "y"]))
    assert tcbench.find(tmp_path) == [place / "mirage22.parquet"]
    (place / "mirage22.parquet").unlink()
    assert tcbench.find(tmp_path) == [place / "imc23" / "mirage22_filtered_minpkts10.parquet"]


def test_find_refuses_a_mixture_of_sets(folders, tmp_path):
    for dataset in ("mirage19", "utmobilenet21"):
        path = tcbench.find(folders[dataset, "v1"])[0]
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match=r"no one set: mirage19 \(v1\).*utmobilenet21 \(v1\)"):
        tcbench.find(tmp_path)


def test_splits_choose_flows_by_row_id(folders):
    for generation, first in (("v1", 0), ("dev", 1)):
        (table,) = tcbench.find(folders["mirage19", generation])
        path = next(folders["mirage19", generation].rglob("*_splits.parquet"))
        parts = tcbench.read_tcbench_split(path, first)
        raw = pl.read_parquet(path).to_dicts()[0]
        names = ("train_indexes", "val_indexes", "test_indexes")
        names = names if generation == "v1" else ("train_indices", None, "test_indices")
        assert [part.tolist() for part in parts] == [raw[name] if name else [] for name in names]
        assert sorted(np.concatenate(parts)) == list(range(N))
        assert all(part.dtype == np.int64 for part in parts)
        chosen = np.isin(tcbench.read_row_ids(table), parts[2])
        flows, labels, _, _ = read_all([table])
        by_id = {row["row_id"]: row["app"] for row in pl.read_parquet(table).to_dicts()}
        assert sorted(np.array(labels)[chosen]) == sorted(by_id[number] for number in raw[names[2]])
        with pytest.raises(ConfigError, match="has the splits"):
            tcbench.read_tcbench_split(path, 99)
        with pytest.raises(DataError, match="field split_index: missing column"):
            tcbench.read_tcbench_split(table)
        with pytest.raises(DataError, match="field row_id: missing column"):
            tcbench.read_row_ids(path)


def test_blocks_keep_the_order_and_the_rows_of_a_file(folders, monkeypatch):
    (path,) = tcbench.find(folders["utmobilenet21", "v1"])
    whole = read_all([path])
    monkeypatch.setattr(tcbench, "BLOCK_ROWS", 7)
    monkeypatch.setattr(tcbench, "BLOCK_PACKETS", 0)
    parts = read_all([path])
    assert len(list(tcbench.read(path, WHOLE))) == N // 7 + 1
    assert parts[1] == whole[1]
    assert parts[2].equals(whole[2])
    for one, other in zip(parts[0], whole[0], strict=True):
        for values, others in zip(one, other, strict=True):
            np.testing.assert_array_equal(values, others)
    table, bad = pl.read_parquet(path), path.with_name("utmobilenet21_bad.parquet")
    sizes = pl.col("pkts_size")
    for wrong, message in (
        (pl.lit(None).alias("app"), "row 31, field app: null"),
        (sizes.list.eval(pl.element() + 70_000), "row 31, field pkts_size: size of packet 1 is 7"),
    ):
        name = wrong.meta.output_name()
        table.with_columns(pl.when(pl.col("row_id") == 30).then(wrong).otherwise(name).alias(name)).write_parquet(bad)
        with pytest.raises(DataError, match=message):
            read_all([bad])
    bad.unlink()


def test_simulation_is_deterministic(tmp_path):
    for name in ("one", "two"):
        tcbench.TCBENCH.simulate(tmp_path / name, 30, 3)
    files = [sorted((tmp_path / name).rglob("*.parquet")) for name in ("one", "two")]
    assert len(files[0]) == 2
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    with pytest.raises(ConfigError):
        simulated.simulate(tmp_path, 10, 0, dataset="mirage22")


def test_columns_of_the_filtered_v1_table_are_those_of_tcbench(folders):
    (path,) = tcbench.find(folders["mirage19", "v1"])
    names = pl.read_parquet(path).columns
    # 20 columns as in tcbench's tutorial, and the index that pandas writes
    assert len(names) == 21
    assert {"strings", "packet_data_l4_raw_payload", "flow_metadata_bf_duration"} <= set(names)


def test_entry_of_the_catalogue_reads_into_series(folders):
    entry = tcbench.TCBENCH
    (path,) = entry.find(folders["mirage19", "v1"])
    table = from_blocks(entry.read(path, ReadOptions()), path, name=entry.name, length=30)
    assert len(table) == N
    assert table.flows.size_layer in entry.size_layers
    assert set(table.flows.class_names) == {name for name, _, _ in simulated.MIRAGE_APPS}
    assert [rule.name for rule in entry.rules] == ["dns", "background"]


def damaged(folder, tmp_path, n, seed):
    """Reads damaged copies of a table; counts how many were refused."""
    (path,) = tcbench.find(folder)
    small = tmp_path / "whole.parquet"
    pl.read_parquet(path).head(20).write_parquet(small)
    copy, refused = tmp_path / "utmobilenet21.parquet", 0
    for data in mutated_copies(small.read_bytes(), n, seed):
        copy.write_bytes(data)
        try:
            for block in tcbench.read(copy, ReadOptions()):
                assert len(block) <= 1000
            tcbench.find(copy)
        except JaxTrafficError:
            refused += 1
    return refused


def test_damaged_files_raise_our_errors_only(folders, tmp_path):
    assert damaged(folders["utmobilenet21", "v1"], tmp_path, 50, 1) > 20


@pytest.mark.slow
def test_many_damaged_files_raise_our_errors_only(folders, tmp_path):
    assert damaged(folders["utmobilenet21", "v1"], tmp_path, 2000, 2) > 800
