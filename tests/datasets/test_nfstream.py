"""Tables of NFStream: CSV, parquet and DataFrames, what its sizes are, and files that are no such table."""

import csv
import gzip
import zipfile

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets import nfstream
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.simulated import nfstream as simulated
from jaxtraffic.datasets.simulated.traffic import simulate_traffic
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies

N = 60
PAYLOAD = ReadOptions(length=100, size_layer="payload")
HEADER = ["src_port", "splt_direction", "splt_ps", "splt_piat_ms", "application_name"]
ROW = {
    "src_port": "443",
    "splt_direction": "[0, 1, 0, -1]",
    "splt_ps": "[100, 0, 300, -1]",
    "splt_piat_ms": "[0, 0, 2500, -1]",
    "application_name": "TLS.YouTube",
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A simulated flows.csv with payload sizes."""
    folder = tmp_path_factory.mktemp("nfstream")
    simulated.simulate(folder, N, 5)
    return folder / "flows.csv"


def write(path, *rows, header=HEADER):
    """CSV out of rows of cells."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(ROW | row for row in rows or [{}])
    return path


def flows_of(blocks):
    """Sizes, directions and iats of each flow."""
    flows = []
    for block in blocks:
        ends = np.cumsum(block.packets.counts)
        for end, count in zip(ends, block.packets.counts, strict=True):
            part = slice(end - count, end)
            flows.append((block.packets.size[part], block.packets.direction[part], block.packets.iat[part]))
    return flows


def read(path, options=PAYLOAD, **arguments):
    """Flows and facts of a file."""
    blocks = list(nfstream.read(path, options, **arguments))
    return flows_of(blocks), pl.concat([block.facts for block in blocks]), blocks


@pytest.mark.parametrize("mode", [0, 1, 3])
def test_round_trip_equals_a_plain_loop_and_the_traffic(tmp_path, mode):
    simulated.simulate(tmp_path, N, 7, accounting_mode=mode)
    (path,) = nfstream.find(tmp_path)
    flows, facts, blocks = read(path, ReadOptions(length=100), accounting_mode=mode)
    traffic = simulate_traffic(N, seed=(7, 0))
    assert {block.size_layer for block in blocks} == {"payload" if mode == 3 else "ip"}
    labels = [label for block in blocks for label in block.label]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(flows) == len(rows) == N
    for index, (row, (size, direction, iat)) in enumerate(zip(rows, flows, strict=True)):
        packets = [
            (int(ps) - (14 if mode == 0 else 0), {"0": 1, "1": -1}[way], int(gap) / 1000)
            for way, ps, gap in zip(*(row[name][1:-1].split(", ") for name in nfstream_lists()), strict=True)
            if way != "-1"
        ]
        assert list(zip(size.tolist(), direction.tolist(), iat.tolist(), strict=True)) == packets
        first = starts_of(traffic.counts)[index]
        part = slice(first, first + min(traffic.counts[index], 30))
        layer = traffic.payload[part] + (0 if mode == 3 else traffic.header[part])
        np.testing.assert_array_equal(size, layer)
        np.testing.assert_array_equal(direction, traffic.direction[part] * traffic.direction[first])
        np.testing.assert_allclose(np.cumsum(iat), (traffic.time[part] - traffic.time[first]) / 1e9, atol=1.1e-3)
        assert labels[index] == row["application_name"]
        assert facts["category"][index] == row["application_category_name"]
        assert facts["start"][index] == pytest.approx(int(row["bidirectional_first_seen_ms"]) / 1000, rel=0, abs=1e-6)
        assert facts["client_port"][index] == int(row["src_port"])
        assert facts["server_port"][index] == int(row["dst_port"])
    assert facts["protocol"].to_list() == traffic.protocol.tolist()
    assert facts["packets"].to_list() == traffic.counts.tolist()
    assert not facts["is_dns"].any()


def nfstream_lists():
    """The columns of the packets."""
    return "splt_direction", "splt_ps", "splt_piat_ms"


def test_trap_10_padding_is_told_by_direction_and_a_packet_of_size_0_and_iat_0_survives(tmp_path):
    flows, _, _ = read(write(tmp_path / "flows.csv", {}, {"splt_direction": "[-1, -1, -1, -1]"}))
    assert [values.tolist() for values in flows[0]] == [[100, 0, 300], [1, -1, 1], [0.0, 0.0, 2.5]]
    assert flows[1][0].size == 0


def test_the_accounting_mode_has_to_be_said(tmp_path):
    path = write(tmp_path / "flows.csv")
    with pytest.raises(ConfigError, match="accounting_mode=3.*accounting_mode=1.*accounting_mode=0"):
        read(path, ReadOptions())
    assert read(path, ReadOptions(size_layer="ip"))[2][0].size_layer == "ip"
    with pytest.raises(ConfigError, match="layer ip only, not 'payload'"):
        read(path, PAYLOAD, accounting_mode=1)
    for mode in (2, 7):
        with pytest.raises(ConfigError, match=f"accounting_mode={mode} gives sizes that are neither"):
            read(path, accounting_mode=mode)
    with pytest.raises(ConfigError, match="layer ip or payload only"):
        read(path, ReadOptions(size_layer="frame"))


def test_frames_lose_ethernet_and_vlan_headers(tmp_path):
    sizes = {"splt_ps": "[74, 60, 1514, -1]"}
    path = write(tmp_path / "a.csv", sizes | {"vlan_id": "0"}, sizes | {"vlan_id": "12"}, header=[*HEADER, "vlan_id"])
    flows, _, blocks = read(path, ReadOptions(), accounting_mode=0)
    assert [flow[0].tolist() for flow in flows] == [[60, 46, 1500], [56, 42, 1496]]
    assert blocks[0].size_layer == "ip"
    with pytest.raises(DataError, match="row 1, field splt_ps: size of packet 2 is 0, less than an Ethernet header"):
        read(write(tmp_path / "b.csv"), ReadOptions(), accounting_mode=0)


def test_parquet_and_other_labels(tmp_path, table):
    rows = pl.read_csv(table).with_columns(
        pl.col(name).str.json_decode(pl.List(pl.Int64)) for name in nfstream_lists()
    )  # fmt: skip
    rows.write_parquet(tmp_path / "flows.parquet")
    assert nfstream.find(tmp_path) == [tmp_path / "flows.parquet"]
    for one, other in zip(read(tmp_path / "flows.parquet")[0], read(table)[0], strict=True):
        for values, others in zip(one, other, strict=True):
            np.testing.assert_array_equal(values, others)
    blocks = read(table, label="protocol")[2]
    assert set(blocks[0].label) == {"6", "17"}
    with pytest.raises(DataError, match="field app: missing column.*name the column of the classes"):
        read(table, label="app")


def test_blocks_of_rows_join_to_the_file(tmp_path, table, monkeypatch):
    whole = read(table)
    monkeypatch.setattr(nfstream, "BLOCK_BYTES", 3000)
    parts = read(table)
    assert len(parts[2]) > 5
    assert parts[1].equals(whole[1])
    for one, other in zip(parts[0], whole[0], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    # line ends and commas inside quotes
    monkeypatch.setattr(nfstream, "BLOCK_BYTES", 50)
    odd = write(tmp_path / "odd.csv", *[{"application_name": 'two\nlines, "quoted"\n'}] * 5)
    blocks = read(odd)[2]
    assert [label for block in blocks for label in block.label] == ['two\nlines, "quoted"\n'] * 5
    rows = [{}] * 9 + [{"splt_ps": "[1, x, 2, -1]"}]
    with pytest.raises(DataError, match="row 10, field splt_ps: no list of numbers"):
        read(write(tmp_path / "bad.csv", *rows))


def test_archives_are_read_in_place(tmp_path, table):
    with zipfile.ZipFile(tmp_path / "flows.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(table, "flows.csv")
    assert len(read(tmp_path / "flows.zip")[0]) == N


class Frame:
    """What is used of a pandas DataFrame."""

    def __init__(self, columns):
        self._columns = columns

    @property
    def columns(self):
        return list(self._columns)

    def __getitem__(self, name):
        return np.array(self._columns[name] + [None], dtype=object)[:-1]


def test_data_frames_of_pandas_and_polars(table):
    text = pl.read_csv(table)
    lists = text.with_columns(pl.col(name).str.json_decode(pl.List(pl.Int64)) for name in nfstream_lists())
    expected = read(table)[0]
    arrays = Frame({name: [np.array(cell) if name in nfstream_lists() else cell for cell in lists[name].to_list()]
                    for name in lists.columns})  # fmt: skip
    for frame in (text, lists, Frame(lists.to_dict(as_series=False)), arrays):
        result = nfstream.from_nfstream(frame, accounting_mode=3, length=30)
        assert len(result) == N
        assert result.flows.size_layer == "payload"
        for index, (size, direction, iat) in enumerate(expected):
            n = size.size
            np.testing.assert_array_equal(result.flows.size[index, :n], size)
            np.testing.assert_array_equal(result.flows.direction[index], np.r_[direction, np.zeros(30 - n, np.int8)])
            np.testing.assert_allclose(result.flows.iat[index, :n], iat)
        assert result.facts["client_port"].to_list() == text["src_port"].to_list()
    labelled = nfstream.from_nfstream(text, accounting_mode=3, label="application_category_name")
    assert set(labelled.flows.class_names) == {category for _, category in simulated.APPS}


def test_data_frames_that_are_none():
    for frame in (None, [1], {"a": 1}, Frame({**{name: [1] for name in HEADER}, "splt_ps": [object()]})):
        with pytest.raises(JaxTrafficError):
            nfstream.from_nfstream(frame, accounting_mode=3)
    with pytest.raises(DataError, match="field splt_ps: missing column"):
        nfstream.from_nfstream(pl.DataFrame({"a": [1]}), accounting_mode=3)
    with pytest.raises(DataError, match="no rows"):
        nfstream.from_nfstream(Frame({name: [] for name in HEADER}), accounting_mode=3)
    with pytest.raises(ConfigError, match="accounting_mode=2"):
        nfstream.from_nfstream(pl.DataFrame(), accounting_mode=2)


BAD = {
    "direction": ({"splt_direction": "[0, 2, 0, -1]"}, "row 1, field splt_direction: direction of packet 2 is 2"),
    "padding": ({"splt_direction": "[0, -1, 0, -1]"}, r"row 1, field splt_direction: padding \(-1\) before a packet"),
    "size": ({"splt_ps": "[100, -1, 300, -1]"}, "row 1, field splt_ps: size of packet 2 is -1"),
    "time": ({"splt_piat_ms": "[0, -5, 0, -1]"}, "row 1, field splt_piat_ms: inter-packet time of packet 2 is -5"),
    "lengths": ({"splt_ps": "[100, 0, 300]"}, "row 1, field splt_direction: 4 values, but splt_ps has 3"),
    "empty": ({"splt_ps": ""}, "row 1, field splt_ps: empty"),
    "numpy text": ({"splt_ps": "[100 0 300 -1]"}, "row 1, field splt_ps: no list of numbers"),
    "commas": ({"splt_ps": "[100,,300,-1]"}, "row 1, field splt_ps: no list of numbers"),
    "huge": ({"splt_ps": "[99999999999999999999999, 0, 1, -1]"}, "field splt_ps"),
    "label": ({"application_name": ""}, "row 1, field application_name: null"),
    "port": ({"src_port": "4.5"}, "row 1, field src_port: not a whole number"),
    "infinite port": ({"src_port": "inf"}, "row 1, field src_port: not a whole number"),
}


@pytest.mark.parametrize(("cells", "message"), BAD.values(), ids=BAD)
def test_bad_rows_are_refused_with_row_and_field(tmp_path, cells, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "flows.csv", cells))


@pytest.mark.parametrize("name", [*nfstream_lists(), "application_name"])
def test_missing_columns_are_named(tmp_path, name):
    path = write(tmp_path / "flows.csv", header=[column for column in HEADER if column != name])
    with pytest.raises(DataError, match=f"flows.csv, field {name}: missing column"):
        read(path)


def test_files_that_are_no_tables(tmp_path, table):
    path = tmp_path / "flows.csv"
    for content, problem in (
        (b"", "empty file"),
        (b"a,b\n1,2\n", "missing column"),
        (b"\xff\xfe\n", "no line of text"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=problem):
            read(path)
        assert nfstream.find(tmp_path) == []
    path.write_bytes(table.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DataError, match="no rows"):
        read(path)
    path.write_bytes(table.read_bytes()[:-40])
    with pytest.raises(DataError, match=f"row {N}"):
        read(path)
    path.write_bytes(table.read_bytes() + b'1,"never closed\n')
    with pytest.raises(DataError):
        read(path)
    path.with_suffix(".parquet").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="not a parquet file"):
        read(path.with_suffix(".parquet"))
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.csv")


def test_a_row_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(nfstream, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(nfstream, "MAX_ROW_BYTES", 10_000)
    path = write(tmp_path / "flows.csv")
    path.write_bytes(path.read_bytes() + b'"' + b"x" * 20_000)
    with pytest.raises(DataError, match="a row of more than 10000 bytes"):
        read(path)


def test_find_takes_its_own_tables_and_no_others(tmp_path, table):
    assert nfstream.find(table.parent) == [table]
    assert nfstream.find(table) == [table]
    assert nfstream.find(tmp_path / "none") == []
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    pl.DataFrame({"app": [1]}).write_parquet(tmp_path / "other.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    assert nfstream.find(tmp_path) == []


def test_simulation_is_deterministic(tmp_path):
    for name in ("one", "two"):
        nfstream.NFSTREAM.simulate(tmp_path / name, 30, 3)
    assert (tmp_path / "one" / "flows.csv").read_bytes() == (tmp_path / "two" / "flows.csv").read_bytes()
    with pytest.raises(ConfigError, match="0, 1 or 3"):
        simulated.simulate(tmp_path, 10, 0, accounting_mode=2)


def damaged(table, tmp_path, n, seed):
    """Reads damaged copies of CSV and parquet; counts how many were refused."""
    lines = b"".join(table.read_bytes().splitlines(keepends=True)[:8])
    (tmp_path / "flows.csv").write_bytes(lines)
    pl.read_csv(tmp_path / "flows.csv").write_parquet(tmp_path / "flows.parquet")
    refused = 0
    for name in ("flows.csv", "flows.parquet"):
        path = tmp_path / f"copy-{name}"
        for data in mutated_copies((tmp_path / name).read_bytes(), n // 2, seed):
            path.write_bytes(data)
            try:
                for _ in nfstream.read(path, PAYLOAD):
                    pass
                nfstream.find(path)
            except JaxTrafficError:
                refused += 1
    return refused


def test_damaged_files_raise_our_errors_only(tmp_path, table):
    assert damaged(table, tmp_path, 50, 1) > 20


@pytest.mark.slow
def test_many_damaged_files_raise_our_errors_only(tmp_path, table):
    assert damaged(table, tmp_path, 2000, 2) > 800
