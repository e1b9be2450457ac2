"""The sets that the benchmark of generators compares: trained models, resampled flows, hand-crafted fakes."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from token_progress import epochs_shown

from jaxtraffic import augment, datasets, evaluate, generate, prng, scaling
from jaxtraffic.command.run_folder import write_config
from jaxtraffic.errors import DataError
from jaxtraffic.evaluate.times import has_times
from jaxtraffic.generate import token_runs
from jaxtraffic.generate.masked_config import MaskedConfig
from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.nn import is_state_space
from jaxtraffic.report.write import write_atomically
from jaxtraffic.series import PacketSeries
from jaxtraffic.train import ProgressReport, steps_per_epoch, total_steps
from jaxtraffic.train.pace import steps_per_second

TOKENS = {"token_s4": TokenConfig, "masked_s4": MaskedConfig}
"""Models over tokens, which are trained in epochs, as many as flows held out ask for."""

PROCESSES = {"ddpm_s4": "ddpm", "flow_s4": "flow"}
"""Models over scaled sizes, and their processes."""

TRAINED = (*TOKENS, *PROCESSES)
RESAMPLED = ("marginals", "bootstrap")
HAND_CRAFTED = ("translation", "wrap", "gaussian_noise")
"""The thesis' Translate, Wrap and Gaussian."""

MODELS = (*TRAINED, *RESAMPLED, *HAND_CRAFTED)


class Made(NamedTuple):
    """One draw of flows, and what a trained model took: train_seconds, steps, epochs, and sample_seconds of this draw.

    Seconds are without compilation, and those of training without validation.
    """

    flows: PacketSeries
    cost: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes sets of a data set and keeps them on disk, each once.

    Attributes:
        configs: configuration of each trained model.
        mesh: devices.
        console: where progress is printed.
        keep_checkpoints: whether checkpoints stay on disk once the flows are there. A token model is small and stays.
        draws: sets made of each model.
    """

    configs: Mapping[str, Any]
    mesh: Mesh
    console: Console
    keep_checkpoints: bool
    draws: int = 1

    def make(
        self, model: str, train: PacketSeries, folder: Path, *, fold: int, seed: int, seconds: float | None = None
    ) -> tuple[Made, ...]:
        """The draws of a model, one flow for each training flow and with its label; read where the folder has them.

        Every set comes back from its file, so that one that was made before the run was killed is judged no otherwise.

        Args:
            model: name.
            train: training flows.
            folder: of this model; samples.parquet is draw 0, samples-K.parquet draw K, cost.json what they took.
            fold: of the unit.
            seed: of the unit.
            seconds: of training; None: as many steps or epochs as the configuration says.
        """
        cost, missing = folder / "cost.json", [k for k in range(self.draws) if not (folder / samples_of(k)).exists()]
        if missing:
            folder.mkdir(parents=True, exist_ok=True)
            key = prng.stream(prng.at_step(jax.random.key(seed), fold), model)
            spent: dict[str, Any] = _read(cost) if cost.exists() else {}
            if model in TRAINED:
                drawn = self._trained(model, train, folder, key, seed, seconds, missing, spent)
            else:
                drawn = ((k, resampled(model, train, key, seed=seed, draw=k)) for k in missing)
            for draw, flows in drawn:
                write_atomically(cost, json.dumps(spent).encode())
                datasets.write_parquet(flows.replace(group=None), folder / samples_of(draw), iat=has_times(flows))
        if not self.keep_checkpoints:
            for place in list(folder.rglob("checkpoints")):
                shutil.rmtree(place, ignore_errors=True)
        spent = _read(cost)
        sampled = spent.pop("sample_seconds", None)
        costs = [spent | ({"sample_seconds": sampled[str(draw)]} if sampled else {}) for draw in range(self.draws)]
        return tuple(Made(datasets.read_parquet(folder / samples_of(draw)), one) for draw, one in enumerate(costs))

    def _trained(
        self,
        model: str,
        train: PacketSeries,
        folder: Path,
        key: jax.Array,
        seed: int,
        seconds: float | None,
        missing: list[int],
        spent: dict[str, Any],
    ) -> Iterator[tuple[int, PacketSeries]]:
        """Trains, then samples the missing draws, noting in `spent` what that took."""
        fit = self._fit_tokens if model in TOKENS else self._fit_process
        generator = fit(model, train, folder, key, seed, seconds)
        logs = [
            [json.loads(line) for line in path.read_text().splitlines()]
            # epochs are found in a training of their own, which belongs to the price
            for path in [folder / "metrics.jsonl", *sorted(folder.glob("*/metrics.jsonl"))]
        ]
        spent["train_seconds"] = sum(line["seconds"] for log in logs for line in log)
        spent |= {"steps": logs[0][-1]["step"], "epochs": logs[0][-1]["epoch"]}
        labels, key = np.asarray(train.label), prng.stream(key, "sample")
        # all blocks are of one shape, so that a single flow compiles what all of them use
        generator.sample(key, labels[:1], mesh=self.mesh)
        for draw in missing:
            own = key if draw == 0 else prng.at_step(key, draw)
            clock = time.perf_counter()
            with ProgressReport(self.console, f"{model}: sampling, draw {draw}", len(train)) as progress:
                flows = generator.sample(own, labels, mesh=self.mesh, report=progress.update)
            spent["sample_seconds"] = spent.get("sample_seconds", {}) | {str(draw): time.perf_counter() - clock}
            yield draw, flows

    def _fit_process(
        self, model: str, train: PacketSeries, folder: Path, key: jax.Array, seed: int, seconds: float | None
    ) -> generate.Generator:
        config, card = self.configs[model], generate.DataCard.of(train)
        scale = scaling.fit(config.diffusion.scaling, train.signed_size, train.label, len(train.class_names))
        if seconds is not None:
            arrays = {"signed_size": np.asarray(train.signed_size), "label": np.asarray(train.label)}
            config = self._planned(model, config, generate.Generator(config, card, scale), arrays, folder, seconds)
        generator = generate.Generator(config, card, scale)
        # with these two and the checkpoints the folder opens with generate.load_run
        write_config(folder, {"generator": dataclasses.asdict(config), "card": dataclasses.asdict(card)})
        scaling.save(generator.scale, folder / "scaling.npz")
        with ProgressReport(self.console, f"{model}: training", total_steps(config.train, len(train))) as progress:
            generator.fit(
                train,
                key=prng.stream(key, "train"),
                mesh=self.mesh,
                folder=folder,
                resume=True,
                report=lambda line: progress.update(line["step"], loss=line["loss"]),
            )
        return generator

    def _fit_tokens(
        self, model: str, train: PacketSeries, folder: Path, key: jax.Array, seed: int, seconds: float | None
    ) -> Any:
        config = self.configs[model]
        if seconds is not None:
            generator = token_runs.untrained(config, train)
            config = self._planned(model, config, generator, generator.training_arrays(train), folder, seconds)
        with epochs_shown(self.console, model, config.train.epochs, selects=seconds is None) as report:
            return token_runs.fit(
                config,
                train,
                key=prng.stream(key, "train"),
                mesh=self.mesh,
                folder=folder,
                epochs=None if seconds is None else config.train.epochs,
                seed=seed,
                resume=True,
                report=report,
            )

    def _planned(self, model: str, config: Any, generator: Any, arrays: Any, folder: Path, seconds: float) -> Any:
        """The configuration with what fits into so many seconds of training; plan.json keeps what was once decided."""
        path = folder / "plan.json"
        if not path.exists():
            pace = steps_per_second(
                generator.loss, generator.init, arrays, config.train, mesh=self.mesh, is_state_space=is_state_space
            )
            n_flows = jax.tree.leaves(arrays)[0].shape[0]
            fits = within(seconds, pace, n_flows, config, epochs=model in TOKENS)
            plan = {"train_seconds": seconds, "steps_per_second": pace, "train": fits}
            write_atomically(path, json.dumps(plan).encode())
        plan = _read(path)
        self.console.print(
            f"{model}: {', '.join(f'{name} {n:,}' for name, n in plan['train'].items())} in {seconds:g} s at "
            f"{plan['steps_per_second']:.1f} steps/s",
            highlight=False,
        )
        return dataclasses.replace(config, train=dataclasses.replace(config.train, **plan["train"]))


def samples_of(draw: int) -> str:
    """Name of the file of a draw."""
    return "samples.parquet" if draw == 0 else f"samples-{draw}.parquet"


def within(seconds: float, pace: float, n_flows: int, config: Any, *, epochs: bool) -> dict[str, int]:
    """The changes to a `TrainConfig` that make training last so many seconds at a pace (steps a second).

    With `epochs`, whole ones and no more than the configuration has. All are those of the final training: finding their
    number on flows held out takes half of the time, and where time is short longer training gives better flows (three
    real sets, on folds that no table is of: discriminative score 0.06 against 0.12 to 0.18 on protocol_pool, likelihood
    of test flows from 2 nats better to 0.7 worse).
    """
    if not epochs:
        return {"steps": max(1, math.floor(seconds * pace))}
    each = steps_per_epoch(n_flows, min(config.train.batch_size, n_flows)) * config.members
    return {"epochs": min(config.train.epochs, max(1, math.floor(seconds * pace / each)))}


def resampled(model: str, train: PacketSeries, key: jax.Array, *, seed: int, draw: int = 0) -> PacketSeries:
    """A draw of a set that needs no training; draw 0 is that of the seed itself.

    Args:
        model: of `RESAMPLED` or `HAND_CRAFTED`.
        train: real flows.
        key: typed key, of hand-crafted fakes.
        seed: of the others.
        draw: number of the draw.
    """
    if draw:
        key = prng.at_step(prng.stream(key, "sample"), draw)
        # not seed + draw, which is the first draw of another seed
        seed = int(np.random.SeedSequence((seed, draw)).generate_state(1)[0])
    labels = np.asarray(train.label)
    if model == "bootstrap":
        return evaluate.bootstrap(train, labels, seed=seed)
    if model == "marginals":
        return generate.marginals(train, labels, seed=seed)
    return hand_crafted(model, train, key)


def hand_crafted(name: str, train: PacketSeries, key: jax.Array) -> PacketSeries:
    """The training flows after a hand-crafted augmentation, as if a generator had made them.

    Each flow has its own magnitude alpha ~ U[0, 1]. Gaussian noise changes sizes, never inter-arrival times instead: no
    judge sees those, and half of the flows would be exact copies. Sizes are rounded to whole bytes and stay between 0
    and the largest one.

    Args:
        name: of an augmentation of `HAND_CRAFTED`.
        train: real flows.
        key: typed key.

    Returns:
        As many flows with the same labels, source "simulated".
    """
    op = augment.get(name)
    x, mask = train.arrays()
    alpha = jax.random.uniform(prng.stream(key, "alpha"), (len(train),))
    own = prng.stream(key, "draw")
    if op.needs_stats:
        # by the largest size and not by PAM'24's 1,460 bytes, which would cut every larger one
        scale = np.array([max(x[..., 0].max(), 1), 1, 1], np.float32)
        stats = scaling.class_statistics(x / scale, mask, np.asarray(train.label), len(train.class_names))[train.label]
        x, new = jax.jit(augment.batched(op.with_options(features="size")))(own, x / scale, mask, alpha, stats=stats)
        x = np.asarray(x) * scale
    else:
        x, new = jax.jit(augment.batched(op))(own, x, mask, alpha)
    x, mask = np.asarray(x), np.asarray(new)
    # a packet that an operation left empty is one of size 0 from the client: the mask has to stay a prefix
    direction = np.where(mask, np.where(x[..., 1] < 0, -1, 1), 0)
    size = np.where(mask, np.clip(np.rint(x[..., 0]), 0, np.iinfo(np.int16).max), 0)
    return train.replace(
        size=size.astype(np.int16),
        direction=direction.astype(np.int8),
        iat=np.where(mask, np.maximum(x[..., 2], 0), 0).astype(np.float32),
        group=None,
        name=f"{train.name}-{name}",
        source="simulated",
    ).check()


def generator_configs(options: Any, models: tuple[str, ...], *, token_epochs: int | None = None) -> dict[str, Any]:
    """The configuration of each trained model.

    Args:
        options: of models over scaled sizes, see `generative_options.Options`.
        models: names.
        token_epochs: the most epochs of token models; None: as they say.
    """
    from generative_options import generator_config

    found: dict[str, Any] = {}
    for model in models:
        if model in PROCESSES:
            found[model] = generator_config(options, PROCESSES[model])
        elif model in TOKENS:
            config = TOKENS[model]()
            if token_epochs is not None:
                config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=token_epochs))
            found[model] = config.check()
    return found


def _read(path: Path) -> Any:
    """A small JSON file of a model's folder."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", remedy=f"delete {path.parent}") from error
