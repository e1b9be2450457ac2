"""Canonical correlations: against scikit-learn free linear algebra in float64 and closed forms."""

import jax
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import estimate
from jaxtraffic.information.cca import canonical


def log_det_information(x, y):
    """1/2 (ln det C_x + ln det C_y - ln det C), in float64."""
    parts = [np.cov(v.astype(float).T, ddof=0).reshape(v.shape[1], -1) for v in (x, y)]
    whole = np.cov(np.hstack([x, y]).astype(float).T, ddof=0)
    return 0.5 * (sum(np.linalg.slogdet(c)[1] for c in parts) - np.linalg.slogdet(whole)[1])


@pytest.mark.parametrize(("dim_x", "dim_y"), [(1, 1), (4, 2), (3, 6)], ids=["1x1", "4x2", "3x6"])
def test_equals_determinants(dim_x, dim_y):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, dim_x + dim_y)) @ rng.normal(size=(dim_x + dim_y, dim_x + dim_y))
    x, y = 1e3 * z[:, :dim_x] + 5e3, z[:, dim_x:]
    result = estimate(x, y, method="cca", key=jax.random.key(0), preprocess="standardise")
    assert result.value == pytest.approx(log_det_information(x, y), rel=2e-4)
    assert result.pointwise.mean() == pytest.approx(result.value, rel=1e-4)


def test_pointwise_are_log_ratios_of_the_fitted_gaussian():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 1)).astype(np.float32)
    y = (0.6 * x + 0.8 * rng.normal(size=(500, 1))).astype(np.float32)
    result = estimate(x, y, method="cca", key=jax.random.key(0), preprocess="none")
    a, b = ((v[:, 0] - v.mean()) / v.std() for v in (x.astype(float), y.astype(float)))
    rho = (a * b).mean()
    expected = -0.5 * np.log(1 - rho**2) - (rho**2 * (a**2 + b**2) - 2 * rho * a * b) / (2 * (1 - rho**2))
    np.testing.assert_allclose(result.pointwise, expected, atol=1e-4)
    assert result.stderr == pytest.approx(expected.std() / np.sqrt(500), rel=1e-3)


@pytest.mark.parametrize("information", [5.0, 8.0])
def test_correlations_near_one_keep_their_digits(information):
    rho = np.sqrt(1 - np.exp(-2 * information))
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4000, 1))
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(4000, 1))
    value = estimate(x, y, method="cca", key=jax.random.key(0), preprocess="standardise").value
    assert value == pytest.approx(log_det_information(x, y), abs=0.01)


def test_equal_variables_are_infinite_and_say_so():
    x = np.random.default_rng(3).normal(size=(500, 2))
    result = estimate(x, x[:, :1] * 2 + 1, method="cca", key=jax.random.key(0))
    assert np.isposinf(result.value) and np.isnan(result.stderr)
    assert any("infinite" in warning for warning in result.warnings)


def test_constant_and_copied_columns_add_nothing():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1000, 2))
    y = 0.5 * x + rng.normal(size=(1000, 2))
    more = np.hstack([x, np.ones((1000, 1)), x[:, :1] + x[:, 1:]])
    plain, copied = (
        estimate(v, y, method="cca", key=jax.random.key(0), preprocess="standardise").value for v in (x, more)
    )
    assert copied == pytest.approx(plain, abs=1e-4)
    _, _, rho, _ = canonical(*(v.astype(np.float32) for v in (more, np.hstack([y, y[:, :1]]))))
    assert np.all(rho >= 0) and np.all(rho < 0.9) and (np.asarray(rho) > 0).sum() == 2


def test_heavy_tails_with_normal_margins_and_the_bias_of_many_dimensions():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4000, 1))
    y = 0.75 * x + np.sqrt(1 - 0.75**2) * rng.normal(size=(4000, 1))
    assert estimate(np.sinh(3 * x), y**3, method="cca", key=jax.random.key(0)).value == pytest.approx(0.4133, abs=0.04)
    apart = estimate(rng.normal(size=(500, 10)), rng.normal(size=(500, 10)), method="cca", key=jax.random.key(0))
    assert apart.value == pytest.approx(0.1, abs=0.03)
    assert any("0.100 too high" in warning for warning in apart.warnings)


def test_labels_are_refused():
    with pytest.raises(ConfigError, match="needs continuous y"):
        estimate(np.random.default_rng(0).normal(size=50), np.arange(50) % 3, method="cca", key=jax.random.key(0))
