"""Mutual information from a rectified flow: method `rf`.

One network learns the velocity u(x_t, t, y) of the straight path x_t = t x + (1 - t) n from noise n to data, with y
(u_A) and without it (u_B). Since the scores of the two flows differ by t / (1 - t) (u_A - u_B), the mutual information
is the integral over t of t / (1 - t) E|u_A - u_B|^2. Three forms of it (reference/information.md, section 5):

    squared   t / (1 - t) |u_A - u_B|^2                  right for every y; any error of the network adds to it
    product   t / (1 - t) u_A . (u_A - u_B)              (thesis, Eq. 6.47) agrees on average over y only
    gap       t / (1 - t) (|v - u_B|^2 - |v - u_A|^2)    v = x - n; errors enter by what they cost in prediction only,
                                                         and the mean over noise is log p(x|y) / p(x) of each pair

The network is added to the velocity of the Gaussian of the same second moments (`gaussian_reference`). For that part
the gap form's mean is known, so only the rest is simulated: value = log-ratio of the Gaussian + mean of (gap - gap of
the Gaussian). This changes no expectation over t in [0, 1 - eps] beyond adding what the Gaussian has past its end.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.information import gaussian_reference as gaussian
from jaxtraffic.information import noising, proposals
from jaxtraffic.information.noising import Learnt
from jaxtraffic.information.result import Method, Outcome, Pairs, in_two_parts
from jaxtraffic.train.fit import fit

FORMS = ("gap", "squared", "product")


@dataclasses.dataclass(frozen=True)
class FlowOptions(noising.DiffusionOptions):
    """Hyper-parameters of `rf`."""

    form: str = "gap"
    """gap, squared or product."""
    proposal: str = "mixture"
    """Where the times of the estimate are drawn: uniform, inverse, mixture or lambert."""
    focus: float = 0.05
    """Training times have the density t / (1 - t + focus): the weight of the estimate as far as 1 - t = focus."""
    eps: float = 1e-3
    """Times end at 1 - eps."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        super().__post_init__()
        noising.check_choice("form", self.form, FORMS)
        noising.check_choice("proposal", self.proposal, proposals.PROPOSALS)


def _fit(options: FlowOptions, n_classes: int, key: jax.Array, train: Pairs) -> Learnt:
    ceiling = noising.label_entropy(train, n_classes)
    train = noising.oriented(options.diffuse, n_classes, train)
    reference = gaussian.fit(train, n_classes, options.linear)
    train, held = noising.split(reference.apply(train))
    init, apply = _network(options, n_classes, reference)

    def error(params: object, batch: Pairs, key: jax.Array, t: jax.Array, seen: jax.Array) -> jax.Array:
        noise = jax.random.normal(prng.stream(key, "noise"), batch.x.shape)
        found = noising.denoise(apply, params, reference, _noisy(batch.x, noise, t), batch.y, seen)
        return jnp.square(batch.x - noise - found.signal + found.noise).mean()

    def loss(params: object, state: tuple, batch: Pairs, key: jax.Array) -> tuple[jax.Array, tuple]:
        u = proposals.strata(prng.stream(key, "time"), len(batch.x))
        seen = jax.random.bernoulli(prng.stream(key, "seen"), 0.5, u.shape)
        return error(params, batch, key, proposals.for_training(u, options.focus), seen), state

    def validate(params: object) -> jax.Array:
        u = proposals.strata(prng.stream(key, "validate"), 2 * len(held.x))
        twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), held)
        t = proposals.for_training(u, options.focus)
        return error(params, twice, prng.stream(key, "validate"), t, jnp.arange(len(u)) % 2 == 0)

    fitted = fit(
        loss,
        init(prng.stream(key, "init")),
        train,
        prng.stream(key, "fit"),
        noising.training(options),
        validate=validate,
    )
    return Learnt(fitted, reference, ceiling)


def _evaluate(options: FlowOptions, n_classes: int, key: jax.Array, learnt: Learnt, test: Pairs) -> Outcome:
    fitted, reference = learnt.fitted, learnt.reference
    test = reference.apply(noising.oriented(options.diffuse, n_classes, test))
    _, apply = _network(options, n_classes, reference)

    def measure(number: jax.Array, sign: jax.Array) -> tuple[jax.Array, ...]:
        own = prng.at_step(prng.stream(key, "estimate"), number)
        u = proposals.strata(prng.stream(own, "time"), len(test.x), number, options.repeats)
        t = proposals.at_quantile(options.proposal, u, options.eps)
        noise = sign * jax.random.normal(prng.stream(own, "noise"), test.x.shape)
        noisy = _noisy(test.x, noise, t)
        found = noising.both(apply, fitted.params, reference, noisy, test.y)
        plain = noising.gaussian_only(reference, noisy, test.y)
        weight = proposals.weight(options.proposal, t, options.eps)
        v = test.x - noise
        network, alone = (forms(weight, v, *(one.signal - one.noise for one in side)) for side in (found, plain))
        return network["gap"] - alone["gap"], network["squared"], network["product"]

    added, squared, product = noising.in_pairs(measure, options.repeats)
    conditional, blank = gaussian.x_given_y(reference, test.y), gaussian.marginal()
    known = gaussian.log_density(conditional, test.x) - gaussian.log_density(blank, test.x)
    found = {"gap": known + added, "squared": squared, "product": product}
    extra = {"gaussian": known.mean(), "profile": squared.mean(axis=1) / options.repeats}
    return noising.outcome(options.form, found, learnt, extra)


def _network(options: FlowOptions, n_classes: int, reference: gaussian.Reference) -> tuple[Any, Any]:
    seen = n_classes or len(reference.centre_y)
    return noising.network(len(reference.centre_x), seen, options.width, options.blocks)


def _noisy(x: jax.Array, noise: jax.Array, t: jax.Array) -> noising.Noisy:
    a, b = t[:, None], 1 - t[:, None]
    # At t = 0 the log of a / b would be -inf; 1e-6 changes nothing else.
    return noising.Noisy(a * x + b * noise, jnp.maximum(a, 1e-6), b)


def forms(weight: jax.Array, v: jax.Array, u_a: jax.Array, u_b: jax.Array) -> dict[str, jax.Array]:
    """The three integrands [n].

    Args:
        weight: [n] t / (1 - t) over the density of the times.
        v: [n, dim] data less noise.
        u_a: [n, dim] velocity with y.
        u_b: [n, dim] velocity without.
    """
    apart = u_a - u_b
    return {
        # |v - u_B|^2 - |v - u_A|^2 as one product, which keeps its digits where both are large.
        "gap": weight * (apart * (2 * v - u_a - u_b)).sum(axis=1),
        "squared": weight * jnp.square(apart).sum(axis=1),
        "product": weight * (u_a * apart).sum(axis=1),
    }


def _warn(options: FlowOptions, diagnostics: dict[str, np.ndarray], value: float) -> list[str]:
    return noising.warnings(diagnostics, value)


RF = Method(
    "rf",
    FlowOptions,
    in_two_parts(_fit, _evaluate),
    True,
    "gaussianise",
    True,
    _warn,
    "thesis, chapter 6; gap form ours",
    _fit,
    _evaluate,
)
