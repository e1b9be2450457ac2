"""TokenGenerator: a class-conditional generator of packet series that is exact to the byte and knows its likelihood."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel, prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import tokens
from jaxtraffic.generate.card import DataCard
from jaxtraffic.generate.token_config import TokenConfig, weight_decay
from jaxtraffic.generate.token_features import size_features
from jaxtraffic.generate.token_probability import step_log_probs
from jaxtraffic.generate.token_sampling import draw
from jaxtraffic.generate.token_training import Trained, train_epochs
from jaxtraffic.generate.token_vocabulary import Symbols, Tables, Vocabulary
from jaxtraffic.nn.token_ensemble import ensembled
from jaxtraffic.nn.token_net import make_token_net
from jaxtraffic.series import PacketSeries

CPU_BLOCK, ACCELERATOR_BLOCK = 256, 8192
"""Flows that one device takes at a time. Fixed shapes per device keep samples equal to the bit on 1 and 8 devices."""


class TokenGenerator:
    """Tokens, causal S4 network, parameters and class names of a generator.

    `log_prob` is exact: it is the probability with which `sample` at temperature 1 draws that flow.
    """

    def __init__(self, config: TokenConfig, card: DataCard, vocabulary: Vocabulary, params: Any = None):
        """Builds the functions of the model; `params` may come later from `train`."""
        self.config, self.card, self.vocabulary, self.params = config.check(), card, vocabulary, params
        self.tables: Tables = jax.tree.map(jnp.asarray, vocabulary.tables())
        self.no_class = len(card.class_names)
        net = make_token_net(
            config.net,
            self.no_class,
            vocabulary.n_symbols,
            vocabulary.n_offsets,
            card.length,
            n_iats=vocabulary.n_iats,
            features=size_features(vocabulary) if config.size_features else None,
        )
        self.net = net if config.members == 1 else ensembled(net, config.members)

    @classmethod
    def of(cls, config: TokenConfig, train: PacketSeries) -> TokenGenerator:
        """An untrained generator with the tokens of these training flows."""
        tokeniser = tokens.fit(train, atom_share=config.atom_share, bin_bytes=config.bin_bytes, iat=config.iat)
        return cls(config, DataCard.of(train), Vocabulary.of(tokeniser, train))

    def init(self, key: jax.Array) -> Any:
        """Parameters whose output biases are the log shares of the symbols in training."""
        params, biases = self.net.init(key), self.vocabulary.biases()
        leaves = {"token": ("token_out", "bias"), "offset": ("offset_bias", "embedding"), "iat": ("iat_out", "bias")}
        for name, bias in biases.items():
            layer, leaf = leaves[name]
            params[layer][leaf] = jnp.broadcast_to(bias, params[layer][leaf].shape)
        return params

    def loss(self, params: Any, batch: dict[str, Any], key: jax.Array) -> jax.Array:
        """Per-flow training loss [flow]: nats, over the mean number of packets of training flows.

        Args:
            params: of the network.
            batch: "symbols" [flow, T] and "label" [flow], from `training_arrays`.
            key: key of the step.
        """
        symbols, label = batch["symbols"], batch["label"]
        batch_size, length = symbols.token.shape
        # One draw for both: every call of a random function adds a second to the compilation on a CPU.
        uniform = jax.random.uniform(prng.stream(key, "hide"), (batch_size, 1 + length))
        shown = jnp.where(uniform[:, 0] < self.config.train.class_dropout, self.no_class, label)
        blank = uniform[:, 1:] < self.config.hidden
        read = symbols._replace(
            token=jnp.where(blank, self.vocabulary.unseen, symbols.token), offset=jnp.where(blank, 0, symbols.offset)
        )
        steps = step_log_probs(
            self.net, params, self.tables, symbols, shown, read=read, dropout_key=prng.stream(key, "dropout")
        )
        return -steps.sum(axis=1) / batch["packets"]

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
        then are the last parameters: `fit` uses the number of epochs only.

        Raises:
            ConfigError: several members; `fit` trains them one by one.
        """
        if self.config.members > 1:
            raise ConfigError("the members of an ensemble are trained one by one: token_runs.fit")
        validate = None if validation is None else lambda params: -self.log_prob_with(params, validation, mesh)
        trained = train_epochs(
            self.loss,
            self.init,
            self.training_arrays(flows),
            dataclasses.replace(self.config.train, weight_decay=weight_decay(self.config.decay, len(flows))),
            key=key,
            mesh=mesh,
            folder=folder,
            validate=validate,
            group=None if validation is None else validation.group,
            patience=self.config.patience,
            **options,
        )
        self.params = trained.state.averaged
        return trained

    def draw_labels(self, n: int, *, seed: int = 0) -> np.ndarray:
        """n labels [n] int32 drawn from the class shares of the training flows."""
        return self.card.draw_labels(n, seed=seed)

    def log_prob(
        self, flows: PacketSeries, labels: np.ndarray | Sequence[int] | None = None, *, mesh: Mesh | None = None
    ) -> np.ndarray:
        """Log-probability of flows, [flow] float64 nats: log p(x | label), or log p(x) without labels.

        What is measured is number of packets and signed sizes, and where modelled IATs at the resolution of the tokens
        (from the second packet on; those beyond `TimeTokens.longest` count as it); the direction of packets of size 0
        is not.

        Args:
            flows: series of the length of training.
            labels: [flow] integers; None hides the label from the network.
            mesh: devices; all of them by default.

        Raises:
            ConfigError: a label outside the classes, or no labels where training had no class dropout.
        """
        return self.log_prob_steps(flows, labels, mesh=mesh).sum(axis=1, dtype=np.float64)

    def log_prob_steps(
        self, flows: PacketSeries, labels: np.ndarray | Sequence[int] | None = None, *, mesh: Mesh | None = None
    ) -> np.ndarray:
        """Log-probability of each packet given those before it, [flow, T] float32 nats.

        The end of a flow counts at the position after its last packet; positions after it are 0.
        """
        return self._steps(self.params, flows, self._labels(labels, len(flows)), mesh)

    def log_prob_with(self, params: Any, flows: PacketSeries, mesh: Mesh | None = None) -> np.ndarray:
        """log p(x | own label) of flows [flow] float64 under other parameters of this network."""
        return self._steps(params, flows, np.asarray(flows.label, np.int32), mesh).sum(axis=1, dtype=np.float64)

    def sample(
        self,
        key: jax.Array,
        labels: np.ndarray | Sequence[int],
        *,
        temperature: float = 1.0,
        mesh: Mesh | None = None,
        block: int | None = None,
        report: Callable[[int], None] = lambda done: None,
    ) -> PacketSeries:
        """Samples one flow a label on every device; any number of flows.

        Sample i depends on (key, i, label i) only; to the bit for any number of devices of one kind, and up to rounding
        for another block.

        Args:
            key: typed key.
            labels: [flow] integers, index into the class names.
            temperature: above 0; below 1 prefers likely symbols, above 1 unlikely ones.
            mesh: devices; all of them by default.
            block: flows a device samples at a time, the bound of memory.
            report: called with the number of finished flows.

        Returns:
            PacketSeries of len(labels) flows, source "simulated".

        Raises:
            ConfigError: a label outside the classes, or a temperature that is not above 0.
        """
        return self.sample_scored(key, labels, temperature=temperature, mesh=mesh, block=block, report=report)[0]

    def sample_scored(
        self, key: jax.Array, labels: np.ndarray | Sequence[int], **options: Any
    ) -> tuple[PacketSeries, np.ndarray]:
        """`sample`, and the log-probability [flow, T] float32 of each packet as the sampler drew it.

        Summed over packets it is `log_prob` of the flow, but for what the network does not decide: which unseen size
        it is, and where in its bin an IAT lies.
        """
        labels = self._checked(labels, max(np.size(labels), 1))
        nothing = np.zeros((labels.size, self.card.length), np.int32)
        given = Symbols(nothing, nothing, nothing if self.vocabulary.n_iats else None, nothing.astype(np.float32))
        return self._draw(key, labels, given, np.zeros(labels.size, np.int32), **options)

    def continue_from(
        self,
        key: jax.Array,
        flows: PacketSeries,
        r: int | np.ndarray,
        labels: np.ndarray | Sequence[int] | None = None,
        **options: Any,
    ) -> PacketSeries:
        """Samples what follows the first r packets of flows.

        Args:
            key: typed key.
            flows: series whose first packets are known; they stay as they are. A flow that ends before packet r is
                known to end there.
            r: packets that are known, one number or [flow].
            labels: [flow] integers; None: the label is not known (needs class dropout in training).
            options: temperature, mesh, block and report of `sample`.

        Returns:
            PacketSeries, source "simulated", with the given labels, or those of `flows` where there are none.

        Raises:
            ConfigError: r outside 0..T, and as in `sample`.
        """
        known = np.broadcast_to(np.asarray(r, np.int32), (len(flows),))
        if known.size and (known.min() < 0 or known.max() > self.card.length):
            raise ConfigError(f"r must be from 0 to {self.card.length}")
        made, _ = self._draw(
            key, self._labels(labels, len(flows)), self.vocabulary.encode(flows), known, given_flows=flows, **options
        )
        return made if labels is not None else made.replace(label=np.asarray(flows.label, np.int32))

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

    def _steps(self, params: Any, flows: PacketSeries, labels: np.ndarray, mesh: Mesh | None) -> np.ndarray:
        if flows.length != self.card.length:
            raise ConfigError(f"the model knows series of {self.card.length} packets, got {flows.length}")
        arrays = (self.vocabulary.encode(flows), labels)
        (steps,) = in_blocks(likelihood_program, self, arrays, params=params, mesh=mesh)
        return steps

    def _draw(
        self,
        key: jax.Array,
        labels: np.ndarray,
        given: Symbols,
        r: np.ndarray,
        *,
        temperature: float = 1.0,
        given_flows: PacketSeries | None = None,
        **options: Any,
    ) -> tuple[PacketSeries, np.ndarray]:
        if not temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {temperature}")
        arrays = (np.arange(labels.size, dtype=np.int32), labels, given, r)
        first = (prng.stream(key, "sample"), jnp.float32(temperature))
        drawn = in_blocks(sampling_program, self, arrays, first=first, **options)
        metadata = {
            "class_names": self.card.class_names,
            "name": f"{self.card.name}-token",
            "size_layer": self.card.size_layer,
        }
        shown = np.minimum(labels, self.no_class - 1)
        made = self.vocabulary.decode(drawn.symbols, drawn.uniform, shown, given=given_flows, r=r, **metadata)
        return made, drawn.log_prob


def in_blocks(
    program: Callable[[TokenGenerator, Mesh], Any],
    generator: TokenGenerator,
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


@functools.lru_cache(maxsize=16)
def likelihood_program(generator: TokenGenerator, mesh: Mesh) -> Any:
    """One jitted function per (model, mesh), so that repeated questions compile once."""

    def run(tables: Tables, params: Any, symbols: Symbols, label: jax.Array) -> tuple[jax.Array]:
        return (step_log_probs(generator.net, params, tables, symbols, label),)

    return jax.jit(run, out_shardings=parallel.over_data(mesh))


@functools.lru_cache(maxsize=16)
def sampling_program(generator: TokenGenerator, mesh: Mesh) -> Any:
    """The jitted `token_sampling.draw` of a generator, one per (model, mesh)."""

    def run(
        tables: Tables,
        params: Any,
        key: jax.Array,
        temperature: jax.Array,
        index: jax.Array,
        label: jax.Array,
        given: Symbols,
        r: jax.Array,
    ) -> Any:
        return draw(generator.net, params, tables, key, index, label, given, r, temperature)

    return jax.jit(run, out_shardings=parallel.over_data(mesh))
