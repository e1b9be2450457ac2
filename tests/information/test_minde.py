"""`ddpm` (MINDE): the arithmetic with exact scores against closed forms, and small trainings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from jaxtraffic import information
from jaxtraffic.errors import ConfigError
from jaxtraffic.information import gaussian_reference as gaussian
from jaxtraffic.information import minde, noising, proposals

SMALL = {"steps": 300, "batch_size": 256, "width": 16, "blocks": 1, "ema": 0.99}


@pytest.mark.parametrize(
    "schedule", [{}, {"beta_max": 10.0}, {"beta_min": 0.5}, {"t_eps": 1e-4}], ids=["published", "beta1", "beta0", "eps"]
)
def test_importance_constant_follows_the_schedule(schedule):
    options = minde.MindeOptions(**schedule)
    low, rise = options.beta_min, options.beta_max - options.beta_min

    def integrand(level):
        t = np.exp(level)
        return t * (low + rise * t) / -np.expm1(-(low * t + 0.5 * rise * t * t))

    expected, _ = quad(integrand, np.log(options.t_eps), 0)
    assert minde.importance_constant(options) == pytest.approx(expected, rel=1e-6)
    drawn = minde.times(options, jnp.linspace(0, 1, 2001)[:-1])
    assert drawn.weight[0] == pytest.approx(expected / 2, rel=1e-5)
    # The share of draws past a time is that of the integral past it.
    past, _ = quad(integrand, np.log(0.3), 0)
    assert (np.asarray(drawn.t) > 0.3).mean() == pytest.approx(past / expected, abs=1e-3)
    np.testing.assert_allclose(drawn.m**2 + drawn.s**2, 1, atol=1e-6)
    total = low * drawn.t + 0.5 * rise * drawn.t**2
    np.testing.assert_allclose(drawn.m[:, 0], np.exp(-0.5 * total), rtol=1e-5)


def _draws(options, n, y=None, seed=0, s=0.3):
    """y ~ N(0, 1) unless given, x = y + s e; the exact noise given (x_t, y), x_t and both."""
    rng = np.random.default_rng(seed)
    drawn = minde.times(options, proposals.strata(jax.random.key(seed), n))
    m, sd = (np.asarray(column[:, 0], np.float64) for column in (drawn.m, drawn.s))
    y = rng.standard_normal(n) if y is None else np.full(n, y)
    x, noise = y + s * rng.standard_normal(n), rng.standard_normal(n)
    at = m * x + sd * noise
    eps_c = sd * (at - m * y) / (m * m * s * s + sd * sd)
    eps_u = sd * at / (m * m * (1 + s * s) + sd * sd)
    return drawn, at, noise, eps_c, eps_u


def _column(*columns):
    return [jnp.asarray(column.reshape(len(column), -1), jnp.float32) for column in columns]


@pytest.mark.parametrize("importance", [True, False])
@pytest.mark.parametrize(("y", "expected"), [(None, 1.24706), (2.0, 2.6232), (0.0, 0.7883)])
def test_forms_with_exact_scores(importance, y, expected):
    options = minde.MindeOptions(importance=importance)
    drawn, *columns = _draws(options, 400_000, y)
    found = minde.forms(drawn, 1.0, *_column(*columns))
    for name in ("squared", "gap"):
        values = np.asarray(found[name], np.float64)
        assert values.mean() == pytest.approx(expected, abs=4 * values.std() / np.sqrt(len(values)) + 3e-3), name
    if y is None:
        for sigma in (0.7, 1.0):
            values = np.asarray(minde.forms(drawn, sigma, *_column(*columns))["sigma"], np.float64)
            assert values.mean() == pytest.approx(expected, abs=4 * values.std() / np.sqrt(len(values)) + 3e-3)


def test_joint_forms_with_exact_scores():
    # Standard normal pair with correlation r; I = -0.5 ln(1 - r^2).
    r, n = 0.8, 400_000
    options, rng = minde.MindeOptions(), np.random.default_rng(7)
    drawn = minde.times(options, proposals.strata(jax.random.key(7), n))
    m, s = (np.asarray(column[:, 0], np.float64) for column in (drawn.m, drawn.s))
    x, e, *noise = rng.standard_normal((4, n))
    y = r * x + np.sqrt(1 - r * r) * e
    at_x, at_y = m * x + s * noise[0], m * y + s * noise[1]
    alone = m * m * (1 - r * r) + s * s
    both = 1 - (m * m * r) ** 2
    columns = (
        np.stack([at_x, at_y], 1),
        np.stack(noise, 1),
        np.stack([s * (at_x - m * r * y) / alone, s * (at_y - m * r * x) / alone], 1),
        np.stack([s * (at_x - m * m * r * at_y) / both, s * (at_y - m * m * r * at_x) / both], 1),
    )
    for name, values in minde.forms(drawn, 1.0, *_column(*columns)).items():
        values = np.asarray(values, np.float64)
        error = 4 * values.std() / np.sqrt(n)
        assert values.mean() == pytest.approx(-0.5 * np.log(1 - r * r), abs=error + 3e-3), name


@pytest.mark.parametrize("joint", [False, True])
def test_untrained_is_the_gaussian(joint):
    """The network starts at 0, so the estimate of exact Gaussian pairs is right before any training."""
    r, n = 0.8, 60_000
    rng = np.random.default_rng(8)
    x, e = rng.standard_normal((2, n, 1))
    clean = jnp.asarray(np.concatenate([x, r * x + np.sqrt(1 - r * r) * e], 1), jnp.float32)
    one = jnp.ones((1, 1))
    reference = gaussian.Reference(jnp.zeros(1), one, jnp.zeros(1), one, jnp.asarray([1 - r * r], jnp.float32))
    drawn = minde.times(minde.MindeOptions(), proposals.strata(jax.random.key(8), n))
    noise = jnp.asarray(rng.standard_normal((n, 2)), jnp.float32)
    zero = lambda params, features, level, context: jnp.zeros_like(features[:, :2] if joint else features[:, :1])  # noqa: E731
    yes, no = jnp.ones(n, bool), jnp.zeros(n, bool)
    if joint:
        say = lambda a, b: noising.denoise_joint(zero, None, reference, clean, noise, drawn.m, drawn.s, a, b)[0]  # noqa: E731
        eps_c = jnp.concatenate([say(yes, no)[:, :1], say(no, yes)[:, 1:]], axis=1)
        found = minde.forms(drawn, 1.0, drawn.m * clean + drawn.s * noise, noise, eps_c, say(yes, yes))
    else:
        noisy = noising.Noisy(drawn.m * clean[:, :1] + drawn.s * noise[:, :1], drawn.m, drawn.s)
        seen, blank = noising.both(zero, None, reference, noisy, clean[:, 1:])
        found = minde.forms(drawn, 1.0, noisy.at, noise[:, :1], seen.noise, blank.noise)
    assert found["squared"].mean() == pytest.approx(0.5108, abs=0.02)
    assert found["gap"].mean() == pytest.approx(0.5108, abs=0.06)


def _binormal(n, r, seed=0):
    rng = np.random.default_rng(seed)
    x, e = rng.standard_normal((2, n))
    return x, r * x + np.sqrt(1 - r * r) * e


@pytest.mark.slow
@pytest.mark.parametrize("variant", minde.VARIANTS)
def test_binormal(variant):
    x, y = _binormal(8000, 0.75)
    found = information.estimate(x, y, method="ddpm", key=jax.random.key(0), variant=variant, **SMALL)
    assert found.value == pytest.approx(0.4133, abs=0.06)
    for name in minde.FORMS:
        assert found.diagnostics[name] == pytest.approx(0.4133, abs=0.08), name
    assert found.pointwise.shape == (4000,)


@pytest.mark.slow
@pytest.mark.parametrize("variant", minde.VARIANTS)
def test_plain_network_learns_without_the_gaussian(variant):
    x, y = _binormal(8000, 0.9)
    changes = {**SMALL, "steps": 1000, "learning_rate": 5e-3, "linear": False}
    found = information.estimate(x, y, method="ddpm", key=jax.random.key(0), variant=variant, **changes)
    assert found.value == pytest.approx(0.8304, abs=0.15)


@pytest.mark.slow
def test_independence():
    x, y = np.random.default_rng(3).standard_normal((2, 4000, 2))
    found = information.estimate(x, y, method="ddpm", key=jax.random.key(0), **SMALL)
    assert abs(found.value) < 0.04


@pytest.mark.slow
def test_labels():
    rng = np.random.default_rng(4)
    label = rng.choice(3, 12000, p=[0.8, 0.15, 0.05])
    x = np.array([-1.0, 0.0, 3.0])[label] + 0.3 * rng.standard_normal(12000)
    found = information.estimate(x, label, method="ddpm", key=jax.random.key(0), **{**SMALL, "steps": 800})
    assert found.value == pytest.approx(0.5331, abs=0.08)
    with pytest.raises(ConfigError, match="joint"):
        information.estimate(x, label, method="ddpm", key=jax.random.key(0), variant="joint", **SMALL)


@pytest.mark.slow
def test_seeds_together_are_seeds_apart():
    samples = [_binormal(2000, 0.6, seed) for seed in (0, 1)]
    keys = [jax.random.key(seed) for seed in (0, 1)]
    options = {**SMALL, "steps": 40}
    xs, ys = zip(*samples, strict=True)
    together = information.estimate_many(xs, ys, method="ddpm", keys=keys, **options)
    for (x, y), key, both in zip(samples, keys, together, strict=True):
        alone = information.estimate(x, y, method="ddpm", key=key, **options)
        assert both.value == pytest.approx(alone.value, abs=1e-4)


@pytest.mark.parametrize("change", [{"form": "product"}, {"variant": "both"}, {"t_eps": 0.0}, {"beta_max": 0.05}])
def test_refuses(change):
    x, y = np.random.default_rng(0).standard_normal((2, 100))
    with pytest.raises(ConfigError):
        information.estimate(x, y, method="ddpm", key=jax.random.key(0), **{**SMALL, **change})
