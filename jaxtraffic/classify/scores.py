"""F1 scores of predicted labels, and how far their differences can be trusted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from jaxtraffic.errors import ConfigError

_RESAMPLES = 200


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


def scores_of_confusion(confusion: np.ndarray) -> dict[str, Any]:
    """The scores of a classifier from its confusion matrix, by the rules of `f1_scores`.

    Args:
        confusion: [true class, predicted class] numbers of test flows.

    Returns:
        `weighted_f1`, `macro_f1` (over the classes that have test flows), `accuracy`, and `per_class_f1`, a list with
        NaN for classes without test flows.

    Raises:
        ConfigError: a matrix that is not square, holds other than whole numbers from 0, or holds no flows.
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ConfigError(f"a confusion matrix is [true class, predicted class]; got shape {counts.shape}")
    if not (np.isfinite(counts).all() and (counts >= 0).all() and (counts == np.floor(counts)).all()):
        raise ConfigError("a confusion matrix holds numbers of flows, whole and from 0; got others")
    counts = counts.astype(np.int64)
    n_flows = int(counts.sum())
    if n_flows == 0:
        raise ConfigError("a confusion matrix without test flows has no scores")
    hits, support = np.diagonal(counts), counts.sum(axis=1)
    f1 = _f1_of_counts(hits, support, counts.sum(axis=0))
    return {
        "weighted_f1": float(f1 @ support / n_flows),
        "macro_f1": float(f1[support > 0].mean()),
        "accuracy": float(hits.sum() / n_flows),
        "per_class_f1": [float(score) if count else math.nan for score, count in zip(f1, support)],
    }


def capture_accuracy_gap(y: np.ndarray, first: np.ndarray, second: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """Accuracy of the second classifier minus that of the first, every group (capture) of test flows counting alike.

    Where a few captures hold most test flows, F1 is decided by whether these fall on one side; this is not.

    Args:
        y: labels [flow].
        first: predictions [flow].
        second: predictions [flow].
        group: [flow] number of each flow's capture.

    Returns:
        `capture_accuracy_gap`, a fraction; its standard error over captures; `n_captures`.
    """
    _, index, counts = np.unique(np.asarray(group), return_inverse=True, return_counts=True)
    right = (np.asarray(second) == y).astype(np.float64) - (np.asarray(first) == y)
    by_capture = np.bincount(index, right) / counts
    n = len(counts)
    stderr = by_capture.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return {
        "capture_accuracy_gap": float(by_capture.mean()),
        "capture_accuracy_gap_stderr": float(stderr),
        "n_captures": n,
    }


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
    f1 = _f1_of_counts(hits, support, np.bincount(predicted, minlength=n_classes))
    return np.array([f1 @ support / support.sum(), f1[support > 0].mean()])


def _f1_of_counts(hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """[class] F1 = 2 hits / (flows of the class + flows that were predicted to be), 0 where there are neither."""
    return 2 * hits / np.maximum(support + predicted, 1)
