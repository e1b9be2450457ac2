"""Finds the IP header of each packet below the link layer, for blocks of packets.

Read are Ethernet (IEEE 802.3 with LLC/SNAP as well), Linux cooked v1 and v2, PPP, PPPoE, Cisco HDLC, BSD loopback and
raw IP, with VLAN tags, MPLS labels and PPPoE sessions between, up to `MAX_TAGS` of them. Tunnels (GRE, GTP, VXLAN,
Teredo, IP in IP) are not looked into: the outer packet counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxtraffic.datasets.capture.packet_block import PacketBlock, at_any_byte

MAX_TAGS = 8
"""Tags, labels and inner headers that are followed between the link layer and IP."""

FOUND, NOT_IP, CUT, SHORT, REFUSED = range(5)
"""What became of a packet: its IP header was found; there is none; the snap length cut the headers; the frame itself
ends before its headers do; its link type is not read."""

IPV4, IPV6 = 0x0800, 0x86DD
_VLAN = (0x8100, 0x88A8, 0x9100, 0x9200)
_MPLS = (0x8847, 0x8848)
_PPPOE = 0x8864
# numbers beyond 16 bits stand for what has no EtherType: PPP, IP of either version, and a header of Cisco HDLC
_PPP, _RAW, _HDLC, _OTHER = 0x10000, 0x10001, 0x10002, 0x1FFFF
_PPP_PROTOCOLS = ((0x21, IPV4), (0x57, IPV6), (0x281, 0x8847), (0x283, 0x8848))
_FAMILIES_OF_IPV6 = (10, 24, 28, 30)


@dataclasses.dataclass(frozen=True)
class Views:
    """The bytes of a block, and the big-endian numbers that start at each of them."""

    u8: np.ndarray
    u16: np.ndarray
    u32: np.ndarray
    u64: np.ndarray

    @staticmethod
    def of(data: np.ndarray) -> Views:
        """Views on bytes."""
        return Views(data, *(at_any_byte(data, kind) for kind in (">u2", ">u4", ">u8")))


@dataclasses.dataclass(frozen=True)
class Found:
    """Where IP headers stand.

    Attributes:
        at: [packet] int64, position of the IP header in the data of the block; meaningless where not FOUND.
        protocol: [packet] int64, `IPV4` or `IPV6` where FOUND.
        status: [packet] uint8, FOUND, NOT_IP, CUT, SHORT or REFUSED.
    """

    at: np.ndarray
    protocol: np.ndarray
    status: np.ndarray


_Read = Callable[[Views, np.ndarray], np.ndarray]


def _cooked(at: int) -> _Read:
    return lambda views, start: views.u16[start + at].astype(np.int64)


def _always(protocol: int) -> _Read:
    return lambda views, start: np.full(start.size, protocol)


def _family(views: Views, start: np.ndarray) -> np.ndarray:
    """Protocol of BSD loopback: a family in the byte order of the capturing host, of which only 16 bits are used."""
    family = views.u32[start].astype(np.int64)
    family = np.where(family > 0xFFFF, family.astype(np.uint32).byteswap(), family)
    return np.select([family == 2, np.isin(family, _FAMILIES_OF_IPV6)], [IPV4, IPV6], _OTHER)


def _ppp_or_hdlc(views: Views, start: np.ndarray) -> np.ndarray:
    """PPP in HDLC-like framing, or Cisco HDLC, which begins with an address of its own."""
    return np.where(np.isin(views.u16[start], (0x0F00, 0x8F00)), _HDLC, _PPP)


_LINKS: dict[int, tuple[int, _Read]] = {
    0: (4, _family),
    1: (14, _cooked(12)),
    9: (0, _always(_PPP)),
    12: (0, _always(_RAW)),
    14: (0, _always(_RAW)),
    50: (0, _ppp_or_hdlc),
    51: (0, _always(_PPPOE)),
    101: (0, _always(_RAW)),
    104: (4, _cooked(2)),
    108: (4, _family),
    113: (16, _cooked(14)),
    228: (0, _always(IPV4)),
    229: (0, _always(IPV6)),
    276: (20, _cooked(0)),
}
"""Link type -> bytes of its header, and what reads the EtherType of what follows."""


def find_ip(block: PacketBlock, views: Views) -> Found:
    """Finds the IP headers of a block."""
    n = block.offset.size
    at, end = block.offset.copy(), block.offset + block.captured
    protocol, status = np.full(n, _OTHER), np.full(n, REFUSED, np.uint8)
    for link in _distinct(block.link):
        if link not in _LINKS:
            continue
        here = np.flatnonzero(block.link == link)
        header, read = _LINKS[link]
        short = block.captured[here] < header
        status[here] = np.where(short, CUT, FOUND)
        here = here[~short]
        protocol[here] = read(views, block.offset[here])
        at[here] += header
    for _ in range(MAX_TAGS):
        here = np.flatnonzero((status == FOUND) & (protocol != IPV4) & (protocol != IPV6))
        if not here.size or not _unwrap(views, here, at, end, protocol, status):
            break
    status[(status == FOUND) & (protocol != IPV4) & (protocol != IPV6)] = NOT_IP
    # a frame that was captured whole ends there by itself
    status[(status == CUT) & (block.captured >= block.original)] = SHORT
    return Found(at, protocol, status)


def _distinct(values: np.ndarray) -> list[int]:
    """Distinct values; in most files there is one."""
    if values.size and (values == values[0]).all():
        return [int(values[0])]
    return np.unique(values).tolist()


def _unwrap(
    views: Views, here: np.ndarray, at: np.ndarray, end: np.ndarray, protocol: np.ndarray, status: np.ndarray
) -> bool:
    """Steps over one tag, label or inner header of the packets `here`; whether there was any."""
    kind = protocol[here]
    steps = (
        (np.isin(kind, _VLAN), 4, _after_vlan),
        (np.isin(kind, _MPLS), 4, _after_mpls),
        (kind == _PPPOE, 6, _after_pppoe),
        (kind == _PPP, 1, _after_ppp),
        (kind == _RAW, 1, _after_raw),
        (kind == _HDLC, 4, _after_vlan),
        (kind < 0x600, 8, _after_llc),
    )
    stepped = False
    for chosen, need, step in steps:
        if not chosen.any():
            continue
        which = here[chosen]
        short = at[which] + need > end[which]
        # a frame of IEEE 802.3 too short for LLC and SNAP has no IP header either
        status[which[short]] = NOT_IP if step is _after_llc else CUT
        which = which[~short]
        length, protocol[which] = step(views, at[which], protocol[which])
        at[which] += length
        stepped = True
    return stepped


def _after_vlan(views: Views, at: np.ndarray, kind: np.ndarray):
    """Two bytes, then an EtherType: a VLAN tag, and a header of Cisco HDLC."""
    return 4, views.u16[at + 2]


def _after_mpls(views: Views, at: np.ndarray, kind: np.ndarray):
    last = (views.u8[at + 2] & 1) != 0
    return 4, np.where(last, _RAW, kind)


def _after_pppoe(views: Views, at: np.ndarray, kind: np.ndarray):
    return 6, np.full(at.size, _PPP)


def _after_ppp(views: Views, at: np.ndarray, kind: np.ndarray):
    """RFC 1661 and 1662: address and control may be left out, and the protocol may have one byte (it is odd then)."""
    skip = np.where(views.u16[at] == 0xFF03, 2, 0)
    first = views.u8[at + skip].astype(np.int64)
    compressed = (first & 1) != 0
    number = np.where(compressed, first, views.u16[at + skip])
    inner = np.full(at.size, _OTHER)
    for ppp, ethertype in _PPP_PROTOCOLS:
        inner[number == ppp] = ethertype
    return skip + np.where(compressed, 1, 2), inner


def _after_raw(views: Views, at: np.ndarray, kind: np.ndarray):
    version = views.u8[at] >> 4
    return 0, np.select([version == 4, version == 6], [IPV4, IPV6], _OTHER)


def _after_llc(views: Views, at: np.ndarray, kind: np.ndarray):
    """IEEE 802.3: a length in place of the type, then LLC; IP is there behind SNAP of the organisation 0 only."""
    snap = (views.u32[at] == 0xAAAA0300) & (views.u16[at + 4] == 0)
    return np.where(snap, 8, 0), np.where(snap, views.u16[at + 6], _OTHER)
