"""A mixture of token networks against its members, one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxtraffic.nn.token_ensemble import ensembled, stacked
from jaxtraffic.nn.token_net import TokenNetConfig, make_token_net

NET = make_token_net(
    TokenNetConfig(width=8, blocks=1, embedding=4, head=6, state=4, space="diag-lin"), 2, 7, 3, 5, n_iats=4
)


def some_parameters(seed):
    params = NET.init(jax.random.key(seed))
    return jax.tree.map(lambda leaf: leaf + 0.3 * jnp.cos(seed + jnp.arange(leaf.size).reshape(leaf.shape)), params)


@pytest.mark.slow
def test_each_packet_has_the_mean_of_the_members_probabilities():
    members = [some_parameters(seed) for seed in range(3)]
    params, net = stacked(members), ensembled(NET, 3)
    rng = np.random.default_rng(1)
    token, offset, iat = (jnp.asarray(rng.integers(0, n, (3, 5)), jnp.int32) for n in (7, 3, 4))
    label = jnp.array([0, 1, 2], jnp.int32)

    def heads(net, params):
        return net.heads(params, net.contexts(params, token, offset, label, iat=iat), token, offset)

    def by_packet(params):
        state, logits = net.start(params, label), []
        for packet in range(2):
            at, own = (state, token[:, packet], offset[:, packet]), iat[:, packet]
            logits.append(
                (
                    net.token_logits_at(params, state),
                    net.offset_logits_at(params, *at[:2]),
                    net.iat_logits_at(params, *at),
                )
            )
            state, after = net.step(params, *at, iat=own)
        return logits, after

    alone = jax.jit(lambda one: heads(NET, one))
    found = jax.jit(lambda params: heads(net, params))(params)
    for number, logits in enumerate(found):
        own = [np.asarray(alone(one)[number], np.float64) for one in members]
        expected = np.mean([scipy.special.softmax(each, axis=-1) for each in own], axis=0)
        np.testing.assert_allclose(np.exp(logits), expected, atol=1e-5)
    logits, after = jax.jit(by_packet)(params)
    for packet, at in enumerate(logits):
        for one, whole in zip(at, found, strict=True):
            np.testing.assert_allclose(one, whole[:, packet], atol=1e-5)
    np.testing.assert_allclose(after, found[0][:, 2], atol=1e-5)


def test_members_start_apart():
    first, second = ensembled(NET, 2).init(jax.random.key(0))["token"]["embedding"]
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0.1
