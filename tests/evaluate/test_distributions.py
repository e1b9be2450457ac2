import itertools
import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, pearsonr, wasserstein_distance

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.distributions import (
    correlation,
    density,
    jensen_shannon,
    ks_complement,
    pearson_similarity,
    wasserstein,
)
from jaxtraffic.series import from_signed_size


def integers():
    """Integers with many ties, correlated columns, and another number of flows on each side."""
    rng = np.random.default_rng(7)
    real, synthetic = rng.integers(-3, 4, (90, 4)), rng.integers(-4, 4, (70, 4))
    real[:, 1] += 2 * real[:, 0]
    synthetic[:, 2] -= synthetic[:, 1]
    return real, synthetic


def golden_a():
    rng = np.random.default_rng(0)
    return rng.standard_normal((200, 2)), rng.standard_normal((200, 2)) * 1.2 + 0.1


# sdmetrics 0.32.0 in a venv of its own, for column i of integers(), and for columns i < j in this order:
#   KSComplement.compute(real[:, i], synthetic[:, i])
#   CorrelationSimilarity.compute(pd.DataFrame(real[:, [i, j]]), pd.DataFrame(synthetic[:, [i, j]]))
SDMETRICS_KS = [0.7936507936507937, 0.7142857142857143, 0.8428571428571429, 0.846031746031746]
SDMETRICS_CORRELATION = [
    0.6409200553593817,
    0.9206815746845782,
    0.9756564426393664,
    0.5938623030216981,
    0.9480101943460811,
    0.861626233139646,
]


@pytest.mark.parametrize("make", [integers, golden_a])
def test_columns_agree_with_scipy(make):
    real, synthetic = make()
    figures, curves = density(real, synthetic)
    sides = list(zip(real.T, synthetic.T, strict=True))
    assert curves["ks_complement"] == pytest.approx([1 - ks_2samp(a, b).statistic for a, b in sides], abs=1e-12)
    assert curves["wasserstein"] == pytest.approx([wasserstein_distance(a, b) for a, b in sides], abs=1e-12)
    signs = [[[np.mean(np.sign(x) == sign) for sign in (-1, 0, 1)] for x in pair] for pair in sides]
    assert curves["js_direction"] == pytest.approx([jensenshannon(*pair) ** 2 for pair in signs], abs=1e-12)
    for name, values in curves.items():
        assert figures[name] == pytest.approx(np.mean(values), abs=1e-12)
    assert figures["n_columns"] == real.shape[1]
    assert [ks_complement(a, b) for a, b in sides] == curves["ks_complement"]
    assert [wasserstein(a, b) for a, b in sides] == curves["wasserstein"]


@pytest.mark.parametrize("make", [integers, golden_a])
def test_correlation_agrees_with_scipy(make):
    real, synthetic = make()
    similarity = pearson_similarity(real, synthetic)
    expected = np.ones_like(similarity)
    for i, j in itertools.permutations(range(real.shape[1]), 2):
        r = [pearsonr(side[:, i], side[:, j]).statistic for side in (real, synthetic)]
        expected[i, j] = 1 - abs(r[0] - r[1]) / 2
    np.testing.assert_allclose(similarity, expected, rtol=0, atol=1e-12)
    figures, curves = correlation(real, synthetic)
    upper = expected[np.triu_indices(len(expected), 1)]
    assert figures == {"similarity": pytest.approx(upper.mean(), abs=1e-12), "n_pairs": upper.size} | {
        "n_constant_columns": 0
    }
    assert curves == {}


def test_golden_numbers_of_sdmetrics():
    real, synthetic = integers()
    figures, curves = density(real, synthetic)
    assert curves["ks_complement"] == pytest.approx(SDMETRICS_KS, abs=1e-12)
    similarity = pearson_similarity(real, synthetic)[np.triu_indices(4, 1)]
    assert similarity.tolist() == pytest.approx(SDMETRICS_CORRELATION, abs=1e-12)
    assert density(*golden_a())[1]["ks_complement"] == pytest.approx([0.87, 0.905], abs=1e-6)
    assert correlation(*golden_a())[0]["similarity"] == pytest.approx(0.9545016055, abs=1e-9)


def test_sdmetrics_says_the_same():
    pytest.importorskip("sdmetrics")
    import pandas
    from sdmetrics import column_pairs as pairs
    from sdmetrics import single_column as columns

    for real, synthetic in (integers(), golden_a()):
        for a, b in zip(real.T, synthetic.T, strict=True):
            assert ks_complement(a, b) == pytest.approx(columns.KSComplement.compute(a, b), abs=1e-12)
        similarity = pearson_similarity(real, synthetic)
        for pair in itertools.combinations(range(real.shape[1]), 2):
            frames = [pandas.DataFrame(side[:, pair]) for side in (real, synthetic)]
            assert similarity[pair] == pytest.approx(pairs.CorrelationSimilarity.compute(*frames), abs=1e-12)


def test_identical_sets_and_their_multiples_are_perfect():
    real, _ = integers()
    for other in (real, real[::-1], np.repeat(real, 3, axis=0)):
        figures, _ = density(real, other)
        assert (figures["ks_complement"], figures["wasserstein"]) == (1, 0)
        assert figures["js_direction"] == pytest.approx(0, abs=1e-15)
        assert figures["js_length"] == pytest.approx(0, abs=1e-15)
        assert correlation(real, other)[0]["similarity"] == pytest.approx(1, abs=1e-12)


def test_shuffled_columns_keep_the_density_and_lose_the_correlation():
    rng = np.random.default_rng(0)
    real = np.repeat(rng.integers(1, 1500, (400, 1)), 6, axis=1)
    marginals = rng.permuted(real, axis=0)
    assert density(real, marginals)[0]["ks_complement"] == 1
    assert correlation(real, marginals)[0]["similarity"] == pytest.approx(0.5, abs=0.02)


def test_columns_that_are_constant_on_a_side_are_skipped_and_counted():
    real, synthetic = integers()
    real, synthetic = real.astype(float), synthetic.astype(float)
    # the mean of equal floating point numbers is not their value
    real[:, 1], synthetic[:, 3] = 0.1, 1e-20
    assert np.mean(real[:, 1]) != 0.1
    figures, _ = correlation(real, synthetic)
    assert (figures["n_pairs"], figures["n_constant_columns"]) == (1, 2)
    assert figures["similarity"] == pytest.approx(SDMETRICS_CORRELATION[1], abs=1e-12)
    similarity = pearson_similarity(real, synthetic)
    assert np.isnan(similarity).sum() == 12
    # no pair is left
    assert correlation(real[:, :2], synthetic[:, :2]) == ({"n_pairs": 0, "n_constant_columns": 1}, {})
    assert correlation(real[:1], synthetic) == ({"n_pairs": 0, "n_constant_columns": 4}, {})
    assert density(real[:, 1:2], real[:, 1:2])[0]["ks_complement"] == 1


def test_values_of_any_magnitude():
    real, synthetic = integers()
    expected = pearson_similarity(real, synthetic)
    for scale in (1e-200, 1e200):
        np.testing.assert_allclose(pearson_similarity(real * scale, synthetic * scale), expected, rtol=0, atol=1e-9)
    limits = np.iinfo(np.int32)
    assert wasserstein(np.array([limits.min, limits.min]), np.array([limits.max])) == 2.0**32 - 1
    extremes = np.array([[limits.min, 1], [0, 0], [limits.min, 2]])
    r = pearsonr(*extremes.T).statistic
    assert pearson_similarity(extremes, extremes[:2])[0, 1] == pytest.approx(1 - abs(r + 1) / 2, abs=1e-12)


def test_single_flows():
    figures, curves = density(np.array([[3, 0, 5]]), np.array([[3, 2, -5]]))
    assert curves["ks_complement"] == [1, 0, 0]
    assert curves["wasserstein"] == [0, 2, 10]
    assert curves["js_direction"] == pytest.approx([0, math.log(2), math.log(2)], abs=1e-12)
    assert figures["js_length"] == 0


def test_lengths_of_packet_series():
    signed = np.zeros((4, 40), int)
    for row, n in enumerate((0, 2, 2, 35)):
        signed[row, :n] = 60
    signed[1, 0] = 0
    real = from_signed_size(signed, [0] * 4, class_names=["a"])
    figures, curves = density(real, real[np.array([1, 1, 2])])
    assert figures["n_columns"] == len(curves["wasserstein"]) == 30
    # 0, 2, 2 and 30 packets among the first 30, against 2, 2, 2
    assert figures["js_length"] == pytest.approx(jensenshannon([0.25, 0.5, 0.25], [0, 1, 0]) ** 2, abs=1e-12)
    # position 1: 0, 0, 60, 60 bytes against 0, 0, 60
    assert curves["wasserstein"][0] == pytest.approx(60 * (2 / 3 - 1 / 2), abs=1e-12)


def test_categories_of_any_values():
    real, synthetic = np.array(list("aabc")), np.array(list("abdddd"))
    shares = [0.5, 0.25, 0.25, 0], [1 / 6, 1 / 6, 0, 4 / 6]
    expected = jensenshannon(*shares) ** 2
    for kind in (str, object):
        assert jensen_shannon(real.astype(kind), synthetic.astype(kind)) == pytest.approx(expected, abs=1e-12)
    numbers = {letter: 7 * ord(letter) for letter in "abcd"}
    coded = [np.array([numbers[letter] for letter in side]) for side in (real, synthetic)]
    assert jensen_shannon(*coded) == pytest.approx(expected, abs=1e-12)
    assert jensen_shannon(real, real) == 0
    assert jensen_shannon(["x"], ["y", "z"]) == pytest.approx(math.log(2), abs=1e-12)


NAN = np.array([1.0, np.nan])


@pytest.mark.parametrize("call", [ks_complement, wasserstein, jensen_shannon])
@pytest.mark.parametrize("wrong", [NAN, np.array([]), np.ones((2, 2))], ids=["NaN", "empty", "two columns"])
def test_a_column_that_is_none_is_refused(call, wrong):
    for sides in ((wrong, np.ones(3)), (np.ones(3), wrong)):
        with pytest.raises(ConfigError):
            call(*sides)


def test_categories_that_do_not_compare_are_refused():
    for wrong in ([1, 2], np.array(["a", None], object), np.array(["a", 1], object)):
        with pytest.raises(ConfigError):
            jensen_shannon(np.array(["a", "b"]), wrong)


@pytest.mark.parametrize("call", [density, correlation, pearson_similarity])
def test_rows_that_are_none_are_refused(call):
    good = np.ones((3, 2))
    for wrong in (np.full((3, 2), np.nan), np.ones((0, 2)), np.ones((3, 3)), np.ones(3)):
        with pytest.raises(ConfigError):
            call(good, wrong)
