"""Raw bytes on disk into packet series: reading, curation, splits, conversion, export, and simulated traffic.

NumPy and polars only; jax comes in through `jaxtraffic.series` alone. Names load on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "ClassPartition": "splits.few_shot",
    "DATASETS": "catalogue",
    "Dataset": "dataset",
    "Dropped": "curation",
    "Episodes": "splits.few_shot",
    "FlowRecords": "netflow.records",
    "LabelledFlows": "labelled",
    "OpenSetSplit": "splits.open_set",
    "ReadOptions": "flow_block",
    "Split": "splits.folds",
    "TimeSplit": "splits.time_split",
    "background_classes": "splits.open_set",
    "convert": "conversion",
    "data_root": "roots",
    "describe": "catalogue",
    "drift_periods": "splits.time_split",
    "episode": "splits.few_shot",
    "episodes": "splits.few_shot",
    "export_flows": "writing",
    "find_sources": "loading",
    "from_datazoo": "cesnet.datazoo",
    "from_nfstream": "nfstream",
    "is_stand_in": "catalogue",
    "load": "loading",
    "load_labelled": "loading",
    "load_with_counts": "loading",
    "partition_classes": "splits.few_shot",
    "read_flow_records": "netflow.records",
    "read_npz": "export.tables",
    "read_parquet": "interchange",
    "read_pcap": "loading",
    "read_tcbench_split": "tcbench.tables",
    "reader_options": "loading",
    "scan_shards": "conversion",
    "simulate": "writing",
    "source_bytes": "reading",
    "split": "splits.folds",
    "split_by_time": "splits.time_split",
    "split_open_set": "splits.open_set",
    "stand_in_notice": "catalogue",
    "summarise": "verification",
    "unseen_classes": "splits.time_split",
    "verify": "verification",
    "write_netshare": "netflow.records",
    "write_npz": "export.tables",
    "write_parquet": "interchange",
    "write_pcap": "export.pcap",
    "write_pcap_folder": "export.pcap",
    "write_tcbench_parquet": "export.tables",
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
