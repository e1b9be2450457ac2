"""The training loop: chunks of compiled steps, and between them metrics, checkpoints, signals and progress."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtraffic import parallel, prng
from jaxtraffic.errors import ConfigError, Interrupted, TrainingError
from jaxtraffic.train import stream
from jaxtraffic.train.checkpoint import Checkpoints
from jaxtraffic.train.program import Loss, make_chunk, steps_per_epoch
from jaxtraffic.train.state import TrainConfig, TrainState, init_state, make_optimizer

Report = Callable[[dict[str, float]], None]


def total_steps(config: TrainConfig, n_flows: int) -> int:
    """Optimiser steps of a whole run."""
    if config.steps is not None:
        return config.steps
    return config.epochs * steps_per_epoch(n_flows, min(config.batch_size, n_flows))


def train(
    loss: Loss,
    init: Callable[[jax.Array], Any],
    arrays: Any,
    config: TrainConfig,
    *,
    key: jax.Array,
    mesh: Mesh,
    folder: Path,
    resume: bool = False,
    is_state_space: Callable[[tuple[Any, ...]], bool] = lambda path: False,
    report: Report = lambda metrics: None,
) -> TrainState:
    """Trains until `total_steps`, writing metrics.jsonl and checkpoints/ into `folder`.

    Args:
        loss: (params, batch, key) -> per-flow loss [flow].
        init: key -> params.
        arrays: the training set, a pytree of host arrays [flow, ...].
        config: see `TrainConfig`.
        key: key of the run; step k draws from at_step(stream(key, "step"), k), so that resume needs the step only.
        mesh: devices.
        folder: run folder.
        resume: go on from the newest checkpoint where there is one; otherwise start from the beginning.
        is_state_space: marks parameter paths that take no weight decay.
        report: called after each chunk with the line of metrics.jsonl.

    Raises:
        TrainingError: a non-finite loss or gradient; the newest checkpoint is older than it.
        ConfigError: a streaming set with a batch size that the devices do not divide.
        Interrupted: SIGTERM or SIGINT; a checkpoint holds the last finished chunk.
    """
    n_flows = jax.tree.leaves(arrays)[0].shape[0]
    total, batch_size = total_steps(config, n_flows), min(config.batch_size, n_flows)
    transform, schedule = make_optimizer(config, total, is_state_space)
    keep = parallel.replicated(mesh)
    start = jax.jit(lambda k: init_state(init(prng.stream(k, "init")), transform, config), out_shardings=keep)
    resident = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) <= config.resident_bytes
    step_key = prng.stream(key, "step")

    with jax.set_mesh(mesh), Checkpoints(folder / "checkpoints") as checkpoints, signals() as interrupted:
        program = make_chunk(loss, transform, config, mesh, n_flows=n_flows, batch_size=batch_size, resident=resident)
        if resume and checkpoints.latest() is not None:
            state = checkpoints.restore(jax.eval_shape(start, key), keep)
        else:
            state = start(key)
        step = int(state.step)
        cut_metrics(folder / "metrics.jsonl", step)
        data = parallel.put_replicated(arrays, mesh) if resident else None
        batches = None if resident else _stream(arrays, config, batch_size, key, step, mesh)
        saved, compiled = step, None
        while step < total:
            chunk_data = data if resident else next(batches)
            arguments = (state, chunk_data, step_key, jnp.int32(total))
            if compiled is None:
                clock = time.perf_counter()
                compiled = program.lower(*arguments).compile()
                compile_seconds, clock = time.perf_counter() - clock, time.perf_counter()
            state, metrics = compiled(*arguments)
            losses, norms = (parallel.to_host(metrics[name]) for name in ("loss", "grad_norm"))
            before, step = step, min(step + config.log_steps, total)
            _require_finite(losses[: step - before], norms[: step - before], before, folder)
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            line = {
                "step": step,
                "epoch": step / steps_per_epoch(n_flows, batch_size),
                "loss": float(losses[: step - before].mean(dtype=np.float64)),
                "grad_norm": float(norms[: step - before].mean(dtype=np.float64)),
                "learning_rate": float(schedule(step - 1)),
                "flows_per_s": (step - before) * batch_size / seconds,
                "seconds": seconds,
                "compile_seconds": compile_seconds,
            }
            if parallel.is_main():
                with (folder / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
            report(line)
            if step - saved >= config.checkpoint_steps or step == total or interrupted.is_set():
                checkpoints.save(step, state)
                saved = step
            if interrupted.is_set() and step < total:
                raise Interrupted(f"stopped at step {step} of {total}; a checkpoint holds it, --resume goes on")
        return state


def _stream(arrays: Any, config: TrainConfig, batch_size: int, key: jax.Array, step: int, mesh: Mesh) -> Iterator[Any]:
    """Batches on the devices, [chunk, batch, ...] split over "data"; every process reads its own share only."""
    if batch_size % mesh.shape["data"]:
        raise ConfigError(
            f"a training set that streams needs a batch size divisible by the {mesh.shape['data']} devices "
            f"of the mesh, got {batch_size}"
        )
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))
    host = stream.chunks(
        arrays,
        batch_size=batch_size,
        chunk=config.log_steps,
        seed=int(jax.random.randint(prng.stream(key, "blocks"), (), 0, 2**31 - 1)),
        start_step=step,
        process=(jax.process_index(), jax.process_count()),
    )
    for share in host:
        yield jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), share)


def _require_finite(losses: np.ndarray, norms: np.ndarray, before: int, folder: Path) -> None:
    bad = np.flatnonzero(~(np.isfinite(losses) & np.isfinite(norms)))
    if bad.size:
        raise TrainingError(
            f"{folder}: the loss is not finite at step {before + bad[0] + 1} (loss {losses[bad[0]]}, gradient norm "
            f"{norms[bad[0]]}); checkpoints/ keeps the last good state; try a smaller --learning-rate"
        )


def cut_metrics(path: Path, step: int) -> list[dict[str, float]]:
    """Drops the lines of steps that a resumed run will take again (and a torn last line); what the others hold."""
    kept, texts = [], []
    for text in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, KeyError):
            line = json.loads(text)
            if line["step"] <= step:
                kept.append(line)
                texts.append(text + "\n")
    if parallel.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(texts))
        temporary.replace(path)
    return kept


@contextlib.contextmanager
def signals() -> Iterator[threading.Event]:
    """Turns SIGTERM and SIGINT into an event while training runs (main thread of a single process only)."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        yield event
        return
    handlers = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
