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


def chunks(
    arrays: Any,
    *,
    batch_size: int,
    chunk: int,
    seed: int,
    start_step: int,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Any]:
    """Yields this process's share of the batches, pytrees [chunk, batch_size / processes, ...], from any step on.

    The order of blocks is a pure function of (seed, step): grain's shuffle is random access, so a resumed run asks
    for batch `start_step` and goes on, and a process reads only the blocks of its own share. Shuffle the rows once
    before (folds do), or a block holds neighbours.

    Args:
        arrays: pytree of arrays [flow, ...].
        batch_size: flows in a batch, over all processes; divisible by their number.
        chunk: batches in one yield.
        seed: of the shuffle.
        start_step: index of the first batch.
        process: (index of this process, number of processes).
    """
    index, processes = process
    share = batch_size // processes
    rows = next(size for size in range(min(BLOCK_ROWS, share), 0, -1) if share % size == 0)
    blocks = grain.MapDataset.source(Blocks(arrays, rows)).seed(seed).shuffle().repeat()
    per_batch, own = batch_size // rows, share // rows
    step = start_step
    while True:
        first = [(step + i) * per_batch + index * own for i in range(chunk)]
        yield _stack(np.stack, [_stack(np.concatenate, [blocks[k + b] for b in range(own)]) for k in first])
        step += chunk


def _stack(join: Any, parts: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: join(leaves), *parts)
