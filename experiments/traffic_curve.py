"""From point-wise values to a curve: bands over captures, increments, classes, and how many packets are enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.traffic_pages import Curve, Enough

SHARES = (90, 95, 99)
"""Per cent of what all packets hold, of which the answer speaks."""
RESAMPLES = 2000
BLOCK = 1 << 22
"""Weights of a bootstrap held at once."""
MOST_LEFT_OUT = 0.2
"""Share of flows that a method may have no value for."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The flows that a curve is measured on.

    Attributes:
        label: [flow] integers.
        group: [flow] integers, flows of one capture share a number; None: every flow stands for itself.
        class_names: names of the classes.
    """

    label: np.ndarray
    group: np.ndarray | None
    class_names: tuple[str, ...]

    @property
    def cluster(self) -> np.ndarray:
        """[flow] numbers 0, 1, ... of what is resampled as a whole."""
        if self.group is None:
            return np.arange(len(self.label))
        return np.unique(self.group, return_inverse=True)[1]


def resample(values: np.ndarray, held_out: HeldOut, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Means over flows under a cluster bootstrap: whole captures are drawn with replacement.

    The shares of the classes are held fixed (each draw is weighted back to them): information is that of a label with
    these shares, and without this a draw with fewer flows of the most frequent class would count as more information.
    A class that a draw misses keeps its mean.

    Args:
        values: [row, flow]; NaN is no value.
        held_out: the flows.
        seed: of NumPy's generator.
        resamples: number of draws.

    Returns:
        [resample, row] means.

    Source: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), sections 3.2 and 3.8.
    """
    cluster, label = held_out.cluster, held_out.label
    n = int(cluster.max()) + 1
    there = np.isfinite(values)
    result, weight = np.zeros((resamples, len(values))), np.zeros(len(values))
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // n)
    for start in range(0, resamples, block):
        drawn = rng.multinomial(n, np.full(n, 1 / n), min(block, resamples - start)).astype(np.float64)
        weight[:] = 0
        for y in np.unique(label):
            of_class = label == y
            members, inside = np.unique(cluster[of_class], return_inverse=True)
            totals = _sums(np.where(there, values, 0.0)[:, of_class], inside)
            counts = _sums(there[:, of_class], inside)
            share, mean = counts.sum(axis=0), totals.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
            chosen = drawn[:, members] @ counts
            means = np.where(chosen > 0, drawn[:, members] @ totals / np.maximum(chosen, 1), mean)
            result[start : start + block] += share * means
            weight += share
    return result / weight


def _sums(values: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """[row, flow] -> [cluster, row] sums."""
    return np.stack([np.bincount(cluster, row) for row in values.astype(np.float64)], axis=1)


def entropy(label: np.ndarray) -> tuple[float, float]:
    """H(label) in nats, plug-in, and the same with Miller and Madow's correction (classes seen - 1) / (2 n)."""
    count = np.bincount(label)
    share = count[count > 0] / len(label)
    plain = float(-(share * np.log(share)).sum())
    return plain, plain + (len(share) - 1) / (2 * len(label))


def enough(values: np.ndarray, packets: Sequence[int], share: float) -> np.ndarray:
    """[...] the least number of packets whose value reaches `share` of the largest; values [..., point].

    Where nothing is above 0 there are no shares, and it is the number with the largest value.
    """
    values = np.asarray(values)
    largest = values.max(axis=-1, keepdims=True)
    reached = values >= np.where(largest > 0, share, 1.0) * largest
    return np.asarray(packets)[reached.argmax(axis=-1)]


def make_curve(
    name: str,
    pointwise: np.ndarray,
    packets: Sequence[int],
    held_out: HeldOut,
    *,
    seed: int,
    seconds: float,
    warnings: Sequence[str] = (),
    control: float | None = None,
) -> Curve:
    """Everything that is said of one method's values.

    Args:
        name: of the method.
        pointwise: [point, flow] nats, of each held-out flow from the first packets[point] packets; their mean over
            flows is the estimate. NaN where the method leaves a flow out.
        packets: increasing numbers of packets.
        held_out: the flows.
        seed: of the bootstrap; every method and point sees the same draws.
        seconds: wall time of the method.
        warnings: of the method.
        control: the estimate from all packets after the labels were shuffled.

    Raises:
        ConfigError: values that are not finite, or do not fit the flows.
    """
    pointwise = np.asarray(pointwise, np.float64)
    if pointwise.shape != (len(packets), len(held_out.label)):
        raise ConfigError(f"{name}: values {pointwise.shape} for {len(packets)} points, {len(held_out.label)} flows")
    if np.isinf(pointwise).any() or np.isnan(pointwise).mean(axis=1).max() > MOST_LEFT_OUT:
        raise ConfigError(f"{name}: {int((~np.isfinite(pointwise)).sum())} values are not finite; training diverged?")
    draws = resample(pointwise, held_out, seed=seed)
    value, (low, high) = np.nanmean(pointwise, axis=1), _interval(draws)
    steps = np.diff(draws, axis=1, prepend=0.0)
    answers = {
        share: Enough(
            int(enough(value, packets, share / 100)),
            *(int(bound) for bound in _interval(enough(draws, packets, share / 100), method="nearest")),
        )
        for share in SHARES
    }
    onehot = (held_out.label[:, None] == np.arange(len(held_out.class_names))).astype(np.float64)
    there = np.isfinite(pointwise)
    with np.errstate(invalid="ignore"):
        per_class = (np.where(there, pointwise, 0.0) @ onehot / (there @ onehot)).T
    difference = draws[:, -1] - draws[:, value.argmax()]
    return Curve(
        name=name,
        packets=tuple(int(r) for r in packets),
        value=value,
        low=low,
        high=high,
        increment=np.diff(value, prepend=0.0),
        increment_low=_interval(steps)[0],
        increment_high=_interval(steps)[1],
        enough=answers,
        per_class=per_class,
        fall=(float(value[-1] - value.max()), *(float(bound) for bound in _interval(difference))),
        seconds=seconds,
        warnings=tuple(dict.fromkeys(warnings)),
        control=control,
    )


def _interval(draws: np.ndarray, method: str = "linear") -> np.ndarray:
    """[2, ...] the 2.5 and 97.5 % quantiles over resamples."""
    return np.quantile(draws, [0.025, 0.975], axis=0, method=method)
