"""Tables of tcbench (v1 and dev) as packet series, and its splits: see `layout` for which table means what.

Flows keep the order of the file and none is left out, so that the flow at position i of what `read` yields is row i of
`read_row_ids`; tcbench's folds name rows by these ids. Curation renumbers flows: use folds on what `read` yields.

The tables have flaws that nothing can mend here, and reading says so: dev ucdavis19 lacks the first packet of each flow
(its parser takes the first line of files that have no header for one), and its times are float32; epoch times in
float32 are not offered as fact "start". In v1 utmobilenet21 packets of one 5-tuple in several captures are one flow,
and its epoch times were made with the local time of the machine that wrote the table: right in order, perhaps off by
hours. The series of v1 MIRAGE hold no packets without payload.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.curation import NO_BACKGROUND, NO_DNS
from jaxtraffic.datasets.dataset import Dataset
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, check_layer, make_block
from jaxtraffic.datasets.interchange import (
    is_readable,
    list_column,
    parquet_errors,
    parquet_metadata,
    ragged_lists,
    refuse_rows,
)
from jaxtraffic.datasets.ragged import REMEDY, Fields, Ragged, locate, starts_of
from jaxtraffic.datasets.simulated.tcbench import simulate
from jaxtraffic.datasets.tcbench.facts import STARTS, facts_of, wanted_columns
from jaxtraffic.datasets.tcbench.layout import SPLITS, Layout, is_table, layout_of, named_table
from jaxtraffic.errors import ConfigError, DataError

log = logging.getLogger("jaxtraffic.datasets")

BLOCK_ROWS = 4096
"""Flows read at a time, at least."""

BLOCK_PACKETS = 4_000_000
"""Packets read at a time, about; few slices are better, for each decodes what lies before it in its row group."""

MAX_BACKWARDS = 1.0
"""Seconds by which a capture may put a packet before its predecessor; more is no time series."""

_FETCH_AGAIN = "write or fetch the file again"
_NOT_ELAPSED = f"a table of utmobilenet21 holds inter-arrival times there: name the file so; else {REMEDY}"


def find(place: Path) -> list[Path]:
    """Tables of flows in a file or under a folder, in order of their paths.

    Tables of splits and of statistics are passed over, and so are tables that hold the flows of another one that is
    there: what lies in `imc23` beside the unfiltered table, `minpkts1000` beside `minpkts10`, `_postprocess` beside the
    curated one.

    Raises:
        ConfigError: tables of several data sets, or of both generations: they cannot be read as one set.
    """
    if place.is_file():
        # a damaged file is the reader's to refuse, with its reason
        return [place] if place.suffix == ".parquet" and (is_table(place) or not is_readable(place)) else []
    paths = [path for path in sorted(place.rglob("*.parquet")) if path.is_file() and _may_hold_flows(path)]
    # a damaged file that is called like a table is not passed over: the reader refuses it, with its reason
    tables = _without_copies(
        [path for path in paths if is_table(path) or (named_table(path) and not is_readable(path))]
    )
    kinds: dict[tuple[str, str], Path] = {}
    for path in filter(is_readable, tables):
        layout, _ = layout_of(path)
        kinds.setdefault((layout.dataset, layout.generation), path)
    if len(kinds) > 1:
        found = "; ".join(f"{name} ({generation}): {path}" for (name, generation), path in kinds.items())
        raise ConfigError(f"{place} holds tables of tcbench that are no one set: {found}; name one file or folder")
    return tables


def _may_hold_flows(path: Path) -> bool:
    return not path.stem.endswith(("_splits", "_stats"))


def _without_copies(paths: list[Path]) -> list[Path]:
    unfiltered = {path.parent for path in paths if path.parent.name != "imc23"}
    paths = [path for path in paths if path.parent.name != "imc23" or path.parent.parent not in unfiltered]
    longer = [path for path in paths if "minpkts1000" in path.name]
    paths = [
        path
        for path in paths
        if path not in longer or path.with_name(path.name.replace("minpkts1000", "minpkts10")) not in paths
    ]
    curated = [path for path in paths if not path.stem.startswith("_postprocess")]
    return curated or paths


def read(path: Path, options: ReadOptions) -> Iterator[FlowBlock]:
    """Reads a table, in the order of its rows: row i is flow i.

    Args:
        path: a parquet file.
        options: of the reading; size_layer None takes the sizes as they are written.

    Raises:
        DataError: not a table of tcbench, one that could be several, or a row that is no flow.
        ConfigError: a size layer that the table does not hold.
    """
    layout, columns = layout_of(path)
    layer = check_layer(options, tuple(layout.sizes), layout.title)
    fields = layout.fields(layer)
    _warn(layout, columns, path)
    wanted = list(dict.fromkeys([fields.size, fields.direction, fields.iat, "app", *wanted_columns(columns)]))
    for name in (fields.size, fields.direction, fields.iat):
        if name not in columns:
            raise DataError(path, "missing column", field=name, expected=layout.title, remedy=_FETCH_AGAIN)
    # of epoch times of every packet the first is enough
    chosen = [
        pl.col(name).list.first()
        if name in STARTS and name != fields.iat and columns[name] == pl.List
        else pl.col(name)
        for name in wanted
    ]
    first_row, rows = 1, BLOCK_ROWS
    while True:
        with parquet_errors(path):
            scan = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(chosen)
            frame = scan.slice(first_row - 1, rows).collect()
        if not frame.height:
            break
        block, n_packets = _block(frame, layout, layer, options, path, first_row)
        yield block
        first_row += frame.height
        if frame.height < rows:
            break
        rows = min(max(BLOCK_PACKETS * frame.height // max(n_packets, 1), BLOCK_ROWS), 16 * BLOCK_ROWS)
    if first_row == 1:
        raise DataError(path, "no rows", expected="one row for each flow", remedy=_FETCH_AGAIN)


def _warn(layout: Layout, columns: pl.Schema, path: Path) -> None:
    if layout.exported:
        return
    if (layout.dataset, layout.generation) == ("ucdavis19", "dev"):
        log.warning("%s: tcbench dev lost the first packet of every flow of UCDAVIS19; nothing can restore it", path)
        kind = columns.get("pkts_timestamp")
        if isinstance(kind, pl.List) and kind.inner == pl.Float32:
            log.warning("%s: epoch times in float32 are 128 s apart; the start of flows is left unknown", path)
    if (layout.dataset, layout.generation) == ("utmobilenet21", "v1") and "first" in columns:
        log.warning("%s: the start of flows may be off by hours, the same for all (made with local time)", path)


def _block(
    frame: pl.DataFrame, layout: Layout, layer: str, options: ReadOptions, path: Path, first_row: int
) -> tuple[FlowBlock, int]:
    """A block, and how many packets were read for it."""
    fields = layout.fields(layer)
    label = _labels(frame["app"], path, first_row)
    raw = ragged_lists(frame, fields, path, first_row=first_row)
    facts = facts_of(frame, layout, path, first_row)
    packets = Ragged(
        raw.counts,
        _without_headers(raw, layout, layer, facts, path, first_row),
        _directions(raw, layout, path, first_row),
        gaps(raw, path, fields, first_row, remedy=_NOT_ELAPSED) if layout.elapsed else raw.iat,
    )
    block = make_block(
        packets, label, facts, options, path, fields, size_layer=layer, first_row=first_row, source=layout.source
    )
    return block, raw.size.size


def _labels(column: pl.Series, path: Path, first_row: int) -> pl.Series:
    if column.dtype not in (pl.String, pl.Categorical) and not isinstance(column.dtype, pl.Enum):
        raise DataError(path, f"column of {column.dtype}", field="app", expected="names", remedy=_FETCH_AGAIN)
    refuse_rows(column.is_null(), "null", "app", "a class in every row", path, first_row=first_row)
    return column.cast(pl.String)


def _directions(raw: Ragged, layout: Layout, path: Path, first_row: int) -> np.ndarray:
    client = raw.direction == layout.client
    wrong = ~client & (raw.direction != layout.server)
    if wrong.any():
        at = int(np.argmax(wrong))
        row, packet = locate(raw.counts, at)
        raise DataError(
            path,
            f"direction of packet {packet + 1} is {raw.direction[at]}",
            row=first_row + row,
            field=layout.direction,
            expected=f"{layout.client} (client) or {layout.server} (server) in {layout.title}",
            remedy=REMEDY,
        )
    return np.where(client, 1, -1).astype(np.int8)


def _without_headers(
    raw: Ragged, layout: Layout, layer: str, facts: dict[str, object], path: Path, first_row: int
) -> np.ndarray:
    """[packet] sizes of the layer that is asked for."""
    headers = layout.sizes[layer].headers
    if not headers or not raw.size.size:
        return raw.size
    protocol = facts["protocol"]
    known = protocol.is_in([6, 17]).fill_null(False)
    refuse_rows(
        ~known, "neither TCP (6) nor UDP (17)", "protocol", "the protocol of each flow", path, first_row=first_row
    )
    per_flow = protocol.replace_strict(headers, default=0, return_dtype=pl.Int64).to_numpy()
    header = np.repeat(per_flow, raw.counts)
    size = raw.size.astype(np.int64)
    # v1 utmobilenet21 writes 0 where the capture has no length (a fragment)
    short = (size < header) & ~((size == 0) & (layout.generation == "v1"))
    if short.any():
        at = int(np.argmax(short))
        row, packet = locate(raw.counts, at)
        raise DataError(
            path,
            f"size of packet {packet + 1} is {size[at]}, less than the {header[at]} B of headers that it includes",
            row=first_row + row,
            field=layout.sizes[layer].column,
            expected=f"sizes as in {layout.title}",
            remedy=REMEDY,
        )
    return np.maximum(size - header, 0)


def gaps(raw: Ragged, path: Path, fields: Fields, first_row: int, *, remedy: str = REMEDY) -> np.ndarray:
    """[packet] IATs out of times since a fixed moment, which stand in `raw.iat`; 0 for the first packet of a flow.

    A capture may put a packet a little before its predecessor: it then counts as simultaneous.

    Raises:
        DataError: times that run back by more than `MAX_BACKWARDS` seconds.
    """
    time = raw.iat.astype(np.float64)
    if not time.size:
        return time
    gap = _differences(time, raw.counts)
    back = gap < 0
    if not back.any():
        return gap
    lowest = int(np.argmin(np.where(back, gap, 0.0)))
    row, packet = locate(raw.counts, lowest)
    if gap[lowest] < -MAX_BACKWARDS:
        raise DataError(
            path,
            f"time of packet {packet + 1} is {-gap[lowest]:g} s before that of the packet before it",
            row=first_row + row,
            field=fields.iat,
            expected="seconds since the first packet, in order",
            remedy=remedy,
        )
    log.warning("%s: %d packet(s) before their predecessors counted as simultaneous", path, int(back.sum()))
    starts = starts_of(raw.counts)
    for flow in {locate(raw.counts, int(at))[0] for at in np.flatnonzero(back)}:
        part = slice(starts[flow], starts[flow] + raw.counts[flow])
        time[part] = np.maximum.accumulate(time[part])
    return _differences(time, raw.counts)


def _differences(time: np.ndarray, counts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        gap = np.diff(time, prepend=time[:1])
    gap[starts_of(counts)[counts > 0]] = 0.0
    # a first time that is no number would otherwise hide in a flow of one packet
    gap[~np.isfinite(time)] = np.nan
    return gap


def read_row_ids(path: str | Path) -> np.ndarray:
    """[flow] int64, tcbench's `row_id` of each row, in the order in which `read` yields flows.

    Raises:
        DataError: no parquet file, or one without whole numbers in `row_id`.
    """
    path = Path(path)
    column = _column(path, "row_id")
    if not column.dtype.is_integer():
        raise DataError(path, f"column of {column.dtype}", field="row_id", expected="integers", remedy=_FETCH_AGAIN)
    refuse_rows(column.is_null(), "null", "row_id", "a number in every row", path)
    return column.cast(pl.Int64).to_numpy()


def read_tcbench_split(path: str | Path, split_index: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row ids of a split that tcbench published, so that others' folds can be used as they are.

    Flows of a fold are `flows[np.isin(read_row_ids(table), ids)]`, where `flows` is the table before curation, as
    `reading.read_source(TCBENCH, table, ReadOptions()).flows` gives it.

    Args:
        path: such as `mirage19_filtered_minpkts10_splits.parquet`.
        split_index: which split; v1 counts from 0.

    Returns:
        train, validation and test ids, [flow] int64 each. Tables of dev have no validation ids: that array is empty.

    Raises:
        DataError: not a table of splits.
        ConfigError: a split that the table does not have.
    """
    path = Path(path)
    numbers = _column(path, "split_index")
    known = numbers.to_list()
    if split_index not in known:
        raise ConfigError(f"{path} has the splits {known}, not {split_index}")
    row = known.index(split_index)
    ids = []
    with parquet_errors(path):
        names = list(pl.read_parquet_schema(path))
    for name in SPLITS[:3]:
        # dev calls them indices and draws no validation part
        found = next((other for other in (name, name.replace("indexes", "indices")) if other in names), None)
        if found is None and name.startswith("val"):
            ids.append(np.zeros(0, np.int64))
            continue
        column = list_column(_column(path, found or name), path, floats=False)
        ids.append(column[row].cast(pl.Int64).to_numpy())
    return tuple(ids)


def _column(path: Path, name: str) -> pl.Series:
    parquet_metadata(path)
    with parquet_errors(path):
        found = list(pl.read_parquet_schema(path))
    if name not in found:
        raise DataError(
            path, "missing column", field=name, expected=f"a table of tcbench; found {', '.join(found[:10])}"
        )
    with parquet_errors(path):
        return pl.scan_parquet(path, glob=False).select(name).collect()[name]


TCBENCH = Dataset(
    name="tcbench",
    title="tables of tcbench (mirage19, mirage22, ucdavis19, utmobilenet21; v1 and dev), one parquet file or folder",
    obtain="install tcbench and run `tcbench datasets install --name mirage19` (or another set), then name the parquet "
    "file, or the folder `preprocessed`, of that set",
    licence="that of the set: MIRAGE CC BY-NC-ND 4.0, UCDAVIS19 CC BY 4.0, UTMOBILENET21 GPL 3",
    find=find,
    read=read,
    size_layers=("payload", "ip"),
    rules=(NO_DNS, NO_BACKGROUND),
    needs_path=True,
    simulate=functools.partial(simulate, dataset="mirage19", generation="v1"),
)
"""Entry of the catalogue."""
