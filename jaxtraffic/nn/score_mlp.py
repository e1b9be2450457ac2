"""The network of the diffusion estimators of mutual information: a small residual MLP steered by its context.

The peer is the MLP of MINDE (Franzese et al., ICLR 2024, appendix; one residual block, widths 64, 128 and 256 by
dimension, zero-initialised output). Here time and mode scale and shift the normalised features of every block
(adaLN, as in DiT) in place of being added once, and the blocks are gated (SwiGLU, Shazeer 2020): products of features
are what rotations by an angle that depends on the data are made of. Learned sinusoids of the features join the input.
Gates, sinusoids and the soft normalisation were each chosen by the validation loss on the spiral task.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtraffic.nn.functional import functional

PHASE = 1.5
"""Standard deviation, at the start, of the phases of the sinusoids of features of unit size."""


@dataclasses.dataclass(frozen=True)
class ScoreMLPConfig:
    """Sizes of the network."""

    features: int
    """Width of the input."""
    outputs: int
    """Width of the output."""
    context: int
    """Width of the context, beside the embedding of the noise level."""
    width: int = 128
    """Width of the hidden layers."""
    blocks: int = 2
    """Residual blocks: a gated linear layer and a linear one."""
    embedding: int = 32
    """Width of the embedding of the context."""
    frequencies: int = 4
    """Sinusoids of the noise level."""


class ScoreMLP(nnx.Module):
    """(features [n, f], level [n], context [n, c]) -> [n, outputs]; exactly 0 before training."""

    def __init__(self, config: ScoreMLPConfig, rngs: nnx.Rngs):
        self.config = config
        width, embedding = config.width, config.embedding
        self.read_in = nnx.Linear(config.features, width, rngs=rngs)
        spread = nnx.initializers.normal(PHASE / config.features**0.5)
        self.phase = nnx.Linear(config.features, width // 2, kernel_init=spread, rngs=rngs)
        self.read_waves = nnx.Linear(2 * (width // 2), width, rngs=rngs)
        self.embed = nnx.Linear(1 + 2 * config.frequencies + config.context, embedding, rngs=rngs)
        self.mix = nnx.Linear(embedding, embedding, rngs=rngs)
        for i in range(config.blocks):
            setattr(self, f"steer_{i}", nnx.Linear(embedding, 2 * width, rngs=rngs))
            setattr(self, f"inner_{i}", nnx.Linear(width, width, rngs=rngs))
            setattr(self, f"gate_{i}", nnx.Linear(width, width, rngs=rngs))
            setattr(self, f"outer_{i}", nnx.Linear(width, width, rngs=rngs))
        self.steer = nnx.Linear(embedding, 2 * width, rngs=rngs)
        self.read_out = nnx.Linear(width, config.outputs, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, features: jax.Array, level: jax.Array, context: jax.Array) -> jax.Array:
        """The output of a batch.

        Args:
            features: [n, f], of about unit size.
            level: [n] noise level, of about unit size, such as a quarter of the log signal-to-noise ratio.
            context: [n, c] what else steers the network, such as which variable is seen.
        """
        angle = level[:, None] * jnp.asarray(np.pi * 0.5 * 2.0 ** np.arange(self.config.frequencies), jnp.float32)
        known = jnp.concatenate([level[:, None], jnp.sin(angle), jnp.cos(angle), context], axis=1)
        known = jax.nn.silu(self.mix(jax.nn.silu(self.embed(known))))
        phase = self.phase(features)
        waves = self.read_waves(jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=1))
        h = self.read_in(features) + waves
        for i in range(self.config.blocks):
            normal = _steered(h, getattr(self, f"steer_{i}")(known))
            inner = jax.nn.silu(getattr(self, f"inner_{i}")(normal)) * getattr(self, f"gate_{i}")(normal)
            h = h + getattr(self, f"outer_{i}")(inner)
        return self.read_out(jax.nn.silu(_steered(h, self.steer(known))))


def _steered(h: jax.Array, steer: jax.Array) -> jax.Array:
    """Soft normalisation, followed by the scale and shift that the context asks for.

    With 1 in the place of layer normalisation's 1e-5 the size of small inputs survives: a norm that is divided away in
    the first layer is what angles and tails depend on.
    """
    scale, shift = jnp.split(steer, 2, axis=1)
    normal = h * jax.lax.rsqrt((h * h).mean(axis=1, keepdims=True) + 1.0)
    return normal * (1 + scale) + shift


def score_mlp(config: ScoreMLPConfig) -> tuple[Any, Any]:
    """`init(key) -> params` and `apply(params, features, level, context)` of a `ScoreMLP`."""
    return functional(lambda rngs: ScoreMLP(config, rngs))


def default_width(dims: int) -> int:
    """Hidden width for dim_x + dim_y: 64 to 10 dimensions, 128 above (MINDE takes 256 above 50)."""
    return 64 if dims <= 10 else 128
