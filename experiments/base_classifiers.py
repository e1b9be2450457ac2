"""How well do plain classifiers do? XGBoost with a search, ResNet and ResNet(2x): F1, size, train time (Table 8.8).

    python experiments/base_classifiers.py --dataset iot_sentinel --data-root DIR --group capture --folds 5 --seeds 3

writes a run folder with report.html: weighted and macro F1 (mean and standard deviation over folds and seeds), the size
of each model and the time to train it, beside the thesis' figures where the data set is the thesis'. All classifiers
see the same folds and the same packets: sizes with directions as in the thesis, with --view features inter-arrival
times too. --models also takes mlp and s4. Runs on a simulated stand-in where the real data is absent, and says so.
Cost for 6,000 flows on 2 CPU cores that others used too: 2 to 4 s for each fit of XGBoost (5 folds of 30 trials and 3
seeds: 165 fits), 2 s for an epoch of ResNet and 6 s for one of ResNet(2x), compilation included; --max-epochs,
--tune-trials, --folds and --seeds cut that. A killed run goes on with --resume.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from data_options import DataOptions, describe_data, load
from rich.console import Console

from jaxtraffic import classify, parallel
from jaxtraffic.classify.folds import check_flows
from jaxtraffic.classify.tree_runs import VIEWS, TreeRun, tree_campaign
from jaxtraffic.command import command_line
from jaxtraffic.command.run_folder import open_folder
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.evaluate.statistics import paired_difference
from jaxtraffic.nn.classifiers import CLASSIFIERS, make_classifier
from jaxtraffic.report import base_classifier_pages as pages
from jaxtraffic.report.base_classifier_results import Gap, published_for, summarise
from jaxtraffic.report.write import write_atomically
from jaxtraffic.series import PacketSeries
from jaxtraffic.train import ProgressReport

TREES = "xgboost"
PACKETS = 30
"""Packets of a flow in the thesis' chapter 8."""


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """Command line of the comparison."""

    fold: tyro.conf.Suppress[int] = 0
    """Not used here: `folds` says which."""
    group: str | None = None
    """Column of a parquet set whose values stay on one side of a fold, such as capture."""
    seed: int = 0
    """Seed of --max-flows; folds and classifiers have their own."""
    models: tuple[str, ...] = ("xgboost", "resnet", "resnet2x")
    """Classifiers: xgboost, resnet, resnet2x, mlp, s4."""
    folds: int = 5
    """How many folds are run, from the first."""
    seeds: int = 3
    """Seeds of each fold."""
    n_folds: int = 10
    """Parts that the flows are dealt into: one is the test set, one the validation set."""
    packets: int | None = None
    """First packets of a flow that classifiers see; default: 30, or all that the set has."""
    view: str = "signed_size"
    """signed_size (sizes with directions, as in the thesis) or features (inter-arrival times too)."""
    tune_trials: int = 30
    """Parameter sets that Optuna tries for XGBoost on each fold; 0: fixed parameters."""
    max_epochs: int = 500
    """Epochs of a network at most."""
    patience: int = 20
    """Epochs without improvement after which a network stops."""
    batch_size: int = 512
    """Flows of a training step."""
    schedule: str = "infinite_cosine"
    """Learning rate of networks: infinite_cosine (the thesis' choice, as 512 flows a step), cosine or constant."""
    devices: int | None = None
    """Use only the first so many devices (networks)."""
    out: Path | None = None
    """Run folder; default: runs/base-classifiers-<dataset>-<time>."""
    resume: bool = False
    """Go on with the run in --out."""


def run(options: Options, console: Console) -> None:
    """Trains all classifiers and writes the run folder."""
    configs = _configs(options)
    mesh = parallel.make_mesh(devices=options.devices)
    flows, dropped = load(options)
    length = min(PACKETS, flows.length) if options.packets is None else options.packets
    check_flows(flows, options.n_folds, length)
    folder = options.out or Path("runs") / f"base-classifiers-{flows.name}-{datetime.now():%Y%m%d-%H%M%S}"
    data = describe_data(options, flows, dropped) | {"dataset": options.dataset}
    del data["fold"]
    described = {
        "experiment": "base_classifiers",
        "seed": options.seed,
        "folds": list(range(options.folds)),
        "seeds": list(range(options.seeds)),
        "n_folds": options.n_folds,
        "packets": length,
        "view": options.view,
        "tune_trials": options.tune_trials,
        "models": {name: _described(name, configs, options) for name in options.models},
        "data": data,
    }
    if not open_folder(folder, described, resume=options.resume):
        console.print(f"{folder} is complete: {folder / 'report.html'}", highlight=False, soft_wrap=True)
        return
    config = json.loads((folder / "config.json").read_text())
    console.print(
        f"{flows.name} ({flows.source}): {len(flows):,} flows of {len(flows.class_names)} classes, {length} packets; "
        f"{options.folds} of {options.n_folds} folds, seeds: {options.seeds}; {', '.join(options.models)}",
        highlight=False,
        soft_wrap=True,
    )
    found: dict[str, list[dict[str, Any]]] = {}
    if TREES in options.models:
        with ProgressReport(console, TREES, options.folds * options.seeds) as progress:
            runs = run_trees(flows, options, length, folder / TREES, progress.update)
        found[TREES] = [dataclasses.asdict(one) for one in runs]
    if configs:
        with ProgressReport(console, "networks", len(configs) * options.folds * options.seeds) as progress:
            runs = classify.campaign(
                _seen(flows, options.view),
                configs,
                range(options.folds),
                range(options.seeds),
                n_folds=options.n_folds,
                length=length,
                folder=folder / "networks",
                resume=options.resume,
                mesh=mesh,
                report=progress.update,
            )
        for one in runs:
            size = n_parameters(one.config, len(flows.class_names), length)
            row = dataclasses.asdict(one) | {"model_size": size, "train_seconds": one.seconds}
            found.setdefault(one.config, []).append(row)
    results = [row for name in options.models for row in found[name]]
    gaps = leads(results)
    path = pages.write_base_classifiers(folder, results=results, gaps=gaps, config=config)
    summaries = summarise(results)
    console.print(pages.base_classifier_table(summaries, published_for(data)))
    console.print(pages.answer(summaries, gaps), highlight=False)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)


def run_trees(
    flows: PacketSeries, options: Options, length: int, folder: Path, report: Callable[..., None]
) -> list[TreeRun]:
    """XGBoost on all folds; each finished fold is a file in the folder, and is not run again."""
    runs: list[TreeRun] = []
    for fold in range(options.folds):
        path = folder / f"fold-{fold}.json"
        if path.exists():
            try:
                runs += [TreeRun(**one) for one in json.loads(path.read_text())]
            except (ValueError, TypeError) as error:
                raise DataError(path, f"not the runs of a fold ({error})", remedy="delete it") from error
            continue
        before = len(runs)
        new = tree_campaign(
            flows,
            [fold],
            range(options.seeds),
            n_folds=options.n_folds,
            length=length,
            tune_trials=options.tune_trials,
            view=options.view,
            report=lambda done, before=before, **figures: report(before + done, **figures),
        )
        write_atomically(path, json.dumps([dataclasses.asdict(one) for one in new]).encode())
        runs += new
    return runs


def leads(results: Sequence[dict[str, Any]]) -> list[Gap]:
    """Leads of the classifier with the best mean weighted F1 over each other one; none with fewer than two folds.

    Seeds of a fold are averaged first: they share the test flows, so that they are no independent blocks.
    """
    names, folds = (list(dict.fromkeys(run[key] for run in results)) for key in ("config", "fold"))
    if len(folds) < 2 or len(names) < 2:
        return []

    def by_fold(name: str, metric: str) -> np.ndarray:
        own = [run for run in results if run["config"] == name]
        return np.array([np.mean([run[metric] for run in own if run["fold"] == fold]) for fold in folds])

    best = max(names, key=lambda name: by_fold(name, "weighted_f1").mean())
    gaps = []
    for name in (name for name in names if name != best):
        for metric in ("weighted_f1", "macro_f1"):
            interval = paired_difference(by_fold(best, metric), by_fold(name, metric))
            gaps.append(Gap(best, name, metric, interval.mean, interval.low, interval.high, interval.n))
    return gaps


def n_parameters(model: str, n_classes: int, length: int) -> int:
    """Trainable parameters of a network."""
    params, _ = jax.eval_shape(make_classifier(model, n_classes, length).init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _configs(options: Options) -> list[classify.ClassifierConfig]:
    """The networks to train, after a look at all options.

    Raises:
        ConfigError: an option that cannot be.
    """
    known = (TREES, *CLASSIFIERS)
    if not options.models or len(set(options.models)) < len(options.models):
        raise ConfigError("--models takes at least one classifier, and each once")
    for name in options.models:
        if name not in known:
            raise ConfigError(f"unknown classifier {name!r}; choose from {', '.join(known)}")
    for name, least in (("folds", 1), ("seeds", 1), ("n_folds", 3), ("packets", 1), ("tune_trials", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if options.view not in VIEWS:
        raise ConfigError(f"unknown --view {options.view!r}; choose from {', '.join(VIEWS)}")
    if options.resume and options.out is None:
        raise ConfigError("--resume needs --out, the folder of the run to go on with")
    return [
        classify.ClassifierConfig(
            name=name,
            model=name,
            max_epochs=options.max_epochs,
            patience=options.patience,
            batch_size=options.batch_size,
            schedule=options.schedule,
        ).check()
        for name in options.models
        if name != TREES
    ]


def _described(name: str, configs: Sequence[classify.ClassifierConfig], options: Options) -> dict[str, Any]:
    """What config.json says of a classifier."""
    if name == TREES:
        return {"search": f"{options.tune_trials} trials a fold" if options.tune_trials else "none"}
    (config,) = (one for one in configs if one.name == name)
    shown = ("batch_size", "max_epochs", "patience", "min_improvement", "improvement_unit", "learning_rate")
    return {key: getattr(config, key) for key in (*shown, "weight_decay", "schedule", "period")}


def _seen(flows: PacketSeries, view: str) -> PacketSeries:
    """The flows as networks see them: without inter-arrival times where trees have none either."""
    return flows if view == "features" else flows.replace(iat=np.zeros_like(flows.iat))


if __name__ == "__main__":
    command_line(Options, run, __doc__)
