"""Observers of the sampling scan: against stored trajectories, under jit, vmap and sharding; options and refusals."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import ddpm, sampler, schedules
from jaxtraffic.generate.flow import Flow
from jaxtraffic.information import observers
from jaxtraffic.information.observer import Observer

LENGTH = 5
MEANS = np.linspace(-1.0, 1.5, 3)
ROOT = np.random.default_rng(0).normal(size=(LENGTH, LENGTH)) / np.sqrt(LENGTH)
COVARIANCE = ROOT @ ROOT.T + 0.3 * np.eye(LENGTH)
SHARED = np.ones((LENGTH, LENGTH))
"""X | y ~ N(y 1, COVARIANCE) and Y ~ N(0, 1): the marginal covariance is COVARIANCE + SHARED."""


def predict_of(label):
    """Velocities of correlated packets, so that the derivative of the field is no diagonal."""
    levels, vectors = zip(*(np.linalg.eigh(c) for c in (COVARIANCE, COVARIANCE + SHARED)), strict=True)
    levels, vectors = (tuple(jnp.asarray(v, jnp.float32) for v in values) for values in (levels, vectors))
    y = jnp.asarray(MEANS, jnp.float32)[label][:, None] * jnp.ones(LENGTH)

    def velocity(x, t, which, mean):
        slope = (t * levels[which] - (1 - t)) / (t**2 * levels[which] + (1 - t) ** 2)
        return mean + ((x - t * mean) @ vectors[which] * slope) @ vectors[which].T

    return lambda x, t: (velocity(x, t, 0, y), velocity(x, t, 1, jnp.zeros(LENGTH)))


def log_ratio(x, label):
    """log N(x; y, COVARIANCE) - log N(x; 0, COVARIANCE + SHARED) [batch], float64."""
    values = []
    for mean, covariance in [(MEANS[label][:, None], COVARIANCE), (0.0, COVARIANCE + SHARED)]:
        away = x - mean
        form = np.einsum("bi,ij,bj->b", away, np.linalg.inv(covariance), away)
        values.append(-0.5 * form - 0.5 * np.linalg.slogdet(covariance)[1])
    return values[0] - values[1]


@functools.cache
def flow_plan(steps=40):
    return Flow().plan(solver="heun", steps=steps)


def draw(plan, made, key, index, guidance=1.0):
    label = index % 3
    keys = sampler.sample_keys(key, index)
    per_step = jnp.asarray(plan.time) / 100
    return sampler.run(
        plan, predict_of(label), keys, label, LENGTH, guidance=guidance, per_step=per_step, observers=made
    )


def keeper(steps):
    """Stores all that the estimates need: what a user would do without them."""
    names = ("conditional", "unconditional")

    def update(state, info):
        now = {name: getattr(info["prediction"], name) for name in names} | {"x": info["x"]}
        return {name: state[name].at[:, info["step"]].set(now[name]) for name in state}

    return Observer(lambda x, label: {name: jnp.zeros((len(x), steps, LENGTH)) for name in (*names, "x")}, update)


@functools.cache
def guided_run():
    """One guided run with everything on."""
    plan = flow_plan()
    keep = np.arange(plan.steps) % 4 != 1
    made = (
        keeper(plan.steps),
        observers.squared(plan, curve=True),
        observers.squared(plan, packets=False),
        observers.product(plan, packets=True, curve=True),
        observers.squared(plan, keep=keep),
        observers.path_wise(plan, probes=None, curve=True),
    )
    x, results = jax.jit(lambda key: draw(plan, made, key, jnp.arange(30), 1.5))(jax.random.key(3))
    as_float64 = functools.partial(np.asarray, dtype=np.float64)
    return plan, keep, as_float64(x), jax.tree.map(as_float64, results)


def test_fused_equals_stored_trajectories():
    """A loop in float64 over what was stored, with weights from the definition and not from the plan."""
    plan, keep, _, (stored, squared, short, product, some, _) = guided_run()
    steps = plan.steps
    by_packet, by_step = np.zeros((30, LENGTH)), np.zeros((30, steps))
    dot = np.zeros((30, LENGTH))
    for k in range(steps):
        t = k / steps
        a, b = stored["conditional"][:, k], stored["unconditional"][:, k]
        by_packet += t / (1 - t) / steps * (a - b) ** 2
        by_step[:, k] = t / (1 - t) / steps * ((a - b) ** 2).sum(1)
        cell = 1.5 / steps if k == steps - 1 else 1 / steps
        dot += t / (1 - t) * cell * a * (a - b)
    np.testing.assert_allclose(squared["packet"], by_packet, rtol=2e-5)
    np.testing.assert_allclose(squared["curve"], by_step, rtol=2e-5)
    np.testing.assert_allclose(squared["mi"], by_packet.sum(1), rtol=2e-5)
    np.testing.assert_allclose(short["mi"], by_packet.sum(1), rtol=2e-5)
    assert set(short) == {"mi"}
    np.testing.assert_allclose(product["packet"], dot, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(product["mi"], product["curve"].sum(1), rtol=1e-4)
    # Steps left out count as nothing; the others are not scaled up in their place.
    np.testing.assert_allclose(some["mi"], by_step[:, keep].sum(1), rtol=2e-5)
    assert (some["mi"] < 0.95 * squared["mi"]).all()


def test_fused_equals_stored_trajectories_of_ddpm():
    """The definition of kappa_t, through the ancestral sampler with guidance and clipping."""
    schedule = schedules.make_schedule("linear", 50)
    plan = ddpm.plan(schedule, clip=2.0)

    def predict(x, t):
        return 0.3 * x + 0.01 * t, jnp.tanh(x)

    made = (keeper(50), observers.squared(plan))
    keys = sampler.sample_keys(jax.random.key(0), jnp.arange(20))
    run = lambda keys: sampler.run(  # noqa: E731
        plan, predict, keys, jnp.zeros(20, jnp.int32), LENGTH, guidance=1.5, per_step=plan.time, observers=made
    )
    _, (stored, result) = jax.jit(run)(keys)
    beta = schedules.betas("linear", 50)
    gap = np.asarray(stored["conditional"], np.float64) - np.asarray(stored["unconditional"], np.float64)
    kappa = (beta * 50 / (2 * (1 - beta) * (1 - np.cumprod(1 - beta))))[::-1]
    np.testing.assert_allclose(result["mi"], (kappa[:, None] * gap**2).sum(2).mean(1), rtol=1e-4)


def test_observers_do_not_change_the_samples():
    plan, _, x, results = guided_run()
    plain, _ = jax.jit(lambda key: draw(plan, (), key, jnp.arange(30), 1.5))(jax.random.key(3))
    np.testing.assert_allclose(plain, x, atol=2e-6)
    np.testing.assert_allclose(results[0]["x"][:, 0], np.asarray(initial_noise(plan, 30)), atol=1e-6)


def initial_noise(plan, n):
    return sampler.normal(sampler.sample_keys(jax.random.key(3), jnp.arange(n)), plan.steps, LENGTH)


def test_path_wise_is_the_log_ratio_of_correlated_packets():
    _, _, x, results = guided_run()
    true = log_ratio(x, np.arange(30) % 3)
    np.testing.assert_allclose(results[-1]["mi"], true, atol=0.01)
    np.testing.assert_allclose(results[-1]["curve"].sum(1), results[-1]["mi"], atol=1e-4)
    assert np.ptp(true) > 1


def test_hutchinson_is_unbiased_and_more_probes_are_better():
    plan, n = flow_plan(20), 3000
    counts = (None, 1, 2, 4, 8)
    made = tuple(observers.path_wise(plan, probes=probes) for probes in counts)
    _, results = jax.jit(lambda key: draw(plan, made, key, jnp.arange(n)))(jax.random.key(0))
    exact, *others = (np.asarray(result["mi"], np.float64) for result in results)
    error = [other - exact for other in others]
    assert all(abs(e.mean()) < 4 * e.std() / np.sqrt(n) for e in error[:3])
    spread = [e.std() for e in error]
    assert spread[0] > 1.2 * spread[1] > 1.2 * 1.2 * spread[2] > 0
    # As many probes as packets are the exact trace.
    np.testing.assert_allclose(others[3], exact, atol=1e-5)


def test_vmap_is_a_loop():
    plan = flow_plan(10)
    made = (observers.squared(plan), observers.path_wise(plan, probes=2))
    one = jax.jit(lambda key: draw(plan, made, key, jnp.arange(6), 1.5))
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(one)(keys)
    for k, key in enumerate(keys):
        apart = one(key)
        jax.tree.map(lambda a, b, k=k: np.testing.assert_allclose(a[k], b, rtol=2e-5, atol=2e-5), together, apart)


def test_one_and_eight_devices_agree_to_the_bit_without_collectives_and_compile_once():
    plan, block, traced = flow_plan(10), 4, []
    made = (observers.squared(plan, curve=True), observers.product(plan), observers.path_wise(plan))

    def program(key, index):
        traced.append(None)
        return draw(plan, made, key, index, 1.5)

    found = {}
    for devices in (1, 8):
        mesh = parallel.make_mesh(devices=devices)
        split = parallel.over_data(mesh)
        jitted = jax.jit(program, out_shardings=(split, split))
        traced.clear()
        parts = []
        with jax.set_mesh(mesh):
            for start in range(0, 64, block * devices):
                index = parallel.put_over_data(np.arange(start, start + block * devices, dtype=np.int32), mesh)
                parts.append(jax.tree.map(np.asarray, jitted(jax.random.key(1), index)))
            assert len(traced) == 1 and jitted._cache_size() == 1
            text = jitted.lower(jax.random.key(1), index).compile().as_text()
        assert not any(word in text for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))
        found[devices] = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    # XLA merges the products of the path-wise derivative over probes and samples; their rounding is not fixed.
    np.testing.assert_allclose(found[1][1][2]["mi"], found[8][1][2]["mi"], rtol=2e-6, atol=2e-6)
    for result in found.values():
        del result[1][2]["mi"]
    jax.tree.map(np.testing.assert_array_equal, found[1], found[8])
    assert found[8][1][0]["packet"].shape == (64, LENGTH)


def test_summary():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 2], [6, 3])
    mi = rng.normal(size=9).astype(np.float32) - 5
    made = observers.summary(mi, label, 4)
    assert made.mean == pytest.approx(mi.mean(), rel=1e-5) and made.mean < 0
    assert made.stderr == pytest.approx(mi.std(ddof=1) / 3, rel=1e-5)
    np.testing.assert_array_equal(made.count, [6, 0, 3, 0])
    np.testing.assert_allclose(made.class_mean, [mi[:6].mean(), np.nan, mi[6:].mean(), np.nan], rtol=1e-5)
    assert made.class_stderr[2] == pytest.approx(mi[6:].std(ddof=1) / np.sqrt(3), rel=1e-5)
    weighted = observers.summary(mi, label, 4, prior=[1, 0, 3, 0])
    assert weighted.mean == pytest.approx(mi[:6].mean() / 4 + mi[6:].mean() * 3 / 4, rel=1e-5)
    error = np.hypot(made.class_stderr[0] / 4, made.class_stderr[2] * 3 / 4)
    assert weighted.stderr == pytest.approx(error, rel=1e-6)
    assert np.isnan(observers.summary(mi, label, 4, prior=[1, 1, 1, 1]).mean)
    assert np.isnan(observers.summary(np.append(mi, np.nan), np.append(label, 0), 4).mean)
    assert np.isnan(observers.summary([1.0], [0], 1).stderr)


@pytest.mark.parametrize(
    "arguments", [([1.0], [0, 1], 2), ([], [], 2), ([1.0], [2], 2), ([1.0], [-1], 2)], ids=range(4)
)
def test_summary_refuses(arguments):
    with pytest.raises(ConfigError):
        observers.summary(*arguments)


def test_bad_options_are_refused():
    plan = flow_plan()
    with pytest.raises(ConfigError, match="power of 2"):
        observers.path_wise(plan, probes=3)
    with pytest.raises(ConfigError, match="keep"):
        observers.squared(plan, keep=np.ones(3, bool))
    with pytest.raises(ConfigError, match="keep"):
        observers.product(plan, keep=np.ones(plan.steps))
    with pytest.raises(ConfigError, match="prior"):
        observers.summary([1.0], [0], 2, prior=[1.0])
    falling = types.SimpleNamespace(at={"t": np.linspace(1, 0.1, 5, dtype=np.float32)}, weight=np.ones(5, np.float32))
    for make in (observers.product, observers.path_wise):
        for other in (ddpm.plan(schedules.make_schedule()), falling):
            with pytest.raises(ConfigError, match="flows"):
                make(other)
    keys = sampler.sample_keys(jax.random.key(0), jnp.arange(2))
    options = {"per_step": jnp.asarray(plan.time), "observers": (observers.squared(plan),)}
    with pytest.raises(ConfigError, match="unconditional"):
        jax.eval_shape(
            lambda: sampler.run(plan, lambda x, t: (x, None), keys, jnp.zeros(2, jnp.int32), LENGTH, **options)
        )


def test_all_ask_for_the_unconditional_pass():
    plan = flow_plan()
    assert all(make(plan).needs_unconditional for make in (observers.squared, observers.product, observers.path_wise))
