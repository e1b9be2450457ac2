"""How much of the real flows a generator covers, from exact distances to nearest neighbours.

Nothing here is random and nothing is sampled. Rows of integers (signed sizes) have exact distances: duplicates are at
distance 0 and ties are ties; with rounded distances a record as near as another would count or not by the last bit.
Print each figure beside that of fresh real flows: a perfect generator has a beta-recall of about 0.5 where no flow
occurs twice, and more where many do.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.distances import Nearest, nearest, within
from jaxtraffic.evaluate.rows import pair_of
from jaxtraffic.series import PacketSeries

N_LEVELS = 30
"""Points of the grid of alpha and beta, both ends included, as in synthcity, TabSyn and TabDiff."""

Flows = PacketSeries | np.ndarray


class Levels(NamedTuple):
    """What alpha-precision and beta-recall are made of.

    Attributes:
        alpha: [30] the grid, 0 .. 1.
        precision: [30] share of synthetic flows in the ball around the real mean that holds alpha of the real ones.
        recall: [30] share of real flows covered by the beta of the synthetic ones nearest to the synthetic mean.
        to_synthetic: nearest synthetic flow of each real one.
        to_other: nearest other real flow of each real one; further ones where they were given.
    """

    alpha: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    to_synthetic: Nearest
    to_other: Nearest


def alpha_beta(
    real: Flows,
    synthetic: Flows,
    *,
    scale: Literal["none", "minmax"] = "none",
    peer: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> dict[str, float]:
    """Alpha-precision, beta-recall and authenticity in data space (Alaa et al., ICML 2022; "naive" in synthcity).

    With c the mean of the real flows, R_k the alpha_k-quantile of |real - c| and P_k the share of synthetic flows with
    |s - c| <= R_k, alpha-precision is 1 - sum_k |alpha_k - P_k| / sum_k alpha_k over 30 levels from 0 to 1. Beta-recall
    is the same for B_k: the share of real flows r whose nearest synthetic flow s is no further than the nearest other
    real flow and has |s - mean(synthetic)| <= Q_k, the alpha_k-quantile of that distance over all r. Identical sets
    do not score 1. Of equally near synthetic flows that with the lowest index is meant.

    Args:
        real: flows or rows [n, d], n >= 2; for published figures of this metric, the training set.
        synthetic: flows or rows [m, d], m >= 1; the sizes may differ. The distance of a single flow to the mean of
            its set is 0.
        scale: "none" for distances in the unit of the data (bytes); "minmax" divides each column by the range of the
            real flows, as synthcity does, or by 1 where that is 0.
        peer: authenticity as synthcity computes it, where an index of synthetic flows is used on real ones.
        mesh: devices to use; all where None.

    Returns:
        `alpha_precision`; `beta_recall`; `authenticity`: the share of synthetic flows that are further from their
        nearest real flow than that is from its nearest other real flow (of equally near ones the first counts).

    Raises:
        ConfigError: what `rows.pair_of` refuses, a single real flow, an unknown scale, or `peer` with unequal sizes.
    """
    if scale not in ("none", "minmax"):
        raise ConfigError(f'scale must be "none" or "minmax", got {scale!r}')
    real, synthetic = _pair(real, synthetic)
    if peer and len(real) != len(synthetic):
        raise ConfigError(
            f"the peers' authenticity needs equal sizes, got {len(real)} real, {len(synthetic)} synthetic"
        )
    ranges = column_ranges(real) if scale == "minmax" else None
    levels = alpha_beta_levels(real, synthetic, ranges, mesh=mesh)
    other = levels.to_other.squared[:, 0]
    if peer:
        authenticity = np.mean(other[levels.to_synthetic.index[:, 0]] < levels.to_synthetic.squared[:, 0])
    else:
        authenticity = authentic_share(nearest(synthetic, real, scale=ranges, mesh=mesh), other)
    return {
        "alpha_precision": score(levels.alpha, levels.precision),
        "beta_recall": score(levels.alpha, levels.recall),
        "authenticity": float(authenticity),
    }


def coverage(
    real: Flows, synthetic: Flows, *, k: int = 5, mesh: jax.sharding.Mesh | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """All figures and curves of coverage, from neighbours that are computed once.

    Precision, recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020) take balls
    around flows up to their k-th neighbour in the own set, the flow itself left out and duplicates of it not; the
    border belongs to a ball. A set of n <= k flows has its (n - 1)-th neighbour there, and a single synthetic flow a
    ball of radius 0. Density divides by the neighbours that were taken.

    Args:
        real: flows or rows [n, d], n >= 2.
        synthetic: flows or rows [m, d], m >= 1.
        k: neighbours of precision, recall, density and coverage.
        mesh: devices to use; all where None.

    Returns:
        Figures: `alpha_precision`, `beta_recall`, `authenticity` (see `alpha_beta`, without scaling),
        `alpha_precision_minmax`, `beta_recall_minmax`; `precision`, `recall`, `density`, `coverage`; `used_share`, the
        share of real flows that are the nearest (the first of equally near ones) of a synthetic one; `mean_nearest`,
        the mean Euclidean distance of synthetic flows to their nearest real one, in bytes; `mean_nearest_real`, of real
        flows to their nearest synthetic one.
        Curves: `alpha`, `alpha_curve`, `beta_curve` [30]; `nearest_quantiles` and `nearest_real_quantiles` [101]: these
        distances at 0, 1, .., 100 %; `index_share` [101]: share of synthetic flows whose nearest is among the first
        0, 1, .., 100 % of the real ones, the most used first.

    Raises:
        ConfigError: what `rows.pair_of` refuses, a single real flow, or k < 1.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    real, synthetic = _pair(real, synthetic)
    k_real, k_synthetic = min(k, len(real) - 1), min(k, len(synthetic) - 1)
    others = nearest(real, real, k_real, same=True, mesh=mesh)
    levels = alpha_beta_levels(real, synthetic, others=others, mesh=mesh)
    scaled = alpha_beta_levels(real, synthetic, column_ranges(real), mesh=mesh)
    to_real = nearest(synthetic, real, mesh=mesh)
    radius = others.squared[:, -1]
    own_radius = (
        nearest(synthetic, synthetic, k_synthetic, same=True, mesh=mesh).squared[:, -1]
        if k_synthetic
        else np.zeros(1, others.squared.dtype)
    )
    around = within(synthetic, real, radius, mesh=mesh)
    distance, distance_real = (np.sqrt(found.squared[:, 0]) for found in (to_real, levels.to_synthetic))
    used = np.sort(np.bincount(to_real.index[:, 0], minlength=len(real)))[::-1]
    figures = {
        "alpha_precision": score(levels.alpha, levels.precision),
        "beta_recall": score(levels.alpha, levels.recall),
        "alpha_precision_minmax": score(scaled.alpha, scaled.precision),
        "beta_recall_minmax": score(scaled.alpha, scaled.recall),
        "authenticity": authentic_share(to_real, others.squared[:, 0]),
        "precision": np.mean(around > 0),
        "recall": np.mean(within(real, synthetic, own_radius, mesh=mesh) > 0),
        "density": np.mean(around) / k_real,
        "coverage": np.mean(levels.to_synthetic.squared[:, 0] <= radius),
        "used_share": np.mean(used > 0),
        "mean_nearest": np.mean(distance),
        "mean_nearest_real": np.mean(distance_real),
    }
    percent = np.linspace(0, 1, 101)
    # Between two records the curve is a straight line, so it reads the same for any number of real flows.
    used_first = np.concatenate([[0], np.cumsum(used)]) / len(synthetic)
    curves = {
        "alpha": levels.alpha,
        "alpha_curve": levels.precision,
        "beta_curve": levels.recall,
        "nearest_quantiles": np.quantile(distance, percent),
        "nearest_real_quantiles": np.quantile(distance_real, percent),
        "index_share": np.interp(percent * len(real), np.arange(len(real) + 1), used_first),
    }
    return {name: float(value) for name, value in figures.items()}, {name: c.tolist() for name, c in curves.items()}


def alpha_beta_levels(
    real: np.ndarray,
    synthetic: np.ndarray,
    scale: np.ndarray | None = None,
    *,
    others: Nearest | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Levels:
    """The two curves of `alpha_beta` and the neighbours they come from.

    Args:
        real: rows [n, d] as `rows.pair_of` gives them.
        synthetic: rows [m, d] likewise.
        scale: [d] what columns are divided by, or None.
        others: the nearest other real row of each real one in the same scale, where it is known already.
        mesh: devices to use; all where None.
    """
    alpha = np.linspace(0, 1, N_LEVELS)
    others = nearest(real, real, same=True, scale=scale, mesh=mesh) if others is None else others
    found = nearest(real, synthetic, scale=scale, mesh=mesh)
    centre, own_centre = real.mean(axis=0), synthetic.mean(axis=0)
    radius = np.quantile(_norms(real, centre, scale), alpha)
    precision = (_norms(synthetic, centre, scale)[:, None] <= radius).mean(axis=0)
    depth = _norms(synthetic[found.index[:, 0]], own_centre, scale)
    covered = found.squared[:, 0] <= others.squared[:, 0]
    recall = (covered[:, None] & (depth[:, None] <= np.quantile(depth, alpha))).mean(axis=0)
    return Levels(alpha, precision, recall, found, others)


def score(alpha: np.ndarray, curve: np.ndarray) -> float:
    """1 - sum |alpha - curve| / sum alpha: a plain sum over the grid, 1 for the diagonal."""
    return float(1 - np.abs(alpha - curve).sum() / alpha.sum())


def authentic_share(to_real: Nearest, squared_other: np.ndarray) -> float:
    """Share of synthetic rows further from their nearest real row than that is from its nearest other real row.

    Args:
        to_real: nearest real row of each synthetic one.
        squared_other: [n real] squared distance of each real row to the nearest other.
    """
    return float(np.mean(to_real.squared[:, 0] > squared_other[to_real.index[:, 0]]))


def column_ranges(real: np.ndarray) -> np.ndarray:
    """[d] largest minus smallest value of each column, 1 for constant columns."""
    ranges = real.max(axis=0).astype(np.float64) - real.min(axis=0)
    return np.where(ranges > 0, ranges, 1.0)


def _norms(rows: np.ndarray, centre: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    offset = rows - centre
    return np.linalg.norm(offset if scale is None else offset / scale, axis=1)


def _pair(real: Flows, synthetic: Flows) -> tuple[np.ndarray, np.ndarray]:
    real, synthetic = pair_of(real, synthetic)
    if len(real) < 2:
        raise ConfigError("coverage needs at least two real flows, since it asks for the nearest other real flow")
    return real, synthetic
