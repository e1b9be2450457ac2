"""The token network: a plain loop, both forms, causality, conditioning, dropout, bad options."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn import is_state_space
from jaxtraffic.nn.token_net import TokenNetConfig, make_token_net

CONFIG = TokenNetConfig(width=6, blocks=2, embedding=4, head=5, state=4, dropout=0.5)
CLASSES, TOKENS, OFFSETS, LENGTH, IATS = 2, 5, 3, 7, 4


def random_like(shapes, scale=0.4):
    """Parameters of these shapes with no zero among them, so that every part takes part."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.standard_normal(leaf.shape), jnp.float32), shapes)


@functools.cache
def made(n_iats=IATS, **changes):
    net = make_token_net(dataclasses.replace(CONFIG, **changes), CLASSES, TOKENS, OFFSETS, LENGTH, n_iats=n_iats)
    return net, random_like(jax.eval_shape(net.init, jax.random.key(0)))


def flows(batch=4):
    rng = np.random.default_rng(0)
    token, offset, iat = (rng.integers(0, n, (batch, LENGTH)).astype(np.int32) for n in (TOKENS, OFFSETS, IATS))
    return token, offset, iat, (np.arange(batch) % (CLASSES + 1)).astype(np.int32)


@functools.cache
def convolved(net):
    return jax.jit(
        lambda params, token, offset, iat, label: (
            *net.logits(params, token, offset, label, iat=iat),
            net.iat_logits(params, token, offset, label, iat),
        )
    )


def loop(params, token, offset, iat, label):
    """The network as plain loops over packets and channels in float64, with dense state matrices."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def table(name, index):
        return p[name]["embedding"][index]

    def linear(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    def norm(x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-6)

    def gelu(x):
        # nnx.gelu is the tanh form
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def silu(x):
        return x / (1 + np.exp(-x))

    def matrices(s4, channel):
        """Discrete A, B, C of a channel over both halves of the conjugate pairs, by matrix inversion."""

        def both(x):
            return np.concatenate([x, x.conj()])

        lam = both(-np.exp(s4["log_neg_re"][channel]) + 1j * s4["im"][channel])
        b, c, low = (both(s4[n][channel, :, 0] + 1j * s4[n][channel, :, 1]) for n in ("b", "c0", "p"))
        a, dt = np.diag(lam) - np.outer(low, low.conj()), np.exp(s4["log_dt"][channel])
        left = np.linalg.inv(np.eye(len(lam)) - dt / 2 * a)
        return left @ (np.eye(len(lam)) + dt / 2 * a), left @ (dt * b), c

    blocks = [p["blocks"][number] for number in sorted(p["blocks"])]
    results = []
    for row in range(len(token)):
        condition = silu(table("classes", label[row]))
        own = [np.split(linear(block["modulation"], condition), 6) for block in blocks]
        spaces = [[matrices(b["s4"] | {"c0": b["s4"]["c"][0]}, h) for h in range(CONFIG.width)] for b in blocks]
        states = [[np.zeros(CONFIG.state, complex) for _ in range(CONFIG.width)] for _ in blocks]
        for t in range(LENGTH):
            x = table("position", t)
            if t:
                last = token[row, t - 1], offset[row, t - 1], iat[row, t - 1]
                x = x + table("token", last[0]) + table("offset", last[1]) + table("iat", last[2])
            for number, block in enumerate(blocks):
                shift1, scale1, gate1, shift2, scale2, gate2 = own[number]
                u, y = norm(x) * (1 + scale1) + shift1, np.zeros(CONFIG.width)
                for h in range(CONFIG.width):
                    a, b, c = spaces[number][h]
                    states[number][h] = a @ states[number][h] + b * u[h]
                    y[h] = (c @ states[number][h]).real + block["s4"]["d"][h] * u[h]
                half, gate = np.split(linear(block["mix"], gelu(y)), 2)
                x = x + gate1 * half / (1 + np.exp(-gate))
                hidden = gelu(linear(block["up"], norm(x) * (1 + scale2) + shift2))
                x = x + gate2 * linear(block["down"], hidden)
            shift, scale = np.split(linear(p["modulation"], condition), 2)
            context = norm(x) * (1 + scale) + shift
            now = token[row, t]
            offsets = gelu(linear(p["offset_in"], context) + table("offset_token", now))
            iats = linear(p["iat_in"], context) + table("iat_token", now) + table("iat_offset", offset[row, t])
            results.append(
                (
                    linear(p["token_out"], context),
                    linear(p["offset_out"], offsets) + table("offset_bias", now),
                    linear(p["iat_out"], gelu(iats)),
                )
            )
    return [np.stack(part).reshape(len(token), LENGTH, -1) for part in zip(*results, strict=True)]


def test_logits_equal_a_plain_loop():
    net, params = made()
    inputs = flows()
    for ours, plain in zip(convolved(net)(params, *inputs), loop(params, *inputs), strict=True):
        np.testing.assert_allclose(ours, plain, atol=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"space": "diag-lin", "method": "zoh", "glu": False}, marks=pytest.mark.slow),
        pytest.param({"width": 64, "state": 16, "blocks": 4}, marks=pytest.mark.slow),
    ],
)
def test_steps_equal_the_convolution(changes):
    net, params = made(**changes)
    token, offset, iat, label = flows()
    whole = convolved(net)(params, token, offset, iat, label)

    @jax.jit
    def steps(params):
        state = net.start(params, label)

        def body(state, packet):
            token, offset, iat = packet
            heads = (
                net.token_logits_at(params, state),
                net.offset_logits_at(params, state, token),
                net.iat_logits_at(params, state, token, offset),
            )
            state, following = net.step(params, state, token, offset, iat=iat)
            return state, (*heads, following)

        return jax.lax.scan(body, state, [jnp.moveaxis(x, 1, 0) for x in (token, offset, iat)])[1]

    *heads, following = (np.moveaxis(x, 0, 1) for x in steps(params))
    for stepped, convolved_logits in zip(heads, whole, strict=True):
        np.testing.assert_allclose(stepped, convolved_logits, atol=1e-5)
    np.testing.assert_allclose(following[:, :-1], whole[0][:, 1:], atol=1e-5)


def test_a_packet_is_seen_by_later_packets_only_and_by_its_own_later_heads():
    net, params = made()
    token, offset, iat, label = flows()
    before = convolved(net)(params, token, offset, iat, label)
    at = 3

    def moved(number):
        changed = [np.array(x) for x in (token, offset, iat)]
        changed[number][:, at] = (changed[number][:, at] + 1) % (TOKENS, OFFSETS, IATS)[number]
        after = convolved(net)(params, *changed, label)
        return [np.abs(a - b).max(axis=(0, 2)) > 1e-6 for a, b in zip(after, before, strict=True)]

    later, at_once = np.arange(LENGTH) > at, np.arange(LENGTH) >= at
    for number, expected in enumerate([(later, at_once, at_once), (later, later, at_once), (later, later, later)]):
        for head, (seen, wanted) in enumerate(zip(moved(number), expected, strict=True)):
            np.testing.assert_array_equal(seen, wanted, err_msg=f"symbol {number}, head {head}")


def test_labels_matter_and_rows_do_not_see_each_other():
    net, params = made()
    token, offset, iat, _ = (np.repeat(x[:1], 4, axis=0) for x in flows())
    label = np.array([0, 1, 2, 0], np.int32)
    logits = convolved(net)(params, token, offset, iat, label)[0]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(logits[one] - logits[other]).max() > 1e-3
    np.testing.assert_allclose(logits[0], logits[3], atol=1e-6)


@pytest.mark.slow
def test_dropout_drops_channels_of_both_branches_for_all_packets():
    net, params = made(blocks=1)
    token, offset, iat, label = flows()
    run = jax.jit(lambda params, key: net.contexts(params, token, offset, label, iat=iat, dropout_key=key))
    one, again, other = (run(params, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    # With a stream of one and the same number the norms give 0, so the branches are their biases times their gates.
    zero = jax.tree.map(jnp.zeros_like, params)
    block, bias = dict(zero["blocks"][0]), jnp.full(CONFIG.width, 3.0)
    block["down"] = block["down"] | {"bias": bias}
    gates = jnp.zeros(6 * CONFIG.width).at[5 * CONFIG.width :].set(1.0)
    block["modulation"] = block["modulation"] | {"bias": gates}
    kept = np.asarray(run(zero | {"blocks": {0: block}}, jax.random.key(0)))
    assert (kept == kept[:, :1]).all(), "one mask a flow"
    signs = np.sign(kept[:, 0])
    assert len(np.unique(signs, axis=0)) > 1, "flows have masks of their own"
    assert 0.2 < (signs > 0).mean() < 0.8


def test_without_times_there_is_no_head_for_them_and_state_spaces_are_known_as_such():
    net, params = made(0)
    assert not [name for name in params if name.startswith("iat")]
    marked = {path[2].key for path, _ in jax.tree_util.tree_leaves_with_path(params["blocks"]) if is_state_space(path)}
    assert marked == {"log_neg_re", "im", "b", "c", "d", "log_dt", "p"}


@pytest.mark.parametrize(
    "changes, sizes",
    [
        ({"width": 0}, (2, 5, 3, 7)),
        ({"dropout": 1.0}, (2, 5, 3, 7)),
        ({"precision": "int8"}, (2, 5, 3, 7)),
        ({}, (0, 5, 3, 7)),
        ({}, (2, 0, 3, 7)),
        ({}, (2, 5, 3, 0)),
    ],
)
def test_bad_options_are_refused(changes, sizes):
    with pytest.raises(ConfigError):
        make_token_net(dataclasses.replace(CONFIG, **changes), *sizes)
