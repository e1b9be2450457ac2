"""Data sets by name."""

from __future__ import annotations

from jaxtraffic.datasets.appclassnet import APPCLASSNET
from jaxtraffic.datasets.capture.sets import ISCX_VPN, PCAP, UNSW24
from jaxtraffic.datasets.cesnet.sets import CESNET_QUIC22, CESNET_TLS22, CESNET_TLS_YEAR22
from jaxtraffic.datasets.dataset import Dataset
from jaxtraffic.datasets.ipfixprobe import IPFIXPROBE
from jaxtraffic.datasets.mirage.sets import MIRAGE19, MIRAGE22
from jaxtraffic.datasets.nfstream import NFSTREAM
from jaxtraffic.datasets.parquet_set import PARQUET
from jaxtraffic.datasets.tcbench.tables import TCBENCH
from jaxtraffic.datasets.ucdavis import UCDAVIS19
from jaxtraffic.datasets.utmobilenet import UTMOBILENET21
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        *(CESNET_QUIC22, CESNET_TLS22, CESNET_TLS_YEAR22, MIRAGE19, MIRAGE22, UTMOBILENET21, UCDAVIS19, APPCLASSNET),
        *(UNSW24, ISCX_VPN, PCAP, TCBENCH, NFSTREAM, IPFIXPROBE, PARQUET),
    )
}
"""Name -> data set: the published sets first, then formats of one's own."""


def describe(name: str) -> Dataset:
    """The catalogue's entry of a name.

    Raises:
        ConfigError: no such name.
    """
    if name not in DATASETS:
        raise ConfigError(f"unknown dataset {name!r}; choose from: {', '.join(DATASETS)}")
    return DATASETS[name]


def stand_in_notice(name: str) -> str:
    """What a screen or report says when it shows simulated files in place of a data set.

    Raises:
        ConfigError: no such name, or a format that is never simulated.
    """
    dataset = describe(name)
    if dataset.simulate is None:
        raise ConfigError(f"{name} has no simulated stand-in")
    return (
        f"Data: a simulated stand-in for {dataset.title}; its figures say nothing about real traffic. "
        f"For the real data: {dataset.obtain}"
    )


def is_stand_in(name: str, flows: PacketSeries) -> bool:
    """Whether flows loaded under a name are simulated in place of a published set."""
    return flows.source == "simulated" and name in DATASETS and DATASETS[name].simulate is not None
