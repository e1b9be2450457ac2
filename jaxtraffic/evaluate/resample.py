"""Resampled real flows, the references for generated ones: a bootstrap copy and halves of a set."""

from __future__ import annotations

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries


def bootstrap(train: PacketSeries, labels_or_n: np.ndarray | int, seed: int = 0) -> PacketSeries:
    """A bootstrap copy: real rows drawn with replacement, what a generator that only memorises would give.

    Args:
        train: the real training flows.
        labels_or_n: [flow] labels, each answered by a random row of that class; or a number of flows, whose rows are
            drawn from the whole set, so that the classes come in their natural shares.
        seed: seed of the draw.

    Raises:
        ConfigError: an empty set, a label with no row in `train`, or a number below 1.
    """
    generator = np.random.default_rng(seed)
    known = np.asarray(train.label)
    if not len(known):
        raise ConfigError("bootstrap needs at least one flow to draw from")
    if np.ndim(labels_or_n) == 0:
        if int(labels_or_n) < 1:
            raise ConfigError(f"bootstrap needs at least one flow to draw, got {labels_or_n}")
        return train[generator.integers(len(known), size=int(labels_or_n))].replace(name="bootstrap")
    labels = np.asarray(labels_or_n)
    rows = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        candidates = np.flatnonzero(known == label)
        wanted = labels == label
        if not len(candidates):
            raise ConfigError(f"bootstrap: label {label} has no flow in {train.name}")
        rows[wanted] = generator.choice(candidates, size=int(wanted.sum()))
    return train[rows].replace(name="bootstrap")


def halves(flows: PacketSeries, seed: int = 0) -> tuple[PacketSeries, PacketSeries]:
    """Two disjoint random halves that together are all of `flows`, alike in classes: their counts differ by 1 at most.

    Raises:
        ConfigError: fewer than two flows.
    """
    if len(flows) < 2:
        raise ConfigError(f"two halves need at least two flows, {flows.name} has {len(flows)}")
    shuffled = np.random.default_rng(seed).permutation(len(flows))
    by_class = shuffled[np.argsort(np.asarray(flows.label)[shuffled], kind="stable")]
    return flows[np.sort(by_class[::2])], flows[np.sort(by_class[1::2])]


def capture_halves(flows: PacketSeries, seed: int = 0) -> tuple[PacketSeries, PacketSeries]:
    """Two halves that share no capture and hold as many flows of each class: what the shift between captures costs.

    Captures are dealt one by one, largest first, each to the half that then differs least from the other in its
    classes. After that each class keeps as many flows in both halves as the smaller side has, drawn at random; a class
    whose flows all come from one capture is in neither.

    Raises:
        ConfigError: flows without captures, fewer than two of them, or no class with flows on both sides.
    """
    if flows.group is None:
        raise ConfigError(f"{flows.name} does not say which flows come from one capture")
    generator = np.random.default_rng(seed)
    names, capture = np.unique(np.asarray(flows.group), return_inverse=True)
    label = np.asarray(flows.label)
    counts = np.zeros((len(names), len(flows.class_names)), np.int64)
    np.add.at(counts, (capture, label), 1)
    # Shuffled first, so that captures of one size are dealt in the order of the seed.
    order = generator.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    second = np.zeros(len(names), bool)
    balance = np.zeros(len(flows.class_names), np.int64)
    for one in order:
        second[one] = np.abs(balance - counts[one]).sum() < np.abs(balance + counts[one]).sum()
        balance += -counts[one] if second[one] else counts[one]
    sides = [np.flatnonzero(~second[capture]), np.flatnonzero(second[capture])]
    kept: list[list[np.ndarray]] = [[], []]
    for value in np.unique(label):
        rows = [side[label[side] == value] for side in sides]
        n = min(map(len, rows))
        for part, own in zip(kept, rows):
            part.append(generator.permutation(own)[:n])
    chosen = [np.sort(np.concatenate(part)) for part in kept]
    if not len(chosen[0]):
        raise ConfigError(f"{flows.name}: no class has flows from two captures, so no halves without a common one")
    return flows[chosen[0]], flows[chosen[1]]
