"""Every form of the estimate on distributions with exact velocities: the tables of information.md, section 5.

Twice: as exact expectations under the weights of `quadrature`, and as observers of the real sampling scan.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.generate import ddpm, sampler
from jaxtraffic.generate.flow import Flow
from jaxtraffic.generate.schedules import Schedule
from jaxtraffic.information import observers, quadrature
from tests.information import analytic

WIDTHS = np.array([1.0, 0.3, 0.05])
VALUES = np.array([0.0, 0.5, 1.0, 2.0, 3.0])
TABLE = np.array(analytic.GAUSSIAN).reshape(3, 5, 4)
"""[width, y, (width, y, S, P)]"""


def exact(mean, width, marginal, steps=2000):
    """S and P as sums over a fine grid; the last cell of P is a rectangle."""
    t = quadrature.geometric(steps, 1e-4)[:-1]
    weight = quadrature.flow(t)
    closed = weight.copy()
    closed[-1] += t[-1] / 2
    square, product = analytic.densities(t, mean, width, marginal)
    return weight @ square, closed @ product


def scan(predict_of, labels, length, *, steps, made, solver="heun", seed=0, guidance=1.0, repeat=400):
    """Samples `repeat` series a label on a flow; returns x, labels and the results of the observers made(plan)."""
    plan = Flow().plan(solver=solver, steps=steps)
    label = jnp.asarray(np.repeat(labels, repeat), jnp.int32)

    @jax.jit
    def program(key):
        keys = sampler.sample_keys(key, jnp.arange(label.size))
        return sampler.run(
            plan,
            predict_of(label),
            keys,
            label,
            length,
            guidance=guidance,
            per_step=jnp.asarray(plan.time) / 100,
            observers=made(plan),
        )

    x, results = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), program(jax.random.key(seed)))
    return x, np.asarray(label), results


@pytest.mark.parametrize("width, y, squared, product", analytic.GAUSSIAN)
def test_gaussian_table(width, y, squared, product):
    made = exact(y, width, (np.zeros(1), np.array([1 + width**2]), None))
    np.testing.assert_allclose(made, (squared, product), atol=2e-4)
    np.testing.assert_allclose(analytic.kl(width, y), squared, atol=6e-5)


@pytest.mark.parametrize("width", WIDTHS)
def test_gaussian_forms_agree_on_average(width):
    y, weight = np.polynomial.hermite_e.hermegauss(40)
    kept = weight > 1e-12 * weight.max()
    y, weight = y[kept], weight[kept] / weight[kept].sum()
    made = np.array([exact(value, width, (np.zeros(1), np.array([1 + width**2]), None)) for value in y])
    np.testing.assert_allclose(weight @ made, analytic.information(width), rtol=3e-4)
    assert abs(made[:, 0] - made[:, 1]).max() > 1


@pytest.mark.parametrize("width", analytic.MIXTURE)
def test_three_classes(width):
    marginal = (analytic.MEANS, np.full(3, width**2), analytic.SHARES)
    made = np.array([exact(mean, width, marginal) for mean in analytic.MEANS])
    squared, product, average = analytic.MIXTURE[width]
    np.testing.assert_allclose(made[:, 0], squared, atol=2e-4)
    np.testing.assert_allclose(made[:, 1], product, atol=2e-4)
    np.testing.assert_allclose(analytic.SHARES @ made, average, atol=2e-4)


@functools.cache
def gaussian_scan():
    """Five values of y, three packets of different widths: every row of the table in one run of the sampler."""
    return scan(
        lambda label: analytic.gaussian_predict(WIDTHS, VALUES, label),
        np.arange(5),
        3,
        steps=200,
        repeat=1000,
        made=lambda plan: (
            observers.squared(plan),
            observers.product(plan, packets=True),
            observers.path_wise(plan, probes=None),
        ),
    )


@pytest.mark.parametrize("form", [0, 1], ids=["squared", "product"])
def test_scan_gives_the_gaussian_table_packet_by_packet(form):
    _, label, results = gaussian_scan()
    for k in range(5):
        packet = results[form]["packet"][label == k]
        mean, error = packet.mean(0), packet.std(0) / np.sqrt(len(packet))
        expected = TABLE[:, k, 2 + form]
        # 200 uniform steps leave 1 % at width 0.05.
        assert (np.abs(mean - expected) < 4 * error + 0.003 + 0.002 * np.abs(expected)).all(), (
            k,
            mean,
            expected,
            error,
        )
    np.testing.assert_allclose(results[form]["packet"].sum(1), results[form]["mi"], rtol=1e-4, atol=1e-4)


def test_path_wise_is_the_log_ratio_of_each_sample():
    x, label, results = gaussian_scan()
    true = analytic.log_ratio(x, WIDTHS, VALUES[label][:, None]).sum(1)
    # Float32 arithmetic and 200 Heun steps at width 0.05.
    error = np.abs(results[2]["mi"] - true)
    assert error.max() < 0.05


RANKED = np.array([(1.0, 0.0), (1.0, 2.0), (0.3, 0.0), (0.3, 2.0)])
"""Widths and values of y of information.md 5d."""


@functools.cache
def one_packet(guidance=1.0, solver="heun", steps=200):
    """log p(x | y) / p(x), S, P and L of samples, each [case, sample], of the four cases of `RANKED`."""
    x, _, results = scan(
        lambda label: analytic.gaussian_predict(RANKED[:, :1], RANKED[:, 1], label),
        np.arange(4),
        1,
        steps=steps,
        solver=solver,
        guidance=guidance,
        repeat=500,
        made=lambda plan: (observers.squared(plan), observers.product(plan), observers.path_wise(plan)),
    )
    values = (analytic.log_ratio(x.reshape(4, -1), RANKED[:, :1], RANKED[:, 1:]), *(r["mi"] for r in results))
    return [value.reshape(4, -1) for value in values]


def spearman(a, b):
    a, b = (np.argsort(np.argsort(v)) for v in (a, b))
    return np.corrcoef(a, b)[0, 1]


@pytest.mark.parametrize("case, squared, product", [(0, -1, 1), (1, -1, -1), (2, -1, -1), (3, -0.77, -0.68)])
def test_sums_along_a_path_rank_opposite_to_the_log_ratio(case, squared, product):
    ratio, s, p, path = (value[case] for value in one_packet())
    np.testing.assert_allclose(path, ratio, atol=1e-3)
    assert spearman(s, ratio) == pytest.approx(squared, abs=0.06)
    assert spearman(p, ratio) == pytest.approx(product, abs=0.06)


@pytest.mark.parametrize("guidance", [pytest.param(0.0, marks=pytest.mark.slow), 2.0])
def test_path_wise_holds_on_guided_paths(guidance):
    ratio, s, _, path = one_packet(guidance)
    np.testing.assert_allclose(path, ratio, atol=5e-3, rtol=1e-3)
    # What is left of the squared form there is a score: its mean is not the KL.
    assert (np.abs(s.mean(1) - analytic.kl(*RANKED.T)) > 0.03).all()


@pytest.mark.slow
def test_path_wise_error_falls_with_the_order_of_the_solver():
    error = {}
    for solver, steps in [("euler", 20), ("euler", 80), ("heun", 20), ("heun", 80)]:
        ratio, _, _, path = one_packet(solver=solver, steps=steps)
        error[solver, steps] = np.abs(path - ratio)[:2].mean()
    assert 3.4 < error["euler", 20] / error["euler", 80] < 5
    assert 13 < error["heun", 20] / error["heun", 80] < 20


@functools.cache
def mixture_scan():
    return scan(
        lambda label: analytic.mixture_predict(np.array(list(analytic.MIXTURE)), label),
        np.arange(6),
        1,
        steps=200,
        repeat=2500,
        made=lambda plan: (observers.squared(plan), observers.product(plan)),
    )


@pytest.mark.parametrize("form", [0, 1], ids=["squared", "product"])
@pytest.mark.parametrize("case", [0, 1], ids=["wide", "narrow"])
def test_scan_gives_the_three_classes(case, form):
    _, label, results = mixture_scan()
    own = label // 3 == case
    made = observers.summary(results[form]["mi"][own], label[own] % 3, 3, prior=analytic.SHARES)
    values = list(analytic.MIXTURE.values())[case]
    assert (np.abs(made.class_mean - values[form]) < 4 * made.class_stderr + 4e-3).all(), made
    assert abs(made.mean - values[2]) < 4 * made.stderr + 2e-3


def linear_schedule():
    """beta 1e-4 .. 0.02 in 1000 steps, by the definitions of Ho et al. (2020)."""
    beta = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    posterior = beta * (1 - before) / (1 - alpha_bar)
    fields = (
        beta,
        alpha_bar,
        np.sqrt(alpha_bar),
        np.sqrt(1 - alpha_bar),
        np.sqrt(before) * beta / (1 - alpha_bar),
        np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar),
        np.sqrt(np.concatenate([[0.0], posterior[1:]])),
    )
    return Schedule(*(jnp.asarray(field, jnp.float32) for field in fields))


@pytest.mark.parametrize("prediction", ["epsilon", pytest.param("v", marks=pytest.mark.slow)])
def test_scan_of_ddpm_gives_the_kl(prediction):
    schedule = linear_schedule()
    plan = ddpm.plan(schedule, prediction=prediction)
    np.testing.assert_allclose(
        ddpm.plan(schedule).weight[::-1], quadrature.ddpm(np.linspace(1e-4, 0.02, 1000)), rtol=2e-3
    )
    label = jnp.repeat(jnp.arange(5, dtype=jnp.int32), 250)
    y = jnp.asarray(VALUES, jnp.float32)[label][:, None, None]
    variance = jnp.asarray(WIDTHS, jnp.float32)[:, None] ** 2

    def predict(x, level):
        signal, noise = level

        def one(mean, variance):
            eps, clean = analytic.noise_and_clean(x, signal, noise, mean, variance)
            return eps if prediction == "epsilon" else signal * eps - noise * clean

        return one(y, variance), one(jnp.zeros(1), 1 + variance)

    @jax.jit
    def program(key):
        keys = sampler.sample_keys(key, jnp.arange(label.size))
        levels = (schedule.signal[::-1, None], schedule.noise[::-1, None])
        return sampler.run(plan, predict, keys, label, 3, per_step=levels, observers=(observers.squared(plan),))

    _, (result,) = program(jax.random.key(0))
    packet = np.asarray(result["packet"], np.float64)
    for k in range(5):
        own = packet[np.asarray(label) == k]
        error = own.std(0) / np.sqrt(len(own))
        assert (np.abs(own.mean(0) - TABLE[:, k, 2]) < 4 * error + 0.02 * TABLE[:, k, 2]).all()


def noisy(x, t, a, b, deviation, xp):
    """Adds errors to both velocities that are independent for all purposes: fast sines of x, one phase each."""
    root = deviation * np.float32(np.sqrt(2))
    return a + root * xp.sin(3e3 * x + 700 * t), b + root * xp.sin(4.1e3 * x + 900 * t + 1)


def test_bias_under_errors_of_the_velocities():
    """Squared: + 2 delta^2 Z; product: + delta^2 Z; gap on real pairs: none; dependent or not (information.md 5c)."""
    deltas, y, marginal = np.array([0, 0.1, 0, 0.1]), np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 2.0, 2.0])

    def predict_of(label):
        clean = analytic.gaussian_predict(np.ones(20), y, label, marginal)
        deviation = jnp.asarray(deltas, jnp.float32)[label][:, None]
        return lambda x, t: noisy(x, t, *clean(x, t), deviation, jnp)

    plan = Flow().plan(solver="euler", steps=100)
    _, label, results = scan(
        predict_of,
        np.arange(4),
        20,
        steps=100,
        solver="euler",
        made=lambda plan: (observers.squared(plan), observers.product(plan)),
    )
    z = float(np.sum(plan.weight))
    rng = np.random.default_rng(0)
    t = np.asarray(plan.at["t"], np.float64)
    for clean, wrong in [(0, 1), (2, 3)]:
        bias = [(r["mi"][label == wrong].mean() - r["mi"][label == clean].mean()) / 20 / 0.1**2 for r in results]
        assert bias[0] == pytest.approx(2 * z, rel=0.08)
        # The product's last cell is a rectangle: its weight is t / 2 more.
        assert bias[1] == pytest.approx(z + t[-1] / 2, rel=0.16)
        x1, x0 = y[wrong] + rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1))
        x = t * x1 + (1 - t) * x0
        a = analytic.velocity(x, t, np.array([y[wrong]]), 1.0, xp=np)
        b = analytic.velocity(x, t, np.zeros(1), marginal[wrong], xp=np)
        a, b = noisy(x, t, a, b, 0.1, np)
        gap = ((x1 - x0 - b) ** 2 - (x1 - x0 - a) ** 2) @ np.asarray(plan.weight, np.float64)
        true = 0.0 if wrong == 1 else analytic.kl(1.0, y[wrong])
        assert abs(gap.mean() - true) < 4 * gap.std() / np.sqrt(len(gap)) < 0.15
