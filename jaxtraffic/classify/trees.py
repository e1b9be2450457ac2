"""XGBoost: its parameters, fits on arrays, the search for parameters, and how large the trees are."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import xgboost

from jaxtraffic.classify.scores import f1_scores
from jaxtraffic.errors import ConfigError

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
(see `tune_arrays`), use every row in every tree, so that nothing depends on a random draw, and take seconds on a
laptop. They are spelled out so that a later XGBoost with other defaults still gives the same judge. `nthread` may be
given too; where it is not, a fit uses one thread for every 20,000 flows: with fewer flows, threads wait for each other
more than they work, and on a machine that others use too a fit of seconds was seen to take minutes.
"""

_MORE_PARAMETERS = ("alpha", "colsample_bytree", "device", "gamma", "max_bin", "nthread")
_FLOWS_PER_THREAD = 20_000


def resolve_parameters(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """`XGBOOST_PARAMETERS` with `params` on top.

    Raises:
        ConfigError: a parameter that is not known here.
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
class TreeClassifier:
    """Fitted trees.

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

    @property
    def n_nodes(self) -> int:
        """Nodes of all trees, splits and leaves: the size of the model."""
        # a dump has a line for each node
        return 0 if self.booster is None else sum(len(tree.splitlines()) for tree in self.booster.get_dump())


def fit_arrays(x: np.ndarray, y: np.ndarray, params: Mapping[str, Any] | None = None, seed: int = 0) -> TreeClassifier:
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
        return TreeClassifier(classes, None)
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
    return TreeClassifier(classes, booster)


def tune_arrays(
    x: np.ndarray,
    y: np.ndarray,
    x_validation: np.ndarray,
    y_validation: np.ndarray,
    *,
    trials: int = 30,
    seed: int = 0,
    report: Callable[..., None] = lambda **figures: None,
) -> dict[str, Any]:
    """Optuna's TPE search for the weighted F1 on the validation rows, over the published space (thesis Table 8.6).

    n_estimators 50-300 and learning_rate 0.1-1 on a log scale, max_depth 4-10, min_child_weight 1-50, subsample 0.5-1,
    lambda 0-3. The same arguments give the same answer.

    Args:
        x: [flow, feature] rows to fit on.
        y: [flow] integer labels of x.
        x_validation: [flow, feature] rows to score on; keep the test flows out of them.
        y_validation: [flow] labels of x_validation.
        trials: parameter sets to try, one fit each.
        seed: seed of the search and of XGBoost.
        report: told the `trial` number after each fit.

    Returns:
        The best parameters, to be given as `params` to `fit_arrays`.

    Raises:
        ConfigError: fewer than one trial.
    """
    if trials < 1:
        raise ConfigError(f"tune needs at least one trial, got {trials}")

    def objective(trial: optuna.Trial) -> float:
        classifier = fit_arrays(x, y, _suggest(trial), seed)
        report(trial=trial.number + 1)
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
