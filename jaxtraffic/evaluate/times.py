"""How alike the times of two sets of flows are: between packets, and from the first packet to the last."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxtraffic.evaluate.distributions import ks_complement
from jaxtraffic.series import PacketSeries


def has_times(flows: PacketSeries) -> bool:
    """Whether a series holds any inter-arrival time (IAT) above 0: generators of sizes alone leave all at 0."""
    return bool((np.asarray(flows.iat) > 0).any())


def times(real: PacketSeries, flows: PacketSeries) -> tuple[dict[str, float | int], dict[str, Any]]:
    """Kolmogorov-Smirnov complements of times, each 1 - D in [0, 1], 1 is best; any monotone scale gives the same.

    Args:
        real: real flows.
        flows: generated flows, or real ones as reference, of the same classes.

    Returns:
        Figures:

        - `iat_ks_complement`: of the IATs at a packet position, mean over the positions (from the second packet on)
          that both sides have packets at.
        - `class_iat_ks_complement`: of all IATs of a class, mean over the classes that both sides have IATs of.
        - `duration_ks_complement`: of the seconds from the first packet to the last of those that are kept.
        - `class_duration_ks_complement`: the same in each class, mean over the classes on both sides.
        - `n_positions`: positions that count. Without any (flows of one packet) there are no figures but this one.

        Curves: `iat_ks_complement`, a list with one value for each position from the second packet on, None where a
        side has no packet.
    """
    sides = [
        (np.asarray(side.iat)[:, 1:], np.asarray(side.mask)[:, 1:], np.asarray(side.label)) for side in (real, flows)
    ]
    by_position = [
        ks_complement(*columns) if min(map(len, columns)) else None
        for columns in ([iat[mask[:, at], at] for iat, mask, _ in sides] for at in range(real.length - 1))
    ]
    found = [value for value in by_position if value is not None]
    if not found:
        return {"n_positions": 0}, {}
    by_class, of_class = [], []
    durations = [np.where(mask, iat, 0).sum(axis=1, dtype=np.float64) for iat, mask, _ in sides]
    for number in range(len(real.class_names)):
        own = [label == number for _, _, label in sides]
        iats = [iat[rows][mask[rows]] for (iat, mask, _), rows in zip(sides, own, strict=True)]
        if min(map(len, iats)):
            by_class.append(ks_complement(*iats))
        if min(rows.sum() for rows in own):
            of_class.append(ks_complement(*(seconds[rows] for seconds, rows in zip(durations, own, strict=True))))
    figures = {
        "iat_ks_complement": float(np.mean(found)),
        "class_iat_ks_complement": float(np.mean(by_class)) if by_class else None,
        "duration_ks_complement": ks_complement(*durations),
        "class_duration_ks_complement": float(np.mean(of_class)) if of_class else None,
        "n_positions": len(found),
    }
    return {name: value for name, value in figures.items() if value is not None}, {"iat_ks_complement": by_position}
