"""The token generator: probabilities by enumeration, draws against them, devices, continuation, training, storage."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError, DataError, TrainingError
from jaxtraffic.generate import token_runs
from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.generate.token_family import in_blocks
from jaxtraffic.generate.token_model import TokenGenerator, likelihood_program
from jaxtraffic.generate.token_training import best_epoch, stop_reached, train_epochs
from jaxtraffic.generate.token_vocabulary import Symbols, Vocabulary, keep_first, new_share
from jaxtraffic.nn.token_net import TokenNetConfig
from jaxtraffic.series import PacketSeries
from jaxtraffic.train import TrainConfig

CONFIG = TokenConfig(
    net=TokenNetConfig(width=6, blocks=1, embedding=4, head=4, state=4),
    train=TrainConfig(epochs=4, batch_size=32, learning_rate=1e-2, ema=0.9, class_dropout=0.2, log_steps=3),
    atom_share=0.05,
    bin_bytes=4,
    iat=True,
)
LENGTH = 2
N_DRAWN = 600
"""More than two blocks of a device."""


def series(n=200, length=LENGTH, seed=0, classes=2):
    """Flows of two classes with atoms, a bin, packets of size 0, timers, empty flows and flows of full length."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n).astype(np.int32)
    n_packets = rng.integers(0, length + 1, n)
    signed = rng.choice(
        np.array([52, -1500, 0, 101, 102, 103], np.int16), (n, length), p=[0.3, 0.3, 0.2, 0.1, 0.06, 0.04]
    )
    signed[:, 0] = np.where(label == 0, 52, -1500)
    mask = np.arange(length) < n_packets[:, None]
    iat = rng.choice(np.array([0, 0.5, 1e-6, 3e-6], np.float32), (n, length), p=[0.4, 0.4, 0.17, 0.03])
    iat[:, 0] = 0
    return PacketSeries(
        size=np.where(mask, np.abs(signed), 0).astype(np.int16),
        direction=np.where(mask, np.where(signed < 0, -1, 1), 0).astype(np.int8),
        iat=np.where(mask, iat, 0).astype(np.float32),
        label=label,
        group=(np.arange(n) // 10).astype(np.int32),
        class_names=tuple("ab"[:classes]),
        name="toy",
    ).check()


def random_params(generator, scale=0.4):
    """Parameters with no zero among them, so that every part takes part; not those of a trained network."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(generator.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.standard_normal(leaf.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def generator():
    made = TokenGenerator.of(CONFIG, series())
    # a share that a test can see
    made = TokenGenerator(CONFIG, made.card, dataclasses.replace(made.vocabulary, unseen_share=0.05, iat_share=0.02))
    made.params = random_params(made)
    return made


@pytest.fixture(scope="module")
def drawn(generator):
    labels = (np.arange(N_DRAWN) % 2).astype(np.int32)
    return (labels, *generator.sample_scored(jax.random.key(1), labels, mesh=parallel.make_mesh(devices=1)))


def all_flows(vocabulary, length):
    """Every sequence of symbols of a vocabulary, as [n, length] tokens, offsets and IAT symbols."""
    offsets = vocabulary.tables().offset_mask
    first = [(int(v), int(o), 1) for v, o in zip(*np.nonzero(offsets), strict=True) if v]
    later = [(v, o, w) for v, o, _ in first for w in range(1, vocabulary.n_iats)]
    rows = [[(0, 0, 0)] * length]
    for n in range(1, length + 1):
        for packets in itertools.product(first, *[later] * (n - 1)):
            rows.append([*packets, *[(0, 0, 0)] * (length - n)])
    return (np.array(part, np.int32) for part in np.moveaxis(np.array(rows), -1, 0))


@pytest.fixture(scope="module")
def enumerated(generator):
    """Every flow of symbols that there is, and its probability under each label [label, flow]."""
    token, offset, iat = all_flows(generator.vocabulary, LENGTH)
    assert len(token) > 1000 and token.max() == generator.vocabulary.unseen and offset.max() > 0
    symbols, steps = Symbols(token, offset, iat, np.zeros(token.shape, np.float32)), []
    for label in range(3):
        arrays = (symbols, np.full(len(token), label, np.int32))
        mesh = parallel.make_mesh(devices=1)
        steps += in_blocks(likelihood_program, generator, arrays, mesh=mesh)
    return np.concatenate([token, offset, iat], axis=1), np.exp(np.sum(steps, axis=2, dtype=np.float64))


def test_probabilities_of_all_flows_sum_to_one(enumerated):
    np.testing.assert_allclose(enumerated[1].sum(axis=1), 1, atol=1e-5)


def test_what_the_network_does_not_decide_sums_to_one_too(generator):
    vocabulary = generator.vocabulary
    held = {52, -1500, 0, 101, 102, 103}
    values = vocabulary.unseen_values
    np.testing.assert_allclose(vocabulary.unseen_probability.sum(), 1)
    assert not held & set(values.tolist()), "a size of training is no unseen one"
    inside = range(100, 104)
    assert not set(inside) & set(values.tolist()), "nor is any size of a bin that training shows"
    assert len(values) + len(held | set(inside)) == 65536
    near, far = (vocabulary.unseen_probability[np.searchsorted(values, v)] for v in (53, 20_000))
    np.testing.assert_allclose(near / far, ((16 + 20_000 - 103) / (16 + 1)) ** 2)


def test_log_prob_is_the_sum_of_the_samplers_own_steps(generator, drawn):
    labels, flows, steps = drawn
    assert set(np.asarray(flows.n_packets)) == set(range(LENGTH + 1)), "empty flows and flows without an end"
    symbols = generator.vocabulary.encode(flows)
    assert (symbols.token == generator.vocabulary.unseen).any() and (symbols.offset > 0).any()
    mine = generator.log_prob(flows, labels, mesh=parallel.make_mesh(devices=1))
    assert mine.dtype == np.float64 and np.isfinite(mine).all()
    np.testing.assert_allclose(mine, (steps + symbols.known).sum(axis=1, dtype=np.float64), atol=2e-5)


def test_draws_are_as_frequent_as_their_probability_says(generator, enumerated):
    n = 10_240
    code, p = enumerated
    flows = generator.sample(jax.random.key(2), np.zeros(n, np.int32), mesh=parallel.make_mesh(devices=1))
    symbols = generator.vocabulary.encode(flows)
    drawn = np.concatenate([symbols.token, symbols.offset, symbols.iat], axis=1)
    index = {tuple(row): number for number, row in enumerate(code)}
    count = np.bincount([index[tuple(row)] for row in drawn], minlength=len(code))
    often = n * p[0] >= 5
    expected, found = np.append(n * p[0][often], n * p[0][~often].sum()), np.append(count[often], count[~often].sum())
    freedom = expected.size - 1
    assert freedom > 30
    # Pearson's statistic has mean `freedom` and variance 2 freedom
    statistic = (np.square(found - expected) / expected).sum()
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_eight_devices_give_bitwise_the_samples_of_one(generator, drawn):
    labels, one, steps = drawn
    other, other_steps = generator.sample_scored(jax.random.key(1), labels, mesh=parallel.make_mesh(devices=8))
    for name in ("size", "direction", "iat", "label"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(steps, other_steps)
    some = generator.sample(jax.random.key(1), labels[:20], mesh=parallel.make_mesh(devices=1))
    np.testing.assert_array_equal(some.signed_size, one.signed_size[:20], err_msg="others do not matter")


@pytest.mark.slow
def test_samples_do_not_depend_on_the_block(generator, drawn):
    labels, flows, _ = drawn
    parts = generator.sample(jax.random.key(1), labels, mesh=parallel.make_mesh(devices=8), block=7)
    assert (parts.signed_size == flows.signed_size).mean() > 0.999


def test_continuation_keeps_what_is_known_and_draws_the_rest_as_the_sampler_would(generator, drawn):
    labels, flows, _ = drawn
    mesh = parallel.make_mesh(devices=1)
    for r in (0, np.arange(N_DRAWN) % (LENGTH + 1)):
        # the draws of packet t of flow i are the same ones, so what is known leads to the same rest
        again = generator.continue_from(jax.random.key(1), flows, r, labels, mesh=mesh)
        for name in ("size", "direction", "iat"):
            np.testing.assert_array_equal(getattr(again, name), getattr(flows, name))
    other = generator.continue_from(jax.random.key(7), flows, 1, mesh=mesh)
    np.testing.assert_array_equal(other.signed_size[:, :1], flows.signed_size[:, :1])
    ended = np.asarray(flows.n_packets) < 1
    np.testing.assert_array_equal(other.n_packets[ended], flows.n_packets[ended])
    assert (other.signed_size != flows.signed_size)[~ended].any()
    whole = generator.continue_from(jax.random.key(7), flows, LENGTH, labels, mesh=mesh)
    np.testing.assert_array_equal(whole.signed_size, flows.signed_size)


def test_a_low_temperature_draws_the_likeliest_symbols(generator):
    mesh, labels = parallel.make_mesh(devices=1), np.zeros(64, np.int32)
    one, other = (generator.sample(jax.random.key(k), labels, temperature=0.01, mesh=mesh) for k in (0, 1))
    np.testing.assert_array_equal(one.signed_size, other.signed_size)
    assert len(np.unique(one.signed_size, axis=0)) == 1


def test_bad_questions_are_refused(generator):
    flows = series(4)
    for labels in ([2], [-1], [], [[0]]):
        with pytest.raises(ConfigError, match="labels"):
            generator.sample(jax.random.key(0), labels)
    with pytest.raises(ConfigError, match="at least one flow"):
        generator.log_prob(flows[:0])
    with pytest.raises(ConfigError, match="train or load"):
        TokenGenerator(CONFIG, generator.card, generator.vocabulary).log_prob(flows)
    with pytest.raises(ConfigError, match="temperature"):
        generator.sample(jax.random.key(0), [0], temperature=0.0)
    with pytest.raises(ConfigError, match="r must be"):
        generator.continue_from(jax.random.key(0), flows, LENGTH + 1)
    with pytest.raises(ConfigError, match="packets"):
        generator.log_prob(series(4, length=5))
    blind = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, class_dropout=0.0))
    with pytest.raises(ConfigError, match="class-dropout"):
        TokenGenerator(blind, generator.card, generator.vocabulary, generator.params).log_prob(flows)
    for changes in ({"patience": 0}, {"hidden": 1.0}, {"train": TrainConfig(steps=5)}, {"train": TrainConfig(ema=1.0)}):
        with pytest.raises(ConfigError):
            dataclasses.replace(CONFIG, **changes).check()


def test_share_of_new_tokens_is_counted_flow_by_flow():
    token = np.array([[1, 1, 2], [1, 3, 3], [4, 1, 0]])
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0]], bool)
    # 2, 3 (twice) and 4 are in one flow each: 4 of 8 packets
    assert new_share(token, mask) == 0.5
    assert new_share(np.ones((4, 5), int), np.ones((4, 5), bool)) == 0.5 / 20


def test_keep_first_takes_packets_and_directions():
    made, given = series(30, seed=1), series(30, seed=2)
    r = np.minimum(np.arange(30) % (LENGTH + 1), np.asarray(given.n_packets))
    made = made.replace(
        **{name: np.where(np.arange(LENGTH) < 9, getattr(given, name), 0) for name in ("size", "direction", "iat")}
    )
    kept = keep_first(made, given, r)
    for flow in range(30):
        np.testing.assert_array_equal(kept.direction[flow, : r[flow]], given.direction[flow, : r[flow]])


def test_a_saved_generator_comes_back(generator, tmp_path):
    token_runs.save(generator, tmp_path)
    loaded = token_runs.load(tmp_path)
    assert loaded.config == generator.config and loaded.card == generator.card
    for mine, theirs in zip(generator.tables, loaded.tables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(generator.params)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, generator.params)
    flows = series(20, seed=5)
    jax.tree.map(np.testing.assert_array_equal, loaded.vocabulary.encode(flows), generator.vocabulary.encode(flows))
    (tmp_path / "parameters.npz").write_bytes(b"")
    with pytest.raises(DataError, match="not a token generator"):
        token_runs.load(tmp_path)


def quadratic(params, batch, key):
    """A loss that depends on the order of the flows, so on the key and the step."""
    return jnp.square(params["w"] - batch["x"])[:, 0]


TOY = TrainConfig(epochs=9, batch_size=8, learning_rate=0.1, ema=0.9, log_steps=3, checkpoint_steps=4)


def train_toy(folder, **options):
    arrays = {"x": np.linspace(0, 1, 40, dtype=np.float32)[:, None]}
    shared = {"key": jax.random.key(0), "mesh": parallel.make_mesh(devices=1), "folder": folder, "patience": 2}
    return train_epochs(quadratic, lambda key: {"w": jnp.full((1,), 3.0)}, arrays, TOY, **shared, **options)


@pytest.mark.slow
def test_training_stops_once_the_best_epoch_is_old_and_resumes_to_the_bit(tmp_path):
    class Killed(Exception):
        pass

    def kill(line):
        if line["step"] > 11:
            raise Killed

    def validation(after):
        values = iter([3.0, 1.0, 2.0, 1.5, 0.0][after:])
        return lambda params: np.array([next(values) + 1e-3 * float(params["w"][0])])

    whole = train_toy(tmp_path / "whole", validate=validation(0))
    assert whole.best_epoch == 2 and len(whole.validation) == 4 and int(whole.state.step) == 20
    with pytest.raises(Killed):
        train_toy(tmp_path / "killed", validate=validation(0), report=kill)
    again = train_toy(tmp_path / "killed", validate=validation(2), resume=True)
    jax.tree.map(np.testing.assert_array_equal, again.state, whole.state)
    np.testing.assert_array_equal(again.validation, whole.validation)
    one, other = (
        [json.loads(text) for text in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    )
    for name in ("step", "loss", "learning_rate", "grad_norm"):
        assert [line[name] for line in one] == [line[name] for line in other]
    # Chunks of 3 steps are cut at the ends of epochs of 5.
    assert [line["step"] for line in one] == [3, 5, 8, 10, 13, 15, 18, 20]


def test_as_many_epochs_as_are_no_worse_than_the_best_by_a_standard_error():
    rng = np.random.default_rng(0)
    level = rng.normal(50, 20, 400)
    curve = np.array([9.0, 4.0, 1.0, 0.0, 0.02, 0.05, 0.4, 2.0])
    values = level + curve[:, None] + rng.normal(0, 1, (8, 400))
    values -= (values.mean(axis=1) - level.mean() - curve)[:, None]
    difference = np.std(values - values[3], axis=1, ddof=1) / 400**0.5
    assert difference[5] > 0.05 and difference[6] < 0.4
    assert best_epoch(values) == 6
    assert best_epoch(values, np.arange(400)) == 6
    # What looks like 400 flows are 4 captures of flows that are all alike: a larger error of the same mean.
    alike = level + curve[:, None] + 0.1 * np.outer((-1.0) ** np.arange(8), np.repeat([1, -1, 1, -1], 100))
    assert best_epoch(alike) == 4 and best_epoch(alike, np.repeat(np.arange(4), 100)) == 5
    assert best_epoch(values, np.zeros(400)) == 4, "one capture says nothing of others"
    assert not stop_reached([], None, 1)
    assert stop_reached(list(values), None, 2) and not stop_reached(list(values), None, 3)


@pytest.mark.slow
def test_training_ends_where_it_is_told(tmp_path):
    seen = []
    train_toy(tmp_path / "whole", validate=lambda params: seen.append(float(params["w"][0])) or np.array([-len(seen)]))
    assert len(seen) == TOY.epochs
    again = train_toy(tmp_path / "whole", validate=lambda params: np.zeros(1), resume=True)
    assert int(again.state.step) == 5 * TOY.epochs
    np.testing.assert_array_equal(again.validation[:, 0], -np.arange(1, TOY.epochs + 1))
    early = train_toy(tmp_path / "early", validate=lambda params: np.zeros(1))
    assert int(early.state.step) == 15 and early.best_epoch == 1
    with pytest.raises(TrainingError, match="validation"):
        train_toy(tmp_path / "nan", validate=lambda params: np.array([np.nan]))


@pytest.mark.slow
def test_fit_selects_refits_and_learns(tmp_path):
    train = series(1200, length=6)
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, epochs=8), patience=2)
    lines = []
    mesh = parallel.make_mesh(devices=2)
    made = token_runs.fit(config, train, key=jax.random.key(0), mesh=mesh, folder=tmp_path, report=lines.append)
    phases = [line["phase"] for line in lines]
    assert phases == sorted(phases, reverse=True) and set(phases) == {"selection", "refit"}
    assert lines[-1]["epoch"] == best_epoch(np.load(tmp_path / "selection" / "validation.npy"))
    fresh = series(600, length=6, seed=9)
    untrained = TokenGenerator(config, made.card, made.vocabulary, made.init(jax.random.key(0)))
    told, before = (g.log_prob(fresh, fresh.label).mean() for g in (made, untrained))
    assert told > before + 0.3, "the first packet tells the class, which costs log 2 to who does not know"
    loaded = token_runs.load(tmp_path)
    labels = loaded.draw_labels(50)
    one, two = (g.sample(jax.random.key(1), labels) for g in (made, loaded))
    np.testing.assert_array_equal(one.signed_size, two.signed_size)
    assert Vocabulary.of(made.vocabulary.tokeniser, train).unseen_share == made.vocabulary.unseen_share
