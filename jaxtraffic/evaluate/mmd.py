"""Maximum mean discrepancy of two sets of flows (Gretton et al., "A Kernel Two-Sample Test", JMLR 2012)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from scipy.spatial.distance import pdist

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.distances import gaussian_sums
from jaxtraffic.evaluate.rows import pair_of
from jaxtraffic.series import PacketSeries

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths in medians of the distances between real flows: kernels from near neighbours to the whole set."""
MEDIAN_ROWS = 2000
"""Real flows at most that the median is taken from."""


def mmd(
    real: PacketSeries | np.ndarray,
    synthetic: PacketSeries | np.ndarray,
    *,
    factors: Sequence[float] = FACTORS,
    mesh: Mesh | None = None,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Maximum mean discrepancy with the mean of Gaussian kernels exp(-d^2 / (2 bandwidth^2)) of a ladder of bandwidths.

    The square is the unbiased estimate, over all pairs of different flows of a side and all pairs across: its mean is
    0 for two samples of one distribution, so it may be negative. Bandwidths are multiples of the median distance
    between different real flows, of 2,000 drawn at random with a fixed seed where there are more; generated ones have
    no say in it, so that all sets held against the same real flows meet the same kernel. Where all real flows are
    equal, flows of both sides are taken. Duplicates count as often as they occur, though not for the median.

    Blind spot: it sees differences of the size of its bandwidths; rows a byte or two off look alike.

    Args:
        real: PacketSeries, or numbers [flow, feature]; at least two flows.
        synthetic: the same.
        factors: bandwidths in medians, above 0.
        mesh: devices for the sums over pairs.

    Returns:
        Figures: `mmd`, the root of the square, 0 where that is negative; `mmd_squared`.
        Curves: `bandwidths` (bytes for packet series) and `squared`, the unbiased square with each alone.

    Raises:
        ConfigError: fewer than two flows on a side, factors that are not above 0, or what `pair_of` refuses.
    """
    x, y = pair_of(real, synthetic)
    if min(len(x), len(y)) < 2:
        raise ConfigError(f"mmd compares pairs of flows: at least two on each side, got {len(x)} and {len(y)}")
    ladder = np.asarray(factors, np.float64)
    if ladder.ndim != 1 or not ladder.size or not (np.isfinite(ladder) & (ladder > 0)).all():
        raise ConfigError(f"factors of mmd must be numbers above 0, got {factors!r}")
    bandwidths = ladder * _median_distance(x, y)
    within_x, within_y = (
        (gaussian_sums(rows, rows, bandwidths, mesh=mesh) - len(rows)) / (len(rows) * (len(rows) - 1))
        for rows in (x, y)
    )
    across = gaussian_sums(x, y, bandwidths, mesh=mesh) / (len(x) * len(y))
    squared = within_x + within_y - 2 * across
    mean = float(squared.mean())
    figures = {"mmd": float(np.sqrt(max(mean, 0.0))), "mmd_squared": mean}
    return figures, {"bandwidths": bandwidths.tolist(), "squared": squared.tolist()}


def _median_distance(x: np.ndarray, y: np.ndarray) -> float:
    for rows in (x, np.concatenate([x, y])):
        # Drawn and not evenly spaced, for classes may take turns.
        chosen = np.random.default_rng(0).permutation(len(rows))[:MEDIAN_ROWS]
        distances = pdist(rows[chosen].astype(np.float64))
        if distances.any():
            return float(np.median(distances[distances > 0]))
    return 1.0
