"""Difference of entropies: densities against scipy, values against closed forms, labels against Bayes."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import estimate
from jaxtraffic.information.doe import DoEOptions, gaussian, logistic
from jaxtraffic.information.registry import METHODS

SHORT = {"hidden": (32, 32), "steps": 600, "learning_rate": 5e-3}


def gaussian_pairs(seed, n, rho=0.75):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1))
    return x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(n, 1))


def test_densities_equal_scipy():
    y, centre, log_scale = (np.random.default_rng(0).normal(size=20).astype(np.float32) for _ in range(3))
    np.testing.assert_allclose(
        gaussian(y, centre, log_scale), stats.norm.logpdf(y, centre, np.exp(log_scale)), rtol=1e-4
    )
    np.testing.assert_allclose(
        logistic(y, centre, log_scale), stats.logistic.logpdf(y, centre, np.exp(log_scale)), rtol=1e-4, atol=1e-5
    )


def test_gaussian_and_independent_pairs():
    x, y = gaussian_pairs(1, 6000)
    test = gaussian_pairs(2, 4000)
    result = estimate(x, y, method="doe", key=jax.random.key(0), test=test, **SHORT)
    sample = -0.5 * np.log(1 - np.corrcoef(test[0][:, 0], test[1][:, 0])[0, 1] ** 2)
    assert result.value == pytest.approx(sample, abs=0.03)
    exact = -0.5 * np.log(1 - 0.75**2) - (0.75**2 * (test[0] ** 2 + test[1] ** 2) - 1.5 * test[0] * test[1]) / 0.875
    assert np.corrcoef(exact[:, 0], result.pointwise)[0, 1] > 0.95
    assert result.stderr == pytest.approx(exact.std() / np.sqrt(4000), rel=0.2)
    assert result.pointwise.mean() == pytest.approx(result.value, abs=1e-5) and not result.warnings
    apart = estimate(x, y[::-1], method="doe", key=jax.random.key(0), test=(test[0], test[1][::-1]), **SHORT)
    assert abs(apart.value) < 0.02


@pytest.mark.slow
def test_logistic_noise_wants_the_logistic_family():
    """Y = 3 X + logistic noise: H(Y | X) = 2 nats, which a logistic q(y | x) attains and a Gaussian one exceeds."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(8000, 1))
    y = 3 * x + rng.logistic(size=(8000, 1))
    given = {}
    for family in ("logistic", "gaussian"):
        result = estimate(x, y, method="doe", key=jax.random.key(0), preprocess="none", family=family, **SHORT)
        given[family] = float(result.diagnostics["entropy"]) - result.value
    assert given["logistic"] == pytest.approx(2.0, abs=0.04)
    # The best Gaussian has the variance pi^2 / 3.
    assert given["gaussian"] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * np.pi**2 / 3), abs=0.04)


def test_labels():
    """Two classes a distance 2 apart: H(label) - E H(label | x) by quadrature."""
    rng = np.random.default_rng(4)
    label = (rng.random(8000) < 0.3).astype(int)
    x = rng.normal(size=(8000, 1)) + 2 * label[:, None]
    result = estimate(x, label, method="doe", key=jax.random.key(0), preprocess="standardise", **SHORT)
    grid = np.linspace(-6, 8, 20001)
    joint = np.stack([0.7 * stats.norm.pdf(grid), 0.3 * stats.norm.pdf(grid - 2)])
    information = (joint * np.log(joint / joint.sum(0) / np.array([[0.7], [0.3]]))).sum() * (grid[1] - grid[0])
    assert result.value == pytest.approx(information, abs=0.03)
    assert result.pointwise.mean() == pytest.approx(result.value, abs=1e-5)
    # The entropy that the value starts from is the plug-in one of the test labels.
    entropy = float(result.diagnostics["entropy"])
    assert entropy == pytest.approx(result.value + float(result.diagnostics["on_test"]), abs=1e-5)
    assert entropy == pytest.approx(stats.entropy([0.7, 0.3]), abs=0.01)


def test_warnings_and_options():
    flat = {"validation": np.full(20, 1.0), "on_train": np.float32(1.0), "on_test": np.float32(1.0)}
    warn = METHODS["doe"].warn
    assert warn(DoEOptions(), flat, 0.5) == []
    assert "use more steps" in warn(DoEOptions(), flat | {"validation": np.linspace(2, 1, 20)}, 0.5)[0]
    assert "overfitting" in warn(DoEOptions(), flat | {"on_test": np.float32(1.2)}, 0.5)[0]
    assert "diverged" in warn(DoEOptions(), flat, np.nan)[0]
    with pytest.raises(ConfigError, match="unknown family"):
        DoEOptions(family="cauchy")
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        DoEOptions(steps=0)
