"""XGBoost as a campaign: against XGBoost and scikit-learn by hand, what it sees, what it refuses."""

import dataclasses
import json
import math

import numpy as np
import pytest
import xgboost
from sklearn.metrics import confusion_matrix, f1_score

from jaxtraffic import datasets
from jaxtraffic.classify.tree_runs import tree_campaign
from jaxtraffic.classify.trees import fit_arrays
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

LENGTH = 8


def make(n=160, decided_by="size", seed=0, **changes):
    """Flows of three classes whose sizes, inter-arrival times, or the size of packet 6 alone say the class."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 3).astype(np.int32)
    size = rng.integers(40, 400, (n, LENGTH))
    iat = rng.exponential(0.1, (n, LENGTH)).astype(np.float32)
    if decided_by == "size":
        size = size + 50 * label[:, None]
    elif decided_by == "packet 6":
        size[:, 5] = 500 + label
    else:
        iat[:, 1:] = iat[:, 1:] + label[:, None]
    fields = {
        "size": size.astype(np.int16),
        "direction": np.where(rng.random((n, LENGTH)) < 0.5, -1, 1).astype(np.int8),
        "iat": iat,
        "label": label,
        "group": rng.integers(0, 40, n).astype(np.int32),
        "class_names": ("a", "b", "c"),
        "name": "toy",
    }
    return PacketSeries(**(fields | changes)).check()


def test_runs_equal_xgboost_and_sklearn_used_directly():
    flows = make()
    runs = tree_campaign(flows, [2, 0], [5, 6], n_folds=4, length=6)
    assert [(run.config, run.fold, run.seed) for run in runs] == [
        ("xgboost", fold, seed) for fold in (2, 0) for seed in (5, 6)
    ]
    for run in runs[::2]:
        parts = datasets.split(flows, fold=run.fold, seed=0, n_folds=4)
        train, test = parts.train, parts.test
        assert not set(train.group) & set(test.group)
        model = xgboost.XGBClassifier(n_estimators=100, max_depth=6, learning_rate=0.3, tree_method="hist", n_jobs=1)
        model.fit(train.signed_size[:, :6].astype(np.float32), train.label)
        predicted = model.predict(test.signed_size[:, :6].astype(np.float32))
        for average in ("weighted", "macro"):
            assert getattr(run, f"{average}_f1") == pytest.approx(f1_score(test.label, predicted, average=average))
        np.testing.assert_array_equal(run.confusion, confusion_matrix(test.label, predicted, labels=range(3)))
        assert run.accuracy == pytest.approx((predicted == test.label).mean()) and 0.4 < run.accuracy < 1
        answers = model.predict(parts.validation.signed_size[:, :6].astype(np.float32))
        assert run.validation_accuracy == pytest.approx((answers == parts.validation.label).mean())
        assert (run.n_train, run.n_validation, run.n_test) == (len(train), len(parts.validation), len(test))
        assert (run.epochs, run.best_epoch, run.parameters, run.tune_seconds) == (100, 99, {}, 0)
        assert run.seconds == run.train_seconds > 0
        # every split adds two nodes to the root of its tree
        dumped = model.get_booster().get_dump(dump_format="json")
        assert run.model_size == len(dumped) + 2 * sum(tree.count('"split":') for tree in dumped)
        assert json.loads(json.dumps(dataclasses.asdict(run))) == dataclasses.asdict(run)
    # nothing random without a search, and another dealing of the flows from the second round of folds on
    assert runs[0].confusion == runs[1].confusion != runs[2].confusion
    (later,) = tree_campaign(flows, [6], [5], n_folds=4, length=6)
    assert later.n_test == len(datasets.split(flows, fold=2, seed=1, n_folds=4).test)


def test_packets_beyond_the_length_and_times_are_seen_only_where_asked_for():
    def accuracy(flows, **options):
        return tree_campaign(flows, [0], [0], n_folds=4, **options)[0].accuracy

    by_sixth, by_time = make(decided_by="packet 6"), make(decided_by="iat")
    assert accuracy(by_sixth, length=6) == 1.0 and accuracy(by_sixth, length=5) < 0.6
    assert accuracy(by_time, length=6, view="features") > 0.95 and accuracy(by_time, length=6) < 0.6


def test_a_search_serves_all_seeds_of_a_fold():
    told = []
    runs = tree_campaign(
        make(),
        [0, 1],
        [0, 1],
        n_folds=4,
        length=4,
        tune_trials=2,
        report=lambda done, **figures: told.append((done, *figures)),
    )
    first, second, third, _ = runs
    assert first.parameters == second.parameters != third.parameters
    assert first.epochs == first.parameters["n_estimators"] and first.best_epoch == first.epochs - 1
    train = datasets.split(make(), fold=0, seed=0, n_folds=4).train
    model = fit_arrays(train.signed_size[:, :4].astype(np.float32), train.label, first.parameters, seed=1)
    assert second.model_size == model.n_nodes
    assert first.tune_seconds == second.tune_seconds > 0
    assert first.seconds == pytest.approx(first.train_seconds + first.tune_seconds / 2)
    one_fold = [(0, "trial"), (0, "trial"), (1, "weighted_f1"), (2, "weighted_f1")]
    assert told == [*one_fold, *((done + 2, name) for done, name in one_fold)]


def test_a_class_without_test_flows_has_no_f1():
    # eight flows of class c in two groups: most of the eight folds hold none of them
    flows = make()
    rare = np.flatnonzero(flows.label == 2)
    keep = np.r_[np.flatnonzero(flows.label != 2), rare[:8]]
    group = flows.group.copy()
    group[rare[:8]] = 100
    group[rare[0]] = 101
    flows = flows.replace(group=group)[keep]
    runs = tree_campaign(flows, range(3), [0], n_folds=8, length=2)
    absent = [run for run in runs if not sum(run.confusion[2])]
    assert absent and all(math.isnan(run.per_class_f1[2]) and math.isfinite(run.macro_f1) for run in absent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 9}, "length must be from 1 to 8"),
        ({"n_folds": 60}, "fewer than the 60 folds"),
        ({"folds": []}, "folds and seeds"),
        ({"seeds": []}, "folds and seeds"),
        ({"folds": [-1]}, "at least 0"),
        ({"tune_trials": -1}, "at least 0"),
        ({"view": "sizes"}, "signed_size, features"),
    ],
)
def test_bad_input_is_refused_before_any_fit(changes, message, monkeypatch):
    monkeypatch.setattr("jaxtraffic.classify.tree_runs.fit_arrays", None)
    given = {"folds": [0], "seeds": [0], "n_folds": 4, "length": 4} | changes
    with pytest.raises(ConfigError, match=message):
        tree_campaign(make(), given.pop("folds"), given.pop("seeds"), **given)
