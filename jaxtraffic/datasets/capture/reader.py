"""Reads a capture file, pcap or pcapng, into labelled flows.

The file is read to its end or refused. What is left out on the way (packets that are not TCP or UDP over IP, packets
whose headers were not captured, malformed ones) is counted by reason. Only the outer headers of tunnels are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl

from jaxtraffic.datasets.capture import containers, network
from jaxtraffic.datasets.capture.addresses import Networks, texts
from jaxtraffic.datasets.capture.flow_table import Flows, FlowSettings, FlowTable
from jaxtraffic.datasets.capture.fragments import Fragments
from jaxtraffic.datasets.capture.link_types import READ_LINK_TYPES, refusal
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, check_layer, clip_sizes, make_block
from jaxtraffic.datasets.ragged import Fields, Ragged, starts_of
from jaxtraffic.errors import ConfigError, DataError

SIZE_LAYERS = ("ip", "payload")
"""What the sizes can be: total length of the IP packet, or bytes behind the TCP or UDP header."""

IDLE_TIMEOUT, ACTIVE_TIMEOUT = 65.0, 300.0
"""Seconds; those of ipfixprobe, with which the CESNET sets were made."""

MAX_FLOWS = 1_000_000
"""Flows that are open at a time."""

DNS_PORTS = (53, 853, 5353)
"""DNS, DNS over TLS or QUIC, and multicast DNS."""

CLIPPED = "sizes cut to 32767 bytes (segmentation offload on the capturing host)"
UNTIMED = "packets without a time in the file (kept, with the time of the packet before)"
UNLABELLED = "flows without a label"

Label = str | Callable[[pl.DataFrame], pl.Series]
"""A label for all flows, or what gives labels to a frame with the columns client_address, client_port, server_address,
server_port, protocol (6 TCP, 17 UDP) and start (seconds since 1970): [flow] strings; null leaves the flow out."""

_FIELDS = Fields("packet length", "direction", "time", "seconds")
_FLOWS_PER_BLOCK = 4096
_MAX_SECONDS = 1e9


def read_capture(
    path: Path,
    options: ReadOptions,
    *,
    label: Label,
    capture: str | None = None,
    idle_timeout: float = IDLE_TIMEOUT,
    active_timeout: float = ACTIVE_TIMEOUT,
    max_flows: int = MAX_FLOWS,
    client_network: str | None = None,
    allow_truncated: bool = False,
) -> Iterator[FlowBlock]:
    """Reads the flows of a capture file.

    Flows are bidirectional, by addresses, ports and protocol, TCP and UDP, IPv4 and IPv6; see `flow_table` for where
    they end and who the client is. The fact "packets" counts the packets of the whole flow; with `payload_only`, those
    with payload. The last block tells what was left out at the end, and may have no flows.

    Args:
        path: pcap or pcapng file, plain or in gzip.
        options: of the reading; the size layer is "ip" where they do not say.
        label: of all flows, or what gives it to each; see `Label`.
        capture: name of the file in the facts; the name of the path where it is None.
        idle_timeout: seconds without a packet after which a flow has ended.
        active_timeout: seconds after which a flow is cut and goes on as a new one.
        max_flows: flows that are open at a time; beyond it, those that had no packet for longest end early and are
            counted.
        client_network: networks of clients, such as "10.0.0.0/8": of a flow with one side inside, that is the client.
        allow_truncated: keep what came before where the file ends in the middle of a packet.

    Raises:
        DataError: not a capture, damaged, of a link type that is not read, or cut in the middle of a packet.
        ConfigError: options that do not fit.
    """
    try:
        stream = Path(path).open("rb")  # noqa: SIM115  closed below
    except OSError as error:
        raise DataError(
            path, f"cannot be read: {error.strerror or error}", expected="a readable file", remedy="check the path"
        ) from error
    with stream:
        yield from read_stream(
            stream,
            str(path),
            options,
            label=label,
            capture=Path(path).name if capture is None else capture,
            idle_timeout=idle_timeout,
            active_timeout=active_timeout,
            max_flows=max_flows,
            client_network=client_network,
            allow_truncated=allow_truncated,
        )


def read_stream(
    stream: BinaryIO,
    where: str,
    options: ReadOptions,
    *,
    label: Label,
    capture: str,
    idle_timeout: float = IDLE_TIMEOUT,
    active_timeout: float = ACTIVE_TIMEOUT,
    max_flows: int = MAX_FLOWS,
    client_network: str | None = None,
    allow_truncated: bool = False,
    block_bytes: int = containers.BLOCK_BYTES,
) -> Iterator[FlowBlock]:
    """Reads the flows of a capture from a stream, as one inside an archive; as `read_capture`.

    Args:
        stream: bytes of the file; read once, to its end.
        where: file, for messages.
        options: see `read_capture`.
        label: see `read_capture`.
        capture: name of the file in the facts.
        idle_timeout: see `read_capture`.
        active_timeout: see `read_capture`.
        max_flows: see `read_capture`.
        client_network: see `read_capture`.
        allow_truncated: see `read_capture`.
        block_bytes: bytes that are read at a time; it changes no result.
    """
    layer = check_layer(options, SIZE_LAYERS, "a capture")
    if max_flows < 1:
        raise ConfigError(f"max_flows must be at least 1; got {max_flows}")
    settings = FlowSettings(
        options.length,
        options.payload_only,
        layer,
        _nanoseconds("idle_timeout", idle_timeout),
        _nanoseconds("active_timeout", active_timeout),
        max_flows,
    )
    networks = None if client_network is None else Networks(client_network)
    counts: Counter[str] = Counter()
    waiting: list[Flows] = []
    for flows in _flows(stream, where, settings, counts, allow_truncated, block_bytes):
        waiting.append(flows)
        if sum(map(len, waiting)) >= _FLOWS_PER_BLOCK:
            yield _block(waiting, counts, where, options, layer, label, capture, networks)
            waiting = []
            counts.clear()
    if waiting or counts:
        yield _block(waiting, counts, where, options, layer, label, capture, networks)


def _nanoseconds(name: str, seconds: float) -> int:
    if not 0 < seconds <= _MAX_SECONDS:
        raise ConfigError(f"{name} must be more than 0 and at most {_MAX_SECONDS:.0f} seconds; got {seconds}")
    return round(seconds * 1e9)


def _flows(
    stream: BinaryIO, where: str, settings: FlowSettings, counts: Counter[str], allow_truncated: bool, block_bytes: int
) -> Iterator[Flows]:
    """Yields finished flows and adds up what is left out."""
    fragments, table = Fragments(), FlowTable(settings)
    links: set[int] = set()
    blocks = containers.packet_blocks(
        stream, where, allow_truncated=allow_truncated, counts=counts, block_bytes=block_bytes
    )
    for block in blocks:
        links.update(np.unique(block.link).tolist())
        packets, left_out = network.decode(block)
        counts.update(left_out)
        if block.untimed:
            counts[UNTIMED] += block.untimed
        yield from table.add(fragments.add(packets, block.first + block.offset.size - 1))
        _move(fragments.counts, counts)
        _move(table.counts, counts)
    if links and not links & set(READ_LINK_TYPES):
        raise refusal(where, links)
    rest = fragments.finish()
    done = [] if rest is None else table.add(rest)
    done += table.finish()
    _move(fragments.counts, counts)
    _move(table.counts, counts)
    yield from done


def _move(source: Counter[str], target: Counter[str]) -> None:
    target.update(source)
    source.clear()


def _block(
    parts: list[Flows],
    counts: Counter[str],
    where: str,
    options: ReadOptions,
    layer: str,
    label: Label,
    capture: str,
    networks: Networks | None,
) -> FlowBlock:
    """Flows as a block: sides become client and server, times inter-arrival times."""
    flows = _joined(parts)
    dropped = Counter(counts)
    version, protocol = (flows.key[:, 4] >> np.uint64(40)).astype(int), (flows.key[:, 4] >> np.uint64(32)).astype(int)
    protocol &= 255
    sides = [(flows.key[:, 0], flows.key[:, 1]), (flows.key[:, 2], flows.key[:, 3])]
    ports = [(flows.key[:, 4] >> np.uint64(16) & np.uint64(0xFFFF)), flows.key[:, 4] & np.uint64(0xFFFF)]
    a_is_client = flows.a_is_client
    if networks is not None:
        inside = [networks.contain(*side, version) for side in sides]
        a_is_client = np.where(inside[0] != inside[1], inside[0], a_is_client)
    client_port = np.where(a_is_client, *ports).astype(np.int32)
    server_port = np.where(a_is_client, *ports[::-1]).astype(np.int32)
    start = flows.start / 1e9
    size, clipped = clip_sizes(flows.size)
    if clipped:
        dropped[CLIPPED] += clipped
    iat = np.diff(flows.time, prepend=0) / 1e9
    iat[starts_of(flows.counts)[flows.counts > 0]] = 0.0
    direction = np.where(flows.from_a == np.repeat(a_is_client, flows.counts), 1, -1).astype(np.int8)
    if callable(label) and len(flows):
        frame = pl.DataFrame(
            {
                "client_address": texts(*(np.where(a_is_client, *pair) for pair in zip(*sides)), version),
                "client_port": client_port,
                "server_address": texts(*(np.where(a_is_client, *pair[::-1]) for pair in zip(*sides)), version),
                "server_port": server_port,
                "protocol": protocol.astype(np.int16),
                "start": start,
            }
        )
        labels = pl.Series(label(frame)).cast(pl.String)
    else:
        labels = pl.Series(["" if callable(label) else label], dtype=pl.String).new_from_index(0, len(flows))
    if len(labels) != len(flows):
        raise ConfigError(f"the label function gave {len(labels)} labels for {len(flows)} flows of {where}")
    facts = {
        "start": start,
        "protocol": protocol,
        "client_port": client_port,
        "server_port": server_port,
        "packets": flows.packets,
        "is_dns": np.isin(client_port, DNS_PORTS) | np.isin(server_port, DNS_PORTS),
        "has_handshake": pl.Series(flows.handshake).set(pl.Series(protocol != network.TCP), None),
    }
    packets = Ragged(flows.counts, size, direction, iat)
    keep = labels.is_not_null().to_numpy()
    if not keep.all():
        dropped[UNLABELLED] += int(np.count_nonzero(~keep))
        of_kept = np.repeat(keep, flows.counts)
        packets = Ragged(flows.counts[keep], size[of_kept], direction[of_kept], iat[of_kept])
        facts = {
            name: values.filter(keep) if isinstance(values, pl.Series) else values[keep]
            for name, values in facts.items()
        }
        labels = labels.filter(keep)
    return make_block(
        packets, labels, facts | {"capture": capture}, options, where, _FIELDS, size_layer=layer, dropped=dict(dropped)
    )


def _joined(parts: list[Flows]) -> Flows:
    names = Flows.__dataclass_fields__
    if not parts:
        return FlowTable.nothing()
    return Flows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
