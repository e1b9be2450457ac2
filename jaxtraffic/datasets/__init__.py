"""Raw bytes on disk into packet series: reading, curation, splits, conversion, export, and simulated traffic.

NumPy and polars only; jax comes in through `jaxtraffic.series` alone. Names load on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "DATASETS": "catalogue",
    "describe": "catalogue",
    "stand_in_notice": "catalogue",
    "Dataset": "dataset",
    "Dropped": "curation",
    "FlowRecords": "netflow",
    "LabelledFlows": "labelled",
    "ReadOptions": "flow_block",
    "ClassPartition": "few_shot",
    "Episodes": "few_shot",
    "OpenSetSplit": "open_set",
    "Split": "folds",
    "TimeSplit": "time_split",
    "background_classes": "open_set",
    "convert": "conversion",
    "data_root": "roots",
    "drift_periods": "time_split",
    "episode": "few_shot",
    "episodes": "few_shot",
    "export": "writing",
    "find_sources": "loading",
    "is_stand_in": "catalogue",
    "load": "loading",
    "load_labelled": "loading",
    "load_with_counts": "loading",
    "partition_classes": "few_shot",
    "read_flow_records": "netflow",
    "read_parquet": "interchange",
    "reader_options": "loading",
    "scan_shards": "conversion",
    "simulate": "writing",
    "source_bytes": "reading",
    "split": "folds",
    "split_by_time": "time_split",
    "split_open_set": "open_set",
    "unseen_classes": "time_split",
    "write_parquet": "interchange",
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    """Loads the room in which a public name lives, on first use."""
    if name in _NAMES:
        return getattr(importlib.import_module(f"jaxtraffic.datasets.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'jaxtraffic.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
