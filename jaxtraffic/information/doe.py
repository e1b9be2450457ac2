"""Difference of entropies: cross-entropy of a model of y less that of a model of y given x."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.information.result import Method, Outcome, Pairs, in_two_parts
from jaxtraffic.nn.mlp import make_mlp
from jaxtraffic.train.fit import fit
from jaxtraffic.train.state import TrainConfig

VALIDATION_ROWS = 10_000
"""Most samples of the validation part that each check looks at."""


@dataclasses.dataclass(frozen=True)
class DoEOptions:
    """Hyper-parameters of the difference of entropies; widths and layers are those of the MINDE paper's baseline."""

    family: str = "gaussian"
    """"gaussian" or "logistic" for both models of continuous y, each coordinate by itself; labels are categorical."""
    hidden: tuple[int, ...] | None = None
    """Widths of the tanh layers of q(y | x); None takes two of 64 up to 10 dimensions of x and y together, of 128 up to
    50 and of 256 above."""
    steps: int = 10_000
    """Steps of Adam."""
    batch_size: int = 256
    """Samples in a step."""
    learning_rate: float = 2e-3
    """Peak rate, falling to 0 along a cosine."""
    clip_norm: float = 1.0
    """Gradient norm above which gradients are scaled down."""
    validation: float = 0.1
    """Share of the training samples that decides which parameters are kept."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(f"unknown family {self.family!r}; choose from {', '.join(FAMILIES)}")
        if not 0 < self.validation < 1:
            raise ConfigError(f"validation must be a share above 0 and below 1, got {self.validation}")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


class Trained(NamedTuple):
    """Both models, and what their training looked like."""

    params: Any
    diagnostics: dict[str, jax.Array]


def gaussian(y: jax.Array, centre: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Log density of a normal variable with standard deviation e^log_scale."""
    z = (y - centre) * jnp.exp(-log_scale)
    return -0.5 * z**2 - log_scale - 0.5 * jnp.log(jnp.float32(2 * jnp.pi))


def logistic(y: jax.Array, centre: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Log density of a logistic variable with scale e^log_scale."""
    z = (y - centre) * jnp.exp(-log_scale)
    return -z - log_scale - 2 * jax.nn.softplus(-z)


FAMILIES: dict[str, Callable[..., jax.Array]] = {"gaussian": gaussian, "logistic": logistic}


def _network(options: DoEOptions, n_classes: int, dim_x: int, dim_y: int) -> tuple[Callable, Callable]:
    dims = dim_x + dim_y
    hidden = options.hidden or (64 if dims <= 10 else 128 if dims <= 50 else 256,) * 2
    return make_mlp((dim_x, *hidden, n_classes or 2 * dim_y), "tanh")


def _dim_y(y: jax.Array, n_classes: int) -> int:
    return n_classes or y.shape[1]


def _log_given_x(options: DoEOptions, n_classes: int, apply: Callable, params: Any, pairs: Pairs) -> jax.Array:
    """Log q(y | x), [n]."""
    out = apply(params["given_x"], pairs.x)
    if n_classes:
        return jnp.take_along_axis(jax.nn.log_softmax(out), pairs.y[:, None], axis=1)[:, 0]
    centre, log_scale = jnp.split(out, 2, axis=1)
    return FAMILIES[options.family](pairs.y, centre, log_scale).sum(axis=1)


def _log_alone(options: DoEOptions, params: Any, y: jax.Array) -> jax.Array:
    """Log q(y), [n]."""
    return FAMILIES[options.family](y, params["centre"], params["log_scale"]).sum(axis=1)


def _train(options: DoEOptions, n_classes: int, key: jax.Array, train: Pairs) -> Trained:
    n, dim_x = train.x.shape
    init, apply = _network(options, n_classes, dim_x, _dim_y(train.y, n_classes))
    params = {"given_x": init(prng.stream(key, "init"))}
    if not n_classes:
        params |= {"centre": train.y.mean(axis=0), "log_scale": jnp.log(jnp.maximum(train.y.std(axis=0), 1e-6))}
    held = min(n - 2, max(2, round(options.validation * n)))
    order = jax.random.permutation(prng.stream(key, "validation"), n)
    rows, kept = order[: min(held, VALIDATION_ROWS)], order[held:]

    def loss(params: Any, state: Any, batch: Pairs, own: jax.Array) -> tuple[jax.Array, Any]:
        both = -_log_given_x(options, n_classes, apply, params, batch).mean()
        if not n_classes:
            both = both - _log_alone(options, params, batch.y).mean()
        return both, state

    def cross_entropy(params: Any, rows: jax.Array) -> jax.Array:
        pairs = jax.tree.map(lambda leaf: leaf[rows], train)
        return -_log_given_x(options, n_classes, apply, params, pairs).mean()

    fitted = fit(
        loss,
        params,
        jax.tree.map(lambda leaf: leaf[kept], train),
        prng.stream(key, "fit"),
        TrainConfig(
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            weight_decay=0.0,
            clip_norm=options.clip_norm,
            warmup=0.01,
        ),
        validate=lambda params: cross_entropy(params, rows),
    )
    same = kept[jnp.arange(len(rows)) % len(kept)]
    diagnostics = {
        "loss": fitted.losses,
        "validation": fitted.validation,
        "best_check": fitted.best,
        "on_train": cross_entropy(fitted.params, same),
    }
    return Trained(fitted.params, diagnostics)


def _evaluate(options: DoEOptions, n_classes: int, key: jax.Array, trained: Trained, test: Pairs) -> Outcome:
    """Pointwise terms are log q(y | x) - log q(y), whose mean is the value.

    For labels q(y) is the share of each label among the test samples. The plug-in entropy that it stands for is too low
    by about (classes - 1) / 2n, so that the value stays a lower bound on average (Barber and Agakov 2003).
    """
    n, dim_x = test.x.shape
    _, apply = _network(options, n_classes, dim_x, _dim_y(test.y, n_classes))
    given_x = _log_given_x(options, n_classes, apply, trained.params, test)
    if n_classes:
        share = jnp.bincount(test.y, length=n_classes).astype(jnp.float32) / n
        alone = jnp.log(share)[test.y]
    else:
        alone = _log_alone(options, trained.params, test.y)
    pointwise = given_x - alone
    diagnostics = trained.diagnostics | {"on_test": -given_x.mean(), "entropy": -alone.mean()}
    return Outcome(pointwise.mean(), pointwise.std() / jnp.sqrt(jnp.float32(n)), pointwise, diagnostics)


def _warn(options: DoEOptions, diagnostics: dict[str, np.ndarray], value: float) -> list[str]:
    validation = diagnostics["validation"]
    if not np.isfinite(value) or not np.isfinite(validation).all():
        return ["training diverged in part (values that are not finite); use a lower learning_rate"]
    found = []
    if len(validation) >= 4:
        fall = float(validation[: 3 * len(validation) // 4].min() - validation[-1])
        if fall > max(0.02, 0.05 * abs(value)):
            found.append(f"the cross-entropy still fell by {fall:.3f} over the last quarter; use more steps")
    gap = float(diagnostics["on_test"] - diagnostics["on_train"])
    if gap > max(0.05, 0.1 * abs(value)):
        found.append(f"overfitting: the test samples' cross-entropy is {gap:.3f} nats above the training samples'")
    return found


DOE = Method(
    name="doe",
    options=DoEOptions,
    program=in_two_parts(_train, _evaluate),
    trains=True,
    preprocess="gaussianise",
    discrete=True,
    warn=_warn,
    source="McAllester and Stratos 2020, Sec. 5; labels: Barber and Agakov 2003, Eq. 3",
    fit=_train,
    evaluate=_evaluate,
)
