"""Tables of tcbench: what each of them means, and the traps in them."""

import logging

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.simulated import tcbench as simulated
from jaxtraffic.datasets.tcbench import tables as tcbench
from jaxtraffic.errors import ConfigError, DataError
from tests.datasets.tcbench.raw_tables import TABLES, N, read_all, simulate_tables, single, traffic_of, v1_rows, write

IDS = ["-".join(table) for table in TABLES]
# the value of packets from the client
CLIENT = dict.fromkeys(TABLES, 1) | {("mirage19", "v1"): 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder of each simulated table."""
    return simulate_tables(tmp_path_factory, TABLES)


def times_of(row, dataset, generation):
    """Seconds since the first packet, out of a row, as the source of tcbench says."""
    if (dataset, generation) == ("utmobilenet21", "v1"):
        total, out = 0.0, []
        for gap in row["timetofirst"]:
            total += gap
            out.append(total)
        return out
    if generation == "v1":
        return row["timetofirst"]
    if dataset == "mirage19":
        total, out = 0.0, []
        for index, gap in enumerate(row["pkts_iat"]):
            total += gap if index else 0
            out.append(total)
        return out
    return row["pkts_timetofirst" if dataset == "ucdavis19" else "pkts_timestamp"]


@pytest.mark.parametrize(("dataset", "generation"), TABLES, ids=IDS)
def test_round_trip_equals_a_plain_loop_and_the_traffic(folders, dataset, generation):
    paths = tcbench.find(folders[dataset, generation])
    flows, labels, facts, layers = read_all(paths)
    rows = [row for path in paths for row in pl.read_parquet(path).to_dicts()]
    assert len(flows) == len(rows) == N
    assert layers == {"ip" if generation == "dev" and dataset != "ucdavis19" else "payload"}
    traffic = traffic_of(dataset)
    layer = traffic.payload + (traffic.header if (dataset, generation) == ("utmobilenet21", "dev") else 0)
    for row, (size, direction, iat), label in zip(rows, flows, labels, strict=True):
        expected_size = list(row["pkts_size"])
        if (dataset, generation) == ("utmobilenet21", "v1") and row["ip_proto"] == 17:
            expected_size = [value - 8 for value in expected_size]
        assert size.tolist() == expected_size
        client = CLIENT[dataset, generation]
        assert direction.tolist() == [1 if value == client else -1 for value in row["pkts_dir"]]
        times = times_of(row, dataset, generation)
        # floating point: epoch seconds in float64 are exact to 2.4e-7
        np.testing.assert_allclose(np.cumsum(iat), np.asarray(times) - (times[0] if times else 0), atol=1e-6 * len(iat))
        assert label == row["app"]
        part = slice(starts_of(traffic.counts)[row["row_id"]], np.cumsum(traffic.counts)[row["row_id"]])
        true_size, true_direction = layer[part], traffic.direction[part]
        if (dataset, generation) == ("mirage19", "v1"):
            true_direction, true_size = true_direction[true_size > 0], true_size[true_size > 0]
        elif (dataset, generation) == ("mirage19", "dev"):
            header = 40 if traffic.protocol[row["row_id"]] == 6 else 28
            true_direction, true_size = true_direction[:32], true_size[:32] + header
        elif (dataset, generation) == ("ucdavis19", "dev"):
            true_direction, true_size = true_direction[1:], true_size[1:]
        np.testing.assert_array_equal(size, true_size)
        np.testing.assert_array_equal(direction, true_direction)
    assert not facts["is_background"].any()
    if dataset != "ucdavis19":
        order = [row["row_id"] for row in rows]
        assert facts["protocol"].to_list() == traffic.protocol[order].tolist()
        assert facts["client_port"].to_list() == traffic.client_port[order].tolist()
        assert facts["server_port"].to_list() == traffic.server_port[order].tolist()


def test_facts(folders):
    _, _, facts, _ = read_all(tcbench.find(folders["mirage19", "dev"]))
    row = pl.read_parquet(tcbench.find(folders["mirage19", "dev"])[0]).to_dicts()[3]
    assert facts.row(3, named=True) | {"category": row["app_category"]} == facts.row(3, named=True)
    assert facts["device"][3] == row["device_id"]
    assert facts["capture"][3] == f"{row['device_id']}/{row['fname']}"
    assert facts["has_handshake"].all()
    # of whole flows, not of the 32 packets that stand in the table
    assert facts["packets"].to_list() == traffic_of("mirage19").counts.tolist()
    _, _, facts, _ = read_all(tcbench.find(folders["utmobilenet21", "dev"]))
    assert set(facts["partition"].to_list()) == set(simulated.UTMOBILENET_PARTS)
    assert set(facts["activity"].to_list()) == {"action"}
    _, _, facts, _ = read_all(tcbench.find(folders["ucdavis19", "v1"]))
    assert set(facts["partition"].to_list()) <= set(simulated.UCDAVIS_PARTS)
    assert set(facts["protocol"].to_list()) == {17}


def test_start_is_the_epoch_time_of_the_first_packet(folders):
    for dataset, generation in (("ucdavis19", "v1"), ("utmobilenet21", "v1"), ("utmobilenet21", "dev")):
        _, _, facts, _ = read_all(tcbench.find(folders[dataset, generation]))
        traffic = traffic_of(dataset)
        true = traffic.time[starts_of(traffic.counts)] / 1e9
        # dev utmobilenet21 takes the clock of Texas for UTC; the five hours come back
        np.testing.assert_allclose(facts["start"].to_numpy(), true, atol=1e-6, rtol=0)
        assert facts["start"].dtype == pl.Float64


def test_trap_1_utmobilenet_timetofirst_holds_inter_arrival_times(tmp_path):
    times = {"timetofirst": [[0.0, 3.0, 1.0], [0.0]]}
    udp = write(tmp_path / "utmobilenet21.parquet", v1_rows(ip_proto=[6, 6], **times))
    assert single(udp)[2] == [0.0, 3.0, 1.0]
    other = write(tmp_path / "mirage19.parquet", v1_rows(conn_id=["x", "y"]))
    assert single(other)[2] == [0.0, 0.0, 2.5]
    wrong = write(tmp_path / "mirage22.parquet", v1_rows(conn_id=["x", "y"], **times))
    with pytest.raises(DataError, match=r"row 1, field timetofirst: time of packet 3 is 2 s before"):
        read_all([wrong])


def test_trap_2_polarity_differs_per_dataset(tmp_path):
    for name, columns, expected in (
        ("mirage19.parquet", {}, [-1, 1, -1]),
        ("mirage22_filtered_minpkts10.parquet", {}, [-1, 1, -1]),
        ("ucdavis-icdm19.parquet", {}, [1, -1, 1]),
        ("utmobilenet21.parquet", {"ip_proto": [6, 6]}, [1, -1, 1]),
    ):
        assert single(write(tmp_path / name, v1_rows(**columns)))[1] == expected


def test_trap_3_float32_epoch_times_of_dev_ucdavis_are_no_start(folders, caplog):
    with caplog.at_level(logging.WARNING):
        _, _, facts, _ = read_all(tcbench.find(folders["ucdavis19", "dev"]))
    assert "start" not in facts.columns
    assert "128 s" in caplog.text


def test_trap_3_float32_epoch_times_are_no_times_of_packets(tmp_path):
    rows = v1_rows(pkts_dir=[[1, -1, 1], [1]], net_tuple=["x", "y"], pkts_timestamp=[[1.5e9, 1.5e9, 1.5e9], [1.5e9]])
    rows.pop("timetofirst")
    path = write(tmp_path / "utmobilenet21.parquet", rows, pkts_timestamp=pl.List(pl.Float32))
    with pytest.raises(DataError, match=r"field pkts_timestamp: epoch times in float32"):
        read_all([path])


def test_trap_4_dev_ucdavis_lost_first_packets_and_says_so(folders, caplog):
    with caplog.at_level(logging.WARNING):
        flows, _, _, _ = read_all(tcbench.find(folders["ucdavis19", "dev"]))
    assert "lost the first packet" in caplog.text
    assert sum(flow[0].size for flow in flows) == traffic_of("ucdavis19").counts.sum() - N
    assert all(flow[2][0] == 0 for flow in flows if flow[2].size)


def test_trap_5_dev_mirage_sizes_include_headers_and_v1_sizes_do_not(folders):
    ip, _, facts, layers = read_all(tcbench.find(folders["mirage19", "dev"]))
    assert layers == {"ip"}
    payload, _, _, layers = read_all(
        tcbench.find(folders["mirage19", "dev"]), ReadOptions(length=1000, size_layer="payload")
    )
    assert layers == {"payload"}
    for with_header, without, protocol in zip(ip, payload, facts["protocol"], strict=True):
        np.testing.assert_array_equal(with_header[0] - without[0], 40 if protocol == 6 else 28)
    with pytest.raises(ConfigError, match="payload only, not 'ip'"):
        read_all(tcbench.find(folders["mirage19", "v1"]), ReadOptions(size_layer="ip"))


def test_sizes_below_the_headers_they_include_are_refused(tmp_path):
    rows = v1_rows(ip_proto=[17, 17], pkts_size=[[100, 0, 7], [50]])
    with pytest.raises(DataError, match=r"row 1, field pkts_size: size of packet 3 is 7, less than the 8 B"):
        read_all([write(tmp_path / "utmobilenet21.parquet", rows)])


def test_trap_10_a_packet_of_size_0_and_iat_0_survives(tmp_path):
    rows = v1_rows(pkts_size=[[0, 0, 0], [50]], timetofirst=[[0.0, 0.0, 0.0], [0.0]], conn_id=["x", "y"])
    assert single(write(tmp_path / "table.parquet", rows)) == ([0, 0, 0], [-1, 1, -1], [0.0, 0.0, 0.0])


def test_udp_sizes_of_v1_utmobilenet_lose_their_header(tmp_path):
    rows = v1_rows(ip_proto=[17, 6])
    flows, _, _, _ = read_all([write(tmp_path / "utmobilenet21.parquet", rows)])
    # 0 stands where the capture had no length
    assert [flow[0].tolist() for flow in flows] == [[92, 0, 292], [50]]
    with pytest.raises(DataError, match="field ip_proto: missing column"):
        read_all([write(tmp_path / "utmobilenet21b.parquet", v1_rows())])


def test_packets_a_little_out_of_order_count_as_simultaneous(tmp_path, caplog):
    rows = v1_rows(timetofirst=[[0.0, 2.0, 1.5], [0.0]], conn_id=["x", "y"])
    with caplog.at_level(logging.WARNING):
        assert single(write(tmp_path / "table.parquet", rows))[2] == [0.0, 2.0, 0.0]
    assert "1 packet(s)" in caplog.text


def test_unfiltered_tables_of_v1_mirage(tmp_path):
    rows = {
        "row_id": [0],
        "app": ["background"],
        "packet_data_packet_dir": [[0, 1, 0]],
        "packet_data_l4_payload_bytes": [[0, 500, 0]],
        "packet_data_ip_packet_bytes": [[60, 552, 52]],
        "packet_data_iat": [[0.0, 0.25, 0.5]],
        "flow_metadata_bf_num_packets": [70.0],
        "flow_metadata_bf_activity": ["Unknown"],
    }
    path = write(tmp_path / "mirage22.parquet", rows)
    assert single(path) == ([0, 500, 0], [1, -1, 1], [0.0, 0.25, 0.5])
    assert single(path, ReadOptions(size_layer="ip"))[0] == [60, 552, 52]
    facts = read_all([path])[2]
    assert facts.row(0, named=True)["packets"] == 70
    assert facts.row(0, named=True)["activity"] == "Unknown"
    assert facts.row(0, named=True)["is_background"]


def test_dev_mirage_before_its_curation_keeps_raw_directions_and_sizes(tmp_path):
    rows = v1_rows(label=["p", "q"], proto_id=[6, 17], pkts_iat=[[0.0, 1.0, 1.0], [0.0]], pkts_raw_payload=["", ""])
    rows.pop("timetofirst")
    path = write(tmp_path / "_postprocess.parquet", rows | {"device_id": ["d", "d"]})
    assert single(path)[1] == [-1, 1, -1]
    assert read_all([path])[3] == {"payload"}
    later = write(tmp_path / "mirage22.parquet", rows | {"pkts_l4_size": [[60, 0, 260], [22]], "device_id": ["d", "d"]})
    assert read_all([later])[3] == {"ip"}
    assert single(later, ReadOptions(size_layer="payload"))[0] == [60, 0, 260]


def test_curated_dev_mirage22_has_sizes_of_the_ip_layer_only(tmp_path):
    rows = v1_rows(
        pkts_dir=[[1, -1, 1], [1]], pkts_iat=[[0.0, 1.0, 1.0], [0.0]], activity=["x", "y"], proto=["tcp", "udp"]
    )
    rows.pop("timetofirst")
    path = write(tmp_path / "mirage22.parquet", rows | {"pkts_size_times_dir": [[100, 0, 300], [50]]})
    assert read_all([path])[3] == {"ip"}
    with pytest.raises(ConfigError):
        read_all([path], ReadOptions(size_layer="payload"))


def test_generation_is_told_by_directions_where_columns_leave_it_open(tmp_path):
    rows = v1_rows(pkts_iat=[[0.0, 1.0, 1.0], [0.0]])
    rows.pop("timetofirst")
    assert single(write(tmp_path / "ucdavis19.parquet", rows))[1] == [1, -1, 1]
    signed = write(tmp_path / "mirage19.parquet", rows | {"pkts_dir": [[1, -1, 1], [1]]})
    assert single(signed)[1] == [1, -1, 1]
    open_ = write(tmp_path / "ucdavis19b.parquet", rows | {"pkts_dir": [[1, 1, 1], [1]]})
    with pytest.raises(DataError, match=r"say neither v1 nor dev"):
        read_all([open_])


def test_classes_tell_the_data_set_where_columns_and_name_do_not(tmp_path):
    path = write(tmp_path / "flows.parquet", v1_rows(app=["google-doc", "google-search"]))
    assert single(path)[1] == [1, -1, 1]
    for apps, problem in (
        (["google-drive", "youtube"], "could be ucdavis19 or utmobilenet21"),
        (["x", "y"], "no column"),
    ):
        with pytest.raises(DataError, match=problem):
            read_all([write(tmp_path / "flows.parquet", v1_rows(app=apps))])


def test_a_name_that_contradicts_the_columns_is_refused(tmp_path):
    path = write(tmp_path / "ucdavis-icdm19.parquet", v1_rows(conn_id=["x", "y"]))
    with pytest.raises(DataError, match="columns of mirage19 or mirage22, but the file name of ucdavis19"):
        read_all([path])
    path = write(tmp_path / "mirage19.parquet", v1_rows(conn_id=["x", "y"], flow_id=["x", "y"]))
    assert single(path)[1] == [-1, 1, -1]


def test_directions_of_the_other_generation_are_refused(tmp_path):
    rows = v1_rows(conn_id=["x", "y"], pkts_dir=[[1, 0, 1], [-1]])
    with pytest.raises(DataError, match=r"row 2, field pkts_dir: direction of packet 1 is -1; expected 0 \(client\)"):
        read_all([write(tmp_path / "mirage19.parquet", rows)])


def test_length_cuts_and_payload_only_keeps_times_right(folders):
    (path,) = tcbench.find(folders["utmobilenet21", "v1"])
    whole, _, _, _ = read_all([path])
    for cut, flow in zip(read_all([path], ReadOptions(length=5))[0], whole, strict=True):
        np.testing.assert_array_equal(cut[0], flow[0][:5])
    for kept, flow in zip(read_all([path], ReadOptions(length=1000, payload_only=True))[0], whole, strict=True):
        np.testing.assert_array_equal(kept[0], flow[0][flow[0] > 0])
        if kept[0].size:
            elapsed = np.cumsum(flow[2])[flow[0] > 0]
            np.testing.assert_allclose(np.cumsum(kept[2]), elapsed - elapsed[0], atol=1e-9)
