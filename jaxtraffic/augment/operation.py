"""What every augmentation of one flow is: a hashable value with options, called with a key, or drawn and replayed."""

from __future__ import annotations

import dataclasses
import inspect
import numbers
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.errors import ConfigError

FEATURES = ("size", "direction", "iat")
SIZE, DIRECTION, IAT = range(3)
AMPLITUDE_COLUMNS = (SIZE, IAT)
"""Columns that amplitude operations change; direction never is one of them."""

Pad = float | tuple[float, float, float]
Params = dict[str, jax.Array]


class FlowStatistics(NamedTuple):
    """Standard deviations of one flow's class, as `scaling.ClassStatistics` gives them when indexed by a label.

    Any pytree with these two attributes serves.

    Attributes:
        std: [T, 3], of each coordinate over the flows of the class.
        flat_std: [3], of each feature over all packets of the class.
    """

    std: jax.Array
    flat_std: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """Base of the operations on one flow. Operations are values: equal options make equal, hashable operations.

    Options are plain Python values, fixed when a program is traced; `alpha` and everything drawn are traced.

    Attributes:
        pad: value of padding, one for all features or one a feature (size, direction, iat).
    """

    name: ClassVar[str]
    needs_stats: ClassVar[bool] = False
    batch: ClassVar[bool] = False

    pad: Pad = 0.0

    def __post_init__(self) -> None:
        """Checks the options; subclasses add theirs through `_check_options`."""
        pad = self.pad if isinstance(self.pad, tuple) else (self.pad,) * 3
        if len(pad) != 3 or not all(isinstance(value, numbers.Real) for value in pad):
            raise ConfigError(f"{self.name}: pad={self.pad!r}; give one number, or a tuple of three, one a feature")
        object.__setattr__(self, "pad", pad[0] if len(set(pad)) == 1 else pad)
        self._check_options()
        object.__setattr__(self, "__name__", self.name)
        object.__setattr__(self, "__signature__", _signature(self))

    def __call__(
        self, key: jax.Array, x: jax.Array, mask: jax.Array, alpha: Any = 1.0, *, stats: Any = None, **options: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Draws and applies: (x [T, 3], mask [T]) of one flow -> the same shapes and dtypes."""
        op = self.with_options(**options)
        op._check_flow(x, mask)
        x, mask = jnp.asarray(x), jnp.asarray(mask)
        return op._apply(x, mask, op.sample(key, mask, alpha, stats=stats))

    def sample(self, key: jax.Array, mask: jax.Array, alpha: Any = 1.0, *, stats: Any = None, **options: Any) -> Params:
        """Draws what the operation needs to know beyond the flow itself.

        Args:
            key: typed key, shape [].
            mask: [T] bool, a prefix: the packets of the flow.
            alpha: [] magnitude in [0, 1], may be traced.
            stats: `FlowStatistics` of the flow's class, for operations that need them.
            options: options of this operation that differ from its own.

        Returns:
            dict of arrays, to be given to `apply` for this flow or another view of it with the same mask.

        Raises:
            ConfigError: at trace time: a legacy key, a mask that is not [T] bool, alpha not a scalar, stats missing.
        """
        op = self.with_options(**options)
        check_key(self.name, key)
        check_mask(self.name, mask)
        alpha = check_alpha(self.name, alpha)
        if op.needs_stats:
            check_stats(self.name, stats, mask.shape[0])
        return op._draw(key, jnp.asarray(mask), alpha, stats)

    def apply(self, x: jax.Array, mask: jax.Array, params: Params, **options: Any) -> tuple[jax.Array, jax.Array]:
        """Applies drawn parameters: (x [T, 3], mask [T]) -> the same shapes and dtypes.

        The flow may be another one than the draws were made for, with the same mask: places are drawn for its length.

        Raises:
            ConfigError: at trace time: wrong rank, a mask of another length, params of another operation.
        """
        op = self.with_options(**options)
        op._check_flow(x, mask)
        params = jax.tree.map(jnp.asarray, params)
        try:
            return op._apply(jnp.asarray(x), jnp.asarray(mask), params)
        except KeyError as error:
            raise ConfigError(f"{self.name}: params without {error}; give what {self.name}.sample returned") from error

    def with_options(self, **options: Any) -> Self:
        """The same operation with other options, for compositions and policies.

        Raises:
            ConfigError: an unknown option, or a value out of its range.
        """
        if not options:
            return self
        known = [field.name for field in dataclasses.fields(self)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ConfigError(f"{self.name} has no option {unknown[0]!r}; it has {', '.join(known)}")
        return dataclasses.replace(self, **options)

    def _check_options(self) -> None:
        """Raises ConfigError for options out of range."""

    def _check_flow(self, x: Any, mask: Any) -> None:
        check_mask(self.name, mask)
        check_features(self.name, x, mask.shape[0])

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        raise NotImplementedError

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        raise NotImplementedError

    def _pad_row(self, dtype: Any) -> jax.Array:
        pad = self.pad if isinstance(self.pad, tuple) else (self.pad,) * 3
        return jnp.asarray(np.asarray(pad, np.float64), dtype)


def check_key(name: str, key: Any) -> None:
    """Refuses anything but one typed key."""
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ConfigError(f"{name}: key is not a typed key; make one with jax.random.key(seed)")
    if key.shape:
        raise ConfigError(
            f"{name}: an array of {key.shape} keys where one is expected; jax.vmap({name}) takes a key for each flow, "
            f"augment.batched({name}) one for the batch"
        )


def check_mask(name: str, mask: Any) -> None:
    """Refuses anything but [T] bool."""
    if not hasattr(mask, "shape") or not hasattr(mask, "dtype"):
        raise ConfigError(f"{name}: the mask is a {type(mask).__name__}; give a bool array of shape [packet]")
    if len(mask.shape) != 1:
        raise ConfigError(
            f"{name}: mask of shape {tuple(mask.shape)}, expected [packet]; it takes one flow: use jax.vmap({name}) or "
            f"augment.batched({name}) for a batch"
        )
    if not mask.shape[0]:
        raise ConfigError(f"{name}: a mask of no packets; give arrays of at least one packet position")
    if mask.dtype != jnp.bool_:
        raise ConfigError(
            f"{name}: mask of type {mask.dtype}; make it bool, True at packets, for example direction != 0"
        )


def check_features(name: str, x: Any, packets: int) -> None:
    """Refuses anything but [T, 3] floating point that fits the mask."""
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 2 or shape[1] != len(FEATURES):
        raise ConfigError(
            f"{name}: x of shape {shape}, expected [packet, 3] in the order {', '.join(FEATURES)}; it takes one flow: "
            f"use jax.vmap({name}) or augment.batched({name}) for a batch"
        )
    if shape[0] != packets:
        raise ConfigError(f"{name}: x has {shape[0]} packets and its mask {packets}; give both the same length")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ConfigError(f"{name}: x of type {x.dtype}; convert it, for example x.astype(jnp.float32)")


def check_alpha(name: str, alpha: Any, shapes: tuple[tuple[int, ...], ...] = ((),)) -> jax.Array:
    """float32 of one of the shapes; values outside [0, 1] are refused (traced ones cannot be seen)."""
    if not isinstance(alpha, jax.core.Tracer):
        try:
            values = np.asarray(alpha, np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}: alpha={alpha!r}; give a number in [0, 1]") from error
        if not ((values >= 0) & (values <= 1)).all():
            raise ConfigError(f"{name}: alpha={alpha}; the magnitude lies in [0, 1]")
    alpha = jnp.asarray(alpha).astype(jnp.float32)
    if alpha.shape not in shapes:
        raise ConfigError(
            f"{name}: alpha of shape {alpha.shape}, expected {' or '.join(map(str, shapes))}; for one flow a number, "
            f"for a batch use jax.vmap({name}) or augment.batched({name})"
        )
    return alpha


def check_stats(name: str, stats: Any, packets: int, batch: tuple[int, ...] = ()) -> None:
    """Refuses missing statistics and those of another shape than [*batch, T, 3] and [*batch, 3]."""
    if not hasattr(stats, "std") or not hasattr(stats, "flat_std"):
        raise ConfigError(
            f"{name} needs stats=, the standard deviations of the flow's class: jaxtraffic.scaling.class_statistics"
            "(x, mask, label, classes)[label], or augment.FlowStatistics(std, flat_std)"
        )
    found, wanted = (tuple(stats.std.shape), tuple(stats.flat_std.shape)), ((*batch, packets, 3), (*batch, 3))
    if found != wanted:
        raise ConfigError(
            f"{name}: stats of shapes {found[0]} and {found[1]}, expected {wanted[0]} and {wanted[1]}; index them by "
            "the label, of one flow or of all flows of the batch: stats[label]"
        )


def check_share(name: str, option: str, value: Any) -> None:
    """Refuses a probability or share outside [0, 1]."""
    if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise ConfigError(f"{name}: {option}={value!r}; give a number in [0, 1]")


def check_choice(name: str, option: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuses an unknown mode."""
    if value not in choices:
        raise ConfigError(f"{name}: {option}={value!r}; choose from {', '.join(choices)}")


def check_flag(name: str, option: str, value: Any) -> None:
    """Refuses anything but True and False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: {option}={value!r}; give True or False")


def check_count(name: str, option: str, value: Any, low: int) -> None:
    """Refuses anything but an integer of at least `low`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < low:
        raise ConfigError(f"{name}: {option}={value!r}; give an integer of at least {low}")


def _signature(op: Operation) -> inspect.Signature:
    parameter, kinds = inspect.Parameter, inspect.Parameter
    names = ("key", "x", "mask")
    parameters = [parameter(name, kinds.POSITIONAL_OR_KEYWORD) for name in names]
    parameters.append(parameter("alpha", kinds.POSITIONAL_OR_KEYWORD, default=1.0))
    if op.needs_stats:
        parameters.append(parameter("stats", kinds.KEYWORD_ONLY))
    if op.batch:
        parameters.append(parameter("label", kinds.KEYWORD_ONLY, default=None))
    for field in dataclasses.fields(op):
        parameters.append(parameter(field.name, kinds.KEYWORD_ONLY, default=getattr(op, field.name)))
    return inspect.Signature(parameters)
