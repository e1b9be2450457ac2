import importlib
import math

import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.mmd import mmd
from jaxtraffic.series import from_signed_size

# Rows of 4 columns and 5 bandwidths almost everywhere: one compiled program.
MODULE = importlib.import_module("jaxtraffic.evaluate.mmd")  # the name in the package may be that of the function


def reference(x, y, bandwidth):
    """Gretton et al. (2012), equation 3, pair by pair."""

    def kernel(a, b):
        return math.exp(-sum((p - q) ** 2 for p, q in zip(a, b)) / (2 * bandwidth**2))

    x, y = x.astype(float), y.astype(float)
    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize("integer", [True, False])
def test_it_is_the_unbiased_estimate(integer):
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 300, (14, 4)), rng.normal(150, 300, (9, 4))
    if integer:
        x, y = x.astype(np.int32), y.astype(np.int32)
        x[3] = x[4]
    factors = (0.1, 0.5, 1.5, 2, 3)
    figures, curves = mmd(x, y, factors=factors)
    distances = [np.linalg.norm(a.astype(float) - b) for i, a in enumerate(x) for b in x[:i]]
    median = np.median([d for d in distances if d > 0])
    np.testing.assert_allclose(curves["bandwidths"], np.multiply(factors, median), rtol=1e-12)
    expected = [reference(x, y, h) for h in curves["bandwidths"]]
    np.testing.assert_allclose(curves["squared"], expected, atol=1e-6)
    assert figures["mmd_squared"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert figures["mmd"] == pytest.approx(math.sqrt(np.mean(expected)), abs=1e-5)


def test_equal_distributions_are_near_zero_on_both_sides_and_a_shift_is_seen():
    squares, shifted = [], []
    for seed in range(10):
        rng = np.random.default_rng(100 + seed)
        x, y = (rng.normal(0, 100, (60, 4)) for _ in range(2))
        squares.append(mmd(x, y)[0]["mmd_squared"])
        if seed < 3:
            shifted.append(mmd(x, y + 60)[0]["mmd"])
    assert min(squares) < 0 < max(squares)
    assert abs(np.mean(squares)) < 3 * np.std(squares) / math.sqrt(10)
    assert min(shifted) ** 2 > 4 * np.std(squares)


def test_a_set_against_itself_has_no_distance():
    x = np.random.default_rng(0).integers(-9, 9, (30, 4))
    figures, curves = mmd(x, x)
    assert figures["mmd"] == 0 and figures["mmd_squared"] < 0
    assert len(curves["bandwidths"]) == len(curves["squared"]) == 5


def test_duplicates_count_as_often_as_they_occur():
    x = np.array([[0, 0, 0, 7], [10, 0, 0, 7], [0, 10, 0, 7]])
    heavy = x[[0] * 8 + [1, 2]]
    figures, curves = mmd(x, heavy)
    assert curves["bandwidths"] == [2.5, 5.0, 10.0, 20.0, 40.0]
    assert curves["squared"] == pytest.approx([reference(x, heavy, h) for h in curves["bandwidths"]], abs=1e-6)


def test_the_ladder_is_of_the_real_flows_unless_they_are_all_equal(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(-500, 500, (40, 4)), rng.integers(-3, 3, (40, 4))
    assert mmd(x, y)[1]["bandwidths"] == mmd(x, x)[1]["bandwidths"]
    collapsed = np.repeat(x[:1], 7, axis=0)
    assert mmd(collapsed, collapsed + [3, 4, 0, 0])[1]["bandwidths"][2] == 5.0
    assert mmd(collapsed, collapsed)[0]["mmd_squared"] == pytest.approx(0, abs=1e-6)
    whole = mmd(x, y)[1]["bandwidths"][2]
    monkeypatch.setattr(MODULE, "MEDIAN_ROWS", 20)
    drawn = [mmd(x, y)[1]["bandwidths"][2] for _ in range(2)]
    assert drawn[0] == drawn[1] != whole
    assert drawn[0] == pytest.approx(whole, rel=0.2)


def test_packet_series_are_taken_by_their_signed_sizes(monkeypatch):
    def sums(a, b, bandwidths, mesh):
        return np.array([sum(np.exp(-np.square(b - row).sum(1) / (2 * h * h)).sum() for row in a) for h in bandwidths])

    monkeypatch.setattr(MODULE, "gaussian_sums", sums)
    rng = np.random.default_rng(0)
    rows = [rng.integers(-1500, 1500, (n, 33)).astype(np.int16) for n in (12, 10)]
    series = [from_signed_size(signed, np.zeros(len(signed)), class_names=["a"]) for signed in rows]
    assert mmd(*series) == mmd(*(signed[:, :30] for signed in rows))


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros((1, 2)), np.zeros((4, 2)), {}, "at least two"),
        (np.zeros((4, 2)), np.zeros((1, 2)), {}, "at least two"),
        (np.full((3, 2), np.nan), np.zeros((3, 2)), {}, "NaN"),
        (np.zeros((3, 2)), np.zeros((3, 4)), {}, "columns"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"factors": (1, 0)}, "above 0"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"factors": ()}, "above 0"),
    ],
)
def test_bad_input_is_refused(x, y, options, message):
    with pytest.raises(ConfigError, match=message):
        mmd(x, y, **options)
