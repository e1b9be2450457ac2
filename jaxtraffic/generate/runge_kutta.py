"""One step function for the solvers of continuous-time processes: Euler, Heun, midpoint, Euler-Maruyama, churn.

The right-hand side of each process is affine in the network's output, so that a solver is nothing but coefficients: a
plan holds them for every step and stage, and `make_step` returns the function that uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.generate.sampler import Evaluate, Plan, TakeStep

TABLEAUS = {
    "euler": (0.0, 1.0, 0.0),
    "heun": (1.0, 0.5, 0.5),
    "midpoint": (0.5, 0.0, 1.0),
}
"""Position of the second evaluation within a step, and weights of the first and the second slope."""


class Stage(NamedTuple):
    """Coefficients of evaluations; all broadcast to [step, stage].

    With output F = network(input x): x_0 = x0_of_x x + x0_of_output F and dx/dt = slope_of_x x + slope_of_output F.

    Attributes:
        input: the network sees input times x.
        x0_of_x: see above.
        x0_of_output: see above.
        slope_of_x: see above.
        slope_of_output: see above.
        slope_of_x0: what clipping the estimate of x_0 by one unit does to dx/dt.
    """

    input: Any
    x0_of_x: Any
    x0_of_output: Any
    slope_of_x: Any
    slope_of_output: Any
    slope_of_x0: Any


def stage_times(solver: str, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Times of the evaluations [step, stage] of steps from `start` [step] of `size` [step]."""
    return start[:, None] if solver == "euler" else np.stack([start, start + TABLEAUS[solver][0] * size], axis=1)


def make_plan(
    solver: str,
    *,
    start: np.ndarray,
    size: np.ndarray,
    stage: Stage,
    told: np.ndarray,
    weight: np.ndarray,
    initial: float,
    clip: float | None,
    direct_end: bool = False,
    deviation: np.ndarray | float = 0.0,
    churn: np.ndarray | float = 0.0,
) -> Plan:
    """A plan of float32 arrays from float64 ones.

    Args:
        solver: a key of `TABLEAUS`.
        start: [step] process times, from noise to data.
        size: [step] lengths of the steps, negative where time runs backwards.
        stage: coefficients, [step, stage] or scalars.
        told: [step, stage], what the network is told of time.
        weight: [step], see `Plan`.
        initial: standard deviation of x before the first step.
        clip: bound of the estimate of the clean series, or None.
        direct_end: the last step uses its first slope alone (where the second cannot be evaluated).
        deviation: [step], standard deviation of the noise added after a step.
        churn: [step], standard deviation of the noise added before it; the coefficients belong to x with that noise.
    """
    steps = len(start)
    second, first_weight, second_weight = (np.full(steps, value) for value in TABLEAUS[solver])
    if direct_end:
        first_weight[-1], second_weight[-1] = 1.0, 0.0
    at = {
        "t": start,
        "step": size,
        "stage": Stage(*(np.broadcast_to(leaf, told.shape) for leaf in stage)),
        "second": second,
        "first_weight": first_weight,
        "second_weight": second_weight,
        "deviation": np.broadcast_to(deviation, (steps,)),
        "churn": np.broadcast_to(churn, (steps,)),
    }
    told, at, weight = jax.tree.map(lambda leaf: np.array(leaf, np.float32), (told, at, weight))
    return Plan(told, at, make_step(told.shape[1], clip, noisy=bool(at["deviation"].any())), initial, weight)


def make_step(stages: int, clip: float | None, *, noisy: bool) -> TakeStep:
    """The step function of solvers with one or two stages; see `make_plan` for what `at` holds."""

    def take_step(
        evaluate: Evaluate, x: jax.Array, at: dict[str, Any], noise: jax.Array
    ) -> tuple[jax.Array, dict[str, Any]]:
        x = x + at["churn"] * noise
        predicted, x0, slope = _look(evaluate, x, at["stage"], 0, clip)
        if stages == 2:
            there = x + at["second"] * at["step"] * slope
            slope = at["first_weight"] * slope + at["second_weight"] * _look(evaluate, there, at["stage"], 1, clip)[2]
        x_next = x + at["step"] * slope
        if noisy:
            x_next = x_next + at["deviation"] * noise
        return x_next, {"prediction": predicted, "x0": x0}

    return take_step


def _look(evaluate: Callable[..., Any], x: jax.Array, stages: Stage, number: int, clip: float | None) -> Any:
    """Prediction, estimate of the clean series and slope of one evaluation."""
    stage = Stage(*(leaf[number] for leaf in stages))
    predicted = evaluate(stage.input * x, number)
    x0 = stage.x0_of_x * x + stage.x0_of_output * predicted.guided
    slope = stage.slope_of_x * x + stage.slope_of_output * predicted.guided
    if clip is not None:
        clipped = jnp.clip(x0, -clip, clip)
        x0, slope = clipped, slope + stage.slope_of_x0 * (clipped - x0)
    return predicted, x0, slope
