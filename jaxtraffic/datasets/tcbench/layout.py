"""Which table of tcbench a parquet file is, and what its columns mean there: they change from table to table.

tcbench (https://tcbenchstack.github.io/tcbench) names its columns alike in all tables and fills them differently. What
follows was read in its source: `src/tcbench/libtcdatasets` of release 0.0.22 ("v1") and of the branch `dev`.

    table                          size column, layer             direction          time column holds
    v1 mirage19, mirage22          pkts_size, payload, no ACKs    0 client 1 server  timetofirst: since the first packet
    v1 mirage*, unfiltered         packet_data_l4_payload_bytes   0 client 1 server  packet_data_iat
    v1 ucdavis-icdm19              pkts_size, payload             1 client 0 server  pkts_iat (float64), timetofirst
    v1 utmobilenet21               pkts_size, payload; UDP sizes  1 client 0 server  timetofirst: IATs, despite its name
                                   include the UDP header (8 B)
    dev mirage19                   pkts_size, IP: payload + 40    +1, -1             pkts_iat
                                   (TCP) or + 28 (UDP)
    dev mirage22                   pkts_size, IP                  +1, -1             pkts_iat
    dev mirage*, _postprocess      pkts_size, payload, or IP      0 client 1 server  pkts_iat
                                   where pkts_l4_size stands by
    dev ucdavis19                  pkts_size, payload             +1, -1             pkts_timetofirst (float32)
    dev utmobilenet21              pkts_size, IP                  +1, -1             pkts_timestamp (float64)

How a file is recognised, each step only where those before leave it open; what is left open, or said in two ways, is
refused:

    generation  our own metadata (files that `export.tables` wrote); columns: timetofirst or packet_data_* is v1,
                pkts_timestamp, pkts_timetofirst, pkts_size_times_dir, app_category, proto_id or net_tuple is dev;
                directions: a 0 is v1, a -1 is dev
    data set    our own metadata; columns that only one set has (`_MARKS`); the file name; the classes in `app`

The layer of ucdavis is what the schema of the dev branch says ("excluding headers"); the publishers do not say.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from jaxtraffic.datasets.interchange import KEY, own_metadata, parquet_errors, parquet_metadata
from jaxtraffic.datasets.ragged import Fields
from jaxtraffic.errors import DataError

GENERATIONS = ("v1", "dev")
"""tcbench 0.0.22, and its unreleased successor."""

SPLITS = ("train_indexes", "val_indexes", "test_indexes", "split_index")
"""Columns of a table of splits of v1."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


APPS = {
    "mirage19": _words(
        """com.pinterest com.facebook.katana com.spotify.music com.contextlogic.wish com.groupon com.dropbox.android
        com.tripadvisor.tripadvisor com.trello com.viber.voip com.facebook.orca com.twitter.android de.motain.iliga
        com.google.android.youtube com.accuweather.android com.iconology.comics com.joelapenna.foursquared it.subito
        com.duolingo com.waze air.com.hypah.io.slither background
        pinterest facebook spotify wish groupon tripadvisor dropbox trello viber messenger twitter youtube onefootball
        accuweather comics foursquare subito duolingo waze slither"""
    ),
    "mirage22": _words(
        """com.discord com.gotomeeting com.google.android.apps.meetings com.facebook.orca com.skype.raider com.Slack
        com.slack com.microsoft.teams com.cisco.webex.meetings us.zoom.videomeetings background
        discord gotomeeting messenger skype slack"""
    )
    | {"google meet", "microsoft teams", "webex meetings", "zoom cloud meetings"},
    "ucdavis19": _words(
        """google-doc google-drive google-music google-search youtube
        googledoc googledrive googlemusic googlesearch"""
    ),
    "utmobilenet21": _words(
        """youtube reddit google-maps spotify netflix pinterest hulu instagram dropbox facebook twitter gmail pandora
        messenger google-drive hangout skype"""
    ),
}
"""Data set -> classes that its tables of both generations name."""

_MARKS = {
    "mirage22": ("flow_metadata_bf_activity", "activity", "pkts_tcp_flags", "packet_data_timestamp", "pkts_l4_size"),
    "mirage": (
        *("conn_id", "android_name", "device_name", "android_package_name", "device_id", "pkts_tcp_win_size"),
        *("packet_data_packet_dir", "packet_data_l4_raw_payload", "flow_metadata_bf_label", "bytes_payload"),
    ),
    "ucdavis19": ("flow_id", "num_pkts", "unixtime", "pkts_timetofirst"),
    "utmobilenet21": ("ip_proto", "location", "net_tuple", "action", "pkts_fname_row_id"),
}
_MIRAGE = frozenset(("mirage19", "mirage22"))
_V1 = ("timetofirst", "packet_data_packet_dir")
_DEV = ("pkts_timestamp", "pkts_timetofirst", "pkts_size_times_dir", "app_category", "proto_id", "net_tuple")
_NAMES = {
    "mirage19": r"mirage-?(20)?19",
    "mirage22": r"mirage-?(20)?22",
    "ucdavis19": r"ucdavis",
    "utmobilenet21": r"utmobile-?net",
}
_RENAME = "name the file after its data set (mirage19, mirage22, ucdavis19, utmobilenet21), or keep all its columns"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Where sizes of a layer stand.

    Attributes:
        column: the column.
        headers: protocol number -> bytes to take off each size of its flows.
    """

    column: str
    headers: Mapping[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a table is and how it is read.

    Attributes:
        dataset: mirage19, mirage22, ucdavis19, utmobilenet21, "mirage" where the two cannot be told apart (and need
            not be), or the name that our own metadata give.
        generation: out of `GENERATIONS`.
        sizes: size layer -> where they stand; first the layer as written.
        direction: column of the directions.
        client: raw direction of packets from the client.
        server: raw direction of packets from the server.
        time: column of the times, in seconds.
        elapsed: True where the times count from a fixed moment, False where they are IATs.
        exported: whether we wrote the file.
        source: "real", or "simulated" where a file of ours says so.
    """

    dataset: str
    generation: str
    sizes: Mapping[str, Sizes]
    direction: str
    client: int
    server: int
    time: str
    elapsed: bool
    exported: bool = False
    source: str = "real"

    @property
    def title(self) -> str:
        """For messages."""
        return f"a table of {self.dataset} as tcbench {self.generation} writes it"

    def fields(self, layer: str) -> Fields:
        """Names of the columns, for messages."""
        return Fields(self.sizes[layer].column, self.direction, self.time, "seconds")


def is_table(path: Path) -> bool:
    """Whether a parquet file holds flows as tcbench writes them; False for files that cannot be read."""
    try:
        metadata = parquet_metadata(path)
        columns = _schema(path)
        exported = "tcbench" in own_metadata(metadata, path)
    except DataError:
        return False
    return exported or (KEY not in metadata and _is_tcbench(columns))


def named_table(path: Path) -> bool:
    """Whether a file is called after one of the data sets, as tcbench calls its tables."""
    return any(re.search(pattern, path.name.lower()) for pattern in _NAMES.values())


def layout_of(path: Path) -> tuple[Layout, pl.Schema]:
    """What a file is, and its columns.

    Raises:
        DataError: no parquet file, not a table of tcbench, or one that could be several.
    """
    own = own_metadata(parquet_metadata(path), path)
    columns = _schema(path)
    if "tcbench" in own:
        return _exported(own, path), columns
    if set(SPLITS[:1] + SPLITS[2:]) <= set(columns):
        raise DataError(path, "a table of splits, not of flows", remedy="read it with read_tcbench_split")
    if "app" not in columns:
        raise _missing(path, "app", columns)
    raw = "packet_data_packet_dir" in columns and "pkts_dir" not in columns
    for name in ("packet_data_l4_payload_bytes", "packet_data_iat") if raw else ("pkts_size", "pkts_dir"):
        if name not in columns:
            raise _missing(path, name, columns)
    sets = _sets(columns, path)
    generation = _generation(columns, path)
    return (_layout_v1 if generation == "v1" else _layout_dev)(sets, columns, path, raw=raw), columns


def _is_tcbench(columns: pl.Schema) -> bool:
    flows = {"app", "pkts_size", "pkts_dir"} <= set(columns) or {"app", "packet_data_packet_dir"} <= set(columns)
    return flows and ("row_id" in columns or any(name in columns for name in (*_V1, *_DEV)))


def _schema(path: Path) -> pl.Schema:
    with parquet_errors(path):
        return pl.Schema(pl.read_parquet_schema(path))


def _missing(path: Path, field: str, columns: pl.Schema) -> DataError:
    found = ", ".join(list(columns)[:10])
    return DataError(
        path, "missing column", field=field, expected=f"a table of tcbench; found {found}", remedy="fetch it again"
    )


def _exported(own: dict[str, Any], path: Path) -> Layout:
    said = own["tcbench"]
    if not isinstance(said, dict) or said.get("generation") not in GENERATIONS:
        raise DataError(path, "not the metadata we write", field=f"metadata {KEY}", remedy="export the flows again")
    client, server = (1, 0) if said["generation"] == "v1" else (1, -1)
    sizes = {own["size_layer"]: Sizes("pkts_size")}
    return Layout(
        *(own["name"], said["generation"], sizes, "pkts_dir", client, server, "pkts_iat", False),
        exported=True,
        source=own["source"],
    )


def _sets(columns: pl.Schema, path: Path) -> frozenset[str]:
    """One data set, or the two of MIRAGE."""
    sets = frozenset(name for name, marks in _MARKS.items() if any(mark in columns for mark in marks))
    if sets & {"mirage", "mirage22"}:
        sets = (sets - {"mirage"}) | ({"mirage22"} if "mirage22" in sets else _MIRAGE)
    named = frozenset(name for name, pattern in _NAMES.items() if re.search(pattern, path.name.lower()))
    sets = _agreed(sets, named, "the file name", path)
    if not _is_one(sets):
        apps = _apps(path)
        known = frozenset(name for name, classes in APPS.items() if apps and apps <= classes)
        sets = _agreed(sets, known, "its classes", path)
    if not _is_one(sets):
        problem = f"could be {' or '.join(sorted(sets))}" if sets else "no column, name or class says of which data set"
        raise DataError(path, problem, expected="a table of tcbench", remedy=_RENAME)
    return sets


def _agreed(sets: frozenset[str], evidence: frozenset[str], what: str, path: Path) -> frozenset[str]:
    """Data sets that both allow; no evidence allows all."""
    if sets and evidence and not sets & evidence:
        raise DataError(
            path,
            f"columns of {' or '.join(sorted(sets))}, but {what} of {' or '.join(sorted(evidence))}",
            expected="a table of one data set",
            remedy=_RENAME,
        )
    return sets & evidence or evidence or sets


def _is_one(sets: frozenset[str]) -> bool:
    return len(sets) == 1 or sets == _MIRAGE


def _apps(path: Path) -> set[str]:
    with parquet_errors(path):
        frame = pl.scan_parquet(path, glob=False).select(pl.col("app").cast(pl.String).unique()).collect()
    return set(frame["app"].drop_nulls().to_list())


def _generation(columns: pl.Schema, path: Path) -> str:
    if any(name in columns for name in _V1):
        return "v1"
    if any(name in columns for name in _DEV):
        return "dev"
    if "pkts_iat" not in columns:
        raise _missing(path, "timetofirst, pkts_iat or pkts_timestamp", columns)
    values = _directions(path, columns)
    if 0 in values and -1 not in values:
        return "v1"
    if -1 in values and 0 not in values:
        return "dev"
    raise DataError(
        path,
        f"directions {sorted(values)} say neither v1 nor dev",
        field="pkts_dir",
        expected="{0, 1} (v1) or {-1, +1} (dev)",
        remedy="keep the columns timetofirst (v1) or pkts_size_times_dir (dev)",
    )


def _directions(path: Path, columns: pl.Schema) -> set[int]:
    """Smallest and largest direction."""
    kind = columns["pkts_dir"]
    if not isinstance(kind, pl.List) or not kind.inner.is_integer():
        raise DataError(path, f"column of {kind}", field="pkts_dir", expected="a list of integers in each row")
    values = pl.col("pkts_dir")
    with parquet_errors(path):
        frame = pl.scan_parquet(path, glob=False).select(low=values.list.min().min(), high=values.list.max().max())
        return {value for value in frame.collect().row(0) if value is not None}


def _name_of(sets: frozenset[str]) -> str:
    return "mirage" if sets == _MIRAGE else next(iter(sets))


def _layout_v1(sets: frozenset[str], columns: pl.Schema, path: Path, *, raw: bool) -> Layout:
    name = _name_of(sets)
    payload = {"payload": Sizes("packet_data_l4_payload_bytes" if raw else "pkts_size")}
    if raw:
        if "packet_data_ip_packet_bytes" in columns:
            payload["ip"] = Sizes("packet_data_ip_packet_bytes")
        return Layout(name, "v1", payload, "packet_data_packet_dir", 0, 1, "packet_data_iat", False)
    if name.startswith("mirage"):
        return Layout(name, "v1", payload, "pkts_dir", 0, 1, _need(columns, "timetofirst", path), True)
    if name == "ucdavis19":
        time = "pkts_iat" if "pkts_iat" in columns else "timetofirst"
        return Layout(name, "v1", payload, "pkts_dir", 1, 0, time, time == "timetofirst")
    sizes = {"payload": Sizes("pkts_size", {17: 8})}
    _need(columns, "ip_proto", path)
    return Layout(name, "v1", sizes, "pkts_dir", 1, 0, _need(columns, "timetofirst", path), False)


def _layout_dev(sets: frozenset[str], columns: pl.Schema, path: Path, *, raw: bool) -> Layout:
    name = _name_of(sets)
    if name == "ucdavis19":
        # pkts_timestamp is float32 there, with a spacing of 128 s
        return Layout(
            name,
            "dev",
            {"payload": Sizes("pkts_size")},
            "pkts_dir",
            1,
            -1,
            _need(columns, "pkts_timetofirst", path),
            True,
        )
    if name == "utmobilenet21":
        time = _need(columns, "pkts_timestamp", path)
        _need_float64(columns, time, path)
        return Layout(name, "dev", {"ip": Sizes("pkts_size")}, "pkts_dir", 1, -1, time, True)
    time = _need(columns, "pkts_iat", path)
    if _is_curated(columns, path):
        sizes = {"ip": Sizes("pkts_size")}
        if name == "mirage19" and "proto" in columns:
            sizes["payload"] = Sizes("pkts_size", {6: 40, 17: 28})
        return Layout(name, "dev", sizes, "pkts_dir", 1, -1, time, False)
    sizes = {"payload": Sizes("pkts_size")}
    if "pkts_l4_size" in columns:
        sizes = {"ip": Sizes("pkts_size"), "payload": Sizes("pkts_l4_size")}
    return Layout(name, "dev", sizes, "pkts_dir", 0, 1, time, False)


def _is_curated(columns: pl.Schema, path: Path) -> bool:
    """Whether a dev table of MIRAGE is curated, or the `_postprocess.parquet` that the curation starts from."""
    if "pkts_size_times_dir" in columns or "android_package_name" in columns:
        return True
    return "label" not in columns and -1 in _directions(path, columns)


def _need(columns: pl.Schema, name: str, path: Path) -> str:
    if name not in columns:
        raise _missing(path, name, columns)
    return name


def _need_float64(columns: pl.Schema, name: str, path: Path) -> None:
    kind = columns[name]
    if isinstance(kind, pl.List) and kind.inner == pl.Float32:
        raise DataError(
            path,
            "epoch times in float32, which cannot tell packets apart (128 s between values)",
            field=name,
            expected="float64",
            remedy="curate the data again with float64 times",
        )
