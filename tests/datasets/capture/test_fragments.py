"""Ports for fragments, against a plain loop over the whole stream."""

import dataclasses

import numpy as np
import pytest

from jaxtraffic.datasets.capture import fragments
from jaxtraffic.datasets.capture.fragments import UNMATCHED, Fragments
from jaxtraffic.datasets.capture.packets import FIRST_FRAGMENT, LATER_FRAGMENT, WHOLE, joined
from tests.datasets.capture.captures import decoded, ethernet, fragment, ipv4, ipv6, pcap, tcp, udp
from tests.datasets.capture.plain_flows import SECOND
from tests.datasets.capture.test_flow_table import as_packets, random_rows


def random_packets(rng, n):
    rows = random_rows(rng, n, hosts=2, ports=4, step=0.4)
    packets = as_packets(rows)
    kind = rng.choice([WHOLE, FIRST_FRAGMENT, LATER_FRAGMENT], n, p=[0.3, 0.2, 0.5]).astype(np.uint8)
    later = kind == LATER_FRAGMENT
    # packets that were left out before leave gaps in the numbers
    number = np.cumsum(rng.integers(1, 3, n))
    return dataclasses.replace(
        packets,
        number=number,
        fragment=kind,
        identification=rng.integers(0, 4, n).astype(np.uint32),
        source_port=np.where(later, 0, packets.source_port + 1).astype(np.uint16),
        target_port=np.where(later, 0, packets.target_port + 1).astype(np.uint16),
    )


def plain_match(packets, before, after):
    """(number, protocol, source port, target port) of what stays."""
    rows = [
        {name: int(getattr(packets, name)[k]) for name in packets.__dataclass_fields__} for k in range(len(packets))
    ]
    ends = ("version", "source_high", "source_low", "target_high", "target_low", "identification")
    for row in rows:
        row["key"] = tuple(row[name] for name in ends) + ((row["protocol"],) if row["version"] == 4 else ())
    firsts = [row for row in rows if row["fragment"] == FIRST_FRAGMENT]
    out = []
    for row in rows:
        told = row
        if row["fragment"] == LATER_FRAGMENT:
            same = [one for one in firsts if one["key"] == row["key"]]
            earlier = [one for one in same if one["number"] < row["number"]][-1:]
            following = [one for one in same if one["number"] > row["number"]][:1]
            near = [one for one in earlier if row["number"] - one["number"] < before]
            near += [one for one in following if one["number"] - row["number"] < after]
            near = [one for one in near if abs(one["time"] - row["time"]) <= 30 * SECOND]
            if not near:
                continue
            told = near[0]
        out.append((row["number"], told["protocol"], told["source_port"], told["target_port"]))
    return out


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_a_plain_loop_whatever_the_blocks(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(fragments, "BEFORE", 60)
    monkeypatch.setattr(fragments, "AFTER", 12)
    packets = random_packets(rng, 600)
    expected = plain_match(packets, 60, 12)
    lost = len(packets) - len(expected)
    for cuts in ([], [300], list(range(1, 600, 7)), sorted(rng.integers(0, 600, 40).tolist())):
        stage, out = Fragments(), []
        for start, end in zip([0, *cuts], [*cuts, 600]):
            part = packets[start:end]
            # the file may have gone on with packets that are no TCP and UDP
            out.append(stage.add(part, int(packets.number[end - 1])))
        rest = stage.finish()
        out += [] if rest is None else [rest]
        done = joined(out)
        columns = (done.number, done.protocol, done.source_port, done.target_port)
        assert list(zip(*(column.tolist() for column in columns))) == expected
        assert stage.counts[UNMATCHED] == lost
    assert 20 < lost < 400 and stage._waiting is None


def test_fragments_of_real_packets_get_the_ports_of_their_first_one():
    body = udp(bytes(2000), source=777, target=53)
    first = ipv4(body[:1480], 17, fragment=0x2000, identity=5)
    later = ipv4(body[1480:], 17, fragment=185, identity=5)
    other = ipv4(body[1480:], 17, fragment=185, identity=6)
    six = tcp(bytes(1500), source=888, target=443, flags=0x18)
    six_first = ipv6(fragment(6, 0, True) + six[:1200], 44)
    six_later = ipv6(fragment(60, 1200) + six[1200:], 44)
    frames = [ethernet(one) for one in (later, first, later, other)]
    frames += [ethernet(one, 0x86DD) for one in (six_first, six_later)]
    packets, counts = decoded(pcap(list(enumerate(frames))))
    stage = Fragments()
    done = joined([stage.add(packets, 5), stage.finish() or packets[:0]])
    assert not counts and stage.counts == {UNMATCHED: 1}
    assert done.number.tolist() == [0, 1, 2, 4, 5]
    assert done.source_port.tolist() == [777, 777, 777, 888, 888] and done.protocol.tolist() == [17, 17, 17, 6, 6]
    assert done.size.tolist() == [548, 1500, 548, 1248, 368]
    assert done.payload.tolist() == [528, 1472, 528, 1180, 320]


def test_memory_is_bounded():
    stage = Fragments()
    rng = np.random.default_rng(0)
    packets = random_packets(rng, 5000)
    packets = dataclasses.replace(
        packets,
        fragment=np.full(5000, FIRST_FRAGMENT, np.uint8),
        identification=np.arange(5000, dtype=np.uint32),
    )
    for block in range(8):
        shifted = dataclasses.replace(packets, number=packets.number + block * 20_000)
        stage.add(shifted, int(shifted.number[-1]))
        assert stage._firsts is None or len(stage._firsts) <= fragments.BEFORE
    lost = dataclasses.replace(packets, fragment=np.full(5000, LATER_FRAGMENT, np.uint8), number=packets.number + 10**6)
    assert len(stage.add(lost, int(lost.number[-1]))) == 0
    assert len(stage._waiting) <= fragments.AFTER
