"""`rf`: the arithmetic with exact velocities against closed forms, and small trainings against known information."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import information
from jaxtraffic.errors import ConfigError
from jaxtraffic.information import flow_estimator, noising, proposals
from jaxtraffic.information.estimate import _program
from jaxtraffic.information.registry import METHODS
from jaxtraffic.information.result import Pairs

SMALL = {"steps": 300, "batch_size": 256, "width": 16, "blocks": 1, "ema": 0.99}
EPS = 1e-3


def _velocity(x, t, mean, variance):
    """E[data - noise | x_t = x] for data of one normal distribution."""
    return mean + (t * variance - (1 - t)) / (t * t * variance + (1 - t) ** 2) * (x - t * mean)


def _draws(y, s, n, seed=0):
    rng = np.random.default_rng(seed)
    t = proposals.at_quantile("mixture", proposals.strata(jax.random.key(seed), n), EPS)
    weight, t = proposals.weight("mixture", t, EPS), np.asarray(t, np.float64)
    y = rng.standard_normal(n) if y is None else np.full(n, y)
    x, noise = y + s * rng.standard_normal(n), rng.standard_normal(n)
    at = t * x + (1 - t) * noise
    columns = (x - noise, _velocity(at, t, y, s * s), _velocity(at, t, 0.0, 1 + s * s))
    return flow_estimator.forms(weight, *(jnp.asarray(column[:, None], jnp.float32) for column in columns))


# reference/information.md, section 5: KL(y), and the product form's value at y (None: averages over y).
GOLDEN = [
    (1.0, 0.0, 0.0966, -0.1392),
    (1.0, 2.0, 1.0966, 1.8039),
    (0.3, 0.5, 0.9030, 0.6917),
    (0.3, 1.0, 1.2471, 1.2471),
    (0.05, 0.0, 2.4982, 2.2129),
    (0.05, 3.0, 6.9870, 9.2695),
    (1.0, None, 0.34657, 0.34657),
    (0.3, None, 1.24706, 1.24706),
    (0.05, None, 2.99698, 2.99698),
]


@pytest.mark.parametrize(("s", "y", "kl", "product"), GOLDEN)
def test_forms_with_exact_velocities(s, y, kl, product):
    found = {name: np.asarray(values, np.float64) for name, values in _draws(y, s, 400_000).items()}
    for name, expected in (("squared", kl), ("gap", kl), ("product", product)):
        error = found[name].std() / np.sqrt(len(found[name]))
        assert found[name].mean() == pytest.approx(expected, abs=4 * error + 2e-3), name


def test_gap_ignores_errors_that_squared_counts():
    # Independent errors of 0.1 at independence (y says nothing): squared gains 2 * 0.01 * Z = 0.118, product half.
    rng, n = np.random.default_rng(1), 400_000
    t = proposals.at_quantile("lambert", proposals.strata(jax.random.key(1), n), EPS)
    weight, t = proposals.weight("lambert", t, EPS), np.asarray(t, np.float64)
    x, noise = rng.standard_normal((2, n))
    exact = _velocity(t * x + (1 - t) * noise, t, 0.0, 1.0)
    a, b = exact + 0.1 * rng.standard_normal((2, n))
    found = flow_estimator.forms(weight, *(jnp.asarray(c[:, None], jnp.float32) for c in (x - noise, a, b)))
    assert found["squared"].mean() == pytest.approx(0.118, abs=0.003)
    assert found["product"].mean() == pytest.approx(0.059, abs=0.006)
    assert found["gap"].mean() == pytest.approx(0.0, abs=0.006)


def _binormal(n, r, seed=0):
    rng = np.random.default_rng(seed)
    x, e = rng.standard_normal((2, n))
    return x, r * x + np.sqrt(1 - r * r) * e


@pytest.mark.slow
def test_binormal_and_symmetry():
    x, y = _binormal(8000, 0.75)
    one = information.estimate(x, y, method="rf", key=jax.random.key(0), **SMALL)
    # 1 / sqrt(4000) times the spread of the log-ratio, about 0.75, is 0.012; the rest is training.
    assert one.value == pytest.approx(0.4133, abs=0.05)
    assert one.pointwise.shape == (4000,) and one.pointwise.mean() == pytest.approx(one.value, abs=1e-5)
    assert one.stderr == pytest.approx(one.pointwise.std() / np.sqrt(4000), rel=1e-4)
    other = information.estimate(y, x, method="rf", key=jax.random.key(0), **SMALL)
    assert other.value == pytest.approx(one.value, abs=0.02)
    assert abs(one.diagnostics["squared"] - one.diagnostics["gap"]) < 0.1


@pytest.mark.slow
def test_plain_network_learns_without_the_gaussian():
    x, y = _binormal(8000, 0.9)
    found = information.estimate(
        x, y, method="rf", key=jax.random.key(0), linear=False, **{**SMALL, "steps": 800, "learning_rate": 5e-3}
    )
    assert found.diagnostics["gaussian"] == 0
    assert found.value == pytest.approx(0.8304, abs=0.1)


@pytest.mark.slow
def test_sees_what_correlation_does_not():
    # Four atoms of x, two of y that tell the outer from the inner ones: no correlation, one bit.
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 8000)
    x = (2.0 * label - 1) * rng.choice([0.5, 2.0], 8000) + 0.05 * rng.standard_normal(8000)
    y = np.where(np.abs(x) > 1.2, 1.0, -1.0) + 0.05 * rng.standard_normal(8000)
    # Width 16 and 800 steps give 0.56, a network that has not found all four atoms; more of either comes nearer.
    found = information.estimate(
        x, y, method="rf", key=jax.random.key(0), steps=2000, batch_size=256, width=32, blocks=2, ema=0.99
    )
    assert abs(found.diagnostics["gaussian"]) < 0.01
    assert found.value == pytest.approx(np.log(2), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("form", flow_estimator.FORMS)
def test_independence(form):
    x, y = np.random.default_rng(3).standard_normal((2, 4000, 2))
    found = information.estimate(x, y, method="rf", key=jax.random.key(0), form=form, **SMALL)
    assert abs(found.value) < 0.03
    assert found.value == pytest.approx(found.diagnostics[form], abs=1e-5)


@pytest.mark.slow
def test_labels():
    # reference/information.md, section 5 (e): I = 0.5331 at s = 0.3.
    rng = np.random.default_rng(4)
    label = rng.choice(3, 12000, p=[0.8, 0.15, 0.05])
    x = np.array([-1.0, 0.0, 3.0])[label] + 0.3 * rng.standard_normal(12000)
    found = information.estimate(x, label, method="rf", key=jax.random.key(0), **{**SMALL, "steps": 800})
    assert found.value == pytest.approx(0.5331, abs=0.06)
    entropy = -sum(p * np.log(p) for p in (0.8, 0.15, 0.05))
    assert found.diagnostics["ceiling"] == pytest.approx(entropy, abs=0.03)
    with pytest.raises(ConfigError, match="labels"):
        information.estimate(x, label, method="rf", key=jax.random.key(0), diffuse="y", **SMALL)


@pytest.mark.slow
def test_seeds_together_are_seeds_apart_in_one_compilation():
    samples = [_binormal(2000, 0.6, seed) for seed in (0, 1)]
    keys = [jax.random.key(seed) for seed in (0, 1)]
    options = {**SMALL, "steps": 40}
    xs, ys = zip(*samples, strict=True)
    together = information.estimate_many(xs, ys, method="rf", keys=keys, **options)
    for (x, y), key, both in zip(samples, keys, together, strict=True):
        alone = information.estimate(x, y, method="rf", key=key, **options)
        assert both.value == pytest.approx(alone.value, abs=1e-4)
        np.testing.assert_allclose(both.pointwise, alone.pointwise, atol=5e-3)
    program = _program(METHODS["rf"], dataclasses.replace(flow_estimator.FlowOptions(), **options), 0, 1)
    assert program._cache_size() == 1


@pytest.mark.parametrize("change", [{"form": "cubic"}, {"proposal": "cosine"}, {"diffuse": "z"}, {"eps": 0.0}])
def test_refuses(change):
    x, y = np.random.default_rng(0).standard_normal((2, 100))
    with pytest.raises(ConfigError):
        information.estimate(x, y, method="rf", key=jax.random.key(0), **{**SMALL, **change})


def test_diffuses_the_smaller():
    pairs = Pairs(jnp.zeros((5, 3)), jnp.ones((5, 2)))
    assert noising.oriented("auto", 0, pairs).x.shape == (5, 2)
    assert noising.oriented("x", 0, pairs).x.shape == (5, 3)
    assert noising.oriented("auto", 0, Pairs(pairs.x, pairs.x + 1)).x[0, 0] == 0
    assert noising.oriented("auto", 4, Pairs(pairs.x, jnp.zeros(5, jnp.int32))).x.shape == (5, 3)


def test_warns():
    good = {
        "squared": np.float32(0.5),
        "gap": np.float32(0.5),
        "ceiling": np.float32(1.0),
        "profile": np.full(10, 0.05),
        "losses": np.ones(20),
    }
    assert noising.warnings(good, 0.5) == []
    for change, value, words in (
        ({"squared": np.float32(0.7)}, 0.5, "squared form"),
        ({}, 1.1, "entropy"),
        ({"profile": np.r_[np.full(9, 0.05), 0.2]}, 0.5, "eps"),
        ({"losses": np.linspace(2, 1, 20)}, 0.5, "still falls"),
    ):
        (warning,) = noising.warnings({**good, **change}, value)
        assert words in warning
