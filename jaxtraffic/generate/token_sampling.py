"""Sampling tokens: one `lax.scan` over packets in the recurrent form, all draws from per-sample keys.

The draws of a flow are four uniforms a packet, made before the scan from the flow's own key; symbols are chosen by
inverting cumulated probabilities. That is one random number a symbol where the Gumbel trick needs one for every symbol
of the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtraffic import prng
from jaxtraffic.generate.token_probability import iat_log_prob, offset_log_prob, take, token_log_prob
from jaxtraffic.generate.token_vocabulary import FIRST_IAT, Symbols, Tables
from jaxtraffic.generate.tokens import END
from jaxtraffic.nn.token_net import TokenNet


class Drawn(NamedTuple):
    """What the scan gives.

    Attributes:
        symbols: [B, T]; `known` is 0.
        log_prob: [B, T] float32 nats, what the network says of each packet at temperature 1, without `known`.
        uniform: [B, T, 2] float32 for what the host decides: unseen sizes and places of IATs within their bins.
    """

    symbols: Symbols
    log_prob: jax.Array
    uniform: jax.Array


GROUP = 16
"""Symbols whose weights are cumulated together."""


def pick(log_prob: jax.Array, uniform: jax.Array, temperature: jax.Array) -> jax.Array:
    """Symbols [B] int32 drawn from log-probabilities [B, n] by uniforms [B] in [0, 1), sharpened by a temperature.

    First a group of symbols, then one of its symbols: cumulating all weights of a vocabulary at once takes 3.5 times as
    long on a CPU.
    """
    # The largest entry is 1, so that low temperatures do not underflow.
    weight = jnp.exp((log_prob - log_prob.max(axis=-1, keepdims=True)) / temperature)
    batch, n = weight.shape
    groups = -(-n // GROUP)
    weight = jnp.pad(weight, ((0, 0), (0, groups * GROUP - n))).reshape(batch, groups, GROUP)
    cumulated = jnp.cumsum(weight.sum(axis=-1), axis=-1)
    target = uniform * cumulated[:, -1]
    group = passed(cumulated, target)
    before = jnp.where(group == 0, 0.0, take(cumulated, jnp.maximum(group - 1, 0)))
    own = jnp.take_along_axis(weight, group[:, None, None], axis=1)[:, 0]
    return group * GROUP + passed(jnp.cumsum(own, axis=-1), target - before)


def passed(cumulated: jax.Array, target: jax.Array) -> jax.Array:
    """How many of the sums [B, n] targets [B] have passed, [B] int32: the symbol, always one whose weight is not 0."""
    # Rounding must not reach the total itself, whose index would be one beyond the last possible symbol.
    bound = jnp.clip(target, 0.0, cumulated[:, -1] * (1 - 2**-23))
    return jnp.sum(cumulated <= bound[:, None], axis=-1, dtype=jnp.int32)


def draw(
    net: TokenNet,
    params: Any,
    tables: Tables,
    key: jax.Array,
    index: jax.Array,
    label: jax.Array,
    given: Symbols,
    r: jax.Array,
    temperature: jax.Array,
) -> Drawn:
    """Draws flows; flow i depends on (key, index i, label i, its given packets) only.

    Args:
        net: functions.
        params: of the network.
        tables: of the vocabulary.
        key: typed key of the stream of samples.
        index: [B] int32, number of each flow.
        label: [B] int32.
        given: [B, T], packets that are not drawn; read where the position is below r.
        r: [B] int32, how many are given; 0 draws whole flows.
        temperature: [] float32 > 0; 1 is the model.
    """
    length = given.token.shape[1]

    uniform = jax.vmap(lambda i: jax.random.uniform(prng.at_step(key, i), (length, 4)))(index)
    start = net.start(params, label)
    fixed = start.fixed

    def body(carry: tuple[Any, ...], xs: tuple[Any, ...]) -> tuple[Any, Any]:
        state, running = carry
        state = state._replace(fixed=fixed)
        position, own, own_given = xs
        keep = position < r
        tokens = token_log_prob(net.token_logits_at(params, state), tables)
        token = jnp.where(keep, own_given.token, pick(tokens, own[:, 0], temperature))
        token = jnp.where(running, token, END)
        offsets = offset_log_prob(net.offset_logits_at(params, state, token), token, tables)
        offset = jnp.where(keep, own_given.offset, pick(offsets, own[:, 1], temperature))
        offset = jnp.where(token == END, 0, offset)
        score = take(tokens, token) + take(offsets, offset)
        iat = None
        if given.iat is not None:
            iats = iat_log_prob(net.iat_logits_at(params, state, token, offset), tables)
            iat = jnp.where(keep, own_given.iat, pick(iats, own[:, 2], temperature))
            iat = jnp.where(position == 0, FIRST_IAT, iat)
            score = score + jnp.where((token != END) & (position > 0), take(iats, iat), 0.0)
            iat = jnp.where(token == END, 0, iat)
        # What step says of the next token is asked again there: the compiler drops it here.
        state, _ = net.step(params, state, token, offset, iat=iat)
        score = jnp.where(running, score, 0.0)
        return (state._replace(fixed=None), running & (token != END)), (token, offset, iat, score)

    def by_packet(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 1, 0)

    carry = (start._replace(fixed=None), jnp.ones(label.shape, bool))
    xs = (jnp.arange(length, dtype=jnp.int32), by_packet(uniform), jax.tree.map(by_packet, given))
    _, made = jax.lax.scan(body, carry, xs)
    token, offset, iat, score = jax.tree.map(by_packet, made)
    # The uniform of the offset decides the size of an unseen symbol, which has one offset only.
    symbols = Symbols(token, offset, iat, jnp.zeros(token.shape, jnp.float32))
    return Drawn(symbols, score, uniform[..., jnp.array([1, 3])])
