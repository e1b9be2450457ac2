"""Simulated NetFlow records in the layouts of NetShare, of UGR'16 and of CIDDS-001.

An exporter sees each direction of a flow as a record of its own. The classes are those of the sets; which application
stands for which attack is arbitrary, so that nothing measured here is a result about attacks.
"""

from __future__ import annotations

import gzip
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.netflow.fields import PROTOCOL_NAMES
from jaxtraffic.datasets.netflow.records import FlowRecords, write_netshare
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.marker import write_marker
from jaxtraffic.datasets.simulated.traffic import Traffic, simulate_traffic

UGR16_LABELS = (
    "background", "blacklist", "dos", "scan44", "scan11", "nerisbotnet", "anomaly-spam", "anomaly-udpscan",
    "anomaly-sshscan",
)  # fmt: skip
"""Labels of UGR'16, here of application 0, 1, ..."""

CIDDS_COLUMNS = (
    "Date first seen", "Duration", "Proto", "Src IP Addr", "Src Pt", "Dst IP Addr", "Dst Pt", "Packets", "Bytes",
    "Flows", "Flags", "Tos", "class", "attackType", "attackID", "attackDescription",
)  # fmt: skip
"""Header of CIDDS-001."""

CIDDS_CLASSES = (
    ("normal", "normal", "---"), ("attacker", "victim", "dos"), ("attacker", "victim", "portScan"),
    ("attacker", "victim", "bruteForce"), ("attacker", "victim", "pingScan"),
)  # fmt: skip
"""(class of the request, class of the answer, type of the attack) of application 0, 1, ..."""

_PING = 4
_AT_ONCE = 20_000  # flows


def direction_records(
    traffic: Traffic, labels: tuple[str, ...], name: str, *, by_end: bool = False
) -> tuple[FlowRecords, np.ndarray]:
    """Records of each direction of each flow.

    Args:
        traffic: flows.
        labels: label of each application.
        name: of the set.
        by_end: order by the ends, as an exporter sends them, in place of the starts.

    Returns:
        The records, and the TCP flags seen in each, [record] uint8.
    """
    record = traffic.flow * 2 + (traffic.direction < 0)
    order = np.argsort(record, kind="stable")
    keys, first, packets = np.unique(record[order], return_index=True, return_counts=True)
    time = traffic.time[order]
    begin, end = time[first], time[first + packets - 1]
    size = (traffic.payload + traffic.header).astype(np.int64)[order]
    flags = np.bitwise_or.reduceat(traffic.tcp_flags[order], first) if first.size else np.zeros(0, np.uint8)
    flow, back = keys // 2, keys % 2 == 1
    ends = [np.where(back, far, near) for near, far in (
        (traffic.client[flow], traffic.server[flow]), (traffic.server[flow], traffic.client[flow]),
        (traffic.client_port[flow], traffic.server_port[flow]), (traffic.server_port[flow], traffic.client_port[flow]),
    )]  # fmt: skip
    names = tuple(sorted(set(labels)))
    label = np.array([names.index(entry) for entry in labels], np.int32)[traffic.app[flow]]
    done = np.argsort(end if by_end else begin, kind="stable")
    columns = [
        *(values.astype(np.int64) for values in ends[:2]), *(values.astype(np.int32) for values in ends[2:]),
        traffic.protocol[flow].astype(np.int64), begin // 1000 / 1e6, (end - begin) // 1000 / 1e6,
        packets.astype(np.int64),
        np.add.reduceat(size, first) if first.size else np.zeros(0, np.int64), label, label,
    ]  # fmt: skip
    arrays = [values[done] for values in columns]
    return FlowRecords(*arrays, (), names, names, name, "simulated"), flags[done]


def simulate_netshare(folder: Path, n_flows: int, seed: int) -> None:
    """Writes `ugr16/raw.csv`, the layout that NetShare ships."""
    traffic = simulate_traffic(n_flows, seed=(seed, 1), n_apps=len(UGR16_LABELS), max_packets=1_000, dns=True)
    write_netshare(direction_records(traffic, UGR16_LABELS, "netshare")[0], folder / "ugr16" / "raw.csv")
    write_marker(folder, {"dataset": "netshare", "n_flows": n_flows, "seed": seed})


def simulate_ugr16(folder: Path, n_flows: int, seed: int) -> None:
    """Writes `april_week2_csv.tar.gz` with `uniq/april.week2.csv.uniqblacklistremoved`, as published: no header."""
    with tempfile.TemporaryFile() as table:
        for traffic in _traffic(n_flows, (seed, 2), len(UGR16_LABELS), 1_460_332_800.0):
            table.write(ugr16_rows(*direction_records(traffic, UGR16_LABELS, "ugr16", by_end=True)))
        member = tarfile.TarInfo("uniq/april.week2.csv.uniqblacklistremoved")
        member.size = table.tell()
        table.seek(0)
        with (
            replacing(folder / "april_week2_csv.tar.gz") as temporary,
            temporary.open("wb") as raw,
            gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=6) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            archive.addfile(member, table)
    write_marker(folder, {"dataset": "ugr16", "n_flows": n_flows, "seed": seed})


def simulate_cidds(folder: Path, n_flows: int, seed: int) -> None:
    """Writes a week inside and a week outside, as in CIDDS-001 below `CIDDS-001/traffic`."""
    outside = n_flows // 5
    weeks = (("OpenStack", "internal", n_flows - outside), ("ExternalServer", "external", outside))
    for number, (place, word, share) in enumerate(weeks):
        path = folder / "CIDDS-001" / "traffic" / place / f"CIDDS-001-{word}-week1.csv"
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write((",".join(CIDDS_COLUMNS) + "\n").encode())
            for traffic in _traffic(share, (seed, 3 + number), len(CIDDS_CLASSES), 1_489_536_000.0):
                file.write(cidds_rows(traffic, inside=word == "internal"))
    write_marker(folder, {"dataset": "cidds", "n_flows": n_flows, "seed": seed})


def _traffic(n_flows: int, seed: tuple[int, ...], n_apps: int, start: float) -> Iterator[Traffic]:
    """A week of traffic in parts that follow each other; flows are long enough for bytes in millions."""
    n_parts = max(-(-n_flows // _AT_ONCE), 1)
    span = 604_800.0 / n_parts
    for part in range(n_parts):
        n = min(_AT_ONCE, n_flows - part * _AT_ONCE)
        yield simulate_traffic(
            n, seed=(*seed, part), n_apps=n_apps, start=start + part * span, duration=span, max_packets=2_000, dns=True
        )


def _stamps(seconds: np.ndarray, form: str) -> pl.Series:
    return pl.Series(np.rint(seconds * 1e6).astype(np.int64)).cast(pl.Datetime("us")).dt.strftime(form)


def _fixed(seconds: np.ndarray) -> pl.Series:
    """Seconds with three decimals, as nfdump writes them."""
    whole = pl.Series(np.rint(seconds * 1000).astype(np.int64))
    return (whole // 1000).cast(pl.String) + "." + (whole % 1000).cast(pl.String).str.zfill(3)


def _flag_text(flags: np.ndarray, protocol: np.ndarray) -> list[str]:
    """Flags such as `.AP.SF`, as nfdump writes them."""
    known = [
        "".join(letter if value >> bit & 1 else "." for letter, bit in zip("UAPRSF", range(5, -1, -1), strict=True))
        for value in range(64)
    ]
    return np.array(known)[np.where(protocol == 6, flags, 0)].tolist()


def _table(columns: dict[str, object]) -> bytes:
    return pl.DataFrame(columns).write_csv(include_header=False, quote_style="never").encode()


def ugr16_rows(records: FlowRecords, flags: np.ndarray) -> bytes:
    """Rows as in UGR'16; the stamp is the end, in whole seconds."""
    return _table(
        {
            "te": _stamps(records.start + records.duration, "%Y-%m-%d %H:%M:%S"),
            "td": _fixed(records.duration),
            "sa": records.address_text(records.source_address),
            "da": records.address_text(records.destination_address),
            "sp": records.source_port,
            "dp": records.destination_port,
            "pr": [PROTOCOL_NAMES[number] for number in records.protocol.tolist()],
            "flg": _flag_text(flags, records.protocol),
            "fwd": np.zeros(len(records), np.int64),
            "stos": np.zeros(len(records), np.int64),
            "pkt": records.packets,
            "byt": records.bytes,
            "type": np.array(records.class_names, object)[records.label].tolist(),
        }
    )


def cidds_rows(traffic: Traffic, *, inside: bool) -> bytes:
    """Rows as in CIDDS-001: filled with spaces, bytes in millions, names in the place of public addresses."""
    records, flags = direction_records(traffic, tuple(map(str, range(len(CIDDS_CLASSES)))), "cidds")
    app = records.label
    ahead = records.source_port >= 32_768  # of client and server, only the client has such a port
    attack = np.array([kind for *_, kind in CIDDS_CLASSES], object)[app]
    ping = app == _PING
    protocol = np.where(ping, 1, records.protocol)
    address = {True: _public_names, False: _local_addresses}
    client, server = (
        np.array(
            address[public](np.where(ahead == is_client, records.source_address, records.destination_address)), object
        )
        for public, is_client in ((not inside, True), (True, False))
    )
    server = np.where(np.minimum(records.source_port, records.destination_port) == 53, "DNS", server)
    if not inside:
        server[:] = "EXT_SERVER"
    sender = np.array([[back, there] for there, back, _ in CIDDS_CLASSES], object)[app, ahead.astype(int)]
    number = np.where(attack == "---", "---", (app + 1).astype(str))
    port = np.where(ping, np.where(ahead, "8.0", "0.0"), records.destination_port.astype(str))
    large = records.bytes >= 1_000_000
    size = np.where(large, [f"{value / 1e6:.1f} M" for value in records.bytes.tolist()], records.bytes.astype(str))
    return _table(
        {
            "Date first seen": _stamps(records.start, "%Y-%m-%d %H:%M:%S%.3f"),
            "Duration": _fixed(records.duration).str.pad_start(9),
            "Proto": pl.Series([PROTOCOL_NAMES[value] for value in protocol.tolist()]).str.pad_end(5),
            "Src IP Addr": np.where(ahead, client, server).tolist(),
            "Src Pt": pl.Series(np.where(ping, 0, records.source_port)).cast(pl.String).str.pad_start(6),
            "Dst IP Addr": np.where(ahead, server, client).tolist(),
            "Dst Pt": pl.Series(port.tolist()).str.pad_start(6),
            "Packets": pl.Series(records.packets).cast(pl.String).str.pad_start(8),
            "Bytes": pl.Series(size.tolist()).str.pad_start(8),
            "Flows": ["    1"] * len(records),
            "Flags": _flag_text(flags, protocol),
            "Tos": ["  0"] * len(records),
            "class": sender.tolist(),
            "attackType": attack.tolist(),
            "attackID": number.tolist(),
            "attackDescription": ["---"] * len(records),
        }
    )


def _local_addresses(address: np.ndarray) -> list[str]:
    """Addresses of the company's nets."""
    return [f"192.168.{200 + value % 3 * 10}.{4 + value // 3 % 250}" for value in address.tolist()]


def _public_names(address: np.ndarray) -> list[str]:
    """Names such as `10008_34`, which keep only the last number of an address."""
    return [f"{10_000 + value // 256 % 9_000}_{value % 256}" for value in address.tolist()]
