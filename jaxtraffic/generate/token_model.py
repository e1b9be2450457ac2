"""TokenGenerator: a class-conditional generator of packet series that is exact to the byte and knows its likelihood."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel, prng
from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.generate.token_family import TokenFamily, in_blocks, require_temperature
from jaxtraffic.generate.token_probability import step_log_probs
from jaxtraffic.generate.token_sampling import draw
from jaxtraffic.generate.token_vocabulary import Symbols, Tables
from jaxtraffic.nn.token_ensemble import ensembled
from jaxtraffic.nn.token_net import TokenNet, make_token_net
from jaxtraffic.series import PacketSeries


class TokenGenerator(TokenFamily):
    """Tokens, causal S4 network, parameters and class names of a generator.

    `log_prob` is exact: it is the probability with which `sample` at temperature 1 draws that flow.
    """

    config: TokenConfig

    def _make_net(self, n_symbols: int, n_offsets: int, **options: Any) -> TokenNet:
        sizes = (self.no_class, n_symbols, n_offsets, self.card.length)
        net = make_token_net(self.config.net, *sizes, n_iats=self.vocabulary.n_iats, **options)
        return net if self.config.members == 1 else ensembled(net, self.config.members)

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
        known = self._prefixes(flows, r)
        made, _ = self._draw(
            key, self._labels(labels, len(flows)), self.vocabulary.encode(flows), known, given_flows=flows, **options
        )
        return made if labels is not None else made.replace(label=np.asarray(flows.label, np.int32))

    def _held_out(self, params: Any, flows: PacketSeries, key: jax.Array, mesh: Mesh) -> np.ndarray:
        return -self._steps(params, flows, np.asarray(flows.label, np.int32), mesh).sum(axis=1, dtype=np.float64)

    def _steps(self, params: Any, flows: PacketSeries, labels: np.ndarray, mesh: Mesh | None) -> np.ndarray:
        self._require_length(flows)
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
        require_temperature(temperature)
        arrays = (np.arange(labels.size, dtype=np.int32), labels, given, r)
        first = (prng.stream(key, "sample"), jnp.float32(temperature))
        drawn = in_blocks(sampling_program, self, arrays, first=first, **options)
        known = {"given": given_flows, "r": r}
        made = self.vocabulary.decode(drawn.symbols, drawn.uniform, **self._made("token", labels), **known)
        return made, drawn.log_prob


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
