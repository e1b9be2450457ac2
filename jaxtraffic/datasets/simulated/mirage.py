"""Simulated traffic in the layouts of MIRAGE-2019 and MIRAGE-COVID-CCMA-2022.

Names of folders, files and packages, keys, nesting, bare NaN, the limit of 32 packets in 2019 and the two spellings of
"slack" are those of the real sets. Payload is not: at most 10 packets show up to 24 random bytes each, so that files
stay small, and statistics that take long are NaN (no reader of ours looks at them).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxtraffic.datasets.mirage.apps import BACKGROUND, FLOWS19, FLOWS22, FOLDERS22
from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.traffic import TCP, Traffic, simulate_traffic

TOP19 = "MIRAGE-2019_traffic_dataset_downloadable"
TOP22 = "MIRAGE-COVID-CCMA-2022"
DEVICES19 = ("Mi5_38_a4_ed_18_cc_bf", "Nexus7_bc_ee_7b_a4_09_47")
DEVICES22 = ("02:00:00:00:00:06", "02:00:00:00:00:51", "02:00:00:00:00:52")
ACTIVITIES22 = ("audiocall", "chat", "videocall")

BATCH = 2_000
"""Flows simulated at a time, at most; each app has one capture of them."""

CAPTURES = 12
"""Captures of each app where the set is not tiny."""

_SYSTEM = "com.google.android.gms"  # a package of no class: what else ran on the phone
_SHOWN_PACKETS, _SHOWN_BYTES = 10, 24
_FLAGS = {"": 0, "F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


@dataclasses.dataclass(frozen=True)
class _Year:
    """What differs between the sets: classes with background, captures from `start` on, and the flow as JSON."""

    classes: tuple[str, ...]
    start: float
    entry: Callable[[Traffic, int, str, int], dict]
    ending: str
    max_packets: int


def simulate_mirage19(folder: Path, n_flows: int, seed: int, *, packed: bool = False) -> None:
    """Writes captures as `MIRAGE-2019_traffic_dataset_downloadable/<device>/<time>_<package>_....json`.

    Args:
        folder: where to; it need not exist.
        n_flows: flows of all apps and of the background together.
        seed: the same seed gives the same bytes.
        packed: write the tar.gz as downloaded in place of the folder.
    """
    if not packed:
        for name, data in captures19(n_flows, seed):
            with replacing(folder / name) as temporary:
                temporary.write_bytes(data)
        return
    with (
        replacing(folder / f"{TOP19}_v2.tar.gz") as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, data in captures19(n_flows, seed):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def simulate_mirage22(folder: Path, n_flows: int, seed: int, *, packed: bool = False) -> None:
    """Writes captures into `MIRAGE-COVID-CCMA-2022/Raw_JSON/<App>.zip`.

    Args:
        folder: where to; it need not exist.
        n_flows: flows of all apps and of the background together.
        seed: the same seed gives the same bytes.
        packed: write the outer zip as downloaded, with the zips of the apps inside it.
    """
    if not packed:
        _write_zips(folder / TOP22 / "Raw_JSON", n_flows, seed)
        return
    with tempfile.TemporaryDirectory() as inner, replacing(folder / f"{TOP22}.zip") as temporary:
        _write_zips(Path(inner), n_flows, seed)
        with zipfile.ZipFile(temporary, "w") as outer:
            # the real archive has a second copy of the data, which no reader opens
            outer.writestr(_info(f"{TOP22}/Preprocessed_pickle/README"), b"simulated: nothing in here\n")
            for path in sorted(Path(inner).glob("*.zip")):
                info = _info(f"{TOP22}/Raw_JSON/{path.name}")
                with path.open("rb") as source, outer.open(info, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, 1 << 20)


def captures19(n_flows: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yields name and JSON of each capture of the simulated MIRAGE-2019."""
    for index, package, data in _captures(YEAR19, n_flows, (19, seed)):
        device = DEVICES19[index % len(DEVICES19)]
        yield f"{TOP19}/{device}/{_stamp(YEAR19, index)}_{package}_{YEAR19.ending}", data


def captures22(n_flows: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Yields the app's folder, name inside the app's zip and JSON of each capture of the simulated MIRAGE-22."""
    for index, package, data in _captures(YEAR22, n_flows, (22, seed)):
        app = FOLDERS22[package]
        # the label is spelt with a capital S, file names in both ways
        package = package.lower() if index % 2 else package
        yield app, f"{app}/{_stamp(YEAR22, index)}_{package}_{YEAR22.ending}", data


def _write_zips(folder: Path, n_flows: int, seed: int) -> None:
    with contextlib.ExitStack() as stack:
        archives: dict[str, zipfile.ZipFile] = {}
        for app, name, data in captures22(n_flows, seed):
            if app not in archives:
                temporary = stack.enter_context(replacing(folder / f"{app}.zip"))
                archives[app] = stack.enter_context(zipfile.ZipFile(temporary, "w"))
            archives[app].writestr(_info(name), data)


def _captures(year: _Year, n_flows: int, seed: tuple[int, int]) -> Iterator[tuple[int, str, bytes]]:
    """Yields number, package and JSON of each capture; background is dealt over the captures of all apps."""
    apps = [name for name in year.classes if name != BACKGROUND]
    background = year.classes.index(BACKGROUND)
    # a dozen captures of each app, so that folds can keep captures whole
    size = min(BATCH, max(50, -(-n_flows // CAPTURES)))
    for batch in range(-(-n_flows // size)):
        traffic = simulate_traffic(
            min(size, n_flows - batch * size),
            seed=(*seed, batch),
            n_apps=len(year.classes),
            start=year.start + batch * len(apps) * 60,
            max_packets=year.max_packets,
        )
        begin = starts_of(traffic.counts)
        rng = np.random.default_rng([*seed, batch])
        of_background = np.flatnonzero(traffic.app == background)
        for position, package in enumerate(apps):
            own = np.flatnonzero(traffic.app == year.classes.index(package))
            other = of_background[position :: len(apps)]
            document = {}
            for flow in np.sort(np.r_[own, other]).tolist():
                entry = year.entry(traffic, flow, package, int(begin[flow]))
                entry["packet_data"]["L4_raw_payload"] = _shown_payload(entry["packet_data"]["L4_payload_bytes"], rng)
                if traffic.app[flow] == background:
                    _make_background(entry["flow_metadata"], flow)
                document[_key(traffic, flow)] = entry
            if document:
                yield batch * len(apps) + position, package, json.dumps(document).encode()


def _make_background(metadata: dict, flow: int) -> None:
    """Of another package; where activities are known, every second flow is of the app but of no activity."""
    if "BF_activity" in metadata and flow % 2:
        metadata["BF_activity"] = "Unknown"
    else:
        metadata["BF_label"] = _SYSTEM


def _entry19(traffic: Traffic, flow: int, package: str, begin: int) -> dict:
    n = int(traffic.counts[flow])
    kept = slice(begin, begin + min(n, 32))
    lists = _lists(traffic, flow, kept)
    del lists["IP_packet_bytes"]
    return {
        "packet_data": lists,
        "flow_features": _features(traffic, slice(begin, begin + n)),
        "flow_metadata": {"BF_label": package, "BF_labeling_type": "exact"} | _totals(traffic, slice(begin, begin + n)),
    }


def _entry22(traffic: Traffic, flow: int, package: str, begin: int) -> dict:
    whole = slice(begin, begin + int(traffic.counts[flow]))
    n = whole.stop - begin
    flags = ["".join(letter for letter, bit in _FLAGS.items() if value & bit) for value in traffic.tcp_flags[whole]]
    header = traffic.header[whole]
    return {
        "packet_data": {"timestamp": (traffic.time[whole] / 1e9).tolist()}
        | _lists(traffic, flow, whole)
        | {
            "IP_header_bytes": [20] * n,
            "L4_header_bytes": (header - 20).tolist(),
            "TCP_flags": flags,
            "is_clear": [0] * n,
            "heuristic": [0] * n,
            "annotations": [0] * n,
        },
        "flow_features": _features(traffic, whole),
        "flow_metadata": {
            "BF_device": DEVICES22[flow % len(DEVICES22)],
            "BF_label_source": "netstat",
            "BF_label": package,
            "BF_sublabel": package,
            "BF_label_version_code": None,
            "BF_label_version_name": None,
            "BF_labeling_type": "most-common" if flow % 8 == 0 else "exact",
            "BF_activity": ACTIVITIES22[flow % len(ACTIVITIES22)],
            "UF_MSS": float("nan"),
            "UF_WS": float("nan"),
            "DF_MSS": "NaN",
            "DF_WS": "NaN",
        }
        | _totals(traffic, whole),
    }


def _lists(traffic: Traffic, flow: int, kept: slice) -> dict[str, list]:
    up = traffic.direction[kept] > 0
    client, server = int(traffic.client_port[flow]), int(traffic.server_port[flow])
    payload = traffic.payload[kept]
    gap = np.diff(traffic.time[kept], prepend=traffic.time[kept.start]) // 1000
    return {
        "src_port": np.where(up, client, server).tolist(),
        "dst_port": np.where(up, server, client).tolist(),
        "packet_dir": np.where(up, 0, 1).tolist(),
        "IP_packet_bytes": (payload + traffic.header[kept]).tolist(),
        "L4_payload_bytes": payload.tolist(),
        "iat": [microseconds / 1e6 for microseconds in gap.tolist()],
        "TCP_win_size": [1544 if traffic.protocol[flow] == TCP else 0] * payload.size,
    }


def _shown_payload(sizes: list[int], rng: np.random.Generator) -> list[list[int]]:
    shown = [min(size, _SHOWN_BYTES) for size in sizes[:_SHOWN_PACKETS]]
    values = rng.integers(0, 256, sum(shown)).tolist()
    return [[values.pop() for _ in range(n)] for n in shown] + [[] for _ in sizes[_SHOWN_PACKETS:]]


def _totals(traffic: Traffic, whole: slice) -> dict[str, float]:
    """Metadata of both directions (BF), of uploads (UF) and of downloads (DF)."""
    up = traffic.direction[whole] > 0
    payload, header, time = traffic.payload[whole], traffic.header[whole], traffic.time[whole]
    totals: dict[str, float] = {}
    for name, chosen in (("BF", slice(None)), ("UF", up), ("DF", ~up)):
        times = time[chosen]
        totals |= {
            f"{name}_num_packets": times.size,
            f"{name}_IP_packet_bytes": int((payload + header)[chosen].sum()),
            f"{name}_L4_payload_bytes": int(payload[chosen].sum()),
            f"{name}_duration": int(times[-1] - times[0]) / 1e9 if times.size else 0.0,
        }
    return totals


def _features(traffic: Traffic, whole: slice) -> dict[str, dict]:
    """Statistics by name and direction; what takes long or is not defined is NaN, as in the real files."""
    size = (traffic.payload[whole] + traffic.header[whole]).astype(float)
    gap = np.diff(traffic.time[whole], prepend=traffic.time[whole.start]) / 1e9
    up = traffic.direction[whole] > 0
    directions = (("biflow", slice(None)), ("upstream_flow", up), ("downstream_flow", ~up))
    return {
        name: {direction: _statistics(values[chosen]) for direction, chosen in directions}
        for name, values in (("packet_length", size), ("iat", gap))
    }


def _statistics(values: np.ndarray) -> dict[str, float]:
    nan = float("nan")
    names = ("min", "max", "mean", "std", "var", "mad", "skew", "kurtosis")
    ranked = np.sort(values)
    found = [nan] * 8
    if values.size:
        mean, var = float(values.mean()), float(values.var())
        found = [float(ranked[0]), float(ranked[-1]), mean, var**0.5, var, nan, nan, nan]
    percentiles = {
        f"{percent}_percentile": float(ranked[percent * (values.size - 1) // 100]) if values.size else nan
        for percent in range(10, 100, 10)
    }
    return dict(zip(names, found, strict=True)) | percentiles


def _key(traffic: Traffic, flow: int) -> str:
    ends = [
        ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0)) + f",{port}"
        for address, port in (
            (int(traffic.client[flow]), traffic.client_port[flow]),
            (int(traffic.server[flow]), traffic.server_port[flow]),
        )
    ]
    return f"{ends[0]},{ends[1]},{traffic.protocol[flow]}"


def _stamp(year: _Year, index: int) -> int:
    return int(year.start) + index * 60


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_STORED if name.endswith(".zip") else zipfile.ZIP_DEFLATED
    return info


YEAR19 = _Year(tuple(FLOWS19), 1_494_596_297.0, _entry19, "MIRAGE-2019_traffic_dataset_labeled_biflows.json", 100)
YEAR22 = _Year(
    tuple(FLOWS22),
    1_619_005_750.0,
    _entry22,
    "mirage2020dataset_labeled_biflows_all_packets_encryption_metadata.json",
    400,
)
