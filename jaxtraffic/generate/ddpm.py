"""DDPM: the training loss and one ancestral step, for networks that predict the noise or the velocity.

Source: Ho et al. (2020), algorithms 1 and 2; v-prediction: Salimans and Ho, "Progressive Distillation" (2022),
appendix D; guidance: Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022), equation 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import process, sampler
from jaxtraffic.generate.schedules import Schedule

PREDICTIONS = ("epsilon", "v")


def check_prediction(prediction: str) -> None:
    """Raises ConfigError where a network cannot predict that."""
    if prediction not in PREDICTIONS:
        raise ConfigError(f"unknown prediction {prediction!r}; choose from {', '.join(PREDICTIONS)}")


def corrupt(schedule: Schedule, x0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """x_t [batch, T] of clean x0 [batch, T] at steps t [batch] with noise eps [batch, T] (Ho et al., equation 4)."""
    return schedule.signal[t][:, None] * x0 + schedule.noise[t][:, None] * eps


def target(schedule: Schedule, prediction: str, x0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """What the network should output: eps, or v = signal eps - noise x0."""
    check_prediction(prediction)
    if prediction == "epsilon":
        return eps
    return schedule.signal[t][:, None] * eps - schedule.noise[t][:, None] * x0


def loss(
    denoise: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    schedule: Schedule,
    key: jax.Array,
    x0: jax.Array,
    label: jax.Array,
    *,
    prediction: str = "epsilon",
    class_dropout: float = 0.0,
    no_class: int = -1,
    noise: jax.Array | None = None,
) -> jax.Array:
    """Per-sample squared error [batch] of one random step each (the simple loss of Ho et al., equation 14).

    Args:
        denoise: (x_t [batch, T], t [batch] int32, label [batch] int32) -> prediction [batch, T].
        schedule: the noise schedule.
        key: key of this training step.
        x0: [batch, T] scaled series.
        label: [batch] int32.
        prediction: "epsilon" or "v".
        class_dropout: probability that a label is replaced by `no_class`.
        no_class: the label that means "no class".
        noise: [batch, T] in place of fresh noise.
    """
    t = jax.random.randint(prng.stream(key, "time"), label.shape, 0, schedule.steps)
    eps = process.fresh_noise(key, x0, noise)
    label = process.hide_labels(key, label, class_dropout, no_class)
    predicted = denoise(corrupt(schedule, x0, t, eps), t, label)
    return jnp.mean((predicted - target(schedule, prediction, x0, t, eps)) ** 2, axis=-1)


def plan(
    schedule: Schedule,
    *,
    prediction: str = "epsilon",
    clip: jax.Array | float | None = None,
    told: np.ndarray | None = None,
) -> sampler.Plan:
    """Ancestral sampling of the reverse chain (Ho et al., algorithm 2).

    Args:
        schedule: the noise schedule, in the order of training (step 0 is the cleanest).
        prediction: "epsilon" or "v".
        clip: bound of the estimate of x_0, or None. Clip by default: at the last cosine step sqrt(alpha_bar) is
            5e-4, so an error of the predicted noise is multiplied by 2000 on its way into x_0.
        told: [step] int32, the steps that the network knows the rows of the schedule as; 0, 1, ... by default.
    """
    check_prediction(prediction)

    def take_step(
        evaluate: sampler.Evaluate, x: jax.Array, at: dict[str, Any], noise: jax.Array
    ) -> tuple[jax.Array, dict[str, Any]]:
        s, predicted = at["schedule"], evaluate(x, 0)
        guided = predicted.guided
        x0 = (x - s.noise * guided) / s.signal if prediction == "epsilon" else s.signal * x - s.noise * guided
        if clip is not None:
            x0 = jnp.clip(x0, -clip, clip)
        x_next = s.from_x0 * x0 + s.from_xt * x + s.deviation * noise
        return x_next, {"prediction": predicted, "x0": x0}

    # kappa_t / T of information.md 5f, in units of the network: a difference of noises is signal times one of v.
    weight = schedule.beta / (2 * (1 - schedule.beta) * (1 - schedule.alpha_bar))
    if prediction == "v":
        weight = weight * schedule.alpha_bar
    t = jnp.arange(schedule.steps, dtype=jnp.int32) if told is None else jnp.asarray(told, jnp.int32)
    at = jax.tree.map(lambda leaf: leaf[::-1], {"t": t, "schedule": schedule})
    return sampler.Plan(t[::-1, None].astype(jnp.float32), at, take_step, 1.0, weight[::-1])
