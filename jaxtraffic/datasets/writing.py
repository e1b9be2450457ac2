"""Sets into other forms: files that other tools read, and simulated files in the true layout of a set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxtraffic.datasets.capture.reader import ACTIVE_TIMEOUT, IDLE_TIMEOUT
from jaxtraffic.datasets.catalogue import describe
from jaxtraffic.datasets.export.pcap import write_pcap
from jaxtraffic.datasets.export.series_packets import CLIENT_NETWORK
from jaxtraffic.datasets.export.tables import write_npz, write_tcbench_parquet
from jaxtraffic.datasets.interchange import write_parquet
from jaxtraffic.datasets.labelled import LabelledFlows
from jaxtraffic.datasets.simulated.marker import read_marker, write_marker
from jaxtraffic.errors import ConfigError, DataError

FORMATS = ("parquet", "tcbench", "npz", "pcap")
"""What `export_flows` writes."""

SIMULATION = 1
"""Version of the simulated files; raise it when the same seed gives others."""


def simulate(name: str, folder: str | Path, *, n_flows: int = 2_000, seed: int = 0) -> list[Path]:
    """Writes simulated traffic in the true raw layout of a set, and a marker that says that it is simulated.

    Args:
        name: a key of `DATASETS`.
        folder: where; new, empty, or holding an earlier simulation of the same settings, which is left as it is.
        n_flows: flows, about.
        seed: the same seed gives the same bytes.

    Returns:
        The sources that the reader of the set finds there.

    Raises:
        ConfigError: a format that is never simulated, or a folder that holds something else.
        DataError: the folder cannot be written.
    """
    dataset = describe(name)
    folder = Path(folder)
    if dataset.simulate is None:
        raise ConfigError(f"{name} is never simulated; simulate another set and export it")
    if n_flows < 1:
        raise ConfigError(f"n_flows must be at least 1, got {n_flows}")
    settings = {"dataset": name, "version": SIMULATION, "n_flows": n_flows, "seed": seed}
    if folder.is_dir() and any(folder.iterdir()):
        if read_marker(folder) != {"simulated": True, **settings}:
            raise ConfigError(f"{folder} holds something else; choose a new folder")
        return dataset.find(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        dataset.simulate(folder, n_flows, seed)
        write_marker(folder, settings)
    except OSError as error:
        raise DataError(folder, f"cannot be written: {error.strerror or error}", remedy="choose another") from error
    return dataset.find(folder)


def export_flows(
    table: LabelledFlows,
    path: str | Path,
    form: str,
    *,
    transport: str | None = None,
    handshake: bool = False,
    impossible: str = "error",
) -> list[str]:
    """Writes flows in a form that other tools read.

    Args:
        table: flows with their facts.
        path: the file.
        form: one of `FORMATS`.
        transport: "pcap": "tcp" or "udp"; None: as the fact "protocol" says of each flow, TCP where it says nothing.
        handshake: "pcap": put a TCP handshake before each flow.
        impossible: "pcap": refuse flows that no capture can hold ("error"), or leave them out ("drop").

    Returns:
        Lines that a user should read.

    Raises:
        ConfigError: an unknown form, or flows that cannot be written in it.
        DataError: the file cannot be written.
    """
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r}; choose from: {', '.join(FORMATS)}")
    if form == "parquet":
        write_parquet(table.flows, path, facts=table.facts)
    elif form == "tcbench":
        write_tcbench_parquet(table.flows, path)
    elif form == "npz":
        write_npz(table.flows, path)
    else:
        return _export_pcap(table, Path(path), transport, handshake=handshake, impossible=impossible)
    return []


def _export_pcap(
    table: LabelledFlows, path: Path, transport: str | None, *, handshake: bool, impossible: str
) -> list[str]:
    if transport is None and "protocol" in table.facts.columns:
        by_flow = np.where((table.facts["protocol"] == 17).fill_null(False).to_numpy(), "udp", "tcp")
    else:
        by_flow = transport or "tcp"
    labels = path.with_name(f"{path.name.partition('.')[0]}.labels.csv")
    done = write_pcap(table.flows, path, transport=by_flow, handshake=handshake, impossible=impossible, labels=labels)
    notes = [f"{number:,} flows left out: {reason}" for reason, number in done.dropped.items()]
    idle, active = (float(f"{1.1 * seconds + 1:.3g}") for seconds in (done.longest_pause, done.longest_flow))
    notes.append(
        f"read it back: python -m jaxtraffic data head pcap --path {path} --label {labels} --reader "
        f"idle_timeout={max(idle, IDLE_TIMEOUT):g} active_timeout={max(active, ACTIVE_TIMEOUT):g} "
        f"client_network={CLIENT_NETWORK[4]}"
    )
    return notes
