"""Continuous-time variance-preserving diffusion, and the family of reverse processes from its SDE to its ODE.

dx = -1/2 beta x dt + sqrt(beta) dw with beta(t) linear in t. Every reverse process
dx = [-1/2 beta x - (1 + eta^2) / 2 beta score] dt + eta sqrt(beta) dw has the same marginals: eta = 1 is the reverse
SDE, eta = 0 the probability-flow ODE.
Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations" (2021), equations 6,
11, 13 and 33; the family: Huang, Lim, Courville, "A Variational Perspective on Diffusion-Based Generative Models and
Score Matching" (2021).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import process, runge_kutta
from jaxtraffic.generate.ddpm import check_prediction
from jaxtraffic.generate.sampler import Plan

END = 1e-3
"""Earliest time: below it the noise is under 1 % of the scale, and the last step returns the estimate of the data."""
SPACING = 2.0
"""Nodes are equal in t^(1 / SPACING): near the data log SNR moves fast, and steps are smaller there."""


@dataclasses.dataclass(frozen=True)
class VP:
    """Variance-preserving diffusion on t in [0, 1]."""

    prediction: str = "epsilon"
    beta_min: float = 0.1
    beta_max: float = 20.0
    steps: int = 100

    solvers: ClassVar[tuple[str, ...]] = ("euler-maruyama", "heun", "midpoint")

    def __post_init__(self) -> None:
        """Checks the noise."""
        check_prediction(self.prediction)
        if not 0 < self.beta_min <= self.beta_max:
            raise ConfigError(f"vp needs 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")

    def beta(self, t: np.ndarray) -> np.ndarray:
        """Rate of noise."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def mix(self, t: np.ndarray | jax.Array) -> tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]:
        """(signal, noise) at times t: x_t = signal x_0 + noise eps."""
        numpy = np if isinstance(t, np.ndarray) else jnp
        total = self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2
        return numpy.exp(-total / 2), numpy.sqrt(-numpy.expm1(-total))

    def loss(
        self,
        denoise: process.Denoise,
        key: jax.Array,
        x0: jax.Array,
        label: jax.Array,
        *,
        class_dropout: float = 0.0,
        no_class: int = -1,
        noise: jax.Array | None = None,
    ) -> jax.Array:
        """Squared error [batch] of the noise or of v at one time each, uniform on [END, 1]; see `process.Process`."""
        t = jax.random.uniform(prng.stream(key, "time"), label.shape, minval=END)
        eps = process.fresh_noise(key, x0, noise)
        label = process.hide_labels(key, label, class_dropout, no_class)
        signal, level = (part[:, None] for part in self.mix(t))
        target = eps if self.prediction == "epsilon" else signal * eps - level * x0
        return jnp.mean((denoise(signal * x0 + level * eps, process.TIME * t, label) - target) ** 2, axis=-1)

    def plan(
        self,
        *,
        solver: str | None = None,
        steps: int | None = None,
        eta: float | None = None,
        churn: float = 0.0,
        clip: float | None = None,
    ) -> Plan:
        """A solver of the reverse process from t = 1 to END; see `process.Process`.

        Euler-Maruyama takes any eta of at least 0 (1 by default; 0 is Euler's method on the ODE); Heun and midpoint
        solve the ODE. The last step returns the estimate of the data at END, as DDPM's does.
        """
        solver = process.choose("vp", self.solvers, solver)
        process.refuse("churn", churn, unless=0.0, fits="edm")
        stochastic = solver == "euler-maruyama"
        if not stochastic and eta:
            raise ConfigError(f"vp with solver {solver} is deterministic; leave eta at 0 or choose euler-maruyama")
        eta = float(stochastic) if eta is None else float(eta)
        if eta < 0:
            raise ConfigError(f"eta must be at least 0, got {eta}")
        steps = process.check_steps(self.steps if steps is None else steps, 2)
        start = np.linspace(1.0, END ** (1 / SPACING), steps) ** SPACING
        size = np.diff(start, append=0.0)
        scheme = "euler" if stochastic else solver
        t = runge_kutta.stage_times(scheme, start, size)
        signal, level = self.mix(t)
        stage = self._coefficients(t, signal, level, eta)
        # The last step's slope is one that ends in the estimate of the data, whatever its length.
        whole = (stage.x0_of_x - 1, stage.x0_of_output, np.ones_like(t))
        last = np.arange(steps)[:, None] == steps - 1
        slopes = (np.where(last, end / size[-1], slope) for end, slope in zip(whole, stage[3:], strict=True))
        deviation = eta * np.sqrt(self.beta(start) * -size)
        deviation[-1] = 0.0
        return runge_kutta.make_plan(
            scheme,
            start=start,
            size=size,
            stage=runge_kutta.Stage(*stage[:3], *slopes),
            told=process.TIME * t,
            weight=process.information_weight(
                signal[:, 0], level[:, 0], np.ones(steps) if self.prediction == "epsilon" else signal[:, 0]
            ),
            initial=1.0,
            clip=clip,
            direct_end=True,
            deviation=deviation,
        )

    def _coefficients(self, t: np.ndarray, signal: np.ndarray, level: np.ndarray, eta: float) -> runge_kutta.Stage:
        """Of dx/dt = -1/2 beta x + (1 + eta^2) / 2 beta eps / noise, for score = -eps / noise."""
        level = np.where(t > 0, level, 1.0)  # the second evaluation of the last step, which is not used
        pull, push = self.beta(t) / 2, (1 + eta**2) / 2 * self.beta(t) / level
        on_clip = -push * signal / level
        if self.prediction == "epsilon":
            return runge_kutta.Stage(1.0, 1 / signal, -level / signal, -pull, push, on_clip)
        return runge_kutta.Stage(1.0, signal, -level, push * level - pull, push * signal, on_clip)
