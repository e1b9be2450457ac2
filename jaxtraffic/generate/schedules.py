"""Noise schedules of discrete-time diffusion, built in float64 on the host and cast once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.errors import ConfigError

SCHEDULES = ("cosine", "linear")


class Schedule(NamedTuple):
    """Everything that depends on the step alone; every field is [step] float32.

    x_t = signal x_0 + noise eps; q(x_(t-1) | x_t, x_0) = N(from_x0 x_0 + from_xt x_t, deviation^2).
    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), equations 4, 6 and 7.
    """

    beta: jax.Array
    alpha_bar: jax.Array
    signal: jax.Array
    noise: jax.Array
    from_x0: jax.Array
    from_xt: jax.Array
    deviation: jax.Array

    @property
    def steps(self) -> int:
        """T, the number of diffusion steps."""
        return self.beta.shape[0]


def betas(kind: str, steps: int) -> np.ndarray:
    """beta_t [steps] float64: "cosine" (Nichol and Dhariwal 2021, s = 0.008, beta <= 0.999) or "linear" (1e-4 .. 0.1).

    The linear range is TSDiff's for 100 steps; it is scaled by 100 / steps for other counts.
    """
    if steps < 1:
        raise ConfigError(f"diffusion steps must be at least 1, got {steps}")
    if kind == "cosine":
        edge = np.arange(steps + 1) / steps
        level = np.cos((edge + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - level[1:] / level[:-1], 0.999)
    if kind == "linear":
        scale = 100 / steps
        return np.minimum(np.linspace(1e-4 * scale, 0.1 * scale, steps), 0.999)
    raise ConfigError(f"unknown schedule {kind!r}; choose from {', '.join(SCHEDULES)}")


def make_schedule(kind: str = "cosine", steps: int = 100, variance: str = "posterior") -> Schedule:
    """Builds a schedule.

    Args:
        kind: "cosine" or "linear".
        steps: T.
        variance: "posterior" (the variance of q(x_(t-1) | x_t, x_0)) or "beta" (the larger choice of Ho et al.).
    """
    beta = betas(kind, steps)
    alpha_bar = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    posterior = beta * (1 - before) / (1 - alpha_bar)
    if variance not in ("posterior", "beta"):
        raise ConfigError(f'unknown variance {variance!r}; choose "posterior" or "beta"')
    squared = posterior if variance == "posterior" else beta
    # The last step returns the mean: there is nothing left to be uncertain about.
    deviation = np.sqrt(np.concatenate([[0.0], squared[1:]]))
    fields = (
        beta,
        alpha_bar,
        np.sqrt(alpha_bar),
        np.sqrt(1 - alpha_bar),
        np.sqrt(before) * beta / (1 - alpha_bar),
        np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar),
        deviation,
    )
    return Schedule(*(jnp.asarray(field, jnp.float32) for field in fields))
