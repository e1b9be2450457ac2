"""Scales: of signed packet sizes for generators, of features for classifiers and augmentations; class statistics.

They are fitted on the host, on training flows, and applied on the device.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.quantile_scaling import ClassQuantileScaling, QuantileScaling, fit_class_quantile, fit_quantile

SCALINGS = ("quantile", "class_quantile", "linear")
LINEAR_BYTES = 1500.0
"""Divisor of the linear scale, bytes (the published codes)."""
FEATURE_BYTES, FEATURE_SECONDS = 1460.0, 1e-7
"""PAM'24: the largest size, bytes, and the smallest IAT, seconds."""
FEATURE_LOW = math.log10(FEATURE_SECONDS)
"""log10 of the smallest IAT."""
STATISTICS_ROWS = 65536
"""Flows of which class statistics are summed at a time."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """signed size / 1500, inverted by rounding and clipping to the largest size seen.

    Attributes:
        limit: [] float32, largest |signed size| of the training flows, bytes.
    """

    kind: ClassVar[str] = "linear"

    limit: jax.Array

    def apply(self, key: jax.Array, signed_size: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """Signed sizes [..., T] int16 -> [..., T] float32; `key` is not used (nothing is random here)."""
        del key, label
        return signed_size.astype(jnp.float32) / LINEAR_BYTES

    def invert(self, x: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """Scaled [..., T] float32 -> signed sizes [..., T] int16."""
        del label
        return jnp.clip(jnp.round(x * LINEAR_BYTES), -self.limit, self.limit).astype(jnp.int16)

    @property
    def bound(self) -> jax.Array:
        """[] float32: scaled values of real flows lie in [-bound, bound]."""
        return self.limit / LINEAR_BYTES


Scaling = LinearScaling | QuantileScaling | ClassQuantileScaling
"""Scales of signed sizes. All take labels in `apply` and `invert`; only `ClassQuantileScaling` looks at them."""


def fit(kind: str, signed_size: np.ndarray, label: np.ndarray | None = None, classes: int | None = None) -> Scaling:
    """Fits a scale on training flows.

    Args:
        kind: "quantile", "class_quantile" or "linear".
        signed_size: [flow, T] int16.
        label: [flow] integers, for class_quantile; others do not look at them.
        classes: number of classes, for class_quantile.

    Raises:
        ConfigError: unknown kind, no flows, or labels that do not fit.
    """
    signed = np.asarray(signed_size)
    if signed.ndim != 2 or not signed.size:
        raise ConfigError("fitting a scale needs signed sizes [flow, packet] of at least one flow")
    if kind == "linear":
        return LinearScaling(jnp.float32(np.abs(signed.astype(np.int32)).max(initial=1)))
    if kind == "quantile":
        return fit_quantile(signed)
    if kind == "class_quantile":
        if label is None or classes is None:
            raise ConfigError("scaling class_quantile is fitted on labels and a number of classes")
        return fit_class_quantile(signed, np.asarray(label), classes)
    raise ConfigError(f"unknown scaling {kind!r}; choose from {', '.join(SCALINGS)}")


def check_one_for_all(kind: str) -> None:
    """Raises ConfigError for a kind of scale that differs between classes, where information is asked for."""
    if kind == ClassQuantileScaling.kind:
        raise ConfigError(
            "information is not measured with scaling class_quantile: every class has its own scale, so that a network "
            "without the label knows no p(x); train with --scaling quantile"
        )


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
    fields = {field.name: np.asarray(getattr(scaling, field.name)) for field in dataclasses.fields(scaling)}
    temporary = path.with_name(path.name + ".tmp.npz")
    np.savez_compressed(temporary, kind=np.array(scaling.kind), **fields)
    temporary.replace(path)


def load(path: Path) -> Scaling:
    """Reads a scale that `save` wrote.

    Raises:
        DataError: the file is absent or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            kind = {kind.kind: kind for kind in (LinearScaling, QuantileScaling, ClassQuantileScaling)}[
                str(stored["kind"])
            ]
            return kind(**{field.name: jnp.asarray(stored[field.name]) for field in dataclasses.fields(kind)})
    except (OSError, KeyError, ValueError) as error:
        raise DataError(path, f"not a stored scale ({error})", remedy="train the run again") from error
