"""Few-shot: classes divided by popularity, and episodes of a few classes with a few flows each.

The most popular classes train, the next are for validation, the least popular for test: a new application has few
flows. Shares and numbers are those of the thesis (Table 4.8: 24, 8 and 8 classes of MIRAGE-19-ALL; 320, 80 and 100 of
AppClassNet), whose episodes have 4 ways, 5, 50 or 200 shots and 15 queries.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from jaxtraffic.datasets.curation import drop_small_classes, largest_remainder, popular_first
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

log = logging.getLogger("jaxtraffic.datasets")


@dataclasses.dataclass(frozen=True)
class ClassPartition:
    """Flows divided by class; each part has its own class names, the most popular first.

    Attributes:
        train: the most popular classes.
        validation: the next ones.
        test: the least popular.
        left_out: classes in no part: under `min_flows`, or less popular than all that were asked for.
    """

    train: PacketSeries
    validation: PacketSeries
    test: PacketSeries
    left_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PartitionRow:
    """A row of Table 4.8 of the thesis.

    Attributes:
        part: "train", "validation", "test" or "all".
        classes: number of classes.
        flows: number of flows.
        largest: flows of the largest class.
        smallest: flows of the smallest class.
        ratio: largest / smallest, the imbalance rho of the thesis.
    """

    part: str
    classes: int
    flows: int
    largest: int
    smallest: int
    ratio: float


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Few-shot tasks on one series of flows; the label of a flow in its task is its way.

    Attributes:
        classes: [episode, way] int32, the class of each way.
        support: [episode, way, shot] int64, flows to learn from.
        query: [episode, way, query] int64, flows to judge on.
    """

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray

    def __len__(self) -> int:
        """Number of episodes."""
        return self.classes.shape[0]


def partition_classes(
    flows: PacketSeries,
    *,
    train: int | float = 0.6,
    validation: int | float = 0.2,
    test: int | float = 0.2,
    min_flows: int = 1,
) -> ClassPartition:
    """Divides the classes by popularity, ties by name.

    Parts are disjoint in classes; a group (`flows.group`) that holds flows of several classes may be in several parts.

    Args:
        flows: labelled flows.
        train: number of classes, or their share; all three are numbers or all three are shares with sum 1.
        validation: number or share.
        test: number or share.
        min_flows: flows a class needs, at least 1; an episode needs shots + queries.

    Raises:
        ConfigError: numbers and shares mixed, more classes asked for than there are, or fewer than three classes.
    """
    kept, _ = drop_small_classes(flows, max(min_flows, 1))
    counts = kept.counts()
    ranked = [int(label) for label in popular_first(kept) if counts[label]]
    sizes = _sizes((train, validation, test), len(ranked))
    ends = np.cumsum(sizes)
    parts = (_select(kept, ranked[end - size : end]) for size, end in zip(sizes, ends))
    in_parts = set(ranked[: ends[-1]])
    left_out = tuple(
        flows.class_names[label] for label in popular_first(flows) if label not in in_parts and flows.counts()[label]
    )
    if left_out:
        log.info("left out %d classes of few flows: %s", len(left_out), _listing(left_out))
    return ClassPartition(*parts, left_out)


def table(partition: ClassPartition) -> list[PartitionRow]:
    """Classes and flows of train, validation, test and all together, as Table 4.8 of the thesis."""
    counts = {name: getattr(partition, name).counts() for name in ("train", "validation", "test")}
    counts["all"] = np.concatenate(list(counts.values()))
    return [
        PartitionRow(part, each.size, int(each.sum()), int(each.max()), int(each.min()), float(each.max() / each.min()))
        for part, each in counts.items()
    ]


def episodes(
    flows: PacketSeries, n: int, *, ways: int = 4, shots: int = 5, queries: int = 15, seed: int = 0
) -> Episodes:
    """Draws few-shot tasks: classes without replacement, then flows of each without replacement, all uniformly.

    The same seed gives the same tasks, and the first tasks of more are the tasks of fewer: a fixed set of test episodes
    is a seed and a number. Where flows have groups, those of each class are dealt once (by `seed`, in the proportion of
    shots to queries) into groups to learn from and groups to judge on, so that support and query of a way never share a
    capture.

    Args:
        flows: labelled flows, every class with enough of them.
        n: number of tasks.
        ways: classes of a task.
        shots: flows of each class to learn from.
        queries: flows of each class to judge on.
        seed: of all draws.

    Raises:
        ConfigError: fewer classes than ways, or classes with too few flows (in enough groups), by name.
    """
    for name, value in {"n": n, "ways": ways, "shots": shots, "queries": queries}.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1; got {value}")
    n_classes = len(flows.class_names)
    if ways > n_classes:
        raise ConfigError(f"{ways} ways need at least {ways} classes; the flows have {n_classes}")
    _refuse_small(flows, flows.counts(), shots + queries, f"{shots} shots and {queries} queries")
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    classes = np.argsort(streams[0].random((n, n_classes)), axis=1)[:, :ways]
    label = np.asarray(flows.label)
    if flows.group is None:
        drawn = _draw(label, np.arange(label.size), n_classes, classes, shots + queries, streams[1:3])
        support, query = drawn[..., :shots], drawn[..., shots:]
    else:
        learn = _groups_to_learn_from(label, np.asarray(flows.group), shots / (shots + queries), streams[3])
        sides = []
        for side, count, noun, stream in ((learn, shots, "shots", 1), (~learn, queries, "queries", 2)):
            enough = np.bincount(label[side], minlength=n_classes)
            _refuse_small(flows, enough, count, f"{count} {noun} in groups of their own")
            sides.append(_draw(label[side], np.flatnonzero(side), n_classes, classes, count, streams[stream].spawn(2)))
        support, query = sides
    return Episodes(classes.astype(np.int32), support, query)


def episode(
    flows: PacketSeries, *, ways: int = 4, shots: int = 5, queries: int = 15, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """One few-shot task: support [way, shot] and query [way, query], indices of flows; see `episodes`."""
    drawn = episodes(flows, 1, ways=ways, shots=shots, queries=queries, seed=seed)
    return drawn.support[0], drawn.query[0]


def _sizes(wanted: Sequence[int | float], n_classes: int) -> list[int]:
    """Classes of each part."""
    if all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in wanted):
        if min(wanted) < 1:
            raise ConfigError(f"train, validation and test need at least 1 class each; got {tuple(wanted)}")
        if sum(wanted) > n_classes:
            raise ConfigError(
                f"{sum(wanted)} classes are asked for (train {wanted[0]}, validation {wanted[1]}, test {wanted[2]}); "
                f"{n_classes} have enough flows"
            )
        return [int(value) for value in wanted]
    if not all(isinstance(value, float | np.floating) for value in wanted):
        raise ConfigError(f"train, validation and test must all be numbers or all be shares; got {tuple(wanted)}")
    if not (min(wanted) > 0 and abs(sum(wanted) - 1) <= 1e-6):
        raise ConfigError(f"the shares of train, validation and test must be above 0 and 1 in sum; got {tuple(wanted)}")
    if n_classes < 3:
        raise ConfigError(f"train, validation and test need at least 3 classes; {n_classes} have enough flows")
    sizes = largest_remainder(wanted, n_classes)
    while not sizes.all():
        sizes[np.argmin(sizes)] += 1
        sizes[np.argmax(sizes)] -= 1
    return sizes.tolist()


def _select(flows: PacketSeries, labels: list[int]) -> PacketSeries:
    """Flows of some classes, numbered in the order of `labels`."""
    new = np.full(len(flows.class_names), -1, np.int32)
    new[labels] = np.arange(len(labels), dtype=np.int32)
    chosen = flows[np.flatnonzero(new[flows.label] >= 0)]
    return chosen.replace(label=new[chosen.label], class_names=tuple(flows.class_names[label] for label in labels))


def _refuse_small(flows: PacketSeries, counts: np.ndarray, needed: int, purpose: str) -> None:
    """Raises where a class has fewer than `needed` flows."""
    small = [f"{name} ({count})" for name, count in zip(flows.class_names, counts) if count < needed]
    if small:
        raise ConfigError(
            f"classes with fewer flows than {purpose} need, {needed}: {_listing(small)}; draw fewer, or partition with "
            f"a larger min_flows"
        )


def _draw(
    label: np.ndarray,
    position: np.ndarray,
    n_classes: int,
    classes: np.ndarray,
    count: int,
    streams: Sequence[np.random.Generator],
) -> np.ndarray:
    """[episode, way, count] positions of different flows of each class, in random order.

    Floyd's algorithm for all ways at once (Bentley and Floyd, CACM 30(9), 1987): its work is the number of flows that
    are drawn and not the size of the classes.

    Args:
        label: [flow] classes.
        position: [flow] what is drawn of each flow.
        n_classes: number of classes.
        classes: [episode, way].
        count: flows to draw.
        streams: of the draw, and of the order.
    """
    by_class = position[np.argsort(label, kind="stable")]
    size = np.bincount(label, minlength=n_classes)
    first = (np.cumsum(size) - size)[classes]
    size = size[classes]
    uniform = streams[0].random((*classes.shape, count))
    rank = np.empty(uniform.shape, np.int64)
    for step in range(count):
        last = size - count + step
        proposal = (uniform[..., step] * (last + 1)).astype(np.int64)
        taken = (rank[..., :step] == proposal[..., None]).any(axis=-1)
        rank[..., step] = np.where(taken, last, proposal)
    # Floyd's set is uniform, its order is not
    order = np.argsort(streams[1].random(uniform.shape), axis=-1)
    return by_class[first[..., None] + np.take_along_axis(rank, order, axis=-1)]


def _groups_to_learn_from(label: np.ndarray, group: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """[flow] bool: the group is for support; of each class, the largest groups go first to where most is lacking."""
    learn = np.zeros(label.size, bool)
    for index in np.unique(label):
        of_class = np.flatnonzero(label == index)
        groups, inverse, sizes = np.unique(group[of_class], return_inverse=True, return_counts=True)
        order = rng.permutation(groups.size)
        order = order[np.argsort(-sizes[order], kind="stable")]
        lacking = np.array([1 - share, share]) * of_class.size
        chosen = np.zeros(groups.size, bool)
        for number in order:
            chosen[number] = lacking[1] > lacking[0]
            lacking[int(chosen[number])] -= sizes[number]
        learn[of_class] = chosen[inverse]
    return learn


def _listing(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
