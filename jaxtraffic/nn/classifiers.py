"""Classifiers of short packet series: the 1-D ResNet of PAM'24, its doubled variant, an MLP and a small S4 network.

Source of the ResNet: Wang et al., "Data Augmentation for Traffic Classification" (PAM 2024), whose blocks are those of
He et al., "Deep Residual Learning" (2016). Weights start as in PyTorch.

All are pure functions over nested dicts of arrays, light to trace, so that a campaign can vmap them over the
parameters of many runs; only S4 uses a flax module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.batch_norm import batch_norm, fresh_statistics
from jaxtraffic.nn.dense_convolution import dense_convolution
from jaxtraffic.nn.functional import functional
from jaxtraffic.nn.s4 import S4

CLASSIFIERS = ("resnet", "resnet2x", "mlp", "s4")

CHANNELS = 3
"""Features of a packet in the input: size, time and direction, each on its scale."""


class Classifier(NamedTuple):
    """A network as pure functions.

    `init(key) -> (params, state)`: nested dicts of float32 arrays; state holds the running statistics of batch
    normalisation and is {} for networks without it.

    `apply(params, state, x, mask, *, train) -> (logits, features, new_state)`: x [B, T, 3] float32 with zeros where
    mask [B, T] (bool) is False; logits [B, n_classes], features [B, n_features] (what the last linear layer sees: the
    latent space). With train=True the statistics of the batch, every row of it, are used and recorded.
    """

    init: Callable[[jax.Array], tuple[dict[str, Any], dict[str, Any]]]
    apply: Callable[..., tuple[jax.Array, jax.Array, dict[str, Any]]]
    n_features: int


def make_classifier(name: str, n_classes: int, length: int, *, width: int | None = None) -> Classifier:
    """Builds a classifier of series of `length` packets.

    Args:
        name: one of CLASSIFIERS. "resnet" has 115,028 parameters at 20 classes. "resnet2x" has two blocks a stage and
            238,676 parameters, our reading of the thesis, which gives only the sizes (115k and 238k, Table 8.8).
        n_classes: outputs.
        length: packets of a series, T; only the MLP's size depends on it.
        width: channels of the ResNet's stem (default 64; the second stage has twice as many), units of the MLP's
            first hidden layer (256; the second has half as many) or channels of the S4 network (64).

    Raises:
        ConfigError: an unknown name, or sizes below 1.
    """
    if name not in CLASSIFIERS:
        raise ConfigError(f"unknown classifier {name!r}; choose from {', '.join(CLASSIFIERS)}")
    smallest = 2 if name == "mlp" else 1
    if n_classes < 1 or length < 1 or (width is not None and width < smallest):
        raise ConfigError(
            f"classifier {name!r} needs n_classes >= 1, length >= 1 and width >= {smallest}, "
            f"got {n_classes}, {length} and {width}"
        )
    if name == "mlp":
        return _mlp(n_classes, length, width or 256)
    if name == "s4":
        return _s4(n_classes, width or 64)
    return _resnet(n_classes, width or 64, blocks=2 if name == "resnet2x" else 1)


# --- ResNet ---


class _Convolution(NamedTuple):
    """A convolution and its batch normalisation: name, kernel size, input and output channels, stride."""

    name: str
    taps: int
    inputs: int
    outputs: int
    stride: int


class _Block(NamedTuple):
    """A residual block: names of its convolutions; the shortcut is None where it is the identity."""

    first: _Convolution
    second: _Convolution
    shortcut: _Convolution | None


def _blocks(width: int, per_stage: int) -> Iterator[_Block]:
    inputs = width
    for stage, outputs in enumerate((width, 2 * width), start=1):
        for block in range(1, per_stage + 1):
            name, stride = f"stage{stage}_block{block}", 2 if block == 1 else 1
            yield _Block(
                _Convolution(f"{name}_first", 3, inputs, outputs, stride),
                _Convolution(f"{name}_second", 3, outputs, outputs, 1),
                _Convolution(f"{name}_shortcut", 1, inputs, outputs, stride) if block == 1 else None,
            )
            inputs = outputs


def _resnet(n_classes: int, width: int, blocks: int) -> Classifier:
    stem, stages = _Convolution("stem", 3, CHANNELS, width, 1), tuple(_blocks(width, blocks))
    layers = (stem, *(layer for block in stages for layer in block if layer is not None))

    def init(key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        shapes = {layer.name: {"kernel": (layer.taps, layer.inputs, layer.outputs)} for layer in layers}
        params = _draw(key, shapes | {"head": _linear_shapes(2 * width, n_classes)})
        for layer in layers:
            params[layer.name]["scale"] = jnp.ones(layer.outputs, jnp.float32)
            params[layer.name]["shift"] = jnp.zeros(layer.outputs, jnp.float32)
        return params, {layer.name: fresh_statistics(layer.outputs) for layer in layers}

    def apply(params, state, x, mask, *, train):
        new_state = {}

        def normalised(layer: _Convolution, h: jax.Array) -> jax.Array:
            own = params[layer.name]
            h = dense_convolution(h, own["kernel"], layer.stride)
            h, new_state[layer.name] = batch_norm(h, own["scale"], own["shift"], state[layer.name], train=train)
            return h

        h = jax.nn.relu(normalised(stem, x))
        for block in stages:
            short = h if block.shortcut is None else normalised(block.shortcut, h)
            h = jax.nn.relu(normalised(block.first, h))
            h = jax.nn.relu(normalised(block.second, h) + short)
        features = h.mean(axis=1)
        return _linear(params["head"], features), features, new_state

    return Classifier(init, apply, 2 * width)


# --- MLP ---


def _mlp(n_classes: int, length: int, width: int) -> Classifier:
    def init(key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        shapes = {
            "hidden1": _linear_shapes(length * CHANNELS, width),
            "hidden2": _linear_shapes(width, width // 2),
            "head": _linear_shapes(width // 2, n_classes),
        }
        return _draw(key, shapes), {}

    def apply(params, state, x, mask, *, train):
        h = jax.nn.relu(_linear(params["hidden1"], x.reshape(x.shape[0], -1)))
        features = jax.nn.relu(_linear(params["hidden2"], h))
        return _linear(params["head"], features), features, {}

    return Classifier(init, apply, width // 2)


# --- S4 ---


class _S4Classifier(nnx.Module):
    """Two residual bidirectional S4 blocks (normalise, S4, gelu, gated linear map) and the mean over valid packets."""

    def __init__(self, n_classes: int, width: int, *, rngs: nnx.Rngs):
        self.project = nnx.Linear(CHANNELS, width, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(3)])
        # Memories of 10 to 100 packets. The name makes `is_state_space` know these parameters.
        self.s4 = nnx.List([S4(width, state=16, dt_min=1e-2, rngs=rngs) for _ in range(2)])
        self.mixes = nnx.List([nnx.Linear(width, 2 * width, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(width, n_classes, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x [B, T, 3], mask [B, T] -> logits [B, n_classes], features [B, width]."""
        batch, length, _ = x.shape
        valid = mask.astype(x.dtype)[..., None]

        def flat(layer: nnx.Linear, h: jax.Array) -> jax.Array:
            return layer(h.reshape(batch * length, -1)).reshape(batch, length, -1)

        h = flat(self.project, x)
        for norm, layer, mix in zip(self.norms[:2], self.s4, self.mixes, strict=True):
            # Padding is silenced before every convolution, so that it cannot reach valid packets.
            h = h + nnx.glu(flat(mix, nnx.gelu(layer(norm(h) * valid))))
        features = (self.norms[2](h) * valid).sum(axis=1) / jnp.maximum(valid.sum(axis=1), 1.0)
        return self.head(features), features


def _s4(n_classes: int, width: int) -> Classifier:
    make, call = functional(lambda rngs: _S4Classifier(n_classes, width, rngs=rngs))

    def init(key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        return make(key), {}

    def apply(params, state, x, mask, *, train):
        return *call(params, x, mask), {}

    return Classifier(init, apply, width)


# --- shared ---


def _linear_shapes(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {"kernel": (inputs, outputs), "bias": (outputs,)}


def _draw(key: jax.Array, shapes: dict[str, dict[str, tuple[int, ...]]]) -> dict[str, Any]:
    """Draws layers as PyTorch does: uniform within 1 / sqrt(fan_in) of 0, biases too; kernels end with their output.

    All leaves come out of one vmapped draw, cut to their sizes: compiling a generator for each takes seconds.
    """
    leaves = [(layer, kind, shape) for layer, kinds in shapes.items() for kind, shape in kinds.items()]
    largest = max(math.prod(shape) for _, _, shape in leaves)
    keys = jnp.stack([prng.stream(key, f"{layer} {kind}") for layer, kind, _ in leaves])
    rows = jax.vmap(lambda own: jax.random.uniform(own, (largest,), jnp.float32, -1.0, 1.0))(keys)
    params: dict[str, Any] = {layer: {} for layer in shapes}
    for row, (layer, kind, shape) in zip(rows, leaves, strict=True):
        fan_in = math.prod(shapes[layer]["kernel"][:-1])
        params[layer][kind] = row[: math.prod(shape)].reshape(shape) * fan_in**-0.5
    return params


def _linear(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]
