"""Training of a token network: epochs until the held-out likelihood stops rising, with checkpoints and exact resume.

Why not `train.train`: nothing is asked between its chunks, and here training ends when the validation says so, at a
step that nobody knows before. So this loop is made of the same parts (compiled chunk, optimiser, state, checkpoints,
metrics.jsonl), and each epoch ends with a validation. Chunks are cut at epochs by the traced step limit that
`make_chunk` has anyway.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel, prng
from jaxtraffic.errors import ConfigError, Interrupted, TrainingError
from jaxtraffic.nn import is_state_space
from jaxtraffic.train import (
    Checkpoints,
    TrainConfig,
    TrainState,
    init_state,
    make_chunk,
    make_optimizer,
    steps_per_epoch,
)
from jaxtraffic.train.loop import Report, cut_metrics, signals
from jaxtraffic.train.program import Loss


class Trained(NamedTuple):
    """What `train_epochs` returns.

    Attributes:
        state: after the last step taken.
        validation: value after each epoch taken, oldest first; empty without `validate`.
    """

    state: TrainState
    validation: tuple[float, ...]

    @property
    def best_epoch(self) -> int:
        """Epochs taken where the validation value was lowest, 1-based."""
        return int(np.argmin(self.validation)) + 1


def stop_reached(validation: list[float], patience: int) -> bool:
    """Whether the lowest value is `patience` epochs old."""
    return len(validation) - (int(np.argmin(validation)) + 1) >= patience if validation else False


def train_epochs(
    loss: Loss,
    init: Callable[[jax.Array], Any],
    arrays: Any,
    config: TrainConfig,
    *,
    key: jax.Array,
    mesh: Mesh,
    folder: Path,
    validate: Callable[[Any], float] | None = None,
    patience: int = 5,
    resume: bool = False,
    report: Report = lambda metrics: None,
) -> Trained:
    """Trains whole epochs, writing metrics.jsonl and checkpoints/ into `folder`.

    Args:
        loss: (params, batch, key) -> per-flow loss [flow].
        init: key -> params.
        arrays: the training set, a pytree of host arrays [flow, ...]; every device holds it whole.
        config: see `TrainConfig`; the schedule is that of `config.epochs`.
        key: of the run; step k draws from at_step(stream(key, "step"), k).
        mesh: devices.
        folder: where metrics.jsonl and checkpoints/ go.
        validate: params (the average where one is kept) -> value, lower is better, after each epoch.
        patience: stop when the lowest value is so many epochs old.
        resume: go on from the newest checkpoint where there is one; equal to the bit to a run without interruption.
        report: called after each chunk with the line of metrics.jsonl.

    Raises:
        TrainingError: a loss, gradient or validation value that is not finite.
        ConfigError: a set above `config.resident_bytes`.
        Interrupted: SIGTERM or SIGINT; a checkpoint holds the last finished chunk.
    """
    n_flows = jax.tree.leaves(arrays)[0].shape[0]
    if (size := sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))) > config.resident_bytes:
        raise ConfigError(
            f"token training keeps its flows on the device: {size:,} bytes are above resident_bytes, "
            f"{config.resident_bytes:,}; use fewer flows"
        )
    batch_size = min(config.batch_size, n_flows)
    per_epoch = steps_per_epoch(n_flows, batch_size)
    last = per_epoch * config.epochs
    transform, schedule = make_optimizer(config, per_epoch * config.epochs, is_state_space)
    keep = parallel.replicated(mesh)
    start = jax.jit(lambda k: init_state(init(prng.stream(k, "init")), transform, config), out_shardings=keep)
    step_key = prng.stream(key, "step")
    with jax.set_mesh(mesh), Checkpoints(folder / "checkpoints") as checkpoints, signals() as interrupted:
        program = make_chunk(loss, transform, config, mesh, n_flows=n_flows, batch_size=batch_size, resident=True)
        resuming = resume and checkpoints.latest() is not None
        state = checkpoints.restore(jax.eval_shape(start, key), keep) if resuming else start(key)
        step = int(state.step)
        lines = cut_metrics(folder / "metrics.jsonl", step)
        validation = [line["validation"] for line in lines if "validation" in line]
        data = parallel.put_replicated(arrays, mesh)
        saved, compiled = step, None
        while step < last and not stop_reached(validation, patience):
            epoch_end = min((step // per_epoch + 1) * per_epoch, last)
            arguments = (state, data, step_key, jnp.int32(epoch_end))
            if compiled is None:
                clock = time.perf_counter()
                compiled = program.lower(*arguments).compile()
                compile_seconds = time.perf_counter() - clock
            clock = time.perf_counter()
            state, metrics = compiled(*arguments)
            before, step = step, min(step + config.log_steps, epoch_end)
            losses, norms = (parallel.to_host(metrics[name])[: step - before] for name in ("loss", "grad_norm"))
            seconds = time.perf_counter() - clock
            line = {
                "step": step,
                "epoch": step / per_epoch,
                "loss": float(losses.mean(dtype=np.float64)),
                "grad_norm": float(norms.mean(dtype=np.float64)),
                "learning_rate": float(schedule(step - 1)),
                "flows_per_s": (step - before) * batch_size / seconds,
                "seconds": seconds,
                "compile_seconds": compile_seconds,
            }
            if step == epoch_end and validate is not None:
                line["validation"] = float(validate(state.averaged))
                validation.append(line["validation"])
            _require_finite(line, folder)
            if parallel.is_main():
                with (folder / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
            report(line)
            done = step == last or stop_reached(validation, patience)
            if step - saved >= config.checkpoint_steps or done or interrupted.is_set():
                checkpoints.save(step, state)
                saved = step
            if interrupted.is_set() and not done:
                raise Interrupted(f"stopped at step {step} of at most {last}; a checkpoint holds it, --resume goes on")
    return Trained(state, tuple(validation))


def _require_finite(line: dict[str, float], folder: Path) -> None:
    bad = [name for name in ("loss", "grad_norm", "validation") if not math.isfinite(line.get(name, 0.0))]
    if bad:
        raise TrainingError(
            f"{folder}: {bad[0]} is {line[bad[0]]} at step {line['step']}; checkpoints/ keeps the last good state; try "
            "a smaller --learning-rate"
        )
