"""Search for XGBoost parameters, for reports whose judge is to be tuned as in the published results."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.classification import f1_scores, features, fit_arrays
from jaxtraffic.evaluate.train_on_synthetic import check_alike
from jaxtraffic.series import PacketSeries


def tune(train: PacketSeries, validation: PacketSeries, *, trials: int = 30, seed: int = 0) -> dict[str, Any]:
    """Optuna's TPE search for the weighted F1 on `validation`, over the published search space.

    n_estimators 50-300 and learning_rate 0.1-1 on a log scale, max_depth 4-10, min_child_weight 1-50, subsample 0.5-1,
    lambda 0-3. The same arguments give the same answer.

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
    if trials < 1:
        raise ConfigError(f"tune needs at least one trial, got {trials}")
    x, y = features(train), np.asarray(train.label)
    x_validation, y_validation = features(validation), np.asarray(validation.label)

    def objective(trial: optuna.Trial) -> float:
        classifier = fit_arrays(x, y, _suggest(trial), seed)
        return f1_scores(y_validation, classifier.predict(x_validation))["weighted_f1"]

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        study.optimize(objective, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return dict(study.best_params)


def _suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 50, 300, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.1, 1.0, log=True),
        "max_depth": trial.suggest_int("max_depth", 4, 10),
        "min_child_weight": trial.suggest_float("min_child_weight", 1.0, 50.0),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "lambda": trial.suggest_float("lambda", 0.0, 3.0),
    }
