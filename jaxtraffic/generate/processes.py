"""The processes by name, built from a configuration; DDPM with its two samplers among them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import jax

from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import ddim, ddpm, process
from jaxtraffic.generate.edm import EDM
from jaxtraffic.generate.flow import Flow
from jaxtraffic.generate.sampler import Plan
from jaxtraffic.generate.schedules import Schedule, make_schedule
from jaxtraffic.generate.vp import VP

if TYPE_CHECKING:
    from jaxtraffic.generate.config import DiffusionConfig

TITLES = {"ddpm": "DDPMS4", "vp": "VP-S4", "edm": "EDM-S4", "flow": "Flow-S4"}
"""What each process on the S4 backbone is called in reports."""
SUFFIXES = {name: title.lower() for name, title in TITLES.items()}
"""What its samples are called, after the name of the data."""


@dataclasses.dataclass(frozen=True)
class DDPM:
    """Discrete-time diffusion; see `ddpm` and `ddim`."""

    kind: str = "cosine"
    """Noise schedule."""
    steps: int = 100
    variance: str = "posterior"
    prediction: str = "epsilon"

    solvers: ClassVar[tuple[str, ...]] = ("ancestral", "ddim")

    def __post_init__(self) -> None:
        """Checks the prediction; the schedule checks the rest when it is made."""
        ddpm.check_prediction(self.prediction)

    @property
    def schedule(self) -> Schedule:
        """The schedule, in the order of training."""
        return make_schedule(self.kind, self.steps, self.variance)

    def loss(self, denoise: process.Denoise, key: jax.Array, x0: jax.Array, label: jax.Array, **options: Any) -> Any:
        """See `ddpm.loss` and `process.Process`."""
        return ddpm.loss(denoise, self.schedule, key, x0, label, prediction=self.prediction, **options)

    def plan(
        self,
        *,
        solver: str | None = None,
        steps: int | None = None,
        eta: float | None = None,
        churn: float = 0.0,
        clip: float | None = None,
    ) -> Plan:
        """Ancestral sampling over every step, or DDIM on a subset; see `process.Process`."""
        solver = process.choose("ddpm", self.solvers, solver)
        process.refuse("churn", churn, unless=0.0, fits="edm")
        if solver == "ddim":
            eta = 0.0 if eta is None else eta
            return ddim.plan(self.kind, self.steps, prediction=self.prediction, steps=steps, eta=eta, clip=clip)
        process.refuse("eta", eta, unless=None, fits="vp and ddim")
        if steps not in (None, self.steps):
            raise ConfigError(
                f"ancestral sampling takes all {self.steps} diffusion steps, not {steps}; choose solver ddim"
            )
        return ddpm.plan(self.schedule, prediction=self.prediction, clip=clip)


def make_process(config: DiffusionConfig) -> process.Process:
    """The process that a configuration describes.

    Raises:
        ConfigError: an unknown process, or options that do not fit together.
    """
    if config.process not in TITLES:
        raise ConfigError(f"unknown process {config.process!r}; choose from {', '.join(TITLES)}")
    if config.process != "flow":
        process.refuse("time law", config.time_law, unless="uniform", fits="flow")
    if config.process == "ddpm":
        return DDPM(config.schedule, config.steps, config.variance, config.prediction)
    if config.process == "vp":
        return VP(config.prediction, config.beta_min, config.beta_max, config.steps)
    if config.process == "flow":
        return Flow(config.time_law)
    return EDM(
        sigma_data=DATA_DEVIATION[config.scaling] if config.sigma_data is None else config.sigma_data,
        **{name: getattr(config, name) for name in _EDM_OPTIONS},
    )


DATA_DEVIATION = {"quantile": 1.0, "class_quantile": 1.0, "linear": 0.5}
"""sigma_data by scale: quantile-scaled series have unit variance; sizes / 1500 take EDM's own 0.5, near enough to the
0.4 to 0.7 of traffic (an error of sigma_data changes the preconditioning only, not what is learnt)."""
_EDM_OPTIONS = (
    "sigma_min",
    "sigma_max",
    "rho",
    "log_sigma_mean",
    "log_sigma_std",
    "churn_min",
    "churn_max",
    "churn_noise",
)

SAMPLING_OPTIONS = (
    "solver",
    "sampling_steps",
    "eta",
    "churn",
    "churn_min",
    "churn_max",
    "churn_noise",
    "sigma_min",
    "sigma_max",
    "rho",
    "guidance",
    "clip_x0",
)
"""Fields of `DiffusionConfig` that training does not depend on."""


def check(config: DiffusionConfig) -> None:
    """Raises ConfigError where process, solver and their options do not fit together."""
    make_process(config).plan(**sampling_options(config))


def sampling_options(config: DiffusionConfig) -> dict[str, Any]:
    """What a configuration says about sampling, as arguments of `Process.plan`."""
    return {"solver": config.solver, "steps": config.sampling_steps, "eta": config.eta, "churn": config.churn}
