"""The command line that generative experiments share, and the configuration it stands for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
from judging import JudgingOptions

from jaxtraffic import generate, scaling
from jaxtraffic.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Options(JudgingOptions):
    """Command line of a generative experiment. What is left out comes from the preset."""

    preset: str | None = None
    """Named configuration: thesis (as published), small or tiny (CPU); default: tiny on CPU, else thesis."""
    process: str | None = None
    """Process: ddpm, vp (continuous-time diffusion), edm or flow (rectified flow); default: the script's."""
    solver: str | None = None
    """Solver of the process. ddpm: ancestral, ddim; vp: euler-maruyama, heun, midpoint; edm, flow: heun, euler,
    midpoint. The first is the default."""
    sampling_steps: int | None = None
    """Sampling steps; default: 100 for ddpm and vp, 50 for edm and flow."""
    eta: float | None = None
    """Randomness of ddim (default 0) and of vp's euler-maruyama (default 1); 0 is deterministic."""
    churn: float | None = None
    """S_churn of edm; 0 is deterministic."""
    time_law: str | None = None
    """Training times of flow: uniform or logit-normal."""
    reflow: int = 0
    """Rounds of reflow after training (flow): each trains on with couplings that the model made."""
    information: bool = False
    """Measure the mutual information of series and label inside the sampling scan; trains with --class-dropout 0.1
    where nothing else is said."""
    scaling: str | None = None
    """Scale of packet sizes: quantile, class_quantile (one for each class; not with --information) or linear."""
    prediction: str | None = None
    """What the network predicts in ddpm and vp: epsilon or v."""
    clip_x0: bool = True
    """Clip the estimate of the clean series while sampling; without it early steps can overshoot 2000-fold."""
    guidance: float | None = None
    """Weight of classifier-free guidance; 1 is off, others need --class-dropout."""
    class_dropout: float | None = None
    """Probability of hiding the label in training."""
    epochs: int | None = None
    """Passes over the training flows."""
    steps: int | None = None
    """Optimiser steps; overrides --epochs."""
    batch_size: int | None = None
    """Flows per step over all devices."""
    learning_rate: float | None = None
    """Peak learning rate."""
    ema: float | None = None
    """Decay of the moving average of the parameters that sampling uses; 0 is none."""
    precision: str | None = None
    """Precision of matrix products: float32 or bfloat16."""
    devices: int | None = None
    """Use only the first so many devices."""
    mesh: str | None = None
    """Device mesh, such as data=4,channel=2; default: all devices on data."""
    out: Path | None = None
    """Run folder; default: runs/<experiment>-<dataset>-<time>."""
    resume: bool = False
    """Go on with an interrupted run folder, bit for bit as if it had not been interrupted."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to run as one of several processes."""
    num_processes: int | None = None
    """How many processes take part."""
    process_id: int | None = None
    """Number of this process, from 0."""


CLASS_DROPOUT = 0.1
"""Share of hidden labels where information is measured and nothing else is said (Ho and Salimans 2022: 0.1 to 0.2)."""


def generator_config(options: Options, process: str = "ddpm") -> generate.GeneratorConfig:
    """The preset with the options of the command line laid over it; `process` where they name none."""
    process = options.process or process
    if options.prediction is not None and process in ("edm", "flow"):
        raise ConfigError(f"--prediction is for ddpm and vp; what the network of {process} predicts is fixed")
    if options.reflow < 0 or (options.reflow and process != "flow"):
        raise ConfigError("--reflow takes a number of rounds of at least 0, and is for process flow")
    name = options.preset or ("tiny" if jax.default_backend() == "cpu" else "thesis")
    config = generate.preset(name)

    def over(part: Any, *names: str) -> Any:
        given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
        return dataclasses.replace(part, **given)

    train = over(config.train, "epochs", "steps", "batch_size", "learning_rate", "ema", "class_dropout")
    if options.epochs is not None and options.steps is None:
        train = dataclasses.replace(train, steps=None)
    if options.information and options.class_dropout is None:
        train = dataclasses.replace(train, class_dropout=CLASS_DROPOUT)
    if options.information and not train.class_dropout:
        raise ConfigError("--information needs --class-dropout above 0")
    if options.information:
        scaling.check_one_for_all(options.scaling or config.diffusion.scaling)
    sampling = ("solver", "sampling_steps", "eta", "churn", "time_law")
    return dataclasses.replace(
        config,
        diffusion=dataclasses.replace(
            over(config.diffusion, "scaling", "prediction", "clip_x0", "guidance", *sampling), process=process
        ),
        denoiser=over(config.denoiser, "precision"),
        train=train,
    ).check()
