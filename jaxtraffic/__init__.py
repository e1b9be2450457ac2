"""jaxtraffic: augment, generate, classify and measure packet series in JAX.

Rooms load on first use, so that importing the package is quick and sets nothing up.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = (
    "augment",
    "classify",
    "datasets",
    "errors",
    "evaluate",
    "generate",
    "information",
    "nn",
    "parallel",
    "prng",
    "report",
    "scaling",
    "series",
    "train",
)
_NAMES = {
    "PacketSeries": "series",
    "load": "datasets",
    "read_parquet": "datasets",
    "read_pcap": "datasets",
    "write_parquet": "datasets",
    "write_pcap": "datasets",
}

__all__ = ["__version__", *_ROOMS, *_NAMES]


def __getattr__(name: str) -> Any:
    """Loads a room, or the public name that lives in one, on first use."""
    if name in _ROOMS:
        return importlib.import_module(f"jaxtraffic.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"jaxtraffic.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'jaxtraffic' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
