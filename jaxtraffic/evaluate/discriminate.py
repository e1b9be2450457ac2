"""Discriminative score: how well XGBoost tells generated flows from real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtraffic.classify.trees import fit_arrays
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.classification import features
from jaxtraffic.evaluate.rows import first_of_each, row_keys
from jaxtraffic.series import PacketSeries

_TRAIN_SHARE = 0.8
FEWEST_FLOWS = 5
"""Flows that each side must have: one of them is left for the test."""


def discriminative_score(
    real: PacketSeries | np.ndarray,
    synthetic: PacketSeries | np.ndarray,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> dict[str, float | int]:
    """Accuracy above chance of XGBoost at telling generated flows from real ones; 0 is best, 0.5 worst.

    As many real as generated flows are drawn at random (the smaller number of the two), 80% of each train the
    classifier and the other 20% test it. TimeGAN (Yoon et al. 2019) takes the absolute value; this one keeps its sign,
    because a score clearly below 0 is a finding: rows that occur on both sides, as copies do, teach the classifier the
    wrong answer for their twins in the test part.

    Args:
        real: PacketSeries, or an array [flow, feature].
        synthetic: the same.
        seed: seed of the draw, the split and XGBoost.
        params: changes to `XGBOOST_PARAMETERS`.

    Returns:
        `score`: test accuracy - 0.5; `stderr`: its binomial standard error under chance, sqrt(0.25 / n_test);
        `n_test`: test flows, real and generated together.

    Raises:
        ConfigError: fewer than 5 flows on a side, NaN, different lengths, unknown parameters.
    """
    train, sides, test, truth = _split(real, synthetic, seed)
    right = fit_arrays(train, sides, params, seed).predict(test) == truth
    return {"score": float(right.mean() - 0.5), "stderr": float(np.sqrt(0.25 / right.size)), "n_test": int(right.size)}


def logistic_discriminative_score(
    real: PacketSeries | np.ndarray, synthetic: PacketSeries | np.ndarray, seed: int = 0
) -> dict[str, float | int]:
    """The discriminative score of a weak judge, logistic regression on standardised features, on the same split.

    It sees little but shifts of means, which any generator should get right: a set with a score above 0 here has
    plainer faults than those that only trees find. Features are centred and divided by their deviation in the training
    part (constant ones are left out by that); scikit-learn's regression with its L2 penalty of 1.

    Keys and errors are those of `discriminative_score`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, sides, test, truth = _split(real, synthetic, seed)
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    right = judge.fit(train.astype(np.float64), sides).predict(test.astype(np.float64)) == truth
    return {"score": float(right.mean() - 0.5), "stderr": float(np.sqrt(0.25 / right.size)), "n_test": int(right.size)}


def distinct_discriminative_score(
    real: PacketSeries | np.ndarray,
    synthetic: PacketSeries | np.ndarray,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> dict[str, float | int]:
    """The discriminative score on distinct sequences: each counts once a side, and none is in both train and test part.

    Frequent sequences rule the plain score, and a sequence that both sides share pulls it below 0. Here 80% of the
    distinct sequences of both sides train the classifier and the others test it, so that a perfect generator scores 0
    on average however many sequences repeat. Accuracy is the mean of both sides' accuracies, since their shares of the
    test part may differ by chance. Arguments, keys and errors are those of `discriminative_score`.
    """
    sides = [_rows(real, "real"), _rows(synthetic, "synthetic")]
    sides = [side[first_of_each(side)] for side in sides]
    n = _check_sides(sides)
    generator = np.random.default_rng(seed)
    rows = np.concatenate([side[generator.permutation(len(side))[:n]] for side in sides])
    labels = np.repeat([0, 1], n)
    distinct, sequence = np.unique(row_keys(rows), return_inverse=True)
    in_train = (generator.permutation(len(distinct)) < _TRAIN_SHARE * len(distinct))[sequence]
    classifier = fit_arrays(rows[in_train], labels[in_train], params, seed)
    truth = labels[~in_train]
    right = classifier.predict(rows[~in_train]) == truth
    accuracy = np.mean([right[truth == side].mean() for side in np.unique(truth)])
    return {"score": float(accuracy - 0.5), "stderr": float(np.sqrt(0.25 / right.size)), "n_test": int(right.size)}


def _split(
    real: PacketSeries | np.ndarray, synthetic: PacketSeries | np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, their sides (0 real, 1 synthetic), test rows, their sides."""
    sides = [_rows(real, "real"), _rows(synthetic, "synthetic")]
    n = _check_sides(sides)
    generator = np.random.default_rng(seed)
    sides = [side[generator.permutation(len(side))[:n]] for side in sides]
    cut = int(_TRAIN_SHARE * n)
    train, test = (np.concatenate([side[part] for side in sides]) for part in (slice(None, cut), slice(cut, None)))
    return train, np.repeat([0, 1], cut), test, np.repeat([0, 1], n - cut)


def _check_sides(sides: list[np.ndarray]) -> int:
    """The number of rows to draw from each side, or ConfigError."""
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ConfigError(f"real flows have {sides[0].shape[1]} features, synthetic ones {sides[1].shape[1]}")
    n = min(map(len, sides))
    if n < FEWEST_FLOWS:
        raise ConfigError(f"a discriminative score needs {FEWEST_FLOWS} flows on each side, got {n}")
    return n


def _rows(flows: PacketSeries | np.ndarray, name: str) -> np.ndarray:
    if isinstance(flows, PacketSeries):
        return features(flows)
    rows = np.asarray(flows)
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.number):
        raise ConfigError(f"{name} must be a PacketSeries or numbers [flow, feature], got shape {rows.shape}")
    rows = rows.astype(np.float32)
    if not np.isfinite(rows).all():
        raise ConfigError(f"{name} holds NaN or infinity")
    return rows
