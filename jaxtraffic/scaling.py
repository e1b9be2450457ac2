"""Scales: of signed packet sizes for generators, of features for classifiers and augmentations; class statistics.

They are fitted on the host, on training flows, and applied on the device.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.scipy.stats import norm

from jaxtraffic.errors import ConfigError, DataError

SCALINGS = ("quantile", "linear")
LINEAR_BYTES = 1500.0
"""Divisor of the linear scale, bytes (the published codes)."""
QUANTILE_LIMIT = 4.2
"""Range of quantile-scaled values: Phi(-4.2) = 1.3e-5 on each side, shared with the outermost values."""
NEIGHBOURHOOD = 16
"""Bytes within which an unseen size counts as a neighbour of a seen one."""
FEATURE_BYTES, FEATURE_SECONDS = 1460.0, 1e-7
"""PAM'24: the largest size, bytes, and the smallest IAT, seconds."""
FEATURE_LOW = math.log10(FEATURE_SECONDS)
"""log10 of the smallest IAT."""
STATISTICS_ROWS = 65536
"""Flows of which class statistics are summed at a time."""
UNSEEN_SHARE = 0.5
"""Unseen sizes share this much of the Good-Turing estimate: a pseudo-count of a half from every value seen once."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """signed size / 1500, inverted by rounding and clipping to the largest size seen.

    Attributes:
        limit: [] float32, largest |signed size| of the training flows, bytes.
    """

    limit: jax.Array

    def apply(self, key: jax.Array, signed_size: jax.Array) -> jax.Array:
        """Signed sizes [..., T] int16 -> [..., T] float32; `key` is not used (nothing is random here)."""
        del key
        return signed_size.astype(jnp.float32) / LINEAR_BYTES

    def invert(self, x: jax.Array) -> jax.Array:
        """Scaled [..., T] float32 -> signed sizes [..., T] int16."""
        return jnp.clip(jnp.round(x * LINEAR_BYTES), -self.limit, self.limit).astype(jnp.int16)

    @property
    def bound(self) -> jax.Array:
        """[] float32: scaled values of real flows lie in [-bound, bound]."""
        return self.limit / LINEAR_BYTES


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

    cdf: jax.Array
    z: jax.Array
    low: jax.Array

    def apply(self, key: jax.Array, signed_size: jax.Array) -> jax.Array:
        """Signed sizes [..., T] int16 -> [..., T] float32; values outside the table take its nearest value."""
        position = jnp.arange(self.z.shape[0])
        index = jnp.clip(signed_size.astype(jnp.int32) - self.low, 0, self.z.shape[1] - 2)
        below, above = self.cdf[position, index], self.cdf[position, index + 1]
        uniform = below + (above - below) * jax.random.uniform(key, signed_size.shape)
        # The clip undoes the rounding of float32 at interval ends; it is what makes the inverse exact.
        floor = jnp.nextafter(self.z[position, index], jnp.float32(jnp.inf))
        return jnp.clip(norm.ppf(uniform), floor, self.z[position, index + 1])

    def invert(self, x: jax.Array) -> jax.Array:
        """Scaled [..., T] float32 -> signed sizes [..., T] int16."""
        columns = jnp.moveaxis(x, -1, 0).reshape(x.shape[-1], -1)
        index = jax.vmap(jnp.searchsorted)(self.z[:, 1:], columns)
        value = jnp.minimum(index, self.z.shape[1] - 2).astype(jnp.int32) + self.low
        return jnp.moveaxis(value.reshape(x.shape[-1], *x.shape[:-1]), 0, -1).astype(jnp.int16)

    @property
    def bound(self) -> jax.Array:
        """[] float32: scaled values of real flows lie in [-bound, bound]."""
        return self.z.max()


Scaling = LinearScaling | QuantileScaling


def fit(kind: str, signed_size: np.ndarray) -> Scaling:
    """Fits a scale on training flows.

    Args:
        kind: "quantile" or "linear".
        signed_size: [flow, T] int16.

    Raises:
        ConfigError: unknown kind, or no flows.
    """
    signed = np.asarray(signed_size)
    if signed.ndim != 2 or not signed.size:
        raise ConfigError("fitting a scale needs signed sizes [flow, packet] of at least one flow")
    if kind == "linear":
        return LinearScaling(jnp.float32(np.abs(signed.astype(np.int32)).max(initial=1)))
    if kind == "quantile":
        return _fit_quantile(signed)
    raise ConfigError(f"unknown scaling {kind!r}; choose from {', '.join(SCALINGS)}")


def _fit_quantile(signed: np.ndarray) -> QuantileScaling:
    low, high = int(min(signed.min(), -LINEAR_BYTES)), int(max(signed.max(), LINEAR_BYTES))
    edge = float(norm.cdf(-QUANTILE_LIMIT))
    columns = signed.T.astype(np.int64) - low
    table = np.stack([_mass(np.bincount(column, minlength=high - low + 1), -low) for column in columns])
    cdf = np.concatenate([np.zeros((len(table), 1)), np.cumsum(table, axis=1)], axis=1)
    cdf = edge + (1 - 2 * edge) * np.clip(cdf / cdf[:, -1:], 0, 1)
    z = _increasing(scipy.special.ndtri(cdf))
    return QuantileScaling(jnp.asarray(cdf, jnp.float32), jnp.asarray(z), jnp.int32(low))


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


def _increasing(z: np.ndarray) -> np.ndarray:
    """float32 boundaries at least two steps apart, as near to z as that allows, within the same range."""
    out = z.astype(np.float32)
    step = 2 * np.spacing(np.maximum(np.abs(out), np.float32(1)))
    rank = np.cumsum(step.astype(np.float64), axis=1)
    # A running maximum of z - rank, with rank added back, is the least increasing majorant with these gaps.
    raised = np.maximum.accumulate(out.astype(np.float64) - rank, axis=1) + rank
    return raised.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class FeatureScaling:
    """PAM'24's normalisation of features: size / 1460 and log10 of IATs, both clipped and brought to [0, 1].

    Directions stay -1 and +1. A plain hashable value, so that its maps can be options of augmentations:
    `augment.packet_loss.with_options(to_seconds=scale.to_seconds, from_seconds=scale.from_seconds)`.

    Attributes:
        low: log10 of the smallest IAT, seconds.
        high: log10 of the largest, seconds.

    Source: PAM'24, sizes to [0, 1460] bytes, IATs to [1e-7 s, 99 % quantile], then log10.
    """

    low: float
    high: float

    def apply(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Bytes and seconds x [..., T, 3], mask [..., T] -> features in [0, 1] of x's type, 0 in padding."""
        size = jnp.clip(x[..., 0], 0, FEATURE_BYTES) / FEATURE_BYTES
        out = jnp.stack([size, x[..., 1], self.from_seconds(x[..., 2])], axis=-1)
        return jnp.where(mask[..., None], out, 0).astype(x.dtype)

    def invert(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Features [..., T, 3] -> bytes and seconds, 0 in padding; the smallest IAT comes back as 0."""
        seconds = jnp.where(x[..., 2] > 0, self.to_seconds(x[..., 2]), 0)
        out = jnp.stack([x[..., 0] * FEATURE_BYTES, x[..., 1], seconds], axis=-1)
        return jnp.where(mask[..., None], out, 0).astype(x.dtype)

    def to_seconds(self, iat: jax.Array) -> jax.Array:
        """IAT features in [0, 1] -> seconds."""
        return 10.0 ** (iat * (self.high - self.low) + self.low)

    def from_seconds(self, seconds: jax.Array) -> jax.Array:
        """Seconds -> IAT features in [0, 1]."""
        clipped = jnp.clip(jnp.asarray(seconds), 10.0**self.low, 10.0**self.high)
        return jnp.clip((jnp.log10(clipped) - self.low) / (self.high - self.low), 0, 1)


def fit_features(x: np.ndarray, mask: np.ndarray) -> FeatureScaling:
    """Fits PAM'24's normalisation on flows (there: training and validation flows of a fold).

    Args:
        x: [N, T, 3] bytes, direction, seconds.
        mask: [N, T] bool.

    Raises:
        ConfigError: shapes that do not fit, or no packets.
    """
    x, mask = np.asarray(x), np.asarray(mask)
    if x.ndim != 3 or x.shape[2] != 3 or mask.shape != x.shape[:2] or not mask.any():
        raise ConfigError(
            f"fit_features: x {x.shape}, mask {mask.shape}; expected [flow, packet, 3] and a mask with packets"
        )
    quantile = float(np.quantile(x[..., 2][mask].astype(np.float64), 0.99))
    return FeatureScaling(FEATURE_LOW, math.log10(max(quantile, 10 * FEATURE_SECONDS)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassStatistics:
    """Standard deviations of features by class, as amplitude augmentations take them; `statistics[label]` is a class's.

    Attributes:
        std: [class, T, 3], of each coordinate (packet position and feature) over the flows of the class.
        flat_std: [class, 3], of each feature over all packets of the class.
        flows: [class] int32, flows of each class.
    """

    std: jax.Array
    flat_std: jax.Array
    flows: jax.Array

    def __getitem__(self, label: jax.Array) -> ClassStatistics:
        """Statistics of the classes `label` [...], which may be traced: std [..., T, 3], flat_std [..., 3]."""
        return jax.tree.map(lambda leaf: leaf[label], self)


def class_statistics(
    x: np.ndarray, mask: np.ndarray, label: np.ndarray | None = None, classes: int = 1
) -> ClassStatistics:
    """Standard deviations by class over packets, never over padding; computed on the host in float64.

    Take the features as they are augmented (PAM'24: normalised), of training and validation flows.

    Args:
        x: [N, T, 3] features.
        mask: [N, T] bool, True at packets.
        label: [N] integers in 0..classes-1; None: one class of all flows, for unlabelled data.
        classes: number of classes. Empty classes, and positions that at most one flow of a class reaches, have 0; the
            divisor is the number of packets (as np.std).

    Raises:
        ConfigError: shapes that do not fit, or labels out of range.

    Source: PAM'24, "per-class standard deviation"; whether padding counts is not said there, and it does not
    here.
    """
    x, mask = np.asarray(x), np.asarray(mask)
    label = np.zeros(len(x), np.int32) if label is None else np.asarray(label)
    if x.ndim != 3 or mask.shape != x.shape[:2] or label.shape != x.shape[:1] or mask.dtype != bool:
        raise ConfigError(
            f"class_statistics: x {x.shape}, mask {mask.shape} of {mask.dtype}, label {label.shape}; expected "
            "[flow, packet, feature], [flow, packet] bool and [flow]"
        )
    if not np.issubdtype(label.dtype, np.integer):
        raise ConfigError(f"class_statistics: labels of type {label.dtype}; give integers")
    if label.size and (label.min() < 0 or label.max() >= classes):
        raise ConfigError(f"class_statistics: labels {label.min()}..{label.max()}, expected 0..{classes - 1}")
    std = np.zeros((classes, *x.shape[1:]))
    flat_std = np.zeros((classes, x.shape[2]))
    flows = np.bincount(label, minlength=classes)
    members = np.split(np.argsort(label, kind="stable"), np.cumsum(flows)[:-1])
    for index, rows in enumerate(members):
        parts = [rows[start : start + STATISTICS_ROWS] for start in range(0, len(rows), STATISTICS_ROWS)]
        count = sum((mask[part].sum(0) for part in parts), np.zeros(x.shape[1], np.int64))
        total = sum((_masked(x, mask, part).sum(0) for part in parts), np.zeros(x.shape[1:]))
        mean, flat_mean = total / np.maximum(count, 1)[:, None], total.sum(0) / max(count.sum(), 1)
        squares, flat_squares = np.zeros_like(mean), np.zeros_like(flat_mean)
        for part in parts:
            valid = mask[part][..., None]
            squares += (np.where(valid, x[part] - mean, 0) ** 2).sum(0)
            flat_squares += (np.where(valid, x[part] - flat_mean, 0) ** 2).sum((0, 1))
        std[index] = np.sqrt(squares / np.maximum(count, 1)[:, None])
        flat_std[index] = np.sqrt(flat_squares / max(count.sum(), 1))
    arrays = jnp.asarray(std, jnp.float32), jnp.asarray(flat_std, jnp.float32), jnp.asarray(flows, jnp.int32)
    return ClassStatistics(*arrays)


def _masked(x: np.ndarray, mask: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.where(mask[rows][..., None], x[rows], 0).astype(np.float64)


def save(scaling: Scaling, path: Path) -> None:
    """Writes a scale as .npz (plain arrays, no pickle)."""
    kind = "linear" if isinstance(scaling, LinearScaling) else "quantile"
    fields = {field.name: np.asarray(getattr(scaling, field.name)) for field in dataclasses.fields(scaling)}
    temporary = path.with_name(path.name + ".tmp.npz")
    np.savez_compressed(temporary, kind=np.array(kind), **fields)
    temporary.replace(path)


def load(path: Path) -> Scaling:
    """Reads a scale that `save` wrote.

    Raises:
        DataError: the file is absent or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            kind = {"linear": LinearScaling, "quantile": QuantileScaling}[str(stored["kind"])]
            return kind(**{field.name: jnp.asarray(stored[field.name]) for field in dataclasses.fields(kind)})
    except (OSError, KeyError, ValueError) as error:
        raise DataError(path, f"not a stored scale ({error})", remedy="train the run again") from error
