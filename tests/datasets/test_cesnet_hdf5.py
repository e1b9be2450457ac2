"""The HDF5 reader. The base dtypes of the real files are not documented: the fixtures assume some, the reader none."""

import importlib

import numpy as np
import pytest

from jaxtraffic.datasets import cesnet_hdf5
from jaxtraffic.errors import DataError
from tests.datasets.raw_files import write_hdf5

pytest.importorskip("tables")


def day(n=40, seed=0):
    """(ppi [n, 3, 30], lengths [n], codes [n]) with zero sizes and zero times among real packets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 31, n)
    mask = np.arange(30) < lengths[:, None]
    ppi = np.zeros((n, 3, 30), int)
    ppi[:, 0] = rng.integers(0, 200, (n, 30)) * mask * rng.integers(0, 2, (n, 30))
    ppi[:, 0, 0] = 0
    ppi[:, 1] = rng.choice([1, -1], (n, 30)) * mask
    ppi[:, 2] = rng.integers(0, 1473, (n, 30)) * mask * rng.integers(0, 2, (n, 30))
    return ppi, lengths, rng.choice([3, 13, 23], n)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", ["int16", "int32", "float32"])
def test_values_for_every_layout_and_dtype(tmp_path, monkeypatch, channels, kind):
    monkeypatch.setattr(cesnet_hdf5, "ROWS_PER_CHUNK", 7)
    ppi, lengths, codes = day()
    path = write_hdf5(tmp_path / "CESNET-QUIC22-XS.h5", {"D20221031": (ppi, codes)}, channels=channels, ppi_kind=kind)
    flows, is_dns = cesnet_hdf5.read_hdf5(path)
    np.testing.assert_array_equal(flows.size, ppi[:, 2])
    np.testing.assert_array_equal(flows.direction, ppi[:, 1])
    np.testing.assert_array_equal(flows.iat, (ppi[:, 0] / 1000).astype(np.float32))
    np.testing.assert_array_equal(flows.n_packets, lengths)
    assert flows.class_names == ("alpha", "beta", "quad-dns")
    np.testing.assert_array_equal(flows.label, (codes - 3) // 10)
    np.testing.assert_array_equal(is_dns, codes == 23)
    assert (flows.size_layer, flows.source) == ("payload", "real")


def test_codes_are_names_and_not_positions(tmp_path):
    ppi, _, _ = day(2)
    path = write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, [9, 4])}, codes={"zulu": 4, "alpha": 9})
    flows, _ = cesnet_hdf5.read_hdf5(path)
    assert [flows.class_names[label] for label in flows.label] == ["alpha", "zulu"]


def test_days_in_order(tmp_path):
    first, second = day(5), day(6, seed=1)
    path = write_hdf5(tmp_path / "a.h5", {"D20221107": (second[0], second[2]), "D20221031": (first[0], first[2])})
    assert len(cesnet_hdf5.read_hdf5(path)[0]) == 5
    assert len(cesnet_hdf5.read_hdf5(path, days=2)[0]) == 11


def _spoil(ppi, where, value):
    ppi = ppi.astype(float).copy()
    ppi[where] = value
    return ppi


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ((8, 2, 0), -1, "size of packet 1"),
        ((8, 2, 0), 40_000, "size of packet 1"),
        ((8, 2, 0), 1.5, "size of packet 1"),
        ((8, 1, 0), 2, "direction of packet 1"),
        ((8, 1, 0), np.nan, "direction of packet 1"),
        ((8, 0, 0), -3, "time of packet 1"),
        ((8, 0, 0), np.inf, "time of packet 1"),
    ],
)
def test_bad_values_are_refused_with_table_and_row(tmp_path, monkeypatch, where, value, words):
    monkeypatch.setattr(cesnet_hdf5, "ROWS_PER_CHUNK", 5)
    ppi, _, codes = day()
    path = write_hdf5(tmp_path / "a.h5", {"D20221031": (_spoil(ppi, where, value), codes)}, ppi_kind="float64")
    with pytest.raises(DataError) as refusal:
        cesnet_hdf5.read_hdf5(path)
    assert f"{path}:/flows/D20221031, row 9, field PPI" in str(refusal.value)
    assert words in str(refusal.value)


def test_packets_after_padding_are_refused(tmp_path):
    ppi, lengths, codes = day()
    ppi[4, 1] = 1
    ppi[4, 1, 10] = 0
    with pytest.raises(DataError, match=r"row 5, field PPI: a packet after the padding"):
        cesnet_hdf5.read_hdf5(write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)}))


def test_a_code_without_a_name_is_refused(tmp_path):
    ppi, _, codes = day()
    codes[6] = 99
    with pytest.raises(DataError, match=r"row 7, field APP: code 99"):
        cesnet_hdf5.read_hdf5(write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)}))


@pytest.mark.parametrize("column", ["PPI", "APP"])
def test_a_missing_column_is_named(tmp_path, column):
    ppi, _, codes = day(3)
    with pytest.raises(DataError, match=f"field {column}: missing column"):
        cesnet_hdf5.read_hdf5(write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)}, drop=(column,)))


def test_no_day_tables(tmp_path):
    with pytest.raises(DataError, match="no day table"):
        cesnet_hdf5.read_hdf5(write_hdf5(tmp_path / "a.h5", {}))
    ppi, _, codes = day(3)
    with pytest.raises(DataError, match="no flows"):
        cesnet_hdf5.read_hdf5(write_hdf5(tmp_path / "b.h5", {"D20221031": (ppi[:0], codes[:0])}))


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.95])
def test_truncated_files_are_refused(tmp_path, capfd, kept):
    ppi, _, codes = day(3000)
    path = write_hdf5(tmp_path / "CESNET-QUIC22-XS.h5", {"D20221031": (ppi, codes)})
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(DataError) as refusal:
        cesnet_hdf5.read_hdf5(path)
    assert str(path) in str(refusal.value)
    assert "HDF5-DIAG" not in capfd.readouterr().err


def test_other_files_and_folders_are_refused(tmp_path):
    text = tmp_path / "a.h5"
    text.write_text("no HDF5\n" * 200)
    for path in (text, tmp_path, tmp_path / "nowhere.h5"):
        with pytest.raises(DataError, match="not a readable HDF5 file"):
            cesnet_hdf5.read_hdf5(path)


def test_without_pytables_the_extra_is_named(tmp_path, monkeypatch):
    real = importlib.import_module

    def missing(name, *args):
        if name == "tables":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DataError, match=r"jaxtraffic\[hdf5\]"):
        cesnet_hdf5.read_hdf5(tmp_path / "a.h5")


def test_files_are_found_smallest_first(tmp_path):
    names = ["S/CESNET-QUIC22-S.h5", "cesnet-quic22/XS/CESNET-QUIC22-XS.h5", "CESNET-QUIC22.h5"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert cesnet_hdf5.find_files(tmp_path) == [tmp_path / names[index] for index in (1, 0, 2)]
