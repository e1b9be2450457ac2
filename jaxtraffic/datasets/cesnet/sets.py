"""The three CESNET sets of the catalogue: CESNET-QUIC22, CESNET-TLS22 and CESNET-TLS-Year22.

Each lies on disk as compressed CSV files, one a day, or as an HDF5 file of cesnet-datazoo; day files go first where
both are there.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from jaxtraffic.datasets.cesnet import day_files as cesnet
from jaxtraffic.datasets.cesnet import hdf5 as cesnet_hdf5
from jaxtraffic.datasets.cesnet.day_files import QUIC22, TLS22, TLS_YEAR22, Layout, warn_exporter_change
from jaxtraffic.datasets.curation import NO_DNS
from jaxtraffic.datasets.dataset import Dataset, Published
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions
from jaxtraffic.datasets.simulated import cesnet_quic, cesnet_tls
from jaxtraffic.errors import DataError

log = logging.getLogger("jaxtraffic.datasets")


def find(place: Path, layout: Layout) -> list[Path]:
    """Day files of a set, earliest first; else its smallest HDF5 file, as the larger ones hold the same flows again.

    Args:
        place: a data root, the folder of the set, a week, a day, or a file.
        layout: of the set.

    Raises:
        DataError: nothing but the archive of the set as downloaded.
    """
    if not place.is_dir() and place.name.endswith(".h5"):
        others = [other.title for other in (QUIC22, TLS22, TLS_YEAR22) if other != layout]
        return [] if place.name.startswith(tuple(others)) else [place]
    days = cesnet.find_days(place, layout)
    if days:
        return days
    files = cesnet_hdf5.find_files(place, layout.title)
    if len(files) > 1:
        log.info("%s: the smallest of %d files of %s is read", files[0], len(files), layout.title)
    if not files:
        _refuse_archive(place, layout)
    return files[:1]


def _refuse_archive(place: Path, layout: Layout) -> None:
    name = f"{layout.title}.zip".lower()
    candidates = sorted(place.iterdir()) if place.is_dir() else [place]
    for path in candidates:
        if path.name.lower() == name and path.is_file():
            raise DataError(
                path,
                "the archive as downloaded; its days cannot be read one by one inside it",
                expected=f"{layout.title} unpacked",
                remedy=f"unpack it first: unzip {path.name} (a few days of it are enough)",
            )


def read(path: Path, options: ReadOptions, layout: Layout) -> Iterator[FlowBlock]:
    """Reads a day file or an HDF5 file of a set: see `day_files.read` and `hdf5.read`."""
    if path.name.endswith(".h5"):
        return cesnet_hdf5.read(path, options, layout.title, layout.protocol)
    return cesnet.read(path, options, layout)


def _warn_exporter(facts: pl.DataFrame) -> None:
    if "day" in facts.columns:
        warn_exporter_change(facts["day"].unique().to_list())


CESNET_QUIC22 = Dataset(
    name="cesnet_quic",
    title="CESNET-QUIC22 (QUIC flows of a national research network, first 30 packets)",
    obtain=(
        "download cesnet-quic22.zip from https://zenodo.org/records/10728760 and unpack it into the data root, so that "
        "<data root>/cesnet-quic22/W-2022-44/1_Mon/flows-20221031.csv.gz is there (one day is enough), or put a "
        "CESNET-QUIC22-XS.h5 of cesnet-datazoo into the data root"
    ),
    licence="CC BY 4.0",
    find=functools.partial(find, layout=QUIC22),
    read=functools.partial(read, layout=QUIC22),
    size_layers=("payload",),
    rules=(NO_DNS,),
    published=Published(
        "README of CESNET-QUIC22 (102 applications and 3 background classes)",
        flows=153_226_273,
        classes=105,
        complete=False,
    ),
    days=1,
    stand_in=cesnet_quic.simulate_cesnet,
    simulate=cesnet_quic.simulate,
)
"""28 days from 31 October 2022; https://doi.org/10.1016/j.dib.2023.108888."""

CESNET_TLS22 = Dataset(
    name="cesnet_tls",
    title="CESNET-TLS22 (TLS flows of a national research network, first 30 packets, two weeks of 2021)",
    obtain=(
        "put CESNET-TLS22-XS.h5 of cesnet-datazoo (https://github.com/CESNET/cesnet-datazoo) into the data root, or "
        "download CESNET-TLS22 from https://zenodo.org/records/7965515 and unpack it into <data root>/CESNET-TLS22"
    ),
    licence="CC BY 4.0",
    find=functools.partial(find, layout=TLS22),
    read=functools.partial(read, layout=TLS22),
    size_layers=("payload",),
    rules=(NO_DNS,),
    published=Published("README of CESNET-TLS22", flows=141_392_195, classes=191, complete=False),
    days=1,
    simulate=cesnet_tls.simulate_tls22,
)
"""4 to 17 October 2021, no push flags and no packet histograms."""

CESNET_TLS_YEAR22 = Dataset(
    name="cesnet_tls_year",
    title="CESNET-TLS-Year22 (TLS flows of a national research network, first 30 packets, the year 2022)",
    obtain=(
        "download CESNET-TLS-Year22.zip from https://zenodo.org/records/10608607 and unpack it into the data root, so "
        "that <data root>/CESNET-TLS-Year22/WEEK-2022-18/2022-05-08/flows-20220508.csv.xz is there (one day is "
        "enough), or put a CESNET-TLS-Year22-XS.h5 of cesnet-datazoo into the data root"
    ),
    licence="CC BY 4.0",
    find=functools.partial(find, layout=TLS_YEAR22),
    read=functools.partial(read, layout=TLS_YEAR22),
    size_layers=("payload",),
    rules=(NO_DNS,),
    published=Published("README of CESNET-TLS-Year22", flows=507_739_073, classes=180, complete=False),
    days=1,
    warn=_warn_exporter,
    simulate=cesnet_tls.simulate_year22,
)
"""2022 but for 28 to 30 January, 12 and 13 December, and 29 to 31 December; see `day_files.EXPORTER_CHANGE`."""
