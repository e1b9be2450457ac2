"""How fast are raw files read, beside what people use today, and does memory stay flat as files grow?

    pip install pandas scapy dpkt                      # contenders; nothing else here needs them
    python benchmarks/ingest.py                        # a simulated CESNET day and a capture of several megabytes
    python benchmarks/ingest.py --flows 200000 --capture-megabytes 100 --memory

CESNET CSV.gz, one file: the library (decompress, parse, judge, pad), pandas with json.loads for each PPI cell (what
published notebooks do), and `gunzip` alone (zlib to nowhere). Captures: the library (packets to labelled flows), a
plain loop over `scapy.PcapReader` and one over dpkt, both of which only take addresses, ports and lengths out of each
packet and make no flows. All take turns in one process. `--memory` reads a file and one ten times as large in processes
of their own and compares their highest resident memory.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import tyro
from measure import quantity

from jaxtraffic import datasets
from jaxtraffic.datasets.flow_block import ReadOptions

NOTES = [
    "library rows hold every step up to blocks of flows; the cesnet row also pads and labels them.",
    "a packet of the scapy and dpkt loops is dissected and its 5-tuple and length looked at; no flows are made.",
    "memory: highest resident size of a process that imports, reads block by block and keeps nothing.",
]


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the benchmark."""

    flows: int = 200_000
    """Flows of the simulated CESNET day."""
    capture_flows: int = 3_000
    """Flows of the simulated capture, which is repeated to its size."""
    capture_megabytes: int = 20
    """Size of the capture for the library and dpkt."""
    scapy_packets: int = 5_000
    """Packets that the scapy loop is timed over: it is slow, and its time is proportional."""
    rounds: int = 3
    """Figures to take of each contender."""
    memory: bool = False
    """Also compare the memory of a file and of one ten times as large."""
    out: Path | None = None
    """JSON file; default: benchmarks/results/ingest-<device kind>.json."""
    measure_memory_of: str | None = None
    """Internal: read this file, print the highest resident memory and stop. FORMAT:FILE."""


def main(options: Options) -> None:
    """Runs the contests and writes the JSON."""
    if options.measure_memory_of is not None:
        _print_memory(options.measure_memory_of)
        return
    measure.start()
    device = measure.describe_device()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        rows += _cesnet(Path(folder), options)
        rows += _captures(Path(folder), options)
        if options.memory:
            rows += _memory(Path(folder), options)
    _show(rows)
    document = measure.result("ingest", options, device, rows, notes=NOTES)
    path = options.out or measure.default_path("ingest")
    measure.write_json(path, document)
    sys.stdout.write(f"{path}\n")


def _cesnet(folder: Path, options: Options) -> list[dict[str, Any]]:
    datasets.simulate("cesnet_quic", folder / "cesnet", n_flows=options.flows)
    path = _one_day(folder)
    dataset = datasets.describe("cesnet_quic")
    n_flows = sum(len(block) for block in dataset.read(path, ReadOptions()))
    calls: dict[str, Callable[[], Any]] = {
        "jaxtraffic": lambda: _collect(dataset, path),
        "pandas + json.loads": lambda: _pandas(path),
        "gunzip": lambda: _gunzip(path),
    }
    timings = measure.race(calls, rounds=options.rounds, may_fail=("pandas + json.loads",))
    return _rows("cesnet csv.gz", "flows", dict.fromkeys(calls, n_flows), path, timings)


def _one_day(folder: Path) -> Path:
    """All simulated days as one day file, header once, compressed as gzip does by default."""
    days = datasets.describe("cesnet_quic").find(folder / "cesnet")
    texts = [gzip.decompress(day.read_bytes()) for day in days]
    body = b"".join([texts[0], *(text[text.index(b"\n") + 1 :] for text in texts[1:])])
    path = folder / "one" / days[0].name
    path.parent.mkdir()
    path.write_bytes(gzip.compress(body, 6))
    return path


def _captures(folder: Path, options: Options) -> list[dict[str, Any]]:
    path, packets = _make_capture(folder, options.capture_flows, options.capture_megabytes << 20)
    small, few = _cut_capture(path, folder / "small.pcap", options.scapy_packets)
    dataset = datasets.describe("pcap")
    calls: dict[str, Callable[[], Any]] = {
        "jaxtraffic": lambda: [len(block) for block in dataset.read(path, ReadOptions())],
        "dpkt loop": lambda: _dpkt(path),
        "scapy loop": lambda: _scapy(small),
    }
    timings = measure.race(calls, rounds=options.rounds, may_fail=("dpkt loop", "scapy loop"))
    counts = {"jaxtraffic": packets, "dpkt loop": packets, "scapy loop": few}
    return _rows("pcap", "packets", counts, path, timings)


def _collect(dataset: Any, path: Path) -> int:
    from jaxtraffic.datasets.reading import read_source

    return len(read_source(dataset, path, ReadOptions()))


def _pandas(path: Path) -> np.ndarray:
    import pandas

    frame = pandas.read_csv(path)
    out = np.zeros((len(frame), 3, 30), np.float32)
    for index, cell in enumerate(frame["PPI"]):
        ppi = json.loads(cell)
        out[index, :, : len(ppi[0])] = ppi
    frame["APP"].astype("category").cat.codes.to_numpy()
    return out


def _gunzip(path: Path) -> int:
    member, total = zlib.decompressobj(wbits=31), 0
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            while data:
                total += len(member.decompress(data, 4 << 20))
                data = member.unconsumed_tail
    return total


def _scapy(path: Path) -> int:
    from scapy.all import IP, TCP, UDP, IPv6, PcapReader

    total = 0
    with PcapReader(str(path)) as packets:
        for packet in packets:
            layer = packet.getlayer(IP) or packet.getlayer(IPv6)
            transport = packet.getlayer(TCP) or packet.getlayer(UDP)
            if layer is not None and transport is not None:
                total += len((layer.src, layer.dst, transport.sport, transport.dport, packet.time)) and len(layer)
    return total


def _dpkt(path: Path) -> int:
    import dpkt

    total = 0
    with path.open("rb") as file:
        for _, data in dpkt.pcap.Reader(file):
            layer = dpkt.ethernet.Ethernet(data).data
            if isinstance(layer, dpkt.ip.IP | dpkt.ip6.IP6) and isinstance(layer.data, dpkt.tcp.TCP | dpkt.udp.UDP):
                total += len((layer.src, layer.dst, layer.data.sport, layer.data.dport)) and len(layer)
    return total


def _make_capture(folder: Path, n_flows: int, n_bytes: int) -> tuple[Path, int]:
    """A simulated capture, repeated an hour later each time until it is large enough."""
    flows, _ = datasets.load_with_counts("cesnet_quic", path=folder / "cesnet", max_flows=n_flows, curated=False)
    once = folder / "once.pcap"
    from jaxtraffic.datasets.export.pcap import write_pcap

    write_pcap(flows, once, transport="udp")
    data = once.read_bytes()
    header, records = data[:24], data[24:]
    offsets = _record_offsets(records)
    path = folder / "capture.pcap"
    repeats = max(1, n_bytes // len(records))
    times = np.frombuffer(records, np.uint8)
    with path.open("wb") as file:
        file.write(header)
        for repeat in range(repeats):
            copy = times.copy()
            for byte, shift in enumerate((0, 8, 16, 24)):
                seconds = _seconds(records, offsets) + np.uint32(3600 * repeat)
                copy[offsets + byte] = (seconds >> np.uint32(shift)).astype(np.uint8)
            file.write(copy.tobytes())
    return path, len(offsets) * repeats


def _seconds(records: bytes, offsets: np.ndarray) -> np.ndarray:
    view = np.frombuffer(records, np.uint8)
    return sum(view[offsets + byte].astype(np.uint32) << np.uint32(8 * byte) for byte in range(4))


def _record_offsets(records: bytes) -> np.ndarray:
    offsets, at = [], 0
    while at < len(records):
        offsets.append(at)
        at += 16 + struct.unpack_from("<I", records, at + 8)[0]
    return np.array(offsets)


def _cut_capture(path: Path, small: Path, packets: int) -> tuple[Path, int]:
    with path.open("rb") as file:
        data = file.read(24 + packets * 2000)
    offsets = _record_offsets(data[24 : 24 + packets * 1600][: len(data) - 24 - 2000])
    count = min(packets, len(offsets) - 1)
    small.write_bytes(data[: 24 + int(offsets[count])])
    return small, count


def _rows(kind: str, unit: str, counts: dict[str, int], path: Path, timings: Any) -> list[dict[str, Any]]:
    rows = []
    base = counts["jaxtraffic"] / timings["jaxtraffic"].median
    for name, timing in timings.items():
        row = {"file": kind, "contender": name, "unit": unit, "count": counts[name], "bytes": path.stat().st_size}
        row |= timing.row()
        if timing.error is None:
            row["per_s"] = counts[name] / timing.median
            row["library_times_faster"] = base / row["per_s"]
        rows.append(row)
    return rows


def _memory(folder: Path, options: Options) -> list[dict[str, Any]]:
    rows = []
    for kind, make in (("cesnet_quic", _grow_csv), ("pcap", _grow_capture)):
        peaks = []
        for factor in (1, 10):
            path = make(folder, factor)
            command = [sys.executable, __file__, "--measure-memory-of", f"{kind}:{path}"]
            peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            rows.append({"file": kind, "contender": f"memory, file x{factor}", "bytes": path.stat().st_size})
            rows[-1] |= {"peak_rss_bytes": peaks[-1], "ratio_to_x1": peaks[-1] / peaks[0]}
    return rows


def _grow_csv(folder: Path, factor: int) -> Path:
    """The simulated day as `factor` gzip members, the header in the first one only."""
    [source] = (folder / "one").iterdir()
    text = gzip.decompress(source.read_bytes())
    end = text.index(b"\n") + 1
    path = folder / f"x{factor}" / source.name
    path.parent.mkdir(exist_ok=True)
    body = gzip.compress(text[end:], 1)
    path.write_bytes(gzip.compress(text[:end], 1) + body * factor)
    return path


def _grow_capture(folder: Path, factor: int) -> Path:
    data = (folder / "capture.pcap").read_bytes()
    path = folder / f"x{factor}.pcap"
    with path.open("wb") as file:
        file.write(data)
        for _ in range(factor - 1):
            file.write(data[24:])
    return path


def _print_memory(what: str) -> None:
    kind, _, path = what.partition(":")
    for _ in datasets.describe(kind).read(Path(path), ReadOptions()):
        pass
    # not ru_maxrss, which a process has from its parent
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    sys.stdout.write(f"{int(peak[1]) * 1024}\n")


def _show(rows: list[dict[str, Any]]) -> None:
    shown = []
    for row in rows:
        speed = quantity(row["per_s"], f"{row['unit']}/s") if "per_s" in row else row.get("error", "")[:60]
        ratio = f"{row['library_times_faster']:.2f}" if "library_times_faster" in row else ""
        memory = (
            f"{row['peak_rss_bytes'] / 2**20:.0f} MiB, x{row['ratio_to_x1']:.2f}" if "peak_rss_bytes" in row else ""
        )
        shown.append([f"{row['file']}: {row['contender']}", quantity(row["bytes"], "B"), speed, ratio, memory])
    measure.show("reading raw files", ["file", "size", "speed", "library times faster", "peak memory"], shown)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
