"""Variational bounds of mutual information as functions of critic scores, in nats.

Scores of joint pairs are `joint` [n]: f(x_i, y_i). Scores of negative pairs (x_i, y_j), j != i, are `negative`, of any
shape.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def log_mean_exp(values: jax.Array) -> jax.Array:
    """Log of the mean of exp over all values."""
    return jax.nn.logsumexp(values) - jnp.log(jnp.float32(values.size))


def donsker_varadhan(joint: jax.Array, negative: jax.Array) -> jax.Array:
    """Mean f - log mean e^f; a lower bound in the limit of many negatives, too high with few.

    Source: Donsker and Varadhan 1983; Belghazi et al. 2018 (MINE), Eq. 10.
    """
    return joint.mean() - log_mean_exp(negative)


def nwj(joint: jax.Array, negative: jax.Array) -> jax.Array:
    """Mean f - mean e^(f - 1); its best critic is 1 + log p(x, y) / (p(x) p(y)).

    Source: Nguyen, Wainwright and Jordan 2010; Poole et al. 2019, Eq. 9.
    """
    return joint.mean() - jnp.exp(log_mean_exp(negative) - 1)


def infonce(joint: jax.Array, negative: jax.Array) -> jax.Array:
    """Log(k + 1) + mean over i of f_ii - log (e^f_ii + sum over k partners of e^f_ij), at most log(k + 1).

    Args:
        joint: [n] scores.
        negative: [k, n] scores of x_i with its k shuffled partners; all others of the batch in the published form.

    Source: van den Oord et al. 2018, Eq. 4; Poole et al. 2019, Eq. 12.
    """
    own = joint - jnp.logaddexp(joint, jax.nn.logsumexp(negative, axis=0))
    return own.mean() + jnp.log(jnp.float32(negative.shape[0] + 1))


def jensen_shannon(joint: jax.Array, negative: jax.Array) -> jax.Array:
    """-mean softplus(-f) - mean softplus(f); its best critic is the log-ratio, its value is no MI.

    Source: Nowozin et al. 2016; Song and Ermon 2020, Sec. 4.
    """
    return -jax.nn.softplus(-joint).mean() - jax.nn.softplus(negative).mean()


def smile(joint: jax.Array, negative: jax.Array, tau: float) -> jax.Array:
    """Mean f - log mean exp(clip(f, -tau, tau)): less variance than Donsker-Varadhan, no longer a bound.

    Source: Song and Ermon 2020, Eq. 12.
    """
    return joint.mean() - log_mean_exp(jnp.clip(negative, -tau, tau))


def smile_objective(joint: jax.Array, negative: jax.Array, tau: float) -> jax.Array:
    """The clipped value of `smile` with the gradient of `jensen_shannon`."""
    return _with_gradient(smile(joint, negative, tau), jensen_shannon(joint, negative))


def mine_objective(
    joint: jax.Array, negative: jax.Array, log_average: jax.Array, decay: float
) -> tuple[jax.Array, jax.Array]:
    """The value of `donsker_varadhan` with MINE's gradient, mean grad f - mean e^f grad f / average.

    The average of mean e^f over past steps takes the place of the batch's own mean, which would bias the gradient.

    Args:
        joint: [n] scores.
        negative: scores of negative pairs.
        log_average: [] log of the average so far, -inf at the start, when the batch's own mean is taken.
        decay: weight of the average so far.

    Returns:
        Objective [] and the next log average [], kept in logarithms because e^f overflows.

    Source: Belghazi et al. 2018, Sec. 3.2, Eq. 12.
    """
    current = jax.lax.stop_gradient(log_mean_exp(negative))
    mixed = jnp.logaddexp(log_average + jnp.log(jnp.float32(decay)), current + jnp.log(jnp.float32(1 - decay)))
    average = jnp.where(jnp.isneginf(log_average), current, mixed)
    slope = joint.mean() - jnp.exp(negative - average).mean()
    return _with_gradient(donsker_varadhan(joint, negative), slope), average


def _with_gradient(value: jax.Array, other: jax.Array) -> jax.Array:
    return other + jax.lax.stop_gradient(value - other)
