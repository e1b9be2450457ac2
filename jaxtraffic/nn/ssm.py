"""Structured state spaces: discretisation, convolution kernels and the recurrent step, from real parameter leaves.

A channel is s' = A s + B u, y = 2 Re(C s) over the half of the conjugate pairs (the other half is implied). A is
diagonal (S4D) or diagonal minus low rank (S4, "DPLR"): A = diag(lambda) - p p*. With the implied half, p* s is the
real number 2 Re(sum conj(p) s), so that every O(N) identity below stays within the half.

Source: Gu et al., S4 (2022), appendix C; Gu et al., S4D (2022), section 3. Complex numbers exist inside these
functions only; parameters and their gradients are real.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtraffic.errors import ConfigError

POWERS_MAX_LENGTH = 1024
"""Up to this length the DPLR kernel is built by powers; above, by its generating function (benchmarks/s4_kernel.py)."""


class Ssm(NamedTuple):
    """One bank of state spaces, one a channel; real leaves.

    Attributes:
        log_neg_re: [channel, n] log of minus the real part of lambda.
        im: [channel, n] imaginary part of lambda.
        b: [channel, n, 2] real and imaginary part of B.
        c: [direction, channel, n, 2] real and imaginary part of C; direction 0 is causal, 1 anti-causal.
        log_dt: [channel] log of the step.
        p: [channel, n, 2] low-rank vector, or None for a diagonal A.
    """

    log_neg_re: jax.Array
    im: jax.Array
    b: jax.Array
    c: jax.Array
    log_dt: jax.Array
    p: jax.Array | None = None


class Discrete(NamedTuple):
    """The discretised recurrence s_l = A s_(l-1) + B u_l, y_l = 2 Re(C s_l), A = diag(a) - q (r* .).

    Attributes:
        a: [channel, n] complex diagonal.
        b: [channel, n] complex input vector.
        c: [direction, channel, n] complex output vector.
        q: [channel, n] complex left low-rank vector, or None.
        r: [channel, n] complex right low-rank vector, or None; r* s stands for 2 Re(sum conj(r) s).
    """

    a: jax.Array
    b: jax.Array
    c: jax.Array
    q: jax.Array | None = None
    r: jax.Array | None = None


def eigenvalue(ssm: Ssm) -> jax.Array:
    """Lambda [channel, n] complex64; the real part is negative by construction."""
    return jax.lax.complex(-jnp.exp(ssm.log_neg_re), ssm.im)


def _complex(pair: jax.Array) -> jax.Array:
    return jax.lax.complex(pair[..., 0], pair[..., 1])


def _real_inner(u: jax.Array, v: jax.Array) -> jax.Array:
    """u* v over both halves: 2 Re(sum conj(u) v) over the last axis, kept as a complex axis of size 1."""
    return _promote(2 * jnp.sum(u.real * v.real + u.imag * v.imag, axis=-1, keepdims=True))


def _promote(x: jax.Array) -> jax.Array:
    """A real array as a complex one, said aloud because strict dtype promotion forbids it in silence."""
    return x.astype(jnp.complex64)


def discretise(ssm: Ssm, method: str) -> Discrete:
    """Discretises by "bilinear" (either A) or "zoh" (diagonal A only).

    Bilinear: (I - d/2 A)^-1 (I + d/2 A). With D = (1 - d/2 lambda)^-1 and Woodbury's identity,
    (I - d/2 A)^-1 = D - g D p (D* p)*, g = d/2 / (1 + d/2 p* D p), and (I - d/2 A)^-1 (I + d/2 A) = 2 (.)^-1 - I.

    Raises:
        ConfigError: unknown method, or "zoh" with a low-rank term (its exponential is dense).
    """
    lam, b, c = eigenvalue(ssm), _complex(ssm.b), _complex(ssm.c)
    dt = _promote(jnp.exp(ssm.log_dt)[:, None])
    if method == "zoh":
        if ssm.p is not None:
            raise ConfigError('discretisation "zoh" needs a diagonal state matrix; use "bilinear" for DPLR')
        # (exp(z) - 1) / z times d: lambda is never 0 because its real part is strictly negative.
        a = jnp.exp(lam * dt)
        return Discrete(a, (a - 1) / lam * b, c)
    if method != "bilinear":
        raise ConfigError(f'unknown discretisation {method!r}; choose "bilinear" or "zoh"')
    half = 0.5 * dt
    inverse = 1 / (1 - half * lam)
    if ssm.p is None:
        return Discrete(inverse * (1 + half * lam), dt * inverse * b, c)
    p = _complex(ssm.p)
    q = inverse * p
    r = jnp.conj(inverse) * p
    gain = half / (1 + half * _real_inner(p, q))
    b_bar = dt * (inverse * b - gain * q * _real_inner(r, b))
    # 2 inverse - 1 == inverse (1 + half lam), without the cancellation of the difference.
    return Discrete(inverse * (1 + half * lam), b_bar, c, 2 * gain * q, r)


def advance(ssm: Discrete, state: jax.Array) -> jax.Array:
    """One multiplication by the discrete state matrix; state [..., channel, n] complex."""
    moved = ssm.a * state
    if ssm.q is None:
        return moved
    return moved - ssm.q * _real_inner(ssm.r, state)


Pair = tuple[jax.Array, jax.Array]
"""Real and imaginary part."""


class Recurrence(NamedTuple):
    """`Discrete` as `step` reads it, causal direction: pairs of [n, channel] float32, channels last."""

    a: Pair
    b: Pair
    c: Pair
    q: Pair | None = None
    r: Pair | None = None


def recurrence(ssm: Discrete) -> Recurrence:
    """The recurrent form in real numbers; make it once, outside of the loop over packets."""
    vectors = ssm._replace(c=ssm.c[0])
    return Recurrence(*(None if leaf is None else (leaf.real.T, leaf.imag.T) for leaf in vectors))


def initial_state(ssm: Recurrence, *batch: int) -> Pair:
    """The state before the first packet: 0, a pair of [*batch, n, channel] float32."""
    zeros = jnp.zeros((*batch, *ssm.a[0].shape), jnp.float32)
    return zeros, zeros


def step(ssm: Recurrence, state: Pair, u: jax.Array) -> tuple[Pair, jax.Array]:
    """One packet: u [*batch, channel] -> (state, y [*batch, channel]); starts from `initial_state`.

    In real arithmetic along the channels, since on a CPU complex numbers with n last take 2.5 times as long; n stands
    after the batch, since the other way round takes 6 times as long once the states of a batch exceed a core's cache.
    """
    (real, imag), u = state, u[..., None, :]
    new_real = ssm.a[0] * real - ssm.a[1] * imag + ssm.b[0] * u
    new_imag = ssm.a[0] * imag + ssm.a[1] * real + ssm.b[1] * u
    if ssm.q is not None:
        inner = 2 * jnp.sum(ssm.r[0] * real + ssm.r[1] * imag, axis=-2, keepdims=True)
        new_real, new_imag = new_real - ssm.q[0] * inner, new_imag - ssm.q[1] * inner
    return (new_real, new_imag), 2 * jnp.sum(ssm.c[0] * new_real - ssm.c[1] * new_imag, axis=-2)


def kernel(ssm: Ssm, length: int, *, method: str = "bilinear", form: str = "auto") -> jax.Array:
    """Convolution kernels K[l] = 2 Re(C A^l B).

    Args:
        ssm: the parameters.
        length: L, static.
        method: "bilinear" or "zoh".
        form: "vandermonde" (diagonal A), "powers" or "generating" (DPLR), or "auto" by `POWERS_MAX_LENGTH`.

    Returns:
        [direction, channel, L] float32.
    """
    discrete = discretise(ssm, method)
    if ssm.p is None:
        return _vandermonde(discrete, length)
    if form == "auto":
        form = "powers" if length <= POWERS_MAX_LENGTH else "generating"
    if form == "powers":
        return _powers(discrete, length)
    if form == "generating":
        return _generating(ssm, discrete, length)
    raise ConfigError(f'unknown kernel form {form!r}; choose "auto", "powers" or "generating"')


def _vandermonde(ssm: Discrete, length: int) -> jax.Array:
    """Diagonal A: sums of powers a^l = exp(l log|a|) (cos, sin)(l arg a), in real arithmetic."""
    lag = jnp.arange(length, dtype=jnp.float32)
    radius = jnp.exp(lag * jnp.log(jnp.abs(ssm.a))[..., None])
    angle = lag * jnp.angle(ssm.a)[..., None]
    weight = 2 * ssm.c * ssm.b
    return jnp.einsum("dhn,hnl->dhl", weight.real, radius * jnp.cos(angle)) - jnp.einsum(
        "dhn,hnl->dhl", weight.imag, radius * jnp.sin(angle)
    )


def _powers(ssm: Discrete, length: int) -> jax.Array:
    """DPLR: L - 1 multiplications of O(N) each; exact for any L, even or odd."""

    def body(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return advance(ssm, state), state

    _, states = jax.lax.scan(body, ssm.b, None, length=length)
    return 2 * (
        jnp.einsum("dhn,lhn->dhl", ssm.c.real, states.real) - jnp.einsum("dhn,lhn->dhl", ssm.c.imag, states.imag)
    )


def _generating(ssm: Ssm, discrete: Discrete, length: int) -> jax.Array:
    """DPLR: the truncated generating function at the L-th roots of unity, then an inverse FFT.

    The usual form divides by 1 + w, which is 0 at the Nyquist root of every even L. Multiplied through by 1 + w, the
    resolvent becomes 1 / ((2/d)(1 - w) - lambda (1 + w)), which has no singularity for Re(lambda) < 0.
    """
    lam, b, p = eigenvalue(ssm), _complex(ssm.b), _complex(ssm.p)
    c = _truncated_output(discrete, length)
    dt = _promote(jnp.exp(ssm.log_dt)[:, None])
    angle = -2 * jnp.pi * jnp.arange(length // 2 + 1, dtype=jnp.float32) / length
    root = jax.lax.complex(jnp.cos(angle), jnp.sin(angle))

    def both(vector: jax.Array) -> jax.Array:
        return jnp.concatenate([vector, jnp.conj(vector)], axis=-1)

    lam, b, p, c = both(lam), both(b), both(p), both(c)
    resolvent = 1 / ((2 / dt * (1 - root))[:, None, :] - lam[..., None] * (1 + root))

    def inner(u: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.einsum("...hn,hnk->...hk", u * v, resolvent)

    # k(u, v) = (1 + w) inner; c_w k = 2 inner; the low-rank correction keeps one factor (1 + w) in its denominator.
    low_rank = (1 + root) * inner(jnp.conj(p), p)
    spectrum = 2 * (inner(c, b) - (1 + root) * inner(c, p) * inner(jnp.conj(p), b) / (1 + low_rank))
    return jnp.fft.irfft(spectrum, n=length, axis=-1)


def _truncated_output(discrete: Discrete, length: int) -> jax.Array:
    """C (I - A^L), which makes the infinite generating function the one of the first L terms.

    C A^L is the transposed recurrence applied L times, by squaring of the dense 2N x 2N matrix: log2(L) products.
    """
    n = discrete.a.shape[-1]
    identity = jnp.eye(n, dtype=discrete.a.dtype)
    top = discrete.a[..., None] * identity - discrete.q[..., None] * jnp.conj(discrete.r)[..., None, :]
    right = -discrete.q[..., None] * discrete.r[..., None, :]
    dense = jnp.concatenate(
        [jnp.concatenate([top, right], -1), jnp.concatenate([jnp.conj(right), jnp.conj(top)], -1)], -2
    )
    row = jnp.concatenate([discrete.c, jnp.conj(discrete.c)], -1)
    moved, power, remaining = row, dense, length
    while remaining:
        if remaining & 1:
            moved = jnp.einsum("...hm,hmn->...hn", moved, power, precision="highest")
        remaining >>= 1
        if remaining:
            power = jnp.einsum("hij,hjk->hik", power, power, precision="highest")
    return (row - moved)[..., :n]
