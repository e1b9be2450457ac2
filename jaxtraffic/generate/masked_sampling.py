"""Masked (absorbing) diffusion over tokens: masks, probabilities of what they hide, and sampling by unmasking.

Masked diffusion hides every packet with probability t and asks the network for the hidden ones. With the log-linear
schedule its bound on the log-probability is (Sahoo et al. 2024, equation 10; SUBS parameterisation)

    log p(x) >= E over t ~ U(0, 1) of 1/t * sum over hidden packets of log p(packet | packets that are not hidden).

Here the integral over t is done by hand. Given how many packets are hidden, all sets of so many are equally likely, and
t^k (1 - t)^(T - k) / t integrates to (k - 1)! (T - k)! / T!; so the same bound is

    log p(x) >= E over k ~ U{1..T}, sets of k of T of T/k * sum over hidden packets of log p(packet | the others),

without the singularity at t = 0 that has to be cut off otherwise, and exact for T = 1. It is also the mean, over all
orders of the packets, of the log-probability of drawing them one by one in that order, which is how they are sampled.

Two rules hold for sure, so the network is not asked: after a known end there is padding only, and before a known packet
there is no end. With them every sample is a flow, and imputation cannot cut off what is known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtraffic import prng
from jaxtraffic.generate.token_probability import HIDDEN, offset_log_prob, take, token_log_prob
from jaxtraffic.generate.token_sampling import pick
from jaxtraffic.generate.token_vocabulary import Symbols, Tables
from jaxtraffic.generate.tokens import END
from jaxtraffic.nn.masked_net import MaskedNet


class Drawn(NamedTuple):
    """What sampling gives.

    Attributes:
        symbols: [B, T]; `known` is 0, and there are no IATs.
        uniform: [B, T, 1] float32 for what the host decides: unseen sizes.
    """

    symbols: Symbols
    uniform: jax.Array


def choose(share: jax.Array, order: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Masks of flows and the weights T/k of their terms in the bound.

    Args:
        share: [B] float32 in [0, 1); k = 1 + floor(T * share) packets are masked.
        order: [B, T] float32, whose k smallest are masked; of equal ones the first.

    Returns:
        masked [B, T] bool and weight [B] float32.
    """
    length = order.shape[1]
    k = 1 + jnp.minimum((share * length).astype(jnp.int32), length - 1)
    earlier = jnp.arange(length)[None, :] < jnp.arange(length)[:, None]
    before = (order[:, None, :] < order[:, :, None]) | ((order[:, None, :] == order[:, :, None]) & earlier)
    return before.sum(axis=2, dtype=jnp.int32) < k[:, None], length / k.astype(jnp.float32)


def ended(token: jax.Array, known: jax.Array) -> jax.Array:
    """[B, T] bool: positions after a known end."""
    end = (known & (token == END)).astype(jnp.int32)
    return jnp.cumsum(end, axis=1) - end > 0


def before_last_packet(token: jax.Array, known: jax.Array) -> jax.Array:
    """[B, T] bool: positions before a known packet, where there is no end."""
    packet = (known & (token != END)).astype(jnp.int32)
    return jnp.cumsum(packet[:, ::-1], axis=1)[:, ::-1] - packet > 0


def read(token: jax.Array, offset: jax.Array, known: jax.Array, unseen: int) -> tuple[jax.Array, jax.Array]:
    """What the network reads [B, T] twice: unseen sizes, of which training has none, are masked to it as well."""
    shown = known & (token != unseen)
    return jnp.where(shown, token, unseen + 1), jnp.where(shown, offset, 0)


def masked_log_probs(
    net: MaskedNet,
    params: Any,
    tables: Tables,
    symbols: Symbols,
    label: jax.Array,
    masked: jax.Array,
    *,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Log-probability of each masked packet given those that are not, [B, T] nats; 0 for the others.

    Args:
        net: functions.
        params: of the network.
        tables: of the vocabulary.
        symbols: [B, T], whose probability is asked; `known` is not read.
        label: [B] int32; the number of classes for no label.
        masked: [B, T] bool.
        dropout_key: key of dropout; None applies none.
    """
    known = ~masked | ended(symbols.token, ~masked)
    seen = read(symbols.token, symbols.offset, known, tables.offset_mask.shape[0] - 1)
    context = net.contexts(params, net.prepare(params, label), *seen, dropout_key=dropout_key)
    tokens = net.token_logits(params, context)
    tokens = without_end(tokens, before_last_packet(symbols.token, known))
    offsets = net.offset_logits(params, context, symbols.token)
    total = take(token_log_prob(tokens, tables), symbols.token)
    total = total + take(offset_log_prob(offsets, symbols.token, tables), symbols.offset)
    return jnp.where(known, 0.0, total)


def without_end(logits: jax.Array, where: jax.Array) -> jax.Array:
    """Token logits [..., V] with the end impossible where [...] says so."""
    return jnp.where(where[..., None] & (jnp.arange(logits.shape[-1]) == END), HIDDEN, logits)


def draw(
    net: MaskedNet,
    params: Any,
    tables: Tables,
    key: jax.Array,
    index: jax.Array,
    label: jax.Array,
    given: Symbols,
    known: jax.Array,
    temperature: jax.Array,
    steps: int,
) -> Drawn:
    """Draws what is not known of flows; flow i depends on (key, index i, label i, its given packets) only.

    Packets are revealed in a random order of each flow's own, ceil(T / steps) in a pass of the network; with one in a
    pass the flows follow the network's own probabilities, with more those of a pass do not know of each other. (The
    ancestral sampler of the diffusion reveals the same orders, but a random number of packets in a pass.)

    Args:
        net: functions.
        params: of the network.
        tables: of the vocabulary.
        key: typed key of the stream of samples.
        index: [B] int32, number of each flow.
        label: [B] int32.
        given: [B, T], packets that are not drawn.
        known: [B, T] bool, where to read them.
        temperature: [] float32 > 0; 1 is the model.
        steps: passes of the network at most, static.
    """
    batch, length = known.shape
    each = -(-length // steps)
    passes = -(-length // each)
    unseen = tables.offset_mask.shape[0] - 1
    uniform = jax.vmap(lambda i: jax.random.uniform(prng.at_step(key, i), (length, 4)))(index)
    # what is known comes last and is passed over; places beyond the flow fill the last pass
    order = jnp.argsort(jnp.where(known, 2.0, uniform[..., 0]), axis=1)
    order = jnp.pad(order, ((0, 0), (0, passes * each - length)), constant_values=length)
    prepared = net.prepare(params, label)

    def body(carry: tuple[jax.Array, ...], places: jax.Array) -> tuple[Any, None]:
        token, offset, known = carry
        context = net.contexts(params, prepared, *read(token, offset, known, unseen))
        inside = jnp.minimum(places, length - 1)

        def at(x: jax.Array) -> jax.Array:
            return jnp.take_along_axis(x, inside.reshape(batch, each, *[1] * (x.ndim - 2)), axis=1)

        own, context = at(uniform).reshape(-1, 4), at(context).reshape(batch * each, -1)
        tokens = net.token_logits(params, context)
        tokens = without_end(tokens, at(before_last_packet(token, known)).reshape(-1))
        drawn = pick(token_log_prob(tokens, tables), own[:, 1], temperature)
        offsets = offset_log_prob(net.offset_logits(params, context, drawn), drawn, tables)
        new = jnp.stack([drawn, pick(offsets, own[:, 2], temperature)]).reshape(2, batch, each)
        here = (places[:, :, None] == jnp.arange(length)) & ~known[:, None, :]
        fresh = jnp.any(here, axis=1)
        token, offset = (
            jnp.where(fresh, jnp.sum(jnp.where(here, value[:, :, None], 0), axis=1), old)
            for value, old in zip(new, (token, offset), strict=True)
        )
        known = known | fresh
        # packets that were drawn in the same pass as an end before them are no packets
        over = ended(token, known)
        return (jnp.where(over, END, token), jnp.where(over, 0, offset), known | over), None

    start = (jnp.where(known, given.token, END), jnp.where(known, given.offset, 0), known)
    over = ended(start[0], known)
    (token, offset, _), _ = jax.lax.scan(
        body, (*start[:2], known | over), jnp.moveaxis(order.reshape(batch, passes, each), 1, 0)
    )
    symbols = Symbols(token, offset, None, jnp.zeros(token.shape, jnp.float32))
    return Drawn(symbols, uniform[..., 3:])
