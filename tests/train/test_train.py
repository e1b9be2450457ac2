"""The training loop: equal on 1 and 8 devices, one all-reduce, one compilation, exact resume, clear failures."""

import dataclasses
import json
import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError, DataError, TrainingError
from jaxtraffic.train import (
    Checkpoints,
    Interrupted,
    TrainConfig,
    init_state,
    make_chunk,
    make_optimizer,
    stream,
    train,
)
from jaxtraffic.train.state import update_ema

CONFIG = TrainConfig(
    steps=12, batch_size=24, learning_rate=1e-2, clip_norm=1.0, ema=0.9, log_steps=4, checkpoint_steps=4
)
RNG = np.random.default_rng(0)
DATA = {"x": RNG.standard_normal((100, 5)).astype(np.float32), "y": RNG.standard_normal(100).astype(np.float32)}


def init(key):
    return {"w": 0.1 * jax.random.normal(key, (5, 4)), "v": jnp.ones(4)}


def loss(params, batch, key):
    noise = 0.1 * jax.random.normal(key, batch["y"].shape)
    return (jnp.tanh(batch["x"] @ params["w"]) @ params["v"] - batch["y"] - noise) ** 2


def run(folder, config=CONFIG, *, devices=1, **options):
    options = {"loss": loss, "arrays": DATA} | options
    return train(
        options.pop("loss"),
        init,
        options.pop("arrays"),
        config,
        key=jax.random.key(0),
        mesh=parallel.make_mesh(devices=devices),
        folder=folder,
        **options,
    )


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), one, other))


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def program(mesh, config=CONFIG, batch_size=24, resident=True):
    transform, _ = make_optimizer(config, 12, lambda path: False)
    chunk = make_chunk(loss, transform, config, mesh, n_flows=100, batch_size=batch_size, resident=resident)
    state = jax.jit(
        lambda: init_state(init(jax.random.key(1)), transform, config), out_shardings=parallel.replicated(mesh)
    )()
    return chunk, state, parallel.put_replicated(DATA, mesh)


@pytest.mark.parametrize("batch_size", [24, 23])
def test_eight_devices_equal_one(tmp_path, batch_size):
    config = dataclasses.replace(CONFIG, batch_size=batch_size)
    for devices in (1, 8):
        (tmp_path / str(devices)).mkdir()
    one, eight = (run(tmp_path / str(devices), config, devices=devices) for devices in (1, 8))
    losses = [[line["loss"] for line in metrics(tmp_path / name)] for name in ("1", "8")]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(eight.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_step_has_one_all_reduce_and_no_other_collective():
    mesh = parallel.make_mesh(devices=8)
    chunk, state, data = program(mesh)
    text = chunk.lower(state, data, jax.random.key(0), jnp.int32(12)).compile().as_text()
    assert len(re.findall(r"= [^\n]* all-reduce(?:-start)?\(", text)) == 1
    assert not re.findall(r" (?:all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text)


def test_one_compilation_serves_every_chunk_and_donates_the_state():
    chunk, state, data = program(parallel.make_mesh(devices=1))
    first = state
    for _ in range(3):
        state, _ = chunk(state, data, jax.random.key(0), jnp.int32(9))
    assert chunk._cache_size() == 1
    assert first.params["w"].is_deleted()
    assert int(state.step) == 9, "steps beyond the total change nothing"


def test_training_equals_a_plain_python_loop(tmp_path):
    """The same optimiser in eager JAX, with indices and keys from their definitions."""
    from jaxtraffic import prng

    result = run(tmp_path)
    key = jax.random.key(0)
    steps = prng.stream(key, "step")
    transform, _ = make_optimizer(CONFIG, 12, lambda path: False)
    params = init(prng.stream(key, "init"))
    optimizer, ema = transform.init(params), params
    for step in range(12):
        order = jax.random.permutation(prng.at_step(prng.stream(steps, "order"), step // 4), 100)
        index = order[step % 4 * 24 : step % 4 * 24 + 24]
        batch = {name: jnp.asarray(DATA[name])[index] for name in DATA}
        gradient = jax.grad(lambda p: loss(p, batch, prng.at_step(steps, step)).mean())(params)  # noqa: B023
        updates, optimizer = transform.update(gradient, optimizer, params)
        params = optax.apply_updates(params, updates)
        ema = update_ema(ema, params, 0.9, jnp.int32(step))
    for a, b in zip(jax.tree.leaves((result.params, result.ema)), jax.tree.leaves((params, ema)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_resume_is_exact_to_the_bit(tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole")

    def stop(line):
        if line["step"] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", report=stop)
    assert len(metrics(tmp_path / "cut")) == 2
    resumed = run(tmp_path / "cut", resume=True)
    assert same(whole, resumed)
    assert [line["step"] for line in metrics(tmp_path / "cut")] == [4, 8, 12]
    again = run(tmp_path / "cut", resume=True)
    assert same(whole, again), "resuming a finished run changes nothing"


def test_sigterm_saves_first(tmp_path):
    def terminate(line):
        if line["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    config = dataclasses.replace(CONFIG, checkpoint_steps=1000)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="step 4 of 12"):
        run(tmp_path, config, report=terminate)
    assert signal.getsignal(signal.SIGTERM) is before
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest() == 4


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path):
    def bursting(params, batch, key):
        return loss(params, batch, key) + jnp.where(batch["late"][0] > 0, jnp.nan, 0.0)

    def late(line):
        # From step 5 on every batch is poisoned, through the data of a resumed run.
        if line["step"] == 4:
            raise KeyboardInterrupt

    good = DATA | {"late": np.zeros(100, np.float32)}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, dataclasses.replace(CONFIG, checkpoint_steps=1), loss=bursting, arrays=good, report=late)
    bad = DATA | {"late": np.ones(100, np.float32)}
    with pytest.raises(TrainingError, match="step 1 "):
        run(tmp_path, loss=bursting, arrays=bad, resume=True)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*")), "the first chunk of a poisoned run is not saved"


def test_a_non_finite_step_is_named(tmp_path):
    def explode(params, batch, key):
        return loss(params, batch, key) * jnp.where(jnp.abs(params["v"] - 1).max() > 0.02, jnp.inf, 1.0)

    with pytest.raises(TrainingError, match=r"not finite at step \d+ .*learning-rate"):
        run(tmp_path, dataclasses.replace(CONFIG, learning_rate=0.05), loss=explode)


def test_streaming_visits_every_row_and_resumes_anywhere(tmp_path):
    arrays = {"i": np.arange(96)}
    whole = stream.chunks(arrays, batch_size=8, chunk=3, seed=1, start_step=0)
    parts = [next(whole) for _ in range(4)]
    assert parts[0]["i"].shape == (3, 8)
    assert sorted(np.concatenate([part["i"].ravel() for part in parts])) == list(range(96))
    resumed = stream.chunks(arrays, batch_size=8, chunk=3, seed=1, start_step=6)
    np.testing.assert_array_equal(next(resumed)["i"], parts[2]["i"])
    halves = [
        next(stream.chunks(arrays, batch_size=8, chunk=3, seed=1, start_step=6, process=(i, 2))) for i in range(2)
    ]
    both = np.concatenate([half["i"] for half in halves], axis=1)
    assert halves[0]["i"].shape == (3, 4) and len(np.unique(both)) == both.size, "processes share no flow"
    config = dataclasses.replace(CONFIG, resident_bytes=0)
    with pytest.raises(ConfigError, match="divisible by the 8 devices"):
        run(tmp_path, dataclasses.replace(config, batch_size=23), devices=8)
    for name in ("one", "eight", "cut"):
        (tmp_path / name).mkdir()
    one = run(tmp_path / "one", config)
    eight = run(tmp_path / "eight", config, devices=8)
    np.testing.assert_allclose(one.params["w"], eight.params["w"], atol=1e-5)

    def stop(line):
        if line["step"] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", config, report=stop)
    assert same(one, run(tmp_path / "cut", config, resume=True))


def test_optimizer_spares_vectors_and_state_spaces():
    config = dataclasses.replace(CONFIG, weight_decay=0.5, learning_rate=1e-2, warmup=0.0)
    transform, schedule = make_optimizer(config, 100, lambda path: path[0].key == "s4")
    params = {"s4": jnp.ones((2, 2)), "w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    state = transform.init(params)
    updates, _ = transform.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert float(updates["w"].max()) < 0 and not updates["s4"].any() and not updates["b"].any()
    updates, _ = transform.update(jax.tree.map(jnp.ones_like, params), state, params)
    np.testing.assert_allclose(updates["s4"], 0.1 * updates["b"][0], rtol=1e-4)
    assert float(schedule(100)) == 0


def test_checkpoints_refuse_what_does_not_fit(tmp_path):
    keep = parallel.replicated(parallel.make_mesh(devices=1))
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(DataError, match="no finished checkpoint"):
            checkpoints.restore({"a": jnp.ones(3)}, keep)
        checkpoints.save(1, {"a": jnp.ones(3)})
        for other in ({"b": jnp.ones(3)}, {"a": jnp.ones(4)}):
            with pytest.raises(TrainingError, match="does not fit"):
                checkpoints.restore(other, keep)


@pytest.mark.parametrize("spec", ["rows=2", "data=0", "data", "data=3", "data=4,channel=4"])
def test_bad_meshes_are_refused(spec):
    with pytest.raises(ConfigError, match="--mesh"):
        parallel.make_mesh(spec)


def test_bad_devices_and_processes_are_refused():
    with pytest.raises(ConfigError, match="--devices"):
        parallel.make_mesh(devices=9)
    with pytest.raises(ConfigError, match="go together"):
        parallel.start_processes("localhost:1", None, None)
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parallel.start_processes("localhost", 2, 0)
