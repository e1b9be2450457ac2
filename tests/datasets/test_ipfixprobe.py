"""CSV of ipfixprobe: arrays, times, facts, and files that are none."""

import datetime

import numpy as np
import pytest

from jaxtraffic.datasets import ipfixprobe, nfstream
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.simulated.traffic import simulate_traffic
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies

HEADER = (
    "ipaddr DST_IP,ipaddr SRC_IP,time TIME_FIRST,uint32 PACKETS,uint32 PACKETS_REV,uint16 DST_PORT,uint16 SRC_PORT,"
    "uint8 PROTOCOL,int8* PPI_PKT_DIRECTIONS,uint8* PPI_PKT_FLAGS,uint16* PPI_PKT_LENGTHS,time* PPI_PKT_TIMES"
)
ROW = (
    "10.0.0.2,10.0.0.1,2016-10-28T17:07:52.625696,4,3,443,50123,6,[1|-1|1],[24|24|24],[100|0|300],"
    "[2016-10-28T17:07:52.625696|2016-10-28T17:07:52.625696|2016-10-28T17:07:55.125697]"
)
EMPTY = "10.0.0.2,10.0.0.1,2016-10-28T17:07:52.625696,1,0,53,50123,17,[],[],[],[]"


def write(path, *rows, header=HEADER):
    """A file out of lines."""
    path.write_text("\n".join([header, *rows, ""]))
    return path


def read(path, **arguments):
    """Blocks of a file."""
    return list(ipfixprobe.read(path, ReadOptions(length=100), **arguments))


def test_arrays_times_and_facts(tmp_path):
    path = write(tmp_path / "youtube.csv", ROW, EMPTY)
    assert ipfixprobe.find(tmp_path) == [path]
    assert nfstream.find(tmp_path) == []
    (block,) = read(path)
    assert block.size_layer == "payload"
    assert block.packets.counts.tolist() == [3, 0]
    assert block.packets.size.tolist() == [100, 0, 300]
    assert block.packets.direction.tolist() == [1, -1, 1]
    np.testing.assert_allclose(block.packets.iat, [0.0, 0.0, 2.500001], rtol=0, atol=1e-9)
    assert block.label.to_list() == ["youtube", "youtube"]
    assert block.facts["packets"].to_list() == [7, 1]
    assert block.facts["client_port"].to_list() == [50123, 50123]
    assert block.facts["is_dns"].to_list() == [False, True]
    moment = datetime.datetime(2016, 10, 28, 17, 7, 52, 625696, tzinfo=datetime.UTC).timestamp()
    assert block.facts["start"][0] == pytest.approx(moment, rel=0, abs=1e-6)


def test_simulated_traffic_reads_back(tmp_path, monkeypatch):
    traffic = simulate_traffic(40, seed=3)
    rows = []
    for first, count in zip(starts_of(traffic.counts), traffic.counts, strict=True):
        part = slice(first, first + count)
        times = [str(np.datetime64(int(value) // 1000, "us")) for value in traffic.time[part]]
        cells = [
            traffic.direction[part].tolist(),
            traffic.tcp_flags[part].tolist(),
            traffic.payload[part].tolist(),
            times,
        ]
        arrays = ",".join("[" + "|".join(map(str, values)) + "]" for values in cells)
        rows.append(f"10.0.0.2,10.0.0.1,{times[0]},{count},0,443,50123,6,{arrays},app-{first % 3}")
    path = write(tmp_path / "flows.csv", *rows, header=HEADER + ",string LABEL")
    monkeypatch.setattr(nfstream, "BLOCK_BYTES", 20_000)
    blocks = read(path)
    assert len(blocks) > 1
    for name, values in (("counts", traffic.counts), ("size", traffic.payload), ("direction", traffic.direction)):
        np.testing.assert_array_equal(np.concatenate([getattr(block.packets, name) for block in blocks]), values)
    iat = np.concatenate([block.packets.iat for block in blocks])
    np.testing.assert_allclose(iat, traffic.iat, rtol=0, atol=1e-8)
    assert [label for block in blocks for label in block.label] == [f"app-{k % 3}" for k in starts_of(traffic.counts)]


BAD = {
    "array": (ROW.replace("[100|0|300]", "100|0|300"), "row 2, field PPI_PKT_LENGTHS: no array"),
    "lengths": (ROW.replace("[1|-1|1]", "[1|-1]"), "row 2, field PPI_PKT_DIRECTIONS: not as many values"),
    "number": (ROW.replace("|0|", "|x|"), "row 2, field PPI_PKT_LENGTHS: 'x' of packet 2 is not a whole number"),
    "time": (ROW.replace("55.125697]", "99.9]"), "row 2, field PPI_PKT_TIMES: .* of packet 3 is not a time"),
    "order": (ROW.replace("17:07:55.1", "17:07:05.1"), "row 2, field PPI_PKT_TIMES: time of packet 3 is 47.5 s before"),
    "direction": (ROW.replace("[1|-1|1]", "[1|0|1]"), "row 2, field PPI_PKT_DIRECTIONS: direction of packet 2 is 0"),
    "port": (ROW.replace("50123", "-1"), "row 2, field SRC_PORT: not a whole number"),
    "start": (ROW.replace(",2016-10-28T17:07:52.625696,4", ",soon,4"), "row 2, field TIME_FIRST: not a time"),
    "fields": ("1,2", "row 2: 2 fields"),
}


@pytest.mark.parametrize(("row", "message"), BAD.values(), ids=BAD)
def test_bad_rows_are_refused_with_row_and_field(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "flows.csv", ROW, row))


def test_files_that_are_none(tmp_path):
    for name in ("PPI_PKT_LENGTHS", "PPI_PKT_TIMES", "PPI_PKT_DIRECTIONS"):
        path = write(tmp_path / "flows.csv", ROW, header=HEADER.replace(name, "OTHER"))
        with pytest.raises(DataError, match=f"flows.csv, field {name}: missing column"):
            read(path)
        assert ipfixprobe.find(tmp_path) == []
    with pytest.raises(DataError, match="no rows"):
        read(write(tmp_path / "flows.csv"))
    (tmp_path / "flows.csv").write_bytes(b"")
    with pytest.raises(DataError, match="empty file"):
        read(tmp_path / "flows.csv")
    with pytest.raises(ConfigError, match="payload only"):
        list(ipfixprobe.read(write(tmp_path / "flows.csv", ROW), ReadOptions(size_layer="ip")))


def damaged(tmp_path, n, seed):
    """Reads damaged copies; counts how many were refused."""
    data, refused = write(tmp_path / "flows.csv", ROW, EMPTY, ROW).read_bytes(), 0
    for copy in mutated_copies(data, n, seed):
        (tmp_path / "flows.csv").write_bytes(copy)
        try:
            read(tmp_path / "flows.csv")
        except JaxTrafficError:
            refused += 1
    return refused


def test_damaged_files_raise_our_errors_only(tmp_path):
    assert damaged(tmp_path, 50, 1) > 20


@pytest.mark.slow
def test_many_damaged_files_raise_our_errors_only(tmp_path):
    assert damaged(tmp_path, 2000, 2) > 800
