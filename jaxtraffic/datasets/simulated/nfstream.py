"""Simulated traffic as NFStream writes it: `flows.csv`, as of `NFStreamer(..., splt_analysis=30).to_csv()`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.tcbench import dotted
from jaxtraffic.datasets.simulated.traffic import TCP, Traffic, simulate_traffic
from jaxtraffic.errors import ConfigError

LENGTH = 30
"""splt_analysis: packets of a flow."""

PART = 20_000
"""Flows simulated at a time."""

APPS = (
    ("TLS.YouTube", "Media"),
    ("TLS.Google", "Web"),
    ("TLS.WhatsApp", "Chat"),
    ("TLS.Netflix", "Video"),
    ("TLS.Spotify", "Music"),
)
"""nDPI's names of applications and categories; flows over UDP are QUIC.* in place of TLS.*."""

COLUMNS = (
    *("id", "expiration_id", "src_ip", "src_port", "dst_ip", "dst_port", "protocol", "ip_version", "vlan_id"),
    *("tunnel_id", "bidirectional_first_seen_ms", "bidirectional_last_seen_ms", "bidirectional_duration_ms"),
    *("bidirectional_packets", "bidirectional_bytes", "splt_direction", "splt_ps", "splt_piat_ms", "application_name"),
    *("application_category_name", "application_is_guessed", "requested_server_name", "user_agent"),
)
"""Columns in the order of `nfstream/flow.py`, without those of the single directions."""


def simulate(folder: Path, n_flows: int, seed: int, *, accounting_mode: int = 3) -> None:
    """Writes `flows.csv`.

    Args:
        folder: where.
        n_flows: flows.
        seed: the same seed gives the same bytes.
        accounting_mode: 0 frames, 1 IP lengths, 3 payload.

    Raises:
        ConfigError: another accounting mode.
    """
    if accounting_mode not in (0, 1, 3):
        raise ConfigError(f"accounting_mode must be 0, 1 or 3, got {accounting_mode}")
    with replacing(Path(folder) / "flows.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for first in range(0, n_flows, PART):
            traffic = simulate_traffic(min(PART, n_flows - first), seed=(seed, first), transport="both")
            writer.writerows(_rows(traffic, first, accounting_mode))


def _rows(traffic: Traffic, first: int, mode: int) -> list[tuple]:
    size = traffic.payload + (0 if mode == 3 else traffic.header) + (14 if mode == 0 else 0)
    # NFStream counts whole milliseconds, and its intervals are differences of those
    clock = traffic.time // 1_000_000
    gap = np.diff(clock, prepend=clock[:1])
    starts = starts_of(traffic.counts)
    gap[starts] = 0
    client, server = dotted(traffic.client), dotted(traffic.server)
    rows = []
    for flow in range(len(traffic)):
        part = slice(starts[flow], starts[flow] + traffic.counts[flow])
        # the source is who sends first
        ahead = traffic.direction[part][0] > 0
        ends = (client[flow], int(traffic.client_port[flow])), (server[flow], int(traffic.server_port[flow]))
        source, target = ends if ahead else ends[::-1]
        direction = np.where(traffic.direction[part] == traffic.direction[part][0], 0, 1)
        name, category = APPS[traffic.app[flow] % len(APPS)]
        begin, end = int(clock[part][0]), int(clock[part][-1])
        rows.append(
            (
                *(first + flow, 0, *source, *target, int(traffic.protocol[flow]), 4, 0, 0, begin, end, end - begin),
                *(int(traffic.counts[flow]), int(size[part].sum())),
                *(_padded(direction), _padded(size[part]), _padded(gap[part])),
                name if traffic.protocol[flow] == TCP else name.replace("TLS", "QUIC"),
                *(category, 0, "", ""),
            )
        )
    return rows


def _padded(values: np.ndarray) -> str:
    kept = values[:LENGTH].tolist()
    return str(kept + [-1] * (LENGTH - len(kept)))
