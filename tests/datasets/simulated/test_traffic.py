"""The traffic that every written layout takes its packets from: what TCP, TLS and QUIC promise; classes to learn."""

import dataclasses

import numpy as np
import pytest

from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.simulated import traffic
from jaxtraffic.datasets.simulated.applications import application
from jaxtraffic.datasets.simulated.traffic import ACK, FIN, PSH, RST, SYN, TCP, UDP, simulate_traffic
from jaxtraffic.errors import ConfigError

TYPES = {
    "counts": np.int64, "app": np.int32, "protocol": np.uint8, "client": np.uint32, "server": np.uint32,
    "client_port": np.uint16, "server_port": np.uint16, "time": np.int64, "direction": np.int8, "payload": np.int32,
    "header": np.int32, "tcp_flags": np.uint8,
}  # fmt: skip
PACKETS = ("time", "direction", "payload", "header", "tcp_flags")


@pytest.fixture(scope="module")
def made():
    return simulate_traffic(12_000, seed=4, n_apps=8)


@pytest.fixture(scope="module")
def tcp(made):
    """Rows, as (time, direction, payload, header, flags), of some hundred TCP flows that are whole."""
    chosen = np.flatnonzero((made.protocol == TCP) & (made.counts < 100))[:800]
    start = starts_of(made.counts)
    return [
        list(zip(*(getattr(made, name)[start[flow] : start[flow] + made.counts[flow]].tolist() for name in PACKETS)))
        for flow in chosen.tolist()
    ]


@pytest.mark.parametrize("n_flows", [0, 1, 3, 50])
@pytest.mark.parametrize("transport", ["tcp", "udp", "both"])
def test_shapes_and_types(n_flows, transport):
    made = simulate_traffic(n_flows, transport=transport, n_apps=4)
    assert len(made) == n_flows
    for name, kind in TYPES.items():
        values = getattr(made, name)
        assert values.dtype == kind, name
        assert values.shape == ((made.counts.sum(),) if name in PACKETS else (n_flows,)), name
    assert made.iat.shape == made.flow.shape == made.time.shape
    assert (made.counts >= 1).all()


def test_times_are_whole_microseconds_and_never_go_back(made):
    assert (made.time % 1000 == 0).all()
    assert made.iat.min() == 0
    begin = made.time[starts_of(made.counts)]
    assert (np.diff(begin) >= 0).all()
    assert begin[0] == 1_556_650_800 * 10**9
    assert begin[-1] < (1_556_650_800 + 3_600) * 10**9
    late = simulate_traffic(30, start=1_700_000_000.5, duration=1.0)
    begin = late.time[starts_of(late.counts)]
    assert begin[0] == 1_700_000_000_500_000_000
    assert begin[-1] <= begin[0] + 10**9


def test_every_tcp_flow_begins_with_its_handshake(tcp):
    for flow in tcp:
        (_, *first), (_, *second), (_, *third) = flow[:3]
        assert first == [1, 0, first[2], SYN]
        assert second == [-1, 0, first[2], SYN | ACK]
        assert third == [1, 0, third[2], ACK]
        assert (first[2], third[2]) in {(60, 52), (52, 40)}
        assert all(not flags & SYN for *_, flags in flow[3:])


def test_headers_and_segments_fit_the_host(tcp):
    full = {52: set(), 40: set()}
    for flow in tcp:
        header = flow[2][3]
        for _, _, payload, length, flags in flow[3:]:
            assert length == (40 if flags & RST else header)
            full[header].add(payload)
    assert max(full[52]) == 1448
    assert max(full[40]) == 1460
    assert 1388 in full[52]


def test_flags_say_what_a_packet_carries(tcp):
    endings = set()
    for flow in tcp:
        closing = {1: False, -1: False}
        for _, direction, payload, _, flags in flow[3:]:
            assert flags & ACK or flags == RST
            if flags & (FIN | RST):
                assert payload == 0
                closing[direction] = True
            if flags & PSH:
                assert payload > 0
            assert not (payload and closing[direction])
        endings.add(flow[-1][4] if closing[1] or closing[-1] else None)
    assert endings == {None, ACK, RST, RST | ACK}


def test_messages_end_with_push(tcp):
    """A segment smaller than a full one ends a message, and so it is pushed."""
    for flow in tcp:
        largest = max(payload for _, _, payload, _, _ in flow)
        if largest in (1388, 1448, 1460):
            assert all(flags & PSH for _, _, payload, _, flags in flow if 0 < payload < largest)


def test_nothing_is_acknowledged_before_it_was_sent(tcp):
    """Pure acknowledgements of one side are never more than what the other has sent, and about one for two."""
    ratios = []
    for flow in tcp:
        sent, acknowledged = {1: 0, -1: 0}, {1: 0, -1: 0}
        for _, direction, payload, _, flags in flow[3:]:
            if payload or flags & FIN:
                sent[direction] += 1
            elif flags == ACK:
                acknowledged[-direction] += 1
                assert acknowledged[-direction] <= sent[-direction]
        if sent[-1] >= 20:
            ratios.append(acknowledged[-1] / sent[-1])
    assert 0.45 < np.median(ratios) < 0.6


def test_the_first_messages_are_those_of_tls(tcp):
    hellos, hybrids = [], 0
    for flow in tcp:
        up = [payload for _, direction, payload, _, _ in flow if direction > 0 and payload]
        if up:
            hellos.append(up[0])
            hybrids += up[0] >= 1388 and 300 < up[1] < 600
    assert 0.3 < np.mean(np.array(hellos) == 517) < 0.7
    assert hybrids > 20


def test_some_segments_are_sent_twice(tcp):
    """Two equal segments that are not full, one after the other within a second, are one that was lost."""
    repeated = 0
    for flow in tcp:
        data = [(payload, direction) for _, direction, payload, _, _ in flow if payload not in (0, 1388, 1448, 1460)]
        repeated += sum(one == other and one[0] > 300 for one, other in zip(data, data[1:]))
    assert 5 < repeated < 400


def test_quic_flows_begin_with_padded_initials(made):
    udp = made.protocol == UDP
    of_udp = udp[made.flow]
    start = starts_of(made.counts)[udp]
    assert (made.header[of_udp] == 28).all()
    assert (made.tcp_flags[of_udp] == 0).all()
    assert (made.direction[start] == 1).all()
    assert made.payload[start].min() >= 1200
    assert made.payload[of_udp].min() > 0
    assert made.payload[of_udp].max() <= 1472


def test_no_two_flows_share_addresses_and_ports(made):
    keys = np.stack([made.client, made.client_port, made.server, made.server_port, made.protocol], axis=1)
    assert np.unique(keys.astype(np.int64), axis=0).shape[0] == len(made)
    assert (made.client >> 24 == 10).all()
    assert (made.server >> 17 == 0xC6120000 >> 17).all()
    assert made.client_port.min() >= 32_768
    assert set(made.server_port.tolist()) == {443, 80}
    # a client has many flows
    assert np.unique(made.client).size < len(made) / 10


def test_same_seed_same_traffic():
    one, same, other = (simulate_traffic(300, seed=seed) for seed in (5, (5,), (5, 1)))
    for field in dataclasses.fields(traffic.Traffic):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(same, field.name))
    assert not np.array_equal(one.counts, other.counts)


def test_max_packets_cuts_and_changes_nothing_else():
    whole, cut = (simulate_traffic(400, seed=2, max_packets=most) for most in (100, 9))
    np.testing.assert_array_equal(cut.counts, np.minimum(whole.counts, 9))
    position = np.arange(whole.time.size) - np.repeat(starts_of(whole.counts), whole.counts)
    for name in PACKETS:
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name)[position < 9])


def test_every_application_appears_and_is_unevenly_popular(made):
    counts = np.bincount(made.app, minlength=8)
    assert counts[0] > 3 * counts[7] > 0
    assert set(simulate_traffic(40, n_apps=40).app.tolist()) == set(range(40))
    assert simulate_traffic(5, n_apps=40).app.size == 5
    assert len({application(number) for number in range(300)}) == 300


def test_lookups_only_where_asked_for(made):
    assert not (made.server_port == 53).any()
    asked = simulate_traffic(2_000, dns=True)
    lookups = asked.server_port == 53
    assert 0.02 < lookups.mean() < 0.07
    assert (asked.counts[lookups] == 2).all()
    assert (asked.protocol[lookups] == UDP).all()


@pytest.mark.parametrize("options", [{"transport": "sctp"}, {"n_apps": 0}, {"max_packets": 0}])
def test_impossible_options(options):
    with pytest.raises(ConfigError):
        simulate_traffic(10, **options)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_applications_can_be_learned_but_not_perfectly(transport):
    made = simulate_traffic(900, seed=11, n_apps=5, transport=transport)
    features = np.zeros((len(made), 40))
    position = np.arange(made.time.size) - np.repeat(starts_of(made.counts), made.counts)
    early = position < 20
    features[made.flow[early], position[early]] = ((made.payload + made.header) * made.direction)[early]
    features[made.flow[early], 20 + position[early]] = 100 * np.log10(made.iat[early] + 1e-4)
    train, test = features[:600], features[600:]
    nearest = ((test**2).sum(axis=1)[:, None] - 2 * test @ train.T + (train**2).sum(axis=1)).argmin(axis=1)
    accuracy = (made.app[:600][nearest] == made.app[600:]).mean()
    majority = np.bincount(made.app[600:]).max() / 300
    assert majority + 0.15 < accuracy < 0.95
