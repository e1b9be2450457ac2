"""Amplitude operations: noise added to, or multiplied with, sizes and inter-arrival times (PAM'24).

They work on normalised features, as PAM'24 does: size and IAT scaled to [0, 1].
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxtraffic.augment import draws
from jaxtraffic.augment.emission import running_count, wide
from jaxtraffic.augment.operation import AMPLITUDE_COLUMNS, IAT, Operation, Params, check_choice, check_count
from jaxtraffic.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amplitude(Operation):
    """What amplitude operations share: elements that change are clipped, everything else stays as it is."""

    needs_stats: ClassVar[bool] = True

    clip: tuple[float, float] | None = (0.0, 1.0)

    def _check_options(self) -> None:
        clip = self.clip
        if clip is None:
            return
        if not isinstance(clip, tuple) or len(clip) != 2 or not all(isinstance(v, numbers.Real) for v in clip):
            raise ConfigError(f"{self.name}: clip={clip!r}; give a tuple (low, high), or None for no clipping")
        if not clip[0] < clip[1]:
            raise ConfigError(f"{self.name}: clip={clip!r}; low must lie below high")

    def _changed(self, x: jax.Array, new: jax.Array, where: jax.Array) -> jax.Array:
        """x [T, 3], or `new` (float32, clipped) at those places of `where` that it changes."""
        where = where & (new != wide(x))
        if self.clip is not None:
            new = jnp.clip(new, *self.clip)
        return jnp.where(where, new.astype(x.dtype), x)

    def _plus(self, x: jax.Array, mask: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        noise = _columns(noise, 0.0)
        return self._changed(x, wide(x) + noise.astype(wide(x).dtype), mask[:, None]), mask

    def _times(self, x: jax.Array, mask: jax.Array, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = _columns(factor, 1.0)
        return self._changed(x, wide(x) * factor.astype(wide(x).dtype), mask[:, None]), mask


def _columns(pair: jax.Array, direction: float) -> jax.Array:
    """[T, 2] of size and IAT -> [T, 3] with a constant in the direction's place."""
    return jnp.stack([pair[:, 0], jnp.full_like(pair[:, 0], direction), pair[:, 1]], axis=1)


def _std(stats: Any) -> jax.Array:
    return jnp.asarray(stats.std).astype(jnp.float32)[:, jnp.array(AMPLITUDE_COLUMNS)]


def _root(variance: jax.Array) -> jax.Array:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByFeature(Amplitude):
    """Amplitude operations that change one feature of a flow, drawn, or a given one, or both."""

    features: str = "one"

    def _check_options(self) -> None:
        super()._check_options()
        check_choice(self.name, "features", self.features, ("one", "both", "size", "iat"))

    def _chosen(self, half: jax.Array) -> jax.Array:
        """16 random bits [] -> [2] bool: whether size and IAT change."""
        if self.features == "one":
            first = draws.happens(half, 0.5)
            return jnp.stack([first, ~first])
        return jnp.array([self.features in ("both", "size"), self.features in ("both", "iat")])

    def _normal(self, key: jax.Array, packets: int) -> tuple[jax.Array, jax.Array]:
        """Standard normal values [T, 2], one stream for both columns unless both change, and the chosen columns [2]."""
        count = packets * (2 if self.features == "both" else 1)
        upper, lower = draws.halves(draws.words(key, count // 2 + 1))
        values = draws.normal(jnp.concatenate([upper[:-1], lower])[:count])
        return (values.reshape(packets, 2) if self.features == "both" else values[:, None]), self._chosen(upper[-1])


class GaussianNoise(ByFeature):
    """Adds normal noise of the class's own spread to the sizes or the IATs of a flow.

    x[t, d] += e[t], e[t] ~ N(0, alpha sigma[t, d]^2), d drawn from {size, iat} for each flow: alpha scales the
    variance, so that the standard deviation is sqrt(alpha) sigma.

    Shapes: x [T, 3] features scaled to [0, 1], mask [T], stats.std [T, 3] in the same units -> x [T, 3], mask [T].
    Units: those of x. At alpha = 0 the flow is unchanged.

    Options:
        features: "one" (default: drawn for each flow, with equal probability), "both", "size" or "iat".
        clip: range of changed elements, default (0, 1); None for none. The paper does not say, re-implementations clip.
        pad: for the sake of one signature; padding is never touched here.

    Source: PAM'24 and the thesis, "N(0, alpha sigma^2)" read as a variance: the printed square marks one;
    one feature a flow ("d ~ {size, iat} per sample"). Values are the 2^16 midpoint quantiles, which end at 4.3 sigma.
    """

    name: ClassVar[str] = "gaussian_noise"

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        values, chosen = self._normal(key, mask.shape[0])
        return {"noise": jnp.where(chosen, values * (_root(alpha) * _std(stats)), 0)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        return self._plus(x, mask, params["noise"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpikeNoise(ByFeature):
    """Adds the noise of `gaussian_noise` to the sizes or IATs of up to three packets.

    Of the c non-zero valid values of one feature (drawn for each flow) min(3, c) are chosen uniformly without
    replacement, and N(0, alpha sigma[t, d]^2) is added there.

    Shapes: x [T, 3] features scaled to [0, 1], mask [T], stats.std [T, 3] in the same units -> x [T, 3], mask [T].
    Units: those of x. At alpha = 0 the flow is unchanged.

    Options:
        max_spikes: at most so many values a feature, default 3.
        features: "one" (default: drawn for each flow, with equal probability), "both", "size" or "iat".
        clip: range of changed elements, default (0, 1); None for none.
        pad: for the sake of one signature; padding is never touched here.

    Source: PAM'24, "up to 3 of its non-zero values": the number is min(3, c), not drawn, and the sign of the
    noise is kept (a re-implementation takes |e|).
    """

    name: ClassVar[str] = "spike_noise"

    max_spikes: int = 3

    def _check_options(self) -> None:
        super()._check_options()
        check_count(self.name, "max_spikes", self.max_spikes, 1)

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        word = draws.words(key, 3 * self.max_spikes + 1)
        noise = draws.normal(jnp.stack(draws.halves(word[: self.max_spikes]), axis=1))
        chosen = self._chosen(word[-1] >> 16)
        scale = jnp.where(chosen, _root(alpha) * _std(stats), 0)
        return {"u": draws.unit(word[self.max_spikes : -1].reshape(-1, 2)), "noise": noise, "scale": scale}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        columns = [
            self._spikes(mask & (x[:, d] != 0), params["u"][:, i], params["noise"][:, i])
            for i, d in enumerate(AMPLITUDE_COLUMNS)
        ]
        return self._plus(x, mask, jnp.stack(columns, axis=1) * params["scale"])

    def _spikes(self, candidate: jax.Array, u: jax.Array, noise: jax.Array) -> jax.Array:
        """Candidates [T] bool, u and noise [k] -> [T] float32: Floyd's sampling of k candidates, no sort."""
        rank = running_count(candidate)
        count = rank[-1]
        chosen: list[jax.Array] = []
        total = jnp.zeros(candidate.shape, jnp.float32)
        for i in range(self.max_spikes):
            last = count - jnp.minimum(self.max_spikes, count) + i
            one = jnp.minimum((u[i] * (last + 1).astype(jnp.float32)).astype(jnp.int32), last)
            taken = jnp.zeros((), bool)
            for other in chosen:
                taken |= other == one
            one = jnp.where(taken, last, one)
            chosen.append(one)
            hit = candidate & (rank - 1 == one) & (i < count)
            total = jnp.where(hit, noise[i], total)
        return total


class GaussianWrapup(ByFeature):
    """Multiplies the sizes or the IATs of a flow with factors about 1.

    x[t, d] *= e[t], e[t] ~ N(1 + 0.01 alpha, 0.02 alpha sigma[t, d]^2), d drawn from {size, iat} for each flow; zeros
    stay zero.

    Shapes: x [T, 3] features scaled to [0, 1], mask [T], stats.std [T, 3] in the same units -> x [T, 3], mask [T].
    Units: those of x. At alpha = 0 the flow is unchanged.

    Options:
        features: "one" (default: drawn for each flow, with equal probability), "both", "size" or "iat".
        clip: range of changed elements, default (0, 1); None for none.
        pad: for the sake of one signature; padding is never touched here.

    Source: PAM'24 and the thesis; the second parameter is read as a variance, as in `gaussian_noise`.
    """

    name: ClassVar[str] = "gaussian_wrapup"

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        values, chosen = self._normal(key, mask.shape[0])
        return {"factor": jnp.where(chosen, 1 + 0.01 * alpha + _root(0.02 * alpha) * _std(stats) * values, 1)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        return self._times(x, mask, params["factor"])


class SineWrapup(ByFeature):
    """Multiplies the sizes or the IATs of a flow with a sine wave of two periods and a random phase.

    x[t, d] *= 1 + 0.02 alpha sigma_d sin(4 pi t / T + theta), theta ~ U[0, 2 pi), T the length of the array, d
    drawn from {size, iat} for each flow.

    Shapes: x [T, 3] features scaled to [0, 1], mask [T], stats.flat_std [3] in the same units -> x [T, 3], mask [T].
    Units: those of x. At alpha = 0 the flow is unchanged.

    Options:
        features: "one" (default: drawn for each flow, with equal probability), "both", "size" or "iat".
        clip: range of changed elements, default (0, 1); None for none.
        pad: for the sake of one signature; padding is never touched here.

    Source: PAM'24; sigma_d is the flattened standard deviation of the class (inferred from the bar over it),
    and with features="both" one phase serves both.
    """

    name: ClassVar[str] = "sine_wrapup"

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        packets = mask.shape[0]
        word = draws.words(key, 2)
        theta = 2 * math.pi * draws.unit(word[0])
        wave = jnp.sin(4 * math.pi / packets * jnp.arange(packets, dtype=jnp.float32) + theta)
        sigma = jnp.asarray(stats.flat_std).astype(jnp.float32)[jnp.array(AMPLITUDE_COLUMNS)]
        factor = 1 + 0.02 * alpha * sigma[None, :] * wave[:, None]
        return {"factor": jnp.where(self._chosen(word[1] >> 16), factor, 1)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        return self._times(x, mask, params["factor"])


class ConstantWrapup(Amplitude):
    """Multiplies the IATs of a flow with one factor above 1.

    iat *= e, one e ~ U[1 + s (0.06 - 0.02 alpha), 1 + s (0.14 + 0.02 alpha)] a flow, s the flattened standard deviation
    of the class's IATs.

    Shapes: x [T, 3] features scaled to [0, 1], mask [T], stats.flat_std [3] in the same units -> x [T, 3], mask [T].
    Units: those of x. alpha = 0 still draws from [1 + 0.06 s, 1 + 0.14 s].

    Options:
        clip: range of changed elements, default (0, 1); None for none.
        pad: for the sake of one signature; padding is never touched here.

    Source: PAM'24, "a single value" (a re-implementation draws one a packet).
    """

    name: ClassVar[str] = "constant_wrapup"

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        low, high = 0.06 - 0.02 * alpha, 0.14 + 0.02 * alpha
        sigma = jnp.asarray(stats.flat_std).astype(jnp.float32)[IAT]
        return {"factor": 1 + sigma * (low + (high - low) * draws.unit(draws.words(key)))}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        where = mask[:, None] & (jnp.arange(3) == IAT)
        return self._changed(x, wide(x) * params["factor"].astype(wide(x).dtype), where), mask


gaussian_noise = GaussianNoise()
spike_noise = SpikeNoise()
gaussian_wrapup = GaussianWrapup()
sine_wrapup = SineWrapup()
constant_wrapup = ConstantWrapup()
