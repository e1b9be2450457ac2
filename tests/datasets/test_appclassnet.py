"""AppClassNet: signed and scaled sizes against a plain loop, padding, and headers that lie."""

import hashlib
import logging
import pickle

import numpy as np
import pytest

from jaxtraffic.datasets import appclassnet
from jaxtraffic.datasets.appclassnet import INTERIOR
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.simulated.appclassnet import PARTITIONS, batches, simulate
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies

OPTIONS = ReadOptions(length=20)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root") / "appclassnet"
    simulate(folder, 500, 2)
    return folder


def row(*values):
    return [*values, *[0.0] * (20 - len(values))]


def write(folder, x=None, y=None, *, partition="train"):
    folder.mkdir(parents=True, exist_ok=True)
    x = np.array([row(0.1, -0.2), row(0.3)], "<f4") if x is None else x
    y = np.arange(len(x)) if y is None else y
    np.save(folder / f"{partition}_y.npy", y)
    path = folder / f"{partition}_x.npy"
    np.save(path, x)
    return path


def read_one(path, options=OPTIONS):
    (block,) = appclassnet.read(path, options)
    return block


def with_header(path, header, data=b""):
    """Replaces a file by one with a header of our own making."""
    text = header.encode().ljust(118) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)
    return path


@pytest.mark.parametrize("block_flows", [7, 65_536])
def test_round_trip_equals_a_plain_loop(simulated, monkeypatch, block_flows):
    monkeypatch.setattr(appclassnet, "BLOCK_FLOWS", block_flows)
    sources = appclassnet.find(simulated)
    assert [path.name for path in sources] == [f"{part}_x.npy" for part in PARTITIONS]
    n_flows = 0
    for path, partition in zip(sources, PARTITIONS, strict=True):
        x, y = np.load(path), np.load(path.with_name(f"{partition}_y.npy"))
        sizes, directions, counts = [], [], []
        for values in x.tolist():
            present = [value for value in values if value != 0]
            counts.append(len(present))
            sizes += [round(abs(value) * 3000) for value in present]
            directions += [1 if value > 0 else -1 for value in present]
        blocks = list(appclassnet.read(path, OPTIONS))
        assert np.concatenate([block.packets.counts for block in blocks]).tolist() == counts
        assert np.concatenate([block.packets.size for block in blocks]).tolist() == sizes
        assert np.concatenate([block.packets.direction for block in blocks]).tolist() == directions
        assert [label for block in blocks for label in block.label] == [str(number) for number in y.tolist()]
        for block in blocks:
            assert set(block.facts["partition"]) == {partition}
            assert block.size_layer == "payload"
            assert not block.packets.iat.any()
        n_flows += len(y)
    assert n_flows == 500


def test_round_trip_equals_the_simulated_traffic(simulated):
    for number, (path, size) in enumerate(zip(appclassnet.find(simulated), (400, 50, 50), strict=True)):
        block = read_one(path)
        ((x, labels),) = batches(size, (7, 2, number))
        assert block.label.to_list() == [str(label) for label in labels]
        signed = block.packets.size.astype(int) * block.packets.direction
        assert signed.tolist() == np.round(x[x != 0] * 3000).astype(int).tolist()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_dtypes_and_label_forms(tmp_path, dtype):
    x = np.array([row(0.5, -0.25), row(-1.0)], dtype)
    for y in (np.array([3, 0], "u1"), np.array([[3], [0]], "<i4"), np.array([3.0, 0.0])):
        block = read_one(write(tmp_path, x, y))
        assert block.packets.size.tolist() == [1500, 750, 3000]
        assert block.packets.direction.tolist() == [1, -1, -1]
        assert block.label.to_list() == ["3", "0"]


def test_trap_2_appclassnet_the_sign_is_the_direction(tmp_path):
    assert read_one(write(tmp_path)).packets.direction.tolist() == [1, -1, 1]


def test_trap_10_appclassnet_a_packet_whose_size_rounds_to_0_survives(tmp_path):
    packets = read_one(write(tmp_path, np.array([row(0.2, -1e-6, 0.1)]))).packets
    assert packets.size.tolist() == [600, 0, 300]
    assert packets.direction.tolist() == [1, -1, 1]
    assert packets.iat.tolist() == [0, 0, 0]


def test_zeros_before_a_later_packet_are_left_out_and_counted(tmp_path):
    block = read_one(write(tmp_path, np.array([row(0.0, 0.2, 0.0, -0.1), row(), row(0.1)])))
    assert block.packets.counts.tolist() == [2, 0, 1]
    assert block.packets.size.tolist() == [600, 300, 300]
    assert block.dropped == {INTERIOR: 2}
    assert read_one(write(tmp_path)).dropped == {}


@pytest.mark.parametrize(("value", "problem"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf"), (11.0, "33000")])
def test_values_that_no_packet_can_have_name_the_row(tmp_path, monkeypatch, value, problem):
    monkeypatch.setattr(appclassnet, "BLOCK_FLOWS", 2)
    path = write(tmp_path, np.array([row(0.1), row(0.1), row(0.1), row(0.1, value)]))
    with pytest.raises(DataError, match=problem) as caught:
        list(appclassnet.read(path, OPTIONS))
    assert (caught.value.path, caught.value.row) == (str(path), 4)


@pytest.mark.parametrize("label", [-1, 2.5, np.nan])
def test_wrong_classes_name_file_and_row(tmp_path, label):
    path = write(tmp_path, y=np.array([1, label]))
    with pytest.raises(DataError) as caught:
        read_one(path)
    assert (caught.value.path, caught.value.row) == (str(tmp_path / "train_y.npy"), 2)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 19)),
        np.zeros(40),
        np.zeros((2, 20, 1)),
        np.asfortranarray(np.zeros((2, 20))),
        np.zeros((2, 20), int),
        np.zeros((2, 20), complex),
        np.zeros((2, 20), [("a", "<f4")]),
        np.zeros((0, 20)),
        np.array(1.0),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, x):
    path = write(tmp_path, y=np.arange(2))
    np.save(path, x)
    with pytest.raises(DataError) as caught:
        list(appclassnet.read(path, OPTIONS))
    assert caught.value.path == str(path)


@pytest.mark.parametrize("y", [np.arange(3), np.arange(1), np.zeros((2, 2), int), np.array(["a", "b"]), np.array(1)])
def test_labels_of_another_form_are_refused(tmp_path, y):
    path = write(tmp_path, y=np.arange(2))
    np.save(tmp_path / "train_y.npy", y)
    with pytest.raises(DataError) as caught:
        list(appclassnet.read(path, OPTIONS))
    assert caught.value.path == str(tmp_path / "train_y.npy")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 20), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 20), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 20), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 20), }",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 20), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2, 20), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 20), }",
        "{'descr': '<f4', 'fortran_order': False}",
        "__import__('os').abort()",
        "(" * 110,
        "",
    ],
)
def test_headers_that_lie_are_refused(tmp_path, header):
    path = with_header(write(tmp_path), header, bytes(160))
    with pytest.raises(DataError) as caught:
        list(appclassnet.read(path, OPTIONS))
    assert caught.value.path == str(path)


def test_a_pickled_array_is_never_loaded(tmp_path):
    path = write(tmp_path)
    np.save(path, np.array([[object] * 20] * 2), allow_pickle=True)
    with pytest.raises(DataError, match="array of object"):
        list(appclassnet.read(path, OPTIONS))
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match=r"no \.npy header"):
        list(appclassnet.read(path, OPTIONS))


def test_truncated_empty_and_missing_files_are_refused(tmp_path):
    path = write(tmp_path)
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"\0", whole[:60], b""):
        path.write_bytes(data)
        with pytest.raises(DataError) as caught:
            list(appclassnet.read(path, OPTIONS))
        assert caught.value.path == str(path)
    path.write_bytes(whole)
    (tmp_path / "train_y.npy").unlink()
    with pytest.raises(DataError, match="train_y.npy"):
        list(appclassnet.read(path, OPTIONS))


def test_find_takes_roots_and_parts_and_leaves_other_sets(simulated, tmp_path, caplog):
    every = appclassnet.find(simulated)
    assert len(every) == 3
    assert appclassnet.find(simulated.parent) == appclassnet.find(simulated / "top200") == every
    assert appclassnet.find(every[1]) == [every[1]]
    write(tmp_path / "set" / "easy24")
    top = write(tmp_path / "set" / "top200", partition="test")
    with caplog.at_level(logging.WARNING):
        assert appclassnet.find(tmp_path) == [top]
    assert "2 folders" in caplog.text
    np.save(tmp_path / "train_x.npy", np.zeros(3))
    assert appclassnet.find(tmp_path) == [top]
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "train_x.npy", np.zeros(3))
    np.save(tmp_path / "other" / "x.npy", np.zeros(3))
    assert appclassnet.find(tmp_path / "other") == appclassnet.find(tmp_path / "other" / "x.npy") == []


def test_simulation_is_deterministic(simulated, tmp_path):
    simulate(tmp_path, 500, 2)
    names = sorted(path.name for path in (tmp_path / "top200").iterdir())
    assert names == sorted(f"{part}_{name}.npy" for part in PARTITIONS for name in "xy")
    for name in names:
        digests = {hashlib.md5((folder / "top200" / name).read_bytes()).digest() for folder in (tmp_path, simulated)}
        assert len(digests) == 1
    simulate(tmp_path / "few", 3, 0)
    assert sum(len(read_one(path)) for path in appclassnet.find(tmp_path / "few")) == 3


def test_another_layer_is_refused_and_times_are_none(tmp_path):
    with pytest.raises(ConfigError):
        read_one(write(tmp_path), ReadOptions(size_layer="ip"))
    assert not appclassnet.APPCLASSNET.has_times


def attack(tmp_path, n):
    path = write(tmp_path)
    refused = 0
    for file in (path, tmp_path / "train_y.npy"):
        whole = file.read_bytes()
        for data in mutated_copies(whole, n // 2, 2):
            file.write_bytes(data)
            try:
                list(appclassnet.read(path, OPTIONS))
            except JaxTrafficError:
                refused += 1
        file.write_bytes(whole)
    assert refused > n // 10


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_our_errors_only(tmp_path):
    attack(tmp_path, 50)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_files_give_our_errors_only(tmp_path):
    attack(tmp_path, 2_000)
