"""A small valid file of every format that is read, and how its copies are damaged."""

import dataclasses
import functools
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.catalogue import DATASETS
from jaxtraffic.datasets.conversion import convert, read_converted
from jaxtraffic.datasets.export.tables import read_npz, write_npz
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.interchange import write_parquet
from jaxtraffic.datasets.netflow.records import read_flow_records
from jaxtraffic.datasets.reading import read_source
from jaxtraffic.datasets.simulated import mirage, tcbench, ucdavis
from jaxtraffic.datasets.writing import RECORDS
from tests.datasets.cesnet.raw_files import write_hdf5
from tests.datasets.damage import (
    TABLE,
    TEXT,
    ZIPPED_TEXT,
    Copies,
    either,
    expanding,
    inside,
    of_gzip,
    of_tar,
    of_xz,
    of_zip,
    packed_tar,
    packed_zip,
)
from tests.datasets.robustness import mutated_copies


@dataclasses.dataclass(frozen=True)
class Format:
    """A format: `make(folder)` writes a file and gives the file that is damaged and the source that is read."""

    make: Callable[[Path], tuple[Path, Path]]
    copies: Copies
    dataset: str | None = None
    read: Callable[[Path], object] | None = None
    """What reads it where it is no set of the catalogue; returns something of a length."""

    def options(self) -> list[ReadOptions]:
        """How a set of the catalogue is asked to read: its own way first."""
        entry = DATASETS[self.dataset]
        return [ReadOptions(entry.length, entry.payload_only)] + [
            ReadOptions(length, payload_only, layer)
            for layer in entry.size_layers
            for length, payload_only in ((entry.length, False), (3, True))
        ]

    def flows(self, source: Path, options: ReadOptions | None) -> int:
        """Reads a source to its end; how many flows or records that were."""
        if self.read is not None:
            return len(self.read(source))
        return len(read_source(DATASETS[self.dataset], source, options))


def simulated(name: str, pattern: str, *, n: int = 12, least: int = 100, source: Callable[[Path], Path] | None = None):
    """The smallest file of a simulated set with such a name; read alone, or as the source that it is a part of."""

    def make(folder: Path) -> tuple[Path, Path]:
        (RECORDS[name] if name in RECORDS else DATASETS[name].simulate)(folder, n, 0)
        files = sorted(folder.rglob(pattern), key=lambda path: (path.stat().st_size, path))
        file = next(path for path in files if path.stat().st_size > least)
        return file, source(file) if source else file

    return make


def made(simulate: Callable[[Path], object], pattern: str):
    """The smallest file of such a name that a function writes; archives keep three of their files."""

    def make(folder: Path) -> tuple[Path, Path]:
        simulate(folder)
        file = min(folder.rglob(pattern), key=lambda path: (path.stat().st_size, path))
        if file.name.endswith(".zip"):
            file.write_bytes(_few_of_zip(file.read_bytes()))
        elif file.name.endswith(".tar.gz"):
            with tarfile.open(file) as archive:
                members = {info.name: archive.extractfile(info).read() for info in archive if info.isreg()}
            file.write_bytes(packed_tar(_smallest(members)))
        return file, file

    return make


def _few_of_zip(data: bytes) -> bytes:
    archive = zipfile.ZipFile(io.BytesIO(data))
    wanted = (".json", ".csv", ".txt", ".zip", ".pcap", ".pcapng")
    members = {info.filename: archive.read(info) for info in archive.infolist() if info.filename.endswith(wanted)}
    return packed_zip(_smallest(members))


def _smallest(members: dict[str, bytes]) -> dict[str, bytes]:
    return dict(sorted(members.items(), key=lambda item: (len(item[1]), item[0]))[:3])


def zipped(name: str, parts: str, archive: str):
    """Files of a simulated set in a zip of that name."""

    def simulate(folder: Path) -> None:
        DATASETS[name].simulate(folder / "whole", 12, 0)
        members = {str(path.relative_to(folder / "whole")): path.read_bytes() for path in folder.rglob(parts)}
        shutil.rmtree(folder / "whole")
        (folder / archive).write_bytes(packed_zip(_smallest(members)))

    return made(simulate, archive)


def _hdf5(folder: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    ppi = np.zeros((6, 3, 30), np.int16)
    ppi[:, 1, :9] = rng.choice([-1, 1], (6, 9))
    ppi[:, ::2, :9] = rng.integers(0, 1400, (6, 2, 9))
    path = write_hdf5(folder / "CESNET-QUIC22-XS.h5", {"D20221031": (ppi, [3, 13, 3, 13, 3, 23])})
    return path, path


def _series(folder: Path):
    source = simulated("cesnet_quic", "*.csv.gz")(folder / "raw")[0]
    return read_source(DATASETS["cesnet_quic"], source, ReadOptions())


def _own_file(write: Callable, name: str):
    def make(folder: Path) -> tuple[Path, Path]:
        write(_series(folder), folder / name)
        return folder / name, folder / name

    return make


def _write_theirs(table, path: Path) -> None:
    write_parquet(table.flows, path)
    names = {"size": "pkts_size", "direction": "pkts_dir", "iat": "pkts_iat", "class_name": "app"}
    pl.read_parquet(path).select(list(names)).rename(names).write_parquet(path)


def _ipfixprobe(folder: Path) -> tuple[Path, Path]:
    from tests.datasets.test_ipfixprobe import EMPTY, HEADER, ROW

    path = folder / "flows.csv"
    path.write_text("\n".join([HEADER, ROW, EMPTY, ROW, ""]))
    return path, path


def _nfstream_parquet(folder: Path) -> tuple[Path, Path]:
    text = simulated("nfstream", "flows.csv", n=4)(folder / "csv")[0]
    lists = [pl.col(name).str.json_decode(pl.List(pl.Int64)) for name in ("splt_direction", "splt_ps", "splt_piat_ms")]
    pl.read_csv(text).with_columns(lists).write_parquet(folder / "flows.parquet")
    return folder / "flows.parquet", folder / "flows.parquet"


def _capture(pattern: str, table: str | None = None):
    """A small capture; with a table of labels beside it, which is what is damaged then."""

    def make(folder: Path) -> tuple[Path, Path]:
        file = simulated("pcap", pattern)(folder / "all")[0]
        for other in [path for path in (folder / "all").rglob("*") if path.is_file() and path != file]:
            other.unlink()
        if table is None:
            return file, file
        rows = [{"capture": file.name, "label": "web"}, {"capture": "other.pcap", "label": "mail"}]
        text = json.dumps({row["capture"]: row["label"] for row in rows}) if table.endswith("json") else ""
        lines = ["file,label", *(f"{row['capture']},{row['label']}" for row in rows), ""]
        (file.parent / table).write_text(text or "\n".join(lines))
        return file.parent / table, file

    return make


def _converted(name: str):
    def make(folder: Path) -> tuple[Path, Path]:
        source = simulated("cesnet_quic", "*.csv.gz")(folder / "raw")[0]
        convert(DATASETS["cesnet_quic"], source, folder / "out", options=ReadOptions(), workers=1)
        return next((folder / "out").glob(name)), folder / "out"

    return make


_TCBENCH = [(dataset, generation) for dataset in tcbench.SETS for generation in ("v1", "dev")]

FORMATS: dict[str, Format] = {
    "cesnet_quic.csv.gz": Format(
        simulated("cesnet_quic", "*.csv.gz"), either(mutated_copies, inside(of_gzip, TEXT)), "cesnet_quic"
    ),
    "cesnet_tls.csv.gz": Format(
        simulated("cesnet_tls", "*.csv.gz"), either(mutated_copies, inside(of_gzip, TEXT)), "cesnet_tls"
    ),
    "cesnet_tls_year.csv.xz": Format(
        simulated("cesnet_tls_year", "*.csv.xz"), either(mutated_copies, inside(of_xz, TEXT)), "cesnet_tls_year"
    ),
    "cesnet.h5": Format(_hdf5, mutated_copies, "cesnet_quic"),
    "mirage19.json": Format(simulated("mirage19", "*.json"), TEXT, "mirage19"),
    "mirage19.tar.gz": Format(
        made(lambda folder: mirage.simulate_mirage19(folder, 12, 0, packed=True), "*.tar.gz"),
        either(mutated_copies, inside(of_gzip, mutated_copies), inside(of_tar, TEXT)),
        "mirage19",
    ),
    "mirage22.zip": Format(
        made(lambda folder: DATASETS["mirage22"].simulate(folder, 12, 0), "*.zip"), ZIPPED_TEXT, "mirage22"
    ),
    "mirage22.zip of zips": Format(
        made(lambda folder: mirage.simulate_mirage22(folder, 12, 0, packed=True), "*.zip"),
        either(mutated_copies, inside(of_zip, mutated_copies), inside(of_zip, inside(of_zip, TEXT))),
        "mirage22",
    ),
    "utmobilenet21.csv": Format(simulated("utmobilenet21", "*.csv"), TEXT, "utmobilenet21"),
    "utmobilenet21.zip": Format(zipped("utmobilenet21", "*.csv", "UTMobileNet2021.zip"), ZIPPED_TEXT, "utmobilenet21"),
    "ucdavis19.txt": Format(simulated("ucdavis19", "*.txt", source=lambda path: path.parent), TEXT, "ucdavis19"),
    "ucdavis19.zip": Format(
        made(lambda folder: ucdavis.simulate(folder, 12, 0, packed=True), "pretraining*.zip"), ZIPPED_TEXT, "ucdavis19"
    ),
    "appclassnet x.npy": Format(simulated("appclassnet", "train_x.npy"), mutated_copies, "appclassnet"),
    "appclassnet y.npy": Format(
        simulated("appclassnet", "train_y.npy", source=lambda path: path.with_name("train_x.npy")),
        mutated_copies,
        "appclassnet",
    ),
    "unsw24.pcapng": Format(simulated("unsw24", "*.pcapng", least=1_500), mutated_copies, "unsw24"),
    "iscx_vpn.pcap": Format(simulated("iscx_vpn", "vpn_*.pcap", n=30, least=1_500), mutated_copies, "iscx_vpn"),
    "iscx_vpn.zip": Format(
        zipped("iscx_vpn", "*.pcap*", "VPN-PCAPS-01.zip"),
        either(mutated_copies, inside(of_zip, mutated_copies)),
        "iscx_vpn",
    ),
    "pcap.pcap": Format(_capture("*.pcap"), mutated_copies, "pcap"),
    "pcap.pcapng": Format(_capture("*.pcapng"), mutated_copies, "pcap"),
    "pcap.pcap.gz": Format(_capture("*.pcap.gz"), either(mutated_copies, inside(of_gzip, mutated_copies)), "pcap"),
    "pcap labels.csv": Format(_capture("*.pcap", "labels.csv"), TEXT, "pcap"),
    "pcap labels.json": Format(_capture("*.pcap", "labels.json"), TEXT, "pcap"),
    **{
        f"tcbench {dataset} {generation}": Format(
            made(
                functools.partial(tcbench.simulate, n_flows=12, seed=0, dataset=dataset, generation=generation),
                "*[!s].parquet",
            ),
            TABLE,
            "tcbench",
        )
        for dataset, generation in _TCBENCH
    },
    "nfstream.csv": Format(simulated("nfstream", "flows.csv", n=4), TEXT, "nfstream"),
    "nfstream.parquet": Format(_nfstream_parquet, TABLE, "nfstream"),
    "ipfixprobe.csv": Format(_ipfixprobe, TEXT, "ipfixprobe"),
    "parquet": Format(
        _own_file(lambda table, path: write_parquet(table.flows, path, facts=table.facts), "f.parquet"),
        TABLE,
        "parquet",
    ),
    "parquet of others": Format(_own_file(_write_theirs, "f.parquet"), TABLE, "parquet"),
    "npz": Format(
        _own_file(lambda table, path: write_npz(table.flows, path), "f.npz"),
        either(mutated_copies, inside(of_zip, mutated_copies)),
        read=read_npz,
    ),
    "netshare.csv": Format(simulated("netshare", "*.csv"), TEXT, read=read_flow_records),
    "ugr16.tar.gz": Format(
        simulated("ugr16", "*.tar.gz"), either(mutated_copies, inside(of_tar, TEXT)), read=read_flow_records
    ),
    "cidds.csv": Format(simulated("cidds", "*.csv"), TEXT, read=functools.partial(read_flow_records, bad_rows="drop")),
    "converted manifest": Format(_converted("manifest.json"), TEXT, read=read_converted),
    "converted shard": Format(_converted("shards/*.parquet"), TABLE, read=read_converted),
}
"""Name -> format; those of one set that differ in what holds them stand side by side."""

_COMPRESSED = {
    "cesnet_quic.csv.gz": of_gzip,
    "cesnet_tls_year.csv.xz": of_xz,
    "mirage19.tar.gz": of_tar,
    "mirage22.zip": of_zip,
    "utmobilenet21.zip": of_zip,
    "ucdavis19.zip": of_zip,
    "ugr16.tar.gz": of_tar,
}
EXPANDING: dict[str, Format] = {
    f"{name} that expands": dataclasses.replace(FORMATS[name], copies=inside(take_apart, expanding))
    for name, take_apart in _COMPRESSED.items()
}
"""Small files whose content is large."""
