"""Folds: stratified, disjoint, deterministic, whole groups on one side."""

import numpy as np
import pytest

from jaxtraffic.datasets.splits.folds import split
from jaxtraffic.errors import ConfigError
from tests.datasets.test_curation import make


def sides(parts):
    return [set(part.size[:, 0].tolist()) for part in (parts.train, parts.validation, parts.test)]


def test_80_10_10_of_every_class_and_tests_cover_the_set():
    flows = make({"a": 500, "b": 100, "c": 40})
    tests = []
    for fold in range(10):
        parts = split(flows, fold=fold, seed=5)
        train, validation, test = sides(parts)
        assert train | validation | test == set(range(640))
        assert len(train) + len(validation) + len(test) == 640
        assert parts.test.counts().tolist() == parts.validation.counts().tolist() == [50, 10, 4]
        tests.append(test)
    assert set.union(*tests) == set(range(640))
    assert sum(map(len, tests)) == 640
    assert sides(split(flows, fold=3, seed=5))[1] == tests[4], "validation is the part after test"
    assert sides(split(flows, fold=9, seed=5))[1] == tests[0]


def test_the_seed_decides():
    flows = make({"a": 60, "b": 40})
    assert sides(split(flows, seed=1)) == sides(split(flows, seed=1))
    assert sides(split(flows, seed=1)) != sides(split(flows, seed=2))


@pytest.mark.parametrize("fold", range(10))
def test_small_classes_are_in_train(fold):
    flows = make({"a": 100, "one": 1, "two": 2, "three": 3})
    parts = split(flows, fold=fold)
    assert (parts.train.counts() > 0).all()
    assert parts.train.counts()[1] == 1
    assert sum(len(side) for side in sides(parts)) == 106


@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_on_one_side(seed):
    rng = np.random.default_rng(seed)
    flows = make({"a": 300, "b": 200, "c": 60, "d": 10, "single": 4})
    group = rng.integers(0, 60, 574).astype(np.int32)
    group[flows.label == 3] = np.repeat([100, 101], 5)
    group[flows.label == 4] = 102
    flows = flows.replace(group=group)
    for fold in range(10):
        parts = split(flows, fold=fold, seed=seed)
        groups = [set(part.group.tolist()) for part in (parts.train, parts.validation, parts.test)]
        assert groups[0].isdisjoint(groups[1] | groups[2])
        assert groups[1].isdisjoint(groups[2])
        assert len(parts.train) + len(parts.validation) + len(parts.test) == 574
        assert (parts.train.counts() > 0).all()
        assert parts.train.counts()[4] == 4
        assert 20 <= len(parts.test) <= 110
        # the larger classes are on every side
        assert (parts.test.counts()[:2] > 0).all()


def test_grouped_folds_do_not_depend_on_the_numbers_of_the_groups():
    flows = make({"a": 100, "b": 100})
    group = np.arange(200, dtype=np.int32) // 4
    one = split(flows.replace(group=group), fold=2)
    other = split(flows.replace(group=group * 1000 + 7), fold=2)
    assert sides(one) == sides(other)


def test_one_group_of_many_classes_counts_once():
    flows = make({"a": 50, "b": 50})
    flows = flows.replace(group=np.tile(np.arange(25, dtype=np.int32), 4))
    parts = split(flows, n_folds=5)
    assert set(parts.test.group.tolist()).isdisjoint(parts.train.group.tolist())
    assert len(parts.test) == 20


@pytest.mark.parametrize("fold", [-1, 10])
def test_a_fold_that_does_not_exist(fold):
    with pytest.raises(ConfigError, match="fold must be from 0 to 9"):
        split(make({"a": 50}), fold=fold)


def test_too_few_folds_flows_or_groups():
    with pytest.raises(ConfigError, match="n_folds"):
        split(make({"a": 50}), n_folds=2)
    with pytest.raises(ConfigError, match="at least 10 flows"):
        split(make({"a": 9}))
    with pytest.raises(ConfigError, match="at least 10 groups.*has 4"):
        split(make({"a": 40}).replace(group=np.arange(40, dtype=np.int32) % 4))


def test_metadata_stay():
    flows = make({"a": 50}).replace(source="simulated", name="n", size_layer="payload")
    test = split(flows).test
    assert (test.source, test.name, test.size_layer, test.class_names) == ("simulated", "n", "payload", ("a",))
