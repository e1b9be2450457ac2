"""The network of the diffusion estimators against a plain NumPy forward pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.nn.score_mlp import ScoreMLPConfig, default_width, score_mlp

CONFIG = ScoreMLPConfig(features=5, outputs=3, context=2, width=8, blocks=2, embedding=6, frequencies=2)


def _inputs(n=7, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((n, 5), (n,), (n, 2)))


def _random(params, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.standard_normal(leaf.shape), jnp.float32), params)


def _silu(x):
    return x / (1 + np.exp(-x))


def _forward(params, features, level, context):
    def linear(name, x):
        return x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"], np.float64)

    def steered(h, name):
        scale, shift = np.split(linear(name, known), 2, axis=1)
        return h / np.sqrt((h * h).mean(1, keepdims=True) + 1) * (1 + scale) + shift

    features, level, context = (np.asarray(value, np.float64) for value in (features, level, context))
    angles = [level * np.pi / 2, level * np.pi]
    known = np.column_stack([level, *map(np.sin, angles), *map(np.cos, angles), context])
    known = _silu(linear("mix", _silu(linear("embed", known))))
    phase = linear("phase", features)
    h = linear("read_in", features) + linear("read_waves", np.column_stack([np.sin(phase), np.cos(phase)]))
    for i in range(2):
        normal = steered(h, f"steer_{i}")
        h = h + linear(f"outer_{i}", _silu(linear(f"inner_{i}", normal)) * linear(f"gate_{i}", normal))
    return linear("read_out", _silu(steered(h, "steer")))


def test_forward_pass():
    init, apply = score_mlp(CONFIG)
    params = _random(jax.jit(init)(jax.random.key(0)))
    inputs = _inputs()
    expected = _forward(params, *inputs)
    np.testing.assert_allclose(jax.jit(apply)(params, *inputs), expected, rtol=2e-4, atol=2e-4)
    assert np.abs(expected).max() > 0.1


def test_zero_before_training():
    init, apply = score_mlp(CONFIG)
    assert not np.asarray(jax.jit(apply)(jax.jit(init)(jax.random.key(0)), *_inputs())).any()


@pytest.mark.slow
def test_vmaps_over_parameters():
    init, apply = score_mlp(CONFIG)
    params = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 2))
    params["read_out"]["kernel"] += 1.0
    together = jax.jit(jax.vmap(lambda p: apply(p, *_inputs())))(params)
    for i in range(2):
        own = {name: {kind: leaf[i] for kind, leaf in layer.items()} for name, layer in params.items()}
        np.testing.assert_allclose(together[i], jax.jit(apply)(own, *_inputs()), atol=1e-5)
    assert np.abs(np.asarray(together[0] - together[1])).max() > 1e-3


@pytest.mark.parametrize(("dims", "width"), [(2, 64), (10, 64), (11, 128), (100, 128)])
def test_width(dims, width):
    assert default_width(dims) == width
