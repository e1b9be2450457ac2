"""Which augmentations help a classifier? The four studies of PAM'24 on any data set, as one command.

    python experiments/augment_benchmark.py --study g1 --dataset iot_sentinel --data-root DIR --group capture

g1  all 18 augmentations with Inject n = 1 against no augmentation: gain of weighted F1 with 95 % interval, ranks,
    Friedman test, critical distance; fixed against random magnitude.
g2  batching policies (Replace, Inject, Pre-augment) and the class-weighted sampler with one augmentation.
g3  geometry of the latent space: where the nearest training flows of a test flow come from.
g4  combinations of the best three.
all g1, and the others with what g1 found best.

Claim (PAM'24, 80 splits of MIRAGE-19): Translation +4.40, Wrap +4.11, Permutation +3.67 points of weighted F1; only
Horizontal Flip hurts (-0.71).

Writes a run folder with report.html; --resume goes on after a kill. Runs on a simulated stand-in where the real data
is absent, and says so. The preset paper is as published (ResNet, batches of 1,024, at most 500 epochs) and meant for an
accelerator; small (30 epochs, batches of 128) takes about 10 seconds a run and 3,000 flows on 2 CPU cores, so g1 with
10 folds and without --magnitude half an hour; tiny (an MLP, 6 epochs) shows in a minute or two that all works.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path

import numpy as np
from campaign_configs import BEST_OF_PAPER, CONTROL, PAPER, PRESETS, best_of, check_names, g1, g2, g3, g4
from data_options import DataOptions, describe_data, load
from latent_geometry import latent_spaces
from rich.console import Console

from jaxtraffic import classify, parallel
from jaxtraffic.classify import ClassifierConfig, RunResult
from jaxtraffic.classify.folds import check_flows
from jaxtraffic.command import command_line
from jaxtraffic.command.run_folder import environment, open_folder
from jaxtraffic.errors import ConfigError
from jaxtraffic.report.campaign_pages import write_campaign
from jaxtraffic.report.campaign_results import Study
from jaxtraffic.report.campaign_studies import summarise
from jaxtraffic.report.campaign_tables import campaign_tables
from jaxtraffic.series import PacketSeries
from jaxtraffic.train import ProgressReport

STUDIES = ("g1", "g2", "g3", "g4", "all")


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """Command line. What is left out comes from the preset."""

    seed: int = 0
    """Seed of the draw of --max-flows; runs have --seeds, and folds are dealt by their numbers."""
    fold: int = 0
    """First fold."""
    study: str = "g1"
    """g1, g2, g3, g4 or all."""
    folds: int = 10
    """How many folds; beyond --n-folds the flows are dealt anew (the paper has 80)."""
    n_folds: int = 10
    """Parts of a split: one is the test set, one the validation set."""
    seeds: int = 1
    """Runs of each configuration on each fold."""
    augmentations: tuple[str, ...] = PAPER
    """Augmentations of g1; default: the 18 of the paper."""
    magnitude: bool = False
    """Run g1 also with alpha = 0.5 for augmentations that have a magnitude, which doubles its cost."""
    best: tuple[str, ...] = ()
    """What g2 (the first), g3 (all) and g4 (all) look at; default: the best of g1 in this run, else of the paper."""
    preset: str | None = None
    """paper, small or tiny; default: small on CPU, else paper."""
    model: str | None = None
    """Network: resnet, resnet2x, mlp or s4."""
    packets: int = 20
    """Packets of a flow that the network sees."""
    max_train: int | None = None
    """Keep at most so many training flows of each fold; validation and test flows stay whole."""
    epochs: int | None = None
    """Epochs at most."""
    batch_size: int | None = None
    """Flows that a step sees, copies included."""
    patience: int | None = None
    """Epochs without improvement before a run stops."""
    min_improvement: float | None = None
    """What counts as improvement of the validation accuracy; the paper has 0.02."""
    improvement_unit: str | None = None
    """Unit of --min-improvement: points (default) or fraction; the paper does not say."""
    learning_rate: float | None = None
    """Peak learning rate."""
    schedule: str | None = None
    """cosine, infinite_cosine or constant."""
    slots: int | None = None
    """Runs side by side; default: one a device on CPU, as many as memory holds on accelerators."""
    devices: int | None = None
    """Use only the first so many devices."""
    out: Path | None = None
    """Run folder; default: runs/augment_benchmark-<dataset>-<time>."""
    resume: bool = False
    """Go on with an interrupted run folder."""


def run(options: Options, console: Console) -> None:
    """Runs the studies and writes the run folder."""
    base = base_config(options)
    mesh = parallel.make_mesh(devices=options.devices)
    if options.resume and options.out is None:
        raise ConfigError("--resume needs --out, the run folder that is meant")
    flows, dropped = load(options)
    check_flows(flows, options.n_folds, options.packets)
    console.print(
        f"{flows.name} ({flows.source}): {len(flows):,} flows of {len(flows.class_names)} classes; "
        f"{options.folds} folds, {options.seeds} seeds; {base.model}, at most {base.max_epochs} epochs, "
        f"{base.batch_size} flows a step",
        highlight=False,
    )
    folder = options.out or Path("runs") / f"augment_benchmark-{flows.name}-{datetime.now():%Y%m%d-%H%M%S}"
    described = {
        "experiment": "augment_benchmark",
        "study": options.study,
        "data": describe_data(options, flows, dropped),
        "folds": options.folds,
        "n_folds": options.n_folds,
        "seeds": options.seeds,
        "seed": options.seed,
        "augmentations": list(options.augmentations),
        "magnitude": options.magnitude,
        "best": list(options.best),
        "packets": options.packets,
        "max_train": options.max_train,
        "classifier": {name: value for name, value in dataclasses.asdict(base).items() if name != "augmentation"},
    }
    if not open_folder(folder, described, resume=options.resume):
        console.print(f"{folder} is complete: see {folder / 'report.html'}", highlight=False)
        return
    work = Work(options, flows, base, folder, mesh, console)
    latent = None
    if options.study in ("g1", "all"):
        work.run("g1", g1(base, options.augmentations, magnitude=options.magnitude))
    best = options.best or (work.best() if options.study == "all" else BEST_OF_PAPER)
    if options.study in ("g2", "all"):
        work.run("g2", g2(base, best[0]))
    if options.study in ("g3", "all"):
        latent = latent_spaces(work, g3(base, best))
    if options.study in ("g4", "all"):
        work.run("g4", g4(base, best))
    now = environment()
    results = [dataclasses.asdict(result) for result in work.results]
    study = Study.of(
        [result.config for result in work.results],
        members=best if options.study in ("g4", "all") else (),
        max_epochs=base.max_epochs,
        notes=notes_of(options, base),
    )
    path = write_campaign(
        folder,
        results=results,
        class_names=flows.class_names,
        class_counts=flows.counts(),
        study=study,
        latent=latent,
        config=described | now | {"device": f"{now['device']['count']} x {now['device']['kind']}"},
    )
    summary = summarise(results, flows.class_names, flows.counts(), study) if results else None
    for table in campaign_tables(summary, flows.name) if summary else ():
        console.print(table)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)


class Work:
    """The campaigns of a run folder, one a study, and what they found; a configuration runs once."""

    def __init__(
        self,
        options: Options,
        flows: PacketSeries,
        base: ClassifierConfig,
        folder: Path,
        mesh: object,
        console: Console,
    ):
        self.options, self.flows, self.base, self.folder, self.mesh = options, flows, base, folder, mesh
        self.console, self.results = console, []

    @property
    def folds(self) -> range:
        """Numbers of the folds."""
        return range(self.options.fold, self.options.fold + self.options.folds)

    def run(self, study: str, configs: list[ClassifierConfig], **changes: object) -> list[RunResult]:
        """Runs the configurations that no earlier study had, in the folder's subfolder `study`."""
        known = {result.config for result in self.results} if not changes.get("keep_models") else set()
        configs = [config for config in configs if config.name not in known]
        settings = {"folds": self.folds, "seeds": range(self.options.seeds)} | changes
        total = len(configs) * len(settings["folds"]) * len(settings["seeds"])
        with ProgressReport(self.console, f"{study}: runs", total) as progress:
            found = classify.campaign(
                self.flows,
                configs,
                n_folds=self.options.n_folds,
                length=self.options.packets,
                max_train=self.options.max_train,
                slots=self.options.slots,
                folder=self.folder / study,
                resume=self.options.resume,
                mesh=self.mesh,
                report=progress.update,
                **settings,
            )
        if not changes.get("keep_models"):
            self.results += found
        return found

    def best(self) -> tuple[str, ...]:
        """The three augmentations of g1 that gain most."""
        mean = {
            name: np.mean([result.weighted_f1 for result in self.results if result.config == name])
            for name in self.options.augmentations
        }
        return best_of(mean)


def base_config(options: Options) -> ClassifierConfig:
    """The baseline's configuration: the preset with the options of the command line over it; checks all names."""
    if options.study not in STUDIES:
        raise ConfigError(f"unknown study {options.study!r}; choose from {', '.join(STUDIES)}")
    name = options.preset or ("small" if parallel.make_mesh().devices.flat[0].platform == "cpu" else "paper")
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    if options.folds < 1 or options.seeds < 1:
        raise ConfigError(f"--folds and --seeds must be at least 1, got {options.folds} and {options.seeds}")
    check_names([*options.augmentations, *options.best])
    if len(set(options.augmentations)) < len(options.augmentations) or not options.augmentations:
        raise ConfigError("--augmentations takes at least one name, and each once")
    over = {
        "model": options.model,
        "max_epochs": options.epochs,
        "batch_size": options.batch_size,
        "patience": options.patience,
        "min_improvement": options.min_improvement,
        "improvement_unit": options.improvement_unit,
        "learning_rate": options.learning_rate,
        "schedule": options.schedule,
    }
    return dataclasses.replace(PRESETS[name], **{k: v for k, v in over.items() if v is not None}).check()


def notes_of(options: Options, base: ClassifierConfig) -> tuple[str, ...]:
    """What differs from the paper, for the head of the page."""
    shown = {"model": "network", "max_epochs": "epochs at most", "batch_size": "flows a step"}
    reduced = [
        f"{what} {getattr(base, name)} (paper: {getattr(PRESETS['paper'], name)})"
        for name, what in shown.items()
        if getattr(base, name) != getattr(PRESETS["paper"], name)
    ]
    if options.max_train is not None:
        reduced.append(f"training flows of a fold: {options.max_train}")
    if options.folds < 80:
        reduced.append(f"folds: {options.folds} (paper: 80)")
    notes = [f"Reduced against the paper: {'; '.join(reduced)}."] if reduced else []
    if options.study in ("g1", "all"):
        notes.append(
            f"{CONTROL} trains without augmentation on half as many flows a step, so with as many steps as Inject "
            "n = 1; what it gains over the baseline is no merit of an augmentation."
        )
    return tuple(notes)


if __name__ == "__main__":
    command_line(Options, run, __doc__)
