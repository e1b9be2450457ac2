"""Scores of joint and of many shuffled pairs, folded as they come so that memory does not grow with their number."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtraffic.information.result import Pairs
from jaxtraffic.nn.mlp import Critic

BLOCK = 16_384
"""Pairs scored at once."""


class Scores(NamedTuple):
    """What the bounds need of n joint pairs and n partners shuffled pairs.

    Attributes:
        joint: [n] f(x_i, y_i).
        row_log_sum: [n] log of the sum of e^f over the partners of x_i.
        log_mean: [] log of the mean of e^f over all shuffled pairs.
        row_share: [n] mean of e^f over the partners of x_i, in units of the mean over all.
        column_share: [n] the same for y_i.
        jensen_shannon: [] value of `bounds.jensen_shannon` over all these pairs.
        partners: how many shuffled partners each sample has.
    """

    joint: jax.Array
    row_log_sum: jax.Array
    log_mean: jax.Array
    row_share: jax.Array
    column_share: jax.Array
    jensen_shannon: jax.Array
    partners: int


def shifts_of(key: jax.Array, n: int, count: int) -> jax.Array:
    """Distinct cyclic shifts [min(count, n - 1)] from 1 to n - 1: pairing x_i with y_{i + shift} never joins a pair."""
    return jax.random.permutation(key, n - 1)[: min(count, n - 1)] + 1


def against_shuffled(critic: Critic, params: Any, pairs: Pairs, shifts: jax.Array, clip: float | None = None) -> Scores:
    """Scores joint pairs, and x_i with y_{i + shift} for each shift.

    Args:
        critic: the critic.
        params: its parameters.
        pairs: n joint pairs in random order.
        shifts: [k] distinct, from 1 to n - 1.
        clip: bound of the scores of shuffled pairs (SMILE), or None.
    """
    n, partners = pairs.x.shape[0], shifts.shape[0]
    left, right = critic.left(params, pairs.x), critic.right(params, pairs.y)

    def score(right: jax.Array) -> jax.Array:
        if n <= BLOCK:
            return critic.score(params, left, right)
        return jax.lax.map(lambda both: critic.score(params, *both), (left, right), batch_size=BLOCK)

    def add(carry: tuple[jax.Array, ...], shift: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        rows, columns, softplus = carry
        own = score(jnp.roll(right, -shift, axis=0))
        clipped = own if clip is None else jnp.clip(own, -clip, clip)
        columns = jnp.logaddexp(columns, jnp.roll(clipped, shift))
        return (jnp.logaddexp(rows, clipped), columns, softplus + jax.nn.softplus(own).mean()), None

    nothing = jnp.full(n, -jnp.inf)
    (rows, columns, softplus), _ = jax.lax.scan(add, (nothing, nothing, jnp.float32(0)), shifts)
    joint = score(right)
    log_partners = jnp.log(jnp.float32(partners))
    log_mean = jax.nn.logsumexp(rows) - log_partners - jnp.log(jnp.float32(n))
    return Scores(
        joint=joint,
        row_log_sum=rows,
        log_mean=log_mean,
        row_share=jnp.exp(rows - log_partners - log_mean),
        column_share=jnp.exp(columns - log_partners - log_mean),
        jensen_shannon=-jax.nn.softplus(-joint).mean() - softplus / partners,
        partners=partners,
    )
