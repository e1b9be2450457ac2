"""CESNET-TLS-Year22 and CESNET-TLS22: xz, four lists, layouts, and the traps of the reference."""

import csv
import datetime
import gzip
import io
import json
import lzma
import pickle

import numpy as np
import pytest

from jaxtraffic.datasets import csv_blocks
from jaxtraffic.datasets.cesnet import day_files as cesnet
from jaxtraffic.datasets.cesnet.sets import CESNET_QUIC22, CESNET_TLS22, CESNET_TLS_YEAR22
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.simulated import cesnet_quic, cesnet_tls
from jaxtraffic.datasets.simulated.traffic import simulate_traffic
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.cesnet.raw_files import YEAR22_HEADER, YEAR22_ROW, write_day, write_xz_day
from tests.datasets.robustness import mutated_copies

FIXTURE = f"{YEAR22_HEADER}\n{YEAR22_ROW}\n"
SETS = {entry.name: entry for entry in (CESNET_QUIC22, CESNET_TLS22, CESNET_TLS_YEAR22)}


def read(dataset, path, **options):
    return list(dataset.read(path, ReadOptions(**options)))


def one(dataset, path, **options):
    [block] = read(dataset, path, **options)
    return block


def rows_of(path):
    data = path.read_bytes()
    text = (lzma if path.suffix == ".xz" else gzip).decompress(data).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def with_cell(**cells):
    values = dict(zip(YEAR22_HEADER.split(","), next(csv.reader([YEAR22_ROW])), strict=True)) | cells
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values.values())
    return f"{YEAR22_HEADER}\n{YEAR22_ROW}\n{out.getvalue()}"


def test_year22_fixture_row_reads_as_written(tmp_path):
    block = one(CESNET_TLS_YEAR22, write_xz_day(tmp_path, FIXTURE))
    assert block.size_layer == "payload"
    assert block.label.to_list() == ["outlook"]
    assert block.packets.counts.tolist() == [4], "a last packet of size 0 and time 0 is a packet"
    assert block.packets.size.tolist() == [517, 146, 51, 0]
    assert block.packets.direction.tolist() == [1, -1, 1, 1]
    np.testing.assert_array_equal(block.packets.iat, [0, 0.001, 0.018, 0])
    [facts] = block.facts.to_dicts()
    assert facts == {
        "packets": 13,
        "server_port": 443,
        "protocol": 6,
        "is_background": False,
        "category": "Mail",
        "start": datetime.datetime(2022, 5, 7, 22, 30, tzinfo=datetime.UTC).timestamp(),
        "day": (datetime.date(2022, 5, 8) - datetime.date(1970, 1, 1)).days,
        "is_dns": False,
    }


def test_a_packet_of_size_and_time_0_in_the_middle_survives(tmp_path):
    text = FIXTURE.replace("[0, 1, 18, 0]", "[0, 0, 18, 0]").replace("[517, 146, 51, 0]", "[517, 0, 51, 0]")
    path = write_xz_day(tmp_path, text)
    assert one(CESNET_TLS_YEAR22, path).packets.size.tolist() == [517, 0, 51, 0]
    left = one(CESNET_TLS_YEAR22, path, payload_only=True)
    assert left.packets.size.tolist() == [517, 51]
    np.testing.assert_allclose(left.packets.iat, [0, 0.018])
    assert left.dropped == {"packets without payload": 2}
    assert one(CESNET_TLS_YEAR22, path, length=2).packets.size.tolist() == [517, 0]


@pytest.mark.parametrize(
    ("ppi", "words"),
    [
        ("[[0, 1], [1, -1], [517, 146]]", "3 lists"),
        ("[[0, 1], [1, -1], [517, 146], [1, 1], [1, 1]]", "5 lists"),
        ("[[0, 1], [1, -1], [517, 146], [1]]", "unequal length (2, 2, 2 and 1)"),
        ('[[0, 1], [1, -1], [517, 146], [1, "x"]]', "not a number"),
    ],
)
def test_push_flags_are_ignored_but_counted(tmp_path, ppi, words):
    with pytest.raises(DataError) as refusal:
        read(CESNET_TLS_YEAR22, write_xz_day(tmp_path, with_cell(PPI=ppi, PPI_LEN="2")))
    assert (refusal.value.row, refusal.value.field) == (2, "PPI")
    assert words in str(refusal.value)
    assert "push flags" in str(refusal.value)


def test_xz_streams_one_after_the_other_and_padding(tmp_path):
    text = (f"{YEAR22_HEADER}\n" + f"{YEAR22_ROW}\n" * 50).encode()
    data = lzma.compress(text[:700]) + bytes(8) + lzma.compress(text[700:], preset=9) + bytes(4)
    assert len(one(CESNET_TLS_YEAR22, write_xz_day(tmp_path, "", data=data))) == 50


@pytest.mark.parametrize("block_bytes", [1_500, 4 << 20])
def test_xz_is_decompressed_in_pieces(tmp_path, block_bytes):
    text = (f"{YEAR22_HEADER}\n" + f"{YEAR22_ROW}\n" * 3_000).encode()
    path = write_xz_day(tmp_path, "", data=lzma.compress(text))
    pieces = list(csv_blocks.decompress(path, block_bytes=block_bytes))
    assert b"".join(pieces) == text
    assert max(map(len, pieces)) <= block_bytes


COMPRESSED = lzma.compress(FIXTURE.encode())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file (0 bytes)"),
        (COMPRESSED[:1], "truncated"),
        (COMPRESSED[:-1], "truncated"),
        (COMPRESSED[: len(COMPRESSED) // 2], "truncated"),
        (COMPRESSED + b"rubbish", "damaged xz stream"),
        (COMPRESSED[:200] + b"\x00\xff" + COMPRESSED[202:], "damaged xz stream"),
        (FIXTURE.encode(), "not an xz file"),
        (gzip.compress(FIXTURE.encode()), "not an xz file"),
    ],
)
def test_a_bad_xz_file_is_refused(tmp_path, data, words):
    path = write_xz_day(tmp_path, "", data=data)
    with pytest.raises(DataError) as refusal:
        read(CESNET_TLS_YEAR22, path)
    assert words in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_an_xz_file_that_wants_more_memory_than_allowed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_blocks, "XZ_MEMORY", 1 << 20)
    path = write_xz_day(tmp_path, "", data=lzma.compress(FIXTURE.encode(), preset=6))
    with pytest.raises(DataError, match="damaged xz stream .*emory"):
        read(CESNET_TLS_YEAR22, path)


@pytest.mark.parametrize("name", list(SETS))
def test_trap_6_day_comes_from_the_file_name_and_never_from_the_first_time(tmp_path, name):
    SETS[name].simulate(tmp_path, 400, 0)
    path = SETS[name].find(tmp_path)[0]
    blocks = read(SETS[name], path)
    day = datetime.date(*map(int, (path.name[6:10], path.name[10:12], path.name[12:14])))
    assert {value for block in blocks for value in block.facts["day"]} == {(day - datetime.date(1970, 1, 1)).days}
    if name == "cesnet_tls":
        assert all("start" not in block.facts.columns for block in blocks)
        return
    starts = np.concatenate([block.facts["start"].to_numpy() for block in blocks])
    midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp()
    assert 0 < np.mean(starts < midnight) < 0.2, "a few flows of the day before in UTC"
    reference = [
        datetime.datetime.fromisoformat(row["TIME_FIRST"]).replace(tzinfo=datetime.UTC) for row in rows_of(path)
    ]
    np.testing.assert_allclose(starts, [time.timestamp() for time in reference], rtol=0, atol=1e-6)


def test_trap_7_a_day_of_zero_bytes_after_decompression(tmp_path, caplog):
    path = write_xz_day(tmp_path, "", day="20221231", week="52")
    [block] = read(CESNET_TLS_YEAR22, path)
    assert (len(block), block.facts.height, block.dropped) == (0, 0, {"day files without a byte": 1})
    assert str(path) in caplog.text
    with pytest.raises(DataError, match="a header and nothing else"):
        read(CESNET_TLS_YEAR22, write_xz_day(tmp_path, YEAR22_HEADER + "\n"))
    CESNET_TLS_YEAR22.simulate(tmp_path / "simulated", 40, 0)
    assert lzma.decompress(CESNET_TLS_YEAR22.find(tmp_path / "simulated")[-1].read_bytes()) == b""


def test_trap_8_the_exporter_changed_in_the_tenth_week(caplog):
    assert cesnet.EXPORTER_CHANGE.isocalendar()[:2] == (2022, 10)
    epoch = datetime.date(1970, 1, 1)
    before, after = ((day - epoch).days for day in (datetime.date(2022, 3, 6), datetime.date(2022, 3, 7)))
    assert not cesnet.warn_exporter_change([])
    assert not cesnet.warn_exporter_change([before, None, before - 7])
    assert not cesnet.warn_exporter_change([after, after + 200])
    assert caplog.text == ""
    assert cesnet.warn_exporter_change([after, None, before])
    assert "exporter was replaced" in caplog.text


def test_trap_9_tls22_is_read_without_push_flags_and_histograms(tmp_path):
    CESNET_TLS22.simulate(tmp_path, 200, 0)
    path = CESNET_TLS22.find(tmp_path)[0]
    assert not [name for name in rows_of(path)[0] if "PHIST" in name or "TIME" in name]
    assert {len(json.loads(row["PPI"])) for row in rows_of(path)} == {3}
    assert sum(map(len, read(CESNET_TLS22, path))) == len(rows_of(path))


@pytest.mark.parametrize("ending", ["gz", "xz"])
@pytest.mark.parametrize("push", ["", ", [1, 1]"])
@pytest.mark.parametrize("folder", ["CESNET-TLS22/W-2021-40/1_Mon", "W-2021-40"])
def test_tls22_is_read_in_any_of_the_forms_it_may_have(tmp_path, ending, push, folder):
    text = f'PPI,APP,NEW\n"[[0, 5], [1, -1], [517, 146]{push}]",teams,x\n'
    path = tmp_path / folder / f"flows-20211004.csv.{ending}"
    path.parent.mkdir(parents=True)
    path.write_bytes((gzip if ending == "gz" else lzma).compress(text.encode()))
    assert CESNET_TLS22.find(tmp_path) == [path]
    block = one(CESNET_TLS22, path)
    assert (block.label[0], block.packets.size.tolist(), block.facts["protocol"][0]) == ("teams", [517, 146], 6)
    assert block.facts["packets"].to_list() == [2]


def test_each_set_finds_its_own_days_in_a_shared_root(tmp_path):
    for entry in SETS.values():
        assert entry.find(tmp_path / "nowhere") == []
        assert entry.find(tmp_path) == []
        entry.simulate(tmp_path, 60, 0)
    folders = {"cesnet_quic": "cesnet-quic22", "cesnet_tls": "CESNET-TLS22", "cesnet_tls_year": "CESNET-TLS-Year22"}
    for name, entry in SETS.items():
        found = entry.find(tmp_path)
        assert found
        assert found == sorted(found, key=lambda path: path.name)
        assert all(path.relative_to(tmp_path).parts[0] == folders[name] for path in found)
        assert entry.find(tmp_path / folders[name]) == found
        assert entry.find(found[0].parent.parent) == [p for p in found if p.parent.parent == found[0].parent.parent]
        assert entry.find(found[0].parent) == entry.find(found[0]) == found[:1]
        for other in SETS.values():
            if other is not entry:
                assert other.find(tmp_path / folders[name]) == other.find(found[0]) == []
        # flows-*.csv.* beside the days is what an unpacked set may hold by accident
        (found[0].parent / "flows-20220101.csv.bak").touch()
        assert entry.find(tmp_path) == found


def test_an_archive_that_is_not_unpacked_is_said(tmp_path):
    for entry, name in (
        (CESNET_QUIC22, "cesnet-quic22.zip"),
        (CESNET_TLS22, "CESNET-TLS22.zip"),
        (CESNET_TLS_YEAR22, "CESNET-TLS-Year22.zip"),
    ):
        path = tmp_path / name
        path.write_bytes(b"PK")
        for place in (tmp_path, path):
            with pytest.raises(DataError, match="unpack it first") as refusal:
                entry.find(place)
            assert refusal.value.path == str(path)
        entry.simulate(tmp_path, 60, 0)
        assert entry.find(tmp_path), "days win"
        path.unlink()


@pytest.mark.parametrize("name", list(SETS))
def test_simulated_files_read_as_a_plain_loop_reads_them(tmp_path, name):
    entry = SETS[name]
    entry.simulate(tmp_path, 500, 3)
    n_flows = 0
    for path in entry.find(tmp_path):
        blocks = [block for block in read(entry, path, length=20) if len(block)]
        rows = rows_of(path)
        n_flows += len(rows)
        assert [label for block in blocks for label in block.label] == [row["APP"] for row in rows]
        start = 0
        for block in blocks:
            packets = [json.loads(row["PPI"]) for row in rows[start : start + len(block)]]
            start += len(block)
            assert block.packets.counts.tolist() == [min(len(lists[0]), 20) for lists in packets]
            for values, index, scale in (
                (block.packets.iat, 0, 1000),
                (block.packets.direction, 1, 1),
                (block.packets.size, 2, 1),
            ):
                np.testing.assert_array_equal(values, [v / scale for lists in packets for v in lists[index][:20]])
    assert 400 <= n_flows <= 500


def test_simulated_year22_is_the_traffic_without_its_acknowledgements():
    """The frame that is written against the traffic by a loop over packets."""
    traffic = simulate_traffic(80, seed=5, n_apps=len(cesnet_tls.YEAR22_APPS), transport="tcp")
    frame = cesnet_tls.flow_frame(traffic, cesnet_tls.YEAR22_APPS, np.random.default_rng(0), push=True)
    expected = []
    ends = np.cumsum(traffic.counts)
    for end, count, app in zip(ends, traffic.counts, traffic.app, strict=True):
        packets = [at for at in range(end - count, end) if traffic.payload[at] > 0]
        if len(packets) < 3:
            continue
        times = [int(traffic.time[at]) // 1_000_000 for at in packets]
        lists = [
            [0, *(later - earlier for earlier, later in zip(times, times[1:]))][:30],
            [int(traffic.direction[at]) for at in packets[:30]],
            [int(traffic.payload[at]) for at in packets[:30]],
            [int(traffic.tcp_flags[at] & 8 > 0) for at in packets[:30]],
        ]
        expected.append((list(cesnet_tls.YEAR22_APPS)[app], lists))
    assert frame.height == len(expected)
    assert list(zip(frame["APP"], map(json.loads, frame["PPI"]), strict=True)) == expected
    assert (frame["PPI_LEN"] <= frame["PACKETS"] + frame["PACKETS_REV"]).all()
    assert (frame["PACKETS"] + frame["PACKETS_REV"]).max() > 30


def test_simulated_layouts_are_those_of_the_real_sets(tmp_path):
    for entry in SETS.values():
        entry.simulate(tmp_path, 200, 0)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names >= {
        "CESNET-TLS-Year22/WEEK-2022-18/2022-05-08/flows-20220508.csv.xz",
        "CESNET-TLS-Year22/WEEK-2022-18/2022-05-08/stats-20220508.json",
        "CESNET-TLS-Year22/WEEK-2022-18/stats-week.json",
        "CESNET-TLS-Year22/WEEK-2022-52/2022-12-31/flows-20221231.csv.xz",
        "CESNET-TLS22/W-2021-40/1_Mon/flows-20211004.csv.gz",
        "cesnet-quic22/W-2022-44/1_Mon/flows-20221031.csv.gz",
        "cesnet-quic22/stats-dataset.json",
        "servicemap.csv",
    }
    assert ",".join(cesnet_tls.YEAR22_COLUMNS) == YEAR22_HEADER
    day = tmp_path / "CESNET-TLS-Year22/WEEK-2022-18/2022-05-08"
    rows = rows_of(day / "flows-20220508.csv.xz")
    assert list(rows[0]) == YEAR22_HEADER.split(",")
    assert [row["ID"] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    stats = json.loads((day / "stats-20220508.json").read_text())
    assert stats["global"]["total-saved"] == sum(stats["apps"].values()) == len(rows)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_large_simulated_sets_have_several_days_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(cesnet_quic, "DEFAULT_FLOWS", 50)
    monkeypatch.setattr(cesnet_quic, "ROWS_AT_ONCE", 30)
    cesnet_quic.simulate(tmp_path, 400, 0)
    found = CESNET_QUIC22.find(tmp_path)
    assert len(found) == 8
    assert {path.parts[-3] for path in found} == {"W-2022-44", "W-2022-45"}
    rows = rows_of(found[7])
    assert [row["ID"] for row in rows] == [str(number) for number in range(1, 51)]
    assert [row["TIME_FIRST"] for row in rows] == sorted(row["TIME_FIRST"] for row in rows)
    assert {app for path in found for app in (row["APP"] for row in rows_of(path))} <= {
        name for name, _ in cesnet_quic.REAL_APPS.values()
    }


@pytest.mark.parametrize("name", list(SETS))
def test_same_seed_same_bytes(tmp_path, name):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        SETS[name].simulate(tmp_path / folder, 50, seed)
    first, same, other = (SETS[name].find(tmp_path / folder)[0].read_bytes() for folder in "abc")
    assert first == same != other


def test_sets_travel_to_other_processes():
    for entry in SETS.values():
        for function in (entry.find, entry.read):
            assert pickle.loads(pickle.dumps(function)).keywords == function.keywords


def test_sizes_of_the_ip_layer_are_not_known(tmp_path):
    path = write_xz_day(tmp_path, FIXTURE)
    assert len(one(CESNET_TLS_YEAR22, path, size_layer="payload")) == 1
    with pytest.raises(ConfigError, match="CESNET-TLS-Year22"):
        read(CESNET_TLS_YEAR22, path, size_layer="ip")


def _survives(tmp_path, n, seed):
    """Damage to the text, which the checksum does not catch, and to the compressed bytes."""
    text = (f"{YEAR22_HEADER}\n" + f"{YEAR22_ROW}\n" * 3).encode()
    outcomes = {"read": 0, "refused": 0}
    for index, copy in enumerate(mutated_copies(text, n, seed)):
        path = write_xz_day(tmp_path, "", data=lzma.compress(copy, preset=0))
        outcomes[_outcome(CESNET_TLS_YEAR22, path)] += 1
        path = write_day(tmp_path, data=gzip.compress(copy.replace(b", [1, 1, 1, 0]", b""), 1), day=f"2022{index:04}")
        outcomes[_outcome(CESNET_QUIC22, path)] += 1
    for compress, write, entry in (
        (lzma.compress, lambda data: write_xz_day(tmp_path, "", data=data), CESNET_TLS_YEAR22),
        (gzip.compress, lambda data: write_day(tmp_path, data=data), CESNET_QUIC22),
    ):
        for copy in mutated_copies(compress(text), n // 2, seed):
            outcomes[_outcome(entry, write(copy))] += 1
    assert outcomes["read"] and outcomes["refused"], outcomes


def _outcome(entry, path):
    try:
        read(entry, path)
    except JaxTrafficError:
        return "refused"
    return "read"


def test_nothing_but_our_own_errors_leaves_the_reader(tmp_path):
    _survives(tmp_path, 50, 0)


@pytest.mark.slow
def test_nothing_but_our_own_errors_leaves_the_reader_of_many_files(tmp_path):
    _survives(tmp_path, 2_000, 1)
