"""The PyTorch augmentations of the benchmark do what the JAX ones do with the same draw, and draw what is allowed."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxtraffic import augment
from tests.augment import flows
from tests.reference import augmentations as loops

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import torch_augment  # noqa: E402

COUNT = 420


def subject(name, length):
    x, mask = flows.suitable_flows(name, count=COUNT, length=length)
    return x, mask, flows.alphas(COUNT), flows.statistics(COUNT, length)


@pytest.mark.parametrize("length", [1, 7, 20])
@pytest.mark.parametrize("name", torch_augment.APPLY)
def test_apply_agrees(name, length):
    x, mask, alpha, stats = subject(name, length)
    op = augment.AUGMENTATIONS[name].op
    draw = jax.vmap(lambda k, m, a, s: op.sample(k, m, a, stats=s if op.needs_stats else None))
    params = draw(flows.keys(COUNT), mask, alpha, stats)
    ours = jax.vmap(op.apply)(x, mask, params)
    given = torch.from_numpy(x), torch.from_numpy(mask), torch_augment.tensors(params, "cpu")
    theirs = torch_augment.APPLY[name](*given)
    np.testing.assert_array_equal(theirs[1].numpy(), ours[1])
    np.testing.assert_allclose(theirs[0].numpy(), ours[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", torch_augment.SAMPLE)
def test_own_draws_suit_the_loop(name):
    x, mask, alpha, stats = subject(name, 20)
    torch.manual_seed(0)
    tensors = augment.FlowStatistics(*map(torch.from_numpy, stats))
    params = torch_augment.SAMPLE[name](torch.from_numpy(mask), torch.from_numpy(alpha), tensors)
    theirs, valid = torch_augment.APPLY[name](torch.from_numpy(x), torch.from_numpy(mask), params)
    drawn = {key: value.numpy() for key, value in params.items()}
    for i in range(COUNT):
        want, prefix = loops.APPLY[name](x[i], mask[i], {key: value[i] for key, value in drawn.items()})
        np.testing.assert_array_equal(valid[i].numpy(), prefix)
        np.testing.assert_allclose(theirs[i].numpy(), want, rtol=1e-5, atol=1e-5)
