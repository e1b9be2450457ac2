"""Few-shot: partitions by popularity and Table 4.8, episodes against what an episode must be."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtraffic.datasets.splits.few_shot import episode, episodes, partition_classes, table
from jaxtraffic.errors import ConfigError
from tests.datasets.test_curation import make, names_of


def flow_numbers(part):
    return part.size[:, 0].tolist()


def light(counts):
    """Many flows of one packet position: `make` would need 30 and numbers within int16."""
    flows = make(dict.fromkeys(counts, 1))
    return flows[np.repeat(np.arange(len(counts)), [counts[name] for name in sorted(counts)])]


def check(flows, drawn, n, ways, shots, queries):
    """What every set of episodes must be, in plain loops."""
    assert len(drawn) == n
    assert drawn.classes.shape == (n, ways)
    assert drawn.support.shape == (n, ways, shots)
    assert drawn.query.shape == (n, ways, queries)
    for task in range(n):
        assert len(set(drawn.classes[task].tolist())) == ways
        for way in range(ways):
            both = drawn.support[task, way].tolist() + drawn.query[task, way].tolist()
            assert len(set(both)) == shots + queries
            assert {int(flows.label[flow]) for flow in both} == {int(drawn.classes[task, way])}
            if flows.group is not None:
                captures = [
                    {int(flows.group[flow]) for flow in side[task, way]} for side in (drawn.support, drawn.query)
                ]
                assert captures[0].isdisjoint(captures[1])


@pytest.mark.parametrize(
    ("n_classes", "sizes"), [(20, (12, 4, 4)), (40, (24, 8, 8)), (3, (1, 1, 1)), (4, (2, 1, 1)), (7, (4, 2, 1))]
)
def test_default_shares(n_classes, sizes):
    parts = partition_classes(make({f"c{index:02d}": 100 - index for index in range(n_classes)}))
    assert tuple(len(part.class_names) for part in (parts.train, parts.validation, parts.test)) == sizes
    assert parts.train.class_names + parts.validation.class_names + parts.test.class_names == tuple(
        f"c{index:02d}" for index in range(n_classes)
    )
    assert parts.left_out == ()


def test_parts_by_popularity_and_ties_by_name():
    counts = {"e": 5, "d": 9, "c": 9, "b": 20, "a": 7, "f": 7, "none": 0}
    flows = make(counts).replace(source="simulated", name="n")
    parts = partition_classes(flows, train=2, validation=2, test=1)
    assert parts.train.class_names == ("b", "c")
    assert parts.validation.class_names == ("d", "a")
    assert parts.test.class_names == ("f",)
    assert parts.left_out == ("e",)
    truth = dict(zip(flow_numbers(flows), names_of(flows)))
    for part in (parts.train, parts.validation, parts.test):
        part.check()
        assert names_of(part) == [truth[number] for number in flow_numbers(part)]
        assert part.counts().tolist() == [counts[name] for name in part.class_names]
        assert (part.source, part.name) == ("simulated", "n")
    least = partition_classes(flows, train=1, validation=1, test=1, min_flows=9)
    assert least.train.class_names + least.validation.class_names + least.test.class_names == ("b", "c", "d")
    assert least.left_out == ("a", "f", "e")
    for min_flows in (0, 1):
        parts = partition_classes(make({"a": 3, "b": 2, "one": 1, "none": 0}), min_flows=min_flows)
        assert (parts.test.class_names, parts.left_out) == (("one",), ())


def test_table_4_8_of_the_thesis():
    # class sizes chosen to the largest and smallest of MIRAGE-19-ALL in the thesis
    sizes = [
        *np.linspace(8200, 1300, 24).astype(int),
        *np.linspace(1300, 1100, 8).astype(int),
        *np.linspace(904, 361, 8).astype(int),
    ]
    rows = table(
        partition_classes(
            light({f"c{index:02d}": size for index, size in enumerate(sizes)}), train=24, validation=8, test=8
        )
    )
    assert [(row.part, row.classes, row.flows, row.largest, row.smallest) for row in rows] == [
        ("train", 24, sum(sizes[:24]), 8200, 1300),
        ("validation", 8, sum(sizes[24:32]), 1300, 1100),
        ("test", 8, sum(sizes[32:]), 904, 361),
        ("all", 40, sum(sizes), 8200, 361),
    ]
    assert [round(row.ratio, 1) for row in rows] == [6.3, 1.2, 2.5, 22.7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train": 4, "validation": 1, "test": 1},
            r"6 classes are asked for \(train 4, validation 1, test 1\); 5 have",
        ),
        ({"train": 5, "validation": 0, "test": 0}, "at least 1 class each"),
        ({"train": 3}, "all be numbers or all be shares"),
        ({"train": True, "validation": 1, "test": 1}, "all be numbers or all be shares"),
        ({"train": 0.5}, "1 in sum"),
        ({"train": 0.8, "validation": 0.2, "test": 0.0}, "above 0"),
        ({"test": float("nan")}, "1 in sum"),
        ({"min_flows": 40}, "at least 3 classes; 2 have enough"),
        ({"min_flows": 100}, "at least 3 classes; 0 have enough"),
    ],
)
def test_impossible_partitions(options, message):
    with pytest.raises(ConfigError, match=message):
        partition_classes(make({"a": 50, "b": 40, "c": 30, "d": 20, "e": 10}), **options)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_episodes_are_episodes(ways, shots, queries, spare, seed):
    needed = shots + queries
    flows = make({"a": needed, "b": needed + spare, "c": needed + 7, "d": 3 * needed})
    flows = flows[np.random.default_rng(seed).permutation(len(flows))]
    drawn = episodes(flows, 6, ways=ways, shots=shots, queries=queries, seed=seed)
    check(flows, drawn, 6, ways, shots, queries)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_support_and_query_share_no_capture(shots, queries, seed):
    flows = make({"a": 60, "b": 80, "c": 70})
    flows = flows.replace(group=np.random.default_rng(seed).integers(0, 12, 210).astype(np.int32))
    check(flows, episodes(flows, 5, ways=2, shots=shots, queries=queries, seed=seed), 5, 2, shots, queries)


def test_the_seed_decides_and_more_episodes_begin_with_the_same():
    for group in (None, (np.arange(120) // 3).astype(np.int32)):
        flows = make({"a": 40, "b": 40, "c": 40}).replace(group=group)
        options = {"ways": 2, "shots": 3, "queries": 4}
        many, few, other = (episodes(flows, n, seed=seed, **options) for n, seed in ((9, 5), (4, 5), (9, 6)))
        for field in ("classes", "support", "query"):
            assert (getattr(many, field)[:4] == getattr(few, field)).all()
            assert not (getattr(many, field) == getattr(other, field)).all()
        support, query = episode(flows, seed=5, **options)
        assert (support == many.support[0]).all()
        assert (query == many.query[0]).all()
        assert len({row.tobytes() for row in many.support}) == 9, "episodes differ"


def test_draws_are_uniform():
    flows = make({"a": 7, "b": 9, "c": 8})
    n = 6000
    drawn = episodes(flows, n, ways=2, shots=2, queries=3, seed=1)
    # every ordered pair of classes is as likely: expected 1000, standard deviation 29
    pairs = np.bincount(drawn.classes[:, 0] * 3 + drawn.classes[:, 1], minlength=9)
    assert pairs[[0, 4, 8]].tolist() == [0, 0, 0]
    assert np.abs(pairs[[1, 2, 3, 5, 6, 7]] - n / 6).max() < 5 * 29
    # each place of a way holds each flow of its class as often
    for place in (*np.moveaxis(drawn.support, -1, 0), *np.moveaxis(drawn.query, -1, 0)):
        for label, size in enumerate((7, 9, 8)):
            counts = np.bincount(place[drawn.classes == label], minlength=24)[flows.label == label]
            expected = (drawn.classes == label).sum() / size
            assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    # and pairs of flows are as likely as each other: 21 pairs of class "a"
    first, second = drawn.support[drawn.classes == 0].T
    together = np.bincount(np.minimum(first, second) * 7 + np.maximum(first, second), minlength=49).reshape(7, 7)
    expected = first.size / 21
    assert np.abs(together[np.triu_indices(7, 1)] - expected).max() < 5 * np.sqrt(expected)


def test_all_flows_of_a_class_can_be_needed():
    flows = make({"a": 20, "b": 20})
    support, query = episode(flows, ways=2)
    assert sorted(np.concatenate([support, query], axis=1).ravel().tolist()) == list(range(40))


def test_one_class_one_way():
    support, query = episode(make({"a": 8}), ways=1, shots=1, queries=1)
    assert support.shape == query.shape == (1, 1)
    assert support != query


def test_classes_with_too_few_flows_are_named():
    flows = make({"a": 30, "b": 19, "c": 30, "d": 25, "e": 3, "f": 20})
    with pytest.raises(ConfigError, match=r"5 shots and 15 queries need, 20: b \(19\), e \(3\); draw fewer"):
        episodes(flows, 2)
    with pytest.raises(ConfigError, match=r"need, 1: none \(0\)|need, 2: none \(0\)"):
        episodes(make({"a": 3, "none": 0}), 1, ways=1, shots=1, queries=1)
    with pytest.raises(ConfigError, match="3 ways need at least 3 classes; the flows have 2"):
        episodes(make({"a": 30, "b": 30}), 1, ways=3)
    for option in ("n", "ways", "shots", "queries"):
        options = {"n": 1, option: 0}
        with pytest.raises(ConfigError, match=f"{option} must be at least 1; got 0"):
            episodes(flows, **options)


def test_classes_with_too_few_captures_are_named():
    flows = make({"a": 30, "b": 30, "c": 30})
    group = np.r_[np.arange(30) // 5, np.full(30, 77), np.r_[np.full(28, 88), [89, 90]]].astype(np.int32)
    flows = flows.replace(group=group)
    with pytest.raises(ConfigError, match=r"3 shots in groups of their own need, 3: b \(0\), c \(2\)"):
        episodes(flows, 1, ways=2, shots=3, queries=5)
    # two flows of "c" outside its large capture are enough to learn from
    only = flows[np.flatnonzero(flows.label == 2)].replace(label=np.zeros(30, np.int32), class_names=("c",))
    drawn = episodes(only, 4, ways=1, shots=2, queries=20)
    check(only, drawn, 4, 1, 2, 20)
    assert set(drawn.support.ravel().tolist()) == {28, 29}


def test_work_does_not_grow_with_the_size_of_classes():
    flows = light({f"c{index}": 60_000 for index in range(5)})
    begin = time.perf_counter()
    drawn = episodes(flows, 200, shots=200, queries=15)
    assert time.perf_counter() - begin < 5
    assert (flows.label[drawn.query] == drawn.classes[..., None]).all()
