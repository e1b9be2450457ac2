"""What every generative experiment does: load, split, train, sample, judge, report. The scripts beside it are thin."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from data_options import data_line, describe_data, load
from generative_options import Options, generator_config
from jax.sharding import Mesh
from judging import check_judging, described_judging, judge_and_report, timing
from rich.console import Console

from jaxtraffic import datasets, generate, parallel, prng, scaling
from jaxtraffic.command.run_folder import open_folder
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import rounds
from jaxtraffic.information import observers
from jaxtraffic.series import PacketSeries, concatenate
from jaxtraffic.train import ProgressReport, total_steps


def run_generative(options: Options, console: Console, *, experiment: str, process: str) -> None:
    """Trains, samples and judges a generator on the S4 backbone; writes the run folder of DESIGN.md.

    Args:
        options: of the command line.
        console: where to print.
        experiment: the script's name, for config.json and the run folder.
        process: what the script trains where the options name no process.
    """
    parallel.start_processes(options.coordinator, options.num_processes, options.process_id)
    main = parallel.is_main()
    mesh = parallel.make_mesh(options.mesh, devices=options.devices)
    config = generator_config(options, process)
    if options.out is None and (options.resume or options.coordinator):
        raise ConfigError("--resume and --coordinator need --out, the run folder that is meant")
    check_judging(options)
    flows, dropped = load(options)
    parts = datasets.split(flows, fold=options.fold, seed=options.seed)
    if main:
        console.print(data_line(flows, parts), highlight=False)
    card = generate.DataCard.of(parts.train)
    scale = scaling.fit(config.diffusion.scaling, parts.train.signed_size, parts.train.label, len(card.class_names))
    generator = generate.Generator(config, card, scale)
    folder = options.out or Path("runs") / f"{experiment}-{flows.name}-{datetime.now():%Y%m%d-%H%M%S}"
    described = {
        "experiment": experiment,
        "seed": options.seed,
        "generator": dataclasses.asdict(config),
        "card": dataclasses.asdict(card),
        "data": describe_data(options, flows, dropped, **vars(parts)),
        "reflow": options.reflow,
        "information": options.information,
    } | described_judging(options)
    if main and not open_folder(folder, described, resume=options.resume):
        console.print(f"{folder} is complete: see {folder / 'report.html'}", highlight=False)
        return
    if main:
        scaling.save(generator.scale, folder / "scaling.npz")
    key = jax.random.key(options.seed)
    _train(options, console, generator, parts.train, prng.stream(key, "train"), mesh, folder)
    if options.num_samples is None:
        labels = np.asarray(parts.train.label)
    else:
        labels = generator.draw_labels(options.num_samples, seed=options.seed)
    clock = time.perf_counter()
    with ProgressReport(console, "sampling", len(labels), enabled=main) as progress:
        sample = generator.sample_with_information if options.information else generator.sample
        synthetic = sample(prng.stream(key, "sample"), labels, mesh=mesh, report=progress.update)
    sampling_seconds = time.perf_counter() - clock
    more = []
    if options.multiple > 1:
        again = np.tile(labels, options.multiple - 1)
        with ProgressReport(console, "sampling more", len(again), enabled=main) as progress:
            more = [generator.sample(prng.stream(key, "more"), again, mesh=mesh, report=progress.update)]
    if not main:
        return
    measured: dict[str, Any] = {}
    if options.information:
        synthetic, found = synthetic
        measured = _write_information(folder, found, labels, flows.class_names, card.class_counts)
        told, most = measured["information.mean"], measured["information.ceiling"]
        console.print(f"information: {told:.2f} nats a flow, of H(label) = {most:.2f}", highlight=False)
        if told > most:
            console.print(
                "  more than there is to know: the difference is the error of the network, above all without a label; "
                "train longer and with --class-dropout 0.5, and take these values for a ranking only",
                highlight=False,
                soft_wrap=True,
            )
    judge_and_report(
        options,
        console,
        folder,
        parts,
        synthetic,
        larger=concatenate([synthetic, *more]) if more else None,
        measured=measured | timing(folder, len(labels), sampling_seconds),
        config=_shown(json.loads((folder / "config.json").read_text()), generator),
    )


def _train(
    options: Options,
    console: Console,
    generator: generate.Generator,
    flows: PacketSeries,
    key: jax.Array,
    mesh: Mesh,
    folder: Path,
) -> None:
    """Training and rounds of reflow; each round has its own key, metrics and checkpoints."""
    total = total_steps(generator.config.train, len(flows))
    for number in range(options.reflow + 1):
        name = "training" if number == 0 else f"reflow {number}"
        place = rounds.folder_of(folder, number)
        place.mkdir(exist_ok=True)
        with ProgressReport(console, name, total, enabled=parallel.is_main()) as progress:
            shared = {
                "mesh": mesh,
                "folder": place,
                "resume": options.resume,
                "report": lambda line, shown=progress: shown.update(
                    line["step"], loss=line["loss"], **{"flows/s": line["flows_per_s"]}
                ),
            }
            if number == 0:
                generator.fit(flows, key=key, **shared)
            else:
                generator.reflow(
                    np.asarray(flows.label), key=prng.at_step(prng.stream(key, "reflow"), number), **shared
                )


def _write_information(
    folder: Path,
    found: dict[str, np.ndarray],
    labels: np.ndarray,
    class_names: tuple[str, ...],
    class_counts: tuple[int, ...],
) -> dict[str, float]:
    """Writes information.npz beside the samples and returns keys of report.json; everything in nats.

    The ceiling is the entropy of the labels in the training flows: no series can tell more of its label than that.
    """
    temporary = folder / "information.tmp.npz"
    np.savez_compressed(temporary, label=labels, class_names=np.array(class_names), **found)
    temporary.replace(folder / "information.npz")
    told = observers.summary(found["mi"], labels, len(class_names))
    classes = zip(class_names, told.class_mean, strict=True)
    return {
        "information.mean": told.mean,
        "information.stderr": told.stderr,
        "information.ceiling": observers.ceiling(class_counts),
    } | {f"information.class.{name}": float(value) for name, value in classes if np.isfinite(value)}


def _shown(config: dict[str, Any], generator: generate.Generator) -> dict[str, Any]:
    """config.json with the cards that the report shows beside it: model, training, device in words."""
    stored, device = config["generator"], config["device"]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(generator.params))
    others = {
        name
        for process, names in _OF_PROCESS.items()
        if process != generator.config.diffusion.process
        for name in names
    }
    own = set(_OF_PROCESS[generator.config.diffusion.process])
    diffusion = {name: value for name, value in stored["diffusion"].items() if name in own or name not in others}
    return config | {
        "model": {"title": generator.title, "parameters": parameters, **stored["denoiser"], **diffusion},
        "training": stored["train"],
        "device": f"{device['count']} x {device['kind']}",
    }


_EDM = ("sigma_data", "sigma_min", "sigma_max", "rho", "log_sigma_mean", "log_sigma_std")
_OF_PROCESS = {
    "ddpm": ("steps", "schedule", "prediction", "variance", "eta"),
    "vp": ("steps", "prediction", "beta_min", "beta_max", "eta"),
    "edm": (*_EDM, "churn", "churn_min", "churn_max", "churn_noise"),
    "flow": ("time_law",),
}
"""Options that the report shows for a process only."""
