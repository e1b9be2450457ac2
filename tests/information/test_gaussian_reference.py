"""The Gaussian reference against plain multivariate-normal algebra in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.information import gaussian_reference as gaussian
from jaxtraffic.information.result import Pairs

_fit = jax.jit(gaussian.fit, static_argnums=(1, 2))


def _covariance(dim_x, dim_y, seed=0):
    root = np.random.default_rng(seed).standard_normal((dim_x + dim_y, dim_x + dim_y + 1))
    return root @ root.T


def _pairs(covariance, dim_x, n=20000, seed=1):
    z = np.random.default_rng(seed).multivariate_normal(np.arange(len(covariance)), covariance, n).astype(np.float32)
    return Pairs(jnp.asarray(z[:, :dim_x]), jnp.asarray(z[:, dim_x:]))


@pytest.mark.parametrize(("dim_x", "dim_y"), [(2, 3), (3, 2), (1, 1)])
def test_canonical_coordinates(dim_x, dim_y):
    pairs = _pairs(_covariance(dim_x, dim_y), dim_x)
    reference = _fit(pairs, 0)
    mapped = reference.apply(pairs)
    found = np.cov(np.concatenate([mapped.x, mapped.y], axis=1), rowvar=False)
    k = min(dim_x, dim_y)
    expected = np.eye(dim_x + dim_y)
    for i in range(k):
        expected[i, dim_x + i] = expected[dim_x + i, i] = np.sqrt(1 - reference.variance[i])
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize(("dim_x", "dim_y"), [(2, 3), (3, 1)])
def test_log_ratio_is_the_information(dim_x, dim_y):
    covariance = _covariance(dim_x, dim_y)
    pairs = _pairs(covariance, dim_x)
    reference = _fit(pairs, 0)
    mapped = reference.apply(pairs)
    ratio = gaussian.log_density(gaussian.x_given_y(reference, mapped.y), mapped.x)
    ratio -= gaussian.log_density(gaussian.marginal(), mapped.x)
    logdet = [
        np.linalg.slogdet(block)[1] for block in (covariance[:dim_x, :dim_x], covariance[dim_x:, dim_x:], covariance)
    ]
    assert ratio.mean() == pytest.approx(0.5 * (logdet[0] + logdet[1] - logdet[2]), abs=0.03)


@pytest.mark.parametrize("variance", [1 - 0.8**2, 4.5e-5])
def test_strong_correlations_keep_their_digits(variance):
    rng = np.random.default_rng(2)
    x, e = rng.standard_normal((2, 100_000, 1)).astype(np.float32)
    y = np.sqrt(1 - variance) * x + np.sqrt(variance) * e
    reference = _fit(Pairs(jnp.asarray(x), jnp.asarray(y)), 0)
    assert reference.variance[0] == pytest.approx(variance, rel=0.02)


def test_shrinks_what_few_samples_claim():
    rng = np.random.default_rng(3)
    pairs = Pairs(*(jnp.asarray(rng.standard_normal((200, 20)), jnp.float32) for _ in range(2)))
    reference = _fit(pairs, 0)
    x, y = (np.asarray(side) for side in reference.apply(pairs))
    raw = np.array([np.corrcoef(x[:, i], y[:, i])[0, 1] ** 2 for i in range(20)])
    np.testing.assert_allclose(np.asarray(reference.variance), np.minimum(1, (1 - raw) * 199 / 159), atol=2e-3)


def test_degenerate_coordinates():
    x = np.random.default_rng(4).standard_normal((500, 2)).astype(np.float32)
    pairs = Pairs(jnp.asarray(np.c_[x, x[:, 0], np.ones(500)].astype(np.float32)), jnp.asarray(x))
    mapped = _fit(pairs, 0).apply(pairs)
    assert np.isfinite(np.asarray(mapped.x)).all() and np.isfinite(np.asarray(mapped.y)).all()
    assert np.abs(np.asarray(mapped.x)).max() < 50


def test_classes():
    rng = np.random.default_rng(5)
    label = rng.choice(3, 30000, p=[0.8, 0.15, 0.05])
    x = (np.array([-1.0, 0.0, 3.0])[label] + 0.3 * rng.standard_normal(30000))[:, None].astype(np.float32)
    pairs = Pairs(jnp.asarray(x), jnp.asarray(label, jnp.int32))
    reference = _fit(pairs, 3)
    mapped = reference.apply(pairs)
    assert np.asarray(mapped.x).std() == pytest.approx(1, abs=1e-3)
    moments = gaussian.x_given_y(reference, jnp.arange(3))
    for k in range(3):
        inside = np.asarray(mapped.x)[label == k]
        # Small classes are drawn towards 0 by the weight of ten samples.
        shrunk = inside.mean() * len(inside) / (len(inside) + gaussian.PRIOR)
        assert moments.mean[k, 0] == pytest.approx(shrunk, abs=1e-3)
        assert moments.variance[k, 0] == pytest.approx(inside.var(), rel=0.15)


def test_posterior_by_conjugacy():
    a, b, mean, variance, at = 0.7, 0.4, -0.5, 0.3, 1.1
    # Precision-weighted mean of the prior and of at / a.
    precision = 1 / variance + a * a / (b * b)
    signal = (mean / variance + a * at / (b * b)) / precision
    column = jnp.full((1, 1), a), jnp.full((1, 1), b)
    found = gaussian.posterior(
        gaussian.Moments(jnp.full((1, 1), mean), jnp.full((1,), variance)), jnp.full((1, 1), at), *column
    )
    assert found.signal[0, 0] == pytest.approx(signal, rel=1e-5)
    assert found.noise[0, 0] == pytest.approx((at - a * signal) / b, rel=1e-5)
    assert b * found.spread[0, 0] == pytest.approx(precision**-0.5, rel=1e-5)
    assert found.innovation[0, 0] == pytest.approx((at - a * mean) / np.sqrt(a * a * variance + b * b), rel=1e-5)


@pytest.mark.parametrize(("dim_x", "dim_y"), [(2, 3), (3, 2)])
def test_joint_posterior_by_matrices(dim_x, dim_y):
    variance = np.array([0.36, 0.9])
    reference = gaussian.Reference(
        jnp.zeros(dim_x), jnp.eye(dim_x), jnp.zeros(dim_y), jnp.eye(dim_y), jnp.asarray(variance, jnp.float32)
    )
    joint = np.eye(dim_x + dim_y)
    for i in range(2):
        joint[i, dim_x + i] = joint[dim_x + i, i] = np.sqrt(1 - variance[i])
    m, s = np.cos(0.4), np.sin(0.4)
    inverse = np.linalg.inv(m * m * joint + s * s * np.eye(len(joint)))
    at = np.random.default_rng(6).standard_normal((7, dim_x + dim_y))
    column = (jnp.full((7, 1), value, jnp.float32) for value in (m, s))
    at32 = jnp.asarray(at, jnp.float32)
    mean, spread = gaussian.joint_posterior(reference, at32[:, :dim_x], at32[:, dim_x:], *column)
    np.testing.assert_allclose(mean, s * at @ inverse, atol=1e-5)
    np.testing.assert_allclose(spread[0], np.sqrt(np.diag(np.eye(len(joint)) - s * s * inverse)), atol=1e-5)
