"""How many optimiser steps a machine takes a second: what turns a budget of seconds into a number of steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel, prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.train.loop import total_steps
from jaxtraffic.train.program import Loss, make_chunk
from jaxtraffic.train.state import TrainConfig, init_state, make_optimizer

FEWEST_CHUNKS = 3


def steps_per_second(
    loss: Loss,
    init: Callable[[jax.Array], Any],
    arrays: Any,
    config: TrainConfig,
    *,
    mesh: Mesh,
    is_state_space: Callable[[tuple[Any, ...]], bool] = lambda path: False,
    seconds: float = 3.0,
) -> float:
    """Pace of training on these devices, optimiser steps a second without compilation; nothing is written.

    Compiles the chunk that `train` runs, runs it once to warm up, and takes the median over the chunks of the next
    `seconds` (at least three), so that a moment in which the machine was busy does not decide.

    Args:
        loss: (params, batch, key) -> per-flow loss [flow].
        init: key -> params.
        arrays: the training set, a pytree of host arrays [flow, ...].
        config: see `TrainConfig`; a chunk has `log_steps` steps.
        mesh: devices.
        is_state_space: marks parameter paths that take no weight decay.
        seconds: least time to measure for.

    Raises:
        ConfigError: a set above `config.resident_bytes`, whose pace is also that of reading it.
    """
    if sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) > config.resident_bytes:
        raise ConfigError("the pace is measured on sets that the devices hold (resident_bytes); use fewer flows")
    n_flows = jax.tree.leaves(arrays)[0].shape[0]
    batch_size = min(config.batch_size, n_flows)
    transform, _ = make_optimizer(config, total_steps(config, n_flows), is_state_space)
    keep, key = parallel.replicated(mesh), jax.random.key(0)
    start = jax.jit(lambda k: init_state(init(prng.stream(k, "init")), transform, config), out_shardings=keep)
    # Beyond the end of the schedule steps go on at a rate of 0, which takes as long.
    shared = (parallel.put_replicated(arrays, mesh), prng.stream(key, "step"), jnp.int32(np.iinfo(np.int32).max))
    with jax.set_mesh(mesh):
        program = make_chunk(loss, transform, config, mesh, n_flows=n_flows, batch_size=batch_size, resident=True)
        state = start(key)
        compiled = program.lower(state, *shared).compile()
        state, metrics = compiled(state, *shared)
        parallel.to_host(metrics["loss"])
        taken: list[float] = []
        while len(taken) < FEWEST_CHUNKS or sum(taken) < seconds:
            clock = time.perf_counter()
            state, metrics = compiled(state, *shared)
            parallel.to_host(metrics["loss"])
            taken.append(time.perf_counter() - clock)
    return config.log_steps / statistics.median(taken)
