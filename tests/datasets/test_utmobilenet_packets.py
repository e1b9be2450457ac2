"""UTMobileNet2021: rows that are left out, facts, time text, and every refusal."""

import locale

import pytest

from jaxtraffic.datasets import utmobilenet
from jaxtraffic.datasets.curation import HANDSHAKE, NO_DNS
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.simulated.utmobilenet import HEADER
from jaxtraffic.datasets.utmobilenet_packets import DOUBLED, INCOMPLETE, NO_HOST, OTHER
from jaxtraffic.errors import DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies
from tests.datasets.utmobilenet_captures import NAME, PHONE, SERVER, packet, read_one, write


def test_rows_that_are_left_out_are_counted(tmp_path):
    doubled = packet() | {"ip.proto": "1.0,6.0", "ip.src": f"{SERVER},{PHONE}", "ip.len": "56.0,52.0"}
    rows = [
        packet(payload=4),
        doubled,
        packet(**{"ip.proto": "6.0,17.0"}),
        packet(**{"ip.proto": "1.0"}),
        packet(**{"ip.proto": "", "ip.src": "", "ip.dst": ""}),
        packet(**{"tcp.srcport": "", "tcp.dstport": "", "tcp.len": ""}),
        packet(server="255.255.255.255"),
    ]
    block = read_one(write(tmp_path, rows))
    assert block.packets.size.tolist() == [4]
    assert block.dropped == {DOUBLED: 2, OTHER: 2, INCOMPLETE: 1, NO_HOST: 1}


def test_facts_for_curation(tmp_path):
    rows = [
        *(packet(n, up=n != 1, ports=(1_001, 443)) for n in range(3)),
        *(packet(n, up=n != 1, ports=(1_002, 443), payload=n // 2) for n in range(3)),
        *(packet(n, up=n != 1, ports=(1_003, 443)) for n in range(2)),
        *(packet(n, up=n != 1, ports=(port, port), tcp=False) for n in range(2) for port in (53, 853, 5353)),
        packet(tcp=False, ports=(1_004, 443)),
    ]
    facts = read_one(write(tmp_path, rows)).facts.sort("client_port")
    assert facts["client_port"].to_list() == [53, 853, 1_001, 1_002, 1_003, 1_004, 5_353]
    assert facts["is_dns"].to_list() == [True, True, False, False, False, False, True]
    assert facts["has_handshake"].to_list() == [None, None, True, False, False, None, None]
    assert HANDSHAKE.keep(facts).sum() == 5
    assert NO_DNS.keep(facts).sum() == 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("Apr  3, 2019 19:07:17.5 CDT", 1_554_336_437.5), ("Apr 3, 2019 19:07:17.500000000 CDT", 1_554_336_437.5),
     ("Dec 31, 2019 18:00:00.000000000 CST", 1_577_836_800.0),
     ("Feb 29, 2020 00:00:00.000000000 CST", 1_582_956_000.0)],
)  # fmt: skip
def test_time_text(tmp_path, text, seconds):
    assert read_one(write(tmp_path, [packet(**{"frame.time": text})])).facts["start"][0] == seconds


def test_month_names_do_not_depend_on_the_locale(tmp_path):
    path = write(tmp_path, [packet(**{"frame.time": f"{month} 01, 2019 00:00:00.000000000 CDT"})
                            for month in ("Jan", "Mar", "May", "Oct", "Dec")])  # fmt: skip
    expected = read_one(path).packets.iat.tolist()
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue
            assert read_one(path).packets.iat.tolist() == expected
    finally:
        locale.setlocale(locale.LC_TIME, before)
    assert expected == [0, 59 * 86_400, 61 * 86_400, 153 * 86_400, 61 * 86_400]


def test_the_column_location_may_be_missing_and_others_may_be_added(tmp_path):
    rows = [packet(payload=3) | {"more": "x"}]
    columns = HEADER.split(",")
    for names in (columns[:-1], [*columns[::-1], "more"]):
        assert read_one(write(tmp_path, rows, columns=names)).packets.size.tolist() == [3]


@pytest.mark.parametrize("column", ["frame.time", "ip.proto", "ip.src", "ip.dst", "tcp.len", "udp.length"])
def test_missing_column_is_named(tmp_path, column):
    path = write(tmp_path, [packet()], columns=[name for name in HEADER.split(",") if name != column])
    with pytest.raises(DataError, match="missing column") as caught:
        read_one(path)
    assert (caught.value.path, caught.value.field) == (str(path), column)


@pytest.mark.parametrize(
    ("cells", "field"),
    [
        ({"frame.time": "2019-04-30 19:07:17"}, "frame.time"),
        ({"frame.time": ""}, "frame.time"),
        ({"frame.time": "Feb 30, 2019 19:07:17.184823000 CDT"}, "frame.time"),
        ({"frame.time": "Avr 30, 2019 19:07:17.184823000 CDT"}, "frame.time"),
        ({"frame.time": "Apr 30, 9999 19:07:17.184823000 CDT"}, "frame.time"),
        ({"ip.src": "10.1.2"}, "ip.src"),
        ({"ip.dst": "a,b"}, "ip.dst"),
        ({"tcp.len": "many"}, "tcp.len"),
        ({"tcp.len": "-1"}, "tcp.len"),
        ({"tcp.len": "1.5"}, "tcp.len"),
        ({"tcp.srcport": "70000.0"}, "tcp.srcport"),
    ],
)
def test_wrong_values_name_row_and_field(tmp_path, cells, field):
    path = write(tmp_path, [packet(), packet(tcp=False), packet(**cells), packet()])
    with pytest.raises(DataError) as caught:
        read_one(path)
    assert (caught.value.path, caught.value.row, caught.value.field) == (str(path), 3, field)


def test_a_short_udp_length_and_an_unknown_zone_are_refused_by_name(tmp_path):
    with pytest.raises(DataError) as caught:
        read_one(write(tmp_path, [packet(tcp=False, **{"udp.length": "7.0"})]))
    assert caught.value.field == "udp.length"
    with pytest.raises(DataError, match="unknown time zone 'PDT'") as caught:
        read_one(write(tmp_path, [packet(), packet(**{"frame.time": "Apr 30, 2019 19:07:17.184823000 PDT"})]))
    assert (caught.value.row, caught.value.field) == (2, "frame.time")


@pytest.mark.parametrize("content", [b"", b"\n", b"not a csv", b"\xff\xfe\x00", b"a,b\n1,2\n"])
def test_what_is_no_capture_is_refused(tmp_path, content):
    path = write(tmp_path, [])
    path.write_bytes(content)
    with pytest.raises(DataError, match=NAME):
        list(utmobilenet.read(path, ReadOptions()))


def test_truncated_row_is_refused(tmp_path):
    path = write(tmp_path, [packet(n) for n in range(9)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError) as caught:
        read_one(path)
    assert caught.value.row == 9


def test_a_header_alone_is_a_capture_without_flows(tmp_path):
    assert len(read_one(write(tmp_path, []))) == 0


def attack(tmp_path, n):
    rows = [packet(n, up=n % 2 == 0, payload=n) for n in range(8)] + [packet(9, tcp=False, payload=9)]
    path = write(tmp_path, rows)
    refused = 0
    for data in mutated_copies(path.read_bytes(), n, 0):
        path.write_bytes(data)
        try:
            list(utmobilenet.read(path, ReadOptions()))
        except JaxTrafficError:
            refused += 1
    assert refused > n // 10


def test_damaged_files_give_our_errors_only(tmp_path):
    attack(tmp_path, 50)


@pytest.mark.slow
def test_many_damaged_files_give_our_errors_only(tmp_path):
    attack(tmp_path, 2_000)
