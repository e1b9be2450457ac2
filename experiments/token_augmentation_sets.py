"""What the augmentation test adds to real flows: generated, resampled or hand-crafted ones, in any proportion."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from generative_benchmark_sets import HAND_CRAFTED, RESAMPLED, hand_crafted
from jax.sharding import Mesh

from jaxtraffic import evaluate, generate, prng
from jaxtraffic.generate import token_runs
from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.generate.token_model import TokenGenerator
from jaxtraffic.series import PacketSeries

TOKENS = "token_s4"
METHODS = (TOKENS, *HAND_CRAFTED, *RESAMPLED)
NONE = "none"
LEAST_STEPS = 8
"""Steps that an epoch of the generator has at least."""
TRAINING, BALANCED = "training", "balanced"


class Added(NamedTuple):
    """A kind of flows to add.

    Attributes:
        method: one of METHODS, or NONE.
        temperature: of sampling; None for what is not sampled.
        labels: TRAINING, in the shares of the training flows, or BALANCED, evenly over their classes.
    """

    method: str
    temperature: float | None = None
    labels: str = TRAINING


def share_of(train: PacketSeries, share: float, seed: int) -> PacketSeries:
    """A share of the flows of each class, at least one, drawn at random and left in their order."""
    rng, label = np.random.default_rng(seed), np.asarray(train.label)
    rows = []
    for value in np.unique(label):
        own = rng.permutation(np.flatnonzero(label == value))
        rows.append(own[: max(1, round(share * len(own)))])
    return train[np.sort(np.concatenate(rows))]


def source_rows(label: np.ndarray, n: int, labels: str, seed: int) -> np.ndarray:
    """[n] flows whose labels the added flows take, and which Translate changes; their first k serve for a set of k.

    TRAINING goes through all flows in one random order after another, so that the shares of the classes are met as
    closely as k allows; BALANCED goes through the classes, with a random flow of each.
    """
    rng, label = np.random.default_rng(seed), np.asarray(label)
    if labels == TRAINING:
        return _orders(len(label), n, rng)
    classes = np.unique(label)
    chosen = classes[_orders(len(classes), n, rng)]
    rows = np.empty(n, np.int64)
    for value in classes:
        rows[chosen == value] = rng.choice(np.flatnonzero(label == value), int((chosen == value).sum()))
    return rows


def _orders(n_items: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """[n] indices of items: one random order of all of them after another."""
    return np.concatenate([rng.permutation(n_items) for _ in range(-(-n // n_items))])[:n]


def tree_parts(train: PacketSeries, pool: PacketSeries | None, ratio: float) -> tuple[PacketSeries, ...]:
    """What trees are trained on: all real flows once, and `ratio` added ones for each (PAM'24's Pre-augment)."""
    if pool is None:
        return (train,)
    return train, pool[np.arange(max(1, round(ratio * len(train)))) % len(pool)]


def network_parts(
    train: PacketSeries, pool: PacketSeries | None, ratio: float, draws: int, seed: int
) -> tuple[PacketSeries, ...]:
    """What a network is trained on that draws so many flows in all: every draw of it, real ones again and again.

    One pass over these parts is training with `ratio` added flows for each real one in every step (PAM'24's Inject),
    where an added flow is met once as long as the pool lasts. The number of draws does not depend on the ratio: more
    flows shall not win by longer training.
    """
    n_added = 0 if pool is None else max(1, round(draws * ratio / (1 + ratio)))
    real = train[_orders(len(train), draws - n_added, np.random.default_rng(seed))]
    return (real,) if pool is None else (real, pool[np.arange(n_added) % len(pool)])


def fitted_to(config: TokenConfig, n_flows: int) -> TokenConfig:
    """The configuration with batches small enough for an epoch of at least `LEAST_STEPS` steps.

    Patience and schedule count epochs, and say little where an epoch is a step or two.
    """
    size = min(config.train.batch_size, max(1, n_flows // LEAST_STEPS))
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=size))


@dataclasses.dataclass
class Pools:
    """Makes the flows that are added to one unit's training flows.

    Attributes:
        train: real flows.
        key: typed key of the unit.
        seed: of the unit.
        folder: where the token generator is kept.
        config: of the token generator.
        epochs: of its training; None finds them on flows held out of `train`.
        mesh: devices.
    """

    train: PacketSeries
    key: jax.Array
    seed: int
    folder: Path
    config: TokenConfig
    epochs: int | None
    mesh: Mesh
    _generator: TokenGenerator | None = None

    def make(self, added: Added, n: int) -> PacketSeries | None:
        """n flows of a kind; None for NONE. The first k of them have the labels that a set of k should have."""
        if added.method == NONE:
            return None
        rows = source_rows(self.train.label, n, added.labels, self.seed)
        labels = np.asarray(self.train.label)[rows]
        if added.method == TOKENS:
            # One key for all temperatures: they share their random numbers, as they share their labels.
            key = prng.stream(prng.stream(self.key, "sample"), added.labels)
            return self.generator().sample(key, labels, temperature=added.temperature, mesh=self.mesh)
        if added.method == "bootstrap":
            return evaluate.bootstrap(self.train, labels, seed=self.seed)
        if added.method == "marginals":
            return generate.marginals(self.train, labels, seed=self.seed)
        return hand_crafted(added.method, self.train[rows], prng.stream(self.key, added.method))

    def generator(self) -> TokenGenerator:
        """The generator of these training flows: trained, or read where the folder has it."""
        if self._generator is None:
            if not (self.folder / token_runs.MODEL_FILE).exists():
                token_runs.fit(
                    fitted_to(self.config, len(self.train)),
                    self.train,
                    key=prng.stream(self.key, "train"),
                    mesh=self.mesh,
                    folder=self.folder,
                    epochs=self.epochs,
                    seed=self.seed,
                    resume=True,
                )
                for place in (self.folder, self.folder / "selection"):
                    shutil.rmtree(place / "checkpoints", ignore_errors=True)
            # Always from its files, so that a run that was killed goes on with the very same generator.
            self._generator = token_runs.load(self.folder)
        return self._generator
