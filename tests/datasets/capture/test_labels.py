import json
import pickle
import time
from pathlib import Path

import polars as pl
import pytest

from jaxtraffic.datasets.capture.labels import (
    by_table_or_folder,
    capture_stem,
    labeller,
    match_template,
    parse_template,
)
from jaxtraffic.datasets.capture.tables import label_flows, read_table
from jaxtraffic.errors import ConfigError, DataError, JaxTrafficError
from tests.datasets.robustness import mutated_copies

FLOWS = pl.DataFrame(
    {
        "client_address": ["10.0.0.1", "10.0.0.1", "2001:db8::1", "10.0.0.9"],
        "client_port": [40_000, 40_001, 5, 6],
        "server_address": ["198.18.0.1", "198.18.0.1", "fd00::2", "198.18.0.7"],
        "server_port": [443, 443, 53, 80],
        "protocol": [6, 17, 17, 6],
        "start": [1_700_000_000.5, 1_700_000_001.5, 1_700_000_002.5, 1_700_000_003.5],
    }
)
KEYS = FLOWS.columns[:5]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.pcap", "a"),
        ("a.b.pcapng", "a.b"),
        ("a.pcap.gz", "a"),
        ("a.PCAPNG.GZ", "a"),
        ("a.cap.pcap", "a.cap"),
        ("a", "a"),
        (".pcap", ".pcap"),
        ("a.txt", "a.txt"),
    ],
)
def test_the_ending_of_a_capture_is_no_part_of_its_name(name, stem):
    assert capture_stem(name) == stem
    assert labeller("file")(Path("x") / name).label == stem


def test_a_folder_is_a_label(tmp_path):
    assert labeller("folder")(tmp_path / "mail" / "a.pcap").label == "mail"


def test_a_template_gives_the_label_and_facts():
    label = labeller("{service}_collection/pcap/{device}/{label}.pcapng")
    found = label(Path("/data/youtube_collection/pcap/win/chrome.pcapng"))
    assert found.label == "chrome" and found.facts == {"device": "win"}
    label = labeller("{service}_collection/pcap/{device}/{activity}.pcapng", compose="{service}/{device}")
    found = label(Path("youtube_collection/pcap/win/chrome.pcapng"))
    assert found.label == "youtube/win" and found.facts == {"device": "win", "activity": "chrome"}


@pytest.mark.parametrize(
    ("template", "path", "fields"),
    [
        ("{a}.pcap", "x.pcap", {"a": "x"}),
        ("{a}.pcap", "x.y.pcap", {"a": "x.y"}),
        ("{a}.pcap", ".pcap", None),
        ("{a}.pcap", "x.pcapng", None),
        ("{a}_{b}.pcap", "x_y_z.pcap", {"a": "x", "b": "y_z"}),
        ("{a}_{b}.pcap", "x_.pcap", None),
        ("{a}_{b}.pcap", "_x.pcap", None),
        ("{a}_{b}.pcap", "__x.pcap", {"a": "_", "b": "x"}),
        ("{a}_x", "x_x_x", {"a": "x_x"}),
        ("{a}_x_{b}", "1_x_x_x_2", {"a": "1", "b": "x_x_2"}),
        ("{}/{a}", "/any/x", {"a": "x"}),
        ("{a}/fixed/{b}.p", "/top/one/fixed/two.p", {"a": "one", "b": "two"}),
        ("{a}/fixed/{b}.p", "/top/one/other/two.p", None),
        ("aa{a}aa", "aaa", None),
        ("[{a}].*", "[x].*", {"a": "x"}),
        ("[{a}].*", "xyz", None),
    ],
)
def test_templates_are_compared_part_by_part_from_the_end(template, path, fields):
    assert match_template(parse_template(template), Path(path)) == fields


def test_a_template_longer_than_the_path_does_not_fit():
    assert match_template(parse_template("{a}/{b}/{c}"), Path("/b/c")) is None


@pytest.mark.parametrize(
    "template",
    [
        "{a}{b}.pcap",
        "{a}/{a}",
        "{a",
        "a}",
        "{a.b}",
        "{a!r}",
        "{0}",
        "{a:>9}",
        "/{a}",
        "{a}//b",
        "../{a}",
        "{a}/",
    ],
)
def test_templates_that_mean_nothing_or_reach_into_objects_are_refused(template):
    with pytest.raises(ConfigError):
        labeller(template, compose="{a}")


def test_labels_are_made_of_fields_of_the_template():
    for compose in ("{b}", "{a.__class__}", "fixed", "{a}{}"):
        with pytest.raises(ConfigError):
            labeller("{a}.pcap", compose=compose)
    with pytest.raises(ConfigError, match="made of fields"):
        labeller("{a}.pcap")
    with pytest.raises(ConfigError, match="got 'nothing'"):
        labeller("nothing")


def test_no_template_takes_long():
    template = parse_template("_".join("{" + "a" * (1 + index) + "}" for index in range(40)) + "x")
    begin = time.perf_counter()
    assert match_template(template, Path("_" * 5_000)) is None
    assert match_template(template, Path("a_" * 2_500)) is None
    assert time.perf_counter() - begin < 0.5


def test_labellers_can_be_pickled(tmp_path):
    table = write(tmp_path / "t.csv", "file,label\na.pcap,x\n")
    for spec in ("auto", "file", "folder", "{device}/{label}.pcap", str(table)):
        again = pickle.loads(pickle.dumps(labeller(spec)))
        assert again(tmp_path / "a.pcap") == labeller(spec)(tmp_path / "a.pcap")


def test_a_table_of_files_names_them_by_path_or_name(tmp_path):
    table = write(
        tmp_path / "t.csv", "label,file,device,extra\nmail,day1/a.pcap,phone,1\nweb,./b.pcap,,2\nmail,c.pcap,,\n"
    )
    label = labeller(str(table))
    found = label(tmp_path / "day1" / "a.pcap")
    assert (found.label, found.facts, found.is_class) == ("mail", {"device": "phone"}, False)
    assert (label(tmp_path / "b.pcap").label, label(tmp_path / "b.pcap").facts) == ("web", {})
    assert label(tmp_path / "anywhere" / "c.pcap").label == "mail"
    assert label(tmp_path / "d.pcap") is None


def test_tables_may_be_json(tmp_path):
    table = write(tmp_path / "t.json", json.dumps({"a.pcap": "mail"}))
    assert labeller(str(table))(tmp_path / "a.pcap").label == "mail"
    table = write(tmp_path / "u.json", json.dumps([{"file": "a.pcap", "label": 7, "device": None}]))
    assert labeller(str(table))(tmp_path / "a.pcap").label == "7"


def test_a_table_beside_the_captures_comes_before_the_folder(tmp_path):
    deep = tmp_path / "web" / "x"
    deep.mkdir(parents=True)
    assert by_table_or_folder(deep / "a.pcap").label == "x"
    write(tmp_path / "labels.csv", "file,label\nweb/x/a.pcap,mail\n")
    assert by_table_or_folder(deep / "a.pcap").label == "mail"
    assert by_table_or_folder(deep / "b.pcap") is None
    write(tmp_path / "labels.csv", "file,label\nweb/x/a.pcap,voice call\n")
    assert by_table_or_folder(deep / "a.pcap").label == "voice call"  # a table that changed is read again


def flow_table(tmp_path, rows, header=(*KEYS, "label")):
    text = "\n".join(",".join(str(value) for value in row) for row in (header, *rows))
    return read_table(write(tmp_path / "flows.csv", text + "\n"))


def test_a_table_of_flows_knows_them_in_both_directions(tmp_path):
    rows = [
        ("10.0.0.1", 40_000, "198.18.0.1", 443, "TCP", "mail"),
        ("198.18.0.1", 443, "10.0.0.1", 40_001, 17, "voice"),
        ("2001:DB8:0::0001", 5, "fd00:0::2", 53, "udp", "name"),
    ]
    table = flow_table(tmp_path, rows)
    assert label_flows(FLOWS, table=table).to_list() == ["mail", "voice", "name", None]
    assert label_flows(FLOWS[::-1], table=table).to_list() == [None, "name", "voice", "mail"]
    assert label_flows(FLOWS.head(0), table=table).to_list() == []


def test_a_table_of_flows_may_have_some_of_the_columns(tmp_path):
    table = flow_table(tmp_path, [("198.18.0.1", "mail"), ("198.18.0.7", "web")], ("server_address", "label"))
    assert label_flows(FLOWS, table=table).to_list() == ["mail", "mail", None, "web"]


def test_starts_tell_flows_of_the_same_addresses_apart(tmp_path):
    rows = [
        ("198.18.0.1", 1_700_000_000.4, "first"),
        ("198.18.0.1", 1_700_000_001.4, "second"),
        ("198.18.0.7", 1_700_000_009.0, "too late"),
    ]
    table = flow_table(tmp_path, rows, ("server_address", "start", "label"))
    assert label_flows(FLOWS, table=table).to_list() == ["first", "second", None, None]


def test_a_capture_that_does_not_know_a_column_is_refused(tmp_path):
    table = flow_table(tmp_path, [("198.18.0.1", "mail")], ("server_address", "label"))
    with pytest.raises(ConfigError, match="server_address"):
        label_flows(FLOWS.drop("server_address"), table=table)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no table"),
        ("file\na.pcap\n", "has the columns file"),
        ("label\nx\n", "has the columns label"),
        ("file,label\na.pcap,x\na.pcap,y\n", "row 2, field file: a.pcap stands there twice"),
        ("file,label\na.pcap,\n", "row 1, field label: is empty"),
        ("file,label\n ,x\n", "row 1, field file: is empty"),
        ("client_port,label\nmany,x\n", "row 1, field client_port: 'many' is not a number"),
        ("protocol,label\nsctp,x\n", "field protocol: 'sctp' is not a number"),
        ("client_port,start,label\n1,nan,x\n", "field start: 'nan' is not a number"),
        ("client_port,label\n1,x\n1,y\n", "1 flows have more than one label"),
        ("file,label\na,b,c,d\n", "no table"),
    ],
)
def test_tables_that_are_none_are_refused_by_name(tmp_path, text, problem):
    with pytest.raises(DataError, match=problem):
        read_table(write(tmp_path / "t.csv", text))


@pytest.mark.parametrize("text", ["", "7", "[1]", '{"a": ', "[" * 100_000, '[{"file": "a"}]'])
def test_json_tables_that_are_none_are_refused(tmp_path, text):
    with pytest.raises(DataError):
        read_table(write(tmp_path / "t.json", text))


def test_a_table_that_is_not_there_is_an_error_of_ours(tmp_path):
    for name in ("t.csv", "t.json"):
        with pytest.raises(DataError, match="cannot be read"):
            labeller(str(tmp_path / name))


def damage(tmp_path, n):
    table = "".join(f"10.0.0.{row},{row},198.18.0.1,443,tcp,{1.7e9 + row},mäil\n" for row in range(20))
    files = {
        "t.csv": ",".join((*KEYS, "start", "label")) + "\n" + table,
        "u.csv": "file,label,device\n" + "".join(f"{row}.pcap,mail,x\n" for row in range(20)),
        "v.json": json.dumps([{"file": f"{row}.pcap", "label": "mail"} for row in range(20)]),
    }
    outcomes = set()
    for name, text in files.items():
        for number, copy in enumerate(mutated_copies(text.encode(), n, seed=1)):
            path = tmp_path / f"{number}{name}"
            path.write_bytes(copy)
            try:
                table = read_table(path)
                if isinstance(table, pl.DataFrame):
                    label_flows(FLOWS, table=table)
                outcomes.add("read")
            except JaxTrafficError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_damaged_tables_raise_nothing_but_our_errors(tmp_path):
    damage(tmp_path, 50)


@pytest.mark.slow
def test_many_damaged_tables_raise_nothing_but_our_errors(tmp_path):
    damage(tmp_path, 2_000)
