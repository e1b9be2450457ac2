"""CESNET-QUIC22 as published: one `flows-YYYYMMDD.csv.gz` a day, read by column name in bounded memory.

Layout and columns are those of the data set's README (Zenodo record 10728760; Luxemburk et al., Data in Brief 2023,
doi 10.1016/j.dib.2023.108888). Sizes are UDP payload bytes, times milliseconds, at most 30 packets a flow.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets import csv_blocks
from jaxtraffic.datasets.curation import is_dns_name
from jaxtraffic.datasets.labels import LabelIndex
from jaxtraffic.datasets.ppi import FIELDS, MAX_PACKETS, parse_ppi
from jaxtraffic.datasets.ragged import REMEDY, check_values, pad
from jaxtraffic.errors import DataError
from jaxtraffic.series import PacketSeries

log = logging.getLogger("jaxtraffic.datasets")

DNS_PORTS = (53, 853)
"""DNS, and DNS over QUIC (RFC 9250)."""

MAX_THREADS = 8
"""Blocks parsed at a time, each of `csv_blocks.BLOCK_BYTES` of text."""

_REQUIRED = ("PPI", "APP")
_OPTIONAL = ("PPI_LEN", "CATEGORY", "SRC_PORT", "DST_PORT")
_WHOLE_NUMBERS = ("PPI_LEN", "SRC_PORT", "DST_PORT")
_DAY = re.compile(r"flows-(\d{8})\.csv\.gz")


@dataclasses.dataclass(frozen=True)
class _Block:
    """Flows of a block of rows; nonzero_start counts flows whose first inter-packet time was not 0."""

    app: pl.Series
    size: np.ndarray
    direction: np.ndarray
    iat: np.ndarray
    is_dns: np.ndarray
    nonzero_start: int


def find_days(folder: Path) -> list[Path]:
    """Day files under a folder, earliest first.

    The folder may be a data root (holding `cesnet-quic22`), `cesnet-quic22` itself, a week or a day.

    Args:
        folder: where to look; a folder that does not exist holds nothing.
    """
    layouts = ("cesnet-quic22/W-*/*", "W-*/*", "*", ".")
    for layout in layouts:
        days = [path for path in folder.glob(f"{layout}/flows-*.csv.gz") if _DAY.fullmatch(path.name)]
        if days:
            return sorted(days, key=lambda path: (path.name, path))
    return []


def read_days(paths: Sequence[Path], *, days: int = 1) -> tuple[PacketSeries, np.ndarray]:
    """Reads the first `days` day files that hold anything.

    A file of zero bytes after decompression is a day without recording (CESNET publishes such days): it is skipped
    with a warning where another day is at hand.

    Args:
        paths: day files, in the order in which they are wanted.
        days: how many days to read; all of `paths` where there are fewer.

    Returns:
        The flows, labelled by APP in alphabetical order, and is_dns [flow] bool.

    Raises:
        DataError: a file that cannot be read whole and right, or no day with flows.
    """
    labels = LabelIndex()
    parts: list[tuple[np.ndarray, ...]] = []
    read, empty = 0, []
    for path in paths:
        if read == days:
            break
        part = _read_day(path, labels)
        if part:
            parts += part
            read += 1
        else:
            empty.append(path)
    if not read:
        raise DataError(
            empty[0] if empty else "CESNET-QUIC22",
            "no flows: zero bytes after decompression",
            expected="a header and one row for each flow",
            remedy="choose another day, or fetch the file again",
        )
    for path in empty:
        log.warning("%s: zero bytes after decompression, day skipped (%d of %d)", path, len(empty), read + len(empty))
    if read < days:
        log.warning("%d day(s) asked for, %d found and read", days, read)
    label, names = labels.finish()
    columns = list(zip(*parts, strict=True))
    size, direction, iat, is_dns = (np.concatenate(columns.pop(0)) for _ in range(4))
    flows = PacketSeries(
        size, direction, iat, label, class_names=names, name="cesnet_quic", size_layer="payload", source="real"
    )
    return flows.check(), is_dns


def read_day(path: str | Path) -> tuple[PacketSeries, np.ndarray]:
    """Reads one day file: see `read_days`."""
    return read_days([Path(path)])


def _read_day(path: Path, labels: LabelIndex) -> list[tuple[np.ndarray, ...]]:
    """Padded (size, direction, iat, is_dns) blocks of a day; none where the file holds zero bytes."""
    try:
        return _read_blocks(path, labels)
    except DataError as error:
        if error.row is None and error.field is None:
            raise
        # A damaged stream decompresses to rubbish before its checksum is reached: say that, and not what the rubbish
        # looks like.
        for _ in csv_blocks.decompress(path):
            pass
        raise


def _read_blocks(path: Path, labels: LabelIndex) -> list[tuple[np.ndarray, ...]]:
    parts: list[tuple[np.ndarray, ...]] = []
    nonzero_start, has_header = 0, False
    for block in _parsed_blocks(path):
        has_header = True
        if len(block.app):
            labels.add(block.app)
            parts.append((block.size, block.direction, block.iat, block.is_dns))
            nonzero_start += block.nonzero_start
    if has_header and not parts:
        raise DataError(path, "no flows: a header and nothing else", remedy=csv_blocks.FETCH_AGAIN)
    if nonzero_start:
        log.warning("%s: inter-packet time of the first packet was not 0 in %d flow(s); set to 0", path, nonzero_start)
    return parts


def _parsed_blocks(path: Path) -> Iterator[_Block]:
    """Parses blocks in threads (polars and zlib leave the interpreter alone meanwhile) and yields them in order."""
    blocks = csv_blocks.row_blocks(path)
    first = next(blocks, None)
    if first is None:
        return
    names, first = csv_blocks.read_header(first, path)
    wanted = _wanted_columns(names, path)

    def parse(block: bytes, first_row: int = 1) -> _Block:
        return _convert(csv_blocks.parse_rows(block, names, wanted, path, first_row=first_row), path, first_row)

    n_threads = min(MAX_THREADS, os.cpu_count() or 1)
    rows = 0
    with ThreadPoolExecutor(n_threads, "jaxtraffic-parse") as pool:
        waiting: deque[tuple[bytes, Future[_Block]]] = deque()
        for block in itertools.chain([first], blocks, itertools.repeat(b"", n_threads)):
            waiting.append((block, pool.submit(parse, block)))
            if len(waiting) <= n_threads:
                continue
            block, future = waiting.popleft()
            try:
                result = future.result()
            except DataError:
                # only now is it known how many rows came before; the same error again, with the right row
                parse(block, rows + 1)
                raise
            rows += len(result.app)
            yield result


def _wanted_columns(names: list[str], path: Path) -> list[str]:
    for name in _REQUIRED:
        if name not in names:
            raise DataError(
                path,
                "missing column",
                field=name,
                expected=f"a header with {' and '.join(_REQUIRED)} (it names {', '.join(names[:8])}, ...)",
                remedy="give a day file of CESNET-QUIC22",
            )
    return [name for name in (*_REQUIRED, *_OPTIONAL) if name in names]


def _convert(frame: pl.DataFrame, path: Path, first_row: int) -> _Block:
    """Judges and pads the rows of a block."""
    for name in _REQUIRED:
        _refuse_nulls(frame[name], "empty", path, first_row, "a value in every row")
    numbers = {}
    for name in _WHOLE_NUMBERS:
        if name in frame.columns:
            numbers[name] = frame[name].cast(pl.Int64, strict=False)
            _refuse_nulls(numbers[name], "not a number", path, first_row, "a whole number", text=frame[name])
    block = parse_ppi(frame["PPI"], path, first_row=first_row)
    check_values(block, path, FIELDS, first_row=first_row)
    if "PPI_LEN" in numbers:
        stated = numbers["PPI_LEN"].to_numpy()
        if (stated != block.counts).any():
            row = int(np.argmax(stated != block.counts))
            raise DataError(
                path,
                f"PPI_LEN is {stated[row]}, PPI holds {block.counts[row]} packets",
                row=first_row + row,
                field="PPI_LEN",
                expected="the number of packets in PPI",
                remedy=REMEDY,
            )
    is_dns = np.zeros(frame.height, bool)
    for name in ("SRC_PORT", "DST_PORT"):
        if name in numbers:
            is_dns |= numbers[name].is_in(DNS_PORTS).to_numpy()
    for name in ("APP", "CATEGORY"):
        if name in frame.columns:
            dns = [value for value in frame[name].drop_nulls().unique().to_list() if is_dns_name(value)]
            is_dns |= frame[name].is_in(dns).fill_null(False).to_numpy()
    counts = block.counts[block.counts > 0]
    nonzero_start = int(np.count_nonzero(block.iat[np.cumsum(counts) - counts]))
    return _Block(frame["APP"], *pad(block, MAX_PACKETS, iat_per_second=1000), is_dns, nonzero_start)


def _refuse_nulls(
    column: pl.Series, problem: str, path: Path, first_row: int, expected: str, *, text: pl.Series | None = None
) -> None:
    # an empty quoted cell is an empty text, an empty bare one a null
    wrong = column.is_null() if column.dtype != pl.String else column.is_null() | (column.str.strip_chars() == "")
    if not wrong.any():
        return
    row = int(np.argmax(wrong.to_numpy()))
    if text is not None and text[row] is not None:
        problem = f"{text[row]!r} is {problem}"
    raise DataError(path, problem, row=first_row + row, field=column.name, expected=expected, remedy=REMEDY)
