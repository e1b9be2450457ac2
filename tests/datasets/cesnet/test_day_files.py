"""The day files of CESNET-QUIC22: values against a plain loop, and every refusal."""

import datetime
import gzip
import json
import logging

import numpy as np
import pytest

from jaxtraffic.datasets import csv_blocks
from jaxtraffic.datasets.cesnet import day_files as cesnet
from jaxtraffic.datasets.flow_block import FACTS, ReadOptions
from jaxtraffic.errors import DataError
from tests.datasets.cesnet.raw_files import (
    FIXTURE_HEADER,
    FIXTURE_ROW,
    GOOD_PPI,
    csv_text,
    random_ppi,
    read_day,
    reference_arrays,
    row,
    write_day,
)


def test_fixture_row_reads_as_written(tmp_path):
    flows, is_dns = read_day(write_day(tmp_path, text=f"{FIXTURE_HEADER}\n{FIXTURE_ROW}\n"))
    assert flows.class_names == ("youtube",)
    assert flows.size[0, :6].tolist() == [1250, 1250, 1250, 41, 41, 0]
    assert flows.direction[0, :6].tolist() == [1, -1, -1, -1, 1, 0]
    np.testing.assert_array_equal(flows.iat[0, :6], np.float32([0, 0.007, 0.014, 0, 0.002, 0]))
    assert flows.length == 30
    assert (flows.size_layer, flows.source, flows.name) == ("payload", "real", "cesnet_quic")
    assert not is_dns.any()


@pytest.mark.parametrize("block_bytes", [700, 5_000, 4 << 20])
def test_values_equal_a_plain_loop_for_any_block_size(tmp_path, monkeypatch, block_bytes):
    rng = np.random.default_rng(0)
    cells = [random_ppi(rng, int(n)) for n in rng.integers(1, 31, 200)]
    apps = rng.choice(["alpha", "beta", "gamma"], 200)
    path = write_day(tmp_path, [row(cell, app) for cell, app in zip(cells, apps, strict=True)])
    read = csv_blocks.row_blocks
    monkeypatch.setattr(csv_blocks, "row_blocks", lambda path: read(path, block_bytes=block_bytes))
    flows, _ = read_day(path)
    for name, expected in zip(("size", "direction", "iat"), reference_arrays(cells), strict=True):
        np.testing.assert_array_equal(getattr(flows, name), expected)
        assert getattr(flows, name).dtype == expected.dtype
    assert [flows.class_names[label] for label in flows.label] == apps.tolist()


def test_column_order_and_user_agent_name_do_not_matter(tmp_path):
    columns = ["APP", "QUIC_USER_AGENT", "PPI", "ID"]
    path = write_day(tmp_path, [row(QUIC_USER_AGENT="x, y"), row(QUIC_USER_AGENT="", app="beta")], columns=columns)
    flows, _ = read_day(path)
    assert flows.class_names == ("alpha", "beta")
    assert flows.size[:, :2].tolist() == [[1200, 40]] * 2


def test_line_ends_inside_quotes_and_windows_line_ends(tmp_path):
    rows = [row(QUIC_SNI='a\n"b",c'), row(app="beta")]
    flows, _ = read_day(write_day(tmp_path, rows))
    assert len(flows) == 2
    flows, _ = read_day(write_day(tmp_path, text=csv_text(rows).replace("\n", "\r\n")))
    assert flows.class_names == ("alpha", "beta")


def test_several_gzip_members_and_zero_filling(tmp_path):
    text = csv_text([row(), row(app="beta")]).encode()
    data = gzip.compress(text[:300]) + gzip.compress(text[300:]) + bytes(64)
    assert len(read_day(write_day(tmp_path, data=data))[0]) == 2


def test_dns_is_known_by_port_name_and_category(tmp_path):
    rows = [
        row(),
        row(DST_PORT="853"),
        row(SRC_PORT="53"),
        row(app="quad-dns"),
        row(app="some-doh"),
        row(app="dohuk-news"),
        row(CATEGORY="DNS"),
        row(CATEGORY=""),
    ]
    assert read_day(write_day(tmp_path, rows))[1].tolist() == [False, True, True, True, True, False, True, False]


def test_unused_spelling_of_json_reads_the_same(tmp_path):
    spellings = ["[[0,5],[1,-1],[1200,40]]", "[[0.0, 5.0], [1, -1], [1200, 4e1]]", " [ [0, 5],[1, -1],[1200, 40]]"]
    for cell in spellings:
        flows, _ = read_day(write_day(tmp_path, [row(GOOD_PPI), row(cell)]))
        np.testing.assert_array_equal(flows.size[0], flows.size[1])
        np.testing.assert_array_equal(flows.iat[0], flows.iat[1])


def test_a_first_time_that_is_not_zero_is_set_to_zero_and_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="jaxtraffic.datasets"):
        flows, _ = read_day(write_day(tmp_path, [row(), row("[[9, 5], [1, -1], [1200, 40]]")]))
    assert flows.iat[1, :2].tolist() == [0, np.float32(0.005)]
    assert "1 flow(s)" in caplog.text


BAD_CELLS = [
    ("unequal lists", {"ppi": "[[0, 5], [1], [1200, 40]]"}, "PPI", "unequal length"),
    ("negative size", {"ppi": "[[0, 5], [1, -1], [1200, -40]]"}, "PPI", "size of packet 2 is -40"),
    ("size beyond int16", {"ppi": "[[0, 5], [1, -1], [32768, 40]]"}, "PPI", "size of packet 1 is 32768"),
    ("size of many digits", {"ppi": "[[0, 5], [1, -1], [1200, 99999999999]]"}, "PPI", "size of packet 2"),
    ("broken bytes", {"ppi": "[[0, 5], [1, -1], [1200, 40.5]]"}, "PPI", "size of packet 2 is 40.5"),
    ("direction 0", {"ppi": "[[0, 5], [1, 0], [1200, 40]]"}, "PPI", "direction of packet 2 is 0"),
    ("direction 11", {"ppi": "[[0, 5], [11, -1], [1200, 40]]"}, "PPI", "direction of packet 1 is 11"),
    ("negative time", {"ppi": "[[0, -5], [1, -1], [1200, 40]]"}, "PPI", "time of packet 2 is -5"),
    ("text in a list", {"ppi": '[[0, 5], [1, -1], [1200, "x"]]'}, "PPI", "not a number"),
    ("true in a list", {"ppi": "[[0, 5], [1, true], [1200, 40]]"}, "PPI", "not a number"),
    ("null in a list", {"ppi": "[[0, null], [1, -1], [1200, 40]]"}, "PPI", "not a number"),
    ("NaN", {"ppi": "[[0, NaN], [1, -1], [1200, 40]]"}, "PPI", "not JSON"),
    ("infinite", {"ppi": "[[0, 1e999], [1, -1], [1200, 40]]"}, "PPI", "not a number"),
    ("two lists", {"ppi": "[[0, 5], [1, -1]]"}, "PPI", "2 lists"),
    ("four lists", {"ppi": "[[0, 5], [1, -1], [1200, 40], [1, 1]]"}, "PPI", "4 lists"),
    ("no list", {"ppi": "17"}, "PPI", "not a list"),
    ("cut off", {"ppi": "[[0, 5], [1, -1], [1200"}, "PPI", "not JSON"),
    ("code", {"ppi": "__import__('os')"}, "PPI", "not JSON"),
    ("empty PPI", {"ppi": ""}, "PPI", "empty"),
    ("31 packets", {"ppi": json.dumps([[0] * 31, [1] * 31, [9] * 31])}, "PPI", "31 packets"),
    ("PPI_LEN differs", {"PPI_LEN": "3"}, "PPI_LEN", "PPI holds 2"),
    ("PPI_LEN is text", {"PPI_LEN": "two"}, "PPI_LEN", "not a number"),
    ("PPI_LEN is empty", {"PPI_LEN": ""}, "PPI_LEN", "not a number"),
    ("port is text", {"DST_PORT": "https"}, "DST_PORT", "not a number"),
    ("empty APP", {"app": ""}, "APP", "empty"),
    ("blank APP", {"app": "  "}, "APP", "empty"),
]


@pytest.mark.parametrize(
    ("cells", "field", "words"), [case[1:] for case in BAD_CELLS], ids=[case[0] for case in BAD_CELLS]
)
@pytest.mark.parametrize("block_bytes", [900, 4 << 20])
def test_a_bad_cell_is_refused_with_its_row_and_field(tmp_path, monkeypatch, block_bytes, cells, field, words):
    read = csv_blocks.row_blocks
    monkeypatch.setattr(csv_blocks, "row_blocks", lambda path: read(path, block_bytes=block_bytes))
    rows = [row() for _ in range(12)] + [row(**cells)] + [row() for _ in range(12)]
    path = write_day(tmp_path, rows)
    with pytest.raises(DataError) as refusal:
        read_day(path)
    assert (refusal.value.path, refusal.value.row, refusal.value.field) == (str(path), 13, field)
    message = str(refusal.value)
    assert str(path) in message
    assert "row 13" in message
    assert words in message
    assert "expected" in message
    assert refusal.value.remedy


def test_the_first_bad_row_is_the_one_named(tmp_path):
    path = write_day(
        tmp_path, [row(), row("[[0, 5], [1, -1], [1200, -1]]"), row("[[0, 5], [3, -1], [1200, 40]]"), row()]
    )
    with pytest.raises(DataError, match="row 2"):
        read_day(path)


@pytest.mark.parametrize("missing", ["PPI", "APP"])
def test_a_missing_column_is_named(tmp_path, missing):
    columns = [name for name in FIXTURE_HEADER.split(",") if name != missing]
    path = write_day(tmp_path, [row()], columns=columns)
    with pytest.raises(DataError, match=f"field {missing}: missing column"):
        read_day(path)


GOOD_LINES = csv_text([row() for _ in range(40)])


def _with_line(line):
    lines = GOOD_LINES.splitlines(keepends=True)
    return "".join([*lines[:21], line, *lines[21:]])


BAD_TEXTS = [
    ("short row", _with_line("1,2,3\n"), "row 21: 3 fields"),
    ("long row", _with_line(FIXTURE_ROW + ",9\n"), "row 21: 31 fields"),
    ("empty field too many", _with_line(FIXTURE_ROW + ",\n"), "row 21: 31 fields"),
    ("empty field too many at the end", GOOD_LINES.rstrip("\n") + ",", "row 40: 31 fields"),
    ("empty line", _with_line("\n"), "row 21: 0 fields"),
    ("open quote", _with_line('"' + FIXTURE_ROW + "\n"), "row 21"),
    (
        "bytes that are no UTF-8",
        GOOD_LINES.encode().replace(b"video.example", b"vid\xff.example"),
        "row 1: invalid UTF-8",
    ),
    ("column named twice", GOOD_LINES.replace("QUIC_SNI", "APP", 1), "field APP: column named twice"),
    ("header only", FIXTURE_HEADER + "\n", "no flows"),
    ("binary", bytes(range(256)) * 4, "header"),
]


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in BAD_TEXTS], ids=[case[0] for case in BAD_TEXTS])
def test_a_bad_text_is_refused(tmp_path, text, words):
    path = write_day(tmp_path, text=text)
    with pytest.raises(DataError) as refusal:
        read_day(path)
    assert str(path) in str(refusal.value)
    assert words in str(refusal.value)


def test_a_short_last_cell_is_not_a_short_row(tmp_path):
    flows, _ = read_day(write_day(tmp_path, [row(FLOW_ENDREASON_OTHER=""), row()]))
    assert len(flows) == 2


GZIPPED = gzip.compress(GOOD_LINES.encode(), mtime=0)


def _damaged():
    rng = np.random.default_rng(3)
    data = bytearray(gzip.compress(csv_text([row(random_ppi(rng, 20)) for _ in range(400)]).encode(), mtime=0))
    data[len(data) // 2] ^= 0x55
    return bytes(data)


BAD_FILES = [
    ("no bytes", b"", "empty file (0 bytes)"),
    ("gzip header and rubbish", b"\x1f\x8b\x08\x00trunc", "gzip"),
    ("one byte", b"\x1f", "truncated"),
    ("half", GZIPPED[: len(GZIPPED) // 2], "truncated"),
    ("without its checksum", GZIPPED[:-8], "truncated"),
    ("last byte missing", GZIPPED[:-1], "truncated"),
    ("wrong checksum", GZIPPED[:-8] + bytes(4) + GZIPPED[-4:], "damaged gzip stream"),
    ("flipped bits", _damaged(), "damaged gzip stream"),
    ("rubbish after the end", GZIPPED + b"rubbish", "damaged gzip stream"),
    ("plain text", GOOD_LINES.encode(), "not a gzip file"),
]


@pytest.mark.parametrize(("data", "words"), [case[1:] for case in BAD_FILES], ids=[case[0] for case in BAD_FILES])
def test_a_bad_file_is_refused(tmp_path, data, words):
    path = write_day(tmp_path, data=data)
    with pytest.raises(DataError) as refusal:
        read_day(path)
    assert str(path) in str(refusal.value)
    assert words in str(refusal.value)


def test_damage_is_named_before_what_it_makes_of_the_rows(tmp_path):
    text = csv_text([row() for _ in range(30)] + [row("rubbish")] + [row() for _ in range(30)])
    path = write_day(tmp_path, data=gzip.compress(text.encode())[:-3])
    with pytest.raises(DataError, match="truncated"):
        read_day(path)


def test_what_is_no_file_is_refused(tmp_path):
    folder = tmp_path / "flows-20221031.csv.gz"
    folder.mkdir()
    dangling = tmp_path / "flows-20221101.csv.gz"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (folder, dangling):
        with pytest.raises(DataError, match="cannot be read") as refusal:
            read_day(path)
        assert str(path) in str(refusal.value)


def test_days_are_read_in_order_and_empty_days_skipped(tmp_path, caplog):
    write_day(tmp_path, [row(app="late")], day="20221102")
    write_day(tmp_path, [row(app="early")], day="20221031")
    write_day(tmp_path, text="", day="20221030")
    paths = cesnet.find_days(tmp_path)
    assert [path.name[6:14] for path in paths] == ["20221030", "20221031", "20221102"]
    blocks = [list(cesnet.read(path, ReadOptions())) for path in paths]
    assert [block.label.to_list() for [block] in blocks] == [[], ["early"], ["late"]]
    assert "flows-20221030" in caplog.text
    assert "skipped" in caplog.text


@pytest.mark.parametrize("place", [".", "cesnet-quic22", "cesnet-quic22/W-2022-44", "cesnet-quic22/W-2022-44/1_Mon"])
def test_day_files_are_found_from_every_level(tmp_path, place):
    path = write_day(tmp_path, [row()])
    assert cesnet.find_days(tmp_path / place) == [path]
    assert cesnet.find_days(tmp_path / "nowhere") == []


def test_a_flow_without_packets_is_read_as_padding(tmp_path):
    flows, _ = read_day(write_day(tmp_path, [row("[[], [], []]"), row()]))
    assert flows.n_packets.tolist() == [0, 2]


def facts_of(path):
    [block] = cesnet.read(path, ReadOptions())
    return block.facts


def utc(*parts):
    return datetime.datetime(*parts, tzinfo=datetime.UTC).timestamp()


def test_facts_of_the_fixture_row(tmp_path):
    facts = facts_of(write_day(tmp_path, text=f"{FIXTURE_HEADER}\n{FIXTURE_ROW}\n"))
    assert facts.schema == {name: FACTS[name] for name in facts.columns}
    assert facts.to_dicts() == [
        {
            "packets": 5,
            "client_port": 50123,
            "server_port": 443,
            "protocol": 17,
            "is_background": False,
            "category": "Streaming media",
            "start": pytest.approx(utc(2022, 10, 31, 10, 0, 0, 1), abs=1e-7),
            "day": 19296,
            "is_dns": False,
        }
    ]


def test_facts_that_cannot_be_understood_are_null_and_refuse_nothing(tmp_path):
    rows = [
        row(TIME_FIRST="2022-10-31T10-00-00.000001", PACKETS="40", PACKETS_REV="2", app="google-background"),
        row(TIME_FIRST="", PACKETS="", PROTOCOL="udp", CATEGORY=""),
        row(TIME_FIRST="yesterday", PACKETS="-5", PROTOCOL="17"),
        row(TIME_FIRST="2022-10-31T10:00:00.000001", PACKETS="99999999999999999999"),
    ]
    facts = facts_of(write_day(tmp_path, rows))
    assert facts["start"].to_list() == [utc(2022, 10, 31, 10, 0, 0, 1), None, None, utc(2022, 10, 31, 10, 0, 0, 1)]
    assert facts["packets"].to_list() == [42, None, None, None]
    assert facts["protocol"].to_list() == [17, None, 17, 17]
    assert facts["category"].to_list()[1] is None
    assert facts["is_background"].to_list() == [True, False, False, False]
    path = write_day(tmp_path, [row()], columns=["APP", "PPI"])
    assert facts_of(path.rename(path.with_name("mine.csv.gz")))["day"].to_list() == [None]


@pytest.mark.parametrize("port", ["65536", "-1", "443.5"])
def test_a_port_that_is_none_is_refused(tmp_path, port):
    with pytest.raises(DataError, match=r"row 2, field DST_PORT: .*expected a whole number from 0 to 65535"):
        read_day(write_day(tmp_path, [row(), row(DST_PORT=port)]))


def test_trap_7_a_day_without_a_byte_is_counted_and_said(tmp_path, caplog):
    path = write_day(tmp_path, text="")
    [block] = cesnet.read(path, ReadOptions())
    assert (len(block), block.dropped, block.size_layer) == (0, {"day files without a byte": 1}, "payload")
    assert "zero bytes after decompression" in caplog.text


def test_blocks_are_bounded_and_stopping_early_is_possible(tmp_path, monkeypatch):
    read = csv_blocks.row_blocks
    monkeypatch.setattr(csv_blocks, "row_blocks", lambda path: read(path, block_bytes=5_000))
    path = write_day(tmp_path, [row() for _ in range(200)])
    blocks = cesnet.read(path, ReadOptions())
    first = next(blocks)
    assert 0 < len(first) < 40
    blocks.close()
    assert sum(map(len, cesnet.read(path, ReadOptions()))) == 200


def test_a_header_of_very_many_names_is_refused_at_once(tmp_path):
    with pytest.raises(DataError, match="column named twice"):
        read_day(write_day(tmp_path, text="," * 100_000 + "\n"))
