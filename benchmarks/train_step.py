"""How fast is one optimiser step, and how does PyTorch compare?

    python benchmarks/train_step.py --preset tiny --against torch
    python benchmarks/train_step.py --preset thesis --batch-size 4096               # on an accelerator

Contenders: `jaxtraffic` (a chunk of steps as one compiled scan over flows that live on the device) and, against torch,
a plain PyTorch DDPMS4 with AdamW and clipping, eager and with torch.compile; its flows live on the device too.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import contest
import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax
import subject
import tyro
from jax.sharding import Mesh

from jaxtraffic import parallel
from jaxtraffic.generate.model import Generator
from jaxtraffic.nn import is_state_space
from jaxtraffic.train import init_state, make_optimizer
from jaxtraffic.train.program import make_chunk

OURS, TOTAL_STEPS = "jaxtraffic", 100_000


@dataclasses.dataclass(frozen=True)
class Options(contest.Options):
    """Command line of the benchmark."""

    batch_size: int | None = None
    """Flows per step over all devices; default: the preset's."""
    steps: int = 10
    """Steps in one compiled chunk, and in one figure."""
    out: Path | None = None
    """JSON file; default: benchmarks/results/train_step-<device kind>.json."""


def main(options: Options) -> dict[str, Any]:
    """Measures, prints, writes and returns the document."""
    against = options.against == "torch"
    if against:
        measure.require_torch()
    measure.start(against)
    device = measure.describe_device(options.devices)
    config = subject.configure(options.preset, precision=options.precision, blocks=options.blocks)
    batch_size = options.batch_size or config.train.batch_size
    train = dataclasses.replace(config.train, batch_size=batch_size, log_steps=options.steps)
    config = dataclasses.replace(config, train=train)
    flows = subject.random_flows(max(subject.FLOWS, batch_size))
    generator = subject.make_generator(config, flows)
    params = subject.random_parameters(generator)
    mesh = parallel.make_mesh(devices=options.devices)
    peak = measure.matmul_peak(config.denoiser.precision)
    programs: dict[str, measure.Program] = {}
    with jax.set_mesh(mesh):
        step = step_flops(generator, params, flows)
        timings, contended = contest.run(
            lambda: jax_calls(generator, params, flows, mesh, programs),
            (lambda: torch_calls(options, generator, params, flows)) if against else None,
            rounds=options.rounds,
        )
    peak = measure.matmul_peak(config.denoiser.precision, peak)
    rows = contest.rows(
        timings,
        programs,
        flows=batch_size * options.steps,
        flops=step["flops"] * options.steps,
        peak=peak["flops_per_s"] * options.devices,
    )
    document = measure.result(
        "train_step",
        options,
        device,
        rows,
        config=dataclasses.asdict(config),
        batch_size=batch_size,
        matmul_peak=peak,
        step=step,
        ratios=contest.ratios(timings, OURS),
        notes=contest.NOTES,
        torch_threads=measure.require_torch().get_num_threads() if against else None,
        **contended,
    )
    contest.show(f"{options.steps} training steps, preset {options.preset}, batch {batch_size}", document)
    measure.write_json(options.out or measure.default_path("train_step"), document)
    return document


def step_flops(generator: Generator, params: Any, flows: dict[str, np.ndarray]) -> dict[str, Any]:
    """XLA's count of one step compiled on its own: loss, gradient and update of one batch."""
    config = generator.config.train
    transform, _ = make_optimizer(config, TOTAL_STEPS, is_state_space)

    def take_step(params: Any, optimizer: Any, batch: dict[str, jax.Array], key: jax.Array) -> Any:
        gradient = jax.grad(lambda p: jnp.mean(generator.loss(p, batch, key)))(params)
        updates, optimizer = transform.update(gradient, optimizer, params)
        return optax.apply_updates(params, updates), optimizer

    batch = {
        name: jax.ShapeDtypeStruct((config.batch_size, *leaf.shape[1:]), leaf.dtype) for name, leaf in flows.items()
    }
    optimizer = jax.eval_shape(transform.init, params)
    program = measure.compile_program(jax.jit(take_step), params, optimizer, batch, jax.random.key(0))
    return {"flops": program.flops, "flops_source": program.flops_source, "memory": program.memory}


def jax_calls(
    generator: Generator,
    params: Any,
    flows: dict[str, np.ndarray],
    mesh: Mesh,
    programs: dict[str, measure.Program],
) -> contest.Calls:
    """Compiles the training chunk and returns a call that takes its steps, from where the last call stopped."""
    config = generator.config.train
    transform, _ = make_optimizer(config, TOTAL_STEPS, is_state_space)
    chunk = make_chunk(
        generator.loss,
        transform,
        config,
        mesh,
        n_flows=len(flows["label"]),
        batch_size=config.batch_size,
        resident=True,
    )
    start = jax.jit(lambda p: init_state(p, transform, config), out_shardings=parallel.replicated(mesh))
    state = start(parallel.put_replicated(params, mesh))
    data = parallel.put_replicated(flows, mesh)
    constants = (data, jax.random.key(1), jnp.int32(TOTAL_STEPS))
    programs[OURS] = measure.compile_program(chunk, state, *constants)

    def take_steps() -> np.ndarray:
        nonlocal state
        state, metrics = programs[OURS].call(state, *constants)
        return np.asarray(metrics["loss"])

    return {OURS: take_steps}


def torch_calls(options: Options, generator: Generator, params: Any, flows: dict[str, np.ndarray]) -> contest.Calls:
    """Calls that take as many steps with torch."""
    import torch_ddpms4

    torch_ddpms4.prepare_backend(options.torch_matmul)
    eager = torch_ddpms4.TorchGenerator(generator, params)
    torch_ddpms4.settle_threads(eager, generator.config.train.batch_size, options.torch_threads)

    def caller(model: torch_ddpms4.TorchGenerator) -> Any:
        model.start_training(flows, TOTAL_STEPS)
        return lambda: model.train_steps(options.steps, generator.config.train.batch_size)

    calls = {"torch eager": caller(eager)}
    if options.torch_compile:
        calls["torch.compile"] = caller(torch_ddpms4.TorchGenerator(generator, params, compiled=True))
    return calls


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
