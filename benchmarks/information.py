"""What does mutual information cost that is measured inside guided sampling?

    python benchmarks/information.py --preset tiny
    python benchmarks/information.py --preset tiny --process flow
    python benchmarks/information.py --preset thesis --block 4096 --flows 8192          # on an accelerator

Contenders, all of one model with the same guidance, keys and labels: `guided` (sampling alone), `fused` (with
`information.observers.squared` in the scan), `fused, by packet and step` (which also returns the contributions of
packets and steps), `stored` (keeps both predictions of every step and computes the same estimate in a second program)
and, for flows, `path-wise` (the exact log-ratio by Hutchinson's estimator, which needs a derivative of the network).
The claim is that fused / guided stays under 1.05.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import contest
import jax
import jax.numpy as jnp
import measure
import numpy as np
import subject
import tyro
from measure import quantity

from jaxtraffic import parallel
from jaxtraffic.generate import sampler
from jaxtraffic.generate.config import GeneratorConfig
from jaxtraffic.generate.model import ACCELERATOR_BLOCK, CPU_BLOCK, Generator
from jaxtraffic.information import observers

GUIDED, FUSED, DETAILED, STORED, PATH_WISE = "guided", "fused", "fused, by packet and step", "stored", "path-wise"


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the benchmark."""

    preset: str = "tiny"
    """Generator preset: tiny, small or thesis."""
    process: Literal["ddpm", "vp", "edm", "flow"] = "ddpm"
    """Process of the generator."""
    guidance: float = 1.5
    """Weight of classifier-free guidance; not 1, or the comparison would be with half of the work."""
    flows: int | None = None
    """Flows to sample in one call; default: 2 blocks a device."""
    block: int | None = None
    """Flows a device samples at a time; default: the library's."""
    steps: int | None = None
    """Steps of the chain; default: the preset's, or the process' own."""
    precision: str | None = None
    """float32 or bfloat16; default: the preset's."""
    blocks: int | None = None
    """Blocks of the network; default: the preset's."""
    devices: int = 1
    """Devices to use."""
    rounds: int = 31
    """Figures to take of each contender, in turns."""
    out: Path | None = None
    """JSON file; default: benchmarks/results/information-<device kind>.json."""


def main(options: Options) -> dict[str, Any]:
    """Measures, prints, writes and returns the document."""
    measure.start(False)
    device = measure.describe_device(options.devices)
    config = configure(options)
    generator = subject.make_generator(config, subject.random_flows())
    generator.params = subject.random_parameters(generator)
    block = options.block or (CPU_BLOCK if jax.default_backend() == "cpu" else ACCELERATOR_BLOCK)
    labels = generator.draw_labels(options.flows or 2 * block * options.devices)
    mesh = parallel.make_mesh(devices=options.devices)
    programs: dict[str, measure.Program] = {}
    with jax.set_mesh(mesh):
        calls = make_calls(generator, options.guidance, labels, block, mesh, programs)
        timings = measure.race(calls, rounds=options.rounds)
        difference = check_equal(calls)
    rows = [row(name, timing, programs, labels.size) for name, timing in timings.items()]
    document = measure.result(
        "information",
        options,
        device,
        rows,
        config=dataclasses.asdict(config),
        block=block,
        flows=int(labels.size),
        steps=generator.plan().steps,
        # Name to median and quartiles of the ratios within rounds: a few per cent are less than medians scatter.
        ratios={
            f"{name} / {GUIDED}": measure.paired_ratio(timing, timings[GUIDED])
            for name, timing in timings.items()
            if name != GUIDED
        },
        stored_minus_fused_max=difference,
        notes=[
            "memory is what XLA plans for a program of one block; the stored trajectory is in the output of the first "
            "of the two programs of `stored`, and in the arguments of the second.",
        ],
    )
    show(options, document)
    measure.write_json(options.out or measure.default_path("information"), document)
    return document


def configure(options: Options) -> GeneratorConfig:
    """The preset with the process, the steps and a label dropout, without which there is no guidance."""
    config = subject.configure(options.preset, precision=options.precision, blocks=options.blocks)
    of_steps = {"steps" if options.process == "ddpm" else "sampling_steps": options.steps} if options.steps else {}
    diffusion = dataclasses.replace(config.diffusion, process=options.process, **of_steps)
    train = dataclasses.replace(config.train, class_dropout=0.1)
    return dataclasses.replace(config, diffusion=diffusion, train=train)


def make_calls(
    generator: Generator,
    guidance: float,
    labels: np.ndarray,
    block: int,
    mesh: jax.sharding.Mesh,
    programs: dict[str, measure.Program],
) -> contest.Calls:
    """Compiles every contender and returns calls that sample all labels; fills `programs`."""
    plan = generator.plan()
    made = {
        GUIDED: (),
        FUSED: (observers.squared(plan, packets=False),),
        DETAILED: (observers.squared(plan, packets=True, curve=True),),
        STORED: (keep_predictions(plan.steps),),
    }
    if generator.config.diffusion.process == "flow":
        made[PATH_WISE] = (observers.path_wise(plan),)
    key = jax.random.key(1)
    params, scale = parallel.put_replicated((generator.params, generator.scale), mesh)
    prepared = jax.jit(generator._prepare, out_shardings=parallel.replicated(mesh))(params)
    chunk = block * mesh.shape["data"]

    def arguments(start: int) -> tuple[jax.Array, jax.Array]:
        index = np.arange(start, start + chunk, dtype=np.int32)
        return parallel.put_over_data((index, labels[np.minimum(index, labels.size - 1)]), mesh)

    for name, observed in made.items():
        program = generator.sampling_program(mesh, guidance, observed)
        programs[name] = measure.compile_program(program, params, scale, prepared, key, *arguments(0))
    _, (kept,) = programs[STORED].call(params, scale, prepared, key, *arguments(0))
    programs[f"{STORED}, second program"] = measure.compile_program(after_the_fact(plan.weight), *kept)

    def caller(name: str) -> Any:
        def call() -> list[Any]:
            parts = []
            for start in range(0, labels.size, chunk):
                signed, observed = programs[name].call(params, scale, prepared, key, *arguments(start))
                if name == STORED:
                    observed = ({"mi": programs[f"{STORED}, second program"].call(*observed[0])},)
                parts.append(jax.tree.map(parallel.to_host, (signed, observed)))
            return parts

        return call

    return {name: caller(name) for name in made}


def keep_predictions(steps: int) -> sampler.Observer:
    """Stores both predictions of every step, [batch, step, T] each."""

    def update(state: tuple[jax.Array, jax.Array], info: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        now = (info["prediction"].conditional, info["prediction"].unconditional)
        return tuple(kept.at[:, info["step"]].set(value) for kept, value in zip(state, now, strict=True))

    def init(x: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (jnp.zeros((x.shape[0], steps, x.shape[1])),) * 2

    return sampler.Observer(init, update, needs_unconditional=True)


def after_the_fact(weight: Any) -> Any:
    """The jitted squared form [batch] of stored predictions."""
    weight = jnp.asarray(weight)
    return jax.jit(lambda a, b: (((a - b) ** 2).sum(-1) * weight).sum(-1))


def check_equal(calls: contest.Calls) -> float:
    """The largest difference between the fused estimates and those of the stored trajectories, relative."""
    fused, stored = (np.concatenate([part[1][0]["mi"] for part in calls[name]()]) for name in (FUSED, STORED))
    return float(np.max(np.abs(fused - stored) / np.maximum(np.abs(stored), 1e-6)))


def row(name: str, timing: measure.Timing, programs: dict[str, measure.Program], flows: int) -> dict[str, Any]:
    """The JSON row of a contender."""
    made = {"name": name} | timing.row() | {"flows_per_s": flows / timing.median} | programs[name].row()
    second = programs.get(f"{name}, second program")
    return made if second is None else made | {"second_program": second.row()}


def show(options: Options, document: dict[str, Any]) -> None:
    """Prints the table."""
    table = []
    for made in document["rows"]:
        middle, low, high = document["ratios"].get(f"{made['name']} / {GUIDED}", (1.0, 1.0, 1.0))
        spread = f"{quantity(made['min_s'], 's')} .. {quantity(made['max_s'], 's')}"
        memory = [quantity(made["memory"].get(kind), "B") for kind in ("temp_bytes", "output_bytes")]
        table.append(
            [made["name"], quantity(made["median_s"], "s"), spread, f"{middle:.3f} ({low:.3f} .. {high:.3f})", *memory]
        )
    title = f"{document['flows']} flows, {options.process}, preset {options.preset}, guidance {options.guidance}, "
    columns = [
        "contender",
        "median",
        "min .. max",
        f"times {GUIDED} in the same round (quartiles)",
        "temporaries",
        "outputs",
    ]
    measure.show(title + f"{document['steps']} steps, block {document['block']}", columns, table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
