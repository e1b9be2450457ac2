"""Injective maps of X and of Y, which leave the mutual information as it is.

Each acts on X and Y apart. Forward maps are float32 on device; inverses are float64 in NumPy. Sources: Beyond Normal
(arXiv 2306.11078), section 3 and appendix, and the bmi package (cbg-ethz/bmi), whose constants these are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr, ndtri

BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
EDGE = 2.0**-25


class Map(NamedTuple):
    """An injective map of one variable.

    Attributes:
        forward: [n, dim] -> [n, dim + added] float32; pure.
        inverse: [n, dim + added] -> [n, dim], float64 NumPy.
        added: dimensions that the image gains.
    """

    forward: Callable[[jax.Array], jax.Array]
    inverse: Callable[[np.ndarray], np.ndarray]
    added: int = 0


class Change(NamedTuple):
    """The maps of X and Y that make one task out of another.

    Attributes:
        name: prefix of the task's name.
        title: in words.
        x: map of X.
        y: map of Y.
    """

    name: str
    title: str
    x: Map
    y: Map


def normal_cdf() -> Change:
    """Each coordinate to (0, 1) by the standard normal distribution function.

    What rounds to 1 in float32 becomes the number before it, and the inverse keeps 2^-25 away from 0 and 1, so that
    5.4 standard deviations are the most that come back.
    """

    def forward(x: jax.Array) -> jax.Array:
        return jnp.minimum(jax.scipy.special.ndtr(x), BELOW_ONE)

    def inverse(u: np.ndarray) -> np.ndarray:
        return ndtri(np.clip(u, EDGE, 1 - EDGE))

    both = Map(forward, inverse)
    return Change("normal_cdf", "Normal CDF", both, both)


def half_cube() -> Change:
    """Each coordinate x to x sqrt(|x|), which makes tails longer."""
    both = Map(lambda x: x * jnp.sqrt(jnp.abs(x)), lambda w: np.sign(w) * np.abs(w) ** (2 / 3))
    return Change("half_cube", "Half-cube", both, both)


def asinh() -> Change:
    """Each coordinate to its inverse hyperbolic sine, which makes tails shorter."""
    both = Map(jnp.arcsinh, np.sinh)
    return Change("asinh", "Asinh", both, both)


def wiggly() -> Change:
    """Each coordinate to itself plus small sines; the derivatives stay above 0.16 and 0.53."""
    x = ((0.4, 1.0, 0.0), (0.2, 1.7, 1.0), (0.03, 3.3, -2.5))
    y = ((-0.4, 0.4, 0.0), (0.17, 1.3, 3.5), (0.02, 4.3, -2.5))
    return Change("wiggly", "Wiggly", _sines(x), _sines(y))


def bimodal() -> Change:
    """One normal coordinate each to a mixture of two normal distributions, quantile to quantile.

    X becomes 0.3 N(0, 1) + 0.7 N(5, 1) and Y 0.5 N(-1, 1) + 0.5 N(3, 1).
    """
    return Change("bimodal", "Bimodal", _mixture((0.3, 0.7), (0.0, 5.0)), _mixture((0.5, 0.5), (-1.0, 3.0)))


def swissroll() -> Change:
    """A uniform X in (0, 1) onto a spiral in the plane, (t cos t, t sin t) / 21 with t = 1.5 pi (1 + 2 x); Y stays."""

    def forward(x: jax.Array) -> jax.Array:
        t = 1.5 * math.pi * (1 + 2 * x)
        return jnp.concatenate([t * jnp.cos(t), t * jnp.sin(t)], axis=-1) / 21

    def inverse(w: np.ndarray) -> np.ndarray:
        return (21 * np.linalg.norm(w, axis=-1, keepdims=True) / (1.5 * math.pi) - 1) / 2

    return Change("swissroll_x", "Swiss roll", Map(forward, inverse, added=1), Map(lambda y: y, lambda y: y))


def spiral(speed: float = 1.0) -> Change:
    """Turns each point by an angle that grows with its squared norm.

    The angle is speed / dim * |x|^2, from coordinate 0 towards 1 for X and from 1 towards 2 for Y. bmi forms the matrix
    exponential of the generator; a turn in one plane is its closed form.
    """
    return Change("spiral", "Spiral", _turn(0, 1, speed), _turn(1, 2, speed))


def _turn(i: int, j: int, speed: float) -> Map:
    def forward(x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        angle = speed / x.shape[-1] * jnp.sum(x * x, axis=-1)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        return x.at[..., i].set(cos * x[..., i] - sin * x[..., j]).at[..., j].set(sin * x[..., i] + cos * x[..., j])

    def inverse(w: np.ndarray) -> np.ndarray:
        angle = speed / w.shape[-1] * (w**2).sum(axis=-1)
        cos, sin = np.cos(angle), np.sin(angle)
        x = w.copy()
        x[..., i] = cos * w[..., i] + sin * w[..., j]
        x[..., j] = cos * w[..., j] - sin * w[..., i]
        return x

    return Map(forward, inverse)


def _sines(terms: tuple[tuple[float, float, float], ...]) -> Map:
    """x + sum of amplitude sin(frequency x + phase), which must increase."""
    reach = sum(abs(amplitude) for amplitude, _, _ in terms)

    def forward(x: jax.Array) -> jax.Array:
        return x + sum(amplitude * jnp.sin(frequency * x + phase) for amplitude, frequency, phase in terms)

    def inverse(w: np.ndarray) -> np.ndarray:
        return _bisect(lambda x: x + sum(a * np.sin(f * x + p) for a, f, p in terms), w, w - reach, w + reach)

    return Map(forward, inverse)


def _mixture(weights: tuple[float, float], means: tuple[float, float]) -> Map:
    """A standard normal variable to a mixture of normal distributions of unit variance."""

    def inverse(x: np.ndarray) -> np.ndarray:
        return _mixture_to_normal(x, weights, means)

    def forward(z: jax.Array) -> jax.Array:
        value, slope = _quantile_table(weights, means)
        # Cubic Hermite pieces on a grid whose step is a power of two, so that the position in a cell is exact.
        half = REACH * STEPS
        inner = jnp.clip(z, -REACH, REACH)
        cell = jnp.clip(jnp.floor(inner * STEPS).astype(jnp.int32), -half, half - 1)
        t = inner * STEPS - cell.astype(jnp.float32)
        left = cell + half
        value, slope = jnp.asarray(value), jnp.asarray(slope)
        v0, v1, s0, s1 = value[left], value[left + 1], slope[left] / STEPS, slope[left + 1] / STEPS
        # Relative to the left knot, which keeps the rounding errors of the pieces small.
        rise = v1 - v0
        inside = v0 + t * (s0 + t * ((3 * rise - 2 * s0 - s1) + t * (s0 + s1 - 2 * rise)))
        end = jnp.where(z > 0, slope[-1], slope[0])
        return inside + end * (z - inner)

    return Map(forward, inverse)


STEPS = 256
"""Knots of the quantile tables to a standard deviation."""
REACH = 8
"""Standard deviations that the tables cover; float32 normal draws end before 6."""


@functools.lru_cache(maxsize=8)
def _quantile_table(weights: tuple[float, ...], means: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of the mixture at the knots and their slopes phi(z) / p(q), both [2 REACH STEPS + 1] float32."""
    z = np.arange(-REACH * STEPS, REACH * STEPS + 1) / STEPS
    low, high = min(means) + z - 1e-9, max(means) + z + 1e-9
    q = _bisect(lambda x: _mixture_to_normal(x, weights, means), z, low, high)
    density = sum(w * np.exp(-((q - m) ** 2) / 2) for w, m in zip(weights, means, strict=True))
    return q.astype(np.float32), (np.exp(-(z**2) / 2) / density).astype(np.float32)


def _mixture_to_normal(x: np.ndarray, weights: tuple[float, ...], means: tuple[float, ...]) -> np.ndarray:
    """The standard normal number that has the same probability below it as x has in the mixture."""
    below = sum(w * ndtr(x - m) for w, m in zip(weights, means, strict=True))
    above = sum(w * ndtr(m - x) for w, m in zip(weights, means, strict=True))
    # From the smaller of the two, because 1 - p has no digits left in the upper tail.
    return np.where(below < above, ndtri(np.minimum(below, 0.5)), -ndtri(np.minimum(above, 0.5)))


def _bisect(
    function: Callable[[np.ndarray], np.ndarray], target: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Where an increasing function takes the target values, between low and high, to about 1e-14 of the bracket."""
    low, high = np.array(low, np.float64), np.array(high, np.float64)
    for _ in range(48):
        middle = (low + high) / 2
        less = function(middle) < target
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return (low + high) / 2
