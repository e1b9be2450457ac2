"""The judge's classifier (XGBoost on signed sizes) and its F1 scores."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xgboost
from sklearn.metrics import f1_score

from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

N_PACKETS = 30
"""Packets of a flow that the judges see, as in the published results."""

XGBOOST_PARAMETERS: dict[str, Any] = {
    "n_estimators": 100,
    "max_depth": 6,
    "learning_rate": 0.3,
    "min_child_weight": 1.0,
    "subsample": 1.0,
    "lambda": 1.0,
    "tree_method": "hist",
}
"""Parameters of every judge unless others are given: XGBoost's own defaults, spelled out.

Fixed on purpose. A judge that is tuned on one set favours that set; these values sit inside the published search space
(see `tune`), use every row in every tree, so that nothing depends on a random draw, and take seconds on a laptop. They
are spelled out so that a later XGBoost with other defaults still gives the same judge. `nthread` may be given
too; where it is not, a fit uses one thread for every 20,000 flows: with fewer flows, threads wait for each other more
than they work, and on a machine that others use too a fit of seconds was seen to take minutes.
"""

_MORE_PARAMETERS = ("alpha", "colsample_bytree", "device", "gamma", "max_bin", "nthread")
_FLOWS_PER_THREAD = 20_000
_RESAMPLES = 200


def features(flows: PacketSeries) -> np.ndarray:
    """Signed sizes (bytes) of the first 30 packets, [flow, packet] float32; padding is 0, shorter series stay shorter.

    Raises:
        ConfigError: no flows, or no packet positions.
    """
    signed = np.asarray(flows.signed_size)[:, :N_PACKETS]
    if 0 in signed.shape:
        raise ConfigError(f"{flows.name}: a judge needs at least one flow and one packet, got shape {signed.shape}")
    return signed.astype(np.float32)


def resolve_parameters(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """`XGBOOST_PARAMETERS` with `params` on top.

    Raises:
        ConfigError: a parameter that the judge does not take.
    """
    known = (*XGBOOST_PARAMETERS, *_MORE_PARAMETERS)
    unknown = sorted(set(params or {}) - set(known))
    if unknown:
        raise ConfigError(f"unknown XGBoost parameter {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return XGBOOST_PARAMETERS | dict(params or {})


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A fitted judge.

    Attributes:
        classes: [class] labels seen in training, sorted; any integers.
        booster: the trees, or None where training saw one class only (which is then always the answer).
    """

    classes: np.ndarray
    booster: xgboost.Booster | None

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Labels [flow] of the feature rows x [flow, feature]."""
        if self.booster is None:
            return np.full(len(x), self.classes[0])
        scores = self.booster.inplace_predict(x)
        index = (scores > 0.5).astype(np.int64) if len(self.classes) == 2 else scores.argmax(axis=1)
        return self.classes[index]


def fit(train: PacketSeries, params: Mapping[str, Any] | None = None, seed: int = 0) -> Classifier:
    """Fits XGBoost on the labels of `train`; see `fit_arrays`."""
    return fit_arrays(features(train), np.asarray(train.label), params, seed)


def fit_arrays(x: np.ndarray, y: np.ndarray, params: Mapping[str, Any] | None = None, seed: int = 0) -> Classifier:
    """Fits XGBoost; classes that are missing from y are simply never predicted, and labels need not be contiguous.

    Args:
        x: [flow, feature] float32.
        y: [flow] integer labels.
        params: changes to `XGBOOST_PARAMETERS`.
        seed: seed of XGBoost; it matters only with subsampling.

    Raises:
        ConfigError: unknown parameters, or values that XGBoost refuses.
    """
    options = resolve_parameters(params)
    rounds = options.pop("n_estimators")
    classes, index = np.unique(y, return_inverse=True)
    if len(classes) == 1:
        return Classifier(classes, None)
    options |= {"seed": seed, "verbosity": 0}
    options.setdefault("nthread", max(1, min(n_cores(), len(x) // _FLOWS_PER_THREAD)))
    if len(classes) == 2:
        options["objective"] = "binary:logistic"
    else:
        options |= {"objective": "multi:softprob", "num_class": len(classes)}
    try:
        booster = xgboost.train(options, xgboost.DMatrix(x, label=index), num_boost_round=int(rounds))
    except xgboost.core.XGBoostError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"XGBoost refuses its parameters {dict(params or {})}: {reason}") from error
    return Classifier(classes, booster)


def f1_scores(y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """`weighted_f1` and `macro_f1` (scikit-learn) over the labels that occur in y.

    A class that is predicted but does not occur in y lowers the precision of no class of y, only the recall; it is no
    row of the macro average. A class of y that is never predicted counts as 0.
    """
    present = np.unique(y)
    return {
        f"{average}_f1": float(f1_score(y, predicted, labels=present, average=average, zero_division=0))
        for average in ("weighted", "macro")
    }


def f1_per_class(y: np.ndarray, predicted: np.ndarray) -> dict[int, float]:
    """F1 of each label that occurs in y."""
    present = np.unique(y)
    scores = f1_score(y, predicted, labels=present, average=None, zero_division=0)
    return {int(label): float(score) for label, score in zip(present, scores)}


def f1_difference_stderr(y: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Standard errors of the F1 differences of two classifiers on the same test flows, `weighted_f1` and `macro_f1`.

    Paired bootstrap over the test flows (200 resamples): it says how far the gap would move with other test flows, not
    with another training set.
    """
    generator = np.random.default_rng(seed)
    labels, codes = np.unique(np.concatenate([y, first, second]), return_inverse=True)
    y, first, second = codes.reshape(3, -1)
    differences = []
    for _ in range(_RESAMPLES):
        rows = generator.integers(len(y), size=len(y))
        scores = [_weighted_and_macro(y[rows], predicted[rows], len(labels)) for predicted in (first, second)]
        differences.append(scores[1] - scores[0])
    weighted, macro = np.std(differences, axis=0, ddof=1)
    return {"weighted_f1": float(weighted), "macro_f1": float(macro)}


def _weighted_and_macro(y: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """[2] weighted and macro F1 over the classes that occur in y, by counting: a hundred times faster than sklearn."""
    support = np.bincount(y, minlength=n_classes)
    hits = np.bincount(y[y == predicted], minlength=n_classes)
    f1 = 2 * hits / np.maximum(support + np.bincount(predicted, minlength=n_classes), 1)
    return np.array([f1 @ support / support.sum(), f1[support > 0].mean()])
