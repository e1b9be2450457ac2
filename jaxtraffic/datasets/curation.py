"""Rules that drop flows on purpose; each says what it dropped.

The order is that of `curate`: rules on facts (DNS, background, handshake), short flows, small classes, tier. The
defaults are those of the thesis (DNS flows dropped, classes under 500 flows dropped, tier "50" = the 50 most popular
classes); sets of fewer than 100,000 flows use 200 in place of 500.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from jaxtraffic.datasets.dataset import Rule
from jaxtraffic.datasets.labelled import LabelledFlows
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

log = logging.getLogger("jaxtraffic.datasets")

TIERS = ("all", "50")
"""All classes, or the 50 most popular."""

SMALL_SET = 100_000
"""Flows under which a set counts as small."""

_DNS_WORD = re.compile(r"dns|(?<![a-z])(?:doh|doq)(?![a-z])")


@dataclasses.dataclass(frozen=True)
class Dropped:
    """What one rule dropped.

    Attributes:
        rule: name of the rule.
        flows: flows dropped.
        classes: classes that have no flow left because of this rule.
        detail: one line for people, with names and thresholds.
    """

    rule: str
    flows: int
    classes: int
    detail: str


def is_dns_name(name: str) -> bool:
    """Whether an application or category name says DNS: "dns" anywhere, or "doh" or "doq" as a word."""
    return bool(_DNS_WORD.search(name.lower()))


def check_tier(tier: str) -> None:
    """Raises ConfigError for a tier that does not exist."""
    if tier not in TIERS:
        raise ConfigError(f"unknown tier {tier!r}; choose from: {', '.join(TIERS)}")


def default_min_flows(n_flows: int) -> int:
    """Flows a class needs in a set of `n_flows`: 500, or 200 where the set has fewer than 100,000 flows."""
    return 200 if n_flows < SMALL_SET else 500


def _unless(facts: pl.DataFrame, name: str, wrong: bool) -> np.ndarray:
    """[flow] True where the fact is not `wrong`, and where it is not known."""
    if name not in facts.columns:
        return np.ones(facts.height, bool)
    return (facts[name] != wrong).fill_null(True).to_numpy()


def not_dns(facts: pl.DataFrame) -> np.ndarray:
    """[flow] bool: flows that are not DNS."""
    return _unless(facts, "is_dns", True)


def not_background(facts: pl.DataFrame) -> np.ndarray:
    """[flow] bool: flows of the application under test, not of what else ran on the device."""
    return _unless(facts, "is_background", True)


def with_handshake(facts: pl.DataFrame) -> np.ndarray:
    """[flow] bool: TCP flows whose handshake was recorded, and flows without one, as UDP."""
    return _unless(facts, "has_handshake", False)


NO_DNS = Rule("dns", "flows to or from a DNS port, or of a DNS application", not_dns)
NO_BACKGROUND = Rule("background", "background traffic: flows of no application under test", not_background)
HANDSHAKE = Rule("handshake", "TCP flows whose handshake was not recorded", with_handshake)


def apply_rule(
    flows: PacketSeries, facts: pl.DataFrame, rule: Rule, *, rows: np.ndarray | slice = slice(None)
) -> tuple[PacketSeries, Dropped]:
    """Drops the flows that a rule on facts does not keep; the facts of the flows are their `rows`, in order.

    The rule is asked of all facts: the picked rows of a large frame cost more than the rule.
    """
    return _drop(flows, np.asarray(rule.keep(facts), bool)[rows], rule.name, rule.detail)


def drop_fewer_packets(flows: PacketSeries, packets: np.ndarray, min_packets: int) -> tuple[PacketSeries, Dropped]:
    """Drops flows with fewer than `min_packets` packets in the whole flow: packets [flow], before any cutting."""
    return _drop(flows, packets >= min_packets, "min_packets", f"flows with fewer than {min_packets} packet(s)")


def drop_short(flows: PacketSeries, min_packets: int) -> tuple[PacketSeries, Dropped]:
    """Drops flows with fewer than `min_packets` packets; with 1, flows without any packet."""
    if not 1 <= min_packets <= flows.length:
        raise ConfigError(
            f"min_packets must be from 1 to {flows.length}, the packets kept of a flow; got {min_packets}"
        )
    return _drop(flows, flows.n_packets >= min_packets, "min_packets", f"flows with fewer than {min_packets} packet(s)")


def drop_small_classes(flows: PacketSeries, min_flows: int) -> tuple[PacketSeries, Dropped]:
    """Drops classes with fewer than `min_flows` flows."""
    keep = flows.counts() >= min_flows
    return _drop(flows, keep[flows.label], "min_flows", f"classes with fewer than {min_flows} flows")


def keep_tier(flows: PacketSeries, tier: str) -> tuple[PacketSeries, Dropped]:
    """Keeps the most popular classes, ties by name: 50 for tier "50", every class for "all"."""
    check_tier(tier)
    kept = popular_first(flows)[: len(flows.class_names) if tier == "all" else int(tier)]
    return _drop(flows, np.isin(flows.label, kept), "tier", f"classes outside tier {tier}")


def popular_first(flows: PacketSeries) -> np.ndarray:
    """[class] labels, most flows first, ties by name."""
    counts = flows.counts()
    return np.array(sorted(range(counts.size), key=lambda label: (-counts[label], flows.class_names[label])), np.int32)


def reindex(flows: PacketSeries) -> PacketSeries:
    """Renumbers the classes that have flows, most popular first, ties by name; the others lose their names."""
    order = popular_first(flows)
    order = order[flows.counts()[order] > 0]
    new = np.full(len(flows.class_names), -1, np.int32)
    new[order] = np.arange(order.size, dtype=np.int32)
    return flows.replace(label=new[flows.label], class_names=tuple(flows.class_names[label] for label in order))


def curate(
    table: LabelledFlows,
    *,
    rules: Sequence[Rule] = (),
    min_packets: int = 1,
    min_flows: int | None = None,
    tier: str = "all",
) -> tuple[LabelledFlows, list[Dropped]]:
    """Applies the rules in order and renumbers the classes.

    Args:
        table: flows and facts as read.
        rules: rules on facts, applied first, in their order.
        min_packets: packets a flow needs; more than the series are long asks the fact "packets".
        min_flows: flows a class needs, counted after the rules before it; None: by the size of the set as read.
        tier: "all" or "50".

    Returns:
        Flows whose classes are ordered by popularity (ties by name), and one entry for each rule that was applied, also
        where it dropped nothing.

    Raises:
        ConfigError: unknown tier, impossible min_packets, or rules that leave no flow.
    """
    check_tier(tier)
    n_read = len(table)
    if min_flows is None:
        min_flows = default_min_flows(n_read)
    dropped = []

    def judge(flows: PacketSeries) -> PacketSeries:
        facts = table.facts
        for rule in rules:
            flows, count = apply_rule(flows, facts, rule, rows=flows.group)
            dropped.append(count)
        if min_packets > flows.length and "packets" in facts.columns:
            packets = facts["packets"].fill_null(0).to_numpy()[flows.group]
            flows, count = drop_fewer_packets(flows, packets, min_packets)
        else:
            flows, count = drop_short(flows, min_packets)
        dropped.append(count)
        for rule, value in ((drop_small_classes, min_flows), (keep_tier, tier)):
            flows, count = rule(flows, value)
            dropped.append(count)
        if not len(flows):
            reasons = "; ".join(f"{entry.flows} dropped as {entry.detail}" for entry in dropped if entry.flows)
            raise ConfigError(
                f"no flow of {n_read} is left ({reasons}); lower min_packets or min_flows, or load without curation"
            )
        return reindex(flows)

    return _select(table, judge), dropped


def _select(table: LabelledFlows, choose: Callable[[PacketSeries], PacketSeries]) -> LabelledFlows:
    """Applies a function that picks flows to the flows of a table, and picks the same facts.

    The flows carry their numbers in place of their groups meanwhile, which says in the end which ones were picked.
    """
    flows = table.flows
    chosen = choose(flows.replace(group=np.arange(len(flows), dtype=np.int32)))
    index = chosen.group
    group = None if flows.group is None else flows.group[index]
    return dataclasses.replace(table, flows=chosen.replace(group=group), facts=table.facts[index])


def draw(table: LabelledFlows, max_flows: int, *, seed: int = 0) -> tuple[LabelledFlows, Dropped]:
    """As `subsample`, with the facts of the flows."""
    counts: list[Dropped] = []

    def choose(flows: PacketSeries) -> PacketSeries:
        flows, count = subsample(flows, max_flows, seed=seed)
        counts.append(count)
        return flows

    return _select(table, choose), counts[0]


def subsample(flows: PacketSeries, max_flows: int, *, seed: int = 0) -> tuple[PacketSeries, Dropped]:
    """Draws `max_flows` flows without replacement, in proportion to the classes and in their old order.

    A class keeps at least 10 flows where it has them and max_flows allows it for every class, else at least 1.

    Args:
        flows: curated flows.
        max_flows: flows to keep; a set that is not larger stays as it is.
        seed: of the draw.

    Raises:
        ConfigError: fewer flows than classes are asked for.
    """
    counts = flows.counts()
    if max_flows < counts.size:
        raise ConfigError(f"max_flows must be at least {counts.size}, the number of classes; got {max_flows}")
    keep = np.ones(len(flows), bool)
    if max_flows < len(flows):
        rng = np.random.default_rng(seed)
        keep[:] = False
        for label, quota in enumerate(_quotas(counts, max_flows)):
            keep[rng.choice(np.flatnonzero(flows.label == label), quota, replace=False)] = True
    return _drop(flows, keep, "max_flows", f"flows beyond the {max_flows} asked for (stratified, seed {seed})")


def _quotas(counts: np.ndarray, total: int) -> np.ndarray:
    """[class] flows to keep, `total` in sum: a floor for each class, the rest in proportion."""
    floor = np.minimum(counts, 10)
    if floor.sum() > total:
        floor = np.minimum(counts, 1)
    spare = total - int(floor.sum())
    if not spare:
        return floor
    return floor + largest_remainder(np.maximum(counts * (total / counts.sum()) - floor, 0.0), spare)


def largest_remainder(shares: Sequence[float] | np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to `shares`, `total` in sum; what rounding leaves goes to the largest remainders."""
    exact = np.asarray(shares, float) * (total / np.sum(shares))
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]] += 1
    return counts


def _drop(flows: PacketSeries, keep: np.ndarray, rule: str, detail: str) -> tuple[PacketSeries, Dropped]:
    """Keeps the chosen flows; class names stay, so that labels go on meaning the same."""
    before = flows.counts() > 0
    kept = flows if keep.all() else flows[keep]
    lost = [name for name, had, has in zip(flows.class_names, before, kept.counts() > 0) if had and not has]
    if lost:
        detail += f" ({', '.join(lost[:10])}{', ...' if len(lost) > 10 else ''})"
    result = Dropped(rule, len(flows) - len(kept), len(lost), detail)
    if result.flows:
        log.info("dropped %d flows and %d classes: %s", result.flows, result.classes, result.detail)
    return kept, result
