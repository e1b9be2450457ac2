"""What an estimate of mutual information is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtraffic import prng


class Pairs(NamedTuple):
    """Samples of a joint distribution, as estimators see them: checked and preprocessed.

    Attributes:
        x: [n, dim_x] float32.
        y: [n, dim_y] float32, or labels [n] int32 where y is discrete.
    """

    x: jax.Array
    y: jax.Array


class Outcome(NamedTuple):
    """What the compiled part of an estimator returns; every leaf gains a leading axis under vmap.

    Attributes:
        value: [] nats, never clipped.
        stderr: [] standard error over test points and draws of noise; NaN where the estimator has none.
        pointwise: [n_test] nats, one for each test pair, whose mean is the value; None where the estimator is no mean.
        diagnostics: scalars or curves (losses, validation), for warnings and reports.
    """

    value: jax.Array
    stderr: jax.Array
    pointwise: jax.Array | None
    diagnostics: dict[str, jax.Array]


class Method(NamedTuple):
    """An estimator.

    Attributes:
        name: how `estimate(method=...)` calls it.
        options: frozen dataclass of its hyper-parameters, all with defaults.
        program: (options, n_classes, key, train Pairs, test Pairs) -> Outcome; pure, jitted and vmapped by `estimate`;
            n_classes is 0 for continuous y. Methods that do not train get all samples as test, and train is None.
        trains: whether the samples are split.
        preprocess: default of `estimate(preprocess=...)`.
        discrete: whether y may be labels.
        warn: (options, diagnostics as NumPy, value) -> warnings in words.
        source: paper and equation.
        fit: (options, n_classes, key, train Pairs) -> what was learnt, a pytree; None where the two parts of `program`
            cannot be had apart.
        evaluate: (options, n_classes, key, what was learnt, test Pairs) -> Outcome.
    """

    name: str
    options: type
    program: Callable[[Any, int, jax.Array, Pairs | None, Pairs], Outcome]
    trains: bool
    preprocess: str
    discrete: bool
    warn: Callable[[Any, dict[str, np.ndarray], float], list[str]]
    source: str
    fit: Callable[[Any, int, jax.Array, Pairs], Any] | None = None
    evaluate: Callable[[Any, int, jax.Array, Any, Pairs], Outcome] | None = None


def in_two_parts(
    fit: Callable[[Any, int, jax.Array, Pairs], Any], evaluate: Callable[[Any, int, jax.Array, Any, Pairs], Outcome]
) -> Callable[[Any, int, jax.Array, Pairs | None, Pairs], Outcome]:
    """The `program` of a method that fits on the training pairs and then evaluates on the test pairs."""

    def program(options: Any, n_classes: int, key: jax.Array, train: Pairs | None, test: Pairs) -> Outcome:
        learnt = fit(options, n_classes, prng.stream(key, "train"), train)
        return evaluate(options, n_classes, prng.stream(key, "test"), learnt, test)

    return program


@dataclasses.dataclass(frozen=True)
class MIResult:
    """An estimate of I(X; Y) in nats.

    The interval covers what test points and noise draws add, not what another training run would: for that use several
    seeds (`estimate_many`).
    """

    value: float
    """Nats; never clipped, may be negative."""
    stderr: float
    """Standard error over test points; NaN where the method has none."""
    ci: tuple[float, float]
    """95 % interval, value -+ 1.96 stderr."""
    pointwise: np.ndarray | None
    """[n_test] nats, or None; see the method for what one value means."""
    n_train: int
    n_test: int
    seconds: float
    """Wall time of preparation, compilation and run; of the whole vmapped program divided by its runs."""
    warnings: tuple[str, ...] = ()
    method: str = ""
    diagnostics: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def mi_estimate(self) -> float:
        """The value, under the name that the bmi package reads."""
        return self.value

    @property
    def time_in_seconds(self) -> float:
        """The seconds, under the name that the bmi package reads."""
        return self.seconds

    @property
    def additional_information(self) -> dict[str, Any]:
        """All the rest, under the name that the bmi package reads."""
        return {
            "stderr": self.stderr,
            "ci": self.ci,
            "n_train": self.n_train,
            "n_test": self.n_test,
            "warnings": list(self.warnings),
            "method": self.method,
        }
