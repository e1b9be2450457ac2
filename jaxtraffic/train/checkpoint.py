"""Checkpoints through orbax: atomic, and exact to the bit on resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from jaxtraffic.errors import DataError, TrainingError


class Checkpoints:
    """The checkpoints of one run folder, newest two kept; use as a context manager."""

    def __init__(self, folder: Path, *, keep: int = 2):
        """Opens (and creates) the folder; unfinished leftovers of a killed process are ignored."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self.folder = folder
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """Step of the newest finished checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, tree: Any) -> None:
        """Writes a pytree of arrays; returns when it is on disk, so that donated buffers may be reused."""
        if self.latest() != step:
            self._manager.save(step, args=ocp.args.StandardSave(tree))

    def restore(self, like: Any, sharding: Sharding, step: int | None = None) -> Any:
        """Reads a checkpoint.

        Args:
            like: pytree of arrays or ShapeDtypeStructs with the stored structure.
            sharding: where to place every leaf.
            step: which one; None is the newest.

        Raises:
            DataError: there is none.
            TrainingError: it holds another structure, so it belongs to another configuration.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise DataError(self.folder, "no finished checkpoint here", remedy="train the run first")
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{self.folder}: checkpoint {step} does not fit this configuration ({_first_line(error)}); "
                "start a new run folder or use the options of config.json"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
