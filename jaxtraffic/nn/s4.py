"""The S4 layer: a bank of state spaces, one a channel, as a flax module with real parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn import convolution, hippo, ssm
from jaxtraffic.parallel import constrain

STATE_SPACES = ("dplr", "diag-lin", "diag-inv", "diag-legs", "diag-real")


class S4(nnx.Module):
    """Convolution with learned state-space kernels, y = K * u + D u, independent per channel.

    Shapes: u [batch, L, channel] -> y [batch, L, channel]. "dplr" is S4 (HiPPO-LegS, normal plus low rank); "diag-*"
    is S4D with the named initialisation. Bidirectional layers share A, B and the step between both directions; only C
    differs. Source: Gu et al. (2022); initial ranges of C, D and the step as in state-spaces/s4.
    """

    def __init__(
        self,
        channels: int,
        *,
        state: int = 64,
        space: str = "dplr",
        method: str = "bilinear",
        bidirectional: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        convolution: str = "auto",
        rngs: nnx.Rngs,
    ):
        """Builds the layer; `state` is the real state size N (N / 2 conjugate pairs are stored)."""
        if space not in STATE_SPACES:
            raise ConfigError(f"unknown state space {space!r}; choose from {', '.join(STATE_SPACES)}")
        if not 0 < dt_min <= dt_max:
            raise ConfigError(f"0 < dt_min <= dt_max must hold, got {dt_min} and {dt_max}")
        self.method, self.convolution = method, convolution
        half = state // 2
        if space == "dplr":
            form = hippo.conjugate_half(hippo.nplr(state))
            lam, b = form.eigenvalue, form.b
            # |Im B| <= 2 in state-spaces/s4: large input weights of the fast modes make the first steps unstable.
            b = b.real + 1j * np.clip(b.imag, -2.0, 2.0)
            self.p = nnx.Param(_tile(form.p, channels))
        else:
            lam, b = hippo.diagonal(state, space.removeprefix("diag-")), np.ones(half, complex)
            self.p = nnx.data(None)
        self.log_neg_re = nnx.Param(_tile(np.log(-lam.real), channels))
        self.im = nnx.Param(_tile(lam.imag, channels))
        self.b = nnx.Param(_tile(b, channels))
        directions = 2 if bidirectional else 1
        # Complex normal of variance 1: real and imaginary part of variance 1/2 each.
        self.c = nnx.Param(jax.random.normal(rngs.params(), (directions, channels, half, 2)) * 0.5**0.5)
        self.d = nnx.Param(jax.random.normal(rngs.params(), (channels,)))
        low, high = np.log(dt_min), np.log(dt_max)
        self.log_dt = nnx.Param(jax.random.uniform(rngs.params(), (channels,), minval=low, maxval=high))

    def parameters(self) -> ssm.Ssm:
        """The bank as the pytree that `jaxtraffic.nn.ssm` speaks."""
        p = None if self.p is None else self.p[...]
        return ssm.Ssm(self.log_neg_re[...], self.im[...], self.b[...], self.c[...], self.log_dt[...], p)

    def operator(self, length: int) -> jax.Array:
        """The convolution operator for series of static length L; depends on parameters only, so build it once."""
        kernel = constrain(ssm.kernel(self.parameters(), length, method=self.method), None, "channel", None)
        made = convolution.operator(kernel, self.convolution)
        return constrain(made, "channel", *[None] * (made.ndim - 1))

    def __call__(self, u: jax.Array, operator: jax.Array | None = None) -> jax.Array:
        """u [batch, L, channel] -> [batch, L, channel], dtype of u."""
        if operator is None:
            operator = self.operator(u.shape[1])
        u = constrain(u, "data", None, "channel")
        return constrain(convolution.convolve(operator, u) + self.d[...].astype(u.dtype) * u, "data", None, "channel")

    def step(self, state: ssm.Pair, u: jax.Array) -> tuple[ssm.Pair, jax.Array]:
        """Recurrent form, causal layers only: state of `ssm.initial_state`, u [batch, channel]."""
        if self.c.shape[0] != 1:
            raise ConfigError("the recurrent form exists for causal layers only; build with bidirectional=False")
        state, y = ssm.step(ssm.recurrence(ssm.discretise(self.parameters(), self.method)), state, u)
        return state, y + self.d[...] * u


def _tile(row: np.ndarray, channels: int) -> jax.Array:
    """Repeats a row for every channel; complex rows become a last axis of (real, imaginary)."""
    if np.iscomplexobj(row):
        row = np.stack([row.real, row.imag], axis=-1)
    return jnp.asarray(np.tile(row, (channels,) + (1,) * row.ndim), jnp.float32)
