"""Names of link types (tcpdump.org/linktypes.html), so that one that is not read is refused by name."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtraffic.errors import DataError

READ_LINK_TYPES = (0, 1, 9, 12, 14, 50, 51, 101, 104, 108, 113, 228, 229, 276)
"""Link types that are read."""

LINK_TYPES = {
    0: "NULL (BSD loopback)",
    1: "Ethernet",
    3: "AX.25",
    6: "IEEE 802.5 token ring",
    7: "ARCNET (BSD)",
    8: "SLIP",
    9: "PPP",
    10: "FDDI",
    12: "raw IP",
    14: "raw IP",
    50: "PPP in HDLC-like framing",
    51: "PPPoE",
    99: "Symantec firewall",
    100: "LLC/SNAP-encapsulated ATM",
    101: "raw IP",
    104: "Cisco HDLC",
    105: "IEEE 802.11",
    107: "frame relay",
    108: "LOOP (OpenBSD loopback)",
    109: "OpenBSD encapsulated IP",
    113: "Linux cooked v1",
    114: "LocalTalk",
    117: "OpenBSD pflog",
    119: "IEEE 802.11 with Prism header",
    122: "IP over Fibre Channel",
    123: "SunATM",
    127: "IEEE 802.11 with radiotap header",
    129: "ARCNET (Linux)",
    130: "Juniper MLPPP",
    135: "Juniper ATM2",
    137: "Juniper ATM1",
    138: "IP over IEEE 1394",
    139: "MTP2 with pseudo-header",
    140: "MTP2",
    141: "MTP3",
    143: "DOCSIS",
    144: "Linux IrDA",
    147: "user-defined 0 (USER0)",
    148: "user-defined 1 (USER1)",
    149: "user-defined 2 (USER2, PKTAP of old macOS)",
    150: "user-defined 3 (USER3)",
    163: "IEEE 802.11 with AVS header",
    165: "BACnet MS/TP",
    166: "PPP of pppd",
    169: "GPRS LLC",
    177: "Linux LAPD",
    178: "Juniper Ethernet",
    179: "Juniper PPP",
    180: "Juniper frame relay",
    181: "Juniper C-HDLC",
    182: "Juniper MFR",
    187: "Bluetooth HCI H4",
    189: "USB of Linux",
    192: "PPI (per-packet information)",
    195: "IEEE 802.15.4 with FCS",
    197: "ERF",
    201: "Bluetooth HCI H4 with direction",
    204: "PPP with direction",
    205: "Cisco HDLC with direction",
    206: "frame relay with direction",
    209: "I2C of Linux",
    212: "LIN",
    214: "IEEE 802.15.4 raw",
    220: "USB of Linux, padded",
    224: "Fibre Channel FC-2",
    226: "Solaris IPNET",
    227: "SocketCAN",
    228: "raw IPv4",
    229: "raw IPv6",
    230: "IEEE 802.15.4 without FCS",
    231: "D-Bus",
    235: "DVB-CI",
    239: "NFLOG",
    240: "netANALYZER Ethernet",
    242: "IP over InfiniBand",
    243: "MPEG-2 transport stream",
    245: "NFC LLCP",
    247: "InfiniBand",
    248: "SCTP",
    249: "USBPcap",
    251: "Bluetooth Low Energy",
    252: "Wireshark upper PDU",
    253: "Linux netlink",
    258: "PKTAP of macOS",
    264: "ISO 14443",
    265: "radio data system",
    272: "Bluetooth Low Energy with PHDR",
    274: "Ethernet mPacket",
    276: "Linux cooked v2",
    279: "ZigBee sniffer",
    283: "IEEE 802.15.4 with TAP header",
    284: "Marvell DSA",
    285: "Marvell EDSA",
    288: "USB 2.0",
    291: "OpenFlow",
}
"""Number -> name of the link types that captures in the wild have; the list of tcpdump.org has more."""


def name_of(link: int) -> str:
    """Name and number of a link type, for messages."""
    name = LINK_TYPES.get(link)
    return f"{name} ({link})" if name else f"number {link}"


def refusal(where: str, links: Iterable[int]) -> DataError:
    """Error for a capture all of whose packets are of link types that are not read."""
    names = ", ".join(name_of(link) for link in sorted(set(links)))
    readable = dict.fromkeys(LINK_TYPES[link] for link in READ_LINK_TYPES)
    return DataError(
        where,
        f"link type {names}, which is not read",
        expected=f"one of {', '.join(readable)}",
        remedy="capture or export the packets with one of these",
    )
