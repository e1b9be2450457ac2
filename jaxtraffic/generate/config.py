"""Configuration of a generator, and the named presets."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import processes
from jaxtraffic.nn import DenoiserConfig
from jaxtraffic.scaling import SCALINGS
from jaxtraffic.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class DiffusionConfig:
    """The process between noise and data, and the scale of the data; the defaults are the published DDPM's, but for the
    scaling.
    """

    process: str = "ddpm"
    """Process: ddpm, vp (continuous-time diffusion), edm, or flow (rectified flow)."""
    scaling: str = "quantile"
    """Scale of signed sizes: quantile (randomised quantile transform), class_quantile (one for each class; no measuring
    of information), or linear (size / 1500, as published)."""
    steps: int = 100
    """Diffusion steps T of ddpm; default number of sampling steps of vp."""
    schedule: str = "cosine"
    """Noise schedule of ddpm: cosine or linear."""
    prediction: str = "epsilon"
    """What the network predicts in ddpm and vp: epsilon (noise) or v. Those of edm and flow are their own."""
    variance: str = "posterior"
    """Variance of an ancestral step of ddpm: posterior or beta."""
    clip_x0: bool = True
    """Clip the estimate of the clean series while sampling: near t = T an error of the noise is multiplied by 2000."""
    guidance: float = 1.0
    """Weight of classifier-free guidance; 1 is off. Other values need class dropout in training."""
    solver: str | None = None
    """Solver; None is the first of ddpm: ancestral, ddim; vp: euler-maruyama, heun, midpoint; edm: heun, euler,
    midpoint; flow: heun, euler, midpoint."""
    sampling_steps: int | None = None
    """Sampling steps; None is 100 for ddpm and vp (their T), 50 for edm and flow. Heun and midpoint evaluate the
    network twice a step."""
    eta: float | None = None
    """Randomness of ddim (default 0) and of euler-maruyama (default 1): 0 is deterministic."""
    churn: float = 0.0
    """S_churn of edm: noise added anew in every step; 0 is deterministic."""
    churn_min: float = 0.0
    """S_min of edm: noise level below which there is no churn."""
    churn_max: float | None = None
    """S_max of edm: noise level above which there is no churn; None is no bound."""
    churn_noise: float = 1.0
    """S_noise of edm: standard deviation of the churned noise."""
    time_law: str = "uniform"
    """Law of the training times of flow: uniform or logit-normal."""
    beta_min: float = 0.1
    """Rate of noise of vp at t = 0."""
    beta_max: float = 20.0
    """Rate of noise of vp at t = 1."""
    sigma_data: float | None = None
    """Standard deviation of scaled series in edm; None is 1 for the quantile scales and 0.5 for the linear one."""
    sigma_min: float = 0.002
    """Lowest noise level of edm's steps."""
    sigma_max: float = 80.0
    """Highest noise level of edm's steps."""
    rho: float = 7.0
    """Spacing of edm's steps."""
    log_sigma_mean: float = -1.2
    """Mean of ln sigma in training edm."""
    log_sigma_std: float = 1.2
    """Standard deviation of ln sigma in training edm."""
    prefixes: float = 0.0
    """Share of a training batch that is cut to its first packets (how many is drawn), so that one network knows every
    prefix; see `prefix_information`."""


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """Everything that decides what a generator is and how it is trained."""

    diffusion: DiffusionConfig = DiffusionConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    train: TrainConfig = TrainConfig()

    def check(self) -> GeneratorConfig:
        """Returns itself, or raises ConfigError for values that cannot work."""
        train, diffusion = self.train, self.diffusion
        for name in ("epochs", "batch_size", "log_steps", "checkpoint_steps"):
            if getattr(train, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(train, name)}")
        if train.steps is not None and train.steps < 1:
            raise ConfigError(f"steps must be at least 1, got {train.steps}")
        if not train.learning_rate > 0 or not train.clip_norm > 0:
            raise ConfigError("learning_rate and clip_norm must be above 0")
        for name in ("ema", "class_dropout"):
            if not 0 <= getattr(train, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(train, name)}")
        if not 0 <= diffusion.prefixes <= 1:
            raise ConfigError(f"prefixes must be in [0, 1], got {diffusion.prefixes}")
        if diffusion.scaling not in SCALINGS:
            raise ConfigError(f"unknown scaling {diffusion.scaling!r}; choose from {', '.join(SCALINGS)}")
        processes.check(diffusion)
        if diffusion.guidance != 1 and not train.class_dropout:
            raise ConfigError("guidance other than 1 needs training with --class-dropout above 0")
        return self


THESIS = GeneratorConfig()
"""As published: 5 blocks of 512 channels, batch 4096, 300 epochs, AdamW 7.5e-4 (thesis, chapter 8)."""

SMALL = GeneratorConfig(
    denoiser=DenoiserConfig(
        width=128, blocks=4, mlp_ratio=2.0, glu=False, dt_min=1e-2, dt_max=1.0, position_embedding=True
    ),
    diffusion=DiffusionConfig(prediction="v"),
    train=TrainConfig(steps=4000, batch_size=256, learning_rate=2e-3, ema=0.998, checkpoint_steps=200),
)
"""For a CPU with 2 cores, about 25 minutes: 1 M parameters."""

TINY = GeneratorConfig(
    denoiser=DenoiserConfig(
        width=64, blocks=3, mlp_ratio=2.0, embedding=64, glu=False, dt_min=1e-2, dt_max=1.0, position_embedding=True
    ),
    diffusion=DiffusionConfig(prediction="v"),
    train=TrainConfig(steps=1500, batch_size=256, learning_rate=2e-3, ema=0.995, checkpoint_steps=100),
)
"""For a CPU with 2 cores, about 2 minutes: 0.2 M parameters."""

PRESETS = {"thesis": THESIS, "small": SMALL, "tiny": TINY}


def preset(name: str) -> GeneratorConfig:
    """The preset called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def from_dict(stored: dict[str, Any]) -> GeneratorConfig:
    """Rebuilds a configuration from `dataclasses.asdict` read back from JSON."""
    parts = {"diffusion": DiffusionConfig, "denoiser": DenoiserConfig, "train": TrainConfig}
    try:
        return GeneratorConfig(**{name: kind(**stored[name]) for name, kind in parts.items()})
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"the stored generator configuration does not fit this version of jaxtraffic: {error}"
        ) from error
