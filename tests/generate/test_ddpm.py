"""Schedules, loss and the sampling scan against closed forms and oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import ddpm, sampler, schedules


def test_cosine_schedule_is_golden():
    beta = schedules.betas("cosine", 100)
    np.testing.assert_allclose(beta[[0, 1, 49, 98]], [0.00063128, 0.00111694, 0.03059312, 0.749939], rtol=2e-5)
    made = schedules.make_schedule("cosine", 100)
    np.testing.assert_allclose(made.alpha_bar[49], 0.49384359, rtol=1e-5)
    np.testing.assert_allclose(made.alpha_bar[99], 2.42857e-7, rtol=1e-4)
    np.testing.assert_allclose(made.noise[0] / made.signal[0], 0.0251, atol=1e-4)


@pytest.mark.parametrize("kind", schedules.SCHEDULES)
def test_posterior_is_bayes_rule(kind):
    """q(x_(t-1) | x_t, x_0) from the joint Gaussian of (x_(t-1), x_t) given x_0, in float64."""
    made = schedules.make_schedule(kind, 50)
    beta = schedules.betas(kind, 50)
    alpha_bar = np.cumprod(1 - beta)
    for t in (1, 10, 48):
        before, alpha = alpha_bar[t - 1], 1 - beta[t]
        gain = (1 - before) * np.sqrt(alpha) / (1 - alpha_bar[t])
        np.testing.assert_allclose(made.from_xt[t], gain, rtol=1e-4)
        np.testing.assert_allclose(made.from_x0[t], np.sqrt(before) - gain * np.sqrt(alpha_bar[t]), rtol=1e-3)
        np.testing.assert_allclose(made.deviation[t] ** 2, (1 - before) * (1 - gain * np.sqrt(alpha)), rtol=1e-3)
    assert made.deviation[0] == 0


def test_bad_schedules_are_refused():
    for arguments in [("square", 10), ("cosine", 0)]:
        with pytest.raises(ConfigError):
            schedules.make_schedule(*arguments)
    with pytest.raises(ConfigError, match="variance"):
        schedules.make_schedule(variance="large")


@pytest.mark.parametrize("prediction", ddpm.PREDICTIONS)
def test_loss_of_the_oracle_is_zero_and_of_silence_is_the_variance(prediction):
    schedule = schedules.make_schedule()
    x0 = jax.random.normal(jax.random.key(0), (2000, 6))

    def oracle(x, t, label):
        signal, noise = schedule.signal[t][:, None], schedule.noise[t][:, None]
        eps = (x - signal * x0) / noise
        return eps if prediction == "epsilon" else signal * eps - noise * x0

    label = jnp.zeros(2000, jnp.int32)
    value = ddpm.loss(oracle, schedule, jax.random.key(1), x0, label, prediction=prediction)
    assert value.shape == (2000,) and float(value.max()) < 1e-5
    silent = ddpm.loss(lambda x, t, y: x * 0, schedule, jax.random.key(1), x0, label, prediction=prediction)
    assert abs(float(silent.mean()) - 1) < 0.05


def test_labels_are_dropped_at_the_stated_rate():
    seen = []
    schedule = schedules.make_schedule()
    label = jnp.full(20_000, 3, jnp.int32)
    x0 = jnp.zeros((20_000, 2))
    denoise = lambda x, t, y: seen.append(y) or x  # noqa: E731
    ddpm.loss(denoise, schedule, jax.random.key(0), x0, label, class_dropout=0.2, no_class=7)
    dropped = np.asarray(seen[0] == 7).mean()
    assert abs(dropped - 0.2) < 0.012 and set(np.unique(seen[0])) == {3, 7}


def draw(predict, schedule, keys, label, *, prediction="epsilon", clip=6.0, **options):
    """Ancestral sampling in the plane; `predict` takes the step as an integer."""
    made = ddpm.plan(schedule, prediction=prediction, clip=clip)
    per_step = jnp.asarray(made.time, jnp.int32)
    return sampler.run(made, predict, keys, label, 2, per_step=per_step, **options)


def mixture_denoiser(schedule, prediction):
    """E[eps | x_t] (or E[v | x_t]) of a mixture of three Gaussians in the plane, in closed form."""
    weight, mean, root = jnp.array([0.5, 0.3, 0.2]), jnp.array([[-1.5, 0.0], [1.0, 1.2], [1.2, -1.0]]), 0.3
    mixing = jnp.array([[1.0, 0.5], [0.0, 0.8]]) * root
    covariance = mixing @ mixing.T

    def predict(x, t):
        signal, noise = schedule.signal[t], schedule.noise[t]
        total = signal**2 * covariance + noise**2 * jnp.eye(2)
        inverse = jnp.linalg.inv(total)
        away = x[:, None] - signal * mean
        log = jnp.log(weight) - 0.5 * jnp.einsum("bki,ij,bkj->bk", away, inverse, away)
        posterior = jax.nn.softmax(log, axis=1)
        clean = mean + signal * jnp.einsum("ij,jk,bmk->bmi", covariance, inverse, away)
        x0 = jnp.einsum("bk,bki->bi", posterior, clean)
        eps = (x - signal * x0) / noise
        return (eps if prediction == "epsilon" else signal * eps - noise * x0), None

    overall = weight @ mean
    spread = covariance + jnp.einsum("k,ki,kj->ij", weight, mean, mean) - jnp.outer(overall, overall)
    return predict, np.asarray(weight), np.asarray(mean), np.asarray(overall), np.asarray(spread)


@pytest.mark.parametrize("prediction", ddpm.PREDICTIONS)
@pytest.mark.parametrize("steps", [100, 400])
def test_sampler_reproduces_a_gaussian_mixture(prediction, steps):
    n = 20_000
    schedule = schedules.make_schedule("cosine", steps)
    predict, weight, mean, overall, spread = mixture_denoiser(schedule, prediction)
    keys = sampler.sample_keys(jax.random.key(5), jnp.arange(n))
    label = jnp.zeros(n, jnp.int32)
    x, _ = jax.jit(lambda keys: draw(predict, schedule, keys, label, prediction=prediction))(keys)
    x = np.asarray(x, np.float64)
    deviation = np.sqrt(np.diag(spread))
    assert (np.abs(x.mean(0) - overall) < 4 * deviation / np.sqrt(n)).all()
    # A sample covariance of n draws has a standard error of about sqrt(2 / n) of its scale (fourth moments are lower).
    assert (np.abs(np.cov(x.T) - spread) < 4 * np.sqrt(2 / n) * np.outer(deviation, deviation)).all()
    nearest = ((x[:, None] - mean) ** 2).sum(-1).argmin(1)
    shares = np.bincount(nearest, minlength=3) / n
    assert (np.abs(shares - weight) < 4 * np.sqrt(weight * (1 - weight) / n) + 2e-3).all()


def test_a_sample_depends_on_its_own_index_only():
    schedule = schedules.make_schedule("cosine", 20)
    predict, *_ = mixture_denoiser(schedule, "epsilon")

    def of(index):
        return draw(predict, schedule, sampler.sample_keys(jax.random.key(0), index), index)[0]

    whole = of(jnp.arange(64))
    np.testing.assert_allclose(of(jnp.arange(10, 20)), whole[10:20], atol=1e-5)
    np.testing.assert_allclose(of(jnp.arange(63, -1, -1))[::-1], whole, atol=1e-5)


def test_observers_fold_what_a_stored_trajectory_shows():
    steps, n = 30, 50
    schedule = schedules.make_schedule("cosine", steps)
    predict, *_ = mixture_denoiser(schedule, "epsilon")

    def doubled(x, t):
        conditional, _ = predict(x, t)
        return conditional, 0.5 * conditional

    def gap(info):
        return ((info["prediction"].conditional - info["prediction"].unconditional) ** 2).sum(-1)

    everything = sampler.Observer(
        init=lambda x, label: {
            "x0": jnp.zeros((x.shape[0], steps, 2)),
            "gap": jnp.zeros((x.shape[0], steps)),
            "label": label,
        },
        update=lambda state, info: {
            "x0": state["x0"].at[:, info["step"]].set(info["x0"]),
            "gap": state["gap"].at[:, info["step"]].set(gap(info)),
            "label": state["label"],
        },
    )
    running = sampler.Observer(
        init=lambda x, label: jnp.zeros(x.shape[0]),
        update=lambda state, info: state + gap(info),
        finish=lambda state: state / steps,
    )
    keys = sampler.sample_keys(jax.random.key(0), jnp.arange(n))
    x, (stored, mean) = draw(doubled, schedule, keys, jnp.arange(n), guidance=1.5, observers=(everything, running))
    np.testing.assert_allclose(stored["gap"].mean(1), mean, rtol=1e-5)
    np.testing.assert_array_equal(stored["label"], np.arange(n))
    np.testing.assert_allclose(stored["x0"][:, -1], x, atol=1e-6)
    plain, _ = draw(doubled, schedule, keys, jnp.arange(n), guidance=1.5)
    np.testing.assert_allclose(plain, x, atol=1e-6)
