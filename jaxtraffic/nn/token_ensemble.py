"""Several token networks as one: at each packet, the mean of the probabilities that the members give.

Source: Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles" (2017).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxtraffic import prng
from jaxtraffic.nn.token_net import TokenNet


def ensembled(net: TokenNet, members: int) -> TokenNet:
    """The same functions over parameters whose leaves have a leading axis [member], as `stacked` makes them.

    Contexts and states have that axis too. Logits have not: they are the logarithm of the mean of the members'
    probabilities, so that the network's distribution at each packet is their mixture given the packets before it.
    """

    def each(function: Any, *, over: int) -> Any:
        """`function` for every member; the first `over` arguments have a member each, the rest are shared."""

        def run(*args: Any, **options: Any) -> Any:
            def own(*split: Any) -> Any:
                return function(*split, *args[over:], **options)

            return jax.vmap(own)(*args[:over])

        return run

    def mixed(function: Any, *, over: int) -> Any:
        members = each(function, over=over)
        return lambda *args, **options: jax.tree.map(mean_log_prob, members(*args, **options))

    def step(params: Any, state: Any, *args: Any, **options: Any) -> Any:
        state, logits = each(net.step, over=2)(params, state, *args, **options)
        return state, mean_log_prob(logits)

    return TokenNet(
        init=lambda key: stacked([net.init(prng.at_step(key, member)) for member in range(members)]),
        contexts=each(net.contexts, over=1),
        heads=mixed(net.heads, over=2),
        logits=mixed(net.logits, over=1),
        iat_logits=mixed(net.iat_logits, over=1),
        start=each(net.start, over=1),
        step=step,
        token_logits_at=mixed(net.token_logits_at, over=2),
        offset_logits_at=mixed(net.offset_logits_at, over=2),
        iat_logits_at=mixed(net.iat_logits_at, over=2),
    )


def stacked(members: list[Any]) -> Any:
    """Parameters of several networks -> the same with a leading axis [member]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def mean_log_prob(logits: jax.Array) -> jax.Array:
    """Logits [member, ..., n] -> logarithm of the mean of their probabilities [..., n]."""
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(jnp.float32(logits.shape[0]))
