"""MaskedGenerator: masked diffusion over the tokens of packets, which fills in any packets given any others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel, prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate.masked_config import MaskedConfig
from jaxtraffic.generate.masked_sampling import choose, draw, masked_log_probs
from jaxtraffic.generate.token_family import TokenFamily, in_blocks, require_temperature
from jaxtraffic.generate.token_vocabulary import Symbols, Tables
from jaxtraffic.generate.tokens import END
from jaxtraffic.nn.masked_net import MaskedNet, make_masked_net
from jaxtraffic.series import PacketSeries


class MaskedGenerator(TokenFamily):
    """Tokens, bidirectional S4 network, parameters and class names of a generator.

    It knows a bound of its likelihood only (`elbo`), and no inter-arrival times.
    """

    config: MaskedConfig

    def _make_net(self, n_symbols: int, n_offsets: int, **options: Any) -> MaskedNet:
        return make_masked_net(self.config.net, self.no_class, n_symbols, n_offsets, self.card.length, **options)

    def init(self, key: jax.Array) -> Any:
        """Parameters whose output biases are the log shares of the symbols in training, padding included."""
        params, biases = self.net.init(key), self.vocabulary.biases()
        counts = self.vocabulary.tokeniser.token_counts
        # the tokeniser counts an end once a flow, and here every position after it is asked for as well
        packets = counts.sum() - counts[END]
        padding = max(sum(self.card.class_counts) * self.card.length - packets, 0.1)
        biases["token"][END] += np.log(padding / (counts[END] + 0.1))
        params["token_out"]["bias"] = jnp.asarray(biases["token"])
        params["offset_bias"]["embedding"] = jnp.asarray(biases["offset"])
        return params

    def loss(self, params: Any, batch: dict[str, Any], key: jax.Array) -> jax.Array:
        """Per-flow training loss [flow]: the negative bound in nats, over the mean number of packets of training flows.

        Args:
            params: of the network.
            batch: "symbols" [flow, T] and "label" [flow], from `training_arrays`.
            key: key of the step.
        """
        symbols, label = batch["symbols"], batch["label"]
        batch_size, length = symbols.token.shape
        # One draw for all: every call of a random function adds a second to the compilation on a CPU.
        uniform = jax.random.uniform(prng.stream(key, "mask"), (batch_size, 2 + length))
        shown = jnp.where(uniform[:, 0] < self.config.train.class_dropout, self.no_class, label)
        # All numbers of masked packets, evenly over the batch.
        share = (uniform[0, 1] + jnp.arange(batch_size, dtype=jnp.float32) / batch_size) % 1
        masked, weight = choose(share, uniform[:, 2:])
        steps = masked_log_probs(
            self.net, params, self.tables, symbols, shown, masked, dropout_key=prng.stream(key, "dropout")
        )
        return -weight * steps.sum(axis=1) / batch["packets"]

    def elbo(
        self,
        key: jax.Array,
        flows: PacketSeries,
        labels: np.ndarray | Sequence[int] | None = None,
        *,
        n: int = 16,
        mesh: Mesh | None = None,
    ) -> np.ndarray:
        """Estimates of a lower bound of log p(x | label), or of log p(x) without labels, [flow] float64 nats.

        Their expectation is the bound; an estimate itself may lie above log p. Measured is what `TokenGenerator`
        measures: number of packets and signed sizes.

        Args:
            key: typed key.
            flows: series of the length of training.
            labels: [flow] integers; None hides the label from the network.
            n: masks drawn for each flow, with stratified numbers of masked packets.
            mesh: devices; all of them by default.

        Raises:
            ConfigError: n below 1, a label outside the classes, or no labels where training had no class dropout.
        """
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}")
        return self._bound(self.params, flows, self._labels(labels, len(flows)), key, n, mesh)

    def sample(
        self,
        key: jax.Array,
        labels: np.ndarray | Sequence[int],
        *,
        steps: int | None = None,
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
            steps: passes of the network at most; default: as the config says.
            temperature: above 0; below 1 prefers likely symbols, above 1 unlikely ones.
            mesh: devices; all of them by default.
            block: flows a device samples at a time, the bound of memory.
            report: called with the number of finished flows.

        Returns:
            PacketSeries of len(labels) flows, source "simulated".

        Raises:
            ConfigError: a label outside the classes, a temperature that is not above 0, or steps below 1.
        """
        labels = self._checked(labels, max(np.size(labels), 1))
        nothing = np.zeros((labels.size, self.card.length), np.int32)
        given = Symbols(nothing, nothing, None, nothing.astype(np.float32))
        options = {"steps": steps, "temperature": temperature, "mesh": mesh, "block": block, "report": report}
        return self._draw(key, labels, given, nothing.astype(bool), **options)

    def impute(
        self,
        key: jax.Array,
        flows: PacketSeries,
        known: np.ndarray,
        labels: np.ndarray | Sequence[int] | None = None,
        **options: Any,
    ) -> PacketSeries:
        """Samples the packets of flows that are not known, given those that are.

        Args:
            key: typed key.
            flows: series whose known packets stay as they are (their IATs too; drawn packets have none).
            known: [flow, T] bool; where a flow has no packet, known means that it has ended there.
            labels: [flow] integers; None: the label is not known (needs class dropout in training).
            options: steps, temperature, mesh, block and report of `sample`.

        Returns:
            PacketSeries, source "simulated", with the given labels, or those of `flows` where there are none. No flow
            ends before its last known packet, nor after its first known end.

        Raises:
            ConfigError: `known` of another shape or type, and as in `sample`.
        """
        known = np.asarray(known)
        self._require_length(flows)
        if known.shape != (len(flows), self.card.length) or known.dtype != bool:
            raise ConfigError(
                f"known must be bool [{len(flows)}, {self.card.length}], got {known.dtype} {list(known.shape)}"
            )
        made = self._draw(key, self._labels(labels, len(flows)), self.vocabulary.encode(flows), known, **options)
        fields = ("size", "direction", "iat")
        kept = {name: np.where(known, np.asarray(getattr(flows, name)), getattr(made, name)) for name in fields}
        shown = made.label if labels is not None else np.asarray(flows.label, np.int32)
        return made.replace(**kept, label=shown).check()

    def continue_from(
        self,
        key: jax.Array,
        flows: PacketSeries,
        r: int | np.ndarray,
        labels: np.ndarray | Sequence[int] | None = None,
        **options: Any,
    ) -> PacketSeries:
        """Samples what follows the first r packets of flows, one number or [flow]: `impute` with these known.

        Raises:
            ConfigError: r outside 0..T, and as in `impute`.
        """
        known = np.arange(self.card.length) < self._prefixes(flows, r)[:, None]
        return self.impute(key, flows, known, labels, **options)

    def _held_out(self, params: Any, flows: PacketSeries, key: jax.Array, mesh: Mesh) -> np.ndarray:
        # The same masks each time.
        own = (np.asarray(flows.label, np.int32), prng.stream(key, "validation"), self.config.validation_draws)
        return -self._bound(params, flows, *own, mesh)

    def _bound(
        self, params: Any, flows: PacketSeries, labels: np.ndarray, key: jax.Array, n: int, mesh: Mesh | None
    ) -> np.ndarray:
        self._require_length(flows)
        symbols = self.vocabulary.encode(flows)
        arrays = (np.arange(len(flows), dtype=np.int32), symbols, labels)
        program, first = functools.partial(bound_program, n=n), (prng.stream(key, "bound"),)
        (bound,) = in_blocks(program, self, arrays, params=params, first=first, mesh=mesh)
        return bound + symbols.known.sum(axis=1, dtype=np.float64)

    def _draw(
        self,
        key: jax.Array,
        labels: np.ndarray,
        given: Symbols,
        known: np.ndarray,
        *,
        steps: int | None = None,
        temperature: float = 1.0,
        **options: Any,
    ) -> PacketSeries:
        require_temperature(temperature)
        steps = self.config.steps if steps is None else steps
        if steps < 1:
            raise ConfigError(f"steps must be at least 1, got {steps}")
        arrays = (np.arange(labels.size, dtype=np.int32), labels, given, known)
        first = (prng.stream(key, "sample"), jnp.float32(temperature))
        program = functools.partial(sampling_program, steps=min(steps, self.card.length))
        drawn = in_blocks(program, self, arrays, first=first, **options)
        return self.vocabulary.decode(drawn.symbols, drawn.uniform, **self._made("masked", labels))


@functools.lru_cache(maxsize=16)
def bound_program(generator: MaskedGenerator, mesh: Mesh, *, n: int) -> Any:
    """The jitted bound of a generator over n masks a flow, one per (model, mesh, n)."""

    def run(
        tables: Tables, params: Any, key: jax.Array, index: jax.Array, symbols: Symbols, label: jax.Array
    ) -> tuple[jax.Array]:
        shape = (1 + n * symbols.token.shape[1],)
        uniform = jax.vmap(lambda i: jax.random.uniform(prng.at_step(key, i), shape))(index)
        orders = jnp.moveaxis(uniform[:, 1:].reshape(len(index), n, -1), 1, 0)

        def add(total: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            number, order = xs
            masked, weight = choose((uniform[:, 0] + number) / n, order)
            steps = masked_log_probs(generator.net, params, tables, symbols, label, masked)
            return total + weight * steps.sum(axis=1) / n, None

        start = jnp.zeros(index.shape, jnp.float32)
        return (jax.lax.scan(add, start, (jnp.arange(n, dtype=jnp.float32), orders))[0],)

    return jax.jit(run, out_shardings=parallel.over_data(mesh))


@functools.lru_cache(maxsize=16)
def sampling_program(generator: MaskedGenerator, mesh: Mesh, *, steps: int) -> Any:
    """The jitted `masked_sampling.draw` of a generator, one per (model, mesh, steps)."""

    def run(
        tables: Tables,
        params: Any,
        key: jax.Array,
        temperature: jax.Array,
        index: jax.Array,
        label: jax.Array,
        given: Symbols,
        known: jax.Array,
    ) -> Any:
        return draw(generator.net, params, tables, key, index, label, given, known, temperature, steps)

    return jax.jit(run, out_shardings=parallel.over_data(mesh))
