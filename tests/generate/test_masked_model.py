"""The masked generator: masks, probabilities by enumeration, draws against them, imputation, devices, storage."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.generate import token_runs
from jaxtraffic.generate.masked_config import MaskedConfig
from jaxtraffic.generate.masked_model import MaskedGenerator, sampling_program
from jaxtraffic.generate.masked_sampling import choose, masked_log_probs
from jaxtraffic.generate.token_training import best_epoch
from jaxtraffic.generate.token_vocabulary import Symbols
from jaxtraffic.nn.masked_net import MaskedNetConfig
from jaxtraffic.series import from_signed_size
from jaxtraffic.train import TrainConfig

CONFIG = MaskedConfig(
    net=MaskedNetConfig(width=6, blocks=1, embedding=4, head=4, state=4, dropout=0.0),
    train=TrainConfig(epochs=4, batch_size=32, learning_rate=1e-2, ema=0.9, class_dropout=0.2, log_steps=3),
    atom_share=0.05,
    bin_bytes=4,
    # with random parameters features make probabilities so unequal that means over few draws say nothing
    size_features=False,
)
LENGTH = 3
KINDS = np.array([52, -1500, 0, 101, 102, 103], np.int16)
END = 0


def series(n=200, length=LENGTH, seed=0, shortest=0):
    """Flows of two classes with atoms, a bin, packets of size 0; from `shortest` packets to full length."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    signed = rng.choice(KINDS, (n, length), p=[0.3, 0.3, 0.2, 0.1, 0.06, 0.04])
    signed[:, 0] = np.where(label == 0, 52, -1500)
    n_packets = rng.integers(shortest, length + 1, n)
    signed[np.arange(length) >= n_packets[:, None]] = 0
    flows = from_signed_size(signed, label, class_names=("a", "b"), name="toy", source="real")
    mask = np.arange(length) < n_packets[:, None]
    direction = np.where(mask, np.where(signed < 0, -1, 1), 0).astype(np.int8)
    return flows.replace(direction=direction, group=(np.arange(n) // 10).astype(np.int32)).check()


def one_device():
    return parallel.make_mesh(devices=1)


def random_params(made):
    """Parameters with no zero among them but for the output biases, where `init` puts them."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(made.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), jnp.float32), shapes)
    # its random draws take seconds to compile
    made.net = made.net._replace(init=lambda key: params)
    return made.init(jax.random.key(0))


@pytest.fixture(scope="module")
def generator():
    """Random parameters, and a share of unseen sizes that a test can see."""
    made = MaskedGenerator.of(CONFIG, series())
    made = MaskedGenerator(CONFIG, made.card, dataclasses.replace(made.vocabulary, unseen_share=0.05))
    made.params = random_params(made)
    return made


@pytest.fixture(scope="module")
def drawn(generator):
    labels = (np.arange(600) % 2).astype(np.int32)
    return labels, generator.sample(jax.random.key(1), labels, mesh=one_device())


@pytest.fixture(scope="module")
def asked(generator):
    """(symbols, label, masked) -> log-probabilities of the masked packets [flow, T], jitted."""
    return jax.jit(lambda *a: masked_log_probs(generator.net, generator.params, generator.tables, *a))


@pytest.fixture(scope="module")
def enumerated(generator, asked):
    """Every flow of symbols, its log-probability drawn in each order of the packets [order, flow], label 0."""
    packet = [(int(v), int(o)) for v, o in zip(*np.nonzero(generator.tables.offset_mask), strict=True) if v]
    flows = [
        [*packets, *[(END, 0)] * (LENGTH - n)]
        for n in range(LENGTH + 1)
        for packets in itertools.product(packet, repeat=n)
    ]
    token, offset = np.moveaxis(np.array(flows, np.int32), -1, 0)
    assert token.max() == generator.vocabulary.unseen and offset.max() > 0
    symbols, label = Symbols(token, offset, None, np.zeros(token.shape, np.float32)), np.zeros(len(token), np.int32)
    given = {}
    for masked in itertools.product((False, True), repeat=LENGTH):
        given[masked] = np.asarray(asked(symbols, label, np.tile(masked, (len(token), 1))), np.float64)
    orders = []
    for order in itertools.permutations(range(LENGTH)):
        hidden = [tuple(t in order[step:] for t in range(LENGTH)) for step in range(LENGTH)]
        orders.append(sum(given[masked][:, place] for masked, place in zip(hidden, order, strict=True)))
    return symbols, np.stack(orders)


def test_masks_integrate_over_all_shares():
    n, length = 40_000, 4
    rng = np.random.default_rng(0)
    share = ((np.arange(n) + 0.5) / n).astype(np.float32)
    masked, weight = jax.jit(choose)(share, rng.random((n, length), dtype=np.float32))
    masked = np.asarray(masked)
    np.testing.assert_array_equal(masked.sum(axis=1), 1 + np.floor(share * length))
    np.testing.assert_allclose(weight, length / masked.sum(axis=1))
    # each set's weight is its share of the integral over t of its probability over t, by the midpoint rule
    t = (np.arange(10_000) + 0.5) / 10_000
    for subset in itertools.product((False, True), repeat=length):
        k = sum(subset)
        if k:
            integral = np.mean(t**k * (1 - t) ** (length - k) / t)
            mine = np.where((masked == subset).all(axis=1), weight, 0).mean()
            np.testing.assert_allclose(mine, integral, rtol=0.06)
    equal, _ = choose(jnp.array([0.6]), jnp.zeros((1, length)))
    np.testing.assert_array_equal(equal, [[True, True, True, False]])


def test_probabilities_equal_a_loop_over_packets(generator, asked, enumerated):
    symbols, unseen, share = enumerated[0], generator.vocabulary.unseen, 0.05
    n = len(symbols.token)
    label, masked = np.arange(n, dtype=np.int32) % 3, np.random.default_rng(0).random((n, LENGTH)) < 0.6
    token, offset, certain = symbols.token.copy(), symbols.offset.copy(), np.zeros(masked.shape, bool)
    for flow in range(n):
        for t in range(LENGTH):
            # padding after an end that is shown is shown too; unseen sizes never are
            certain[flow, t] = any(symbols.token[flow, s] == END and not masked[flow, s] for s in range(t))
            if (masked[flow, t] and not certain[flow, t]) or symbols.token[flow, t] == unseen:
                token[flow, t], offset[flow, t] = unseen + 1, 0
    net, params = generator.net, generator.params

    @jax.jit
    def logits(params):
        context = net.contexts(params, net.prepare(params, label), token, offset)
        return net.token_logits(params, context), net.offset_logits(params, context, symbols.token)

    tokens, offsets = (np.asarray(part, np.float64) for part in logits(params))
    expected = np.zeros(masked.shape)
    for flow in range(n):
        for t in range(LENGTH):
            if not masked[flow, t] or certain[flow, t]:
                continue
            if symbols.token[flow, t] == unseen:
                expected[flow, t] = np.log(share)
                continue
            weight = np.exp(tokens[flow, t, :unseen])
            if any(symbols.token[flow, s] != END and not masked[flow, s] for s in range(t + 1, LENGTH)):
                weight[END] = 0
            own = np.exp(offsets[flow, t]) * np.asarray(generator.tables.offset_mask)[symbols.token[flow, t]]
            expected[flow, t] = np.log((1 - share) * weight[symbols.token[flow, t]] / weight.sum())
            expected[flow, t] += np.log(own[symbols.offset[flow, t]] / own.sum())
    assert certain.any() and (expected < 0).any()
    np.testing.assert_allclose(asked(symbols, label, masked), expected, atol=1e-5)


def test_probabilities_of_all_flows_sum_to_one_in_every_order(enumerated):
    np.testing.assert_allclose(np.exp(enumerated[1]).sum(axis=1), 1, atol=1e-5)


def test_the_bound_is_the_mean_over_orders(generator, enumerated):
    symbols, orders = enumerated
    signed = np.append(generator.vocabulary.tokeniser.low[generator.vocabulary.seen], 0)[symbols.token] + symbols.offset
    mask = symbols.token != END
    chosen = np.flatnonzero((symbols.token != generator.vocabulary.unseen).all(axis=1))[::3]
    flows = series(len(chosen)).replace(
        size=np.abs(signed)[chosen].astype(np.int16),
        direction=np.where(mask, np.where(signed < 0, -1, 1), 0)[chosen].astype(np.int8),
        label=np.zeros(len(chosen), np.int32),
        iat=np.zeros(mask[chosen].shape, np.float32),
    )
    mine = generator.elbo(jax.random.key(0), flows, flows.label, n=240, mesh=one_device())
    exact = orders[:, chosen].mean(axis=0)
    assert np.abs(mine - exact).max() < 0.5 and abs((mine - exact).mean()) < 0.01
    assert (exact < np.log(np.exp(orders[:, chosen]).mean(axis=0)) - 1e-4).any(), "a bound, not the probability"


@pytest.mark.slow
def test_the_loss_is_the_bound_from_one_mask_a_flow(generator, enumerated):
    symbols, orders = enumerated
    n, number = 6000, len(symbols.token) // 2
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, class_dropout=0.0))
    plain = MaskedGenerator(config, generator.card, generator.vocabulary)
    batch = {
        "symbols": jax.tree.map(lambda leaf: np.repeat(leaf[number][None], n, axis=0), symbols),
        "label": np.zeros(n, np.int32),
        "packets": np.full(n, 2.0, np.float32),
    }
    losses = jax.jit(plain.loss)(generator.params, batch, jax.random.key(3))
    np.testing.assert_allclose(2 * losses.mean(), -orders[:, number].mean(), rtol=0.03)


@pytest.mark.slow
def test_the_bound_is_exact_for_a_single_packet():
    flows = series(60, length=1)
    made = MaskedGenerator.of(CONFIG, flows)
    made.params = random_params(made)
    made.params["token_out"]["bias"] = jnp.linspace(-1, 1, made.vocabulary.n_symbols)
    seen = made.vocabulary.encode(flows).token[:, 0]
    mine = made.elbo(jax.random.key(1), flows, flows.label, n=1, mesh=one_device())
    net, nothing = made.net, np.full((2, 1), made.vocabulary.n_symbols, np.int32)
    label = np.arange(2, dtype=np.int32)

    @jax.jit
    def logits(params):
        return net.token_logits(params, net.contexts(params, net.prepare(params, label), nothing, 0 * nothing))

    weight = np.exp(np.asarray(logits(made.params), np.float64)[:, 0, :-1])
    shares = (1 - made.vocabulary.unseen_share) * weight / weight.sum(axis=1, keepdims=True)
    single = ~np.isin(np.asarray(flows.size)[:, 0], (101, 102, 103))
    np.testing.assert_allclose(mine[single], np.log(shares[flows.label, seen])[single], atol=1e-5)


def test_draws_are_as_frequent_as_the_orders_say(generator, enumerated):
    symbols, orders = enumerated
    n, p = 10_240, np.exp(orders).mean(axis=0)
    flows = generator.sample(jax.random.key(2), np.zeros(n, np.int32), mesh=one_device())
    index = {row.tobytes(): number for number, row in enumerate(np.concatenate(symbols[:2], axis=1))}
    found = generator.vocabulary.encode(flows)
    rows = np.concatenate(found[:2], axis=1)
    count = np.bincount([index[row.tobytes()] for row in rows], minlength=len(p))
    often = n * p >= 5
    assert often.sum() > 50
    expected, count = np.append(n * p[often], n * p[~often].sum()), np.append(count[often], count[~often].sum())
    freedom = expected.size - 1
    statistic = np.sum((count - expected) ** 2 / expected)
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.slow
def test_constant_logits_give_their_marginals_without_padding():
    train = series(300, length=5, shortest=5)
    made = MaskedGenerator.of(CONFIG, train)
    made.params = random_params(made)
    assert made.params["token_out"]["bias"][END] < -8, "no training flow has an end"
    made.params["token_out"]["kernel"] *= 0
    n = 4000
    flows = made.sample(jax.random.key(0), np.arange(n) % 2, steps=2, mesh=one_device(), block=n)
    assert (np.asarray(flows.n_packets) == 5).mean() > 0.99
    packets = np.asarray(train.signed_size)
    for size in (52, -1500, 0):
        expected = (packets == size).mean()
        np.testing.assert_allclose((np.asarray(flows.signed_size) == size).mean(axis=0), expected, atol=0.035)


def test_imputation_keeps_what_is_known(generator):
    flows = series(300, seed=4)
    flows = flows.replace(iat=np.where(np.asarray(flows.mask), 0.25, 0).astype(np.float32))
    flows = flows.replace(size=np.where(np.asarray(flows.size) == 103, 777, flows.size).astype(np.int16)).check()
    known = np.random.default_rng(1).random((300, LENGTH)) < 0.5
    mask, length = np.asarray(flows.mask), np.asarray(flows.n_packets)
    drawn = set()
    for labels in (None, flows.label):
        made = generator.impute(jax.random.key(0), flows, known, labels, mesh=one_device())
        for name in ("size", "direction", "iat"):
            np.testing.assert_array_equal(getattr(made, name)[known], np.asarray(getattr(flows, name))[known])
        np.testing.assert_array_equal(made.label, flows.label)
        for flow in range(300):
            packets, ends = np.flatnonzero(known[flow] & mask[flow]), np.flatnonzero(known[flow] & ~mask[flow])
            assert made.n_packets[flow] >= (packets.max() + 1 if packets.size else 0)
            assert made.n_packets[flow] <= (ends.min() if ends.size else LENGTH)
            drawn.add(int(made.n_packets[flow]) - int(length[flow]))
    assert min(drawn) < 0 < max(drawn), "ends that are not known are drawn"
    whole = generator.impute(jax.random.key(0), flows, np.ones_like(known), mesh=one_device())
    np.testing.assert_array_equal(whole.signed_size, flows.signed_size)
    np.testing.assert_array_equal(whole.n_packets, flows.n_packets)
    later = generator.continue_from(jax.random.key(0), flows, 1, mesh=one_device())
    np.testing.assert_array_equal(later.signed_size[:, 0], flows.signed_size[:, 0])


def test_samples_do_not_depend_on_the_devices_and_compile_once(generator, drawn):
    labels, flows = drawn
    mesh = parallel.make_mesh(devices=8)
    several = generator.sample(jax.random.key(1), labels, mesh=mesh)
    for name in ("size", "direction"):
        np.testing.assert_array_equal(getattr(several, name), getattr(flows, name))
    some = generator.sample(jax.random.key(1), labels[:20], temperature=1.0, mesh=mesh)
    np.testing.assert_array_equal(some.signed_size, flows.signed_size[:20], err_msg="others do not matter")
    generator.impute(jax.random.key(1), flows, np.asarray(flows.mask), labels, mesh=mesh, temperature=0.5)
    assert sampling_program(generator, mesh, steps=LENGTH)._cache_size() == 1


def test_a_low_temperature_draws_the_likeliest_symbols(generator):
    known = np.tile([True, False, True], (64, 1))
    flows = series(1)[np.zeros(64, int)]
    shared = {"temperature": 0.01, "mesh": one_device()}
    made = generator.impute(jax.random.key(0), flows, known, flows.label, **shared)
    assert len(np.unique(made.signed_size, axis=0)) == 1


def test_bad_questions_are_refused(generator):
    flows, key = series(4), jax.random.key(0)
    for options, text in (({"temperature": 0.0}, "temperature"), ({"steps": 0}, "steps")):
        with pytest.raises(ConfigError, match=text):
            generator.sample(key, [0], **options)
    with pytest.raises(ConfigError, match="labels"):
        generator.sample(key, [2])
    for known in (np.ones((4, 2), bool), np.ones((4, LENGTH), int)):
        with pytest.raises(ConfigError, match="known must be"):
            generator.impute(key, flows, known)
    with pytest.raises(ConfigError, match="r must be"):
        generator.continue_from(key, flows, LENGTH + 1)
    with pytest.raises(ConfigError, match="packets"):
        generator.elbo(key, series(4, length=5))
    with pytest.raises(ConfigError, match="n must be"):
        generator.elbo(key, flows, n=0)
    with pytest.raises(ConfigError, match="train or load"):
        MaskedGenerator(CONFIG, generator.card, generator.vocabulary).sample(key, [0])
    blind = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, class_dropout=0.0))
    with pytest.raises(ConfigError, match="class-dropout"):
        MaskedGenerator(blind, generator.card, generator.vocabulary, generator.params).elbo(key, flows)
    for changes in ({"patience": 0}, {"steps": 0}, {"train": TrainConfig(steps=5)}, {"train": TrainConfig(ema=1.0)}):
        with pytest.raises(ConfigError):
            dataclasses.replace(CONFIG, **changes).check()


def test_a_saved_generator_comes_back(generator, tmp_path):
    token_runs.save(generator, tmp_path)
    loaded = token_runs.load(tmp_path)
    assert loaded.config == generator.config and loaded.card == generator.card
    for mine, theirs in zip(generator.tables, loaded.tables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(generator.params)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, generator.params)
    (tmp_path / "parameters.npz").write_bytes(b"")
    with pytest.raises(DataError, match="not a token generator"):
        token_runs.load(tmp_path)


@pytest.mark.slow
def test_fit_selects_refits_and_learns(tmp_path):
    train = series(800, length=6, shortest=2)
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, epochs=6), patience=3)
    lines, mesh = [], parallel.make_mesh(devices=2)
    made = token_runs.fit(config, train, key=jax.random.key(0), mesh=mesh, folder=tmp_path, report=lines.append)
    phases = [line["phase"] for line in lines]
    assert phases == sorted(phases, reverse=True) and set(phases) == {"selection", "refit"}
    assert lines[-1]["epoch"] == best_epoch(np.load(tmp_path / "selection" / "validation.npy"))
    fresh = series(600, length=6, seed=9, shortest=2)
    untrained = MaskedGenerator(config, made.card, made.vocabulary, jax.jit(made.init)(jax.random.key(0)))
    told, before = (g.elbo(jax.random.key(5), fresh, fresh.label).mean() for g in (made, untrained))
    assert told > before + 0.3, "the class tells the first packet, which costs log 2 to who does not know"
    loaded = token_runs.load(tmp_path)
    labels = loaded.draw_labels(50)
    one, two = (g.sample(jax.random.key(1), labels) for g in (made, loaded))
    np.testing.assert_array_equal(one.signed_size, two.signed_size)
