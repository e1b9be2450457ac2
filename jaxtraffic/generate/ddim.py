"""DDIM: DDPM's network on any subset of its steps, from deterministic (eta = 0) to ancestral (eta = 1).

Source: Song, Meng, Ermon, "Denoising Diffusion Implicit Models" (2021), equations 12 and 16.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import ddpm, process, sampler
from jaxtraffic.generate.schedules import Schedule, betas


def subset(total: int, steps: int) -> np.ndarray:
    """`steps` of 0..total-1, evenly spread, first and last included (the last alone for one); ascending int32.

    Raises:
        ConfigError: more steps than there are, or none.
    """
    if not 1 <= steps <= total:
        raise ConfigError(f"ddim takes 1 to {total} sampling steps (the diffusion steps of training), got {steps}")
    return np.round(np.linspace(total - 1, 0, steps))[::-1].astype(np.int32)


def schedule_on(t: np.ndarray, beta: np.ndarray, eta: float) -> Schedule:
    """A schedule whose rows are the steps t [n] (ascending) and whose reverse steps are DDIM's.

    The update sqrt(a_s) x_0 + sqrt(1 - a_s - d^2) eps + d noise with eps = (x - sqrt(a_t) x_0) / sqrt(1 - a_t) is
    written as from_x0 x_0 + from_xt x + d noise, so that DDPM's step function takes it.
    """
    a = np.cumprod(1 - beta)[t]
    before = np.concatenate([[1.0], a[:-1]])
    deviation = eta * np.sqrt((1 - before) / (1 - a) * (1 - a / before))
    from_xt = np.sqrt(np.maximum(1 - before - deviation**2, 0) / (1 - a))
    from_x0 = np.sqrt(before) - from_xt * np.sqrt(a)
    fields = (1 - a / before, a, np.sqrt(a), np.sqrt(1 - a), from_x0, from_xt, deviation)
    return Schedule(*(jnp.asarray(field, jnp.float32) for field in fields))


def plan(
    kind: str,
    total: int,
    *,
    prediction: str = "epsilon",
    steps: int | None = None,
    eta: float = 0.0,
    clip: float | None = None,
) -> sampler.Plan:
    """DDIM on a subset of the steps of a DDPM schedule.

    Args:
        kind: of the schedule the network was trained with.
        total: its number of steps.
        prediction: "epsilon" or "v".
        steps: how many of them to take; all by default.
        eta: 0 is deterministic, 1 has DDPM's posterior variance.
        clip: bound of the estimate of x_0, or None. The noise is then the one that fits the clipped estimate.

    Raises:
        ConfigError: a subset that does not exist, or eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ConfigError(f"ddim takes eta from 0 to 1, got {eta}")
    t = subset(total, total if steps is None else steps)
    beta = betas(kind, total)
    made = ddpm.plan(schedule_on(t, beta, eta), prediction=prediction, clip=clip, told=t)
    a = np.cumprod(1 - beta)[t][::-1]
    signal, noise = np.sqrt(a), np.sqrt(1 - a)
    weight = process.information_weight(signal, noise, np.ones_like(a) if prediction == "epsilon" else signal)
    return made._replace(weight=weight.astype(np.float32))
