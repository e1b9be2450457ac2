"""Draws of the tasks, against the distributions that their definitions name."""

import functools

import jax
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import stats

from jaxtraffic.errors import ConfigError
from jaxtraffic.information.tasks import HIGH_MI, PANEL, TASKS, task_named, transforms

N = 20_000
SWEEP = ["2-pair-3-3-mi-5", "spiral-2-pair-3-3-mi-5", "2-pair-3-3-mi-10", "2-pair-3-3-mi-0"]
NORMAL = [name for name in TASKS if name.startswith(("1v1-normal", "multinormal"))] + SWEEP
NORMAL.remove("spiral-2-pair-3-3-mi-5")
STUDENT = [name for name in TASKS if name.startswith("student")]
CHANGED = [name for name, task in TASKS.items() if task.base] + ["spiral-2-pair-3-3-mi-5"]


@functools.lru_cache(maxsize=100)
def points(name, seed=1):
    """Drawn operation by operation, which compiles less; `sample` is held to it below."""
    x, y = task_named(name).draw(jax.random.key(seed), N)
    return np.asarray(x), np.asarray(y)


def close_law(values, cdf):
    assert stats.kstest(values, cdf).pvalue > 1e-3


PANEL_NAMES = [task.name for task in PANEL]
OTHERS = [name for name in (*TASKS, *SWEEP) if name not in PANEL_NAMES]


@pytest.mark.parametrize("name", [*PANEL_NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_shape_type_and_finite(name):
    task, (x, y) = task_named(name), points(name)
    assert x.shape == (N, task.dim_x) and y.shape == (N, task.dim_y)
    assert x.dtype == y.dtype == np.float32
    assert np.isfinite(x).all() and np.isfinite(y).all()


@pytest.mark.parametrize("name", [*TASKS, *SWEEP])
def test_mean_density_ratio_is_the_truth(name):
    task = task_named(name)
    ratio = task.pointwise(*points(name))
    assert ratio.shape == (N,) and np.isfinite(ratio).all()
    if task.mutual_information == 0:
        assert not ratio.any()
        return
    assert abs(ratio.mean() - task.mutual_information) < 4 * ratio.std() / N**0.5
    # p(x) p(y) / p(x, y) integrates to 1 over the support of the joint density; the deviations are heavy where the
    # information is large.
    if task.mutual_information < 0.5 and task.family != "uniform":
        inverse = np.exp(-ratio)
        assert abs(inverse.mean() - 1) < 5 * inverse.std() / N**0.5


def test_density_ratios_against_scipy():
    x, y = (values[:500].astype(np.float64) for values in points("multinormal-dense-5-5-0.5"))
    covariance = np.full((10, 10), 0.5) + 0.5 * np.eye(10)
    law = functools.partial(stats.multivariate_normal.logpdf, mean=None)
    expected = law(np.hstack([x, y]), cov=covariance) - law(x, cov=covariance[:5, :5]) - law(y, cov=covariance[:5, :5])
    np.testing.assert_allclose(TASKS["multinormal-dense-5-5-0.5"].pointwise(x, y), expected, atol=1e-9)
    x, y = (values[:500].astype(np.float64) for values in points("student-identity-3-3-2"))
    law = stats.multivariate_t.logpdf
    expected = law(np.hstack([x, y]), shape=np.eye(6), df=2) - law(x, shape=np.eye(3), df=2)
    expected -= law(y, shape=np.eye(3), df=2)
    np.testing.assert_allclose(TASKS["student-identity-3-3-2"].pointwise(x, y), expected, atol=1e-9)


def test_density_ratio_of_additive_noise():
    ratio = TASKS["1v1-additive-0.1"].pointwise
    x = np.array([[0.5], [0.5], [0.02], [0.97]])
    y = np.array([[0.45], [0.65], [-0.05], [1.0]])
    # Noise of +-0.1: density 5 given x; y has density 1 inside, 5 * 0.05 and 5 * 0.1 near the edges; 0.65 is too far.
    np.testing.assert_allclose(ratio(x, y), [np.log(5), -np.inf, np.log(20), np.log(10)], atol=1e-6)


@pytest.mark.parametrize("name", NORMAL)
def test_normal_covariance(name):
    x, y = points(name)
    dim, values = x.shape[1], np.hstack([x, y]).astype(np.float64)
    covariance = np.eye(2 * dim)
    if "dense" in name:
        covariance = 0.5 + 0.5 * covariance
    elif "1v1" in name:
        covariance[0, 1] = covariance[1, 0] = 0.75
    else:
        r = 0.8 if "sparse" in name else np.sqrt(1 - np.exp(-float(name.split("-")[-1])))
        for i in range(2):
            covariance[i, dim + i] = covariance[dim + i, i] = r
    assert np.abs(values.mean(axis=0)).max() < 4.5 / N**0.5
    # The standard error of a sample covariance of unit normal variables is sqrt((1 + r^2) / n).
    deviation = (np.cov(values.T) - covariance) / np.sqrt((1 + covariance**2) / N)
    assert np.abs(deviation).max() < 5
    for column in values.T[:: max(1, dim // 3)]:
        close_law(column, stats.norm.cdf)


@pytest.mark.parametrize("mi", [5, 10])
def test_noise_of_strong_correlation_survives_float32(mi):
    x, y = (values.astype(np.float64) for values in points(f"2-pair-3-3-mi-{mi}"))
    r = np.sqrt(-np.expm1(-mi))
    for i in range(2):
        close_law((y[:, i] - r * x[:, i]) / np.exp(-mi / 2), stats.norm.cdf)


@pytest.mark.parametrize("name", STUDENT)
def test_student_marginals_radius_and_tails(name):
    x, y = points(name)
    dim, dof = x.shape[1], int(name.split("-")[-1])
    values = np.hstack([x, y]).astype(np.float64)
    for column in values.T:
        close_law(column, stats.t(dof).cdf)
    # All coordinates share one scale: the mean square is F-distributed with 2 dim and dof degrees of freedom.
    close_law((values**2).mean(axis=1), stats.f(2 * dim, dof).cdf)
    # Signs are independent although magnitudes are not.
    signs = np.sign(values)
    assert np.abs(np.corrcoef(signs.T) - np.eye(2 * dim)).max() < 5 / N**0.5
    # How many lie in each tail, to five standard deviations of the count.
    for share in (0.01, 0.001, 0.0002):
        far = stats.t(dof).isf(share)
        count = [(values > far).sum(), (values < -far).sum()]
        # Coordinates of a point go there together, which widens the count by at most their number.
        width = np.sqrt(2 * dim * share * N * 2 * dim)
        np.testing.assert_allclose(count, 2 * dim * share * N, atol=5 * width)


def test_extremes_of_one_degree_of_freedom():
    x = np.concatenate([np.hstack(points("student-identity-1-1-1", seed)).ravel() for seed in range(1, 11)])
    magnitude = np.sort(np.abs(x.astype(np.float64)))
    # 400 000 numbers, two by two on one scale: the largest is of the order of their number, and draws beyond a value
    # are rare events, which come at most in twos.
    assert 1e-4 < stats.cauchy.sf(magnitude[-1]) * 2 * len(x) < 12
    for far in (1e3, 1e4, 1e5):
        expected = 2 * stats.cauchy.sf(far) * len(x)
        assert abs((magnitude > far).sum() - expected) < 5 * (2 * expected) ** 0.5


MIXTURES = ((0.3, 0.0, 5.0), (0.5, -1.0, 3.0))


def test_marginals_of_changed_tasks():
    for name in TASKS:
        x, y = (values.astype(np.float64) for values in points(name))
        for i, values in enumerate((x, y)):
            if name.startswith("normal_cdf"):
                close_law(values[:, -1], stats.uniform.cdf)
                assert values.min() > 0 and values.max() < 1
            elif name.startswith("half_cube"):
                close_law(values[:, -1], lambda w: stats.norm.cdf(np.cbrt(w * np.abs(w))))
            elif name.startswith("asinh"):
                dof = int(name.split("-")[-1])
                close_law(values[:, -1], lambda w, dof=dof: stats.t(dof).cdf(np.sinh(w)))
            elif name == "1v1-bimodal-0.75":
                w, a, b = MIXTURES[i]
                close_law(
                    values[:, 0], lambda v, w=w, a=a, b=b: w * stats.norm.cdf(v - a) + (1 - w) * stats.norm.cdf(v - b)
                )
            elif name.startswith("spiral-multinormal"):
                close_law((values**2).sum(axis=1), stats.chi2(values.shape[1]).cdf)
                close_law(values[:, -1] if i == 0 else values[:, 0], stats.norm.cdf)


def test_additive_noise_marginals():
    for epsilon in (0.1, 0.75):
        x, y = (values[:, 0].astype(np.float64) for values in points(f"1v1-additive-{epsilon}"))
        close_law(x, stats.uniform.cdf)
        close_law(y - x, stats.uniform(-epsilon, 2 * epsilon).cdf)
        assert abs(np.corrcoef(x, y - x)[0, 1]) < 4.5 / N**0.5


def test_swiss_roll_lies_on_the_curve():
    x, y = points("swissroll_x-normal_cdf-1v1-normal-0.75")
    u, y_before = points("normal_cdf-1v1-normal-0.75")
    t = 1.5 * np.pi * (1 + 2 * u[:, 0].astype(np.float64))
    np.testing.assert_allclose(x, np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / 21, atol=1e-6)
    np.testing.assert_array_equal(y, y_before)


def wiggle(x, *terms):
    return x + sum(a * np.sin(f * x + p) for a, f, p in terms)


def test_elementwise_changes_against_float64():
    x, y = (values.astype(np.float64) for values in points("1v1-normal-0.75"))
    wx, wy = points("wiggly-1v1-normal-0.75")
    np.testing.assert_allclose(wx, wiggle(x, (0.4, 1, 0), (0.2, 1.7, 1), (0.03, 3.3, -2.5)), atol=1e-6)
    np.testing.assert_allclose(wy, wiggle(y, (-0.4, 0.4, 0), (0.17, 1.3, 3.5), (0.02, 4.3, -2.5)), atol=1e-6)
    hx, _ = points("half_cube-1v1-normal-0.75")
    np.testing.assert_allclose(hx, np.sign(x) * np.abs(x) ** 1.5, rtol=1e-6)
    nx, _ = points("normal_cdf-1v1-normal-0.75")
    np.testing.assert_allclose(nx, stats.norm.cdf(x), atol=2e-7)
    s, _ = points("student-identity-2-2-1")
    sx, _ = points("asinh-student-identity-2-2-1")
    np.testing.assert_allclose(sx, np.arcsinh(s.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("i", [0, 1], ids=["x", "y"])
def test_bimodal_quantiles(i):
    change = transforms.bimodal()[2 + i]
    z = np.linspace(-6, 6, 4001).astype(np.float32)
    values = np.asarray(jax.jit(change.forward)(z)).astype(np.float64)
    w, a, b = MIXTURES[i]
    below = w * stats.norm.cdf(values - a) + (1 - w) * stats.norm.cdf(values - b)
    above = w * stats.norm.sf(values - a) + (1 - w) * stats.norm.sf(values - b)
    # In units of the value: the error of the probability over the density there.
    density = w * stats.norm.pdf(values - a) + (1 - w) * stats.norm.pdf(values - b)
    error = np.where(z < 0, below - stats.norm.cdf(z), stats.norm.sf(z) - above) / density
    assert np.abs(error).max() < 1e-5
    # Between all pairs of neighbours, and on beyond the table.
    assert (np.diff(values) > 0).all()
    far = np.asarray(change.forward(np.array([-9, -8, 8, 9], np.float32)))
    assert (np.diff(far) > 0.5).all()


@pytest.mark.parametrize("speed", [1.0, 1 / 3])
@pytest.mark.parametrize("dim", [3, 5, 25])
def test_spiral_is_the_matrix_exponential(dim, speed):
    points = np.random.default_rng(dim).standard_normal((50, dim)).astype(np.float32)
    for change, (i, j) in zip(transforms.spiral(speed)[2:], ((0, 1), (1, 2)), strict=True):
        generator = np.zeros((dim, dim))
        generator[i, j], generator[j, i] = -1, 1
        turned = [scipy.linalg.expm(generator * speed / dim * (p @ p)) @ p for p in points.astype(np.float64)]
        np.testing.assert_allclose(change.forward(points), turned, atol=5e-6)


@pytest.mark.parametrize(
    ("name", "speed"), [("spiral-2-pair-3-3-mi-5", 1 / 9), ("spiral-multinormal-sparse-3-3-2-2.0", 1 / 3)]
)
def test_spirals_turn_at_their_speed(name, speed):
    before, after = points(task_named(name).base.name), points(name)
    for side, i in ((0, 0), (1, 1)):
        old, new = before[side].astype(np.float64), after[side].astype(np.float64)
        turned = np.exp(1j * speed * (old**2).sum(axis=1)) * (old[:, i] + 1j * old[:, i + 1])
        np.testing.assert_allclose(new[:, i] + 1j * new[:, i + 1], turned, atol=2e-5)


@pytest.mark.parametrize("name", CHANGED)
def test_changed_task_is_the_change_of_its_base(name):
    task = task_named(name)
    change, before, after = task.changes[-1], points(task.base.name), points(name)
    if name == "1v1-bimodal-0.75":
        assert task.base.name == "1v1-normal-0.75"
    else:
        assert name == f"{change.name}-{task.base.name}"
    for side, old, new in zip((change.x, change.y), before, after, strict=True):
        np.testing.assert_array_equal(np.asarray(side.forward(old)), new)
        back = side.inverse(new.astype(np.float64))
        if change.name == "normal_cdf":
            # Near 1 a step of float32 is many of x; compare as probabilities.
            back, old = stats.norm.cdf(back), stats.norm.cdf(old)
        np.testing.assert_allclose(back, old, rtol=5e-6, atol=5e-6)


def test_normal_cdf_stays_inside():
    change = transforms.normal_cdf().x
    u = np.asarray(change.forward(np.array([-5, 5, 6, 8], np.float32)))
    assert (u > 0).all() and (u < 1).all()
    assert np.isfinite(change.inverse(np.array([0.0, 1.0, 1.01, -0.01]))).all()


@pytest.mark.parametrize("name", ["asinh-student-identity-2-2-1", "swissroll_x-normal_cdf-1v1-normal-0.75"])
def test_sample_is_draw_compiled_and_deterministic(name):
    task = task_named(name)
    x, y = task.sample(jax.random.key(1), N)
    assert isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
    expected = points(name)
    # Fused multiplications may round otherwise.
    np.testing.assert_allclose(x, expected[0], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(y, expected[1], rtol=2e-5, atol=2e-5)
    again, _ = task.sample(jax.random.key(1), N)
    np.testing.assert_array_equal(again, x)
    other, _ = task.sample(jax.random.key(2), N)
    assert np.mean(other == x) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TASKS, *HIGH_MI])
def test_every_sample_is_draw_compiled(name):
    test_sample_is_draw_compiled_and_deterministic(name)


@pytest.mark.parametrize(
    "name",
    [
        "1v1-bimodal-0.75",
        "spiral-2-pair-3-3-mi-5",
        # Gamma variables take seconds to compile.
        pytest.param("student-identity-2-2-1", marks=pytest.mark.slow),
    ],
)
def test_vmap_over_keys_on_eight_devices_is_a_loop(name):
    task, n = task_named(name), 300
    keys = jax.random.split(jax.random.key(7), 8)
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    sharded = jax.device_put(keys, NamedSharding(mesh, PartitionSpec("data")))
    x, y = jax.jit(jax.vmap(lambda key: task.draw(key, n)))(sharded)
    loop = [task.sample(key, n) for key in keys]
    np.testing.assert_allclose(x, np.stack([one for one, _ in loop]), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(y, np.stack([one for _, one in loop]), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("key", [0, jax.random.PRNGKey(0), "split"], ids=["int", "raw", "several"])
def test_other_keys_are_refused(key):
    key = jax.random.split(jax.random.key(0), 2) if isinstance(key, str) else key
    with pytest.raises(ConfigError, match="typed key"):
        TASKS["1v1-normal-0.75"].sample(key, 10)


def test_other_shapes_are_refused():
    task = TASKS["multinormal-dense-3-3-0.5"]
    with pytest.raises(ConfigError, match="number of pairs"):
        task.sample(jax.random.key(0), 0)
    with pytest.raises(ConfigError, match=r"y \[n, 3\]"):
        task.pointwise(np.zeros((4, 3)), np.zeros((4, 2)))
    with pytest.raises(ConfigError, match=r"x \[n, 3\]"):
        task.pointwise(np.zeros((4, 3)), np.zeros((5, 3)))
