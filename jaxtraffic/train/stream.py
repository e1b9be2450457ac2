"""Training sets that do not fit on a device: batches of row blocks through grain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np

BLOCK_ROWS = 64


class Blocks:
    """Random-access source of blocks of consecutive rows; arrays may be memory maps."""

    def __init__(self, arrays: Any, rows: int):
        """Takes a pytree of arrays [flow, ...]; a last partial block is completed with the rows before it."""
        self.arrays, self.rows = arrays, rows
        self.n_flows = jax.tree.leaves(arrays)[0].shape[0]

    def __len__(self) -> int:
        return -(-self.n_flows // self.rows)

    def __getitem__(self, index: int) -> Any:
        start = max(0, min(index * self.rows, self.n_flows - self.rows))
        return jax.tree.map(lambda leaf: np.asarray(leaf[start : start + self.rows]), self.arrays)


def chunks(arrays: Any, *, batch_size: int, chunk: int, seed: int, start_step: int) -> Iterator[Any]:
    """Yields pytrees [chunk, batch_size, ...], resumable from any step.

    The order of blocks is a pure function of (seed, step): grain's shuffle is random access, so a resumed run asks
    for batch `start_step` and goes on. Shuffle the rows once before (folds do), or a block holds neighbours.

    Args:
        arrays: pytree of arrays [flow, ...].
        batch_size: flows in a batch.
        chunk: batches in one yield.
        seed: of the shuffle.
        start_step: index of the first batch.
    """
    rows = next(size for size in range(min(BLOCK_ROWS, batch_size), 0, -1) if batch_size % size == 0)
    blocks = grain.MapDataset.source(Blocks(arrays, rows)).seed(seed).shuffle().repeat()
    batches = blocks.batch(batch_size // rows, batch_fn=lambda parts: _stack(np.concatenate, parts))
    step = start_step
    while True:
        yield _stack(np.stack, [batches[step + i] for i in range(chunk)])
        step += chunk


def _stack(join: Any, parts: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: join(leaves), *parts)
