"""Do generated flows help a classifier more than Translate does? Real and added flows in every proportion.

    python experiments/token_augmentation.py --dataset iot_sentinel --data-root DIR --group capture --train-share 0.1

trains the token generator on the training flows of each fold with each seed, samples it at several temperatures, and
trains classifiers on real and added flows together: 0.25 to 4 added flows for each real one, with the labels of the
training flows or, with --balance, also evenly over the classes. Beside generated flows stand the hand-crafted Translate
(PAM'24's best augmentation), marginals, a bootstrap copy (more of the same: what weighing the flows anew gives), and no
augmentation. Trees get all added flows at once (Pre-augment); networks train for equally many steps whatever is added,
and meet an added flow once as long as there are enough (Inject).

The best of many cells on the test flows is a lucky one. So each method also has its cell chosen on the validation flows
of each fold, by the metric that is then reported for the test flows: that row is the answer.

Few flows leave most to gain: --train-share 0.1 keeps a tenth of the training flows of each class, another tenth with
each seed. Writes a run folder with results.jsonl, tables.md and report.html; --resume goes on after a kill. Runs on a
simulated stand-in where the real data is absent, and says so. Cost of a unit (fold and seed) of 500 training flows with
the defaults: about 3.5 minutes of one core, 2 of them for the MLP.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import token_s4
import tyro
from data_options import DataOptions, describe_data, load
from rich.console import Console
from token_augmentation_gains import BASELINE, cells_of, choices_of
from token_augmentation_sets import (
    BALANCED,
    METHODS,
    NONE,
    TOKENS,
    TRAINING,
    Added,
    Pools,
    network_parts,
    share_of,
    tree_parts,
)

from jaxtraffic import datasets, evaluate, parallel, prng
from jaxtraffic.classify.scores import f1_scores
from jaxtraffic.classify.single import BATCH_SIZE, n_steps
from jaxtraffic.command import command_line
from jaxtraffic.command.run_folder import open_folder
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.evaluate.downstream import NETWORKS, predict_with
from jaxtraffic.report import token_augmentation_pages as pages
from jaxtraffic.report.token_augmentation_results import answer
from jaxtraffic.report.write import write_atomically
from jaxtraffic.series import PacketSeries, concatenate
from jaxtraffic.train import ProgressReport

LEAST_STEPS = 2000
"""Steps of a network at least: after 400, as other judges take, added flows of any kind only cost (500 real flows)."""


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """Command line of the test."""

    fold: tyro.conf.Suppress[int] = 0
    """Not used here: `folds` says how many."""
    seed: int = 0
    """Seed of --max-flows and of the folds."""
    folds: int = 5
    """How many folds are run, from the first."""
    n_folds: int = 10
    """Parts that the flows are dealt into: one is the test set, one the validation set."""
    seeds: int = 1
    """Seeds of each fold: of --train-share, generator, sampling and classifiers. More folds tell more than seeds."""
    train_share: float = 1.0
    """Keep this share of the training flows of each class, at least one; validation and test flows stay whole."""
    methods: tuple[str, ...] = (TOKENS, BASELINE, "marginals", "bootstrap")
    """What is added: token_s4, translation (always), wrap, gaussian_noise, marginals, bootstrap."""
    temperatures: tuple[float, ...] = (0.7, 0.85, 1.0, 1.15)
    """Of the token generator; 1 is the model."""
    ratios: tuple[float, ...] = (0.25, 0.5, 1, 2, 4)
    """Added flows for each real one."""
    balance: bool = False
    """Also try labels drawn evenly over the classes, which gives rare ones more flows; doubles the cells."""
    classifiers: tuple[str, ...] = ("xgboost", "mlp")
    """Models that are trained: xgboost, random_forest, naive_bayes, mlp, resnet."""
    repeats: int = 2
    """Networks trained for each cell, whose scores are averaged: on few flows, chance alone moves one by points."""
    steps: int | None = None
    """Steps of a network; default: 20 epochs of the real flows, between 2,000 and 10,000. A network that is stopped
    early fares worse with whatever is added, since it meets real flows less often."""
    trees: int | None = None
    """Rounds of XGBoost; default: 100, as all judges here."""
    pool: int = 10_000
    """Generated flows of a kind that networks draw from where trees need no more; then they see them again."""
    epochs: int | None = None
    """Epochs of the generator at most; default: as `TokenConfig` says, as for what follows."""
    fixed_epochs: int | None = None
    """Train the generator for so many epochs, without holding flows out to find the number."""
    patience: int | None = None
    """Epochs without a better likelihood of flows held out before the generator's training stops."""
    batch_size: int | None = None
    """Flows per step of the generator; fewer where an epoch would have less than 8 steps."""
    width: int | None = None
    """Channels of the generator's network."""
    blocks: int | None = None
    """Blocks of the generator's network."""
    devices: int | None = None
    """Use only the first so many devices."""
    out: Path | None = None
    """Run folder; default: runs/token-augmentation-<dataset>-<time>."""
    resume: bool = False
    """Go on with the run in --out."""


class Unit(NamedTuple):
    """One fold and seed."""

    fold: int
    seed: int


def run(options: Options, console: Console) -> None:
    """Trains and judges all cells, unit by unit, and writes the run folder."""
    _check(options)
    config = token_s4.token_config(
        token_s4.Options(
            **{name: getattr(options, name) for name in ("epochs", "patience", "batch_size", "width", "blocks")}
        )
    )
    mesh = parallel.make_mesh(devices=options.devices)
    flows, dropped = load(options)
    splits = [
        datasets.split(flows, fold=fold, seed=options.seed, n_folds=options.n_folds) for fold in range(options.folds)
    ]
    folder = options.out or Path("runs") / f"token-augmentation-{flows.name}-{datetime.now():%Y%m%d-%H%M%S}"
    data = describe_data(options, flows, dropped)
    del data["fold"]
    names = (
        "seed",
        "n_folds",
        "train_share",
        "temperatures",
        "ratios",
        "balance",
        "repeats",
        "steps",
        "trees",
        "pool",
        "fixed_epochs",
    )
    described = {
        "experiment": "token_augmentation",
        "folds": list(range(options.folds)),
        "seeds": list(range(options.seeds)),
        "methods": list(methods_of(options)),
        "classifiers": list(options.classifiers),
        "tokens": dataclasses.asdict(config),
        "data": data,
    } | {name: getattr(options, name) for name in names}
    if not open_folder(folder, described, resume=options.resume):
        console.print(f"{folder} is complete: {folder / 'report.html'}", highlight=False, soft_wrap=True)
        return
    n_train = len(share_of(splits[0].train, options.train_share, 0))
    console.print(
        f"{flows.name} ({flows.source}): {len(flows):,} flows of {len(flows.class_names)} classes; train {n_train:,}, "
        f"validation {len(splits[0].validation):,}, test {len(splits[0].test):,} in fold 0",
        highlight=False,
    )
    path = folder / "results.jsonl"
    results = read_results(path)
    units = [Unit(fold, seed) for fold in range(options.folds) for seed in range(options.seeds)]
    cells = sum(len(ratios_of(added, options)) for added in kinds_of(options)) * len(options.classifiers)
    try:
        with ProgressReport(console, "classifiers", cells * len(units)) as progress:
            for unit in units:
                parts = splits[unit.fold]
                train = share_of(parts.train, options.train_share, unit.seed)
                pools = Pools(
                    train,
                    prng.at_step(jax.random.key(unit.seed), unit.fold),
                    unit.seed,
                    folder / "units" / f"fold{unit.fold}-seed{unit.seed}",
                    config,
                    options.fixed_epochs,
                    mesh,
                )
                for line in run_unit(unit, pools, parts.validation, parts.test, options, results):
                    with path.open("a") as file:
                        file.write(json.dumps(line, allow_nan=False) + "\n")
                    results.append(line)
                    progress.update(len(results))
    except KeyboardInterrupt:
        console.print(f"stopped; --resume --out {folder} goes on after what is finished", highlight=False)
        raise
    stored = json.loads((folder / "config.json").read_text())
    found = cells_of(results), choices_of(results)
    page = pages.write_token_augmentation(folder, cells=found[0], choices=found[1], config=stored)
    console.print(pages.choice_table(found[1]))
    for sentence in answer(*found):
        console.print(sentence, highlight=False)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def run_unit(
    unit: Unit,
    pools: Pools,
    validation: PacketSeries,
    test: PacketSeries,
    options: Options,
    known: Sequence[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Trains the classifiers of one unit, all but those that are known, and yields a line of results for each."""
    train, held = pools.train, concatenate([validation, test])
    done = {_identity(line) for line in known}
    steps = options.steps or max(LEAST_STEPS, n_steps(len(train)))
    for added in kinds_of(options):
        head = unit._asdict() | added._asdict()
        cells = [
            {"classifier": classifier, "ratio": float(ratio)}
            for ratio in ratios_of(added, options)
            for classifier in options.classifiers
        ]
        cells = [cell for cell in cells if _identity(head | cell) not in done]
        if not cells:
            continue
        pool = pools.make(added, pool_size(added, len(train), steps * BATCH_SIZE, options))
        for cell in cells:
            clock, classifier, ratio = time.perf_counter(), cell["classifier"], cell["ratio"]
            network = classifier in NETWORKS
            params = {"steps": steps} if network else None
            if classifier == "xgboost" and options.trees is not None:
                params = {"n_estimators": options.trees}
            found = []
            for repeat in range(options.repeats if network else 1):
                seed = unit.seed * options.repeats + repeat
                if network:
                    sets = network_parts(train, pool, ratio, steps * BATCH_SIZE, seed)
                else:
                    sets = tree_parts(train, pool, ratio)
                answers = predict_with(classifier, sets, held, seed=seed, params=params)
                found.append(np.split(answers, [len(validation)]))
            sides = zip((validation, test), zip(*found, strict=True), strict=True)
            scored = [_mean_scores(np.asarray(side.label), answers) for side, answers in sides]
            yield (
                head
                | cell
                | {
                    "n_train": len(train),
                    "n_fitted": sum(map(len, sets)),
                    "validation": scored[0],
                    "test": scored[1],
                    "seconds": time.perf_counter() - clock,
                }
            )


def _mean_scores(label: np.ndarray, answers: Sequence[np.ndarray]) -> dict[str, float]:
    """Weighted and macro F1, each the mean over several answers [flow]."""
    scores = [f1_scores(label, one) for one in answers]
    return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}


def pool_size(added: Added, n_train: int, draws: int, options: Options) -> int:
    """Flows of a kind that a unit needs: for trees the largest set, for networks all that they draw.

    Networks draw generated flows again beyond --pool, for these cost most; all others are made as often as drawn.
    """
    most = max(options.ratios)
    trees = 0 if set(options.classifiers) <= set(NETWORKS) else math.ceil(most * n_train)
    networks = math.ceil(draws * most / (1 + most)) if set(options.classifiers) & set(NETWORKS) else 0
    if added.method == TOKENS:
        networks = min(networks, options.pool)
    return max(trees, networks, 1)


def methods_of(options: Options) -> tuple[str, ...]:
    """The methods of the command line, with Translate, for it is what the others are measured against."""
    return tuple(dict.fromkeys((*options.methods, BASELINE)))


def kinds_of(options: Options) -> list[Added]:
    """All kinds of added flows, none first."""
    kinds = [Added(NONE)]
    for labels in (TRAINING, BALANCED)[: 1 + options.balance]:
        for method in methods_of(options):
            temperatures = options.temperatures if method == TOKENS else (None,)
            kinds += [Added(method, temperature, labels) for temperature in temperatures]
    return kinds


def ratios_of(added: Added, options: Options) -> tuple[float, ...]:
    """The ratios that a kind is added in."""
    return (0.0,) if added.method == NONE else options.ratios


def read_results(path: Path) -> list[dict[str, Any]]:
    """The whole lines of results.jsonl; a last one that a kill cut short is removed from the file.

    Raises:
        DataError: a line that is no result.
    """
    if not path.exists():
        return []
    whole, _, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        write_atomically(path, whole + b"\n" if whole else b"")
    try:
        found = [json.loads(line) for line in whole.splitlines()]
        for line in found:
            _identity(line)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(path, f"not the results of this experiment ({error})", remedy="start a new --out") from error
    return found


def _identity(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("fold", "seed", "classifier", "method", "temperature", "labels", "ratio"))


def _check(options: Options) -> None:
    for name, values, choices in (
        ("methods", options.methods, METHODS),
        ("classifiers", options.classifiers, evaluate.DOWNSTREAM_MODELS),
    ):
        if not values or len(set(values)) < len(values) or not set(values) <= set(choices):
            raise ConfigError(f"--{name} takes some of {', '.join(choices)}, each once; got {', '.join(values)}")
    for name, values in (("temperatures", options.temperatures), ("ratios", options.ratios)):
        if not values or len(set(values)) < len(values) or not all(0 < value < math.inf for value in values):
            raise ConfigError(f"--{name} takes numbers above 0, each once; got {', '.join(map(str, values))}")
    for name, least in (
        ("folds", 1),
        ("seeds", 1),
        ("n_folds", 3),
        ("repeats", 1),
        ("steps", 1),
        ("trees", 1),
        ("pool", 1),
    ):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if options.folds > options.n_folds:
        raise ConfigError(f"--folds {options.folds} is more than the --n-folds {options.n_folds} that there are")
    if not 0 < options.train_share <= 1:
        raise ConfigError(f"--train-share must be above 0 and at most 1, got {options.train_share}")
    if options.resume and options.out is None:
        raise ConfigError("--resume needs --out, the folder of the run to go on with")


if __name__ == "__main__":
    command_line(Options, run, __doc__)
