"""The folds of a campaign on the device: normalised as PAM'24 does, padded to one shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import datasets, scaling
from jaxtraffic.augment.policies import ClassWeightedSampler, class_weighted
from jaxtraffic.datasets.curation import subsample
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries


class Side(NamedTuple):
    """One side of every fold.

    Attributes:
        x: [fold, flow, T, 3] float32 features, 0 in padding.
        mask: [fold, flow, T] bool.
        label: [fold, flow] int32.
        count: [fold] int32, flows that are there; the rest of the rows fills up.
    """

    x: jax.Array
    mask: jax.Array
    label: jax.Array
    count: jax.Array


class Folds(NamedTuple):
    """All folds of a campaign.

    Attributes:
        train: to fit on.
        validation: for early stopping.
        test: to judge on.
        statistics: of the classes of train and validation, leaves [fold, class, ...].
        scale_high: [fold] float32, log10 of the largest inter-arrival time, seconds.
        sampler: draws training flows by class, leaves [fold, ...].
    """

    train: Side
    validation: Side
    test: Side
    statistics: scaling.ClassStatistics
    scale_high: jax.Array
    sampler: ClassWeightedSampler


def split_of(flows: PacketSeries, fold: int, n_folds: int) -> datasets.Split:
    """Fold `fold` of repeated `n_folds`-fold splits: folds n_folds to 2 n_folds - 1 deal the flows anew, and so on.

    PAM'24 has 80 splits.

    Raises:
        ConfigError: a side without flows.
    """
    parts = datasets.split(flows, fold=fold % n_folds, seed=fold // n_folds, n_folds=n_folds)
    for name, side in vars(parts).items():
        if not len(side):
            raise ConfigError(f"fold {fold} of {flows.name} has no {name} flows; give more flows or fewer folds")
    return parts


def make_folds(
    flows: PacketSeries, folds: Sequence[int], *, n_folds: int, length: int, max_train: int | None = None
) -> Folds:
    """Splits and normalises; statistics are those of train and validation of each fold.

    Args:
        flows: labelled flows.
        folds: numbers of the folds, as `split_of` takes them.
        n_folds: parts of a split.
        length: packets that a network sees.
        max_train: training flows of a fold at most, drawn in proportion to the classes; None: all.

    Raises:
        ConfigError: flows that do not suffice.
    """
    check_flows(flows, n_folds, length)
    classes = len(flows.class_names)
    sides: dict[str, list[tuple[np.ndarray, ...]]] = {"train": [], "validation": [], "test": []}
    for fold in folds:
        parts = split_of(flows, fold, n_folds)
        if max_train is not None:
            parts = dataclasses.replace(parts, train=subsample(parts.train, max_train, seed=fold)[0])
        for name, side in sides.items():
            side.append(_arrays(getattr(parts, name), length))
    most = {name: max(len(label) for *_, label in side) for name, side in sides.items()}
    statistics, highs, samplers = [], [], []
    for i in range(len(folds)):
        pair = sides["train"][i][:2], sides["validation"][i][:2]
        scale = scaling.fit_features(*(np.concatenate(arrays) for arrays in zip(*pair, strict=True)))
        for name, side in sides.items():
            x, mask, label = side[i]
            # Padded to one shape, for the maps of the scale are compiled for every shape.
            scaled = scale.apply(_filled(x, most[name]), _filled(mask, most[name]))
            side[i] = np.asarray(scaled)[: len(label)], mask, label
        both = (np.concatenate(arrays) for arrays in zip(sides["train"][i], sides["validation"][i], strict=True))
        statistics.append(scaling.class_statistics(*both, classes))
        highs.append(scale.high)
        samplers.append(class_weighted(sides["train"][i][2], classes))
    train = _padded(sides["train"])
    rows = train.x.shape[1]
    samplers = [
        ClassWeightedSampler(_filled(np.asarray(one.order), rows), one.start, one.size, one.cumulative)
        for one in samplers
    ]
    return Folds(
        train,
        _padded(sides["validation"]),
        _padded(sides["test"]),
        _stacked(statistics),
        jnp.asarray(highs, jnp.float32),
        _stacked(samplers),
    )


def check_flows(flows: PacketSeries, n_folds: int, length: int) -> None:
    """Refuses sets that no campaign can split.

    Raises:
        ConfigError: fewer than two classes, a class with fewer flows than folds, or more packets than there are.
    """
    if not 1 <= length <= flows.length:
        raise ConfigError(f"length must be from 1 to {flows.length}, the packets of {flows.name}; got {length}")
    if n_folds < 3:
        raise ConfigError(f"n_folds must be at least 3 (train, validation, test); got {n_folds}")
    counts = flows.counts()
    if len(counts) < 2:
        raise ConfigError(f"{flows.name} has {len(counts)} class; a classifier needs at least 2")
    if counts.min() < n_folds:
        name, count = flows.class_names[int(counts.argmin())], int(counts.min())
        raise ConfigError(
            f"class {name} of {flows.name} has {count} flows, fewer than the {n_folds} folds; leave small classes out "
            f"(--min-flows {n_folds}) or take fewer folds"
        )


def has_iat(flows: PacketSeries) -> bool:
    """Whether the flows have inter-arrival times at all; formats without them leave zeros."""
    return bool((np.asarray(flows.iat) > 0).any())


def _arrays(flows: PacketSeries, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, mask = flows.arrays()
    return x[:, :length], mask[:, :length], np.asarray(flows.label)


def _padded(parts: list[tuple[np.ndarray, ...]]) -> Side:
    rows = max(len(label) for *_, label in parts)
    filled = [[_filled(array, rows) for array in arrays] for arrays in parts]
    x, mask, label = (np.stack(arrays) for arrays in zip(*filled, strict=True))
    count = np.array([len(label) for *_, label in parts], np.int32)
    return Side(*map(jnp.asarray, (x, mask, label.astype(np.int32), count)))


def _filled(array: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))


def _stacked(trees: list) -> object:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)
