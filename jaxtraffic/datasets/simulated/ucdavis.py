"""Simulated traffic in the layout of UCDAVIS19, unpacked; folders, row format and shares of the partitions are real."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtraffic.datasets.ragged import starts_of
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.traffic import Traffic, simulate_traffic

FOLDERS = {
    "pretraining": "pretraining",
    "human": "Retraining(human-triggered)",
    "script": "Retraining(script-triggered)",
}
"""Partition -> its folder, and the name of its zip."""

CLASSES = ("Google Doc", "Google Drive", "Google Music", "Google Search", "Youtube")
"""Class folders of each partition."""

BATCH = 2_048
"""Flows simulated at a time."""

START = 1_527_987_720.0
"""3 June 2018, a time of the real set."""

_SHARES = {"human": 0.0125, "script": 0.0225}  # of the flows; the rest is for pretraining


def simulate(folder: Path, n_flows: int, seed: int, *, packed: bool = False) -> None:
    """Writes flows as `<partition>/<class>/<Class>-<number>.txt`.

    Args:
        folder: where to; it need not exist.
        n_flows: flows of all partitions together.
        seed: the same seed gives the same bytes.
        packed: write the three zips as downloaded in place of the folders.
    """
    for partition, traffics in simulated_partitions(n_flows, seed):
        if not packed:
            for name, text in _files(partition, traffics):
                with replacing(folder / name) as temporary:
                    temporary.write_text(text)
            continue
        with replacing(folder / f"{FOLDERS[partition]}.zip") as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, text in _files(partition, traffics):
                # of a fixed date, so that the same seed gives the same bytes
                info = zipfile.ZipInfo(name, (2018, 6, 3, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, text)


def simulated_partitions(n_flows: int, seed: int) -> Iterator[tuple[str, Iterator[Traffic]]]:
    """Yields each partition that has flows, and its traffic in batches."""
    sizes = {partition: round(share * n_flows) for partition, share in _SHARES.items()}
    sizes = {"pretraining": n_flows - sum(sizes.values())} | sizes
    for number, (partition, size) in enumerate(sizes.items()):
        if size:
            yield partition, _traffics(size, (19, seed, number))


def _traffics(n_flows: int, seed: tuple[int, ...]) -> Iterator[Traffic]:
    for batch in range(-(-n_flows // BATCH)):
        yield simulate_traffic(
            min(BATCH, n_flows - batch * BATCH),
            seed=(*seed, batch),
            n_apps=len(CLASSES),
            transport="udp",
            start=START + batch * 86_400,
            duration=86_400,
        )


def _files(partition: str, traffics: Iterator[Traffic]) -> Iterator[tuple[str, str]]:
    """Yields name and text of each flow; numbers go on from 1000 in every class."""
    numbers = dict.fromkeys(CLASSES, 1000)
    for traffic in traffics:
        begin = starts_of(traffic.counts)
        elapsed = (traffic.time - np.repeat(traffic.time[begin], traffic.counts)) / 1e9
        rows = [
            f"{time // 1_000_000_000}.{time % 1_000_000_000:09d}\t{since:g}\t{size}\t{up:d}"
            for time, since, size, up in zip(
                traffic.time.tolist(),
                elapsed.tolist(),
                traffic.payload.tolist(),
                (traffic.direction > 0).tolist(),
                strict=True,
            )
        ]
        for flow, (first, count) in enumerate(zip(begin.tolist(), traffic.counts.tolist(), strict=True)):
            label = CLASSES[traffic.app[flow]]
            name = f"{FOLDERS[partition]}/{label}/{label.replace(' ', '')}-{numbers[label]}.txt"
            numbers[label] += 1
            yield name, "\n".join(rows[first : first + count]) + "\n"
