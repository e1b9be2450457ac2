"""Joint distributions of (X, Y) with mutual information and density ratio in closed form.

Draws are float32 on device, truths and density ratios float64 in NumPy. Source: Czyz, Grabowski, Vogt, Beerenwinkel and
Marx, Beyond Normal: On the Evaluation of Mutual Information Estimators, NeurIPS 2023 (arXiv 2306.11078), and the bmi
package (cbg-ethz/bmi), whose tasks these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import digamma, gammaln

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError


class Distribution(NamedTuple):
    """A joint distribution of X and Y.

    Attributes:
        family: "normal", "student" or "uniform".
        dim_x: coordinates of X.
        dim_y: coordinates of Y.
        mutual_information: nats.
        draw: (key, n) -> x [n, dim_x], y [n, dim_y] float32; pure, with n static.
        pointwise: (x [n, dim_x], y [n, dim_y], float64 NumPy) -> [n] nats, log p(x, y) - log p(x) - log p(y).
    """

    family: str
    dim_x: int
    dim_y: int
    mutual_information: float
    draw: Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]
    pointwise: Callable[[np.ndarray, np.ndarray], np.ndarray]


def sparse_normal(dim_x: int, dim_y: int, correlation: float, pairs: int) -> Distribution:
    """Standard normal coordinates; the first `pairs` of X and of Y correlate one to one, all others are independent.

    I = -pairs / 2 ln(1 - correlation^2).

    Raises:
        ConfigError: more pairs than coordinates, or no correlation above -1 and below 1.
    """
    if not 0 <= pairs <= min(dim_x, dim_y):
        raise ConfigError(f"{pairs} correlated pairs need as many coordinates of X and Y, got {dim_x} and {dim_y}")
    if not -1 < correlation < 1:
        raise ConfigError(f"a correlation lies above -1 and below 1, got {correlation}")
    covariance = np.eye(dim_x + dim_y)
    for i in range(pairs):
        covariance[i, dim_x + i] = covariance[dim_x + i, i] = correlation
    # log1p keeps the digits that 1 - r^2 loses for r near 1.
    return _normal(dim_x, dim_y, covariance, -pairs / 2 * math.log1p(-(correlation**2)))


def dense_normal(dim_x: int, dim_y: int, correlation: float) -> Distribution:
    """Standard normal coordinates, each two of which correlate alike.

    The correlation matrix of m coordinates has ln det(m) = (m - 1) ln(1 - r) + ln(1 + (m - 1) r), and
    I = (ln det(dim_x) + ln det(dim_y) - ln det(dim_x + dim_y)) / 2.

    Raises:
        ConfigError: a correlation not in [0, 1).
    """
    if not 0 <= correlation < 1:
        raise ConfigError(f"the correlation of all coordinates lies in [0, 1), got {correlation}")

    def log_det(m: int) -> float:
        return (m - 1) * math.log1p(-correlation) + math.log1p((m - 1) * correlation)

    covariance = (1 - correlation) * np.eye(dim_x + dim_y) + correlation
    return _normal(dim_x, dim_y, covariance, (log_det(dim_x) + log_det(dim_y) - log_det(dim_x + dim_y)) / 2)


def student(dim_x: int, dim_y: int, dof: int) -> Distribution:
    """Multivariate Student distribution with the identity as dispersion: uncorrelated, dependent through the scale.

    I = h(dim_x) + h(dim_y) - h(dim_x + dim_y), h being the entropy of so many coordinates; Arellano-Valle,
    Contreras-Reyes and Genton, Scandinavian Journal of Statistics 40, 2013, Eq. 7. For dof 1 means and variances do not
    exist.

    Raises:
        ConfigError: dof not above 0.
    """
    if not dof > 0:
        raise ConfigError(f"degrees of freedom must be above 0, got {dof}")

    def entropy(k: int) -> float:
        return float(-log_constant(k) + (dof + k) / 2 * (digamma((dof + k) / 2) - digamma(dof / 2)))

    def log_constant(k: int) -> float:
        return gammaln((dof + k) / 2) - gammaln(dof / 2) - k / 2 * math.log(dof * math.pi)

    def log_density(x: np.ndarray) -> np.ndarray:
        k = x.shape[1]
        return log_constant(k) - (dof + k) / 2 * np.log1p((x**2).sum(axis=1) / dof)

    def draw(key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        normal = jax.random.normal(prng.stream(key, "normal"), (n, dim_x + dim_y), jnp.float32)
        # chi-square / 2 is a gamma variable; its logarithm, because a small float32 gamma may round to zero.
        log_half = jax.random.loggamma(prng.stream(key, "scale"), dof / 2, (n, 1), jnp.float32)
        values = normal * jnp.exp((math.log(dof / 2) - log_half) / 2)
        return values[:, :dim_x], values[:, dim_x:]

    def pointwise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return log_density(np.concatenate([x, y], axis=1)) - log_density(x) - log_density(y)

    information = entropy(dim_x) + entropy(dim_y) - entropy(dim_x + dim_y)
    return Distribution("student", dim_x, dim_y, information, draw, pointwise)


def additive_uniform(epsilon: float) -> Distribution:
    """X uniform on (0, 1) and Y = X + N with N uniform on (-epsilon, epsilon).

    I = 1 / (4 epsilon) for epsilon > 1/2, else epsilon - ln(2 epsilon).

    Raises:
        ConfigError: epsilon not above 0.
    """
    if not epsilon > 0:
        raise ConfigError(f"the half width of the noise must be above 0, got {epsilon}")

    def draw(key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        x = jax.random.uniform(prng.stream(key, "x"), (n, 1), jnp.float32)
        noise = jax.random.uniform(prng.stream(key, "noise"), (n, 1), jnp.float32, -epsilon, epsilon)
        return x, x + noise

    def pointwise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # p(y | x) = 1 / (2 epsilon), and p(y) is the share of (0, 1) within epsilon of y over the same 2 epsilon.
        overlap = (np.minimum(1, y + epsilon) - np.maximum(0, y - epsilon))[:, 0]
        # Samples are rounded to float32, so that one at the edge may lie beyond it by that much.
        inside = (np.abs(y - x)[:, 0] <= epsilon + 1e-6) & (np.abs(x[:, 0] - 0.5) <= 0.5 + 1e-6)
        return np.where(inside, -np.log(np.maximum(overlap, 1e-9)), -np.inf)

    information = 1 / (4 * epsilon) if epsilon > 0.5 else epsilon - math.log(2 * epsilon)
    return Distribution("uniform", 1, 1, information, draw, pointwise)


def _normal(dim_x: int, dim_y: int, covariance: np.ndarray, information: float) -> Distribution:
    """Centred normal distribution with this covariance [dim_x + dim_y, dim_x + dim_y], whose information is known."""
    root = np.linalg.cholesky(covariance).astype(np.float32)
    difference = -np.linalg.inv(covariance)
    difference[:dim_x, :dim_x] += np.linalg.inv(covariance[:dim_x, :dim_x])
    difference[dim_x:, dim_x:] += np.linalg.inv(covariance[dim_x:, dim_x:])

    def draw(key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        normal = jax.random.normal(prng.stream(key, "normal"), (n, dim_x + dim_y), jnp.float32)
        # Accelerators multiply in fewer digits by default, which a correlation of 0.9999 would not survive.
        values = jnp.matmul(normal, root.T, precision=jax.lax.Precision.HIGHEST)
        return values[:, :dim_x], values[:, dim_x:]

    def pointwise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        both = np.concatenate([x, y], axis=1)
        # The log-determinants of the three densities make up the mutual information, their quadratic forms the rest.
        return information + ((both @ difference) * both).sum(axis=1) / 2

    return Distribution("normal", dim_x, dim_y, information, draw, pointwise)
