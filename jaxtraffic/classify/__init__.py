"""Classifiers of packet series: single runs, campaigns of many, and XGBoost.

Names load on first use: judges need the trees alone, not the networks.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "ClassifierConfig": "config",
    "Fitted": "models",
    "RunResult": "config",
    "campaign": "campaigns",
    "load_model": "models",
    "tree_campaign": "tree_runs",
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    """Loads a public name on first use."""
    if name in _NAMES:
        return getattr(importlib.import_module(f"jaxtraffic.classify.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'jaxtraffic.classify' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
