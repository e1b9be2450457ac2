"""Maps of one coordinate at a time that leave the mutual information as it is: strictly increasing, fitted on train."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from jaxtraffic.errors import ConfigError

PREPROCESS = ("gaussianise", "asinh", "standardise", "none")
KNOTS = 2000


class Map(NamedTuple):
    """Piecewise linear map of each coordinate of asinh((x - centre) / spread), straight beyond its ends.

    Attributes:
        kind: one of `PREPROCESS`.
        centre, spread: [dim] float64.
        knots: per coordinate (from [k], to [k]), empty unless gaussianising.
    """

    kind: str
    centre: np.ndarray
    spread: np.ndarray
    knots: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    def apply(self, x: np.ndarray) -> np.ndarray:
        """x [n, dim] -> [n, dim] float32."""
        x = np.asarray(x, np.float64)
        if self.kind == "none":
            return x.astype(np.float32)
        z = (x - self.centre) / self.spread
        if self.kind == "standardise":
            return z.astype(np.float32)
        z = np.arcsinh(z)
        if self.kind == "asinh":
            return z.astype(np.float32)
        columns = [_straight_beyond(z[:, i], *knots) for i, knots in enumerate(self.knots)]
        return np.stack(columns, axis=1).astype(np.float32)


def fit(kind: str, x: np.ndarray) -> Map:
    """Fits a map on x [n, dim].

    Args:
        kind: "gaussianise" (each coordinate to a standard normal distribution through its quantiles; long tails and
            atoms of different height become alike), "asinh" (asinh of the coordinate less its median, in units of half
            its interquartile range), "standardise" (zero mean, unit standard deviation) or "none".
        x: training samples.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in PREPROCESS:
        raise ConfigError(f"unknown preprocess {kind!r}; choose from {', '.join(PREPROCESS)}")
    x = np.asarray(x, np.float64)
    dim = x.shape[1]
    if kind == "none":
        return Map(kind, np.zeros(dim), np.ones(dim))
    if kind == "standardise":
        return Map(kind, x.mean(axis=0), _positive(x.std(axis=0)))
    low, centre, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    result = Map(kind, centre, _positive((high - low) / 2))
    if kind == "asinh":
        # To unit spread after the logarithm's squeeze, so that noise of variance 1 is on the same scale.
        return result
    z = np.arcsinh((x - centre) / result.spread)
    return result._replace(knots=tuple(_quantile_knots(z[:, i]) for i in range(dim)))


def _quantile_knots(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct quantiles of one coordinate and the normal quantiles they go to, close together in both tails."""
    n = len(z)
    normal = np.linspace(ndtri(0.5 / n), -ndtri(0.5 / n), min(KNOTS, n))
    ordered = np.sort(z)
    # Mid-rank positions: the i-th of n values stands for the probability (i + 0.5) / n.
    positions = ndtri((np.arange(n) + 0.5) / n)
    source, first, count = np.unique(ordered, return_index=True, return_counts=True)
    if len(source) < 2:
        return np.array([source[0], source[0] + 1]), np.array([0.0, 1.0])
    target = ndtri((first + count / 2) / n)
    if len(source) <= KNOTS:
        return source, target
    # Between knots the map is a straight line; knots evenly spaced in normal units follow both tails.
    chosen = np.unique(np.searchsorted(positions, normal).clip(0, n - 1))
    at = np.unique(np.searchsorted(source, ordered[chosen]))
    return source[at], target[at]


def _straight_beyond(z: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Linear interpolation that goes on beyond both ends with the mean slope of the outer tenth of the knots."""
    inner = np.interp(z, source, target)
    reach = max(1, len(source) // 10)
    low = (target[reach] - target[0]) / (source[reach] - source[0])
    high = (target[-1] - target[-1 - reach]) / (source[-1] - source[-1 - reach])
    return np.where(
        z < source[0],
        target[0] + low * (z - source[0]),
        np.where(z > source[-1], target[-1] + high * (z - source[-1]), inner),
    )


def _positive(spread: np.ndarray) -> np.ndarray:
    return np.where(spread > 0, spread, 1.0)
