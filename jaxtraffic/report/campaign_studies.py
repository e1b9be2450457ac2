"""The studies of a campaign computed from its runs: pairs by fold and seed, intervals, tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.statistics import Comparison, Interval, compare, holm, mean_interval, paired_difference
from jaxtraffic.evaluate.statistics import wilcoxon as signed_rank
from jaxtraffic.report.campaign_results import BASELINE, CONTROL, Runs, Study, family_of, per_class_gains, title_of
from jaxtraffic.report.campaign_summary import (
    LEVEL,
    Benchmark,
    Combined,
    Convergence,
    Gain,
    Magnitude,
    PolicyGain,
    Sampler,
    Summary,
)

__all__ = ["summarise"]


def summarise(
    results: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    class_counts: Sequence[int],
    study: Study | None = None,
) -> Summary:
    """All tables of a campaign, as numbers.

    Args:
        results: dicts as `dataclasses.asdict(classify.RunResult)`; any part of the studies may be missing.
        class_names: of the confusion matrices.
        class_counts: [class] flows of the whole set; classes with at least the median count are the majority.
        study: which config belongs to which table; None: what the names say.

    Raises:
        ConfigError: results that do not fit each other or the classes.
    """
    if len(class_counts) != len(class_names):
        raise ConfigError(f"{len(class_counts)} class_counts for {len(class_names)} class_names; give one a class")
    runs = Runs(results, class_names)
    study = Study.of(runs.names) if study is None else study
    benchmark = _benchmark(runs, study)
    magnitude, magnitude_p = _magnitude(runs, study)
    return Summary(
        study,
        tuple(class_names),
        tuple(int(count) for count in class_counts),
        len({run["fold"] for run in runs.all}),
        len({run["seed"] for run in runs.all}),
        len(runs.all),
        benchmark,
        magnitude,
        magnitude_p,
        tuple(
            PolicyGain(policy, _difference(runs, policy.config, BASELINE))
            for policy in study.policies
            if runs.has(policy.config, BASELINE)
        ),
        _sampler(runs, study, np.asarray(class_counts)),
        _combined(runs, study, benchmark),
        tuple(_convergence(name, runs.runs(name), study.max_epochs) for name in runs.names),
    )


def _benchmark(runs: Runs, study: Study) -> Benchmark | None:
    names = [name for name in study.augmentations if runs.has(name, BASELINE)]
    if not names:
        return None
    methods = (BASELINE, *names)
    blocks = runs.blocks(methods)
    scores = np.stack([runs.values(name, blocks) for name in methods], axis=1)
    titles = [title_of(name) for name in methods]
    comparison = compare(scores, titles, alpha=LEVEL) if len(blocks) >= 2 else None
    rank_of = dict(zip(comparison.names, comparison.mean_ranks)) if comparison is not None else {}
    p = [_wilcoxon(runs, name, BASELINE) for name in names]
    rows = [
        Gain(
            name,
            title_of(name),
            family_of(name),
            _difference(runs, name, BASELINE),
            _difference(runs, name, BASELINE, "macro_f1"),
            one,
            corrected,
            rank_of.get(title_of(name), math.nan),
            _difference(runs, name, CONTROL) if runs.has(name, CONTROL) else None,
        )
        for name, one, corrected in zip(names, p, _holm(p))
    ]
    anywhere = {block for name in methods for block in runs.blocks((name,))}
    base = runs.blocks((BASELINE,))
    return Benchmark(
        _mean(runs.values(BASELINE, base)),
        rank_of.get(titles[0], math.nan),
        _difference(runs, CONTROL, BASELINE) if runs.has(CONTROL, BASELINE) else None,
        tuple(rows),
        comparison,
        tuple(blocks),
        len(anywhere) - len(blocks),
        _by_fold(scores, blocks, titles) if comparison is not None else None,
        _widening(runs.runs(BASELINE)),
        per_class_gains(runs, names),
    )


def _by_fold(scores: np.ndarray, blocks: Sequence[tuple[int, int]], titles: Sequence[str]) -> Comparison | None:
    """The comparison of fold means: seeds of one fold share their test flows."""
    fold = np.array([block[0] for block in blocks])
    folds = np.unique(fold)
    if not 1 < len(folds) < len(blocks):
        return None
    return compare(np.stack([scores[fold == one].mean(axis=0) for one in folds]), titles, alpha=LEVEL)


def _widening(runs: Sequence[Mapping[str, Any]]) -> float:
    """sqrt(1 + J n_test / n_train) over J runs.

    Source: Nadeau and Bengio (2003), Inference for the generalization error: the variance of a mean over overlapping
    training sets is (1 / J + n_test / n_train) s^2.
    """
    ratio = [run["n_test"] / run["n_train"] for run in runs if run.get("n_train") and run.get("n_test")]
    return math.sqrt(1 + len(runs) * float(np.mean(ratio))) if ratio else math.nan


def _magnitude(runs: Runs, study: Study) -> tuple[tuple[Magnitude, ...], float]:
    pairs = [(fixed, drawn) for fixed, drawn in study.fixed.items() if runs.has(fixed, drawn)]
    p = [_wilcoxon(runs, drawn, fixed) for fixed, drawn in pairs]
    rows = []
    for (fixed, drawn), one, corrected in zip(pairs, p, _holm(p)):
        blocks = runs.blocks((fixed, drawn))
        scores = (float(runs.values(drawn, blocks).mean()), float(runs.values(fixed, blocks).mean()))
        rows.append(Magnitude(drawn, fixed, title_of(drawn), scores, _difference(runs, drawn, fixed), one, corrected))
    scores_of = np.array([row.scores for row in rows]).reshape(-1, 2)
    return tuple(rows), _signed_rank(scores_of[:, 0], scores_of[:, 1])


def _sampler(runs: Runs, study: Study, counts: np.ndarray) -> tuple[Sampler, ...]:
    majority = counts >= np.median(counts)
    found = []
    for weighted, plain in study.weighted.items():
        if not runs.has(weighted, plain):
            continue
        blocks, groups = runs.blocks((weighted, plain)), {}
        for group, members in (("majority", majority), ("minority", ~majority)):
            both = {"with": runs.grouped(weighted, blocks, members), "without": runs.grouped(plain, blocks, members)}
            # A small test set may hold no class of a group.
            there = np.isfinite(both["with"]).all(axis=1) & np.isfinite(both["without"]).all(axis=1)
            both = {key: values[there] for key, values in both.items()}
            rows = {key: tuple(_mean(values[:, k]) for k in range(3)) for key, values in both.items()}
            rows["difference"] = tuple(_paired(both["with"][:, k], both["without"][:, k]) for k in range(3))
            groups[group] = rows
        over_all = _difference(runs, weighted, plain)
        found.append(Sampler(plain, title_of(plain), groups, over_all, (int(majority.sum()), int((~majority).sum()))))
    return tuple(found)


def _combined(runs: Runs, study: Study, benchmark: Benchmark | None) -> tuple[Combined, ...]:
    combinations = [name for name in study.combinations if runs.has(name, BASELINE)]
    members = [name for name in study.members if runs.has(name, BASELINE)]
    if not members and benchmark is not None:
        members = [row.config for row in benchmark.rows]
    gains = {name: _difference(runs, name, BASELINE) for name in (*members, *combinations)}
    members = sorted(members, key=lambda name: -gains[name].mean)[:3]
    if not combinations or not members:
        return ()
    best = members[0]
    p = [_wilcoxon(runs, name, best) if runs.has(name, best) else math.nan for name in combinations]
    corrected = dict(zip(combinations, _holm(p)))
    return tuple(
        Combined(
            name,
            title_of(name),
            name in members,
            gains[name],
            _difference(runs, name, best),
            corrected.get(name, math.nan),
        )
        for name in (*members, *combinations)
    )


def _convergence(name: str, runs: Sequence[Mapping[str, Any]], limit: int | None) -> Convergence:
    epochs = [int(run["epochs"]) for run in runs]
    best = [run["best_epoch"] + 1 for run in runs if run.get("best_epoch") is not None]
    return Convergence(
        name,
        title_of(name),
        len(runs),
        (min(epochs), float(np.median(epochs)), max(epochs)),
        float(np.median(best)) if best else math.nan,
        None if limit is None else sum(count >= limit for count in epochs),
        float(sum(run.get("seconds") or 0.0 for run in runs)),
    )


def _difference(runs: Runs, name: str, other: str, field: str = "weighted_f1") -> Interval:
    blocks = runs.blocks((name, other))
    return _paired(runs.values(name, blocks, field), runs.values(other, blocks, field))


def _paired(first: np.ndarray, second: np.ndarray) -> Interval:
    """Of first less second; without an interval where there are fewer than two pairs."""
    if len(first) < 2:
        return _alone(first - second)
    return paired_difference(first, second)


def _mean(values: np.ndarray) -> Interval:
    return _alone(values) if len(values) < 2 else mean_interval(values)


def _alone(values: np.ndarray) -> Interval:
    mean = float(values[0]) if len(values) else math.nan
    return Interval(mean, math.nan, math.nan, math.nan, len(values))


def _wilcoxon(runs: Runs, name: str, other: str) -> float:
    blocks = runs.blocks((name, other))
    return _signed_rank(runs.values(name, blocks), runs.values(other, blocks))


def _signed_rank(first: np.ndarray, second: np.ndarray) -> float:
    """p of Wilcoxon's test; NaN with fewer than two pairs."""
    return float(signed_rank(first, second)[1]) if len(first) >= 2 else math.nan


def _holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for all tests that could be made; the others stay NaN."""
    p = np.array(p_values, dtype=np.float64)
    made = np.isfinite(p)
    if made.any():
        p[made] = holm(p[made])
    return [float(value) for value in p]
