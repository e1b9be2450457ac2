"""The options of data that experiments share: which flows, which fold, and what config.json says of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jaxtraffic import datasets
from jaxtraffic.series import PacketSeries


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Which flows an experiment reads."""

    dataset: str = "cesnet_quic"
    """Data set of the catalogue (python -m jaxtraffic data list), or a parquet file NAME.parquet in the data root."""
    data_root: Path | None = None
    """Folder of the raw data sets; default: the environment variable JAXTRAFFIC_DATA, else the user's cache."""
    path: Path | None = None
    """File or folder to read instead of searching the data root."""
    group: str | None = None
    """Column of a parquet set whose values stay on one side of a fold, such as capture."""
    tier: str = "all"
    """Classes to keep: 50 (the 50 most popular) or all."""
    max_flows: int | None = None
    """Keep at most so many flows, drawn in proportion to the classes."""
    curation: bool = True
    """Apply the set's rules of curation; without it every flow and packet stays."""
    min_packets: int | None = None
    """Drop flows with fewer packets; default: as the set says, 10 for parquet, 1 for cesnet_quic."""
    min_flows: int | None = None
    """Drop classes with fewer flows; default: as the set says, 10 for parquet, 500 (200 if small) for cesnet_quic."""
    days: int | None = None
    """Days to read of a set organised by day, earliest first; default: as the set says, 1 for cesnet_quic."""
    real: bool = False
    """Refuse to run on a simulated stand-in."""
    fold: int = 0
    """Which of the ten folds is the test set."""
    seed: int = 0
    """Seed of folds, parameters, noise and judges."""


def load(options: DataOptions) -> tuple[PacketSeries, list[datasets.Dropped]]:
    """The flows that the options mean, with what curation dropped."""
    return datasets.load_with_counts(
        options.dataset,
        data_root=options.data_root,
        path=options.path,
        tier=options.tier,
        max_flows=options.max_flows,
        seed=options.seed,
        group=options.group,
        real=options.real,
        curated=options.curation,
        min_packets=options.min_packets,
        min_flows=options.min_flows,
        days=options.days,
    )


def data_line(flows: PacketSeries, parts: datasets.Split) -> str:
    """Set, source, flows and the three parts, as one line for the screen."""
    return (
        f"{flows.name} ({flows.source}): {len(flows):,} flows of {len(flows.class_names)} classes; "
        f"train {len(parts.train):,}, validation {len(parts.validation):,}, test {len(parts.test):,}"
    )


def describe_data(
    options: DataOptions, flows: PacketSeries, dropped: list[datasets.Dropped], **parts: PacketSeries
) -> dict[str, Any]:
    """What config.json says of the data.

    Args:
        options: as given.
        flows: all of them.
        dropped: what curation dropped.
        parts: the sides of the split by name, such as train and test.
    """
    stand_in = datasets.is_stand_in(options.dataset, flows)
    return {
        "name": flows.name,
        "source": flows.source,
        "size_layer": flows.size_layer,
        "tier": options.tier,
        "fold": options.fold,
        "group": options.group or ("capture" if flows.group is not None else None),
        "max_flows": options.max_flows,
        "n_flows": len(flows),
        **{f"n_{name}": len(part) for name, part in parts.items()},
        "class_names": list(flows.class_names),
        "class_counts": [int(count) for count in flows.counts()],
        "dropped": [dataclasses.asdict(entry) for entry in dropped],
        "notice": datasets.stand_in_notice(options.dataset) if stand_in else "",
    }
