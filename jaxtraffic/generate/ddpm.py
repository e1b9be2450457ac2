"""DDPM: the training loss and one ancestral step, for networks that predict the noise or the velocity.

Source: Ho et al. (2020), algorithms 1 and 2; v-prediction: Salimans and Ho, "Progressive Distillation" (2022),
appendix D; guidance: Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022), equation 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import sampler
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
    """
    t = jax.random.randint(prng.stream(key, "time"), label.shape, 0, schedule.steps)
    eps = jax.random.normal(prng.stream(key, "noise"), x0.shape)
    if class_dropout:
        dropped = jax.random.bernoulli(prng.stream(key, "class"), class_dropout, label.shape)
        label = jnp.where(dropped, no_class, label)
    predicted = denoise(corrupt(schedule, x0, t, eps), t, label)
    return jnp.mean((predicted - target(schedule, prediction, x0, t, eps)) ** 2, axis=-1)


def sample(
    predict: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array | None]],
    schedule: Schedule,
    keys: jax.Array,
    label: jax.Array,
    length: int,
    *,
    prediction: str = "epsilon",
    guidance: float = 1.0,
    clip: jax.Array | float | None = None,
    per_step: Any = None,
    observers: tuple[sampler.Observer, ...] = (),
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Ancestral sampling of the reverse chain in one scan (Ho et al., algorithm 2).

    Args:
        predict: (x [batch, T], per_step leaves of this step) -> (conditional, unconditional or None) predictions.
        schedule: the noise schedule, in the order of training (step 0 is the cleanest).
        keys: [batch] keys, one a sample.
        label: [batch] int32, for the observers.
        length: T.
        prediction: "epsilon" or "v".
        guidance: weight w of unconditional + w (conditional - unconditional); 1 is off.
        clip: bound of the estimate of x_0, or None. Clip by default: at the last cosine step sqrt(alpha_bar) is
            5e-4, so an error of the predicted noise is multiplied by 2000 on its way into x_0.
        per_step: pytree of [step, ...] arrays for `predict`, in the order of training (such as time embeddings).
        observers: see `sampler.Observer`; info also holds "t" [], "x0", "conditional" and "unconditional".

    Returns:
        Samples [batch, T] and the observers' results.
    """
    check_prediction(prediction)

    def take_step(x: jax.Array, at: tuple[Any, ...], noise: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        t, s, own = at
        conditional, unconditional = predict(x, own)
        guided = conditional if unconditional is None else unconditional + guidance * (conditional - unconditional)
        x0 = (x - s.noise * guided) / s.signal if prediction == "epsilon" else s.signal * x - s.noise * guided
        if clip is not None:
            x0 = jnp.clip(x0, -clip, clip)
        x_next = s.from_x0 * x0 + s.from_xt * x + s.deviation * noise
        info = {"t": t, "x0": x0, "conditional": conditional}
        if unconditional is not None:
            info["unconditional"] = unconditional
        return x_next, info

    backwards = jax.tree.map(lambda leaf: leaf[::-1], (jnp.arange(schedule.steps), schedule, per_step))
    return sampler.run(take_step, backwards, keys, label, length, observers=observers)
