import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.frechet import frechet, frechet_distance, frechet_of, latent_classifier
from jaxtraffic.series import from_signed_size


def covariance(rng, n, rank=None):
    root = rng.normal(size=(n, rank or n))
    return root @ root.T


def reference(mean, cov, other_mean, other_cov):
    """The textbook form by SciPy's matrix root."""
    root = scipy.linalg.sqrtm(cov)
    middle = scipy.linalg.sqrtm(root @ other_cov @ root)
    return np.sum((mean - other_mean) ** 2) + np.trace(cov + other_cov - 2 * middle.real)


def test_commuting_gaussians_have_a_closed_form():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    a, b, m, k = rng.uniform(0.1, 9, (4, 5))
    got = frechet_distance(m, (turn * a) @ turn.T, k, (turn * b) @ turn.T)
    assert got == pytest.approx(np.sum((m - k) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-12)
    # One feature: (2 - 5)^2 + (3 - 1)^2.
    assert frechet_distance([2.0], [[9.0]], [5.0], [[1.0]]) == pytest.approx(13.0, rel=1e-12)


def test_any_gaussians_agree_with_scipy_and_with_each_other():
    rng = np.random.default_rng(1)
    pair = [(rng.normal(size=6), covariance(rng, 6)) for _ in range(2)]
    got = frechet_distance(*pair[0], *pair[1])
    assert got == pytest.approx(reference(*pair[0], *pair[1]), rel=1e-9)
    assert got == pytest.approx(frechet_distance(*pair[1], *pair[0]), rel=1e-12)
    assert got > np.sum((pair[0][0] - pair[1][0]) ** 2)


def test_singular_covariances_are_exact():
    """Rank one against rank one: tr (C^1/2 C' C^1/2)^1/2 is |u . v|."""
    rng = np.random.default_rng(2)
    u, v, zero = rng.normal(size=8), rng.normal(size=8), np.zeros(8)
    got = frechet_distance(zero, np.outer(u, u), zero, np.outer(v, v))
    assert got == pytest.approx(u @ u + v @ v - 2 * abs(u @ v), rel=1e-9)
    full = covariance(rng, 8)
    assert frechet_distance(zero, np.zeros((8, 8)), zero, full) == pytest.approx(np.trace(full), rel=1e-12)
    assert frechet_distance(zero, np.zeros((8, 8)), zero, np.zeros((8, 8))) == 0
    low = covariance(rng, 8, rank=3)
    assert frechet_distance(zero, low, zero, low) < 1e-12 * np.trace(low)


def test_samples_are_taken_by_mean_and_unbiased_covariance():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(40, 4)) * [1, 2, 3, 0], rng.normal(1, 2, (25, 4))
    moments = [(rows.mean(axis=0), (rows - rows.mean(axis=0)).T @ (rows - rows.mean(axis=0))) for rows in (a, b)]
    expected = frechet_distance(moments[0][0], moments[0][1] / 39, moments[1][0], moments[1][1] / 24)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-10)
    assert frechet(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet(a, a + [0, 0, 0, 3]) == pytest.approx(9, rel=1e-9)
    one = rng.normal(size=(9, 1))
    assert frechet(one, 3 * one) == pytest.approx(4 * (one.mean() ** 2 + one.var(ddof=1)), rel=1e-9)


def test_fewer_rows_than_features_are_no_obstacle():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(5, 30)), rng.normal(size=(6, 30))
    # In the basis of the rows, where SciPy's root meets no singular matrix.
    moments = [(rows.mean(axis=0), np.cov(rows, rowvar=False)) for rows in (a, b)]
    roots = [(rows - rows.mean(axis=0)).T / math.sqrt(len(rows) - 1) for rows in (a, b)]
    shared = np.linalg.svd(roots[0].T @ roots[1], compute_uv=False).sum()
    expected = np.sum((moments[0][0] - moments[1][0]) ** 2) + sum(np.trace(c) for _, c in moments) - 2 * shared
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)


def make(n, shift=0, seed=0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    signed = rng.integers(40, 300, (n, 6)) + 350 * label[:, None] + shift
    return from_signed_size(signed, label, class_names=["a", "b", "c"])


def test_flows_are_compared_in_the_latent_space():
    class Doubled:
        def latent(self, flows):
            return 2.0 * np.asarray(flows.signed_size)

    real, other = make(30), make(20, shift=10, seed=1)
    figures, curves = frechet_of(Doubled(), real, other)
    assert figures == {"frechet": frechet(2 * real.signed_size, 2 * other.signed_size)} and curves == {}


def test_the_classifier_tells_a_shifted_set_from_fresh_flows():
    train, validation = make(60), make(30, seed=1)
    classifier = latent_classifier(train, validation, seed=0, model="mlp", width=8)
    assert np.mean(classifier.predict(validation) == validation.label) > 0.9
    assert classifier.latent(validation).shape == (30, 4)
    fresh, shifted = (frechet_of(classifier, train, make(60, shift, seed=2))[0]["frechet"] for shift in (0, 80))
    assert 0 < 3 * fresh < shifted


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet(np.zeros((1, 3)), np.zeros((4, 3))), "two rows"),
        (lambda: frechet(np.zeros((3, 3)), np.zeros((4, 2))), "columns"),
        (lambda: frechet(np.full((3, 3), np.nan), np.zeros((4, 3))), "NaN"),
        (lambda: frechet_distance([0.0], [[np.inf]], [0.0], [[1.0]]), "NaN or infinity"),
        (lambda: frechet_distance([0.0], [[-1.0]], [0.0], [[1.0]]), "negative eigenvalues"),
        (lambda: frechet_distance([0, 0], [[1, 2], [0, 1]], [0, 0], np.eye(2)), "symmetric"),
        (lambda: frechet_distance([0, 0], np.eye(2), [0], [[1]]), "of one size"),
        (lambda: frechet_of(SimpleNamespace(latent=lambda flows: np.zeros((1, 2))), None, None), "two rows"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
