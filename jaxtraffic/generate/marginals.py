"""The naive generator: every position drawn by itself from the values its class has there."""

from __future__ import annotations

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries, from_signed_size


def marginals(train: PacketSeries, labels: np.ndarray, *, seed: int = 0) -> PacketSeries:
    """Draws flows whose packet positions are independent given the class; the baseline every model has to beat.

    Args:
        train: real training flows.
        labels: [flow] int32, the classes to draw.
        seed: of NumPy's generator.

    Returns:
        PacketSeries of the same classes and length, source "simulated".

    Raises:
        ConfigError: a class is asked for that has no training flow.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(labels, np.int32)
    signed = np.zeros((len(labels), train.length), np.int16)
    for label in np.unique(labels):
        rows = np.flatnonzero(np.asarray(train.label) == label)
        wanted = np.flatnonzero(labels == label)
        if not rows.size:
            raise ConfigError(f"class {train.class_names[label]!r} has no training flow to draw from")
        pick = generator.integers(0, rows.size, (wanted.size, train.length))
        signed[wanted] = np.asarray(train.signed_size)[rows[pick], np.arange(train.length)]
    return from_signed_size(
        signed, labels, class_names=train.class_names, name=f"{train.name}-marginals", size_layer=train.size_layer
    )
