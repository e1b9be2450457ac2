"""What every generative experiment does: load, split, train, sample, judge, report. The scripts beside it are thin."""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
import subprocess
import sys
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxtraffic import datasets, evaluate, generate, parallel, prng, report, scaling
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries, concatenate
from jaxtraffic.train import ProgressReport, total_steps


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of a generative experiment. What is left out comes from the preset."""

    dataset: str = "cesnet_quic"
    """Data set of the catalogue (python -m jaxtraffic data list), or a parquet file NAME.parquet in the data root."""
    data_root: Path | None = None
    """Folder of the raw data sets; default: the environment variable JAXTRAFFIC_DATA, else the user's cache."""
    path: Path | None = None
    """File or folder to read instead of searching the data root."""
    group: str | None = None
    """Column of a parquet set whose values stay on one side of a fold, such as capture."""
    tier: str = "all"
    """Classes to keep: 50 (the 50 most popular) or all."""
    max_flows: int | None = None
    """Keep at most so many flows, drawn in proportion to the classes."""
    curation: bool = True
    """Apply the set's rules of curation; without it every flow and packet stays."""
    min_packets: int | None = None
    """Drop flows with fewer packets; default: as the set says, 10 for parquet, 1 for cesnet_quic."""
    min_flows: int | None = None
    """Drop classes with fewer flows; default: as the set says, 10 for parquet, 500 (200 if small) for cesnet_quic."""
    days: int | None = None
    """Days to read of a set organised by day, earliest first; default: as the set says, 1 for cesnet_quic."""
    real: bool = False
    """Refuse to run on a simulated stand-in."""
    fold: int = 0
    """Which of the ten folds is the test set."""
    seed: int = 0
    """Seed of folds, parameters, noise and judges."""
    preset: str | None = None
    """Named configuration: thesis (as published), small or tiny (CPU); default: tiny on CPU, else thesis."""
    scaling: str | None = None
    """Scale of packet sizes: quantile or linear."""
    prediction: str | None = None
    """What the network predicts: epsilon or v."""
    clip_x0: bool = True
    """Clip the estimate of the clean series while sampling; without it early steps can overshoot 2000-fold."""
    guidance: float | None = None
    """Weight of classifier-free guidance; 1 is off, others need --class-dropout."""
    class_dropout: float | None = None
    """Probability of hiding the label in training."""
    epochs: int | None = None
    """Passes over the training flows."""
    steps: int | None = None
    """Optimiser steps; overrides --epochs."""
    batch_size: int | None = None
    """Flows per step over all devices."""
    learning_rate: float | None = None
    """Peak learning rate."""
    ema: float | None = None
    """Decay of the moving average of the parameters that sampling uses; 0 is none."""
    precision: str | None = None
    """Precision of matrix products: float32 or bfloat16."""
    num_samples: int | None = None
    """Flows to generate, labels drawn from the training shares; default: one for each training flow."""
    tune: bool = False
    """Search the parameters of XGBoost (30 Optuna trials) instead of the fixed ones."""
    devices: int | None = None
    """Use only the first so many devices."""
    mesh: str | None = None
    """Device mesh, such as data=4,channel=2; default: all devices on data."""
    out: Path | None = None
    """Run folder; default: runs/<experiment>-<dataset>-<time>."""
    resume: bool = False
    """Go on with an interrupted run folder, bit for bit as if it had not been interrupted."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to run as one of several processes."""
    num_processes: int | None = None
    """How many processes take part."""
    process_id: int | None = None
    """Number of this process, from 0."""


def generator_config(options: Options) -> generate.GeneratorConfig:
    """The preset with the options of the command line laid over it."""
    name = options.preset or ("tiny" if jax.default_backend() == "cpu" else "thesis")
    config = generate.preset(name)

    def over(part: Any, *names: str) -> Any:
        given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
        return dataclasses.replace(part, **given)

    train = over(config.train, "epochs", "steps", "batch_size", "learning_rate", "ema", "class_dropout")
    if options.epochs is not None and options.steps is None:
        train = dataclasses.replace(train, steps=None)
    return dataclasses.replace(
        config,
        diffusion=over(config.diffusion, "scaling", "prediction", "clip_x0", "guidance"),
        denoiser=over(config.denoiser, "precision"),
        train=train,
    ).check()


def run_ddpm(options: Options, console: Console, *, experiment: str = "ddpm_s4") -> None:
    """Trains, samples and judges a DDPMS4; writes the run folder of DESIGN.md."""
    parallel.start_processes(options.coordinator, options.num_processes, options.process_id)
    main = parallel.is_main()
    mesh = parallel.make_mesh(options.mesh, devices=options.devices)
    config = generator_config(options)
    if options.out is None and (options.resume or options.coordinator):
        raise ConfigError("--resume and --coordinator need --out, the run folder that is meant")
    if options.num_samples is not None and options.num_samples < 2:
        raise ConfigError(f"--num-samples must be at least 2, got {options.num_samples}")
    flows, dropped = datasets.load_with_counts(
        options.dataset,
        data_root=options.data_root,
        path=options.path,
        tier=options.tier,
        max_flows=options.max_flows,
        seed=options.seed,
        group=options.group,
        real=options.real,
        curated=options.curation,
        min_packets=options.min_packets,
        min_flows=options.min_flows,
        days=options.days,
    )
    parts = datasets.split(flows, fold=options.fold, seed=options.seed)
    notice = datasets.stand_in_notice(options.dataset) if datasets.is_stand_in(options.dataset, flows) else ""
    if main:
        console.print(_data_line(flows, parts), highlight=False)
    card = generate.DataCard.of(parts.train)
    generator = generate.Generator(config, card, scaling.fit(config.diffusion.scaling, parts.train.signed_size))
    folder = options.out or Path("runs") / f"{experiment}-{flows.name}-{datetime.now():%Y%m%d-%H%M%S}"
    described = {
        "experiment": experiment,
        "seed": options.seed,
        "generator": dataclasses.asdict(config),
        "card": dataclasses.asdict(card),
        "data": _describe_data(options, flows, parts, dropped, notice),
        "num_samples": options.num_samples,
        "tune": options.tune,
    }
    if main and not _open_folder(folder, described, resume=options.resume):
        console.print(f"{folder} is complete: see {folder / 'report.html'}", highlight=False)
        return
    if main:
        scaling.save(generator.scale, folder / "scaling.npz")
    key = jax.random.key(options.seed)
    total = total_steps(config.train, len(parts.train))
    with ProgressReport(console, "training", total, enabled=main) as progress:
        generator.fit(
            parts.train,
            key=prng.stream(key, "train"),
            mesh=mesh,
            folder=folder,
            resume=options.resume,
            report=lambda line: progress.update(line["step"], loss=line["loss"], **{"flows/s": line["flows_per_s"]}),
        )
    if options.num_samples is None:
        labels = np.asarray(parts.train.label)
    else:
        labels = generator.draw_labels(options.num_samples, seed=options.seed)
    clock = time.perf_counter()
    with ProgressReport(console, "sampling", len(labels), enabled=main) as progress:
        synthetic = generator.sample(prng.stream(key, "sample"), labels, mesh=mesh, report=progress.update)
    sampling_seconds = time.perf_counter() - clock
    if not main:
        return
    datasets.write_parquet(synthetic, folder / "samples.parquet", iat=False)
    console.print("judging: XGBoost on real, generated and reference flows")
    judgements = _judge(options, parts, synthetic) | _timing(folder, len(labels), sampling_seconds)
    report.write_report(
        folder,
        real_signed=np.asarray(parts.train.signed_size),
        real_label=np.asarray(parts.train.label),
        synthetic_signed=np.asarray(synthetic.signed_size),
        synthetic_label=labels,
        class_names=flows.class_names,
        judgements=judgements,
        config=_shown(json.loads((folder / "config.json").read_text()), generator),
    )
    console.print(report.judgement_table(judgements))
    console.print(f"report: {folder / 'report.html'}", highlight=False, soft_wrap=True)


def _data_line(flows: PacketSeries, parts: datasets.Split) -> str:
    return (
        f"{flows.name} ({flows.source}): {len(flows):,} flows of {len(flows.class_names)} classes; "
        f"train {len(parts.train):,}, validation {len(parts.validation):,}, test {len(parts.test):,}"
    )


def _describe_data(
    options: Options, flows: PacketSeries, parts: datasets.Split, dropped: list[datasets.Dropped], notice: str
) -> dict[str, Any]:
    return {
        "name": flows.name,
        "source": flows.source,
        "size_layer": flows.size_layer,
        "tier": options.tier,
        "fold": options.fold,
        "group": options.group or ("capture" if flows.group is not None else None),
        "max_flows": options.max_flows,
        "n_flows": len(flows),
        "n_train": len(parts.train),
        "n_validation": len(parts.validation),
        "n_test": len(parts.test),
        "class_names": list(flows.class_names),
        "class_counts": [int(count) for count in flows.counts()],
        "dropped": [dataclasses.asdict(entry) for entry in dropped],
        "notice": notice,
    }


def _open_folder(folder: Path, described: dict[str, Any], *, resume: bool) -> bool:
    """Creates the run folder with config.json, or checks that it belongs to this run; False where it is complete."""
    path = folder / "config.json"
    described = json.loads(json.dumps(described))
    if path.exists():
        if not resume:
            raise ConfigError(f"{folder} holds a run already; add --resume to go on with it, or choose another --out")
        try:
            stored = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"{path} is not readable JSON ({error}); choose another --out") from error
        for name, value in described.items():
            if stored.get(name) != value:
                raise ConfigError(
                    f"--resume: {path} was written with other options ({_difference(name, stored.get(name), value)})"
                )
        return not (folder / "report.json").exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not resume:
            raise ConfigError(f"{folder} is not empty; choose another --out")
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(described | _environment(), indent=2))
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror or error}; choose another") from error
    return True


def _difference(name: str, stored: Any, wanted: Any) -> str:
    """The first place where two nested values differ, as a phrase."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in wanted:
            if stored.get(key) != wanted[key]:
                return _difference(f"{name}.{key}", stored.get(key), wanted[key])
    return f"{name}: {str(stored)[:60]} there, {str(wanted)[:60]} now"


def _environment() -> dict[str, Any]:
    packages = ("jaxtraffic", "jax", "flax", "optax", "orbax-checkpoint", "numpy", "polars", "xgboost")
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    device = jax.devices()[0]
    return {
        "command": shlex.join(["python", *sys.argv]),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "git_revision": git.stdout.strip() or None,
    }


def _shown(config: dict[str, Any], generator: generate.Generator) -> dict[str, Any]:
    """config.json with the cards that the report shows beside it: model, training, device in words."""
    stored, device = config["generator"], config["device"]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(generator.params))
    return config | {
        "model": {"title": "DDPMS4", "parameters": parameters, **stored["denoiser"], **stored["diffusion"]},
        "training": stored["train"],
        "device": f"{device['count']} x {device['kind']}",
    }


def _judge(options: Options, parts: datasets.Split, synthetic: PacketSeries) -> dict[str, Any]:
    labels = np.asarray(synthetic.label)
    references = {
        "bootstrap": evaluate.bootstrap(parts.train, labels, seed=options.seed),
        "marginals": generate.marginals(parts.train, labels, seed=options.seed),
    }
    params = evaluate.tune(parts.train, parts.validation, seed=options.seed) if options.tune else None
    held_out = concatenate([parts.validation, parts.test])
    used = evaluate.XGBOOST_PARAMETERS | (params or {})
    return evaluate.judge(
        parts.train, held_out, parts.test, synthetic, references=references, seed=options.seed, params=params
    ) | {f"judge.xgboost.{name}": value for name, value in used.items()}


def _timing(folder: Path, n_samples: int, sampling_seconds: float) -> dict[str, float]:
    """Training rate: median over chunks, without compilation; sampling rate: the whole run, compilation included."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "timing.train_flows_per_s": float(np.median([line["flows_per_s"] for line in lines])),
        "timing.train_seconds": sum(line["seconds"] for line in lines),
        "timing.train_compile_seconds": lines[-1]["compile_seconds"],
        "timing.sample_flows_per_s": n_samples / sampling_seconds,
        "timing.sample_seconds": sampling_seconds,
    }
