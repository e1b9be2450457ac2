"""A small valid file of every format that is read, and what takes it apart so that damage reaches the inner parsers."""

import dataclasses
import functools
import gzip
import io
import itertools
import json
import lzma
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
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
from tests.datasets.robustness import mutated_copies

Copies = Callable[[bytes, int, int], Iterator[bytes]]

TOKENS = (
    *(b"null", b"true", b"{}", b"[]", b"[[1]]", b"-1", b"0", b"1e999", b"-1e999", b"NaN", b"0.5", b"40000", b"1e18"),
    *(b"9" * 30, b"9" * 5000, b'""', b'"x"', b'"\\ud800"', b'"\xf0\x9f\x92\xa9"', b"\xff\xfe", b"\x00", b"\n", b",", b'"'),
    *(b"../../../etc/passwd", b"__import__('os').system('true')", b"[" * 100_000, b'{"a":' * 50_000, b"y" * 100_000),
)
"""What stands in the place of a word or a number: wrong types, absurd values, deep nesting, text that is none."""

_WORD = re.compile(rb'-?\d+(?:\.\d+)?|"[^"\n]{0,200}"|[A-Za-z_.]+')


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


def hostile_words(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    """Copies of a text in which one to three words or numbers are something else."""
    rng = np.random.default_rng(seed)
    spans = [match.span() for match in _WORD.finditer(data)]
    for _ in range(n):
        copy = data
        for at in sorted(rng.choice(len(spans), int(rng.integers(1, 4)))[:3], reverse=True):
            start, end = spans[at]
            copy = copy[:start] + TOKENS[int(rng.integers(0, len(TOKENS)))] + copy[end:]
        yield copy


def either(*kinds: Copies) -> Copies:
    """Copies of each kind in turn."""

    def copies(data: bytes, n: int, seed: int) -> Iterator[bytes]:
        made = [kind(data, -(-n // len(kinds)), seed + index) for index, kind in enumerate(kinds)]
        return itertools.islice((copy for several in zip(*made) for copy in several), n)

    return copies


def inside(take_apart: Callable[[bytes], tuple[bytes, Callable[[bytes], bytes]]], inner: Copies) -> Copies:
    """Copies whose damage lies within a wrapping that is whole: take_apart gives the content, and what wraps it."""

    def copies(data: bytes, n: int, seed: int) -> Iterator[bytes]:
        content, wrap = take_apart(data)
        return map(wrap, inner(content, n, seed))

    return copies


def of_gzip(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """A gzip file."""
    return gzip.decompress(data), functools.partial(gzip.compress, compresslevel=1)


def of_xz(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """An xz file."""
    return lzma.decompress(data), functools.partial(lzma.compress, preset=0)


def of_zip(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The first file of a zip."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    first = next(iter(members))
    return members[first], lambda content: packed_zip(members | {first: content})


def of_tar(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The first file of a tar.gz."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {info.name: archive.extractfile(info).read() for info in archive if info.isreg()}
    first = next(iter(members))
    return members[first], lambda content: packed_tar(members | {first: content})


def packed_zip(members: dict[str, bytes]) -> bytes:
    """A zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def packed_tar(members: dict[str, bytes]) -> bytes:
    """A tar.gz."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def wrong_tables(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    """Parquet whose bytes are whole and whose values are wrong: types, nulls, lengths of lists, sizes, times."""
    rng = np.random.default_rng(seed)
    metadata = {
        key: value for key, value in pl.read_parquet_metadata(io.BytesIO(data)).items() if not key.startswith("ARROW")
    }
    frame = pl.read_parquet(io.BytesIO(data))
    for _ in range(n):
        copy = frame
        for _ in range(int(rng.integers(1, 3))):
            copy = _wrong_table(copy, rng)
        out = io.BytesIO()
        try:
            copy.write_parquet(out, metadata=_wrong_metadata(metadata, rng), compression="uncompressed")
        except pl.exceptions.PolarsError:
            # no parquet type for it
            out = io.BytesIO(data)
        yield out.getvalue()


def _wrong_table(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    if not frame.width:
        return frame
    names = [name for name in frame.columns if isinstance(frame[name].dtype, pl.List)] or frame.columns
    name = str(rng.choice(names if rng.random() < 0.7 else frame.columns))
    column, row = pl.col(name), pl.int_range(pl.len()) == int(rng.integers(0, max(frame.height, 1)))
    listed = isinstance(frame[name].dtype, pl.List)
    value = [-1, 0, 2, 40_000, 2**31, -(2**63), 2**63 - 1, float("nan"), float("inf"), -0.5, 1e300, None, "x", True]
    value = pl.lit(value[int(rng.integers(0, len(value)))])
    kinds = (
        *(pl.String, pl.Float64, pl.Float32, pl.Int8, pl.UInt64, pl.Boolean, pl.Categorical, pl.Binary, pl.Date),
        *(pl.List(pl.String), pl.List(pl.Float64), pl.List(pl.Boolean), pl.List(pl.List(pl.Int64)), pl.List(pl.Int8)),
        *(pl.Array(pl.Int64, 3), pl.Struct({"a": pl.Int64}), pl.Datetime("ns"), pl.Decimal(10, 2), pl.Null),
    )
    changes = [
        lambda: frame.drop(name),
        lambda: frame.rename({name: str(rng.choice(["size", "label", "app", "pkts_size", "x"]))}),
        lambda: frame.with_columns(column.cast(kinds[int(rng.integers(0, len(kinds)))], strict=False)),
        lambda: frame.with_columns(pl.when(row).then(value).otherwise(column).alias(name)),
        lambda: frame.with_columns(pl.when(row).then(None).otherwise(column).alias(name)),
        lambda: frame.with_columns(value.alias(name)),
        lambda: frame.head(int(rng.integers(0, 3))),
        lambda: pl.concat([frame] * 3),
        lambda: frame.reverse(),
    ]
    if listed:
        changes += 3 * [
            lambda: frame.with_columns(pl.when(row).then(column.list.head(2)).otherwise(column)),
            lambda: frame.with_columns(pl.when(row).then(column.list.concat(value)).otherwise(column)),
            lambda: frame.with_columns(pl.when(row).then(column.list.head(0)).otherwise(column)),
            lambda: frame.with_columns(pl.when(row).then(column.list.eval(pl.element() - 100)).otherwise(column)),
            lambda: frame.with_columns(pl.when(row).then(column.list.eval(pl.lit(None))).otherwise(column)),
            lambda: frame.with_columns(column.list.eval(pl.element() * 1e18)),
        ]
    try:
        return changes[int(rng.integers(0, len(changes)))]()
    except (pl.exceptions.PolarsError, OverflowError, TypeError):
        return frame


def _wrong_metadata(metadata: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
    if not metadata or rng.random() < 0.7:
        return metadata
    key = str(rng.choice(sorted(metadata)))
    text = next(hostile_words(metadata[key].encode(), 1, int(rng.integers(1 << 30)))) if metadata[key] else b""
    return metadata | {key: text.decode(errors="replace")[:100_000]}


def simulated(name: str, pattern: str, *, n: int = 12, source: Callable[[Path], Path] | None = None):
    """The smallest file of a simulated set with such a name; read alone, or as the source that it is a part of."""

    def make(folder: Path) -> tuple[Path, Path]:
        (RECORDS[name] if name in RECORDS else DATASETS[name].simulate)(folder, n, 0)
        files = sorted(folder.rglob(pattern), key=lambda path: (path.stat().st_size, path))
        file = next(path for path in files if path.stat().st_size > 100)
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


TEXT = either(mutated_copies, hostile_words)
TABLE = either(mutated_copies, wrong_tables)
ZIPPED_TEXT = either(mutated_copies, inside(of_zip, TEXT))
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
    "mirage22.zip": Format(made(lambda folder: DATASETS["mirage22"].simulate(folder, 12, 0), "*.zip"), ZIPPED_TEXT, "mirage22"),
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
    "unsw24.pcapng": Format(simulated("unsw24", "*.pcapng"), mutated_copies, "unsw24"),
    "iscx_vpn.pcap": Format(simulated("iscx_vpn", "vpn_*.pcap"), mutated_copies, "iscx_vpn"),
    "iscx_vpn.zip": Format(
        zipped("iscx_vpn", "*.pcap*", "VPN-PCAPS-01.zip"), either(mutated_copies, inside(of_zip, mutated_copies)), "iscx_vpn"
    ),
    "pcap.pcap": Format(_capture("*.pcap"), mutated_copies, "pcap"),
    "pcap.pcapng": Format(_capture("*.pcapng"), mutated_copies, "pcap"),
    "pcap.pcap.gz": Format(_capture("*.pcap.gz"), either(mutated_copies, inside(of_gzip, mutated_copies)), "pcap"),
    "pcap labels.csv": Format(_capture("*.pcap", "labels.csv"), TEXT, "pcap"),
    "pcap labels.json": Format(_capture("*.pcap", "labels.json"), TEXT, "pcap"),
    **{
        f"tcbench {dataset} {generation}": Format(
            made(functools.partial(tcbench.simulate, n_flows=12, seed=0, dataset=dataset, generation=generation), "*[!s].parquet"),
            TABLE,
            "tcbench",
        )
        for dataset, generation in _TCBENCH
    },
    "nfstream.csv": Format(simulated("nfstream", "flows.csv", n=4), TEXT, "nfstream"),
    "nfstream.parquet": Format(_nfstream_parquet, TABLE, "nfstream"),
    "ipfixprobe.csv": Format(_ipfixprobe, TEXT, "ipfixprobe"),
    "parquet": Format(_own_file(lambda table, path: write_parquet(table.flows, path, facts=table.facts), "f.parquet"), TABLE, "parquet"),
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
}  # fmt: skip
"""Name -> format; those of one set that differ in what holds them stand side by side."""
