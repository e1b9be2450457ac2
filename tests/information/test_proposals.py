"""Importance proposals against numerical integrals, SciPy's Lambert W and the reference's standard deviations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import lambertw

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import proposals

EPS = 1e-3


@pytest.mark.parametrize("name", proposals.PROPOSALS)
@pytest.mark.parametrize("eps", [1e-3, 1e-4])
def test_density_integrates_to_one(name, eps):
    # In l = -ln(1 - t), where the densities are smooth.
    total, _ = quad(
        lambda level: float(proposals.density(name, jnp.float32(-np.expm1(-level)), eps)) * np.exp(-level),
        0,
        -np.log(eps),
        epsabs=1e-4,
        limit=60,
    )
    assert total == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", proposals.PROPOSALS)
def test_quantiles_follow_the_density(name):
    u = (np.arange(20000) + 0.5) / 20000
    t = np.sort(np.asarray(proposals.at_quantile(name, jnp.asarray(u, jnp.float32), EPS), np.float64))
    assert t[0] >= 0 and t[-1] <= 1 - EPS + 1e-6
    ends = np.array([0.01, 0.1, 0.4, 0.7, 0.95, 0.99])
    inverse = np.log1p(-ends) / np.log(EPS)
    expected = {
        "uniform": ends / (1 - EPS),
        "inverse": inverse,
        "mixture": 0.5 * (ends / (1 - EPS) + inverse),
        "lambert": (-np.log1p(-ends) - ends) / (-np.log(EPS) - (1 - EPS)),
    }[name]
    np.testing.assert_allclose(np.searchsorted(t, ends) / len(t), expected, atol=2e-4)


def test_lambert_constant_and_scipy():
    z = proposals.lambert_constant(EPS)
    assert z == pytest.approx(5.9088, abs=5e-5)
    u = np.concatenate([np.geomspace(1e-5, 1e-2, 50), np.linspace(0.01, 0.999, 500)])
    expected = 1 + lambertw(-np.exp(-(1 + u * z))).real
    found = jax.jit(lambda u: proposals.at_quantile("lambert", u, EPS))(jnp.asarray(u, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-4)
    # SciPy's is NaN at 0.
    assert proposals.at_quantile("lambert", jnp.zeros(1), EPS)[0] == 0


@pytest.mark.parametrize("name", proposals.PROPOSALS)
def test_weights_are_unbiased(name):
    u = proposals.strata(jax.random.key(3), 40000)
    t = proposals.at_quantile(name, u, EPS)
    weight = np.asarray(proposals.weight(name, t, EPS), np.float64)
    t = np.asarray(t, np.float64)
    # Integrals of t / (1 - t) f(t) for f = (1 - t) and (1 - t)^2, up to what lies beyond 1 - eps.
    assert (weight * (1 - t)).mean() == pytest.approx(0.5, abs=3e-3)
    assert (weight * (1 - t) ** 2).mean() == pytest.approx(1 / 6, abs=1e-3)


def _velocity(x, t, mean, variance):
    return mean + (t * variance - (1 - t)) / (t * t * variance + (1 - t) ** 2) * (x - t * mean)


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        (1.0, {"uniform": 0.64, "lambert": 2.12, "inverse": 1.37, "mixture": 0.83}),
        (0.3, {"uniform": 2.31, "lambert": 4.95, "inverse": 3.85, "mixture": 2.79}),
        (0.05, {"uniform": 6.72, "lambert": 7.74, "inverse": 6.85, "mixture": 6.22}),
    ],
)
def test_standard_deviations_of_the_reference(s, expected):
    # reference/information.md, section 5 (a): squared form, exact velocities, one draw, y and all drawn.
    rng = np.random.default_rng(5)
    n = 200_000
    y, noise = rng.standard_normal((2, n))
    x = y + s * rng.standard_normal(n)
    u = jnp.asarray(rng.random(n), jnp.float32)
    for name, value in expected.items():
        t = proposals.at_quantile(name, u, EPS)
        weight, t = np.asarray(proposals.weight(name, t, EPS), np.float64), np.asarray(t, np.float64)
        at = t * x + (1 - t) * noise
        squared = weight * (_velocity(at, t, y, s * s) - _velocity(at, t, 0.0, 1 + s * s)) ** 2
        assert squared.mean() == pytest.approx(0.5 * np.log1p(1 / s**2), abs=4 * value / np.sqrt(n) + 1e-3)
        assert squared.std() == pytest.approx(value, rel=0.04)


def test_training_times_follow_their_density():
    focus = 0.05
    t = np.sort(np.asarray(proposals.for_training(jnp.linspace(0.25e-4, 1 - 0.25e-4, 20000), focus), np.float64))
    ends = np.array([0.1, 0.4, 0.7, 0.9, 0.97])
    # The integral of t / (1 - t + focus) from 0.
    area = lambda end: -end - (1 + focus) * np.log1p(-end / (1 + focus))  # noqa: E731
    np.testing.assert_allclose(np.searchsorted(t, ends) / len(t), area(ends) / area(1.0), atol=3e-4)


def test_strata_cover():
    own = np.sort(np.asarray(proposals.strata(jax.random.key(0), 100)))
    assert (np.floor(own * 100) == np.arange(100)).all()
    shared = np.asarray(proposals.strata(jax.random.key(0), 100, jnp.int32(3), 10))
    assert (shared >= 0.3).all() and (shared < 0.4).all() and len(np.unique(shared)) > 90


@pytest.mark.parametrize(("name", "eps"), [("cosine", 1e-3), ("uniform", 0.0), ("mixture", 1.0)])
def test_refuses(name, eps):
    with pytest.raises(ConfigError):
        proposals.density(name, jnp.zeros(1), eps)
