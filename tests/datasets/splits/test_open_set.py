"""Open-set splits: which classes are known, where their flows go, groups, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtraffic.datasets.splits.folds import split
from jaxtraffic.datasets.splits.open_set import background_classes, split_open_set
from jaxtraffic.errors import ConfigError
from tests.datasets.test_curation import make, names_of

COUNTS = {"mail": 50, "maps": 40, "video": 120, "chat": 40, "quiet": 12, "google-background": 90}


def flow_numbers(part):
    return part.size[:, 0].tolist()


def names_by_number(flows):
    return dict(zip(flow_numbers(flows), names_of(flows)))


def datazoo_known(ranked, n_known, provider):
    """TOPX_KNOWN in plain Python: classes in order of popularity, providers whole or not at all."""
    known = []
    for name in ranked:
        if name in known:
            continue
        family = (
            [name]
            if provider.get(name) is None
            else [other for other in ranked if provider.get(other) == provider[name]]
        )
        if len(known) + len(family) <= n_known:
            known += family
    return set(known)


@pytest.mark.parametrize("fold", [0, 3, 9])
def test_the_most_popular_classes_are_known(fold):
    flows = make(COUNTS)
    parts = split_open_set(flows, known=3, fold=fold, seed=2)
    # a tie of 40 flows would be decided by name; all three lie above it
    assert parts.known == ("video", "google-background", "mail")
    assert parts.unknown == ("chat", "maps", "quiet")
    truth = names_by_number(flows)
    sides = [parts.train, parts.validation, parts.test_known, parts.test_unknown]
    for side in sides:
        assert names_of(side) == [truth[number] for number in flow_numbers(side)]
    numbers = [number for side in sides for number in flow_numbers(side)]
    assert sorted(numbers) == list(range(len(flows)))
    assert len(parts.test_unknown) == 92
    assert parts.test_known.counts().tolist() == [12, 9, 5]
    assert parts.left_out == 0


def test_ties_go_by_name():
    assert split_open_set(make(COUNTS), known=4).known == ("video", "google-background", "mail", "chat")
    assert split_open_set(make(COUNTS), known=5).unknown == ("quiet",)
    assert split_open_set(make({"b": 20, "a": 20}), known=1).known == ("a",)


def test_known_flows_are_dealt_as_by_the_closed_split():
    flows = make(COUNTS)
    # labels of the known classes by popularity, as the open-set split numbers them
    order = {"video": 0, "mail": 1}
    chosen = np.array([number for number, name in enumerate(names_of(flows)) if name in order])
    label = np.array([order[names_of(flows)[number]] for number in chosen], np.int32)
    closed = split(flows[chosen].replace(label=label, class_names=("video", "mail")), fold=4, seed=6)
    parts = split_open_set(flows, known=["mail", "video"], fold=4, seed=6)
    assert parts.known == ("video", "mail")
    for ours, theirs in zip(
        (parts.train, parts.validation, parts.test_known), (closed.train, closed.validation, closed.test)
    ):
        assert flow_numbers(ours) == flow_numbers(theirs)
        assert ours.label.tolist() == theirs.label.tolist()
    tests = [flow_numbers(split_open_set(flows, known=2, fold=fold).test_known) for fold in range(10)]
    assert sorted(sum(tests, [])) == np.flatnonzero(np.isin(flows.label, [1, 5])).tolist()


def test_the_combined_test():
    flows = make(COUNTS).replace(source="simulated", name="n", size_layer="payload")
    parts = split_open_set(flows, known=2)
    test = parts.test().check()
    n_known = len(parts.test_known)
    assert test.class_names == ("video", "google-background", "unknown")
    assert (test.label[n_known:] == 2).all()
    assert test.label[:n_known].tolist() == parts.test_known.label.tolist()
    assert flow_numbers(test) == flow_numbers(parts.test_known) + flow_numbers(parts.test_unknown)
    assert (test.source, test.name, test.size_layer, test.group) == ("simulated", "n", "payload", None)
    assert parts.test("other").class_names[-1] == "other"
    with pytest.raises(ConfigError, match="'video' is a known class"):
        parts.test("video")


def test_background_is_unknown():
    flows = make(COUNTS)
    assert background_classes(flows) == ("google-background",)
    assert background_classes(make({"background": 1, "backgrounds": 1, "x-background": 0})) == ("background",)
    parts = split_open_set(flows, unknown=background_classes(flows))
    assert parts.unknown == ("google-background",)
    assert parts.known == ("video", "mail", "chat", "maps", "quiet")
    assert split_open_set(flows, known=2, unknown=background_classes(flows)).known == ("video", "mail")


def test_a_share_and_a_random_draw():
    flows = make(COUNTS)
    assert split_open_set(flows, known=0.5).known == split_open_set(flows, known=3).known
    assert len(split_open_set(flows, known=0.01).known) == 1
    assert len(split_open_set(flows, known=0.99).known) == 5
    draws = [split_open_set(flows, known=3, by="random", seed=seed, unknown=["maps"]).known for seed in range(12)]
    assert len(set(draws)) > 3
    assert set().union(*draws) == set(COUNTS) - {"maps"}
    assert draws[5] == split_open_set(flows, known=3, by="random", seed=5, unknown=["maps"]).known
    counts = [[COUNTS[name] for name in known] for known in draws]
    assert counts == [sorted(each, reverse=True) for each in counts], "labels go by popularity in a random draw too"


@given(
    st.lists(st.integers(10, 60), min_size=3, max_size=9),
    st.lists(st.sampled_from([None, "p", "q", "r"]), min_size=9, max_size=9),
    st.integers(1, 8),
)
@settings(max_examples=40, deadline=None)
def test_providers_are_those_of_a_plain_loop(counts, owners, n_known):
    counts = {f"c{index}": count for index, count in enumerate(counts)}
    provider = dict(zip(counts, owners))
    n_known = min(n_known, len(counts) - 1)
    flows = make(counts)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    expected = datazoo_known(ranked, n_known, provider)
    if not expected:
        with pytest.raises(ConfigError, match="no class is known"):
            split_open_set(flows, known=n_known, provider=provider)
        return
    parts = split_open_set(flows, known=n_known, provider=provider)
    assert set(parts.known) == expected
    assert {provider[name] for name in parts.known if provider[name]}.isdisjoint(
        provider[name] for name in parts.unknown
    )


def test_fewer_known_classes_than_asked_for_are_logged(caplog):
    provider = {"video": "g", "mail": "g", "maps": "g", "chat": "m"}
    parts = split_open_set(make(COUNTS), known=2, provider=provider, unknown=["google-background"])
    assert parts.known == ("chat", "quiet")
    assert not caplog.text
    assert split_open_set(make(COUNTS), known=2, provider=dict.fromkeys([*COUNTS][:5], "g")).known == (
        "google-background",
    )
    assert "1 classes are known, not 2" in caplog.text


def test_a_list_that_divides_a_provider():
    provider = {"video": "g", "mail": "g", "maps": None}
    with pytest.raises(ConfigError, match="divides the classes of g"):
        split_open_set(make(COUNTS), known=["video", "chat"], provider=provider)
    assert split_open_set(make(COUNTS), known=["video", "mail"], provider=provider).known == ("video", "mail")
    parts = split_open_set(make(COUNTS), known=["video"], unknown=["mail"], provider=provider)
    assert parts.known == ("video",), "a class that is named unknown does not tie its provider"


@pytest.mark.parametrize("fold", range(5))
def test_groups_hold_between_known_and_unknown(fold):
    flows = make({"a": 200, "b": 150, "odd": 80, "strange": 40})
    group = np.random.default_rng(1).integers(0, 40, 470).astype(np.int32)
    flows = flows.replace(group=group)
    parts = split_open_set(flows, known=2, fold=fold)
    fit = set(parts.train.group.tolist()) | set(parts.validation.group.tolist())
    expected = [number for number in range(350, 470) if group[number] not in fit]
    assert flow_numbers(parts.test_unknown) == expected
    assert parts.left_out == 120 - len(expected) > 0
    assert fit.isdisjoint(parts.test_known.group.tolist())
    assert set(parts.train.group.tolist()).isdisjoint(parts.validation.group.tolist())
    test = parts.test()
    assert test.group.tolist() == parts.test_known.group.tolist() + parts.test_unknown.group.tolist()


def test_unknown_flows_only_in_captures_of_train():
    flows = make({"a": 100, "b": 10})
    group = np.r_[np.arange(100) // 5, np.full(10, 3)].astype(np.int32)
    in_test = [fold for fold in range(10) if 3 in split(flows[:100].replace(group=group[:100]), fold=fold).test.group]
    for fold in range(10):
        if fold in in_test:
            assert len(split_open_set(flows.replace(group=group), known=1, fold=fold).test_unknown) == 10
        else:
            with pytest.raises(ConfigError, match="all 10 flows of unknown classes share a group.*group=None"):
                split_open_set(flows.replace(group=group), known=1, fold=fold)
    assert len(in_test) == 1


def test_names_without_flows_are_neither_known_nor_unknown():
    flows = make({"a": 30, "none": 0, "b": 20, "c": 10})
    parts = split_open_set(flows, known=2)
    assert (parts.known, parts.unknown) == (("a", "b"), ("c",))
    with pytest.raises(ConfigError, match="known names classes that have no flows: none; classes: a, b, c"):
        split_open_set(flows, known=["a", "none"])
    with pytest.raises(ConfigError, match="from 1 to 2, as 3 classes"):
        split_open_set(flows, known=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known": 0}, "from 1 to 5"),
        ({"known": 6}, "from 1 to 5"),
        ({"known": -1}, "from 1 to 5"),
        ({"known": 1.0}, "above 0 and under 1"),
        ({"known": 0.0}, "above 0 and under 1"),
        ({"known": float("nan")}, "above 0 and under 1"),
        ({"known": True}, "must be a number"),
        ({"known": 1j}, "must be a number"),
        ({"known": "video"}, "single text"),
        ({"known": []}, "no class is known"),
        ({"known": [*COUNTS]}, "all 6 classes are known"),
        ({}, "all 6 classes are known"),
        ({"known": ["video", "tv"]}, "no flows: tv"),
        ({"known": 2, "unknown": ["tv"]}, "unknown names classes that have no flows: tv"),
        ({"known": 2, "unknown": "maps"}, "single text"),
        ({"known": ["video"], "unknown": ["video"]}, "in both known and unknown: video"),
        ({"unknown": [*COUNTS]}, "no class is known"),
        ({"known": 2, "by": "size"}, "unknown order 'size'"),
        ({"known": ["video"], "by": "random"}, "needs a number"),
        ({"known": 2, "fold": 10}, "fold must be"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ConfigError, match=message):
        split_open_set(make(COUNTS), **options)


def test_one_class_has_no_open_set():
    with pytest.raises(ConfigError, match="at least 2 classes with flows; the set has 1"):
        split_open_set(make({"a": 40, "b": 0}), known=1)
