"""Simulated traffic as captures: in the layouts of UNSW24 and ISCX VPN-nonVPN 2016, and in labelled folders.

Names of folders and files, containers, link types and endings that lie about the container are as in the real sets,
with two choices: of UNSW24 only `youtube_collection/pcap/win/chrome.pcapng` is documented, the names of the other
services are those of the publishers' code, and the other platforms are made up after it; of the 140 to 150 captures of
ISCX one or two for each application, traffic type and use of a VPN are written.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxtraffic.datasets.capture.iscx_names import meaning
from jaxtraffic.datasets.export.packet_bytes import TCP_HEADER, Conversations, capture_writer, ip_header
from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.simulated.traffic import TCP, Traffic, simulate_traffic

BATCH = 20_000
"""Flows simulated at a time."""

PAUSE = 7_200.0
"""Seconds between batches: no timeout of a reader lets a flow go on in the next one."""

SERVICES = ("youtube", "netflix", "amazon", "disney")
"""Services of UNSW24, as in checkServiceSNI of the publishers' code."""

PLATFORMS = (
    ("win", "chrome"),
    ("win", "firefox"),
    ("mac", "safari"),
    ("mac", "chrome"),
    ("android", "app"),
    ("ios", "app"),
)
"""Devices and applications; the captures of the last device are IPv6."""

ISCX_FILES = {
    "NonVPN-PCAPs-01": (
        "AIMchat1.pcapng", "aim_chat_3a.pcap", "email1a.pcap", "email2b.pcap", "facebook_audio1a.pcap",
        "facebook_audio1b.pcapng", "facebookchat1.pcapng", "facebook_chat_4a.pcap", "facebook_video1a.pcap",
        "facebook_video1b.pcapng", "gmailchat1.pcapng", "gmailchat2.pcapng", "ICQchat1.pcapng", "icq_chat_3a.pcap",
    ),
    "NonVPN-PCAPs-02": (
        "ftps_down_1a.pcap", "ftps_up_2a.pcap", "hangout_chat_4b.pcap", "hangouts_chat_4a.pcap",
        "hangouts_audio1a.pcap", "hangouts_audio1b.pcapng", "hangouts_video1b.pcapng", "hangouts_video2a.pcap",
        "netflix1.pcap", "netflix2.pcap", "scp1.pcapng", "scpDown1.pcap", "sftp1.pcapng", "sftp_down_3a.pcap",
    ),
    "NonVPN-PCAPs-03": (
        "skype_audio1a.pcap", "skype_audio1b.pcapng", "skype_chat1a.pcap", "skype_chat1b.pcap", "skype_file1.pcap",
        "skype_file4.pcapng", "skype_video1a.pcap", "skype_video1b.pcapng", "spotify1.pcap", "spotify2.pcap",
        "Torrent01.pcap", "vimeo1.pcap", "vimeo2.pcap", "voipbuster1b.pcapng", "voipbuster_4a.pcap", "youtube1.pcap",
        "youtubeHTML5_1.pcap",
    ),
    "VPN-PCAPS-01": (
        "vpn_aim_chat1a.pcap", "vpn_aim_chat1b.pcap", "vpn_bittorrent.pcap", "vpn_email2a.pcap", "vpn_email2b.pcap",
        "vpn_facebook_audio2.pcap", "vpn_facebook_chat1a.pcap", "vpn_facebook_chat1b.pcap", "vpn_ftps_A.pcap",
        "vpn_ftps_B.pcap", "vpn_hangouts_audio1.pcap", "vpn_hangouts_audio2.pcap", "vpn_hangouts_chat1a.pcap",
        "vpn_hangouts_chat1b.pcap",
    ),
    "VPN-PCAPs-02": (
        "vpn_icq_chat1a.pcap", "vpn_icq_chat1b.pcap", "vpn_netflix_A.pcap", "vpn_sftp_A.pcap", "vpn_sftp_B.pcap",
        "vpn_skype_audio1.pcap", "vpn_skype_audio2.pcap", "vpn_skype_chat1a.pcap", "vpn_skype_chat1b.pcap",
        "vpn_skype_files1a.pcap", "vpn_skype_files1b.pcap", "vpn_spotify_A.pcap", "vpn_vimeo_A.pcap",
        "vpn_vimeo_B.pcap", "vpn_voipbuster1a.pcap", "vpn_voipbuster1b.pcap", "vpn_youtube_A.pcap",
    ),
}  # fmt: skip
"""Captures of ISCX VPN-nonVPN that are written, by archive."""

LYING = ("email2b.pcap", "skype_file4.pcapng", "vpn_email2b.pcap")
"""Captures of ISCX whose ending is that of the other container; which ones lie in the real set is not documented."""

PCAP_CLASSES = 5


@dataclasses.dataclass(frozen=True)
class _Capture:
    """A file to write, and how."""

    path: Path
    container: str
    link: str = "ethernet"
    nanosecond: bool = False
    ip_version: int = 4


def simulate_unsw24(folder: Path, n_flows: int, seed: int) -> None:
    """Writes `<service>_collection/pcap/<device>/<application>.pcapng`: Ethernet, TCP and QUIC.

    Some of the flows are name lookups.

    Args:
        folder: where to; it need not exist.
        n_flows: flows of all services together.
        seed: the same seed gives the same bytes.
    """
    captures = [
        [
            _Capture(
                folder / f"{service}_collection" / "pcap" / device / f"{application}.pcapng",
                "pcapng",
                ip_version=6 if device == PLATFORMS[-1][0] else 4,
            )
            for device, application in PLATFORMS
        ]
        for service in SERVICES
    ]
    _simulate(captures, n_flows, (seed, 24))


def simulate_iscx_vpn(folder: Path, n_flows: int, seed: int) -> None:
    """Writes `NonVPN-PCAPs-0*/` and `VPN-PCAPs-0*/`: Ethernet, and without it over a VPN but for voipbuster.

    Args:
        folder: where to; it need not exist.
        n_flows: flows of all captures together.
        seed: the same seed gives the same bytes.
    """
    groups: dict[object, list[_Capture]] = {}
    for archive, names in ISCX_FILES.items():
        for name in names:
            stem, ending = name.split(".")
            container = {"pcap": "pcapng", "pcapng": "pcap"}[ending] if name in LYING else ending
            link = "raw" if stem.startswith("vpn_") and "voipbuster" not in stem else "ethernet"
            groups.setdefault(meaning(stem), []).append(_Capture(folder / archive / name, container, link))
    _simulate(list(groups.values()), n_flows, (seed, 2016))


def simulate_pcap(folder: Path, n_flows: int, seed: int) -> None:
    """Writes one folder for each of five classes, with a pcap, a pcapng and a compressed pcap file.

    Args:
        folder: where to; it need not exist.
        n_flows: flows of all classes together.
        seed: the same seed gives the same bytes.
    """
    captures = [
        [
            _Capture(folder / name / f"{name}_1.pcap", "pcap"),
            _Capture(folder / name / f"{name}_2.pcapng", "pcapng", nanosecond=True),
            _Capture(folder / name / f"{name}_3.pcap.gz", "pcap", nanosecond=True),
        ]
        for name in (f"app_{number}" for number in range(1, PCAP_CLASSES + 1))
    ]
    _simulate(captures, n_flows, (seed, 1))


def _simulate(captures: Sequence[Sequence[_Capture]], n_flows: int, seed: tuple[int, ...]) -> None:
    """Writes flows of application k in turn to the captures of captures[k]; a capture without flows is not written."""
    start = 1_700_000_000.0
    with contextlib.ExitStack() as files:
        adders: dict[_Capture, Callable[[Conversations], None]] = {}
        for batch in range(0, n_flows, BATCH):
            traffic = simulate_traffic(
                min(BATCH, n_flows - batch),
                seed=(*seed, batch),
                n_apps=len(captures),
                start=start,
                dns=True,
            )
            for app, of_app in enumerate(captures):
                flows = np.flatnonzero(traffic.app == app)
                for turn, capture in enumerate(of_app):
                    chosen = flows[turn :: len(of_app)]
                    if not chosen.size:
                        continue
                    if capture not in adders:
                        form = {name: getattr(capture, name) for name in ("container", "link", "nanosecond")}
                        adders[capture] = files.enter_context(capture_writer(capture.path, **form))
                    adders[capture](conversations_of(traffic, chosen, ip_version=capture.ip_version))
            start = int(traffic.time.max()) / 1e9 + PAUSE


def conversations_of(traffic: Traffic, flows: np.ndarray, *, ip_version: int = 4) -> Conversations:
    """Chosen flows as they go over the wire.

    Args:
        traffic: simulated flows.
        flows: indices of flows.
        ip_version: 4, or 6 with the addresses fd00::client and 2001:db8::server.
    """
    counts = traffic.counts[flows]
    rows = np.repeat(starts_of(traffic.counts)[flows] - starts_of(counts), counts) + np.arange(int(counts.sum()))
    protocol = traffic.protocol[flows]
    options = np.where(np.repeat(protocol == TCP, counts), traffic.header[rows] - ip_header(4) - TCP_HEADER, 0)
    return Conversations(
        counts,
        protocol,
        _address(traffic.client[flows], ip_version, b"\xfd\x00"),
        _address(traffic.server[flows], ip_version, b"\x20\x01\x0d\xb8"),
        traffic.client_port[flows],
        traffic.server_port[flows],
        traffic.time[rows],
        traffic.direction[rows],
        traffic.payload[rows].astype(np.int64),
        options.astype(np.int64),
        traffic.tcp_flags[rows].astype(np.int64),
    )


def _address(host: np.ndarray, ip_version: int, prefix: bytes) -> np.ndarray:
    """[flow, 4 or 16] uint8: the IPv4 address, or a prefix, zeros and it."""
    last = host.astype(">u4").view(np.uint8).reshape(-1, 4)
    if ip_version == 4:
        return last
    address = np.zeros((host.size, 16), np.uint8)
    address[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    address[:, 12:] = last
    return address
