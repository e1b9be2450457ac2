"""Convolutions over packets written as one 2-D matrix product, for small dense kernels.

XLA's convolution is as fast in a single call on a CPU, but inside a loop of steps it made training 9 to 22 times
slower there, and `jax.vmap` over parameters turns it into a grouped convolution, which was slower still
(benchmarks/campaign.py, part convolutions). Here vmap gives a batched matrix product.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def out_length(length: int, stride: int) -> int:
    """Positions that a convolution of odd kernel and "same" padding leaves of `length` ones."""
    return (length - 1) // stride + 1


def dense_convolution(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Cross-correlation over the middle axis, with K // 2 zeros of padding on either side (K odd) and no bias.

    Args:
        x: [B, L, C].
        kernel: [K, C, O].
        stride: distance of neighbouring outputs, in positions.

    Returns:
        [B, (L - 1) // stride + 1, O], as torch's Conv1d with padding K // 2.
    """
    taps, channels, outputs = kernel.shape
    batch, length, _ = x.shape
    kept = out_length(length, stride)
    if taps == 1:
        columns = x[:, ::stride]
    else:
        padded = jnp.pad(x, ((0, 0), (taps // 2, taps // 2), (0, 0)))
        last = stride * (kept - 1) + 1
        columns = jnp.concatenate([padded[:, k : k + last : stride] for k in range(taps)], axis=-1)
    flat = columns.reshape(batch * kept, taps * channels) @ kernel.reshape(taps * channels, outputs)
    return flat.reshape(batch, kept, outputs)
