"""The sets that the benchmark of generators compares: trained models, resampled flows, hand-crafted fakes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from jaxtraffic import augment, datasets, evaluate, generate, prng, scaling
from jaxtraffic.command.run_folder import write_config
from jaxtraffic.errors import DataError
from jaxtraffic.report.write import write_atomically
from jaxtraffic.series import PacketSeries
from jaxtraffic.train import ProgressReport, total_steps

PROCESSES = {"ddpm_s4": "ddpm", "flow_s4": "flow"}
"""Models that are trained, and their processes."""

RESAMPLED = ("marginals", "bootstrap")
HAND_CRAFTED = ("translation", "wrap", "gaussian_noise")
"""The thesis' Translate, Wrap and Gaussian."""

MODELS = (*PROCESSES, *RESAMPLED, *HAND_CRAFTED)


class Made(NamedTuple):
    """A set of generated flows, and what a trained model took: train_seconds, sample_seconds."""

    flows: PacketSeries
    cost: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes sets of a data set and keeps them on disk, each once.

    Attributes:
        configs: configuration of each trained model.
        mesh: devices.
        console: where progress is printed.
        keep_checkpoints: whether a trained model stays on disk once its flows are there.
    """

    configs: Mapping[str, generate.GeneratorConfig]
    mesh: Mesh
    console: Console
    keep_checkpoints: bool

    def make(self, model: str, train: PacketSeries, folder: Path, *, fold: int, seed: int) -> Made:
        """The flows of a model, one for each training flow and with its label; read where the folder has them.

        Every set comes back from its file, so that one that was made before the run was killed is judged no otherwise.
        """
        path, cost = folder / "samples.parquet", folder / "cost.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            key = prng.stream(prng.at_step(jax.random.key(seed), fold), model)
            labels = np.asarray(train.label)
            spent: dict[str, float] = {}
            if model in PROCESSES:
                flows, spent = self._train_and_sample(model, train, folder, key)
            elif model == "bootstrap":
                flows = evaluate.bootstrap(train, labels, seed=seed)
            elif model == "marginals":
                flows = generate.marginals(train, labels, seed=seed)
            else:
                flows = hand_crafted(model, train, key)
            write_atomically(cost, json.dumps(spent).encode())
            datasets.write_parquet(flows.replace(group=None), path, iat=model not in PROCESSES)
        if not self.keep_checkpoints:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        try:
            return Made(datasets.read_parquet(path), json.loads(cost.read_text()))
        except (OSError, ValueError) as error:
            raise DataError(cost, f"cannot be read ({error})", remedy=f"delete {folder}") from error

    def _train_and_sample(
        self, model: str, train: PacketSeries, folder: Path, key: jax.Array
    ) -> tuple[PacketSeries, dict[str, float]]:
        config, card = self.configs[model], generate.DataCard.of(train)
        generator = generate.Generator(config, card, scaling.fit(config.diffusion.scaling, train.signed_size))
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
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        clock = time.perf_counter()
        with ProgressReport(self.console, f"{model}: sampling", len(train)) as progress:
            flows = generator.sample(
                prng.stream(key, "sample"), np.asarray(train.label), mesh=self.mesh, report=progress.update
            )
        seconds = time.perf_counter() - clock
        return flows, {"train_seconds": sum(line["seconds"] for line in lines), "sample_seconds": seconds}


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


def generator_configs(options: Any, models: tuple[str, ...]) -> dict[str, generate.GeneratorConfig]:
    """The configuration of each trained model.

    Args:
        options: see `generative_options.Options`.
        models: names.
    """
    from generative_options import generator_config

    return {model: generator_config(options, PROCESSES[model]) for model in models if model in PROCESSES}
