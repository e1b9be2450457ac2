"""What the first r packets of held-out flows tell about their class, by a generator trained on prefixes.

For a flow x of class y, with noise eps, v = x - eps and x_t = t x + (1 - t) eps, a denoiser gives velocities u_A (with
the class) and u_B (without), and over the positions before r

    gap       E_t [t / (1 - t) (|v - u_B|^2 - |v - u_A|^2)]     mean over eps: log p(x_1..r | y) / p(x_1..r)
    squared   E_t [t / (1 - t) |u_A - u_B|^2]                   mean over eps and the flows of y: the same KL

(reference/information.md, section 5: the gap form is exact point by point and costs nothing where the network is wrong
in the same way with and without the class; the squared form counts every error as information.) Other processes are
put on the same footing by their ratio of signal to noise, at which they see the same flow up to scale; in terms of the
noise this is half the difference of the squared errors, integrated over log SNR (Kong, Brekelmans, Ver Steeg,
"Information-Theoretic Diffusion" (2023), equation 8).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel, prng, scaling
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import edm, flow, process, processes, sampler, vp
from jaxtraffic.generate.prefixes import inside_prefix
from jaxtraffic.generate.schedules import betas
from jaxtraffic.information import proposals
from jaxtraffic.series import PacketSeries

if TYPE_CHECKING:
    from jaxtraffic.generate.model import Generator

FORMS = ("gap", "squared")
CPU_BLOCK, ACCELERATOR_BLOCK = 256, 4096
"""Flows that one device evaluates at a time."""
EPS = 1e-3
"""Times end at 1 - EPS."""


class Level(NamedTuple):
    """Where a batch stands between noise and data; all leaves [batch] float32.

    The network sees input (signal x + noise eps) and is told `told`; its output F means the velocity
    of_x (signal x + noise eps) + of_output F. `weight` is t / (1 - t) over the density with which the level was drawn.
    """

    signal: jax.Array
    noise: jax.Array
    input: jax.Array
    told: jax.Array
    of_x: jax.Array
    of_output: jax.Array
    weight: jax.Array


Levels = Callable[[jax.Array], Level]
"""u [batch], uniform on [0, 1) -> Level."""

Network = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]
"""(input [batch, T], told [batch], label [batch] or None) -> output [batch, T]."""


def levels_of(generator: Generator, proposal: str = "mixture") -> Levels:
    """How a generator's process draws its levels.

    Raises:
        ConfigError: a process whose levels are not known here.
    """
    kind = generator.process
    if isinstance(kind, flow.Flow):
        return functools.partial(_flow_level, proposal)
    if isinstance(kind, vp.VP):
        return functools.partial(_vp_level, kind, proposal)
    if isinstance(kind, edm.EDM):
        return functools.partial(_edm_level, kind, proposal)
    if isinstance(kind, processes.DDPM):
        return ddpm_levels(np.cumprod(1 - betas(kind.kind, kind.steps)), kind.prediction)
    raise ConfigError(f"information of prefixes is not known for the process {type(kind).__name__}")


def _time(proposal: str, u: jax.Array, least: float = 0.0, most: float = 1 - EPS) -> tuple[jax.Array, jax.Array]:
    """Times of the rectified flow and their weights; those outside [least, most] count nothing and are moved inside."""
    t = proposals.at_quantile(proposal, u, EPS)
    weight = proposals.weight(proposal, t, EPS)
    return jnp.clip(t, least, most), jnp.where((t >= least) & (t <= most), weight, 0.0)


def _flow_level(proposal: str, u: jax.Array) -> Level:
    t, weight = _time(proposal, u)
    one = jnp.ones_like(t)
    return Level(t, 1 - t, one, process.TIME * t, 0 * one, one, weight)


def _vp_level(kind: vp.VP, proposal: str, u: jax.Array) -> Level:
    ends = [float(signal / (signal + noise)) for signal, noise in map(kind.mix, (np.array(1.0), np.array(vp.END)))]
    t, weight = _time(proposal, u, *ends)
    # From the ratio of signal to noise back to VP's own time: its integrated rate is ln(1 + noise^2 / signal^2).
    own = proposals.at_total_rate(jnp.log1p(((1 - t) / t) ** 2), kind.beta_min, kind.beta_max)
    signal, noise = kind.mix(own)
    of_x, of_output = _velocity(kind.prediction, signal, noise)
    return Level(signal, noise, jnp.ones_like(t), process.TIME * own, of_x, of_output, weight)


def _edm_level(kind: edm.EDM, proposal: str, u: jax.Array) -> Level:
    t, weight = _time(proposal, u, 1 / (1 + kind.sigma_max), 1 / (1 + kind.sigma_min))
    sigma = (1 - t) / t
    skip, out, scale = edm.precondition(sigma, kind.sigma_data)
    # velocity = D - (x - D) / sigma, and D = skip x + out F
    return Level(
        jnp.ones_like(t),
        sigma,
        scale,
        edm.TOLD * jnp.log(sigma),
        skip * (1 + 1 / sigma) - 1 / sigma,
        out * (1 + 1 / sigma),
        weight,
    )


def ddpm_levels(alpha_bar: np.ndarray, prediction: str) -> Levels:
    """The steps of a DDPM, all equally likely, with the weights of the trapezoid over them.

    Args:
        alpha_bar: [step] float64.
        prediction: "epsilon" or "v".
    """
    signal, noise = np.sqrt(alpha_bar)[::-1], np.sqrt(1 - alpha_bar)[::-1]
    t = signal / (signal + noise)
    # information_weight is in units of the noise, of which the velocity is 1 / t.
    weight = len(t) * process.information_weight(signal, noise, t)
    table = [np.asarray(leaf[::-1], np.float32) for leaf in (signal, noise, weight)]

    def level(u: jax.Array) -> Level:
        step = jnp.minimum((u * len(t)).astype(jnp.int32), len(t) - 1)
        a, b, weighed = (jnp.asarray(leaf)[step] for leaf in table)
        return Level(a, b, jnp.ones_like(a), step.astype(jnp.float32), *_velocity(prediction, a, b), weighed)

    return level


def _velocity(prediction: str, signal: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Velocity x - eps from the network input and a predicted noise or v = signal eps - noise x."""
    if prediction == "epsilon":
        return 1 / signal, -(1 + noise / signal)
    return signal - noise, -(signal + noise)


def pointwise_information(
    network: Network,
    levels: Levels,
    scaled: Callable[[jax.Array], jax.Array],
    keys: jax.Array,
    label: jax.Array,
    packets: jax.Array,
    *,
    form: str = "gap",
    draws: int = 16,
) -> jax.Array:
    """Information of the first packets of flows about their class, one value a flow.

    Args:
        network: sees 0 beyond the first packets; what it answers there is not looked at.
        levels: see `levels_of`.
        scaled: keys [batch] -> clean scaled series [batch, T]; drawn afresh for every draw, for scales that are random.
        keys: [batch] typed keys, one a flow. The same keys for other `packets` give the same times and noise, so that
            differences between numbers of packets have little noise of their own.
        label: [batch] int32.
        packets: [] int32, may be traced.
        form: "gap" or "squared".
        draws: stratified levels a flow; each comes with its mirror image -eps.

    Returns:
        [batch] nats.

    Raises:
        ConfigError: unknown form, or no draws.
    """
    if form not in FORMS:
        raise ConfigError(f"unknown form {form!r}; choose from {', '.join(FORMS)}")
    if draws < 1:
        raise ConfigError(f"draws must be at least 1, got {draws}")

    def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        own = jax.vmap(lambda key: prng.at_step(key, number))(keys)
        x = scaled(_stream(own, "scale"))
        within = jax.vmap(jax.random.uniform)(_stream(own, "time"))
        at = levels((number.astype(jnp.float32) + within) / draws)
        eps = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(_stream(own, "noise"))
        mask = inside_prefix(packets, x.shape[1])
        both = [_integrand(network, at, x, sign * eps, label, mask, form) for sign in (1.0, -1.0)]
        return total + (both[0] + both[1]) / (2 * draws), None

    return jax.lax.scan(add, jnp.zeros(label.shape), jnp.arange(draws, dtype=jnp.int32))[0]


def _integrand(
    network: Network, at: Level, x: jax.Array, eps: jax.Array, label: jax.Array, mask: jax.Array, form: str
) -> jax.Array:
    at = jax.tree.map(lambda leaf: leaf[:, None], at)
    noisy = jnp.where(mask, at.signal * x + at.noise * eps, 0.0)
    u_a, u_b = (
        at.of_x * noisy + at.of_output * network(at.input * noisy, at.told[:, 0], known) for known in (label, None)
    )
    apart = jnp.where(mask, u_a - u_b, 0.0)
    # |v - u_B|^2 - |v - u_A|^2 as one product, which keeps its digits where both are large.
    other = apart if form == "squared" else 2 * (x - eps) - u_a - u_b
    return (at.weight * apart * other).sum(axis=1)


def _stream(keys: jax.Array, name: str) -> jax.Array:
    return jax.vmap(lambda key: prng.stream(key, name))(keys)


def generator_information(
    generator: Generator,
    key: jax.Array,
    flows: PacketSeries,
    *,
    packets: Sequence[int],
    form: str = "gap",
    draws: int = 16,
    proposal: str = "mixture",
    mesh: Mesh | None = None,
    block: int | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Information of the first r packets of each flow about its class, for every r of `packets`.

    One compiled program serves all r; flows are split over the devices, with no collective, and the value of a flow
    depends on (key, its index, itself) only. The generator has to be trained with class dropout (it gives u_B) and
    with prefixes (DiffusionConfig.prefixes); without the latter only r = T means anything. Take a class dropout of
    about a half: what u_B misses for want of training counts as information.

    Args:
        generator: with parameters.
        key: typed key.
        flows: held-out flows of the generator's length and classes.
        packets: numbers of first packets, each from 1 to T.
        form: "gap" or "squared".
        draws: stratified levels a flow; each costs four evaluations.
        proposal: density of the times (`information.proposals`); DDPM's steps are equally likely instead.
        mesh: devices; all of them by default.
        block: flows a device evaluates at a time.
        report: called with the number of finished values.

    Returns:
        [r, flow] float64, nats; the mean over flows is the estimate, the mean over a class its KL.

    Raises:
        ConfigError: flows, packets or options that do not fit, or a generator without class dropout or with scales by
            class.
    """
    signed, label = np.asarray(flows.signed_size), np.asarray(flows.label, np.int32)
    length = generator.card.length
    if signed.ndim != 2 or signed.shape[1] != length or not len(signed):
        raise ConfigError(f"flows must have {length} packet positions, as in training; got {signed.shape}")
    if label.min() < 0 or label.max() >= generator.no_class:
        raise ConfigError(f"labels must be from 0 to {generator.no_class - 1}, as in training")
    packets = np.asarray(packets, np.int32)
    if packets.ndim != 1 or not packets.size or packets.min() < 1 or packets.max() > length:
        raise ConfigError(f"packets must be numbers from 1 to {length}, got {packets.tolist()}")
    if not generator.config.train.class_dropout:
        raise ConfigError("information needs a generator trained with class dropout above 0")
    scaling.check_one_for_all(generator.scale.kind)
    mesh = parallel.make_mesh() if mesh is None else mesh
    block = (CPU_BLOCK if jax.default_backend() == "cpu" else ACCELERATOR_BLOCK) if block is None else block
    chunk = block * mesh.shape["data"]
    values = np.empty((packets.size, len(signed)), np.float64)
    with jax.set_mesh(mesh):
        params, scale = parallel.put_replicated((generator.params, generator.scale), mesh)
        operators = jax.jit(
            lambda p: generator.apply(p, length, method="operators"), out_shardings=parallel.replicated(mesh)
        )(params)
        program = _program(generator, mesh, form, draws, proposal)
        for start in range(0, len(signed), chunk):
            index = np.arange(start, start + chunk, dtype=np.int32)
            rows = np.minimum(index, len(signed) - 1)
            arguments = parallel.put_over_data((index, signed[rows], label[rows]), mesh)
            kept = slice(start, min(start + chunk, len(signed)))
            for row, r in enumerate(packets):
                result = program(params, scale, operators, key, *arguments, r)
                values[row, kept] = parallel.to_host(result)[: kept.stop - start]
                report(start * packets.size + (row + 1) * (kept.stop - start))
    return values


@functools.lru_cache(maxsize=16)
def _program(generator: Generator, mesh: Mesh, form: str, draws: int, proposal: str) -> Any:
    """One jitted function per (model, mesh, options): r is traced."""
    levels = levels_of(generator, proposal)

    def evaluate(
        params: Any,
        scale: scaling.Scaling,
        operators: Any,
        key: jax.Array,
        index: jax.Array,
        signed: jax.Array,
        label: jax.Array,
        packets: jax.Array,
    ) -> jax.Array:
        def network(x: jax.Array, told: jax.Array, known: jax.Array | None) -> jax.Array:
            known = jnp.full_like(label, generator.no_class) if known is None else known
            condition = generator.apply(params, told, method="embed_time") + generator.apply(
                params, known, method="embed_class"
            )
            return generator.apply(params, x, condition, operators)

        return pointwise_information(
            network,
            levels,
            lambda keys: jax.vmap(scale.apply)(keys, signed),
            sampler.sample_keys(key, index),
            label,
            packets,
            form=form,
            draws=draws,
        )

    return jax.jit(evaluate, out_shardings=parallel.over_data(mesh))
