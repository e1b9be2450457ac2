"""Comparing methods over many folds or data sets: ranks, Friedman, Nemenyi, Wilcoxon, Holm, means with intervals.

Scores are arrays [block, method]; a block is one fold and seed of a data set, or one data set, on which all methods
ran. Every test and interval here takes blocks for independent. Folds of one data set share training flows and are not:
their number overstates significance, so paired differences with intervals belong beside the ranks. Source: Demsar,
"Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from jaxtraffic.errors import ConfigError

_DIGITS = 12
"""Decimals, relative to the largest value, that differences keep: equal ones must tie, whatever their rounding."""
_MOST_EXACT = 200
"""Blocks up to which the signed-rank test counts all signs: time grows with the cube."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean of `n` values with its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float
    half_width: float
    n: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods compared by their ranks, best first; what a critical-distance diagram shows.

    Attributes:
        names: of the methods, best (lowest mean rank) first.
        mean_ranks: in the order of `names`; 1 is the best possible.
        p_value: of the Friedman test that all methods are alike.
        distance: Nemenyi's critical distance at `alpha`, in ranks.
        cliques: (first, last) indices into `names`: groups of two or more that the Nemenyi test cannot tell apart. They
            mean something only where `p_value < alpha`.
        statistic: of the Friedman test, chi-squared with one degree of freedom fewer than methods.
        n_blocks: N, the blocks that were ranked.
        alpha: level of both tests.
    """

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    p_value: float
    distance: float
    cliques: tuple[tuple[int, int], ...]
    statistic: float
    n_blocks: int
    alpha: float = 0.05

    @property
    def significant(self) -> bool:
        """Whether the Friedman test finds any difference at `alpha`."""
        return self.p_value < self.alpha


def ranks(scores: np.ndarray, higher_is_better: bool = True) -> np.ndarray:
    """Rank of each method in its block, [block, method] float64: 1 is the best, ties get the mean of their ranks.

    Raises:
        ConfigError: scores that are not [block, method] with two or more of each, or NaN among them.
    """
    scores = _scores(scores)
    return stats.rankdata(-scores if higher_is_better else scores, axis=1)


def friedman(scores: np.ndarray) -> tuple[float, float]:
    """Friedman's test that all methods rank alike: (statistic, p), corrected for ties.

    The statistic is compared with chi-squared, k - 1 degrees of freedom, and is the same whether high or low scores are
    the better ones. Unlike scipy's it takes two methods, and says (0, 1) where every block is one tie.

    Args:
        scores: [block, method].

    Raises:
        ConfigError: as `ranks`.
    """
    of_block = ranks(scores)
    n, k = of_block.shape
    middle = (k + 1) / 2
    # Ranks have less variance where they are tied; without ties `spread` is n k (k + 1) (k - 1) / 12.
    spread = float(((of_block - middle) ** 2).sum())
    if spread == 0:
        return 0.0, 1.0
    statistic = (k - 1) * float(((of_block.sum(axis=0) - n * middle) ** 2).sum()) / spread
    return statistic, float(stats.chi2.sf(statistic, k - 1))


def critical_distance(k: int, n: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical distance in mean ranks: q sqrt(k (k + 1) / (6 n)), q the studentised range over sqrt 2.

    Two of k methods ranked over n blocks differ at level `alpha` if their mean ranks lie further apart. 7 methods over
    30 blocks: 1.644; 18 over 80: 2.945.

    Args:
        k: number of methods, 2 or more.
        n: number of blocks, 2 or more.
        alpha: level, between 0 and 1.

    Raises:
        ConfigError: numbers outside these ranges.
    """
    for name, number in (("k, the number of methods", k), ("n, the number of blocks", n)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 2:
            raise ConfigError(f"critical_distance: {name}, must be a whole number of 2 or more, got {number!r}")
    _share("critical_distance: alpha", alpha)
    return _quantile(int(k), float(alpha)) * math.sqrt(k * (k + 1) / (6 * n))


@functools.lru_cache(maxsize=256)
def _quantile(k: int, alpha: float) -> float:
    return float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)


def cliques(mean_ranks: Sequence[float] | np.ndarray, distance: float) -> list[tuple[int, int]]:
    """Maximal groups whose mean ranks lie within `distance`: (first, last) positions in the order of rank, best first.

    In the order of rank each group is an interval; groups of one and groups inside another are left out.

    Args:
        mean_ranks: [method], in any order.
        distance: the critical distance, >= 0.

    Raises:
        ConfigError: ranks that are not one finite number a method, or a distance that is negative or NaN.
    """
    in_order = np.sort(_numbers("cliques: mean_ranks", mean_ranks, least=1))
    if not distance >= 0:
        raise ConfigError(f"cliques: distance must be 0 or more, got {distance}")
    found: list[tuple[int, int]] = []
    furthest = 0
    for first, low in enumerate(in_order):
        last = int(np.flatnonzero(in_order - low <= distance)[-1])
        if last > max(first, furthest):
            found.append((first, last))
        furthest = max(furthest, last)
    return found


def compare(
    scores: np.ndarray, names: Sequence[str], alpha: float = 0.05, *, higher_is_better: bool = True
) -> Comparison:
    """Mean ranks, Friedman's test, Nemenyi's critical distance and its groups; methods come back best first.

    Args:
        scores: [block, method].
        names: of the methods, all different.
        alpha: level of both tests.
        higher_is_better: False for losses and errors.

    Raises:
        ConfigError: as `ranks`; names that do not fit the columns; alpha not between 0 and 1.
    """
    of_block = ranks(scores, higher_is_better)
    n, k = of_block.shape
    names = [str(name) for name in names]
    if len(names) != k or len(set(names)) != k:
        raise ConfigError(f"compare: expected {k} different names, one for each column, got {names}")
    _share("compare: alpha", alpha)
    mean = of_block.mean(axis=0)
    order = np.argsort(mean, kind="stable")
    distance = critical_distance(k, n, alpha)
    statistic, p_value = friedman(scores)
    return Comparison(
        names=tuple(names[i] for i in order),
        mean_ranks=tuple(float(mean[i]) for i in order),
        p_value=p_value,
        distance=distance,
        cliques=tuple(cliques(mean, distance)),
        statistic=statistic,
        n_blocks=n,
        alpha=float(alpha),
    )


def wilcoxon(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Wilcoxon's signed-rank test of two methods over the same blocks: (smaller sum of ranks, two-sided p).

    Blocks where both are equal are dropped (Wilcoxon's own way); where all are, (0, 1). p is exact, also with ties, up
    to 200 blocks and normal beyond. Differences that agree to 12 digits of the largest score are tied.

    Args:
        a: [block] scores of one method.
        b: [block] scores of the other.

    Raises:
        ConfigError: arrays of unlike shape, NaN, or fewer than 2 blocks.
    """
    difference = _difference("wilcoxon", a, b)
    scale = max(float(np.abs(np.asarray(one, np.float64)).max()) for one in (a, b)) or 1.0
    difference = np.round(difference / scale, _DIGITS)
    difference = difference[difference != 0]
    if not len(difference):
        return 0.0, 1.0
    if len(difference) > _MOST_EXACT:
        result = stats.wilcoxon(difference, method="asymptotic")
        return float(result.statistic), float(result.pvalue)
    # Doubled, so that the ranks of ties are whole numbers too.
    doubled = np.rint(2 * stats.rankdata(np.abs(difference))).astype(np.int64)
    positive = int(doubled[difference > 0].sum())
    smaller = min(positive, int(doubled.sum()) - positive)
    return smaller / 2, min(1.0, 2 * _chance_of_sum(doubled, smaller))


def _chance_of_sum(weights: np.ndarray, most: int) -> float:
    """Chance that the weights of fair coins that show heads add up to `most` or less."""
    chance = np.zeros(most + 1)
    chance[0] = 1.0
    for weight in weights:
        chance[weight:] += chance[: max(most + 1 - weight, 0)].copy()
        chance /= 2
    return float(chance.sum())


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction of m tests, [m] in the order given: reject where the corrected p is at most alpha.

    For many methods against one baseline. The chance of any false rejection stays below alpha, however the tests depend
    on one another.

    Raises:
        ConfigError: an empty list, NaN, or values outside [0, 1].
    """
    p = _numbers("holm: p_values", p_values, least=1)
    if p.min() < 0 or p.max() > 1:
        raise ConfigError(f"holm: p_values must lie between 0 and 1, got {p.min():g} to {p.max():g}")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of independent values with its interval by Student's t.

    Args:
        values: [n], 2 or more.
        level: of confidence, between 0 and 1.

    Raises:
        ConfigError: fewer than 2 values, NaN, not one axis, or a level outside (0, 1).
    """
    values = _numbers("mean_interval: values", values)
    _share("mean_interval: level", level)
    n = len(values)
    mean = float(values.mean())
    half_width = float(stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half_width, mean + half_width, half_width, n)


def paired_difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, level: float = 0.95
) -> Interval:
    """Mean of a - b over the blocks that both share, with its interval by Student's t.

    Args:
        a: [block] scores of a method.
        b: [block] scores of the baseline, same blocks in the same order.
        level: of confidence, between 0 and 1.

    Raises:
        ConfigError: arrays of unlike shape, NaN, fewer than 2 blocks, or a level outside (0, 1).
    """
    return mean_interval(_difference("paired_difference", a, b), level)


def _difference(what: str, a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    a, b = _numbers(f"{what}: a", a), _numbers(f"{what}: b", b)
    if a.shape != b.shape:
        raise ConfigError(f"{what}: a and b must be of the same blocks, got {len(a)} and {len(b)} scores")
    return a - b


def _array(what: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} must be numbers in rows of one length: {error}") from error


def _scores(scores: np.ndarray) -> np.ndarray:
    scores = _array("scores", scores)
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise ConfigError(
            f"scores must be [block, method] with 2 or more of each, got an array of shape {list(scores.shape)}"
        )
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        block, method = (int(i) for i in bad[0])
        raise ConfigError(
            f"scores must be finite, got {scores[block, method]} for block {block}, method {method} ({len(bad)} such); "
            "leave out the blocks that not every method finished"
        )
    return scores


def _numbers(what: str, values: Sequence[float] | np.ndarray, least: int = 2) -> np.ndarray:
    values = _array(what, values)
    if values.ndim != 1 or len(values) < least:
        raise ConfigError(f"{what} must be one row of {least} or more numbers, got shape {list(values.shape)}")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ConfigError(f"{what} must be finite, got {values[bad[0]]} at place {bad[0]} ({len(bad)} such)")
    return values


def _share(what: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{what} must lie between 0 and 1, got {value}")
