"""How many runs an hour does a campaign take, and what does it gain by training many seeds in one program?

    python benchmarks/campaign.py --against torch
    python benchmarks/campaign.py --parts steps --batches 1024 --seeds 16
    python benchmarks/campaign.py --parts --mirage            # on an accelerator: 80 folds x 19 configurations

Three parts, each side by side in one process, in turns:

* `steps`: training steps of W seeds of the ResNet, as W programs called in turn, as one program vmapped over seeds, and
  as one program that maps over them (`lax.map`), with the steps as a loop in the program and as calls; beside them the
  matrix products of a step alone: as quick as any grouping of runs could get if all between the products were free.
* `convolutions`: the same with the library's convolutions as products and with `lax.conv_general_dilated`, each in
  turns and vmapped over seeds (where vmap makes it a grouped convolution), in a loop and as calls.
* `campaign`: `classify.campaign` with one slot (runs one by one) and with many, a plain JAX loop over jitted steps and,
  against torch, a plain PyTorch loop, for seeds of a configuration and for several configurations.

`--mirage` times the whole benchmark at the size of MIRAGE-19 and refuses on a CPU.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

import campaign_contenders as contenders
import jax
import measure
import tyro
from campaign_contenders import BATCHED_PRODUCTS, BLAS, IN_TURNS, LAX, MAPPED, MATMULS, PRODUCTS, VMAPPED
from measure import Timing, quantity

from jaxtraffic import augment, parallel
from jaxtraffic.classify.campaigns import campaign

PLAIN, TORCH = "plain JAX loop", "PyTorch loop"
PARTS = ("steps", "convolutions", "campaign")
NOTES = [
    "flops_per_s counts the matrix products of the model alone (campaign_contenders.step_flops), the same useful work "
    "for every contender. times_as_fast holds median and quartiles of the ratios within the same round.",
    "products alone are the products of the step on random operands; share_of_products is the time of the quicker of "
    "XLA's two forms over that of the contender, most_possible the time of steps in turns over that of the products. "
    "NumPy's BLAS does the same products in a race of its own: what the machine gives on these shapes.",
    "In the campaign part the programs of a campaign are kept for the next call: first_call_s holds tracing and "
    "compilation and the rounds do not, as a campaign of thousands of runs pays them once. The loops take loop_runs "
    "runs in a figure; ratios are of times a run. All contenders train for the same number of epochs and steps.",
    "The PyTorch loop is eager; its flows lie on the device and its augmentations are batched. It counts with the "
    "quicker of one thread and all cores, tried before the run (torch_threads).",
]


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the benchmark."""

    parts: tuple[Literal["steps", "convolutions", "campaign"], ...] = PARTS
    """What to measure."""
    batches: tuple[int, ...] = (64, 256, 1024)
    """Flows of a training step of one seed."""
    seeds: tuple[int, ...] = (1, 4, 16)
    """Seeds that take a step together."""
    chunk: int = 2
    """Steps of a loop inside a program; contenders called "a call a step" have none."""
    convolution_batches: tuple[int, ...] = (16, 64)
    """Flows of a step in `convolutions`; small, as XLA's convolution is slow on a CPU."""
    convolution_seeds: tuple[int, ...] = (1, 4)
    """Seeds in `convolutions`."""
    slots: tuple[int, ...] = (1, 16)
    """Runs in one program of a campaign; the first is what the others are compared with."""
    campaign_seeds: int = 16
    """Runs of a campaign."""
    augmentations: tuple[str, ...] = ("baseline", "translation")
    """Configurations of which `campaign_seeds` runs are timed, each on its own."""
    mixture: tuple[str, ...] = ("baseline", "translation", "wrap", "permutation")
    """Configurations that share out the runs of one more campaign; none: leave it out."""
    flows: int = 5120
    """Flows of the synthetic set of a campaign; eight in ten are trained on."""
    epochs: int = 2
    """Epochs of each run."""
    batch_size: int = 1024
    """Flows that a step of a campaign sees, copies included."""
    loop_runs: int = 2
    """Runs in a figure of the two loops."""
    rounds: int = 5
    """Figures to take of each contender."""
    min_seconds: float = 0.05
    """Shorter calls are repeated until a round takes so long."""
    against: Literal["nothing", "torch"] = "nothing"
    """Also run the PyTorch loop."""
    torch_threads: int | None = None
    """torch's threads on CPU; default: the quicker of one and all cores."""
    mirage: bool = False
    """Also time 80 folds x 19 configurations at the size of MIRAGE-19; needs an accelerator."""
    mirage_folds: int = 80
    """Folds (repeated ten-fold splits)."""
    mirage_flows: int = 64_000
    """Flows, of 20 classes."""
    mirage_epochs: int = 500
    """Epochs at most; runs stop after 20 without improvement, as published."""
    mirage_slots: int | None = None
    """Runs in one program; default: the library's."""
    mirage_folder: Path | None = None
    """Where the campaign keeps its state; resumed where it exists (the time of earlier calls is then not counted)."""
    out: Path | None = None
    """JSON file; default: benchmarks/results/campaign-<device kind>.json."""


def main(options: Options) -> dict[str, Any]:
    """Measures, prints, writes and returns the document."""
    against = options.against == "torch"
    if against:
        measure.require_torch()
    if options.mirage and jax.default_backend() == "cpu":
        sys.exit(
            f"--mirage is {19 * options.mirage_folds} runs on {options.mirage_flows} flows: it needs an accelerator, "
            "and JAX found only the CPU. Nothing is extrapolated from smaller runs; leave the option out here."
        )
    known = {"baseline", *(name for name, one in augment.AUGMENTATIONS.items() if not one.needs_stats)}
    unknown = sorted({*options.augmentations, *options.mixture} - known)
    if unknown:
        sys.exit(f"unknown configuration {unknown[0]} (or one that needs statistics); choose from {', '.join(known)}")
    measure.start(against)
    device, peak, rows, more = measure.describe_device(), measure.matmul_peak("float32"), [], {}
    if "steps" in options.parts:
        rows += [row for batch in options.batches for seeds in options.seeds for row in steps(options, batch, seeds)]
    if "convolutions" in options.parts:
        sizes = [(batch, seeds) for batch in options.convolution_batches for seeds in options.convolution_seeds]
        rows += [row for batch, seeds in sizes for row in convolutions(options, batch, seeds)]
    if "campaign" in options.parts:
        rows += campaigns(options, more)
    if options.mirage:
        more["mirage"] = mirage(options)
    peak = measure.matmul_peak("float32", peak)
    for row in rows:
        if "flops_per_s" in row:
            row["share_of_matmul_peak"] = row["flops_per_s"] / peak["flops_per_s"]
    document = measure.result(
        "campaign",
        options,
        device,
        rows,
        matmul_peak=peak,
        step_flops_per_flow=contenders.step_flops(),
        notes=NOTES,
        load_average_1min_after=os.getloadavg()[0],
        **more,
    )
    document["options"]["mirage_folder"] = options.mirage_folder is not None
    show(document)
    measure.write_json(options.out or measure.default_path("campaign"), document)
    return document


def steps(options: Options, batch: int, seeds: int) -> list[dict[str, Any]]:
    """Rows of the ways of taking a step of so many seeds, and of their products alone."""
    programs: dict[str, measure.Program] = {}
    subject = contenders.Steps(seeds, batch)
    calls = subject.calls(programs, ways=(IN_TURNS, VMAPPED, MAPPED), steps=options.chunk)
    work = dict.fromkeys(calls, options.chunk)
    calls |= subject.calls(programs, ways=(IN_TURNS, VMAPPED), steps=1)
    calls |= contenders.product_calls(seeds, batch, programs)
    # NumPy has a race of its own, straight after: its threads spin for a while and would slow whoever comes next.
    blas = {BLAS: calls.pop(BLAS)}
    timings = measure.race(calls, rounds=options.rounds, min_seconds=options.min_seconds)
    if jax.default_backend() == "cpu":
        timings |= measure.race(blas, rounds=options.rounds, min_seconds=options.min_seconds)
    rows = step_rows("steps", batch, seeds, timings, programs, work)
    products = min(row["step_s"] for row in rows if row["name"] in (PRODUCTS, BATCHED_PRODUCTS))
    for row in rows:
        row["share_of_products"] = products / row["step_s"]
    rows[0]["most_possible"] = rows[0]["step_s"] / products
    return rows


def convolutions(options: Options, batch: int, seeds: int) -> list[dict[str, Any]]:
    """Rows of a step with convolutions as products and as XLA's own, in a loop and outside."""
    programs: dict[str, measure.Program] = {}
    calls: dict[str, contenders.Call] = {}
    work: dict[str, int] = {}
    for form in (MATMULS, LAX):
        subject = contenders.Steps(seeds, batch, form=form)
        looped = subject.calls(programs, ways=(IN_TURNS, VMAPPED), steps=options.chunk)
        work |= dict.fromkeys(looped, options.chunk)
        calls |= looped | subject.calls(programs, ways=(IN_TURNS, VMAPPED), steps=1)
    timings = measure.race(calls, rounds=options.rounds, min_seconds=options.min_seconds)
    return step_rows("convolutions", batch, seeds, timings, programs, work)


def step_rows(
    part: str,
    batch: int,
    seeds: int,
    timings: dict[str, Timing],
    programs: dict[str, measure.Program],
    work: dict[str, int],
) -> list[dict[str, Any]]:
    """JSON rows of contenders that take `work` steps (default: 1) of `seeds` seeds on `batch` flows each."""
    flows, rows = batch * seeds, []
    per_step = {name: per(timing, work.get(name, 1)) for name, timing in timings.items()}
    for name, timing in timings.items():
        seconds = per_step[name].median
        row = {"part": part, "name": name, "batch": batch, "seeds": seeds, "steps": work.get(name, 1)} | timing.row()
        row |= {"step_s": seconds, "flows_per_s": flows / seconds}
        row |= {"flops_per_s": contenders.step_flops() * flows / seconds}
        row |= {"times_as_fast": measure.paired_ratio(per_step[IN_TURNS], per_step[name]), "reference": IN_TURNS}
        rows.append(row | (programs[name].row() if name in programs else {}))
    return rows


def per(timing: Timing, count: int) -> Timing:
    """The same figures for one of `count` equal parts of a call."""
    return Timing(timing.first_s, [seconds / count for seconds in timing.rounds])


def campaigns(options: Options, more: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of whole runs: seeds of each configuration, and a mixture of configurations."""
    flows = contenders.random_series(options.flows)
    made = {
        name: contenders.configuration(name, batch=options.batch_size, epochs=options.epochs)
        for name in (*options.augmentations, *options.mixture)
    }
    sides, rows = contenders.fold_arrays(flows), []
    if options.against == "torch":
        import torch_classifier

        side = torch_classifier.put(sides)["train"]
        threads = torch_classifier.settle_threads(options.torch_threads, contenders.CLASSES, side, options.batch_size)
        more["torch_threads"] = threads
    workloads = {f"{options.campaign_seeds} seeds, {name}": [made[name]] for name in options.augmentations}
    if options.mixture:
        seeds = max(1, options.campaign_seeds // len(options.mixture))
        title = f"{seeds} seeds x {len(options.mixture)} configurations"
        workloads[title] = [made[name] for name in options.mixture]
    with contenders.kept_programs():
        for title, configs in workloads.items():
            rows += campaign_rows(options, title, configs, flows, sides)
    return rows


def campaign_rows(
    options: Options, workload: str, configs: list[Any], flows: Any, sides: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of one workload: campaigns by slots, and the loops."""
    seeds = max(1, options.campaign_seeds // len(configs))
    calls, runs, results = {}, {}, {}

    def add(name: str, call: contenders.Call, count: int) -> None:
        def keep() -> None:
            results[name] = call()

        calls[name], runs[name] = keep, count

    for slots in options.slots:
        add(
            f"campaign, {slots} a program", contenders.campaign_call(flows, configs, seeds, slots), seeds * len(configs)
        )
    if len(configs) == 1:
        steps = contenders.steps_of(configs[0], flows)
        loop = contenders.PlainLoop(configs[0], sides, steps)
        add(PLAIN, lambda: [loop.run(seed) for seed in range(options.loop_runs)], options.loop_runs)
        if options.against == "torch":
            add(TORCH, contenders.torch_call(configs[0], sides, steps, options.loop_runs), options.loop_runs)
    timings = measure.race(calls, rounds=options.rounds)
    reference = next(iter(timings))
    per_run = {name: per(timing, runs[name]) for name, timing in timings.items()}
    rows = []
    for name, timing in timings.items():
        row = {"part": "campaign", "workload": workload, "name": name, "runs": runs[name]} | timing.row()
        row |= {"runs_per_hour": 3600 / per_run[name].median}
        row |= {"runs_per_hour_with_compilation": 3600 * runs[name] / timing.first_s}
        row |= {"times_as_fast": measure.paired_ratio(per_run[reference], per_run[name]), "reference": reference}
        rows.append(row | outcome(results[name]))
    return rows


def outcome(results: list[Any]) -> dict[str, float]:
    """Epochs and mean test accuracy of runs: contenders that differ here did not do the same."""
    plain = [one if isinstance(one, dict) else dataclasses.asdict(one) for one in results]
    return {name: sum(one[name] for one in plain) / len(plain) for name in ("epochs", "accuracy")}


def mirage(options: Options) -> dict[str, Any]:
    """The time of the baseline and all 18 augmentations, one copy injected, on every fold of a set of that size."""
    flows = contenders.random_series(options.mirage_flows)
    names = ["baseline", *(name for name, one in augment.AUGMENTATIONS.items() if one.in_paper)]
    configs = [
        contenders.configuration(name, batch=options.batch_size, epochs=options.mirage_epochs, patience=20)
        for name in names
    ]
    clock = time.perf_counter()
    results = campaign(
        flows,
        configs,
        list(range(options.mirage_folds)),
        [0],
        n_folds=contenders.FOLDS,
        length=contenders.LENGTH,
        slots=options.mirage_slots,
        folder=options.mirage_folder,
        resume=options.mirage_folder is not None,
        mesh=parallel.make_mesh(devices=1),
    )
    seconds = time.perf_counter() - clock
    copies = {config.name: config.copies for config in configs}
    trained = sum(one.epochs * one.n_train * (1 + copies[one.config]) for one in results)
    epochs = [one.epochs for one in results]
    return {
        "configurations": len(configs),
        "folds": options.mirage_folds,
        "flows": options.mirage_flows,
        "runs": len(results),
        "seconds": seconds,
        "seconds_of_runs": float(sum(one.seconds for one in results)),
        "runs_per_hour": 3600 * len(results) / seconds,
        "epochs": {"mean": sum(epochs) / len(epochs), "least": min(epochs), "most": max(epochs)},
        "trained_flows_per_s": trained / seconds,
        "training_flops_per_s": contenders.step_flops() * trained / seconds,
        "accuracy": outcome(results)["accuracy"],
        "notes": [
            "seconds hold compilation, folds, training with early stopping, judging and writing; flows are synthetic, "
            "so that epochs are not those that MIRAGE-19 would take. seconds are of this call, seconds_of_runs also of "
            "calls that it resumed."
        ],
    }


def show(document: dict[str, Any]) -> None:
    """Prints the tables."""
    for part in ("steps", "convolutions"):
        table = []
        for row in document["rows"]:
            if row["part"] == part:
                title = f"{row['seeds']} x {row['batch']}: {row['name']}"
                speed, share = quantity(row["flows_per_s"], "flow/s"), row.get("share_of_products")
                cells = [quantity(row["step_s"], "s"), speed, quantity(row["flops_per_s"], "FLOP/s"), ratio(row)]
                cells += ["-" if share is None else f"{100 * share:.0f} %"]
                compiled = row["lower_s"] + row["compile_s"] if "compile_s" in row else None
                temporaries = row.get("memory", {}).get("temp_bytes")
                table.append([title, *cells, quantity(compiled, "s"), quantity(temporaries, "B")])
        columns = ["a step: seeds x flows", "time", "speed", "FLOPs", "times as fast (quartiles)", "of products"]
        if table:
            measure.show(f"Part {part}", [*columns, "compile", "temporaries"], table)
    table = [
        [
            f"{row['workload']}: {row['name']}",
            quantity(row["median_s"] / row["runs"], "s"),
            f"{row['runs_per_hour']:.0f}",
        ]
        + [f"{row['runs_per_hour_with_compilation']:.0f}", ratio(row), f"{row['accuracy']:.3f}"]
        for row in document["rows"]
        if row["part"] == "campaign"
    ]
    if table:
        columns = ["runs", "a run", "runs an hour", "with compilation", "times as fast (quartiles)", "test accuracy"]
        title = f"Part campaign: {document['options']['flows']} flows, {document['options']['epochs']} epochs"
        measure.show(title, columns, table)
    whole = document.get("mirage")
    if whole:
        print(f"{whole['folds']} folds x {whole['configurations']} configurations of {whole['flows']} flows:", end=" ")
        print(
            f"{whole['seconds']:.0f} s, {whole['runs_per_hour']:.0f} runs an hour, {whole['epochs']['mean']:.0f} epochs"
        )


def ratio(row: dict[str, Any]) -> str:
    """Median and quartiles of times_as_fast."""
    middle, low, high = row["times_as_fast"]
    return f"{middle:.2f} ({low:.2f} .. {high:.2f})"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
