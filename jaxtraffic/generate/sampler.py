"""The sampling scan: one `lax.scan` from noise to samples, with observers folded into its carry.

A process (DDPM here; others are data plus a small step function too) says how one step is taken; this file owns the
loop, the keys and the observers, and knows nothing else. Keys are per sample, so that a sample depends on its own
index only: neither on the number of devices nor on how the run is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtraffic import prng


class Observer(NamedTuple):
    """Folds what happens during sampling into a statistic, at no extra pass.

    Attributes:
        init: (x [batch, T], label [batch]) -> state; keep its leaves per sample (leading axis batch), so that no
            collective enters the program.
        update: (state, info) -> state; info holds "step" [], "x" before and "x_next" after the step, and whatever the
            process reports, such as "x0", "prediction" and, with guidance, "unconditional", all [batch, T].
        finish: state -> result, with leading axis batch.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    update: Callable[[Any, dict[str, jax.Array]], Any]
    finish: Callable[[Any], Any] = lambda state: state


Step = Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def sample_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """One key a sample: index [batch] int32 -> keys [batch]."""
    return jax.vmap(lambda i: prng.at_step(prng.stream(key, "sample"), i))(index)


def normal(keys: jax.Array, step: jax.Array | int, length: int) -> jax.Array:
    """Standard normal noise [batch, length] of one step, drawn from per-sample keys [batch]."""
    return jax.vmap(lambda k: jax.random.normal(prng.at_step(k, step), (length,)))(keys)


def run(
    take_step: Step,
    schedule: Any,
    keys: jax.Array,
    label: jax.Array,
    length: int,
    *,
    observers: Sequence[Observer] = (),
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Runs the whole chain as one scan.

    Args:
        take_step: (x [batch, T], the schedule's leaves of one step, noise [batch, T]) -> (x_next, info).
        schedule: pytree of [step, ...] arrays in the order of sampling, whatever depends on the step alone.
        keys: [batch] typed keys, one a sample (`sample_keys`).
        label: [batch] int32, handed to the observers.
        length: T.
        observers: see `Observer`.

    Returns:
        Samples [batch, T] float32 and the result of each observer.
    """
    steps = jax.tree.leaves(schedule)[0].shape[0]
    x = normal(keys, steps, length)
    states = tuple(observer.init(x, label) for observer in observers)

    def body(carry: tuple[jax.Array, tuple[Any, ...]], xs: tuple[jax.Array, Any]) -> tuple[Any, None]:
        x, states = carry
        index, at = xs
        x_next, info = take_step(x, at, normal(keys, index, length))
        info = info | {"step": index, "x": x, "x_next": x_next}
        states = tuple(observer.update(state, info) for observer, state in zip(observers, states, strict=True))
        return (x_next, states), None

    (x, states), _ = jax.lax.scan(body, (x, states), (jnp.arange(steps), schedule))
    return x, tuple(observer.finish(state) for observer, state in zip(observers, states, strict=True))
