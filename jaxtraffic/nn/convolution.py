"""Convolution of series with state-space kernels: a Toeplitz matrix for short series, FFT for long ones.

`operator` does everything that depends on the kernel alone, so that a sampler can run it once outside its scan;
`convolve` applies it. A bidirectional kernel follows the peers' wiring (state-spaces, TSDiff, SSSD): the causal
kernel k0 acts at lags 0, 1, ... and the anti-causal k1 at lags -1, -2, ...: T[i, j] = k0[i - j] if i >= j else
k1[j - i - 1].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxtraffic.errors import ConfigError

TOEPLITZ_MAX_LENGTH = 100
"""Largest L for which the Toeplitz product is taken; measured by benchmarks/s4_kernel.py, see the README."""


def _lag_cycle(kernel: jax.Array) -> jax.Array:
    """One period of 2 L taps [channel, 2 L], g[s mod 2 L] = tap from input j to output i = j - s."""
    directions, channels, length = kernel.shape
    causal = kernel[0]
    gap = jnp.zeros((channels, 1), kernel.dtype)
    future = kernel[1, :, : length - 1] if directions == 2 else jnp.zeros((channels, length - 1), kernel.dtype)
    return jnp.concatenate([causal[:, :1], future, gap, causal[:, :0:-1]], axis=1)


def toeplitz(kernel: jax.Array) -> jax.Array:
    """Materialises the operator: kernel [direction, channel, L] -> [channel, L, L], row i = output position i."""
    _, channels, length = kernel.shape
    period = 2 * length
    # A cycle of taps, repeated and cut one short of its period, moves right by one place a row: no gather, and so no
    # scatter in the gradient.
    tiled = jnp.broadcast_to(_lag_cycle(kernel)[:, None], (channels, length, period)).reshape(channels, -1)
    return tiled[:, : length * (period - 1)].reshape(channels, length, period - 1)[:, :, :length]


def spectrum(kernel: jax.Array) -> jax.Array:
    """Transfer function of the operator: kernel [direction, channel, L] -> [channel, L + 1] complex64."""
    cycle = _lag_cycle(kernel).astype(jnp.float32)
    taps = jnp.concatenate([cycle[:, :1], cycle[:, :0:-1]], axis=1)
    return jnp.fft.rfft(taps, axis=-1)


def operator(kernel: jax.Array, method: str = "auto") -> jax.Array:
    """What `convolve` needs of a kernel [direction, channel, L]: real [channel, L, L] or complex [channel, L + 1].

    Args:
        kernel: causal (1 direction) or bidirectional (2) kernels, float32.
        method: "toeplitz", "fft", or "auto" by the static length.
    """
    if method == "auto":
        method = "toeplitz" if kernel.shape[-1] <= TOEPLITZ_MAX_LENGTH else "fft"
    if method == "toeplitz":
        return toeplitz(kernel)
    if method == "fft":
        return spectrum(kernel)
    raise ConfigError(f'unknown convolution {method!r}; choose "auto", "toeplitz" or "fft"')


def convolve(operator: jax.Array, u: jax.Array) -> jax.Array:
    """Applies an operator to series u [batch, L, channel]; the result has the shape and dtype of u."""
    if jnp.iscomplexobj(operator):
        length = u.shape[1]
        # FFTs exist in float32 only; bfloat16 series are cast for the round trip.
        transformed = jnp.fft.rfft(u.astype(jnp.float32), n=2 * length, axis=1)
        full = jnp.fft.irfft(transformed * operator.T[None], n=2 * length, axis=1)
        return full[:, :length].astype(u.dtype)
    return jnp.einsum("hij,bjh->bih", operator.astype(u.dtype), u)
