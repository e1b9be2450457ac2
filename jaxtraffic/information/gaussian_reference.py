"""Canonical coordinates of two samples, and what their Gaussian of the same second moments already says.

In canonical coordinates x and y are white and coordinate i of x is correlated with coordinate i of y only. For the
Gaussian with these moments everything is known in closed form, coordinate by coordinate: the posterior means that
velocities and scores are made of, and the log-ratio p(x|y) / p(x). The diffusion estimators train a network for what
the Gaussian leaves over. Both linear maps are invertible, so mutual information stays.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtraffic.information.result import Pairs

FLOOR = 1e-6
"""Smallest eigenvalue of a covariance, in units of the largest; below, a direction is not stretched further."""
PRIOR = 10.0
"""Weight, in samples, of the overall moments in those of a class."""


class Moments(NamedTuple):
    """Mean and variance of each coordinate of the diffused variable, given what is seen.

    Attributes:
        mean: [n, dim] or [].
        variance: [n, dim], [dim] or [].
    """

    mean: jax.Array
    variance: jax.Array


class Reference(NamedTuple):
    """Canonical coordinates, fitted on training samples.

    Attributes:
        centre_x, map_x: [dim_x], [dim_x, dim_x].
        centre_y, map_y: [dim_y], [dim_y, dim_y]; None for labels.
        variance: [pair] variance of x_i given y_i, which is 1 - (canonical correlation)^2; [0] for labels.
        class_mean, class_variance: [class, dim_x] for labels, else None.
    """

    centre_x: jax.Array
    map_x: jax.Array
    centre_y: jax.Array | None
    map_y: jax.Array | None
    variance: jax.Array
    class_mean: jax.Array | None = None
    class_variance: jax.Array | None = None

    def apply(self, pairs: Pairs) -> Pairs:
        """Pairs in canonical coordinates; labels stay."""
        x = (pairs.x - self.centre_x) @ self.map_x
        return Pairs(x, pairs.y if self.map_y is None else (pairs.y - self.centre_y) @ self.map_y)


def fit(pairs: Pairs, n_classes: int, linear: bool = True) -> Reference:
    """Fits canonical coordinates.

    Args:
        pairs: training samples.
        n_classes: number of classes, 0 for continuous y.
        linear: False keeps the coordinates as they are, up to centre and unit spread, and claims no dependence.

    Returns:
        The reference. Correlations are shrunk for the number of coordinates they were chosen from
        (1 - R^2 grows by (n - 1) / (n - dim_x - dim_y - 1)), so that small samples do not claim too much.
    """
    n, dim_x = pairs.x.shape
    centre_x, white_x = _whitening(pairs.x, linear)
    if n_classes:
        x = (pairs.x - centre_x) @ white_x
        mean, variance = _class_moments(x, pairs.y, n_classes)
        if not linear:
            mean, variance = jnp.zeros_like(mean), jnp.ones_like(variance)
        return Reference(centre_x, white_x, None, None, jnp.zeros((0,)), mean, variance)
    centre_y, white_y = _whitening(pairs.y, linear)
    dim_y = pairs.y.shape[1]
    k = min(dim_x, dim_y)
    if not linear:
        return Reference(centre_x, white_x, centre_y, white_y, jnp.ones(k))
    x, y = (pairs.x - centre_x) @ white_x, (pairs.y - centre_y) @ white_y
    left, _, right = jnp.linalg.svd(jnp.matmul(x.T, y, precision="highest") / n, full_matrices=True)
    map_x, map_y = white_x @ left, white_y @ right.T
    x, y = (x @ left)[:, :k], (y @ right.T)[:, :k]
    # Residuals, not 1 - correlation^2: at 5 nats a coordinate the latter has no digits left in float32.
    slope = (x * y).mean(axis=0) / (y * y).mean(axis=0)
    left_over = jnp.square(x - slope * y).mean(axis=0) / (x * x).mean(axis=0)
    variance = jnp.clip(left_over * ((n - 1) / max(n - dim_x - dim_y - 1, 1)), 1e-8, 1.0)
    return Reference(centre_x, map_x, centre_y, map_y, variance)


def _whitening(x: jax.Array, linear: bool) -> tuple[jax.Array, jax.Array]:
    """Centre and the symmetric map to unit covariance."""
    centre = x.mean(axis=0)
    centred = x - centre
    if not linear:
        spread = centred.std(axis=0)
        return centre, jnp.diag(1 / jnp.where(spread > 0, spread, 1.0))
    values, vectors = jnp.linalg.eigh(jnp.matmul(centred.T, centred, precision="highest") / len(x))
    values = jnp.maximum(values, jnp.maximum(FLOOR * values[-1], 1e-12))
    return centre, (vectors / jnp.sqrt(values)) @ vectors.T


def _class_moments(x: jax.Array, label: jax.Array, n_classes: int) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each coordinate in each class, drawn towards 0 and 1 where a class is small."""
    count = jnp.zeros(n_classes).at[label].add(1.0)[:, None]
    mean = jnp.zeros((n_classes, x.shape[1])).at[label].add(x) / (count + PRIOR)
    square = jnp.zeros_like(mean).at[label].add(jnp.square(x - mean[label]))
    return mean, jnp.maximum((square + PRIOR) / (count + PRIOR), 1e-4)


def marginal() -> Moments:
    """Moments of the diffused variable where nothing is seen."""
    return Moments(jnp.float32(0.0), jnp.float32(1.0))


def x_given_y(reference: Reference, y: jax.Array) -> Moments:
    """Moments of x where y is seen (canonical coordinates, or labels)."""
    if reference.class_mean is not None:
        return Moments(reference.class_mean[y], reference.class_variance[y])
    return _regression(reference.variance, y, len(reference.centre_x))


def y_given_x(reference: Reference, x: jax.Array) -> Moments:
    """Moments of y where x is seen (canonical coordinates)."""
    return _regression(reference.variance, x, len(reference.centre_y))


def _regression(variance: jax.Array, seen: jax.Array, dim: int) -> Moments:
    k = len(variance)
    mean = jnp.sqrt(1 - variance) * seen[:, :k]
    mean = jnp.concatenate([mean, jnp.zeros((len(seen), dim - k))], axis=1)
    return Moments(mean, jnp.concatenate([variance, jnp.ones(dim - k)]))


class Posterior(NamedTuple):
    """What a Gaussian says of x and noise n from the noisy x_t = a x + b n.

    Attributes:
        innovation: [n, dim] (x_t - a mean) in units of its standard deviation.
        signal: [n, dim] mean of x.
        noise: [n, dim] mean of n.
        spread: [n, dim] s such that x has the standard deviation b s, n has a s, and x - n has (a + b) s.
    """

    innovation: jax.Array
    signal: jax.Array
    noise: jax.Array
    spread: jax.Array


def posterior(moments: Moments, noisy: jax.Array, a: jax.Array, b: jax.Array) -> Posterior:
    """Posterior of data and noise under independent Gaussian coordinates.

    Args:
        moments: of the data.
        noisy: [n, dim] a x + b n.
        a: [n, 1] scale of the data.
        b: [n, 1] scale of the noise.
    """
    variance = a * a * moments.variance + b * b
    off = noisy - a * moments.mean
    signal = moments.mean + a * moments.variance / variance * off
    return Posterior(
        off * jax.lax.rsqrt(variance), signal, b / variance * off, jnp.sqrt(moments.variance / variance) + 0 * off
    )


def joint_posterior(
    reference: Reference, noisy_x: jax.Array, noisy_y: jax.Array, m: jax.Array, s: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of the noise in m (x, y) + s n where both are noisy, with m^2 + s^2 = 1.

    Args:
        reference: canonical coordinates.
        noisy_x: [n, dim_x].
        noisy_y: [n, dim_y].
        m: [n, 1] scale of the data.
        s: [n, 1] scale of the noise.

    Returns:
        Mean and standard deviation [n, dim_x + dim_y]: coordinates i of x and y form a pair with covariance
        m^2 correlation, whose 2 x 2 inverse is at hand; the rest are alone.
    """
    k = len(reference.variance)
    left = reference.variance
    share = m * m * jnp.sqrt(1 - left)
    # 1 - share^2, written so that strong correlations keep their digits.
    determinant = left + (1 - left) * s * s * (1 + m * m)

    def mean(own: jax.Array, other: jax.Array) -> jax.Array:
        paired = s * (own[:, :k] - share * other[:, :k]) / determinant
        return jnp.concatenate([paired, s * own[:, k:]], axis=1)

    def spread(own: jax.Array) -> jax.Array:
        paired = m * jnp.sqrt((left * m * m + s * s) / determinant)
        return jnp.concatenate([paired, jnp.broadcast_to(m, (len(own), own.shape[1] - k))], axis=1)

    return (
        jnp.concatenate([mean(noisy_x, noisy_y), mean(noisy_y, noisy_x)], axis=1),
        jnp.concatenate([spread(noisy_x), spread(noisy_y)], axis=1),
    )


def log_density(moments: Moments, x: jax.Array) -> jax.Array:
    """[n] log density of x, without the constant that every Gaussian shares."""
    off = jnp.square(x - moments.mean) / moments.variance
    return -0.5 * (off + jnp.log(moments.variance)).sum(axis=1)
