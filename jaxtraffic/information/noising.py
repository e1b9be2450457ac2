"""What the diffusion estimators share: which variable is diffused, the noisy problem, its network and its draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import gaussian_reference as gaussian
from jaxtraffic.information.result import Outcome, Pairs
from jaxtraffic.nn.score_mlp import ScoreMLPConfig, default_width, score_mlp
from jaxtraffic.train.fit import Fitted
from jaxtraffic.train.state import TrainConfig

DIFFUSE = ("auto", "x", "y")
VALIDATION_ROWS = 5000
"""At most so many training samples, and at most a tenth, choose among the checks of a run."""

FINEST = 0.05
"""Noise, in units of the Gaussian's conditional spread, below which the network's part fades."""


@dataclasses.dataclass(frozen=True)
class DiffusionOptions:
    """Hyper-parameters that `rf` and `ddpm` share."""

    diffuse: str = "auto"
    """Which variable is diffused: x, y, or the one of fewer dimensions; the joint variant diffuses both."""
    linear: bool = True
    """Start from the Gaussian of the same second moments; False is the plain network on standardised data."""
    repeats: int = 10
    """Draws of time and noise for each test pair; each comes with its mirror image -n."""
    steps: int = 12000
    """Optimiser steps."""
    batch_size: int = 512
    """Samples a step, divided among what is seen of them."""
    learning_rate: float = 3e-3
    """Peak rate of AdamW."""
    weight_decay: float = 0.01
    """Of AdamW."""
    ema: float = 0.999
    """Decay of the moving average of the parameters."""
    width: int = 0
    """Hidden width; 0 for 64 to 10 dimensions of x and y together, 128 above."""
    blocks: int = 2
    """Residual blocks."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_choice("diffuse", self.diffuse, DIFFUSE)


class Noisy(NamedTuple):
    """A batch on its way between data and noise.

    Attributes:
        at: [n, dim] a x + b n.
        a, b: [n, 1] scale of data and of noise.
    """

    at: jax.Array
    a: jax.Array
    b: jax.Array


class Denoised(NamedTuple):
    """Posterior means of data and noise.

    Attributes:
        signal: [n, dim].
        noise: [n, dim].
    """

    signal: jax.Array
    noise: jax.Array


class Learnt(NamedTuple):
    """What a diffusion estimator keeps of its training samples.

    Attributes:
        fitted: the network's parameters and how they came about.
        reference: canonical coordinates and the Gaussian in them.
        ceiling: [] nats that no estimate should exceed; infinite for continuous y.
    """

    fitted: Fitted
    reference: gaussian.Reference
    ceiling: jax.Array


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ConfigError where an option has none of its values."""
    if value not in choices:
        raise ConfigError(f"unknown {option} {value!r}; choose from {', '.join(choices)}")


def training(options: DiffusionOptions) -> TrainConfig:
    """How the network of `rf` or `ddpm` is trained."""
    return TrainConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup=0.05,
        clip_norm=1.0,
        ema=options.ema,
    )


def outcome(form: str, found: dict[str, jax.Array], learnt: Learnt, extra: dict[str, jax.Array]) -> Outcome:
    """The estimate by one form, with the means of all of them and the curves of training as diagnostics.

    Args:
        form: which one is the value.
        found: of each form, [repeat, n_test] nats.
        learnt: what was trained.
        extra: further diagnostics.
    """
    pointwise = found[form].mean(axis=0)
    means = {name: values.mean() for name, values in found.items()}
    curves = {name: getattr(learnt.fitted, name) for name in ("losses", "validation", "best")}
    stderr = pointwise.std() / float(np.sqrt(len(pointwise)))
    return Outcome(pointwise.mean(), stderr, pointwise, curves | means | extra | {"ceiling": learnt.ceiling})


def oriented(diffuse: str, n_classes: int, pairs: Pairs) -> Pairs:
    """Pairs whose x is the variable to diffuse.

    Args:
        diffuse: "x", "y", or "auto" for the one of fewer dimensions, x on ties.
        n_classes: 0 for continuous y; labels are never diffused.
        pairs: samples.

    Raises:
        ConfigError: unknown choice, or "y" where y holds labels.
    """
    check_choice("diffuse", diffuse, DIFFUSE)
    if n_classes:
        if diffuse == "y":
            raise ConfigError("labels cannot be diffused; use diffuse='x' or 'auto'")
        return pairs
    swap = diffuse == "y" or (diffuse == "auto" and pairs.y.shape[1] < pairs.x.shape[1])
    return Pairs(pairs.y, pairs.x) if swap else pairs


def network(dim: int, seen: int, width: int, blocks: int) -> tuple[Any, Any]:
    """`init` and `apply` of the network for `dim` diffused and `seen` other inputs; width 0 goes by dimension."""
    return score_mlp(ScoreMLPConfig(2 * dim + seen, dim, 1, width or default_width(dim + seen), blocks))


def denoise(
    apply: Callable[..., jax.Array],
    params: Any,
    reference: gaussian.Reference,
    noisy: Noisy,
    y: jax.Array,
    seen: jax.Array,
) -> Denoised:
    """Posterior means of data and noise: those of the Gaussian reference plus what the network adds.

    The network's output counts in standard deviations of the Gaussian's posterior, so it is of unit size at any noise.

    Args:
        apply: of `network`.
        params: its parameters.
        reference: canonical coordinates.
        noisy: the batch, in canonical coordinates.
        y: [n, dim_y], or labels [n].
        seen: [n] bool, whether y may be used.
    """
    known = seen[:, None]
    moments = gaussian.x_given_y(reference, y)
    blank = gaussian.marginal()
    moments = gaussian.Moments(*(jnp.where(known, one, other) for one, other in zip(moments, blank, strict=True)))
    guess = gaussian.posterior(moments, noisy.at, noisy.a, noisy.b)
    if reference.class_mean is not None:
        y = jax.nn.one_hot(y, len(reference.class_mean))
    plain = noisy.at * jax.lax.rsqrt(noisy.a**2 + noisy.b**2)
    features = jnp.concatenate([plain, guess.innovation, jnp.where(known, y, 0.0)], axis=1)
    level = jnp.log(noisy.a / noisy.b)[:, 0] / 3
    size = guess.spread * _calm(noisy.a * guess.spread)
    added = size * apply(params, features, level, known.astype(jnp.float32))
    return Denoised(guess.signal + noisy.b * added, guess.noise - noisy.a * added)


def _calm(known: jax.Array) -> jax.Array:
    """How much of a posterior's spread the network's output counts for.

    Wherever scores are finite, what the network adds falls to 0 with the noise, while the weight of the integral rises
    without bound. So the output fades once the noise is below `FINEST` of the data's spread; structure finer than that
    takes outputs above unit size.

    Args:
        known: standard deviation of the noise given the noisy data, near 1 where the noise is small beside the data.
    """
    rest = jnp.maximum(1 - known * known, 1e-7)
    return jnp.sqrt(rest / (rest + (FINEST * known) ** 2))


def gaussian_only(reference: gaussian.Reference, noisy: Noisy, y: jax.Array) -> tuple[Denoised, Denoised]:
    """What the Gaussian reference says where y is seen, and where it is not."""
    both = [
        gaussian.posterior(moments, noisy.at, noisy.a, noisy.b)
        for moments in (gaussian.x_given_y(reference, y), gaussian.marginal())
    ]
    return tuple(Denoised(one.signal, one.noise) for one in both)


def both(
    apply: Callable[..., jax.Array], params: Any, reference: gaussian.Reference, noisy: Noisy, y: jax.Array
) -> tuple[Denoised, Denoised]:
    """`denoise` with y seen and not seen, in one call of the network on twice the rows."""
    n = len(noisy.at)
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), (noisy, y))
    result = denoise(apply, params, reference, *twice, jnp.arange(2 * n) < n)
    return jax.tree.map(lambda leaf: leaf[:n], result), jax.tree.map(lambda leaf: leaf[n:], result)


def joint_network(dim: int, width: int, blocks: int) -> tuple[Any, Any]:
    """`init` and `apply` of the network that diffuses either variable or both, `dim` coordinates together."""
    return score_mlp(ScoreMLPConfig(2 * dim, dim, 2, width or default_width(dim), blocks))


def denoise_joint(
    apply: Callable[..., jax.Array],
    params: Any,
    reference: gaussian.Reference,
    clean: jax.Array,
    noise: jax.Array,
    m: jax.Array,
    s: jax.Array,
    noisy_x: jax.Array,
    noisy_y: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Posterior means of the noise where x, y or both are diffused and the other is seen clean.

    Args:
        apply: of `joint_network`.
        params: its parameters.
        reference: canonical coordinates.
        clean: [n, dim_x + dim_y] data in canonical coordinates.
        noise: [n, dim_x + dim_y].
        m: [n, 1] scale of the data.
        s: [n, 1] scale of the noise, with m^2 + s^2 = 1.
        noisy_x: [n] bool, whether x is diffused.
        noisy_y: [n] bool, whether y is; at least one of them.

    Returns:
        noise [n, dim_x + dim_y], of use only where diffused, and mask [n, dim_x + dim_y] float32 of where that is.
    """
    dim_x = len(reference.centre_x)
    x, y = clean[:, :dim_x], clean[:, dim_x:]
    mask = jnp.concatenate([jnp.repeat(noisy_x[:, None], dim_x, 1), jnp.repeat(noisy_y[:, None], y.shape[1], 1)], 1)
    at = m * clean + s * noise
    sides = [
        gaussian.posterior(moments, part, m, s)
        for moments, part in (
            (gaussian.x_given_y(reference, y), at[:, :dim_x]),
            (gaussian.y_given_x(reference, x), at[:, dim_x:]),
        )
    ]
    alone = jax.tree.map(lambda one, other: jnp.concatenate([one, other], axis=1), *sides)
    pair_noise, pair_spread = gaussian.joint_posterior(reference, at[:, :dim_x], at[:, dim_x:], m, s)
    together = (noisy_x & noisy_y)[:, None]
    guess = jnp.where(together, pair_noise, alone.noise)
    spread = jnp.where(together, pair_spread, m * alone.spread)
    innovation = jnp.where(together, pair_noise, alone.innovation)
    features = jnp.concatenate([jnp.where(mask, at, clean), jnp.where(mask, innovation, 0.0)], axis=1)
    context = jnp.stack([noisy_x, noisy_y], axis=1).astype(jnp.float32)
    added = spread * _calm(spread) * apply(params, features, jnp.log(m / s)[:, 0] / 3, context)
    return guess - added, mask.astype(jnp.float32)


def split(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Training samples without, and those for, validation: the same rows for every key, spread over all."""
    n = len(pairs.x)
    held = min(VALIDATION_ROWS, max(1, n // 10))
    # NumPy's order is a constant of the program; a sort inside it would take longer to compile than to run.
    order = np.random.default_rng(0).permutation(n)
    return jax.tree.map(lambda leaf: leaf[order[held:]], pairs), jax.tree.map(lambda leaf: leaf[order[:held]], pairs)


def in_pairs(measure: Callable[[jax.Array, jax.Array], Any], repeats: int) -> Any:
    """Runs measure(number, sign) for every draw with noise of both signs, and averages over the signs.

    Mirror images cancel what is odd in the noise, the largest part of the gap form's spread near the data.

    Args:
        measure: (number [] int32, sign [] float32) -> pytree of arrays [n].
        repeats: number of draws.

    Returns:
        The pytree with a leading axis [repeats].
    """

    def one(carry: None, index: jax.Array) -> tuple[None, Any]:
        return None, measure(index // 2, 1.0 - 2.0 * (index % 2).astype(jnp.float32))

    _, found = jax.lax.scan(one, None, jnp.arange(2 * repeats, dtype=jnp.int32))
    return jax.tree.map(lambda leaf: leaf.reshape(repeats, 2, *leaf.shape[1:]).mean(axis=1), found)


def label_entropy(pairs: Pairs, n_classes: int) -> jax.Array:
    """H(Y) of the labels in nats, which no mutual information exceeds; infinite for continuous y."""
    if not n_classes:
        return jnp.float32(jnp.inf)
    share = jnp.zeros(n_classes).at[pairs.y].add(1.0) / len(pairs.y)
    return -(share * jnp.log(jnp.where(share > 0, share, 1.0))).sum()


def warnings(diagnostics: dict[str, np.ndarray], value: float) -> list[str]:
    """What a reader should know of a run, in words.

    Args:
        diagnostics: squared, gap, ceiling, profile [stratum, the last nearest to the data] and losses [check].
        value: the estimate in nats.
    """
    found = []
    squared, gap = float(diagnostics["squared"]), float(diagnostics["gap"])
    if abs(squared - gap) > max(0.05, 0.15 * abs(gap)):
        found.append(
            f"squared form {squared:.3f} and gap form {gap:.3f} nats differ: the network is not exact; train longer"
        )
    if value > float(diagnostics["ceiling"]):
        found.append(f"{value:.3f} nats is more than the labels' entropy, {float(diagnostics['ceiling']):.3f} nats")
    profile = diagnostics["profile"]
    if len(profile) >= 5 and profile[-1] > 0.1 * max(profile.sum(), 0.1):
        found.append(
            f"the tenth of the times nearest to the data holds {profile[-1]:.3f} nats; a smaller eps will find more"
        )
    losses = diagnostics["losses"]
    if len(losses) >= 10 and losses[-5:].mean() < losses[-10:-5].mean() - 0.02 * abs(losses[-10:-5].mean()):
        found.append("the training loss still falls; give it more steps")
    return found
