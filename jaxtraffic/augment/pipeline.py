"""Augmentations as transformations of a grain pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxtraffic.augment.compose import batched, check_op
from jaxtraffic.augment.operation import check_alpha
from jaxtraffic.errors import ConfigError


def as_grain(op: Any, *, alpha: float | None = None, stats: Any = None) -> Any:
    """Wraps an operation or composition as a `grain.transforms.RandomMap`.

    Elements are mappings with "x" and "mask", one flow ([T, 3], [T]) or, much quicker, a batch ([B, T, 3], [B, T]); put
    it behind `.batch(...)`. Other entries pass through. It runs on the CPU, compiled once for each shape, and gives
    NumPy arrays; draws follow grain's seed, so that a pipeline repeats itself. Needs grain.

    Args:
        op: operation or composition; `cutmix` takes batches only.
        alpha: magnitude in [0, 1], or None for U[0, 1] for each flow.
        stats: `scaling.ClassStatistics`, indexed by the element's "label", for operations that need them.

    Raises:
        ConfigError: grain is missing; an element without "x" and "mask"; what the operation refuses.
    """
    check_op("as_grain", op)
    if alpha is not None:
        check_alpha("as_grain", alpha)
    needs_label = op.batch or (op.needs_stats and stats is not None)
    try:
        from grain import transforms
    except ImportError as error:
        raise ConfigError("as_grain needs grain; install it with: pip install grain") from error

    @jax.jit
    def run(key: jax.Array, x: jax.Array, mask: jax.Array, label: Any) -> tuple[jax.Array, jax.Array]:
        magnitude = jax.random.uniform(jax.random.fold_in(key, 0), x.shape[:1]) if alpha is None else alpha
        own = stats[label] if op.needs_stats and stats is not None else None
        return batched(op)(jax.random.fold_in(key, 1), x, mask, magnitude, stats=own, label=label if op.batch else None)

    class Augment(transforms.RandomMap):
        """Replaces "x" and "mask" of an element by their augmentation."""

        def random_map(self, element: Any, rng: np.random.Generator) -> Any:
            if not isinstance(element, Mapping) or not {"x", "mask"} <= set(element):
                raise ConfigError(
                    'as_grain: elements are mappings with "x" and "mask" (and "label" where stats are used)'
                )
            if op.needs_stats and stats is not None and "label" not in element:
                raise ConfigError(f'as_grain: {op.name} reads its statistics by class; elements need a "label"')
            one = np.ndim(element["mask"]) == 1
            if one and op.batch:
                raise ConfigError(f"as_grain: {op.name} works on batches; put it behind .batch(...)")
            seed = int(rng.integers(2**32, dtype=np.uint64))
            with jax.default_device(_host()):
                arrays = [np.asarray(element[name]) for name in ("x", "mask")]
                arrays.append(np.asarray(element["label"]) if needs_label and "label" in element else None)
                if one:
                    arrays = [None if array is None else array[None] for array in arrays]
                # A seed of 32 bits as an array: jax.random.key of a Python integer would be the same, traced anew.
                x, mask = run(jax.random.key(np.uint32(seed)), *arrays)
                x, mask = np.asarray(x), np.asarray(mask)
            return {**element, "x": x[0] if one else x, "mask": mask[0] if one else mask}

    return Augment()


def _host() -> jax.Device:
    """The CPU, or the default device where JAX was started without one."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
