"""Policies and the class-weighted sampler, as a training step uses them; the grain transformation."""

import functools

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxtraffic import augment
from jaxtraffic.errors import ConfigError
from jaxtraffic.scaling import ClassStatistics, class_statistics
from tests.augment import flows

P_VALUE = 1e-4
CLASSES = 3


def jitted(policy, **fixed):
    """jit of a policy, sampler or the like, compiled in a hurry."""
    return jax.jit(functools.partial(policy, **fixed), compiler_options=flows.QUICKLY)


def batch(count=400, full=False):
    x, mask = flows.normalised_flows(count=count, padding=0)
    if full:
        mask = np.ones_like(mask)
        x[..., 0] = np.arange(1, flows.T + 1)
    label = np.random.default_rng(1).integers(0, CLASSES, count).astype(np.int32)
    return augment.Batch(jnp.asarray(x), jnp.asarray(mask), jnp.asarray(label))


def test_replace_augments_a_share_and_leaves_the_rest():
    data = batch(2000, full=True)
    run = jitted(augment.replace(augment.horizontal_flip, 0.3))
    out = run(jax.random.key(0), data)
    flipped = (np.asarray(out.x) == np.asarray(data.x)[:, ::-1]).all((1, 2))
    same = (np.asarray(out.x) == np.asarray(data.x)).all((1, 2))
    assert (flipped ^ same).all()
    assert scipy_stats.binomtest(int(flipped.sum()), 2000, 0.3).pvalue > P_VALUE
    np.testing.assert_array_equal(out.label, data.label)
    for p in (0.0, 1.0):
        out = jitted(augment.replace(augment.horizontal_flip, p))(jax.random.key(0), data)
        np.testing.assert_array_equal(out.x, data.x[:, ::-1] if p else data.x)


@pytest.mark.parametrize("policy", [augment.inject, augment.pre_augment])
@pytest.mark.parametrize("n", [1, 3])
def test_inject_puts_copies_behind_each_original(policy, n):
    data = batch(100)
    run = jitted(policy(augment.ensemble(augment.translation, augment.window_mask), n))
    out = run(jax.random.key(0), data)
    assert out.x.shape == (100 * (n + 1), flows.T, 3) and out.mask.shape == (100 * (n + 1), flows.T)
    for got, own in zip(out, data, strict=True):
        np.testing.assert_array_equal(got[:: n + 1], own)
    np.testing.assert_array_equal(out.label, np.repeat(data.label, n + 1))
    copies = np.asarray(out.x).reshape(100, n + 1, -1)
    for i in range(n + 1):
        for j in range(i):
            assert (copies[:, i] != copies[:, j]).any(1).mean() > 0.5


def test_policies_leave_a_sharded_batch_in_place():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    data = batch(192)
    for policy in (augment.inject(augment.translation, 2), augment.replace(augment.translation, 0.5)):
        placed = jax.device_put(data, spread)
        run = jitted(policy)
        program = run.lower(jax.random.key(0), placed).compile()
        assert not any(word in program.as_text() for word in ("all-reduce", "all-gather", "all-to-all", "permute("))
        want = run(jax.random.key(0), data)
        for got, expected in zip(program(jax.random.key(0), placed), want, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_magnitudes_are_uniform_for_each_flow():
    data = batch(3000, full=True)
    policy = augment.replace(augment.tail_occlusion, 1.0)
    kept = np.asarray(jitted(policy)(jax.random.key(3), data).mask).sum(1)
    # ceil(20 (1 - alpha / 2)): each of 11..20 for a tenth of U[0, 1].
    observed = np.bincount(kept, minlength=21)[11:]
    assert observed.sum() == 3000 and scipy_stats.chisquare(observed).pvalue > P_VALUE
    fixed = jitted(policy, alpha=1.0)(jax.random.key(3), data)
    assert (np.asarray(fixed.mask).sum(1) == 10).all()


def test_statistics_are_those_of_each_label():
    data = batch(300, full=True)
    data = data._replace(x=jnp.full_like(data.x, 0.5))
    std = jnp.zeros((CLASSES, flows.T, 3)).at[1].set(0.05)
    stats = class_statistics(np.asarray(data.x), np.asarray(data.mask), np.asarray(data.label), CLASSES)
    assert not np.asarray(stats.std).any()
    stats = type(stats)(std, jnp.zeros((CLASSES, 3)), stats.flows)
    policy = augment.replace(augment.gaussian_noise, 1.0)
    moved = (np.asarray(jitted(policy)(jax.random.key(0), data, stats=stats).x) != 0.5).any((1, 2))
    np.testing.assert_array_equal(moved, np.asarray(data.label) == 1)
    with pytest.raises(ConfigError, match="stats"):
        jax.eval_shape(policy, jax.random.key(0), data)


@pytest.mark.parametrize("make", [lambda op: augment.replace(op, 1.0), lambda op: augment.inject(op, 1)])
def test_unlabelled_flows_share_one_statistics(make):
    """FlowStatistics, not indexed by a label, serve all flows as the same numbers for every class do."""
    data = batch(48)
    rows = np.linspace(0.05, 0.3, flows.T * 3).reshape(flows.T, 3).astype(np.float32)
    one = augment.FlowStatistics(jnp.asarray(rows), jnp.asarray(rows.mean(0)))
    flat = jnp.broadcast_to(one.flat_std, (CLASSES, 3))
    alike = ClassStatistics(jnp.broadcast_to(rows, (CLASSES, flows.T, 3)), flat, jnp.ones(CLASSES, jnp.int32))
    for op in (augment.gaussian_noise, augment.sequential(augment.sine_wrapup, augment.translation)):
        run = jitted(make(op))
        got, want = (run(jax.random.key(0), data, stats=stats) for stats in (one, alike))
        jax.tree.map(np.testing.assert_array_equal, got, want)
        assert not np.array_equal(got.x, data.x if len(got.x) == 48 else np.repeat(data.x, 2, axis=0))
    with pytest.raises(ConfigError, match="stats"):
        jax.eval_shape(make(op), jax.random.key(0), data, stats=one._replace(std=one.std[1:]))


def test_changed_fraction_counts_flows_whose_packets_or_mask_differ():
    data = batch(210)
    x, mask = np.array(data.x), np.array(data.mask)
    n = mask.sum(1)
    new_x, new_mask, expected = x.copy(), mask.copy(), np.zeros(210, bool)
    rng = np.random.default_rng(0)
    for i, kind in enumerate(rng.integers(0, 5, 210)):
        if kind == 0 and n[i]:  # one element of a valid packet
            new_x[i, rng.integers(n[i]), rng.integers(3)] += 0.5
            expected[i] = True
        elif kind == 1 and n[i] < flows.T:  # padding does not count
            new_x[i, n[i] :] = 7
        elif kind == 2 and n[i]:  # a packet less
            new_mask[i, n[i] - 1], expected[i] = False, True
        elif kind == 3 and n[i] < flows.T:  # a packet more
            new_mask[i, n[i]], expected[i] = True, True
    share = jitted(augment.changed_fraction)(x, mask, new_x, new_mask)
    assert share.shape == () and share.dtype == jnp.float32 and 0.2 < expected.mean() < 0.8
    np.testing.assert_allclose(share, expected.mean(), rtol=1e-6)
    assert jitted(augment.changed_fraction)(x, mask, x, mask) == 0


def test_a_training_scan_holds_policy_and_sampler():
    data = batch(256)
    policy = augment.inject(augment.ensemble(augment.translation, augment.window_mask), 1)
    sampler = augment.class_weighted(np.asarray(data.label), CLASSES)

    @jax.jit
    def train(key, data, sampler):
        def step(total, key):
            own = jax.tree.map(lambda leaf: leaf[sampler(jax.random.fold_in(key, 0), 32)], data)
            return total + policy(jax.random.fold_in(key, 1), own).x.mean(), None

        return jax.lax.scan(step, jnp.zeros(()), jax.random.split(key, 5))[0]

    first, second = train(jax.random.key(0), data, sampler), train(jax.random.key(1), data, sampler)
    assert np.isfinite(first) and first != second and train._cache_size() == 1


def test_within_class_cutmix_in_a_policy():
    data = batch(200, full=True)
    data = data._replace(x=jnp.broadcast_to(data.label.astype(jnp.float32)[:, None, None], data.x.shape))
    out = jitted(augment.replace(augment.cutmix.with_options(within_class=True), 1.0))(jax.random.key(0), data)
    np.testing.assert_array_equal(out.x, data.x)
    out = jitted(augment.replace(augment.cutmix, 1.0))(jax.random.key(0), data)
    assert (np.asarray(out.x) != np.asarray(data.x)).any()


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_class_weighted_sampler(power):
    rng = np.random.default_rng(0)
    label = rng.permutation(np.repeat([0, 2, 3], [500, 40, 7]))
    sampler = augment.class_weighted(label, 5, power=power)
    index = np.asarray(jax.jit(lambda s, k: s(k, 20_000))(sampler, jax.random.key(0)))
    size = np.array([500, 40, 7])
    share = size ** (1 - power) / (size ** (1 - power)).sum()
    observed = np.bincount(label[index], minlength=5)
    assert observed[1] == observed[4] == 0
    assert scipy_stats.chisquare(observed[[0, 2, 3]], share * 20_000).pvalue > P_VALUE
    within = np.bincount(index, minlength=len(label))[label == 2]
    assert scipy_stats.chisquare(within).pvalue > P_VALUE


def test_bad_policies_are_refused():
    data = batch(8)
    real = data._replace(label=data.label.astype(jnp.float32))
    for make in (
        lambda: augment.replace(augment.wrap, 1.5),
        lambda: augment.inject(augment.wrap, 0),
        lambda: augment.pre_augment(augment.wrap, 1.5),
        lambda: augment.class_weighted(np.zeros(0, int), 2),
        lambda: augment.class_weighted(np.array([0, 2]), 2),
        lambda: augment.class_weighted(np.array([0.0, 1.0]), 2),
        lambda: augment.class_weighted(np.array([0, 1]), 2, power=float("nan")),
        lambda: augment.class_weighted(np.array([0, 1]), 2, power=float("inf")),
        lambda: class_statistics(*map(np.asarray, real), CLASSES),
        lambda: augment.replace(augment.wrap, 0.5)(jax.random.key(0), real),
        lambda: augment.inject(augment.wrap, 1)(jax.random.key(0), real),
        lambda: augment.pre_augment(augment.wrap, 1)(jax.random.key(0), real),
        lambda: augment.replace(augment.wrap, 0.5)(jax.random.key(0), (data.x, data.mask, data.label)),
        lambda: augment.replace("wrap", 0.5)(jax.random.key(0), data),
    ):
        with pytest.raises(ConfigError):
            make()


def records(count):
    data = batch(count)
    return [{"x": x, "mask": m, "label": y} for x, m, y in zip(*map(np.asarray, data), strict=True)]


def test_grain_pipeline_of_flows_and_of_batches():
    source = records(48)
    transform = augment.as_grain(augment.sequential(augment.translation, augment.wrap))
    for batched in (False, True):
        pipeline = grain.MapDataset.source(source).seed(7)
        pipeline = pipeline.batch(16).random_map(transform) if batched else pipeline.random_map(transform).batch(16)
        first, again = (list(pipeline) for _ in range(2))
        assert len(first) == 3 and first[0]["x"].shape == (16, flows.T, 3) and first[0]["x"].dtype == np.float32
        changed = 0
        for i, (one, other) in enumerate(zip(first, again, strict=True)):
            np.testing.assert_array_equal(one["x"], other["x"])
            np.testing.assert_array_equal(one["label"], [r["label"] for r in source[16 * i : 16 * i + 16]])
            assert isinstance(one["x"], np.ndarray) and one["mask"].dtype == bool
            changed += (one["x"] != np.stack([r["x"] for r in source[16 * i : 16 * i + 16]])).any((1, 2)).sum()
        assert changed > 24


def test_grain_takes_statistics_and_magnitude():
    source = records(8)
    stats = class_statistics(*(np.stack([r[name] for r in source]) for name in ("x", "mask", "label")), CLASSES)
    op = augment.gaussian_noise
    for alpha, changes in ((0.0, False), (1.0, True)):
        pipeline = (
            grain.MapDataset.source(source).seed(0).batch(8).random_map(augment.as_grain(op, alpha=alpha, stats=stats))
        )
        assert (pipeline[0]["x"] != np.stack([r["x"] for r in source])).any() == changes
    bare = [{"x": r["x"], "mask": r["mask"]} for r in source]
    with pytest.raises(ConfigError, match="label"):
        _ = grain.MapDataset.source(bare).seed(0).random_map(augment.as_grain(op, stats=stats))[0]
    with pytest.raises(ConfigError, match="batch"):
        _ = grain.MapDataset.source(bare).seed(0).random_map(augment.as_grain(augment.cutmix))[0]
    with pytest.raises(ConfigError, match="mappings"):
        _ = grain.MapDataset.source([1, 2]).seed(0).random_map(augment.as_grain(augment.wrap))[0]
