"""Which generator is best, and by which measure? Models x data sets x folds x seeds, as Tables 8.10 to 8.14.

    python experiments/generative_benchmark.py --datasets iot_sentinel@capture --data-root DIR --preset small

trains the token model, DDPMS4 and rectified flow on the S4 backbone on each fold with each seed, draws one flow for
each training flow (--draws times), and judges them beside marginals, a bootstrap copy, the thesis' hand-crafted fakes
(Translate, Wrap, Gaussian) and fresh real flows: utility, augmentation, discriminative score, density and correlation,
alpha-precision and beta-recall. All at a glance, and tables as in the thesis with its rows in grey: mean and standard
deviation over folds, seeds and draws. A data set is NAME[:TIER][@COLUMN], such as cesnet_tls:50 or a parquet file of
the data root with the column that groups its flows.

    python experiments/generative_benchmark.py --train-seconds 300 --draws 3 ...

gives every trained model the same seconds of training on this machine: the pace of each is measured on the flows of the
unit, and its steps, or the epochs of a token model, which then holds no flows out, are fixed before it starts.

Claim (thesis, averages): DDPMS4 loses 2.09 points of weighted F1 (TabDDPM 5.35, ImagenTime 4.94), discriminative score
10.82 (24.27, 48.41; Translate 30.13), beta-recall 51.55 (real flows 52.10).

Writes a run folder with report.html and tables.md; --resume goes on after a kill, without making or judging anything
again. Runs on a simulated stand-in where the real data is absent, and says so. Cost of a unit (data set, fold, seed):
about 2 minutes for each trained model with the preset tiny and 25 with small on 2 CPU cores, and the judges, a minute
or two for 6,000 flows of 25 classes; --models marginals,bootstrap --folds 1 --seeds 1 shows that all works.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import generative_options
import tyro
from data_options import DataOptions, describe_data, load
from generative_benchmark_sets import MODELS, Made, Maker, generator_configs
from rich.console import Console

from jaxtraffic import datasets, evaluate, parallel
from jaxtraffic.command import command_line
from jaxtraffic.command.run_folder import open_folder
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.report import generative_benchmark_pages as pages
from jaxtraffic.report.write import write_atomically
from jaxtraffic.series import PacketSeries, concatenate


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """Command line of the benchmark."""

    dataset: tyro.conf.Suppress[str] = ""
    """Not used here: `datasets` says which."""
    fold: tyro.conf.Suppress[int] = 0
    """Not used here: `folds` says how many."""
    datasets: tuple[str, ...] = ("cesnet_quic",)
    """Data sets, NAME[:TIER][@COLUMN] each: tier of classes, column of a parquet set that groups flows."""
    models: tuple[str, ...] = MODELS
    """What to compare: token_s4, ddpm_s4, flow_s4, marginals, bootstrap, translation, wrap, gaussian_noise."""
    folds: int = 5
    """How many folds are run, from the first that is not skipped."""
    skip_folds: tuple[int, ...] = ()
    """Folds that are left out, such as those that choices were made on."""
    n_folds: int = 10
    """Parts that the flows are dealt into: one is the test set, one the validation set."""
    seeds: int = 3
    """Seeds of each fold: of training, sampling and judging."""
    draws: int = 1
    """Sets drawn from each trained model, and of the others."""
    train_seconds: tuple[float, ...] = ()
    """Seconds of training for each trained model, one number or one for each data set; default: as many steps or epochs
    as the models themselves say."""
    seed: int = 0
    """Seed of --max-flows and of the folds."""
    preset: str | None = None
    """Named configuration of ddpm_s4 and flow_s4: thesis, small or tiny; default: tiny on CPU, else thesis. The options
    up to --precision are theirs too."""
    scaling: str | None = None
    """Scale of packet sizes: quantile or linear."""
    epochs: int | None = None
    """Passes over the training flows."""
    steps: int | None = None
    """Optimiser steps; overrides --epochs."""
    batch_size: int | None = None
    """Flows per step over all devices."""
    learning_rate: float | None = None
    """Peak learning rate."""
    precision: str | None = None
    """Precision of matrix products: float32 or bfloat16."""
    token_epochs: int | None = None
    """The most epochs of token models."""
    trees: int | None = None
    """Trees of the judging XGBoost; default: 100. Fewer save time with many classes."""
    keep_checkpoints: bool = False
    """Keep checkpoints, with which generate.load_run opens ddpm_s4 and flow_s4, beside the flows."""
    devices: int | None = None
    """Use only the first so many devices."""
    out: Path | None = None
    """Run folder; default: runs/generative-benchmark-<time>."""
    resume: bool = False
    """Go on with the run in --out."""


class Unit(NamedTuple):
    """One data set, fold and seed."""

    dataset: str
    fold: int
    seed: int

    @property
    def folder(self) -> str:
        """Its folder's name."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', self.dataset)}-fold{self.fold}-seed{self.seed}"


def run(options: Options, console: Console) -> None:
    """Makes and judges all sets, unit by unit, and writes the run folder."""
    models = _names("--models", options.models)
    _check(options, models)
    configs = generator_configs(_of_generators(options), models, token_epochs=options.token_epochs)
    mesh = parallel.make_mesh(devices=options.devices)
    folds = _folds(options)
    sets: dict[str, PacketSeries] = {}
    described: dict[str, Any] = {}
    words = data_options(options)
    seconds = _seconds(options, words)
    for word, own in words.items():
        flows, dropped = load(own)
        # every fold once, so that one that cannot be is refused now and not after hours
        for fold in folds:
            datasets.split(flows, fold=fold, seed=options.seed, n_folds=options.n_folds)
        sets[word] = flows
        described[word] = describe_data(own, flows, dropped) | {"dataset": own.dataset}
        del described[word]["fold"]
        console.print(
            f"{word} ({flows.source}): {len(flows):,} flows of {len(flows.class_names)} classes", highlight=False
        )
    folder = options.out or Path("runs") / f"generative-benchmark-{datetime.now():%Y%m%d-%H%M%S}"
    config = {
        "experiment": "generative_benchmark",
        "seed": options.seed,
        "models": list(models),
        "folds": folds,
        "n_folds": options.n_folds,
        "seeds": list(range(options.seeds)),
        "draws": options.draws,
        "train_seconds": seconds,
        "trees": options.trees,
        "generators": {name: dataclasses.asdict(one) for name, one in configs.items()},
        "data": {
            "source": "simulated" if any(flows.source == "simulated" for flows in sets.values()) else "real",
            "name": ", ".join(sets),
            "sets": described,
        },
    }
    if not open_folder(folder, config, resume=options.resume):
        console.print(f"{folder} is complete: {folder / 'report.html'}", highlight=False, soft_wrap=True)
        return
    maker = Maker(configs, mesh, console, options.keep_checkpoints, options.draws)
    units = [Unit(word, fold, seed) for word in sets for fold in folds for seed in range(options.seeds)]
    results: list[dict[str, Any]] = []
    write_atomically(folder / "results.jsonl", b"")
    try:
        for number, unit in enumerate(units, start=1):
            place = folder / "units" / unit.folder
            lines = _finished(place)
            if lines is None:
                console.print(
                    f"unit {number} of {len(units)}: {unit.dataset}, fold {unit.fold}, seed {unit.seed}",
                    highlight=False,
                )
                lines = judge_unit(unit, sets[unit.dataset], maker, options, models, place, seconds.get(unit.dataset))
            with (folder / "results.jsonl").open("a") as file:
                file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            results += lines
    except KeyboardInterrupt:
        console.print(f"stopped; --resume --out {folder} goes on after what is finished", highlight=False)
        raise
    stored = json.loads((folder / "config.json").read_text())
    path = pages.write_generative_benchmark(folder, results=results, config=stored)
    for table in pages.benchmark_tables(results, stored):
        console.print(table)
    console.print(pages.answer(results, stored), highlight=False)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)


def judge_unit(
    unit: Unit,
    flows: PacketSeries,
    maker: Maker,
    options: Options,
    models: tuple[str, ...],
    place: Path,
    seconds: float | None = None,
) -> list[dict[str, Any]]:
    """Makes the sets of a unit, judges them together, and writes curves.json and, last, judgement.json.

    The draws of all models go through one judgement, since its real references cost as much as a set each.
    """
    parts = datasets.split(flows, fold=unit.fold, seed=options.seed, n_folds=options.n_folds)
    made: dict[str, tuple[str, int, Made]] = {}
    for model in models:
        draws = maker.make(model, parts.train, place / model, fold=unit.fold, seed=unit.seed, seconds=seconds)
        made |= {f"{model}#{draw}" if draw else model: (model, draw, one) for draw, one in enumerate(draws)}
    judged = evaluate.judge_sets(
        parts.train,
        concatenate([parts.validation, parts.test]),
        parts.test,
        {name: one.flows for name, (_, _, one) in made.items()},
        seed=unit.seed,
        params=None if options.trees is None else {"n_estimators": options.trees},
        mesh=maker.mesh,
    )
    lines = []
    for name, figures in judged.sets.items():
        model, draw, one = made.get(name, (name, 0, None))
        lines.append(
            {
                "dataset": unit.dataset,
                "fold": unit.fold,
                "seed": unit.seed,
                "set": model,
                "draw": draw,
                "data": pages.plain(judged.data),
                "cost": dict(one.cost) if one else {},
                "figures": pages.plain(figures),
            }
        )
    write_atomically(place / "curves.json", json.dumps(pages.plain(judged.curves), allow_nan=False).encode())
    write_atomically(place / "judgement.json", json.dumps(lines, allow_nan=False).encode())
    return lines


def _finished(place: Path) -> list[dict[str, Any]] | None:
    """The lines of a unit that was judged, or None."""
    path = place / "judgement.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DataError(path, f"not the judgement of a unit ({error})", remedy="delete it") from error


def data_options(options: Options) -> dict[str, DataOptions]:
    """The options of each data set, by the name that tables call it.

    Raises:
        ConfigError: a data set twice, or --path with several.
    """
    words = _names("--datasets", options.datasets)
    if options.path is not None and len(words) > 1:
        raise ConfigError("--path is one file or folder, so it goes with one data set")
    found: dict[str, DataOptions] = {}
    for word, (name, tier, group) in zip(words, map(_parsed, words), strict=True):
        one = name if tier is None else f"{name}:{tier}"
        if one in found:
            raise ConfigError(f"--datasets names {one} twice")
        shared = {field.name: getattr(options, field.name) for field in dataclasses.fields(DataOptions)}
        changes = {"dataset": name, "tier": tier or options.tier}
        # a column is for parquet sets only; others are grouped by their captures
        if group is None:
            group = options.group if name == "parquet" or name not in datasets.DATASETS else None
        if not name:
            raise ConfigError(f"--datasets takes NAME[:TIER][@COLUMN], got {word!r}")
        found[one] = DataOptions(**(shared | changes | {"group": group}))
    return found


def _seconds(options: Options, words: Iterable[str]) -> dict[str, float]:
    """Seconds of training for each data set; empty where models train as long as they say themselves."""
    words, given = tuple(words), options.train_seconds
    if not given:
        return {}
    if len(given) not in (1, len(words)) or not all(0 < one < math.inf for one in given):
        raise ConfigError(f"--train-seconds takes one number above 0, or one for each of the {len(words)} data sets")
    return dict(zip(words, given * len(words) if len(given) == 1 else given, strict=True))


def _folds(options: Options) -> list[int]:
    """Numbers of the folds that are run."""
    left = [fold for fold in range(options.n_folds) if fold not in options.skip_folds]
    if options.folds > len(left):
        raise ConfigError(f"--folds {options.folds} is more than the {len(left)} that --n-folds and --skip-folds leave")
    return left[: options.folds]


def _parsed(word: str) -> tuple[str, str | None, str | None]:
    """Name, tier and column of NAME[:TIER][@COLUMN]."""
    rest, _, group = word.partition("@")
    name, _, tier = rest.partition(":")
    return name, tier or None, group or None


def _names(option: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Names given in several words or in one with commas, each once."""
    names = tuple(_split(words))
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{option} takes at least one name, and each once")
    return names


def _split(words: tuple[str, ...]) -> Iterator[str]:
    for word in words:
        yield from (part for part in word.split(",") if part)


def _check(options: Options, models: tuple[str, ...]) -> None:
    for name in models:
        if name not in MODELS:
            raise ConfigError(f"unknown model {name!r}; choose from {', '.join(MODELS)}")
    for name, least in (("folds", 1), ("seeds", 1), ("draws", 1), ("n_folds", 3), ("trees", 1), ("token_epochs", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    fixed = [name for name in ("epochs", "steps", "token_epochs") if getattr(options, name) is not None]
    if options.train_seconds and fixed:
        raise ConfigError(f"--train-seconds decides on steps and epochs; leave --{fixed[0].replace('_', '-')} out")
    if options.resume and options.out is None:
        raise ConfigError("--resume needs --out, the folder of the run to go on with")


def _of_generators(options: Options) -> generative_options.Options:
    """The options of a single run that trains a generator."""
    names = ("preset", "scaling", "epochs", "steps", "batch_size", "learning_rate", "precision")
    return generative_options.Options(**{name: getattr(options, name) for name in names})


if __name__ == "__main__":
    command_line(Options, run, __doc__)
