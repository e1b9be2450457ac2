"""A flow with packets of size 0 and IAT 0 in its middle and at its end, in every format that can hold one."""

import dataclasses
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.interchange import write_parquet
from jaxtraffic.datasets.simulated import tcbench
from jaxtraffic.datasets.simulated.traffic import simulate_traffic
from jaxtraffic.series import PacketSeries
from tests.datasets import test_ipfixprobe, utmobilenet_captures
from tests.datasets.capture import captures
from tests.datasets.cesnet.raw_files import YEAR22_HEADER, YEAR22_ROW, row, write_day, write_hdf5, write_xz_day
from tests.datasets.mirage.raw_files import NAME19, NAME22, document, entry, make_zip

SIZE, DIRECTION, IAT = (100, 0, 300, 0), (1, -1, 1, -1), (0.0, 0.0, 0.25, 0.0)
"""The flow: packets 2 and 4 have size 0 and IAT 0."""

_MS = [0, 0, 250, 0]
_LISTS = json.dumps([_MS, list(DIRECTION), list(SIZE)])
_START_US = 1_600_000_000_000_000


@dataclasses.dataclass(frozen=True)
class Case:
    """A source of one flow: `write(folder)` gives its path; header is what sizes hold beside the payload."""

    dataset: str
    write: Callable[[Path], Path]
    layer: str = "payload"
    header: int = 0
    size: tuple[int, ...] = SIZE
    direction: tuple[int, ...] = DIRECTION
    iat: tuple[float, ...] = IAT


def _put(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def _tls22(folder: Path) -> Path:
    text = f'PPI,APP\n"{_LISTS}",teams\n'
    return _put(folder / "CESNET-TLS22/W-2021-40/1_Mon/flows-20211004.csv.gz", gzip.compress(text.encode()))


def _tls22_xz(folder: Path) -> Path:
    text = f'PPI,APP\n"{_LISTS[:-1]}, [1, 0, 1, 0]]",teams\n'
    return _put(folder / "CESNET-TLS22/W-2021-40/1_Mon/flows-20211004.csv.xz", lzma.compress(text.encode()))


def _year22(folder: Path) -> Path:
    old = "[[0, 1, 18, 0], [1, -1, 1, 1], [517, 146, 51, 0], "
    assert old in YEAR22_ROW
    return write_xz_day(folder, f"{YEAR22_HEADER}\n{YEAR22_ROW.replace(old, _LISTS[:-1] + ', ')}\n")


def _hdf5(folder: Path) -> Path:
    ppi = np.zeros((1, 3, 30), np.int16)
    ppi[0, :, :4] = _MS, DIRECTION, SIZE
    return write_hdf5(folder / "CESNET-QUIC22-XS.h5", {"D20221031": (ppi, [3])})


def _mirage(label: str) -> dict:
    changes = {
        "packet_dir": [0, 1, 0, 1],
        "L4_payload_bytes": list(SIZE),
        "IP_packet_bytes": [size + 40 for size in SIZE],
        "iat": list(IAT),
    }
    return document(entry(4, label, **changes))


def _mirage19(folder: Path) -> Path:
    return _put(folder / NAME19.format("com.waze"), json.dumps(_mirage("com.waze")))


def _mirage22(folder: Path) -> Path:
    name = f"Discord/{NAME22.format('com.discord')}"
    return _put(
        folder / "MIRAGE-COVID-CCMA-2022/Raw_JSON/Discord.zip", make_zip({name: json.dumps(_mirage("com.discord"))})
    )


def _utmobilenet(folder: Path) -> Path:
    clock = np.cumsum(_MS).tolist()
    rows = [
        utmobilenet_captures.packet(time, up=direction > 0, tcp=False, payload=size)
        for time, direction, size in zip(clock, DIRECTION, SIZE)
    ]
    return utmobilenet_captures.write(folder, rows)


def _ucdavis(folder: Path) -> Path:
    clock = np.cumsum(IAT)
    lines = [
        f"{1527988122 + time:.9f}\t{time:g}\t{size}\t{int(direction > 0)}\n"
        for time, direction, size in zip(clock, DIRECTION, SIZE)
    ]
    return _put(folder / "pretraining/Google Doc/GoogleDoc-1000.txt", "".join(lines))


def _capture(name: str, *, ng: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        frames = []
        for time, direction, size in zip(np.cumsum(_MS).tolist(), DIRECTION, SIZE):
            ends = {"source": 50_000, "target": 443} if direction > 0 else {"source": 443, "target": 50_000}
            hosts = ("10.0.0.1", "192.0.2.9")[::direction]
            packet = captures.ipv4(captures.udp(bytes(size), **ends), 17, source=hosts[0], target=hosts[1])
            frames.append((_START_US + 1000 * time, captures.ethernet(packet)))
        if not ng:
            return _put(folder / name, captures.pcap(frames))
        blocks = [captures.enhanced(time, frame) for time, frame in frames]
        return _put(folder / name, b"".join([captures.section(), captures.interface(), *blocks]))

    return write


def _nfstream(folder: Path) -> Path:
    cells = [[0, 1, 0, 1, -1], [*SIZE, -1], [*_MS, -1]]
    lists = ",".join(f'"{values}"' for values in cells)
    head = "protocol,src_port,dst_port,splt_direction,splt_ps,splt_piat_ms,application_name"
    return _put(folder / "flows.csv", f"{head}\n17,50000,443,{lists},QUIC.YouTube\n")


def _ipfixprobe(folder: Path) -> Path:
    times = [f"2016-10-28T17:07:52.{625 + time:03d}696" for time in np.cumsum(_MS)]
    arrays = ["[" + "|".join(map(str, cells)) + "]" for cells in (DIRECTION, [24] * 4, SIZE, times)]
    line = f"10.0.0.2,10.0.0.1,{times[0]},2,2,443,50123,6,{','.join(arrays)},web"
    return _put(folder / "flows.csv", f"{test_ipfixprobe.HEADER},string LABEL\n{line}\n")


def _tcbench(name: str, generation: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        transport = "udp" if name == "ucdavis19" else "both"
        whole = simulate_traffic(40, seed=0, transport=transport)
        at = int(np.argmax((whole.counts > 12) & (whole.protocol == 17)))
        part = slice(int(whole.counts[:at].sum()), int(whole.counts[: at + 1].sum()))
        kept = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
        per_packet = ("time", "direction", "payload", "header", "tcp_flags")
        flow = {key: values[part][:4] if key in per_packet else values[at : at + 1] for key, values in kept.items()}
        flow |= {
            "counts": np.array([4]),
            "direction": np.array(DIRECTION, np.int8),
            "payload": np.array(SIZE, np.int32),
        }
        flow["time"] = flow["time"][0] + np.cumsum(_MS) * 1_000_000
        table = getattr(tcbench, f"{name}_{generation}")(type(whole)(**flow), np.random.default_rng(0))
        if (name, generation) == ("mirage19", "v1"):
            # tcbench left out acknowledgements here, which is no reason to take a size of 0 for anything else
            up = [int(direction < 0) for direction in DIRECTION]
            lists = {"pkts_size": list(SIZE), "pkts_dir": up, "timetofirst": np.cumsum(IAT).tolist()}
            table = table.with_columns(pl.Series(key, [values]) for key, values in lists.items())
        folder.mkdir(parents=True, exist_ok=True)
        table.write_parquet(folder / f"{name}.parquet")
        return folder / f"{name}.parquet"

    return write


def series(layer: str = "payload") -> PacketSeries:
    """The flow, and one of a single packet, as packet series."""
    size, direction, iat = np.zeros((2, 6), np.int16), np.zeros((2, 6), np.int8), np.zeros((2, 6), np.float32)
    size[0, :4], direction[0, :4], iat[0, :4] = SIZE, DIRECTION, IAT
    direction[1, 0] = 1
    label = np.array([0, 1], np.int32)
    return PacketSeries(size, direction, iat, label, class_names=("web", "mail"), size_layer=layer).check()


def _parquet(folder: Path) -> Path:
    write_parquet(series()[np.array([0])], folder / "own.parquet")
    return folder / "own.parquet"


def _parquet_of_others(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"app": ["web"], "pkts_size": [list(SIZE)], "pkts_dir": [list(DIRECTION)], "pkts_iat": [list(IAT)]}
    pl.DataFrame(columns).write_parquet(folder / "theirs.parquet")
    return folder / "theirs.parquet"


_UNSW = "youtube_collection/pcap/android/app.pcapng"
CASES: dict[str, Case] = {
    "cesnet_quic": Case("cesnet_quic", lambda folder: write_day(folder, [row(_LISTS)])),
    "cesnet_quic hdf5": Case("cesnet_quic", _hdf5),
    "cesnet_tls gz": Case("cesnet_tls", _tls22),
    "cesnet_tls xz with push flags": Case("cesnet_tls", _tls22_xz),
    "cesnet_tls_year": Case("cesnet_tls_year", _year22),
    "mirage19": Case("mirage19", _mirage19),
    "mirage22": Case("mirage22", _mirage22),
    "mirage22 ip": Case("mirage22", _mirage22, "ip", 40),
    "utmobilenet21": Case("utmobilenet21", _utmobilenet),
    "utmobilenet21 ip": Case("utmobilenet21", _utmobilenet, "ip", 28),
    "ucdavis19": Case("ucdavis19", _ucdavis),
    "pcap": Case("pcap", _capture("web/a.pcap")),
    "pcap ip": Case("pcap", _capture("web/a.pcap"), "ip", 28),
    "pcapng": Case("pcap", _capture("web/a.pcapng", ng=True)),
    "unsw24": Case("unsw24", _capture(_UNSW, ng=True)),
    "unsw24 ip": Case("unsw24", _capture(_UNSW, ng=True), "ip", 28),
    "iscx_vpn": Case("iscx_vpn", _capture("VPN-PCAPS-01/vpn_skype_audio1.pcap")),
    "iscx_vpn ip": Case("iscx_vpn", _capture("VPN-PCAPS-01/vpn_skype_audio1.pcap"), "ip", 28),
    **{
        f"tcbench {name} {generation}": Case("tcbench", _tcbench(name, generation))
        for name, generation in (("mirage19", "v1"), ("mirage19", "dev"), ("ucdavis19", "v1"))
    },
    # tcbench's development version lost the first packet of each flow of this set
    "tcbench ucdavis19 dev": Case(
        "tcbench", _tcbench("ucdavis19", "dev"), size=(0, 300, 0), direction=(-1, 1, -1), iat=(0.0, 0.25, 0.0)
    ),
    "tcbench utmobilenet21 v1": Case("tcbench", _tcbench("utmobilenet21", "v1")),
    "tcbench utmobilenet21 dev": Case("tcbench", _tcbench("utmobilenet21", "dev"), "ip", 28),
    "nfstream": Case("nfstream", _nfstream),
    "ipfixprobe": Case("ipfixprobe", _ipfixprobe),
    "parquet": Case("parquet", _parquet),
    "parquet of others": Case("parquet", _parquet_of_others, "ip"),
}
"""AppClassNet is missing: it has no times, and its zeros stand for nothing but padding; IAT 0 is all it has."""
