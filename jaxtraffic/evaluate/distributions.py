"""One feature at a time and two at a time: Kolmogorov-Smirnov, Wasserstein, Jensen-Shannon and Pearson."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import rel_entr

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.rows import n_packets, pair_of
from jaxtraffic.series import PacketSeries


def density(
    real: PacketSeries | np.ndarray, synthetic: PacketSeries | np.ndarray
) -> tuple[dict[str, float | int], dict[str, Any]]:
    """How alike single features are; blind to everything between features, so `marginals` scores about 1.

    A column is a packet position; flows that have ended there count with size 0, as in the published results
    (thesis Table 8.13, whose KST is `ks_complement`; sdmetrics and TabSyn call its mean the shape score).

    Args:
        real: PacketSeries, or numbers [flow, feature].
        synthetic: the same, with as many columns; the number of flows is free.

    Returns:
        Figures: `ks_complement`: mean over columns of 1 - D, in [0, 1], 1 is best; `wasserstein`: mean over columns of
        the Wasserstein-1 distance, in the data's unit (bytes for a PacketSeries), 0 is best; `js_direction`: mean over
        positions of the Jensen-Shannon divergence (nats, at most ln 2) between the shares of the signs -1, 0 and +1;
        `js_length`: that of the number of packets up to the last non-zero value; `n_columns`.
        Curves: `ks_complement`, `wasserstein` and `js_direction`, a list of one value per column.

    Raises:
        ConfigError: what `rows.pair_of` refuses.
    """
    rows = pair_of(real, synthetic)
    columns = [np.sort(np.ascontiguousarray(side.T), axis=1) for side in rows]
    distances = np.array([_cdf_distances(a, b) for a, b in zip(*columns, strict=True)])
    signs = [np.stack([(np.sign(side) == sign).mean(0) for sign in (-1, 0, 1)], axis=1) for side in rows]
    n_columns = rows[0].shape[1]
    lengths = [np.bincount(n_packets(side), minlength=n_columns + 1) / len(side) for side in rows]
    curves = {
        "ks_complement": 1 - distances[:, 0],
        "wasserstein": distances[:, 1],
        "js_direction": _divergence(*signs),
    }
    figures = {name: float(values.mean()) for name, values in curves.items()}
    figures |= {"js_length": float(_divergence(*lengths)), "n_columns": n_columns}
    return figures, {name: values.tolist() for name, values in curves.items()}


def correlation(
    real: PacketSeries | np.ndarray, synthetic: PacketSeries | np.ndarray
) -> tuple[dict[str, float | int], dict[str, Any]]:
    """How alike linear dependence between features is; see `pearson_similarity` (thesis Table 8.13).

    A column that is constant on either side has no correlation. It is skipped and counted, so that a generator which
    makes columns constant is seen in `n_constant_columns` and not in `similarity`.

    Args:
        real: PacketSeries, or numbers [flow, feature].
        synthetic: the same, with as many columns.

    Returns:
        Figures: `similarity`: mean over pairs of columns of 1 - |r - r'| / 2, in [0, 1], 1 is best, no such key where
        no pair is left; `n_pairs`; `n_constant_columns`. Curves: none.

    Raises:
        ConfigError: what `rows.pair_of` refuses.
    """
    similarity = pearson_similarity(real, synthetic)
    upper = similarity[np.triu_indices(len(similarity), k=1)]
    pairs = upper[~np.isnan(upper)]
    figures: dict[str, float | int] = {"similarity": float(pairs.mean())} if pairs.size else {}
    constant = int(np.isnan(np.diagonal(similarity)).sum())
    return figures | {"n_pairs": int(pairs.size), "n_constant_columns": constant}, {}


def ks_complement(real: np.ndarray, synthetic: np.ndarray) -> float:
    """1 - D of the two-sample Kolmogorov-Smirnov test of one numeric column, [n] and [m]; 1 is best.

    The same as sdmetrics' KSComplement on integers. sdmetrics rounds to 14 decimals first, which makes ties of floating
    point numbers that are not equal, and gives NaN for an empty column; here nothing is rounded and empty is refused.

    Raises:
        ConfigError: a column that is empty, has another shape, or holds NaN or infinity.
    """
    return 1 - _cdf_distances(*_sorted_pair(real, synthetic))[0]


def wasserstein(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Wasserstein-1 distance of one numeric column, [n] and [m], in its unit; as `scipy.stats.wasserstein_distance`.

    synthcity's distance of that name is another: Sinkhorn over all columns at once after scaling each to [0, 1].

    Raises:
        ConfigError: a column that is empty, has another shape, or holds NaN or infinity.
    """
    return _cdf_distances(*_sorted_pair(real, synthetic))[1]


def jensen_shannon(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Jensen-Shannon divergence (nats, 0 to ln 2) of one categorical column, [n] and [m], of any values that compare.

    It is the square of `scipy.spatial.distance.jensenshannon`, which is a distance, on the observed shares. synthcity
    instead cuts a column into at most 10 bins, adds 1 to shares that are normalised already, and takes the root.

    Raises:
        ConfigError: a column that is empty, has another shape or holds NaN or None; text against numbers.
    """
    columns = [np.asarray(values) for values in (real, synthetic)]
    for name, values in zip(("real", "synthetic"), columns, strict=True):
        if values.ndim != 1 or not values.size:
            raise ConfigError(f"{name} must be one column [flow] with at least one value, got shape {values.shape}")
        # NaN of any type is the one value that differs from itself
        if (values != values).any() or (values.dtype == object and any(value is None for value in values)):
            raise ConfigError(f"{name} holds NaN or None; give missing values a category of their own")
    is_number = [values.dtype.kind in "biufc" for values in columns]
    try:
        if is_number[0] != is_number[1]:
            raise TypeError
        code = np.unique(np.concatenate(columns), return_inverse=True)[1]
    except TypeError:
        kinds = " and ".join(str(values.dtype) for values in columns)
        raise ConfigError(
            f"real and synthetic must hold categories that compare with each other, got {kinds}"
        ) from None
    n_real = len(columns[0])
    shares = [np.bincount(part, minlength=code.max() + 1) / len(part) for part in (code[:n_real], code[n_real:])]
    return float(_divergence(*shares))


def pearson_similarity(real: PacketSeries | np.ndarray, synthetic: PacketSeries | np.ndarray) -> np.ndarray:
    """1 - |r - r'| / 2 of Pearson's r on both sides, for each pair of columns; NaN where a column is constant.

    The same as sdmetrics' CorrelationSimilarity of two columns, which refuses a constant column with an error instead.
    TabSyn's trend score is its mean over pairs.

    Args:
        real: PacketSeries, or numbers [flow, feature].
        synthetic: the same, with as many columns.

    Returns:
        [feature, feature] float64, symmetric; NaN in row and column of a feature that is constant on either side.

    Raises:
        ConfigError: what `rows.pair_of` refuses.
    """
    sides = pair_of(real, synthetic)
    # by comparison and not by a variance of 0: the mean of equal floating point numbers need not be their value
    constant = np.any([side.min(0) == side.max(0) for side in sides], axis=0)
    similarity = 1 - np.abs(np.subtract(*map(_correlations, sides))) / 2
    similarity[constant] = np.nan
    similarity[:, constant] = np.nan
    return similarity


def _correlations(rows: np.ndarray) -> np.ndarray:
    """Pearson's r of all pairs of columns; meaningless for constant ones."""
    # scaled before it is squared, so that values of any magnitude neither overflow nor vanish
    largest = np.maximum(rows.max(0).astype(np.float64), -rows.min(0).astype(np.float64))
    centred = rows / np.where(largest > 0, largest, 1)
    centred -= centred.mean(0)
    products = centred.T @ centred
    spread = np.sqrt(np.diagonal(products))
    spread = np.where(spread > 0, spread, 1)
    return np.clip(products / spread / spread[:, None], -1, 1)


def _sorted_pair(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    columns = [np.asarray(values) for values in (real, synthetic)]
    for name, values in zip(("real", "synthetic"), columns, strict=True):
        if values.ndim != 1:
            raise ConfigError(f"{name} must be one column [flow] of numbers, got shape {values.shape}")
    a, b = pair_of(columns[0][:, None], columns[1][:, None])
    return np.sort(a[:, 0]), np.sort(b[:, 0])


def _cdf_distances(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Largest gap between the distribution functions of two sorted columns, and the area between them."""
    values = np.sort(np.concatenate([a, b]))
    # integers repeat: looking up distinct values only is what makes this fast
    values = values[np.append(True, values[1:] != values[:-1])]
    gap = np.abs(a.searchsorted(values, side="right") / len(a) - b.searchsorted(values, side="right") / len(b))
    return float(gap.max()), float(gap[:-1] @ np.diff(values.astype(np.float64)))


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence (nats) of shares along the last axis."""
    middle = (p + q) / 2
    # rounding may leave a little less than 0
    return np.maximum((rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / 2, 0)
