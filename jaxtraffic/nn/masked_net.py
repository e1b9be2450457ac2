"""A bidirectional network over packet tokens of which some are masked: adaLN-Zero S4 blocks that see both directions.

The causal network's layers and heads (see `token_net`), read differently: packet t is read at t and not at t + 1, a
masked packet has an embedding of its own, and its context has seen every packet that is not masked, before and after.
The number of masked packets is no input: it is in the sequence (Sahoo et al. found the same for text).

Source: masked diffusion after Sahoo et al., "Simple and Effective Masked Diffusion Language Models" (2024).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtraffic.nn.denoiser import modulate
from jaxtraffic.nn.tied import token_functions
from jaxtraffic.nn.token_net import CausalBlock, CausalS4, TokenNetConfig, rows


@dataclasses.dataclass(frozen=True)
class MaskedNetConfig(TokenNetConfig):
    """Architecture of the masked network: the fields of the causal one, whose blocks here see both directions."""


class MaskedNet(NamedTuple):
    """The network as pure functions over a nested dict of float32 arrays.

    Below B is the batch, T the packets, V tokens, O offsets; symbols are int32; token V means "masked" (its offset is
    0), label n_classes means "no label".

    Attributes:
        init: key -> params.
        prepare: (params, label [B]) -> what depends on parameters and labels alone (convolution operators,
            modulations); a scan may close over it.
        contexts: (params, prepared, token [B, T], offset [B, T], dropout_key=None) -> [B, T, width].
        token_logits: (params, context [..., width]) -> [..., V].
        offset_logits: (params, context [..., width], token [...]) -> [..., O], given the packet's own token.
    """

    init: Callable[..., Any]
    prepare: Callable[..., Any]
    contexts: Callable[..., Any]
    token_logits: Callable[..., Any]
    offset_logits: Callable[..., Any]


def make_masked_net(
    config: MaskedNetConfig,
    n_classes: int,
    n_tokens: int,
    n_offsets: int,
    length: int,
    *,
    features: np.ndarray | None = None,
) -> MaskedNet:
    """Builds the functions of the network.

    Args:
        config: architecture.
        n_classes: classes; label n_classes is "no label".
        n_tokens: V; token V is "masked".
        n_offsets: O.
        length: number of packets T.
        features: [V, F] float32, what is known of the tokens (see `nn.tied`); None: nothing.

    Raises:
        ConfigError: sizes below 1, or options that do not fit.
    """
    sizes = {"n_classes": n_classes, "n_tokens": n_tokens, "n_offsets": n_offsets, "length": length}

    def make(rngs: nnx.Rngs) -> MaskedS4:
        return MaskedS4(config.check(), n_classes, n_tokens, n_offsets, length, rngs)

    return token_functions(MaskedNet, make, sizes, features)


class MaskedS4(CausalS4):
    """The module behind `MaskedNet`, whose docstring describes the methods."""

    def __init__(
        self, config: MaskedNetConfig, n_classes: int, n_tokens: int, n_offsets: int, length: int, rngs: nnx.Rngs
    ):
        """Builds the network with the sizes of `make_masked_net`."""
        super().__init__(config, n_classes, n_tokens, n_offsets, length, 0, rngs)
        normal = nnx.initializers.normal(0.5)
        self.token = nnx.Embed(n_tokens + 1, config.width, embedding_init=normal, rngs=rngs)
        self.blocks = nnx.List([CausalBlock(config, bidirectional=True, rngs=rngs) for _ in range(config.blocks)])

    def prepare(self, label: jax.Array) -> Any:
        """Operators and modulations of all blocks, and the last modulation, for labels [B]."""
        condition = self.classes(label)
        modulations = [block.modulations(condition) for block in self.blocks]
        return self._operators(self.length), modulations, jnp.split(self.modulation(nnx.silu(condition)), 2, axis=-1)

    def contexts(
        self, prepared: Any, token: jax.Array, offset: jax.Array, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Contexts [B, T, width] of all packets; see `MaskedNet`."""
        operators, modulations, (shift, scale) = prepared
        x = self._packet(token, offset, None) + self.position(jnp.arange(self.length))
        kept = self._kept(dropout_key, x.shape[0], x.shape[-1])
        for block, own, operator, dropped in zip(self.blocks, modulations, operators, kept, strict=True):
            x = block.convolve(x, own, operator, dropped)
        return modulate(self.norm(x), shift, scale)

    def token_logits(self, context: jax.Array) -> jax.Array:
        """Token logits [..., V] of contexts [..., width]."""
        return rows(self.token_out, context)

    def offset_logits(self, context: jax.Array, token: jax.Array) -> jax.Array:
        """Offset logits [..., O] of contexts [..., width], given the packets' own tokens [...]."""
        return self._offset_logits(context, token)
