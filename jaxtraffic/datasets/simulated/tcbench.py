"""Simulated traffic as the tables that tcbench writes: columns, types and quirks of v1 and dev, with their splits.

The columns are those of `src/tcbench/libtcdatasets` of release 0.0.22 and of the branch `dev`. The filters of tcbench
are not applied: every simulated flow is there, however short. Statistics of packets that dev MIRAGE adds in some
hundred columns are null. A table is made in memory, as tcbench makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.traffic import TCP, Traffic, simulate_traffic
from jaxtraffic.errors import ConfigError

SETS = ("mirage19", "ucdavis19", "utmobilenet21")
"""Data sets that are simulated."""

MIRAGE_APPS = (
    ("com.pinterest", "pinterest", "social"),
    ("com.spotify.music", "spotify", "music and Audio"),
    ("com.dropbox.android", "dropbox", "productivity"),
    ("com.google.android.youtube", "youtube", "video players"),
    ("air.com.hypah.io.slither", "slither", "games"),
)
"""Package, app and category, out of `mirage19_app_metadata.csv`."""

UCDAVIS_APPS = ("google-doc", "google-drive", "google-music", "google-search", "youtube")
UCDAVIS_PARTS = ("pretraining", "retraining-human-triggered", "retraining-script-triggered")
UTMOBILENET_APPS = ("youtube", "google-maps", "reddit", "spotify", "dropbox")
UTMOBILENET_PARTS = ("Wild Test Data", "Deterministic Automated Data")
_DEVICES = ("Mi5_38_a4_ed_18_cc_bf", "Nexus7_bc_ee_7b_a4_09_47")
_STATISTICS = ("min", "max", "mean", "std", "var", "mad", "skew", "kurtosis", *(f"q{q}0" for q in range(1, 10)))
_CDT = 5 * 3600


def simulate(
    folder: Path, n_flows: int, seed: int, *, dataset: str = "mirage19", generation: str = "v1", splits: int = 5
) -> None:
    """Writes a table, and its splits where tcbench has them.

    Args:
        folder: gets `mirage19/preprocessed/imc23/mirage19_filtered_minpkts10.parquet` (v1), `mirage19/curated/
            mirage19.parquet` (dev), and likewise for the other sets.
        n_flows: flows.
        seed: the same seed gives the same bytes.
        dataset: out of `SETS`.
        generation: "v1" or "dev".
        splits: number of splits.

    Raises:
        ConfigError: an unknown data set or generation.
    """
    if dataset not in SETS or generation not in ("v1", "dev"):
        raise ConfigError(f"no simulated table of {dataset} {generation}; choose from {', '.join(SETS)} and v1, dev")
    transport = "udp" if dataset == "ucdavis19" else "both"
    traffic = simulate_traffic(n_flows, seed=(seed, SETS.index(dataset)), transport=transport)
    rng = np.random.default_rng([seed, 71])
    table = {
        ("mirage19", "v1"): mirage19_v1,
        ("mirage19", "dev"): mirage19_dev,
        ("ucdavis19", "v1"): ucdavis19_v1,
        ("ucdavis19", "dev"): ucdavis19_dev,
        ("utmobilenet21", "v1"): utmobilenet21_v1,
        ("utmobilenet21", "dev"): utmobilenet21_dev,
    }[dataset, generation](traffic, rng)
    for path, frame in _files(Path(folder), dataset, generation, table, splits, rng).items():
        with replacing(path) as temporary:
            frame.write_parquet(temporary)


def _files(
    folder: Path, dataset: str, generation: str, table: pl.DataFrame, splits: int, rng: np.random.Generator
) -> dict[Path, pl.DataFrame]:
    if generation == "v1" and dataset == "ucdavis19":
        return {folder / "ucdavis-icdm19" / "preprocessed" / "ucdavis-icdm19.parquet": table}
    if generation == "v1":
        place, stem = folder / dataset / "preprocessed" / "imc23", f"{dataset}_filtered_minpkts10"
        return {place / f"{stem}.parquet": table, place / f"{stem}_splits.parquet": _splits_v1(table, splits, rng)}
    place = folder / dataset / "curated"
    files = {place / f"{dataset}.parquet": table}
    if dataset == "ucdavis19":
        suffixes = ("", "_human", "_script")
        parts = zip(suffixes, UCDAVIS_PARTS, strict=True)
        files = {place / f"{dataset}{end}.parquet": table.filter(pl.col("partition") == part) for end, part in parts}
        table = files[place / f"{dataset}.parquet"]
    files[place / f"{dataset}_splits.parquet"] = _splits_dev(table, splits, rng)
    counts = table.group_by("app", maintain_order=True).agg(samples=pl.len().cast(pl.UInt32))
    files[place / f"{dataset}_stats.parquet"] = counts
    return files


def _splits_v1(table: pl.DataFrame, n: int, rng: np.random.Generator) -> pl.DataFrame:
    parts = [np.split(rng.permutation(table["row_id"].to_numpy()), _bounds(table.height)) for _ in range(n)]
    test, val, train = ([part[index].tolist() for part in parts] for index in range(3))
    kinds = {f"{name}_indexes": pl.List(pl.Int64) for name in ("train", "val", "test")} | {"split_index": pl.Int64}
    return pl.DataFrame([train, val, test, list(range(n))], schema=kinds, orient="col")


def _splits_dev(table: pl.DataFrame, n: int, rng: np.random.Generator) -> pl.DataFrame:
    parts = [np.split(rng.permutation(table["row_id"].to_numpy()), _bounds(table.height)[:1]) for _ in range(n)]
    test, train = ([part[index].tolist() for part in parts] for index in range(2))
    kinds = {"split_index": pl.Int32, "train_indices": pl.List(pl.UInt32), "test_indices": pl.List(pl.UInt32)}
    return pl.DataFrame([list(range(1, n + 1)), train, test], schema=kinds, orient="col")


def _bounds(n: int) -> list[int]:
    return [n // 10, n // 5]


def mirage19_v1(traffic: Traffic, rng: np.random.Generator) -> pl.DataFrame:
    """The 20 columns of `mirage19_filtered_minpkts10.parquet`, and the index that pandas adds; 0 is upload."""
    n, keep = len(traffic), traffic.payload > 0
    counts = np.bincount(traffic.flow[keep], minlength=n)
    package = _names(traffic, [entry[0] for entry in MIRAGE_APPS])
    ends = _ends(traffic)
    conn = ends.select(pl.concat_str(pl.all().cast(pl.String), separator=","))
    columns = {
        "row_id": np.arange(n),
        "conn_id": conn.to_series(),
        "packet_data_l4_raw_payload": pl.Series([[[22, 3, 1]] * min(count, 10) for count in counts.tolist()]),
        "flow_metadata_bf_label": package,
        "flow_metadata_bf_labeling_type": ["exact"] * n,
        "flow_metadata_bf_l4_payload_bytes": _sum(traffic.payload, traffic.counts),
        "flow_metadata_bf_duration": _durations(traffic),
        "strings": pl.Series([[]] * n, dtype=pl.List(pl.String)),
        "android_name": package,
        "device_name": _names(traffic, _DEVICES),
        "app": package.cast(pl.Categorical),
        **{name: ends[name].cast(pl.String) for name in ends.columns},
        "packets": counts,
        "pkts_size": lists(traffic.payload[keep], counts, pl.Int64()),
        "pkts_dir": lists(np.where(traffic.direction[keep] > 0, 0, 1), counts, pl.Int64()),
        "timetofirst": lists(_elapsed(traffic)[keep], counts, pl.Float64()),
        "__index_level_0__": np.arange(n),
    }
    return pl.DataFrame(columns)


def mirage19_dev(traffic: Traffic, rng: np.random.Generator) -> pl.DataFrame:
    """Curated `mirage19.parquet` of dev: 32 packets of a flow, sizes with 40 or 28 B added."""
    n = len(traffic)
    position = np.arange(traffic.flow.size) - np.repeat(starts_of(traffic.counts), traffic.counts)
    keep, counts = position < 32, np.minimum(traffic.counts, 32)
    size = (traffic.payload + np.where(traffic.protocol == TCP, 40, 28)[traffic.flow])[keep]
    direction = traffic.direction[keep]
    ends = _ends(traffic).with_columns(pl.col("src_port", "dst_port").cast(pl.UInt32))
    sides = ("", "_upload", "_download")
    nulls = [f"{what}_{name}{side}" for what in ("packet_size", "iat") for side in sides for name in _STATISTICS]
    columns = {
        "row_id": pl.Series(np.arange(n), dtype=pl.UInt32),
        "pkts_dir": lists(direction, counts, pl.Int32()),
        "pkts_size": lists(size, counts, pl.UInt16()),
        "pkts_iat": lists(traffic.iat[keep], counts, pl.Float32()),
        "pkts_tcp_win_size": lists(np.full(size.size, 1544), counts, pl.UInt16()),
        "android_package_name": _names(traffic, [entry[0] for entry in MIRAGE_APPS]),
        "packets": pl.Series(traffic.counts, dtype=pl.UInt64),
        "bytes": pl.Series(_sum(traffic.payload + traffic.header, traffic.counts), dtype=pl.UInt64),
        "bytes_payload": pl.Series(_sum(traffic.payload, traffic.counts), dtype=pl.UInt64),
        "duration": pl.Series(_durations(traffic), dtype=pl.Float32),
        **{name: pl.Series([None] * n, dtype=pl.Float64) for name in nulls},
        **{name: ends[name] for name in ("src_ip", "src_port", "dst_ip", "dst_port")},
        "proto_id": ends["proto"].cast(pl.UInt32),
        "device_id": _names(traffic, _DEVICES),
        "fname": _names(traffic, [f"149459629{k}_{MIRAGE_APPS[k][0]}_MIRAGE-2019" for k in range(5)]),
        "fname_row_idx": pl.Series(np.arange(n), dtype=pl.UInt64),
        "proto": _proto(traffic),
        "src_ip_is_private": [True] * n,
        "dst_ip_is_private": [False] * n,
        "is_valid_handshake": [True] * n,
        "app": _names(traffic, [entry[1] for entry in MIRAGE_APPS]),
        "app_category": _names(traffic, [entry[2] for entry in MIRAGE_APPS]),
        "pkts_len": pl.Series(counts, dtype=pl.UInt32),
        "pkts_is_complete": counts == traffic.counts,
        "pkts_size_times_dir": lists(size * direction, counts, pl.Int64()),
    }
    return pl.DataFrame(columns)


def ucdavis19_v1(traffic: Traffic, rng: np.random.Generator) -> pl.DataFrame:
    """`ucdavis-icdm19.parquet` of v1: 1 is upload."""
    n, elapsed = len(traffic), _elapsed(traffic)
    app, size = _names(traffic, UCDAVIS_APPS), traffic.payload
    columns = {
        "row_id": np.arange(n),
        "app": app.cast(pl.Categorical),
        "flow_id": [f"{name.title().replace('-', '')}-{row}" for row, name in enumerate(app.to_list())],
        "partition": _parts(n, UCDAVIS_PARTS, rng),
        "num_pkts": traffic.counts,
        "duration": _durations(traffic),
        "bytes": _sum(size, traffic.counts),
        "unixtime": lists(traffic.time / 1e9, traffic.counts, pl.Float64()),
        "timetofirst": lists(elapsed, traffic.counts, pl.Float64()),
        "pkts_size": lists(size, traffic.counts, pl.Int16()),
        "pkts_dir": lists(traffic.direction > 0, traffic.counts, pl.Int8()),
        "pkts_iat": lists(traffic.iat, traffic.counts, pl.Float64()),
    }
    return pl.DataFrame(columns)


def ucdavis19_dev(traffic: Traffic, rng: np.random.Generator) -> pl.DataFrame:
    """Curated tables of dev, all partitions: without the first packet of each flow, times as float32."""
    n = len(traffic)
    keep = np.ones(traffic.flow.size, bool)
    keep[starts_of(traffic.counts)] = False
    counts, direction, size = traffic.counts - 1, traffic.direction[keep], traffic.payload[keep]
    names = pl.Series([f"{name.title().replace('-', '')}-{row}.txt" for row, name in enumerate(UCDAVIS_APPS)])
    columns = {
        "row_id": pl.Series(np.arange(n), dtype=pl.UInt32),
        "app": names.gather(traffic.app % 5).str.split("-").list.first().str.to_lowercase(),
        "partition": _parts(n, UCDAVIS_PARTS, rng),
        "packets": pl.Series(counts, dtype=pl.UInt32),
        "bytes": pl.Series(_sum(size, counts), dtype=pl.UInt64),
        "duration": _durations(traffic),
        "proto": ["udp"] * n,
        "pkts_timestamp": lists(traffic.time[keep] / 1e9, counts, pl.Float32()),
        "pkts_size": lists(size, counts, pl.UInt32()),
        "pkts_dir": lists(direction, counts, pl.Int32()),
        "pkts_timetofirst": lists(_elapsed(traffic)[keep], counts, pl.Float32()),
        "pkts_size_times_dir": lists(size * direction, counts, pl.Int64()),
    }
    return pl.DataFrame(columns)


def utmobilenet21_v1(traffic: Traffic, rng: np.random.Generator) -> pl.DataFrame:
    """`utmobilenet21_filtered_minpkts10.parquet`: IATs under the name `timetofirst`, UDP sizes with their header."""
    n = len(traffic)
    ends = _ends(traffic).with_columns(pl.col("src_port", "dst_port", "proto").cast(pl.Int64))
    app = _names(traffic, UTMOBILENET_APPS)
    first = traffic.time[starts_of(traffic.counts)] / 1e9
    initiator = traffic.direction[starts_of(traffic.counts)][traffic.flow]
    columns = {
        "row_id": np.arange(n),
        **{name: ends[name] for name in ("src_ip", "src_port", "dst_ip", "dst_port")},
        "ip_proto": ends["proto"],
        "first": first,
        "last": first + _durations(traffic),
        "duration": _durations(traffic),
        "packets": traffic.counts,
        "bytes": _sum(_udp_lengths(traffic), traffic.counts),
        "timetofirst": lists(traffic.iat, traffic.counts, pl.Float64()),
        "pkts_size": lists(_udp_lengths(traffic), traffic.counts, pl.Int64()),
        "pkts_dir": lists(traffic.direction == initiator, traffic.counts, pl.Int64()),
        "partition": _parts(n, UTMOBILENET_PARTS, rng),
        "location": [""] * n,
        "fname": app + "_action_2019-04-30_19-07-17_a1b2.csv",
        "app": app.cast(pl.Categorical),
        "__index_level_0__": np.arange(n),
    }
    return pl.DataFrame(columns)


def utmobilenet21_dev(traffic: Traffic, rng: np.random.Generator) -> pl.DataFrame:
    """Curated `utmobilenet21.parquet` of dev: sizes of the IP layer, clock times of Texas taken for UTC."""
    n, size = len(traffic), traffic.payload + traffic.header
    ends = _ends(traffic).with_columns(pl.col("src_port", "dst_port").cast(pl.UInt32))
    app = _names(traffic, UTMOBILENET_APPS)
    columns = {
        "row_id": pl.Series(np.arange(n), dtype=pl.UInt32),
        "folder": _parts(n, UTMOBILENET_PARTS, rng),
        "fname": app + "_action_2019-04-30_19-07-17_a1b2.csv",
        "partition": ["EER"] * n,
        "net_tuple": ends.select(pl.concat_str(pl.all().cast(pl.String), separator=":")).to_series(),
        "proto": _proto(traffic),
        "app": app,
        "action": ["action"] * n,
        "pkts_fname_row_id": lists(np.arange(size.size), traffic.counts, pl.Int64()),
        "pkts_timestamp": lists((traffic.time - _CDT * 10**9) / 1e9, traffic.counts, pl.Float64()),
        "pkts_size": lists(size, traffic.counts, pl.UInt32()),
        "pkts_is_ack": lists((traffic.payload == 0), traffic.counts, pl.Boolean()),
        "pkts_tcp_window_size": lists(np.full(size.size, 406), traffic.counts, pl.UInt32()),
        **{name: ends[name] for name in ("src_ip", "src_port", "dst_ip", "dst_port")},
        "packets": pl.Series(traffic.counts, dtype=pl.UInt32),
        "bytes": pl.Series(_sum(size, traffic.counts), dtype=pl.UInt32),
        "duration": _durations(traffic),
        "src_ip_is_private": [True] * n,
        "dst_ip_is_private": [False] * n,
        "client_ip": ends["src_ip"],
        "pkts_dir": lists(traffic.direction, traffic.counts, pl.Int8()),
        "is_valid_handshake": [True] * n,
        "pkts_size_times_dir": lists(size * traffic.direction, traffic.counts, pl.Int64()),
    }
    return pl.DataFrame(columns)


def lists(values: np.ndarray, counts: np.ndarray, kind: pl.DataType) -> pl.Series:
    """[flow] lists of `kind` out of flat values."""
    ends = np.cumsum(counts)
    flat = pl.Series(values).cast(kind).to_numpy()
    return pl.Series([flat[end - count : end] for end, count in zip(ends, counts, strict=True)], dtype=pl.List(kind))


def _names(traffic: Traffic, names: Sequence[str]) -> pl.Series:
    return pl.Series(names).gather(traffic.app % len(names))


def _parts(n: int, names: Sequence[str], rng: np.random.Generator) -> pl.Series:
    return pl.Series(names).gather(np.minimum(rng.geometric(0.8, n) - 1, len(names) - 1))


def _proto(traffic: Traffic) -> pl.Series:
    return pl.Series(np.where(traffic.protocol == TCP, "tcp", "udp"))


def _udp_lengths(traffic: Traffic) -> np.ndarray:
    return traffic.payload + np.where(traffic.protocol == TCP, 0, 8)[traffic.flow]


def _ends(traffic: Traffic) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "src_ip": dotted(traffic.client),
            "src_port": traffic.client_port,
            "dst_ip": dotted(traffic.server),
            "dst_port": traffic.server_port,
            "proto": traffic.protocol,
        }
    )


def dotted(address: np.ndarray) -> list[str]:
    """IPv4 addresses as text."""
    octets = np.asarray(address, ">u4").view(np.uint8).reshape(-1, 4).tolist()
    return [".".join(map(str, parts)) for parts in octets]


def _elapsed(traffic: Traffic) -> np.ndarray:
    return (traffic.time - traffic.time[starts_of(traffic.counts)][traffic.flow]) / 1e9


def _durations(traffic: Traffic) -> np.ndarray:
    return _elapsed(traffic)[np.cumsum(traffic.counts) - 1]


def _sum(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    total = np.r_[0, np.cumsum(values.astype(np.int64))]
    return total[np.cumsum(counts)] - total[starts_of(counts)]
