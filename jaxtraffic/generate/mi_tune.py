"""MI-TUNE for packet series: a generator is fine-tuned on those of its own flows that tell most of their label.

Every class is a prompt. Each round draws candidates of every class with their information measured in the sampling
scan, keeps those that rank highest, and trains adapters of the denoiser on them with the generator's own loss. No real
flow is seen. Source: Wang et al., "Information Theoretic Text-to-Image Alignment" (2025, arXiv 2405.20759), and the
thesis' algorithms 1 (information of a prompt), 2 (the fine-tuning set) and 3 (rounds).

What to expect, and what not:

* The value of one flow is a ranking score, no log p(x | y) / p(x): on closed forms in one dimension the squared form
  ranks the samples of a class opposite to it (see `information.observers`). `rank` offers the alternatives.
* Tuning on one's own selected samples sharpens classes and thins their variety; real flows do not enter, so it cannot
  add what the generator never learnt. Compare with rank "random": same candidates, same training, no selection.
* MI-TUNE keeps one image for each of thousands of prompts. There are only as many prompts here as classes, so several
  flows of each are kept, and classes enter training in their shares of the training flows, because fine-tuning on
  equal shares would change p(y), and with it the unconditional network that the information is measured against.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import prng, scaling
from jaxtraffic.errors import ConfigError, TrainingError
from jaxtraffic.generate.model import Generator
from jaxtraffic.nn import is_state_space
from jaxtraffic.nn.adapters import AdapterConfig, Adapters, apply_adapters, init_adapters, merge
from jaxtraffic.series import PacketSeries
from jaxtraffic.train import Checkpoints, Fitted, TrainConfig, fit, init_state, make_optimizer, total_steps

RANKS = ("squared", "path_wise", "product", "squared_ascending", "random")
"""What candidates are ranked by; "random" is the control: it keeps as many, whichever they are."""

_COPIES = 8
"""Rows of the fine-tuning set for each kept flow, on average, so that class shares can be met by repeating flows."""


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """How a generator is tuned on its own flows."""

    candidates: int = 50
    """Flows drawn of each class in each round; MI-TUNE draws 50 images a prompt."""
    keep: int = 25
    """Flows of each class that are kept for training."""
    rounds: int = 2
    """Rounds of drawing, keeping and training; the adapters go on from round to round."""
    rank: str = "squared"
    """What to keep: the highest squared, path_wise (flow) or product (flow) score, squared_ascending, or random."""
    guidance: float | None = None
    """Guidance weight while candidates are drawn; the run's by default."""
    adapters: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig(steps=200, batch_size=256, learning_rate=1e-4, weight_decay=0.0)
    """Fine-tuning in each round; needs steps."""

    def check(self) -> TuneConfig:
        """Returns itself, or raises ConfigError for values that cannot work."""
        self.adapters.check()
        if self.rank not in RANKS:
            raise ConfigError(f"unknown rank {self.rank!r}; choose from {', '.join(RANKS)}")
        if self.rounds < 1 or not 1 <= self.keep <= self.candidates:
            raise ConfigError(
                f"tuning needs at least 1 round and 1 <= keep <= candidates, got {self.rounds} rounds, keep "
                f"{self.keep} of {self.candidates}"
            )
        if self.train.steps is None or self.train.steps < 1:
            raise ConfigError(f"tuning needs a number of training steps of at least 1, got {self.train.steps}")
        return self


class Candidates(NamedTuple):
    """Flows of every class with what the sampling scan measured.

    Attributes:
        flows: as many of each class, class after class.
        mi: form -> [flow] float32 nats.
    """

    flows: PacketSeries
    mi: dict[str, np.ndarray]


class Round(NamedTuple):
    """What happened in one round.

    Attributes:
        candidates: what was drawn.
        score: [flow] what they were ranked by.
        kept: [flow] bool.
        losses: [check] mean training loss over the steps since the check before.
    """

    candidates: Candidates
    score: np.ndarray
    kept: np.ndarray
    losses: np.ndarray


def tune_with_information(
    generator: Generator,
    key: jax.Array,
    config: TuneConfig = TuneConfig(),
    *,
    mesh: Mesh | None = None,
    report: Callable[[int, str], None] = lambda number, doing: None,
) -> tuple[Generator, list[Round]]:
    """Runs all rounds (the thesis' algorithm 3).

    Candidates depend on (key, round, parameters) and not on `rank`, so runs that differ in rank alone start from the
    same ones. Candidates are drawn on all devices; training, which is short, runs on one.

    Args:
        generator: trained with class dropout; stays as it is.
        key: typed key.
        config: see `TuneConfig`.
        mesh: devices for sampling; all of them by default.
        report: called with the number of the round, from 0, and what is being done.

    Returns:
        A generator with the adapters merged into its parameters, and one `Round` for each round.

    Raises:
        ConfigError: a rank that the generator's process does not have, or no class dropout in its training.
        TrainingError: scores or a loss that are not finite.
    """
    config.check()
    base = jax.tree.map(np.asarray, generator.params)
    adapters = jax.jit(lambda key: init_adapters(key, base, config.adapters))(prng.stream(key, "adapters"))
    params, history = base, []
    for number in range(config.rounds):
        own = prng.at_step(key, number)
        report(number, "drawing candidates")
        with holding(generator, params):
            drawn = draw_candidates(generator, candidates_key(key, number), config, mesh=mesh)
        score = _score(drawn, config.rank, prng.stream(own, "rank"))
        kept = best_of_each(score, np.asarray(drawn.flows.label), config.keep)
        data = fine_tuning_set(drawn.flows[kept], generator.card.class_counts)
        report(number, "training adapters")
        fitted = _fit(generator, config.adapters, config.train, base, adapters, data, prng.stream(own, "training"))
        losses = np.asarray(fitted.losses)
        if not np.isfinite(losses).all():
            raise TrainingError(f"round {number}: the loss is not finite; choose a lower learning rate")
        adapters = fitted.params
        params = merge(base, adapters, config.adapters)
        history.append(Round(drawn, score, kept, losses))
    tuned = copy.copy(generator)
    tuned.params = params
    return tuned, history


def candidates_key(key: jax.Array, number: int) -> jax.Array:
    """The key that a tuning run with `key` draws the candidates of a round with."""
    return prng.stream(prng.at_step(key, number), "candidates")


def draw_candidates(
    generator: Generator,
    key: jax.Array,
    config: TuneConfig,
    *,
    forms: tuple[str, ...] | None = None,
    mesh: Mesh | None = None,
) -> Candidates:
    """Draws `config.candidates` flows of each class that has training flows, and measures them in the same scan.

    Args:
        generator: with the parameters to draw from.
        key: typed key.
        config: candidates, guidance, and the rank that decides which forms are measured beside the squared one.
        forms: measure these instead: squared, product, path_wise.
        mesh: devices; all of them by default.
    """
    if forms is None:
        forms = ("squared", config.rank) if config.rank in ("path_wise", "product") else ("squared",)
    classes = np.flatnonzero(np.asarray(generator.card.class_counts) > 0)
    labels = np.repeat(classes, config.candidates).astype(np.int32)
    observers = tuple(generator.measure(form, **({"packets": False} if form == "squared" else {})) for form in forms)
    flows, measured = generator.sample_observed(key, labels, observers=observers, mesh=mesh, guidance=config.guidance)
    return Candidates(flows, {form: np.asarray(result["mi"]) for form, result in zip(forms, measured)})


def best_of_each(score: np.ndarray, label: np.ndarray, keep: int) -> np.ndarray:
    """[flow] bool: the `keep` highest scores of each label; of equal scores the earlier flow."""
    order = np.lexsort((-score, label))
    first = np.searchsorted(label[order], label[order])
    kept = np.zeros(len(score), bool)
    kept[order] = np.arange(len(score)) - first < keep
    return kept


def fine_tuning_set(flows: PacketSeries, class_counts: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Rows to draw training batches from: the flows, repeated so that classes have their shares of the training flows.

    Every flow is there at least once, so that rare classes weigh a little more than their share. The number of rows
    depends on the numbers of flows and classes alone, so that all rounds run the same program.

    Returns:
        "signed_size" [row, T] int16 and "label" [row] int32.
    """
    label = np.asarray(flows.label)
    counts = np.asarray(class_counts, np.float64)
    shares = counts / counts[np.unique(label)].sum()
    rows = []
    for value in np.unique(label):
        own = np.flatnonzero(label == value)
        wanted = max(len(own), round(_COPIES * len(label) * shares[value]))
        rows.append(own[np.arange(wanted) % len(own)])
    rows = np.concatenate(rows)
    return {"signed_size": np.asarray(flows.signed_size)[rows], "label": label[rows].astype(np.int32)}


@contextlib.contextmanager
def holding(generator: Generator, params: Any) -> Iterator[Generator]:
    """The same generator with other parameters for a while, so that its compiled sampling program serves them too."""
    before, generator.params = generator.params, params
    try:
        yield generator
    finally:
        generator.params = before


def save_tuned(folder: str | Path, generator: Generator) -> None:
    """Writes scale and merged parameters into a run folder, as training would, so that `load_run` loads them.

    The config.json beside them, with "generator" and "card", is the caller's. Adapters are not stored: merged weights
    are what every user of a run folder can load, and cost what the generator itself costs.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scaling.save(generator.scale, folder / "scaling.npz")
    train = generator.config.train
    transform, _ = make_optimizer(train, total_steps(train, sum(generator.card.class_counts)), is_state_space)
    state = jax.jit(lambda params: init_state(params, transform, train))(generator.params)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, state)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _fit(
    generator: Generator,
    config: AdapterConfig,
    train: TrainConfig,
    base: Any,
    adapters: Adapters,
    data: dict[str, jax.Array],
    key: jax.Array,
) -> Fitted:
    """Trains adapters; one compilation for all rounds of one generator."""

    def loss(adapters: Adapters, state: Any, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, Any]:
        return generator.loss(apply_adapters(base, adapters, config), batch, key).mean(), state

    return fit(loss, adapters, data, key, train)


def _score(drawn: Candidates, rank: str, key: jax.Array) -> np.ndarray:
    if rank == "random":
        return np.asarray(jax.random.uniform(key, (len(drawn.flows),)))
    score = -drawn.mi["squared"] if rank == "squared_ascending" else drawn.mi[rank]
    if not np.isfinite(score).all():
        raise TrainingError(f"{(~np.isfinite(score)).sum()} of {len(score)} candidates have no finite {rank} score")
    return score
