"""EDM: preconditioned denoiser, log-normal noise levels, Karras steps, Heun's method with churn.

Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), table 1, equations 5
and 7, algorithm 2.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import process, runge_kutta
from jaxtraffic.generate.sampler import Plan

TOLD = 10.0
"""The network is told 10 ln sigma (EDM's c_noise is ln sigma / 4), about 100 units from the smallest to the largest
noise: its sinusoids were made for steps 0..99 of DDPM."""


def precondition(sigma: Any, sigma_data: float) -> tuple[Any, Any, Any]:
    """(c_skip, c_out, c_in) of noise levels, NumPy or JAX: D(x) = c_skip x + c_out F(c_in x, c_noise) (table 1)."""
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / total**0.5, 1 / total**0.5


def karras(steps: int, sigma_min: float, sigma_max: float, rho: float) -> np.ndarray:
    """Noise levels [step + 1] float64, from sigma_max over sigma_min to 0 (equation 5)."""
    share = np.arange(steps) / max(steps - 1, 1)
    return np.append((sigma_max ** (1 / rho) + share * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho, 0.0)


@dataclasses.dataclass(frozen=True)
class EDM:
    """EDM with its noise levels; the defaults are the published ones but for sigma_data."""

    sigma_data: float = 1.0
    """Standard deviation of the scaled series: 1 on the quantile scale by construction."""
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    log_sigma_mean: float = -1.2
    log_sigma_std: float = 1.2
    churn_min: float = 0.0
    churn_max: float | None = None
    churn_noise: float = 1.0
    steps: int = 50
    """Sampling steps where none are asked for; published are 18 for images, which leave 8 % too much variance in the
    narrow modes of the mixture of tests/generate/oracles.py."""

    solvers: ClassVar[tuple[str, ...]] = ("heun", "euler", "midpoint")

    def __post_init__(self) -> None:
        """Checks the levels."""
        if not 0 < self.sigma_min < self.sigma_max or not self.sigma_data > 0 or not self.rho > 0:
            raise ConfigError("edm needs 0 < sigma_min < sigma_max, and sigma_data and rho above 0")
        if not self.log_sigma_std > 0 or self.churn_min < 0 or self.churn_noise < 0:
            raise ConfigError("edm needs log_sigma_std above 0, and churn_min and churn_noise of at least 0")

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
        """Error [batch] of the preconditioned denoiser, weighted by 1 / c_out^2; see `process.Process`."""
        drawn = jax.random.normal(prng.stream(key, "time"), label.shape)
        sigma = jnp.exp(self.log_sigma_mean + self.log_sigma_std * drawn)
        skip, out, scale = (c[:, None] for c in precondition(sigma, self.sigma_data))
        label = process.hide_labels(key, label, class_dropout, no_class)
        x = x0 + sigma[:, None] * process.fresh_noise(key, x0, noise)
        # The weight cancels c_out, so that this is the plain error of the network's own output.
        output = denoise(scale * x, TOLD * jnp.log(sigma), label)
        return jnp.mean((output - (x0 - skip * x) / out) ** 2, axis=-1)

    def plan(
        self,
        *,
        solver: str | None = None,
        steps: int | None = None,
        eta: float | None = None,
        churn: float = 0.0,
        clip: float | None = None,
    ) -> Plan:
        """A solver of dx/dsigma = (x - D) / sigma on Karras' steps, with churn; see `process.Process`."""
        solver = process.choose("edm", self.solvers, solver)
        process.refuse("eta", eta, unless=None, fits="vp and ddim")
        steps = process.check_steps(self.steps if steps is None else steps)
        level = karras(steps, self.sigma_min, self.sigma_max, self.rho)
        before, after = level[:-1], level[1:]
        if churn < 0:
            raise ConfigError(f"churn must be at least 0, got {churn}")
        churned = (before >= self.churn_min) & (before <= (np.inf if self.churn_max is None else self.churn_max))
        raised = before * (1 + np.where(churned, min(churn / steps, np.sqrt(2) - 1), 0.0))
        size = after - raised
        sigma = runge_kutta.stage_times(solver, raised, size)
        if solver == "heun":
            sigma[-1, 1] = self.sigma_min  # would be 0: this evaluation is made, for the scan's sake, and not used
        skip, out, scale = precondition(sigma, self.sigma_data)
        stage = runge_kutta.Stage(scale, skip, out, (1 - skip) / sigma, -out / sigma, -1 / sigma)
        return runge_kutta.make_plan(
            solver,
            start=raised,
            size=size,
            stage=stage,
            told=TOLD * np.log(sigma),
            weight=process.information_weight(np.ones(steps), raised, out[:, 0] / raised),
            initial=self.sigma_max,
            clip=clip,
            direct_end=solver == "heun",
            churn=self.churn_noise * np.sqrt(raised**2 - before**2),
        )
