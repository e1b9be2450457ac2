"""Generators of every process: devices, compilations, information in the scan, reflow, stored runs."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxtraffic import generate, parallel, scaling
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import rounds
from tests.generate.test_model import CONFIG, flows, latent


def make(process, **options):
    """An untrained network, moved off its zero initialisation so that every part matters."""
    train = flows()
    diffusion = generate.DiffusionConfig(process=process, **({"sampling_steps": 6} | options))
    config = dataclasses.replace(CONFIG, diffusion=diffusion)
    made = generate.Generator(config, generate.DataCard.of(train), scaling.fit("quantile", train.signed_size))
    leaves, tree = jax.tree.flatten(made.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    made.params = jax.tree.unflatten(tree, moved)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    "process, options",
    [
        ("flow", {}),
        pytest.param("edm", {"churn": 5.0}, marks=pytest.mark.slow),
        pytest.param("vp", {}, marks=pytest.mark.slow),
        pytest.param("ddpm", {"solver": "ddim"}, marks=pytest.mark.slow),
    ],
)
def test_samples_and_information_are_the_same_on_eight_devices_and_compile_once(process, options):
    made = make(process, **options)
    labels = np.arange(37) % 3
    observers = (latent(), made.measure("squared"))
    results = []
    for devices in (1, 8):
        mesh = parallel.make_mesh(devices=devices)
        program = made.sampling_program(mesh, 2.0, observers)
        series, (x, told) = made.sample_observed(
            jax.random.key(3), labels, observers=observers, mesh=mesh, guidance=2.0, block=4
        )
        assert program._cache_size() == 1
        results.append((series.signed_size, x, told["mi"], told["packet"]))
    for one, eight in zip(*results, strict=True):
        np.testing.assert_array_equal(one, eight)
    _, x, mi, packet = results[0]
    assert np.isfinite(x).all() and mi.shape == (37,) and (mi > 0).all()
    np.testing.assert_allclose(packet.sum(1), mi, rtol=1e-5)
    suffix = {"flow": "flow-s4", "edm": "edm-s4", "vp": "vp-s4", "ddpm": "ddpms4"}[process]
    assert made.sample(jax.random.key(3), labels[:4], block=4).name == f"toy-{suffix}"


@pytest.mark.slow
def test_information_leaves_the_flows_as_they_are_and_compiles_once():
    made = make("flow")
    mesh = parallel.make_mesh(devices=1)
    labels = np.arange(20) % 3
    assert made.measure("squared") is made.measure("squared") is not made.measure("product")
    program = made.sampling_program(mesh, 1.0, (made.measure("squared"),))
    for seed in (0, 1):
        series, told = made.sample_with_information(jax.random.key(seed), labels, mesh=mesh, block=10)
    assert program._cache_size() == 1
    plain = made.sample(jax.random.key(1), labels, mesh=mesh, block=10)
    assert (series.signed_size == plain.signed_size).mean() > 0.999
    assert told["mi"].dtype == np.float32 and told["mi"].shape == (20,)


def test_information_is_refused_where_it_cannot_be_had():
    made = make("flow")
    with pytest.raises(ConfigError, match="unknown form"):
        made.sample_with_information(jax.random.key(0), [0], form="cubed")
    with pytest.raises(ConfigError, match="is for flows"):
        make("vp").measure("product")
    blind = dataclasses.replace(made.config, train=dataclasses.replace(CONFIG.train, class_dropout=0.0))
    blind = generate.Generator(blind, made.card, made.scale, made.params)
    with pytest.raises(ConfigError, match="class-dropout"):
        blind.sample_with_information(jax.random.key(0), [0])


def test_sampling_options_change_without_training():
    made = make("flow")
    other = made.with_sampling(solver="euler", sampling_steps=3)
    assert other.plan().time.shape == (3, 1) and made.plan().time.shape == (6, 2)
    assert other.params is made.params and made.plan() is made.plan()
    assert made.plan(steps=9).steps == 9
    with pytest.raises(ConfigError, match="time_law is no option of sampling"):
        made.with_sampling(time_law="logit-normal")
    with pytest.raises(ConfigError, match="reflow is for process flow"):
        make("vp").reflow([0], key=jax.random.key(0), mesh=None, folder=None)


def test_a_coupling_replaces_fresh_noise_in_the_loss():
    made = make("flow")
    noise, x = (np.array(jax.random.normal(jax.random.key(k), (8, 10))) for k in (0, 1))
    batch = {"x": x, "noise": noise, "label": np.zeros(8, np.int32)}
    loss = jax.jit(made.loss)
    one = loss(made.params, batch, jax.random.key(2))
    np.testing.assert_array_equal(one, loss(made.params, batch, jax.random.key(2)))
    assert np.abs(one - loss(made.params, batch | {"noise": noise + 1}, jax.random.key(2))).min() > 0


@pytest.mark.slow
def test_reflow_trains_on_its_own_couplings_and_load_run_finds_the_last_round(tmp_path):
    made, mesh = make("flow"), parallel.make_mesh(devices=1)
    train = flows(40)
    made.card = generate.DataCard.of(train)
    made.fit(train, key=jax.random.key(0), mesh=mesh, folder=tmp_path)
    first = made.params
    place = rounds.folder_of(tmp_path, 1)
    place.mkdir()
    made.reflow(np.asarray(train.label), key=jax.random.key(1), mesh=mesh, folder=place)
    lines = [json.loads(line)["loss"] for line in (place / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(lines).all()
    scaling.save(made.scale, tmp_path / "scaling.npz")
    stored = {"generator": dataclasses.asdict(made.config), "card": dataclasses.asdict(made.card)}
    for number, params in ((0, first), (1, made.params)):
        (tmp_path / "config.json").write_text(json.dumps(stored | {"reflow": number}))
        loaded = generate.load_run(tmp_path)
        pairs = zip(jax.tree.leaves(loaded.params), jax.tree.leaves(params), strict=True)
        assert all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs)
