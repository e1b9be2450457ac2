"""The reader against tshark, frame by frame, on real captures.

Where they differ, and why (all other frames are equal: addresses, ports, protocol, lengths, times):

| file | frames | what differs | why |
|---|---|---|---|
| gopacket__test202.pcapng | 3 | tshark has 11 frames, the reader 8 | tshark counts custom blocks as frames |
| gopacket__test016, 101, 202.pcapng | 2, 1, 2 | time | simple packet blocks: the reader takes the time before |
| nDPI__badpackets.pcap | 93 | UDP payload | first fragments: tshark shows the length of the whole datagram |
| tcpdump__nfs-attr-oobr.pcap | 2 | UDP payload | UDP length beyond the IP packet: the reader stays inside it |
| tcpdump__gso-ipv4-vxlan-ipv6.pcap | 1 | protocol, ports | VXLAN: the reader takes the outer packet |
| zeek__gtp6_gtp_0x32.pcap | 31 | protocol, ports | GTP: the reader takes the outer packet |
| tcpdump__wccp_redirect_gre.pcap | 1 | not read | GRE: the outer packet is neither TCP nor UDP |
| tcpdump__mpls-traceroute.pcap | 9 | not read | ICMP: tshark shows the packet that the error quotes |

Files that the reader refuses are in `real_files.REFUSED`; tshark reads most of them, because it knows more link types,
and nDPI__fuzz-2021-10-13.pcap, whose version 2.0 it does not look at.
"""

import shutil
import subprocess
from collections import Counter

import pytest

from jaxtraffic.datasets.capture import containers, network
from jaxtraffic.datasets.capture.addresses import texts
from jaxtraffic.datasets.capture.reader import read_capture
from jaxtraffic.datasets.flow_block import ReadOptions
from tests.datasets.capture.real_files import PATHS, REFUSED, needs_real_files

pytestmark = [
    pytest.mark.slow,
    needs_real_files,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

READ = [path for path in PATHS if path.name not in REFUSED]
UNTIMED = {"gopacket__test016.pcapng": 2, "gopacket__test101.pcapng": 1, "gopacket__test202.pcapng": 2}
CUSTOM_BLOCKS = {"gopacket__test202.pcapng": 3}
OTHER_PAYLOAD = {"nDPI__badpackets.pcap": 93, "tcpdump__nfs-attr-oobr.pcap": 2}
TUNNELS = {"tcpdump__gso-ipv4-vxlan-ipv6.pcap": 1, "zeek__gtp6_gtp_0x32.pcap": 31}
NOT_READ = {"tcpdump__wccp_redirect_gre.pcap": 1, "tcpdump__mpls-traceroute.pcap": 9}

FIELDS = (
    *("frame.protocols", "frame.time_epoch", "ip.src", "ip.dst", "ip.len", "ipv6.src", "ipv6.dst", "ipv6.plen"),
    *("tcp.srcport", "tcp.dstport", "tcp.len", "udp.srcport", "udp.dstport", "udp.length", "frame.len"),
)
PLAIN = ("ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE")


def tshark(path):
    """One dictionary a frame, with the first value of each field."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=f", "-E", "separator=/t"]
    for option in PLAIN:
        command += ["-o", option]
    for field in FIELDS:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]
    if path.name in CUSTOM_BLOCKS:
        rows = [row for row in rows if row["frame.protocols"] != "data"]
    return rows


def theirs(rows):
    """Number of the frame -> (time, source, target, protocol, ports, size, payload)."""
    packets = {}
    for number, row in enumerate(rows):
        if not row["tcp.srcport"] and not row["udp.srcport"]:
            continue
        name = "tcp" if row["tcp.srcport"] else "udp"
        payload = int(row["tcp.len"]) if name == "tcp" else int(row["udp.length"]) - 8
        size = int(row["ip.len"]) if row["ip.len"] else int(row["ipv6.plen"]) + 40
        ends = (row["ip.src"] or row["ipv6.src"], row["ip.dst"] or row["ipv6.dst"])
        ports = (int(row[f"{name}.srcport"]), int(row[f"{name}.dstport"]))
        packets[number] = (row["frame.time_epoch"], *ends, 6 if name == "tcp" else 17, *ports, size, payload)
    return packets


def ours(path):
    """The same of the reader, and how many frames it found."""
    packets, frames = {}, 0
    with path.open("rb") as stream:
        for block in containers.packet_blocks(stream, str(path)):
            frames += block.offset.size
            found, _ = network.decode(block)
            sources = texts(found.source_high, found.source_low, found.version)
            targets = texts(found.target_high, found.target_low, found.version)
            for k in range(len(found)):
                time = f"{found.time[k] // 10**9}.{found.time[k] % 10**9:09d}"
                ends = (int(found.protocol[k]), int(found.source_port[k]), int(found.target_port[k]))
                sizes = (int(found.size[k]), int(found.payload[k]))
                packets[int(found.number[k])] = (time, sources[k], targets[k], *ends, *sizes)
    return packets, frames


@pytest.mark.parametrize("path", READ, ids=lambda path: path.name)
def test_every_frame_is_the_same(path):
    rows = tshark(path)
    wanted, (found, frames) = theirs(rows), ours(path)
    assert frames == len(rows)
    assert set(found) <= set(wanted), "the reader finds TCP and UDP where tshark does not"
    assert len(wanted) - len(found) == NOT_READ.get(path.name, 0)
    different = Counter()
    for number, packet in found.items():
        other = wanted[number]
        if packet[0] != other[0]:
            assert not other[0]
            different["time"] += 1
        if packet[1:7] != other[1:7]:
            different["headers"] += 1
        elif packet[7] != other[7]:
            different["payload"] += 1
    assert different["headers"] == TUNNELS.get(path.name, 0)
    assert different["time"] == UNTIMED.get(path.name, 0)
    assert different["payload"] == OTHER_PAYLOAD.get(path.name, 0)


@pytest.mark.parametrize("path", READ, ids=lambda path: path.name)
def test_conversations_are_the_same_where_nothing_ends_a_flow(path):
    if path.name in TUNNELS or path.name in NOT_READ:
        pytest.skip("tunnels and quoted packets: see the table")
    wanted = Counter()
    for _, source, target, protocol, sport, dport, *_ in theirs(tshark(path)).values():
        wanted[(protocol, *sorted([(source, sport), (target, dport)]))] += 1
    found = Counter()

    def name_ends(frame):
        return frame.select(
            label=frame["client_address"] + "|" + frame["server_address"],
        ).to_series()

    for block in read_capture(path, ReadOptions(), label=name_ends, idle_timeout=1e9, active_timeout=1e9):
        for label, row in zip(block.label.to_list(), block.facts.to_dicts(), strict=True):
            client, server = label.split("|")
            ends = sorted([(client, row["client_port"]), (server, row["server_port"])])
            found[(row["protocol"], *ends)] += row["packets"]
    # a SYN after a close begins a flow of the same conversation, so packets are compared and not flows
    assert found == wanted
