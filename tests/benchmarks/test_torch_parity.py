"""The PyTorch model of the benchmarks computes what the JAX model computes, from the same parameters."""

import dataclasses
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import subject  # noqa: E402
import torch_ddpms4  # noqa: E402


def make(length, **changes):
    config = subject.configure("tiny")
    small = {"width": 16, "blocks": 2, "embedding": 16, "state": 16} | changes
    config = dataclasses.replace(config, denoiser=dataclasses.replace(config.denoiser, **small))
    generator = subject.make_generator(config, subject.random_flows(200, length=length))
    return generator, subject.random_parameters(generator)


@pytest.fixture(scope="module")
def small():
    return make(12)


@pytest.mark.parametrize("length, published, bidirectional", [(7, False, True), (30, True, True), (30, False, False)])
def test_forward_agrees(length, published, bidirectional):
    generator, params = make(
        length, glu=published, position_embedding=not published, bidirectional=bidirectional, state=64
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, length)).astype(np.float32)
    t, label = np.array([0, 3, 50, 98, 99], np.int32), np.array([0, 1, 9, 10, 2], np.int32)
    operators = generator.apply(params, length, method="operators")
    condition = generator.apply(params, jnp.asarray(t), method="embed_time")
    condition = condition + generator.apply(params, jnp.asarray(label), method="embed_class")
    ours = np.asarray(generator.apply(params, jnp.asarray(x), condition, operators))
    model = torch_ddpms4.TorchGenerator(generator, params, device="cpu")
    with torch.no_grad():
        theirs = model.predict(*(torch.from_numpy(a) for a in (x, t, label))).numpy()
    assert np.abs(ours).max() > 1e-2
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * max(1, np.abs(ours).max()))


def test_scales_agree(small):
    generator, params = small
    model = torch_ddpms4.TorchGenerator(generator, params, device="cpu")
    signed = subject.random_flows(64, length=12, seed=1)["signed_size"]
    scaled = model.scaled(torch.from_numpy(signed))
    back = np.asarray(generator.scale.invert(jnp.asarray(scaled.numpy())))
    np.testing.assert_array_equal(model.inverted(scaled).numpy(), back)
    # torch takes no care of the last float32 step at interval ends, so one integer of error is its own.
    assert np.abs(back.astype(int) - signed).max() <= 1


def test_torch_trains_and_samples(small):
    generator, params = small
    model = torch_ddpms4.TorchGenerator(generator, params, device="cpu")
    model.start_training(subject.random_flows(64, length=12), total_steps=100)
    assert np.isfinite(model.train_steps(2, 8)).all()
    assert model.sample(np.zeros(3, np.int32)).shape == (3, 12)
