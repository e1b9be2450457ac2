"""Every process against closed forms: orders of solvers, marginals, losses, weights of the information, guidance."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfinv

from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import ddim, ddpm, edm, sampler
from jaxtraffic.generate.config import DiffusionConfig, GeneratorConfig, from_dict
from jaxtraffic.generate.edm import EDM
from jaxtraffic.generate.flow import Flow
from jaxtraffic.generate.processes import DDPM, make_process
from jaxtraffic.generate.schedules import make_schedule
from jaxtraffic.generate.vp import VP
from tests.generate import oracles

MADE = {"ddpm": DDPM(), "vp": VP(), "vp-v": VP("v"), "edm": EDM(), "flow": Flow()}


def network(name):
    return lambda x, told: oracles.output(name.removesuffix("-v"), MADE[name], x, told)


def without_noise(name, plan, x):
    """The plan's steps from given x [n, 2] with noise 0."""

    def body(x, step):
        at, told = step

        def evaluate(y, stage):
            out = network(name)(y, told[stage])
            return sampler.Prediction(out, out, None)

        return plan.take_step(evaluate, x, at, jnp.zeros_like(x))[0], None

    return jax.jit(lambda x: jax.lax.scan(body, x, (plan.at, plan.time))[0])(plan.initial * x)


def draw(name, plan, n=20_000, predict=None, seed=0, **options):
    keys = sampler.sample_keys(jax.random.key(seed), jnp.arange(n))
    predict = predict or (lambda x, told: (network(name)(x, told), None))
    label = jnp.zeros(n, jnp.int32)
    return np.asarray(
        jax.jit(lambda keys: sampler.run(plan, predict, keys, label, 2, per_step=plan.time, **options)[0])(keys)
    )


@pytest.mark.parametrize(
    "name, solver, order",
    [
        ("flow", "euler", 1),
        ("flow", "heun", 2),
        ("flow", "midpoint", 2),
        pytest.param("edm", "euler", 1, marks=pytest.mark.slow),
        ("edm", "heun", 2),
        pytest.param("edm", "midpoint", 2, marks=pytest.mark.slow),
        ("vp", "euler-maruyama", 1),
        ("vp", "heun", 2),
        pytest.param("vp", "midpoint", 2, marks=pytest.mark.slow),
        pytest.param("vp-v", "heun", 2, marks=pytest.mark.slow),
    ],
)
def test_error_falls_with_the_order_of_the_solver(name, solver, order):
    x = jax.random.normal(jax.random.key(0), (400, 2))
    made, own = MADE[name], {"eta": 0.0} if solver == "euler-maruyama" else {}
    fine = without_noise(name, made.plan(solver="midpoint", steps=1000), x)
    errors = [
        float(jnp.sqrt(jnp.mean((without_noise(name, made.plan(solver=solver, steps=n, **own), x) - fine) ** 2)))
        for n in (80, 160)
    ]
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2, errors
    assert errors[1] < (0.02, 5e-4)[order - 1]


@pytest.mark.parametrize(
    "name, options",
    [
        ("flow", {}),
        ("flow", {"solver": "euler", "steps": 200}),
        pytest.param("flow", {"solver": "midpoint"}, marks=pytest.mark.slow),
        pytest.param("flow", {"clip": 6.0}, marks=pytest.mark.slow),
        pytest.param("edm", {"steps": 150}, marks=pytest.mark.slow),
        ("edm", {"steps": 150, "churn": 40.0}),
        ("vp", {"solver": "heun", "steps": 50, "clip": 6.0}),
        pytest.param("vp-v", {"steps": 400}, marks=pytest.mark.slow),
        ("vp", {"eta": 0.0, "steps": 400}),
        ("vp", {"eta": 0.5, "steps": 400}),
        ("vp", {"eta": 1.0, "steps": 400}),
        pytest.param("vp", {"eta": 1.5, "steps": 800}, marks=pytest.mark.slow),
        ("ddpm", {"solver": "ddim", "clip": 6.0}),
    ],
    ids=str,
)
def test_every_solver_reproduces_a_gaussian_mixture(name, options):
    misfit = oracles.misfit(draw(name, MADE[name].plan(**options)))
    assert max(misfit.values()) < 4, misfit


def test_noise_without_its_drift_has_other_marginals():
    """What the test above would miss if it could not fail: eta = 1's noise on the drift of eta = 0."""
    ode, sde = (MADE["vp"].plan(eta=eta, steps=400) for eta in (0.0, 1.0))
    wrong = sde._replace(at=sde.at | {"stage": ode.at["stage"]})
    assert max(oracles.misfit(draw("vp", wrong)).values()) > 8


def test_churn_draws_noise_and_without_it_edm_is_deterministic():
    x = jnp.ones((1, 2))
    out = jnp.zeros((1, 2))
    evaluate = lambda y, stage: sampler.Prediction(out, out, None)  # noqa: E731
    for churn, moves in ((0.0, False), (20.0, True)):
        plan = EDM(churn_min=0.05, churn_max=50.0).plan(steps=18, churn=churn)
        at = jax.tree.map(lambda leaf: leaf[5], plan.at)
        one, other = (plan.take_step(evaluate, x, at, noise * jnp.ones((1, 2)))[0] for noise in (0.0, 1.0))
        assert bool((one != other).any()) == moves
        level = edm.karras(18, 0.002, 80.0, 7.0)[:-1]
        inside = (level >= 0.05) & (level <= 50)
        raised = level * (1 + np.where(inside, min(churn / 18, np.sqrt(2) - 1), 0))
        np.testing.assert_allclose(plan.at["t"], raised, rtol=1e-6)
        np.testing.assert_allclose(plan.at["churn"] ** 2, raised**2 - level**2, rtol=1e-5, atol=1e-12)


def test_karras_levels_are_golden():
    golden = [80, 57.58598, 40.78557, 28.37458, 19.35245, 12.91008, 8.40094, 5.31519, 3.25682, 1.92334, 1.08817]
    golden += [0.58535, 0.29644, 0.13952, 0.05995, 0.02293, 0.00753, 0.002, 0]
    np.testing.assert_allclose(edm.karras(18, 0.002, 80.0, 7.0), golden, rtol=3e-4)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_preconditioning_keeps_unit_variances(sigma_data):
    """Karras et al., appendix B.6: input, target of the network and c_out at its least."""
    sigma = np.array([0.002, 0.1, 1.0, 80.0])
    skip, out, scale = edm.precondition(sigma, sigma_data)
    np.testing.assert_allclose(scale**2 * (sigma**2 + sigma_data**2), 1)
    np.testing.assert_allclose(((1 - skip) ** 2 * sigma_data**2 + skip**2 * sigma**2) / out**2, 1)
    plan = EDM(sigma_data=sigma_data).plan(steps=18)
    skip, out, scale = edm.precondition(edm.karras(18, 0.002, 80.0, 7.0)[:-1], sigma_data)
    np.testing.assert_allclose(plan.at["stage"].input[:, 0], scale, rtol=1e-6)
    np.testing.assert_allclose(plan.at["stage"].x0_of_x[:, 0], skip, rtol=1e-6)
    np.testing.assert_allclose(plan.at["stage"].x0_of_output[:, 0], out, rtol=1e-6)


def test_ddim_is_deterministic_and_ancestral_at_its_ends():
    still = DDPM().plan(solver="ddim", steps=20)
    assert not np.asarray(still.at["schedule"].deviation).any() and still.time.shape == (20, 1)
    assert still.time[0, 0] == 99 and still.time[-1, 0] == 0
    x = jax.random.normal(jax.random.key(1), (50, 2))
    evaluate = lambda y, stage: sampler.Prediction(0.3 * y, 0.3 * y, None)  # noqa: E731
    at = jax.tree.map(lambda leaf: leaf[3], still.at)
    one, other = (still.take_step(evaluate, x, at, noise)[0] for noise in (x * 0, x))
    np.testing.assert_array_equal(one, other)
    every, ancestral = DDPM().plan(solver="ddim", eta=1.0), DDPM().plan()
    for name in ("signal", "noise", "from_x0", "from_xt", "deviation"):
        mine, theirs = (np.asarray(getattr(plan.at["schedule"], name)) for plan in (every, ancestral))
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-6, err_msg=name)
    np.testing.assert_array_equal(every.time, ancestral.time)


@pytest.mark.parametrize("total, steps", [(100, 7), (100, 100), (50, 1)])
def test_subsets_of_steps(total, steps):
    t = ddim.subset(total, steps)
    assert len(t) == steps == len(set(t)) and t[-1] == total - 1 and (np.diff(t) > 0).all()
    assert steps == 1 or t[0] == 0


def irreducible(name, law, width):
    """Loss of the exact network for x_0 ~ N(0, width^2): conditional variance of the target, mean over times."""
    grid = (np.arange(4000) + 0.5) / 4000
    if name == "flow":
        z = np.sqrt(2) * erfinv(2 * grid - 1)
        t = grid if law == "uniform" else 1 / (1 + np.exp(-z))
        return np.mean(width**2 / (t**2 * width**2 + (1 - t) ** 2))
    if name == "edm":
        sigma = np.exp(-1.2 + 1.2 * np.sqrt(2) * erfinv(2 * grid - 1))
        out = sigma / np.sqrt(1 + sigma**2)
        return np.mean(sigma**2 * width**2 / (sigma**2 + width**2) / out**2)
    if name == "ddpm":
        a2 = np.asarray(make_schedule().alpha_bar, np.float64)
    else:
        t = 1e-3 + grid * (1 - 1e-3)
        a2 = np.exp(-0.1 * t - 19.9 * t**2 / 2)
    total = a2 * width**2 + 1 - a2
    return np.mean(width**2 * (a2 if not name.endswith("-v") else 1) / total)


def gaussian_network(name, width):
    """Exact output for x_0 ~ N(0, width^2), as a function of the network's input and the time it is told."""

    def denoise(x, told, label):
        told = told.astype(jnp.float32)[:, None]
        if name == "flow":
            a, s = told / 100, 1 - told / 100
        elif name == "edm":
            a, s = jnp.ones_like(told), jnp.exp(told / 10)
            x = x * jnp.sqrt(s**2 + 1)
        elif name == "ddpm":
            schedule = MADE[name].schedule
            a, s = (leaf[told.astype(jnp.int32)] for leaf in (schedule.signal, schedule.noise))
        else:
            a, s = MADE[name].mix(told / 100)
        total = a**2 * width**2 + s**2
        clean, eps = a * width**2 * x / total, s * x / total
        if name == "flow":
            return clean - eps
        if name == "edm":
            return (clean - x / (s**2 + 1)) * jnp.sqrt(s**2 + 1) / s
        return a * eps - s * clean if name.endswith("-v") else eps

    return denoise


@pytest.mark.parametrize(
    "name, law",
    [("ddpm", "uniform"), ("vp", "uniform"), ("vp-v", "uniform"), ("edm", "uniform")]
    + [("flow", "uniform"), ("flow", "logit-normal")],
)
def test_the_exact_network_has_the_irreducible_loss(name, law):
    width, n = 0.6, 40_000
    made = Flow(law) if name == "flow" else MADE[name]
    x0 = width * jax.random.normal(jax.random.key(0), (n, 2))
    label = jnp.zeros(n, jnp.int32)
    exact = gaussian_network(name, width)

    def mean_loss(off):
        denoise = lambda x, told, y: exact(x, told, y) + off * x  # noqa: E731
        return made.loss(denoise, jax.random.key(1), x0, label)

    value = np.asarray(jax.jit(mean_loss)(0.0), np.float64)
    assert value.shape == (n,) and abs(value.mean() - irreducible(name, law, width)) < 4 * value.std() / np.sqrt(n)
    gradient, worse = jax.jit(jax.grad(lambda off: mean_loss(off).mean()))(0.0), mean_loss(0.1).mean()
    # The exact network is where the loss is least: its gradient is zero up to the noise of the batch.
    assert np.isfinite(gradient) and abs(gradient) < 0.02 and worse > value.mean()


@pytest.mark.parametrize("name", ["ddpm", "vp", "edm", "flow"])
def test_labels_are_hidden_and_noise_can_be_given(name):
    seen = []
    label = jnp.full(4000, 3, jnp.int32)
    x0 = jnp.ones((4000, 2))
    denoise = lambda x, t, y: seen.append((x, y)) or x  # noqa: E731
    options = {"class_dropout": 0.2, "no_class": 7, "noise": jnp.ones((4000, 2)) * 5}
    MADE[name].loss(denoise, jax.random.key(0), x0, label, **options)
    x, hidden = seen[0]
    assert abs(float((hidden == 7).mean()) - 0.2) < 0.03 and set(np.unique(hidden)) == {3, 7}
    assert float(jnp.abs(x[:, 0] - x[:, 1]).max()) == 0  # the noise is the given one


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("ddpm", "vp", "edm")), "flow"]
)
def test_guidance_is_the_same_as_a_guided_network(name):
    plan = MADE[name].plan(**({"steps": 12} if name != "ddpm" else {"solver": "ddim", "steps": 12}))
    conditional, unconditional = network(name), lambda x, told: 0.4 * x
    pair = lambda x, told: (conditional(x, told), unconditional(x, told))  # noqa: E731
    single = lambda x, told: (3.0 * conditional(x, told) - 2.0 * unconditional(x, told), None)  # noqa: E731
    one, other = draw(name, plan, 50, pair, guidance=3.0), draw(name, plan, 50, single)
    np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)
    assert np.abs(one - draw(name, plan, 50, pair)).max() > 1e-2


def gaussian_gap(name, plan, width, y):
    """Exact E |A - B|^2 of raw outputs at stage 0 of every step; X | y ~ N(y, width^2), Y ~ N(0, 1); float64."""
    told = np.asarray(plan.time, np.float64)[:, 0]
    if name == "flow":
        a, s = told / 100, 1 - told / 100
    elif name == "edm":
        a, s = np.ones_like(told), np.exp(told / 10)
    elif name.startswith("ddpm"):
        schedule = make_schedule("linear" if "linear" in name else "cosine", len(told) if "linear" in name else 100)
        bar = np.asarray(schedule.alpha_bar, np.float64)[told.astype(int)]
        a, s = np.sqrt(bar), np.sqrt(1 - bar)
    else:
        a, s = VP().mix(told / 100)
    # eps = s (x - a m) / total with m, total of either law; x = a y + spread of the conditional law.
    own, all_ = a**2 * width**2 + s**2, a**2 * (1 + width**2) + s**2
    slope = s / own - s / all_
    eps = (s / all_ * a * y) ** 2 + slope**2 * own  # difference at its mean, and its spread
    if name == "flow":
        return eps / np.where(a > 0, a, 1) ** 2
    if name == "edm":
        out = s / np.sqrt(1 + s**2)
        return eps * (s / out) ** 2
    return eps / a**2 if name.endswith("-v") else eps


@pytest.mark.parametrize("width, y", [(1.0, 2.0), (0.3, 0.0), (0.3, 2.0)])
@pytest.mark.parametrize(
    "name, options, tolerance",
    [
        ("flow", {"steps": 50}, 0.003),
        ("flow", {"solver": "euler", "steps": 100}, 0.002),
        ("edm", {"steps": 50}, 0.02),
        ("edm", {"steps": 50, "churn": 30.0}, 0.03),
        ("vp", {"steps": 100}, 0.01),
        ("vp-v", {"solver": "heun", "steps": 100}, 0.01),
        ("ddpm-ddim", {"solver": "ddim", "steps": 50}, 0.02),
        ("ddpm-ddim-v", {"solver": "ddim", "steps": 100}, 0.02),
        ("ddpm-linear", {}, 0.02),
        ("ddpm-linear-v", {}, 0.02),
    ],
    ids=str,
)
def test_weights_make_squared_differences_nats(name, options, tolerance, width, y):
    prediction = "v" if name.endswith("-v") else "epsilon"
    if name.startswith("ddpm-linear"):
        made = DDPM("linear", 1000, prediction=prediction)
    elif name.startswith("ddpm"):
        made = DDPM(prediction=prediction)
    else:
        made = MADE[name]
    plan = made.plan(**options)
    weight = np.asarray(plan.weight, np.float64)
    assert weight.shape == (plan.steps,) and (weight >= 0).all()
    told = (weight * gaussian_gap(name, plan, width, y)).sum()
    truth = 0.5 * np.log1p(1 / width**2) + (y**2 - 1) / (2 * (1 + width**2))
    assert abs(told - truth) < tolerance * truth, (told, truth)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"process": "gan"}, "unknown process"),
        ({"solver": "heun"}, "no solver 'heun'; choose from ancestral, ddim"),
        ({"process": "flow", "solver": "ddim"}, "heun, euler, midpoint"),
        ({"sampling_steps": 10}, "choose solver ddim"),
        ({"solver": "ddim", "sampling_steps": 101}, "1 to 100"),
        ({"solver": "ddim", "eta": 1.5}, "eta from 0 to 1"),
        ({"eta": 1.0}, "eta 1.0 fits vp and ddim"),
        ({"process": "flow", "eta": 0.0}, "eta"),
        ({"process": "edm", "eta": 0.0}, "eta"),
        ({"process": "vp", "solver": "heun", "eta": 1.0}, "deterministic"),
        ({"process": "vp", "eta": -1.0}, "at least 0"),
        ({"process": "vp", "churn": 1.0}, "churn 1.0 fits edm"),
        ({"process": "flow", "churn": 1.0}, "churn"),
        ({"churn": 1.0}, "churn"),
        ({"process": "edm", "churn": -1.0}, "churn"),
        ({"process": "flow", "sampling_steps": 0}, "at least 1"),
        ({"process": "flow", "time_law": "beta"}, "unknown time law"),
        ({"time_law": "logit-normal"}, "flow only"),
        ({"process": "edm", "sigma_min": 100.0}, "sigma_min"),
        ({"process": "vp", "beta_min": 0.0}, "beta_min"),
        ({"process": "vp", "prediction": "x0"}, "unknown prediction"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        GeneratorConfig(diffusion=DiffusionConfig(**options)).check()


def test_sigma_data_follows_the_scale():
    assert make_process(DiffusionConfig(process="edm")).sigma_data == 1.0
    assert make_process(DiffusionConfig(process="edm", scaling="linear")).sigma_data == 0.5
    assert make_process(DiffusionConfig(process="edm", sigma_data=0.7)).sigma_data == 0.7


def test_a_configuration_from_before_there_were_processes_is_a_ddpm():
    stored = dataclasses.asdict(GeneratorConfig())
    known = ("scaling", "steps", "schedule", "prediction", "variance", "clip_x0", "guidance")
    stored["diffusion"] = {name: stored["diffusion"][name] for name in known}
    assert from_dict(stored) == GeneratorConfig() and make_process(from_dict(stored).diffusion) == DDPM()
    plan = DDPM().plan()
    np.testing.assert_array_equal(plan.weight, ddpm.plan(make_schedule()).weight)
