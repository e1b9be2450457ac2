"""Exports: NumPy archives and tcbench's columns, read back exactly, and files that are damaged."""

import json
import zipfile

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets.export.tables import read_npz, write_npz, write_tcbench_parquet
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.interchange import read_parquet, write_parquet
from jaxtraffic.datasets.labelled import from_blocks
from jaxtraffic.datasets.tcbench import tables as tcbench
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from jaxtraffic.series import PacketSeries
from tests.datasets.robustness import mutated_copies

ARRAYS = ("size", "direction", "iat", "label")


def flows_of(n=40, length=12, **fields):
    """Flows with every length from 0, packets of size 0 and IAT 0, and class names that are no ASCII."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, length + 1, n)
    counts[:2] = 0, length
    mask = np.arange(length) < counts[:, None]
    iat = rng.exponential(0.01, (n, length)).astype(np.float32) * rng.integers(0, 2, (n, length)).astype(np.float32)
    iat[:, 0] = 0
    values = {
        "size": (rng.integers(0, 1500, (n, length)) * rng.integers(0, 2, (n, length)) * mask).astype(np.int16),
        "direction": np.where(mask, rng.choice([-1, 1], (n, length)), 0).astype(np.int8),
        "iat": (iat * mask).astype(np.float32),
        "label": rng.integers(0, 3, n).astype(np.int32),
        "class_names": ("zoom", "çay", "app"),
        "name": "set",
        "size_layer": "payload",
        "source": "simulated",
    }
    return PacketSeries(**values | fields).check()


def assert_same(one, other):
    """Every array bit for bit, and the metadata."""
    for name in ARRAYS:
        first, second = getattr(one, name), getattr(other, name)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    for name in ("class_names", "name", "size_layer", "source"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize("group", [None, np.arange(40, dtype=np.int32) // 3], ids=["no group", "group"])
def test_npz_reads_back_exactly(tmp_path, group):
    flows = flows_of(group=group)
    write_npz(flows, tmp_path / "new" / "flows.npz")
    back = read_npz(tmp_path / "new" / "flows.npz")
    assert_same(flows, back)
    assert (back.group is None) == (group is None)
    if group is not None:
        np.testing.assert_array_equal(back.group, group)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["flows.npz"]


def test_npz_is_plain_numpy(tmp_path):
    flows = flows_of()
    write_npz(flows, tmp_path / "flows.npz")
    with np.load(tmp_path / "flows.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {*ARRAYS, "mask", "class_names", "metadata"}
        np.testing.assert_array_equal(archive["mask"], flows.direction != 0)
        assert archive["class_names"].tolist() == list(flows.class_names)
        own = json.loads(str(archive["metadata"]))
    assert own["size_layer"] == "payload"
    assert own["source"] == "simulated"


def test_npz_of_no_flows(tmp_path):
    flows = flows_of()[np.zeros(0, np.int64)]
    write_npz(flows, tmp_path / "flows.npz")
    assert_same(flows, read_npz(tmp_path / "flows.npz"))


@pytest.mark.parametrize("generation", ["v1", "dev"])
@pytest.mark.parametrize("layer", ["ip", "payload"])
def test_tcbench_export_reads_back_through_the_reader_of_tcbench(tmp_path, generation, layer):
    flows = flows_of(size_layer=layer)
    path = tmp_path / "export.parquet"
    write_tcbench_parquet(flows, path, generation)
    assert tcbench.find(tmp_path) == [path]
    table = from_blocks(tcbench.read(path, ReadOptions(length=12)), path, name="set", length=12)
    # the reader puts classes in alphabetical order, and a file does not say for it whether it was simulated
    back = table.flows.replace(source="simulated")
    names = np.array(back.class_names)[back.label]
    assert names.tolist() == np.array(flows.class_names)[flows.label].tolist()
    assert_same(flows, back.replace(label=flows.label, class_names=flows.class_names))
    assert table.facts["packets"].to_list() == flows.n_packets.tolist()
    assert tcbench.read_row_ids(path).tolist() == list(range(len(flows)))


def test_dev_columns(tmp_path):
    flows = flows_of()
    write_tcbench_parquet(flows, tmp_path / "export.parquet")
    rows = pl.read_parquet(tmp_path / "export.parquet").to_dicts()
    for index, row in enumerate(rows):
        count = int(flows.n_packets[index])
        signed = (flows.size[index].astype(int) * flows.direction[index])[:count].tolist()
        assert row["row_id"] == index
        assert row["app"] == flows.class_names[flows.label[index]]
        assert row["app_category"] is None
        assert row["pkts_size_times_dir"] == signed
        assert row["pkts_dir"] == flows.direction[index, :count].tolist()
        assert row["packets"] == row["pkts_len"] == count
        assert row["bytes"] == flows.size[index].astype(int).sum()
        np.testing.assert_allclose(row["pkts_timetofirst"], np.cumsum(flows.iat[index])[:count], rtol=1e-5)
    # our own reader of parquet takes it as well
    assert_same(flows, read_parquet(tmp_path / "export.parquet", length=12).replace(
        label=flows.label, class_names=flows.class_names))  # fmt: skip


def test_v1_columns_take_1_for_the_client(tmp_path):
    flows = flows_of()
    write_tcbench_parquet(flows, tmp_path / "export.parquet", "v1")
    frame = pl.read_parquet(tmp_path / "export.parquet")
    assert frame.columns == ["row_id", "app", "packets", "pkts_size", "pkts_dir", "timetofirst", "pkts_iat"]
    for index, row in enumerate(frame.to_dicts()):
        count = int(flows.n_packets[index])
        assert row["pkts_dir"] == (flows.direction[index, :count] == 1).astype(int).tolist()
        elapsed = 0.0
        for gap, time in zip(flows.iat[index, :count], row["timetofirst"], strict=True):
            elapsed += float(gap)
            assert time == pytest.approx(elapsed, abs=1e-12)


def test_exports_name_what_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match="choose from: v1, dev"):
        write_tcbench_parquet(flows_of(), tmp_path / "x.parquet", "v2")
    (tmp_path / "file").write_text("")
    for write, name in ((write_npz, "x.npz"), (write_tcbench_parquet, "x.parquet")):
        with pytest.raises(DataError, match="cannot be written"):
            write(flows_of(), tmp_path / "file" / name)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_other_parquet_of_ours_is_no_table_of_tcbench(tmp_path):
    write_parquet(flows_of(), tmp_path / "flows.parquet")
    assert tcbench.find(tmp_path) == []
    with pytest.raises(DataError, match="field app: missing column"):
        list(tcbench.read(tmp_path / "flows.parquet", ReadOptions()))


def edited(tmp_path, **arrays):
    """An archive with some arrays replaced, or left out where None."""
    write_npz(flows_of(), tmp_path / "flows.npz")
    with np.load(tmp_path / "flows.npz") as archive:
        held = dict(archive) | arrays
    np.savez(tmp_path / "edited.npz", **{name: array for name, array in held.items() if array is not None})
    return tmp_path / "edited.npz"


BAD = {
    "missing": ({"iat": None}, "field iat: missing array"),
    "dtype": ({"size": np.zeros((40, 12))}, "PacketSeries.size must be"),
    "label": ({"label": np.full(40, 9, np.int32)}, "PacketSeries.label must be"),
    "names": ({"class_names": np.arange(3)}, "field class_names: array of int64"),
    "metadata": ({"metadata": np.array("{")}, "damaged archive"),
    "other metadata": (
        {"metadata": np.array('{"format": 9, "name": "", "size_layer": "ip", "source": "real"}')},
        "damaged",
    ),
    "group": ({"group": np.zeros(40)}, "field group: array of float64"),
    "objects": ({"label": np.array([None] * 40, object)}, "field label: header says"),
    "columns first": ({"size": np.asfortranarray(flows_of().size)}, "field size: header says"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD)
def test_archives_that_hold_something_else(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        read_npz(edited(tmp_path, **arrays))


def test_an_absurd_shape_reserves_no_memory(tmp_path):
    header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (99999999999, 30), }"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    path = edited(tmp_path, size=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("size.npy", array)
    with pytest.raises(DataError, match="field size: header says"):
        read_npz(path)


def test_a_bomb_is_refused(tmp_path):
    path = edited(tmp_path, size=None)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("size.npy", bytes(16 << 20))
    with pytest.raises(DataError, match="field size: expands beyond measure"):
        read_npz(path)


def damaged_npz(tmp_path, n, seed):
    """Reads damaged copies of an archive; counts how many were refused."""
    write_npz(flows_of(20, 6), tmp_path / "flows.npz")
    copy, refused = tmp_path / "copy.npz", 0
    for data in mutated_copies((tmp_path / "flows.npz").read_bytes(), n, seed):
        copy.write_bytes(data)
        try:
            read_npz(copy)
        except JaxTrafficError:
            refused += 1
    return refused


def test_damaged_archives_raise_our_errors_only(tmp_path):
    assert damaged_npz(tmp_path, 50, 1) > 25


@pytest.mark.slow
def test_many_damaged_archives_raise_our_errors_only(tmp_path):
    assert damaged_npz(tmp_path, 2000, 2) > 1000
