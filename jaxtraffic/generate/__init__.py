"""Generators: processes (DDPM, VP, EDM, flow) with solvers as data and one sampling scan; models over tokens."""

from jaxtraffic.generate.card import DataCard
from jaxtraffic.generate.config import (
    PRESETS,
    DiffusionConfig,
    GeneratorConfig,
    preset,
)
from jaxtraffic.generate.marginals import marginals
from jaxtraffic.generate.masked_config import MaskedConfig
from jaxtraffic.generate.masked_model import MaskedGenerator
from jaxtraffic.generate.mi_tune import TuneConfig, tune_with_information
from jaxtraffic.generate.model import Generator
from jaxtraffic.generate.prefix_information import generator_information
from jaxtraffic.generate.process import Process
from jaxtraffic.generate.processes import make_process
from jaxtraffic.generate.rounds import load_run
from jaxtraffic.generate.sampler import Observer, Plan
from jaxtraffic.generate.schedules import Schedule, make_schedule
from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.generate.token_model import TokenGenerator
from jaxtraffic.generate.token_runs import fit as fit_tokens

__all__ = [
    "PRESETS",
    "DataCard",
    "DiffusionConfig",
    "Generator",
    "GeneratorConfig",
    "MaskedConfig",
    "MaskedGenerator",
    "Observer",
    "Plan",
    "Process",
    "Schedule",
    "TokenConfig",
    "TokenGenerator",
    "TuneConfig",
    "fit_tokens",
    "generator_information",
    "load_run",
    "make_process",
    "make_schedule",
    "marginals",
    "preset",
    "tune_with_information",
]
