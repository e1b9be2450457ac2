"""Each rule drops what it says, counts it, and leaves the rest alone."""

import logging

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets import curation
from jaxtraffic.datasets.labelled import LabelledFlows
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries


def make(counts, lengths=None):
    """A series with `counts` {name: flows}; every flow's first size is its number."""
    names = sorted(counts)
    label = np.repeat(np.arange(len(names), dtype=np.int32), [counts[name] for name in names])
    n = label.size
    lengths = np.full(n, 12) if lengths is None else np.asarray(lengths)
    mask = np.arange(30) < lengths[:, None]
    size = np.where(mask, 100, 0).astype(np.int16)
    size[:, 0] = np.where(mask[:, 0], np.arange(n), 0)
    return PacketSeries(
        size, mask.astype(np.int8), np.zeros((n, 30), np.float32), label, class_names=tuple(names)
    ).check()


def names_of(flows):
    return [flows.class_names[label] for label in flows.label]


@pytest.mark.parametrize("name", ["quad-dns", "DNS", "nextdns", "cloud-doh", "doq", "DoH proxy"])
def test_dns_names(name):
    assert curation.is_dns_name(name)


@pytest.mark.parametrize("name", ["youtube", "dohop", "default-background", "domains", "green-dot"])
def test_other_names(name):
    assert not curation.is_dns_name(name)


def test_dns_flows_are_dropped_and_counted(caplog):
    flows = make({"a": 3, "b": 2})
    with caplog.at_level(logging.INFO, logger="jaxtraffic.datasets"):
        facts = pl.DataFrame({"is_dns": [True, False, None, True, True]})
        kept, dropped = curation.apply_rule(flows, facts, curation.NO_DNS)
    assert kept.size[:, 0].tolist() == [1, 2]
    assert (dropped.rule, dropped.flows, dropped.classes) == ("dns", 3, 1)
    assert "(b)" in dropped.detail
    assert "dropped 3 flows" in caplog.text


def test_short_flows_are_dropped():
    kept, dropped = curation.drop_short(make({"a": 4}, [9, 10, 11, 0]), 10)
    assert kept.size[:, 0].tolist() == [1, 2]
    assert dropped.flows == 2
    for impossible in (0, 31):
        with pytest.raises(ConfigError, match="min_packets"):
            curation.drop_short(make({"a": 4}), impossible)


def test_small_classes_are_dropped():
    kept, dropped = curation.drop_small_classes(make({"a": 5, "b": 4, "c": 6}), 5)
    assert set(names_of(kept)) == {"a", "c"}
    assert (dropped.flows, dropped.classes) == (4, 1)


def test_tier_50_keeps_the_50_most_popular_ties_by_name():
    counts = {f"class-{index:02d}": 5 for index in range(53)} | {"class-52": 9, "class-00": 4}
    kept, dropped = curation.keep_tier(make(counts), "50")
    assert len(set(names_of(kept))) == 50
    assert "class-52" in names_of(kept)
    assert {"class-00", "class-50", "class-51"}.isdisjoint(names_of(kept))
    assert (dropped.flows, dropped.classes) == (14, 3)
    assert curation.keep_tier(make(counts), "all")[1].flows == 0


def test_unknown_tier_lists_the_choices():
    with pytest.raises(ConfigError, match="'7x'.*all, 50"):
        curation.check_tier("7x")


def test_defaults_of_min_flows():
    assert curation.default_min_flows(99_999) == 200
    assert curation.default_min_flows(100_000) == 500


def test_curate_orders_classes_and_counts_every_rule():
    flows = make({"a": 210, "b": 230, "c": 230, "dns-x": 300, "rare": 5}, None)
    facts = pl.DataFrame({"is_dns": [name == "dns-x" for name in names_of(flows)], "start": np.arange(975.0)})
    table, dropped = curation.curate(LabelledFlows(flows, facts), rules=[curation.NO_DNS])
    kept = table.flows
    assert table.facts["start"].to_list() == kept.size[:, 0].tolist(), "facts go with their flows"
    assert kept.group is None
    assert kept.class_names == ("b", "c", "a")
    assert kept.counts().tolist() == [230, 230, 210]
    assert [entry.rule for entry in dropped] == ["dns", "min_packets", "min_flows", "tier"]
    assert [entry.flows for entry in dropped] == [300, 0, 5, 0]
    assert len(kept) + sum(entry.flows for entry in dropped) == len(flows)
    # the flows themselves keep their classes
    old = dict(zip(flows.size[:, 0].tolist(), names_of(flows), strict=True))
    assert all(old[number] == name for number, name in zip(kept.size[:, 0].tolist(), names_of(kept), strict=True))
    kept.check()


def test_curation_that_leaves_nothing_says_why():
    with pytest.raises(ConfigError, match="min_flows"):
        curation.curate(LabelledFlows(make({"a": 5}), pl.DataFrame({"packets": [12] * 5})))


@pytest.mark.parametrize(
    ("rule", "fact", "kept"),
    [
        (curation.NO_DNS, "is_dns", [False, True, True]),
        (curation.NO_BACKGROUND, "is_background", [False, True, True]),
        (curation.HANDSHAKE, "has_handshake", [True, False, True]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_rules_on_facts_keep_what_is_not_known(rule, fact, kept):
    facts = pl.DataFrame({fact: [True, False, None]})
    assert rule.keep(facts).tolist() == kept
    assert rule.keep(pl.DataFrame({"packets": [1, 2, 3]})).all()


def test_more_packets_than_are_kept_are_asked_of_the_whole_flow():
    facts = pl.DataFrame({"packets": [1000, 12, None, 1001]})
    table, dropped = curation.curate(LabelledFlows(make({"a": 4}), facts), min_packets=1000, min_flows=1)
    assert table.facts["packets"].to_list() == [1000, 1001]
    assert dropped[0].flows == 2
    with pytest.raises(ConfigError, match="min_packets"):
        curation.curate(LabelledFlows(make({"a": 4}), facts.select(start="packets")), min_packets=1000, min_flows=1)


def test_a_draw_takes_facts_and_groups_along():
    flows = make({"a": 60, "b": 40}).replace(group=np.arange(100, dtype=np.int32) // 7)
    table, dropped = curation.draw(LabelledFlows(flows, pl.DataFrame({"packets": np.arange(100)})), 30, seed=2)
    np.testing.assert_array_equal(table.facts["packets"].to_numpy(), table.flows.size[:, 0])
    np.testing.assert_array_equal(table.flows.group, table.flows.size[:, 0] // 7)
    assert dropped.flows == 70


@pytest.mark.parametrize(
    ("counts", "total", "expected"),
    [
        ({"a": 1000, "b": 100, "c": 10}, 111, [91, 10, 10]),
        ({"a": 600, "b": 300, "c": 100}, 100, [60, 30, 10]),
        ({"a": 1000, "b": 100, "c": 4}, 50, [36, 10, 4]),
        ({"a": 1000, "b": 100, "c": 10}, 12, [10, 1, 1]),
        ({"a": 1000, "b": 100, "c": 10}, 3, [1, 1, 1]),
    ],
)
def test_subsample_keeps_proportions_and_a_floor(counts, total, expected):
    kept, dropped = curation.subsample(make(counts), total, seed=3)
    assert len(kept) == total
    np.testing.assert_allclose(kept.counts(), expected, atol=1)
    assert dropped.flows == sum(counts.values()) - total
    assert (np.diff(kept.size[:, 0].astype(int)) > 0).all(), "the old order, no flow twice"


def test_subsample_depends_on_the_seed_alone():
    flows = make({"a": 300, "b": 50})
    one, same, other = (curation.subsample(flows, 60, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.size, same.size)
    assert (one.size[:, 0] != other.size[:, 0]).any()
    np.testing.assert_array_equal(one.counts(), other.counts())
    assert curation.subsample(flows, 350)[0] is flows
    with pytest.raises(ConfigError, match="at least 2"):
        curation.subsample(flows, 1)


def test_quotas_always_add_up():
    rng = np.random.default_rng(0)
    for _ in range(300):
        counts = rng.integers(1, 2000, rng.integers(1, 30))
        total = int(rng.integers(counts.size, counts.sum() + 1))
        quota = curation._quotas(counts, total)
        assert quota.sum() == total
        assert (quota >= 1).all()
        assert (quota <= counts).all()
