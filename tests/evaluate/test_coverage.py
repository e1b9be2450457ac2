"""Coverage against golden numbers, plain loops over all pairs, and corner cases."""

import json

import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.coverage import alpha_beta, alpha_beta_levels, column_ranges, coverage
from jaxtraffic.series import PacketSeries

ALPHA = np.linspace(0, 1, 30)


def gaussian():
    """Golden case A of the reference."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((200, 2)), rng.standard_normal((200, 2)) * 1.2 + 0.1


def five():
    """Golden case B of the reference."""
    real = np.array([[0, 0], [1, 0], [0, 2], [3, 3], [5, 1]])
    return real, np.array([[0, 0.5], [1, 0], [0, 2.1], [10, 10], [5, 1.4]])


def tied(n, m, seed=0):
    """Integers with many ties and duplicates, and a column that is constant on the real side."""
    rng = np.random.default_rng(seed)
    real, synthetic = rng.integers(-4, 5, (n, 2)), rng.integers(-5, 6, (m, 2))
    real[:, 1] = 3
    return real, synthetic


def squares(a, b):
    return ((a[:, None].astype(float) - b[None]) ** 2).sum(axis=2)


def others(rows):
    squared = squares(rows, rows)
    np.fill_diagonal(squared, np.inf)
    return np.sort(squared, axis=1)


def plain_alpha_beta(real, synthetic):
    """The definition, in loops; returns scores, curves and authenticity."""
    centre, own_centre = real.mean(axis=0), synthetic.mean(axis=0)
    radius = np.quantile(np.linalg.norm(real - centre, axis=1), ALPHA)
    precision = [np.mean(np.linalg.norm(synthetic - centre, axis=1) <= r) for r in radius]
    squared, nearest_other = squares(real, synthetic), others(real)[:, 0]
    chosen = synthetic[squared.argmin(axis=1)]
    depth = np.linalg.norm(chosen - own_centre, axis=1)
    recall = []
    for level in np.quantile(depth, ALPHA):
        inside = [squared[i].min() <= nearest_other[i] and depth[i] <= level for i in range(len(real))]
        recall.append(np.mean(inside))
    authentic = [squared[:, j].min() > nearest_other[squared[:, j].argmin()] for j in range(len(synthetic))]
    scores = [1 - np.abs(ALPHA - curve).sum() / 15 for curve in (precision, recall)]
    return {
        "alpha_precision": scores[0],
        "beta_recall": scores[1],
        "authenticity": np.mean(authentic),
    }, (precision, recall)


def test_golden_numbers_a():
    real, synthetic = gaussian()
    raw, scaled = (alpha_beta(real, synthetic, scale=scale, peer=True) for scale in ("none", "minmax"))
    wanted = {"alpha_precision": 0.7791954023, "beta_recall": 0.395, "authenticity": 0.535}
    assert raw == pytest.approx(wanted, abs=1e-9)
    wanted = {"alpha_precision": 0.781862069, "beta_recall": 0.3866666667, "authenticity": 0.53}
    assert scaled == pytest.approx(wanted, abs=1e-9)
    figures, _ = coverage(real, synthetic)
    for name in ("alpha_precision", "beta_recall"):
        assert (figures[name], figures[f"{name}_minmax"]) == (raw[name], scaled[name])
    wanted = {"alpha_precision": 0.9967701149, "beta_recall": 0.9967701149, "authenticity": 0}
    assert alpha_beta(real, real, peer=True) == pytest.approx(wanted, abs=1e-9)


def test_golden_numbers_b():
    real, synthetic = five()
    wanted = {"alpha_precision": 0.6891954023, "beta_recall": 0.7577011494, "authenticity": 0}
    assert alpha_beta(real, synthetic, peer=True) == pytest.approx(wanted, abs=1e-9)
    figures, curves = coverage(real, synthetic)
    assert curves["alpha_curve"][0] == pytest.approx(0.2) and curves["alpha_curve"][-1] == pytest.approx(0.8)
    assert curves["beta_curve"][0] == pytest.approx(0.4) and curves["beta_curve"][-1] == pytest.approx(1)
    # Only (10, 10) is further from its nearest real flow (3, 3) than that is from another real flow.
    assert figures["authenticity"] == pytest.approx(0.2)


@pytest.mark.parametrize("n, m", [(90, 60), (40, 150)])
def test_alpha_beta_of_tied_integers_against_loops(n, m):
    real, synthetic = tied(n, m)
    wanted, curves = plain_alpha_beta(real, synthetic)
    assert alpha_beta(real, synthetic) == pytest.approx(wanted, abs=1e-12)
    assert alpha_beta(real.astype(float), synthetic.astype(float)) == pytest.approx(wanted, abs=1e-12)
    found = coverage(real, synthetic)[1]
    np.testing.assert_allclose((found["alpha_curve"], found["beta_curve"]), curves, atol=1e-12)


def test_figures_against_loops():
    for (real, synthetic), k in ((tied(80, 60), 5), (gaussian(), 3), (five(), 2)):
        figures, curves = coverage(real, synthetic, k=k)
        squared = squares(synthetic, real)
        radius, own_radius = others(real)[:, k - 1], others(synthetic)[:, k - 1]
        assert figures["precision"] == pytest.approx(np.mean((squared <= radius).any(axis=1)))
        assert figures["recall"] == pytest.approx(np.mean((squared <= own_radius[:, None]).any(axis=0)))
        assert figures["density"] == pytest.approx((squared <= radius).sum() / k / len(synthetic))
        assert figures["coverage"] == pytest.approx(np.mean((squared <= radius).any(axis=0)))
        to_real, to_synthetic = np.sqrt(squared.min(axis=1)), np.sqrt(squared.min(axis=0))
        assert figures["mean_nearest"] == pytest.approx(to_real.mean())
        assert figures["mean_nearest_real"] == pytest.approx(to_synthetic.mean())
        percent = np.arange(101) / 100
        np.testing.assert_allclose(curves["nearest_quantiles"], np.quantile(to_real, percent), atol=1e-12)
        np.testing.assert_allclose(curves["nearest_real_quantiles"], np.quantile(to_synthetic, percent), atol=1e-12)
        used = np.sort(np.bincount(squared.argmin(axis=1), minlength=len(real)))[::-1]
        assert figures["used_share"] == pytest.approx(np.mean(used > 0))
        shares = curves["index_share"]
        assert len(shares) == 101 and shares[0] == 0 and shares[100] == pytest.approx(1)
        for tenth in range(0, 101, 20):  # 20 % of 80, 200 and 5 flows are whole flows
            assert shares[tenth] == pytest.approx(used[: len(real) * tenth // 100].sum() / len(synthetic))
        assert (np.diff(shares) >= -1e-12).all()
    json.dumps([figures, curves], allow_nan=False)


def test_a_copy_and_a_collapsed_generator():
    real, _ = tied(80, 60)
    copy, _ = coverage(real, real)
    assert copy["authenticity"] == 0 and copy["precision"] == copy["recall"] == copy["coverage"] == 1
    assert copy["mean_nearest"] == copy["mean_nearest_real"] == 0
    collapsed, curves = coverage(real, np.repeat(real[:1], 50, axis=0))
    assert collapsed["used_share"] == pytest.approx(1 / 80) and curves["index_share"][2] == 1
    assert collapsed["recall"] == np.mean((real == real[0]).all(axis=1))
    assert collapsed["coverage"] < 0.5 < collapsed["precision"]


def test_ties_after_scaling_are_ties():
    """Thirds: the same integer difference from two places, which scaled coordinates would not give exactly."""
    real = np.array([[0, 0], [1, 0], [40, 3], [41, 3], [49, 0], [48, 0]])
    synthetic = real + np.array([[0, 0], [1, 0], [0, 0], [1, 0], [0, 0], [-1, 0]])
    synthetic[[0, 2, 4]] = 1000
    scaled = real / column_ranges(real)
    assert len({float(abs(scaled[i, 0] - scaled[i + 1, 0])) for i in (0, 2, 4)}) > 1
    # Flows 1, 3 and 5 are as near to a synthetic flow as to a real one.
    for scale in (None, column_ranges(real)):
        assert alpha_beta_levels(real, synthetic, scale).recall[-1] == 0.5


def test_few_flows():
    """A set of k flows or fewer takes the neighbours it has; a single synthetic flow is a ball of radius 0."""
    real, synthetic = five()
    few, enough = coverage(real, synthetic, k=9)[0], coverage(real, synthetic, k=4)[0]
    assert few == enough
    single, curves = coverage(real, real[1:2])
    assert single["recall"] == pytest.approx(0.2) and single["precision"] == single["coverage"] == 1
    assert single["density"] == 5 / 4 and single["used_share"] == 0.2 and curves["index_share"][20] == 1
    assert alpha_beta(real, synthetic[:1])["authenticity"] == 0
    with pytest.raises(ConfigError, match="at least two real flows"):
        alpha_beta(real[:1], synthetic)


def test_what_is_refused():
    real, synthetic = five()
    for bad in (synthetic[:, :1], np.full((5, 2), np.nan), synthetic[:0]):
        with pytest.raises(ConfigError):
            coverage(real, bad)
    with pytest.raises(ConfigError, match="equal sizes"):
        alpha_beta(real, synthetic[:4], peer=True)
    with pytest.raises(ConfigError, match="scale"):
        alpha_beta(real, synthetic, scale="standard")
    with pytest.raises(ConfigError, match="k must"):
        coverage(real, synthetic, k=0)


def test_packet_series():
    rng = np.random.default_rng(0)

    def series(n):
        size, direction = rng.integers(0, 9, (n, 2)), rng.choice([-1, 1], (n, 2))
        values = (size.astype(np.int16), direction.astype(np.int8), np.zeros((n, 2), np.float32), np.zeros(n, np.int32))
        return PacketSeries(*values, class_names=("a",))

    real, synthetic = series(70), series(50)
    assert coverage(real, synthetic) == coverage(real.signed_size, synthetic.signed_size)
