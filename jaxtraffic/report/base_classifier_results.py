"""What the runs of base classifiers say, as numbers: a summary each, leads, and the thesis' rows for a data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.published import BASE_CLASSIFIERS, PublishedDataset

__all__ = ["Gap", "Summary", "published_for", "summarise", "title_of"]

_TITLES = {"xgboost": "XGBoost", "resnet": "ResNet", "resnet2x": "ResNet(2x)", "mlp": "MLP", "s4": "S4"}


def title_of(name: str) -> str:
    """A classifier as the thesis writes it."""
    return _TITLES.get(name, name)


class Summary(NamedTuple):
    """What the runs of one classifier say; F1 scores and accuracy are fractions, `_sd` over runs, NaN for one run.

    `model_size` is the mean number of nodes of the trees, or of parameters; `train_seconds` and `epochs` are means;
    `tune_seconds` is the time of the searches of all folds, 0 without one. `per_class_f1` [class] is the mean over the
    runs whose test flows hold the class, NaN where none do.
    """

    name: str
    n_runs: int
    weighted_f1: float
    weighted_f1_sd: float
    macro_f1: float
    macro_f1_sd: float
    accuracy: float
    model_size: float
    train_seconds: float
    tune_seconds: float
    epochs: float
    per_class_f1: tuple[float, ...]

    @property
    def title(self) -> str:
        """As the thesis writes it."""
        return title_of(self.name)


class Gap(NamedTuple):
    """How much better `first` is than `second` in one metric, a fraction, over folds; its 95 % interval."""

    first: str
    second: str
    metric: str
    mean: float
    low: float
    high: float
    n_folds: int


def summarise(results: Sequence[Mapping[str, Any]]) -> list[Summary]:
    """One summary a classifier, in the order of the results.

    Args:
        results: dicts as `dataclasses.asdict` of `classify.RunResult`, with `model_size` and `train_seconds`, and
            `tune_seconds` where there was a search.

    Raises:
        ConfigError: no results.
    """
    if not results:
        raise ConfigError("a page of classifiers needs at least one result")
    found = []
    for name in dict.fromkeys(run["config"] for run in results):
        runs = [run for run in results if run["config"] == name]
        weighted, macro = (np.array([run[key] for run in runs]) for key in ("weighted_f1", "macro_f1"))
        tuned = {run["fold"]: run.get("tune_seconds", 0.0) for run in runs}
        found.append(
            Summary(
                name=name,
                n_runs=len(runs),
                weighted_f1=float(weighted.mean()),
                weighted_f1_sd=_sd(weighted),
                macro_f1=float(macro.mean()),
                macro_f1_sd=_sd(macro),
                accuracy=float(np.mean([run["accuracy"] for run in runs])),
                model_size=float(np.mean([run["model_size"] for run in runs])),
                train_seconds=float(np.mean([run["train_seconds"] for run in runs])),
                tune_seconds=float(sum(tuned.values())),
                epochs=float(np.mean([run["epochs"] for run in runs])),
                per_class_f1=tuple(
                    _mean_of_finite(values) for values in zip(*(run["per_class_f1"] for run in runs), strict=True)
                ),
            )
        )
    return found


def published_for(data: Mapping[str, Any]) -> PublishedDataset | None:
    """The thesis' rows for the data of a config; None for other sets, and for stand-ins, which say nothing of them."""
    if data.get("source") != "real":
        return None
    return BASE_CLASSIFIERS.get((str(data.get("dataset")), str(data.get("tier"))))


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _mean_of_finite(values: Sequence[float | None]) -> float:
    there = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(there)) if there else math.nan
