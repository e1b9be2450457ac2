"""Training state and optimiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtraffic.errors import ConfigError

STATE_SPACE_RATE = 1e-3
"""Largest learning rate of state-space parameters (state-spaces/s4)."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; the defaults are the published ones where the thesis states them."""

    epochs: int = 300
    """Passes over the training flows."""
    steps: int | None = None
    """Optimiser steps; overrides the epochs where given."""
    batch_size: int = 4096
    """Flows per step, over all devices; at most the number of training flows."""
    learning_rate: float = 7.5e-4
    """Peak learning rate of AdamW."""
    warmup: float = 0.1
    """Share of the steps with a linearly rising rate; a cosine to 0 follows."""
    weight_decay: float = 0.01
    """AdamW weight decay of matrices outside the state spaces."""
    clip_norm: float = 0.5
    """Global gradient norm above which gradients are scaled down."""
    ema: float = 0.0
    """Decay of the exponential moving average of the parameters; 0 keeps none."""
    class_dropout: float = 0.0
    """Probability of training without the label; guidance needs it above 0."""
    log_steps: int = 20
    """Steps in one compiled chunk; one line of metrics.jsonl each."""
    checkpoint_steps: int = 200
    """Steps between checkpoints, rounded up to whole chunks."""
    resident_bytes: int = 4 * 1024**3
    """Training sets above this size stream from the host instead of living on each device."""


class TrainState(NamedTuple):
    """What a checkpoint holds; keys are derived from the step, never stored.

    Attributes:
        step: [] int32, optimiser steps taken.
        params: parameters, a nested dict.
        optimizer: state of the optimiser.
        ema: moving average of the parameters, or None.
    """

    step: jax.Array
    params: Any
    optimizer: Any
    ema: Any

    @property
    def averaged(self) -> Any:
        """The parameters to use after training: the moving average where one is kept."""
        return self.params if self.ema is None else self.ema


def make_optimizer(
    config: TrainConfig, total_steps: int, is_state_space: Callable[[tuple[Any, ...]], bool]
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW with clipping, linear warm-up and cosine decay to 0.

    State-space parameters (A, B, C, D and the step of S4) take no weight decay and a rate of at most 1e-3; vectors
    take no weight decay either.

    Returns:
        The transformation and its learning-rate schedule.
    """
    if total_steps < 1:
        raise ConfigError(f"training needs at least one step, got {total_steps}")
    warmup = max(1, round(config.warmup * total_steps))
    schedule = optax.warmup_cosine_decay_schedule(
        config.learning_rate / warmup, config.learning_rate, warmup, max(total_steps, warmup + 1)
    )

    def in_state_space(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: is_state_space(path), params)

    def decays(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, p: p.ndim >= 2 and not is_state_space(path), params)

    slower = min(1.0, STATE_SPACE_RATE / config.learning_rate)
    transform = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, weight_decay=config.weight_decay, mask=decays),
        optax.masked(optax.scale(slower), in_state_space),
    )
    return _standard_promotion(transform), schedule


def _standard_promotion(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same transformation where the user asked for strict dtype promotion, which optax does not keep."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return transform.update(updates, state, params)

    return optax.GradientTransformation(transform.init, update)


def init_state(params: Any, transform: optax.GradientTransformation, config: TrainConfig) -> TrainState:
    """State before the first step; call it inside jit, so that no buffer is shared with the caller."""
    ema = jax.tree.map(jnp.copy, params) if config.ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, transform.init(params), ema)


def update_ema(ema: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """Moving average with the usual warm-up, decay_k = min(decay, (1 + k) / (10 + k))."""
    k = step.astype(jnp.float32)
    rate = jnp.minimum(jnp.float32(decay), (1 + k) / (10 + k))
    return jax.tree.map(lambda old, new: rate * old + (1 - rate) * new, ema, params)
