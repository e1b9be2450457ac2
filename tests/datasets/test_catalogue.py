"""`load`: names, where files are looked for, stand-ins, and the order of the checks."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import jaxtraffic.datasets as datasets
from jaxtraffic.datasets.simulated import cesnet_quic as simulate
from jaxtraffic.errors import ConfigError, DataError
from tests.datasets.cesnet.raw_files import row, write_day, write_hdf5
from tests.datasets.fake_set import FAKE, read_without_days, write
from tests.datasets.test_interchange import assert_equal, random_series


@pytest.fixture
def small_stand_in(monkeypatch):
    entry = dataclasses.replace(
        datasets.DATASETS["cesnet_quic"], stand_in=lambda root: simulate.simulate_cesnet(root, n_flows=1500)
    )
    monkeypatch.setitem(datasets.DATASETS, "cesnet_quic", entry)


def test_unknown_name_and_tier_are_refused_before_any_file_is_touched(tmp_path):
    with pytest.raises(ConfigError, match="no_such_set.*cesnet_quic, .*mirage19, .*parquet"):
        datasets.load("no_such_set", data_root=tmp_path)
    with pytest.raises(ConfigError, match="7x.*all, 50"):
        datasets.load("cesnet_quic", data_root=tmp_path, tier="7x")
    for option in ("max_flows", "min_packets", "min_flows", "days"):
        with pytest.raises(ConfigError, match=option):
            datasets.load("cesnet_quic", data_root=tmp_path, **{option: 0})
    with pytest.raises(ConfigError, match="group"):
        datasets.load("cesnet_quic", data_root=tmp_path, group="SRC_IP")
    assert list(tmp_path.iterdir()) == []


def test_real_data_that_are_not_there(tmp_path):
    with pytest.raises(DataError) as refusal:
        datasets.load("cesnet_quic", data_root=tmp_path / "none", real=True)
    assert str(tmp_path / "none") in str(refusal.value)
    assert "zenodo.org" in str(refusal.value)
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError, match="no files of CESNET-QUIC22"):
        datasets.load("cesnet_quic", path=tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        datasets.load("cesnet_quic", path=tmp_path / "flows.txt")
    (tmp_path / "flows.txt").touch()
    with pytest.raises(DataError, match="no files of CESNET-QUIC22"):
        datasets.load("cesnet_quic", path=tmp_path / "flows.txt")
    # a set without a stand-in says how to try it all the same
    with pytest.raises(DataError, match="comics.unina.it.*python -m jaxtraffic data simulate mirage19"):
        datasets.load("mirage19", data_root=tmp_path)


def test_a_stand_in_is_made_and_said(tmp_path, small_stand_in, caplog):
    flows, dropped = datasets.load_with_counts("cesnet_quic", data_root=tmp_path, min_flows=18, max_flows=400)
    assert flows.source == "simulated"
    assert flows.size_layer == "payload"
    assert len(flows) == 400
    assert "simulated stand-in" in caplog.text
    assert [entry.rule for entry in dropped] == ["dns", "min_packets", "min_flows", "tier", "max_flows"]
    assert sum(entry.flows for entry in dropped) == 1100
    assert dropped[0].flows > 50
    assert dropped[2].classes >= 1
    assert (np.diff(flows.counts()) <= 0).all(), "most popular first"
    json.dumps([vars(entry) for entry in dropped])
    # the simulated files are never taken for real ones, from whichever side they are reached
    again = datasets.load("cesnet_quic", path=tmp_path / "simulated" / "cesnet-quic22", min_flows=18)
    assert again.source == "simulated"
    with pytest.raises(DataError, match="simulated, but real data were asked for"):
        datasets.load("cesnet_quic", path=tmp_path / "simulated" / "cesnet-quic22", real=True)
    with pytest.raises(DataError, match="no files of CESNET-QUIC22"):
        datasets.load("cesnet_quic", data_root=tmp_path, real=True)


def test_the_seed_draws_other_flows_of_the_same_stand_in(tmp_path, small_stand_in):
    one, same, other = (
        datasets.load("cesnet_quic", data_root=tmp_path, min_flows=18, max_flows=300, seed=seed) for seed in (0, 0, 1)
    )
    assert_equal(one, same)
    assert one.class_names == other.class_names
    assert (one.size != other.size).any()


def real_rows(n=30):
    return [row(app=app) for app in ("alpha", "beta") for _ in range(n)] + [row(app="quad-dns") for _ in range(9)]


def test_real_day_files_win(tmp_path, small_stand_in):
    day = write_day(tmp_path, real_rows())
    write_hdf5(tmp_path / "CESNET-QUIC22-XS.h5", {"D20221031": (np.zeros((2, 3, 30)), [3, 3])})
    for options in (
        {"data_root": tmp_path},
        {"path": tmp_path},
        {"path": day},
        {"data_root": tmp_path / "cesnet-quic22"},
    ):
        flows = datasets.load("cesnet_quic", real=True, min_flows=30, **options)
        assert (flows.source, flows.class_names, len(flows)) == ("real", ("alpha", "beta"), 60)
    assert not (tmp_path / "simulated").exists()


def test_the_environment_names_the_root(tmp_path, monkeypatch):
    write_day(tmp_path, real_rows())
    monkeypatch.setenv("JAXTRAFFIC_DATA", str(tmp_path))
    assert datasets.data_root() == tmp_path
    assert datasets.data_root("elsewhere").name == "elsewhere"
    assert len(datasets.load("cesnet_quic", min_flows=1)) == 60
    monkeypatch.delenv("JAXTRAFFIC_DATA")
    assert datasets.data_root().name == "jaxtraffic"


def test_hdf5_is_read_where_no_day_file_is(tmp_path):
    ppi = np.zeros((40, 3, 30), int)
    ppi[:, 1, :4] = 1
    ppi[:, 2, :4] = 7
    path = write_hdf5(tmp_path / "XS" / "CESNET-QUIC22-XS.h5", {"D20221031": (ppi, [3] * 25 + [13] * 10 + [23] * 5)})
    for options in ({"data_root": tmp_path}, {"path": path}):
        flows, dropped = datasets.load_with_counts("cesnet_quic", real=True, min_flows=5, **options)
        assert (flows.class_names, len(flows), dropped[0].flows) == (("alpha", "beta"), 35, 5)


def test_bad_real_files_are_refused_and_not_replaced_by_a_stand_in(tmp_path, small_stand_in):
    path = write_day(tmp_path, data=b"\x1f\x8b\x08\x00trunc")
    with pytest.raises(DataError, match=str(path)):
        datasets.load("cesnet_quic", data_root=tmp_path)
    assert not (tmp_path / "simulated").exists()


def test_parquet(tmp_path):
    flows = random_series(n=400)
    datasets.write_parquet(flows, tmp_path / "a.parquet")
    loaded, dropped = datasets.load_with_counts("parquet", path=tmp_path / "a.parquet")
    assert (loaded.n_packets >= 10).all()
    assert [entry.rule for entry in dropped] == ["min_packets", "min_flows", "tier"]
    assert dropped[0].flows == int((flows.n_packets < 10).sum())
    assert set(loaded.class_names) == {"zulu", "alpha", "never seen"}
    with pytest.raises(ConfigError, match="needs a path"):
        datasets.load("parquet")
    (tmp_path / "empty.parquet").touch()
    with pytest.raises(DataError, match=r"empty\.parquet: empty file"):
        datasets.load("parquet", path=tmp_path / "empty.parquet")


def test_notice_says_simulated_and_where_the_real_data_are():
    notice = datasets.stand_in_notice("cesnet_quic")
    assert "simulated stand-in" in notice
    assert "zenodo.org" in notice
    with pytest.raises(ConfigError):
        datasets.stand_in_notice("parquet")
    with pytest.raises(ConfigError):
        datasets.stand_in_notice("no_such_set")


def test_import_loads_nothing_heavy():
    code = (
        "import sys, jaxtraffic.datasets; "
        "print([m for m in ('tables', 'sklearn', 'flax', 'optax', 'pandas', 'xgboost') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_may_be_that_of_a_parquet_file_in_the_root(tmp_path):
    flows = random_series(n=400)
    datasets.write_parquet(flows, tmp_path / "mine.parquet")
    assert_equal(datasets.load("mine", data_root=tmp_path), datasets.load("parquet", path=tmp_path / "mine.parquet"))


def test_days_are_counted_whether_they_are_files_or_tables(tmp_path, caplog):
    for day in ("20221101", "20221031", "20221102"):
        write_day(tmp_path / "csv", real_rows(int(day[-2:])), day=day)
    ppi = np.zeros((7, 3, 30), int)
    ppi[:, 1, :4] = 1
    tables = {f"D2022110{day}": (ppi[:day], [3] * day) for day in (2, 3, 4)}
    write_hdf5(tmp_path / "h5" / "CESNET-QUIC22-XS.h5", tables)
    for place, expected in (("csv", (62, 64, 68)), ("h5", (2, 5, 9))):
        for days, number in zip((1, 2, 3), expected, strict=True):
            flows = datasets.load("cesnet_quic", path=tmp_path / place, min_flows=1, days=days)
            assert len(flows) == number
    assert not caplog.text
    assert len(datasets.load("cesnet_quic", path=tmp_path / "h5", min_flows=1, days=9)) == 9
    assert "9 day(s) asked for, 3 found" in caplog.text
    with pytest.raises(ConfigError, match="not organised by day"):
        datasets.load("mirage19", path=tmp_path, days=2)


def test_without_curation_every_flow_and_packet_stays(tmp_path):
    datasets.simulate("mirage19", tmp_path / "raw", n_flows=80, seed=3)
    curated, _ = datasets.load_labelled("mirage19", path=tmp_path / "raw", min_flows=1)
    everything, dropped = datasets.load_labelled("mirage19", path=tmp_path / "raw", curated=False)
    assert len(everything) > len(curated)
    assert (everything.flows.size == 0)[everything.flows.mask].any(), "acknowledgements"
    assert not (curated.flows.size == 0)[curated.flows.mask].any()
    assert "background" in everything.flows.class_names
    assert "background" not in curated.flows.class_names
    assert everything.flows.group is not None
    assert (np.bincount(curated.flows.group) > 0).any()
    with pytest.raises(ConfigError, match="rules of curation"):
        datasets.load("mirage19", path=tmp_path / "raw", curated=False, min_packets=3)
    datasets.convert(
        datasets.describe("mirage19"), tmp_path / "raw", tmp_path / "out", options=datasets.ReadOptions(length=20)
    )
    with pytest.raises(ConfigError, match="converted with packets without payload.*without curation"):
        datasets.load("mirage19", path=tmp_path / "out", length=20)
    with pytest.raises(ConfigError, match="holds 20 packets of a flow, not 30"):
        datasets.load("mirage19", path=tmp_path / "out", curated=False, length=30)
    as_converted = datasets.load("mirage19", path=tmp_path / "out", curated=False)
    np.testing.assert_array_equal(as_converted.size, everything.flows.size[:, :20])
    short = datasets.load("mirage19", path=tmp_path / "out", curated=False, length=9)
    np.testing.assert_array_equal(short.size, everything.flows.size[:, :9])
    with pytest.raises(ConfigError, match="layer payload, not 'ip'"):
        datasets.load("mirage19", path=tmp_path / "out", curated=False, length=9, size_layer="ip")


def test_days_of_a_converted_folder_and_of_files_that_hold_several(tmp_path, caplog):
    for day in ("20221101", "20221031", "20221102"):
        write_day(tmp_path / "csv", real_rows(int(day[-2:])), day=day)
    entry = datasets.describe("cesnet_quic")
    datasets.convert(entry, tmp_path / "csv", tmp_path / "out", options=datasets.ReadOptions())
    for days, number in ((1, 62), (2, 64), (None, 68)):
        assert len(datasets.load("cesnet_quic", path=tmp_path / "out", min_flows=1, days=days)) == number
    # two files of two days each: three days are one and a half files
    ppi = np.zeros((7, 3, 30), int)
    ppi[:, 1, :4] = 1
    for name, days in (("a", (1, 2)), ("b", (3, 4))):
        write_hdf5(tmp_path / f"{name}.h5", {f"D2022110{day}": (ppi[:day], [3] * day) for day in days})
    both = dataclasses.replace(entry, find=lambda place: sorted(place.glob("?.h5")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(datasets.DATASETS, "cesnet_quic", both)
        for days, number in ((2, 3), (3, 6), (4, 10)):
            assert len(datasets.load("cesnet_quic", path=tmp_path, min_flows=1, days=days)) == number
    assert not caplog.text


def test_flows_of_no_known_day_are_flows(tmp_path):
    write(tmp_path, [9])
    unknown = dataclasses.replace(FAKE, read=read_without_days)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(datasets.DATASETS, "fake", unknown)
        assert len(datasets.load("fake", path=tmp_path)) == 6, "9 flows, 3 of them DNS"


def test_simulated_files_are_never_mixed_with_real_ones(tmp_path):
    datasets.simulate("unsw24", tmp_path / "simulated" / "unsw24", n_flows=30)
    entry = datasets.describe("unsw24")
    with pytest.raises(DataError, match="no files of UNSW24"):
        datasets.load("unsw24", data_root=tmp_path)
    real = tmp_path / "unsw24"
    shutil.copytree(tmp_path / "simulated" / "unsw24", real)
    (real / "simulated.json").unlink()
    found, simulated = datasets.find_sources(entry, None, tmp_path)
    assert not simulated
    assert all(path.is_relative_to(real) for path in found)
    (tmp_path / "simulated").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"holds simulated files beside real ones.*give the path"):
        datasets.find_sources(entry, None, tmp_path)


def test_options_of_the_reader_do_not_fit_a_converted_folder(tmp_path):
    datasets.simulate("pcap", tmp_path / "raw", n_flows=30)
    entry = datasets.describe("pcap")
    datasets.convert(entry, tmp_path / "raw", tmp_path / "out", options=datasets.ReadOptions())
    assert len(datasets.load("pcap", path=tmp_path / "out", curated=False)) > 10
    with pytest.raises(ConfigError, match=r"converted: options of the reader \(idle_timeout\)"):
        datasets.load("pcap", path=tmp_path / "out", reader={"idle_timeout": 3})


def test_groups_of_parquet_files_go_with_their_flows(tmp_path):
    parts = [random_series(seed, n=60, group=True) for seed in (1, 2)]
    for name, part in zip("ab", parts, strict=True):
        datasets.write_parquet(part, tmp_path / "files" / f"{name}.parquet")
    entry = datasets.describe("parquet")
    datasets.convert(entry, tmp_path / "files", tmp_path / "out", options=datasets.ReadOptions())
    # of two files no number means the same
    expected = np.concatenate([parts[0].group, parts[1].group + 1000])
    same = expected[:, None] == expected
    for place in ("files", "out"):
        table, _ = datasets.load_labelled("parquet", path=tmp_path / place, curated=False)
        short, _ = datasets.load_labelled("parquet", path=tmp_path / place, curated=False, length=7)
        kept = np.concatenate([part.n_packets for part in parts]) > 0
        np.testing.assert_array_equal(table.flows.group[:, None] == table.flows.group, same[kept][:, kept])
        assert short.flows.length == 7
        np.testing.assert_array_equal(short.flows.size, table.flows.size[:, :7])
