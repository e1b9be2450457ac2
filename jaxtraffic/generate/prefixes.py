"""Training on prefixes, so that one denoiser knows the first r packets of a flow for every r."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxtraffic import prng
from jaxtraffic.generate.process import Denoise


def draw_prefixes(key: jax.Array, share: float, batch: int, length: int) -> jax.Array:
    """Numbers of packets [batch] int32 that the flows of a training step keep.

    Args:
        key: of the training step.
        share: probability that a flow is cut; the others keep all packets.
        batch: number of flows.
        length: T.

    Returns:
        T, or floor(T^u) with u uniform: evenly spread on the logarithmic scale, because the first packets tell most.
    """
    own = prng.stream(key, "prefix")
    u = jax.random.uniform(prng.stream(own, "length"), (batch,))
    cut = jnp.clip(jnp.floor(jnp.float32(length) ** u).astype(jnp.int32), 1, length)
    return jnp.where(jax.random.bernoulli(prng.stream(own, "cut"), share, (batch,)), cut, jnp.int32(length))


def on_prefix(denoise: Denoise, packets: jax.Array) -> Denoise:
    """The same denoiser on prefixes: it sees 0 beyond the first packets [batch], and answers 0 there.

    An answer that is constant has no gradient, so a squared error over all positions trains the prefix alone. (What it
    adds to the loss beyond the prefix is a constant, the mean square of the target.)
    """

    def inside(x: jax.Array, told: jax.Array, label: jax.Array) -> jax.Array:
        mask = inside_prefix(packets, x.shape[-1])
        return jnp.where(mask, denoise(jnp.where(mask, x, 0.0), told, label), 0.0)

    return inside


def inside_prefix(packets: jax.Array, length: int) -> jax.Array:
    """Mask of the first packets: [...] integers -> [..., T] bool."""
    return jnp.arange(length, dtype=jnp.int32) < packets[..., None]
