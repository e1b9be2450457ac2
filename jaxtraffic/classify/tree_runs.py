"""XGBoost through the interface of the networks' campaigns: the same folds, the same results."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxtraffic.classify.config import RunResult
from jaxtraffic.classify.folds import check_flows, split_of
from jaxtraffic.classify.scores import scores_of_confusion
from jaxtraffic.classify.trees import XGBOOST_PARAMETERS, fit_arrays, tune_arrays
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

VIEWS = ("signed_size", "features")
SIDES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeRun(RunResult):
    """A finished run of XGBoost; `epochs` are its rounds of boosting, the last of them is judged.

    Attributes:
        model_size: nodes of all trees, splits and leaves.
        train_seconds: of the one fit that is judged, on this machine.
        tune_seconds: of the search, which all seeds of a fold share; 0 without one.
        parameters: what the search found; the others are those of `XGBOOST_PARAMETERS`.

    `seconds` is train_seconds and this run's share of tune_seconds.
    """

    model_size: int
    train_seconds: float
    tune_seconds: float
    parameters: dict[str, Any]


def tree_campaign(
    flows: PacketSeries,
    folds: Sequence[int],
    seeds: Sequence[int],
    *,
    n_folds: int = 10,
    length: int,
    tune_trials: int = 0,
    view: str = "signed_size",
    report: Callable[..., None] = lambda done, **figures: None,
) -> list[RunResult]:
    """Fits XGBoost on every fold with every seed, on the sides that a campaign of networks has.

    With a search, the parameters of a fold are those that do best on its validation flows, found once for the fold
    (with seed 0) and used with all seeds; the fit sees the training flows only, as the networks do. Without a search a
    fit draws nothing at random, so that all seeds of a fold give the same trees.

    Args:
        flows: labelled flows; whole groups (`flows.group`) stay on one side.
        folds: numbers of the folds, as `classify.folds.split_of` takes them: test is part `fold`, validation the next.
        seeds: of XGBoost, which subsamples rows where the search says so.
        n_folds: parts of a split.
        length: packets of a flow that are seen, from the first.
        tune_trials: fits of the search on each fold (thesis Table 8.6, see `tune_arrays`); 0 for no search.
        view: "signed_size" (size times direction, as in the thesis) or "features" (size, direction and inter-arrival
            time of each packet, what networks see).
        report: called as report(finished runs, trial=...) in a search and report(finished runs, weighted_f1=...).

    Returns:
        A `TreeRun` for each fold and seed, folds in order and seeds within; its config is "xgboost".

    Raises:
        ConfigError: flows that cannot be split, folds or seeds missing or below 0, an unknown view, a number of trials
            below 0.
    """
    check_flows(flows, n_folds, length)
    if not folds or not seeds:
        raise ConfigError(f"a campaign needs folds and seeds; got {len(folds)} and {len(seeds)}")
    if min(folds) < 0 or tune_trials < 0:
        raise ConfigError(f"folds and tune_trials are at least 0; got {min(folds)} and {tune_trials}")
    if view not in VIEWS:
        raise ConfigError(f"unknown view {view!r}; choose from {', '.join(VIEWS)}")
    for fold in folds:
        # before any fit: a fold that cannot be used should not end a campaign after hours
        split_of(flows, fold, n_folds)
    results: list[RunResult] = []
    for fold in folds:
        parts = split_of(flows, fold, n_folds)
        rows = {name: _rows(getattr(parts, name), length, view) for name in SIDES}
        clock, chosen = time.perf_counter(), {}
        if tune_trials:
            chosen = tune_arrays(
                *rows["train"],
                *rows["validation"],
                trials=tune_trials,
                report=lambda trial: report(len(results), trial=trial),
            )
        tune_seconds = time.perf_counter() - clock if tune_trials else 0.0
        rounds = int((XGBOOST_PARAMETERS | chosen)["n_estimators"])
        for seed in seeds:
            clock = time.perf_counter()
            model = fit_arrays(*rows["train"], chosen, seed)
            seconds = time.perf_counter() - clock
            confusion = _confusion(*rows["test"], model.predict, len(flows.class_names))
            x, label = rows["validation"]
            run = TreeRun(
                config="xgboost",
                fold=fold,
                seed=seed,
                epochs=rounds,
                best_epoch=rounds - 1,
                validation_accuracy=float((model.predict(x) == label).mean()),
                **scores_of_confusion(confusion),
                confusion=confusion.tolist(),
                n_train=len(parts.train),
                n_validation=len(parts.validation),
                n_test=len(parts.test),
                seconds=seconds + tune_seconds / len(seeds),
                model_size=model.n_nodes,
                train_seconds=seconds,
                tune_seconds=tune_seconds,
                parameters=chosen,
            )
            results.append(run)
            report(len(results), weighted_f1=run.weighted_f1)
    return results


def _rows(flows: PacketSeries, length: int, view: str) -> tuple[np.ndarray, np.ndarray]:
    """Feature rows [flow, feature] float32 and labels [flow]; 0 in padding."""
    label = np.asarray(flows.label)
    if view == "signed_size":
        return np.asarray(flows.signed_size)[:, :length].astype(np.float32), label
    x, _ = flows.arrays()
    return x[:, :length].reshape(len(flows), -1), label


def _confusion(
    x: np.ndarray, label: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], n_classes: int
) -> np.ndarray:
    """[true class, predicted class] numbers of flows."""
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (label, predict(x)), 1)
    return counts
