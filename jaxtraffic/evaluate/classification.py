"""The judge's classifier: XGBoost on signed sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtraffic.classify.trees import TreeClassifier, fit_arrays
from jaxtraffic.evaluate.rows import rows_of
from jaxtraffic.series import PacketSeries


def features(flows: PacketSeries) -> np.ndarray:
    """Signed sizes (bytes) of the first 30 packets, [flow, packet] float32; padding is 0, shorter series stay shorter.

    Raises:
        ConfigError: no flows, or no packet positions.
    """
    return rows_of(flows, flows.name).astype(np.float32)


def fit(train: PacketSeries, params: Mapping[str, Any] | None = None, seed: int = 0) -> TreeClassifier:
    """Fits XGBoost on the labels of `train`; see `classify.trees.fit_arrays`."""
    return fit_arrays(features(train), np.asarray(train.label), params, seed)
