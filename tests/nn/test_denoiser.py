"""The S4 layer and the denoiser: shapes, identities, vmap, meshes and bad options."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError
from jaxtraffic.nn import S4, DenoiserConfig, functional, is_state_space, make_denoiser

SMALL = DenoiserConfig(width=16, blocks=2, mlp_ratio=2.0, embedding=8, state=8)


def predict(apply, params, x, t, label):
    operators = apply(params, x.shape[1], method="operators")
    condition = apply(params, t, method="embed_time") + apply(params, label, method="embed_class")
    return apply(params, x, condition, operators)


def inputs(batch=6, length=12):
    x = jax.random.normal(jax.random.key(1), (batch, length))
    return x, jnp.arange(batch), jnp.arange(batch, dtype=jnp.int32) % 3


def awake(params):
    """Parameters with zero-initialised leaves moved, so that every part takes part."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    return jax.tree.unflatten(
        tree, [leaf + 0.1 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )


@pytest.mark.parametrize("space", ["dplr", "diag-lin", "diag-legs"])
def test_layer_steps_equal_its_convolution(space):
    init, apply = functional(lambda rngs: S4(5, state=8, space=space, bidirectional=False, rngs=rngs))
    params = init(jax.random.key(0))
    u = jax.random.normal(jax.random.key(1), (3, 20, 5))
    whole = apply(params, u)
    state = tuple(jnp.zeros((2, 3, 4, 5)))
    for packet in range(20):
        state, y = apply(params, state, u[:, packet], method="step")
        np.testing.assert_allclose(y, whole[:, packet], atol=2e-5)


def test_bidirectional_layer_has_no_recurrent_form():
    init, apply = functional(lambda rngs: S4(2, state=4, rngs=rngs))
    with pytest.raises(ConfigError, match="causal"):
        apply(init(jax.random.key(0)), tuple(jnp.zeros((2, 1, 2, 2))), jnp.zeros((1, 2)), method="step")


@pytest.mark.parametrize(
    "glu, position_embedding",
    [
        (True, False),
        (False, True),
        pytest.param(True, True, marks=pytest.mark.slow),
        pytest.param(False, False, marks=pytest.mark.slow),
    ],
)
def test_denoiser_starts_at_zero_and_then_sees_every_input(glu, position_embedding):
    config = dataclasses.replace(SMALL, glu=glu, position_embedding=position_embedding)
    init, apply = make_denoiser(config, 3, 12)
    params = init(jax.random.key(0))
    x, t, label = inputs()
    assert not predict(apply, params, x, t, label).any()
    params = awake(params)
    y = predict(apply, params, x, t, label)
    assert y.shape == x.shape and y.dtype == jnp.float32
    assert np.abs(y - predict(apply, params, x, t + 5, label)).max() > 1e-4
    assert np.abs(y - predict(apply, params, x, t, (label + 1) % 3)).max() > 1e-4
    moved = predict(apply, params, x.at[:, -1].add(1.0), t, label)
    assert np.abs(y - moved)[:, 0].max() > 1e-5, "the first packet does not see the last"


@pytest.mark.slow
def test_rows_do_not_see_each_other_and_vmap_equals_the_batch():
    init, apply = make_denoiser(SMALL, 3, 12)
    params = awake(init(jax.random.key(0)))
    x, t, label = inputs()
    batch = predict(apply, params, x, t, label)
    single = jax.vmap(lambda x, t, y: predict(apply, params, x[None], t[None], y[None])[0])(x, t, label)
    np.testing.assert_allclose(batch, single, atol=1e-5)


def test_published_configuration_has_its_shape():
    config = DenoiserConfig()
    params = jax.eval_shape(make_denoiser(config, 100, 30)[0], jax.random.key(0))
    assert len(params["blocks"]) == 5
    block = params["blocks"][0]
    assert block["s4"]["c"].shape == (2, 512, 32, 2)
    assert block["modulation"]["kernel"].shape == (128, 6 * 512)
    assert block["up"]["kernel"].shape == (512, 2048)
    assert params["classes"]["embedding"].shape == (101, 128)


def test_parameters_are_real_and_state_spaces_are_marked():
    init, _ = make_denoiser(SMALL, 3, 12)
    params = init(jax.random.key(0))
    marked = jax.tree_util.tree_map_with_path(lambda path, leaf: is_state_space(path), params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert all(jax.tree.leaves(marked["blocks"][0]["s4"]))
    assert not any(jax.tree.leaves(marked["blocks"][0]["up"]))


@pytest.mark.slow
def test_bfloat16_is_close_and_gradients_are_finite():
    x, t, label = inputs()
    init, apply = make_denoiser(SMALL, 3, 12)
    params = awake(init(jax.random.key(0)))
    _, apply16 = make_denoiser(dataclasses.replace(SMALL, precision="bfloat16"), 3, 12)
    full, half = predict(apply, params, x, t, label), predict(apply16, params, x, t, label)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, atol=0.05 * float(jnp.abs(full).max()) + 0.02)
    gradient = jax.grad(lambda p: jnp.sum(predict(apply16, p, x, t, label) ** 2))(params)
    assert all(bool(jnp.isfinite(leaf).all()) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("spec", ["data=8", "data=4,channel=2", "data=2,channel=4", "channel=8"])
def test_every_mesh_gives_the_same_prediction(spec):
    init, apply = make_denoiser(SMALL, 3, 12)
    params = awake(init(jax.random.key(0)))
    x, t, label = inputs(batch=8)
    alone = predict(apply, params, x, t, label)
    mesh = parallel.make_mesh(spec)
    with jax.set_mesh(mesh):
        program = jax.jit(lambda p, x, t, y: predict(apply, p, x, t, y))
        arguments = (parallel.put_replicated(params, mesh), *parallel.put_over_data((x, t, label), mesh))
        compiled = program.lower(*arguments).compile()
        np.testing.assert_allclose(compiled(*arguments), alone, atol=1e-5)
    if "channel" in spec:
        # 16 channels over the axis: the kernels that leave the state spaces are slices.
        assert f"f32[{16 // mesh.shape['channel']},12,12]" in compiled.as_text()


def test_bad_options_are_refused():
    bad = [({"space": "s5"}, "state space"), ({"precision": "int4"}, "precision"), ({"dt_min": -1.0}, "dt")]
    for change, word in bad:
        with pytest.raises(ConfigError, match=word):
            make_denoiser(dataclasses.replace(SMALL, **change), 3, 12)


def test_functional_is_pure():
    init, apply = functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    one, two = init(jax.random.key(0)), init(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, two))
    assert isinstance(one, dict) and apply(one, jnp.ones((4, 2))).shape == (4, 3)
