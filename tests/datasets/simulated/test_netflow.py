"""Simulated NetFlow tables: true layouts, read back as the traffic that they were made from."""

import csv
import datetime
import io
import tarfile

import numpy as np
import pytest

from jaxtraffic.datasets.netflow.records import read_cidds, read_flow_records, read_ugr16
from jaxtraffic.datasets.simulated import netflow as simulated
from jaxtraffic.datasets.simulated.traffic import simulate_traffic


def plain_records(traffic, labels):
    """What a plain loop makes of the packets: one record for each direction of each flow."""
    records, at = [], 0
    for flow, count in enumerate(traffic.counts.tolist()):
        packets = range(at, at + count)
        at += count
        ends = [
            (int(traffic.client[flow]), int(traffic.client_port[flow])),
            (int(traffic.server[flow]), int(traffic.server_port[flow])),
        ]
        for direction, (source, target) in ((1, ends), (-1, ends[::-1])):
            mine = [index for index in packets if traffic.direction[index] == direction]
            if mine:
                times = [int(traffic.time[index]) // 1000 for index in mine]
                size = sum(int(traffic.payload[index] + traffic.header[index]) for index in mine)
                record = (*source, *target, int(traffic.protocol[flow]), times[0], times[-1], len(mine), size)
                records.append((*record, labels[traffic.app[flow]]))
    return sorted(records)


def test_simulated_netshare_is_the_traffic(tmp_path):
    simulated.simulate_netshare(tmp_path, 200, 7)
    traffic = simulate_traffic(200, seed=(7, 1), n_apps=9, max_packets=1000, dns=True)
    expected = plain_records(traffic, simulated.UGR16_LABELS)
    with (tmp_path / "ugr16" / "raw.csv").open(newline="") as file:
        raw = list(csv.DictReader(file))
    found = [
        (int(row["srcip"]), int(row["srcport"]), int(row["dstip"]), int(row["dstport"]),
         {"TCP": 6, "UDP": 17}[row["proto"]], int(row["ts"]), int(row["ts"]) + round(float(row["td"]) * 1e6),
         int(row["pkt"]), int(row["byt"]), row["type"])
        for row in raw
    ]  # fmt: skip
    assert sorted(found) == expected
    assert [row[5] for row in found] == sorted(row[5] for row in found)
    records = read_flow_records(tmp_path / "ugr16" / "raw.csv")
    assert records.source == "simulated"
    assert records.source_address.tolist() == [row[0] for row in found]
    assert np.rint(records.start * 1e6).astype(np.int64).tolist() == [row[5] for row in found]
    assert records.bytes.tolist() == [row[8] for row in found]
    assert [records.class_names[label] for label in records.label] == [row[9] for row in found]


def test_simulated_ugr16_against_a_plain_loop(tmp_path):
    simulated.simulate_ugr16(tmp_path, 200, 7)
    with tarfile.open(tmp_path / "april_week2_csv.tar.gz") as archive:
        (name,) = archive.getnames()
        rows = list(csv.reader(io.TextIOWrapper(archive.extractfile(name), newline="")))
    records = read_ugr16(tmp_path / "april_week2_csv.tar.gz")
    assert name == "uniq/april.week2.csv.uniqblacklistremoved"
    assert len(records) == len(rows) > 390
    assert records.address_text(records.source_address) == [row[2] for row in rows]
    assert records.packets.tolist() == [int(row[10]) for row in rows]
    for row, start in zip(rows, records.start):
        end = datetime.datetime.strptime(row[0] + "+0000", "%Y-%m-%d %H:%M:%S%z").timestamp()
        assert start == pytest.approx(end - float(row[1]), abs=1e-6)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert {len(row[7]) for row in rows} == {6}


def test_simulated_cidds_against_a_plain_loop(tmp_path):
    simulated.simulate_cidds(tmp_path, 2_000, 7)
    millions = 0
    for path in sorted(tmp_path.rglob("*.csv")):
        with path.open(newline="") as file:
            rows = [{name: cell.strip() for name, cell in row.items()} for row in csv.DictReader(file)]
        records = read_cidds(path)
        assert len(records) == len(rows)
        for key, column in (("source_address", "Src IP Addr"), ("destination_address", "Dst IP Addr")):
            assert records.address_text(getattr(records, key)) == [row[column] for row in rows]
        size = [float(row["Bytes"][:-2]) * 1e6 if row["Bytes"].endswith(" M") else int(row["Bytes"]) for row in rows]
        millions += sum(row["Bytes"].endswith(" M") for row in rows)
        np.testing.assert_allclose(records.bytes, size, rtol=1e-9)
        assert [records.class_names[label] for label in records.label] == [row["class"] for row in rows]
        icmp = [row["Proto"] == "ICMP" for row in rows]
        assert set(records.destination_port[np.array(icmp)].tolist()) == {0, 2048}
        public = {row["Dst IP Addr"] for row in rows} | {row["Src IP Addr"] for row in rows}
        assert ("EXT_SERVER" in public) == ("external" in path.name)
    assert millions > 5


@pytest.mark.parametrize("function", [simulated.simulate_netshare, simulated.simulate_ugr16, simulated.simulate_cidds])
def test_same_seed_same_bytes_at_any_time(tmp_path, function, monkeypatch):
    contents = []
    for hour, (folder, seed) in enumerate(((tmp_path / "a", 1), (tmp_path / "b", 1), (tmp_path / "c", 2))):
        monkeypatch.setattr("time.time", lambda hour=hour: 1.7e9 + 3_600 * hour)
        function(folder, 60, seed)
        contents.append([path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()])
    assert contents[0] == contents[1] != contents[2]
