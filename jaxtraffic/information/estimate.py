"""`estimate`: mutual information of two samples by any method, in nats."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.information import preprocess as maps
from jaxtraffic.information.registry import METHODS, method_named
from jaxtraffic.information.result import Method, MIResult, Outcome, Pairs

FEWEST = 10
"""Fewest samples to train on and to test on."""


def estimate(
    x: np.ndarray,
    y: np.ndarray,
    *,
    method: str = "rf",
    key: jax.Array,
    test: tuple[np.ndarray, np.ndarray] | float = 0.5,
    discrete: bool | None = None,
    preprocess: str | None = None,
    options: Any = None,
    **changes: Any,
) -> MIResult:
    """Estimates I(X; Y) in nats.

    Args:
        x: [n, dim_x] or [n], finite.
        y: [n, dim_y] or [n], finite; labels where it is [n] of integers, unless `discrete` says otherwise.
        method: one of `information.METHODS`.
        key: typed key; it decides the split and everything drawn.
        test: the share of samples set aside for the estimate (the rest trains), or other samples (x, y) to estimate on.
            Methods that do not train use all samples.
        discrete: whether y holds labels; by default decided from its dtype and shape.
        preprocess: see `information.preprocess.fit`; by default what suits the method.
        options: the method's frozen dataclass of hyper-parameters.
        **changes: fields of it to change, such as steps=5000.

    Returns:
        MIResult; the value is never clipped.

    Raises:
        ConfigError: unknown method or option, shapes that do not fit, values that are not finite, too few samples.
    """
    (result,) = estimate_many(
        [x],
        [y],
        method=method,
        keys=[key],
        tests=[test] if isinstance(test, tuple) else test,
        discrete=discrete,
        preprocess=preprocess,
        options=options,
        **changes,
    )
    return result


def estimate_many(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    *,
    method: str = "rf",
    keys: Sequence[jax.Array],
    tests: Sequence[tuple[np.ndarray, np.ndarray]] | float = 0.5,
    discrete: bool | None = None,
    preprocess: str | None = None,
    options: Any = None,
    **changes: Any,
) -> list[MIResult]:
    """`estimate` of several samples of equal shape (seeds of a task, say) in one vmapped program.

    Raises:
        ConfigError: as `estimate`; also samples of different shapes.
    """
    clock = time.perf_counter()
    chosen = method_named(method)
    options = options_of(chosen, options, changes)
    if not len(xs) == len(ys) == len(keys) or not len(xs):
        raise ConfigError(f"need as many x as y and keys, and at least one, got {len(xs)}, {len(ys)} and {len(keys)}")
    runs, n_classes = [], 0
    for i, (x, y, key) in enumerate(zip(xs, ys, keys, strict=True)):
        test = tests if isinstance(tests, (int, float)) else tests[i]
        train, held_out, classes = _prepare(chosen, x, y, test, key, discrete, preprocess or chosen.preprocess)
        runs.append((key, train, held_out))
        n_classes = max(n_classes, classes)
    if len({str(jax.tree.map(np.shape, run[1:])) for run in runs}) > 1:
        raise ConfigError("samples of different shapes cannot share a program; call estimate for each")
    program = _program(chosen, options, n_classes, len(runs))
    if len(runs) == 1:
        outcome = jax.tree.map(lambda leaf: np.asarray(leaf)[None], program(*runs[0]))
    else:
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[run[1:] for run in runs])
        outcome = jax.tree.map(np.asarray, program(jax.numpy.stack([run[0] for run in runs]), *stacked))
    seconds = (time.perf_counter() - clock) / len(runs)
    n_train = 0 if runs[0][1] is None else len(runs[0][1].x)
    return [
        result_of(chosen, options, jax.tree.map(lambda leaf: leaf[i], outcome), n_train, len(runs[i][2].x), seconds)  # noqa: B023
        for i in range(len(runs))
    ]


@functools.lru_cache(maxsize=64)
def _program(method: Method, options: Any, n_classes: int, runs: int) -> Any:
    """One jitted program for a method, its options and a number of runs; jit adds the shapes."""
    program = functools.partial(method.program, options, n_classes)
    return jax.jit(program if runs == 1 else jax.vmap(program))


def options_of(method: Method, options: Any, changes: dict[str, Any]) -> Any:
    """Hyper-parameters: the method's defaults or `options`, with changes.

    Raises:
        ConfigError: options of another method, or an unknown one among the changes.
    """
    options = method.options() if options is None else options
    if not isinstance(options, method.options):
        raise ConfigError(f"options of {method.name} are {method.options.__name__}, got {type(options).__name__}")
    known = {field.name for field in dataclasses.fields(method.options)}
    if unknown := set(changes) - known:
        raise ConfigError(f"{method.name} has no option {sorted(unknown)[0]!r}; choose from {', '.join(sorted(known))}")
    # Options are the key of compiled programs, which a list cannot be.
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return dataclasses.replace(options, **changes)


def _prepare(
    method: Method,
    x: np.ndarray,
    y: np.ndarray,
    test: tuple[np.ndarray, np.ndarray] | float,
    key: jax.Array,
    discrete: bool | None,
    kind: str,
) -> tuple[Pairs | None, Pairs, int]:
    """Checked, split and preprocessed samples, and the number of classes (0 where y is continuous)."""
    x, y, discrete = checked(method, x, y, discrete)
    if isinstance(test, tuple):
        test_x, test_y, _ = checked(method, *test, discrete, "test ")
        if test_x.shape[1:] != x.shape[1:] or test_y.shape[1:] != y.shape[1:]:
            raise ConfigError("test samples have other dimensions than the training samples")
        train_x, train_y = x, y
        if not method.trains:
            train_x, train_y = test_x, test_y
    elif not method.trains:
        train_x = test_x = x
        train_y = test_y = y
    else:
        if not 0 < test < 1:
            raise ConfigError(f"test must be a share above 0 and below 1, got {test}")
        seed = np.asarray(jax.random.key_data(prng.stream(key, "split"))).ravel()
        order = np.random.default_rng(seed).permutation(len(x))
        held = round(test * len(x))
        held_out, kept = order[:held], order[held:]
        train_x, train_y, test_x, test_y = x[kept], y[kept], x[held_out], y[held_out]
    if min(len(train_x), len(test_x)) < FEWEST:
        raise ConfigError(f"too few samples: {len(train_x)} to train and {len(test_x)} to test; need {FEWEST} of each")
    classes = int(max(train_y.max(), test_y.max())) + 1 if discrete else 0
    mapped = Maps.fit(kind, train_x, None if discrete else train_y)
    return (mapped.pairs(train_x, train_y) if method.trains else None), mapped.pairs(test_x, test_y), classes


class Maps(NamedTuple):
    """The maps that preprocess x and y, fitted on training samples; labels have none."""

    x: maps.Map
    y: maps.Map | None

    @classmethod
    def fit(cls, kind: str, x: np.ndarray, y: np.ndarray | None) -> Maps:
        """Fits both; y is None where it holds labels."""
        return cls(maps.fit(kind, x), None if y is None else maps.fit(kind, y))

    def pairs(self, x: np.ndarray, y: np.ndarray) -> Pairs:
        """What estimators see of x and y."""
        return Pairs(self.x.apply(x), y.astype(np.int32) if self.y is None else self.y.apply(y))


def checked(
    method: Method, x: np.ndarray, y: np.ndarray, discrete: bool | None, which: str = ""
) -> tuple[np.ndarray, np.ndarray, bool]:
    """X as [n, dim_x], y as [n, dim_y] or labels [n], and whether y is discrete.

    Args:
        method: the method that will see them.
        x: [n, dim_x] or [n].
        y: [n, dim_y] or [n].
        discrete: whether y holds labels; None decides from its dtype and shape.
        which: word before "x" and "y" in errors.

    Raises:
        ConfigError: they do not fit the method or each other.
    """
    x, y = _matrix(x, f"{which}x"), np.asarray(y)
    discrete = bool(y.ndim == 1 and np.issubdtype(y.dtype, np.integer)) if discrete is None else discrete
    if discrete and not method.discrete:
        raise ConfigError(f"method {method.name} needs continuous y; pass discrete=False to treat labels as numbers")
    y = _labels(y) if discrete else _matrix(y, f"{which}y")
    if len(x) != len(y):
        raise ConfigError(f"{which}x and {which}y must have as many samples, got {len(x)} and {len(y)}")
    return x, y, discrete


def _matrix(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.shape[1]:
        raise ConfigError(f"{name} must be [n, dim] or [n], got shape {values.shape}")
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise ConfigError(f"{name} must hold real numbers, got {values.dtype}")
    if not np.isfinite(values).all():
        raise ConfigError(f"{name} holds {int((~np.isfinite(values)).sum())} values that are not finite")
    return values


def _labels(y: np.ndarray) -> np.ndarray:
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or y.min(initial=0) < 0:
        raise ConfigError(f"discrete y must be labels [n] of integers from 0, got {y.dtype} of shape {y.shape}")
    return y


def result_of(method: Method, options: Any, outcome: Outcome, n_train: int, n_test: int, seconds: float) -> MIResult:
    """An outcome (leaves in NumPy) with what people read beside it."""
    value, stderr = float(outcome.value), float(outcome.stderr)
    return MIResult(
        value=value,
        stderr=stderr,
        ci=(value - 1.96 * stderr, value + 1.96 * stderr),
        pointwise=outcome.pointwise,
        n_train=n_train,
        n_test=n_test,
        seconds=seconds,
        warnings=tuple(method.warn(options, outcome.diagnostics, value)),
        method=method.name,
        diagnostics=outcome.diagnostics,
    )


__all__ = ["METHODS", "estimate", "estimate_many"]
