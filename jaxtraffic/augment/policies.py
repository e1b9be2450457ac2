"""Batching policies: how augmented flows enter a training step (PAM'24, section on batching policies).

A policy is a function from (key, batch) to batch of fixed shapes, to be called inside the jitted step, which then fuses
it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.augment import draws
from jaxtraffic.augment.compose import check_op, run_batch
from jaxtraffic.augment.operation import FlowStatistics, check_count, check_share
from jaxtraffic.errors import ConfigError


class Batch(NamedTuple):
    """Flows of a step.

    Attributes:
        x: [B, T, 3] features.
        mask: [B, T] bool.
        label: [B] integers.
    """

    x: jax.Array
    mask: jax.Array
    label: jax.Array


Policy = Callable[..., Batch]


def replace(op: Any, p: float) -> Policy:
    """PAM'24's Replace: each flow of the batch is augmented with probability p.

    Args:
        op: operation or composition.
        p: in [0, 1].

    Returns:
        `policy(key, batch, *, alpha=None, stats=None)`: `Batch` of the same shapes. alpha: [] or [B], or None for U[0,
        1] for each flow. stats, for operations that need them: `scaling.ClassStatistics`, indexed by the labels here,
        or a `FlowStatistics` for all flows (unlabelled data).

    Raises:
        ConfigError: p outside [0, 1]; at trace time labels that are no integers and what the operation refuses.
    """
    check_op("replace", op)
    check_share("replace", "p", p)

    def policy(key: jax.Array, batch: Batch, *, alpha: Any = None, stats: Any = None) -> Batch:
        _check(batch)
        x, mask = _augment(op, key, batch, alpha, stats)
        take = draws.unit(draws.words(jax.random.fold_in(key, 2), x.shape[0])) < p
        x, mask = jnp.where(take[:, None, None], x, batch.x), jnp.where(take[:, None], mask, batch.mask)
        return Batch(x, mask, batch.label)

    return policy


def inject(op: Any, n: int) -> Policy:
    """PAM'24's Inject: the batch and n augmented copies of it, made anew in each step.

    To train with a step of constant size take batches of step / (n + 1) flows (PAM'24: 512 with n = 1 for 1024).

    Args:
        op: operation or composition.
        n: copies, >= 1.

    Returns:
        `policy(key, batch, *, alpha=None, stats=None)`: `Batch` of (n + 1) B flows, each flow followed by its copies:
        `x[:: n + 1]` are the originals; labels are theirs. alpha and stats as in `replace`.

    Raises:
        ConfigError: n below 1; at trace time what the operation refuses.
    """
    return _copying("inject", op, n)


def pre_augment(op: Any, n: int) -> Policy:
    """PAM'24's Pre-augment: a training set and n augmented copies of it, made once before training.

    Call it once, jitted, with the whole set as batch; copies are made one after the other, so that the memory is that
    of the result and one copy.

    Args:
        op: operation or composition.
        n: copies, >= 1 (PAM'24: 10).

    Returns:
        `policy(key, batch, *, alpha=None, stats=None)`: `Batch` of (n + 1) N flows, each flow followed by its
        copies.

    Raises:
        ConfigError: n below 1; at trace time what the operation refuses.
    """
    return _copying("pre_augment", op, n)


def _copying(name: str, op: Any, n: int) -> Policy:
    check_op(name, op)
    check_count(name, "n", n, 1)
    return lambda key, batch, *, alpha=None, stats=None: _with_copies(op, n, key, batch, alpha, stats)


def _with_copies(op: Any, n: int, key: jax.Array, batch: Batch, alpha: Any, stats: Any) -> Batch:
    _check(batch)
    flows = batch.x.shape[0]
    # Copies are written into the result one by one (its memory and that of one copy), beside their originals, so that a
    # batch that is sharded over devices stays where it is.
    out = tuple(jnp.broadcast_to(own[:, None], (flows, n + 1, *own.shape[1:])) for own in batch[:2])

    def add(i: jax.Array, out: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        copy = _augment(op, jax.random.fold_in(key, i), batch, alpha, stats)
        pairs = zip(out, copy, strict=True)
        return tuple(jax.lax.dynamic_update_index_in_dim(all_, one, i + 1, 1) for all_, one in pairs)

    x, mask = (all_.reshape(-1, *all_.shape[2:]) for all_ in jax.lax.fori_loop(0, n, add, out))
    return Batch(x, mask, jnp.repeat(batch.label, n + 1))


def _check(batch: Any) -> None:
    if not isinstance(batch, Batch):
        raise ConfigError(f"a policy takes augment.Batch(x, mask, label), not {type(batch).__name__}")
    if not jnp.issubdtype(batch.label.dtype, jnp.integer):
        raise ConfigError(
            f"a policy takes integer labels, not {batch.label.dtype}; convert them: label.astype(jnp.int32)"
        )


def _augment(op: Any, key: jax.Array, batch: Batch, alpha: Any, stats: Any) -> tuple[jax.Array, jax.Array]:
    flows = batch.x.shape[0]
    if alpha is None:
        alpha = draws.unit(draws.words(jax.random.fold_in(key, 0), flows))
    if not op.needs_stats or stats is None:
        own = None
    elif isinstance(stats, FlowStatistics):
        own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (flows, *leaf.shape)), stats)
    else:
        own = stats[batch.label]
    label = batch.label if op.batch else None
    return run_batch(op, jax.random.fold_in(key, 1), batch.x, batch.mask, alpha, stats=own, label=label)


def changed_fraction(x: jax.Array, mask: jax.Array, new_x: jax.Array, new_mask: jax.Array) -> jax.Array:
    """Share of flows that an augmentation changed, worth logging: losses leave about half of the flows as they are.

    Args:
        x: [B, T, 3].
        mask: [B, T] bool.
        new_x: [B, T, 3], after the augmentation.
        new_mask: [B, T] bool.

    Returns:
        [] float32: flows whose mask, or a valid packet, differs; padding does not count.
    """
    differs = (mask != new_mask) | (mask & jnp.any(x != new_x, axis=-1))
    return jnp.mean(jnp.any(differs, axis=-1).astype(jnp.float32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassWeightedSampler:
    """Draws flows so that every class comes up equally often; a pytree, to be handed to the jitted step.

    Attributes:
        order: [N] int32, flows by class.
        start: [class] int32, first place of each class in `order`.
        size: [class] int32, flows of each class.
        cumulative: [class] float32, cumulative probability of the classes.
    """

    order: jax.Array
    start: jax.Array
    size: jax.Array
    cumulative: jax.Array

    def __call__(self, key: jax.Array, count: int) -> jax.Array:
        """Draws `count` flows with replacement: indices [count] int32."""
        choose, within = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        chosen = jnp.searchsorted(self.cumulative, draws.unit(draws.words(choose, count)), side="right")
        chosen = jnp.minimum(chosen, self.size.shape[0] - 1)
        place = jax.random.randint(within, (count,), 0, self.size[chosen], jnp.int32)
        return self.order[self.start[chosen] + place]


def class_weighted(label: Any, classes: int, *, power: float = 1.0) -> ClassWeightedSampler:
    """The class-weighted sampler: the probability of a flow is size(class)^-power, up to a factor.

    Args:
        label: [N] integers, on the host.
        classes: number of classes; empty ones are never drawn.
        power: 1 (default): classes come up equally often, as in PAM'24; 0: in proportion to their flows.

    Returns:
        `sampler(key, count)` -> indices [count] int32.

    Raises:
        ConfigError: no flows, labels that are no integers in 0..classes-1, or a power that is not finite.
    """
    label = np.asarray(label)
    if label.ndim == 1 and label.size and not np.issubdtype(label.dtype, np.integer):
        raise ConfigError(f"class_weighted: labels of type {label.dtype}; give integers")
    if not np.isfinite(power):
        raise ConfigError(f"class_weighted: power={power}; give a finite number, 1 for equal classes")
    if label.ndim != 1 or not label.size:
        raise ConfigError(
            f"class_weighted: label of shape {label.shape}; give the classes of at least one flow, [flow]"
        )
    if label.min() < 0 or label.max() >= classes:
        raise ConfigError(f"class_weighted: labels {label.min()}..{label.max()}, expected 0..{classes - 1}")
    size = np.bincount(label, minlength=classes)
    weight = np.where(size > 0, np.maximum(size, 1).astype(np.float64) ** (1 - power), 0)
    cumulative = np.cumsum(weight) / weight.sum()
    # Above the last class with flows lies nothing, whatever the rounding.
    cumulative[np.flatnonzero(size)[-1] :] = 1.0
    start = np.cumsum(size) - size
    order = np.argsort(label, kind="stable")
    arrays = (order.astype(np.int32), start.astype(np.int32), size.astype(np.int32), cumulative.astype(np.float32))
    return ClassWeightedSampler(*map(jnp.asarray, arrays))
