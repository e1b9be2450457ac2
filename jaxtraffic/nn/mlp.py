"""Multilayer perceptrons, and critics that score pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.functional import functional

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "silu": jax.nn.silu}
CRITICS = ("concat", "separable")
EMBEDDING = 32
"""Width of the two embeddings whose product a separable critic is."""


class MLP(nnx.Module):
    """Linear layers with an activation between them, none after the last."""

    def __init__(self, sizes: Sequence[int], activation: str, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in zip(sizes[:-1], sizes[1:], strict=True)])
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., sizes[0]] -> [..., sizes[-1]]."""
        # One flat batch: XLA on the CPU takes the fast path for products of two matrices only.
        flat = x.reshape(-1, x.shape[-1])
        for layer in self.layers[:-1]:
            flat = ACTIVATIONS[self.activation](layer(flat))
        return self.layers[-1](flat).reshape(*x.shape[:-1], -1)


class ConcatCritic(nnx.Module):
    """An MLP of (x, y), its first layer split in two so that all pairs of a batch share it."""

    def __init__(self, dim_x: int, dim_y: int, hidden: Sequence[int], rngs: nnx.Rngs):
        self.left_layer = nnx.Linear(dim_x, hidden[0], rngs=rngs)
        self.right_layer = nnx.Linear(dim_y, hidden[0], use_bias=False, rngs=rngs)
        self.body = MLP([*hidden, 1], "relu", rngs)

    def left(self, x: jax.Array) -> jax.Array:
        """What the pairs of x [..., dim_x] share, [..., width]."""
        return self.left_layer(x)

    def right(self, y: jax.Array) -> jax.Array:
        """What the pairs of y [..., dim_y] share, [..., width]."""
        return self.right_layer(y)

    def score(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """Score of each pair, [...]; leading axes broadcast."""
        return self.body(jax.nn.relu(left + right))[..., 0]


class SeparableCritic(nnx.Module):
    """Inner product of an embedding of x and one of y; all pairs of a batch cost one product of matrices."""

    def __init__(self, dim_x: int, dim_y: int, hidden: Sequence[int], rngs: nnx.Rngs):
        self.left_body = MLP([dim_x, *hidden, EMBEDDING], "relu", rngs)
        self.right_body = MLP([dim_y, *hidden, EMBEDDING], "relu", rngs)

    def left(self, x: jax.Array) -> jax.Array:
        """What the pairs of x [..., dim_x] share, [..., width]."""
        return self.left_body(x)

    def right(self, y: jax.Array) -> jax.Array:
        """What the pairs of y [..., dim_y] share, [..., width]."""
        return self.right_body(y)

    def score(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """Score of each pair, [...]; leading axes broadcast."""
        return (left * right).sum(axis=-1) * EMBEDDING**-0.5


class Critic(NamedTuple):
    """A critic f(x, y) = score(left(x), right(y)) as pure functions.

    Attributes:
        init: key -> params.
        left: (params, x [..., dim_x]) -> [..., width].
        right: (params, y [..., dim_y]) -> [..., width].
        score: (params, left [..., width], right [..., width]) -> [...]; leading axes broadcast.
    """

    init: Callable[..., dict]
    left: Callable[..., jax.Array]
    right: Callable[..., jax.Array]
    score: Callable[..., jax.Array]


def make_mlp(sizes: Sequence[int], activation: str = "relu") -> tuple[Callable[..., dict], Callable[..., jax.Array]]:
    """An MLP as `init(key)` and `apply(params, x [..., sizes[0]]) -> [..., sizes[-1]]`.

    Raises:
        ConfigError: unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {activation!r}; choose from {', '.join(ACTIVATIONS)}")
    return functional(lambda rngs: MLP(tuple(sizes), activation, rngs))


def make_critic(kind: str, dim_x: int, dim_y: int, hidden: Sequence[int]) -> Critic:
    """A critic of pairs.

    Args:
        kind: "concat" (an MLP of both, the more able) or "separable" (an inner product of embeddings, the cheaper over
            all pairs).
        dim_x: dimensions of x.
        dim_y: dimensions of y.
        hidden: widths of the hidden layers, at least one.

    Raises:
        ConfigError: unknown kind, or no hidden layer.
    """
    if kind not in CRITICS:
        raise ConfigError(f"unknown critic {kind!r}; choose from {', '.join(CRITICS)}")
    if not hidden or min(hidden) < 1:
        raise ConfigError(f"hidden must be widths of at least one layer, such as (32, 32, 8), got {tuple(hidden)}")
    module = {"concat": ConcatCritic, "separable": SeparableCritic}[kind]
    init, apply = functional(lambda rngs: module(dim_x, dim_y, tuple(hidden), rngs))
    return Critic(
        init,
        lambda params, x: apply(params, x, method="left"),
        lambda params, y: apply(params, y, method="right"),
        lambda params, left, right: apply(params, left, right, method="score"),
    )
