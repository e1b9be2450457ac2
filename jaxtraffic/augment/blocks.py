"""Blocks of flows that share a choice: how many, what each chooses, and running them one after the other."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxtraffic.augment import draws


def systematic(key: jax.Array, count: int) -> jax.Array:
    """[count] float32, each uniform on [0, 1): one in each of `count` equal intervals, in random order."""
    word = draws.words(key, count + 1)
    rank = jnp.argsort(word[1:]).astype(jnp.float32)
    return jnp.minimum((rank + draws.unit(word[0])) / count, 1 - 2.0**-24)


def dividing(blocks: int, count: int, exchange: bool) -> int:
    """The number of blocks for `count` flows: the next one that divides them, up to four times as many; else `blocks`.

    Systematic draws are right for any number of blocks, and completing a batch costs copies of all of it. Where flows
    exchange packets (cutmix) they do so within their block, which then holds at least 32.
    """
    blocks = min(blocks, max(count // 32 if exchange else count, 1))
    return next((m for m in range(blocks, 4 * blocks + 1) if count % m == 0), blocks) if blocks > 1 else blocks


def by_blocks(run: Any, blocks: int, key: jax.Array, flows: Any) -> tuple[jax.Array, jax.Array]:
    """Runs `run(block, key, *flows)` on every blocks-th flow, one block after the other, and puts them back.

    Batches that the blocks do not divide are completed with their first flows, whose second result is dropped.
    """
    count = flows[0].shape[0]
    rows = -(-count // blocks)

    def split(leaf: jax.Array) -> jax.Array:
        if rows * blocks != count:
            leaf = jnp.concatenate([leaf, leaf[: rows * blocks - count]])
        return leaf.reshape(rows, blocks, *leaf.shape[1:])

    parts = jax.tree.map(split, flows)

    def one(block: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, block, 1, keepdims=False), parts)
        return run(block, jax.random.fold_in(key, block), *own)

    done = jax.lax.map(one, jnp.arange(blocks))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(rows * blocks, *leaf.shape[2:])[:count], done)
