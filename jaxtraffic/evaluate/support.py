"""What a generator makes that training never showed: new values, new pairs of packets, zeros inside a flow."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.rows import packets_inside, pair_of
from jaxtraffic.series import PacketSeries

_VALUES = 1 << 16
"""Signed sizes are int16, so this many differ."""


def support(train: PacketSeries, flows: PacketSeries) -> tuple[dict[str, float | int], dict[str, Any]]:
    """Shares of flows with something never seen in training; compare with fresh real flows, which have new things too.

    A generator that draws each position from the training values of its class (`marginals`) has no new value and many
    new pairs. A packet of size 0 cannot be told from padding in a generated series, so that both sides are read by
    their last non-zero signed size.

    Args:
        train: the real training flows.
        flows: generated flows, or real ones as reference, of the same classes and packet positions.

    Returns:
        Figures: `new_bigram_share`: flows with two consecutive signed sizes that follow each other nowhere in `train`,
        in no class and at no position; `new_value_share`: flows with a signed size that no training flow of their
        class has at that position, where having ended is the value 0 (a class without training flows has seen
        nothing); `zero_inside_share`: flows with a zero before the last non-zero signed size. Curves: none.

    Raises:
        ConfigError: no PacketSeries, other class names, or what `rows.pair_of` refuses.
    """
    known, rows = labelled_rows(train, flows)
    pairs, pair_exists = _bigrams(rows)
    known_pairs, known_exists = _bigrams(known)
    new_pair = ~_seen(pairs, known_pairs[known_exists]) & pair_exists
    new_value = ~_seen(_placed(rows, flows), _placed(known, train).ravel())
    shares = {"new_bigram_share": new_pair.any(1), "new_value_share": new_value.any(1)}
    shares["zero_inside_share"] = zeros_inside(rows)
    return {name: float(flagged.mean()) for name, flagged in shares.items()}, {}


def labelled_rows(train: PacketSeries, flows: PacketSeries) -> tuple[np.ndarray, np.ndarray]:
    """`rows.pair_of` two series that share their classes.

    Raises:
        ConfigError: no PacketSeries, other class names, or what `rows.pair_of` refuses.
    """
    for name, series in (("train", train), ("flows", flows)):
        if not isinstance(series, PacketSeries):
            raise ConfigError(f"{name} must be a PacketSeries, since classes are compared, got {type(series).__name__}")
    if train.class_names != flows.class_names:
        raise ConfigError(f"{flows.name} must have the classes of {train.name}, in the same order")
    return pair_of(train, flows, (train.name, flows.name))


def zeros_inside(rows: np.ndarray) -> np.ndarray:
    """[flow] bool, whether a zero lies before the last non-zero signed size."""
    return ((rows == 0) & packets_inside(rows)).any(1)


def _bigrams(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[flow, pair] one integer for two consecutive signed sizes, and whether both packets are inside the flow."""
    return rows[:, :-1].astype(np.int64) * _VALUES + rows[:, 1:], packets_inside(rows)[:, 1:]


def _placed(rows: np.ndarray, flows: PacketSeries) -> np.ndarray:
    """[flow, packet] one integer for class, position and signed size."""
    n_positions = rows.shape[1]
    place = np.asarray(flows.label, np.int64)[:, None] * n_positions + np.arange(n_positions)
    return place * _VALUES + rows


def _seen(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether each key is among the known ones [any]."""
    if not known.size:
        return np.zeros(keys.shape, bool)
    # sorting integers is several times faster than np.unique, and a short table is searched faster
    known = np.sort(known)
    known = known[np.append(True, known[1:] != known[:-1])]
    at = np.minimum(known.searchsorted(keys), len(known) - 1)
    return known[at] == keys
