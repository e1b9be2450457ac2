"""Stratified folds: 80 % train, 10 % validation, 10 % test, whole groups on one side."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries


@dataclasses.dataclass(frozen=True)
class Split:
    """The three sides of a fold.

    Attributes:
        train: flows to fit on.
        validation: flows to choose on.
        test: flows to judge on.
    """

    train: PacketSeries
    validation: PacketSeries
    test: PacketSeries


def split(flows: PacketSeries, *, fold: int = 0, seed: int = 0, n_folds: int = 10) -> Split:
    """Splits flows into train, validation and test, stratified by class.

    The flows are dealt into `n_folds` parts once for a seed. Test is part `fold`, validation the part after it, train
    the rest. Flows of one group (`flows.group`) stay on one side. Train comes first for small classes: the only flow or
    group of a class is in train in every fold, and where all groups of a class fall into validation and test, its
    smallest group moves to train, from validation if it can be, else from test. Apart from these, the tests of all
    folds together are the whole set.

    Args:
        flows: labelled flows.
        fold: from 0 to n_folds - 1.
        seed: of the dealing.
        n_folds: number of parts, at least 3.

    Raises:
        ConfigError: a fold that does not exist, or fewer flows or groups to deal than parts.
    """
    if n_folds < 3:
        raise ConfigError(f"n_folds must be at least 3 (train, validation, test); got {n_folds}")
    if not 0 <= fold < n_folds:
        raise ConfigError(f"fold must be from 0 to {n_folds - 1}; got {fold}")
    label = np.asarray(flows.label)
    grouped = flows.group is not None
    group = np.unique(flows.group, return_inverse=True)[1] if grouped else np.arange(len(flows))
    dealt = ~_only_of_a_class(label, group)
    n_dealt = np.unique(group[dealt]).size
    if n_dealt < n_folds:
        noun = "groups" if grouped else "flows"
        raise ConfigError(
            f"{n_folds} folds need at least {n_folds} {noun} in classes of two or more {noun}; the set has {n_dealt}"
            + ("; to let captures fall on both sides, split flows.replace(group=None)" if grouped else "")
        )
    rng = np.random.default_rng(seed)
    part = np.full(label.size, -1)
    part[dealt] = (
        _deal_groups(label[dealt], group[dealt], n_folds, rng) if grouped else _deal_flows(label[dealt], n_folds, rng)
    )
    side = np.select([part == fold, part == (fold + 1) % n_folds], [2, 1], 0)
    _cover_train(side, label, group)
    train, validation, test = (flows[np.flatnonzero(side == number)] for number in range(3))
    return Split(train, validation, test)


def _only_of_a_class(label: np.ndarray, group: np.ndarray) -> np.ndarray:
    """[flow] bool: the flow's group is the only one of some class."""
    # one number for each pair: sorting pairs as rows is ten times slower
    n_groups = int(group.max(initial=0)) + 1
    pairs = np.unique(label.astype(np.int64) * n_groups + group)
    first, count = np.unique(pairs // n_groups, return_index=True, return_counts=True)[1:]
    alone = np.zeros(n_groups, bool)
    alone[pairs[first[count == 1]] % n_groups] = True
    return alone[group]


def _deal_flows(label: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """[flow] part: shuffled, sorted by class and dealt in turn, so that parts and classes within parts differ by 1."""
    order = rng.permutation(label.size)
    order = order[np.argsort(label[order], kind="stable")]
    # even parts before odd ones: two flows of a small class then seldom become the validation and test of one fold
    turn = np.r_[0:n_folds:2, 1:n_folds:2]
    part = np.empty(label.size, np.int64)
    part[order] = turn[np.arange(label.size) % n_folds]
    return part


def _deal_groups(label: np.ndarray, group: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """[flow] part: greedy, largest group first, each to the part where its classes are furthest below their share."""
    group = np.unique(group, return_inverse=True)[1]
    counts = np.zeros((group.max() + 1, label.max() + 1))
    np.add.at(counts, (group, label), 1)
    # shares of a class, so that a rare class weighs as much as a frequent one
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled = np.zeros((n_folds, shares.shape[1]))
    flows_in = np.zeros(n_folds)
    part_of_group = np.empty(len(counts), np.int64)
    for position, index in enumerate(order):
        # growth of the sum of squared shares, which is least when every part holds the same share of every class
        cost = filled @ shares[index]
        candidates = np.arange(n_folds)
        empty = candidates[flows_in == 0]
        if len(order) - position <= empty.size:
            candidates = empty
        best = candidates[np.lexsort((flows_in[candidates], cost[candidates]))[0]]
        part_of_group[index] = best
        filled[best] += shares[index]
        flows_in[best] += counts[index].sum()
    # the largest groups come to lie in the first parts, which should not always be the first folds
    return rng.permutation(n_folds)[part_of_group[group]]


def _cover_train(side: np.ndarray, label: np.ndarray, group: np.ndarray) -> None:
    """Moves groups into train (side 0), in place, until every class has a flow there."""
    for missing in np.setdiff1d(label, label[side == 0]):
        if (label[side == 0] == missing).any():
            continue
        of_class = label == missing
        source = 1 if (side[of_class] == 1).any() else 2
        groups, sizes = np.unique(group[of_class & (side == source)], return_counts=True)
        side[group == groups[np.argmin(sizes)]] = 0
