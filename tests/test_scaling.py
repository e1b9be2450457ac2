"""Scales: exact inverses, standard normal marginals, atoms kept, and storage."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxtraffic import scaling
from jaxtraffic.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def flows():
    """4,000 flows of 6 packets: atoms, padding, a log-normal part and a column that is constant."""
    rng = np.random.default_rng(0)
    atoms = rng.choice([0, 52, -52, 1500, -1460], p=[0.4, 0.2, 0.1, 0.2, 0.1], size=(4000, 6))
    smooth = np.clip(np.exp(rng.normal(5, 1, (4000, 6))), 1, 1400).astype(int)
    signed = np.where(rng.random((4000, 6)) < 0.7, atoms, smooth)
    signed[:, 5] = -40
    return signed.astype(np.int16)


@pytest.mark.parametrize("kind", scaling.SCALINGS)
def test_training_values_come_back_exactly(flows, kind):
    label = np.arange(len(flows)) % 3
    scale = scaling.fit(kind, flows, label, 3)
    scaled = jax.jit(scale.apply)(jax.random.key(0), flows, label)
    assert scaled.dtype == np.float32 and np.abs(scaled).max() <= scale.bound
    back = jax.jit(scale.invert)(scaled, label)
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, flows)


def test_every_integer_of_the_range_comes_back_exactly(flows):
    scale = scaling.fit("quantile", flows)
    every = np.broadcast_to(np.arange(-1500, 1501, dtype=np.int16)[:, None], (3001, 6))
    for seed in range(3):
        np.testing.assert_array_equal(scale.invert(scale.apply(jax.random.key(seed), every)), every)


def test_quantile_marginals_are_standard_normal(flows):
    scale = scaling.fit("quantile", flows)
    scaled = np.asarray(scale.apply(jax.random.key(1), flows))
    for column, sizes in zip(scaled.T, flows.T, strict=True):
        values, counts = np.unique(sizes, return_counts=True)
        once = (counts == 1).sum() / len(sizes)
        # Unseen sizes keep half the probability of the values seen once; the rest is the law of the statistic.
        assert stats.kstest(column, "norm").statistic < 0.5 * once + 1.95 / np.sqrt(len(sizes))


def test_normal_noise_becomes_the_training_distribution(flows):
    scale = scaling.fit("quantile", flows)
    drawn = np.asarray(scale.invert(jax.random.normal(jax.random.key(2), (40_000, 6))))
    for column in range(6):
        for atom in (0, 52, -52, 1500, -1460):
            counts = np.unique(flows[:, column], return_counts=True)[1]
            share = (flows[:, column] == atom).mean() * (1 - 0.5 * (counts == 1).sum() / len(flows))
            assert abs((drawn[:, column] == atom).mean() - share) < 4 * np.sqrt(0.25 / 40_000)
    assert (drawn[:, 5] == -40).mean() > 0.999


def test_unseen_sizes_take_the_good_turing_share_beside_values_seen_once():
    signed = np.zeros((1000, 1), np.int16)
    signed[:100, 0] = np.arange(200, 1200, 10)
    scale = scaling.fit("quantile", signed)
    drawn = np.asarray(scale.invert(jax.random.normal(jax.random.key(0), (100_000, 1))))[:, 0]
    unseen = ~np.isin(drawn, signed)
    assert abs(unseen.mean() - 0.05) < 0.01
    assert np.mean((drawn[unseen] > 150) & (drawn[unseen] < 1250)) > 0.93
    assert np.mean(drawn < 0) < 0.003, "neighbours keep their direction"


def test_linear_scale_is_the_published_one():
    signed = np.array([[1500, -750], [0, 32767]], np.int16)
    scale = scaling.fit("linear", signed)
    np.testing.assert_allclose(scale.apply(jax.random.key(0), signed[:1]), [[1.0, -0.5]])
    np.testing.assert_array_equal(scale.invert(np.float32([[0.0351, 99.0]])), [[53, 32767]])


def test_draws_are_fresh_for_every_key_and_vmap_agrees(flows):
    scale = scaling.fit("quantile", flows)
    one, other = (scale.apply(jax.random.key(seed), flows[:50]) for seed in (0, 1))
    assert (np.asarray(one) != np.asarray(other)).any()
    keys = jax.random.split(jax.random.key(3), 50)
    rows = jax.vmap(scale.apply)(keys, flows[:50])
    np.testing.assert_array_equal(jax.vmap(scale.invert)(rows), flows[:50])


@pytest.mark.parametrize("kind", scaling.SCALINGS)
def test_scales_are_stored_without_pickle(flows, kind, tmp_path):
    scale = scaling.fit(kind, flows, np.arange(len(flows)) % 3, 3)
    scaling.save(scale, tmp_path / "scaling.npz")
    loaded = scaling.load(tmp_path / "scaling.npz")
    assert type(loaded) is type(scale)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), scale, loaded))
    (tmp_path / "scaling.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a stored scale"):
        scaling.load(tmp_path / "scaling.npz")


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="unknown scaling"):
        scaling.fit("log", np.zeros((2, 3), np.int16))
    with pytest.raises(ConfigError, match="at least one flow"):
        scaling.fit("linear", np.zeros((0, 3), np.int16))


def test_class_statistics_equal_a_plain_loop():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, (60, 7, 3)).astype(np.float32)
    mask = np.arange(7) < rng.integers(0, 7, 60)[:, None]
    label = rng.integers(0, 3, 60)
    label[label == 1] = 3
    got = scaling.class_statistics(np.where(mask[..., None], x, 1e9), mask, label, 4)
    for c in range(4):
        rows = [i for i in range(60) if label[i] == c]
        assert got.flows[c] == len(rows)
        for d in range(3):
            for t in range(7):
                values = [x[i, t, d] for i in rows if mask[i, t]]
                np.testing.assert_allclose(got.std[c, t, d], np.std(values) if values else 0, rtol=1e-5, atol=1e-6)
            every = [x[i, t, d] for i in rows for t in range(7) if mask[i, t]]
            np.testing.assert_allclose(got.flat_std[c, d], np.std(every) if every else 0, rtol=1e-5, atol=1e-6)


def test_class_statistics_are_indexed_within_jit_and_refuse_bad_input():
    x, mask, label = np.random.default_rng(0).random((9, 4, 3)), np.ones((9, 4), bool), np.arange(9) % 3
    stats = scaling.class_statistics(x, mask, label, 3)
    own = jax.jit(lambda stats, label: stats[label])(stats, label)
    assert own.std.shape == (9, 4, 3) and own.flat_std.shape == (9, 3)
    np.testing.assert_array_equal(own.std[4], stats.std[1])
    whole = scaling.class_statistics(x, mask)
    np.testing.assert_allclose(whole[0].flat_std, x.reshape(-1, 3).std(0), rtol=1e-5)
    for bad in [
        (x[0], mask, label, 3),
        (x, mask[:, :3], label, 3),
        (x, mask, label, 2),
        (x, mask.astype(int), label, 3),
    ]:
        with pytest.raises(ConfigError, match="class_statistics"):
            scaling.class_statistics(*bad)


def test_scale_of_the_paper_maps_to_0_1_and_back():
    size, iat = [0.0, 60.0, 1500.0, 1000.0], [0.0, 0.002, 9.0, 1e-5]
    x = np.stack([size, [1.0, -1, 1, 0], iat], axis=-1)[None].astype(np.float32)
    mask = np.array([[True, True, True, False]])
    scale = scaling.fit_features(x, mask)
    scaled = scale.apply(x, mask)
    assert scaled.min() == -1 and scaled[..., [0, 2]].min() == 0 and scaled[..., [0, 2]].max() == 1
    assert (scaled[0, 3] == 0).all() and scaled[0, 2, 0] == 1
    back = scale.invert(scaled, mask)[0]
    np.testing.assert_allclose(back[:, 0], [0, 60, 1460, 0], rtol=1e-5)
    np.testing.assert_allclose(back[:2, 2], [0, 0.002], rtol=1e-4)
    assert 8 < back[2, 2] < 9, "cut at the 99 % quantile"
    hidden = scaling.FeatureScaling(-7.0, 1.0)
    np.testing.assert_allclose(hidden.to_seconds(hidden.from_seconds(iat[1:3])), iat[1:3], rtol=1e-4)
    assert hidden.from_seconds(0.0) == 0 and hash(hidden) == hash(scaling.FeatureScaling(-7.0, 1.0))
    with pytest.raises(ConfigError, match="fit_features"):
        scaling.fit_features(x, mask & False)
