"""NetFlow records in the layouts of NetShare, UGR'16 and CIDDS-001."""

import csv
import dataclasses
import datetime
import gzip
import io
import ipaddress
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxtraffic.datasets.netflow import records as netflow
from jaxtraffic.datasets.netflow.records import read_cidds, read_flow_records, read_netshare, read_ugr16, write_netshare
from jaxtraffic.datasets.netflow.text import row_blocks
from jaxtraffic.datasets.simulated import netflow as simulated
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies

NETSHARE = """srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,label,type,extra
10.0.0.1,198.18.0.9,40000,443.0,TCP,1458298072364001,1.5,3,180,Benign,-,x
3323068500,fe80::1,0,0,ICMP,1458298072364000.0,0.0,0,0,benign,,y
10.0.0.1,FE80::1,5,53,17,1.458298072364e+15,305.63599999999997,62,1736,Benign,,
255.255.255.255,0.0.0.0,65535,0,gre,0,0,1,20,Malicious,C&C,z
"""
UGR16 = """2016-06-20 00:07:11,3.324,42.219.145.241,79.28.21.23,25,60052,TCP,.AP.SF,0,0,29,2172,background
2016-06-20 00:07:12,0.000,42.219.145.241,79.28.21.24,0,771,ICMP,......,0,0,1,56,blacklist
"""
CIDDS = """Date first seen,Duration,Proto,Src IP Addr,Src Pt,Dst IP Addr,Dst Pt,Packets,Bytes,Flows,Flags,Tos,class,attackType,attackID,attackDescription
2017-03-15 00:01:16.632,    0.003,TCP  ,192.168.100.5,   445,EXT_SERVER, 58844,       2,     174,    1,.AP...,  0,normal,---,---,---
2017-03-15 00:01:17.000,   12.500,TCP  ,10008_34, 55101,192.168.100.11,   445,    1500,   1.2 M,    1,.AP...,  0,attacker,dos,1,slow
2017-03-15 00:01:18.000,    0.000,ICMP ,192.168.220.16,     0,EXT_SERVER,   8.0,       1,      92,    1,......,  0,victim,---,---,---
"""  # noqa: E501


def written(tmp_path, text, name="records.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def tarred(text, *names):
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return raw.getvalue()


def assert_same(one, other, *, but=()):
    for field in dataclasses.fields(one):
        if field.name not in but:
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def test_netshare_layout(tmp_path):
    records = read_netshare(written(tmp_path, NETSHARE))
    assert len(records) == 4
    assert records.hosts == ("fe80::1",)
    assert records.source_address.tolist() == [0x0A000001, 3323068500, 0x0A000001, 0xFFFFFFFF]
    assert records.destination_address.tolist() == [0xC6120009, 2**32, 2**32, 0]
    assert records.address_text(records.destination_address) == ["198.18.0.9", "fe80::1", "fe80::1", "0.0.0.0"]
    assert records.source_port.tolist() == [40000, 0, 5, 65535]
    assert records.destination_port.tolist() == [443, 0, 53, 0]
    assert records.protocol.tolist() == [6, 1, 17, 47]
    assert records.duration.tolist() == [1.5, 0.0, 305.63599999999997, 0.0]
    assert records.packets.tolist() == [3, 0, 62, 1]
    assert records.bytes.tolist() == [180, 0, 1736, 20]
    assert (records.class_names, records.type_names) == (("Benign", "Malicious"), ("-", "C&C"))
    assert records.label.tolist() == [0, 0, 0, 1]
    assert records.type.tolist() == [0, 0, 0, 1]
    assert (records.name, records.source, records.dropped) == ("netshare", "real", {})


def test_netshare_times_are_microseconds_and_durations_seconds(tmp_path):
    records = read_netshare(written(tmp_path, NETSHARE))
    assert records.start.dtype == records.duration.dtype == np.float64
    assert records.start.tolist() == [1458298072.364001, 1458298072.364, 1458298072.364, 0.0]


def test_label_is_the_type_where_there_is_no_label(tmp_path):
    text = "srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,type\n1,2,3,4,TCP,5,6,7,8,blacklist\n"
    records = read_netshare(written(tmp_path, text))
    assert records.class_names == records.type_names == ("blacklist",)


def test_ugr16_time_is_that_of_the_end(tmp_path):
    records = read_ugr16(written(tmp_path, UGR16))
    end = datetime.datetime(2016, 6, 20, 0, 7, 11, tzinfo=datetime.UTC).timestamp()
    assert records.start.tolist() == [pytest.approx(end - 3.324, abs=1e-6), end + 1]
    assert records.duration.tolist() == [3.324, 0.0]
    assert records.class_names == ("background", "blacklist")
    assert records.destination_port.tolist() == [60052, 771]


def test_ugr16_by_commas_or_tabs_with_or_without_header(tmp_path):
    plain = read_ugr16(written(tmp_path, UGR16))
    header = ",".join(netflow.UGR16_COLUMNS) + "\n"
    for text in (UGR16.replace(",", "\t"), header + UGR16, (header + UGR16).replace(",", "\t"), UGR16.rstrip()):
        assert_same(plain, read_ugr16(written(tmp_path, text)))
        assert_same(plain, read_flow_records(written(tmp_path, text)))


def test_cidds_quirks(tmp_path):
    records = read_cidds(written(tmp_path, CIDDS))
    assert records.bytes.tolist() == [174, 1_200_000, 92]
    assert set(records.hosts) == {"EXT_SERVER", "10008_34"}
    assert records.address_text(records.destination_address) == ["EXT_SERVER", "192.168.100.11", "EXT_SERVER"]
    assert records.address_text(records.source_address)[1] == "10008_34"
    assert records.destination_port.tolist() == [58844, 445, 8 * 256]
    assert records.protocol.tolist() == [6, 6, 1]
    assert [records.class_names[index] for index in records.label] == ["normal", "attacker", "victim"]
    assert [records.type_names[index] for index in records.type] == ["-", "dos", "-"]
    begin = datetime.datetime(2017, 3, 15, 0, 1, 16, 632000, tzinfo=datetime.UTC).timestamp()
    assert records.start[0] == pytest.approx(begin, abs=1e-6)


def test_cidds_label_column_of_other_weeks_and_other_encodings(tmp_path):
    text = CIDDS.replace(",class,", ",label,").encode().replace(b"slow", b"sl\xf6w")
    assert_same(read_cidds(written(tmp_path, CIDDS)), read_cidds(written(tmp_path, text)))


@pytest.mark.parametrize("text", [NETSHARE, UGR16, CIDDS], ids=["netshare", "ugr16", "cidds"])
def test_the_first_row_tells_the_layout_in_any_container(tmp_path, text):
    plain = read_flow_records(written(tmp_path, text))
    packed = gzip.compress(text.encode())
    assert_same(plain, read_flow_records(written(tmp_path, packed, "records.csv.gz")))
    assert_same(plain, read_flow_records(written(tmp_path, packed, "records.csv")))
    archive = tarred(text, "uniq/week.csv.uniqblacklistremoved")
    assert_same(plain, read_flow_records(written(tmp_path, archive, "week_csv.tar.gz")))


def test_blocks_join(tmp_path, monkeypatch):
    folder = tmp_path / "set"
    simulated.simulate_cidds(folder, 300, 0)
    path = folder / "CIDDS-001" / "traffic" / "OpenStack" / "CIDDS-001-internal-week1.csv"
    whole = read_cidds(path)
    monkeypatch.setattr(netflow, "row_blocks", lambda path: row_blocks(path, block_bytes=9_000))
    assert_same(whole, read_cidds(path), but=("source_address", "destination_address", "hosts"))


BAD = [
    (NETSHARE, "10.0.0.1,198", "10.0.0.256,198", "srcip", "10.0.0.256"),
    (NETSHARE, "198.18.0.9", "localhost", "dstip", "localhost"),
    (NETSHARE, "40000", "65536", "srcport", "65536"),
    (NETSHARE, "443.0", "443.5", "dstport", "443.5"),
    (NETSHARE, "TCP", "TPC", "proto", "TPC"),
    (NETSHARE, "1458298072364001", "1458298072364001000", "ts", "1458298072364001000"),
    (NETSHARE, "1458298072364001", "-1", "ts", "-1"),
    (NETSHARE, "1.5", "nan", "td", "nan"),
    (NETSHARE, "1.5", "-1.5", "td", "-1.5"),
    (NETSHARE, ",3,180,", ",3.5,180,", "pkt", "3.5"),
    (NETSHARE, ",3,180,", ",3,,", "byt", "empty"),
    (NETSHARE, ",180,Benign,", ",180,,", "label or type", "empty"),
    (UGR16, "2016-06-20 00:07:11", "2016-06-31 00:07:11", "te", "2016-06-31"),
    (UGR16, ",3.324,", ",x,", "td", "x"),
    (CIDDS, "     174", "   1.2 X", "Bytes", "1.2 X"),
    (CIDDS, "2017-03-15 00:01:16.632", "yesterday", "Date first seen", "yesterday"),
]


@pytest.mark.parametrize(("text", "old", "new", "field", "words"), BAD)
def test_a_bad_value_names_file_row_and_field(tmp_path, text, old, new, field, words):
    assert old in text
    reader = {NETSHARE: read_netshare, UGR16: read_ugr16, CIDDS: read_cidds}[text]
    path = written(tmp_path, text.replace(old, new, 1))
    with pytest.raises(DataError) as caught:
        reader(path)
    error = caught.value
    assert (error.row, error.field) == (1, field)
    assert str(path) in str(error)
    assert words in error.problem
    dropped = reader(path, bad_rows="drop")
    assert len(dropped) == len(reader(written(tmp_path, text))) - 1
    assert sum(dropped.dropped.values()) == 1


def test_the_first_bad_row_is_named_and_later_blocks_count_on(tmp_path, monkeypatch):
    rows = UGR16.splitlines(keepends=True)
    path = written(tmp_path, "".join(rows * 40) + rows[0].replace("TCP", "TPC") + rows[1].replace("ICMP", "?"))
    monkeypatch.setattr(netflow, "row_blocks", lambda path: row_blocks(path, block_bytes=1_500))
    with pytest.raises(DataError) as caught:
        read_ugr16(path)
    assert (caught.value.row, caught.value.field) == (81, "pr")
    dropped = read_ugr16(path, bad_rows="drop")
    assert (len(dropped), dropped.dropped) == (80, {"protocol": 2})
    # rows beyond those that are asked for are not judged
    assert_same(read_ugr16(path, max_records=80), dropped, but=("dropped",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (NETSHARE.splitlines()[0], "no records"),
        (b"hello\n", "no layout"),
        ("srcip,dstip,srcport,dstport,proto,time,pkt_len,version\n1,2,3,4,TCP,5,6,4\n", "table of packets"),
        (NETSHARE.replace("pkt", "packets"), "column missing"),
        (NETSHARE.replace("extra", "srcip"), "named twice"),
        (NETSHARE.replace(",180,Benign,-,x", ",180"), "fields"),
        (NETSHARE.replace("C&C", "C\xff").encode("latin-1"), "UTF-8"),
        (gzip.compress(NETSHARE.encode())[:-9], "truncated"),
        (np.random.default_rng(0).bytes(4000), "no layout|no line of text"),
    ],
)
def test_what_is_no_table_of_records(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_flow_records(written(tmp_path, text))


def test_missing_columns_are_named(tmp_path):
    for reader, text, column in (
        (read_netshare, NETSHARE, "dstport"),
        (read_cidds, CIDDS, "Packets"),
        (read_ugr16, UGR16, "sa"),
    ):
        text = ",".join(netflow.UGR16_COLUMNS) + "\n" + text if text is UGR16 else text
        with pytest.raises(DataError) as caught:
            reader(written(tmp_path, text.replace(column, "other", 1)))
        assert caught.value.field == column


def test_files_that_cannot_be_read_and_archives_of_several(tmp_path):
    for path in (tmp_path, tmp_path / "missing.csv"):
        with pytest.raises(DataError):
            read_flow_records(path)
    with pytest.raises(DataError, match="several"):
        read_flow_records(written(tmp_path, tarred(UGR16, "a.csv", "b.csv"), "two.tar.gz"))


def test_impossible_options(tmp_path):
    path = written(tmp_path, NETSHARE)
    with pytest.raises(ConfigError):
        read_netshare(path, max_records=0)
    with pytest.raises(ConfigError):
        read_netshare(path, bad_rows="ignore")
    with pytest.raises(ConfigError):
        write_netshare(read_netshare(path), tmp_path / "x", addresses="hex")


@pytest.mark.parametrize("addresses", ["number", "text"])
@pytest.mark.parametrize("text", [NETSHARE, UGR16, CIDDS], ids=["netshare", "ugr16", "cidds"])
def test_written_and_read_again(tmp_path, text, addresses):
    records = read_flow_records(written(tmp_path, text))
    for name in ("out.csv", "out.csv.gz"):
        write_netshare(records, tmp_path / name, addresses=addresses)
        again = read_netshare(tmp_path / name)
        assert_same(records, again, but=("name", "start"))
        np.testing.assert_allclose(again.start, records.start, atol=1e-6, rtol=0)
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    tail = "type" if text is UGR16 else "label,type"
    assert header == f"srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,{tail}"


def read_mutated(tmp_path, n, seed):
    outcomes = {"read": 0, "refused": 0}
    packed = [("a.csv.gz", gzip.compress(UGR16.encode(), mtime=0)), ("a.tar.gz", tarred(UGR16, "a.csv"))]
    plain = [("a.csv", text.encode()) for text in (NETSHARE, UGR16, CIDDS)]
    for number, (name, data) in enumerate(plain + packed):
        for copy in mutated_copies(data, n, seed + number):
            path = written(tmp_path, copy, name)
            for reader in (read_flow_records, read_netshare, read_ugr16, read_cidds):
                try:
                    records = reader(path, bad_rows="drop" if len(copy) % 2 else "refuse")
                except JaxTrafficError:
                    outcomes["refused"] += 1
                    continue
                outcomes["read"] += 1
                assert len(records) == records.label.size == records.bytes.size > 0
                assert np.isfinite(records.start).all()
                assert records.duration.min() >= 0
                for address in (records.source_address, records.destination_address):
                    assert all(records.address_text(address))
    assert min(outcomes.values()) > n / 4


def test_damaged_copies_are_read_or_refused(tmp_path):
    read_mutated(tmp_path, 50, 0)


@pytest.mark.slow
def test_many_damaged_copies_are_read_or_refused(tmp_path):
    read_mutated(tmp_path, 2_000, 100)


def real_file(name):
    root = os.environ.get("JAXTRAFFIC_DATA")
    if not root:
        pytest.skip("JAXTRAFFIC_DATA is not set to the folder of real traffic")
    path = Path(root) / name
    if not path.is_file():
        pytest.skip(f"JAXTRAFFIC_DATA has no {name}")
    return path


@pytest.mark.parametrize(
    ("name", "n_records"), [("netflow_iot23.csv.gz", 46_662), ("netflow_ugr16_small.csv.gz", 1_000)]
)
def test_real_records_against_a_plain_loop(tmp_path, name, n_records):
    path = real_file(name)
    records = read_flow_records(path)
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(records) == len(rows) == n_records
    assert (records.name, records.source) == ("netshare", "real")
    text = [str(ipaddress.ip_address(int(row["srcip"]) if row["srcip"].isdigit() else row["srcip"])) for row in rows]
    assert records.address_text(records.source_address) == text
    assert records.start.tolist() == [float(row["ts"]) / 1e6 for row in rows]
    assert records.duration.tolist() == [float(row["td"]) for row in rows]
    assert records.bytes.tolist() == [int(row["byt"]) for row in rows]
    labels = [row.get("label", row["type"]).lower() for row in rows]
    assert [records.class_names[label].lower() for label in records.label] == labels
    write_netshare(records, tmp_path / "again.csv.gz")
    assert_same(records, read_netshare(tmp_path / "again.csv.gz"))
