"""Tables of tokens that are a free part plus a learnt map of fixed features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.nn.tied import TABLES, tied
from jaxtraffic.nn.token_net import TokenNetConfig, make_token_net

CONFIG = TokenNetConfig(width=8, blocks=1, embedding=4, head=6, state=4)
FEATURES = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@pytest.mark.slow
def test_the_tables_are_the_free_part_plus_the_map():
    """Reference: the same network without features, its tables added up by hand."""
    plain = make_token_net(CONFIG, 2, 7, 3, 5, n_iats=4)
    net = make_token_net(CONFIG, 2, 7, 3, 5, n_iats=4, features=FEATURES)
    params = net.init(jax.random.key(0))
    # off the zeros that maps of outputs and gates start from
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), params)
    by_hand = {name: part for name, part in params.items() if name != "features"}
    assert set(params["features"]) == set(TABLES)
    for name, weights in params["features"].items():
        rows = FEATURES @ np.asarray(weights)
        table = np.asarray(by_hand[name][TABLES[name]])
        added = table + (rows.T if TABLES[name] == "kernel" else rows)
        by_hand[name] = by_hand[name] | {TABLES[name]: jnp.asarray(added)}
    rng = np.random.default_rng(1)
    token, offset, iat = (jnp.asarray(rng.integers(0, n, (3, 5)), jnp.int32) for n in (7, 3, 4))
    label = jnp.array([0, 1, 2], jnp.int32)
    for found, expected in zip(
        net.logits(params, token, offset, label, iat), plain.logits(by_hand, token, offset, label, iat), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    state, other = net.start(params, label), plain.start(by_hand, label)
    found, expected = (
        each.step(own, at, token[:, 0], offset[:, 0], iat[:, 0])[1]
        for each, own, at in ((net, params, state), (plain, by_hand, other))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_further_rows_of_a_table_stay_free():
    def init(key: jax.Array) -> dict[str, dict[str, jax.Array]]:
        return {"token": {"embedding": jax.random.normal(key, (9, 4))}}

    both, joined = tied(init, lambda params: params["token"]["embedding"], FEATURES)
    params = both(jax.random.key(0))
    free, made = np.asarray(params["token"]["embedding"]), np.asarray(joined(params))
    np.testing.assert_array_equal(made[7:], free[7:])
    assert np.abs(made[:7] - free[:7]).max() > 0.1
