"""Neural lower bounds of mutual information: MINE, InfoNCE, NWJ and SMILE.

All four train a critic f(x, y) to tell joint pairs from shuffled ones, keep the parameters that do best on a validation
part of the training samples, and read their value from other samples (never the best of several test values). Widths,
rate and batch are those of the MINDE paper's baselines; a rate that falls to 0 is ours, and so is the default
preprocessing, `gaussianise`, which all estimators share (`preprocess="standardise"` is the published one).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.information import bounds
from jaxtraffic.information.negatives import Scores, against_shuffled, shifts_of
from jaxtraffic.information.result import Method, Outcome, Pairs, in_two_parts
from jaxtraffic.nn.mlp import Critic, make_critic
from jaxtraffic.train.fit import fit
from jaxtraffic.train.state import TrainConfig

VALIDATION_ROWS = 5000
"""Most samples of the validation part that each check looks at."""


@dataclasses.dataclass(frozen=True)
class CriticOptions:
    """What all critics share."""

    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers; None takes (32, 32, 8) up to 10 dimensions of x and y together, (128, 128, 8) up to
    50 and (256, 256, 8) above."""
    critic: str | None = "concat"
    """"concat" (an MLP of both) or "separable" (an inner product of two embeddings)."""
    steps: int = 20_000
    """Steps of Adam."""
    batch_size: int = 256
    """Joint pairs in a step."""
    negatives: int = 1
    """Shuffled pairs for each joint pair in a step."""
    learning_rate: float | None = None
    """Peak rate, falling to 0 along a cosine; None takes 1e-3, and 2e-3 above 50 dimensions."""
    validation: float = 0.1
    """Share of the training samples that decides which parameters are kept."""
    test_negatives: int = 64
    """Shuffled partners of each test sample in the value."""

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise ConfigError(f"validation must be a share above 0 and below 1, got {self.validation}")
        for name in ("steps", "batch_size", "negatives", "test_negatives"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class MineOptions(CriticOptions):
    """Hyper-parameters of MINE."""

    decay: float = 0.9
    """Weight of the past in the running mean of e^f that divides the gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise ConfigError(f"decay must be at least 0 and below 1, got {self.decay}")


@dataclasses.dataclass(frozen=True)
class NWJOptions(CriticOptions):
    """Hyper-parameters of NWJ."""

    negatives: int = 4


@dataclasses.dataclass(frozen=True)
class SmileOptions(CriticOptions):
    """Hyper-parameters of SMILE."""

    negatives: int = 4
    tau: float = 5.0
    """Scores of negative pairs are clipped to [-tau, tau] in the value; the paper's are 1, 5 and infinity."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tau > 0:
            raise ConfigError(f"tau must be above 0, got {self.tau}")


@dataclasses.dataclass(frozen=True)
class InfoNCEOptions(CriticOptions):
    """Hyper-parameters of InfoNCE; the published form scores all pairs of a batch, `negatives` of 255."""

    critic: str | None = None
    """None takes "concat" up to 10 dimensions and "separable" above, where scoring all these pairs costs too much."""
    steps: int = 5_000
    negatives: int = 63
    test_negatives: int = 1023
    """Shuffled partners of each test sample; the value cannot exceed the log of one more."""


class Trained(NamedTuple):
    """A trained critic: its parameters, and what its training looked like."""

    params: Any
    diagnostics: dict[str, jax.Array]


class _Bound(NamedTuple):
    """What tells one bound from the others.

    Attributes:
        loss: (options, critic, params, state, batch, key) -> (loss, state).
        state: initial state of the loss.
        select: (options, scores) -> [] the validation value, higher is better.
        select_negatives: shuffled partners of each validation sample.
        outcome: (options, scores) -> (value [], influence [n], pointwise [n] or None).
    """

    loss: Callable[..., tuple[jax.Array, Any]]
    state: Callable[[], Any]
    select: Callable[[Any, Scores], jax.Array]
    select_negatives: int
    outcome: Callable[[Any, Scores], tuple[jax.Array, jax.Array, jax.Array]]


def _critic(options: CriticOptions, dim_x: int, dim_y: int) -> Critic:
    dims = dim_x + dim_y
    hidden = options.hidden or ((32, 32, 8) if dims <= 10 else (128, 128, 8) if dims <= 50 else (256, 256, 8))
    return make_critic(options.critic or ("concat" if dims <= 10 else "separable"), dim_x, dim_y, hidden)


def _numbers(pairs: Pairs, n_classes: int) -> Pairs:
    """Labels become one-hot vectors."""
    return Pairs(pairs.x, jax.nn.one_hot(pairs.y, n_classes)) if n_classes else pairs


def _train(bound: _Bound, options: CriticOptions, n_classes: int, key: jax.Array, train: Pairs) -> Trained:
    train = _numbers(train, n_classes)
    n, dim_x = train.x.shape
    dim_y = train.y.shape[1]
    critic = _critic(options, dim_x, dim_y)
    held = min(n - 2, max(2, round(options.validation * n)))
    order = jax.random.permutation(prng.stream(key, "validation"), n)
    rows, kept = order[: min(held, VALIDATION_ROWS)], order[held:]
    validation = jax.tree.map(lambda leaf: leaf[rows], train)
    shifts = shifts_of(prng.stream(key, "shifts"), len(rows), bound.select_negatives)

    def quality(params: Any, pairs: Pairs) -> jax.Array:
        return bound.select(options, against_shuffled(critic, params, pairs, shifts, _clip(options)))

    dims = dim_x + dim_y
    fitted = fit(
        lambda params, state, batch, own: bound.loss(options, critic, params, state, batch, own),
        critic.init(prng.stream(key, "init")),
        jax.tree.map(lambda leaf: leaf[kept], train),
        prng.stream(key, "fit"),
        TrainConfig(
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate or (1e-3 if dims <= 50 else 2e-3),
            weight_decay=0.0,
            # No clipping: it takes away the large gradients that alone hold the scores of shuffled pairs down. With a
            # norm of 1, MINE ran away within 4,000 steps on 50 + 50 dimensions.
            clip_norm=float("inf"),
            warmup=0.01,
        ),
        state=bound.state(),
        validate=lambda params: -quality(params, validation),
    )
    same = kept[jnp.arange(len(rows)) % len(kept)]
    diagnostics = {
        "loss": fitted.losses,
        "validation": -fitted.validation,
        "best_check": fitted.best,
        "on_train": quality(fitted.params, jax.tree.map(lambda leaf: leaf[same], train)),
    }
    return Trained(fitted.params, diagnostics)


def _evaluate(
    bound: _Bound, options: CriticOptions, n_classes: int, key: jax.Array, trained: Trained, test: Pairs
) -> Outcome:
    test = _numbers(test, n_classes)
    n = test.x.shape[0]
    critic = _critic(options, test.x.shape[1], test.y.shape[1])
    # Shifts of a shuffled order, so that samples that come sorted meet partners from everywhere.
    order = jax.random.permutation(prng.stream(key, "order"), n)
    shifts = shifts_of(prng.stream(key, "shifts"), n, options.test_negatives)
    shuffled = jax.tree.map(lambda leaf: leaf[order], test)
    scores = against_shuffled(critic, trained.params, shuffled, shifts, _clip(options))
    value, influence, pointwise = bound.outcome(options, scores)
    diagnostics = trained.diagnostics | {
        "log_n": jnp.log(jnp.float32(n)),
        "log_contrasts": jnp.log(jnp.float32(len(shifts) + 1)),
        "on_test": bound.select(options, scores),
    }
    stderr = influence.std() / jnp.sqrt(jnp.float32(n))
    return Outcome(value, stderr, jnp.zeros_like(pointwise).at[order].set(pointwise), diagnostics)


def _clip(options: CriticOptions) -> float | None:
    return options.tau if isinstance(options, SmileOptions) else None


def _pairs_of_a_step(critic: Critic, params: Any, batch: Pairs, negatives: int) -> tuple[jax.Array, jax.Array]:
    """Scores of the joint pairs [n] and of shuffled ones [negatives, n]; the batch is in random order already."""
    left, right = critic.left(params, batch.x), critic.right(params, batch.y)
    count = max(1, min(negatives, len(batch.x) - 1))
    shuffled = jnp.stack([right, *(jnp.roll(right, -shift, axis=0) for shift in range(1, count + 1))])
    scores = critic.score(params, left[None], shuffled)
    return scores[0], scores[1:]


def _mine_loss(options, critic, params, state, batch, key):  # noqa: ANN001, ANN202
    joint, negative = _pairs_of_a_step(critic, params, batch, options.negatives)
    objective, state = bounds.mine_objective(joint, negative, state, options.decay)
    return -objective, state


def _nwj_loss(options, critic, params, state, batch, key):  # noqa: ANN001, ANN202
    return -bounds.nwj(*_pairs_of_a_step(critic, params, batch, options.negatives)), state


def _smile_loss(options, critic, params, state, batch, key):  # noqa: ANN001, ANN202
    return -bounds.smile_objective(*_pairs_of_a_step(critic, params, batch, options.negatives), options.tau), state


def _infonce_loss(options, critic, params, state, batch, key):  # noqa: ANN001, ANN202
    return -bounds.infonce(*_pairs_of_a_step(critic, params, batch, options.negatives)), state


def _dv_outcome(options: CriticOptions, scores: Scores) -> tuple[jax.Array, jax.Array, jax.Array]:
    pointwise = scores.joint - scores.log_mean
    return pointwise.mean(), scores.joint - scores.row_share - scores.column_share, pointwise


def _nwj_outcome(options: CriticOptions, scores: Scores) -> tuple[jax.Array, jax.Array, jax.Array]:
    mean = jnp.exp(scores.log_mean - 1)
    pointwise = scores.joint - mean
    return pointwise.mean(), scores.joint - mean * (scores.row_share + scores.column_share), pointwise


def _infonce_outcome(options: CriticOptions, scores: Scores) -> tuple[jax.Array, jax.Array, jax.Array]:
    contrasts = jnp.log(jnp.float32(scores.partners + 1))
    pointwise = contrasts + scores.joint - jnp.logaddexp(scores.joint, scores.row_log_sum)
    return pointwise.mean(), pointwise, pointwise


def _first(outcome: Callable[..., tuple[jax.Array, ...]]) -> Callable[..., jax.Array]:
    return lambda options, scores: outcome(options, scores)[0]


def _no_state() -> tuple[()]:
    return ()


def _warn(options: CriticOptions, diagnostics: dict[str, np.ndarray], value: float) -> list[str]:
    """What is doubtful about an estimate, in words."""
    found = []
    if not np.isfinite(value) or not np.isfinite(diagnostics["validation"]).all():
        found.append("training diverged in part (values that are not finite); use a lower learning_rate")
        return found
    if isinstance(options, InfoNCEOptions):
        ceiling = float(diagnostics["log_contrasts"])
        if value > ceiling - 1:
            found.append(
                f"the value is within 1 nat of InfoNCE's ceiling, ln({options.test_negatives + 1}) = {ceiling:.2f}: "
                "the truth may be far above; use more test_negatives and a larger batch, or rf"
            )
    elif value > 0.8 * float(diagnostics["log_n"]):
        found.append(
            f"the value is near ln(test samples) = {float(diagnostics['log_n']):.2f}, beyond which no lower bound "
            "can be trusted (McAllester and Stratos 2020)"
        )
    validation = diagnostics["validation"]
    if len(validation) >= 4:
        rise = float(validation[-1] - validation[: 3 * len(validation) // 4].max())
        if rise > max(0.02, 0.05 * abs(float(validation[-1]))):
            found.append(f"the validation value still rose by {rise:.3f} over the last quarter; use more steps")
    gap = float(diagnostics["on_train"] - diagnostics["on_test"])
    if gap > max(0.05, 0.1 * abs(float(diagnostics["on_test"]))):
        found.append(f"overfitting: training samples score {gap:.3f} nats above test samples; use more samples")
    return found


def _method(name: str, options: type, bound: _Bound, source: str) -> Method:
    def train(options: Any, n_classes: int, key: jax.Array, pairs: Pairs) -> Trained:
        return _train(bound, options, n_classes, key, pairs)

    def evaluate(options: Any, n_classes: int, key: jax.Array, trained: Trained, pairs: Pairs) -> Outcome:
        return _evaluate(bound, options, n_classes, key, trained, pairs)

    return Method(
        name=name,
        options=options,
        program=in_two_parts(train, evaluate),
        trains=True,
        preprocess="gaussianise",
        discrete=True,
        warn=_warn,
        source=source,
        fit=train,
        evaluate=evaluate,
    )


MINE = _method(
    "mine",
    MineOptions,
    _Bound(_mine_loss, lambda: jnp.float32(-jnp.inf), _first(_dv_outcome), 16, _dv_outcome),
    "Belghazi et al. 2018, Eq. 10 and 12 (value: Donsker-Varadhan)",
)
NWJ = _method(
    "nwj",
    NWJOptions,
    _Bound(_nwj_loss, _no_state, _first(_nwj_outcome), 16, _nwj_outcome),
    "Nguyen, Wainwright and Jordan 2010; Poole et al. 2019, Eq. 9",
)
SMILE = _method(
    "smile",
    SmileOptions,
    # The clipped value is no bound, so that its best check need not be the best critic; the gradient's objective is.
    _Bound(
        _smile_loss,
        _no_state,
        lambda options, scores: scores.jensen_shannon + 2 * jnp.log(jnp.float32(2)),
        16,
        _dv_outcome,
    ),
    "Song and Ermon 2020, Eq. 12 (gradient: Jensen-Shannon)",
)
INFONCE = _method(
    "infonce",
    InfoNCEOptions,
    _Bound(_infonce_loss, _no_state, _first(_infonce_outcome), 63, _infonce_outcome),
    "van den Oord et al. 2018, Eq. 4; ceiling: Poole et al. 2019, Sec. 2.3",
)
