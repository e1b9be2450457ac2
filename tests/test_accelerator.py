"""What only an accelerator can show: the published size runs there, and agrees with the CPU."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import generate, parallel, scaling
from jaxtraffic.nn import DenoiserConfig, make_denoiser
from jaxtraffic.series import from_signed_size

pytestmark = pytest.mark.gpu


def test_denoiser_agrees_with_the_cpu():
    init, apply = make_denoiser(DenoiserConfig(width=64, blocks=2), 5, 30)
    params = jax.tree.map(lambda leaf: leaf + 0.02, init(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (64, 30))

    def predict(params, x):
        condition = apply(params, jnp.arange(64), method="embed_time")
        return apply(params, x, condition, apply(params, 30, method="operators"))

    with jax.default_matmul_precision("highest"):
        here = jax.jit(predict)(params, x)
    with jax.default_device(jax.devices("cpu")[0]):
        there = jax.jit(predict)(*jax.device_put((params, x), jax.devices("cpu")[0]))
    np.testing.assert_allclose(here, there, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_published_configuration_trains_and_samples(tmp_path, precision):
    rng = np.random.default_rng(0)
    signed = rng.choice([0, 52, -1500, 1200], (8192, 30)).astype(np.int16)
    flows = from_signed_size(signed, rng.integers(0, 20, 8192), class_names=tuple(map(str, range(20))), source="real")
    config = generate.preset("thesis")
    config = dataclasses.replace(
        config,
        denoiser=dataclasses.replace(config.denoiser, precision=precision),
        train=dataclasses.replace(config.train, steps=20),
    )
    made = generate.Generator(config, generate.DataCard.of(flows), scaling.fit("quantile", flows.signed_size))
    lines = []
    made.fit(flows, key=jax.random.key(0), mesh=parallel.make_mesh(), folder=tmp_path, report=lines.append)
    assert np.isfinite(lines[-1]["loss"])
    assert len(made.sample(jax.random.key(1), np.zeros(5000, int))) == 5000
