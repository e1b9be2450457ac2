"""The generator as a whole: devices, chunks, compilations, collectives, repair, storage."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from jaxtraffic import generate, parallel, prng, scaling
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.generate import model as model_file
from jaxtraffic.generate.config import from_dict
from jaxtraffic.series import from_signed_size

TINY = generate.preset("tiny")
CONFIG = dataclasses.replace(
    TINY,
    denoiser=dataclasses.replace(TINY.denoiser, width=16, blocks=2, embedding=16, state=8),
    diffusion=dataclasses.replace(TINY.diffusion, steps=12),
    train=dataclasses.replace(TINY.train, steps=6, batch_size=32, log_steps=3, class_dropout=0.2),
)


def flows(n=200):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, n)
    signed = np.where(rng.random((n, 10)) < 0.5, 52 + 10 * label[:, None], -1500).astype(np.int16)
    signed[np.arange(10) >= rng.integers(4, 11, n)[:, None]] = 0
    return from_signed_size(signed, label, class_names=("a", "b", "c"), name="toy", source="real")


@pytest.fixture(scope="module")
def generator():
    """An untrained network, moved off its zero initialisation so that every part matters."""
    train = flows()
    made = generate.Generator(CONFIG, generate.DataCard.of(train), scaling.fit("quantile", train.signed_size))
    params = made.init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    made.params = jax.tree.unflatten(tree, moved)
    return made


def latent():
    """An observer that hands out the last x, before the scale is inverted."""
    return generate.Observer(init=lambda x, label: x, update=lambda state, info: info["x_next"])


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_eight_devices_give_bitwise_the_samples_of_one(generator, guidance):
    labels = np.arange(75) % 3
    results = []
    for devices in (1, 8):
        mesh = parallel.make_mesh(devices=devices)
        made, (x,) = generator.sample_observed(
            jax.random.key(3), labels, observers=(latent(),), mesh=mesh, guidance=guidance, block=8
        )
        results.append((made.signed_size, x))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_a_channel_axis_gives_the_same_samples(generator):
    labels = np.arange(32) % 3
    plain, (x,) = generator.sample_observed(
        jax.random.key(3), labels, observers=(latent(),), mesh=parallel.make_mesh(devices=1), block=8
    )
    mesh = parallel.make_mesh("data=4,channel=2")
    sharded, (y,) = generator.sample_observed(jax.random.key(3), labels, observers=(latent(),), mesh=mesh, block=8)
    np.testing.assert_allclose(x, y, atol=1e-4)
    assert (plain.signed_size == sharded.signed_size).mean() > 0.999


def test_samples_do_not_depend_on_the_block_or_on_other_samples(generator):
    labels = np.arange(40) % 3
    mesh = parallel.make_mesh(devices=1)
    whole = generator.sample(jax.random.key(0), labels, mesh=mesh, block=40).signed_size
    parts = generator.sample(jax.random.key(0), labels, mesh=mesh, block=7).signed_size
    first = generator.sample(jax.random.key(0), labels[:10], mesh=mesh, block=7).signed_size
    assert (whole == parts).mean() > 0.999
    np.testing.assert_array_equal(parts[:10], first)


def test_sampling_has_no_collective_and_compiles_once(generator):
    mesh = parallel.make_mesh(devices=8)
    program = generator.sampling_program(mesh, 1.0)
    before = program._cache_size()
    for n in (10, 70, 200):
        generator.sample(jax.random.key(n), np.zeros(n, int), mesh=mesh, block=4)
    assert program._cache_size() == before + 1
    with jax.set_mesh(mesh):
        params, scale = parallel.put_replicated((generator.params, generator.scale), mesh)
        prepared = jax.jit(generator._prepare, out_shardings=parallel.replicated(mesh))(params)
        index, label = parallel.put_over_data((np.arange(32, dtype=np.int32), np.zeros(32, np.int32)), mesh)
        text = program.lower(params, scale, prepared, jax.random.key(0), index, label).compile().as_text()
    assert not re.findall(r" (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text)
    # Kernels are built outside, once: their complex arithmetic is in the preparation and not in the sampling program.
    with jax.set_mesh(mesh):
        arguments = (params, scale, prepared, jax.random.key(0), index, label)
        assert "c64[" not in str(jax.make_jaxpr(program)(*arguments))
        assert "c64[" in str(jax.make_jaxpr(generator._prepare)(params))


@pytest.mark.slow
def test_guidance_moves_samples_away_from_the_unconditional_ones(generator):
    labels = np.zeros(32, int)
    mesh = parallel.make_mesh(devices=1)
    results = {}
    for guidance in (0.0, 1.0, 3.0):
        _, (results[guidance],) = generator.sample_observed(
            jax.random.key(0), labels, observers=(latent(),), mesh=mesh, guidance=guidance, block=32
        )
    other = generator.sample_observed(
        jax.random.key(0), labels + 1, observers=(latent(),), mesh=mesh, guidance=0.0, block=32
    )[1][0]
    np.testing.assert_allclose(results[0.0], other, atol=1e-5, err_msg="weight 0 ignores the label")
    assert np.abs(results[3.0] - results[1.0]).max() > 1e-3


def test_fit_and_load_run_give_the_same_samples(tmp_path):
    train = flows()
    made = generate.Generator(CONFIG, generate.DataCard.of(train), scaling.fit("quantile", train.signed_size))
    made.fit(train, key=prng.stream(jax.random.key(0), "train"), mesh=parallel.make_mesh(devices=2), folder=tmp_path)
    scaling.save(made.scale, tmp_path / "scaling.npz")
    stored = {"generator": dataclasses.asdict(CONFIG), "card": dataclasses.asdict(made.card)}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    loaded = generate.load_run(tmp_path)
    assert loaded.config == CONFIG and loaded.card == made.card
    labels = loaded.draw_labels(20)
    one, two = (g.sample(jax.random.key(1), labels, block=4) for g in (made, loaded))
    np.testing.assert_array_equal(one.signed_size, two.signed_size)
    assert one.class_names == ("a", "b", "c") and one.source == "simulated" and (one.label == labels).all()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="not a run folder"):
        generate.load_run(tmp_path)


def test_gaps_are_closed_only_where_real_flows_have_none(generator):
    signed = np.array([[5, 0, -7, 0, 9], [0, 0, 3, 0, 0]], np.int16)
    np.testing.assert_array_equal(model_file.close_gaps(signed), [[5, -7, 9, 0, 0], [3, 0, 0, 0, 0]])
    assert not generator.card.zeros_inside
    ack = from_signed_size(signed, [0, 0], class_names=("a",))
    assert generate.DataCard.of(ack).zeros_inside


def test_labels_follow_the_training_shares(generator):
    drawn = np.bincount(generator.draw_labels(30_000, seed=1), minlength=3) / 30_000
    shares = np.array(generator.card.class_counts) / sum(generator.card.class_counts)
    assert np.abs(drawn - shares).max() < 4 * np.sqrt(0.25 / 30_000)


def test_marginals_keep_positions_and_lose_order():
    train = flows(400)
    labels = np.repeat([0, 1, 2], 2000)
    made = generate.marginals(train, labels, seed=0)
    for label in range(3):
        real, drawn = (np.asarray(f.signed_size)[np.asarray(f.label) == label] for f in (train, made))
        for position in range(10):
            assert set(drawn[:, position]) <= set(real[:, position])
            share = (real[:, position] == -1500).mean()
            assert abs((drawn[:, position] == -1500).mean() - share) < 4 * np.sqrt(0.25 / 2000)
    with pytest.raises(ConfigError, match="no training flow"):
        generate.marginals(train[np.asarray(train.label) == 0], labels)


@pytest.mark.parametrize("labels", [[], [3], [-1], [[0, 1]]])
def test_bad_labels_are_refused(generator, labels):
    with pytest.raises(ConfigError, match="labels"):
        generator.sample(jax.random.key(0), labels)


def test_bad_configurations_are_refused():
    with pytest.raises(ConfigError, match="preset"):
        generate.preset("huge")
    with pytest.raises(ConfigError, match="class-dropout"):
        dataclasses.replace(TINY, diffusion=dataclasses.replace(TINY.diffusion, guidance=2.0)).check()
    for change in ({"steps": 0}, {"batch_size": 0}, {"ema": 1.0}, {"learning_rate": 0.0}):
        with pytest.raises(ConfigError):
            dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, **change)).check()
    with pytest.raises(ConfigError, match="does not fit"):
        from_dict({"diffusion": {"unheard": 1}})


@pytest.mark.slow
def test_training_the_denoiser_has_one_all_reduce_a_step(generator):
    from jaxtraffic.train import init_state, make_chunk, make_optimizer

    mesh = parallel.make_mesh(devices=8)
    train = flows()
    transform, _ = make_optimizer(CONFIG.train, 6, lambda path: False)
    chunk = make_chunk(generator.loss, transform, CONFIG.train, mesh, n_flows=len(train), batch_size=32, resident=True)
    keep = parallel.replicated(mesh)
    with jax.set_mesh(mesh):
        state = jax.jit(
            lambda: init_state(generator.init(jax.random.key(0)), transform, CONFIG.train), out_shardings=keep
        )()
        data = parallel.put_replicated({"signed_size": train.signed_size, "label": train.label}, mesh)
        text = chunk.lower(state, data, jax.random.key(0), np.int32(6)).compile().as_text()
    assert len(re.findall(r"= [^\n]* all-reduce(?:-start)?\(", text)) == 1
    assert not re.findall(r" (?:all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text)
