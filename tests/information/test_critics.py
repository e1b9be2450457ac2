"""Critics: formulas against loops, gradients against written ones, values against a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import bounds, estimate
from jaxtraffic.information.critics import InfoNCEOptions, MineOptions, SmileOptions, _dv_outcome
from jaxtraffic.information.negatives import against_shuffled, shifts_of
from jaxtraffic.information.registry import METHODS
from jaxtraffic.information.result import Pairs
from jaxtraffic.nn.mlp import Critic, make_critic

TRUTH = -0.5 * np.log(1 - 0.75**2)
RNG = np.random.default_rng(3)
JOINT = RNG.normal(1.0, 2.0, 7).astype(np.float32)
NEGATIVE = RNG.normal(-1.0, 3.0, (5, 7)).astype(np.float32)


def gaussian_pairs(seed, n, rho=0.75):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1))
    return x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(n, 1))


def loop_mean_exp(values):
    total = 0.0
    for value in np.ravel(values).astype(float):
        total += np.exp(value)
    return total / np.size(values)


def test_values_equal_loops():
    mean = JOINT.astype(float).mean()
    assert bounds.donsker_varadhan(JOINT, NEGATIVE) == pytest.approx(mean - np.log(loop_mean_exp(NEGATIVE)), rel=1e-5)
    assert bounds.nwj(JOINT, NEGATIVE) == pytest.approx(mean - loop_mean_exp(NEGATIVE - 1), rel=1e-5)
    clipped = [min(max(float(f), -2.0), 2.0) for f in NEGATIVE.ravel()]
    assert bounds.smile(JOINT, NEGATIVE, 2.0) == pytest.approx(mean - np.log(loop_mean_exp(clipped)), rel=1e-5)
    shannon = -np.mean([np.log1p(np.exp(-float(f))) for f in JOINT])
    shannon -= np.mean([np.log1p(np.exp(float(f))) for f in NEGATIVE.ravel()])
    assert bounds.jensen_shannon(JOINT, NEGATIVE) == pytest.approx(shannon, rel=1e-5)
    nce = 0.0
    for i in range(7):
        row = [float(JOINT[i]), *NEGATIVE[:, i].astype(float)]
        nce += (row[0] - np.log(sum(np.exp(row)))) / 7
    assert bounds.infonce(JOINT, NEGATIVE) == pytest.approx(nce + np.log(6), rel=1e-5)


def test_infonce_ends_at_its_ceiling_and_others_do_not():
    far = jnp.full(7, 80.0)
    assert bounds.infonce(far, jnp.zeros((5, 7))) == pytest.approx(np.log(6), rel=1e-6)
    assert bounds.donsker_varadhan(far, jnp.zeros((5, 7))) == pytest.approx(80.0)


def test_smile_has_the_gradient_of_jensen_shannon():
    joint, negative = jnp.array(JOINT), jnp.array(NEGATIVE)
    value, (to_joint, to_negative) = jax.value_and_grad(bounds.smile_objective, argnums=(0, 1))(joint, negative, 1.0)
    assert value == pytest.approx(float(bounds.smile(joint, negative, 1.0)), rel=1e-5)
    np.testing.assert_allclose(to_joint, 1 / (1 + np.exp(JOINT)) / 7, rtol=1e-4)
    np.testing.assert_allclose(to_negative, -1 / (1 + np.exp(-NEGATIVE)) / 35, rtol=1e-4)


def test_mine_has_the_written_gradient_and_average():
    joint, negative = jnp.array(JOINT), jnp.array(NEGATIVE)
    before = 0.3
    objective = lambda j, n: bounds.mine_objective(j, n, jnp.float32(np.log(before)), 0.9)  # noqa: E731
    (value, log_average), (to_joint, to_negative) = jax.value_and_grad(objective, (0, 1), has_aux=True)(joint, negative)
    average = 0.9 * before + 0.1 * loop_mean_exp(NEGATIVE)
    assert value == pytest.approx(float(bounds.donsker_varadhan(joint, negative)), rel=1e-5)
    assert np.exp(log_average) == pytest.approx(average, rel=1e-5)
    np.testing.assert_allclose(to_joint, np.full(7, 1 / 7), rtol=1e-5)
    np.testing.assert_allclose(to_negative, -np.exp(NEGATIVE.astype(float)) / average / 35, rtol=1e-4)
    _, first = bounds.mine_objective(joint, negative, jnp.float32(-jnp.inf), 0.9)
    assert np.exp(first) == pytest.approx(loop_mean_exp(NEGATIVE), rel=1e-5)


def known_critic(rho):
    """The exact log-ratio of a bivariate normal distribution, as a critic without parameters."""
    c = 1 - rho**2

    def score(params, x, y):
        return (-0.5 * np.log(c) - (rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (2 * c))[..., 0]

    return Critic(lambda key: {}, lambda params, x: x, lambda params, y: y, score)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_scores_of_shuffled_pairs_equal_loops(clip, monkeypatch):
    monkeypatch.setattr("jaxtraffic.information.negatives.BLOCK", 4)  # more samples than one block holds
    x, y = (a.astype(np.float32) for a in gaussian_pairs(0, 9))
    critic, shifts = known_critic(0.75), [3, 1, 8]
    scores = against_shuffled(critic, {}, Pairs(jnp.array(x), jnp.array(y)), jnp.array(shifts), clip)
    table = np.array([[float(critic.score({}, x[i], y[j])) for j in range(9)] for i in range(9)])
    np.testing.assert_allclose(scores.joint, np.diag(table), rtol=1e-4)
    clipped = table if clip is None else table.clip(-clip, clip)
    weight = np.zeros((9, 9))
    for i in range(9):
        for shift in shifts:
            weight[i, (i + shift) % 9] = np.exp(clipped[i, (i + shift) % 9])
    mean = weight.sum() / 27
    np.testing.assert_allclose(scores.log_mean, np.log(mean), atol=1e-5)
    np.testing.assert_allclose(scores.row_log_sum, np.log(weight.sum(axis=1)), atol=1e-4)
    np.testing.assert_allclose(scores.row_share, weight.sum(axis=1) / 3 / mean, rtol=1e-4)
    np.testing.assert_allclose(scores.column_share, weight.sum(axis=0) / 3 / mean, rtol=1e-4)
    softplus = np.log1p(np.exp(table))[weight > 0].mean()
    np.testing.assert_allclose(scores.jensen_shannon, -np.log1p(np.exp(-np.diag(table))).mean() - softplus, rtol=1e-4)


def test_shifts_are_distinct_and_join_no_pair():
    shifts = np.asarray(shifts_of(jax.random.key(0), 6, 99))
    assert sorted(shifts) == [1, 2, 3, 4, 5]
    assert len(set(np.asarray(shifts_of(jax.random.key(1), 100, 20)))) == 20


@pytest.mark.parametrize("kind", ["concat", "separable"])
def test_critics_score_a_pair_the_same_alone_and_in_a_table(kind):
    critic = make_critic(kind, 3, 2, (16, 8))
    params = critic.init(jax.random.key(0))
    x, y = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(5, 2)).astype(np.float32)
    left, right = critic.left(params, x), critic.right(params, y)
    table = critic.score(params, left[:, None], right[None])
    assert table.shape == (4, 5)
    alone = critic.score(params, critic.left(params, x[2]), critic.right(params, y[3]))
    np.testing.assert_allclose(table[2, 3], alone, rtol=1e-5)
    assert np.std(table) > 0
    with pytest.raises(ConfigError, match="unknown critic"):
        make_critic("best", 3, 2, (16,))
    with pytest.raises(ConfigError, match="at least one layer"):
        make_critic(kind, 3, 2, ())


# One short run each: 6,000 samples, 1,500 steps of a small critic, a rate above the default.
SHORT = {"hidden": (32, 32), "steps": 1500, "learning_rate": 3e-3}
FEW = {"infonce": {"negatives": 15, "test_negatives": 127}}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("nwj", "smile", "infonce")]


@pytest.mark.parametrize("method", ["mine", *SLOW])
def test_gaussian_and_independent_pairs(method):
    options = SHORT | FEW.get(method, {})
    x, y = gaussian_pairs(1, 6000)
    test = gaussian_pairs(2, 4000)
    result = estimate(x, y, method=method, key=jax.random.key(0), test=test, **options)
    sample = -0.5 * np.log(1 - np.corrcoef(test[0][:, 0], test[1][:, 0])[0, 1] ** 2)
    assert result.value == pytest.approx(sample, abs=0.04)
    assert 0.2 * TRUTH / np.sqrt(4000) < result.stderr < 0.03
    assert result.pointwise.shape == (4000,)
    assert result.pointwise.mean() == pytest.approx(result.value, abs=1e-5)
    # Each point's value belongs to it: the log-ratio of the model, in the order of the test samples.
    exact = np.asarray(known_critic(0.75).score({}, *test))
    assert np.corrcoef(exact, result.pointwise)[0, 1] > 0.9
    assert not result.warnings
    apart = estimate(x, y[::-1], method=method, key=jax.random.key(0), test=(test[0], test[1][::-1]), **options)
    assert abs(apart.value) < 0.02


@pytest.mark.slow
def test_labels():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 6000)
    x = rng.normal(size=(6000, 1)) + 50.0 * label[:, None]
    # Standardised, since gaussianising closes the gaps between the classes.
    result = estimate(x, label, method="mine", key=jax.random.key(0), preprocess="standardise", **SHORT)
    assert result.value == pytest.approx(np.log(3), abs=0.03)


def test_standard_error_is_that_of_repeated_test_samples():
    """With a fixed critic all variance comes from the test samples: 300 of them, against the delta method."""
    critic = known_critic(0.75)

    def one(key):
        keys = jax.random.split(key, 3)
        x, noise = jax.random.normal(keys[0], (400, 1)), jax.random.normal(keys[1], (400, 1))
        pairs = Pairs(x, 0.75 * x + np.sqrt(1 - 0.75**2).astype(np.float32) * noise)
        # A critic that is off, so that rows and columns of its scores vary.
        off = critic._replace(score=lambda params, x, y: jnp.float32(1.3) * critic.score(params, x, y))
        scores = against_shuffled(off, {}, pairs, shifts_of(keys[2], 400, 32))
        value, influence, _ = _dv_outcome(MineOptions(), scores)
        return value, influence.std() / 20

    values, stderrs = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), 300))
    assert float(np.asarray(stderrs).mean()) == pytest.approx(float(np.asarray(values).std()), rel=0.15)


def warnings_of(method, options, value, **changes):
    flat = {"validation": np.full(20, value), "on_train": value, "on_test": value, "log_n": 9.0, "log_contrasts": 4.0}
    flat = {name: np.asarray(v, np.float32) for name, v in (flat | changes).items()}
    return " ".join(METHODS[method].warn(options, flat, value))


def test_warnings_say_what_is_doubtful():
    assert warnings_of("mine", MineOptions(), 1.0) == ""
    assert "McAllester" in warnings_of("mine", MineOptions(), 8.0)
    assert "ceiling" in warnings_of("infonce", InfoNCEOptions(), 3.5)
    assert "ceiling" not in warnings_of("infonce", InfoNCEOptions(), 2.5)
    assert "use more steps" in warnings_of("mine", MineOptions(), 1.0, validation=np.linspace(0, 1, 20))
    assert "overfitting" in warnings_of("smile", SmileOptions(), 1.0, on_train=1.5)
    assert "diverged" in warnings_of("mine", MineOptions(), 1.0, validation=np.full(20, np.nan))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("mine", {"decay": 1.0}),
        ("mine", {"negatives": 0}),
        ("smile", {"tau": 0.0}),
        ("nwj", {"steps": 0}),
        ("infonce", {"validation": 1.0}),
    ],
    ids=["decay", "negatives", "tau", "steps", "validation"],
)
def test_options_that_do_not_fit(method, options):
    with pytest.raises(ConfigError):
        estimate(*gaussian_pairs(0, 100), method=method, key=jax.random.key(0), **options)
