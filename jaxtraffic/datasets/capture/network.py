"""Reads IP, TCP and UDP headers of blocks of packets.

Sizes come from the length fields of IP, not from how much was captured: RFC 791, 8200 (IPv6 and its extension headers),
2675 (jumbograms), 4302 (authentication header), 9293 (TCP), 768 (UDP). A total length of 0, as segmentation offload
leaves it on the capturing host, means that the packet goes to the end of its frame. A length that goes beyond the frame
is believed, as `ip.len` of Wireshark shows it: it is what anonymised traces have whose packets were cut without saying
so.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from jaxtraffic.datasets.capture import layers
from jaxtraffic.datasets.capture.layers import IPV4, IPV6, Views
from jaxtraffic.datasets.capture.link_types import name_of
from jaxtraffic.datasets.capture.packet_block import PacketBlock
from jaxtraffic.datasets.capture.packets import FIRST_FRAGMENT, LATER_FRAGMENT, WHOLE, Packets

MAX_EXTENSIONS = 8
"""Extension headers that are followed."""

TCP, UDP = 6, 17
_FRAGMENT, _AUTHENTICATION = 44, 51
# hop-by-hop options, routing, destination options, mobility, HIP, Shim6: a length in units of 8 bytes beyond the first
_OPTIONS = (0, 43, 60, 135, 139, 140)

NOT_IP = "packets that are not IP"
CUT = "packets cut by the snap length before their headers end"
OTHER = "packets of other protocols than TCP and UDP"
_REASONS = (
    "",
    NOT_IP,
    CUT,
    "malformed packets: the frame ends before its headers",
    "",
    OTHER,
    "malformed packets: IP version",
    "malformed packets: IPv4 header length",
    "malformed packets: IPv4 total length",
    "malformed packets: IPv6 extension headers",
    "malformed packets: IP length ends before the TCP or UDP header",
    "malformed packets: TCP header length",
    "malformed packets: UDP length",
)
(_FOUND, _NOT_IP, _CUT, _SHORT, _REFUSED, _OTHER, _VERSION, _HEADER, _TOTAL, _EXTENSION, _TRANSPORT, _TCP, _UDP) = (
    range(len(_REASONS))
)


@dataclasses.dataclass
class _State:
    """What is known of the packets of a block while they are read; positions are those in the data of the block."""

    at: np.ndarray
    end: np.ndarray
    frame_end: np.ndarray
    status: np.ndarray
    last: np.ndarray
    size: np.ndarray
    next: np.ndarray
    fragment: np.ndarray
    identification: np.ndarray
    addresses: np.ndarray

    def fail(self, which: np.ndarray, wrong: np.ndarray, status: int) -> np.ndarray:
        """Gives the packets `which` that are `wrong` a status and returns the others."""
        if not wrong.any():
            return which
        self.status[which[wrong]] = status
        return which[~wrong]

    def need(self, which: np.ndarray, length: int | np.ndarray) -> np.ndarray:
        """The packets `which` that have `length` captured bytes from where they are read."""
        wrong = self.at[which] + length > self.end[which]
        if not wrong.any():
            return which
        cut = self.end[which] < self.frame_end[which]
        self.status[which[wrong]] = np.where(cut[wrong], _CUT, _SHORT)
        return which[~wrong]


def decode(block: PacketBlock) -> tuple[Packets, Counter[str]]:
    """Reads the TCP and UDP packets of a block, in their order, and counts the others by reason.

    Fragments are among them: the first of a packet with its ports, the later ones without.
    """
    views = Views.of(block.data)
    found = layers.find_ip(block, views)
    n = found.at.size
    state = _State(
        at=found.at,
        end=block.offset + block.captured,
        frame_end=block.offset + np.maximum(block.original, block.captured),
        status=found.status.copy(),
        last=np.zeros(n, np.int64),
        size=np.zeros(n, np.int64),
        next=np.zeros(n, np.int64),
        fragment=np.full(n, WHOLE, np.uint8),
        identification=np.zeros(n, np.uint32),
        addresses=np.zeros((4, n), np.uint64),
    )
    version = np.where(found.protocol == IPV4, 4, 6).astype(np.uint8)
    usable = state.status == _FOUND
    _ipv4(views, state, np.flatnonzero(usable & (found.protocol == IPV4)))
    _ipv6(views, state, np.flatnonzero(usable & (found.protocol == IPV6)))
    _extensions(views, state, version)
    ports, flags, payload = _transport(views, state)
    counts = _reasons(state.status, block.link)
    good = np.flatnonzero(state.status == _FOUND)
    source_high, source_low, target_high, target_low = state.addresses[:, good]
    packets = Packets(
        number=block.first + good,
        time=block.time[good],
        version=version[good],
        protocol=state.next[good].astype(np.uint8),
        source_high=source_high,
        source_low=source_low,
        target_high=target_high,
        target_low=target_low,
        source_port=(ports[good] >> 16).astype(np.uint16),
        target_port=(ports[good] & 0xFFFF).astype(np.uint16),
        flags=flags[good],
        size=state.size[good],
        payload=payload[good],
        fragment=state.fragment[good],
        identification=state.identification[good],
    )
    return packets, counts


def _reasons(status: np.ndarray, link: np.ndarray) -> Counter[str]:
    counts: Counter[str] = Counter()
    for code, number in enumerate(np.bincount(status, minlength=len(_REASONS)).tolist()):
        if number and _REASONS[code]:
            counts[_REASONS[code]] = number
    refused = status == _REFUSED
    if refused.any():
        for kind, number in zip(*np.unique(link[refused], return_counts=True), strict=True):
            counts[f"packets of link type {name_of(int(kind))}"] = int(number)
    return counts


def _ipv4(views: Views, state: _State, which: np.ndarray) -> None:
    which = state.need(which, 20)
    if not which.size:
        return
    first = views.u8[state.at[which]]
    which = state.fail(which, first >> 4 != 4, _VERSION)
    at = state.at[which]
    header = (views.u8[at] & 15).astype(np.int64) * 4
    wrong = header < 20
    if wrong.any():
        which, at, header = state.fail(which, wrong, _HEADER), at[~wrong], header[~wrong]
    total = views.u16[at + 2].astype(np.int64)
    # segmentation offload: the length was to be written by the network card
    total = np.where(total == 0, state.frame_end[which] - at, total)
    wrong = total < header
    if wrong.any():
        which, at = state.fail(which, wrong, _TOTAL), at[~wrong]
        header, total = header[~wrong], total[~wrong]
    state.size[which] = total
    state.last[which] = at + total
    state.next[which] = views.u8[at + 9]
    state.addresses[1, which] = views.u32[at + 12]
    state.addresses[3, which] = views.u32[at + 16]
    cut = views.u16[at + 6] & 0x3FFF
    if cut.any():
        state.fragment[which] = np.select([cut & 0x1FFF != 0, cut != 0], [LATER_FRAGMENT, FIRST_FRAGMENT], WHOLE)
        state.identification[which] = views.u16[at + 4]
    state.at[which] = at + header


def _ipv6(views: Views, state: _State, which: np.ndarray) -> None:
    which = state.need(which, 40)
    if not which.size:
        return
    which = state.fail(which, views.u8[state.at[which]] >> 4 != 6, _VERSION)
    at = state.at[which]
    length = views.u16[at + 4].astype(np.int64)
    following = views.u8[at + 6].astype(np.int64)
    # jumbograms, and segmentation offload: to the end of the frame
    total = np.where(length == 0, state.frame_end[which] - at, 40 + length)
    state.size[which] = total
    state.last[which] = at + total
    state.next[which] = following
    for row, where in enumerate((8, 16, 24, 32)):
        state.addresses[row, which] = views.u64[at + where]
    state.at[which] = at + 40


def _extensions(views: Views, state: _State, version: np.ndarray) -> None:
    """Steps over the extension headers of IPv6, and over the authentication header of either version."""
    for step in range(MAX_EXTENSIONS + 1):
        follow = (state.next == _AUTHENTICATION) | (
            (version == 6) & (np.isin(state.next, _OPTIONS) | (state.next == _FRAGMENT))
        )
        follow &= (state.status == _FOUND) & (state.fragment != LATER_FRAGMENT)
        which = np.flatnonzero(follow)
        if not which.size:
            return
        if step == MAX_EXTENSIONS:
            state.status[which] = _EXTENSION
            return
        which = state.need(which, 8)
        at, kind = state.at[which], state.next[which]
        length = (views.u8[at + 1].astype(np.int64) + 1) * 8
        length = np.where(kind == _AUTHENTICATION, (views.u8[at + 1].astype(np.int64) + 2) * 4, length)
        length = np.where(kind == _FRAGMENT, 8, length)
        beyond = at + length > state.last[which]
        if beyond.any():
            which, at = state.fail(which, beyond, _EXTENSION), at[~beyond]
            kind, length = kind[~beyond], length[~beyond]
        cut = kind == _FRAGMENT
        if cut.any():
            fields = views.u16[at[cut] + 2]
            state.fragment[which[cut]] = np.select(
                [fields & 0xFFF8 != 0, fields & 1 != 0], [LATER_FRAGMENT, FIRST_FRAGMENT], WHOLE
            )
            state.identification[which[cut]] = views.u32[at[cut] + 4]
        state.next[which] = views.u8[at]
        state.at[which] = at + length


def _transport(views: Views, state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ports (source in the upper 16 bits), TCP flags and payload bytes of each packet."""
    n = state.at.size
    ports, flags, payload = np.zeros(n, np.uint32), np.zeros(n, np.uint8), np.zeros(n, np.int64)
    good = state.status == _FOUND
    later = good & (state.fragment == LATER_FRAGMENT)
    payload[later] = (state.last - state.at)[later]
    whole = good & ~later
    _tcp(views, state, np.flatnonzero(whole & (state.next == TCP)), ports, flags, payload)
    _udp(views, state, np.flatnonzero(whole & (state.next == UDP)), ports, payload)
    # what a later fragment of IPv6 begins with may be an extension header of the whole packet: its first one says more
    other = (state.next != TCP) & (state.next != UDP)
    other &= ~(later & np.isin(state.next, _OPTIONS))
    state.status[good & other] = _OTHER
    return ports, flags, payload


def _tcp(views: Views, state: _State, which: np.ndarray, ports, flags, payload) -> None:
    which = state.fail(which, state.at[which] + 20 > state.last[which], _TRANSPORT)
    which = state.need(which, 14)
    at = state.at[which]
    header = (views.u8[at + 12] >> 4).astype(np.int64) * 4
    data = state.last[which] - at - header
    wrong = (header < 20) | (data < 0)
    if wrong.any():
        which, at, data = state.fail(which, wrong, _TCP), at[~wrong], data[~wrong]
    ports[which] = views.u32[at]
    flags[which] = views.u8[at + 13]
    payload[which] = data


def _udp(views: Views, state: _State, which: np.ndarray, ports, payload) -> None:
    which = state.fail(which, state.at[which] + 8 > state.last[which], _TRANSPORT)
    which = state.need(which, 6)
    at = state.at[which]
    length = views.u16[at + 4].astype(np.int64)
    rest = state.last[which] - at
    # 0 in jumbograms; beyond the IP packet in first fragments
    length = np.where(length == 0, rest, np.minimum(length, rest))
    wrong = length < 8
    if wrong.any():
        which, at, length = state.fail(which, wrong, _UDP), at[~wrong], length[~wrong]
    ports[which] = views.u32[at]
    payload[which] = length - 8
