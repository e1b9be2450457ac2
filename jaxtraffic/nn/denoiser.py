"""DDPMS4: the denoiser of the thesis, adaLN-Zero DiT blocks with S4 in place of attention.

Source: Wang, "Toward Automated Augmentation for Traffic Classification" (2025), chapter 8; blocks after Peebles and
Xie, "Scalable Diffusion Models with Transformers" (2023), section 3.2; S4 in a diffusion model after TSDiff (2023).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.functional import functional
from jaxtraffic.nn.s4 import S4
from jaxtraffic.parallel import constrain

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """Architecture of the denoiser; the defaults are the published ones."""

    width: int = 512
    """Channels of every block."""
    blocks: int = 5
    """Number of adaLN-Zero blocks."""
    mlp_ratio: float = 4.0
    """Hidden width of the feed-forward part, in multiples of the width."""
    embedding: int = 128
    """Width of the embedding of diffusion time and class."""
    state: int = 64
    """Real state size N of S4."""
    space: str = "dplr"
    """State space: dplr (S4) or diag-lin, diag-inv, diag-legs, diag-real (S4D)."""
    method: str = "bilinear"
    """Discretisation: bilinear or zoh (diagonal only)."""
    bidirectional: bool = True
    """Let every packet see later packets too."""
    dt_min: float = 1e-3
    """Smallest initial step; 1 / dt is the memory length in packets."""
    dt_max: float = 1e-1
    """Largest initial step."""
    glu: bool = True
    """Gated output of the S4 layer (a linear map to twice the width, then GLU) instead of a plain linear one."""
    position_embedding: bool = False
    """Add a learned embedding of the packet position (not in the thesis)."""
    precision: str = "float32"
    """Precision of the matrix products: float32 or bfloat16. Parameters stay float32."""


def sinusoid(t: jax.Array, width: int) -> jax.Array:
    """Sinusoidal embedding of diffusion time t [n] (in steps, real-valued) -> [n, width] float32."""
    frequency = jnp.asarray(np.exp(-np.log(1e4) * np.arange(width // 2) / (width // 2)), jnp.float32)
    angle = t.astype(jnp.float32)[:, None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """x [batch, L, width] scaled by 1 + scale and shifted, both [batch, width]."""
    return x * (1 + scale[:, None]) + shift[:, None]


class Block(nnx.Module):
    """One adaLN-Zero block: gated residual S4 mixing over packets, then a gated residual feed-forward part."""

    def __init__(self, config: DenoiserConfig, *, rngs: nnx.Rngs):
        """Builds the block; it starts as the identity because its gates start at 0."""
        dtype, width = PRECISIONS[config.precision], config.width
        hidden = int(round(config.mlp_ratio * width))
        self.glu = config.glu
        norm = {"use_bias": False, "use_scale": False, "dtype": jnp.float32, "rngs": rngs}
        self.norm1, self.norm2 = nnx.LayerNorm(width, **norm), nnx.LayerNorm(width, **norm)
        self.s4 = S4(
            width,
            state=config.state,
            space=config.space,
            method=config.method,
            bidirectional=config.bidirectional,
            dt_min=config.dt_min,
            dt_max=config.dt_max,
            rngs=rngs,
        )
        self.mix = nnx.Linear(width, 2 * width if config.glu else width, dtype=dtype, rngs=rngs)
        self.up = nnx.Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(hidden, width, dtype=dtype, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.modulation = nnx.Linear(config.embedding, 6 * width, kernel_init=zeros, bias_init=zeros, rngs=rngs)
        self.dtype = dtype

    def __call__(self, x: jax.Array, condition: jax.Array, operator: jax.Array) -> jax.Array:
        """x [batch, L, width], condition [batch, embedding] -> [batch, L, width]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(self.modulation(nnx.silu(condition)), 6, axis=-1)
        mixed = self.s4(modulate(self.norm1(x), shift1, scale1).astype(self.dtype), operator)
        mixed = _linear(self.mix, nnx.gelu(mixed))
        x = x + gate1[:, None] * (nnx.glu(mixed) if self.glu else mixed).astype(x.dtype)
        hidden = nnx.gelu(_linear(self.up, modulate(self.norm2(x), shift2, scale2).astype(self.dtype)))
        return x + gate2[:, None] * _linear(self.down, hidden).astype(x.dtype)


def _linear(layer: nnx.Linear, x: jax.Array) -> jax.Array:
    """A linear map over the last axis as one 2-D product; on a "channel" mesh each device makes its own outputs."""
    x = constrain(x, "data", None, None)
    batch, length, width = x.shape
    y = layer(x.reshape(batch * length, width)).reshape(batch, length, -1)
    return constrain(y, "data", None, "channel")


class DDPMS4(nnx.Module):
    """Class-conditional denoiser of scaled series.

    Call it in three parts, so that a sampler does each no more often than needed: `operators(L)` once per parameters,
    `embed_time(t)` once per schedule, and the network itself once per step.
    """

    def __init__(self, config: DenoiserConfig, n_classes: int, length: int, *, rngs: nnx.Rngs):
        """Builds the network for series of `length` packets; class index n_classes is "no class" (guidance)."""
        if config.precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {config.precision!r}; choose from {', '.join(PRECISIONS)}")
        self.embedding = config.embedding
        self.project = nnx.Linear(1, config.width, rngs=rngs)
        self.position = nnx.data(None)
        if config.position_embedding:
            self.position = nnx.Param(jax.random.normal(rngs.params(), (length, config.width)) * 0.02)
        self.time1 = nnx.Linear(config.embedding, config.embedding, rngs=rngs)
        self.time2 = nnx.Linear(config.embedding, config.embedding, rngs=rngs)
        # Unit variance, as torch's embeddings start: classes are told apart from the first step on.
        normal = nnx.initializers.normal(1.0)
        self.classes = nnx.Embed(n_classes + 1, config.embedding, embedding_init=normal, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.blocks)])
        zeros = nnx.initializers.zeros_init()
        norm = {"use_bias": False, "use_scale": False, "dtype": jnp.float32, "rngs": rngs}
        self.norm = nnx.LayerNorm(config.width, **norm)
        self.modulation = nnx.Linear(config.embedding, 2 * config.width, kernel_init=zeros, bias_init=zeros, rngs=rngs)
        self.out = nnx.Linear(config.width, 1, kernel_init=zeros, bias_init=zeros, rngs=rngs)

    def operators(self, length: int) -> tuple[jax.Array, ...]:
        """Convolution operators of all blocks for series of static length L."""
        return tuple(block.s4.operator(length) for block in self.blocks)

    def embed_time(self, t: jax.Array) -> jax.Array:
        """Diffusion times t [n] in steps -> [n, embedding]."""
        return self.time2(nnx.silu(self.time1(sinusoid(t, self.embedding))))

    def embed_class(self, label: jax.Array) -> jax.Array:
        """Labels [batch] int32, n_classes = none -> [batch, embedding]."""
        return self.classes(label)

    def __call__(self, x: jax.Array, condition: jax.Array, operators: tuple[jax.Array, ...]) -> jax.Array:
        """Predicts from noisy series.

        Args:
            x: [batch, L] float32, noisy scaled series.
            condition: [batch, embedding], time embedding plus class embedding.
            operators: from `operators(L)`.

        Returns:
            [batch, L] float32: the noise or the velocity, whichever the model was trained for.
        """
        hidden = self.project(x[..., None])
        if self.position is not None:
            hidden = hidden + self.position[...]
        hidden = nnx.silu(hidden)
        for block, operator in zip(self.blocks, operators, strict=True):
            hidden = block(hidden, condition, operator)
        shift, scale = jnp.split(self.modulation(nnx.silu(condition)), 2, axis=-1)
        hidden = modulate(self.norm(hidden), shift, scale)
        batch, length, width = hidden.shape
        return self.out(hidden.reshape(batch * length, width)).reshape(batch, length)


def make_denoiser(config: DenoiserConfig, n_classes: int, length: int) -> tuple[Any, Any]:
    """`init(key) -> params` and `apply(params, *args, method=...)` of a DDPMS4 (see `functional`)."""
    return functional(lambda rngs: DDPMS4(config, n_classes, length, rngs=rngs))


def is_state_space(path: tuple[Any, ...]) -> bool:
    """True for parameter paths inside an S4 layer, which take a smaller step and no weight decay."""
    return any(getattr(part, "key", None) == "s4" for part in path)
