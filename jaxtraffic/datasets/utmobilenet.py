"""UTMobileNet2021: 17 Android apps, one CSV of packets a capture, from which flows are rebuilt.

Heng, Chandrasekhar and Andrews, IEEE Networking Letters 2021 (doi 10.1109/LNET.2021.3098455). The set is a zip, or the
folder in it: `csvs/<one of four folders>/<app>_<action>_<date>_<time>_<hash>.csv`, written by tshark. Columns are found
by name. A flow is what shares addresses, ports and protocol, both ways, within ONE file, as in tcbench's development
version (its version 1 joined flows of several files); there is no time-out. Packets are put in order of time.

The raw data have no direction. The client of a flow is the sender of its first packet where the flow begins with a TCP
handshake (three packets without payload: there, back, there; there is no column for the SYN flag), or where not exactly
one of its two addresses is private. Everywhere else it is the private address: that is the phone, and a flow that was
under way when the capture began may show a packet of the server first. tcbench version 1 takes the first sender always,
and turns such flows round; its development version takes the private address always, and turns round connections that
come from outside, and all flows between two private addresses whose server speaks first.

Sizes are the transport payload (`tcp.len`, and `udp.length` less the 8 bytes of the header that it includes) or the IP
total length (`ip.len`).

Not settled by any source: whether the times of winter carry "CST" (read as UTC-6; other zones are refused), and whether
every file has sizes for every packet (packets without are left out and counted).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.curation import HANDSHAKE, NO_DNS
from jaxtraffic.datasets.dataset import Dataset, Published
from jaxtraffic.datasets.documents import Document, documents
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, check_layer, clip_sizes, make_block
from jaxtraffic.datasets.ragged import MAX_SIZE, Fields, Ragged, starts_of
from jaxtraffic.datasets.simulated.utmobilenet import simulate
from jaxtraffic.datasets.utmobilenet_packets import PARTITIONS, TCP, read_packets
from jaxtraffic.errors import DataError

DNS_PORTS = (53, 853, 5353)
"""DNS, DNS over TLS or QUIC, multicast DNS."""

_PRIVATE = ((0x0A000000, 8), (0xAC100000, 12), (0xC0A80000, 16), (0x64400000, 10))
"""Networks of RFC 1918, and of RFC 6598, which mobile operators give to phones: first address, bits of the prefix."""

_NAME = re.compile(r"[^._][^_]*_[^_]+_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]+\.csv")
_CLIPPED = f"packets over {MAX_SIZE} bytes, kept with that size"
_SIZE_FIELDS = {"payload": "tcp.len or udp.length", "ip": "ip.len"}


def find(place: Path) -> list[Path]:
    """Sources of the set: its CSV files, one by one, or where there are none, the zip as downloaded.

    Args:
        place: a data root, the folder of the set, of a part of it, a CSV file or the zip.
    """
    if place.is_file():
        return [place] if _is_capture(place) or _is_archive(place) else []
    folders = ("*.csv",) if place.name in PARTITIONS else tuple(f"{part}/*.csv" for part in PARTITIONS)
    for depth in range(4):
        found = [path for folder in folders for path in place.glob("*/" * depth + folder) if _is_capture(path)]
        # stand-ins lie apart and are not mixed in
        found = [path for path in found if "simulated" not in path.relative_to(place).parts]
        if found:
            return sorted(found)
    for depth in range(3):
        found = [path for path in place.glob("*/" * depth + "*.zip") if _is_archive(path)]
        if found:
            return sorted(found)[-1:]
    return []


def _is_capture(path: Path) -> bool:
    known = path.absolute().parent.name in PARTITIONS or bool(_NAME.fullmatch(path.name))
    return known and path.name.lower().endswith(".csv") and not path.name.startswith(".") and path.is_file()


def _is_archive(path: Path) -> bool:
    return bool(re.fullmatch(r"(?i)utmobilenet.*\.zip", path.name)) and path.is_file()


def read(path: Path, options: ReadOptions) -> Iterator[FlowBlock]:
    """Yields the flows of a CSV file, or of every CSV file in the zip, a block a file.

    Raises:
        DataError: a file that cannot be read whole and right.
        ConfigError: sizes of a layer that the format does not know.
    """
    layer = check_layer(options, UTMOBILENET21.size_layers, UTMOBILENET21.title)
    n_captures = 0
    for document in documents(path, (".csv",)):
        parts = document.name.parts
        # a file given alone has its folder above it, one in an archive inside its name
        folder = parts[-2] if len(parts) > 1 else path.absolute().parent.name
        partition = folder if folder in PARTITIONS else None
        if document.name.name.startswith(".") or not (partition or _NAME.fullmatch(document.name.name)):
            continue
        n_captures += 1
        yield _read_capture(document, partition, layer, options)
    if not n_captures:
        raise DataError(
            path,
            "no capture of UTMobileNet2021 in it",
            expected="CSV files <app>_<action>_<date>_<time>_<hash>.csv in a folder such as 'Wild Test Data'",
            remedy="fetch the file again",
        )


def _read_capture(document: Document, partition: str | None, layer: str, options: ReadOptions) -> FlowBlock:
    """The flows of one file, in order of their first packet."""
    words = document.name.stem.split("_")
    if len(words) < 2 or not words[0]:
        raise DataError(
            document.where,
            f"the file name {document.name.name!r} says no app",
            expected="<app>_<action>_<date>_<time>_<hash>.csv, as published",
            remedy="give the file its name back: the classes come from it",
        )
    app, action = (_without_surrogates(word) for word in words[:2])
    name = _without_surrogates(document.name.name)
    packets, dropped = read_packets(document.stream, document.where, layer)
    packets = packets.sort("time", maintain_order=True)
    forward = pl.col("source") <= pl.col("target")
    groups = (
        packets.with_row_index("row")
        .group_by(
            pl.min_horizontal("source", "target").alias("low"),
            pl.max_horizontal("source", "target").alias("high"),
            "protocol",
            maintain_order=True,
        )
        .agg("row")
    )
    counts = groups["row"].list.len().cast(pl.Int64).to_numpy()
    order = groups["row"].explode(empty_as_null=False).to_numpy()
    flat = packets.select("time", "payload", "size", "source", "target", forward.alias("forward"))[order]
    return _block(
        flat,
        counts,
        groups["protocol"].to_numpy(),
        {"capture": f"{partition}/{name}" if partition else name, "partition": partition, "activity": action},
        app,
        dropped,
        document.where,
        layer,
        options,
    )


def _block(
    flat: pl.DataFrame,
    counts: np.ndarray,
    protocol: np.ndarray,
    facts: dict[str, object],
    app: str,
    dropped: Counter[str],
    where: str,
    layer: str,
    options: ReadOptions,
) -> FlowBlock:
    first = starts_of(counts)
    time, source, target = (flat[name].to_numpy() for name in ("time", "source", "target"))
    handshake = _with_handshake(flat, counts, protocol)
    # source and target are address and port in one number
    first_private, second_private = (is_private(ends[first] >> 16) for ends in (source, target))
    turned = ~handshake & second_private & ~first_private
    client = np.where(turned, target[first], source[first])
    server = np.where(turned, source[first], target[first])
    direction = np.where(source == np.repeat(client, counts), 1, -1)
    size, n_clipped = clip_sizes(flat["size"].to_numpy())
    if n_clipped:
        dropped[_CLIPPED] += n_clipped
    ports = [ends & 0xFFFF for ends in (client, server)]
    gap = np.diff(time, prepend=time[:1])
    gap[first] = 0
    return make_block(
        Ragged(counts, size, direction, gap),
        pl.Series("label", [app], dtype=pl.String).new_from_index(0, counts.size),
        facts
        | {
            "start": time[first] / 1e9,
            "protocol": protocol,
            "client_port": ports[0],
            "server_port": ports[1],
            "is_dns": np.isin(ports, DNS_PORTS).any(axis=0),
            "has_handshake": pl.Series(handshake).set(pl.Series(protocol != TCP), None),
        },
        options,
        where,
        Fields(_SIZE_FIELDS[layer], "ip.src", "frame.time", "nanoseconds"),
        size_layer=layer,
        iat_per_second=1e9,
        dropped=dict(dropped),
    )


def _with_handshake(flat: pl.DataFrame, counts: np.ndarray, protocol: np.ndarray) -> np.ndarray:
    """[flow] bool: TCP flows that begin with three packets without payload: there, back, there."""
    first = starts_of(counts)
    empty, forward = flat["payload"].to_numpy() == 0, flat["forward"].to_numpy()
    result = (protocol == TCP) & (counts >= 3)
    for offset in range(3):
        at = np.minimum(first + offset, max(flat.height - 1, 0))
        result &= empty[at] & ((forward[at] == forward[first]) == (offset != 1))
    return result


def is_private(address: np.ndarray) -> np.ndarray:
    """[...] bool: IPv4 addresses (as numbers) of networks that are not routed in the Internet."""
    return np.logical_or.reduce([address >> (32 - bits) == network >> (32 - bits) for network, bits in _PRIVATE])


def _without_surrogates(name: str) -> str:
    """A file name that is no UTF-8 stays readable, and becomes text that every writer takes."""
    return name.encode("utf-8", "replace").decode("utf-8")


UTMOBILENET21 = Dataset(
    name="utmobilenet21",
    title="UTMobileNet2021 (17 Android apps used by scripts and by people, whole flows)",
    obtain="download UTMobileNet2021.zip with a browser from utexas.app.box.com/s/okrimcsz1mn9ec4j667kbb00d9gt16ii and "
    "put it, as it is or unpacked (then files are read in parallel), into the folder utmobilenet21 of the data root",
    licence="GPLv3",
    find=find,
    read=read,
    size_layers=("payload", "ip"),
    payload_only=True,
    # Thesis (Wang 2025, Table 8.4): 9 classes of at least 223 flows. DNS and missing handshakes are dropped as in the
    # curation of tcbench's development version, flows of up to 10 packets with payload as in tcbench (Table 4.1), and
    # classes under 200 flows as the thesis does in every set of fewer than 100,000 flows (min_flows None).
    rules=(NO_DNS, HANDSHAKE),
    min_packets=11,
    published=Published(
        "tcbench, samples count of the unfiltered set (Finamore et al., IMC 2023; Wang 2025, Table 4.1). Its version 1 "
        "joined flows of several files, so that a few more flows than these are right",
        files=sum(PARTITIONS.values()),
        flows=34_378,
        classes=17,
        flows_per_class={
            "youtube": 5591, "reddit": 4370, "google-maps": 4347, "spotify": 2550, "netflix": 2237, "pinterest": 2165,
            "hulu": 1839, "instagram": 1778, "dropbox": 1752, "facebook": 1654, "twitter": 1494, "gmail": 1133,
            "pandora": 949, "messenger": 837, "google-drive": 803, "hangout": 720, "skype": 159,
        },
    ),
    simulate=simulate,
)  # fmt: skip
"""UTMobileNet2021."""
