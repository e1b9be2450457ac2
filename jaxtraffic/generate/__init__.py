"""Generators: schedules, objectives, one sampling scan with observers, and the model zoo."""

from jaxtraffic.generate.config import (
    PRESETS,
    DiffusionConfig,
    GeneratorConfig,
    preset,
)
from jaxtraffic.generate.marginals import marginals
from jaxtraffic.generate.model import DataCard, Generator, load_run
from jaxtraffic.generate.sampler import Observer
from jaxtraffic.generate.schedules import Schedule, make_schedule

__all__ = [
    "PRESETS",
    "DataCard",
    "DiffusionConfig",
    "Generator",
    "GeneratorConfig",
    "Observer",
    "Schedule",
    "load_run",
    "make_schedule",
    "marginals",
    "preset",
]
