"""Class names read block by block, as integer labels."""

from __future__ import annotations

import numpy as np
import polars as pl


class LabelIndex:
    """Numbers class names as they appear, and sorts them at the end."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._blocks: list[np.ndarray] = []

    def add(self, names: pl.Series) -> None:
        """Adds a block of names, [flow] strings without nulls."""
        for name in names.unique().to_list():
            self._numbers.setdefault(name, len(self._numbers))
        self._blocks.append(names.replace_strict(self._numbers, return_dtype=pl.Int32).to_numpy())

    def finish(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """[flow] int32 labels and the class names in alphabetical order."""
        names = sorted(self._numbers)
        order = np.zeros(len(names), np.int32)
        for position, name in enumerate(names):
            order[self._numbers[name]] = position
        # a block without names has no type of its own
        blocks = [order[block.astype(np.int32)] for block in self._blocks]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.int32), tuple(names)
