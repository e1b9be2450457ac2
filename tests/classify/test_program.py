"""The program of a shape: learning rates, shapes, operations on scaled times, copies made before, slots together."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxtraffic import augment, classify, parallel
from jaxtraffic.classify import campaigns, models, program
from jaxtraffic.classify.folds import make_folds
from tests.classify.test_folds import make_flows

MLP = classify.ClassifierConfig(name="mlp", model="mlp", batch_size=16, learning_rate=1e-2)
TRANSLATED = {"augmentation": augment.translation, "policy": "replace", "amount": 0.5}
WHERE = {"n_folds": 4, "length": 6}


def named(name, **changes):
    return dataclasses.replace(MLP, name=name, **changes)


@pytest.fixture(scope="module")
def flows():
    return make_flows()


@pytest.fixture(scope="module")
def made(flows):
    return make_folds(flows, (0, 5), **WHERE)


def rates(steps, epoch_steps, **changes):
    """Learning rates of the first steps: of a constant gradient AdamW makes steps of just this size."""
    shape = program.Shape.of(named("x", weight_decay=0.0, **changes))
    transform = program._optimizer(shape, epoch_steps)
    state, out = transform.init(np.float32(1)), []
    with jax.numpy_dtype_promotion("standard"):
        update = jax.jit(lambda state: transform.update(np.float32(1), state, np.float32(1)))
        for _ in range(steps):
            change, state = update(state)
            out.append(-float(change))
    return np.array(out)


def test_the_cosine_ends_at_zero_and_the_infinite_one_restarts():
    got = rates(13, 3, max_epochs=4)
    np.testing.assert_allclose(got, 0.005 * (1 + np.cos(np.pi * np.arange(13) / 12)), atol=1e-6)
    assert got[12] < 1e-9
    got = rates(13, 3, max_epochs=4, schedule="infinite_cosine", period=2)
    np.testing.assert_allclose(got, 0.005 * (1 + np.cos(np.pi * (np.arange(13) % 6) / 6)), atol=1e-6)
    np.testing.assert_allclose(rates(3, 3, schedule="constant"), 0.01, atol=1e-6)


def test_shapes_join_what_may_share_a_program():
    def shape(**changes):
        return program.Shape.of(named("x", **changes).check())

    inject = [shape(augmentation=one.op, policy="inject") for one in augment.AUGMENTATIONS.values() if one.in_paper]
    assert len(inject) == 18 and set(inject) == {inject[0]} and inject[0].fresh == 8
    assert shape() == shape(**TRANSLATED) != inject[0]
    assert shape(augmentation=augment.wrap, policy="inject", amount=3).fresh == 4
    before = [shape(augmentation=augment.wrap, policy="pre_augment", amount=n) for n in (1, 2)]
    assert before[0] != before[1] != shape(), "an epoch is longer where more copies are made"
    assert shape(improvement_unit="fraction").threshold == 0.02 == pytest.approx(100 * shape().threshold)


def test_epochs_have_a_step_for_every_batch_of_the_average_fold():
    steps = campaigns.epoch_steps
    assert steps(64_000, 10, 512) == 100 and steps(10, 10, 1024) == 1 and steps(1000, 5, 200) == 3


@pytest.mark.slow
def test_packet_loss_on_features_equals_packet_loss_on_seconds(flows, made):
    x, mask = flows.arrays()
    scale = models.Fitted("mlp", {}, {}, float(made.scale_high[0]), ()).scale
    raw = x.copy()
    raw[..., 2] = np.where(mask, np.clip(x[..., 2], 1e-7, 10**scale.high), 0)
    features = np.asarray(scale.apply(raw, mask))
    keys, op = jax.random.split(jax.random.key(0), len(x)), augment.packet_loss
    on_features = jax.jit(
        lambda high: jax.vmap(program.with_scale(augment.sequential(op), high).ops[0])(keys, features, mask)
    )
    got, got_mask = on_features(np.float32(scale.high))
    wanted, wanted_mask = jax.jit(jax.vmap(op))(keys, raw, mask)
    same = (np.asarray(got_mask) == np.asarray(wanted_mask)).all(axis=1)
    assert same.mean() > 0.97 and not np.array_equal(got_mask, mask), "rounding may move a packet over the edge"
    np.testing.assert_allclose(np.asarray(got)[same], np.asarray(scale.apply(wanted, wanted_mask))[same], atol=1e-4)


@pytest.mark.slow
def test_copies_made_before_training_are_behind_their_flows(made):
    config = named("before", augmentation=augment.packet_loss, policy="pre_augment", amount=3, alpha=1.0)
    sets = [program.pre_augmented(config, made.train, made, part=1, fold=5, seed=seed) for seed in (0, 0, 1)]
    count = int(made.train.count[1])
    assert sets[0][0].shape[0] == 4 * count
    for got, own in zip(sets[0], made.train):
        np.testing.assert_array_equal(got[::4], own[1, :count])
        for again, other in ((sets[1], True), (sets[2], False)):
            if got.ndim == 3:
                assert np.array_equal(got, again[0]) == other
    copies = sets[0][1].reshape(count, 4, -1)
    assert (copies[:, 1:].sum(axis=-1) <= copies[:, :1].sum(axis=-1)).all() and (copies[:, 1] != copies[:, 2]).any()


@pytest.mark.slow
def test_a_resnet_in_a_slot_equals_one_alone(made):
    """Losses and BatchNorm statistics of three runs side by side against each alone, after three epochs."""
    config = named("resnet", model="resnet", batch_size=32, learning_rate=1e-3)
    programs = program.make_programs(
        program.Shape.of(config), [config], classes=4, length=6, epoch_steps=2, chunk_epochs=3,
        mesh=parallel.make_mesh(devices=1),
    )  # fmt: skip
    columns = [np.array(column, np.int32) for column in ([0, 1, 0], [0, 0, 5], [0, 0, 1], [0, 0, 1])]

    def run(rows):
        slots = programs.start(*(column[rows] for column in columns))
        return programs.train(slots, np.int32(0), made.train, made)

    together = run([0, 1, 2])
    for row in (0, 2):
        alone = run([row])
        assert float(alone.loss[0]) == pytest.approx(float(together.loss[row]), rel=1e-3)
        assert float(alone.best[0]) == pytest.approx(float(together.best[row]), abs=0.05)
        for here, there in zip(jax.tree.leaves(alone.state), jax.tree.leaves(together.state)):
            np.testing.assert_allclose(here[0], there[row], rtol=2e-2, atol=2e-3)
    assert not np.allclose(together.loss[0], together.loss[1], rtol=1e-3), "seeds must matter for this to mean anything"
