"""A causal network over packet tokens: adaLN-Zero S4 blocks, as a convolution for training and a recurrence to sample.

A packet is up to three symbols, in this order: token (an exact signed size, a bin of sizes, or the end of the flow),
offset (which value of the bin), and, where inter-arrival times (IATs) are modelled, the symbol of its IAT. The context
of packet t is what a causal stack makes of the packets before t and of the label; three heads read it: the token from
the context alone, the offset from context and token, the IAT symbol from context, token and offset. Their product over
the packets is the probability of the flow, by the chain rule.

Source: S4 in both forms after Gu et al. (2022); blocks after Peebles and Xie, "Scalable Diffusion Models with
Transformers" (2023), section 3.2; dropout masks tied over packets after Gal and Ghahramani (2016).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn import convolution, ssm
from jaxtraffic.nn.denoiser import PRECISIONS, Block, DenoiserConfig, modulate
from jaxtraffic.nn.tied import token_functions


@dataclasses.dataclass(frozen=True)
class TokenNetConfig:
    """Architecture of the token network; the defaults are sized for thousands of flows on a CPU."""

    width: int = 96
    """Channels of every block."""
    blocks: int = 3
    """Number of causal adaLN-Zero blocks."""
    mlp_ratio: float = 2.0
    """Hidden width of the feed-forward part, in multiples of the width."""
    embedding: int = 64
    """Width of the embedding of the class."""
    head: int = 64
    """Hidden width of the heads that read the context together with earlier symbols of the same packet."""
    state: int = 16
    """Real state size N of S4; flows have tens of packets."""
    space: str = "dplr"
    """State space: dplr (S4) or diag-lin, diag-inv, diag-legs, diag-real (S4D)."""
    method: str = "bilinear"
    """Discretisation: bilinear or zoh (diagonal only)."""
    dt_min: float = 1e-2
    """Smallest initial step; 1 / dt is the memory length in packets."""
    dt_max: float = 1.0
    """Largest initial step."""
    glu: bool = True
    """Gated output of the S4 layer instead of a plain linear one."""
    dropout: float = 0.1
    """Probability of dropping a channel of a block's two branches, for all packets of a flow alike."""
    precision: str = "float32"
    """Precision of the matrix products: float32 or bfloat16. Parameters stay float32."""

    def check(self) -> TokenNetConfig:
        """Returns itself, or raises ConfigError for values that cannot work."""
        for name in ("width", "blocks", "embedding", "head"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {self.precision!r}; choose from {', '.join(PRECISIONS)}")
        return self


class TokenState(NamedTuple):
    """Where the recurrence stands between two packets.

    Attributes:
        context: [batch, width] float32, what the heads of the next packet read.
        layers: one a block, for a batch of flows.
        position: [] int32, packets consumed.
        fixed: what depends on parameters and labels alone (modulations, discretised state spaces); a scan may close
            over it and carry the rest.
    """

    context: jax.Array
    layers: tuple[ssm.Pair, ...]
    position: jax.Array
    fixed: Any


class TokenNet(NamedTuple):
    """The network as pure functions over a nested dict of float32 arrays.

    Below B is the batch, T the packets, V tokens, O offsets, W IAT symbols; symbols are int32; label n_classes means
    "no label". `iat` is None where the net was made with n_iats = 0.

    Attributes:
        init: key -> params.
        contexts: (params, token [B, T], offset [B, T], label [B], iat=None, dropout_key=None) -> [B, T, width]; entry t
            has seen the packets before t only.
        heads: (params, context [..., width], token [...], offset [...]) -> token logits [..., V], offset logits
            [..., O], IAT logits [..., W] or None, all of one packet, given its own earlier symbols.
        logits: (params, token, offset, label, iat=None, dropout_key=None) -> token logits [B, T, V], offset logits
            [B, T, O]: the convolution form.
        iat_logits: as `logits` -> IAT logits [B, T, W].
        start: (params, label [B]) -> TokenState before the first packet.
        step: (params, state, token [B], offset [B], iat=None) -> (state, token logits [B, V] of the next packet): the
            recurrent form.
        token_logits_at: (params, state) -> [B, V], of the next packet.
        offset_logits_at: (params, state, token [B]) -> [B, O], of the next packet given its token.
        iat_logits_at: (params, state, token [B], offset [B]) -> [B, W], of the next packet given token and offset.
    """

    init: Callable[..., Any]
    contexts: Callable[..., Any]
    heads: Callable[..., Any]
    logits: Callable[..., Any]
    iat_logits: Callable[..., Any]
    start: Callable[..., Any]
    step: Callable[..., Any]
    token_logits_at: Callable[..., Any]
    offset_logits_at: Callable[..., Any]
    iat_logits_at: Callable[..., Any]


def make_token_net(
    config: TokenNetConfig,
    n_classes: int,
    n_tokens: int,
    n_offsets: int,
    length: int,
    *,
    n_iats: int = 0,
    features: np.ndarray | None = None,
) -> TokenNet:
    """Builds the functions of the network.

    Args:
        config: architecture.
        n_classes: classes; label n_classes is "no label".
        n_tokens: V.
        n_offsets: O.
        length: largest number of packets T.
        n_iats: W; 0 models no IATs.
        features: [V, F] float32, what is known of the tokens (see `nn.tied`); None: nothing.

    Raises:
        ConfigError: sizes below 1, or options that do not fit.
    """
    sizes = {"n_classes": n_classes, "n_tokens": n_tokens, "n_offsets": n_offsets, "length": length}
    if n_iats < 0:
        raise ConfigError(f"n_iats must not be negative, got {n_iats}")

    def make(rngs: nnx.Rngs) -> CausalS4:
        return CausalS4(config.check(), n_classes, n_tokens, n_offsets, length, n_iats, rngs)

    return token_functions(TokenNet, make, sizes, features)


class CausalBlock(Block):
    """The denoiser's block with a causal S4 layer, dropout, and a form that takes one packet at a time.

    Bidirectional, it has the convolution form only.
    """

    def __init__(self, config: TokenNetConfig, *, bidirectional: bool = False, rngs: nnx.Rngs):
        """Builds the block; it starts as the identity because its gates start at 0."""
        shared = {f.name for f in dataclasses.fields(DenoiserConfig)} & {f.name for f in dataclasses.fields(config)}
        own = {name: getattr(config, name) for name in shared}
        super().__init__(DenoiserConfig(**own, bidirectional=bidirectional), rngs=rngs)

    def modulations(self, condition: jax.Array) -> tuple[jax.Array, ...]:
        """Shifts, scales and gates, six [batch, width], of a condition [batch, embedding]."""
        return tuple(jnp.split(self.modulation(nnx.silu(condition)), 6, axis=-1))

    def convolve(
        self,
        x: jax.Array,
        modulations: tuple[jax.Array, ...],
        operator: jax.Array,
        kept: tuple[jax.Array, jax.Array] | None,
    ) -> jax.Array:
        """All packets at once: x [batch, T, width] -> [batch, T, width].

        `kept` are two [batch, width] float32, what dropout multiplies the channels of the two branches by.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = modulations
        if kept is not None:
            # a branch is scaled by its gate: dropped there, a channel costs one number a flow and no pass over packets
            gate1, gate2 = gate1 * kept[0], gate2 * kept[1]
        mixed = self.s4(modulate(self.norm1(x), shift1, scale1).astype(self.dtype), operator)
        x = x + gate1[:, None] * self._mixed(mixed)
        return x + gate2[:, None] * self._fed_forward(modulate(self.norm2(x), shift2, scale2))

    def advance(
        self, x: jax.Array, modulations: tuple[jax.Array, ...], bank: ssm.Recurrence, state: ssm.Pair
    ) -> tuple[ssm.Pair, jax.Array]:
        """One packet: x [batch, width] -> (state, x)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulations
        u = self.norm1(x) * (1 + scale1) + shift1
        state, y = ssm.step(bank, state, u)
        x = x + gate1 * self._mixed((y + self.s4.d[...] * u).astype(self.dtype))
        return state, x + gate2 * self._fed_forward(self.norm2(x) * (1 + scale2) + shift2)

    def _mixed(self, y: jax.Array) -> jax.Array:
        mixed = rows(self.mix, nnx.gelu(y))
        return (nnx.glu(mixed) if self.glu else mixed).astype(jnp.float32)

    def _fed_forward(self, x: jax.Array) -> jax.Array:
        return rows(self.down, nnx.gelu(rows(self.up, x.astype(self.dtype)))).astype(jnp.float32)


class CausalS4(nnx.Module):
    """The module behind `TokenNet`, whose docstring describes the methods."""

    def __init__(
        self,
        config: TokenNetConfig,
        n_classes: int,
        n_tokens: int,
        n_offsets: int,
        length: int,
        n_iats: int,
        rngs: nnx.Rngs,
    ):
        """Builds the network with the sizes of `make_token_net`."""
        width, head = config.width, config.head

        def embed(n: int, features: int, scale: float) -> nnx.Embed:
            return nnx.Embed(n, features, embedding_init=nnx.initializers.normal(scale), rngs=rngs)

        self.length, self.n_iats, self.dropout, self._method = length, n_iats, config.dropout, config.method
        self.token, self.offset = embed(n_tokens, width, 0.5), embed(n_offsets, width, 0.5)
        self.position = embed(length, width, 0.1)
        self.classes = embed(n_classes + 1, config.embedding, 1.0)
        self.blocks = nnx.List([CausalBlock(config, rngs=rngs) for _ in range(config.blocks)])
        zeros = nnx.initializers.zeros_init()
        self.norm = nnx.LayerNorm(width, use_bias=False, use_scale=False, dtype=jnp.float32, rngs=rngs)
        self.modulation = nnx.Linear(config.embedding, 2 * width, kernel_init=zeros, bias_init=zeros, rngs=rngs)
        self.token_out = nnx.Linear(width, n_tokens, kernel_init=nnx.initializers.normal(0.02), rngs=rngs)
        self.offset_in, self.offset_token = nnx.Linear(width, head, rngs=rngs), embed(n_tokens, head, 0.5)
        self.offset_out = nnx.Linear(head, n_offsets, kernel_init=zeros, rngs=rngs)
        self.offset_bias = embed(n_tokens, n_offsets, 0.0)
        self.iat = nnx.data(None)
        if n_iats:
            self.iat = embed(n_iats, width, 0.5)
            self.iat_in, self.iat_token = nnx.Linear(width, head, rngs=rngs), embed(n_tokens, head, 0.5)
            self.iat_offset, self.iat_out = embed(n_offsets, head, 0.5), nnx.Linear(head, n_iats, rngs=rngs)

    def contexts(
        self,
        token: jax.Array,
        offset: jax.Array,
        label: jax.Array,
        iat: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Contexts [B, T, width] of all packets; see `TokenNet`."""
        length = token.shape[1]
        condition = self.classes(label)
        inputs = self._packet(token, offset, iat)
        # Packet t is read at t + 1; the first context has read nothing but its position and the label.
        x = jnp.pad(inputs[:, :-1], ((0, 0), (1, 0), (0, 0))) + self.position(jnp.arange(length))
        kept = self._kept(dropout_key, x.shape[0], x.shape[-1])
        for block, operator, own in zip(self.blocks, self._operators(length), kept, strict=True):
            x = block.convolve(x, block.modulations(condition), operator, own)
        shift, scale = jnp.split(self.modulation(nnx.silu(condition)), 2, axis=-1)
        return modulate(self.norm(x), shift, scale)

    def heads(
        self, context: jax.Array, token: jax.Array, offset: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Logits of token, offset and IAT of packets; see `TokenNet`."""
        iats = self._iat_logits(context, token, offset) if self.n_iats else None
        return rows(self.token_out, context), self._offset_logits(context, token), iats

    def logits(
        self,
        token: jax.Array,
        offset: jax.Array,
        label: jax.Array,
        iat: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Token and offset logits of all packets; see `TokenNet`."""
        context = self.contexts(token, offset, label, iat, dropout_key)
        return rows(self.token_out, context), self._offset_logits(context, token)

    def iat_logits(
        self,
        token: jax.Array,
        offset: jax.Array,
        label: jax.Array,
        iat: jax.Array,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """IAT logits of all packets; see `TokenNet`."""
        return self._iat_logits(self.contexts(token, offset, label, iat, dropout_key), token, offset)

    def start(self, label: jax.Array) -> TokenState:
        """The state before the first packet of flows with these labels [B]."""
        condition = self.classes(label)
        fixed = (
            tuple(block.modulations(condition) for block in self.blocks),
            tuple(jnp.split(self.modulation(nnx.silu(condition)), 2, axis=-1)),
            self._recurrences(),
        )
        layers = tuple(ssm.initial_state(bank, label.shape[0]) for bank in fixed[2])
        empty = jnp.zeros((label.shape[0], self.token.features), jnp.float32)
        return self._advance(TokenState(empty, layers, jnp.int32(0), fixed), empty)

    def step(
        self, state: TokenState, token: jax.Array, offset: jax.Array, iat: jax.Array | None = None
    ) -> tuple[TokenState, jax.Array]:
        """Consumes one packet; see `TokenNet`."""
        state = self._advance(state._replace(position=state.position + 1), self._packet(token, offset, iat))
        return state, self.token_logits_at(state)

    def token_logits_at(self, state: TokenState) -> jax.Array:
        """Token logits [B, V] of the next packet."""
        return rows(self.token_out, state.context)

    def offset_logits_at(self, state: TokenState, token: jax.Array) -> jax.Array:
        """Offset logits [B, O] of the next packet, given its token [B]."""
        return self._offset_logits(state.context, token)

    def iat_logits_at(self, state: TokenState, token: jax.Array, offset: jax.Array) -> jax.Array:
        """IAT logits [B, W] of the next packet, given its token and offset [B]."""
        return self._iat_logits(state.context, token, offset)

    def _advance(self, state: TokenState, x: jax.Array) -> TokenState:
        modulations, (shift, scale), banks = state.fixed
        # After the last packet there is no next position; what the state says then is never read.
        x = x + self.position(jnp.minimum(state.position, self.length - 1))
        layers = []
        for block, own, bank, layer in zip(self.blocks, modulations, banks, state.layers, strict=True):
            layer, x = block.advance(x, own, bank, layer)
            layers.append(layer)
        return state._replace(context=self.norm(x) * (1 + scale) + shift, layers=tuple(layers))

    def _banks(self) -> ssm.Ssm:
        """The state spaces of all blocks as one bank: its channels are independent, and one is compiled faster."""
        banks = [block.s4.parameters() for block in self.blocks]
        joined = {
            name: jnp.concatenate([getattr(bank, name) for bank in banks], axis=1 if name == "c" else 0)
            for name in ssm.Ssm._fields
            if getattr(banks[0], name) is not None
        }
        return ssm.Ssm(**joined)

    def _operators(self, length: int) -> list[jax.Array]:
        kernels = jnp.split(ssm.kernel(self._banks(), length, method=self._method), len(self.blocks), axis=1)
        return [convolution.operator(kernel) for kernel in kernels]

    def _recurrences(self) -> tuple[ssm.Recurrence, ...]:
        leaves, tree = jax.tree.flatten(ssm.recurrence(ssm.discretise(self._banks(), self._method)))
        parts = zip(*(jnp.split(leaf, len(self.blocks), axis=-1) for leaf in leaves), strict=True)
        return tuple(jax.tree.unflatten(tree, part) for part in parts)

    def _kept(self, key: jax.Array | None, batch: int, width: int) -> list[tuple[jax.Array, jax.Array] | None]:
        """Dropout of each block's branches."""
        n = len(self.blocks)
        if key is None or not self.dropout:
            return [None] * n
        kept = jax.random.bernoulli(key, 1 - self.dropout, (n, 2, batch, width)).astype(jnp.float32)
        kept = kept / (1 - self.dropout)
        return [(kept[number, 0], kept[number, 1]) for number in range(n)]

    def _packet(self, token: jax.Array, offset: jax.Array, iat: jax.Array | None) -> jax.Array:
        x = self.token(token) + self.offset(offset)
        return x if not self.n_iats else x + self.iat(iat)

    def _offset_logits(self, context: jax.Array, token: jax.Array) -> jax.Array:
        hidden = nnx.gelu(rows(self.offset_in, context) + self.offset_token(token))
        return rows(self.offset_out, hidden) + self.offset_bias(token)

    def _iat_logits(self, context: jax.Array, token: jax.Array, offset: jax.Array) -> jax.Array:
        hidden = rows(self.iat_in, context) + self.iat_token(token) + self.iat_offset(offset)
        return rows(self.iat_out, nnx.gelu(hidden))


def rows(layer: nnx.Linear, x: jax.Array) -> jax.Array:
    """A linear map over the last axis as one 2-D product."""
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], layer.out_features)
