"""Classifiers against the same network of XLA convolutions, of NumPy and of PyTorch; vmap and eight devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.classifiers import CLASSIFIERS, make_classifier
from jaxtraffic.nn.denoiser import is_state_space
from jaxtraffic.nn.dense_convolution import dense_convolution


def random_like(tree, seed=1):
    """Values for a tree of shapes: every weight takes part, and variances are positive."""
    rng = np.random.default_rng(seed)

    def value(path, leaf):
        draw = rng.standard_normal(leaf.shape)
        fan_in = 1 if is_state_space(path) else np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 4
        draw = np.exp(0.3 * draw) if path[-1].key in ("variance", "scale") else draw * fan_in**-0.5
        return jnp.asarray(draw, jnp.float32)

    return jax.tree_util.tree_map_with_path(value, tree)


def batch_of(n=8, length=7, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, length + 1, n)
    mask = np.arange(length) < lengths[:, None]
    x = rng.uniform(size=(n, length, 3)) * mask[..., None]
    return jnp.asarray(x, jnp.float32), jnp.asarray(mask), jnp.asarray(rng.integers(0, classes, n), jnp.int32)


def objective(apply):
    def loss(params, state, x, mask, label):
        logits, features, state = apply(params, state, x, mask, train=True)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)
        return -chosen.mean(), (logits, features, state)

    return jax.grad(loss, has_aux=True)


def assert_trees_close(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, **tolerance), a, b)


# --- parts ---


def numpy_convolution(x, kernel, stride):
    taps, _, outputs = kernel.shape
    length = x.shape[1]
    y = np.zeros((len(x), len(range(0, length, stride)), outputs))
    for out, centre in enumerate(range(0, length, stride)):
        for tap in range(taps):
            position = centre + tap - taps // 2
            if 0 <= position < length:
                y[:, out] += x[:, position] @ kernel[tap]
    return y


def xla_convolution(x, kernel, stride):
    pad = len(kernel) // 2
    form = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride,), [(pad, pad)], dimension_numbers=form)


@pytest.mark.parametrize("taps, stride, length", [(3, 1, 5), (3, 2, 5), (3, 2, 6), (1, 2, 6), (3, 2, 1)])
def test_dense_convolution_is_the_sum_it_stands_for(taps, stride, length):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, length, 3)), rng.standard_normal((taps, 3, 4))
    args = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32), stride
    expected = numpy_convolution(x, kernel, stride)
    np.testing.assert_allclose(jax.jit(dense_convolution, static_argnums=2)(*args), expected, atol=1e-5)
    np.testing.assert_allclose(xla_convolution(*args), expected, atol=1e-5)


# --- ResNet ---


def normalised_shapes(kernel):
    return {"kernel": kernel, "scale": (kernel[2],), "shift": (kernel[2],)}


def test_resnet_shapes_and_counts():
    expected = {
        "stem": normalised_shapes((3, 3, 64)),
        "stage1_block1_first": normalised_shapes((3, 64, 64)),
        "stage1_block1_second": normalised_shapes((3, 64, 64)),
        "stage1_block1_shortcut": normalised_shapes((1, 64, 64)),
        "stage2_block1_first": normalised_shapes((3, 64, 128)),
        "stage2_block1_second": normalised_shapes((3, 128, 128)),
        "stage2_block1_shortcut": normalised_shapes((1, 64, 128)),
        "head": {"kernel": (128, 20), "bias": (20,)},
    }
    model = make_classifier("resnet", 20, 20)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, params) == expected
    sizes = {path: leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    convolutions = sum(n for path, n in sizes.items() if path[0].key != "head" and path[1].key == "kernel")
    norms = sum(n for path, n in sizes.items() if path[1].key in ("scale", "shift"))
    assert (convolutions, norms, sum(sizes.values())) == (111_168, 1_280, 115_028)
    assert {name: leaf["mean"].shape for name, leaf in state.items()} == {
        name: leaf["scale"] for name, leaf in expected.items() if name != "head"
    }

    doubled, _ = jax.eval_shape(make_classifier("resnet2x", 20, 20).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(doubled)) == 238_676
    added = {name: jax.tree.map(lambda leaf: leaf.shape, doubled[name]) for name in doubled if name not in expected}
    assert added == {
        "stage1_block2_first": normalised_shapes((3, 64, 64)),
        "stage1_block2_second": normalised_shapes((3, 64, 64)),
        "stage2_block2_first": normalised_shapes((3, 128, 128)),
        "stage2_block2_second": normalised_shapes((3, 128, 128)),
    }


def reference_apply(convolve, blocks, params, state, x, *, train):
    """The network once more, of another convolution and of two-pass statistics; of NumPy or of JAX."""
    recorded = {}

    def layer(name, h, stride):
        own = params[name]
        h = convolve(h, own["kernel"], stride)
        mean, variance = state[name]["mean"], state[name]["variance"]
        if train:
            n = h.shape[0] * h.shape[1]
            old_mean, old_variance, mean, variance = mean, variance, h.mean((0, 1)), h.var((0, 1))
            recorded[name] = {
                "mean": 0.9 * old_mean + 0.1 * mean,
                "variance": 0.9 * old_variance + 0.1 * variance * n / (n - 1),
            }
        return (h - mean) / (variance + 1e-5) ** 0.5 * own["scale"] + own["shift"]

    def relu(h):
        return h.clip(0)

    h = relu(layer("stem", x, 1))
    for stage in (1, 2):
        for block in range(1, blocks + 1):
            name, stride = f"stage{stage}_block{block}", 2 if block == 1 else 1
            inner = layer(f"{name}_second", relu(layer(f"{name}_first", h, stride)), 1)
            h = relu(inner + (layer(f"{name}_shortcut", h, 2) if block == 1 else h))
    features = h.sum(1) / h.shape[1]
    return features @ params["head"]["kernel"] + params["head"]["bias"], features, recorded if train else state


def random_run(model, seed=0):
    """(params, state, x, mask, label) of a small run."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return (*(random_like(tree, 10 * seed + i) for i, tree in enumerate(shapes)), *batch_of(seed=seed))


def test_doubled_resnet_against_numpy():
    model = make_classifier("resnet2x", 3, 7, width=4)
    run = random_run(model)[:4]
    # One program for both modes: what costs here is to compile.
    found = jax.jit(lambda *run: [model.apply(*run, train=train) for train in (True, False)])(*run)
    params, state, x = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), run[:3])
    expected = [reference_apply(numpy_convolution, 2, params, state, x, train=train) for train in (True, False)]
    assert_trees_close(found, [*expected], rtol=1e-4, atol=2e-5)
    assert expected[1][1].shape == (8, model.n_features)
    assert np.abs(expected[0][0] - expected[1][0]).max() > 0.1


SMALL = make_classifier("resnet", 3, 7, width=4)


@pytest.fixture(scope="module")
def single():
    return jax.jit(objective(SMALL.apply))


def xla_apply(params, state, x, mask, *, train):
    return reference_apply(xla_convolution, 1, params, state, x, train=train)


def test_resnet_gradient_against_xla_convolutions(single):
    run = random_run(SMALL)
    expected = jax.jit(objective(xla_apply))(*run)
    assert_trees_close(single(*run), expected, rtol=1e-4, atol=2e-5)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected[0]))


def test_resnet_halves_twenty_packets_twice():
    model = make_classifier("resnet", 3, 20, width=4)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    x = jnp.zeros((2, 20, 3))
    shapes = jax.make_jaxpr(lambda p, s: model.apply(p, s, x, None, train=False))(params, state)
    products = [str(e.outvars[0].aval.shape) for e in equations(shapes.jaxpr) if e.primitive.name == "dot_general"]
    # Stem; shortcut, first, second of both stages; head. Rows are 2 flows times 20, 10 and 5 positions.
    assert products == ["(40, 4)", *["(20, 4)"] * 3, *["(10, 8)"] * 3, "(2, 3)"]


def equations(jaxpr):
    """Every equation of a program, also of the programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_weights_start_as_in_pytorch():
    params, state = jax.jit(make_classifier("resnet", 20, 20).init)(jax.random.key(3))
    fan_ins = {"stem": 9, "stage1_block1_shortcut": 64, "stage2_block1_first": 192, "stage2_block1_second": 384}
    for name, fan_in in (fan_ins | {"head": 128}).items():
        kernel = np.asarray(params[name]["kernel"]) * fan_in**0.5
        assert 0.97 < np.abs(kernel).max() <= 1 and abs(kernel.std() - 3**-0.5) < 0.03, name
    assert 0.5 < np.abs(params["head"]["bias"]).max() * 128**0.5 <= 1
    assert (np.asarray(params["stem"]["scale"]) == 1).all() and not np.asarray(params["stem"]["shift"]).any()
    same_shape = params["stage1_block1_first"]["kernel"], params["stage1_block1_second"]["kernel"]
    assert not np.allclose(*same_shape)
    assert not np.asarray(state["stem"]["mean"]).any() and (np.asarray(state["stem"]["variance"]) == 1).all()


# --- many runs, many devices ---


def test_vmapped_runs_equal_single_ones_and_hold_no_convolution(single):
    runs = [random_run(SMALL, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *runs)
    traced = jax.jit(jax.vmap(objective(SMALL.apply))).trace(*stacked)
    found = list(equations(traced.jaxpr.jaxpr))
    assert "conv_general_dilated" not in {equation.primitive.name for equation in found}
    # One axis of runs beside the two of a matrix: a batched product.
    products = [[v.aval.ndim for v in e.invars] for e in found if e.primitive.name == "dot_general"]
    assert len(products) > 20 and all(ndims == [3, 3] for ndims in products)
    compiled = traced.lower().compile()
    assert "convolution(" not in compiled.as_text()

    together = jax.tree.map(np.asarray, compiled(*stacked))
    for i, run in enumerate(runs):
        own = jax.tree.map(lambda leaf: leaf[i], together)  # noqa: B023
        assert_trees_close(own, single(*run), rtol=1e-4, atol=1e-5)


def test_equations_sees_the_convolutions_of_the_reference():
    program = jax.make_jaxpr(jax.jit(objective(xla_apply)))(*random_run(SMALL))
    # Seven forward, seven for the kernels, six for the inputs.
    assert sum(equation.primitive.name == "conv_general_dilated" for equation in equations(program.jaxpr)) == 20


def test_sharded_batch_equals_one_device(single):
    params, state, *batch = random_run(SMALL)
    mesh = parallel.make_mesh("data=8")
    split = *parallel.put_replicated((params, state), mesh), *parallel.put_over_data(batch, mesh)
    compiled = jax.jit(objective(SMALL.apply)).lower(*split).compile()
    assert_trees_close(compiled(*split), single(params, state, *batch), rtol=1e-4, atol=1e-5)
    # Sums travel between devices, activations do not.
    text = compiled.as_text()
    assert "all-reduce" in text and "all-gather" not in text and "all-to-all" not in text


# --- MLP and S4 ---


def test_mlp_against_numpy():
    model = make_classifier("mlp", 3, 4, width=10)
    shapes, state = jax.eval_shape(model.init, jax.random.key(0))
    assert state == {} and jax.tree.map(lambda leaf: leaf.shape, shapes) == {
        "hidden1": {"kernel": (12, 10), "bias": (10,)},
        "hidden2": {"kernel": (10, 5), "bias": (5,)},
        "head": {"kernel": (5, 3), "bias": (3,)},
    }
    params = random_like(shapes)
    x, mask, _ = batch_of(length=4)
    h = np.asarray(x, np.float64).reshape(8, 12)
    layers = {
        name: [np.asarray(layer[kind], np.float64) for kind in ("kernel", "bias")] for name, layer in params.items()
    }
    for name in ("hidden1", "hidden2"):
        h = np.maximum(h @ layers[name][0] + layers[name][1], 0)
    logits, features, after = model.apply(params, {}, x, mask, train=True)
    np.testing.assert_allclose(features, h, atol=1e-5)
    np.testing.assert_allclose(logits, h @ layers["head"][0] + layers["head"][1], atol=1e-5)
    assert after == {} and (h > 0).any(0).sum() > 2


def test_s4_ignores_padding_and_vmaps_over_parameters():
    init, apply, n_features = make_classifier("s4", 3, 6, width=4)
    shapes, state = jax.eval_shape(init, jax.random.key(0))
    assert state == {} and any(is_state_space(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes))
    assert [layer["c"].shape[0] for layer in shapes["s4"].values()] == [2, 2], "not bidirectional"
    runs = [random_like(shapes, seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *runs)
    x, mask, _ = batch_of(length=6)
    both = jax.jit(jax.vmap(lambda p: apply(p, {}, x, mask, train=True)[:2]))(stacked)
    assert both[1].shape == (2, 8, n_features)

    # The same flows in longer series, with rubbish in the padding, and back to front.
    longer, valid = np.pad(x, ((0, 0), (0, 3), (0, 0))), np.pad(mask, ((0, 0), (0, 3)))
    rubbish = np.where(valid[..., None], longer, np.float32(7))
    backwards = np.zeros_like(longer)
    for row, series, n in zip(backwards, longer, valid.sum(1), strict=True):
        row[:n] = series[:n][::-1]
    series, valid = np.concatenate([longer, rubbish, backwards]), np.tile(valid, (3, 1))
    run = jax.jit(lambda p: apply(p, {}, series, valid, train=True))
    for i, params in enumerate(runs):
        logits, features, _ = run(params)
        padded, dirty, reverse = np.split(np.asarray(logits), 3)
        np.testing.assert_allclose(padded, both[0][i], atol=1e-4)
        np.testing.assert_allclose(dirty, padded, atol=1e-5)
        # A mean over packets that did not see each other would not tell the order.
        assert np.abs(reverse - padded).max() > 1e-2
        head = features @ params["head"]["kernel"] + params["head"]["bias"]
        np.testing.assert_allclose(logits, head, atol=1e-5)
    assert np.abs(both[0][0] - both[0][1]).max() > 1e-1


# --- all ---


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_one_packet_is_enough(name):
    model = make_classifier(name, 4, 1, width=4)

    def run(key):
        params, state = model.init(key)
        return *model.apply(params, state, jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool), train=True), state

    logits, features, after, before = jax.eval_shape(run, jax.random.key(0))
    assert logits.shape == (2, 4) and features.shape == (2, model.n_features)
    assert logits.dtype == features.dtype == jnp.float32
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), before
    )


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="resnet2x"):
        make_classifier("vgg", 3, 20)
    for sizes in [(0, 20, None), (3, 0, None), (3, 20, 0)]:
        with pytest.raises(ConfigError, match=">= 1"):
            make_classifier("resnet", sizes[0], sizes[1], width=sizes[2])
    with pytest.raises(ConfigError, match="width >= 2"):
        make_classifier("mlp", 3, 20, width=1)


def test_resnet_against_pytorch():
    torch = pytest.importorskip("torch")
    params, state, x, mask, _ = random_run(SMALL)

    def layer(name, stride):
        kernel = torch.tensor(np.asarray(params[name]["kernel"])).permute(2, 1, 0)
        outputs, inputs, taps = kernel.shape
        convolution = torch.nn.Conv1d(inputs, outputs, taps, stride=stride, padding=taps // 2, bias=False)
        norm = torch.nn.BatchNorm1d(outputs)
        with torch.no_grad():
            convolution.weight.copy_(kernel)
            for target, source in (
                (norm.weight, params[name]["scale"]),
                (norm.bias, params[name]["shift"]),
                (norm.running_mean, state[name]["mean"]),
                (norm.running_var, state[name]["variance"]),
            ):
                target.copy_(torch.tensor(np.asarray(source)))
        return torch.nn.Sequential(convolution, norm)

    layers = {name: layer(name, 2 if name.endswith(("first", "shortcut")) else 1) for name in params if name != "head"}
    for train in (True, False):
        for module in layers.values():
            module.train(train)
        with torch.no_grad():
            h = torch.relu(layers["stem"](torch.tensor(np.asarray(x)).permute(0, 2, 1)))
            for stage in (1, 2):
                first, second, short = (layers[f"stage{stage}_block1_{k}"] for k in ("first", "second", "shortcut"))
                h = torch.relu(second(torch.relu(first(h))) + short(h))
            features = h.mean(2).numpy()
        _, found, state = SMALL.apply(params, state, x, mask, train=train)
        np.testing.assert_allclose(found, features, atol=1e-4)
        for name, module in layers.items():
            np.testing.assert_allclose(state[name]["mean"], module[1].running_mean.numpy(), atol=1e-5)
            np.testing.assert_allclose(state[name]["variance"], module[1].running_var.numpy(), rtol=1e-4)
