"""Search for the judge's XGBoost parameters, for reports whose judge is to be tuned as in the published results."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxtraffic.classify.trees import tune_arrays
from jaxtraffic.evaluate.classification import features
from jaxtraffic.evaluate.train_on_synthetic import check_alike
from jaxtraffic.series import PacketSeries


def tune(train: PacketSeries, validation: PacketSeries, *, trials: int = 30, seed: int = 0) -> dict[str, Any]:
    """Optuna's search over the published space (see `classify.trees.tune_arrays`) on the features of the judge.

    The same arguments give the same answer.

    Args:
        train: real flows to fit on.
        validation: real flows to score on; keep the test flows out of it.
        trials: parameter sets to try, one fit each.
        seed: seed of the search and of XGBoost.

    Returns:
        The best parameters, to be given as `params` to the judges.

    Raises:
        ConfigError: an empty set, other class names or another length, or fewer than one trial.
    """
    check_alike(train=train, validation=validation)
    y, y_validation = np.asarray(train.label), np.asarray(validation.label)
    return tune_arrays(features(train), y, features(validation), y_validation, trials=trials, seed=seed)
