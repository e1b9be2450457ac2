"""Exact networks for a mixture of three Gaussians in the plane, for every process, and judging samples of it."""

import jax
import jax.numpy as jnp
import numpy as np

WEIGHT = np.array([0.5, 0.3, 0.2])
MEAN = np.array([[-1.5, 0.0], [1.0, 1.2], [1.2, -1.0]])
MIXING = 0.3 * np.array([[1.0, 0.5], [0.0, 0.8]])
COVARIANCE = MIXING @ MIXING.T
OVERALL = WEIGHT @ MEAN
SPREAD = COVARIANCE + np.einsum("k,ki,kj->ij", WEIGHT, MEAN, MEAN) - np.outer(OVERALL, OVERALL)


def posterior(x, signal, noise, weight=WEIGHT):
    """(E[x_0 | x], E[eps | x]) for x = signal x_0 + noise eps, x [batch, 2]."""
    total = signal**2 * jnp.asarray(COVARIANCE, jnp.float32) + noise**2 * jnp.eye(2)
    away = x[:, None] - signal * jnp.asarray(MEAN, jnp.float32)
    pulled = jnp.einsum("ij,bkj->bki", jnp.linalg.inv(total), away)
    share = jax.nn.softmax(jnp.log(jnp.asarray(weight, jnp.float32)) - 0.5 * (away * pulled).sum(-1), axis=1)
    clean = jnp.asarray(MEAN, jnp.float32) + signal * pulled @ jnp.asarray(COVARIANCE, jnp.float32)
    return jnp.einsum("bk,bki->bi", share, clean), noise * jnp.einsum("bk,bki->bi", share, pulled)


def output(process, made, x, told, weight=WEIGHT):
    """What an exact network of `made` (a process) puts out for its input x [batch, 2] and the time [] it is told."""
    if process == "flow":
        t = told / 100
        clean, eps = posterior(x, t, 1 - t, weight)
        return clean - eps
    if process == "edm":
        sigma = jnp.exp(told / 10)
        total = sigma**2 + made.sigma_data**2
        noisy = x * total**0.5
        clean, _ = posterior(noisy, 1.0, sigma, weight)
        return (clean - made.sigma_data**2 / total * noisy) * total**0.5 / (sigma * made.sigma_data)
    if process == "vp":
        signal, noise = made.mix(told / 100)
    else:
        index = told.astype(jnp.int32)
        signal, noise = made.schedule.signal[index], made.schedule.noise[index]
    clean, eps = posterior(x, signal, noise, weight)
    return eps if made.prediction == "epsilon" else signal * eps - noise * clean


def misfit(x):
    """Largest deviation of samples [n, 2] from the mixture, in standard errors: mean, covariance, class shares."""
    x = np.asarray(x, np.float64)
    n, deviation = len(x), np.sqrt(np.diag(SPREAD))
    mean = np.abs(x.mean(0) - OVERALL) / (deviation / np.sqrt(n))
    # A sample covariance of n draws has a standard error of about sqrt(2 / n) of its scale (fourth moments are lower).
    covariance = np.abs(np.cov(x.T) - SPREAD) / (np.sqrt(2 / n) * np.outer(deviation, deviation))
    nearest = ((x[:, None] - MEAN) ** 2).sum(-1).argmin(1)
    shares = np.abs(np.bincount(nearest, minlength=3) / n - WEIGHT) / np.sqrt(WEIGHT * (1 - WEIGHT) / n)
    within = x - MEAN[nearest]
    inner = np.abs(np.cov(within.T) - COVARIANCE) / (np.sqrt(2 / n) * np.abs(COVARIANCE).max())
    return {"mean": mean.max(), "covariance": covariance.max(), "shares": shares.max(), "inner": inner.max()}
