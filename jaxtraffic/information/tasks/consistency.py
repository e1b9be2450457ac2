"""Self-consistency tests of an estimator: what must hold whatever the truth is.

Sources: Song and Ermon, Understanding the Limitations of Variational Mutual Information Estimators, ICLR 2020 (data
processing and additivity), and Beyond Normal (arXiv 2306.11078; invariance). An estimator is any callable
`estimate(x, y, key) -> float` with x [n, dim_x] and y [n, dim_y] in NumPy, in nats. Both sides of a comparison get the
same key, so that draws of the estimator's own cancel where they can.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.information.tasks.catalogue import Pair
from jaxtraffic.information.tasks.task import Task

Estimate = Callable[[np.ndarray, np.ndarray, jax.Array], float]


@dataclasses.dataclass(frozen=True)
class Check:
    """What a self-consistency test found."""

    test: str
    """Name of the function."""
    values: dict[str, float]
    """The estimates compared, in nats; the first is that of I(X; Y)."""
    ratio: float
    """What the test compares; see its docstring. NaN where it would divide by zero."""
    expected: float
    """The ratio of a perfect estimator (for `chain` and `permutation` a bound); NaN where there is none."""


def independence(estimate: Estimate, x: np.ndarray, y: np.ndarray, key: jax.Array) -> Check:
    """Permuted y has nothing to do with x: the estimate left then is the floor of the estimator on such data.

    The ratio is floor / I(X; Y), and 0 is right.

    Args:
        estimate: see the module.
        x: [n, dim_x] or [n].
        y: [n, dim_y], or [n] (labels too).
        key: typed key.

    Raises:
        ConfigError: x and y of different lengths.
    """
    x, y = _same_length(x, y)
    value = _value(estimate, x, y, key)
    floor = _value(estimate, x, y[_order(key, "permutation", len(y))], key)
    return Check("independence", {"information": value, "floor": floor}, _ratio(floor, value), 0.0)


def permutation(estimate: Estimate, x: np.ndarray, y: np.ndarray, key: jax.Array, *, permutations: int = 20) -> Check:
    """How far the estimate stands out from those with permuted y, in their standard deviations.

    The ratio is the z-score; the bound expected of dependent variables is 1.645, the one-sided 5 % point.

    Args:
        estimate: see the module.
        x: [n, dim_x] or [n].
        y: [n, dim_y], or [n] (labels too).
        key: typed key.
        permutations: at least 2.

    Raises:
        ConfigError: fewer permutations, or x and y of different lengths.
    """
    if permutations < 2:
        raise ConfigError(f"a standard deviation needs at least 2 permutations, got {permutations}")
    x, y = _same_length(x, y)
    value = _value(estimate, x, y, key)
    keys = [prng.at_step(prng.stream(key, "permutations"), i) for i in range(permutations)]
    floors = np.array([_value(estimate, x, y[_order(each, "permutation", len(y))], each) for each in keys])
    mean, deviation = float(floors.mean()), float(floors.std(ddof=1))
    values = {"information": value, "floor": mean, "floor_sd": deviation}
    return Check("permutation", values, _ratio(value - mean, deviation), 1.645)


def data_processing(
    estimate: Estimate,
    x: np.ndarray,
    y: np.ndarray,
    key: jax.Array,
    *,
    processing: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Check:
    """I(X; [Y, h(Y)]) = I(X; Y): a function of Y beside Y adds nothing. The ratio is the first over the second, 1.

    Args:
        estimate: see the module.
        x: [n, dim_x] or [n].
        y: [n, dim_y] or [n], numbers.
        key: typed key.
        processing: h, [n, dim_y] -> [n, any]; by default tanh of y less its median, in interquartile ranges.

    Raises:
        ConfigError: x and y of different lengths, or h of another length.
    """
    x, y = _same_length(_columns(x), _columns(y))
    more = _columns((processing or _squeeze)(y))
    _same_length(y, more)
    value = _value(estimate, x, y, key)
    beside = _value(estimate, x, np.concatenate([y, more.astype(y.dtype)], axis=1), key)
    return Check("data_processing", {"information": value, "with_function": beside}, _ratio(beside, value), 1.0)


def chain(
    estimate: Estimate,
    x: np.ndarray,
    y: np.ndarray,
    key: jax.Array,
    *,
    z: np.ndarray | None = None,
    noise: float = 1.0,
) -> Check:
    """I(X; Z) <= I(X; Y) where Z is made of Y alone. The ratio is the first over the second, at most 1.

    Args:
        estimate: see the module.
        x: [n, dim_x] or [n].
        y: [n, dim_y] or [n], numbers.
        key: typed key.
        z: [n, any], drawn given y; by default y plus normal noise.
        noise: its standard deviation in interquartile ranges of each coordinate.

    Raises:
        ConfigError: x, y or z of different lengths.
    """
    x, y = _same_length(_columns(x), _columns(y))
    if z is None:
        _, spread = _centre_and_spread(y)
        drawn = np.asarray(jax.random.normal(prng.stream(key, "noise"), y.shape))
        z = (y + noise * spread * drawn).astype(y.dtype if np.issubdtype(y.dtype, np.floating) else np.float32)
    _, z = _same_length(y, _columns(z))
    value, after = _value(estimate, x, y, key), _value(estimate, x, z, key)
    return Check("chain", {"information": value, "after_noise": after}, _ratio(after, value), 1.0)


def additivity(
    estimate: Estimate,
    x: np.ndarray,
    y: np.ndarray,
    key: jax.Array,
    *,
    other: tuple[np.ndarray, np.ndarray] | None = None,
) -> Check:
    """I([X1, X2]; [Y1, Y2]) = 2 I(X; Y) for two independent copies of the pair. The ratio is the first over I, 2.

    Args:
        estimate: see the module.
        x: [n, dim_x] or [n].
        y: [n, dim_y] or [n], numbers.
        key: typed key.
        other: n further pairs, the second copy; by default the second half of x and y, the first being the first half.

    Raises:
        ConfigError: x and y, or the copies, of different lengths.
    """
    x, y = _same_length(_columns(x), _columns(y))
    if other is None:
        half = len(x) // 2
        other = x[half : 2 * half], y[half : 2 * half]
        x, y = x[:half], y[:half]
    x2, y2 = _same_length(*_same_length(x, _columns(other[0]))[1:], _columns(other[1]))
    value = _value(estimate, x, y, key)
    both = _value(estimate, np.concatenate([x, x2], axis=1), np.concatenate([y, y2], axis=1), key)
    return Check("additivity", {"information": value, "two_copies": both}, _ratio(both, value), 2.0)


def symmetry(estimate: Estimate, x: np.ndarray, y: np.ndarray, key: jax.Array) -> Check:
    """I(Y; X) = I(X; Y). The ratio is the first over the second, 1; both sides must be numbers.

    Args:
        estimate: see the module.
        x: [n, dim_x] or [n].
        y: [n, dim_y] or [n], numbers.
        key: typed key.

    Raises:
        ConfigError: x and y of different lengths.
    """
    x, y = _same_length(_columns(x), _columns(y))
    value, back = _value(estimate, x, y, key), _value(estimate, y, x, key)
    return Check("symmetry", {"information": value, "exchanged": back}, _ratio(back, value), 1.0)


def invariance(estimate: Estimate, pair: Pair, key: jax.Array, *, n: int = 10_000) -> Check:
    """Injective maps of X and of Y change nothing. The ratio is I after over I before, on the same points, 1.

    Args:
        estimate: see the module.
        pair: one of `PAIRS`, or any two tasks.
        key: typed key.
        n: pairs of points to draw.
    """
    points = prng.stream(key, "points")
    before = _value(estimate, *pair[0].sample(points, n), key)
    after = _value(estimate, *pair[1].sample(points, n), key)
    values = {"information": before, "changed": after, "truth": pair[0].mutual_information}
    return Check("invariance", values, _ratio(after, before), 1.0)


def check_task(estimate: Estimate, task: Task, key: jax.Array, *, n: int = 10_000) -> list[Check]:
    """All tests on draws of one task: independence, data processing, chain, additivity, symmetry and, for a changed
    task, invariance. About eleven estimates; the z-score, which takes twenty more, is left to `permutation`.

    Args:
        estimate: see the module.
        task: what to draw from.
        key: typed key.
        n: pairs that each estimate gets; additivity draws as many again.
    """
    x, y = task.sample(prng.stream(key, "points"), n)
    checks = [test(estimate, x, y, key) for test in (independence, data_processing, chain, symmetry)]
    other = task.sample(prng.stream(key, "other points"), n)
    checks.append(additivity(estimate, x, y, key, other=other))
    if task.base is not None:
        checks.append(invariance(estimate, Pair(task.base, task), key, n=n))
    return checks


def _value(estimate: Estimate, x: np.ndarray, y: np.ndarray, key: jax.Array) -> float:
    return float(estimate(x, y, prng.stream(key, "estimate")))


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan


def _order(key: jax.Array, name: str, n: int) -> np.ndarray:
    """A permutation of n rows, drawn on the host, where sorting is quick."""
    seed = np.asarray(jax.random.key_data(prng.stream(key, name))).ravel()
    return np.random.default_rng(seed).permutation(n)


def _columns(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values[:, None] if values.ndim == 1 else values


def _same_length(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y):
        raise ConfigError(f"x and y must have as many samples, got {len(x)} and {len(y)}")
    return x, y


def _centre_and_spread(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, centre, high = np.quantile(y, [0.25, 0.5, 0.75], axis=0)
    return centre, np.where(high > low, high - low, 1.0)


def _squeeze(y: np.ndarray) -> np.ndarray:
    centre, spread = _centre_and_spread(y)
    return np.tanh((y - centre) / spread)
