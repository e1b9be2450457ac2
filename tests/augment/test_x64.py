"""With JAX_ENABLE_X64=1 every operation draws and does the same with float32 flows, and float64 flows stay exact."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import augment
from tests.augment import flows
from tests.augment.test_equals_loops import ARITHMETIC

pytestmark = pytest.mark.slow

COUNT = 168
EXACT = ("gaussian_noise", "wrap", "interpolation", "dup_rto", "perm_rto")
"""Operations whose results on float64 flows at alpha = 0 can be told to the bit."""
COMPOSITIONS = (
    augment.sequential(augment.translation, augment.gaussian_noise),
    augment.ensemble(augment.wrap, augment.dup_rto, augment.gaussian_noise),
    augment.one_of(augment.wrap, augment.perm_rto, weights=(0.2, 0.8)),
    augment.random_stack(augment.translation, augment.cutmix),
    augment.random_stack(augment.translation, augment.wrap, blocks=0),
    augment.masked_stack(augment.translation, augment.window_mask),
    augment.maybe(augment.permutation, 0.5),
    augment.sequential(
        augment.dup_rto.with_options(iat="recompute"),
        augment.packet_loss.with_options(mode="seconds", keep_min=2),
        augment.time_shift.with_options(rebase=True),
        augment.spike_noise.with_options(features="both"),
    ),
)


def result(name):
    """What an operation makes of the same float32 flows and keys: x, mask."""
    op = flows.operation(name)
    x, mask = flows.suitable_flows(name, count=COUNT, seed=1)
    if op.batch:
        return flows.as_numpy(jax.jit(op, compiler_options=flows.QUICKLY)(jax.random.key(1), x, mask))
    inputs = (flows.keys(COUNT, 1), x, mask, flows.alphas(COUNT, 1), flows.statistics(COUNT, seed=1))
    # By eights: the program for so many flows is there already.
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i : i + flows.FEW], inputs) for i in range(0, COUNT, flows.FEW)]
    made = [flows.as_numpy(flows.caller(op)(*part)) for part in parts]
    return tuple(np.concatenate(pieces) for pieces in zip(*made, strict=True))


def traced(op, dtype):
    """The program of `op` for flows of a type, as text, and the types of its results."""
    op = augment.batched(op)
    x, mask = jax.ShapeDtypeStruct((64, flows.T, 3), dtype), jax.ShapeDtypeStruct((64, flows.T), bool)
    alpha, label = jax.ShapeDtypeStruct((64,), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.int32)
    stats = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), flows.statistics(64))

    def run(key, x, mask, alpha, stats, label):
        return op(key, x, mask, alpha, stats=stats, label=label)

    program = jax.make_jaxpr(run)(jax.random.key(0), x, mask, alpha, stats, label)
    return re.sub(r"0x[0-9a-f]+", "", str(program)), [out.dtype for out in program.out_avals]


def check_programs(op):
    """One program with and without strict promotion, and types that are kept."""
    for dtype in (jnp.float32, jnp.float64):
        texts = []
        for promotion in ("strict", "standard"):
            with jax.numpy_dtype_promotion(promotion):
                text, dtypes = traced(op, dtype)
            texts.append(text)
            assert dtypes == [dtype, bool], (dtype, dtypes)
        assert texts[0] == texts[1], "another program without strict promotion"


def check_float64(name):
    """Values of float64 flows where nothing is to be rounded."""
    rng = np.random.default_rng(0)
    x, mask = rng.random((COUNT, flows.T, 3)), flows.masks(COUNT, flows.T)
    x[..., 1] = rng.choice([-1, 1], mask.shape)
    x[~mask] = 0
    assert (x.astype(np.float32) != x).any()
    inputs = (flows.keys(COUNT), x, mask, np.zeros(COUNT, np.float32), flows.statistics(COUNT))
    params, out, new = flows.as_numpy(flows.replayer(flows.operation(name), True)(*inputs))
    assert out.dtype == np.float64
    if name != "interpolation":
        np.testing.assert_array_equal(out, x)
        np.testing.assert_array_equal(new, mask)
        return
    for i in range(COUNT):
        place = int(params["start"][i]) + np.arange(int(new[i].sum()))
        np.testing.assert_array_equal(out[i][new[i]], (x[i, place // 2] + x[i, (place + 1) // 2]) / 2)


def check_policies():
    """A training step of a policy and the sampler traces in either mode."""
    sampler = augment.class_weighted(np.arange(64) % 3, 3)
    x, mask = flows.normalised_flows(count=64)
    label = jnp.asarray(np.arange(64) % 3, jnp.int32)
    for policy in (augment.inject(COMPOSITIONS[1], 2), augment.replace(augment.cutmix, 0.5)):

        def step(key, x, mask, label, stats, policy=policy):
            index = sampler(key, 32)
            batch = augment.Batch(x[index], mask[index], label[index])
            out = policy(key, batch, stats=stats)
            return index, out, augment.changed_fraction(x, mask, x, mask)

        stats = augment.FlowStatistics(jnp.ones((flows.T, 3), jnp.float32), jnp.ones(3, jnp.float32))
        index, out, share = jax.eval_shape(step, jax.random.key(0), x, mask, label, stats)
        assert index.dtype == out.label.dtype == jnp.int32 and out.x.dtype == share.dtype == jnp.float32


def write(path):
    """Run in a process of its own, with x64: results by operation, and what failed."""
    assert jax.config.jax_enable_x64 and jnp.zeros(1).dtype == jnp.float64
    arrays = {}

    def attempt(case, check, *arguments):
        try:
            return check(*arguments)
        except Exception as error:
            arrays[f"{case}/failed"] = np.array(f"{check.__name__}: {error}"[:2000])
            return None

    for name, entry in augment.AUGMENTATIONS.items():
        made = attempt(name, result, name)
        if made is not None:
            arrays[f"{name}/x"], arrays[f"{name}/mask"] = made
        attempt(name, check_programs, entry.op)
        if name in EXACT:
            attempt(name, check_float64, name)
    for op in COMPOSITIONS:
        attempt(op.name, check_programs, op)
    attempt("policies", check_policies)
    np.savez(path, **arrays)


@pytest.fixture(scope="module")
def with_x64(tmp_path_factory):
    path = tmp_path_factory.mktemp("x64") / "results.npz"
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
    code = f"from tests.augment import test_x64; test_x64.write({str(path)!r})"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as stored:
        return dict(stored)


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_float32_flows_come_out_the_same(name, with_x64):
    """The other process also checks the program for float64 flows, and what it leaves exact."""
    assert str(with_x64.get(f"{name}/failed", "")) == ""
    want_x, want_mask = result(name)
    got_x, got_mask = with_x64[f"{name}/x"], with_x64[f"{name}/mask"]
    assert got_x.dtype == np.float32 and got_mask.dtype == bool
    np.testing.assert_array_equal(got_mask, want_mask)
    near = 1e-6 if name in ARITHMETIC else 0
    np.testing.assert_allclose(got_x, want_x, rtol=near, atol=near)


@pytest.mark.parametrize("case", [*(op.name for op in COMPOSITIONS), "policies"])
def test_compositions_and_policies_trace(case, with_x64):
    assert str(with_x64.get(f"{case}/failed", "")) == ""
