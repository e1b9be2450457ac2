"""Train on synthetic, test on real: utility and augmentation gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtraffic.classify.scores import f1_difference_stderr, f1_scores
from jaxtraffic.classify.trees import fit_arrays
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.classification import features
from jaxtraffic.series import PacketSeries


def utility(
    train: PacketSeries,
    synthetic: PacketSeries,
    test: PacketSeries,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Trains XGBoost once on real flows and once on synthetic ones and tests both on real flows.

    Args:
        train: real flows, the ones that the generator learnt from.
        synthetic: generated flows, usually as many with the same labels.
        test: real flows that neither saw.
        seed: seed of XGBoost and of the standard errors.
        params: changes to `XGBOOST_PARAMETERS`.

    Returns:
        `weighted_f1_real`, `weighted_f1_synthetic`, `weighted_f1_gap` (synthetic - real, a fraction: 0 is as good as
        real flows, below 0 worse), `weighted_f1_gap_stderr` (test flows only), and the same with `macro`.

    Raises:
        ConfigError: an empty set, other class names or another length, unknown parameters.
    """
    check_alike(train=train, synthetic=synthetic, test=test)
    x, y = features(test), np.asarray(test.label)
    real, generated = (predict(flows, x, seed, params) for flows in (train, synthetic))
    return utility_of(y, real, generated, seed)


def augmentation(
    train: PacketSeries,
    synthetic: PacketSeries,
    test: PacketSeries,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Trains XGBoost on real flows and on real and synthetic flows together and tests both on real flows.

    Arguments and errors are those of `utility`.

    Returns:
        `weighted_f1` of the joined set, `weighted_f1_gain` (joined - real alone, a fraction: above 0 the synthetic
        flows help), `weighted_f1_gain_stderr` (test flows only), and the same with `macro`.
    """
    check_alike(train=train, synthetic=synthetic, test=test)
    x, y = features(test), np.asarray(test.label)
    real, joined = predict(train, x, seed, params), predict((train, synthetic), x, seed, params)
    return augmentation_of(y, real, joined, seed)


def predict(
    train: PacketSeries | tuple[PacketSeries, ...], x: np.ndarray, seed: int, params: Mapping[str, Any] | None
) -> np.ndarray:
    """Labels [flow] of the test rows x, by XGBoost trained on one set or on several together."""
    parts = (train,) if isinstance(train, PacketSeries) else train
    rows = np.concatenate([features(part) for part in parts])
    labels = np.concatenate([np.asarray(part.label) for part in parts])
    return fit_arrays(rows, labels, params, seed).predict(x)


def utility_of(y: np.ndarray, real: np.ndarray, generated: np.ndarray, seed: int = 0) -> dict[str, float]:
    """The figures of `utility` from the labels y and the predictions after training on real and on generated flows."""
    before, after, stderr = f1_scores(y, real), f1_scores(y, generated), f1_difference_stderr(y, real, generated, seed)
    figures = {}
    for name in before:
        figures |= {
            f"{name}_real": before[name],
            f"{name}_synthetic": after[name],
            f"{name}_gap": after[name] - before[name],
            f"{name}_gap_stderr": stderr[name],
        }
    return figures


def augmentation_of(y: np.ndarray, real: np.ndarray, joined: np.ndarray, seed: int = 0) -> dict[str, float]:
    """The figures of `augmentation` from the labels y and the predictions after training on real and on both."""
    before, after, stderr = f1_scores(y, real), f1_scores(y, joined), f1_difference_stderr(y, real, joined, seed)
    figures = {}
    for name in before:
        figures |= {
            name: after[name],
            f"{name}_gain": after[name] - before[name],
            f"{name}_gain_stderr": stderr[name],
        }
    return figures


def check_alike(**sets: PacketSeries) -> None:
    """Raises ConfigError where a set is empty, or its class names or length differ from those of the first set."""
    (first_name, first), *_ = sets.items()
    for name, flows in sets.items():
        if not len(flows):
            raise ConfigError(f"{name} holds no flows")
        if flows.class_names != first.class_names:
            raise ConfigError(f"{name} and {first_name} have different class names; labels would not mean the same")
        if flows.length != first.length:
            raise ConfigError(f"{name} has {flows.length} packet positions, {first_name} has {first.length}")
