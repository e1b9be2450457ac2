"""Batch normalisation as a pure function: the running statistics go in and come out.

Source: Ioffe and Szegedy (2015); constants and running statistics as torch.nn.BatchNorm1d.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

EPSILON = 1e-5
MOMENTUM = 0.1
"""Weight of the newest batch in the running statistics."""


def batch_norm(
    x: jax.Array, scale: jax.Array, shift: jax.Array, running: dict[str, jax.Array], *, train: bool
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Normalises every channel over all other axes.

    The statistics are plain means over the batch: where it is sharded over devices, XLA inserts the collective, and
    the statistics are those of the whole batch.

    Args:
        x: [B, L, C] float32.
        scale: [C].
        shift: [C].
        running: running "mean" and (unbiased) "variance" [C].
        train: take (and record) the statistics of the batch; else those in `running`.

    Returns:
        The normalised x and the running statistics after this batch.
    """
    mean, variance, axes = running["mean"], running["variance"], tuple(range(x.ndim - 1))
    if train:
        count = x.size // x.shape[-1]
        # One pass over x. The running mean, a constant here, takes most of the offset away, which would cost digits;
        # rounding may still leave a tiny negative number where a channel is constant.
        centre = running["mean"]
        offset = (x - centre).mean(axes)
        mean = centre + offset
        variance = jnp.maximum(jnp.square(x - centre).mean(axes) - offset * offset, 0.0)
        unbiased = variance * (count / max(count - 1, 1))
        running = {
            "mean": (1 - MOMENTUM) * running["mean"] + MOMENTUM * jax.lax.stop_gradient(mean),
            "variance": (1 - MOMENTUM) * running["variance"] + MOMENTUM * jax.lax.stop_gradient(unbiased),
        }
    factor = scale * jax.lax.rsqrt(variance + EPSILON)
    return x * factor + (shift - mean * factor), running


def fresh_statistics(channels: int) -> dict[str, jax.Array]:
    """Running statistics before the first batch: mean 0, variance 1."""
    return {"mean": jnp.zeros(channels, jnp.float32), "variance": jnp.ones(channels, jnp.float32)}
