"""True mutual information of the tasks, against the published table and by other routes than the closed forms."""

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from jaxtraffic.errors import ConfigError
from jaxtraffic.information.tasks import GRID, HIGH_MI, PAIRS, PANEL, TASKS, distributions, high_mi_task, task_named

BASE = 0.413339
TWO_PAIRS = 1.021651
# In the order of the bmi package 0.1.3: dimensions of X and Y, and mutual information in nats.
TABLE = {
    "1v1-normal-0.75": (1, 1, BASE),
    "normal_cdf-1v1-normal-0.75": (1, 1, BASE),
    "1v1-additive-0.1": (1, 1, 1.709438),
    "1v1-additive-0.75": (1, 1, 0.333333),
    "1v1-bimodal-0.75": (1, 1, BASE),
    "wiggly-1v1-normal-0.75": (1, 1, BASE),
    "half_cube-1v1-normal-0.75": (1, 1, BASE),
    "student-identity-1-1-1": (1, 1, 0.224171),
    "asinh-student-identity-1-1-1": (1, 1, 0.224171),
    "swissroll_x-normal_cdf-1v1-normal-0.75": (2, 1, BASE),
    "multinormal-dense-2-2-0.5": (2, 2, 0.293893),
    "multinormal-dense-3-3-0.5": (3, 3, 0.413339),
    "multinormal-dense-5-5-0.5": (5, 5, 0.592812),
    "multinormal-dense-25-25-0.5": (25, 25, 1.292184),
    "multinormal-dense-50-50-0.5": (50, 50, 1.624265),
    "multinormal-sparse-2-2-2-2.0": (2, 2, TWO_PAIRS),
    "multinormal-sparse-3-3-2-2.0": (3, 3, TWO_PAIRS),
    "multinormal-sparse-5-5-2-2.0": (5, 5, TWO_PAIRS),
    "multinormal-sparse-25-25-2-2.0": (25, 25, TWO_PAIRS),
    "student-identity-2-2-1": (2, 2, 0.431946),
    "student-identity-2-2-2": (2, 2, 0.193147),
    "student-identity-3-3-2": (3, 3, 0.290922),
    "student-identity-3-3-3": (3, 3, 0.178712),
    "student-identity-5-5-2": (5, 5, 0.448151),
    "student-identity-5-5-3": (5, 5, 0.298544),
    "normal_cdf-multinormal-sparse-3-3-2-2.0": (3, 3, TWO_PAIRS),
    "normal_cdf-multinormal-sparse-5-5-2-2.0": (5, 5, TWO_PAIRS),
    "normal_cdf-multinormal-sparse-25-25-2-2.0": (25, 25, TWO_PAIRS),
    "half_cube-multinormal-sparse-3-3-2-2.0": (3, 3, TWO_PAIRS),
    "half_cube-multinormal-sparse-5-5-2-2.0": (5, 5, TWO_PAIRS),
    "half_cube-multinormal-sparse-25-25-2-2.0": (25, 25, TWO_PAIRS),
    "spiral-multinormal-sparse-3-3-2-2.0": (3, 3, TWO_PAIRS),
    "spiral-multinormal-sparse-5-5-2-2.0": (5, 5, TWO_PAIRS),
    "spiral-multinormal-sparse-25-25-2-2.0": (25, 25, TWO_PAIRS),
    "spiral-normal_cdf-multinormal-sparse-3-3-2-2.0": (3, 3, TWO_PAIRS),
    "spiral-normal_cdf-multinormal-sparse-5-5-2-2.0": (5, 5, TWO_PAIRS),
    "spiral-normal_cdf-multinormal-sparse-25-25-2-2.0": (25, 25, TWO_PAIRS),
    "asinh-student-identity-2-2-1": (2, 2, 0.431946),
    "asinh-student-identity-3-3-2": (3, 3, 0.290922),
    "asinh-student-identity-5-5-2": (5, 5, 0.448151),
}


def test_the_forty_names_in_order():
    assert list(TASKS) == list(TABLE) and len(TABLE) == 40
    assert all(task.name == name for name, task in TASKS.items())
    assert len({task.title for task in TASKS.values()}) == 40


@pytest.mark.parametrize("name", TABLE)
def test_truth_is_the_published_one(name):
    task = TASKS[name]
    dim_x, dim_y, information = TABLE[name]
    assert (task.dim_x, task.dim_y) == (dim_x, dim_y)
    assert isinstance(task.mutual_information, float)
    assert task.mutual_information == pytest.approx(information, abs=1e-6)


def from_entropies(covariance, dim):
    """(ln det X + ln det Y - ln det both) / 2 of a covariance."""
    log_det = [np.linalg.slogdet(c)[1] for c in (covariance[:dim, :dim], covariance[dim:, dim:], covariance)]
    return (log_det[0] + log_det[1] - log_det[2]) / 2


@pytest.mark.parametrize("dim", [2, 3, 5, 25, 50])
def test_dense_normal_against_determinants(dim):
    covariance = np.full((2 * dim, 2 * dim), 0.5)
    np.fill_diagonal(covariance, 1)
    truth = TASKS[f"multinormal-dense-{dim}-{dim}-0.5"].mutual_information
    assert truth == pytest.approx(from_entropies(covariance, dim), abs=1e-9)


@pytest.mark.parametrize("dim", [2, 3, 5, 25])
def test_sparse_normal_against_determinants_of_the_latent_model(dim):
    # Strength 2: a pair shares a latent variable of weight 2, every other coordinate has one of its own, all add noise
    # of weight 1.
    covariance = 5 * np.eye(2 * dim)
    for i in range(2):
        covariance[i, dim + i] = covariance[dim + i, i] = 4
    truth = TASKS[f"multinormal-sparse-{dim}-{dim}-2-2.0"].mutual_information
    assert truth == pytest.approx(from_entropies(covariance, dim), abs=1e-9)


def test_bivariate_normal_by_quadrature():
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z, e = np.meshgrid(nodes, nodes)
    x, y = z, 0.75 * z + math.sqrt(1 - 0.75**2) * e
    joint = stats.multivariate_normal([0, 0], [[1, 0.75], [0.75, 1]]).logpdf(np.stack([x, y], axis=-1))
    ratio = joint - stats.norm.logpdf(x) - stats.norm.logpdf(y)
    value = (ratio * np.outer(weights, weights)).sum() / weights.sum() ** 2
    assert TASKS["1v1-normal-0.75"].mutual_information == pytest.approx(value, abs=1e-9)


def student_entropy(k, dof):
    """Entropy of k coordinates by an integral over the radius of scipy's density."""
    law = stats.multivariate_t(np.zeros(k), np.eye(k), df=dof)
    surface = 2 * math.pi ** (k / 2) / special.gamma(k / 2)

    def integrand(log_radius):
        radius = math.exp(log_radius)
        log_density = law.logpdf(np.eye(k)[0] * radius)
        return -log_density * math.exp(log_density + k * log_radius) * surface

    return integrate.quad(integrand, -25, 45, limit=400, points=[0, 2, 5])[0]


@pytest.mark.parametrize(("dim", "dof"), [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3)])
def test_student_by_quadrature(dim, dof):
    value = 2 * student_entropy(dim, dof) - student_entropy(2 * dim, dof)
    assert TASKS[f"student-identity-{dim}-{dim}-{dof}"].mutual_information == pytest.approx(value, abs=1e-6)


def test_bivariate_cauchy_by_hand():
    assert TASKS["student-identity-1-1-1"].mutual_information == pytest.approx(math.log(8 * math.pi) - 3, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.1, 0.4, 0.75, 2.0])
def test_additive_uniform_by_quadrature(epsilon):
    def density(y):
        return (min(1.0, y + epsilon) - max(0.0, y - epsilon)) / (2 * epsilon)

    corners = sorted({epsilon, 1 - epsilon})
    entropy = integrate.quad(
        lambda y: -special.xlogy(density(y), density(y)), -epsilon, 1 + epsilon, points=corners, epsabs=1e-10
    )[0]
    value = entropy - math.log(2 * epsilon)
    assert distributions.additive_uniform(epsilon).mutual_information == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize(
    ("mi", "correlation"), [(2, 0.929873), (3, 0.974789), (5, 0.996625), (8, 0.999832), (10, 0.999977)]
)
def test_high_information_sweep(mi, correlation):
    task = HIGH_MI[f"2-pair-3-3-mi-{mi}"]
    assert task.mutual_information == pytest.approx(mi, abs=1e-9)
    covariance = np.eye(6)
    for i in range(2):
        covariance[i, 3 + i] = covariance[3 + i, i] = correlation
    # The published correlations have six digits.
    assert from_entropies(covariance, 3) == pytest.approx(mi, abs=2e-2)
    spiral = HIGH_MI[f"spiral-2-pair-3-3-mi-{mi}"]
    assert spiral.base is task and spiral.mutual_information == task.mutual_information


def test_sweeps_are_apart_from_the_forty():
    assert not (set(HIGH_MI) | set(GRID)) & set(TASKS)
    assert [task.mutual_information for task in GRID.values()][:8] == pytest.approx([0, 0.5, 1, 1.5, 2, 3, 4, 5])
    assert GRID["2-pair-3-3-mi-5"] is HIGH_MI["2-pair-3-3-mi-5"]


def test_panel_and_pairs():
    truths = [0.413339, 0.413339, 1.709438, 0.413339, 0.431946, 0.448151, 1.021651, 1.021651, 1.624265, 5]
    assert [task.mutual_information for task in PANEL] == pytest.approx(truths, abs=1e-6)
    assert len(PAIRS) == sum(task.base is not None for task in TASKS.values()) == 21
    for pair in PAIRS:
        assert pair.base is TASKS[pair.base.name] and pair.changed is TASKS[pair.changed.name]
        assert pair.changed.transforms[:-1] == pair.base.transforms


def test_tasks_are_found_by_name():
    assert task_named("1v1-bimodal-0.75") is TASKS["1v1-bimodal-0.75"]
    assert task_named("2-pair-3-3-mi-5") is high_mi_task(5) is PANEL[-1]
    assert task_named("spiral-2-pair-3-3-mi-0.25").mutual_information == pytest.approx(0.25)
    assert task_named("spiral-2-pair-3-3-mi-0.25").name == "spiral-2-pair-3-3-mi-0.25"
    assert TASKS["spiral-normal_cdf-multinormal-sparse-3-3-2-2.0"].transforms == ("normal_cdf", "spiral")


@pytest.mark.parametrize("name", ["2-pair-3-3-mi-", "2-pair-3-3-mi-x", "normal", "2-pair-3-3-mi-16"])
def test_unknown_tasks_are_named(name):
    with pytest.raises(ConfigError, match="unknown task.*1v1-normal-0.75|from 0 to 15"):
        task_named(name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: distributions.sparse_normal(2, 2, 1.0, 1),
        lambda: distributions.sparse_normal(2, 3, 0.5, 3),
        lambda: distributions.dense_normal(2, 2, 1.0),
        lambda: distributions.student(1, 1, 0),
        lambda: distributions.additive_uniform(0.0),
        lambda: high_mi_task(-1),
        lambda: high_mi_task(math.nan),
    ],
)
def test_impossible_parameters_are_refused(make):
    with pytest.raises(ConfigError):
        make()
