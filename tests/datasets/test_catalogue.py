"""`load`: names, where files are looked for, stand-ins, and the order of the checks."""

import json
import subprocess
import sys

import numpy as np
import pytest

import jaxtraffic.datasets as datasets
from jaxtraffic.datasets import catalogue
from jaxtraffic.datasets.simulated import cesnet_quic as simulate
from jaxtraffic.errors import ConfigError, DataError
from tests.datasets.raw_files import row, write_day, write_hdf5
from tests.datasets.test_interchange import assert_equal, random_series


@pytest.fixture
def small_stand_in(monkeypatch):
    make = simulate.simulate_cesnet
    monkeypatch.setattr(catalogue, "simulate_cesnet", lambda root: make(root, n_flows=1500))


def test_unknown_name_and_tier_are_refused_before_any_file_is_touched(tmp_path):
    with pytest.raises(ConfigError, match="no_such_set.*cesnet_quic, parquet"):
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
    with pytest.raises(DataError, match="neither a folder nor"):
        datasets.load("cesnet_quic", path=tmp_path / "flows.txt")


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
