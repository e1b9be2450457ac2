"""Simulated traffic in the layout of UTMobileNet2021.

Folders, apps, columns, number formats and time text are those of the real set, and so is the share of files in each
folder. Actions are real names where they are known (those of `Action-Specific Wild Test Data`); checksums and the like
are made up. Every third file has no column `location`, and every second one an ICMP error with doubled cells and a row
of ARP.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.traffic import TCP, Traffic, simulate_traffic
from jaxtraffic.datasets.utmobilenet_packets import PARTITIONS

APPS = (
    "youtube", "reddit", "google-maps", "spotify", "netflix", "pinterest", "hulu", "instagram", "dropbox", "facebook",
    "twitter", "gmail", "pandora", "messenger", "google-drive", "hangout", "skype",
)  # fmt: skip
"""The 17 classes, most flows first, as published."""

ACTIONS = {
    "dropbox": ("download", "upload"),
    "facebook": ("scroll-newsfeed",),
    "gmail": ("open-email", "send-email"),
    "google-drive": ("download", "upload"),
    "google-maps": ("explore",),
}
"""Actions whose names are known; the other apps get "explore"."""

HEADER = (
    ",frame.number,frame.time,frame.len,frame.cap_len,sll.pkttype,sll.hatype,sll.halen,sll.src.eth,sll.unused,"
    "sll.etype,ip.hdr_len,ip.dsfield.ecn,ip.len,ip.id,ip.frag_offset,ip.ttl,ip.proto,ip.checksum,ip.src,ip.dst,"
    "tcp.hdr_len,tcp.len,tcp.srcport,tcp.dstport,tcp.seq,tcp.ack,tcp.flags.ns,tcp.flags.fin,tcp.window_size_value,"
    "tcp.checksum,tcp.urgent_pointer,tcp.option_kind,tcp.option_len,tcp.options.timestamp.tsval,"
    "tcp.options.timestamp.tsecr,udp.srcport,udp.dstport,udp.length,udp.checksum,gquic.puflags.rsv,"
    "gquic.packet_number,location"
)
"""Columns of a file, the first without a name."""

BATCH = 2_048
"""Flows simulated at a time."""

FILE_FLOWS = 9
"""Flows of a file, about as in the real set."""

START = 1_556_650_800.0
"""30 April 2019, 19:00 UTC."""

_BATCH_SECONDS = 6 * 3600
_SUMMER_SECONDS = 180 * 86_400  # 30 April plus this is still daylight saving time
_HOURS = 5  # that CDT is behind UTC


def simulate(folder: Path, n_flows: int, seed: int) -> None:
    """Writes captures as `csvs/<folder>/<app>_<action>_<date>_<time>_<hash>.csv`.

    Args:
        folder: where to; it need not exist.
        n_flows: flows of all apps together.
        seed: the same seed gives the same bytes.
    """
    for number, (app, traffic) in enumerate(captures(n_flows, seed)):
        data = capture_csv(traffic, location=number % 3 != 0, quirks=number % 2 == 0)
        with replacing(folder / _name(number, app, traffic)) as temporary:
            temporary.write_bytes(data)


def captures(n_flows: int, seed: int) -> Iterator[tuple[str, Traffic]]:
    """Yields app and traffic of each capture."""
    for batch in range(-(-n_flows // BATCH)):
        traffic = simulate_traffic(
            min(BATCH, n_flows - batch * BATCH),
            seed=(21, seed, batch),
            n_apps=len(APPS),
            start=START + batch * _BATCH_SECONDS % _SUMMER_SECONDS,
            dns=True,
        )
        for number, app in enumerate(APPS):
            own = np.flatnonzero(traffic.app == number)
            for first in range(0, own.size, FILE_FLOWS):
                yield app, pick(traffic, own[first : first + FILE_FLOWS])


def pick(traffic: Traffic, flows: np.ndarray) -> Traffic:
    """Some flows of a traffic, by their numbers in rising order."""
    packets = np.isin(traffic.flow, flows)
    per_flow = ("counts", "app", "protocol", "client", "server", "client_port", "server_port")
    per_packet = ("time", "direction", "payload", "header", "tcp_flags")
    return Traffic(
        **{name: getattr(traffic, name)[flows] for name in per_flow},
        **{name: getattr(traffic, name)[packets] for name in per_packet},
    )


def capture_csv(traffic: Traffic, *, location: bool, quirks: bool) -> bytes:
    """A file with the packets of all flows in order of time.

    Args:
        traffic: flows of one capture.
        location: whether the file has that column.
        quirks: whether it has an ICMP error with doubled cells and a row of ARP.
    """
    names = HEADER.split(",")
    frame = _rows(traffic)
    if quirks:
        last = frame.row(frame.height - 1, named=True)
        doubled = {name: f"{last[name]},{last[name]}" for name in ("ip.hdr_len", "ip.len", "ip.ttl", "ip.id")}
        sides = {"ip.src": f"{last['ip.dst']},{last['ip.src']}", "ip.dst": f"{last['ip.src']},{last['ip.dst']}"}
        arp = {"frame.time": last["frame.time"], "frame.len": "44", "sll.etype": "0x00000806"}
        extra = [last | doubled | sides | {"ip.proto": f"1.0,{last['ip.proto']}"}, arp]
        frame = pl.concat([frame, pl.DataFrame(extra, schema=frame.schema)])
    frame = frame.with_row_index("").with_columns(
        pl.col("").cast(pl.String), (pl.col("") + 1).cast(pl.String).alias("frame.number")
    )
    columns = names if location else names[:-1]
    text = frame.select(columns).write_csv(include_header=False, null_value="")
    return (",".join(columns) + "\n" + text).encode()


def _rows(traffic: Traffic) -> pl.DataFrame:
    """Packets as text in the columns of the format, in order of time."""
    flow, up = traffic.flow, traffic.direction > 0
    tcp = traffic.protocol[flow] == TCP
    sides = {"client": _addresses(traffic.client), "server": _addresses(traffic.server)}
    seq, ack = _sequence(traffic)
    total = traffic.payload + traffic.header
    ports = [traffic.client_port[flow], traffic.server_port[flow]]
    source_port, target_port = np.where(up, ports[0], ports[1]), np.where(up, ports[1], ports[0])
    client, server = sides["client"].gather(flow), sides["server"].gather(flow)
    up_series, tcp_series = pl.Series(up), pl.Series(tcp)

    def decimals(values: np.ndarray, where: pl.Series | None = None) -> pl.Series:
        text = pl.Series(values).cast(pl.Int64).cast(pl.String) + ".0"
        return text if where is None else text.set(~where, None)

    def only(value: str, where: pl.Series) -> pl.Series:
        return pl.Series([value]).new_from_index(0, where.len()).set(~where, None)

    everywhere = pl.Series(np.ones(tcp.size, bool))
    frame = pl.DataFrame(
        {
            "order": traffic.time,
            "frame.time": _time_text(traffic.time),
            "frame.len": pl.Series(total + 16).cast(pl.String),
            "frame.cap_len": pl.Series(np.minimum(total + 16, 68)).cast(pl.String),
            "sll.pkttype": pl.Series(np.where(up, 4, 0)).cast(pl.String),
            "sll.hatype": only("1", everywhere),
            "sll.halen": only("6", everywhere),
            "sll.src.eth": pl.Series(["98:f1:70:7c:4b:27"]).new_from_index(0, tcp.size),
            "sll.unused": only("0000", everywhere),
            "sll.etype": only("0x00000800", everywhere),
            "ip.hdr_len": only("20.0", everywhere),
            "ip.dsfield.ecn": only("0.0", everywhere),
            "ip.len": decimals(total),
            "ip.id": only("0x00004405", everywhere),
            "ip.frag_offset": only("0.0", everywhere),
            "ip.ttl": decimals(np.where(up, 64, 55)),
            "ip.proto": decimals(traffic.protocol[flow]),
            "ip.checksum": only("0x00001eb4", everywhere),
            "ip.src": client.zip_with(up_series, server),
            "ip.dst": server.zip_with(up_series, client),
            "tcp.hdr_len": decimals(traffic.header - 20, tcp_series),
            "tcp.len": decimals(traffic.payload, tcp_series),
            "tcp.srcport": decimals(source_port, tcp_series),
            "tcp.dstport": decimals(target_port, tcp_series),
            "tcp.seq": decimals(seq, tcp_series),
            "tcp.ack": decimals(ack, tcp_series),
            "tcp.flags.ns": only("0.0", tcp_series),
            "tcp.flags.fin": decimals(traffic.tcp_flags & 1, tcp_series),
            "tcp.window_size_value": only("406.0", tcp_series),
            "tcp.checksum": only("0x000016e0", tcp_series),
            "tcp.urgent_pointer": only("0.0", tcp_series),
            "tcp.option_kind": only("1,1,8", tcp_series),
            "tcp.option_len": only("10", tcp_series),
            "tcp.options.timestamp.tsval": decimals(traffic.time // 1_000_000 % (1 << 32), tcp_series),
            "tcp.options.timestamp.tsecr": decimals(traffic.time // 1_000_000 % (1 << 32), tcp_series),
            "udp.srcport": decimals(source_port, ~tcp_series),
            "udp.dstport": decimals(target_port, ~tcp_series),
            "udp.length": decimals(traffic.payload + 8, ~tcp_series),
            "udp.checksum": only("0x00009d5d", ~tcp_series),
            "gquic.puflags.rsv": pl.Series([None], dtype=pl.String).new_from_index(0, tcp.size),
            "gquic.packet_number": pl.Series([None], dtype=pl.String).new_from_index(0, tcp.size),
            "location": only("EER", everywhere),
        }
    )
    return frame.sort("order", maintain_order=True).drop("order")


def _sequence(traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
    """[packet] relative sequence and acknowledgement numbers: a SYN and a FIN count as a byte."""
    step = traffic.payload + ((traffic.tcp_flags & 3) > 0)
    sent = []
    for side in (1, -1):
        before = np.cumsum(np.where(traffic.direction == side, step, 0))
        own = np.where(traffic.direction == side, step, 0)
        start = (before - own)[starts_of(traffic.counts)] if own.size else before
        sent.append(before - own - np.repeat(start, traffic.counts))
    up = traffic.direction > 0
    return np.where(up, sent[0], sent[1]), np.where(up, sent[1], sent[0])


def _addresses(values: np.ndarray) -> pl.Series:
    octets = [(values >> shift) & 255 for shift in (24, 16, 8, 0)]
    return pl.Series([".".join(map(str, row)) for row in zip(*(octet.tolist() for octet in octets), strict=True)])


def _time_text(time: np.ndarray) -> pl.Series:
    """As tshark prints: the day of the month takes two places."""
    local = pl.Series(time - _HOURS * 3600 * 1_000_000_000).cast(pl.Datetime("ns"))
    return local.dt.strftime("%b %e, %Y %H:%M:%S%.9f CDT")


def _name(number: int, app: str, traffic: Traffic) -> str:
    """Path of a capture: folders take turns in proportion to the number of their files in the real set."""
    shares = list(itertools.accumulate(PARTITIONS.values()))
    # 1,009 is prime to the number of files, so that every folder comes up early and as often as it should
    at = number * 1_009 % shares[-1]
    partition = next(name for name, end in zip(PARTITIONS, shares, strict=True) if at < end)
    actions = ACTIONS.get(app, ("explore",))
    action = ("man-" if "Wild" in partition else "") + actions[number % len(actions)]
    local = pl.Series([int(traffic.time[0])]).cast(pl.Datetime("ns")).dt.offset_by(f"-{_HOURS}h")
    stamp = local.dt.strftime("%Y-%m-%d_%H-%M-%S")[0]
    return f"csvs/{partition}/{app}_{action}_{stamp}_{0x4FD1C357 + number:08x}.csv"
