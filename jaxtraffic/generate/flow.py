"""Rectified flow (conditional flow matching on the straight path): loss, Euler, Heun and midpoint.

x_t = t x_1 + (1 - t) x_0 from noise x_0 at t = 0 to data x_1 at t = 1; the network predicts the velocity x_1 - x_0.
Source: Liu, Gong, Liu, "Flow Straight and Fast" (2022), equation 1 and algorithm 1; Lipman et al., "Flow Matching for
Generative Modeling" (2022); logit-normal times: Esser et al., "Scaling Rectified Flow Transformers" (2024), eq. 19.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import process, runge_kutta
from jaxtraffic.generate.sampler import Plan

TIME_LAWS = ("uniform", "logit-normal")


@dataclasses.dataclass(frozen=True)
class Flow:
    """Rectified flow with its law of training times."""

    time_law: str = "uniform"
    steps: int = 50
    """Sampling steps where none are asked for; with Heun as many evaluations as 100 DDPM steps."""

    solvers: ClassVar[tuple[str, ...]] = ("heun", "euler", "midpoint")

    def __post_init__(self) -> None:
        """Checks the law."""
        if self.time_law not in TIME_LAWS:
            raise ConfigError(f"unknown time law {self.time_law!r}; choose from {', '.join(TIME_LAWS)}")

    def loss(
        self,
        denoise: process.Denoise,
        key: jax.Array,
        x0: jax.Array,
        label: jax.Array,
        *,
        class_dropout: float = 0.0,
        no_class: int = -1,
        noise: jax.Array | None = None,
    ) -> jax.Array:
        """Squared error [batch] of the velocity at one random time each; see `process.Process`. `x0` is the data."""
        t = draw_times(prng.stream(key, "time"), label.shape, self.time_law)
        start = process.fresh_noise(key, x0, noise)
        label = process.hide_labels(key, label, class_dropout, no_class)
        x = t[:, None] * x0 + (1 - t[:, None]) * start
        return jnp.mean((denoise(x, process.TIME * t, label) - (x0 - start)) ** 2, axis=-1)

    def plan(
        self,
        *,
        solver: str | None = None,
        steps: int | None = None,
        eta: float | None = None,
        churn: float = 0.0,
        clip: float | None = None,
    ) -> Plan:
        """A solver of dx/dt = velocity on equal steps; see `process.Process`."""
        solver = process.choose("flow", self.solvers, solver)
        process.refuse("eta", eta, unless=None, fits="vp and ddim")
        process.refuse("churn", churn, unless=0.0, fits="edm")
        nodes = np.linspace(0.0, 1.0, process.check_steps(self.steps if steps is None else steps) + 1)
        start, size = nodes[:-1], np.diff(nodes)
        t = runge_kutta.stage_times(solver, start, size)
        # At t = 1 the estimate of the data is x itself, and clipping it says nothing about the velocity.
        before = np.where(t < 1, 1 - t, 1.0)
        stage = runge_kutta.Stage(1.0, 1.0, 1 - t, 0.0, 1.0, np.where(t < 1, 1 / before, 0.0))
        return runge_kutta.make_plan(
            solver,
            start=start,
            size=size,
            stage=stage,
            told=process.TIME * t,
            weight=process.information_weight(start, 1 - start, start),
            initial=1.0,
            clip=clip,
        )


def draw_times(key: jax.Array, shape: tuple[int, ...], law: str) -> jax.Array:
    """Training times in [0, 1): uniform, or the logistic function of a standard normal."""
    if law == "uniform":
        return jax.random.uniform(key, shape)
    return jax.nn.sigmoid(jax.random.normal(key, shape))
