"""F1 scores: by hand, against scikit-learn, from a confusion matrix."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from jaxtraffic.classify import scores
from jaxtraffic.errors import ConfigError


def test_f1_by_hand_counts_the_labels_of_the_test_only():
    y, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1])
    found = scores.f1_scores(y, predicted)
    assert found["macro_f1"] == pytest.approx((0.8 + 1.0) / 2)
    assert found["weighted_f1"] == pytest.approx(0.75 * 0.8 + 0.25 * 1.0)
    assert scores.f1_per_class(y, predicted) == pytest.approx({0: 0.8, 1: 1.0})


def test_fast_f1_of_the_bootstrap_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    y, predicted = rng.integers(0, 5, 200), rng.integers(0, 7, 200)
    weighted, macro = scores._weighted_and_macro(y, predicted, 7)
    assert scores.f1_scores(y, predicted) == pytest.approx({"weighted_f1": weighted, "macro_f1": macro})


def test_scores_of_a_confusion_matrix_are_those_of_sklearn_on_the_labels():
    rng = np.random.default_rng(0)
    # class 5 has no test flows but is predicted, class 2 is never predicted, class 6 neither
    y = rng.integers(0, 5, 300)
    predicted = np.where(rng.random(300) < 0.6, y, rng.integers(0, 6, 300))
    predicted[predicted == 2] = 5
    found = scores.scores_of_confusion(confusion_matrix(y, predicted, labels=range(7)))
    assert {name: found[name] for name in ("weighted_f1", "macro_f1")} == pytest.approx(scores.f1_scores(y, predicted))
    assert found["macro_f1"] == pytest.approx(
        f1_score(y, predicted, labels=range(5), average="macro", zero_division=0), abs=1e-12
    )
    assert found["accuracy"] == pytest.approx(accuracy_score(y, predicted))
    assert found["per_class_f1"][:5] == pytest.approx(
        list(f1_score(y, predicted, labels=range(5), average=None, zero_division=0))
    )
    assert (
        found["per_class_f1"][2] == 0 and [math.isnan(f1) for f1 in found["per_class_f1"]] == [False] * 5 + [True] * 2
    )
    assert all(type(value) is float for value in (found["accuracy"], found["macro_f1"], *found["per_class_f1"]))


def test_scores_of_a_confusion_matrix_by_hand():
    # true 0: three flows, two right, one taken for class 2, which has no flows
    found = scores.scores_of_confusion([[2, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert found["macro_f1"] == pytest.approx((0.8 + 1.0) / 2)
    assert found["weighted_f1"] == pytest.approx(0.75 * 0.8 + 0.25)
    assert found["accuracy"] == 0.75


@pytest.mark.parametrize(
    ("confusion", "message"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.zeros(4), "shape"),
        ([[1, -1], [0, 1]], "whole and from 0"),
        ([[0.5, 0], [0, 1]], "whole and from 0"),
        ([[np.nan, 0], [0, 1]], "whole and from 0"),
        (np.zeros((3, 3)), "without test flows"),
    ],
)
def test_what_is_no_confusion_matrix_is_refused(confusion, message):
    with pytest.raises(ConfigError, match=message):
        scores.scores_of_confusion(confusion)


def test_every_capture_counts_alike_in_the_accuracy_gap():
    rng = np.random.default_rng(5)
    y, group = rng.integers(4, size=300), rng.integers(7, size=300) * 11
    first, second = (np.where(rng.random(300) < share, y, 3 - y) for share in (0.6, 0.8))
    gaps = []
    for capture in sorted(set(group.tolist())):
        own = [i for i in range(300) if group[i] == capture]
        gaps.append(sum((second[i] == y[i]) - float(first[i] == y[i]) for i in own) / len(own))
    found = scores.capture_accuracy_gap(y, first, second, group)
    assert found["capture_accuracy_gap"] == pytest.approx(np.mean(gaps))
    assert found["capture_accuracy_gap_stderr"] == pytest.approx(np.std(gaps, ddof=1) / 7**0.5)
    assert found["n_captures"] == 7
    # one large capture on the wrong side moves F1, and here one in eleven
    y, group = np.zeros(110, int), np.repeat(np.arange(11), [100] + [1] * 10)
    wrong = np.where(group == 0, 1, 0)
    assert scores.capture_accuracy_gap(y, y, wrong, group)["capture_accuracy_gap"] == pytest.approx(-1 / 11)
