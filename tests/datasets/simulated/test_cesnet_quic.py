"""The stand-in: the layout of the real set, the same reader, the same bytes for the same seed."""

import csv
import gzip
import hashlib
import json

import numpy as np
import pytest

from jaxtraffic.datasets.cesnet import day_files as cesnet
from jaxtraffic.datasets.simulated import cesnet_quic as simulate
from jaxtraffic.datasets.simulated import marker
from jaxtraffic.datasets.simulated.quic_services import SERVICES
from jaxtraffic.errors import DataError
from tests.datasets.cesnet.raw_files import read_day


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return simulate.simulate_cesnet(tmp_path_factory.mktemp("root"), n_flows=3000)


def day_file(folder):
    return folder / "W-2022-44" / "1_Mon" / "flows-20221031.csv.gz"


def test_layout_is_that_of_the_real_set(folder):
    assert folder.parts[-2:] == ("simulated", "cesnet-quic22")
    with gzip.open(day_file(folder), "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(simulate.COLUMNS)
    assert len(simulate.COLUMNS) == 30
    assert len(rows) == 3000
    assert [int(row["ID"]) for row in rows] == list(range(1, 3001))
    assert [row["TIME_FIRST"] for row in rows] == sorted(row["TIME_FIRST"] for row in rows)
    stats = json.loads((day_file(folder).parent / "stats-20221031.json").read_text())
    assert stats["global"]["total-saved"] == sum(stats["apps"].values()) == 3000
    with (folder / "servicemap.csv").open() as file:
        tags = {row["Tag"] for row in csv.DictReader(file)}
    assert tags >= {row["APP"] for row in rows}


def test_columns_agree_with_the_packets(folder):
    with gzip.open(day_file(folder), "rt", newline="") as file:
        rows = list(csv.DictReader(file))[:300]
    for row in rows:
        times, directions, sizes = json.loads(row["PPI"])
        assert len(times) == len(directions) == len(sizes) == int(row["PPI_LEN"])
        packets = int(row["PACKETS"]) + int(row["PACKETS_REV"])
        assert len(times) == min(packets, 30)
        assert (times[0], directions[0]) == (0, 1)
        assert int(row["PPI_ROUNDTRIPS"]) == np.count_nonzero(np.diff(directions))
        assert float(row["PPI_DURATION"]) == pytest.approx(sum(times) / 1000)
        assert sum(json.loads(row["PHIST_SRC_SIZES"])) == int(row["PACKETS"])
        assert sum(json.loads(row["PHIST_DST_SIZES"])) == int(row["PACKETS_REV"])
        if packets <= 30:
            signed = np.array(sizes) * np.array(directions)
            assert int(row["BYTES"]) == signed[signed > 0].sum()
            assert int(row["BYTES_REV"]) == -signed[signed < 0].sum()


def test_the_reader_of_the_real_set_reads_it(folder):
    flows, is_dns = read_day(cesnet.find_days(folder)[0])
    assert len(flows) == 3000
    assert is_dns.mean() == pytest.approx(0.06, abs=0.01)
    lengths = flows.n_packets
    assert (lengths == 30).mean() > 0.3
    assert (lengths < 10).mean() > 0.05
    first = flows.size[:, 0]
    assert set(first.tolist()) <= {1200, 1250, 1252, 1350, 1357}
    assert flows.size.max() <= 1472
    assert (flows.direction[:, 0] == 1).all()


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path):
    digests = [
        hashlib.sha256(
            day_file(simulate.simulate_cesnet(tmp_path / name, n_flows=400, seed=seed)).read_bytes()
        ).digest()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_made_once_and_anew_when_settings_change(tmp_path):
    folder = simulate.simulate_cesnet(tmp_path, n_flows=300)
    before = day_file(folder).stat().st_mtime_ns
    simulate.simulate_cesnet(tmp_path, n_flows=300)
    assert day_file(folder).stat().st_mtime_ns == before
    simulate.simulate_cesnet(tmp_path, n_flows=310)
    assert len(read_day(day_file(folder))[0]) == 310
    # a run that was cut off before the marker leaves a set that counts as unfinished
    (folder / marker.MARKER).unlink()
    day_file(folder).write_bytes(b"half")
    simulate.simulate_cesnet(tmp_path, n_flows=310)
    assert len(read_day(day_file(folder))[0]) == 310
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_simulated_sets_are_known_by_their_marker(folder, tmp_path):
    assert marker.is_simulated(day_file(folder))
    assert marker.is_simulated(folder)
    assert not marker.is_simulated(tmp_path)


def test_a_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        simulate.simulate_cesnet(tmp_path / "file", n_flows=50)


def test_services_fit_curation():
    """In a set of the default size: small classes above the threshold of 200 but for one, and an imbalance of 20."""
    kept = [service.flows for service in SERVICES if service.port == 443 and service.flows >= 200]
    assert len(kept) == 16
    assert min(kept) >= 250
    assert max(kept) >= 20 * min(kept)
    assert sum(service.flows < 200 for service in SERVICES) == 1
