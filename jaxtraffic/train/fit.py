"""Training in memory: a whole run of a small model as one pure function, to be jitted and vmapped over seeds.

For runs that end before they are worth a checkpoint (estimators of information, probes). Runs with a folder, metrics
and resume use `train`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.train.state import TrainConfig, make_optimizer, update_ema

CHECKS = 20
"""How often the validation value is taken in one run."""


class Fitted(NamedTuple):
    """What `fit` returns.

    Attributes:
        params: the parameters to use: the moving average where one is kept, at the best check where one validates.
        losses: [check] mean training loss since the check before.
        validation: [check] validation values (lower is better), NaN without `validate`.
        best: [] int32, number of the check whose parameters were kept.
    """

    params: Any
    losses: jax.Array
    validation: jax.Array
    best: jax.Array


def fit(
    loss: Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Any]],
    params: Any,
    data: Any,
    key: jax.Array,
    config: TrainConfig,
    *,
    state: Any = (),
    validate: Callable[[Any], jax.Array] | None = None,
) -> Fitted:
    """Minimises a loss over random batches (drawn with replacement) in one nested scan.

    Args:
        loss: (params, state, batch, key) -> (mean loss [], next state); state is whatever is carried along beside the
            parameters and takes no gradient, such as the running denominator of MINE.
        params: initial parameters.
        data: pytree of arrays [n, ...].
        key: key of the run.
        config: steps (needed; rounded up to a multiple of the number of checks), batch_size (at most n is used),
            learning_rate, warmup, weight_decay, clip_norm, ema.
        state: initial state of the loss.
        validate: params -> value [], lower is better; the parameters of the best of `CHECKS` checks are kept.

    Raises:
        ConfigError: no number of steps.
    """
    if config.steps is None or config.steps < 1:
        raise ConfigError(f"fit needs a number of steps of at least 1, got {config.steps}")
    n = jax.tree.leaves(data)[0].shape[0]
    batch_size = min(config.batch_size, n)
    checks = min(CHECKS, config.steps)
    per_check = -(-config.steps // checks)
    transform, _ = make_optimizer(config, checks * per_check, lambda path: False)

    def step(carry: tuple[Any, ...], index: jax.Array) -> tuple[tuple[Any, ...], jax.Array]:
        params, state, optimizer, ema = carry
        own = prng.at_step(key, index)
        rows = jax.random.randint(prng.stream(own, "batch"), (batch_size,), 0, n)
        batch = jax.tree.map(lambda leaf: leaf[rows], data)
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, state, batch, prng.stream(own, "loss")
        )
        updates, optimizer = transform.update(gradient, optimizer, params)
        params = optax.apply_updates(params, updates)
        ema = update_ema(ema, params, config.ema, index) if config.ema else None
        return (params, state, optimizer, ema), value

    def check(carry: tuple[Any, ...], number: jax.Array) -> tuple[tuple[Any, ...], tuple[jax.Array, jax.Array]]:
        training, kept, lowest, best = carry
        training, losses = jax.lax.scan(step, training, number * per_check + jnp.arange(per_check, dtype=jnp.int32))
        current = training[3] if config.ema else training[0]
        if validate is None:
            return (training, current, lowest, number), (losses.mean(), jnp.float32(jnp.nan))
        value = validate(current)
        better = value < lowest
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), current, kept)
        state = (training, kept, jnp.where(better, value, lowest), jnp.where(better, number, best))
        return state, (losses.mean(), value)

    start = (params, state, transform.init(params), params if config.ema else None)
    (_, kept, _, best), (losses, validation) = jax.lax.scan(
        check, (start, params, jnp.float32(jnp.inf), jnp.int32(0)), jnp.arange(checks, dtype=jnp.int32)
    )
    return Fitted(kept, losses, validation, best)
