"""What the augmentation test says: gains of every kind and ratio, and of those that validation flows choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from token_augmentation_sets import NONE

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.statistics import paired_difference
from jaxtraffic.report.token_augmentation_results import METRICS, Cell, Choice, Difference, Kind

BASELINE = "translation"
"""The augmentation that generated flows are measured against, beside none at all."""


class Scores(NamedTuple):
    """The F1 of one classifier by one metric.

    Attributes:
        folds: [unit].
        kinds: of cells.
        validation: [unit, kind] on the validation flows.
        test: [unit, kind] on the test flows.
    """

    folds: np.ndarray
    kinds: tuple[Kind, ...]
    validation: np.ndarray
    test: np.ndarray

    def of(self, method: str) -> Scores:
        """The cells of one method only."""
        own = [i for i, kind in enumerate(self.kinds) if kind.method == method]
        return Scores(self.folds, tuple(self.kinds[i] for i in own), self.validation[:, own], self.test[:, own])


def scores(results: Sequence[Mapping[str, Any]], classifier: str, metric: str) -> Scores:
    """The results of a classifier as tables, units in the order of their folds and seeds.

    Raises:
        ConfigError: a unit that lacks a cell which another one has.
    """
    found: dict[tuple[int, int], dict[Kind, Mapping[str, Any]]] = {}
    for line in results:
        if line["classifier"] == classifier:
            kind = Kind(*(line[name] for name in Kind._fields))
            found.setdefault((line["fold"], line["seed"]), {})[kind] = line
    units = sorted(found)
    kinds = tuple(dict.fromkeys(kind for unit in units for kind in found[unit]))
    for unit in units:
        for kind in kinds:
            if kind not in found[unit]:
                raise ConfigError(f"fold {unit[0]}, seed {unit[1]} has no result for {classifier} with {kind}")
    validation, test = (
        np.array([[found[unit][kind][side][metric] for kind in kinds] for unit in units])
        for side in ("validation", "test")
    )
    return Scores(np.array([fold for fold, _ in units]), kinds, validation, test)


def choose(own: Scores) -> tuple[dict[int, int], np.ndarray]:
    """Fold -> the cell that is best on the validation flows of that fold, and the test score [unit] of what was chosen.

    The mean over the seeds of the fold decides, the first of equally good cells wins. Folds choose by themselves: the
    validation flows of one are the test flows of another.
    """
    chosen = {}
    for fold in np.unique(own.folds):
        chosen[int(fold)] = int(own.validation[own.folds == fold].mean(axis=0).argmax())
    return chosen, np.array([own.test[unit, chosen[int(fold)]] for unit, fold in enumerate(own.folds)])


def difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """Mean of a - b over units with its 95 % interval; no interval of a single unit."""
    if len(a) < 2:
        return Difference(float((a - b).mean()), None, None)
    found = paired_difference(a, b)
    return Difference(found.mean, found.low, found.high)


def cells_of(results: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Every cell by every classifier and metric: its test score, and the gains over none and Translate at its best."""
    cells = []
    for classifier, metric, every in _tables(results):
        nothing, baseline = every.of(NONE).test[:, 0], every.of(BASELINE).test
        best = baseline[:, baseline.mean(axis=0).argmax()]
        for kind, score in zip(every.kinds, every.test.T, strict=True):
            cells.append(
                Cell(classifier, metric, kind, float(score.mean()), difference(score, nothing), difference(score, best))
            )
    return cells


def choices_of(results: Sequence[Mapping[str, Any]]) -> list[Choice]:
    """Every method by every classifier and metric, with the cell that validation flows choose."""
    choices = []
    for classifier, metric, every in _tables(results):
        nothing, baseline = every.of(NONE).test[:, 0], every.of(BASELINE)
        best = baseline.test[:, baseline.test.mean(axis=0).argmax()]
        alike = choose(baseline)[1]
        for method in dict.fromkeys(kind.method for kind in every.kinds if kind.method != NONE):
            own = every.of(method)
            chosen, score = choose(own)
            choices.append(
                Choice(
                    classifier,
                    metric,
                    method,
                    tuple(own.kinds[chosen[fold]] for fold in sorted(chosen)),
                    float(score.mean()),
                    difference(score, nothing),
                    difference(score, alike),
                    difference(score, best),
                )
            )
    return choices


def _tables(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Scores]]:
    classifiers = dict.fromkeys(line["classifier"] for line in results)
    return [(name, metric, scores(results, name, metric)) for name in classifiers for metric in METRICS]
