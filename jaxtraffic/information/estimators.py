"""Estimators as objects, in the shape that the bmi package (benchmark-mi) expects of its own, without needing it."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import jax
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.information.estimate import FEWEST, Maps, checked, estimate, options_of, result_of
from jaxtraffic.information.registry import method_named
from jaxtraffic.information.result import Method, MIResult, Pairs


@dataclasses.dataclass(frozen=True)
class Parameters:
    """All hyper-parameters of an estimator by name; `dict()` and `model_dump()` are what bmi's runners call."""

    values: tuple[tuple[str, Any], ...]

    def dict(self) -> dict[str, Any]:
        """Name to value."""
        return dict(self.values)

    def model_dump(self) -> dict[str, Any]:
        """Name to value, under the name of newer pydantic."""
        return dict(self.values)


class Estimator:
    """One method with its hyper-parameters, for bmi's runners and for fitting once and evaluating often.

    Args:
        method: one of `information.METHODS`.
        seed: decides the split and everything drawn.
        test: share of the samples that `estimate` sets aside for the value.
        discrete: whether y holds labels; by default decided from its dtype and shape.
        preprocess: see `information.preprocess.fit`; by default what suits the method.
        **options: hyper-parameters of the method, such as steps=5000.

    Raises:
        ConfigError: unknown method or option.

    Source of the protocol: `IMutualInformationPointEstimator` of benchmark-mi 0.1.3.
    """

    def __init__(
        self,
        method: str = "rf",
        *,
        seed: int = 0,
        test: float = 0.5,
        discrete: bool | None = None,
        preprocess: str | None = None,
        **options: Any,
    ):
        self._method: Method = method_named(method)
        self._options = options_of(self._method, None, options)
        self._seed, self._test, self._discrete = seed, test, discrete
        self._preprocess = preprocess or self._method.preprocess
        self._fitted: _Fitted | None = None

    def estimate(self, x: np.ndarray, y: np.ndarray) -> float:
        """I(X; Y) in nats; x [n, dim_x], y [n, dim_y]."""
        return self.estimate_with_info(x, y).value

    def estimate_with_info(self, x: np.ndarray, y: np.ndarray) -> MIResult:
        """The same with everything known about it: mi_estimate, time_in_seconds, additional_information and more."""
        return estimate(
            x,
            y,
            method=self._method.name,
            key=jax.random.key(self._seed),
            test=self._test,
            discrete=self._discrete,
            preprocess=self._preprocess,
            options=self._options,
        )

    def parameters(self) -> Parameters:
        """Method, seed, split, preprocessing and the method's own options."""
        own = {
            "method": self._method.name,
            "seed": self._seed,
            "test": self._test,
            "discrete": self._discrete,
            "preprocess": self._preprocess,
        }
        return Parameters(tuple((own | dataclasses.asdict(self._options)).items()))

    def fit(self, x: np.ndarray, y: np.ndarray, key: jax.Array | None = None) -> Estimator:
        """Trains on all of x and y, for `evaluate` on other samples.

        Args:
            x: [n, dim_x] or [n].
            y: [n, dim_y] or [n], or labels.
            key: decides everything drawn; by default from the seed.

        Returns:
            The estimator itself.

        Raises:
            ConfigError: a method that trains nothing or does so only together with its estimate; samples as `estimate`.
        """
        if self._method.fit is None:
            raise ConfigError(f"method {self._method.name} has no training apart from its estimate; call estimate")
        x, y, discrete = checked(self._method, x, y, self._discrete)
        if len(x) < FEWEST:
            raise ConfigError(f"too few samples: {len(x)} to train; need {FEWEST}")
        maps = Maps.fit(self._preprocess, x, None if discrete else y)
        n_classes = int(y.max()) + 1 if discrete else 0
        pairs = maps.pairs(x, y)
        key = jax.random.key(self._seed) if key is None else key
        learnt = _compiled(self._method.fit, self._options, n_classes)(prng.stream(key, "train"), pairs)
        self._fitted = _Fitted(learnt, maps, n_classes, len(x), pairs)
        return self

    def evaluate(self, x: np.ndarray, y: np.ndarray, key: jax.Array | None = None) -> MIResult:
        """The estimate on samples that were not trained on; equal to `estimate(..., test=(x, y))` under the same key.

        Raises:
            ConfigError: not fitted; dimensions or labels that the fitted samples did not have.
        """
        clock = time.perf_counter()
        fitted = self._fitted
        if fitted is None:
            raise ConfigError("evaluate needs a fitted estimator: call fit(x, y) first, or estimate(x, y)")
        x, y, _ = checked(self._method, x, y, fitted.n_classes > 0, "test ")
        if len(x) < FEWEST:
            raise ConfigError(f"too few samples: {len(x)} to test; need {FEWEST}")
        if x.shape[1:] != fitted.train.x.shape[1:] or y.shape[1:] != fitted.train.y.shape[1:]:
            raise ConfigError("test samples have other dimensions than the training samples")
        if fitted.n_classes and y.max() >= fitted.n_classes:
            raise ConfigError(f"test labels go up to {y.max()}, those trained on up to {fitted.n_classes - 1}")
        key = jax.random.key(self._seed) if key is None else key
        program = _compiled(self._method.evaluate, self._options, fitted.n_classes)
        outcome = program(prng.stream(key, "test"), fitted.learnt, fitted.maps.pairs(x, y))
        outcome = jax.tree.map(np.asarray, outcome)
        seconds = time.perf_counter() - clock
        return result_of(self._method, self._options, outcome, fitted.n_train, len(x), seconds)


@dataclasses.dataclass(frozen=True)
class _Fitted:
    """What `fit` leaves for `evaluate`."""

    learnt: Any
    maps: Maps
    n_classes: int
    n_train: int
    train: Pairs


@functools.lru_cache(maxsize=64)
def _compiled(part: Any, options: Any, n_classes: int) -> Any:
    return jax.jit(functools.partial(part, options, n_classes))
