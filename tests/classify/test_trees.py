"""XGBoost on arrays: labels of any kind, missing classes, the search, the size of the trees."""

import json

import numpy as np
import pytest

from jaxtraffic.classify import scores, trees
from jaxtraffic.errors import ConfigError

FAST = {"n_estimators": 15, "nthread": 1}


def make(n=300, n_classes=3, length=12, seed=0, overlap=0):
    """Rows and labels with structure that trees can learn; overlap widens the values, so that classes mix."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    x = rng.integers(40, 160 + overlap, (n, length)) + 60 * y[:, None]
    return x.astype(np.float32), y


def test_labels_need_not_be_contiguous():
    (x, y), (x_test, _) = make(seed=1), make(150, seed=2)
    model, plain = trees.fit_arrays(x, y * 1000 - 7, FAST), trees.fit_arrays(x, y, FAST)
    np.testing.assert_array_equal(model.predict(x_test), plain.predict(x_test) * 1000 - 7)


def test_a_class_missing_from_training_scores_zero():
    (x, y), (x_test, y_test) = make(seed=1), make(150, seed=2)
    model = trees.fit_arrays(x[y != 1], y[y != 1], FAST)
    assert set(model.classes) == {0, 2}
    per_class = scores.f1_per_class(y_test, model.predict(x_test))
    assert per_class[1] == 0.0
    assert per_class[0] > 0.5


def test_one_class_and_two_classes_in_training():
    (x, y), (x_test, y_test) = make(seed=1), make(150, seed=2)
    for classes in ([2], [0, 2]):
        part = np.isin(y, classes)
        predicted = trees.fit_arrays(x[part], y[part], FAST).predict(x_test)
        assert set(predicted) <= set(classes)
        kept = np.isin(y_test, classes)
        assert (predicted[kept] == y_test[kept]).mean() > 0.9


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_size_is_the_number_of_nodes_of_all_trees(n_classes):
    x, y = make(n_classes=n_classes, seed=1, overlap=100)
    model = trees.fit_arrays(x, y, FAST)

    def count(node):
        return 1 + sum(count(child) for child in node.get("children", []))

    dumped = [json.loads(tree) for tree in model.booster.get_dump(dump_format="json")]
    assert len(dumped) == FAST["n_estimators"] * (1 if n_classes == 2 else n_classes)
    assert model.n_nodes == sum(map(count, dumped)) > len(dumped)
    assert trees.fit_arrays(x[y == 1], y[y == 1]).n_nodes == 0


def test_a_search_returns_the_best_of_its_trials_on_the_validation_rows():
    (x, y), (x_validation, y_validation) = make(150, seed=1, overlap=200), make(90, seed=2, overlap=200)
    told, tried, fit = [], [], trees.fit_arrays
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "fit_arrays", lambda *given: tried.append(given[2]) or fit(*given))
        best = trees.tune_arrays(
            x, y, x_validation, y_validation, trials=3, seed=1, report=lambda trial: told.append(trial)
        )
    assert told == [1, 2, 3] and len(tried) == 3
    reached = [
        scores.f1_scores(y_validation, fit(x, y, params, 1).predict(x_validation))["weighted_f1"] for params in tried
    ]
    assert best == tried[int(np.argmax(reached))] and min(reached) < max(reached)


def test_a_search_without_trials_and_unknown_parameters_are_refused():
    x, y = make(30)
    with pytest.raises(ConfigError, match="at least one trial"):
        trees.tune_arrays(x, y, x, y, trials=0)
    with pytest.raises(ConfigError, match="unknown XGBoost parameter trees"):
        trees.fit_arrays(x, y, {"trees": 3})
    with pytest.raises(ConfigError, match="refuses"):
        trees.fit_arrays(x, y, {"max_depth": "deep"})
