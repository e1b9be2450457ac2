"""Simulated TLS flows in the layouts of CESNET-TLS-Year22 and CESNET-TLS22.

The columns of CESNET-TLS-Year22 are those of a published sample, in its order. The CSV layout of CESNET-TLS22 is not
published: what is written is the columns that cesnet-datazoo names for it, in the folders of CESNET-QUIC22.
"""

from __future__ import annotations

import datetime
import functools
import lzma
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.cesnet.ppi import MAX_PACKETS
from jaxtraffic.datasets.curation import largest_remainder
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.cesnet_quic import (
    ROWS_AT_ONCE,
    addresses,
    histogram_text,
    list_text,
    open_gzip,
    write_frames,
    write_stats,
)
from jaxtraffic.datasets.simulated.traffic import Traffic, simulate_traffic

_FLAGS = {"CWR": 128, "ECE": 64, "URG": 32, "ACK": 16, "PSH": 8, "RST": 4, "SYN": 2, "FIN": 1}
_FLAG_COLUMNS = tuple(f"FLAG_{name}{suffix}" for name in _FLAGS for suffix in ("", "_REV"))

YEAR22_COLUMNS = (
    "ID", "SRC_IP", "DST_IP", "DST_ASN", "DST_PORT", "PROTOCOL", "TLS_SNI", "TLS_JA3", "TIME_FIRST", "TIME_LAST",
    "DURATION", "BYTES", "BYTES_REV", "PACKETS", "PACKETS_REV", "PPI_LEN", "PPI_DURATION", "PPI_ROUNDTRIPS", "APP",
    "CATEGORY", *_FLAG_COLUMNS, "FLOW_ENDREASON_IDLE", "FLOW_ENDREASON_ACTIVE", "FLOW_ENDREASON_END",
    "FLOW_ENDREASON_OTHER", "PPI", "PHIST_SRC_SIZES", "PHIST_DST_SIZES", "PHIST_SRC_IPT", "PHIST_DST_IPT",
)  # fmt: skip
"""The 45 columns of a day file of CESNET-TLS-Year22, in order."""

TLS22_COLUMNS = (
    "ID", "BYTES", "BYTES_REV", "PACKETS", "PACKETS_REV", "DURATION", "PPI_LEN", "PPI_ROUNDTRIPS", "PPI_DURATION",
    *_FLAG_COLUMNS, "APP", "CATEGORY", "PPI",
)  # fmt: skip
"""Columns written for CESNET-TLS22, which has neither packet histograms nor times nor addresses."""

YEAR22_APPS = {
    "google-www": "Search",
    "youtube": "Media",
    "outlook": "Mail",
    "instagram": "Social",
    "apple-push": "Notifications",
    "whatsapp": "Instant messaging",
    "spotify": "Music",
    "microsoft-update": "Software updates",
    "dropbox": "File sharing",
    "steam": "Games",
    "doh": "Other services",
    "default-background": "default",
}
"""APP -> CATEGORY of the simulated flows; names of cesnet-datazoo, one of them DNS."""

TLS22_APPS = {
    "google-www": "Search",
    "youtube": "Streaming media",
    "outlook": "Mail",
    "instagram": "Social",
    "apple-push": "Notification services",
    "whatsapp": "Instant messaging",
    "spotify": "Music",
    "microsoft-update": "Software updates",
    "dropbox": "File sharing",
    "steam": "Games",
    "dns-doh": "Other services and APIs",
}
"""APP -> CATEGORY of the simulated flows; names of cesnet-datazoo, one of them DNS."""

EMPTY_DAY = datetime.date(2022, 12, 31)
"""A day file of zero bytes after decompression, as in the real set."""

FLOWS_PER_DAY = 20_000
"""Flows of a day; beyond the days that there are, days grow."""

_YEAR22_FIRST, _TLS22_FIRST = datetime.date(2022, 5, 8), datetime.date(2021, 10, 4)
_LOCAL = datetime.timedelta(hours=2)  # day files are cut at local (summer) midnight, times in them are UTC
_MIN_PACKETS = 3  # shortest PPI in the sample of CESNET-TLS-Year22


_OPEN = {"gz": open_gzip, "xz": functools.partial(lzma.LZMAFile, mode="wb", preset=2)}


def simulate_year22(folder: str | Path, n_flows: int, seed: int) -> None:
    """Writes `CESNET-TLS-Year22/WEEK-2022-18/2022-05-08/flows-20220508.csv.xz`, further days, and an empty day.

    Args:
        folder: data root to write into.
        n_flows: flows of all days together; flows of fewer than 3 packets with payload are left out of it.
        seed: the same seed gives the same bytes.
    """
    root = Path(folder) / "CESNET-TLS-Year22"
    weeks: dict[str, Counter[str]] = {}
    for index, (date, n) in enumerate(_days(_YEAR22_FIRST, n_flows, 200)):
        frames = _day_frames(n, (22, seed, index), date, YEAR22_APPS, push=True)
        # %W numbers the days before the first Monday 0, as WEEK-2022-00 does
        week = f"WEEK-{date:%Y-%W}"
        apps = _write_day(root / week / f"{date}", date, (frame.select(YEAR22_COLUMNS) for frame in frames), "xz")
        weeks.setdefault(week, Counter()).update(apps)
    for week, apps in weeks.items():
        write_stats(root / week / "stats-week.json", apps)
    _write_day(root / f"WEEK-{EMPTY_DAY:%Y-%W}" / f"{EMPTY_DAY}", EMPTY_DAY, iter(()), "xz")


def simulate_tls22(folder: str | Path, n_flows: int, seed: int) -> None:
    """Writes `CESNET-TLS22/W-2021-40/1_Mon/flows-20211004.csv.gz` and further days.

    Args:
        folder: data root to write into.
        n_flows: flows of all days together; flows of fewer than 3 packets with payload are left out of it.
        seed: the same seed gives the same bytes.
    """
    root = Path(folder) / "CESNET-TLS22"
    for index, (date, n) in enumerate(_days(_TLS22_FIRST, n_flows, 14)):
        frames = _day_frames(n, (21, seed, index), date, TLS22_APPS, push=False)
        day = root / f"W-{date:%G-%V}" / f"{date.isoweekday()}_{date:%a}"
        _write_day(day, date, (frame.select(TLS22_COLUMNS) for frame in frames), "gz")


def _days(first: datetime.date, n_flows: int, most: int) -> list[tuple[datetime.date, int]]:
    n_days = min(max(math.ceil(n_flows / FLOWS_PER_DAY), 2), most)
    shares = largest_remainder([1] * n_days, n_flows)
    return [(first + datetime.timedelta(days=index), int(n)) for index, n in enumerate(shares)]


def _write_day(day: Path, date: datetime.date, frames: Iterator[pl.DataFrame], kind: str) -> Counter[str]:
    """Writes the day file ("xz" or "gz") and its statistics; returns the flows of each APP."""
    with replacing(day / f"flows-{date:%Y%m%d}.csv.{kind}") as temporary, _OPEN[kind](temporary) as file:
        apps = write_frames(frames, file)
    write_stats(day / f"stats-{date:%Y%m%d}.json", apps)
    return apps


def _day_frames(
    n_flows: int, seed: tuple[int, ...], date: datetime.date, categories: dict[str, str], *, push: bool
) -> Iterator[pl.DataFrame]:
    """Flows of a day in the order of their start, a stretch of the day at a time."""
    n_parts = max(math.ceil(n_flows / ROWS_AT_ONCE), 1)
    start = datetime.datetime.combine(date, datetime.time(), datetime.UTC) - _LOCAL
    first = 1
    for part, n in enumerate(largest_remainder([1] * n_parts, n_flows)):
        traffic = simulate_traffic(
            int(n),
            seed=(*seed, part),
            n_apps=len(categories),
            transport="tcp",
            start=start.timestamp() + part * 86_400 / n_parts,
            duration=86_400 / n_parts,
        )
        frame = flow_frame(traffic, categories, np.random.default_rng([*seed, part]), push=push)
        yield frame.with_columns(pl.col("ID") + first)
        first += frame.height


def flow_frame(traffic: Traffic, categories: dict[str, str], rng: np.random.Generator, *, push: bool) -> pl.DataFrame:
    """Flows as the columns of CESNET-TLS-Year22, ID from 0.

    As the exporter does: packets without payload are left out of PPI and the histograms, times are whole milliseconds
    between the packets that stay, and at most 30 packets are kept.

    Args:
        traffic: TCP flows.
        categories: APP -> CATEGORY in the order of the applications of the traffic.
        rng: for what the traffic does not say.
        push: whether PPI has its fourth list, push flags.
    """
    flow, up = traffic.flow, traffic.direction > 0
    kept = traffic.payload > 0
    n_kept = np.bincount(flow[kept], minlength=len(traffic))
    size, direction, time_ms, pushed = (
        _padded(values[kept], n_kept)
        for values in (traffic.payload, traffic.direction, traffic.time // 1_000_000, (traffic.tcp_flags & 8) > 0)
    )
    gap = np.where(direction != 0, np.diff(time_ms, axis=1, prepend=time_ms[:, :1]), 0)
    length = np.minimum(n_kept, MAX_PACKETS)
    ppi = [values[:, :MAX_PACKETS] for values in (gap, direction, size, pushed)][: 4 if push else 3]
    turned = (ppi[1][:, 1:] != ppi[1][:, :-1]) & (ppi[1][:, 1:] != 0)
    ends = np.cumsum(traffic.counts)
    first_us, last_us = traffic.time[ends - traffic.counts] // 1000, traffic.time[ends - 1] // 1000
    seen = {
        f"FLAG_{name}{suffix}": np.bincount(flow[side & ((traffic.tcp_flags & bit) > 0)], minlength=len(traffic)) > 0
        for name, bit in _FLAGS.items()
        for suffix, side in (("", up), ("_REV", ~up))
    }
    ended = seen["FLAG_FIN"] | seen["FLAG_RST"]
    names = np.array(list(categories))[traffic.app]
    stamp = "%Y-%m-%dT%H:%M:%S%.6f"
    lists = {f"list{index}": list_text(values, length) for index, values in enumerate(ppi)}
    columns = {
        "SRC_IP": addresses("10.{}.{}.{}", _octets(traffic.client)[:, 1:]),
        "DST_IP": addresses("{}.{}.{}.{}", _octets(traffic.server)),
        "DST_ASN": 64_500 + traffic.app,
        "DST_PORT": np.full(len(traffic), 443),
        "PROTOCOL": traffic.protocol,
        "TLS_SNI": [f"{name}.example" for name in names],
        "TLS_JA3": rng.choice([f"{value:032x}" for value in (1, 0xAB, 0xCDE)], len(traffic)),
        "first": first_us,
        "last": last_us,
        "DURATION": (last_us - first_us) / 1e6,
        "BYTES": np.bincount(flow[up], traffic.payload[up], len(traffic)).astype(np.int64),
        "BYTES_REV": np.bincount(flow[~up], traffic.payload[~up], len(traffic)).astype(np.int64),
        "PACKETS": np.bincount(flow[up], minlength=len(traffic)),
        "PACKETS_REV": np.bincount(flow[~up], minlength=len(traffic)),
        "PPI_LEN": length,
        "PPI_DURATION": ppi[0].sum(axis=1) / 1000,
        "PPI_ROUNDTRIPS": turned.sum(axis=1),
        "APP": names,
        "CATEGORY": np.array(list(categories.values()))[traffic.app],
        **{name: column.astype(np.int8) for name, column in seen.items()},
        "FLOW_ENDREASON_IDLE": (~ended).astype(np.int8),
        "FLOW_ENDREASON_ACTIVE": np.zeros(len(traffic), np.int8),
        "FLOW_ENDREASON_END": ended.astype(np.int8),
        "FLOW_ENDREASON_OTHER": np.zeros(len(traffic), np.int8),
        **lists,
        "PHIST_SRC_SIZES": histogram_text(size, direction == 1),
        "PHIST_DST_SIZES": histogram_text(size, direction == -1),
        "PHIST_SRC_IPT": histogram_text(gap, direction == 1),
        "PHIST_DST_IPT": histogram_text(gap, direction == -1),
    }
    frame = pl.DataFrame(columns).with_columns(
        pl.from_epoch("first", time_unit="us").dt.strftime(stamp).alias("TIME_FIRST"),
        pl.from_epoch("last", time_unit="us").dt.strftime(stamp).alias("TIME_LAST"),
        pl.format(f"[{', '.join(['{}'] * len(lists))}]", *lists).alias("PPI"),
    )
    return frame.filter(pl.col("PPI_LEN") >= _MIN_PACKETS).with_columns(ID=pl.int_range(pl.len()))


def _padded(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[flow, position] values of flows laid end to end, 0 after the last packet."""
    mask = np.arange(max(int(counts.max(initial=0)), MAX_PACKETS)) < counts[:, None]
    out = np.zeros(mask.shape, np.int64)
    out[mask] = values
    return out


def _octets(addresses_v4: np.ndarray) -> np.ndarray:
    """[address, 4] octets of IPv4 addresses."""
    return addresses_v4.astype(">u4").view(np.uint8).reshape(-1, 4)
