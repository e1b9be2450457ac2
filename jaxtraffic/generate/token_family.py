"""What the causal and the masked generator of tokens do alike: their parts, training, labels, work in blocks."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import tokens
from jaxtraffic.generate.card import DataCard
from jaxtraffic.generate.token_config import TokenFamilyConfig, weight_decay
from jaxtraffic.generate.token_features import size_features
from jaxtraffic.generate.token_training import Trained, train_epochs
from jaxtraffic.generate.token_vocabulary import Tables, Vocabulary
from jaxtraffic.series import PacketSeries

CPU_BLOCK, ACCELERATOR_BLOCK = 256, 8192
"""Flows that one device takes at a time. Fixed shapes per device keep samples equal to the bit on 1 and 8 devices."""


class TokenFamily:
    """A generator of packet series over tokens; a member adds its network, loss, likelihood and sampler."""

    def __init__(self, config: TokenFamilyConfig, card: DataCard, vocabulary: Vocabulary, params: Any = None):
        """Builds the functions of the model; `params` may come later from `train`."""
        self.config, self.card, self.vocabulary, self.params = config.check(), card, vocabulary, params
        self.tables: Tables = jax.tree.map(jnp.asarray, vocabulary.tables())
        self.no_class = len(card.class_names)
        features = size_features(vocabulary) if config.size_features else None
        self.net = self._make_net(vocabulary.n_symbols, vocabulary.n_offsets, features=features)

    @classmethod
    def of(cls, config: TokenFamilyConfig, train: PacketSeries) -> Self:
        """An untrained generator with the tokens of these training flows."""
        tokeniser = tokens.fit(train, atom_share=config.atom_share, bin_bytes=config.bin_bytes, iat=config.iat)
        return cls(config, DataCard.of(train), Vocabulary.of(tokeniser, train))

    def init(self, key: jax.Array) -> Any:
        """Parameters before training."""
        raise NotImplementedError

    def loss(self, params: Any, batch: dict[str, Any], key: jax.Array) -> jax.Array:
        """Per-flow training loss [flow]."""
        raise NotImplementedError

    def training_arrays(self, flows: PacketSeries) -> dict[str, Any]:
        """Training flows as host arrays [flow, ...]: "symbols", "label", "packets" (the mean number of packets)."""
        packets = np.full(len(flows), np.asarray(flows.n_packets).mean() + 1e-6, np.float32)
        return {
            "symbols": self.vocabulary.encode(flows),
            "label": np.asarray(flows.label, np.int32),
            "packets": packets,
        }

    def train(
        self,
        flows: PacketSeries,
        *,
        key: jax.Array,
        mesh: Mesh,
        folder: Path,
        validation: PacketSeries | None = None,
        **options: Any,
    ) -> Trained:
        """Trains on flows (`token_training.train_epochs` has the options) and keeps the parameters to sample with.

        With validation flows, training stops once they are less likely than at their best (`best_epoch`); what is kept
        then are the last parameters: `token_runs.fit` uses the number of epochs only.

        Raises:
            ConfigError: several members; `token_runs.fit` trains them one by one.
        """
        if self.config.members > 1:
            raise ConfigError("the members of an ensemble are trained one by one: token_runs.fit")
        held_out: dict[str, Any] = {}
        if validation is not None:
            held_out["validate"] = lambda params: self._held_out(params, validation, key, mesh)
            held_out["group"] = validation.group
        trained = train_epochs(
            self.loss,
            self.init,
            self.training_arrays(flows),
            dataclasses.replace(self.config.train, weight_decay=weight_decay(self.config.decay, len(flows))),
            key=key,
            mesh=mesh,
            folder=folder,
            patience=self.config.patience,
            **held_out,
            **options,
        )
        self.params = trained.state.averaged
        return trained

    def draw_labels(self, n: int, *, seed: int = 0) -> np.ndarray:
        """n labels [n] int32 drawn from the class shares of the training flows."""
        return self.card.draw_labels(n, seed=seed)

    def _make_net(self, n_symbols: int, n_offsets: int, **options: Any) -> Any:
        """The network as functions."""
        raise NotImplementedError

    def _held_out(self, params: Any, flows: PacketSeries, key: jax.Array, mesh: Mesh) -> np.ndarray:
        """Nats [flow] float64 of flows held out, with their own labels; lower is better."""
        raise NotImplementedError

    def _made(self, kind: str, labels: np.ndarray) -> dict[str, Any]:
        """Labels and metadata of drawn flows; those without a label show the last class."""
        return {
            "label": np.minimum(labels, self.no_class - 1),
            "class_names": self.card.class_names,
            "name": f"{self.card.name}-{kind}",
            "size_layer": self.card.size_layer,
        }

    def _require_length(self, flows: PacketSeries) -> None:
        if flows.length != self.card.length:
            raise ConfigError(f"the model knows series of {self.card.length} packets, got {flows.length}")

    def _prefixes(self, flows: PacketSeries, r: int | np.ndarray) -> np.ndarray:
        """How many packets of each flow are known [flow] int32, from one number or one a flow."""
        known = np.broadcast_to(np.asarray(r, np.int32), (len(flows),))
        if known.size and (known.min() < 0 or known.max() > self.card.length):
            raise ConfigError(f"r must be from 0 to {self.card.length}")
        return known

    def _labels(self, labels: np.ndarray | Sequence[int] | None, n: int) -> np.ndarray:
        if labels is not None:
            return self._checked(labels, n)
        if not self.config.train.class_dropout:
            raise ConfigError("p(x) without a label needs training with --class-dropout above 0")
        return np.full(n, self.no_class, np.int32)

    def _checked(self, labels: np.ndarray | Sequence[int], n: int) -> np.ndarray:
        labels = np.asarray(labels, np.int32)
        if labels.shape != (n,) or (n and (labels.min() < 0 or labels.max() >= self.no_class)):
            raise ConfigError(f"labels must be {n} integers from 0 to {self.no_class - 1}")
        return labels


def require_temperature(temperature: float) -> None:
    """Raises ConfigError for one that is not above 0."""
    if not temperature > 0:
        raise ConfigError(f"temperature must be above 0, got {temperature}")


def in_blocks(
    program: Callable[[Any, Mesh], Any],
    generator: TokenFamily,
    arrays: Any,
    *,
    params: Any = None,
    first: tuple[Any, ...] = (),
    mesh: Mesh | None = None,
    block: int | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Any:
    """Runs a program over host arrays [flow, ...], a fixed number of flows a device at a time; results on the host.

    The program is called with tables, parameters (those of the generator unless given), `first` and a block of arrays.
    """
    params = generator.params if params is None else params
    mesh = parallel.make_mesh() if mesh is None else mesh
    block = (CPU_BLOCK if jax.default_backend() == "cpu" else ACCELERATOR_BLOCK) if block is None else block
    n, chunk = jax.tree.leaves(arrays)[0].shape[0], block * mesh.shape["data"]
    if not n:
        raise ConfigError("a token generator needs at least one flow")
    if params is None:
        raise ConfigError("the token generator has no parameters yet: train or load it first")
    with jax.set_mesh(mesh):
        run = program(generator, mesh)
        shared = (*parallel.put_replicated((generator.tables, params), mesh), *first)
        parts = []
        for begin in range(0, n, chunk):
            rows = np.minimum(np.arange(begin, begin + chunk), n - 1)
            own = parallel.put_over_data(jax.tree.map(operator.itemgetter(rows), arrays), mesh)
            # To the host one chunk at a time: this is what bounds the memory.
            parts.append(jax.tree.map(parallel.to_host, run(*shared, *own)))
            report(min(begin + chunk, n))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n], *parts)
