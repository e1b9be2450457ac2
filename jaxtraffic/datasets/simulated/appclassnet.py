"""Simulated traffic in the layout of AppClassNet, as the folder `top200`: arrays of signed and scaled sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtraffic.datasets.curation import largest_remainder
from jaxtraffic.datasets.ragged import Ragged, pad, starts_of
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.datasets.simulated.traffic import simulate_traffic

PARTITIONS = ("train", "valid", "test")

LENGTH = 20
"""Packets of a flow."""

SCALE = 3000.0
"""Bytes that a value of 1 stands for: CESNET's choice (tc-transfer), not confirmed by the publishers."""

CLASSES = 200

BATCH = 4_096
"""Flows simulated at a time."""

_SHARES = (8, 1, 1)


def simulate(folder: Path, n_flows: int, seed: int) -> None:
    """Writes `top200/{train,valid,test}_{x,y}.npy`; packets without payload are left out.

    Args:
        folder: where to; it need not exist.
        n_flows: flows of all three parts together.
        seed: the same seed gives the same bytes.
    """
    for number, (partition, size) in enumerate(zip(PARTITIONS, largest_remainder(_SHARES, n_flows), strict=True)):
        size = int(size)
        if not size:
            continue
        with contextlib.ExitStack() as stack:
            shapes = {"x": ((size, LENGTH), "<f4"), "y": ((size,), "<i8")}
            files = {}
            for name, (shape, dtype) in shapes.items():
                temporary = stack.enter_context(replacing(folder / "top200" / f"{partition}_{name}.npy"))
                files[name] = stack.enter_context(temporary.open("wb"))
                header = {"descr": dtype, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(files[name], header)
            for x, y in batches(size, (7, seed, number)):
                files["x"].write(x.astype("<f4").tobytes())
                files["y"].write(y.astype("<i8").tobytes())


def batches(n_flows: int, seed: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields x [flow, 20] float64 and y [flow] in batches."""
    for batch in range(-(-n_flows // BATCH)):
        traffic = simulate_traffic(min(BATCH, n_flows - batch * BATCH), seed=(*seed, batch), n_apps=CLASSES)
        keep = traffic.payload > 0
        counts = np.add.reduceat(keep.astype(np.int64), starts_of(traffic.counts))
        kept = Ragged(counts, traffic.payload[keep], traffic.direction[keep], np.zeros(int(keep.sum())))
        size, direction, _ = pad(kept, LENGTH, iat_per_second=1)
        yield size * direction.astype(np.float64) / SCALE, traffic.app
