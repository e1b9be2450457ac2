"""Mutual information from the scores of a diffusion: method `ddpm` (MINDE).

Franzese et al., "MINDE: Mutual Information Neural Diffusion Estimation" (ICLR 2024). Data x is noised as
x_t = m x + s n with m = exp(-B / 2), s^2 = 1 - m^2, B(t) the integral of beta from beta_min to beta_max (VP-SDE); one
network gives the noise eps of every score -eps / s. With w = beta / (2 s^2), integrated over t in [t_eps, 1]:

    conditional   w E|eps(x_t | y) - eps(x_t)|^2                              masks {x given nothing, x given y}
    joint         w E|eps(x_t, y_t) - [eps(x_t | y), eps(y_t | x)]|^2         masks {xy, x given y, y given x}

Forms: "squared" is this (published); "sigma" takes the difference outside, w (|eps_c - eps_ref|^2 - |eps_u -
eps_ref|^2) with eps_ref = s x_t / (m^2 sigma^2 + s^2) of the Gaussian of variance sigma^2 (published); "gap" takes it
against the noise itself, w (|n - eps_u|^2 - |n - eps_c|^2), whose mean over noise is the log-ratio of each pair (Kong
et al., ICLR 2024). For the joint variant u stands for the joint score and c for the two conditional ones, with their
sum in the place of a single square: the information is H(XY) - H(X|Y) - H(Y|X).

The network is added to the noise of the Gaussian of the same second moments (`gaussian_reference`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.information import gaussian_reference as gaussian
from jaxtraffic.information import noising, proposals
from jaxtraffic.information.noising import Noisy
from jaxtraffic.information.result import Method, Outcome, Pairs, in_two_parts
from jaxtraffic.train.fit import fit

FORMS = ("squared", "gap", "sigma")
VARIANTS = ("conditional", "joint")


@dataclasses.dataclass(frozen=True)
class MindeOptions(noising.DiffusionOptions):
    """Hyper-parameters of `ddpm`."""

    variant: str = "conditional"
    """conditional or joint."""
    form: str = "squared"
    """squared, gap or sigma."""
    sigma: float = 1.0
    """Standard deviation of the Gaussian that the sigma form compares with."""
    importance: bool = True
    """Draw the times of the estimate with the density of the weight w; False draws them uniformly."""
    focus: float = 0.05
    """Where training looks (`proposals.for_training`); 0 trains with the density of the weight w, as published."""
    beta_min: float = 0.1
    """Noise rate at t = 0."""
    beta_max: float = 20.0
    """Noise rate at t = 1."""
    t_eps: float = 1e-3
    """Smallest time."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        super().__post_init__()
        noising.check_choice("variant", self.variant, VARIANTS)
        noising.check_choice("form", self.form, FORMS)


class Times(NamedTuple):
    """Draws of time.

    Attributes:
        t: [n].
        m, s: [n, 1] scale of data and noise.
        weight: [n] w over the density that t was drawn from.
    """

    t: jax.Array
    m: jax.Array
    s: jax.Array
    weight: jax.Array


def importance_constant(options: MindeOptions) -> float:
    """Integral of beta / s^2 over [t_eps, 1]: twice the weight of a draw under importance sampling."""
    end, start = _log_odds(options)
    return end - start


def times(options: MindeOptions, u: jax.Array) -> Times:
    """Times and weights for u uniform on [0, 1).

    With importance sampling the density is beta / s^2 over its integral; as beta / (1 - exp(-B)) is the derivative of
    ln(exp(B) - 1), that is linear in u, and t solves a quadratic. It is uniform in the log signal-to-noise ratio.
    """
    if options.importance:
        end, start = _log_odds(options)
        total = jax.nn.softplus(end + u * (start - end))
        t = proposals.at_total_rate(total, options.beta_min, options.beta_max)
        weight = jnp.full_like(u, 0.5 * (end - start))
    else:
        low, rise = options.beta_min, options.beta_max - options.beta_min
        t = 1 - u * (1 - options.t_eps)
        total = low * t + 0.5 * rise * t * t
        weight = 0.5 * (low + rise * t) / -jnp.expm1(-total) * (1 - options.t_eps)
    return Times(t, jnp.exp(-0.5 * total)[:, None], jnp.sqrt(-jnp.expm1(-total))[:, None], weight)


def training_times(options: MindeOptions, u: jax.Array) -> Times:
    """Times to train at, for u uniform on [0, 1).

    With focus, those at which m / s = a / b for the flow's training times, where a = 1 - b; the squared error of the
    noise over a^2 is that of the flow's velocity, so both methods then minimise the same thing. Without, `times`.
    """
    if not options.focus:
        return times(options, u)
    a = jnp.maximum(proposals.for_training(u, options.focus), 1e-3)
    size = jnp.sqrt(a * a + (1 - a) ** 2)
    # B from m = exp(-B / 2), through the smaller of the two for the sake of the digits.
    total = jnp.log1p(jnp.square(a / (1 - a)) ** -1)
    t = proposals.at_total_rate(total, options.beta_min, options.beta_max)
    return Times(t, (a / size)[:, None], ((1 - a) / size)[:, None], a**-2)


def _log_odds(options: MindeOptions) -> tuple[float, float]:
    """ln(exp(B) - 1) at t = 1 and at t_eps."""
    if not (0 < options.t_eps < 1 and 0 < options.beta_min < options.beta_max):
        raise ConfigError(
            "ddpm needs 0 < t_eps < 1 and 0 < beta_min < beta_max, got "
            f"{options.t_eps}, {options.beta_min}, {options.beta_max}"
        )
    t = np.array([1.0, options.t_eps])
    total = options.beta_min * t + 0.5 * (options.beta_max - options.beta_min) * t * t
    end, start = np.log(np.expm1(total))
    return float(end), float(start)


def forms(
    times: Times, sigma: float, at: jax.Array, noise: jax.Array, eps_c: jax.Array, eps_u: jax.Array
) -> dict[str, jax.Array]:
    """The three integrands [n].

    Args:
        times: the draws.
        sigma: standard deviation of the reference of the sigma form.
        at: [n, dim] noisy data.
        noise: [n, dim] the noise in it.
        eps_c: [n, dim] the noise as predicted with the other variable; in the joint variant by both conditional scores.
        eps_u: [n, dim] the noise as predicted without it; in the joint variant by the joint score.
    """
    apart = eps_c - eps_u
    plain = times.s * at / (times.m**2 * sigma**2 + times.s**2)
    return {
        "squared": times.weight * jnp.square(apart).sum(axis=1),
        # Differences of squares as products, which keep their digits where both are large.
        "gap": times.weight * (apart * (2 * noise - eps_c - eps_u)).sum(axis=1),
        "sigma": times.weight * (apart * (eps_c + eps_u - 2 * plain)).sum(axis=1),
    }


class _Problem(NamedTuple):
    """A variant: the network and what it says.

    Attributes:
        init: key -> params.
        cost: (params, pairs, noise, times, seen) -> [n] squared error of the noise per diffused coordinate.
        predict: (params, pairs, noise, times) -> at, eps_c, eps_u [n, dim].
        dim: number of diffused coordinates.
    """

    init: Any
    cost: Any
    predict: Any
    dim: int


def _conditional(options: MindeOptions, n_classes: int, reference: gaussian.Reference) -> _Problem:
    dim = len(reference.centre_x)
    init, apply = noising.network(dim, n_classes or len(reference.centre_y), options.width, options.blocks)

    def cost(params: Any, pairs: Pairs, noise: jax.Array, times: Times, share: jax.Array) -> jax.Array:
        noisy = Noisy(times.m * pairs.x + times.s * noise, times.m, times.s)
        found = noising.denoise(apply, params, reference, noisy, pairs.y, share < 0.5).noise
        return jnp.square(noise - found).mean(axis=1)

    def predict(params: Any, pairs: Pairs, noise: jax.Array, times: Times) -> tuple[jax.Array, ...]:
        noisy = Noisy(times.m * pairs.x + times.s * noise, times.m, times.s)
        seen, blank = noising.both(apply, params, reference, noisy, pairs.y)
        return noisy.at, seen.noise, blank.noise

    return _Problem(init, cost, predict, dim)


def _joint(options: MindeOptions, reference: gaussian.Reference) -> _Problem:
    dim_x = len(reference.centre_x)
    dim = dim_x + len(reference.centre_y)
    init, apply = noising.joint_network(dim, options.width, options.blocks)

    def cost(params: Any, pairs: Pairs, noise: jax.Array, times: Times, share: jax.Array) -> jax.Array:
        # xy, x given y, y given x with chances 2 : 1 : 1, as many as variables diffused.
        noisy_x, noisy_y = share < 0.75, (share < 0.5) | (share >= 0.75)
        clean = jnp.concatenate([pairs.x, pairs.y], axis=1)
        found, mask = noising.denoise_joint(apply, params, reference, clean, noise, times.m, times.s, noisy_x, noisy_y)
        return (mask * jnp.square(noise - found)).sum(axis=1) / mask.sum(axis=1)

    def predict(params: Any, pairs: Pairs, noise: jax.Array, times: Times) -> tuple[jax.Array, ...]:
        n = len(pairs.x)
        clean = jnp.concatenate([pairs.x, pairs.y], axis=1)
        thrice = [jnp.concatenate([leaf] * 3) for leaf in (clean, noise, times.m, times.s)]
        which = jnp.arange(3 * n) // n
        found, _ = noising.denoise_joint(apply, params, reference, *thrice, which != 2, which != 1)
        joint, x_seen, y_seen = found[:n], found[n : 2 * n], found[2 * n :]
        return (
            times.m * clean + times.s * noise,
            jnp.concatenate([x_seen[:, :dim_x], y_seen[:, dim_x:]], axis=1),
            joint,
        )

    return _Problem(init, cost, predict, dim)


def _fit(options: MindeOptions, n_classes: int, key: jax.Array, train: Pairs) -> noising.Learnt:
    ceiling = noising.label_entropy(train, n_classes)
    train = _oriented(options, n_classes, train)
    reference = gaussian.fit(train, n_classes, options.linear)
    train, held = noising.split(reference.apply(train))
    problem = _problem(options, n_classes, reference)

    def cost(params: Any, batch: Pairs, key: jax.Array) -> jax.Array:
        n = len(batch.x)
        drawn = training_times(options, proposals.strata(prng.stream(key, "time"), n))
        noise = jax.random.normal(prng.stream(key, "noise"), (n, problem.dim))
        share = jax.random.uniform(prng.stream(key, "mask"), (n,))
        return (drawn.weight * problem.cost(params, batch, noise, drawn, share)).mean()

    fitted = fit(
        lambda params, state, batch, key: (cost(params, batch, key), state),
        problem.init(prng.stream(key, "init")),
        train,
        prng.stream(key, "fit"),
        noising.training(options),
        validate=lambda params: cost(params, held, prng.stream(key, "validate")),
    )
    return noising.Learnt(fitted, reference, ceiling)


def _evaluate(options: MindeOptions, n_classes: int, key: jax.Array, learnt: noising.Learnt, test: Pairs) -> Outcome:
    test = learnt.reference.apply(_oriented(options, n_classes, test))
    problem = _problem(options, n_classes, learnt.reference)

    def measure(number: jax.Array, sign: jax.Array) -> dict[str, jax.Array]:
        own = prng.at_step(prng.stream(key, "estimate"), number)
        n = len(test.x)
        drawn = times(options, proposals.strata(prng.stream(own, "time"), n, number, options.repeats))
        noise = sign * jax.random.normal(prng.stream(own, "noise"), (n, problem.dim))
        at, eps_c, eps_u = problem.predict(learnt.fitted.params, test, noise, drawn)
        return forms(drawn, options.sigma, at, noise, eps_c, eps_u)

    found = noising.in_pairs(measure, options.repeats)
    profile = found["squared"].mean(axis=1) / options.repeats
    return noising.outcome(options.form, found, learnt, {"profile": profile})


def _oriented(options: MindeOptions, n_classes: int, pairs: Pairs) -> Pairs:
    if options.variant == "conditional":
        return noising.oriented(options.diffuse, n_classes, pairs)
    if n_classes:
        raise ConfigError("the joint variant diffuses y too, and labels cannot be; use variant='conditional'")
    return pairs


def _problem(options: MindeOptions, n_classes: int, reference: gaussian.Reference) -> _Problem:
    if options.variant == "joint":
        return _joint(options, reference)
    return _conditional(options, n_classes, reference)


def _warn(options: MindeOptions, diagnostics: dict[str, np.ndarray], value: float) -> list[str]:
    return noising.warnings(diagnostics, value)


DDPM = Method(
    "ddpm",
    MindeOptions,
    in_two_parts(_fit, _evaluate),
    True,
    "gaussianise",
    True,
    _warn,
    "MINDE, Franzese et al., ICLR 2024",
    _fit,
    _evaluate,
)
