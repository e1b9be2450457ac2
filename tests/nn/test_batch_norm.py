"""Batch normalisation against NumPy in float64: values, running statistics, gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.nn.batch_norm import EPSILON, batch_norm, fresh_statistics

normalise = jax.jit(batch_norm, static_argnames="train")


def test_batch_norm_against_numpy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 4, 3)) * [1, 3, 0.2] + [0, -2, 5]
    scale, shift, weight = rng.uniform(0.5, 2, 3), rng.standard_normal(3), rng.standard_normal(x.shape)
    # The last channel lies 25 standard deviations from 0, which costs digits unless the running mean is made use of.
    running = {"mean": np.array([0.3, -1.5, 4.9]), "variance": rng.uniform(0.5, 2, 3)}

    def reference(x, scale, shift):
        return (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + EPSILON) * scale + shift

    args = [jnp.asarray(value, jnp.float32) for value in (x, scale, shift)]
    state = {name: jnp.asarray(value, jnp.float32) for name, value in running.items()}
    y, after = normalise(*args, state, train=True)
    np.testing.assert_allclose(y, reference(x, scale, shift), atol=2e-5)
    np.testing.assert_allclose(after["mean"], 0.9 * running["mean"] + 0.1 * x.mean((0, 1)), rtol=1e-5)
    unbiased = x.var((0, 1), ddof=1)
    np.testing.assert_allclose(after["variance"], 0.9 * running["variance"] + 0.1 * unbiased, rtol=1e-5)

    y, same = normalise(*args, state, train=False)
    expected = (x - running["mean"]) / np.sqrt(running["variance"] + EPSILON) * scale + shift
    np.testing.assert_allclose(y, expected, atol=2e-5)
    assert all((same[name] == state[name]).all() for name in running)

    # Gradients through the statistics, against central differences in float64.
    weights = jnp.asarray(weight, jnp.float32)
    gradient = jax.jit(jax.grad(lambda *a: (batch_norm(*a, state, train=True)[0] * weights).sum(), argnums=(0, 1, 2)))
    found = [np.asarray(leaf) for leaf in gradient(*args)]
    values, step = [x, scale, shift], 1e-6
    for which, value in enumerate(values):
        for index in list(np.ndindex(value.shape))[:12]:
            moved = [np.array(v) for v in values]
            moved[which][index] += step
            up = (reference(*moved) * weight).sum()
            moved[which][index] -= 2 * step
            slope = (up - (reference(*moved) * weight).sum()) / (2 * step)
            np.testing.assert_allclose(found[which][index], slope, rtol=1e-3, atol=1e-3)


def test_batch_norm_of_a_constant_channel_and_of_a_single_value():
    ones = jnp.ones(2, jnp.float32)
    y, after = normalise(jnp.full((6, 5, 2), 0.3), ones, 0 * ones, fresh_statistics(2), train=True)
    np.testing.assert_allclose(y, 0, atol=1e-3)
    assert np.isfinite(y).all() and (np.asarray(after["variance"]) >= 0.9 - 1e-6).all()
    _, after = normalise(jnp.full((1, 1, 2), 0.3), ones, 0 * ones, fresh_statistics(2), train=True)
    np.testing.assert_allclose(after["variance"], 0.9, rtol=1e-6)
