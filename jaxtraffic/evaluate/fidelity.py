"""Cheap facts about generated flows: copies, distinct sequences, zeros and lengths."""

from __future__ import annotations

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.classification import features
from jaxtraffic.evaluate.rows import packets_inside, row_keys
from jaxtraffic.series import PacketSeries


def fidelity(
    train: PacketSeries, flows: PacketSeries, n_distinct: int | None = None, seed: int = 0
) -> dict[str, float | int]:
    """Facts that a reader can check by eye; compare each with that of fresh real flows, not with 0 or 1.

    Padding is what follows the last non-zero signed size, for real flows too, since a generated series knows no other.

    Args:
        train: the real training flows.
        flows: generated flows, or real ones as reference.
        n_distinct: flows among which distinct sequences are counted, all where None; the share of distinct sequences
            falls as a set grows, so sets are comparable at one number only.
        seed: seed of the draw of `n_distinct` flows.

    Returns:
        `copy_rate`: share of flows whose sequence is also in `train`, bit for bit; `distinct_share`: distinct
        sequences over `n_distinct` flows; `n_distinct`; `zero_share`: share of packets inside a flow of size 0;
        `mean_packets`: mean packets of a flow among the first 30.

    Raises:
        ConfigError: an empty set, different lengths, or `n_distinct` beyond the number of flows.
    """
    rows, known = features(flows), features(train)
    if rows.shape[1] != known.shape[1]:
        raise ConfigError(f"{flows.name} has {rows.shape[1]} packet positions, {train.name} has {known.shape[1]}")
    n_distinct = len(rows) if n_distinct is None else n_distinct
    if not 1 <= n_distinct <= len(rows):
        raise ConfigError(f"n_distinct must be between 1 and the {len(rows)} flows of {flows.name}, got {n_distinct}")
    keys = row_keys(rows)
    drawn = keys[np.random.default_rng(seed).permutation(len(keys))[:n_distinct]]
    inside = packets_inside(rows)
    return {
        "copy_rate": float(np.isin(keys, row_keys(known)).mean()),
        "distinct_share": len(np.unique(drawn)) / n_distinct,
        "n_distinct": int(n_distinct),
        "zero_share": float((rows[inside] == 0).mean()) if inside.any() else 0.0,
        "mean_packets": float(inside.sum(axis=1).mean()),
    }
