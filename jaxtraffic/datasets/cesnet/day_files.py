"""The CSV files of CESNET-QUIC22, CESNET-TLS22 and CESNET-TLS-Year22: one compressed file a day, read by column name.

Layouts and columns are those of the sets' README files (Zenodo records 10728760, 7965515 and 10608607; Luxemburk et
al., Data in Brief 2023, doi 10.1016/j.dib.2023.108888). Sizes are bytes of UDP or TCP payload, times milliseconds, at
most 30 packets a flow; the exporter leaves TCP packets without payload out. The CSV layout of CESNET-TLS22 is not
published: what is read of it is what the other two have in common.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets import csv_blocks
from jaxtraffic.datasets.cesnet.ppi import FIELDS, parse_ppi
from jaxtraffic.datasets.cesnet.utc_times import epoch_seconds
from jaxtraffic.datasets.curation import is_dns_name
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, check_layer, make_block
from jaxtraffic.datasets.ragged import REMEDY, Ragged
from jaxtraffic.errors import DataError

log = logging.getLogger("jaxtraffic.datasets")

DNS_PORTS = (53, 853)
"""DNS, and DNS over QUIC or TLS (RFC 9250, RFC 7858)."""

MAX_THREADS = 8
"""Blocks parsed at a time, each of `csv_blocks.BLOCK_BYTES` of text."""

EMPTY_DAYS = "day files without a byte"
"""Rule under which a day file of zero bytes after decompression is counted as left out."""

EXPORTER_CHANGE = datetime.date(2022, 3, 7)
"""First day of the week (the tenth, until 13 March) in which the flow exporter behind CESNET-TLS-Year22 was replaced.

Packet sequences from before differ from those after it: a split in time should not mix the two sides.
"""

_REQUIRED = ("PPI", "APP")
_PORTS = {"SRC_PORT": "client_port", "DST_PORT": "server_port"}
_OPTIONAL = ("PPI_LEN", "CATEGORY", *_PORTS, "PROTOCOL", "TIME_FIRST", "PACKETS", "PACKETS_REV")
_DAY = re.compile(r"flows-(\d{4})(\d\d)(\d\d)\.csv\.(gz|xz)")
_EPOCH = datetime.date(1970, 1, 1)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What tells the sets apart on disk.

    Attributes:
        title: name of the set; its folder, its archive and its HDF5 files are called so.
        folders: patterns of the folders that hold day files, below the folder of the set.
        endings: compression of the day files, "gz" or "xz".
        year: of the recording: all sets call their files flows-YYYYMMDD.
        lists: how many lists a PPI cell holds.
        protocol: 6 TCP or 17 UDP, where no column says it.
    """

    title: str
    folders: tuple[str, ...]
    endings: tuple[str, ...]
    year: int
    lists: tuple[int, ...]
    protocol: int

    def owns(self, name: str) -> bool:
        """Whether a day file of this name belongs to the set."""
        match = _DAY.fullmatch(name)
        return match is not None and match[4] in self.endings and int(match[1]) == self.year


QUIC22 = Layout("CESNET-QUIC22", ("W-*/*",), ("gz",), 2022, (3,), 17)
TLS22 = Layout("CESNET-TLS22", ("W-*/*", "W-*"), ("gz", "xz"), 2021, (3, 4), 6)
TLS_YEAR22 = Layout("CESNET-TLS-Year22", ("WEEK-*/*",), ("xz",), 2022, (4,), 6)


def find_days(place: Path, layout: Layout = QUIC22) -> list[Path]:
    """Day files at a place, earliest first.

    Args:
        place: a data root (holding the folder of the set), that folder, a week, a day, or a file. A file is taken as it
            is, readable or not, unless its name is that of another set's day. A place that does not exist holds
            nothing.
        layout: of the set.
    """
    if not place.is_dir():
        if layout.owns(place.name):
            return [place]
        known = place.name.endswith(tuple(f".csv.{ending}" for ending in layout.endings))
        return [place] if known and not _DAY.fullmatch(place.name) else []
    own = own_folders(place, layout.title)
    for folder in (*own, place):
        for pattern in (*layout.folders, *(() if folder in own else ("*", "."))):
            days = [path for path in folder.glob(f"{pattern}/flows-*.csv.*") if layout.owns(path.name)]
            if days:
                return sorted(days, key=lambda path: (path.name, path))
    return []


def own_folders(place: Path, title: str) -> list[Path]:
    """Folders of a place that are called as the set, in upper or lower case.

    Raises:
        DataError: a place that cannot be read.
    """
    try:
        return sorted(child for child in place.iterdir() if child.name.lower() == title.lower() and child.is_dir())
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise DataError(place, problem, expected="a readable folder", remedy="check the path") from error


def day_number(name: str) -> int | None:
    """Days since 1970 of the day in a name such as flows-20221031.csv.gz or D20221031; None where there is none.

    The files are cut at local midnight and the times in them are UTC, so that the first flows of a day carry the date
    of the day before: the day of a recording is never taken from a time.
    """
    match = re.search(r"(?:flows-|\AD)(\d{4})(\d\d)(\d\d)", name)
    try:
        return (datetime.date(*map(int, match.groups())) - _EPOCH).days if match else None
    except ValueError:
        return None


def warn_exporter_change(days: Iterable[int | None]) -> bool:
    """Warns where flows of CESNET-TLS-Year22 from before and from after the change of the exporter come together.

    Args:
        days: days since 1970, as in the fact "day"; None is passed over.

    Returns:
        Whether it warned.
    """
    known = {int(day) for day in days if day is not None}
    change = (EXPORTER_CHANGE - _EPOCH).days
    mixed = bool(known) and min(known) < change <= max(known)
    if mixed:
        log.warning(
            "CESNET-TLS-Year22: days from before and from after the week of %s are read together, in which the flow "
            "exporter was replaced; their packet sequences differ, so compare within weeks 1 to 9 or 11 to 52",
            EXPORTER_CHANGE,
        )
    return mixed


def read(path: Path, options: ReadOptions, layout: Layout = QUIC22) -> Iterator[FlowBlock]:
    """Reads a day file block by block, parsing in threads.

    A file of zero bytes after decompression is a day without recording (CESNET publishes such days): it gives one block
    without flows that counts it as left out, and a warning.

    Args:
        path: a day file.
        options: of the reading.
        layout: of the set.

    Raises:
        ConfigError: sizes of the IP layer are asked for.
        DataError: a file that cannot be read whole and right.
    """
    check_layer(options, ("payload",), layout.title)
    try:
        yield from _read_blocks(path, options, layout)
    except DataError as error:
        if error.row is None and error.field is None:
            raise
        # A damaged stream decompresses to rubbish before its checksum is reached: say that, and not what the rubbish
        # looks like.
        for _ in csv_blocks.decompress(path):
            pass
        raise


def _read_blocks(path: Path, options: ReadOptions, layout: Layout) -> Iterator[FlowBlock]:
    nonzero_start, has_header, has_flows = 0, False, False
    for block, n_late in _parsed_blocks(path, options, layout):
        has_header = True
        if len(block):
            has_flows = True
            nonzero_start += n_late
            yield block
    if not has_header:
        log.warning("%s: zero bytes after decompression, day skipped", path)
        nothing = Ragged(np.zeros(0, np.int64), *(np.zeros(0, np.int32) for _ in range(3)))
        label = pl.Series("label", [], dtype=pl.String)
        yield make_block(nothing, label, {}, options, path, FIELDS, size_layer="payload", dropped={EMPTY_DAYS: 1})
    elif not has_flows:
        raise DataError(path, "no flows: a header and nothing else", remedy=csv_blocks.FETCH_AGAIN)
    if nonzero_start:
        log.warning("%s: inter-packet time of the first packet was not 0 in %d flow(s); set to 0", path, nonzero_start)


def _parsed_blocks(path: Path, options: ReadOptions, layout: Layout) -> Iterator[tuple[FlowBlock, int]]:
    """Parses blocks in threads (polars and zlib leave the interpreter alone meanwhile) and yields them in order."""
    blocks = csv_blocks.row_blocks(path)
    first = next(blocks, None)
    if first is None:
        return
    names, first = csv_blocks.read_header(first, path)
    wanted = _wanted_columns(names, path, layout)

    def parse(block: bytes, first_row: int = 1) -> tuple[FlowBlock, int]:
        frame = csv_blocks.parse_rows(block, names, wanted, path, first_row=first_row)
        return _convert(frame, path, first_row, options, layout)

    # one more than cores: at any time some of them wait for the interpreter
    n_threads = min(MAX_THREADS, (os.cpu_count() or 1) + 1)
    rows = 0
    with ThreadPoolExecutor(n_threads, "jaxtraffic-parse") as pool:
        waiting: deque[tuple[bytes, Future[tuple[FlowBlock, int]]]] = deque()
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
            rows += len(result[0])
            yield result


def _wanted_columns(names: list[str], path: Path, layout: Layout) -> list[str]:
    for name in _REQUIRED:
        if name not in names:
            raise DataError(
                path,
                "missing column",
                field=name,
                expected=f"a header with {' and '.join(_REQUIRED)} (it names {', '.join(names[:8])}, ...)",
                remedy=f"give a day file of {layout.title}",
            )
    return [name for name in (*_REQUIRED, *_OPTIONAL) if name in names]


def _convert(
    frame: pl.DataFrame, path: Path, first_row: int, options: ReadOptions, layout: Layout
) -> tuple[FlowBlock, int]:
    """Judges the rows of a block; also counts the flows whose first inter-packet time was not 0."""
    for name in _REQUIRED:
        _refuse_nulls(frame[name], "empty", path, first_row, "a value in every row")
    facts: dict[str, object] = {}
    for name, fact in _PORTS.items():
        if name in frame.columns:
            facts[fact] = _whole_numbers(frame[name], pl.UInt16, path, first_row, "a whole number from 0 to 65535")
    stated = None
    if "PPI_LEN" in frame.columns:
        stated = _whole_numbers(frame["PPI_LEN"], pl.Int64, path, first_row, "a whole number").to_numpy()
    packets = parse_ppi(frame["PPI"], path, first_row=first_row, lists=layout.lists)
    facts |= _facts(frame, layout) | {"day": day_number(path.name)}
    facts["is_dns"] = is_dns(frame, [facts[fact] for fact in _PORTS.values() if fact in facts])
    block = make_block(
        packets,
        frame["APP"],
        facts,
        options,
        path,
        FIELDS,
        size_layer="payload",
        first_row=first_row,
        iat_per_second=1000,
    )
    if stated is not None and (stated != packets.counts).any():
        row = int(np.argmax(stated != packets.counts))
        raise DataError(
            path,
            f"PPI_LEN is {stated[row]}, PPI holds {packets.counts[row]} packets",
            row=first_row + row,
            field="PPI_LEN",
            expected="the number of packets in PPI",
            remedy=REMEDY,
        )
    counts = packets.counts[packets.counts > 0]
    return block, int(np.count_nonzero(packets.iat[np.cumsum(counts) - counts]))


def _facts(frame: pl.DataFrame, layout: Layout) -> dict[str, object]:
    """Facts in columns that nothing else depends on: what cannot be understood is null."""
    facts: dict[str, object] = {
        "protocol": layout.protocol,
        "is_background": frame["APP"].str.ends_with("-background"),
    }
    if "PROTOCOL" in frame.columns:
        facts["protocol"] = frame["PROTOCOL"].cast(pl.UInt8, strict=False)
    if "CATEGORY" in frame.columns:
        facts["category"] = frame["CATEGORY"]
    if "TIME_FIRST" in frame.columns:
        facts["start"] = epoch_seconds(frame["TIME_FIRST"])
    if {"PACKETS", "PACKETS_REV"} <= set(frame.columns):
        facts["packets"] = sum(
            frame[name].cast(pl.UInt32, strict=False).cast(pl.Int64) for name in ("PACKETS", "PACKETS_REV")
        )
    return facts


def is_dns(frame: pl.DataFrame, ports: Sequence[pl.Series]) -> np.ndarray:
    """[flow] bool: DNS by port, or by the name in APP or CATEGORY."""
    found = np.zeros(frame.height, bool)
    for port in ports:
        numbers = port.to_numpy()
        for number in DNS_PORTS:
            found |= numbers == number
    for name in ("APP", "CATEGORY"):
        if name in frame.columns:
            dns = [value for value in frame[name].drop_nulls().unique().to_list() if is_dns_name(value)]
            if dns:
                found |= frame[name].is_in(dns).fill_null(False).to_numpy()
    return found


def _whole_numbers(column: pl.Series, dtype: type[pl.DataType], path: Path, first_row: int, expected: str) -> pl.Series:
    numbers = column.cast(dtype, strict=False)
    _refuse_nulls(numbers, "not a number", path, first_row, expected, text=column)
    return numbers


def _refuse_nulls(
    column: pl.Series, problem: str, path: Path, first_row: int, expected: str, *, text: pl.Series | None = None
) -> None:
    wrong = column.is_null()
    if column.dtype == pl.String:
        # an empty quoted cell is an empty text, an empty bare one a null; a blank PPI is refused by its parser
        wrong |= (column if column.name == "PPI" else column.str.strip_chars()) == ""
    if not wrong.any():
        return
    row = int(np.argmax(wrong.to_numpy()))
    if text is not None and text[row] is not None:
        problem = f"{text[row]!r} is {problem}"
    raise DataError(path, problem, row=first_row + row, field=column.name, expected=expected, remedy=REMEDY)
