"""Distributions whose velocities, scores and divergences are known in closed form: what the estimators are held to.

X | y ~ N(mean_y, width^2) in every packet independently, X a Gaussian or a mixture of them. `xp` is numpy (float64, on
the host) or jax.numpy. Nothing here uses the package.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SHARES, MEANS = np.array([0.8, 0.15, 0.05]), np.array([-1.0, 0.0, 3.0])
"""The three classes of information.md 5e."""

GAUSSIAN = [
    # width, y, KL = S, P (information.md, section 5, table 1)
    (1.00, 0.0, 0.0966, -0.1392),
    (1.00, 0.5, 0.1591, -0.0177),
    (1.00, 1.0, 0.3466, 0.3466),
    (1.00, 2.0, 1.0966, 1.8039),
    (1.00, 3.0, 2.3466, 4.2327),
    (0.30, 0.0, 0.7883, 0.5066),
    (0.30, 0.5, 0.9030, 0.6917),
    (0.30, 1.0, 1.2471, 1.2471),
    (0.30, 2.0, 2.6232, 3.4686),
    (0.30, 3.0, 4.9168, 7.1710),
    (0.05, 0.0, 2.4982, 2.2129),
    (0.05, 0.5, 2.6229, 2.4089),
    (0.05, 1.0, 2.9970, 2.9970),
    (0.05, 2.0, 4.4932, 5.3492),
    (0.05, 3.0, 6.9870, 9.2695),
]
MIXTURE = {
    # width: KL = S of each class, P of each class, both averages (5e). P is from sums over 6000 levels of log SNR and
    # 2000 points of x; the reference, which stops at 1 - t = 1e-3, differs by up to 7e-4 (-.1146, 2.9035, .4137).
    1.0: ([0.0602, 0.3045, 2.5986], [0.1197, -0.1148, 2.9042], 0.2237),
    0.3: ([0.1802, 1.5945, 2.9957], [0.4295, 0.4133, 2.5500], 0.5331),
}


def kl(width: Any, y: Any) -> Any:
    """KL(N(y, width^2) || N(0, 1 + width^2)) in nats."""
    return 0.5 * np.log1p(1 / width**2) + (y**2 - 1) / (2 * (1 + width**2))


def information(width: Any) -> Any:
    """I(X; Y) of X = Y + width noise, Y ~ N(0, 1)."""
    return 0.5 * np.log1p(1 / width**2)


def log_ratio(x: Any, width: Any, y: Any) -> Any:
    """log N(x; y, width^2) - log N(x; 0, 1 + width^2)."""
    return 0.5 * np.log1p(1 / width**2) - (x - y) ** 2 / (2 * width**2) + x**2 / (2 * (1 + width**2))


def noise_and_clean(
    x: Any, signal: Any, noise: Any, mean: Any, variance: Any, share: Any = None, *, xp: Any = jnp
) -> Any:
    """(E[eps | x], E[X | x]) at x = signal X + noise eps.

    X has components along a last axis: `mean` and `variance` broadcast against x[..., None], and `share` [component]
    are their weights; None for a single one. `signal` and `noise` broadcast against x.
    """
    signal, noise = xp.asarray(signal)[..., None], xp.asarray(noise)[..., None]
    total = signal**2 * variance + noise**2
    away = x[..., None] - signal * mean
    eps, clean = noise * away / total, mean + signal * variance * away / total
    if share is None:
        return eps[..., 0], clean[..., 0]
    log = xp.log(share) - 0.5 * xp.log(total) - 0.5 * away**2 / total
    posterior = xp.exp(log - log.max(-1, keepdims=True))
    posterior = posterior / posterior.sum(-1, keepdims=True)
    return (posterior * eps).sum(-1), (posterior * clean).sum(-1)


def velocity(x: Any, t: Any, mean: Any, variance: Any, share: Any = None, *, xp: Any = jnp) -> Any:
    """E[X_1 - X_0 | x_t = x] on the straight path."""
    eps, clean = noise_and_clean(x, t, 1 - t, mean, variance, share, xp=xp)
    return clean - eps


def densities(t: np.ndarray, mean: float, width: float, marginal: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    """E_A |u_A - u_B|^2 and E_A u_A . (u_A - u_B) [t] by Gauss-Hermite quadrature over x_t ~ A_t.

    `marginal` is (means [component], variances [component], shares [component] or None) of B.
    """
    # Exact with 2 nodes where B is a Gaussian: the densities are quadratic in x.
    z, weight = np.polynomial.hermite_e.hermegauss(4 if marginal[2] is None else 100)
    x = t[:, None] * mean + np.hypot(t * width, 1 - t)[:, None] * z
    a = velocity(x, t[:, None], np.array([mean]), np.array([width**2]), xp=np)
    b = velocity(x, t[:, None], *marginal, xp=np)
    weight = weight / weight.sum()
    return ((a - b) ** 2) @ weight, (a * (a - b)) @ weight


def noise_density(signal: np.ndarray, noise: np.ndarray, mean: float, width: float) -> np.ndarray:
    """E_A |eps_A - eps_B|^2 [step] for Y ~ N(0, 1)."""
    z, weight = np.polynomial.hermite_e.hermegauss(4)
    x = signal[:, None] * mean + np.hypot(signal * width, noise)[:, None] * z
    at = (signal[:, None], noise[:, None])
    a, _ = noise_and_clean(x, *at, np.array([mean]), np.array([width**2]), xp=np)
    b, _ = noise_and_clean(x, *at, np.zeros(1), np.array([1 + width**2]), xp=np)
    return ((a - b) ** 2) @ (weight / weight.sum())


def gaussian_predict(width: np.ndarray, mean: np.ndarray, label: jax.Array, marginal: Any = None) -> Any:
    """`predict` of the sampler: velocities of N(mean[label], width^2) and N(0, marginal).

    width [label, T] or [T], mean [label]; marginal [label] is the variance of B, by default that of Y ~ N(0, 1).
    """
    y = jnp.asarray(mean, jnp.float32)[label][:, None, None]
    variance = jnp.broadcast_to(jnp.asarray(width, jnp.float32) ** 2, (len(mean), np.shape(width)[-1]))[label][
        ..., None
    ]
    whole = 1 + variance if marginal is None else jnp.asarray(marginal, jnp.float32)[label][:, None, None]

    def predict(x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return velocity(x, t, y, variance), velocity(x, t, jnp.zeros(1), whole)

    return predict


def mixture_predict(width: np.ndarray, label: jax.Array) -> Any:
    """`predict` of the sampler for the three classes at several widths [case], one packet; label = 3 case + class."""
    variance = jnp.asarray(width, jnp.float32)[label // 3][:, None, None] ** 2
    means, shares = jnp.asarray(MEANS, jnp.float32), jnp.asarray(SHARES, jnp.float32)
    y = means[label % 3][:, None, None]

    def predict(x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return velocity(x, t, y, variance), velocity(x, t, means, variance, shares)

    return predict
