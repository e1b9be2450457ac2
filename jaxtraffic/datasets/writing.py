"""Sets into other forms: files that other tools read, and simulated files in the true layout of a set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxtraffic.datasets.capture.reader import ACTIVE_TIMEOUT, IDLE_TIMEOUT
from jaxtraffic.datasets.catalogue import describe
from jaxtraffic.datasets.export.pcap import write_pcap
from jaxtraffic.datasets.export.series_packets import CLIENT_NETWORK
from jaxtraffic.datasets.export.tables import write_npz, write_tcbench_parquet
from jaxtraffic.datasets.interchange import write_parquet
from jaxtraffic.datasets.labelled import LabelledFlows
from jaxtraffic.datasets.simulated.marker import MARKER, read_marker, write_marker
from jaxtraffic.datasets.simulated.netflow import simulate_cidds, simulate_netshare, simulate_ugr16
from jaxtraffic.errors import ConfigError, DataError

FORMATS = ("parquet", "tcbench", "npz", "pcap")
"""What `export_flows` writes."""

RECORDS: dict[str, Callable[[Path, int, int], None]] = {
    "netshare": simulate_netshare,
    "ugr16": simulate_ugr16,
    "cidds": simulate_cidds,
}
"""Layouts of flow records, which `read_flow_records` reads -> what writes simulated ones."""

SIMULATION = 1
"""Version of the simulated files; raise it when the same seed gives others."""


def simulate(name: str, folder: str | Path, *, n_flows: int = 2_000, seed: int = 0) -> list[Path]:
    """Writes simulated traffic in the true raw layout of a set, and a marker that says that it is simulated.

    Args:
        name: a key of `DATASETS` or of `RECORDS`.
        folder: where; new, empty, or holding an earlier simulation of the same settings, which is left as it is.
        n_flows: flows, about.
        seed: the same seed gives the same bytes.

    Returns:
        The sources that the reader of the set finds there.

    Raises:
        ConfigError: a format that is never simulated, or a folder that holds something else.
        DataError: the folder cannot be written.
    """
    make, find = _simulator(name)
    folder = Path(folder)
    if make is None:
        raise ConfigError(f"{name} is never simulated; simulate another set and export it")
    if n_flows < 1:
        raise ConfigError(f"n_flows must be at least 1, got {n_flows}")
    settings = {"dataset": name, "version": SIMULATION, "n_flows": n_flows, "seed": seed}
    if folder.is_dir() and any(folder.iterdir()):
        found = read_marker(folder)
        if found is None or "dataset" not in found:
            raise ConfigError(f"{folder} holds something else, or half a simulation; choose a new folder, or remove it")
        if found != {"simulated": True, **settings}:
            old = ", ".join(f"{key} {value}" for key, value in found.items() if key != "simulated")
            raise ConfigError(f"{folder} holds another simulation ({old}); choose a new folder, or remove it")
        return find(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, n_flows, seed)
        write_marker(folder, settings)
    except OSError as error:
        raise DataError(folder, f"cannot be written: {error.strerror or error}", remedy="choose another") from error
    return find(folder)


def _simulator(
    name: str,
) -> tuple[Callable[[Path, int, int], None] | None, Callable[[Path], list[Path]]]:
    """What writes the files of a set or a layout of flow records, and what finds them."""
    if name in RECORDS:
        return RECORDS[name], _files
    dataset = describe(name)
    return dataset.simulate, dataset.find


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)


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
