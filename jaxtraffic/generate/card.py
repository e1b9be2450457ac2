"""What a generator remembers of its training flows."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxtraffic.series import PacketSeries


@dataclasses.dataclass(frozen=True)
class DataCard:
    """What a generator must know of the flows it was trained on."""

    name: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    """Training flows of each class."""
    length: int
    """Packets in a series."""
    size_layer: str
    zeros_inside: bool
    """Whether real flows have a packet of size 0 before their last packet."""

    @classmethod
    def of(cls, train: PacketSeries) -> DataCard:
        """Describes the training flows."""
        inside = (np.asarray(train.signed_size) == 0) & np.asarray(train.mask)
        counts = tuple(int(count) for count in train.counts())
        return cls(train.name, train.class_names, counts, train.length, train.size_layer, bool(inside.any()))

    def draw_labels(self, n: int, *, seed: int = 0) -> np.ndarray:
        """n labels [n] int32 drawn from the class shares of the training flows."""
        counts = np.array(self.class_counts, np.float64)
        return np.random.default_rng(seed).choice(len(counts), n, p=counts / counts.sum()).astype(np.int32)
