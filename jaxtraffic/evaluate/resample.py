"""Resampled real flows, the references for generated ones: a bootstrap copy and two halves of a set."""

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
