"""A simulated stand-in for CESNET-QUIC22, written in the layout of the real set and read by the reader of the real set.

`simulate_cesnet` makes the stand-in of the demonstrations, which lets a first run work without a download; `simulate`
writes any number of flows under the names of the real set, for trying the reader. It is no substitute: nothing measured
on it is a result about real traffic, and everything made from it carries source "simulated".
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gzip
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl

from jaxtraffic.datasets.cesnet.ppi import MAX_PACKETS
from jaxtraffic.datasets.curation import largest_remainder
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.marker import MARKER, read_marker
from jaxtraffic.datasets.simulated.quic_model import CLIENTS, Packets, simulate_flows
from jaxtraffic.datasets.simulated.quic_services import SERVICES, STACKS, Service
from jaxtraffic.errors import DataError

VERSION = 1
"""Raise it when the same seed gives other files, so that old ones are replaced."""

DEFAULT_FLOWS = 22_000

COLUMNS = (
    "ID", "SRC_IP", "DST_IP", "DST_ASN", "SRC_PORT", "DST_PORT", "PROTOCOL", "QUIC_VERSION", "QUIC_SNI",
    "QUIC_USER_AGENT", "TIME_FIRST", "TIME_LAST", "DURATION", "BYTES", "BYTES_REV", "PACKETS", "PACKETS_REV", "PPI",
    "PPI_LEN", "PPI_DURATION", "PPI_ROUNDTRIPS", "PHIST_SRC_SIZES", "PHIST_DST_SIZES", "PHIST_SRC_IPT",
    "PHIST_DST_IPT", "APP", "CATEGORY", "FLOW_ENDREASON_IDLE", "FLOW_ENDREASON_ACTIVE", "FLOW_ENDREASON_OTHER",
)  # fmt: skip
"""Columns of a day file, in the order of the README of CESNET-QUIC22."""

ROWS_AT_ONCE = 10_000
"""Flows of a day that are made at a time."""

REAL_APPS = {
    "video-stream": ("youtube", "Streaming media"),
    "web-search": ("google-www", "Search"),
    "social-feed": ("facebook-graph", "Social"),
    "web-static": ("google-gstatic", "Other services and APIs"),
    "default-background": ("default-background", "default"),
    "social-media": ("facebook-media", "Social"),
    "cdn-scripts": ("cloudflare-cdnjs", "Other services and APIs"),
    "mail-sync": ("gmail", "Mail"),
    "web-fonts": ("google-fonts", "Other services and APIs"),
    "map-tiles": ("google-services", "Other services and APIs"),
    "chat-photos": ("whatsapp", "Instant messaging"),
    "music-stream": ("spotify", "Music"),
    "shop-front": ("alza-www", "E-commerce"),
    "news-site": ("medium", "Blogs & News"),
    "game-lobby": ("unitygames", "Games"),
    "ride-booking": ("uber", "Other services and APIs"),
    "resolver-dns": ("dns-doh", "Other services and APIs"),
    "weather-widget": ("pocasidata-cz", "Other services and APIs"),
}
"""Service -> APP and CATEGORY of the real set that `simulate` gives its flows (names of cesnet-datazoo)."""

_DAY = datetime.datetime(2022, 10, 31)
_N_DAYS = 28
_LOCAL = datetime.timedelta(hours=1)  # day files are cut at local midnight, times in them are UTC
_FOLDER = "simulated/cesnet-quic22"
_PROFILES = 6  # services that a background class is made of
_EDGES = np.array([16, 32, 64, 128, 256, 512, 1025])  # bins of the PHIST columns, README of CESNET-QUIC22


def simulate_cesnet(root: str | Path, *, n_flows: int = DEFAULT_FLOWS, seed: int = 0) -> Path:
    """Writes the stand-in under a data root, or finds the one that is there.

    The files are `simulated/cesnet-quic22/W-2022-44/1_Mon/flows-20221031.csv.gz` with its `stats-20221031.json`, and
    `servicemap.csv`, as in CESNET-QUIC22, and `simulated.json`, which is written last: without it, or with other
    settings in it, the files are made anew. Each file appears whole or not at all.

    Args:
        root: data root.
        n_flows: flows of all services together.
        seed: the same seed gives the same bytes.

    Returns:
        The folder `simulated/cesnet-quic22`.

    Raises:
        DataError: the folder cannot be written.
    """
    folder = Path(root) / _FOLDER
    day = folder / "W-2022-44" / "1_Mon"
    flows_file = day / f"flows-{_DAY:%Y%m%d}.csv.gz"
    settings = {"simulated": True, "version": VERSION, "n_flows": n_flows, "seed": seed}
    if flows_file.is_file() and read_marker(folder) == settings:
        return folder
    frame = _simulate_frame(n_flows, seed)
    apps = dict(frame.group_by("APP").len().sort("APP").iter_rows())
    contents = {
        flows_file: gzip.compress(frame.write_csv().encode(), compresslevel=6, mtime=0),
        day / f"stats-{_DAY:%Y%m%d}.json": _json({"global": {"total-saved": frame.height}, "apps": apps}),
        folder / "servicemap.csv": _service_map(),
        folder / MARKER: _json(settings),
    }
    try:
        (folder / MARKER).unlink(missing_ok=True)
        for path, content in contents.items():
            with replacing(path) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise DataError(
            folder,
            f"the simulated stand-in cannot be written: {error.strerror or error}",
            remedy="name a folder that can be written as data root, or set JAXTRAFFIC_DATA to one",
        ) from error
    return folder


def simulate(folder: str | Path, n_flows: int, seed: int) -> None:
    """Writes simulated flows in the layout and under the names of CESNET-QUIC22, `cesnet-quic22/W-2022-44/1_Mon/...`.

    A day has up to 22,000 flows; beyond the 28 days of the real set, days grow. The first hour of a day carries the
    date of the day before, as in the real set. No marker is written: it is for the caller to say that this is
    simulated.

    Args:
        folder: data root to write into.
        n_flows: flows of all days together.
        seed: the same seed gives the same bytes.
    """
    root = Path(folder) / "cesnet-quic22"
    n_days = min(max(math.ceil(n_flows / DEFAULT_FLOWS), 1), _N_DAYS)
    weeks: dict[str, Counter[str]] = {}
    for index, n in enumerate(largest_remainder([1] * n_days, n_flows)):
        date = _DAY + datetime.timedelta(days=index)
        week = f"W-{date:%G-%V}"
        day = root / week / f"{date.isoweekday()}_{date:%a}"
        frames = _day_frames(int(n), (seed, index), date - _LOCAL)
        with replacing(day / f"flows-{date:%Y%m%d}.csv.gz") as temporary, open_gzip(temporary) as file:
            apps = write_frames(frames, file)
        write_stats(day / f"stats-{date:%Y%m%d}.json", apps)
        weeks.setdefault(week, Counter()).update(apps)
    for week, apps in weeks.items():
        write_stats(root / week / "stats-week.json", apps)
    write_stats(root / "stats-dataset.json", sum(weeks.values(), Counter()))
    with replacing(Path(folder) / "servicemap.csv") as temporary:
        temporary.write_bytes(_service_map(REAL_APPS))


def _day_frames(n_flows: int, seed: tuple[int, ...], start: datetime.datetime) -> Iterator[pl.DataFrame]:
    """Flows of a day in the order of their start, a stretch of the day at a time."""
    n_parts = max(math.ceil(n_flows / ROWS_AT_ONCE), 1)
    stretch = datetime.timedelta(days=1) / n_parts
    first = 1
    for part, n in enumerate(largest_remainder([1] * n_parts, n_flows)):
        frame = _simulate_frame(int(n), (*seed, part), start=start + part * stretch, stretch=stretch)
        names = {old: new[0] for old, new in REAL_APPS.items()}
        categories = {old: new[1] for old, new in REAL_APPS.items()}
        yield frame.with_columns(
            pl.col("ID") + (first - 1),
            pl.col("APP").replace(names),
            pl.col("APP").replace_strict(categories).alias("CATEGORY"),
            pl.col("QUIC_SNI").str.strip_suffix(".example").replace(names) + ".example",
        )
        first += frame.height


@contextlib.contextmanager
def open_gzip(path: Path) -> Iterator[BinaryIO]:
    """A gzip file to write, without its name and the time in it, so that its bytes depend on the content alone."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        yield file


def write_frames(frames: Iterator[pl.DataFrame], file: BinaryIO) -> Counter[str]:
    """Writes frames as one CSV file; returns the flows of each APP."""
    apps: Counter[str] = Counter()
    for index, frame in enumerate(frames):
        file.write(frame.write_csv(include_header=index == 0).encode())
        apps.update(dict(frame.group_by("APP").len().iter_rows()))
    return apps


def write_stats(path: Path, apps: Counter[str]) -> None:
    """Writes a file of statistics as it lies beside a day file."""
    with replacing(path) as temporary:
        temporary.write_bytes(
            _json({"global": {"total-saved": sum(apps.values())}, "apps": dict(sorted(apps.items()))})
        )


def _simulate_frame(
    n_flows: int,
    seed: int | tuple[int, ...],
    *,
    start: datetime.datetime = _DAY,
    stretch: datetime.timedelta = datetime.timedelta(days=1),
) -> pl.DataFrame:
    """Flows that start in a stretch of time as the columns of CESNET-QUIC22, in the order of their start."""
    rng = np.random.default_rng([VERSION, *np.atleast_1d(seed)])
    stretch_us = stretch // datetime.timedelta(microseconds=1)
    parts = []
    for service, n in zip(SERVICES, largest_remainder([entry.flows for entry in SERVICES], n_flows), strict=True):
        profiles = _background(service, rng) if service.mixed else [service]
        for profile, share in zip(profiles, largest_remainder([1] * len(profiles), int(n)), strict=True):
            if share:
                parts.append(_rows(profile, simulate_flows(profile, int(share), rng), rng, start, stretch_us))
    if not parts:
        return pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.String)).with_columns(pl.col("ID").cast(pl.Int64))
    return pl.concat(parts).sort("TIME_FIRST", maintain_order=True).with_columns(ID=pl.int_range(1, pl.len() + 1))


def _background(service: Service, rng: np.random.Generator) -> list[Service]:
    """The small services behind a background class."""
    return [
        dataclasses.replace(
            service,
            stack=STACKS[index % len(STACKS)],
            request=((1.0, int(rng.integers(150, 900))),),
            objects=((0.6, int(rng.integers(400, 30_000))), (0.4, int(rng.integers(200, 4_000)))),
            tail_median=float(rng.integers(1_000, 20_000)),
        )
        for index in range(_PROFILES)
    ]


def _rows(
    service: Service, packets: Packets, rng: np.random.Generator, first_start: datetime.datetime, stretch_us: int
) -> pl.DataFrame:
    """Flows of one service as the 30 columns, ID still 0."""
    size, direction, gap = packets.size, packets.direction, packets.gap_ms
    n = len(size)
    lengths = (direction != 0).sum(axis=1)
    kept = np.minimum(lengths, MAX_PACKETS)
    first = {name: values[:, :MAX_PACKETS] for name, values in (("gap", gap), ("direction", direction), ("size", size))}
    turns = (first["direction"][:, 1:] != first["direction"][:, :-1]) & (first["direction"][:, 1:] != 0)
    start_us = np.sort(rng.integers(0, stretch_us, n))
    duration_us = gap.sum(axis=1).astype(np.int64) * 1000 + rng.integers(0, 1000, n)
    start = pl.lit(first_start).cast(pl.Datetime("us"))
    stamp = "%Y-%m-%dT%H:%M:%S%.6f"
    idle = rng.random(n) < 0.9
    lists = {name: list_text(values, kept) for name, values in first.items()}
    columns = {
        "ID": np.zeros(n, np.int64),
        "SRC_IP": addresses("10.{}.{}.{}", rng.integers(0, 256, (n, 3))),
        "DST_IP": addresses("192.0.2.{}", rng.integers(1, 255, (n, 1))),
        "DST_ASN": np.full(n, 64_500 + STACKS.index(service.stack) if service.stack in STACKS else 64_510),
        "SRC_PORT": rng.integers(32_768, 61_000, n),
        "DST_PORT": np.full(n, service.port),
        "PROTOCOL": np.full(n, 17),
        "QUIC_VERSION": np.ones(n, np.int64),
        "QUIC_SNI": [f"{service.tag}.example"] * n,
        # not every flow shows a user agent
        "QUIC_USER_AGENT": [
            CLIENTS[index].agent if shown else None for index, shown in zip(packets.client, rng.random(n) < 0.6)
        ],
        "start_us": start_us,
        "duration_us": duration_us,
        "DURATION": duration_us / 1e6,
        "BYTES": np.where(direction > 0, size, 0).sum(axis=1),
        "BYTES_REV": np.where(direction < 0, size, 0).sum(axis=1),
        "PACKETS": (direction > 0).sum(axis=1),
        "PACKETS_REV": (direction < 0).sum(axis=1),
        **lists,
        "PPI_LEN": kept,
        "PPI_DURATION": first["gap"].sum(axis=1) / 1000,
        "PPI_ROUNDTRIPS": turns.sum(axis=1),
        "PHIST_SRC_SIZES": histogram_text(size, direction == 1),
        "PHIST_DST_SIZES": histogram_text(size, direction == -1),
        "PHIST_SRC_IPT": histogram_text(gap, direction == 1),
        "PHIST_DST_IPT": histogram_text(gap, direction == -1),
        "APP": [service.tag] * n,
        "CATEGORY": [service.category] * n,
        "FLOW_ENDREASON_IDLE": idle.astype(np.int8),
        "FLOW_ENDREASON_ACTIVE": (~idle).astype(np.int8),
        "FLOW_ENDREASON_OTHER": np.zeros(n, np.int8),
    }
    frame = pl.DataFrame(columns).with_columns(
        TIME_FIRST=(start + pl.duration(microseconds="start_us")).dt.strftime(stamp),
        TIME_LAST=(start + pl.duration(microseconds=pl.col("start_us") + pl.col("duration_us"))).dt.strftime(stamp),
        PPI=pl.format("[{}, {}, {}]", "gap", "direction", "size"),
    )
    return frame.select(COLUMNS)


def addresses(pattern: str, octets: np.ndarray) -> list[str]:
    """[row] addresses: the octets of each row in the pattern."""
    return [pattern.format(*row) for row in octets.tolist()]


def list_text(values: np.ndarray, lengths: np.ndarray) -> pl.Series:
    """[flow] text such as `[0, 7, 14]` of the first `lengths` values of each row."""
    frame = pl.DataFrame({"values": values.astype(np.int32), "length": lengths})
    lists = pl.col("values").arr.to_list().list.head("length").cast(pl.List(pl.String))
    return frame.select(pl.format("[{}]", lists.list.join(", ")).alias("text"))["text"]


def histogram_text(values: np.ndarray, chosen: np.ndarray) -> pl.Series:
    """[flow] text of the 8 bins of a PHIST column."""
    n = len(values)
    cell = np.arange(n)[:, None] * 8 + np.digitize(values, _EDGES)
    counts = np.bincount(cell[chosen], minlength=n * 8).reshape(n, 8)
    return list_text(counts, np.full(n, 8))


def _service_map(names: dict[str, tuple[str, str]] | None = None) -> bytes:
    rows = []
    for service in SERVICES:
        tag, category = (names or {}).get(service.tag, (service.tag, service.category))
        rows.append(
            {
                "Tag": tag,
                "Service": tag.replace("-", " ").capitalize(),
                "Service Provider": service.stack.provider,
                "Service Category": category,
                "Service Domains": f"{tag}.example",
            }
        )
    return pl.DataFrame(rows).write_csv().encode()


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
