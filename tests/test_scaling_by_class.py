"""Scales by class: exact inverses, distributions against plain counting, the generator around them, refusals."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from scipy import special, stats

from jaxtraffic import generate, parallel, prng, scaling
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import mi_tune
from jaxtraffic.generate.prefix_information import generator_information
from jaxtraffic.information import observers
from jaxtraffic.series import from_signed_size

CLASSES = 5
SIZES = (1500, 900, 30, 1, 0)
"""Flows of each class: the fourth has one, the last none."""
LABEL = np.repeat(np.arange(CLASSES), SIZES)
# Always called with as many flows: compiling the inverse of the normal distribution takes a second.
APPLY = jax.jit(lambda scale, key, signed, label: scale.apply(key, signed, label))
INVERT = jax.jit(lambda scale, x, label: scale.invert(x, label))


@pytest.fixture(scope="module")
def flows():
    """Atoms of each class's own, padding in some classes, sizes seen once, a constant column, one of padding only."""
    rng = np.random.default_rng(0)
    signed = np.where(rng.random((LABEL.size, 6)) < 0.4, (100 * LABEL - 250)[:, None], 52)
    smooth = np.clip(np.exp(rng.normal(5, 1, signed.shape)), 1, 1400).astype(int)
    signed = np.where(rng.random(signed.shape) < 0.3, smooth, signed)
    signed[:, 3:5][LABEL == 0] = 0
    signed[:, 4], signed[:, 5] = np.where(LABEL == 1, 7, 0), 0
    signed[:, 2] = -40
    return signed.astype(np.int16)


@pytest.fixture(scope="module")
def scale(flows):
    return scaling.fit("class_quantile", flows, LABEL, CLASSES)


def test_each_size_of_the_tables_comes_back_in_every_class(flows, scale):
    table = np.asarray(scale.value).T.astype(np.int16)
    for position in range(6):
        assert set(flows[:, position].tolist()) <= set(table[:, position].tolist())
    assert table.shape[0] > 500 and (table[:, 5] == 0).all()
    # The class of one flow has seen -40 once, so that it has neighbours, though all flows have seen it often.
    assert set(table[:, 2].tolist()) == set(range(-55, -24))
    rows = np.resize(table, flows.shape)
    for label in range(CLASSES):
        labels = np.full(len(rows), label)
        for seed in range(2):
            scaled = APPLY(scale, jax.random.key(seed), rows, labels)
            assert scaled.dtype == np.float32 and np.abs(scaled).max() <= scale.bound
            back = INVERT(scale, scaled, labels)
            assert back.dtype == np.int16
            np.testing.assert_array_equal(back, rows)


def test_flows_come_back_and_draws_are_fresh_and_vmap_agrees(flows, scale):
    keys = jax.random.split(jax.random.key(3), len(flows))
    rows = jax.jit(jax.vmap(scale.apply))(keys, flows, LABEL)
    np.testing.assert_array_equal(jax.jit(jax.vmap(scale.invert))(rows, LABEL), flows)
    one, other = (np.asarray(APPLY(scale, jax.random.key(seed), flows, LABEL)) for seed in (0, 1))
    assert (one != other).any(axis=0).all()
    # Sizes beside the tables take the nearest of their position.
    far = np.where(LABEL[:, None] == 2, -1400, flows).astype(np.int16)
    nearest = np.asarray(scale.value)[:, 0]
    back = np.asarray(INVERT(scale, APPLY(scale, jax.random.key(0), far, LABEL), LABEL))
    assert (back[LABEL == 2] == nearest).all()
    np.testing.assert_array_equal(back[LABEL != 2], flows[LABEL != 2])


def test_the_inverse_is_the_first_boundary_above(scale):
    z, value = np.asarray(scale.z), np.asarray(scale.value)
    x = np.random.default_rng(0).normal(0, 2, (LABEL.size, 6)).astype(np.float32)
    labels = np.arange(LABEL.size) % CLASSES
    # Boundaries themselves, of the classes they belong to.
    x[:100] = z[labels[:100, None], np.arange(6), np.arange(100)[:, None] * (value.shape[1] // 100)]
    expected = [
        [value[t, min(np.searchsorted(z[c, t, 1:], row[t]), value.shape[1] - 1)] for t in range(6)]
        for c, row in zip(labels, x, strict=True)
    ]
    np.testing.assert_array_equal(INVERT(scale, x, labels), expected)


def test_marginals_of_each_class_are_standard_normal(flows, scale):
    scaled = np.asarray(APPLY(scale, jax.random.key(1), flows, LABEL))
    # With the table of another class they are not.
    other = np.asarray(APPLY(scale, jax.random.key(1), flows, np.where(LABEL < 2, 1 - LABEL, LABEL)))
    for label in range(3):
        own, n = flows[label == LABEL], SIZES[label]
        for position in range(6):
            sizes, counts = np.unique(own[:, position][own[:, position] != 0], return_counts=True)
            # What others do, and what has not been seen, keeps the rest: half a flow each size, half the singletons.
            away = 0.5 * sizes.size / (counts.sum() + 0.5 * sizes.size) if sizes.size else 0
            away += (0.5 * (counts == 1).sum() + 0.5) / n
            bound = away + 1.95 / np.sqrt(n)
            assert stats.kstest(scaled[label == LABEL, position], "norm").statistic < bound
            if position < 2 and label == 0:
                assert stats.kstest(other[label == LABEL, position], "norm").statistic > 0.2


def test_probabilities_against_plain_counting():
    # No size is seen once in a class, nor in all flows, so that there are no neighbours.
    rows = {0: [60] * 6 + [-1500] * 2 + [0] * 2, 1: [60] * 2 + [-700] * 2, 2: [0] * 4, 3: []}
    signed = np.array(sum(rows.values(), []), np.int16)[:, None]
    label = np.repeat(list(rows), [len(row) for row in rows.values()])
    scale = scaling.fit("class_quantile", signed, label, 4)
    assert scale.value[0].tolist() == [-1500, -700, 0, 60]
    everyone = sum(rows.values(), [])
    sizes = [size for size in everyone if size]
    for c, row in rows.items():
        own = [size for size in row if size]
        zero = (row.count(0) + 0.5 * everyone.count(0) / len(everyone)) / (len(row) + 0.5)
        kappa = 0.5 * len(set(own)) if own else 1.0
        for index, size in enumerate(scale.value[0].tolist()):
            blend = (own.count(size) + kappa * sizes.count(size) / len(sizes)) / (len(own) + kappa)
            wanted = zero if size == 0 else (1 - zero) * blend
            got = np.diff(special.ndtr(np.asarray(scale.z, np.float64)[c, 0, index : index + 2]))[0]
            np.testing.assert_allclose(got, wanted, atol=3e-5)


def test_a_class_of_one_flow_and_one_of_none(flows, scale):
    z = np.asarray(scale.z, np.float64)
    assert np.isfinite(z).all()
    mass = np.diff(special.ndtr(z), axis=-1)
    own = flows[LABEL == 3][0]
    for position in (0, 1):
        place = np.asarray(scale.value)[position].tolist().index(int(own[position]))
        # Two thirds are the class's own: half of that is the size itself, half its neighbours; a third is pooled.
        assert 0.3 < mass[3, position, place] < 0.6
    noise = np.random.default_rng(0).normal(0, 1, flows.shape).astype(np.float32)
    drawn = np.asarray(INVERT(scale, noise, np.full(len(noise), 4)))
    for position in (0, 1):
        share = (flows[:, position] == 52).mean()
        assert abs((drawn[:, position] == 52).mean() - share) < 4 * np.sqrt(0.25 / len(noise))


def test_files_of_before_are_read(flows, tmp_path):
    scale = scaling.fit("quantile", flows)
    arrays = {name: np.asarray(getattr(scale, name)) for name in ("cdf", "z", "low")}
    np.savez_compressed(tmp_path / "scaling.npz", kind=np.array("quantile"), **arrays)
    old = scaling.load(tmp_path / "scaling.npz")
    assert type(old) is type(scale)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(old, name), array)


def test_labels_that_do_not_fit_are_refused(flows, scale):
    for arguments in ((), (LABEL,), (LABEL[:-1], CLASSES), (LABEL, 3), (LABEL - 1, CLASSES), (LABEL * 1.0, CLASSES)):
        with pytest.raises(ConfigError, match="class_quantile"):
            scaling.fit("class_quantile", flows, *arguments)
    for call in (lambda: scale.apply(jax.random.key(0), flows), lambda: scale.invert(np.zeros((2, 6), np.float32))):
        with pytest.raises(ConfigError, match="label of every flow"):
            call()


TINY = generate.preset("tiny")
CONFIG = dataclasses.replace(
    TINY,
    denoiser=dataclasses.replace(TINY.denoiser, width=8, blocks=1, embedding=8, state=4),
    diffusion=dataclasses.replace(TINY.diffusion, process="flow", scaling="class_quantile", sampling_steps=3),
    train=dataclasses.replace(TINY.train, steps=2, batch_size=16, log_steps=2, class_dropout=0.5),
)


def toy(n=120):
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3
    signed = np.where(rng.random((n, 6)) < 0.5, 52 + 100 * label[:, None], -1500).astype(np.int16)
    signed[np.arange(6) >= 4 + label[:, None]] = 0
    return from_signed_size(signed, label, class_names=("a", "b", "c"), name="toy")


@pytest.fixture(scope="module")
def generator():
    data = toy()
    scale = scaling.fit("class_quantile", data.signed_size, data.label, 3)
    return generate.Generator(CONFIG, generate.DataCard.of(data), scale)


@pytest.fixture(scope="module")
def moved(generator):
    """The same with parameters, off their zero initialisation."""
    rng = np.random.default_rng(1)
    params = jax.jit(generator.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.05 * rng.standard_normal(leaf.shape).astype(np.float32), params)
    return generate.Generator(CONFIG, generator.card, generator.scale, params)


@pytest.mark.slow
def test_eight_devices_give_the_samples_of_one_and_each_class_has_its_own_sizes(moved):
    labels = np.arange(50) % 3
    one, eight = (moved.sample(jax.random.key(0), labels, mesh=parallel.make_mesh(devices=n), block=8) for n in (1, 8))
    np.testing.assert_array_equal(one.signed_size, eight.signed_size)
    for label in range(3):
        found = one.signed_size[labels == label]
        assert np.isin(found, [52 + 100 * label, -1500, 0]).mean() > 0.9
        assert (np.asarray(one.n_packets)[labels == label] == 4 + label).mean() > 0.7


def test_the_table_on_eight_devices_needs_no_collective(generator):
    mesh = parallel.make_mesh(devices=8)
    with jax.set_mesh(mesh):
        scale = parallel.put_replicated(generator.scale, mesh)
        x, label = parallel.put_over_data((np.zeros((16, 6), np.float32), np.zeros(16, np.int32)), mesh)
        text = jax.jit(lambda s, x, c: s.invert(x, c)).lower(scale, x, label).compile().as_text()
    assert not re.findall(r" (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text)


@pytest.mark.slow
def test_the_loss_scales_by_the_true_label_whatever_the_network_is_told(moved):
    data, key = toy(16), jax.random.key(5)
    label = np.asarray(data.label)
    scaled = moved.scale.apply(prng.stream(key, "scale"), data.signed_size, label)
    loss = jax.jit(moved.loss)
    by_size = loss(moved.params, {"signed_size": data.signed_size, "label": label}, key)
    np.testing.assert_allclose(by_size, loss(moved.params, {"x": scaled, "label": label}, key), rtol=1e-5)


@pytest.mark.slow
def test_a_run_comes_back_through_load_run(generator, tmp_path):
    made, train = generate.Generator(CONFIG, generator.card, generator.scale), toy()
    made.fit(train, key=jax.random.key(0), mesh=parallel.make_mesh(devices=1), folder=tmp_path)
    scaling.save(made.scale, tmp_path / "scaling.npz")
    stored = {"generator": dataclasses.asdict(CONFIG), "card": dataclasses.asdict(made.card)}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    loaded, mesh = generate.load_run(tmp_path), parallel.make_mesh(devices=1)
    assert isinstance(loaded.scale, scaling.ClassQuantileScaling) and loaded.config == CONFIG
    labels = np.arange(9) % 3
    one, two = (g.sample(jax.random.key(1), labels, mesh=mesh, block=9) for g in (made, loaded))
    np.testing.assert_array_equal(one.signed_size, two.signed_size)


def test_information_is_refused(generator):
    labels, key = np.arange(3), jax.random.key(0)
    refused = {
        "measure": lambda: generator.measure("squared"),
        "sample": lambda: generator.sample_with_information(key, labels),
        "observer": lambda: generator.sample_observed(key, labels, observers=(observers.squared(generator.plan()),)),
        "prefixes": lambda: generator_information(generator, key, toy(), packets=[2]),
        "tune": lambda: mi_tune.draw_candidates(generator, key, mi_tune.TuneConfig()),
    }
    for call in refused.values():
        with pytest.raises(ConfigError, match="class_quantile"):
            call()
    assert isinstance(generator.with_sampling(guidance=2.0), generate.Generator)


@pytest.mark.parametrize("process", ["ddpm", "vp", "edm", "flow"])
def test_every_process_takes_the_scale_and_unknown_ones_are_refused(process):
    diffusion = dataclasses.replace(TINY.diffusion, process=process, scaling="class_quantile")
    config = dataclasses.replace(TINY, diffusion=diffusion)
    assert config.check() is config
    with pytest.raises(ConfigError, match="unknown scaling 'log'"):
        dataclasses.replace(config, diffusion=dataclasses.replace(diffusion, scaling="log")).check()
