"""Randomised quantile transforms of signed packet sizes: one for all flows, or one for each class."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.scipy.stats import norm

from jaxtraffic.errors import ConfigError

QUANTILE_LIMIT = 4.2
"""Range of quantile-scaled values: Phi(-4.2) = 1.3e-5 on each side, shared with the outermost values."""
NEIGHBOURHOOD = 16
"""Bytes within which an unseen size counts as a neighbour of a seen one."""
UNSEEN_SHARE = 0.5
"""Unseen sizes share this much of the Good-Turing estimate: a pseudo-count of a half from every value seen once."""
TABLE_BYTES = 1500
"""Tables reach to the largest size seen, and at least so far."""
POOLED_SHARE = 0.5
"""The flows of all classes count in one class as this many of its flows for every distinct size that it has."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantileScaling:
    """Randomised (distributional) quantile transform, one distribution a packet position.

    With F the distribution of the sizes at a position, a value v becomes Phi^-1(U), U uniform on (F(v-), F(v)) and
    drawn afresh each time, so that the scaled marginal is a standard normal (cut at +-4.2) without atoms; the inverse
    is the smallest v with F(v) >= Phi(z). Every atom therefore comes back exactly and with its own probability.
    Sizes that no training flow has at a position share half of the Good-Turing estimate of their probability (values
    seen once / flows), spread within 16 bytes of the values seen once; every other integer of the range gets an
    interval of two float32 steps, so that any integer within the range is inverted exactly.
    Source: TabDDPM's quantile scaling (2023), made exact on point masses by randomisation (reference 4.3).

    Attributes:
        cdf: [T, V + 1] float32, F at the boundaries of the V integers `low`, `low` + 1, ...
        z: [T, V + 1] float32, strictly increasing: the same boundaries on the normal scale.
        low: [] int32, smallest signed size of the table.
    """

    kind: ClassVar[str] = "quantile"

    cdf: jax.Array
    z: jax.Array
    low: jax.Array

    def apply(self, key: jax.Array, signed_size: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """Signed sizes [..., T] int16 -> [..., T] float32; values outside the table take its nearest value."""
        del label
        position = jnp.arange(self.z.shape[0])
        index = jnp.clip(signed_size.astype(jnp.int32) - self.low, 0, self.z.shape[1] - 2)
        below, above = self.cdf[position, index], self.cdf[position, index + 1]
        uniform = below + (above - below) * jax.random.uniform(key, signed_size.shape)
        # The clip undoes the rounding of float32 at interval ends; it is what makes the inverse exact.
        floor = jnp.nextafter(self.z[position, index], jnp.float32(jnp.inf))
        return jnp.clip(norm.ppf(uniform), floor, self.z[position, index + 1])

    def invert(self, x: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """Scaled [..., T] float32 -> signed sizes [..., T] int16."""
        del label
        columns = jnp.moveaxis(x, -1, 0).reshape(x.shape[-1], -1)
        index = jax.vmap(jnp.searchsorted)(self.z[:, 1:], columns)
        value = jnp.minimum(index, self.z.shape[1] - 2).astype(jnp.int32) + self.low
        return jnp.moveaxis(value.reshape(x.shape[-1], *x.shape[:-1]), 0, -1).astype(jnp.int16)

    @property
    def bound(self) -> jax.Array:
        """[] float32: scaled values of real flows lie in [-bound, bound]."""
        return self.z.max()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassQuantileScaling:
    """The randomised quantile transform of `QuantileScaling` with one distribution for each class and packet position.

    A class's sizes at a position are distributed as (n own + kappa pooled) / (n + kappa), with n the packets that its
    training flows have there, `own` their distribution (which knows unseen neighbours of sizes seen once, as above),
    `pooled` that of all flows, and kappa half the number of distinct sizes among the n. With all of that number this
    is Witten-Bell smoothing ("The Zero-Frequency Problem" (1991)): every distinct size was new once, so that distinct
    sizes / n is how often a class shows something new. Half of what is new is left to the neighbours, half to what
    other classes do: a class with one constant size is its own to 1 / (2 n), one whose sizes hardly repeat is a third
    pooled. Zeros, which are padding nearly always, are a coin of their own with half a pooled flow, so that flows of
    other classes that have ended put hardly any end into this one. Classes without flows are pooled altogether.
    (Flows of held-out captures, positions taken one by one: 0.5 to 6 nats a flow likelier than with kappa = 1 for all
    on iot_sentinel, doh_tunnels_iot and protocol_pool; 20 and 28 likelier than pooled on the first two.)

    A position's table holds the sizes that have a probability in any class, and all of them have one in every class
    (through `pooled`, or two float32 steps at least), so that each is inverted exactly whatever the class. Sizes
    beside the table take its nearest one: unlike in `QuantileScaling`, not every integer has an interval, or tables
    for a hundred classes would hold millions of values that no flow has.

    In training the transform takes the true label, also of flows whose label class dropout hides from the network. The
    network without a label therefore sees series whose marginals are normal in every class: it learns the mixture of
    scaled series, sum_y p(y) p(z | y), and no p(x). Guidance then weighs how packets hang together, and no longer
    which sizes a class has (those are in the scale already); and information must not be measured with it, because
    I(z; label) is what is left after every marginal has been made the same: see `scaling.check_one_for_all`.

    Attributes:
        z: [class, T, S + 1] float32, strictly increasing up to the last size of the position: boundaries of its sizes
            on the normal scale, the last one repeated.
        value: [T, S] int32 ascending: the sizes of each position, the last one repeated.
        rank: [T, V] int32: index in `value` of the size nearest to each of the integers `low`, `low` + 1, ...
        low: [] int32.
    """

    kind: ClassVar[str] = "class_quantile"

    z: jax.Array
    value: jax.Array
    rank: jax.Array
    low: jax.Array

    def apply(self, key: jax.Array, signed_size: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """Signed sizes [..., T] int16 of flows with true labels [...] -> [..., T] float32.

        Raises:
            ConfigError: no labels.
        """
        row, position = _rows(label), jnp.arange(self.z.shape[1])
        index = jnp.clip(signed_size.astype(jnp.int32) - self.low, 0, self.rank.shape[1] - 1)
        index = self.rank[position, index]
        low, high = self.z[row, position, index], self.z[row, position, index + 1]
        below, above = norm.cdf(low), norm.cdf(high)
        uniform = below + (above - below) * jax.random.uniform(key, signed_size.shape)
        # As in QuantileScaling: the clip is what makes the inverse exact.
        return jnp.clip(norm.ppf(uniform), jnp.nextafter(low, jnp.float32(jnp.inf)), high)

    def invert(self, x: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """Scaled [..., T] float32 of flows with labels [...] -> signed sizes [..., T] int16.

        Raises:
            ConfigError: no labels.
        """
        row, position, sizes = _rows(label), jnp.arange(self.z.shape[1]), self.value.shape[1]
        # How many boundaries lie below x, bit by bit from the highest: a search that gathers one boundary a step,
        # where searchsorted would need a flow's whole table.
        index = jnp.zeros(x.shape, jnp.int32)
        for bit in reversed(range(sizes.bit_length())):
            further = index + (1 << bit)
            less = self.z[row, position, jnp.minimum(further, sizes)] < x
            index = jnp.where(less & (further <= sizes), further, index)
        return self.value[position, jnp.minimum(index, sizes - 1)].astype(jnp.int16)

    @property
    def bound(self) -> jax.Array:
        """[] float32: scaled values of real flows lie in [-bound, bound]."""
        return self.z.max()


def _rows(label: jax.Array | None) -> jax.Array:
    if label is None:
        raise ConfigError("scaling class_quantile needs the label of every flow")
    return jnp.asarray(label)[..., None]


def fit_quantile(signed: np.ndarray) -> QuantileScaling:
    """The transform of training flows [flow, T] int16."""
    low, width = _range(signed)
    columns = signed.T.astype(np.int64) - low
    table = np.stack([_mass(np.bincount(column, minlength=width), -low) for column in columns])
    cdf = _cumulative(table)
    z = _increasing(scipy.special.ndtri(cdf))
    return QuantileScaling(jnp.asarray(cdf, jnp.float32), jnp.asarray(z), jnp.int32(low))


def fit_class_quantile(signed: np.ndarray, label: np.ndarray, classes: int) -> ClassQuantileScaling:
    """The transforms of training flows [flow, T] int16 with labels [flow], of so many classes.

    Raises:
        ConfigError: labels that do not fit.
    """
    label = np.asarray(label)
    if label.shape != signed.shape[:1] or not np.issubdtype(label.dtype, np.integer):
        raise ConfigError(f"scaling class_quantile needs one integer label for each of {len(signed)} flows")
    if label.min() < 0 or label.max() >= classes:
        raise ConfigError(f"scaling class_quantile: labels {label.min()}..{label.max()}, expected 0..{classes - 1}")
    low, width = _range(signed)
    found = []
    for column in signed.T.astype(np.int64) - low:
        counts = np.bincount(label * width + column, minlength=classes * width).reshape(classes, width)
        mass = _class_mass(counts, -low)
        held = np.flatnonzero(mass.any(axis=0))
        rank = np.searchsorted((held[1:] + held[:-1]) / 2, np.arange(width))
        found.append((_increasing(scipy.special.ndtri(_cumulative(mass[:, held]))), held + low, rank))
    most = max(value.size for _, value, _ in found)
    z = np.stack([np.pad(z, ((0, 0), (0, most + 1 - z.shape[1])), mode="edge") for z, _, _ in found], axis=1)
    value = np.stack([np.pad(value, (0, most - value.size), mode="edge") for _, value, _ in found])
    rank = np.stack([rank for _, _, rank in found])
    return ClassQuantileScaling(
        jnp.asarray(z), jnp.asarray(value, jnp.int32), jnp.asarray(rank, jnp.int32), jnp.int32(low)
    )


def _range(signed: np.ndarray) -> tuple[int, int]:
    """Smallest signed size of a table, and its number of integers."""
    low, high = int(min(signed.min(), -TABLE_BYTES)), int(max(signed.max(), TABLE_BYTES))
    return low, high - low + 1


def _cumulative(mass: np.ndarray) -> np.ndarray:
    """Probabilities [row, V] -> their distribution at the V + 1 boundaries, shrunk to what +-QUANTILE_LIMIT holds."""
    edge = float(norm.cdf(-QUANTILE_LIMIT))
    cdf = np.concatenate([np.zeros((len(mass), 1)), np.cumsum(mass, axis=1)], axis=1)
    return edge + (1 - 2 * edge) * np.clip(cdf / cdf[:, -1:], 0, 1)


def _mass(count: np.ndarray, zero: int) -> np.ndarray:
    """Probability of every integer at one position: seen values, and unseen neighbours of values seen once."""
    n = count.sum()
    once = ((count == 1) & (np.arange(count.size) != zero)).astype(np.float64)
    triangle = np.bartlett(2 * NEIGHBOURHOOD + 1)
    spread = np.convolve(once, triangle, mode="same")
    # Unseen sizes keep the sign of their neighbours, and 0 is padding, never the neighbour of a size.
    sign = np.sign(np.arange(count.size) - zero)
    for side in (-1, 1):
        spread[sign == side] = np.convolve(once * (sign == side), triangle, mode="same")[sign == side]
    spread[(count > 0) | (sign == 0)] = 0
    unseen = UNSEEN_SHARE * once.sum() / n if spread.sum() else 0.0
    return (1 - unseen) * count / n + (unseen * spread / spread.sum() if unseen else 0.0)


def _class_mass(counts: np.ndarray, zero: int) -> np.ndarray:
    """Probability [class, V] of every integer at one position in each class, from its counts in training."""
    sizes = np.where(np.arange(counts.shape[1]) == zero, 0, counts)
    flows, packets = counts.sum(axis=1, keepdims=True), sizes.sum(axis=1, keepdims=True)
    none = flows - packets + POOLED_SHARE * (1 - packets.sum() / flows.sum())
    none = none / (flows + POOLED_SHARE)
    mass = np.zeros(counts.shape)
    if packets.any():
        pooled = _mass(sizes.sum(axis=0), zero)
        own = np.stack([_mass(row, zero) if row.any() else pooled for row in sizes])
        weight = packets / np.maximum(packets + POOLED_SHARE * (sizes > 0).sum(axis=1, keepdims=True), 1)
        mass = (1 - none) * (weight * own + (1 - weight) * pooled)
    mass[:, zero] = none[:, 0]
    return mass


def _increasing(z: np.ndarray) -> np.ndarray:
    """float32 boundaries at least two steps apart, as near to z as that allows, within the same range."""
    out = z.astype(np.float32)
    step = 2 * np.spacing(np.maximum(np.abs(out), np.float32(1)))
    rank = np.cumsum(step.astype(np.float64), axis=1)
    # A running maximum of z - rank, with rank added back, is the least increasing majorant with these gaps.
    raised = np.maximum.accumulate(out.astype(np.float64) - rank, axis=1) + rank
    return raised.astype(np.float32)
