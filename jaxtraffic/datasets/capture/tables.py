"""Tables that say which label a capture, or a flow of it, has.

A table is a CSV file, or a JSON file with a list of objects, of one of two kinds:

- of files: columns file and label, and optionally device, activity, category and partition. `file` is a path from the
  folder of the table, or a bare name. In JSON `{"name.pcap": "label"}` does as well.
- of flows: column label, and as many of client_address, client_port, server_address, server_port, protocol (tcp, udp or
  a number) and start (seconds since 1970) as there are. All that are there have to agree, start to within a second; a
  table that takes the server for the client agrees too.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from jaxtraffic.errors import ConfigError, DataError

LABEL_FACTS = ("device", "activity", "category", "partition")
"""Fields and columns that become facts of the flows; others only serve to compose labels."""

KEYS = ("client_address", "client_port", "server_address", "server_port", "protocol")
"""Columns by which a table names flows."""

START_TOLERANCE = 1.0
"""Seconds by which the start of a flow in a table and in the capture may differ."""

_PROTOCOLS = {"tcp": "6", "udp": "17"}


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What is known of a capture.

    Attributes:
        label: of all its flows, or a function of a frame of flows that gives one for each.
        facts: name out of `LABEL_FACTS` -> value.
        is_class: whether the capture is all there is of its class, so that it cannot be kept on one side of a fold.
    """

    label: str | Callable[[pl.DataFrame], pl.Series]
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_class: bool = False


def read_table(path: Path) -> dict[str, Labelled] | pl.DataFrame:
    """Reads a table: file -> label and facts, or a frame of flows with those of `KEYS`, start and label that it has.

    Raises:
        DataError: a file that is no such table.
    """
    frame = _frame(path)
    if "label" not in frame.columns or not ({"file", *KEYS} & set(frame.columns)):
        raise DataError(
            path,
            f"has the columns {', '.join(frame.columns)[:200] or 'none'}",
            expected=f"label, and file or some of {', '.join(KEYS)}",
        )
    for name in ("label", "file"):
        if name in frame.columns:
            wrong = (frame[name].is_null() | (frame[name].str.strip_chars() == "")).to_numpy()
            if wrong.any():
                raise DataError(
                    path, "is empty", row=int(wrong.argmax()) + 1, field=name, expected="a text in every row"
                )
    return _file_table(frame, path) if "file" in frame.columns else _flow_table(frame, path)


def _frame(path: Path) -> pl.DataFrame:
    """All columns as text."""
    try:
        if not path.name.lower().endswith(".json"):
            data = path.read_bytes()
            return pl.read_csv(data, infer_schema=False, truncate_ragged_lines=False)
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            content = [{"file": name, "label": label} for name, label in content.items()]
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise DataError(path, "is no table", expected="a list of objects, or an object of file: label")
        names = list(dict.fromkeys(name for row in content for name in row))
        return pl.DataFrame({name: [_text(row.get(name)) for row in content] for name in names})
    except OSError as error:
        raise unreadable(path, error) from error
    except (pl.exceptions.PolarsError, ValueError, RecursionError) as error:
        raise DataError(path, f"is no table ({str(error)[:120]})", expected="CSV or JSON in UTF-8") from error


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a table that the system does not give."""
    return DataError(path, f"cannot be read: {error.strerror or error}", expected="a table of labels")


def _file_table(frame: pl.DataFrame, path: Path) -> dict[str, Labelled]:
    facts = [name for name in LABEL_FACTS if name in frame.columns]
    table: dict[str, Labelled] = {}
    for number, row in enumerate(frame.iter_rows(named=True), start=1):
        name = row["file"].replace("\\", "/").removeprefix("./")
        entry = Labelled(row["label"], {fact: row[fact] for fact in facts if row[fact]})
        if table.setdefault(name, entry) != entry:
            raise DataError(path, f"{name} stands there twice", row=number, field="file", expected="one label a file")
    if len({entry.label for entry in table.values()}) == len(table):
        return {name: dataclasses.replace(entry, is_class=True) for name, entry in table.items()}
    return table


def _flow_table(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    keys = [name for name in KEYS if name in frame.columns]
    columns = [_numbers(frame, name, pl.Int64, path) if name.endswith("_port") else frame[name] for name in keys]
    table = pl.DataFrame([_addresses(column) if column.name.endswith("_address") else column for column in columns])
    if "protocol" in keys:
        text = table["protocol"].str.strip_chars().str.to_lowercase().replace(_PROTOCOLS)
        table = table.with_columns(_numbers(pl.DataFrame([text]), "protocol", pl.Int64, path))
    table = table.with_columns(frame["label"])
    if "start" in frame.columns:
        return table.with_columns(_numbers(frame, "start", pl.Float64, path))
    clash = table.unique().group_by(keys).len().filter(pl.col("len") > 1)
    if clash.height:
        raise DataError(
            path,
            f"{clash.height} flows have more than one label, such as {clash.drop('len').row(0)}",
            expected="one label a flow",
            remedy="add a column start with the seconds since 1970 at which each flow starts",
        )
    return table.unique(maintain_order=True)


def _numbers(frame: pl.DataFrame, name: str, dtype: type[pl.DataType], path: Path) -> pl.Series:
    values = frame[name].str.strip_chars().cast(dtype, strict=False)
    wrong = values.is_null() if dtype != pl.Float64 else ~values.is_finite().fill_null(False)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise DataError(path, f"{frame[name][row]!r} is not a number", row=row + 1, field=name, expected="a number")
    return values


def _addresses(column: pl.Series) -> pl.Series:
    """Addresses in the one form that `ipaddress` writes; what is no address stays as it is and matches nothing."""
    forms = {}
    for text in column.drop_nulls().unique().to_list():
        try:
            forms[text] = str(ipaddress.ip_address(text.strip()))
        except ValueError:
            forms[text] = text
    return column.replace(forms) if forms else column.cast(pl.String)


def label_flows(flows: pl.DataFrame, *, table: pl.DataFrame) -> pl.Series:
    """[flow] labels of flows by a table of flows; null for those that it does not know.

    Args:
        flows: one row a flow, with those of `KEYS` and start that the table has.
        table: as `read_table` gives it.

    Raises:
        ConfigError: the capture says nothing of a column of the table.
    """
    keys = [name for name in KEYS if name in table.columns]
    wanted = [*keys, *(name for name in ("start",) if name in table.columns)]
    missing = [name for name in wanted if name not in flows.columns]
    if missing:
        raise ConfigError(f"the table of labels names flows by {', '.join(missing)}, which this capture does not know")
    rows = flows.select(
        _addresses(flows[name].cast(pl.String)) if name.endswith("_address") else pl.col(name).cast(table[name].dtype)
        for name in wanted
    ).with_row_index("row")
    direct = _looked_up(rows, table, keys)
    turned = _looked_up(rows, table.rename(_turned(table.columns)), keys) if _can_turn(keys) else direct
    return direct.fill_null(turned).rename("label")


def _can_turn(keys: list[str]) -> bool:
    return {name.split("_")[-1] for name in keys if name.startswith("client")} == {
        name.split("_")[-1] for name in keys if name.startswith("server")
    } and any(name.startswith("client") for name in keys)


def _turned(columns: list[str]) -> dict[str, str]:
    sides = {"client": "server", "server": "client"}
    return {name: name.replace(side, sides[side]) for name in columns for side in sides if name.startswith(side)}


def _looked_up(rows: pl.DataFrame, table: pl.DataFrame, keys: list[str]) -> pl.Series:
    """[flow] labels, null where there is none."""
    if "start" not in table.columns:
        found = rows.join(table, on=keys, how="left", maintain_order="left")
        return found["label"]
    found = rows.sort("start").join_asof(
        table.sort("start"),
        on="start",
        by=keys,
        strategy="nearest",
        tolerance=START_TOLERANCE,
        check_sortedness=False,
    )
    return found.sort("row")["label"]
