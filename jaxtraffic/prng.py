"""Named streams of random keys: what a draw is for decides its key, never the order of the calls."""

from __future__ import annotations

import zlib

import jax


def stream(key: jax.Array, name: str) -> jax.Array:
    """Derives the key of the stream called `name`.

    Args:
        key: typed key, shape [].
        name: what the draws are for, such as "noise"; the same name gives the same key on every machine.

    Returns:
        Typed key, shape [].
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def at_step(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """Derives the key of one step (or sample) of a stream.

    Args:
        key: typed key, shape [].
        step: integer >= 0, may be traced.

    Returns:
        Typed key, shape [].
    """
    return jax.random.fold_in(key, step)
