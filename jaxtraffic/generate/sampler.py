"""The sampling scan: one `lax.scan` from noise to samples, with observers folded into its carry.

A solver is a `Plan`: data (what the network is told, coefficients of every step) plus a small step function. This file
owns the loop, the keys, guidance and the observers, and knows nothing else. Keys are per sample, so that a sample
depends on its own index only: neither on the number of devices nor on how the run is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtraffic import prng
from jaxtraffic.information.observer import Observer


class Prediction(NamedTuple):
    """What the network says about one x; all [batch, T], in the network's own units.

    Attributes:
        guided: unconditional + guidance (conditional - unconditional); what solvers move along.
        conditional: with the label.
        unconditional: without it; None where neither guidance nor an observer needs it.
    """

    guided: jax.Array
    conditional: jax.Array
    unconditional: jax.Array | None


Evaluate = Callable[[jax.Array, int], Prediction]
"""(network input [batch, T], stage of this step) -> Prediction."""

TakeStep = Callable[[Evaluate, jax.Array, Any, jax.Array], tuple[jax.Array, dict[str, Any]]]
"""(evaluate, x [batch, T], the plan's `at` of this step, noise [batch, T]) -> (x_next, info).

info holds "prediction" (the Prediction of stage 0) and "x0" (the estimate of the clean series), and may hold more.
"""


class Plan(NamedTuple):
    """A solver on a grid of steps, in the order of sampling (noise first).

    Attributes:
        time: [step, stage] float32, what the network is told at each evaluation of a step.
        at: pytree of [step, ...] arrays for `take_step`, "t" among them: the process time of stage 0.
        take_step: the step function; static.
        initial: standard deviation of x before the first step.
        weight: [step] float32: sum over steps of weight |conditional - unconditional|^2 (stage 0, summed over packets)
            is the information in nats; the squared form on this grid.
    """

    time: jax.Array
    at: Any
    take_step: TakeStep
    initial: float
    weight: jax.Array

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.time.shape[0]


def sample_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """One key a sample: index [batch] int32 -> keys [batch]."""
    return jax.vmap(lambda i: prng.at_step(prng.stream(key, "sample"), i))(index)


def normal(keys: jax.Array, step: jax.Array | int, length: int) -> jax.Array:
    """Standard normal noise [batch, length] of one step, drawn from per-sample keys [batch]."""
    return jax.vmap(lambda k: jax.random.normal(prng.at_step(k, step), (length,)))(keys)


def run(
    plan: Plan,
    predict: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array | None]],
    keys: jax.Array,
    label: jax.Array,
    length: int,
    *,
    guidance: float = 1.0,
    per_step: Any = None,
    observers: Sequence[Observer] = (),
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Runs the whole chain as one scan.

    Args:
        plan: the solver.
        predict: (x [batch, T], leaves of `per_step` at one step and stage) -> (conditional, unconditional or None).
        keys: [batch] typed keys, one a sample (`sample_keys`).
        label: [batch] int32, handed to the observers.
        length: T.
        guidance: weight w of unconditional + w (conditional - unconditional); 1 is off (Ho and Salimans,
            "Classifier-Free Diffusion Guidance" (2022), equation 6).
        per_step: pytree of [step, stage, ...] arrays for `predict`, such as embeddings of `plan.time`.
        observers: see `Observer`; info holds what `take_step` reports, and "step" [], "at", "x" before and "x_next"
            after the step, "evaluate" and "noise".

    Returns:
        Samples [batch, T] float32 and the result of each observer.
    """
    x = plan.initial * normal(keys, plan.steps, length)
    states = tuple(observer.init(x, label) for observer in observers)

    def body(carry: tuple[jax.Array, tuple[Any, ...]], xs: tuple[jax.Array, Any, Any]) -> tuple[Any, None]:
        x, states = carry
        index, at, own = xs

        def evaluate(x: jax.Array, stage: int) -> Prediction:
            conditional, unconditional = predict(x, jax.tree.map(lambda leaf: leaf[stage], own))
            if guidance == 1 or unconditional is None:
                return Prediction(conditional, conditional, unconditional)
            return Prediction(unconditional + guidance * (conditional - unconditional), conditional, unconditional)

        noise = normal(keys, index, length)
        x_next, info = plan.take_step(evaluate, x, at, noise)
        info = info | {"step": index, "at": at, "x": x, "x_next": x_next, "evaluate": evaluate, "noise": noise}
        states = tuple(observer.update(state, info) for observer, state in zip(observers, states, strict=True))
        return (x_next, states), None

    (x, states), _ = jax.lax.scan(body, (x, states), (jnp.arange(plan.steps), plan.at, per_step))
    return x, tuple(observer.finish(state) for observer, state in zip(observers, states, strict=True))
