"""The compiled training program: a chunk of optimiser steps as one `lax.scan` with donated state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxtraffic import parallel, prng
from jaxtraffic.train.state import TrainConfig, TrainState, update_ema

Loss = Callable[[Any, Any, jax.Array], jax.Array]
"""(params, batch pytree with leading axis flow, key) -> per-flow loss [flow]."""


def steps_per_epoch(n_flows: int, batch_size: int) -> int:
    """Whole batches in one pass; the remainder of an epoch's random order is left to other epochs."""
    return max(1, n_flows // batch_size)


def make_chunk(
    loss: Loss,
    transform: optax.GradientTransformation,
    config: TrainConfig,
    mesh: Mesh,
    *,
    n_flows: int,
    batch_size: int,
    resident: bool,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the jitted program (state, data, key, total_steps) -> (state, metrics).

    `data` is the whole training set (resident: gathered inside the step in an order derived from (key, epoch)), or
    the chunk's batches with leading axes [step, flow]. Steps at or beyond `total_steps` (traced) change nothing, so
    that one compilation serves every chunk. The batch is split over the mesh axis "data"; gradients meet in one
    all-reduce a step.

    Returns:
        The program; metrics are "loss" and "grad_norm", each [log_steps] float32, NaN for steps not taken.
    """
    devices = mesh.shape["data"]
    padded = -(-batch_size // devices) * devices
    weight = (jnp.arange(padded) < batch_size).astype(jnp.float32) / batch_size
    per_epoch = steps_per_epoch(n_flows, batch_size)

    def mean_loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return jnp.sum(loss(params, batch, key) * weight)

    def take_step(state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
        value, gradient = jax.value_and_grad(mean_loss)(state.params, batch, prng.at_step(key, state.step))
        updates, optimizer = transform.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update_ema(state.ema, params, config.ema, state.step) if config.ema else None
        return TrainState(state.step + 1, params, optimizer, ema), (value, optax.tree.norm(gradient))

    def skip(state: TrainState, *_: Any) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
        return state, (jnp.float32(jnp.nan), jnp.float32(jnp.nan))

    def split(batch: Any) -> Any:
        def place(leaf: jax.Array) -> jax.Array:
            wide = jnp.pad(leaf, [(0, padded - batch_size)] + [(0, 0)] * (leaf.ndim - 1), mode="edge")
            return jax.lax.with_sharding_constraint(wide, parallel.over_data(mesh))

        return jax.tree.map(place, batch)

    def epoch_order(key: jax.Array, epoch: jax.Array) -> jax.Array:
        return jax.random.permutation(prng.at_step(prng.stream(key, "order"), epoch), n_flows)

    def chunk(
        state: TrainState, data: Any, key: jax.Array, total_steps: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        def body(carry: tuple[TrainState, Any], streamed: Any) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            state, order = carry
            if resident:
                within = state.step % per_epoch
                order = jax.lax.cond(
                    within == 0, lambda step: epoch_order(key, step // per_epoch), lambda _: order, state.step
                )
                index = jax.lax.dynamic_slice(order, (within * batch_size,), (batch_size,))
                # The indices are split first, so that every device gathers its own rows from its own copy.
                index = split(index)
                batch = jax.tree.map(lambda leaf: leaf[index], data)
            else:
                batch = split(streamed)
            state, metrics = jax.lax.cond(state.step < total_steps, take_step, skip, state, batch, key)
            return (state, order), metrics

        order = epoch_order(key, state.step // per_epoch) if resident else None
        xs = None if resident else data
        (state, _), (losses, norms) = jax.lax.scan(body, (state, order), xs, length=config.log_steps)
        return state, {"loss": losses, "grad_norm": norms}

    keep = parallel.replicated(mesh)
    return jax.jit(chunk, donate_argnums=0, out_shardings=(keep, keep))
