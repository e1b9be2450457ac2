"""The vectorised flow table against a dictionary, and each rule of its own."""

import numpy as np
import pytest

from jaxtraffic.datasets.capture import connections, packet_log
from jaxtraffic.datasets.capture.flow_table import BACKWARDS, EARLY, EMPTY, FlowSettings, FlowTable
from jaxtraffic.datasets.capture.packets import WHOLE, Packets, joined
from tests.datasets.capture.plain_flows import ACK, FIN, RST, SECOND, SYN, plain_flows


def as_packets(rows):
    columns = list(zip(*rows)) if rows else [[]] * 11
    number, time, version, protocol, source, sport, target, tport, flags, size, payload = columns
    n = len(rows)

    def halves(addresses):
        high = np.array([address >> 64 for address in addresses], np.uint64)
        return high, np.array([address & (1 << 64) - 1 for address in addresses], np.uint64)

    source_high, source_low = halves(source)
    target_high, target_low = halves(target)
    return Packets(
        number=np.array(number, np.int64),
        time=np.array(time, np.int64),
        version=np.array(version, np.uint8),
        protocol=np.array(protocol, np.uint8),
        source_high=source_high,
        source_low=source_low,
        target_high=target_high,
        target_low=target_low,
        source_port=np.array(sport, np.uint16),
        target_port=np.array(tport, np.uint16),
        flags=np.array(flags, np.uint8),
        size=np.array(size, np.int64),
        payload=np.array(payload, np.int64),
        fragment=np.full(n, WHOLE, np.uint8),
        identification=np.zeros(n, np.uint32),
    )


def random_rows(rng, n, *, hosts=3, ports=3, step=2.0):
    rows, time = [], 1_600_000_000 * SECOND
    for number in range(n):
        time += int(rng.exponential(step) * SECOND) - (int(rng.integers(0, 3 * SECOND)) if rng.random() < 0.05 else 0)
        if rng.random() < 0.01:
            time += 40 * SECOND
        version = int(rng.choice([4, 6]))
        source, target = (int(value) for value in rng.integers(1, hosts + 1, 2))
        if version == 6:
            source, target = source << 64 | 7, target << 64 | (7 if rng.random() < 0.5 else 8)
        tcp = rng.random() < 0.8
        flags = int(rng.choice([ACK, SYN, SYN | ACK, FIN | ACK, RST, SYN | FIN], p=[0.5, 0.2, 0.1, 0.1, 0.08, 0.02]))
        sport, tport = (int(value) for value in rng.integers(0, ports, 2))
        payload = int(rng.choice([0, 0, 1, 100, 1400]))
        protocol, flags = (6, flags) if tcp else (17, 0)
        rows.append((number, time, version, protocol, source, sport, target, tport, flags, payload + 40, payload))
    return rows


def run(rows, settings, cuts, round_packets=1 << 16):
    table = FlowTable(settings, round_packets=round_packets)
    packets = as_packets(rows)
    blocks = []
    for start, end in zip([0, *cuts], [*cuts, len(rows)]):
        blocks += table.add(packets[start:end])
    blocks += table.finish()
    return blocks, table


def as_rows(flows):
    at, out = 0, []
    for row in range(len(flows)):
        a_high, a_low, b_high, b_low, kind = (int(value) for value in flows.key[row])
        sides = [(a_high << 64 | a_low, kind >> 16 & 0xFFFF), (b_high << 64 | b_low, kind & 0xFFFF)]
        client, server = sides if flows.a_is_client[row] else sides[::-1]
        kept = slice(at, at + int(flows.counts[row]))
        at = kept.stop
        out.append(
            {
                "version": kind >> 40,
                "protocol": kind >> 32 & 255,
                "client": client,
                "server": server,
                "start": int(flows.start[row]),
                "first": int(flows.first[row]),
                "packets": int(flows.packets[row]),
                "handshake": bool(flows.handshake[row]),
                "size": flows.size[kept].tolist(),
                "direction": np.where(flows.from_a[kept] == flows.a_is_client[row], 1, -1).tolist(),
                "time": flows.time[kept].tolist(),
            }
        )
    assert at == flows.size.size
    return out


def flows_of(blocks):
    for block in blocks:
        assert (np.diff(block.first) > 0).all(), "within a block flows come in the order of their first packets"
    return sorted((row for block in blocks for row in as_rows(block)), key=lambda flow: flow["first"])


@pytest.mark.parametrize("seed", range(9))
def test_equal_to_a_dictionary(seed):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 2000, hosts=int(rng.integers(1, 5)), step=float(rng.choice([0.05, 0.5, 3.0])))
    options = {"length": int(rng.choice([1, 3, 30])), "payload_only": seed % 2 == 1}
    layer = ["ip", "payload"][seed % 3 == 0]
    idle, active = int(rng.choice([5, 30])) * SECOND, int(rng.choice([1, 20, 200])) * SECOND
    expected, late = plain_flows(rows, layer=layer, idle=idle, active=active, **options)
    settings = FlowSettings(size_layer=layer, idle_timeout=idle, active_timeout=active, **options)
    # rounds of a few packets forget idle flows between them; times that go back across that are another test
    for round_packets, cuts in ((1 << 16, []), (2000, [1, 2, 777]), (700, sorted(rng.integers(0, 2000, 9).tolist()))):
        blocks, table = run(rows, settings, cuts, round_packets)
        assert flows_of(blocks) == expected
        assert table.counts[BACKWARDS] == late
        assert table.counts[EMPTY] == (sum(row[-1] == 0 for row in rows) if options["payload_only"] else 0)
    assert len(expected) > 10


@pytest.mark.parametrize("round_packets", [1, 7, 64, 500])
def test_small_rounds_change_nothing_where_times_go_forward(round_packets):
    rng = np.random.default_rng(5)
    rows = random_rows(rng, 700, hosts=4, step=0.5)
    times = sorted(row[1] for row in rows)
    rows = [(row[0], time, *row[2:]) for row, time in zip(rows, times)]
    expected, late = plain_flows(rows, length=4, payload_only=False, layer="ip", idle=20 * SECOND, active=60 * SECOND)
    settings = FlowSettings(4, False, "ip", 20 * SECOND, 60 * SECOND)
    blocks, _ = run(rows, settings, [100, 101, 600], round_packets)
    assert not late
    assert flows_of(blocks) == expected


def test_hash_collisions_change_nothing(monkeypatch):
    rows = random_rows(np.random.default_rng(1), 3000)
    settings = FlowSettings()
    expected = flows_of(run(rows, settings, [])[0])
    monkeypatch.setattr(connections, "_hash", lambda words: words[4] & np.uint64(1) << np.uint64(40))
    assert flows_of(run(rows, settings, [])[0]) == expected


def test_compaction_of_the_log_changes_nothing(monkeypatch):
    rows = random_rows(np.random.default_rng(2), 3000, ports=6, step=1.0)
    settings = FlowSettings(length=5, idle_timeout=10 * SECOND)
    expected = flows_of(run(rows, settings, [], 100)[0])
    monkeypatch.setattr(packet_log, "_SLACK", 0)
    compactions = []
    places = packet_log.PacketLog.append
    monkeypatch.setattr(
        packet_log.PacketLog, "append", lambda self, *args: (compactions.append(self._used), places(self, *args))[1]
    )
    assert flows_of(run(rows, settings, [], 100)[0]) == expected
    assert compactions.count(0) > 2, "the log was never emptied"


def tcp(number, seconds, flags, *, back=False, payload=0):
    sides = (2, 443, 1, 5000) if back else (1, 5000, 2, 443)
    return (number, round(seconds * SECOND), 4, 6, *sides, flags, 40 + payload, payload)


def test_a_syn_after_a_close_starts_a_new_flow_and_late_packets_stay_with_the_old_one():
    rows = [
        tcp(0, 0, SYN),
        tcp(1, 1, SYN | ACK, back=True),
        tcp(2, 2, FIN | ACK),
        tcp(3, 3, FIN | ACK, back=True),
        tcp(4, 4, ACK),
        tcp(5, 5, SYN),
        tcp(6, 6, SYN),
    ]
    flows = flows_of(run(rows, FlowSettings(), [])[0])
    assert [flow["packets"] for flow in flows] == [5, 2]
    assert [flow["handshake"] for flow in flows] == [True, False]


def test_a_syn_again_without_a_close_stays():
    flows = flows_of(run([tcp(0, 0, SYN), tcp(1, 3, SYN), tcp(2, 9, SYN)], FlowSettings(), [])[0])
    assert [flow["packets"] for flow in flows] == [3]


def test_the_client_is_who_the_handshake_says_also_where_it_comes_late():
    answer_first = [tcp(0, 0, ACK, back=True), tcp(1, 1, SYN | ACK, back=True), tcp(2, 2, ACK)]
    for rows, client in (
        (answer_first, (1, 5000)),
        ([tcp(0, 0, ACK, back=True), tcp(1, 1, SYN)], (1, 5000)),
        ([tcp(0, 0, ACK, back=True), tcp(1, 1, ACK)], (2, 443)),
    ):
        (flow,) = flows_of(run(rows, FlowSettings(), [])[0])
        assert flow["client"] == client
    assert flow["direction"] == [1, -1]


def test_timeouts_are_passed_only_beyond_them_and_active_keeps_the_client():
    idle = [tcp(0, 0, ACK), tcp(1, 65, ACK), tcp(2, 130.000000001, ACK)]
    assert [flow["packets"] for flow in flows_of(run(idle, FlowSettings(), [])[0])] == [2, 1]
    active = [tcp(k, 60 * k, SYN if k == 0 else ACK, back=k > 4) for k in range(8)]
    flows = flows_of(run(active, FlowSettings(), [])[0])
    assert [(flow["packets"], flow["client"]) for flow in flows] == [(6, (1, 5000)), (2, (1, 5000))]
    assert flows[1]["direction"] == [-1, -1] and flows[1]["start"] == 360 * SECOND


def test_packets_without_payload_keep_time_direction_and_state():
    rows = [tcp(0, 0, SYN), tcp(1, 1, SYN | ACK, back=True), tcp(2, 2, ACK, back=True, payload=9), tcp(3, 4, ACK)]
    rows += [tcp(4, 7, ACK, payload=5)]
    (flow,) = flows_of(run(rows, FlowSettings(payload_only=True), [])[0])
    assert (flow["start"], flow["packets"], flow["client"]) == (0, 2, (1, 5000))
    assert flow["time"] == [2 * SECOND, 7 * SECOND] and flow["direction"] == [-1, 1]


def test_a_full_table_ends_the_flows_that_were_silent_for_longest():
    rows = [(k, k * SECOND, 4, 17, 1, 1000 + k % 50, 2, 53, 0, 40, 12) for k in range(200)]
    blocks, table = run(rows, FlowSettings(max_flows=10, idle_timeout=10_000 * SECOND), [], 10)
    flows = flows_of(blocks)
    assert sum(flow["packets"] for flow in flows) == 200 and len(flows) == 200
    assert table.counts[EARLY] == 190
    blocks, table = run(rows, FlowSettings(max_flows=50, idle_timeout=10_000 * SECOND), [], 10)
    assert len(flows_of(blocks)) == 50 and not table.counts


def test_of_flows_that_are_equally_old_those_that_began_first_end_early():
    rows = [(k, 0 if k < 30 else k * SECOND, 4, 17, 1, 1000 + k % 40, 2, 53, 0, 40, 12) for k in range(45)]
    blocks, table = run(rows, FlowSettings(max_flows=25, idle_timeout=10_000 * SECOND), [], 40)
    assert table.counts[EARLY] == 15
    flows = flows_of(blocks)
    assert [flow["first"] for flow in flows] == list(range(45))
    assert [flow["first"] for flow in as_rows(blocks[0])] == list(range(15))


def test_idle_flows_leave_the_table():
    rows = [(k, k * SECOND, 4, 17, 1, 1000 + k, 2, 53, 0, 40, 12) for k in range(500)]
    table = FlowTable(FlowSettings(), round_packets=50)
    done = table.add(as_packets(rows))
    assert len(table._open) <= 150 and sum(map(len, done)) >= 350
    assert sum(map(len, done + table.finish())) == 500 and not len(table._open)


def test_no_packets():
    assert FlowTable(FlowSettings()).finish() == []
    assert len(FlowTable.nothing()) == 0


def test_joined_keeps_order():
    packets = as_packets(random_rows(np.random.default_rng(0), 10))
    again = joined([packets[:4], packets[4:]])
    assert again.number.tolist() == list(range(10)) and len(again) == 10
