"""Tokens: exact inverses of sizes, lengths and times, against plain loops and sums over whole bins."""

import collections
import dataclasses

import numpy as np
import pytest

from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.generate import tokens
from jaxtraffic.generate.token_times import fit_times
from jaxtraffic.series import PacketSeries, from_signed_size

LENGTH = 7
EVERY = np.arange(-32768, 32768).astype(np.int16)


def series(rows, iat=None):
    """Flows of signed sizes, of any number of packets each."""
    signed, mask = np.zeros((len(rows), LENGTH), np.int16), np.zeros((len(rows), LENGTH), bool)
    for row, values in enumerate(rows):
        signed[row, : len(values)], mask[row, : len(values)] = values, True
    return PacketSeries(
        size=np.abs(signed),
        direction=np.where(mask, np.where(signed < 0, -1, 1), 0).astype(np.int8),
        iat=np.zeros(signed.shape, np.float32) if iat is None else iat,
        label=np.zeros(len(rows), np.int32),
        class_names=("a",),
    ).check()


def drawn(n=400, seed=0):
    """Flows of 0..7 packets: atoms, zeros, sizes spread over hundreds of bytes, a few far away, and times."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        size = generator.integers(0, LENGTH + 1)
        spread = generator.choice([-1, 1], size) * generator.integers(1, 1500, size)
        far = generator.integers(-32767, 32768, size)
        kind = generator.choice(4, size, p=[0.5, 0.2, 0.28, 0.02])
        rows.append(np.select([kind == 0, kind == 1, kind == 2], [generator.choice([52, -1500], size), 0, spread], far))
    mask = np.arange(LENGTH) < np.array([len(row) for row in rows])[:, None]
    iat = np.where(generator.random(mask.shape) < 0.3, 0.02, np.exp(generator.normal(-4, 4, mask.shape)))
    iat[:, 0] = 0
    return series(rows, np.where(mask, iat, 0).astype(np.float32))


FLOWS = drawn()


def in_rows(values):
    padded = np.pad(values, (0, -len(values) % LENGTH)).reshape(-1, LENGTH)
    return padded, np.full(len(padded), LENGTH)


@pytest.mark.parametrize("bin_bytes", [2, 16, 256])
def test_every_signed_size_has_exactly_one_code_and_comes_back(bin_bytes):
    code = tokens.fit(FLOWS, atom_share=0.002, bin_bytes=bin_bytes)
    signed, n_packets = in_rows(EVERY)
    token, offset = code.encode(signed, n_packets)
    assert token.dtype == offset.dtype == np.int32
    back, packets = code.decode(token, offset)
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, signed)
    np.testing.assert_array_equal(packets, n_packets)
    own, place = token.reshape(-1)[: EVERY.size], offset.reshape(-1)[: EVERY.size]
    used = np.zeros((code.n_tokens, code.n_offsets), int)
    np.add.at(used, (own, place), 1)
    # Each code that the mask allows is the code of one size, but for the end, which is the code of none.
    np.testing.assert_array_equal(used[1:], code.offset_mask[1:])
    assert not used[0].any()


def test_encoding_against_a_plain_loop():
    code = tokens.fit(FLOWS, atom_share=0.01)
    token, offset = code.encode_series(FLOWS)
    signed, n_packets = np.asarray(FLOWS.signed_size), np.asarray(FLOWS.n_packets)
    atoms = code.atoms.tolist()
    lows = code.bin_low.tolist()
    for row in range(len(FLOWS)):
        for t in range(LENGTH):
            value = int(signed[row, t])
            if t >= n_packets[row]:
                expected = (0, 0)
            elif value in atoms:
                expected = (1 + atoms.index(value), 0)
            else:
                expected = (1 + len(atoms) + lows.index(value // 16 * 16), value % 16)
            assert (token[row, t], offset[row, t]) == expected


def test_atoms_are_the_sizes_with_the_share():
    rows = [[52] * 5 + [60, 61]] * 199 + [[1500, 1500]]
    flows = series(rows)
    total = 199 * 7 + 2
    assert tokens.fit(flows, atom_share=2 / total).atoms.tolist() == [52, 60, 61, 1500]
    assert tokens.fit(flows, atom_share=2.5 / total).atoms.tolist() == [52, 60, 61]
    assert tokens.fit(flows, atom_share=0.5).atoms.tolist() == [52]
    assert tokens.fit(flows, atom_share=1.0).atoms.tolist() == []


@pytest.mark.parametrize("flows", [FLOWS, series([[0, 0, -5, 0, 0], [], [0] * LENGTH, [0], [-1] * LENGTH])])
def test_flows_of_every_length_come_back_with_zeros_inside_and_at_the_end(flows):
    code = tokens.fit(FLOWS)
    signed, n_packets = np.asarray(flows.signed_size), np.asarray(flows.n_packets)
    assert n_packets.min() == 0 and n_packets.max() == LENGTH
    token, offset = code.encode(signed, n_packets)
    np.testing.assert_array_equal((token == tokens.END).sum(axis=1), LENGTH - n_packets)
    back, packets = code.decode(token, offset)
    np.testing.assert_array_equal(back, signed)
    np.testing.assert_array_equal(packets, n_packets)
    whole = code.decode_series(token, offset, flows.label, class_names=["a"])
    for name in ("size", "direction"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(flows, name))
        assert getattr(whole, name).dtype == getattr(flows, name).dtype
    assert whole.source == "simulated"


def test_data_without_any_padding():
    flows = drawn(600, seed=1)
    flows = flows[np.asarray(flows.n_packets) == LENGTH]
    code = tokens.fit(flows)
    token, offset = code.encode_series(flows)
    assert code.token_counts[tokens.END] == 0 and token.min() > 0
    np.testing.assert_array_equal(code.decode(token, offset)[0], flows.signed_size)
    # Shorter flows stay possible for a code that has seen none.
    short = series([[52], []])
    np.testing.assert_array_equal(code.decode(*code.encode_series(short))[1], [1, 0])


def test_what_follows_an_end_is_padding():
    code = tokens.fit(FLOWS)
    token, offset = np.full((1, LENGTH), 1), np.zeros((1, LENGTH), int)
    token[0, 2], token[0, 3], offset[0, 4] = tokens.END, 10**6, 99
    signed, n_packets = code.decode(token, offset)
    np.testing.assert_array_equal(signed, [[code.atoms[0]] * 2 + [0] * 5])
    assert n_packets == [2]


def test_counts_and_shares_in_training():
    code = tokens.fit(FLOWS, atom_share=0.01)
    token, offset = code.encode_series(FLOWS)
    pairs = collections.Counter()
    for row, n in enumerate(np.asarray(FLOWS.n_packets)):
        pairs.update(zip(token[row, :n].tolist(), offset[row, :n].tolist(), strict=True))
        pairs.update([(0, 0)] * int(n < LENGTH))
    assert {pair: count for pair, count in np.ndenumerate(code.offset_counts) if count} == pairs
    np.testing.assert_array_equal(code.token_counts, code.offset_counts.sum(axis=1))
    np.testing.assert_allclose(np.exp(code.token_log_prior(0.5)).sum(), 1, rtol=1e-5)
    ratio = np.exp(code.token_log_prior(0.5)[1] - code.token_log_prior(0.5)[0])
    np.testing.assert_allclose(ratio, (code.token_counts[1] + 0.5) / (code.token_counts[0] + 0.5), rtol=1e-5)
    prior = np.exp(code.offset_log_prior(2.0))
    np.testing.assert_allclose(prior.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(prior > 0, code.offset_mask)
    best = code.token_counts[1 + code.n_atoms :].argmax() + 1 + code.n_atoms
    allowed = code.offset_mask[best]
    expected = (code.offset_counts[best][allowed] + 2.0) / (code.token_counts[best] + 2.0 * allowed.sum())
    np.testing.assert_allclose(prior[best][allowed], expected, rtol=1e-5)
    np.testing.assert_allclose(code.atom_share(FLOWS), code.token_counts[1 : 1 + code.n_atoms].sum() / FLOWS.mask.sum())


def test_a_bin_of_nothing_but_atoms_is_no_token():
    rows = [[10, 11, 12]] * 20
    code = tokens.fit(series(rows), bin_bytes=2)
    assert code.atoms.tolist() == [10, 11, 12]
    assert 10 not in code.bin_low and 12 in code.bin_low and len(code.bin_low) == 65536 // 2 - 1
    np.testing.assert_array_equal(code.offset_mask[1 + 3 + np.flatnonzero(code.bin_low == 12)], [[False, True]])


def test_a_series_cannot_hold_the_lowest_size():
    code = tokens.fit(FLOWS)
    signed = np.full((1, LENGTH), -32768, np.int16)
    token, offset = code.encode(signed, np.array([LENGTH]))
    np.testing.assert_array_equal(code.decode(token, offset)[0], signed)
    made = code.decode_series(token, offset, np.zeros(1), class_names=["a"])
    np.testing.assert_array_equal(made.signed_size, [[-32767] * LENGTH])


@pytest.mark.parametrize("iat", [False, True])
def test_a_code_is_stored_and_read(tmp_path, iat):
    code = tokens.fit(FLOWS, atom_share=0.01, bin_bytes=8, iat=iat, iat_resolution=1e-5)
    code.save(tmp_path / "tokeniser.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["tokeniser.npz"]
    again = tokens.load(tmp_path / "tokeniser.npz")
    assert (again.times is None) == (not iat)
    pairs = [(code, again)] + ([(code.times, again.times)] if iat else [])
    for old, new in pairs:
        for field in dataclasses.fields(old):
            if field.name != "times":
                ours, theirs = getattr(old, field.name), getattr(new, field.name)
                np.testing.assert_array_equal(ours, theirs)
                assert type(ours) is type(theirs) and np.asarray(ours).dtype == np.asarray(theirs).dtype
    for first, second in zip(code.encode_series(FLOWS), again.encode_series(FLOWS), strict=True):
        np.testing.assert_array_equal(first, second)


def test_files_that_hold_no_code_are_refused(tmp_path):
    path = tmp_path / "tokeniser.npz"
    with pytest.raises(DataError, match="tokeniser"):
        tokens.load(path)
    tokens.fit(FLOWS).save(path)
    whole = path.read_bytes()
    with np.load(path) as stored:
        arrays = dict(stored)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError):
        tokens.load(path)
    np.savez(path, **{name: value for name, value in arrays.items() if name != "atoms"})
    with pytest.raises(DataError, match="atoms"):
        tokens.load(path)
    np.savez(path, **(arrays | {"atoms": arrays["atoms"][1:]}))
    with pytest.raises(DataError, match="counts"):
        tokens.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError):
        tokens.load(path)


def test_what_does_not_fit_is_refused():
    code = tokens.fit(FLOWS)
    signed, n_packets = np.asarray(FLOWS.signed_size[:2]), np.asarray(FLOWS.n_packets[:2])
    for options in ({"atom_share": 0.0}, {"atom_share": 1.5}, {"bin_bytes": 12}, {"iat": True, "iat_resolution": 0.0}):
        with pytest.raises(ConfigError, match=next(reversed(options))):
            tokens.fit(FLOWS, **options)
    with pytest.raises(ConfigError, match="at least one packet"):
        tokens.fit(series([[], []]))
    with pytest.raises(ConfigError, match="int16"):
        code.encode(signed.astype(np.int32), n_packets)
    with pytest.raises(ConfigError, match=r"\[flow, 7\]"):
        code.encode(signed[:, :5], n_packets)
    with pytest.raises(ConfigError, match="0 to 7"):
        code.encode(signed, n_packets + 8)
    with pytest.raises(ConfigError, match="padding"):
        code.encode(np.full((1, LENGTH), 9, np.int16), np.array([3]))
    token, offset = np.ones((1, LENGTH), int), np.zeros((1, LENGTH), int)
    with pytest.raises(ConfigError, match="0 to"):
        code.decode(token * code.n_tokens, offset)
    for wrong in (1, -1, code.n_offsets):
        with pytest.raises(ConfigError, match="flow 0, packet 3: token 1 has no offset"):
            code.decode(token, np.where(np.arange(LENGTH) == 3, wrong, 0)[None])
    with pytest.raises(ConfigError, match=r"\[flow, 7\]"):
        code.decode(token, offset[:, :3])


def test_the_code_agrees_with_series_made_of_signed_sizes():
    signed = np.array([[52, 0, -1500, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 7]], np.int16)
    flows = from_signed_size(signed, [0, 0], class_names=["a"])
    code = tokens.fit(FLOWS)
    made = code.decode_series(*code.encode_series(flows), flows.label, class_names=["a"])
    np.testing.assert_array_equal(made.signed_size, signed)
    np.testing.assert_array_equal(made.direction, flows.direction)


def test_times_come_back_to_half_a_tick_and_the_rounding_of_float32():
    iat, n_packets = np.asarray(FLOWS.iat), np.asarray(FLOWS.n_packets)
    code = tokens.fit(FLOWS, iat=True).times
    generator = np.random.default_rng(5)
    wide = np.exp(generator.uniform(np.log(1e-8), np.log(1e9), (2000, LENGTH))).astype(np.float32)
    for times, packets in ((iat, n_packets), (wide, np.full(2000, LENGTH))):
        token, fraction = code.encode(times, packets)
        assert token.dtype == np.int32 and fraction.dtype == np.float64
        assert fraction.min() >= 0 and fraction.max() < 1 and token.max() < code.n_tokens
        mask = np.arange(LENGTH) < packets[:, None]
        np.testing.assert_array_equal(token == 0, ~mask)
        assert not fraction[token <= code.n_atoms].any()
        back = code.decode(token, fraction)
        assert back.dtype == np.float32 and not back[~mask].any()
        error = np.abs(back.astype(float) - np.minimum(times, code.longest * code.resolution))[mask]
        assert (error <= 0.5001e-6 + 0.5 * np.spacing(times[mask])).all()
        # Whole ticks come back as themselves, wherever float32 tells one from the next.
        again, place = code.encode(back, packets)
        fine = back < 4
        np.testing.assert_array_equal(again[fine], token[fine])
        np.testing.assert_array_equal(place[fine], fraction[fine])


def test_frequent_timers_and_zero_are_atoms():
    iat = np.array([[0, 0.02, 0.02, 0.0200004, 5.0, 0.3, 0.1]], np.float32).repeat(100, axis=0)
    iat[:, 4] = np.linspace(1, 2, 100)
    code = fit_times(iat, np.array([LENGTH] * 99 + [3]), atom_share=0.02)
    assert code.atoms.tolist() == [0, 20000, 100000, 300000]
    # First packets do not count, nor what follows the last one.
    assert code.counts[0] == 0 and code.counts.sum() == 99 * 6 + 2
    assert code.counts[1 : 1 + code.n_atoms].tolist() == [0, 99 * 3 + 2, 99, 99]
    assert code.counts[1 + code.n_atoms :].sum() == 99
    token, _ = code.encode(iat, np.full(100, LENGTH))
    assert (token[:, 0] == 1).all() and (token[:, 3] == 2).all() and (token[:, 4] > 4).all()


def test_the_ticks_of_a_bin_and_its_atoms_tile_all_times_and_their_probabilities_sum_to_one():
    code = tokens.fit(FLOWS, iat=True, iat_resolution=1e-4, iat_bins_per_decade=5).times
    ends = np.stack([code.bin_low, code.bin_high], axis=1)
    held = np.concatenate([ends, np.stack([code.atoms, code.atoms], axis=1)])
    held = held[np.argsort(held[:, 0])]
    assert held[0, 0] == 0 and held[-1, 1] == code.longest == 10 * np.rint(FLOWS.iat.max().astype(float) / 1e-4)
    np.testing.assert_array_equal(held[1:, 0], held[:-1, 1] + 1)
    checked = 0
    for index, (low, high) in enumerate(ends):
        if high - low < 20000:
            ticks = np.arange(low, high + 1)
            token, fraction = code.encode((ticks * 1e-4)[:, None], np.ones(ticks.size))
            assert (token == 1 + code.n_atoms + index).all()
            log_prob = code.log_prob(token, fraction)
            np.testing.assert_allclose(np.exp(log_prob).sum(), 1, rtol=1e-9)
            # Uniform places fall on each tick as often as that says.
            grid = (np.arange(50000) + 0.5) / 50000
            found = np.rint(code.decode(np.full((grid.size, 1), token[0, 0]), grid[:, None]) / np.float32(1e-4))
            share = np.bincount(found[:, 0].astype(int) - low, minlength=ticks.size) / grid.size
            assert np.abs(share - np.exp(log_prob[:, 0])).max() < 3 / grid.size
            checked += high > low
    assert checked > 10
    atoms, _ = code.encode(code.atoms[:, None] * 1e-4, np.ones(code.n_atoms))
    np.testing.assert_array_equal(code.log_prob(atoms, np.zeros(atoms.shape)), 0)


def test_times_that_no_code_can_hold_are_refused():
    code = tokens.fit(FLOWS, iat=True).times
    for wrong in (np.nan, np.inf, -1e-3, 1e10):
        iat = np.array([[0.0, wrong]])
        with pytest.raises(ConfigError, match="IATs must be"):
            code.encode(iat, np.array([2]))
        with pytest.raises(ConfigError, match="IATs must be"):
            fit_times(iat, np.array([2]))
        # Padding may hold anything.
        np.testing.assert_array_equal(code.encode(iat, np.array([1]))[0], [[1, 0]])
    for wrong in (-1, code.n_tokens):
        with pytest.raises(ConfigError, match="IAT tokens"):
            code.decode(np.array([[wrong]]), np.array([[0.5]]))
