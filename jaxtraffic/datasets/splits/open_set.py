"""Open-set splits: train on known classes, judge also on flows of classes that were never seen.

The selections are those of CESNET DataZoo: the most popular classes known (TOPX_KNOWN), with the classes of a provider
never divided; named classes unknown and the rest known (BACKGROUND_UNKNOWN); a fixed list of known classes (FIXED).
"""

from __future__ import annotations

import dataclasses
import logging
import numbers
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxtraffic.datasets.curation import popular_first
from jaxtraffic.datasets.splits.folds import split
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries, concatenate

log = logging.getLogger("jaxtraffic.datasets")

ORDERS = ("popularity", "random")


@dataclasses.dataclass(frozen=True)
class OpenSetSplit:
    """The sides of an open-set split.

    Attributes:
        train: flows of known classes to fit on.
        validation: flows of known classes to choose on.
        test_known: flows of known classes to judge on; train, validation and test_known have the same class names, the
            known classes with the most popular first.
        test_unknown: flows of unknown classes, with class names of their own, the most popular first.
        left_out: flows of unknown classes that share a group with train or validation and are on no side.
    """

    train: PacketSeries
    validation: PacketSeries
    test_known: PacketSeries
    test_unknown: PacketSeries
    left_out: int = 0

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the known classes."""
        return self.train.class_names

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the unknown classes."""
        return self.test_unknown.class_names

    def test(self, unknown_name: str = "unknown") -> PacketSeries:
        """Known flows, then unknown ones, whose label is the number of known classes.

        Args:
            unknown_name: name of that label.

        Raises:
            ConfigError: a known class has this name.
        """
        if unknown_name in self.known:
            raise ConfigError(f"{unknown_name!r} is a known class; give another unknown_name")
        names = (*self.known, unknown_name)
        label = np.full(len(self.test_unknown), len(self.known), np.int32)
        parts = [self.test_known.replace(class_names=names), self.test_unknown.replace(class_names=names, label=label)]
        group = None if parts[0].group is None else np.concatenate([part.group for part in parts])
        return concatenate(parts).replace(group=group)


def split_open_set(
    flows: PacketSeries,
    *,
    known: int | float | Sequence[str] | None = None,
    unknown: Sequence[str] = (),
    by: str = "popularity",
    provider: Mapping[str, str | None] | None = None,
    seed: int = 0,
    fold: int = 0,
    n_folds: int = 10,
) -> OpenSetSplit:
    """Splits known classes into train, validation and test, and keeps the unknown ones for the test.

    Known flows are dealt by `folds.split`. All flows of unknown classes are in `test_unknown`, in every fold; where
    flows have groups, those whose group is also in train or validation are left out and counted, so that no group
    stands on both sides. Classes without flows are neither known nor unknown.

    Args:
        flows: labelled flows.
        known: how many classes are known, or their share (a float under 1, rounded half up), or their names; None: all
            that are not in `unknown`. With a number or a share and a `provider`, fewer may be known (logged).
        unknown: classes that are never known, such as those of background traffic (`background_classes`).
        by: "popularity": the classes with the most flows are known, ties by name; "random": classes drawn with `seed`.
        provider: class -> who runs it; the classes of one provider are all known or all unknown. Providers are taken
            in the order of their first class, whole, where they fit into the number that is left. Classes that are
            missing or map to None stand alone. A list of names that divides a provider is refused. Classes in `unknown`
            do not count: the other classes of their provider can be known.
        seed: of the dealing, and of the draw of classes.
        fold: from 0 to n_folds - 1.
        n_folds: number of parts, at least 3.

    Raises:
        ConfigError: names that are no classes or have no flows, a list that divides a provider, a number that leaves
            no known or no unknown class, unknown classes that all share groups with train; see also `folds.split`.
    """
    names = flows.class_names
    ranked = [int(label) for label in popular_first(flows)]
    counts = flows.counts()
    ranked = [label for label in ranked if counts[label]]
    if len(ranked) < 2:
        raise ConfigError(f"an open-set split needs at least 2 classes with flows; the set has {len(ranked)}")
    _check_names(unknown, names, counts, "unknown")
    candidates = [label for label in ranked if names[label] not in set(unknown)]
    if by not in ORDERS:
        raise ConfigError(f"unknown order {by!r}; choose from: {', '.join(ORDERS)}")
    if known is None or not isinstance(known, numbers.Real | np.bool_):
        if by != "popularity":
            raise ConfigError(f"by={by!r} chooses among classes and needs a number or a share of known classes")
        chosen = candidates if known is None else _listed(known, unknown, candidates, flows)
        _check_providers(chosen, candidates, names, provider or {})
    else:
        n_known = _number(known, len(ranked))
        order = candidates
        if by == "random":
            order = [candidates[index] for index in np.random.default_rng(seed).permutation(len(candidates))]
        chosen = _choose(order, n_known, names, provider or {})
        if len(chosen) < n_known:
            log.warning(
                "%d classes are known, not %d: providers and unknown classes leave no more", len(chosen), n_known
            )
    known_labels = [label for label in ranked if label in set(chosen)]
    unknown_labels = [label for label in ranked if label not in set(chosen)]
    if not known_labels:
        raise ConfigError("no class is known: ask for more known classes, or name fewer unknown ones")
    if not unknown_labels:
        raise ConfigError(f"all {len(ranked)} classes are known: an open-set split needs an unknown class")
    parts = split(_select(flows, known_labels), fold=fold, seed=seed, n_folds=n_folds)
    strange = _select(flows, unknown_labels)
    apart = strange
    if flows.group is not None:
        seen = np.concatenate([parts.train.group, parts.validation.group])
        apart = strange[np.flatnonzero(~np.isin(strange.group, seen))]
    left_out = len(strange) - len(apart)
    if not len(apart):
        raise ConfigError(
            f"all {left_out} flows of unknown classes share a group with train or validation; choose other known "
            "classes, or give up the groups with flows.replace(group=None)"
        )
    if left_out:
        log.info("left out %d flows of unknown classes that share a group with train or validation", left_out)
    return OpenSetSplit(parts.train, parts.validation, parts.test, apart, left_out)


def background_classes(flows: PacketSeries) -> tuple[str, ...]:
    """Names of the classes of background traffic that have flows: "background", or ending in "-background" (CESNET)."""
    return tuple(
        name
        for name, count in zip(flows.class_names, flows.counts())
        if count and (name == "background" or name.endswith("-background"))
    )


def _number(known: int | float, n_classes: int) -> int:
    """How many classes are known."""
    if isinstance(known, bool | np.bool_):
        raise ConfigError(f"known must be a number, a share, names or None; got {known}")
    if not isinstance(known, numbers.Integral):
        if not 0 < known < 1:
            raise ConfigError(f"known as a share must be above 0 and under 1; got {known}")
        return min(max(int(n_classes * known + 0.5), 1), n_classes - 1)
    if not 1 <= known < n_classes:
        raise ConfigError(f"known must be from 1 to {n_classes - 1}, as {n_classes} classes have flows; got {known}")
    return int(known)


def _choose(order: list[int], n_known: int, names: Sequence[str], provider: Mapping[str, str | None]) -> list[int]:
    """The first classes in order, providers whole: one that does not fit is passed over for smaller ones behind it."""
    chosen: list[int] = []
    for label in order:
        if label in chosen:
            continue
        owner = provider.get(names[label])
        family = [label] if owner is None else [other for other in order if provider.get(names[other]) == owner]
        if len(chosen) + len(family) <= n_known:
            chosen.extend(family)
    return chosen


def _listed(known: Sequence[str], unknown: Sequence[str], candidates: list[int], flows: PacketSeries) -> list[int]:
    """Labels of a fixed list of known classes."""
    if not isinstance(known, Iterable):
        raise ConfigError(f"known must be a number, a share, names or None; got {known!r}")
    _check_names(known, flows.class_names, flows.counts(), "known")
    both = sorted(set(known) & set(unknown))
    if both:
        raise ConfigError(f"classes in both known and unknown: {', '.join(both)}")
    return [label for label in candidates if flows.class_names[label] in set(known)]


def _check_names(wanted: Sequence[str], names: Sequence[str], counts: np.ndarray, option: str) -> None:
    """Raises where the names are one string, or are not of classes with flows."""
    if isinstance(wanted, str):
        raise ConfigError(f'{option} must be a list of class names, as ["{wanted}"]; got a single text')
    existing = {name for name, count in zip(names, counts) if count}
    missing = sorted({str(name) for name in wanted} - existing)
    if missing:
        raise ConfigError(
            f"{option} names classes that have no flows: {', '.join(missing)}; classes: {', '.join(sorted(existing))}"
        )


def _check_providers(
    chosen: list[int], candidates: list[int], names: Sequence[str], provider: Mapping[str, str | None]
) -> None:
    """Raises where a provider has chosen classes and others that could have been."""
    inside = {provider.get(names[label]) for label in chosen} - {None}
    outside = {provider.get(names[label]) for label in candidates if label not in set(chosen)}
    divided = sorted(inside & outside)
    if divided:
        raise ConfigError(f"known divides the classes of {', '.join(divided)}; name all classes of a provider, or none")


def _select(flows: PacketSeries, labels: list[int]) -> PacketSeries:
    """Flows of some classes, numbered in the order of `labels`."""
    new = np.full(len(flows.class_names), -1, np.int32)
    new[labels] = np.arange(len(labels), dtype=np.int32)
    chosen = flows[np.flatnonzero(new[flows.label] >= 0)]
    return chosen.replace(label=new[chosen.label], class_names=tuple(flows.class_names[label] for label in labels))
