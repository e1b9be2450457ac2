"""Training in memory: against a loop in NumPy, with validation, averages and state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.train.fit import CHECKS, fit
from jaxtraffic.train.state import TrainConfig

DATA = np.random.default_rng(0).normal(2.0, 1.0, 50).astype(np.float32)
START = {"centre": jnp.float32(0.0)}


def squares(params, state, batch, key):
    return ((batch - params["centre"]) ** 2).mean(), state


def config(**changes):
    return TrainConfig(**({"steps": 60, "batch_size": 8, "learning_rate": 0.1, "weight_decay": 0.0} | changes))


def test_equals_a_loop_of_steps():
    settings = config(clip_norm=1.0, ema=0.5)
    key = jax.random.key(1)
    fitted = fit(squares, START, jnp.array(DATA), key, settings)
    schedule = optax.warmup_cosine_decay_schedule(0.1 / 6, 0.1, 6, 60)
    centre = average = first = second = 0.0
    losses = []
    for k in range(60):
        own = prng.at_step(key, k)
        batch = DATA[np.asarray(jax.random.randint(prng.stream(own, "batch"), (8,), 0, 50))].astype(float)
        losses.append(((batch - centre) ** 2).mean())
        slope = -2 * (batch - centre).mean()
        slope = slope / max(1.0, abs(slope))
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        step = first / (1 - 0.9 ** (k + 1)) / (np.sqrt(second / (1 - 0.999 ** (k + 1))) + 1e-8)
        centre -= float(schedule(k)) * step
        rate = min(0.5, (1 + k) / (10 + k))
        average = rate * average + (1 - rate) * centre
    assert float(fitted.params["centre"]) == pytest.approx(average, abs=1e-4)
    np.testing.assert_allclose(fitted.losses, np.reshape(losses, (CHECKS, 3)).mean(axis=1), rtol=1e-3)
    assert np.isnan(fitted.validation).all() and fitted.best == CHECKS - 1


def test_keeps_the_parameters_of_the_best_check():
    """The validation value wants 1, which the way from 0 to 2 passes."""
    wanted = lambda params: jnp.abs(params["centre"] - 1.0)  # noqa: E731
    fitted = fit(squares, START, jnp.array(DATA), jax.random.key(1), config(steps=100), validate=wanted)
    values = np.asarray(fitted.validation)
    assert fitted.best == values.argmin() and 0 < fitted.best < CHECKS - 1
    assert abs(float(fitted.params["centre"]) - 1) == pytest.approx(values.min(), abs=1e-6)
    assert values[-1] > 0.5


def test_values_that_are_not_finite_are_never_best():
    broken = lambda params: jnp.where(params["centre"] > 1, jnp.nan, -params["centre"])  # noqa: E731
    fitted = fit(squares, START, jnp.array(DATA), jax.random.key(1), config(steps=100), validate=broken)
    assert np.isnan(fitted.validation[-1]) and float(fitted.params["centre"]) <= 1


def test_state_is_carried_and_takes_no_gradient():
    def counting(params, state, batch, key):
        return squares(params, state, batch, key)[0] + params["centre"] * 0 * state, state + jnp.float32(1)

    seen = []

    def loss(params, state, batch, key):
        jax.debug.callback(lambda value: seen.append(float(value)), state)
        return counting(params, state, batch, key)

    fit(loss, START, jnp.array(DATA), jax.random.key(0), config(steps=20), state=jnp.float32(5.0))
    jax.effects_barrier()
    assert sorted(seen) == list(range(5, 25))


def test_runs_in_one_vmapped_program_equal_runs_alone():
    run = lambda key, data: fit(squares, START, data, key, config())  # noqa: E731
    keys = jax.random.split(jax.random.key(3), 3)
    data = jnp.stack([jnp.array(DATA) + i for i in range(3)])
    many = jax.jit(jax.vmap(run))(keys, data)
    for i in range(3):
        alone = jax.jit(run)(keys[i], data[i])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-5), many, alone)  # noqa: B023


def test_batches_of_few_samples_and_no_steps():
    fitted = fit(squares, START, jnp.array(DATA[:3]), jax.random.key(0), config(steps=7))
    assert fitted.losses.shape == (7,)
    for steps in (None, 0):
        with pytest.raises(ConfigError, match="number of steps"):
            fit(squares, START, jnp.array(DATA), jax.random.key(0), config(steps=steps))
