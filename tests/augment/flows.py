"""Flows for the augmentation tests, and compiled operations that the tests share."""

import functools

import jax
import numpy as np

from jaxtraffic import augment

T = 20
FLOWS = 2104
"""About a hundred of every length 0..20; a multiple of the eight devices."""
FEW = 8
"""Flows of the tests that draw many batches."""
QUICKLY = {"xla_backend_optimization_level": 0}
"""Compiler options for programs that run once: a quarter of the time to compile."""
GARBAGE = np.float32([7.5, -3.0, 9.25])
"""What lies beyond the mask, so that reading it or leaving it there shows."""
PER_FLOW = [name for name, entry in augment.AUGMENTATIONS.items() if not entry.batch]


def masks(count, length):
    """[count, length] bool, every number of packets 0..length in turn."""
    return np.arange(length) < (np.arange(count) % (length + 1))[:, None]


def normalised_flows(count=FLOWS, length=T, seed=0, padding=GARBAGE):
    """Sizes and IATs in [0, 1] with both ends present, directions of -1 and +1."""
    rng = np.random.default_rng(seed)
    mask = masks(count, length)
    x = rng.random((count, length, 3), dtype=np.float32)
    ends = rng.random(x.shape)
    x[ends < 0.15] = 0
    x[ends > 0.95] = 1
    x[..., 1] = rng.choice([-1, 1], (count, length))
    x[~mask] = padding
    return x, mask


def raw_flows(count=FLOWS, length=T, seed=0, padding=GARBAGE):
    """Whole bytes up to 1500, directions in runs, seconds from 0 and microseconds to tens of seconds."""
    rng = np.random.default_rng(seed)
    mask = masks(count, length)
    x = np.empty((count, length, 3), np.float32)
    full = rng.choice([0, 40, 52, 1460, 1500], (count, length), p=[0.05, 0.25, 0.15, 0.15, 0.4])
    x[..., 0] = np.where(rng.random((count, length)) < 0.6, full, rng.integers(41, 1501, (count, length)))
    turns = np.cumsum(rng.random((count, length)) < 0.3, axis=1) + rng.integers(0, 2, (count, 1))
    x[..., 1] = 1 - 2 * (turns % 2)
    scale = 10.0 ** rng.choice([-5, -2, -1, 0, 1], (count, length), p=[0.3, 0.3, 0.2, 0.15, 0.05])
    x[..., 2] = rng.exponential(scale) * (rng.random((count, length)) > 0.2)
    # A tenth of the flows has no durations at all; the others begin at 0, but for a few that do not.
    x[rng.random(count) < 0.1, :, 2] = 0
    x[rng.random(count) < 0.8, 0, 2] = 0
    x[~mask] = padding
    return x, mask


def suitable_flows(name, **sizes):
    """Raw flows for operations that need seconds, normalised ones for the others."""
    return (raw_flows if augment.AUGMENTATIONS[name].needs_seconds else normalised_flows)(**sizes)


def alphas(count=FLOWS, seed=0):
    """[count] float32: uniform, and one in ten of each end."""
    rng = np.random.default_rng(seed)
    alpha, end = rng.random(count), rng.random(count)
    return np.where(end < 0.1, 0, np.where(end > 0.9, 1, alpha)).astype(np.float32)


def statistics(count=FLOWS, length=T, seed=0):
    """Statistics of each flow's class, with some coordinates constant."""
    rng = np.random.default_rng(seed)
    std = rng.uniform(0.05, 0.4, (count, length, 3)) * (rng.random((count, length, 3)) > 0.1)
    return augment.FlowStatistics(std.astype(np.float32), rng.uniform(0.05, 2.0, (count, 3)).astype(np.float32))


def keys(count=FLOWS, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def operation(name, **options):
    return augment.AUGMENTATIONS[name].op.with_options(**options)


@functools.cache
def sampler(op):
    """jit of vmap of op.sample: (keys, masks, alphas, statistics) -> params with a leading axis."""
    sample = jax.vmap(lambda key, mask, alpha, stats: op.sample(key, mask, alpha, stats=stats))
    return jax.jit(sample, compiler_options=QUICKLY)


def replayer(op, quickly=False):
    """jit of vmap of op.sample and then op.apply: -> params, x, masks. One program shows what was drawn and done."""
    return _replayer(op, bool(quickly))


@functools.cache
def _replayer(op, quickly):
    def draw_and_apply(key, x, mask, alpha, stats):
        params = op.sample(key, mask, alpha, stats=stats)
        return params, *op.apply(x, mask, params)

    return jax.jit(jax.vmap(draw_and_apply), compiler_options=QUICKLY if quickly else None)


@functools.cache
def caller(op):
    """jit of vmap of the operation itself: (keys, x, masks, alphas, statistics)."""
    call = jax.vmap(lambda key, x, mask, alpha, stats: op(key, x, mask, alpha, stats=stats))
    return jax.jit(call, compiler_options=QUICKLY)


def as_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def flow_of(params, i):
    """The parameters of one flow of a batch."""
    return {name: value[i] for name, value in params.items()}
