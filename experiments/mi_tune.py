"""MI-TUNE: fine-tunes a generator on those of its own flows that tell most of their application, and says what changed.

Claim (Wang et al. 2025, of text and images): flows selected by the mutual information that sampling measures for free
make a better fine-tuning set than the model's flows as they come. Here every class is a prompt, and the same
fine-tuning on as many RANDOM flows stands beside it, so that a gain can be told from that of more training.

    python experiments/mi_tune.py --run runs/flow_s4-cesnet_quic          # a run with --class-dropout above 0
    python experiments/mi_tune.py --process flow --max-flows 5000         # trains a small generator first

What the first trials found (simulated stand-in, 16 classes, 300 test flows, one rectified flow after 500 steps whose
measured information is above H(label), 2 repeats each): selection moved what it selects on, packets a flow and the
measured information, and in none of three settings could its utility be told from that of random flows (weighted F1
-0.001 +- 0.026 keeping 25 of 50 flows a class for one round, -0.003 +- 0.026 keeping 6 of 24 for two, -0.052 +- 0.047
the same at learning rate 5e-4). Tuning on own flows, selected or random, cost weighted F1 in all three: 0.05, 0.07 and
0.12 to 0.17. The defaults of learning rate and keep were chosen after these three, towards the least harm.

Cost: for each repeat and arm rounds x (classes x candidates) flows to sample, and a fine-tuning of minutes on 2 CPU
cores with the preset tiny.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mi_tune_judging as judging
import numpy as np
from data_options import DataOptions, data_line, describe_data, load
from generative_options import CLASS_DROPOUT, generator_config
from generative_options import Options as GenerativeOptions
from jax.sharding import Mesh
from rich.console import Console

from jaxtraffic import datasets, generate, parallel, prng, scaling
from jaxtraffic.command import command_line
from jaxtraffic.command.run_folder import environment, make_folder, write_config
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.generate import mi_tune
from jaxtraffic.nn.adapters import AdapterConfig, count_parameters, init_adapters
from jaxtraffic.report.mi_tune_pages import change_table, write_mi_tune
from jaxtraffic.series import PacketSeries, concatenate
from jaxtraffic.train import ProgressReport, TrainConfig, total_steps

LOSS_FLOWS, LOSS_DRAWS = 4096, 8
"""Held-out flows whose loss is measured, and draws of time and noise for each."""


@dataclasses.dataclass(frozen=True)
class Options(GenerativeOptions):
    """Command line. What is said of training (process, preset, steps, ...) is for runs without --run; with --run, tier,
    fold, max_flows and the seed of folds are the run's.
    """

    run: Path | None = None
    """Folder of a finished ddpm_s4 or flow_s4 run, trained with --class-dropout; default: train a generator first."""
    dataset: str | None = None
    """Data set, as in ddpm_s4.py; default: the run's, or cesnet_quic."""
    guidance: float | None = None
    """Weight of classifier-free guidance while candidates are drawn; default: the run's, or 1 (off)."""
    candidates: int = 50
    """Flows drawn of each class in each round."""
    keep: int = 25
    """Flows of each class that are kept for training."""
    rounds: int = 2
    """Rounds of drawing, keeping and training."""
    rank: str = "squared"
    """What the best candidates are: squared, squared_ascending, and for flow path_wise and product."""
    adapters: str = "dora"
    """Adapters: lora or dora."""
    adapter_rank: int = 32
    """Rank of the adapters."""
    alpha: float = 32.0
    """The change that adapters make is multiplied by alpha / rank."""
    tune_steps: int = 200
    """Steps of fine-tuning in each round."""
    tune_batch_size: int = 256
    """Flows per step of fine-tuning."""
    tune_learning_rate: float = 1e-4
    """Peak learning rate of fine-tuning; the published one."""
    repeats: int = 3
    """Tunings of each arm with other keys, so that the spread between tunings enters the standard errors."""


def run_mi_tune(options: Options, console: Console) -> None:
    """Tunes, judges and writes the run folder, which `generate.load_run` loads: the tuned generator of repeat 0."""
    tuning = tune_config(options)
    for name in ("resume", "coordinator", "reflow", "tune"):
        if getattr(options, name):
            raise ConfigError(f"--{name} is no option of mi_tune.py")
    if options.repeats < 1 or (options.num_samples is not None and options.num_samples < 20):
        raise ConfigError("--repeats must be at least 1, and --num-samples at least 20")
    mesh = parallel.make_mesh(options.mesh, devices=options.devices)
    stored = None if options.run is None else read_run(options.run)
    if stored is None:
        options = dataclasses.replace(options, dataset=options.dataset or DataOptions.dataset)
    else:
        options = like_run(options, stored)
    # The folds are those of the run; --seed is of what comes after.
    of_data = dataclasses.replace(options, seed=options.seed if stored is None else stored["seed"])
    flows, dropped = load(of_data)
    parts = datasets.split(flows, fold=of_data.fold, seed=of_data.seed)
    console.print(data_line(flows, parts), highlight=False)
    card, folder = generate.DataCard.of(parts.train), options.out
    if folder is None:
        folder = Path("runs") / f"mi_tune-{flows.name}-{datetime.now():%Y%m%d-%H%M%S}"
    key = jax.random.key(options.seed)
    if stored is None:
        config = generator_config(dataclasses.replace(options, guidance=None), "ddpm")
        if not config.train.class_dropout:
            train = dataclasses.replace(config.train, class_dropout=options.class_dropout or CLASS_DROPOUT)
            config = dataclasses.replace(config, train=train)
        scale = scaling.fit(config.diffusion.scaling, parts.train.signed_size, parts.train.label, len(card.class_names))
        base = generate.Generator(config, card, scale)
    else:
        base = generate.load_run(options.run)
        check_same_flows(options.run, stored, base.card, card)
        given = {name: getattr(options, name) for name in ("solver", "sampling_steps", "eta", "churn")}
        base = base.with_sampling(**{name: value for name, value in given.items() if value is not None})
    # Before anything is trained or written: do the settings fit the model?
    like = base.params if base.params is not None else jax.eval_shape(base.init, key)
    adapters = jax.eval_shape(lambda key: init_adapters(key, like, tuning.adapters), key)
    if not base.config.train.class_dropout:
        raise ConfigError(f"{options.run} was trained without --class-dropout, so it cannot measure information")
    base.measure(tuning.rank if tuning.rank in ("path_wise", "product") else "squared")
    make_folder(folder)
    described = {
        "experiment": "mi_tune",
        "seed": options.seed,
        "run": None if options.run is None else str(options.run),
        "generator": dataclasses.asdict(base.config),
        "card": dataclasses.asdict(base.card),
        "data": describe_data(options, flows, dropped, **vars(parts)),
        "tuning": dataclasses.asdict(tuning),
        "repeats": options.repeats,
        "num_samples": options.num_samples,
    } | environment()
    if stored is None:
        train_base(base, parts.train, prng.stream(key, "train"), mesh, folder / "base", described, console)
    write_config(folder, described)

    labels = np.asarray(parts.train.label)
    if options.num_samples is not None:
        labels = base.draw_labels(options.num_samples, seed=options.seed)
    held_out = concatenate([parts.validation, parts.test])
    judge = judging.Judge.of(parts.train, held_out, parts.test, options.seed)
    loss = held_out_loss(base, held_out[:LOSS_FLOWS], prng.stream(key, "loss"))
    clock = time.perf_counter()

    def judged(params: Any, what: str) -> judging.Judged:
        # The same key and labels for every set, so that differences are paired; the same program, so that it is
        # compiled once.
        with mi_tune.holding(base, params), ProgressReport(console, f"sampling: {what}", len(labels)) as progress:
            made, measured = base.sample_with_information(
                prng.stream(key, "sample"), labels, mesh=mesh, report=progress.update, packets=False
            )
        return judging.judge_set(judge, made, measured["mi"], np.asarray(loss(params)))

    found = agreements(base, tuning, prng.stream(key, "tune"), mesh, console)
    before = judged(base.params, "before")
    arms: dict[str, list[judging.Judged]] = {"tuned": [], "random": []}
    for repeat in range(options.repeats):
        for arm, rank in (("tuned", tuning.rank), ("random", "random")):
            own = prng.at_step(prng.stream(key, "tune"), repeat)
            what = f"{arm}, repeat {repeat + 1} of {options.repeats}"
            with ProgressReport(console, f"tuning: {what}", tuning.rounds) as progress:
                made, history = mi_tune.tune_with_information(
                    base,
                    own,
                    dataclasses.replace(tuning, rank=rank),
                    mesh=mesh,
                    report=lambda number, doing, shown=progress: shown.update(number),
                )
                progress.update(tuning.rounds)
            arms[arm].append(judged(made.params, what))
            if repeat == 0:
                found |= judging.rounds_of(arm, history)
                if arm == "tuned":
                    mi_tune.save_tuned(folder, made)
                    datasets.write_parquet(arms[arm][0].flows, folder / "samples.parquet", iat=False)
    trained, whole = count_parameters(adapters), count_parameters(like)
    found |= judging.figures_of(judge, before, arms, base.card.class_names)
    found |= {"adapters.parameters": trained, "adapters.share": trained / whole, "model.parameters": whole}
    found |= {
        "data.n_train": len(parts.train),
        "data.n_held_out": len(held_out),
        "data.n_test": len(parts.test),
        "data.n_synthetic": len(labels),
        "data.n_classes": len(base.card.class_names),
        "tuning.repeats": options.repeats,
        "timing.tune_and_judge_seconds": time.perf_counter() - clock,
    }
    write_mi_tune(folder, found, described | {"model_title": base.title})
    console.print(change_table(found))
    console.print(f"report: {folder / 'report.html'}", highlight=False, soft_wrap=True)


def tune_config(options: Options) -> mi_tune.TuneConfig:
    """The options of tuning as a configuration."""
    if options.rank == "random":
        raise ConfigError("--rank random is the control, which runs anyway")
    return mi_tune.TuneConfig(
        candidates=options.candidates,
        keep=options.keep,
        rounds=options.rounds,
        rank=options.rank,
        guidance=options.guidance,
        adapters=AdapterConfig(options.adapters, options.adapter_rank, options.alpha),
        train=TrainConfig(
            steps=options.tune_steps,
            batch_size=options.tune_batch_size,
            learning_rate=options.tune_learning_rate,
            weight_decay=0.0,
        ),
    ).check()


def read_run(folder: Path) -> dict[str, Any]:
    """config.json of a finished generative run."""
    try:
        stored = json.loads((folder / "config.json").read_text())
        _ = stored["generator"], stored["card"], stored["data"]["name"], stored["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            folder, f"not a run folder ({error})", expected="config.json of ddpm_s4.py or flow_s4.py"
        ) from error
    return stored


def like_run(options: Options, stored: dict[str, Any]) -> Options:
    """The options with what the run's config.json says about its flows."""
    data = stored["data"]
    kept = {name: data[name] for name in ("tier", "fold", "max_flows") if name in data}
    return dataclasses.replace(options, dataset=options.dataset or data["name"], **kept)


def check_same_flows(folder: Path, stored: dict[str, Any], trained: generate.DataCard, card: generate.DataCard) -> None:
    """Refuses flows that are not those of the run: a fold of other flows would judge with what it trained on."""
    for name in ("class_names", "class_counts", "length", "size_layer"):
        if getattr(trained, name) != getattr(card, name):
            raise ConfigError(
                f"the training flows are not those of {folder}: {name} differs; give the options of data that it was "
                f"made with: {stored.get('command', 'see its config.json')}"
            )


def agreements(
    base: generate.Generator, tuning: mi_tune.TuneConfig, key: jax.Array, mesh: Mesh, console: Console
) -> dict[str, float]:
    """How far the forms agree about the first candidates; only a flow without noise of its own has more than one."""
    if base.config.diffusion.process != "flow":
        return {}
    console.print("measuring all forms on the first candidates", highlight=False)
    forms = ("squared", "path_wise", "product")
    first = mi_tune.candidates_key(prng.at_step(key, 0), 0)
    drawn = mi_tune.draw_candidates(base, first, tuning, forms=forms, mesh=mesh)
    found = {f"candidates.spearman.{name}": value for name, value in judging.agreement(drawn).items()}
    return found | {"candidates.n": len(drawn.flows), "candidates.per_class": tuning.candidates}


def held_out_loss(base: generate.Generator, flows: PacketSeries, key: jax.Array) -> Callable[[Any], jax.Array]:
    """Params -> training loss [flow] on real flows; mean over draws of time and noise that are the same every time."""
    batch = {"signed_size": np.asarray(flows.signed_size), "label": np.asarray(flows.label)}

    @jax.jit
    def loss(params: Any) -> jax.Array:
        draws = jnp.arange(LOSS_DRAWS)
        return jax.lax.map(lambda i: base.loss(params, batch, prng.at_step(key, i)), draws).mean(0)

    return loss


def train_base(
    base: generate.Generator,
    flows: PacketSeries,
    key: jax.Array,
    mesh: Mesh,
    folder: Path,
    described: dict[str, Any],
    console: Console,
) -> None:
    """Trains the generator in a run folder of its own, which `generate.load_run` loads."""
    folder.mkdir(parents=True)
    shared = {name: value for name, value in described.items() if name not in ("tuning", "repeats", "run")}
    write_config(folder, shared | {"experiment": "mi_tune, before tuning"})
    scaling.save(base.scale, folder / "scaling.npz")
    with ProgressReport(console, "training", total_steps(base.config.train, len(flows))) as progress:
        base.fit(
            flows,
            key=key,
            mesh=mesh,
            folder=folder,
            report=lambda line: progress.update(line["step"], loss=line["loss"], **{"flows/s": line["flows_per_s"]}),
        )


if __name__ == "__main__":
    command_line(Options, run_mi_tune, __doc__)
