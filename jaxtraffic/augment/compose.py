"""Compositions of operations: in order, one of several, stacked at random (PAM'24, section on combining augmentations).

A composition is called like an operation, on one flow. Under `jax.vmap` a choice between operations becomes a
selection: every flow pays for every branch. `batched` therefore runs choices by blocks of flows: the flows i, i + m, i
+ 2m, ... share one choice, made by a real switch that runs one branch only (measured against the other ways in
benchmarks/augment.py; the table is in benchmarks/README.md). Each flow has the right probabilities; flows of one block
choose together, and the choices of the blocks of a batch are spread evenly (an ensemble of m in m blocks uses each
operation exactly once), which a shuffled batch does not notice. With `blocks=0` every flow chooses independently.

Every m-th flow and not neighbours: a batch that is sharded over devices stays where it is, as long as the devices
divide the flows of a block (B / m); else XLA gathers it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.augment import draws
from jaxtraffic.augment.blocks import by_blocks, dividing, systematic
from jaxtraffic.augment.operation import Operation, check_alpha, check_count, check_key, check_share, check_stats
from jaxtraffic.errors import ConfigError

Flow = tuple[jax.Array, jax.Array]


def batched(op: Any) -> Any:
    """The function on batches that belongs to an operation or a composition of operations on one flow.

    Args:
        op: an operation, a composition or `cutmix`.

    Returns:
        `f(key, x, mask, alpha=1.0, *, stats=None, label=None) -> (x, mask)` with x [B, T, 3], mask [B, T], alpha [] or
        [B], stats with leaves [B, ...], label [B] (for `cutmix` alone). One key serves the batch; of a plain operation
        flow i gets the i-th of `jax.random.split(key, B)`. Equal operations give the same function, so that
        `jax.jit(batched(op))` compiles once; do jit it, outside of it compositions are compiled anew at every call.
        Shardings: meshes with Auto axes, as everywhere in jaxtraffic.

    Raises:
        ConfigError: at trace time: no batch, or flows, masks and magnitudes that do not fit.
    """
    check_op("batched", op)
    return _batched(op)


@functools.cache
def _batched(op: Any) -> Any:
    return functools.partial(run_batch, op)


def run_batch(
    op: Any, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: Any = 1.0, *, stats: Any = None, label: Any = None
) -> Flow:
    """`batched(op)(key, x, mask, alpha, stats=stats, label=label)`, for operations whose options hold traced values.

    `batched` keeps the operations that it is given, which must not happen to a value of a trace.
    """
    check_key(op.name, key)
    _check_batch(op, x, mask)
    alpha = jnp.broadcast_to(check_alpha(op.name, alpha, ((), x.shape[:1])), x.shape[:1])
    stats = stats if op.needs_stats else None
    if stats is not None:
        check_stats(op.name, stats, mask.shape[1], x.shape[:1])
    return _run(op, key, jnp.asarray(x), jnp.asarray(mask), alpha, stats, label)


def check_op(where: str, op: Any) -> None:
    """Refuses anything but an operation or a composition."""
    if not isinstance(op, Operation | Composition):
        raise ConfigError(
            f"{where}: {op!r} is no operation; take one such as augment.wrap or augment.get('wrap'), or a composition"
        )


def _check_batch(op: Any, x: Any, mask: Any) -> None:
    shapes = tuple(getattr(x, "shape", ())), tuple(getattr(mask, "shape", ()))
    if len(shapes[0]) != 3 or shapes[0][:2] != shapes[1]:
        raise ConfigError(
            f"augment.batched({op.name}): x of shape {shapes[0]} with mask {shapes[1]}, expected [flow, packet, 3] and "
            "[flow, packet]; for one flow call the operation itself"
        )


def _run(op: Any, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any, label: Any) -> Flow:
    if isinstance(op, Composition):
        return op._on_batch(key, x, mask, alpha, stats, label)
    if op.batch:
        return op(key, x, mask, label=label)
    keys = jax.random.split(key, x.shape[0])
    if op.needs_stats and stats is not None:
        return jax.vmap(lambda k, x, m, a, s: op(k, x, m, a, stats=s))(keys, x, mask, alpha, stats)
    return jax.vmap(op)(keys, x, mask, alpha)


@dataclasses.dataclass(frozen=True)
class Composition:
    """Base of the compositions: hashable values, called like an operation on one flow."""

    label: ClassVar[str]

    ops: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Checks the parts."""
        if not self.ops:
            raise ConfigError(f"{self.label} of nothing; give at least one operation")
        for op in self.ops:
            check_op(self.label, op)
        self._check()

    @property
    def name(self) -> str:
        """What it is made of, such as sequential(wrap, dup_rto)."""
        return f"{self.label}({', '.join(op.name for op in self.ops)})"

    @property
    def needs_stats(self) -> bool:
        """Whether a part takes stats=."""
        return any(op.needs_stats for op in self.ops)

    @property
    def batch(self) -> bool:
        """Whether a part takes whole batches; the composition then works through `batched` only."""
        return any(op.batch for op in self.ops)

    def __call__(self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: Any = 1.0, *, stats: Any = None) -> Flow:
        """One flow: (x [T, 3], mask [T]) -> the same shapes and dtypes; all parts have the magnitude `alpha`.

        Raises:
            ConfigError: at trace time, as the parts do.
        """
        check_key(self.name, key)
        return self._on_flow(key, x, mask, alpha, stats)

    def _check(self) -> None:
        """Raises ConfigError for options out of range."""

    def _on_flow(self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: Any, stats: Any) -> Flow:
        raise NotImplementedError

    def _on_batch(
        self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any, label: Any
    ) -> Flow:
        raise NotImplementedError


def _call(op: Any, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: Any, stats: Any) -> Flow:
    return op(key, x, mask, alpha, stats=stats) if op.needs_stats else op(key, x, mask, alpha)


class Sequential(Composition):
    """All operations in order; stage i draws from `fold_in(key, i)`, whatever comes after it."""

    label: ClassVar[str] = "sequential"

    def _on_flow(self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: Any, stats: Any) -> Flow:
        """One flow through all stages."""
        for i, op in enumerate(self.ops):
            x, mask = _call(op, jax.random.fold_in(key, i), x, mask, alpha, stats)
        return x, mask

    def _on_batch(
        self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any, label: Any
    ) -> Flow:
        for i, op in enumerate(self.ops):
            x, mask = _run(op, jax.random.fold_in(key, i), x, mask, alpha, stats, label)
        return x, mask


@dataclasses.dataclass(frozen=True)
class Blocked(Composition):
    """Compositions that choose: on a batch one choice a block of flows, or with blocks=0 one a flow."""

    blocks: int | None = dataclasses.field(default=None, kw_only=True)

    def _check(self) -> None:
        if self.blocks is not None:
            check_count(self.label, "blocks", self.blocks, 0)

    def _default_blocks(self) -> int:
        return 8

    def _on_blocks(self, blocks: int, key: jax.Array, flows: tuple[Any, ...]) -> Flow:
        raise NotImplementedError

    def _on_batch(
        self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any, label: Any
    ) -> Flow:
        blocks = self._default_blocks() if self.blocks is None else self.blocks
        if blocks == 0:
            return jax.vmap(_branch(self))(jax.random.split(key, x.shape[0]), x, mask, alpha, stats)
        return self._on_blocks(dividing(blocks, x.shape[0], self.batch), key, (x, mask, alpha, stats, label))


@dataclasses.dataclass(frozen=True)
class MaskedStack(Blocked):
    """All operations in order, each with probability `p_apply`, independently of the others."""

    label: ClassVar[str] = "masked_stack"

    p_apply: float = 0.5

    def _check(self) -> None:
        super()._check()
        check_share(self.label, "p_apply", self.p_apply)

    def _on_flow(self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: Any, stats: Any) -> Flow:
        """One flow: all stages run, and the results of those drawn are taken."""
        takes = draws.unit(draws.words(jax.random.fold_in(key, 0), len(self.ops))) < self.p_apply
        keys = jax.random.split(jax.random.fold_in(key, 1), len(self.ops))
        for op, take, own in zip(self.ops, takes, keys, strict=True):
            new_x, new_mask = _call(op, own, x, mask, alpha, stats)
            x, mask = jnp.where(take, new_x, x), jnp.where(take, new_mask, mask)
        return x, mask

    def _on_blocks(self, blocks: int, key: jax.Array, flows: tuple[Any, ...]) -> Flow:
        draw, key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        takes = [systematic(jax.random.fold_in(draw, i), blocks) < self.p_apply for i in range(len(self.ops))]

        def run(block: jax.Array, key: jax.Array, x: jax.Array, mask: jax.Array, *others: Any) -> Flow:
            for i, op in enumerate(self.ops):
                own = jax.random.fold_in(key, i)
                x, mask = jax.lax.cond(
                    takes[i][block], _batch_branch(op), lambda _, x, mask, *rest: (x, mask), own, x, mask, *others
                )
            return x, mask

        return by_blocks(run, blocks, key, flows)


class Maybe(MaskedStack):
    """One operation with probability `p_apply`."""

    label: ClassVar[str] = "maybe"


@dataclasses.dataclass(frozen=True)
class OneOf(Blocked):
    """One of several operations for each flow, by weight."""

    label: ClassVar[str] = "one_of"

    weights: tuple[float, ...] | None = None

    def _check(self) -> None:
        super()._check()
        weights = self.weights
        if weights is None:
            return
        if len(weights) != len(self.ops):
            raise ConfigError(f"one_of: {len(weights)} weights for {len(self.ops)} operations; give one for each")
        if not all(isinstance(w, numbers.Real) and w >= 0 for w in weights) or not sum(weights) > 0:
            raise ConfigError(f"one_of: weights {weights}; give numbers >= 0, not all of them 0")

    def _on_flow(self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: Any, stats: Any) -> Flow:
        """One flow through one operation; under vmap all operations run and one result is selected."""
        choice = self._choose(draws.unit(draws.words(jax.random.fold_in(key, 0))))
        branches = [_branch(op) for op in self.ops]
        return jax.lax.switch(choice, branches, jax.random.fold_in(key, 1), x, mask, alpha, stats)

    def _choose(self, u: jax.Array) -> jax.Array:
        """Uniform numbers in [0, 1) -> index of an operation, int32."""
        weights = np.ones(len(self.ops)) if self.weights is None else np.asarray(self.weights, np.float64)
        cumulative = np.cumsum(weights / weights.sum())[:-1].astype(np.float32)
        return jnp.sum(u[..., None] >= cumulative, axis=-1, dtype=jnp.int32)

    def _default_blocks(self) -> int:
        return len(self.ops) if self.weights is None else 4 * len(self.ops)

    def _on_blocks(self, blocks: int, key: jax.Array, flows: tuple[Any, ...]) -> Flow:
        draw, key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        choice = self._choose(systematic(draw, blocks))
        branches = [_batch_branch(op) for op in self.ops]

        def run(block: jax.Array, key: jax.Array, *flows: Any) -> Flow:
            return jax.lax.switch(choice[block], branches, key, *flows)

        return by_blocks(run, blocks, key, flows)


class RandomStack(Blocked):
    """All operations in random order, uniform over all orders; operation i draws from the same key in any order."""

    label: ClassVar[str] = "random_stack"

    def _on_flow(self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: Any, stats: Any) -> Flow:
        """One flow through all operations; under vmap every stage runs every operation."""
        return self._stack([_branch(op) for op in self.ops], key, x, mask, alpha, stats)

    def _stack(self, branches: list[Any], key: jax.Array, x: jax.Array, mask: jax.Array, *others: Any) -> Flow:
        order = jnp.argsort(draws.words(jax.random.fold_in(key, 0), len(self.ops)))
        keys = jax.random.split(jax.random.fold_in(key, 1), len(self.ops))

        def stage(flow: Flow, i: jax.Array) -> tuple[Flow, None]:
            return jax.lax.switch(i, branches, keys[i], *flow, *others), None

        return jax.lax.scan(stage, (x, mask), order)[0]

    def _default_blocks(self) -> int:
        return min(8, math.factorial(len(self.ops)))

    def _on_blocks(self, blocks: int, key: jax.Array, flows: tuple[Any, ...]) -> Flow:
        branches = [_batch_branch(op) for op in self.ops]

        def run(block: jax.Array, key: jax.Array, *flows: Any) -> Flow:
            return self._stack(branches, key, *flows)

        return by_blocks(run, blocks, key, flows)


def _branch(op: Any) -> Any:
    return lambda key, x, mask, alpha, stats: _call(op, key, x, mask, alpha, stats)


def _batch_branch(op: Any) -> Any:
    return lambda key, x, mask, alpha, stats, label: _run(op, key, x, mask, alpha, stats, label)


def sequential(*ops: Any) -> Sequential:
    """All operations in order."""
    return Sequential(ops)


def maybe(op: Any, p: float, *, blocks: int | None = None) -> Maybe:
    """The operation with probability p in [0, 1]; `blocks` as in `masked_stack`."""
    return Maybe((op,), p, blocks=blocks)


def one_of(*ops: Any, weights: tuple[float, ...] | None = None, blocks: int | None = None) -> OneOf:
    """One of the operations for each flow, with probabilities in proportion to `weights` (default: equal).

    Args:
        ops: operations or compositions.
        weights: one number >= 0 for each.
        blocks: in `batched`: blocks of flows that choose together (default: one an operation, four with weights);
            1: one choice a batch; 0: each flow on its own, at the cost of running every operation for every flow.
    """
    return OneOf(ops, None if weights is None else tuple(weights), blocks=blocks)


def ensemble(*ops: Any, blocks: int | None = None) -> OneOf:
    """PAM'24's Ensemble: one of the operations for each flow, all with equal probability; `blocks` as in `one_of`."""
    return one_of(*ops, blocks=blocks)


def random_stack(*ops: Any, blocks: int | None = None) -> RandomStack:
    """PAM'24's RandomStack: all operations, in random order.

    Args:
        ops: operations or compositions.
        blocks: in `batched`: blocks of flows that share an order (default: up to 8); 0: each flow on its own, at the
            cost of running every operation at every stage.
    """
    return RandomStack(ops, blocks=blocks)


def masked_stack(*ops: Any, p_apply: float = 0.5, blocks: int | None = None) -> MaskedStack:
    """PAM'24's MaskedStack: the operations in the given order, each applied with probability `p_apply`.

    The paper calls p in {0.3, 0.5, 0.7} a masking probability and does not say whether p skips or applies: if it skips,
    its 0.3 is p_apply = 0.7 here and its 0.7 is p_apply = 0.3; if it applies, p_apply = p. For a random order take
    `random_stack(*(maybe(op, p_apply) for op in ops))`.

    Args:
        ops: operations or compositions.
        p_apply: in [0, 1].
        blocks: in `batched`: blocks of flows that share a draw (default: 8); 0: each flow on its own, at the cost of
            running every operation for every flow.
    """
    return MaskedStack(ops, p_apply, blocks=blocks)
