"""Data sets by name: where their files are looked for, how the real ones are got, and what is curated away."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxtraffic.datasets import cesnet, cesnet_hdf5
from jaxtraffic.datasets.curation import Dropped, check_tier, curate, subsample
from jaxtraffic.datasets.interchange import read_parquet
from jaxtraffic.datasets.roots import ENVIRONMENT
from jaxtraffic.datasets.roots import data_root as resolve_root
from jaxtraffic.datasets.simulated.cesnet_quic import is_simulated, simulate_cesnet
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.series import PacketSeries

log = logging.getLogger("jaxtraffic.datasets")

Labelled = tuple[PacketSeries, np.ndarray | None]
"""Flows as read, and is_dns [flow] where DNS flows are to be dropped."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What a reader is asked for: the options of `load` that concern files."""

    root: Path
    path: Path | None
    group: str | None
    real: bool
    days: int


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An entry of the catalogue.

    Attributes:
        title: one line of what it is.
        size_layer: "ip", "payload", or "as the file says".
        obtain: how a user gets the real data, and where they belong.
        min_packets: packets a flow needs, where the user does not say.
        min_flows: flows a class needs, where the user does not say; None: 500, or 200 in sets under 100,000 flows.
        stand_in: whether a simulated stand-in takes the place of files that are not there.
        read: reads the flows.
    """

    title: str
    size_layer: str
    obtain: str
    min_packets: int
    min_flows: int | None
    stand_in: bool
    read: Callable[[Request], Labelled]


def load(
    name: str,
    *,
    data_root: str | Path | None = None,
    path: str | Path | None = None,
    tier: str = "all",
    max_flows: int | None = None,
    seed: int = 0,
    group: str | None = None,
    real: bool = False,
    min_packets: int | None = None,
    min_flows: int | None = None,
    days: int = 1,
) -> PacketSeries:
    """Loads a data set, curated: see `load_with_counts`, which also says what was dropped."""
    return load_with_counts(
        name,
        data_root=data_root,
        path=path,
        tier=tier,
        max_flows=max_flows,
        seed=seed,
        group=group,
        real=real,
        min_packets=min_packets,
        min_flows=min_flows,
        days=days,
    )[0]


def load_with_counts(
    name: str,
    *,
    data_root: str | Path | None = None,
    path: str | Path | None = None,
    tier: str = "all",
    max_flows: int | None = None,
    seed: int = 0,
    group: str | None = None,
    real: bool = False,
    min_packets: int | None = None,
    min_flows: int | None = None,
    days: int = 1,
) -> tuple[PacketSeries, list[Dropped]]:
    """Loads a data set, curated, with what each rule of curation dropped.

    "cesnet_quic" reads day files, else HDF5, below the data root; where neither is there and `real` is False, a
    simulated stand-in is made in the data root and the flows say source "simulated". "parquet" reads the file at
    `path`.

    Args:
        name: a key of `DATASETS`.
        data_root: folder of the data sets; None: $JAXTRAFFIC_DATA, else the user's cache folder.
        path: a file or folder to read in place of the usual ones; needed by "parquet".
        tier: "all", or "50" for the 50 most popular classes.
        max_flows: a stratified draw of so many flows after curation; None: all.
        seed: of that draw (a stand-in is the same for every seed).
        group: "parquet": column whose values say which flows belong together, so that folds keep them on one side.
        real: refuse a simulated stand-in.
        min_packets: packets a flow needs; None: as the data set says.
        min_flows: flows a class needs; None: as the data set says.
        days: "cesnet_quic": days to read, earliest first.

    Returns:
        Flows whose classes are ordered by popularity, ties by name, and one entry for each rule applied.

    Raises:
        ConfigError: an unknown name or tier, an option that does not fit, or rules that leave no flow.
        DataError: files that are not there or cannot be read whole and right.
    """
    dataset = describe(name)
    check_tier(tier)
    for option, value in (
        ("max_flows", max_flows),
        ("min_packets", min_packets),
        ("min_flows", min_flows),
        ("days", days),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{option} must be at least 1, got {value}")
    request = Request(
        root=resolve_root(data_root), path=None if path is None else Path(path), group=group, real=real, days=days
    )
    flows, is_dns = dataset.read(request)
    flows, dropped = curate(
        flows,
        is_dns=is_dns,
        min_packets=dataset.min_packets if min_packets is None else min_packets,
        min_flows=dataset.min_flows if min_flows is None else min_flows,
        tier=tier,
    )
    if max_flows is not None:
        flows, drawn = subsample(flows, max_flows, seed=seed)
        dropped.append(drawn)
    return flows, dropped


def describe(name: str) -> Dataset:
    """The catalogue's entry of a name.

    Raises:
        ConfigError: no such name.
    """
    if name not in DATASETS:
        raise ConfigError(f"unknown dataset {name!r}; choose from: {', '.join(DATASETS)}")
    return DATASETS[name]


def stand_in_notice(name: str) -> str:
    """What a screen or report says when it shows the simulated stand-in of a data set.

    Raises:
        ConfigError: no such name, or a data set that is never simulated.
    """
    dataset = describe(name)
    if not dataset.stand_in:
        raise ConfigError(f"{name} has no simulated stand-in")
    return (
        f"Data: a simulated stand-in for {dataset.title}; its figures say nothing about real traffic. "
        f"For the real data: {dataset.obtain}"
    )


def _read_cesnet(request: Request) -> Labelled:
    if request.group is not None:
        raise ConfigError("cesnet_quic has no column to group by; leave group out")
    place = request.path if request.path is not None else request.root
    if request.path is not None and not (place.is_dir() or place.name.endswith((".csv.gz", ".h5"))):
        raise DataError(
            place, "neither a folder nor a .csv.gz or .h5 file", remedy=f"give files of CESNET-QUIC22; {_OBTAIN_CESNET}"
        )
    found = _find_cesnet(place)
    if not found and (request.path is not None or request.real):
        raise DataError(
            place,
            "no files of CESNET-QUIC22",
            expected="cesnet-quic22/W-*/*/flows-*.csv.gz or CESNET-QUIC22*.h5 below it",
            remedy=_OBTAIN_CESNET,
        )
    if not found:
        log.warning("%s", stand_in_notice("cesnet_quic"))
        found = cesnet.find_days(simulate_cesnet(request.root))
    simulated = is_simulated(found[0])
    if simulated and request.real:
        raise DataError(found[0], "simulated, but real data were asked for", remedy=_OBTAIN_CESNET)
    if found[0].suffix == ".h5":
        flows, is_dns = cesnet_hdf5.read_hdf5(found[0], days=request.days)
    else:
        flows, is_dns = cesnet.read_days(found, days=request.days)
    return flows.replace(source="simulated") if simulated else flows, is_dns


def _find_cesnet(place: Path) -> list[Path]:
    """Day files, else HDF5 files; a file is itself, readable or not."""
    if not place.is_dir():
        return [place] if place.name.endswith((".csv.gz", ".h5")) else []
    return cesnet.find_days(place) or cesnet_hdf5.find_files(place)


def _read_parquet(request: Request) -> Labelled:
    if request.path is None:
        raise ConfigError("the dataset parquet needs a path: the parquet file to read")
    # DNS is a class like any other in a set that somebody labelled on purpose
    return read_parquet(request.path, group=request.group), None


_OBTAIN_CESNET = (
    "download cesnet-quic22.zip from https://zenodo.org/records/10728760 and unpack it into the data root, so that "
    "<data root>/cesnet-quic22/W-2022-44/1_Mon/flows-20221031.csv.gz is there (one day is enough), or put a "
    "CESNET-QUIC22-XS.h5 of cesnet-datazoo into the data root; the data root is --data-root or the environment "
    f"variable {ENVIRONMENT}"
)

DATASETS: dict[str, Dataset] = {
    "cesnet_quic": Dataset(
        title="CESNET-QUIC22 (QUIC flows of a national research network, first 30 packets)",
        size_layer="payload",
        obtain=_OBTAIN_CESNET,
        min_packets=1,
        min_flows=None,
        stand_in=True,
        read=_read_cesnet,
    ),
    "parquet": Dataset(
        title="labelled flows of your own in a parquet file",
        size_layer="as the file says, else ip",
        obtain="write a file with the columns size, direction, iat and label, or app, pkts_size, pkts_dir and pkts_iat",
        min_packets=10,
        min_flows=10,
        stand_in=False,
        read=_read_parquet,
    ),
}
"""Name -> data set."""
