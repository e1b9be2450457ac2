"""The HDF5 reader. The base dtypes of the real files are not documented: the fixtures assume some, the reader none."""

import datetime
import importlib
import pickle
import time

import numpy as np
import pytest

from jaxtraffic.datasets.cesnet import hdf5 as cesnet_hdf5
from jaxtraffic.datasets.cesnet import hdf5_check
from jaxtraffic.datasets.cesnet.sets import CESNET_QUIC22, CESNET_TLS22, CESNET_TLS_YEAR22
from jaxtraffic.datasets.flow_block import FACTS, ReadOptions
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.cesnet.raw_files import read_hdf5, write_hdf5
from tests.datasets.robustness import mutated_copies

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
    flows, is_dns = read_hdf5(path)
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
    flows, _ = read_hdf5(path)
    assert [flows.class_names[label] for label in flows.label] == ["alpha", "zulu"]


def test_days_in_order(tmp_path):
    first, second = day(5), day(6, seed=1)
    path = write_hdf5(tmp_path / "a.h5", {"D20221107": (second[0], second[2]), "D20221031": (first[0], first[2])})
    blocks = list(cesnet_hdf5.read(path, ReadOptions()))
    assert [len(block) for block in blocks] == [5, 6]
    assert [block.facts["day"][0] for block in blocks] == [19296, 19303]


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
        read_hdf5(path)
    assert f"{path}:/flows/D20221031, row 9, field PPI" in str(refusal.value)
    assert words in str(refusal.value)


def test_packets_after_padding_are_refused(tmp_path):
    ppi, lengths, codes = day()
    ppi[4, 1] = 1
    ppi[4, 1, 10] = 0
    with pytest.raises(DataError, match=r"row 5, field PPI: a packet after the padding"):
        read_hdf5(write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)}))


def test_a_code_without_a_name_is_refused(tmp_path):
    ppi, _, codes = day()
    codes[6] = 99
    with pytest.raises(DataError, match=r"row 7, field APP: code 99"):
        read_hdf5(write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)}))


@pytest.mark.parametrize("column", ["PPI", "APP"])
def test_a_missing_column_is_named(tmp_path, column):
    ppi, _, codes = day(3)
    with pytest.raises(DataError, match=f"field {column}: missing column"):
        read_hdf5(write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)}, drop=(column,)))


def test_no_day_tables(tmp_path):
    with pytest.raises(DataError, match="no day table"):
        read_hdf5(write_hdf5(tmp_path / "a.h5", {}))
    ppi, _, codes = day(3)
    with pytest.raises(DataError, match="no flows"):
        read_hdf5(write_hdf5(tmp_path / "b.h5", {"D20221031": (ppi[:0], codes[:0])}))


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.95])
def test_truncated_files_are_refused(tmp_path, capfd, kept):
    ppi, _, codes = day(3000)
    path = write_hdf5(tmp_path / "CESNET-QUIC22-XS.h5", {"D20221031": (ppi, codes)})
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(DataError) as refusal:
        read_hdf5(path)
    assert str(path) in str(refusal.value)
    assert "HDF5-DIAG" not in capfd.readouterr().err


def test_other_files_and_folders_are_refused(tmp_path):
    text = tmp_path / "a.h5"
    text.write_text("no HDF5\n" * 200)
    for path in (text, tmp_path, tmp_path / "nowhere.h5"):
        with pytest.raises(DataError, match="not a readable HDF5 file"):
            read_hdf5(path)


def test_without_pytables_the_extra_is_named(tmp_path, monkeypatch):
    real = importlib.import_module

    def missing(name, *args):
        if name == "tables":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DataError, match=r"jaxtraffic\[hdf5\]"):
        read_hdf5(tmp_path / "a.h5")


def test_files_are_found_smallest_first(tmp_path):
    names = ["S/CESNET-QUIC22-S.h5", "cesnet-quic22/XS/CESNET-QUIC22-XS.h5", "CESNET-QUIC22.h5"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert cesnet_hdf5.find_files(tmp_path) == [tmp_path / names[index] for index in (1, 0, 2)]


@pytest.fixture
def elsewhere(monkeypatch):
    """A machine far from UTC."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("kind", ["float", "integer", "text"])
def test_trap_6_facts_of_a_table_on_a_machine_in_another_time_zone(tmp_path, elsewhere, kind):
    import tables

    ppi, _, codes = day(5)
    start = datetime.datetime(2022, 10, 30, 23, 30, tzinfo=datetime.UTC).timestamp()
    column, value = {
        "float": (tables.Float64Col(), start + 0.25),
        "integer": (tables.Int64Col(), int(start)),
        "text": (tables.StringCol(26), b"2022-10-30T23:30:00.250000"),
    }[kind]
    more = {
        "TIME_FIRST": (column, value),
        "PACKETS": (tables.Int32Col(), 40),
        "PACKETS_REV": (tables.UInt16Col(), 2),
        "SRC_PORT": (tables.UInt16Col(), [50_000, 53, 50_000, 50_000, 50_000]),
        "DST_PORT": (tables.Float32Col(), [443, 443, np.nan, 853, 443]),
    }
    path = write_hdf5(tmp_path / "CESNET-QUIC22-XS.h5", {"D20221031": (ppi, codes)}, more=more)
    [block] = CESNET_QUIC22.read(path, ReadOptions())
    facts = block.facts
    assert facts.schema == {name: FACTS[name] for name in facts.columns}
    assert facts["day"].to_list() == [19296] * 5, "the day of the table"
    assert facts["start"].to_list() == [start + (0 if kind == "integer" else 0.25)] * 5
    assert facts["packets"].to_list() == [42] * 5
    assert facts["server_port"].to_list() == [443, 443, None, 853, 443]
    assert facts["category"].to_list() == ["web"] * 5
    assert facts["protocol"].to_list() == [17] * 5
    assert facts["is_dns"].to_list() == [bool(code == 23 or index in (1, 3)) for index, code in enumerate(codes)]


@pytest.mark.parametrize("entry", [CESNET_TLS22, CESNET_TLS_YEAR22], ids=lambda entry: entry.name)
def test_trap_9_tls_tables_need_neither_push_flags_nor_histograms(tmp_path, entry):
    ppi, lengths, codes = day(9)
    title = {"cesnet_tls": "CESNET-TLS22", "cesnet_tls_year": "CESNET-TLS-Year22"}[entry.name]
    path = write_hdf5(
        tmp_path / f"{title}-XS.h5", {"D20211004": (ppi, codes)}, channels=3, drop=("QUIC_SNI", "PPI_LEN")
    )
    for place in (tmp_path, path):
        assert entry.find(place) == [path]
        assert CESNET_QUIC22.find(place) == []
    [block] = entry.read(path, ReadOptions())
    assert block.packets.counts.tolist() == lengths.tolist()
    assert block.facts["protocol"].to_list() == [6] * 9
    with pytest.raises(ConfigError):
        next(entry.read(path, ReadOptions(size_layer="ip")))


def test_trap_10_padding_is_direction_0_and_nothing_else(tmp_path):
    ppi = np.zeros((2, 3, 30), int)
    ppi[:, 1, :4] = [1, -1, -1, 1]
    ppi[0, 2, :4] = [1200, 0, 0, 40]
    path = write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, [3, 3])})
    [block] = cesnet_hdf5.read(path, ReadOptions())
    assert block.packets.counts.tolist() == [4, 4]
    [block] = cesnet_hdf5.read(path, ReadOptions(length=2, payload_only=True))
    assert block.packets.size.tolist() == [1200, 40]


def test_blocks_are_bounded_and_empty_days_are_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cesnet_hdf5, "ROWS_PER_CHUNK", 4)
    ppi, _, codes = day(10)
    path = write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi[:0], codes[:0]), "D20221101": (ppi, codes)})
    blocks = list(cesnet_hdf5.read(path, ReadOptions()))
    assert [len(block) for block in blocks] == [0, 4, 4, 2]
    assert blocks[0].dropped == {"day tables without rows": 1}
    assert "1 of 2 day tables are empty" in caplog.text


def test_a_table_of_more_rows_than_its_file_can_hold_is_refused(tmp_path, monkeypatch):
    ppi, _, codes = day(3000)
    path = write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)})
    monkeypatch.setattr(cesnet_hdf5, "MAX_EXPANSION", 1 / 2)
    with pytest.raises(DataError, match="3000 rows, more than the file can hold"):
        list(cesnet_hdf5.read(path, ReadOptions()))


def test_one_file_of_several_sizes_is_found(tmp_path):
    for name in ("S/CESNET-QUIC22-S.h5", "XS/CESNET-QUIC22-XS.h5", "CESNET-TLS22-XS.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert CESNET_QUIC22.find(tmp_path) == [tmp_path / "XS/CESNET-QUIC22-XS.h5"], "the others hold its flows again"


class _Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


@pytest.mark.filterwarnings("ignore")
def test_pickled_attributes_are_never_loaded(tmp_path):
    import tables

    ppi, _, codes = day(3)
    path = write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)})
    with tables.open_file(str(path), "a") as file:
        for node in (file.root, file.root.flows, file.root.flows.D20221031):
            for name in ("extra", "FIELD_0_FILL", "FLAVOR"):
                node._v_attrs._g__setattr(name, np.bytes_(pickle.dumps(_Bomb(), 0)))
    with pytest.raises(SystemExit):
        tables.open_file(str(path))
    tables.file._open_files.close_all()
    assert sum(map(len, cesnet_hdf5.read(path, ReadOptions()))) == 3
    assert tables.attributeset.pickle is pickle


def test_a_file_that_crashes_or_hangs_the_library_is_refused(tmp_path, monkeypatch):
    ppi, _, codes = day(3)
    path = write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)})
    crash = "print('ready', flush=True); input(); import os; os.abort()"
    hang = "print('ready', flush=True); input(); import time; time.sleep(60)"
    monkeypatch.setattr(hdf5_check, "TIMEOUT_S", 0.3)
    for child in (crash, hang):
        monkeypatch.setattr(hdf5_check, "_CHILD", child)
        hdf5_check._child.cache_clear()
        with pytest.raises(DataError, match="library crashes on it"):
            list(cesnet_hdf5.read(path, ReadOptions()))
    monkeypatch.undo()
    assert sum(map(len, cesnet_hdf5.read(path, ReadOptions()))) == 3, "the next file is not suspected"
    monkeypatch.setattr(hdf5_check, "_CHILD", "import no_such_module")
    hdf5_check._child.cache_clear()
    assert sum(map(len, cesnet_hdf5.read(path, ReadOptions()))) == 3, "without the process, files are read all the same"
    hdf5_check._child.cache_clear()


def _survives(tmp_path, n, seed):
    ppi, _, codes = day(30)
    data = write_hdf5(tmp_path / "a.h5", {"D20221031": (ppi, codes)}).read_bytes()
    path = tmp_path / "damaged.h5"
    refused = 0
    for copy in mutated_copies(data, n, seed):
        path.write_bytes(copy)
        try:
            list(cesnet_hdf5.read(path, ReadOptions()))
        except JaxTrafficError:
            refused += 1
    assert refused > n // 10


def test_nothing_but_our_own_errors_leaves_the_reader(tmp_path):
    _survives(tmp_path, 50, 0)


@pytest.mark.slow
def test_nothing_but_our_own_errors_leaves_the_reader_of_many_files(tmp_path):
    _survives(tmp_path, 2_000, 1)
