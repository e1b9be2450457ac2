"""Adapters: exactly nothing at the start, the papers' formulas afterwards, gradients for adapters alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn import DenoiserConfig, make_denoiser
from jaxtraffic.nn.adapters import (
    AdapterConfig,
    apply_adapters,
    count_parameters,
    dense_kernels,
    init_adapters,
    merge,
)
from jaxtraffic.train import TrainConfig, fit, make_optimizer

SMALL = DenoiserConfig(
    width=24, blocks=1, embedding=16, state=4, space="diag-lin", mlp_ratio=2.0, position_embedding=True
)
KINDS = pytest.mark.parametrize("kind", ["lora", "dora"])
effective = jax.jit(apply_adapters, static_argnames="config")


def moved(tree, size=0.1, seed=5):
    """A tree off its initialisation, so that zero kernels and zero adapters matter."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + (size * draw.standard_normal(leaf.shape)).astype(leaf.dtype), tree)


@pytest.fixture(scope="module")
def model():
    """A small denoiser: params off their zeros, and a function of params that runs all of it."""
    init, apply = make_denoiser(SMALL, 3, 10)
    x = jax.random.normal(jax.random.key(1), (5, 10))

    def run(params):
        t, label = jnp.arange(5.0), jnp.arange(5) % 4
        condition = apply(params, t, method="embed_time") + apply(params, label, method="embed_class")
        return apply(params, x, condition, apply(params, 10, method="operators"))

    def adapted(params, adapters, config):
        return run(apply_adapters(params, adapters, config))

    return moved(jax.jit(init)(jax.random.key(0))), jax.jit(run), jax.jit(adapted, static_argnames="config")


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@KINDS
def test_fresh_adapters_leave_outputs_equal_to_the_bit(model, kind):
    params, run, adapted = model
    config = AdapterConfig(kind, rank=5, alpha=7.0)
    adapters = init_adapters(jax.random.key(2), params, config)
    assert all(np.asarray(adapter["a"]).any() for adapter in adapters.values())
    assert np.asarray(run(params)).std() > 0.1
    assert bits(run(params)) == bits(adapted(params, adapters, config))
    assert bits(params) == bits(effective(params, adapters, config))
    assert bits(params) == bits(merge(params, adapters, config))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_fresh_dora_is_the_identity_for_kernels_of_every_scale(seed, dtype):
    keys = jax.random.split(jax.random.key(seed), 2)
    spread = jnp.exp(6 * jax.random.normal(keys[0], (70,)))
    kernel = (jax.random.normal(keys[1], (257, 70)) * spread).astype(dtype)
    kernel = kernel.at[:, 3].set(0)
    params = {"kernel": kernel}
    config = AdapterConfig("dora", rank=4)
    adapters = init_adapters(keys[0], params, config)
    made = effective(params, adapters, config)
    assert made["kernel"].dtype == dtype and bits(made) == bits(params)


@KINDS
def test_merged_equals_unmerged_and_the_formula_in_numpy(model, kind):
    params, run, adapted = model
    config = AdapterConfig(kind, rank=5, alpha=7.0)
    adapters = moved(init_adapters(jax.random.key(2), params, config))
    merged, unmerged = merge(params, adapters, config), effective(params, adapters, config)
    for one, other in zip(jax.tree.leaves(merged), jax.tree.leaves(unmerged), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)
    before, after = run(params), adapted(params, adapters, config)
    assert float(jnp.abs(after - before).max()) > 0.1
    np.testing.assert_allclose(run(jax.tree.map(jnp.asarray, merged)), after, atol=1e-5, rtol=1e-5)
    # One kernel, one column at a time.
    w = np.asarray(params["blocks"][0]["up"]["kernel"], np.float64)
    adapter = {part: np.asarray(leaf, np.float64) for part, leaf in adapters["blocks/0/up/kernel"].items()}
    for j in range(w.shape[1]):
        v = w[:, j] + 7 / 5 * sum(adapter["a"][:, r] * adapter["b"][r, j] for r in range(5))
        if kind == "dora":
            m = np.linalg.norm(w[:, j]) + adapter["magnitude"][j]
            v = m * v / np.linalg.norm(v)
            np.testing.assert_allclose(np.linalg.norm(unmerged["blocks"][0]["up"]["kernel"][:, j]), m, rtol=1e-5)
        np.testing.assert_allclose(unmerged["blocks"][0]["up"]["kernel"][:, j], v, atol=1e-5)


def test_only_linear_kernels_are_adapted(model):
    params, _, _ = model
    config = AdapterConfig("dora", rank=5, alpha=7.0)
    adapters = init_adapters(jax.random.key(0), params, config)
    blocks = {f"blocks/0/{part}/kernel" for part in ("mix", "up", "down", "modulation")}
    assert set(adapters) == blocks | {f"{part}/kernel" for part in ("project", "time1", "time2", "modulation", "out")}
    # From and to one number: rank 1 is all there is.
    assert adapters["project/kernel"]["a"].shape == (1, 1) and adapters["out/kernel"]["b"].shape == (1, 1)
    assert adapters["out/kernel"]["magnitude"].shape == (1,)
    changed = effective(params, moved(adapters), config)
    for (path, old), (_, new) in zip(*map(jax.tree_util.tree_leaves_with_path, (params, changed)), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert (np.asarray(old) != np.asarray(new)).any() == (name in adapters), name


def test_only_adapters_receive_gradients(model):
    params, _, adapted = model
    config = AdapterConfig("dora", rank=5)
    adapters = moved(init_adapters(jax.random.key(0), params, config), 0.01)

    def loss(params, adapters):
        return (adapted(params, adapters, config) ** 2).mean()

    base, own = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, adapters)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(base))
    for name, adapter in own.items():
        for part, leaf in adapter.items():
            assert np.isfinite(leaf).all() and np.asarray(leaf).any(), (name, part)


@KINDS
def test_gradients_are_those_of_the_papers_formula(kind):
    params = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)), jnp.float32)}
    config = AdapterConfig(kind, rank=3, alpha=2.0)
    adapters = moved(init_adapters(jax.random.key(0), params, config), 0.3)
    weight = jnp.arange(24.0).reshape(6, 4)

    def formula(adapters):
        own, w = adapters["kernel"], params["kernel"]
        v = w + 2 / 3 * own["a"] @ own["b"]
        if kind == "dora":
            v = (jnp.linalg.norm(w, axis=0) + own["magnitude"]) * v / jnp.linalg.norm(v, axis=0)
        return (jnp.sin(v) * weight).sum()

    def ours(adapters):
        return (jnp.sin(apply_adapters(params, adapters, config)["kernel"]) * weight).sum()

    for one, other in zip(*(jax.tree.leaves(jax.jit(jax.grad(f))(adapters)) for f in (ours, formula)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@KINDS
def test_training_changes_adapters_only_and_the_optimiser_holds_no_more(kind):
    draw = np.random.default_rng(0).standard_normal
    params = {"first": {"kernel": draw((8, 24)), "bias": draw(24)}, "last": {"kernel": draw((24, 8))}}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    config = AdapterConfig(kind, rank=4)
    adapters = init_adapters(jax.random.key(0), params, config)
    own = sum(leaf.size for adapter in adapters.values() for leaf in adapter.values())
    assert count_parameters(adapters) == own < count_parameters(params)
    training = TrainConfig(steps=100, batch_size=16, learning_rate=2e-2)
    transform, _ = make_optimizer(training, 100, lambda path: False)
    moments = [leaf for leaf in jax.tree.leaves(transform.init(adapters)) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * own
    before = bits(params)

    def loss(adapters, state, batch, key):
        made = apply_adapters(params, adapters, config)
        hidden = jnp.tanh(batch @ made["first"]["kernel"] + made["first"]["bias"])
        return ((hidden @ made["last"]["kernel"] - batch) ** 2).mean(), state

    data = jnp.asarray(draw((64, 8)), jnp.float32)
    fitted = jax.jit(lambda key: fit(loss, adapters, data, key, training))(jax.random.key(3))
    assert fitted.losses[-1] < 0.5 * fitted.losses[0] and bits(params) == before
    assert jax.tree.structure(fitted.params) == jax.tree.structure(adapters)


@pytest.mark.parametrize("column", ["zero", "tiny", "cancelled"])
def test_gradients_stay_finite_where_a_column_has_no_direction(column):
    kernel = jax.random.normal(jax.random.key(0), (6, 4))
    kernel = kernel.at[:, 2].multiply({"zero": 0.0, "tiny": 1e-25, "cancelled": 1.0}[column])
    params, config = {"kernel": kernel}, AdapterConfig("dora", rank=4, alpha=4.0)
    adapters = init_adapters(jax.random.key(1), params, config)
    if column == "cancelled":
        # A B = -W in that column: A holds it, B picks it.
        a = adapters["kernel"]["a"].at[:, 0].set(-kernel[:, 2])
        adapters["kernel"] |= {"a": a, "b": adapters["kernel"]["b"].at[0, 2].set(1.0)}

    def loss(adapters):
        return (jnp.sin(apply_adapters(params, adapters, config)["kernel"]) * jnp.arange(24.0).reshape(6, 4)).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(adapters)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    if column == "zero":
        # It learns all the same: the column is plain LoRA.
        assert np.abs(gradient["kernel"]["b"][:, 2]).min() > 0
        fitted = moved(adapters)
        made = apply_adapters(params, fitted, config)["kernel"][:, 2]
        np.testing.assert_allclose(made, (fitted["kernel"]["a"] @ fitted["kernel"]["b"])[:, 2], rtol=1e-5)


@KINDS
def test_a_stack_of_kernels_is_adapted_kernel_by_kernel_and_vmap_runs_several_adapters(kind):
    stack = {"layers": {"kernel": jax.random.normal(jax.random.key(0), (3, 6, 5)), "bias": jnp.ones((3, 5))}}
    config = AdapterConfig(kind, rank=2)
    adapters = moved(init_adapters(jax.random.key(1), stack, config))
    together = effective(stack, adapters, config)["layers"]["kernel"]
    for i in range(3):
        one = {"layers/kernel": {part: leaf[i] for part, leaf in adapters["layers/kernel"].items()}}
        alone = effective(jax.tree.map(lambda leaf, i=i: leaf[i], stack), one, config)["layers"]["kernel"]
        np.testing.assert_allclose(together[i], alone, rtol=1e-6)
    assert merge(stack, adapters, config)["layers"]["kernel"].shape == (3, 6, 5)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, 3 * leaf]), adapters)
    batched = jax.vmap(lambda own: effective(stack, own, config))(several)["layers"]["kernel"]
    single = effective(stack, jax.tree.map(lambda leaf: leaf[2], several), config)["layers"]["kernel"]
    np.testing.assert_allclose(batched[2], single, rtol=1e-5, atol=1e-6)


def test_a_bfloat16_model_keeps_its_types_and_starts_the_same(model):
    params, _, _ = model
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), {"up": params["blocks"][0]["up"]})
    config = AdapterConfig("dora", rank=4)
    adapters = init_adapters(jax.random.key(0), low, config)
    assert {leaf.dtype for leaf in jax.tree.leaves(adapters)} == {jnp.dtype(jnp.float32)}
    changed = effective(low, moved(adapters), config)
    assert jax.tree.map(lambda leaf: leaf.dtype, changed) == jax.tree.map(lambda leaf: leaf.dtype, low)
    merged = merge(low, moved(adapters), config)["up"]["kernel"]
    np.testing.assert_allclose(
        merged.astype(np.float32), changed["up"]["kernel"].astype(jnp.float32), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize(
    "config, words",
    [
        (AdapterConfig("qlora"), "lora, dora"),
        (AdapterConfig("lora", rank=0), "at least 1"),
        (AdapterConfig("lora", rank=7), "above 5"),
        (AdapterConfig("lora", rank=2, alpha=0.0), "above 0"),
    ],
    ids=["kind", "no-rank", "rank-too-large", "alpha"],
)
def test_settings_that_cannot_work_are_refused(config, words):
    params = {"first": {"kernel": jnp.ones((6, 5))}, "last": {"kernel": jnp.ones((5, 1))}}
    with pytest.raises(ConfigError, match=words):
        init_adapters(jax.random.key(0), params, config)


def test_adapters_of_something_else_are_refused():
    params = {"kernel": jnp.ones((6, 5)), "count": jnp.ones((6, 5), jnp.int32)}
    lora, dora = (AdapterConfig(kind, rank=2) for kind in ("lora", "dora"))
    adapters = init_adapters(jax.random.key(0), params, lora)
    for call in (apply_adapters, merge):
        with pytest.raises(ConfigError, match="another model"):
            call({"weight": jnp.ones((6, 5))}, adapters, lora)
        with pytest.raises(ConfigError, match="kernel"):
            call({"kernel": jnp.ones((5, 5))}, adapters, lora)
        with pytest.raises(ConfigError, match="magnitude"):
            call(params, adapters, dora)
    with pytest.raises(ConfigError, match="selected"):
        init_adapters(jax.random.key(0), params, lora, select=lambda name, leaf: False)
    with pytest.raises(ConfigError, match="int32"):
        init_adapters(jax.random.key(0), params, lora, select=lambda name, leaf: True)
    assert dense_kernels("blocks/0/mix/kernel", params["kernel"]) and not dense_kernels("s4/kernel", params["kernel"])
