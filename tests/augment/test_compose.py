"""Compositions: what they compute, their probabilities, that choices are real, one compilation, eight devices."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxtraffic import augment
from jaxtraffic.errors import ConfigError
from tests.augment import flows

P_VALUE = 1e-4


class Behead(augment.Operation):
    """Drops the first packet: an operation of a user's own."""

    name = "behead"

    def _draw(self, key, mask, alpha, stats):
        return {}

    def _apply(self, x, mask, params):
        return jnp.roll(x, -1, axis=0).at[-1].set(0), jnp.roll(mask, -1).at[-1].set(False)


# At alpha = 1 these three draw nothing, and no two orders of them give the same flow.
FIXED = (augment.horizontal_flip, augment.tail_occlusion, Behead())


def short_flows(count, packets=8):
    x, mask = flows.normalised_flows(count=count, padding=0)
    x[:, :, 0] = np.arange(1, flows.T + 1)
    mask = np.broadcast_to(np.arange(flows.T) < packets, mask.shape)
    return np.where(mask[..., None], x, 0).astype(np.float32), mask


def through(ops, x, mask):
    for op in ops:
        x, mask = compiled(op)(jax.random.key(0), x, mask)
    return np.asarray(x)


def which(out, candidates):
    """Index of the candidate that each flow equals; it must be exactly one."""
    same = np.stack([(out == c).all((1, 2)) for c in candidates])
    assert (same.sum(0) == 1).all()
    return same.argmax(0)


@functools.cache
def compiled(op):
    return jax.jit(augment.batched(op), compiler_options=flows.QUICKLY)


def over_keys(op, x, mask, candidates, repeats=40):
    return np.stack(
        [which(np.asarray(compiled(op)(jax.random.key(i), x, mask)[0]), candidates) for i in range(repeats)]
    )


def same_as_shares(chosen, shares):
    """Chi-squared test of the choices of one flow in many batches."""
    observed = np.bincount(chosen, minlength=len(shares))
    return scipy_stats.chisquare(observed, np.asarray(shares) * len(chosen)).pvalue


def test_sequential_is_one_after_the_other():
    x, mask = flows.normalised_flows(count=64)
    key = jax.random.key(3)
    op = augment.sequential(augment.translation, augment.dup_fast_retransmit)
    want = x[33], mask[33]
    for i, part in enumerate(op.ops):
        want = jax.jit(part, compiler_options=flows.QUICKLY)(jax.random.fold_in(key, i), *want, 0.7)
    got = jax.jit(op, compiler_options=flows.QUICKLY)(key, x[33], mask[33], 0.7)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


def test_a_later_stage_leaves_the_draws_of_the_earlier_ones():
    x, mask = flows.normalised_flows(count=1)
    x, mask = x[0], np.ones(flows.T, bool)
    short, long = (
        jax.jit(augment.sequential(*ops), compiler_options=flows.QUICKLY)(jax.random.key(0), x, mask, 0.9)
        for ops in ((augment.translation,), (augment.translation, augment.iat_scale))
    )
    np.testing.assert_array_equal(short[0][:, :2], long[0][:, :2])
    assert (np.asarray(short[0]) != np.asarray(long[0])).any()


@pytest.mark.parametrize("blocks", [None, 0, 1, 7])
def test_one_of_gives_each_flow_one_operation(blocks):
    x, mask = short_flows(240)
    candidates = [through([op], x, mask) for op in FIXED]
    chosen = over_keys(augment.one_of(*FIXED, blocks=blocks), x, mask, candidates)
    assert same_as_shares(chosen[:, 17], [1 / 3] * 3) > P_VALUE
    if blocks is None:  # systematic: equal numbers in each batch, but for the flows that complete the last block
        counts = np.stack([np.bincount(row, minlength=3) for row in chosen])
        assert (counts == 80).all()
    if blocks == 1:
        assert (chosen == chosen[:, :1]).all()


@pytest.mark.parametrize("blocks", [None, 0])
def test_one_of_by_weight(blocks):
    x, mask = short_flows(240)
    weights = (0.6, 0.1, 0.3)
    candidates = [through([op], x, mask) for op in FIXED]
    chosen = over_keys(augment.one_of(*FIXED, weights=weights, blocks=blocks), x, mask, candidates, repeats=120)
    for flow in (0, 11, 239):
        assert same_as_shares(chosen[:, flow], weights) > P_VALUE


def test_an_operation_of_weight_zero_never_comes():
    x, mask = short_flows(120)
    candidates = [through([op], x, mask) for op in FIXED]
    chosen = over_keys(augment.one_of(*FIXED, weights=(0, 1, 0)), x, mask, candidates, repeats=10)
    assert (chosen == 1).all()


@pytest.mark.parametrize("blocks", [None, 0])
def test_random_stack_takes_all_orders(blocks):
    x, mask = short_flows(256)
    candidates = [through(order, x, mask) for order in itertools.permutations(FIXED)]
    chosen = over_keys(augment.random_stack(*FIXED, blocks=blocks), x, mask, candidates, repeats=60)
    for flow in (3, 100):
        assert same_as_shares(chosen[:, flow], [1 / 6] * 6) > P_VALUE
    if blocks is None:
        assert max(len(set(row)) for row in chosen) > 3


@pytest.mark.parametrize("blocks", [None, 0, 5])
def test_masked_stack_applies_each_on_its_own(blocks):
    x, mask = short_flows(200)
    subsets = [s for n in range(4) for s in itertools.combinations(FIXED, n)]
    candidates = [through(s, x, mask) for s in subsets]
    shares = [0.3 ** len(s) * 0.7 ** (3 - len(s)) for s in subsets]
    op = augment.masked_stack(*FIXED, p_apply=0.3, blocks=blocks)
    chosen = over_keys(op, x, mask, candidates, repeats=150)
    assert same_as_shares(chosen[:, 9], shares) > P_VALUE


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("blocks", [None, 0])
def test_maybe(p, blocks):
    x, mask = short_flows(160)
    candidates = [x, through([augment.horizontal_flip], x, mask)]
    chosen = over_keys(augment.maybe(augment.horizontal_flip, p, blocks=blocks), x, mask, candidates, repeats=60)
    if p in (0, 1):
        assert (chosen == p).all()
    else:
        assert same_as_shares(chosen[:, 5], [1 - p, p]) > P_VALUE


def test_one_flow_draws_as_a_batch_of_selections_does():
    x, mask = flows.normalised_flows(count=32)
    for build in (augment.ensemble, augment.random_stack, augment.masked_stack):
        op = build(augment.translation, augment.tail_occlusion, blocks=0)
        keys = jax.random.split(jax.random.key(5), 32)
        batch = compiled(op)(jax.random.key(5), x, mask, 0.8)
        single = jax.jit(op, compiler_options=flows.QUICKLY)
        for i in (0, 13, 31):
            one = single(keys[i], x[i], mask[i], 0.8)
            np.testing.assert_array_equal(one[0], batch[0][i])
            np.testing.assert_array_equal(one[1], batch[1][i])


COMPOSITIONS = {
    "sequential": augment.sequential(augment.translation, augment.gaussian_noise),
    "ensemble": augment.ensemble(augment.translation, augment.window_mask, augment.gaussian_noise),
    "random_stack": augment.random_stack(augment.translation, augment.gaussian_noise),
    "masked_stack": augment.masked_stack(augment.translation, augment.gaussian_noise),
    "maybe": augment.maybe(augment.ensemble(augment.translation, augment.gaussian_noise), 0.5),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_one_compilation_real_branches_and_eight_devices(name):
    op, count = COMPOSITIONS[name], 384
    x, mask = flows.normalised_flows(count=count)
    stats = flows.statistics(count)
    run = jax.jit(
        lambda key, x, mask, alpha, stats: augment.batched(op)(key, x, mask, alpha, stats=stats),
        compiler_options=flows.QUICKLY,
    )
    alpha = flows.alphas(count)
    want = run(jax.random.key(1), x, mask, alpha, stats)
    run(jax.random.key(2), x, mask, 1 - alpha, stats)
    assert run._cache_size() == 1
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    placed = jax.device_put((x, mask, alpha, stats), spread)
    program = run.lower(jax.random.key(1), *placed).compile()
    text = program.as_text()
    if name != "sequential":
        assert "conditional" in text
    assert not any(word in text for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))
    for got, expected in zip(program(jax.random.key(1), *placed), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_cutmix_in_a_composition_works_on_batches():
    x, mask = flows.normalised_flows(count=50)
    op = augment.sequential(augment.horizontal_flip, augment.cutmix)
    out, new = compiled(op)(jax.random.key(0), x, mask)
    assert op.batch and out.shape == x.shape and (np.asarray(out) != x).any()
    assert (np.diff(np.asarray(new).astype(int), axis=1) <= 0).all()
    assert new.sum() == mask.sum()
    with pytest.raises(ConfigError, match="batch"):
        op(jax.random.key(0), x[0], mask[0])


@pytest.mark.parametrize(
    "op",
    [
        augment.maybe(augment.cutmix, 1.0),
        augment.one_of(augment.cutmix, augment.cutmix.with_options(literal=True)),
        augment.random_stack(augment.cutmix, augment.horizontal_flip),
        augment.masked_stack(augment.sequential(augment.cutmix), p_apply=1.0),
    ],
    ids=lambda op: op.label,
)
def test_cutmix_in_blocks_of_small_batches(op):
    """Blocks of a choice hold at least 32 flows where flows exchange packets: eight flows are one block."""
    x, mask = flows.normalised_flows(count=8)
    mask = np.ones_like(mask)
    own = x[..., 0].reshape(8, -1)
    for seed in range(5):
        out, new = flows.as_numpy(compiled(op)(jax.random.key(seed), x, mask))
        assert sorted(map(tuple, out[new])) == sorted(map(tuple, x[mask]))
        foreign = [~np.isin(out[i, :, 0], own[i]) for i in range(8)]
        if np.sum(foreign) > 8:
            return
    raise AssertionError("no packets change sides")


def test_cutmix_exchanges_within_every_block():
    x, mask = flows.normalised_flows(count=96)
    mask = np.ones_like(mask)
    x[..., 0] = np.arange(96 * flows.T, dtype=np.float32).reshape(96, flows.T)
    out = np.asarray(compiled(augment.maybe(augment.cutmix, 1.0))(jax.random.key(1), x, mask)[0])
    foreign = out[..., 0] // flows.T != np.arange(96)[:, None]
    assert all(foreign[block::3].any(axis=1).mean() > 0.7 for block in range(3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: augment.sequential(), "at least one operation"),
        (lambda: augment.ensemble("wrap"), "augment.wrap"),
        (lambda: augment.one_of(augment.wrap, augment.dup_rto, weights=(1,)), "1 weights for 2"),
        (lambda: augment.one_of(augment.wrap, weights=(-1,)), ">= 0"),
        (lambda: augment.maybe(augment.wrap, 1.5), r"\[0, 1\]"),
        (lambda: augment.masked_stack(augment.wrap, p_apply=-0.1), r"\[0, 1\]"),
        (lambda: augment.random_stack(augment.wrap, blocks=-1), "at least 0"),
        (lambda: augment.get("warp"), "choose from"),
    ],
)
def test_bad_compositions_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_bad_batches_are_refused_at_trace_time():
    x, mask = flows.normalised_flows(count=8)
    run = augment.batched(augment.wrap)
    key = jax.random.key(0)
    for bad in [(x[0], mask[0]), (x, mask[:, :5]), (x[..., :2], mask), (x, mask.astype(np.float32))]:
        with pytest.raises(ConfigError):
            jax.eval_shape(run, key, *bad)
    with pytest.raises(ConfigError, match="alpha"):
        jax.eval_shape(run, key, x, mask, jnp.ones(3))
    with pytest.raises(ConfigError, match="alpha=2"):
        run(key, x, mask, 2)
    with pytest.raises(ConfigError, match="stats"):
        jax.eval_shape(augment.batched(augment.gaussian_noise), key, x, mask)
