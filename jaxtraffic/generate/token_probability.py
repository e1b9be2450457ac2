"""Probabilities of symbols from the logits of a token network: exact, with a fixed share for what training lacks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxtraffic.generate.token_vocabulary import Symbols, Tables
from jaxtraffic.generate.tokens import END
from jaxtraffic.nn.token_net import TokenNet

HIDDEN = -1e30
"""Logit of what is impossible: its probability is exactly 0 in float32."""


def token_log_prob(logits: jax.Array, tables: Tables) -> jax.Array:
    """Logits [..., symbol] -> log-probabilities [..., symbol]; the last symbol, the unseen, has its fixed share."""
    share = tables.unseen_share
    seen = jax.nn.log_softmax(logits[..., :-1]) + jnp.log1p(-share)
    # A share of 0 (no size is unseen) must not become a NaN in the gradient.
    rest = jnp.where(share > 0, jnp.log(jnp.where(share > 0, share, 1.0)), HIDDEN)
    return jnp.concatenate([seen, jnp.broadcast_to(rest, (*logits.shape[:-1], 1))], axis=-1)


def offset_log_prob(logits: jax.Array, token: jax.Array, tables: Tables) -> jax.Array:
    """Logits [..., O] of the offset given its token [...] -> log-probabilities, 0 where there is one offset only."""
    return jax.nn.log_softmax(jnp.where(tables.offset_mask[token], logits, HIDDEN))


def iat_log_prob(logits: jax.Array, tables: Tables) -> jax.Array:
    """Logits [..., W] -> log-probabilities of the IAT symbols; symbol 0, padding, is impossible."""
    share = tables.iat_share
    log_prob = jax.nn.log_softmax(logits[..., 1:]) + jnp.log1p(-share)
    log_prob = jnp.logaddexp(log_prob, jnp.log(share / log_prob.shape[-1]))
    return jnp.concatenate([jnp.full((*logits.shape[:-1], 1), HIDDEN), log_prob], axis=-1)


def alive(token: jax.Array) -> jax.Array:
    """[B, T] bool: packets before the end, and the end itself; what a flow's probability is made of."""
    before = jnp.pad(token[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    return before != END


def step_log_probs(
    net: TokenNet,
    params: Any,
    tables: Tables,
    symbols: Symbols,
    label: jax.Array,
    *,
    read: Symbols | None = None,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Log-probability of each packet given those before it, [B, T] nats; 0 after the end.

    Args:
        net: functions.
        params: of the network.
        tables: of the vocabulary.
        symbols: [B, T], whose probability is asked.
        label: [B] int32; the number of classes for no label.
        read: what the network reads in place of `symbols` (training hides some).
        dropout_key: key of dropout; None applies none.
    """
    read = symbols if read is None else read
    context = net.contexts(params, read.token, read.offset, label, iat=read.iat, dropout_key=dropout_key)
    tokens, offsets, iats = net.heads(params, context, symbols.token, symbols.offset)
    total = take(token_log_prob(tokens, tables), symbols.token) + symbols.known
    total = total + take(offset_log_prob(offsets, symbols.token, tables), symbols.offset)
    if iats is not None:
        asked = (symbols.token != END).at[:, 0].set(False)
        iat = jnp.maximum(symbols.iat, 1)
        total = total + jnp.where(asked, take(iat_log_prob(iats, tables), iat), 0.0)
    return jnp.where(alive(symbols.token), total, 0.0)


def take(log_prob: jax.Array, index: jax.Array) -> jax.Array:
    """Entries [...] of log-probabilities [..., n] at index [...]."""
    return jnp.take_along_axis(log_prob, index[..., None], axis=-1)[..., 0]
