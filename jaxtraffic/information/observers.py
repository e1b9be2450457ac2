"""Mutual information of the series and their label, measured while they are sampled.

Guided sampling evaluates the network with and without the label at every step; the observers here turn the two into
estimates in nats at no further pass. A = conditional, B = unconditional, y the label that a series is sampled for.

    squared    S = sum_k weight_k |A_k - B_k|^2, any solver     its mean over samples of one y is KL(p(x | y) || p(x))
    product    P = int t / (1 - t) u_A . (u_A - u_B) dt, flow   the thesis' Eq. 6.47; right on average over y only
    path_wise  L = log p(x | y) / p(x) of each sample, flow     needs the divergence: one more pass and its derivative

The mean of S over samples of one y has many names (point-wise MI, the MI of MI-TUNE); it is a KL divergence per label,
and its mean over labels is I(X; Y). What was found on closed forms (tests/information/test_closed_forms.py):

* Product and squared agree only on average over y; P(y) - S(y) is int t / (1 - t) E u_B . (u_A - u_B) dt, which is zero
  on average and not for any one y. For three classes with shares .8, .15 and .05 S = .060, .305, 2.599 (the KLs) where
  P = .120, -.115, 2.904. Values per class need the squared form.
* The value of one trajectory is a ranking score and no log p(x | y) / p(x): for Gaussians in one dimension S and P
  rank the samples of one y opposite to it (Spearman -1.00 to -.68; +1.00 only for P at width 1 and y = 0); in many
  dimensions this was not tested. The value of one series is `path_wise`.
* Independent errors of the two velocities of standard deviation delta in each packet add 2 delta^2 Z to S and delta^2 Z
  to P, Z = int t / (1 - t) dt up to the last node (.118 and .059 nats a packet at delta = .1, 1 - t >= 1e-3), also
  where x and y are independent. Errors that A and B share, as one network with a null label has, cancel.
* Everything is returned raw: P and L may be negative, and so may estimates of a small S on data with the gap form.

With guidance w other than 1 the trajectory moves along B + w (A - B) while S and P use A and B themselves. Its points
are no draws of p(x_t | y) then, and S and P are ranking scores, no KL; L stays log p(x | y) / p(x) at the sample.

An observer is a value of the compiled program: make it once and hand the same one to every call, or each compiles anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxtraffic.errors import ConfigError
from jaxtraffic.information.observer import Observer


def squared(plan: Any, *, packets: bool = True, curve: bool = False, keep: ArrayLike | None = None) -> Observer:
    """S: the squared form on the plan's own quadrature (`plan.weight`), for every solver.

    DDPM: sum_t kappa_t / T |eps_A - eps_B|^2 (MI-TUNE, arXiv 2405.20759, equation 2), within 2 % of the KL of Gaussians
    for the linear schedule 1e-4 .. 0.02 with T = 1000. Flow: int t / (1 - t) |u_A - u_B|^2 dt by the trapezoid rule
    with both ends 0 (RFMI, arXiv 2503.14358).

    Args:
        plan: `generate.sampler.Plan`, the one that samples.
        packets: also return the contribution of each packet.
        curve: also return the contribution of each step.
        keep: [step] bool in the order of sampling; steps to count, all by default. The others count as 0 and nothing
            is scaled up in their place: state what they lose with `quadrature.lost_range`.

    Returns:
        An observer whose result is a dict: "mi" [batch] nats; "packet" [batch, T] nats, which sum to "mi", the
        contribution of the denoiser's disagreement at that packet along the chain (it sees all packets of x_t there,
        so these are no conditional informations I(x_i; y | x_<i)); "curve" [batch, step] nats, which sum to "mi".
    """
    weight = _kept(plan.weight, keep)

    def density(info: dict[str, Any]) -> jax.Array:
        prediction = info["prediction"]
        return (prediction.conditional - _unconditional(prediction)) ** 2

    return _integral(density, weight, packets=packets, curve=curve)


def product(plan: Any, *, packets: bool = False, curve: bool = False, keep: ArrayLike | None = None) -> Observer:
    """P: int t / (1 - t) u_A . (u_A - u_B) dt, the product form of the thesis (Eq. 6.47), for flows only.

    For fidelity with the thesis; see the head of this file for why values per class need `squared`. The integrand is
    not 0 at t = 1, so its last cell is a rectangle.

    Args and result: as `squared`; "packet" and "curve" may be negative, as "mi" may.

    Raises:
        ConfigError: the plan is not of a flow.
    """
    t = _flow_times(plan, "product")
    # t / (1 - t) times the half (1 - t) / 2 of the last cell that the trapezoid with end 0 leaves out.
    weight = _kept(jnp.asarray(plan.weight).at[-1].add(t[-1] / 2), keep)

    def density(info: dict[str, Any]) -> jax.Array:
        prediction = info["prediction"]
        return prediction.conditional * (prediction.conditional - _unconditional(prediction))

    return _integral(density, weight, packets=packets, curve=curve)


def path_wise(plan: Any, *, probes: int | None = 1, curve: bool = False) -> Observer:
    """L: log p(x | y) / p(x) of each sample, exact for exact velocities and small steps; deterministic flows only.

    Along dx/dt = v, with s = (t u - x) / (1 - t) the score of a velocity u, the log-ratio changes by

        div(u_B - u_A) - (u_A - u_B) . s_B + (v - u_A) . (s_A - s_B)        (the last term is 0 without guidance)

    by the continuity equations of p_A and p_B; v is what x moves along, guided and clipped or not. It starts at 0, both
    being the same noise, and is summed by the trapezoid rule; use a solver of second order and 100 steps or more where
    third decimals matter. The one observer that is not free: the divergence is a derivative of a pass at the same x.

    Args:
        plan: `generate.sampler.Plan` of a flow with a solver that adds no noise.
        probes: probes of Hutchinson's estimator of the divergence at every step, a power of 2; None (or at least T) is
            the exact trace, T derivatives. The probes are v_j = r * h_j, r the signs of the noise that the step does
            not use (so that they come from the sample's own key) and h_j rows of a Hadamard matrix repeated along the
            packets: unbiased, and pairs of packets whose distance is no multiple of `probes` add no variance.
        curve: also return the contribution of each step.

    Returns:
        An observer whose result is a dict: "mi" [batch] nats, of either sign, and "curve" [batch, step].

    Raises:
        ConfigError: the plan is not of a flow, or `probes` is no power of 2.
    """
    t = _flow_times(plan, "path_wise")
    if probes is not None and (probes < 1 or probes & (probes - 1)):
        raise ConfigError(f"probes must be a power of 2, or None for the exact divergence; got {probes}")
    # Trapezoid whose first node counts as it is (the integrand is (E_A x - E_B x) . x there) and which is 0 at t = 1.
    edges = jnp.concatenate([t[:1], t, jnp.ones(1, t.dtype)])
    weight = (edges[2:] - edges[:-2]) / 2

    def density(info: dict[str, Any]) -> jax.Array:
        x, prediction, now = info["x"], info["prediction"], info["at"]["t"]
        a, b = prediction.conditional, _unconditional(prediction)
        score = (now * b - x) / (1 - now)
        # The velocity that x moves along is in the estimate of the clean series, also where that was clipped.
        moving = (info["x0"] - x) / (1 - now)
        change = -(a - b) * score + now / (1 - now) * (moving - a) * (a - b)

        def minus_gap(x: jax.Array) -> jax.Array:
            again = info["evaluate"](x, 0)
            return again.unconditional - again.conditional

        return change.sum(-1) + _divergence(minus_gap, x, info["noise"], probes)

    return _integral(density, weight, packets=False, curve=curve)


class Summary(NamedTuple):
    """Estimates of many samples; nats, float64.

    Attributes:
        mean: average over samples, or over classes with weights `prior` where they were given.
        stderr: its standard error over samples (not over trainings of the network).
        class_mean: [class], NaN for classes without samples.
        class_stderr: [class], NaN for classes with fewer than two samples.
        count: [class] samples.
    """

    mean: float
    stderr: float
    class_mean: np.ndarray
    class_stderr: np.ndarray
    count: np.ndarray


def ceiling(class_counts: ArrayLike) -> float:
    """Entropy of the labels in nats, from flows of each class [class]: no series can tell more of its label."""
    share = np.asarray(class_counts, np.float64) / np.sum(class_counts)
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


def summary(mi: ArrayLike, label: ArrayLike, n_classes: int, *, prior: ArrayLike | None = None) -> Summary:
    """Means and standard errors of per-sample values, overall and per class; nothing is clipped or left out.

    Args:
        mi: [sample] nats, the "mi" of an observer.
        label: [sample] integers from 0 to n_classes - 1, what each was sampled for.
        n_classes: number of classes.
        prior: [class] shares of the classes in the population, for labels that were not drawn from it (such as as
            many of each class); by default the shares in `label`. Classes of share 0 need no samples.
    """
    mi, label = np.asarray(mi, np.float64), np.asarray(label)
    if mi.ndim != 1 or mi.shape != label.shape or not mi.size:
        raise ConfigError(f"mi and label must be lists of the same length, got shapes {mi.shape} and {label.shape}")
    if label.min() < 0 or label.max() >= n_classes:
        raise ConfigError(f"labels must be from 0 to {n_classes - 1}, got {label.min()} to {label.max()}")
    values = [mi[label == k] for k in range(n_classes)]
    count = np.array([value.size for value in values])
    mean = np.array([value.mean() if value.size else np.nan for value in values])
    stderr = np.array([_stderr(value) for value in values])
    if prior is None:
        return Summary(float(mi.mean()), _stderr(mi), mean, stderr, count)
    share = np.asarray(prior, np.float64)
    if share.shape != (n_classes,) or share.min() < 0 or not share.sum() > 0:
        raise ConfigError(f"prior must be {n_classes} numbers of at least 0, got shape {share.shape}")
    share, used = share / share.sum(), share > 0
    whole, error = (share * mean)[used].sum(), np.sqrt(((share * stderr)[used] ** 2).sum())
    return Summary(float(whole), float(error), mean, stderr, count)


def _stderr(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")


def _integral(density: Any, weight: jax.Array, *, packets: bool, curve: bool) -> Observer:
    """sum_k weight_k density_k, where density gives [batch, T] or [batch], with what else was asked for."""

    def init(x: jax.Array, label: jax.Array) -> dict[str, jax.Array]:
        state = {"packet": jnp.zeros(x.shape)} if packets else {"mi": jnp.zeros(x.shape[0])}
        return state | ({"curve": jnp.zeros((x.shape[0], weight.shape[0]))} if curve else {})

    def update(state: dict[str, jax.Array], info: dict[str, Any]) -> dict[str, jax.Array]:
        value = weight[info["step"]] * density(info)
        whole = value.sum(-1) if value.ndim == 2 else value
        new = {"packet": state["packet"] + value} if packets else {"mi": state["mi"] + whole}
        return new | ({"curve": state["curve"].at[:, info["step"]].set(whole)} if curve else {})

    def finish(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"mi": state["packet"].sum(-1)} | state if packets else state

    return Observer(init, update, finish, needs_unconditional=True)


def _divergence(field: Any, x: jax.Array, noise: jax.Array, probes: int | None) -> jax.Array:
    """Trace [batch] of the derivative of field: [batch, T] -> [batch, T], each row of which sees its own row only."""
    length = x.shape[-1]
    if probes is None or probes >= length:
        directions, count = jnp.broadcast_to(jnp.eye(length)[:, None], (length, *x.shape)), 1
    else:
        signs = jnp.where(noise < 0, -1.0, 1.0)
        rows = jnp.asarray(_hadamard(probes)[:, np.arange(length) % probes], jnp.float32)
        directions, count = signs[None] * rows[:, None], probes
    # The point is the same for all directions, so that vmap computes its pass once.
    along = jax.vmap(lambda v: (v * jax.jvp(field, (x,), (v,))[1]).sum(-1))(directions)
    return along.sum(0) / count


def _hadamard(size: int) -> np.ndarray:
    made = np.ones((1, 1))
    while made.shape[0] < size:
        made = np.block([[made, made], [made, -made]])
    return made


def _unconditional(prediction: Any) -> jax.Array:
    if prediction.unconditional is None:
        raise ConfigError("an estimate of information needs the unconditional prediction: train with class dropout")
    return prediction.unconditional


def _kept(weight: jax.Array, keep: ArrayLike | None) -> jax.Array:
    if keep is None:
        return jnp.asarray(weight)
    keep = np.asarray(keep)
    if keep.shape != weight.shape or keep.dtype != bool:
        raise ConfigError(
            f"keep must be {weight.shape[0]} booleans, one a step; got {keep.dtype} of shape {keep.shape}"
        )
    return jnp.where(keep, weight, 0.0)


def _flow_times(plan: Any, name: str) -> jax.Array:
    """The plan's process times [step]; those of a flow, and of no other process here, rise from noise to data."""
    t = jnp.asarray(plan.at["t"])
    rising = jnp.issubdtype(t.dtype, jnp.floating) and t.ndim == 1
    if rising and not isinstance(t, jax.core.Tracer):
        host = np.asarray(t)
        rising = bool((np.diff(host) > 0).all() and host[0] >= 0 and host[-1] < 1)
    if not rising:
        raise ConfigError(f"{name} is for flows, whose time rises from 0 (noise) to 1; use squared for other processes")
    return t
