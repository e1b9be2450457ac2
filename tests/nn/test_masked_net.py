"""The masked network: a plain loop, both directions, flows alone and together, dropout, bad options."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn import is_state_space
from jaxtraffic.nn.masked_net import MaskedNetConfig, make_masked_net

CONFIG = MaskedNetConfig(width=6, blocks=2, embedding=4, head=5, state=4, dropout=0.5)
CLASSES, TOKENS, OFFSETS, LENGTH = 2, 5, 3, 7


@pytest.fixture(scope="module")
def made():
    """The network, parameters with no zero among them, its jitted logits."""
    net, rng = make_masked_net(CONFIG, CLASSES, TOKENS, OFFSETS, LENGTH), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.4 * rng.standard_normal(leaf.shape), jnp.float32),
        jax.eval_shape(net.init, jax.random.key(0)),
    )

    @jax.jit
    def logits(params, token, offset, label, asked, dropout_key=None):
        context = net.contexts(params, net.prepare(params, label), token, offset, dropout_key=dropout_key)
        return net.token_logits(params, context), net.offset_logits(params, context, asked)

    return net, params, logits


def flows(batch=4):
    """Tokens with masked ones among them, offsets, labels with no label among them, tokens whose offsets are asked."""
    rng = np.random.default_rng(0)
    token = rng.integers(0, TOKENS + 1, (batch, LENGTH)).astype(np.int32)
    offset = np.where(token == TOKENS, 0, rng.integers(0, OFFSETS, token.shape)).astype(np.int32)
    asked = rng.integers(0, TOKENS, token.shape).astype(np.int32)
    return token, offset, (np.arange(batch) % (CLASSES + 1)).astype(np.int32), asked


def loop(params, token, offset, label, asked):
    """The network as plain loops in float64, each channel's kernel from powers of its dense state matrix."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def table(name, index):
        return p[name]["embedding"][index]

    def linear(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    def norm(x):
        return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)

    def gelu(x):
        # nnx.gelu is the tanh form
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def silu(x):
        return x / (1 + np.exp(-x))

    def mixed(s4, u):
        """Each position hears itself and what was before through C[0], what comes after through C[1]."""
        y = s4["d"] * u
        for h in range(CONFIG.width):

            def both(x):
                return np.concatenate([x, x.conj()])

            def pair(x):
                return both(x[..., 0] + 1j * x[..., 1])

            lam = both(-np.exp(s4["log_neg_re"][h]) + 1j * s4["im"][h])
            b, low, past, future = pair(s4["b"][h]), pair(s4["p"][h]), pair(s4["c"][0, h]), pair(s4["c"][1, h])
            a, dt = np.diag(lam) - np.outer(low, low.conj()), np.exp(s4["log_dt"][h])
            left = np.linalg.inv(np.eye(len(lam)) - dt / 2 * a)
            step, b = left @ (np.eye(len(lam)) + dt / 2 * a), left @ (dt * b)
            for i in range(LENGTH):
                for j in range(LENGTH):
                    c, lag = (past, i - j) if j <= i else (future, j - i - 1)
                    y[i, h] += (c @ np.linalg.matrix_power(step, lag) @ b).real * u[j, h]
        return y

    tokens, offsets = [], []
    for row in range(len(token)):
        condition = silu(table("classes", label[row]))
        x = table("token", token[row]) + table("offset", offset[row]) + table("position", np.arange(LENGTH))
        for number in sorted(p["blocks"]):
            block = p["blocks"][number]
            shift1, scale1, gate1, shift2, scale2, gate2 = np.split(linear(block["modulation"], condition), 6)
            half, gate = np.split(
                linear(block["mix"], gelu(mixed(block["s4"], norm(x) * (1 + scale1) + shift1))), 2, axis=-1
            )
            x = x + gate1 * half / (1 + np.exp(-gate))
            x = x + gate2 * linear(block["down"], gelu(linear(block["up"], norm(x) * (1 + scale2) + shift2)))
        shift, scale = np.split(linear(p["modulation"], condition), 2)
        context = norm(x) * (1 + scale) + shift
        tokens.append(linear(p["token_out"], context))
        hidden = gelu(linear(p["offset_in"], context) + table("offset_token", asked[row]))
        offsets.append(linear(p["offset_out"], hidden) + table("offset_bias", asked[row]))
    return np.stack(tokens), np.stack(offsets)


def test_logits_equal_a_plain_loop(made):
    _, params, logits = made
    for ours, plain in zip(logits(params, *flows()), loop(params, *flows()), strict=True):
        assert ours.shape == plain.shape
        np.testing.assert_allclose(ours, plain, atol=2e-5)


def test_every_packet_hears_every_other_of_its_own_flow(made):
    _, params, logits = made
    token, offset, label, asked = flows()
    before = logits(params, token, offset, label, asked)[0]
    for place in (0, LENGTH - 1):
        other = token.copy()
        other[1, place] = (other[1, place] + 1) % TOKENS
        changed = np.abs(logits(params, other, offset, label, asked)[0] - before).max(axis=2) > 1e-6
        assert changed[1].all() and not changed[[0, 2, 3]].any()
    turned = logits(params, *(part[::-1] for part in (token, offset, label, asked)))[0]
    np.testing.assert_allclose(turned[::-1], before, atol=1e-6)
    relabelled = logits(params, token, offset, (label + 1) % (CLASSES + 1), asked)[0]
    assert (np.abs(relabelled - before).max(axis=2) > 1e-6).all()


def test_dropout_is_drawn_by_flow_and_state_spaces_are_known_as_such(made):
    _, params, logits = made
    token, offset, label, asked = (np.repeat(part[:1], 4, axis=0) for part in flows())
    whole, dropped = (
        np.asarray(logits(params, token, offset, label, asked, key)[0]) for key in (None, jax.random.key(0))
    )
    assert len(np.unique(whole[:, 0, 0])) == 1 < len(np.unique(dropped[:, 0, 0])), "equal flows keep other channels"
    states = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0] if is_state_space(path)]
    assert len(states) == 7 * CONFIG.blocks, "they take the smaller step"


def test_bad_options_are_refused():
    for config, sizes in (
        (CONFIG, (0, TOKENS, OFFSETS, LENGTH)),
        (CONFIG, (CLASSES, TOKENS, OFFSETS, 0)),
        (dataclasses.replace(CONFIG, width=0), (CLASSES, TOKENS, OFFSETS, LENGTH)),
        (dataclasses.replace(CONFIG, dropout=1.0), (CLASSES, TOKENS, OFFSETS, LENGTH)),
    ):
        with pytest.raises(ConfigError):
            make_masked_net(config, *sizes)
