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
    "FlowRecords": "netflow.records",
    "LabelledFlows": "labelled",
    "ReadOptions": "flow_block",
    "ClassPartition": "splits.few_shot",
    "Episodes": "splits.few_shot",
    "OpenSetSplit": "splits.open_set",
    "Split": "splits.folds",
    "TimeSplit": "splits.time_split",
    "background_classes": "splits.open_set",
    "convert": "conversion",
    "data_root": "roots",
    "drift_periods": "splits.time_split",
    "episode": "splits.few_shot",
    "episodes": "splits.few_shot",
    "export_flows": "writing",
    "find_sources": "loading",
    "is_stand_in": "catalogue",
    "load": "loading",
    "load_labelled": "loading",
    "load_with_counts": "loading",
    "partition_classes": "splits.few_shot",
    "read_flow_records": "netflow.records",
    "read_parquet": "interchange",
    "reader_options": "loading",
    "scan_shards": "conversion",
    "simulate": "writing",
    "source_bytes": "reading",
    "split": "splits.folds",
    "split_by_time": "splits.time_split",
    "split_open_set": "splits.open_set",
    "unseen_classes": "splits.time_split",
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
