"""UCDAVIS19, the "QUIC dataset" of UC Davis: five Google services, one text file a flow.

Rezaei and Liu, "How to Achieve High Classification Accuracy with Just a Few Labels" (arXiv 1812.09761). Three zips, or
the folders in them, `<partition>/<class>/<name>.txt`, of tab-separated rows WITHOUT a header: time (seconds since
1970), seconds since the first packet, size, direction (1 upload, 0 download). tcbench's development version reads them
as if they had a header, which eats the first packet of each flow, and keeps times as float32, whose spacing is 128 s
there. Here every row is a packet and times are float64. Inter-arrival times come from the first column: the second has
six significant digits only. Packets that are out of order of time are put in order and counted.

Not settled by any source: the layer of the sizes. tcbench's schema says "excluding headers", so that they are taken as
payload; no size over 1412 was seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from jaxtraffic.datasets.csv_blocks import FETCH_AGAIN
from jaxtraffic.datasets.dataset import Dataset, Published
from jaxtraffic.datasets.documents import documents
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, check_layer, make_block
from jaxtraffic.datasets.ragged import MAX_SIZE, REMEDY, Fields, Ragged, locate, starts_of
from jaxtraffic.datasets.simulated.ucdavis import CLASSES, FOLDERS, simulate
from jaxtraffic.errors import DataError

BLOCK_BYTES = 8 << 20
"""Text parsed at a time; a file is never split."""

MAX_FILE_BYTES = 64 << 20
MAX_PACKETS = 1 << 22
"""A file of one flow is at most so large."""

BLOCK_FILES = 2_048

DISORDER = "packets out of order of time, put in order"

COLUMNS = ("time", "relative time", "size", "direction")
"""What the columns hold; the files do not name them."""

_UDP = 17
_EXPECTED = "4 fields separated by tabs: time, seconds since the first packet, size, direction; no header"


class _File(NamedTuple):
    """A file of one flow: where it stands for messages, its names, its text."""

    where: str
    capture: str
    partition: str
    label: str
    text: bytes


def find(place: Path) -> list[Path]:
    """Sources of the set: the class folders of each partition, or a partition's zip where it is not unpacked.

    Args:
        place: a data root, the folder of the set, of a partition or of a class, a text file or a zip.
    """
    if place.is_file():
        return [place] if _is_archive(place) or _is_flow(place) else []
    if _is_class(place):
        return [place]
    for depth in range(4):
        folders = [path for path in place.glob("*/" * depth + "*/*") if _is_class(path)]
        if not folders and partition_of(place.absolute().name):
            folders = [path for path in place.glob("*/" * depth + "*") if _is_class(path)]
        zips = [path for path in place.glob("*/" * depth + "*.zip") if _is_archive(path)]
        # stand-ins lie apart and are not mixed in
        folders, zips = ([path for path in those if not _is_apart(path, place)] for those in (folders, zips))
        unpacked = {partition_of(path.parent.name) for path in folders}
        packed = {partition_of(path.name): path for path in sorted(zips)}
        found = [*folders, *(path for partition, path in packed.items() if partition not in unpacked)]
        if found:
            return sorted(found)
    return []


def partition_of(name: str) -> str | None:
    """pretraining, human or script, as the name of a folder or of a zip says; None where it says neither."""
    return next((partition for partition, folder in FOLDERS.items() if name.startswith(folder)), None)


def _is_apart(path: Path, place: Path) -> bool:
    return "simulated" in path.relative_to(place).parts


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(".zip") and partition_of(path.name) is not None and path.is_file()


def _is_class(path: Path) -> bool:
    path = path.absolute()
    return path.name in CLASSES and partition_of(path.parent.name) is not None and path.is_dir()


def _is_flow(path: Path) -> bool:
    return path.name.endswith(".txt") and not path.name.startswith(".") and _is_class(path.absolute().parent)


def read(path: Path, options: ReadOptions) -> Iterator[FlowBlock]:
    """Yields the flows of a class folder, of a zip or of a file, in blocks of about 8 MB of text.

    Raises:
        DataError: a file that cannot be read whole and right, or no file of the set.
        ConfigError: sizes of another layer are asked for.
    """
    check_layer(options, UCDAVIS19.size_layers, UCDAVIS19.title)
    batch: list[_File] = []
    held, empty = 0, True
    for file in _files(path):
        batch.append(file)
        held += len(file.text)
        empty = False
        if held >= BLOCK_BYTES or len(batch) == BLOCK_FILES:
            yield _block(batch, options)
            batch, held = [], 0
    if empty:
        raise DataError(
            path,
            "no flow of UCDAVIS19 in it",
            expected=f"text files in folders such as 'pretraining/{CLASSES[0]}'",
            remedy=FETCH_AGAIN,
        )
    if batch:
        yield _block(batch, options)


def _files(path: Path) -> Iterator[_File]:
    above = path.absolute().parts if path.is_dir() else path.absolute().parent.parts
    for document in documents(path, (".txt",)):
        parts = (*above, *document.name.parts)
        partition = next((found for part in reversed(parts[:-2]) if (found := partition_of(part))), None)
        # an archive packed on a Mac holds a shadow `._name` of every file
        if partition is None or parts[-2] not in CLASSES or parts[-1].startswith("."):
            continue
        text = document.stream.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise DataError(document.where, f"over {MAX_FILE_BYTES} bytes", expected="a file of one flow")
        if text.count(b"\n") > MAX_PACKETS:
            raise DataError(document.where, f"over {MAX_PACKETS} packets", expected="a file of one flow")
        text = text.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"
        if not text.strip():
            raise DataError(document.where, "empty file", expected="a row for each packet", remedy=FETCH_AGAIN)
        capture = "/".join((FOLDERS[partition], *parts[-2:])).encode("utf-8", "replace").decode("utf-8")
        yield _File(document.where, capture, partition, parts[-2], text)


def _block(batch: list[_File], options: ReadOptions) -> FlowBlock:
    counts = np.array([file.text.count(b"\n") for file in batch], np.int64)
    time, size, direction = _columns(batch, counts)
    first = starts_of(counts)
    gap = np.diff(time, prepend=time[:1])
    gap[first] = 0.0
    dropped: Counter[str] = Counter()
    if (gap < 0).any():
        dropped[DISORDER] = int(np.count_nonzero(gap < 0))
        flow = np.repeat(np.arange(counts.size), counts)
        order = np.lexsort((time, flow))
        time, size, direction = time[order], size[order], direction[order]
        gap = np.diff(time, prepend=time[:1])
        gap[first] = 0.0
    return make_block(
        Ragged(counts, size, 2 * direction.astype(np.int8) - 1, gap),
        pl.Series("label", [file.label for file in batch], dtype=pl.String),
        {
            "start": time[first],
            "capture": [file.capture for file in batch],
            "partition": [file.partition for file in batch],
            "protocol": _UDP,
        },
        options,
        batch[0].where,
        Fields("size", "direction", "time", "seconds"),
        size_layer="payload",
        dropped=dict(dropped),
    )


def _columns(batch: list[_File], counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[packet] time float64, size and direction (1 or 0) int64 of all files, end to end."""
    text = b"".join(file.text for file in batch)
    fields = [file.text.count(b"\t") for file in batch] != (3 * counts).tolist()
    if fields or not text.isascii():
        _refuse_row(batch)
    try:
        # without quotes: a quote is no part of this format, and would join rows
        frame = pl.read_csv(
            text, has_header=False, separator="\t", quote_char=None, new_columns=list(COLUMNS), infer_schema=False
        )
    except pl.exceptions.PolarsError:
        frame = None
    if frame is None or frame.shape != (int(counts.sum()), len(COLUMNS)):
        _refuse_row(batch)
        raise DataError(batch[0].where, "cannot be parsed", expected=_EXPECTED, remedy=FETCH_AGAIN)
    numbers = frame.select(pl.all().cast(pl.Float64, strict=False).fill_null(np.nan)).to_dict()
    time, relative, size, direction = (numbers[name].to_numpy() for name in COLUMNS)
    whole = np.isfinite(size) & (np.where(np.isfinite(size), size, 0.5) % 1 == 0)
    rules = (
        ("time", ~((time >= 0) & (time < 1e11)), "seconds since 1970"),
        ("relative time", ~np.isfinite(relative), "seconds since the first packet"),
        ("size", ~(whole & (size >= 0) & (size <= MAX_SIZE)), f"whole bytes from 0 to {MAX_SIZE}"),
        ("direction", ~((direction == 0) | (direction == 1)), "1 (upload) or 0 (download)"),
    )
    for name, wrong, expected in rules:
        if wrong.any():
            at = int(np.argmax(wrong))
            flow, packet = locate(counts, at)
            value = (frame[name][at] or "")[:60]
            raise DataError(
                batch[flow].where,
                f"{value!r} is not right",
                row=packet + 1,
                field=name,
                expected=expected,
                remedy=REMEDY,
            )
    return time, size.astype(np.int64), direction.astype(np.int64)


def _refuse_row(batch: list[_File]) -> None:
    """Raises DataError for the first row that has not four fields of plain text, if there is one."""
    for file in batch:
        for row, line in enumerate(file.text.split(b"\n")[:-1], 1):
            fields = line.count(b"\t") + 1
            if fields != len(COLUMNS):
                problem = f"{fields} field(s)" if line.strip() else "empty row"
                raise DataError(file.where, problem, row=row, expected=_EXPECTED, remedy=FETCH_AGAIN)
            if not line.isascii():
                raise DataError(file.where, "not plain text", row=row, expected=_EXPECTED, remedy=FETCH_AGAIN)


UCDAVIS19 = Dataset(
    name="ucdavis19",
    title="UCDAVIS19 (QUIC flows of 5 Google services, captured by scripts and by people, whole flows)",
    obtain="download pretraining.zip, Retraining(human-triggered).zip and Retraining(script-triggered).zip from Google "
    "Drive, folder 1Pvev0hJ82usPh6dWDlz7Lv8L6h3JpWhE, and put them, as they are or unpacked, into the folder ucdavis19 "
    "of the data root",
    licence="CC BY 4.0",
    find=find,
    read=read,
    size_layers=("payload",),
    # the authors cleaned the set before they published it, and no paper curates it further
    min_packets=1,
    min_flows=1,
    published=Published(
        "tcbench, samples count (Finamore et al., IMC 2023)",
        files=6672,
        flows=6672,
        classes=5,
        flows_per_class={
            "Google Doc": 1266,
            "Google Drive": 1682,
            "Google Music": 637,
            "Google Search": 1960,
            "Youtube": 1127,
        },
        flows_per_partition={"pretraining": 6439, "human": 83, "script": 150},
    ),
    simulate=simulate,
)
"""UCDAVIS19."""
