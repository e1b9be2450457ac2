"""Nearest-neighbour estimators: KSG for continuous y, Ross for labels. Nothing is trained; all samples count."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma

from jaxtraffic.errors import ConfigError
from jaxtraffic.information.result import Method, Outcome, Pairs

TILE_VALUES = 1 << 20
"""Distances held at once."""


@dataclasses.dataclass(frozen=True)
class KSGOptions:
    """Hyper-parameters of the nearest-neighbour estimators."""

    k: int = 10
    """Which neighbour sets the radius: few mean less bias, many mean less variance."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k must be at least 1, got {self.k}")


def _ksg(options: KSGOptions, n_classes: int, key: jax.Array, train: Pairs | None, test: Pairs) -> Outcome:
    n = test.x.shape[0]
    if options.k >= n:
        raise ConfigError(f"k must be below the number of samples, got k={options.k} and {n} samples")
    dims = test.x.shape[1] + (0 if n_classes else test.y.shape[1])
    columns_x = test.x.T
    columns_y = None if n_classes else test.y.T
    point = _ross_point if n_classes else _ksg_point

    def one(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        return point(options.k, columns_x, test.y if n_classes else columns_y, i)

    terms, tied = jax.lax.map(one, jnp.arange(n), batch_size=max(1, TILE_VALUES // n))
    kept = jnp.isfinite(terms)
    count = kept.sum().astype(jnp.float32)
    pointwise = jnp.where(kept, terms + digamma(count), jnp.nan)
    value = jnp.where(kept, pointwise, 0).sum() / count
    spread = jnp.sqrt(jnp.where(kept, (pointwise - value) ** 2, 0).sum() / count)
    diagnostics = {
        "tied": tied.astype(jnp.float32).mean(),
        "left_out": n - count,
        "n": jnp.float32(n),
        "dims": jnp.float32(dims),
    }
    return Outcome(value, spread / jnp.sqrt(count), pointwise, diagnostics)


def _distances(columns: jax.Array, i: jax.Array) -> jax.Array:
    """Largest difference of any coordinate between sample i and each sample, [n] from [dim, n]."""
    own = jax.lax.dynamic_slice_in_dim(columns, i, 1, axis=1)
    return jnp.abs(columns - own).max(axis=0)


def _smallest(distances: jax.Array, k: int | jax.Array) -> jax.Array:
    """The value after the k smallest in order, [] from [n]: the k-th neighbour's, as one's own 0 comes first.

    Bit by bit, since floats from 0 up are ordered as their bits are; `lax.top_k` takes 13 times as long on the CPU.
    """
    bits = jax.lax.bitcast_convert_type(distances, jnp.int32)

    def settle(place: jax.Array, below: jax.Array) -> jax.Array:
        tried = below | (jnp.int32(1) << (30 - place))
        return jnp.where((bits < tried).sum() <= k, tried, below)

    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 31, settle, jnp.int32(0)), jnp.float32)


def _count(chosen: jax.Array) -> jax.Array:
    return chosen.sum(axis=-1).astype(jnp.float32)


def _ksg_point(k: int, columns_x: jax.Array, columns_y: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
    dx, dy = _distances(columns_x, i), _distances(columns_y, i)
    joint = jnp.maximum(dx, dy)
    radius = _smallest(joint, k)
    apart = digamma(jnp.float32(k)) - digamma(_count(dx < radius)) - digamma(_count(dy < radius))
    tied = digamma(_count(joint == 0)) - digamma(_count(dx == 0)) - digamma(_count(dy == 0))
    # Each count holds the sample itself, at distance 0: it is the n + 1 of the formula.
    return jnp.where(radius > 0, apart, tied), radius == 0


def _ross_point(k: int, columns_x: jax.Array, labels: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
    distance = _distances(columns_x, i)
    same = labels == labels[i]
    size = same.sum()
    own_k = jnp.minimum(k, size - 1)
    radius = _smallest(jnp.where(same, distance, jnp.inf), own_k)
    in_class = digamma(size.astype(jnp.float32))
    apart = digamma(own_k.astype(jnp.float32)) - in_class - digamma(_count(distance < radius))
    tied = digamma(_count(same & (distance == 0))) - in_class - digamma(_count(distance == 0))
    value = jnp.where(radius > 0, apart, tied)
    # A class of one sample has no neighbour; it counts nowhere.
    return jnp.where(size > 1, value, jnp.nan), (radius == 0) & (size > 1)


def _warn(options: KSGOptions, diagnostics: dict[str, np.ndarray], value: float) -> list[str]:
    found = []
    if diagnostics["tied"] > 0.01:
        found.append(
            f"{float(diagnostics['tied']):.0%} of the samples have {options.k} copies or more; there counts of ties "
            "take the place of neighbours (Gao et al. 2017)"
        )
    if diagnostics["left_out"] > 0:
        found.append(f"{int(diagnostics['left_out'])} samples are alone in their class and were left out")
    ceiling = np.log(float(diagnostics["n"]) / options.k)
    if value > 0.7 * ceiling:
        found.append(
            f"the value is near ln(n / k) = {ceiling:.2f}, all that neighbours can tell: expect it to be too low"
        )
    if diagnostics["dims"] > 10:
        found.append(
            f"in {int(diagnostics['dims'])} dimensions neighbours are far apart: expect the value to be too low"
        )
    return found


def _program(options: Any, n_classes: int, key: jax.Array, train: Pairs | None, test: Pairs) -> Outcome:
    """KSG-1 for continuous y, Ross for labels; the key decides nothing.

    Pointwise terms are psi(k) + psi(n) - psi(n_x + 1) - psi(n_y + 1), and psi(n) + psi(k) - psi(n_label) - psi(m) for
    labels; their mean is the value (NaN for samples alone in their class, which are left out). The standard error is
    their standard deviation over sqrt(n), the usual practice: it takes neighbours' terms for independent and
    knows nothing of the bias, which grows with dimension and MI.
    """
    return _ksg(options, n_classes, key, train, test)


KSG = Method(
    name="ksg",
    options=KSGOptions,
    program=_program,
    trains=False,
    preprocess="gaussianise",
    discrete=True,
    warn=_warn,
    source="Kraskov, Stoegbauer and Grassberger 2004, Eq. 8; labels: Ross 2014, Eq. 2; ties: Gao et al. 2017, Alg. 1",
)
