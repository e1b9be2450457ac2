"""What an exact likelihood tells without further training: bits a packet, unusual flows, classes, information.

Everything here asks one function, `steps(flows, labels)` -> [flow, T] nats: the log-probability of each packet given
those before it, under the given labels or, with None, of a flow whose label is not known. Positions after the end of a
flow are 0, and the end itself counts where it is. `TokenGenerator.log_prob_steps` is one; an exact source another.

Ask about held-out flows: on training flows every one of these numbers flatters the model. Standard errors are over
flows, or over captures where `flows.group` says which flows share one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

LogProbSteps = Callable[[PacketSeries, np.ndarray | None], np.ndarray]
"""(flows, labels [flow] int32 or None) -> [flow, T] nats."""

MARGINALS = ("mixture", "hidden")
TAILS = ("unlikely", "both")


class Rate(NamedTuple):
    """Code length of flows.

    Attributes:
        value: bits a packet: -log2 of the probability of all flows, their ends included, over their packets.
        stderr: standard error of it.
    """

    value: float
    stderr: float


class Unusual(NamedTuple):
    """How unusual flows are.

    Attributes:
        score: [flow] nats a step (packet or end), -log p(x) over the steps: larger is less likely.
        p_value: [flow] probability of a score this extreme for a flow like those of reference.
    """

    score: np.ndarray
    p_value: np.ndarray


class Posterior(NamedTuple):
    """Classes of flows.

    Attributes:
        label: [flow] int32, the most probable class.
        log_prob: [flow, class] float64, log p(y | x), nats.
    """

    label: np.ndarray
    log_prob: np.ndarray


class Information(NamedTuple):
    """I(series; label) in nats.

    Attributes:
        value: mean of log p(x | y) - log p(x); never clipped.
        stderr: its standard error.
        pointwise: [flow], the terms of the mean.
        by_packet: [flow, T], what each packet adds to them; cumulated, the information of prefixes.
        packet: [T], what each packet adds given those before it (the chain rule): the sum is the value.
        packet_stderr: [T].
    """

    value: float
    stderr: float
    pointwise: np.ndarray
    by_packet: np.ndarray
    packet: np.ndarray
    packet_stderr: np.ndarray


def bits_per_packet(steps: LogProbSteps, flows: PacketSeries, *, labels: np.ndarray | None = None) -> Rate:
    """Bits that a code made of the model spends on a packet.

    Args:
        steps: see above.
        flows: held-out flows.
        labels: [flow] integers, where the code knows them; None: it does not.

    Raises:
        ConfigError: flows without any packet, or log-probabilities of another shape.
    """
    nats = -_asked(steps, flows, labels).sum(axis=1)
    packets = np.asarray(flows.n_packets).astype(np.float64)
    if not packets.sum():
        raise ConfigError("bits a packet need at least one packet")
    rate = nats.sum() / packets.sum()
    # The error of a ratio of means, linearised.
    stderr = mean_stderr((nats - rate * packets) / packets.mean(), flows.group)
    return Rate(float(rate / np.log(2)), float(stderr / np.log(2)))


def out_of_distribution(
    steps: LogProbSteps, flows: PacketSeries, reference: PacketSeries, *, tail: str = "both"
) -> Unusual:
    """Scores flows against held-out flows that are known to be usual.

    A likelihood alone misses flows that are too simple: a constant one may be more probable than any real flow. With
    tail "both" such a flow is unusual as well (typicality: Nalisnick et al., "Detecting Out-of-Distribution Inputs to
    Deep Generative Models Using Typicality" (2019)). p-values are conformal, (1 + reference flows at least as extreme)
    / (1 + reference flows), ties counted: of flows exchangeable with those of reference at most a share of a has a
    p-value of at most a, whatever the model is; with "both", twice the smaller tail.

    Args:
        steps: see above; asked without labels.
        flows: flows to judge.
        reference: usual flows that the model has not been trained on.
        tail: "both" or "unlikely".

    Raises:
        ConfigError: unknown tail, no reference flows, or log-probabilities of another shape.
    """
    if tail not in TAILS:
        raise ConfigError(f"unknown tail {tail!r}; choose from {', '.join(TAILS)}")
    if not len(reference):
        raise ConfigError("scores need reference flows to compare with")
    score, usual = _score(steps, flows), np.sort(_score(steps, reference))
    above = usual.size - np.searchsorted(usual, score, side="left")
    p_value = (1 + above) / (1 + usual.size)
    if tail == "both":
        below = np.searchsorted(usual, score, side="right")
        p_value = np.minimum(1, 2 * np.minimum(p_value, (1 + below) / (1 + usual.size)))
    return Unusual(score, p_value)


def bayes_classify(steps: LogProbSteps, flows: PacketSeries, prior: np.ndarray | None = None) -> Posterior:
    """Classifies flows by Bayes' rule, p(y | x) in proportion to p(x | y) p(y).

    Args:
        steps: see above; asked once for each class of a prior above 0.
        flows: whose labels are not looked at.
        prior: [class] shares of the classes, such as `card.class_counts`; normalised here. None: all alike.

    Raises:
        ConfigError: a prior that does not fit, or log-probabilities of another shape.
    """
    n_classes = len(flows.class_names)
    log_prior = _log_prior(np.ones(n_classes) if prior is None else prior, n_classes)
    joint = np.full((len(flows), n_classes), -np.inf)
    for label in np.flatnonzero(np.isfinite(log_prior)):
        joint[:, label] = _asked(steps, flows, _alike(flows, label)).sum(axis=1) + log_prior[label]
    log_prob = joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)
    return Posterior(joint.argmax(axis=1).astype(np.int32), log_prob)


def information(
    steps: LogProbSteps, flows: PacketSeries, *, prior: np.ndarray | None = None, marginal: str = "mixture"
) -> Information:
    """Mutual information of series and label, E[log p(x | y) - log p(x)] over flows, and what each packet adds.

    The marginal is either the mixture sum_y p(y) p(x | y) of the model's own classes, or what the model says of flows
    with a hidden label. The mixture is exact for the model, costs one pass a class, and its mean over flows that the
    model has not seen is in expectation a lower bound of the information (Barber and Agakov, 2003: the entropy of the
    label minus the cross-entropy of `bayes_classify`), up to the error of `prior` as the shares of the classes. With a
    hidden label there are two passes and no bound: what the unconditional half of the model has learnt less well than
    the other counts as information.

    Args:
        steps: see above.
        flows: held-out flows with their labels.
        prior: [class] shares of the classes, normalised here; None: those of `flows`. Not used where hidden.
        marginal: "mixture" or "hidden".

    Raises:
        ConfigError: unknown marginal, no flows, a prior of 0 for a class of the flows, or log-probabilities of another
            shape, or not finite under a flow's own label.
    """
    if marginal not in MARGINALS:
        raise ConfigError(f"unknown marginal {marginal!r}; choose from {', '.join(MARGINALS)}")
    if not len(flows):
        raise ConfigError("information needs at least one flow")
    label = np.asarray(flows.label, np.int32)
    known = _asked(steps, flows, label)
    if not np.isfinite(known).all():
        raise ConfigError("log-probabilities of flows under their own labels must be finite")
    if marginal == "hidden":
        terms = known - _asked(steps, flows, None)
    else:
        log_prior = _log_prior(flows.counts() if prior is None else prior, len(flows.class_names))
        if not np.isfinite(log_prior[label]).all():
            raise ConfigError("the prior is 0 for a class that some of the flows have")
        # log p(x_1..t) after each packet; its differences are what a flow of unknown label says of the next packet.
        total = np.full(known.shape, -np.inf)
        for other in np.flatnonzero(np.isfinite(log_prior)):
            under = np.cumsum(_asked(steps, flows, _alike(flows, other)), axis=1)
            total = np.logaddexp(total, log_prior[other] + under)
        terms = known - np.diff(total, axis=1, prepend=0.0)
    pointwise = terms.sum(axis=1)
    return Information(
        value=float(pointwise.mean()),
        stderr=mean_stderr(pointwise, flows.group),
        pointwise=pointwise,
        by_packet=terms,
        packet=terms.mean(axis=0),
        packet_stderr=np.array([mean_stderr(column, flows.group) for column in terms.T]),
    )


def mean_stderr(values: np.ndarray, group: np.ndarray | None = None) -> float:
    """Standard error of the mean of values [n]: of independent values, or of independent groups [n] of them.

    Groups: the variance of the sums of (value - mean) over groups (the linearised error of a ratio, groups being of
    unequal size). NaN for fewer than two values or groups.
    """
    values = np.asarray(values, np.float64)
    index = np.arange(values.size) if group is None else np.unique(np.asarray(group), return_inverse=True)[1]
    sums = np.bincount(index, values - values.mean()) if values.size else np.zeros(0)
    if sums.size < 2:
        return float("nan")
    return float(np.sqrt((sums**2).sum() * sums.size / (sums.size - 1)) / values.size)


def _score(steps: LogProbSteps, flows: PacketSeries) -> np.ndarray:
    n_packets = np.asarray(flows.n_packets)
    return -_asked(steps, flows, None).sum(axis=1) / np.minimum(n_packets + 1, flows.length)


def _asked(steps: LogProbSteps, flows: PacketSeries, labels: np.ndarray | None) -> np.ndarray:
    log_prob = np.asarray(steps(flows, None if labels is None else np.asarray(labels, np.int32)), np.float64)
    if log_prob.shape != (len(flows), flows.length):
        raise ConfigError(f"log-probabilities must be [{len(flows)}, {flows.length}], got {log_prob.shape}")
    return log_prob


def _alike(flows: PacketSeries, label: int) -> np.ndarray:
    return np.full(len(flows), label, np.int32)


def _log_prior(prior: np.ndarray, n_classes: int) -> np.ndarray:
    prior = np.asarray(prior, np.float64)
    if prior.shape != (n_classes,) or not np.isfinite(prior).all() or (prior < 0).any() or not prior.sum():
        raise ConfigError(f"a prior must be {n_classes} shares >= 0, not all 0")
    with np.errstate(divide="ignore"):
        return np.log(prior / prior.sum())
