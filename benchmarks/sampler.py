"""How fast is the sampler, what does hoisting its kernels buy, and how do the token model and PyTorch compare?

    python benchmarks/sampler.py --preset tiny --against torch
    python benchmarks/sampler.py --preset thesis --block 4096 --flows 8192          # on an accelerator

Contenders: `jaxtraffic` (kernels and time embeddings made once, then one compiled scan), `jaxtraffic, kernel in every
step` (the same scan, with the kernels made again in each step, as the public S4 diffusion codes do), `token S4` (the
autoregressive model at the same width and number of blocks, for the same labels) and, against torch, a plain PyTorch
DDPMS4, eager and with torch.compile.

Parameters are random. The token model's flows then end at random, but its scan has one step for every packet position
whatever it draws, so that its time is that of a trained one. Its vocabulary is fitted on random flows most of whose
packets have one of 110 frequent sizes, as many as on the real sets (`subject.frequent_flows`).
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
import subject
import tyro
from jax.sharding import Mesh

from jaxtraffic import parallel
from jaxtraffic.generate import sampler, token_family
from jaxtraffic.generate.model import ACCELERATOR_BLOCK, CPU_BLOCK, Generator
from jaxtraffic.generate.token_model import TokenGenerator

HOISTED, REBUILT, TOKENS = "jaxtraffic", "jaxtraffic, kernel in every step", "token S4"


@dataclasses.dataclass(frozen=True)
class Options(contest.Options):
    """Command line of the benchmark."""

    flows: int | None = None
    """Flows to sample in one call; default: 4 blocks a device."""
    block: int | None = None
    """Flows a device samples at a time; default: the library's, which differ for both models."""
    diffusion_steps: int | None = None
    """Steps of the chain; default: the preset's."""
    out: Path | None = None
    """JSON file; default: benchmarks/results/sampler-<device kind>.json."""


def main(options: Options) -> dict[str, Any]:
    """Measures, prints, writes and returns the document."""
    against = options.against == "torch"
    if against:
        measure.require_torch()
    measure.start(against)
    device = measure.describe_device(options.devices)
    config = subject.configure(
        options.preset,
        precision=options.precision,
        blocks=options.blocks,
        diffusion_steps=options.diffusion_steps,
    )
    flows = subject.random_flows()
    generator = subject.make_generator(config, flows)
    generator.params = subject.random_parameters(generator)
    token = subject.make_token_generator(config, subject.frequent_flows(flows))
    token.params = subject.random_parameters(token)
    on_cpu = jax.default_backend() == "cpu"
    block = options.block or (CPU_BLOCK if on_cpu else ACCELERATOR_BLOCK)
    token_block = options.block or (token_family.CPU_BLOCK if on_cpu else token_family.ACCELERATOR_BLOCK)
    labels = generator.draw_labels(options.flows or 4 * block * options.devices)
    mesh = parallel.make_mesh(devices=options.devices)
    peak = measure.matmul_peak(config.denoiser.precision)
    programs: dict[str, measure.Program] = {}
    with jax.set_mesh(mesh):
        per_block, per_packet = step_flops(generator, block), packet_flops(token, token_block)
        timings, contended = contest.run(
            lambda: jax_calls(generator, labels, block, mesh, programs) | token_calls(token, labels, token_block, mesh),
            (lambda: torch_calls(options, generator, labels, block)) if against else None,
            rounds=options.rounds,
        )
    peak = measure.matmul_peak(config.denoiser.precision, peak)
    useful = per_block["flops"] * labels.size / block * config.diffusion.steps
    rows = contest.rows(timings, programs, flows=labels.size, flops=useful, peak=peak["flops_per_s"] * options.devices)
    for row in rows:
        if row["name"] == TOKENS:
            work = per_packet["flops"] * labels.size / token_block * token.card.length
            rate = work / row["median_s"]
            share = rate / (peak["flops_per_s"] * options.devices)
            row |= {"flops_per_call": work, "flops_per_s": rate, "share_of_matmul_peak": share}
    middle, low, high = measure.paired_ratio(timings[HOISTED], timings[TOKENS])
    document = measure.result(
        "sampler",
        options,
        device,
        rows,
        config=dataclasses.asdict(config),
        block=block,
        flows=int(labels.size),
        matmul_peak=peak,
        step=per_block,
        token={
            "config": dataclasses.asdict(token.config.net),
            "block": token_block,
            "symbols": token.vocabulary.n_symbols,
            "offsets": token.vocabulary.n_offsets,
            "packet": per_packet,
            "times_as_fast": {"median": middle, "lower_quartile": low, "upper_quartile": high},
        },
        prepare=programs["prepare"].row(),
        ratios=contest.ratios(timings, HOISTED),
        notes=contest.NOTES,
        torch_threads=measure.require_torch().get_num_threads() if against else None,
        **contended,
    )
    contest.show(
        f"Sampling {labels.size} flows, preset {options.preset}, {config.diffusion.steps} steps, block {block}, of "
        f"tokens {token_block}; {TOKENS} is {middle:.1f} ({low:.1f} .. {high:.1f}) times as fast",
        document,
    )
    measure.write_json(options.out or measure.default_path("sampler"), document)
    return document


def step_flops(generator: Generator, block: int) -> dict[str, Any]:
    """XLA's count of one pass of the network over a block, compiled on its own (no loop in it)."""
    operators = jax.eval_shape(
        lambda p: generator.apply(p, generator.card.length, method="operators"), generator.params
    )
    shapes = (
        jax.ShapeDtypeStruct((block, generator.card.length), jnp.float32),
        jax.ShapeDtypeStruct((block, generator.config.denoiser.embedding), jnp.float32),
    )
    program = measure.compile_program(jax.jit(generator.apply), generator.params, *shapes, operators)
    return {"flops": program.flops, "flops_source": program.flops_source}


def packet_flops(token: TokenGenerator, block: int) -> dict[str, Any]:
    """XLA's count of one packet of a block of flows: all heads and the recurrent step, compiled on their own."""

    def one(params: Any, state: Any, symbol: jax.Array, offset: jax.Array) -> Any:
        logits = token.net.token_logits_at(params, state), token.net.offset_logits_at(params, state, symbol)
        return logits, token.net.step(params, state, symbol, offset)[0]

    label = jax.ShapeDtypeStruct((block,), jnp.int32)
    state = jax.eval_shape(token.net.start, token.params, label)
    program = measure.compile_program(jax.jit(one), token.params, state, label, label)
    return {"flops": program.flops, "flops_source": program.flops_source}


def token_calls(token: TokenGenerator, labels: np.ndarray, block: int, mesh: Mesh) -> contest.Calls:
    """The call that samples every label with the token model, flows on the host at its end."""
    return {TOKENS: lambda: [token.sample(jax.random.key(1), labels, mesh=mesh, block=block).signed_size]}


def jax_calls(
    generator: Generator, labels: np.ndarray, block: int, mesh: Mesh, programs: dict[str, measure.Program]
) -> contest.Calls:
    """Compiles both samplers and returns calls that sample every label; fills `programs`."""
    key = jax.random.key(1)
    params, scale = parallel.put_replicated((generator.params, generator.scale), mesh)
    prepare = jax.jit(generator._prepare, out_shardings=parallel.replicated(mesh))
    programs["prepare"] = measure.compile_program(prepare, params)
    prepared = programs["prepare"].call(params)
    first = _arguments(labels, 0, block, mesh)
    programs[HOISTED] = measure.compile_program(
        generator.sampling_program(mesh, 1.0), params, scale, prepared, key, *first
    )
    programs[REBUILT] = measure.compile_program(rebuilding_program(generator, mesh), params, scale, key, *first)

    def hoisted() -> list[np.ndarray]:
        made = programs["prepare"].call(params)
        return each_chunk(lambda *args: programs[HOISTED].call(params, scale, made, key, *args)[0])

    def rebuilt() -> list[np.ndarray]:
        return each_chunk(lambda *args: programs[REBUILT].call(params, scale, key, *args))

    def each_chunk(sample: Any) -> list[np.ndarray]:
        starts = range(0, labels.size, block * mesh.shape["data"])
        return [parallel.to_host(sample(*_arguments(labels, start, block, mesh))) for start in starts]

    return {HOISTED: hoisted, REBUILT: rebuilt}


def _arguments(labels: np.ndarray, start: int, block: int, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    index = np.arange(start, start + block * mesh.shape["data"], dtype=np.int32)
    return parallel.put_over_data((index, labels[np.minimum(index, labels.size - 1)]), mesh)


def rebuilding_program(generator: Generator, mesh: Mesh) -> Any:
    """The sampler with kernels, operators and the time embedding made in every step of the scan."""
    length, plan = generator.card.length, generator.plan()

    def chunk(params: Any, scale: Any, key: jax.Array, index: jax.Array, label: jax.Array) -> jax.Array:
        classes = generator.apply(params, label, method="embed_class")

        def predict(x: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
            # Tied to x, or XLA would see that the kernels do not change and hoist them itself.
            own, x = jax.lax.optimization_barrier((params, x))
            operators = generator.apply(own, length, method="operators")
            time = generator.apply(own, t[None], method="embed_time")
            return generator.apply(own, x, time + classes, operators), None

        keys = sampler.sample_keys(key, index)
        x, _ = sampler.run(plan, predict, keys, label, length, per_step=plan.time)
        return scale.invert(x)

    return jax.jit(chunk, out_shardings=parallel.over_data(mesh))


def torch_calls(options: Options, generator: Generator, labels: np.ndarray, block: int) -> contest.Calls:
    """Calls that sample every label with torch, in blocks of the same size."""
    import torch_ddpms4

    torch_ddpms4.prepare_backend(options.torch_matmul)
    eager = torch_ddpms4.TorchGenerator(generator, generator.params)
    torch_ddpms4.settle_threads(eager, block, options.torch_threads)

    def caller(model: torch_ddpms4.TorchGenerator) -> Any:
        padded = labels[np.minimum(np.arange(-(-labels.size // block) * block), labels.size - 1)]
        return lambda: [model.sample(part) for part in padded.reshape(-1, block)]

    calls = {"torch eager": caller(eager)}
    if options.torch_compile:
        calls["torch.compile"] = caller(torch_ddpms4.TorchGenerator(generator, generator.params, compiled=True))
    return calls


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
