"""What a campaign found, as plain records: gains with intervals, ranks and tests, policies, sampler, combinations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxtraffic.evaluate.statistics import Comparison, Interval
from jaxtraffic.report.campaign_results import Policy, Study

__all__ = [
    "LEVEL",
    "Benchmark",
    "Combined",
    "Convergence",
    "Gain",
    "Magnitude",
    "PolicyGain",
    "Sampler",
    "Summary",
]

LEVEL = 0.05
"""Below this p-value, corrected, a difference is called one."""


class Gain(NamedTuple):
    """A config against the baseline, paired by fold and seed; fractions, not per cent.

    Attributes:
        config, title, family: what it is.
        gain: mean difference of weighted F1 with its 95 % interval over blocks.
        macro: the same of macro F1.
        p: Wilcoxon's signed-rank test of the differences.
        p_holm: corrected for all rows of the table.
        mean_rank: among the baseline and all rows, 1 the best; NaN where no block has all of them.
        over_control: difference of weighted F1 to the control, None where there is none.
    """

    config: str
    title: str
    family: str
    gain: Interval
    macro: Interval
    p: float
    p_holm: float
    mean_rank: float
    over_control: Interval | None

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is beyond chance (corrected p), else 0."""
        return int(np.sign(self.gain.mean)) if self.p_holm < LEVEL else 0


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """G1: all augmentations beside the baseline.

    Attributes:
        baseline: its weighted F1.
        baseline_rank: its mean rank.
        control: difference of the control, no augmentation with as many steps, to the baseline; None without it.
        rows: one an augmentation, in the order of the study.
        comparison: ranks, Friedman's test and the critical distance; None with fewer than two blocks.
        blocks: (fold, seed) pairs that all configs share; those are ranked.
        left_out: blocks that only some of the configs have.
        by_fold: the comparison after averaging seeds within a fold; None where there is one seed or one fold.
        widening: factor by which Nadeau and Bengio's correction for overlapping training sets widens intervals.
        per_class: [augmentation, class] mean difference of F1, NaN where a class is in no test set.
    """

    baseline: Interval
    baseline_rank: float
    control: Interval | None
    rows: tuple[Gain, ...]
    comparison: Comparison | None
    blocks: tuple[tuple[int, int], ...]
    left_out: int
    by_fold: Comparison | None
    widening: float
    per_class: np.ndarray

    @property
    def best(self) -> Gain:
        """The row of the largest mean gain."""
        return max(self.rows, key=lambda row: row.gain.mean)

    @property
    def least_pairs(self) -> int:
        """Pairs below which no signed-rank test of so many, corrected, can fall below the level."""
        return next(n for n in range(2, 100) if len(self.rows) * 2.0 ** (1 - n) < LEVEL)

    @property
    def n_corrected(self) -> int:
        """How many rows stay on one side of 0 when their intervals are widened."""
        return sum(abs(row.gain.mean) > self.widening * row.gain.half_width for row in self.rows)


class Magnitude(NamedTuple):
    """An augmentation with drawn against fixed magnitude; the difference is drawn less fixed, as a fraction."""

    config: str
    fixed: str
    title: str
    scores: tuple[float, float]
    difference: Interval
    p: float
    p_holm: float


class PolicyGain(NamedTuple):
    """A batching policy against the baseline."""

    policy: Policy
    gain: Interval


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The class-weighted sampler under one augmentation.

    Attributes:
        config: without the sampler.
        title: of the augmentation.
        groups: "majority" and "minority" -> "with", "without" and "difference" -> precision, recall, weighted F1.
        weighted_f1: difference over all classes.
        n_classes: classes of the two groups.
    """

    config: str
    title: str
    groups: Mapping[str, Mapping[str, tuple[Interval, Interval, Interval]]]
    weighted_f1: Interval
    n_classes: tuple[int, int]


class Combined(NamedTuple):
    """G4: a single augmentation or a combination against the baseline and against the best single one."""

    config: str
    title: str
    single: bool
    gain: Interval
    over_best: Interval
    p_holm: float


@dataclasses.dataclass(frozen=True)
class Convergence:
    """How long the runs of a config took.

    Attributes:
        config, title: which.
        runs: how many.
        epochs: least, median and most.
        best_epoch: median of the epochs, from 1, whose parameters were judged.
        stopped: runs that ended at the limit instead of by patience; None where the limit is not known.
        seconds: of all its runs.
    """

    config: str
    title: str
    runs: int
    epochs: tuple[int, float, int]
    best_epoch: float
    stopped: int | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """All that a page shows; a study without results is None or empty."""

    study: Study
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    n_folds: int
    n_seeds: int
    n_runs: int
    benchmark: Benchmark | None
    magnitude: tuple[Magnitude, ...]
    magnitude_p: float
    policies: tuple[PolicyGain, ...]
    sampler: tuple[Sampler, ...]
    combined: tuple[Combined, ...]
    convergence: tuple[Convergence, ...]

    @property
    def seconds(self) -> float:
        """Of all runs."""
        return sum(row.seconds for row in self.convergence)

    @property
    def stopped(self) -> int | None:
        """Runs that ended at the limit; None where it is not known."""
        counts = [row.stopped for row in self.convergence]
        return None if None in counts else sum(count for count in counts if count is not None)
