"""`python -m jaxtraffic data records`: what a table of NetFlow records holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from jaxtraffic import datasets
from jaxtraffic.command.screen import show, table


@dataclasses.dataclass(frozen=True)
class Records:
    """Reads NetFlow records (NetShare, UGR'16, CIDDS): counts by class, and the first records."""

    path: tyro.conf.Positional[Path]
    """The table, plain, compressed or the only one of an archive."""
    n: int = 10
    """Records to show."""
    bad_rows: Literal["refuse", "drop"] = "refuse"
    """Refuse a table with a row that is no record, or drop such rows and count them."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Reads and prints."""
        records = datasets.read_flow_records(self.path, bad_rows=self.bad_rows)
        counts = np.bincount(records.label, minlength=len(records.class_names)).tolist()
        first = slice(0, self.n)
        columns = {
            "source": records.address_text(records.source_address[first]),
            "port": [str(port) for port in records.source_port[first]],
            "destination": records.address_text(records.destination_address[first]),
            "to port": [str(port) for port in records.destination_port[first]],
            "protocol": records.protocol[first].tolist(),
            "start (s)": [f"{value:.6f}" for value in records.start[first]],
            "duration (s)": [f"{value:.6g}" for value in records.duration[first]],
            "packets": records.packets[first].tolist(),
            "bytes": records.bytes[first].tolist(),
            "class": [records.class_names[label] for label in records.label[first]],
            "type": [records.type_names[label] for label in records.type[first]],
        }
        rows = list(zip(*columns.values(), strict=True))
        content = {
            "layout": records.name,
            "source": records.source,
            "records": len(records),
            "classes": dict(zip(records.class_names, counts, strict=True)),
            "dropped": records.dropped,
            "head": [dict(zip(columns, row, strict=True)) for row in rows],
        }
        lines = [
            table(
                f"{self.path}: first {len(rows)} of {len(records):,} records ({records.name}, {records.source})",
                list(columns),
                rows,
                numbers=("port", "to port", "protocol", "duration (s)", "packets", "bytes"),
            ),
            "classes: " + ", ".join(f"{name} {count:,}" for name, count in content["classes"].items()),
            *(f"dropped because of {field}: {count:,}" for field, count in records.dropped.items()),
        ]
        show(content, lines, as_json=self.json)
        return 0
