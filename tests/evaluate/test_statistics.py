"""Ranks and tests against plain loops, scipy's other routes and the worked examples of Demsar (2006)."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from jaxtraffic import evaluate
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate import statistics

# Demsar (2006), Table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets. In "voting" the third and fourth are
# printed alike but ranked 2 and 3.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9752, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
DEMSAR_NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
BAD = [
    ([[0.1, 0.2], [0.3, math.nan]], "block 1, method 1"),
    ([[0.1, math.inf], [0.3, 0.2]], "block 0, method 1"),
    ([[0.1, 0.2]], r"shape \[1, 2\]"),
    ([[0.1], [0.2]], r"shape \[2, 1\]"),
    ([0.1, 0.2], r"shape \[2\]"),
    ([[0.1, 0.2], [0.3]], "rows of one length"),
    ([["a", "b"], ["c", "d"]], "must be numbers"),
]


@pytest.fixture
def scores():
    """Rounded, so that there are ties."""
    generator = np.random.default_rng(5)
    return np.round(generator.normal(size=(23, 6)) + 0.4 * np.arange(6), 1)


def rank_by_loops(row):
    """One more than the better ones, and half of the equal ones."""
    return [1 + sum(other > one for other in row) + (sum(other == one for other in row) - 1) / 2 for one in row]


def test_ranks_equal_plain_loops(scores):
    assert any(len(set(row)) < len(row) for row in scores.tolist())
    np.testing.assert_array_equal(statistics.ranks(scores), [rank_by_loops(row) for row in scores])
    np.testing.assert_array_equal(
        statistics.ranks(scores, higher_is_better=False), [rank_by_loops(row) for row in -scores]
    )


def test_friedman_equals_scipy_with_ties(scores):
    statistic, p = statistics.friedman(scores)
    expected = stats.friedmanchisquare(*scores.T)
    assert statistic == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue)
    assert statistics.friedman(-scores) == pytest.approx((statistic, p))


def test_friedman_of_two_methods_is_the_sign_test():
    """With k = 2 and no ties it is (wins - losses)^2 / n, and ties drop out."""
    scores = np.array([[1, 0], [2, 1], [5, 3], [0, 1], [4, 4], [9, 2]], float)
    statistic, p = statistics.friedman(scores)
    assert statistic == pytest.approx((4 - 1) ** 2 / 5)
    assert p == pytest.approx(math.erfc(math.sqrt(1.8 / 2)))
    assert statistics.friedman(np.ones((3, 2))) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n", "expected"), [(7, 30, 1.644), (18, 80, 2.945), (18, 160, 2.082), (19, 80, 3.129)])
def test_critical_distance_has_the_published_values(k, n, expected):
    assert evaluate.critical_distance(k, n) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("k", "alpha", "q"),
    [(2, 0.05, 1.960), (4, 0.05, 2.569), (10, 0.05, 3.164), (2, 0.10, 1.645), (4, 0.10, 2.291), (7, 0.05, 2.949)],
)
def test_critical_distance_has_demsars_quantiles(k, alpha, q):
    """Demsar (2006), Table 5a. With two methods q is the normal quantile."""
    assert statistics.critical_distance(k, 14, alpha) / math.sqrt(k * (k + 1) / (6 * 14)) == pytest.approx(q, abs=1e-3)


def test_demsars_comparison_of_four_methods():
    """Mean ranks, CD 1.25 at 0.05 (nothing apart) and 1.12 at 0.10 (C4.5 apart from both with m), from his text."""
    found = evaluate.compare(DEMSAR, DEMSAR_NAMES)
    assert found.names == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert found.mean_ranks == pytest.approx((1.964, 2.000, 2.893, 3.143), abs=5e-4)
    assert found.distance == pytest.approx(1.25, abs=5e-3)
    assert found.cliques == ((0, 3),)
    # His 9.28 is without the correction for ties.
    plain = 12 * 14 / (4 * 5) * (np.square(found.mean_ranks).sum() - 4 * 5**2 / 4)
    assert plain == pytest.approx(9.28, abs=0.01)
    assert found.statistic == pytest.approx(stats.friedmanchisquare(*DEMSAR.T).statistic)
    assert found.n_blocks == 14
    assert found.significant
    wider = evaluate.compare(DEMSAR, DEMSAR_NAMES, alpha=0.10)
    assert wider.distance == pytest.approx(1.12, abs=5e-3)
    assert wider.cliques == ((0, 2), (2, 3))


def test_demsars_wilcoxon_example():
    """His Table 2; he shares the ranks of the two zeros among both signs (12 of 105), here they are dropped."""
    # In thousandths +5 -8 +17 +33 +6 -5 +7 +63 +22 +47 +9 +21: the two 5s share ranks 1 and 2, 8 has rank 5.
    whole = [5, -8, 17, 33, 6, -5, 7, 63, 22, 47, 9, 21]
    statistic, p = evaluate.wilcoxon(DEMSAR[:, 1], DEMSAR[:, 0])
    assert statistic == 1.5 + 5
    assert p == pytest.approx(by_all_signs(whole))
    assert evaluate.wilcoxon(DEMSAR[:, 0], DEMSAR[:, 1]) == (statistic, p)


def by_all_signs(difference):
    """Share of the 2^n ways to sign the ranks whose smaller sum is as small as the one seen."""
    size = stats.rankdata(np.abs(difference))
    signs = (np.arange(2 ** len(size))[:, None] >> np.arange(len(size))) & 1
    sums = signs @ size
    seen = size[np.array(difference) > 0].sum()
    return np.mean(np.minimum(sums, size.sum() - sums) <= min(seen, size.sum() - seen))


def test_wilcoxon_equals_scipy_without_ties():
    """Exact up to 200 blocks, normal for 250."""
    generator = np.random.default_rng(4)
    for n, method in ((30, "exact"), (200, "exact"), (250, "asymptotic")):
        b = generator.normal(size=n)
        a = b + generator.normal(0.25, 1, size=n)
        expected = stats.wilcoxon(a - b, method=method)
        assert evaluate.wilcoxon(a, b) == (expected.statistic, pytest.approx(expected.pvalue, rel=1e-9))


def test_wilcoxon_of_few_blocks():
    """All of 6 differences positive: 2 of 2^6 signs are as extreme."""
    a = np.array([1.0, 2.5, 3.0, 4.2, 5.1, 6.9])
    assert evaluate.wilcoxon(a, np.zeros(6)) == (0.0, pytest.approx(2 / 64))
    assert evaluate.wilcoxon([1, 2], [0, 3]) == (1.5, 1.0), "a tie of one win and one loss"
    assert evaluate.wilcoxon(a, a) == (0.0, 1.0)
    assert evaluate.wilcoxon(a + 0.1 + 0.2, a + 0.3) == (0.0, 1.0), "rounding is no difference"


@pytest.mark.parametrize("seed", range(6))
def test_cliques_are_the_maximal_sets_within_the_distance(seed):
    """Against all subsets of methods."""
    generator = np.random.default_rng(seed)
    mean = np.round(generator.uniform(1, 8, size=8), 1)
    distance = float(generator.uniform(0.2, 3))
    in_order = np.sort(mean)
    within = [
        {i for i in range(8) if pattern >> i & 1}
        for pattern in range(1, 256)
        if np.ptp(in_order[[i for i in range(8) if pattern >> i & 1]]) <= distance
    ]
    maximal = [one for one in within if len(one) > 1 and not any(one < other for other in within)]
    assert statistics.cliques(mean, distance) == sorted((min(one), max(one)) for one in maximal)


def test_cliques_of_methods_all_alike_and_all_apart():
    assert statistics.cliques([2.0, 2.0, 2.0], 0.0) == [(0, 2)]
    assert statistics.cliques([1.0, 2.0, 3.0], 0.5) == []
    assert statistics.cliques([1.0, 2.0, 2.5, 3.5], 1.0) == [(0, 1), (1, 2), (2, 3)]


def test_compare_sorts_names_and_writes_json(scores):
    names = [f"m{i}" for i in range(6)]
    found = evaluate.compare(scores, names)
    mean = np.array([rank_by_loops(row) for row in scores]).mean(axis=0)
    assert found.mean_ranks == tuple(sorted(mean))
    assert all(found.mean_ranks[i] == mean[int(name[1])] for i, name in enumerate(found.names))
    assert found.p_value == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    assert statistics.Comparison(**json.loads(json.dumps(dataclasses.asdict(found)))).names[0] == found.names[0]
    worst_first = evaluate.compare(scores, names, higher_is_better=False)
    assert worst_first.names == tuple(reversed(found.names))


def test_holm_equals_the_step_down_procedure():
    """Reject the smallest while p <= alpha / (m - step); stop at the first that stands."""
    generator = np.random.default_rng(2)
    for _ in range(20):
        p = np.round(generator.beta(0.3, 3, size=7), 3)
        corrected = statistics.holm(p)
        for alpha in (0.01, 0.05, 0.2):
            rejected = set()
            for step, index in enumerate(sorted(range(7), key=lambda i: p[i])):
                if p[index] > alpha / (7 - step):
                    break
                rejected.add(index)
            assert set(np.flatnonzero(corrected <= alpha)) == rejected


def test_holm_by_hand():
    np.testing.assert_allclose(statistics.holm([0.04, 0.01, 0.03, 0.005]), [0.06, 0.03, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.9, 0.8]), [1.0, 1.0])


def test_mean_interval_by_hand_and_by_scipy():
    """1, 2, 3: sd 1, t = 4.3027 with 2 degrees of freedom."""
    found = evaluate.mean_interval([1, 2, 3])
    assert found.mean == 2
    assert found.n == 3
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert (found.low, found.high) == (2 - found.half_width, 2 + found.half_width)
    values = np.random.default_rng(1).normal(3, 2, size=17)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    found = evaluate.mean_interval(values, level=0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_paired_difference_equals_scipys_paired_test():
    generator = np.random.default_rng(3)
    b = generator.normal(size=11)
    a = b + generator.normal(0.5, 0.1, size=11)
    found = evaluate.paired_difference(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((a - b).mean())
    assert found.mean > 0


@pytest.mark.parametrize(("scores", "message"), BAD)
@pytest.mark.parametrize("call", [statistics.ranks, statistics.friedman, lambda s: statistics.compare(s, "ab")])
def test_bad_scores_are_refused(call, scores, message):
    with pytest.raises(ConfigError, match=message):
        call(scores)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.critical_distance(1, 30), "number of methods"),
        (lambda: statistics.critical_distance(7, 1), "number of blocks"),
        (lambda: statistics.critical_distance(7.5, 30), "whole number"),
        (lambda: statistics.critical_distance(True, 30), "whole number"),
        (lambda: statistics.critical_distance(7, 30, alpha=5), "alpha"),
        (lambda: statistics.compare([[1, 2], [3, 4]], ["a"]), "2 different names"),
        (lambda: statistics.compare([[1, 2], [3, 4]], ["a", "a"]), "2 different names"),
        (lambda: statistics.compare([[1, 2], [3, 4]], ["a", "b"], alpha=math.nan), "alpha"),
        (lambda: statistics.cliques([1, math.nan], 1), "finite"),
        (lambda: statistics.cliques([1, 2], -1), "0 or more"),
        (lambda: statistics.cliques([1, 2], math.nan), "0 or more"),
        (lambda: statistics.wilcoxon([1, 2], [1, 2, 3]), "same blocks"),
        (lambda: statistics.wilcoxon([1, math.nan], [1, 2]), "finite"),
        (lambda: statistics.paired_difference([1], [2]), "2 or more"),
        (lambda: statistics.paired_difference([[1, 2]], [[1, 2]]), "one row"),
        (lambda: statistics.mean_interval([1, math.inf]), "finite"),
        (lambda: statistics.mean_interval([1, 2], level=95), "level"),
        (lambda: statistics.holm([]), "1 or more"),
        (lambda: statistics.holm([0.1, 1.2]), "between 0 and 1"),
        (lambda: statistics.holm([0.1, math.nan]), "finite"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
