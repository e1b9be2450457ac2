"""Self-consistency tests, on an estimator that is exact for normal variables and on some that are wrong in one way."""

import jax
import numpy as np
import pytest
from scipy.special import ndtri

from jaxtraffic.errors import ConfigError
from jaxtraffic.information.tasks import (
    PAIRS,
    TASKS,
    additivity,
    chain,
    check_task,
    data_processing,
    high_mi_task,
    independence,
    invariance,
    permutation,
    symmetry,
)

KEY = jax.random.key(0)
N = 20_000


def canonical(x, y, key=None):
    """Information of the normal distribution with the covariance of the sample; exact for normal variables."""
    x, y = (values.astype(np.float64).reshape(len(values), -1) for values in (x, y))
    dim = x.shape[1]
    # The ridge keeps a coordinate that repeats another from making the determinants zero.
    covariance = np.cov(np.hstack([x, y]).T) + 1e-7 * np.eye(dim + y.shape[1])
    log_det = [np.linalg.slogdet(c)[1] for c in (covariance[:dim, :dim], covariance[dim:, dim:], covariance)]
    return (log_det[0] + log_det[1] - log_det[2]) / 2


def by_rank(x, y, key=None):
    """`canonical` of each coordinate's normal scores: exact also after increasing maps of coordinates."""

    def scores(values):
        ranks = np.argsort(np.argsort(values.reshape(len(values), -1), axis=0), axis=0)
        return ndtri((ranks + 0.5) / len(values))

    return canonical(scores(x), scores(y))


@pytest.fixture(scope="module")
def pairs():
    generator = np.random.default_rng(3)
    x = generator.standard_normal((N, 2)).astype(np.float32)
    y = np.stack([0.8 * x[:, 0] + 0.6 * generator.standard_normal(N), generator.standard_normal(N)], axis=1)
    return x, y.astype(np.float32)


TRUTH = -0.5 * np.log(1 - 0.8**2)


def test_independence(pairs):
    check = independence(canonical, *pairs, KEY)
    assert check.test == "independence" and check.expected == 0
    assert check.values["information"] == pytest.approx(TRUTH, abs=0.02)
    assert 0 < check.values["floor"] < 1e-3
    assert check.ratio == pytest.approx(check.values["floor"] / check.values["information"])
    raised = independence(lambda x, y, key: canonical(x, y) + 0.3, *pairs, KEY)
    assert raised.values["floor"] == pytest.approx(check.values["floor"] + 0.3)


def test_independence_of_labels(pairs):
    labels = (pairs[0][:, 0] > 0).astype(np.int32)
    seen = []

    def estimate(x, y, key):
        seen.append(y)
        return canonical(x, y)

    check = independence(estimate, pairs[0], labels, KEY)
    assert check.values["floor"] < 1e-3 < 0.3 < check.values["information"]
    assert all(y.ndim == 1 and y.dtype == np.int32 for y in seen)
    np.testing.assert_array_equal(np.bincount(seen[0]), np.bincount(seen[1]))


def test_permutation_score(pairs):
    x, y = pairs
    check = permutation(canonical, x[:300], y[:300], KEY, permutations=8)
    assert check.ratio > 20
    values = check.values
    assert check.ratio == pytest.approx((values["information"] - values["floor"]) / values["floor_sd"])
    assert values["floor"] == pytest.approx(4 / (2 * 300), rel=0.7)  # dim_x dim_y / (2 n), by Wilks
    apart = permutation(canonical, x[:300, 1:], y[:300], KEY, permutations=8)
    assert abs(apart.ratio) < 4
    with pytest.raises(ConfigError, match="at least 2"):
        permutation(canonical, x, y, KEY, permutations=1)


def test_data_processing(pairs):
    check = data_processing(canonical, *pairs, KEY)
    assert check.expected == 1 and check.ratio == pytest.approx(1, abs=0.01)
    noisy = np.random.default_rng(1)
    # What is not a function of y but of x adds information, and the test sees that.
    wrong = data_processing(canonical, *pairs, KEY, processing=lambda y: pairs[0][:, 0] + noisy.standard_normal(N))
    assert wrong.ratio > 1.1
    with pytest.raises(ConfigError, match="as many samples"):
        data_processing(canonical, *pairs, KEY, processing=lambda y: y[1:])


def test_chain(pairs):
    check = chain(canonical, *pairs, KEY)
    # Noise of one interquartile range, 1.349 standard deviations: correlation 0.8 / sqrt(1 + 1.349^2).
    after = -0.5 * np.log(1 - 0.8**2 / (1 + 1.349**2))
    assert check.values["after_noise"] == pytest.approx(after, abs=0.01)
    assert check.ratio == pytest.approx(after / TRUTH, abs=0.02) and check.ratio < check.expected == 1
    # Silence changes nothing, and z may be given.
    assert chain(canonical, *pairs, KEY, noise=0.0).ratio == pytest.approx(1, abs=1e-6)
    assert chain(canonical, *pairs, KEY, z=pairs[1][:, :1]).ratio == pytest.approx(1, abs=0.01)
    assert chain(canonical, *pairs, KEY, z=pairs[1][:, 1:]).ratio < 0.01


def test_additivity(pairs):
    check = additivity(canonical, *pairs, KEY)
    assert check.expected == 2 and check.ratio == pytest.approx(2, abs=0.05)
    assert check.values["two_copies"] == pytest.approx(2 * TRUTH, abs=0.05)
    saturated = additivity(lambda x, y, key: min(canonical(x, y), 0.6), *pairs, KEY)
    assert saturated.ratio < 1.3
    x, y = pairs
    given = additivity(canonical, x[: N // 2], y[: N // 2], KEY, other=(x[N // 2 :], y[N // 2 :]))
    assert given == check
    with pytest.raises(ConfigError, match="as many samples"):
        additivity(canonical, x, y, KEY, other=(x[1:], y[1:]))


def test_additivity_keeps_the_columns_of_pairs_together():
    shapes = []

    def estimate(x, y, key):
        shapes.append((x.shape, y.shape))
        return 1.0

    additivity(estimate, np.zeros((11, 2)), np.zeros(11), KEY)
    assert shapes == [((5, 2), (5, 1)), ((5, 4), (5, 2))]


def test_symmetry(pairs):
    check = symmetry(canonical, *pairs, KEY)
    assert check.expected == 1 and check.ratio == pytest.approx(1, abs=1e-9)
    # Standard deviations 1 and 2: 1 + 2 * 2 one way round and 2 + 2 * 1 the other.
    lopsided = symmetry(lambda x, y, key: x.std() + 2 * y.std(), pairs[0], 2 * pairs[1], KEY)
    assert lopsided.ratio == pytest.approx(4 / 5, abs=0.02)


def test_invariance():
    pair = next(p for p in PAIRS if p.changed.name.startswith("half_cube"))
    kept = invariance(by_rank, pair, KEY, n=N)
    assert kept.ratio == pytest.approx(1, abs=1e-6) and kept.expected == 1
    assert kept.values["information"] == pytest.approx(kept.values["truth"], abs=0.02)
    lost = invariance(canonical, pair, KEY, n=N)
    assert lost.ratio < 0.97


def test_a_spiral_hides_correlation():
    base, spiral = high_mi_task(2), high_mi_task(2, spiral=True)
    check = invariance(canonical, (base, spiral), KEY, n=5000)
    assert check.values["information"] == pytest.approx(2, abs=0.1) and check.ratio < 0.95


def test_all_checks_of_a_task():
    checks = {check.test: check for check in check_task(by_rank, TASKS["half_cube-1v1-normal-0.75"], KEY, n=5000)}
    assert list(checks) == ["independence", "data_processing", "chain", "symmetry", "additivity", "invariance"]
    for name in ("data_processing", "symmetry", "additivity", "invariance"):
        assert checks[name].ratio == pytest.approx(checks[name].expected, rel=0.1)
    assert checks["chain"].ratio < 1 and checks["independence"].ratio < 0.05
    assert "invariance" not in [check.test for check in check_task(canonical, TASKS["1v1-normal-0.75"], KEY, n=500)]


def test_keys_are_shared_by_a_comparison_and_not_by_permutations(pairs):
    keys = []

    def estimate(x, y, key):
        keys.append(tuple(np.asarray(jax.random.key_data(key))))
        return 1.0

    for test in (independence, data_processing, chain, additivity, symmetry):
        keys.clear()
        test(estimate, *pairs, KEY)
        assert len(keys) == 2 and keys[0] == keys[1]
    keys.clear()
    permutation(estimate, *pairs, KEY, permutations=5)
    assert len(set(keys)) == 6


def test_nothing_is_divided_by_zero(pairs):
    assert np.isnan(symmetry(lambda x, y, key: 0.0, *pairs, KEY).ratio)


@pytest.mark.parametrize("test", [independence, permutation, data_processing, chain, additivity, symmetry])
def test_different_lengths_are_refused(test):
    with pytest.raises(ConfigError, match="as many samples"):
        test(canonical, np.zeros((10, 1)), np.zeros((9, 1)), KEY)
