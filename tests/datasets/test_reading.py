"""Sources in order, in one process or several; blocks, merging, grouping; errors that cross processes."""

import json
import os
import pickle

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets import flow_block, labelled, reading
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.ragged import Ragged
from jaxtraffic.errors import ConfigError, DataError
from tests.datasets.fake_set import FAKE, FIELDS, find, write


def die(dataset, source, options):
    os._exit(9)


def block(counts, size, direction, iat, options, **changes):
    packets = Ragged(*(np.array(part) for part in (counts, size, direction, iat)))
    label = pl.Series([f"c{i % 2}" for i in range(len(counts))])
    return flow_block.make_block(packets, label, changes.pop("facts", {}), options, "x", FIELDS, **changes)


def test_several_processes_give_the_same_in_the_same_order(tmp_path):
    write(tmp_path, [40, 0, 9, 23])
    sources = find(tmp_path)
    alone = list(reading.read_sources(FAKE, sources, ReadOptions(length=20), workers=1))
    together = list(reading.read_sources(FAKE, sources, ReadOptions(length=20), workers=2))
    assert [len(part) for part in together] == [40, 0, 9, 23]
    for one, other in zip(alone, together, strict=True):
        for name in ("size", "direction", "iat", "label"):
            np.testing.assert_array_equal(getattr(one.flows, name), getattr(other.flows, name))
        assert one.facts.equals(other.facts)
        assert one.left_out == other.left_out
    # an error keeps its parts on the way from another process
    sources[2].write_text("{")
    with pytest.raises(DataError) as refusal:
        list(reading.read_sources(FAKE, sources, ReadOptions(), workers=2))
    assert (refusal.value.path, refusal.value.row, refusal.value.remedy) == (str(sources[2]), 3, "write it again")
    with pytest.raises(DataError, match="process was killed.*--workers 1"):
        list(reading.each(die, FAKE, sources, ReadOptions(), workers=2))
    with pytest.raises(ConfigError, match="workers"):
        list(reading.read_sources(FAKE, sources, ReadOptions(), workers=0))


def test_errors_survive_pickling():
    error = DataError("a.csv", "bad", row=4, field="f", expected="good", remedy="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert vars(again) == vars(error)
    assert str(again) == str(error)


def test_a_packet_of_size_0_and_iat_0_is_no_padding():
    options = ReadOptions(length=4)
    part = block([3, 1], [10, 0, 0, 0], [1, -1, 1, -1], [5.0, 0.0, 0.0, 7.0], options, size_layer="payload")
    table = labelled.from_blocks([part], "x", name="n", length=4)
    np.testing.assert_array_equal(table.flows.mask, [[True, True, True, False], [True, False, False, False]])
    np.testing.assert_array_equal(table.flows.direction, [[1, -1, 1, 0], [-1, 0, 0, 0]])
    assert table.flows.iat[:, 0].tolist() == [0, 0]
    assert table.facts["packets"].to_list() == [3, 1]


def test_payload_only_keeps_times_right_and_counts():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 12, 50)
    n = int(counts.sum())
    size = np.where(rng.random(n) < 0.5, 0, rng.integers(1, 1000, n))
    direction, iat = rng.choice([1, -1], n), rng.exponential(1.0, n)
    part = block(counts, size, direction, iat, ReadOptions(length=30, payload_only=True), size_layer="payload")
    at, kept = 0, []
    for count in counts:
        clock, last, flow = 0.0, None, []
        for position in range(at, at + count):
            clock += iat[position] if position > at else 0.0
            if size[position]:
                flow.append((size[position], direction[position], 0.0 if last is None else clock - last))
                last = clock
        kept.append(flow)
        at += count
    assert part.packets.counts.tolist() == [len(flow) for flow in kept] == part.facts["packets"].to_list()
    flat = [packet for flow in kept for packet in flow]
    assert part.packets.size.tolist() == [packet[0] for packet in flat]
    assert part.packets.direction.tolist() == [packet[1] for packet in flat]
    np.testing.assert_allclose(part.packets.iat, [packet[2] for packet in flat], atol=1e-9)
    assert part.dropped == {"packets without payload": int((size == 0).sum())}


def test_layers_and_facts():
    with pytest.raises(ConfigError, match="payload only, not 'ip'"):
        flow_block.check_layer(ReadOptions(size_layer="ip"), ("payload",), "it")
    assert flow_block.check_layer(ReadOptions(), ("ip", "payload"), "it") == "ip"
    one, other = (block([1], [5], [1], [0.0], ReadOptions(), size_layer=layer) for layer in ("ip", "payload"))
    with pytest.raises(DataError, match="several layers: ip, payload"):
        labelled.from_blocks([one, other], "x", name="n", length=3)
    facts = {"start": [1.5e9 + 1e-6, np.nan], "capture": "a", "day": None, "has_handshake": [True, None]}
    part = block([1, 1], [5, 6], [1, 1], [0.0, 0.0], ReadOptions(), size_layer="ip", facts=facts)
    assert part.facts.schema == {name: flow_block.FACTS[name] for name in ("packets", *facts)}
    assert part.facts["start"].to_list() == [1.5e9 + 1e-6, None]
    assert part.facts["day"].to_list() == [None, None]
    assert part.facts["capture"].to_list() == ["a", "a"]


def test_merging_unites_classes_and_counts(tmp_path):
    write(tmp_path, [2, 9])
    parts = list(reading.read_sources(FAKE, find(tmp_path), ReadOptions(length=10)))
    table = labelled.merge(parts, tmp_path)
    assert table.flows.class_names == ("dns", "mail", "web")
    names = [table.flows.class_names[label] for label in table.flows.label]
    assert names == ["web", "mail", "web", "mail", "dns"] + ["web", "mail", "dns"] * 2
    assert table.left_out == {"rows of no flow": 3}
    grouped = labelled.grouped_by_capture(table).flows.group
    assert grouped.tolist() == [0] * 2 + [1] * 9
    single = labelled.grouped_by_capture(table[np.arange(2)])
    assert single.flows.group is None
    short = list(reading.read_sources(FAKE, find(tmp_path), ReadOptions(length=5)))
    with pytest.raises(DataError, match="parts disagree: length"):
        labelled.merge([parts[0], short[1]], tmp_path)


def test_sizes_beyond_what_a_series_holds_are_clipped_and_counted():
    size, over = flow_block.clip_sizes(np.array([40, 32767, 32768, 65535]))
    assert size.tolist() == [40, 32767, 32767, 32767]
    assert over == 2


def test_damaged_sources_are_left_out_whole_where_that_is_wanted(tmp_path, caplog):
    write(tmp_path, [20, 20, 20])
    sources = find(tmp_path)
    flows = json.loads(sources[1].read_text())
    flows[15]["size"][0] = -5
    sources[1].write_text(json.dumps(flows))
    with pytest.raises(DataError, match=r"1\.flows.*row"):
        list(reading.read_sources(FAKE, sources, ReadOptions()))
    parts = list(reading.read_sources(reading.skipping_damaged(FAKE), sources, ReadOptions()))
    assert [len(part) for part in parts] == [20, 0, 20], "nothing of a damaged source, not even its good blocks"
    assert labelled.merge(parts, tmp_path).left_out[reading.DAMAGED] == 1
    assert "1.flows" in caplog.text


def test_days_come_from_the_start_where_no_file_name_says_them():
    series = labelled.from_blocks([], "x", name="n", length=3).flows
    day = pl.Series([7, None, None, None], dtype=pl.Int32)
    facts = pl.DataFrame({"start": [0.0, 86_399.9, 86_400.0, None], "day": day})
    assert labelled.dated(labelled.LabelledFlows(series, facts)).facts["day"].to_list() == [7, 0, 1, None]
    assert labelled.dated(labelled.LabelledFlows(series, facts.drop("day"))).facts["day"].to_list() == [0, 0, 1, None]
    assert labelled.dated(labelled.LabelledFlows(series, facts.drop("start"))).facts["day"].to_list()[1] is None


def test_one_absurd_time_changes_no_other_flow_and_none_is_infinite():
    options = ReadOptions(length=5, payload_only=True)
    size, direction = [5, 0, 5, 5, 0, 5], [1] * 6
    part = block([3, 3], size, direction, [0.0, 3e38, 1.0, 0.0, 0.25, 0.5], options, size_layer="payload")
    assert part.packets.iat.tolist()[2:] == [0.0, 0.75]
    options = ReadOptions(length=5)
    with pytest.raises(DataError, match="x, row 2, field iat.*packet 3 is 1e[+]39"):
        block([3, 3], size, direction, [0.0, 1.0, 1.0, 0.0, 0.25, 1e39], options, size_layer="payload")


def test_trailing_and_whole_flows_without_payload_are_left_out():
    options = ReadOptions(length=5, payload_only=True)
    part = block([2, 0, 2, 3], [0, 0, 7, 0, 0, 8, 0], [1] * 7, np.arange(7.0), options, size_layer="payload")
    assert part.packets.counts.tolist() == [0, 0, 1, 1]
    assert part.packets.size.tolist() == [7, 8]
    assert part.packets.iat.tolist() == [0, 0]
    none = block([2], [0, 0], [1, 1], [0.0, 1.0], options, size_layer="payload")
    assert none.packets.counts.tolist() == [0]
    assert none.packets.iat.size == 0


def test_a_capture_whose_name_is_not_utf_8_is_a_fact():
    name = os.fsdecode(b"a\xff.pcap")
    part = block([1], [5], [1], [0.0], ReadOptions(), size_layer="ip", facts={"capture": name})
    assert part.facts["capture"].to_list() == ["a\\udcff.pcap"]


def test_messages_stay_readable_whatever_a_damaged_file_holds():
    error = DataError("a" * 10**6, "b" * 10**6, field="c" * 10**6, expected="d" * 10**6, remedy="mend it")
    assert len(str(error)) < 3000
    assert str(error).endswith("mend it")
    assert len(error.path) == 10**6, "whole, for programs"
