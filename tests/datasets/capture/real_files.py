"""Real captures, found through the environment: JAXTRAFFIC_DATA is a folder that holds `pcaps/` with `index.csv`."""

import csv
import os
from pathlib import Path

import pytest

ENVIRONMENT = "JAXTRAFFIC_DATA"


def folder():
    root = os.environ.get(ENVIRONMENT)
    if not root:
        return None
    place = Path(root) / "pcaps"
    return place if (place / "index.csv").is_file() else None


FOLDER = folder()
PATHS = sorted(FOLDER.glob("*.pcap*")) if FOLDER else []
needs_real_files = pytest.mark.skipif(not PATHS, reason=f"{ENVIRONMENT} names no folder with pcaps/index.csv")


def index():
    """File name -> row of the index; rows of the same name in different folders of their source are left out."""
    with (FOLDER / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    names = [row["file"] for row in rows]
    return {row["file"]: row for row in rows if names.count(row["file"]) == 1}


REFUSED = {
    "nDPI__fuzz-2021-10-13.pcap": "pcap version 2.0",
    "tcpdump__802_15_4-data.pcap": "IEEE 802.15.4 with FCS (195)",
    "tcpdump__802_15_4-oobr-1.pcap": "IEEE 802.15.4 with FCS (195)",
    "tcpdump__OSPFv3_NBMA_adjacencies.pcap": "frame relay (107)",
    "tcpdump__arcnet-rfc1201-arp-icmp-http.pcap": "ARCNET (Linux) (129)",
    "tcpdump__atm-oam-loopback-print-overrun.pcap": "SunATM (123)",
    "tcpdump__bgp-aigp.pcap": "Juniper Ethernet (178)",
    "tcpdump__cve2015-0261-ipv6.pcap": "SLIP (8)",
    "tcpdump__dsa.pcap": "Marvell DSA (284)",
    "tcpdump__edsa.pcap": "Marvell EDSA (285)",
    "tcpdump__hoobr_juniper2.pcap": "Juniper ATM1 (137)",
    "tcpdump__ieee802.11_exthdr.pcap": "IEEE 802.11 with radiotap header (127)",
    "tcpdump__ieee802.11_tim_ie_oobr.pcap": "IEEE 802.11 (105)",
    "tcpdump__kday6.pcap": "Juniper MFR (182)",
    "tcpdump__nflog.pcap": "NFLOG (239)",
    "tcpdump__pktap-heap-overflow.pcap": "user-defined 2",
}
"""Files that are refused, and what the refusal names."""
