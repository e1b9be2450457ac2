"""What a generative process is: a training loss, and plans of its solvers; and what all processes share.

Every process here mixes clean series and noise as x = signal x_0 + noise eps. Its plan is data for the one sampling
scan (`sampler.run`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate.sampler import Plan
from jaxtraffic.information import quadrature

TIME = 100.0
"""Processes on the time interval [0, 1] tell the network 100 t: its sinusoids were made for steps 0..99 of DDPM."""

Denoise = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(network input [batch, T], what the network is told of time [batch], label [batch] int32) -> output [batch, T]."""


class Process(Protocol):
    """A process with its parameters; hashable and without arrays of its own.

    Attributes:
        solvers: names of its solvers, the default first.
    """

    solvers: tuple[str, ...]

    def loss(
        self,
        denoise: Denoise,
        key: jax.Array,
        x0: jax.Array,
        label: jax.Array,
        *,
        class_dropout: float = 0.0,
        no_class: int = -1,
        noise: jax.Array | None = None,
    ) -> jax.Array:
        """Per-sample loss [batch] of clean scaled series x0 [batch, T] at one random time each.

        `noise` [batch, T] stands in for fresh standard normal noise (couplings of reflow).
        """
        ...

    def plan(
        self,
        *,
        solver: str | None = None,
        steps: int | None = None,
        eta: float | None = None,
        churn: float = 0.0,
        clip: float | None = None,
    ) -> Plan:
        """The plan of a solver.

        Args:
            solver: one of `solvers`; None is the first.
            steps: number of steps; None is the process' default.
            eta: share of randomness, for solvers that have one; None is the solver's default.
            churn: EDM's S_churn; 0 for all others.
            clip: bound of the estimate of the clean series, or None.

        Raises:
            ConfigError: options that do not fit together.
        """
        ...


def hide_labels(key: jax.Array, label: jax.Array, share: float, no_class: int) -> jax.Array:
    """Replaces each label [batch] by `no_class` with probability `share`; `key` is that of the training step."""
    if not share:
        return label
    return jnp.where(jax.random.bernoulli(prng.stream(key, "class"), share, label.shape), no_class, label)


def fresh_noise(key: jax.Array, like: jax.Array, given: jax.Array | None = None) -> jax.Array:
    """Standard normal noise in the shape of `like`, or the given one; `key` is that of the training step."""
    return jax.random.normal(prng.stream(key, "noise"), like.shape) if given is None else given


def choose(process: str, solvers: tuple[str, ...], solver: str | None) -> str:
    """The named solver, or the process' default.

    Raises:
        ConfigError: the process has no such solver.
    """
    if solver is not None and solver not in solvers:
        raise ConfigError(f"process {process} has no solver {solver!r}; choose from {', '.join(solvers)}")
    return solvers[0] if solver is None else solver


def refuse(what: str, value: Any, *, unless: Any, fits: str) -> None:
    """Raises ConfigError where an option has a value other than `unless` although it means nothing here."""
    if value != unless:
        raise ConfigError(f"{what} {value} fits {fits} only; leave it at {unless}")


def check_steps(steps: int, least: int = 1) -> int:
    """The number of sampling steps.

    Raises:
        ConfigError: it is too small.
    """
    if steps < least:
        raise ConfigError(f"sampling steps must be at least {least}, got {steps}")
    return steps


def information_weight(signal: np.ndarray, noise: np.ndarray, eps_of_output: np.ndarray) -> np.ndarray:
    """Weights of |conditional - unconditional|^2 on any grid of a process x = signal x_0 + noise eps.

    The information is int 1/2 |d eps|^2 d(log SNR) (information.md 5; Guo, Shamai, Verdu 2005 in terms of the noise).
    With tau = signal / (signal + noise), the time of the rectified flow at the same SNR, it is
    int |d eps|^2 / (tau (1 - tau)) d tau, whose integrand is linear in tau at both ends, where the difference of the
    noises vanishes as tau and as 1 - tau: the trapezoid in tau with zeros at 0 and 1 needs no cut. For the rectified
    flow it is the trapezoid of t / (1 - t) |d u|^2 in t.

    Args:
        signal: [step] float64, in any order (churn may raise a level above the one before).
        noise: [step] float64, above 0.
        eps_of_output: [step] float64, what a difference of outputs of the network is multiplied by to make a
            difference of noises.

    Returns:
        [step] float64.
    """
    tau = signal / (signal + noise)
    order = np.argsort(tau)
    with np.errstate(divide="ignore"):
        factor = 1 / (tau * (1 - tau))
    weight = np.empty_like(tau)
    weight[order] = quadrature.trapezoid(tau[order], factor[order])
    return eps_of_output**2 * weight
