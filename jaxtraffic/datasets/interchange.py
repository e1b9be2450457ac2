"""Packet series in parquet: our own columns, and those in which others prepare flows (`app, pkts_size, pkts_dir`).

One row is one flow, and its lists hold the packets without padding. Our columns are `size, direction, iat, label,
class_name` and, where flows have groups, `group`; name, size layer, source, class names and length stand as JSON under
the key `jaxtraffic` of the file's metadata.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from jaxtraffic.datasets.flow_block import FACTS, check_times
from jaxtraffic.datasets.labelled import LabelledFlows
from jaxtraffic.datasets.labels import LabelIndex
from jaxtraffic.datasets.ragged import REMEDY, Fields, Ragged, check_values, pad
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.series import PacketSeries

FORMAT = 1
"""Version of the metadata."""

DEFAULT_LENGTH = 30
"""Packet positions where a file does not state its own."""

KEY = "jaxtraffic"
"""Key of our metadata in a parquet file."""

_MAX_POSITIONS = 1 << 24
_MAX_EMPTY = 1_000

_COUNT = "packets kept"
OURS = Fields(size="size", direction="direction", iat="iat", iat_unit="seconds")
_THEIRS = Fields(size="pkts_size", direction="pkts_dir", iat="pkts_iat", iat_unit="seconds")
_COLUMNS = "size, direction and label, or pkts_size, pkts_dir and app"
_EXPECTED = "a parquet file of flows"
_FETCH_AGAIN = "write or fetch the file again"


def write_parquet(
    flows: PacketSeries, path: str | Path, *, iat: bool = True, facts: pl.DataFrame | None = None
) -> None:
    """Writes flows to one parquet file, which `read_parquet` gives back exactly.

    The file is complete or not there: it is written beside its place and then renamed.

    Args:
        flows: checked flows.
        path: the file; its folder is made where needed.
        iat: False leaves inter-arrival times out, for flows that have none (they read back as 0).
        facts: one row a flow, columns out of `flow_block.FACTS`, written beside the packets.

    Raises:
        DataError: the file cannot be written.
    """
    columns = ["size", "direction", "iat"] if iat else ["size", "direction"]
    label = np.asarray(flows.label)
    frame = pl.DataFrame(
        {
            **{name: np.asarray(getattr(flows, name)) for name in columns},
            "label": label,
            "class_name": pl.Series(np.arange(len(flows.class_names))[label], dtype=pl.Int64).replace_strict(
                dict(enumerate(flows.class_names)), return_dtype=pl.String
            ),
            **({} if flows.group is None else {"group": np.asarray(flows.group)}),
            _COUNT: np.asarray(flows.n_packets),
        }
    )
    lists = [pl.col(name).arr.to_list().list.head(pl.col(_COUNT)) for name in columns]
    if facts is not None:
        frame = frame.hstack(facts.select(name for name in FACTS if name in facts.columns))
    metadata = metadata_of(flows)
    path = Path(path)
    _refuse_name(path)
    try:
        with replacing(path) as temporary:
            frame.with_columns(lists).drop(_COUNT).write_parquet(temporary, metadata={KEY: json.dumps(metadata)})
    except OSError as error:
        raise DataError(path, f"cannot be written: {error.strerror or error}", remedy="choose another path") from error


def metadata_of(flows: PacketSeries) -> dict[str, Any]:
    """What files of ours say of their flows."""
    return {
        "format": FORMAT,
        "name": flows.name,
        "size_layer": flows.size_layer,
        "source": flows.source,
        "length": flows.length,
        "class_names": list(flows.class_names),
    }


def read_parquet(path: str | Path, *, group: str | None = None, length: int | None = None) -> PacketSeries:
    """Reads labelled flows from one parquet file, whole and right or not at all.

    Columns: either ours, `size, direction[, iat], label[, class_name][, group]` with label a name or an index, or
    `pkts_size, pkts_dir[, pkts_iat], app`. A file without our metadata counts as real traffic with sizes of the IP
    layer, and has its classes in alphabetical order. Without inter-arrival times they are 0; the one of the first
    packet is always set to 0.

    Args:
        path: the file.
        group: column whose values say which flows belong together (a capture); None: the column `group` of a file that
            we wrote, else no groups.
        length: packet positions; longer flows are cut. None: the length that the file states, else 30.

    Raises:
        DataError: not a complete parquet file, missing columns, no rows, or a row that is no flow.
        ConfigError: length below 1.
    """
    return read_labelled(path, group=group, length=length).flows


def read_labelled(
    path: str | Path, *, group: str | None = None, length: int | None = None, allow_empty: bool = False
) -> LabelledFlows:
    """As `read_parquet`, with the facts that a file of ours holds; `allow_empty` lets one without rows pass."""
    path = Path(path)
    if length is not None and length < 1:
        raise ConfigError(f"length must be at least 1, got {length}")
    frame, metadata = _read_file(path)
    fields = OURS if OURS.size in frame.columns else _THEIRS
    for name in (fields.size, fields.direction):
        _require(frame, name, path)
    if not frame.height and not allow_empty:
        raise DataError(path, "no rows", expected="one row for each flow", remedy=_FETCH_AGAIN)
    block = ragged_lists(frame, fields, path)
    check_values(block, path, fields)
    check_times(block, path, fields)
    label, class_names = _labels(frame, fields, metadata, path)
    if length is None:
        length = metadata.get("length", DEFAULT_LENGTH)
        _check_length(length, block, path)
    size, direction, iat = pad(block, length, iat_per_second=1)
    flows = PacketSeries(
        size,
        direction,
        iat,
        label,
        group=_groups(frame, group, metadata, path),
        class_names=class_names,
        name=metadata.get("name", path.stem),
        size_layer=metadata.get("size_layer", "ip"),
        source=metadata.get("source", "real"),
    ).check()
    known = [name for name in FACTS if metadata and frame.schema.get(name) == FACTS[name]]
    return LabelledFlows(flows, frame.select(known) if known else pl.DataFrame({"packets": block.counts}))


def _check_length(length: int, block: Ragged, path: Path) -> None:
    """Refuses a stated length that asks for memory beyond all that the packets of the file could fill."""
    if block.counts.size * length > max(_MAX_POSITIONS, _MAX_EMPTY * block.size.size) or length > _MAX_POSITIONS:
        longest = int(block.counts.max(initial=0))
        raise DataError(
            path,
            f"states a length of {str(length)[:20]} packets, and its longest flow has {longest}",
            field=f"metadata {KEY}",
            remedy="read it with a length of your own",
        )


def _read_file(path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    metadata = parquet_metadata(path)
    with parquet_errors(path):
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    return frame, own_metadata(metadata, path)


def parquet_metadata(path: Path) -> dict[str, str]:
    """Metadata of a parquet file that begins and ends as one.

    Raises:
        DataError: a file that cannot be opened, is empty, is no parquet file, is truncated or damaged.
    """
    _refuse_name(path)
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(0, 2)
            file.seek(max(file.tell() - 4, 0))
            tail = file.read()
    except OSError as error:
        raise DataError(
            path, f"cannot be read: {error.strerror or error}", expected=_EXPECTED, remedy="check the path"
        ) from error
    if not head:
        raise DataError(path, "empty file (0 bytes)", expected=_EXPECTED, remedy=_FETCH_AGAIN)
    if head != b"PAR1":
        raise DataError(path, "not a parquet file", expected=_EXPECTED, remedy="check the path")
    if tail != b"PAR1":
        raise DataError(path, "truncated parquet file", expected=_EXPECTED, remedy=_FETCH_AGAIN)
    with parquet_errors(path):
        return pl.read_parquet_metadata(path)


def is_readable(path: Path) -> bool:
    """Whether a file opens as parquet; its values may be damaged for all that."""
    try:
        parquet_metadata(path)
    except DataError:
        return False
    return True


def _refuse_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            path, "the path is not UTF-8, and polars opens no other", remedy="rename the file or folder, or link to it"
        ) from error


@contextlib.contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Damage that polars meets in a parquet file as an error of ours that names the file."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(path, f"damaged parquet file ({reason})", expected=_EXPECTED, remedy=_FETCH_AGAIN) from error


def own_metadata(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    """Our metadata out of those of a parquet file, {} where there are none.

    Raises:
        DataError: metadata under our key that we did not write, or of another version.
    """
    if KEY not in metadata:
        return {}
    field = f"metadata {KEY}"
    kinds = {"name": str, "size_layer": str, "source": str, "length": int, "class_names": list}
    try:
        own = json.loads(metadata[KEY])
        known = own["format"] == FORMAT
        right = all(type(own[key]) is kind for key, kind in kinds.items()) and own["length"] > 0
        # refuses what is no text, and halves of surrogate pairs, which JSON can hold and UTF-8 cannot
        "".join((*own["class_names"], own["name"])).encode()
        right &= own["size_layer"] in ("ip", "payload") and own["source"] in ("real", "simulated")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(path, "not the JSON we write", field=field, remedy=_FETCH_AGAIN) from error
    if not known:
        raise DataError(
            path, f"format {own['format']}", field=field, expected=f"format {FORMAT}", remedy="update jaxtraffic"
        )
    if not right:
        raise DataError(path, "not the metadata we write", field=field, remedy=_FETCH_AGAIN)
    return own


def _require(frame: pl.DataFrame, name: str, path: Path) -> pl.Series:
    if name not in frame.columns:
        found = ", ".join(frame.columns[:10])
        raise DataError(
            path, "missing column", field=name, expected=f"columns {_COLUMNS}; found {found}", remedy=_FETCH_AGAIN
        )
    return frame[name]


def ragged_lists(frame: pl.DataFrame, fields: Fields, path: Path, *, first_row: int = 1) -> Ragged:
    """Lists of three columns as flat values; IATs are 0 where the frame has no column for them.

    Args:
        frame: one row a flow, with the columns that `fields` names (the one of IATs may be missing).
        fields: names of the columns.
        path: file, for messages.
        first_row: 1-based number of the first row of the frame in its file.

    Raises:
        DataError: a column that holds no lists of numbers, nulls, or lists of different lengths in a row.
    """
    lists = {
        name: list_column(frame[name], path, floats=name == fields.iat, first_row=first_row)
        for name in (fields.size, fields.direction, fields.iat)
        if name in frame.columns
    }
    counts = lists[fields.size].list.len().to_numpy().astype(np.int64)
    flat = {}
    for name, column in lists.items():
        lengths = column.list.len().to_numpy()
        if (lengths != counts).any():
            row = int(np.argmax(lengths != counts))
            raise DataError(
                path,
                f"{lengths[row]} values, but {fields.size} has {counts[row]}",
                row=first_row + row,
                field=name,
                expected="lists of one length in a row",
                remedy=REMEDY,
            )
        # an empty list would explode into a null
        flat[name] = column.filter(counts > 0).explode().to_numpy()
    size = flat[fields.size]
    return Ragged(counts, size, flat[fields.direction], flat.get(fields.iat, np.zeros(size.size, np.float32)))


def list_column(column: pl.Series, path: Path, *, floats: bool, first_row: int = 1) -> pl.Series:
    """The column as lists of numbers (integers only unless `floats`) without nulls, or DataError."""
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    inner = column.dtype.inner if isinstance(column.dtype, pl.List) else None
    # NumPy has no integers of 128 bits, and no size needs them
    wide = inner is not None and str(inner).endswith("128")
    if inner is None or wide or not (inner.is_integer() or (floats and inner.is_float())):
        expected = f"a list of {'numbers' if floats else 'integers'} in each row"
        raise DataError(path, f"column of {column.dtype}", field=column.name, expected=expected, remedy=_FETCH_AGAIN)
    refuse_rows(column.is_null(), "null", column.name, "a list", path, first_row=first_row)
    holes = column.list.eval(pl.element().is_null()).list.any()
    refuse_rows(holes, "null in the list", column.name, "a number", path, first_row=first_row)
    return column


def refuse_rows(wrong: pl.Series, problem: str, field: str, expected: str, path: Path, *, first_row: int = 1) -> None:
    """Raises DataError for the first row where `wrong` [row] is True."""
    if wrong.any():
        row = int(np.argmax(wrong.fill_null(False).to_numpy()))
        raise DataError(path, problem, row=first_row + row, field=field, expected=expected, remedy=REMEDY)


def _labels(
    frame: pl.DataFrame, fields: Fields, metadata: dict[str, Any], path: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """[flow] int32 labels and class names."""
    column = _require(frame, "app" if fields is _THEIRS else "label", path)
    refuse_rows(column.is_null(), "null", column.name, "a class in every row", path)
    if column.dtype.is_integer():
        return _indexed_labels(frame, column.cast(pl.Int64), metadata, path)
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise DataError(
            path, f"column of {column.dtype}", field=column.name, expected="names or indices", remedy=_FETCH_AGAIN
        )
    labels = LabelIndex()
    labels.add(column.cast(pl.String))
    return labels.finish()


def _indexed_labels(
    frame: pl.DataFrame, index: pl.Series, metadata: dict[str, Any], path: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    names: dict[int, str] = dict(enumerate(metadata.get("class_names", [])))
    if "class_name" in frame.columns:
        column = frame["class_name"].cast(pl.String)
        refuse_rows(column.is_null(), "null", "class_name", "a class in every row", path)
        for number, name in zip(*_first_pairs(index, column), strict=True):
            names.setdefault(number, name)
        refuse_rows(
            column != index.replace_strict(names, default=None, return_dtype=pl.String),
            "label and class_name disagree",
            "class_name",
            "one name for each label",
            path,
        )
    elif not names:
        _require(frame, "class_name", path)
    refuse_rows(~index.is_in(list(names)), "label without a class name", "label", f"one of {len(names)} labels", path)
    # without metadata a file may lack classes between others: the numbers close up, in their old order
    order = {number: position for position, number in enumerate(sorted(names))}
    label = index.replace_strict(order, return_dtype=pl.Int32).to_numpy()
    return label, tuple(names[number] for number in sorted(names))


def _first_pairs(index: pl.Series, name: pl.Series) -> tuple[list[int], list[str]]:
    pairs = pl.DataFrame({"index": index, "name": name}).unique("index", keep="first", maintain_order=True)
    return pairs["index"].to_list(), pairs["name"].to_list()


def _groups(frame: pl.DataFrame, name: str | None, metadata: dict[str, Any], path: Path) -> np.ndarray | None:
    if name is None:
        if not metadata or "group" not in frame.columns:
            return None
        refuse_rows(frame["group"].is_null(), "null", "group", "a number", path)
        return frame["group"].cast(pl.Int32).to_numpy()
    if name not in frame.columns:
        raise DataError(
            path,
            "missing column",
            field=name,
            expected=f"a column to group by; found {', '.join(frame.columns)}",
            remedy="name another column, or none",
        )
    refuse_rows(frame[name].is_null(), "null", name, "a group in every row", path)
    return frame[name].rank("dense").cast(pl.Int32).to_numpy() - 1
