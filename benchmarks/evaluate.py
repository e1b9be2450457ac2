"""What do exact neighbours of all pairs cost, and do cost and memory grow as they should?

    python benchmarks/evaluate.py
    python benchmarks/evaluate.py --sizes 5000 10000 20000 40000 100000

Contenders, on the same rows: `jaxtraffic` (`evaluate.alpha_beta` with `peer=True`: alpha-precision, beta-recall and
synthcity's authenticity, in bytes), `jaxtraffic, min-max` (the same on columns divided by their range, as synthcity's
"naive" scores are), `jaxtraffic, three searches` (with authenticity as Alaa et al. define it, which needs the nearest
real flow of each synthetic one besides), and `scikit-learn`: the two searches of synthcity, `NearestNeighbors` on
min-max scaled float64 rows on all cores, and what it computes from them. scikit-learn takes brute force with matrix
products for 30 columns; its distances are not exact there, and the table says how many of its decisions that changes.
The claim is that `jaxtraffic` is not slower than `scikit-learn`.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np
import tyro
from measure import quantity
from sklearn.neighbors import NearestNeighbors

from jaxtraffic import parallel
from jaxtraffic.evaluate.coverage import N_LEVELS, alpha_beta, column_ranges, score
from jaxtraffic.evaluate.distances import nearest

OURS, MINMAX, THREE, SKLEARN = "jaxtraffic", "jaxtraffic, min-max", "jaxtraffic, three searches", "scikit-learn"
PROTOCOLS = 300
"""Patterns that random flows follow."""
ATOMS = (0, 40, 52, 66, 1448, 1460, 1500)
"""Frequent packet sizes, bytes."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the benchmark."""

    flows: int = 15_000
    """Flows on each side of the comparison with scikit-learn."""
    packets: int = 30
    """Packets of a flow."""
    duplicates: tuple[float, ...] = (0.0, 0.6)
    """Shares of flows that are copies of one of 400 flows; on IoT Sentinel 87 % of the flows have a copy."""
    sizes: tuple[int, ...] = (5_000, 10_000, 20_000, 40_000)
    """Flows on each side, all different, for the growth of time and memory; each in a process of its own."""
    rounds: int = 7
    """Figures to take of each contender, in turns."""
    devices: int | None = None
    """Devices to use; default: all."""
    out: Path | None = None
    """JSON file; default: benchmarks/results/evaluate-<device kind>.json."""


def main(options: Options) -> dict[str, Any]:
    """Measures, prints, writes and returns the document."""
    measure.start(False)
    device = measure.describe_device(options.devices or jax.device_count())
    mesh = parallel.make_mesh(devices=options.devices)
    rows, ratios, accuracy = [], {}, {}
    for share in options.duplicates:
        real, synthetic = (random_rows(options.flows, options.packets, share, seed) for seed in (1, 2))
        setting = f"{share:.0%} duplicates"
        timings = measure.race(make_calls(real, synthetic, mesh), rounds=options.rounds)
        rows += [{"name": name, "duplicates": share} | timing.row() for name, timing in timings.items()]
        ratios[setting] = {
            f"{SKLEARN} / {name}": measure.paired_ratio(timings[SKLEARN], timing)
            for name, timing in timings.items()
            if name != SKLEARN
        }
        accuracy[setting] = compare(real, synthetic, mesh)
    growth = [measure_growth(n, options) for n in options.sizes]
    document = measure.result(
        "evaluate",
        options,
        device,
        rows,
        # Name to median and quartiles of the ratios within rounds: how many times as fast as scikit-learn.
        ratios=ratios,
        accuracy=accuracy,
        growth=growth,
        notes=[
            "first_call_s holds compilation, except where an earlier contender has compiled the same program",
            "growth: no copies; resident is the high-water mark of a process less that after a run on 100 flows",
        ],
    )
    show(options, document)
    measure.write_json(options.out or measure.default_path("evaluate"), document)
    return document


def random_rows(flows: int, packets: int, duplicates: float, seed: int) -> np.ndarray:
    """Signed sizes [flow, packet] int32 that follow patterns of frequent sizes and records of any size.

    Args:
        flows: number of flows.
        packets: packets of a flow.
        duplicates: share of flows that are copies of one of 400.
        seed: of this set; patterns and the 400 flows are the same for every seed.
    """

    def follow(rng: np.random.Generator, n: int) -> np.ndarray:
        pattern = rng.integers(0, PROTOCOLS, n)
        records = np.clip(np.rint(np.exp(rng.normal(5, 1, (n, packets)))), 1, 1500)
        sizes = np.where(is_record[pattern], records, atoms[pattern]) * direction[pattern]
        return np.where(np.arange(packets) < rng.integers(4, packets + 1, n)[:, None], sizes, 0).astype(np.int32)

    shared = np.random.default_rng(0)
    shape = (PROTOCOLS, packets)
    atoms, direction = shared.choice(ATOMS, shape), shared.choice([-1, 1], shape)
    is_record = shared.random(shape) < 0.4
    frequent = follow(shared, 400)
    rng = np.random.default_rng(seed)
    rows = follow(rng, flows)
    copied = rng.random(flows) < duplicates
    rows[copied] = frequent[rng.integers(0, len(frequent), copied.sum())]
    return rows


def make_calls(real: np.ndarray, synthetic: np.ndarray, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """The contenders."""
    return {
        OURS: lambda: alpha_beta(real, synthetic, peer=True, mesh=mesh),
        MINMAX: lambda: alpha_beta(real, synthetic, scale="minmax", peer=True, mesh=mesh),
        THREE: lambda: alpha_beta(real, synthetic, mesh=mesh),
        SKLEARN: lambda: by_scikit_learn(real, synthetic),
    }


def searches_by_scikit_learn(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the nearest other real flow, distance to and index of the nearest synthetic flow, for real flows."""
    other = NearestNeighbors(n_neighbors=2, n_jobs=-1, p=2).fit(real).kneighbors(real)[0][:, 1]
    distance, index = NearestNeighbors(n_neighbors=1, n_jobs=-1, p=2).fit(synthetic).kneighbors(real)
    return other, distance[:, 0], index[:, 0]


def by_scikit_learn(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    """The peers' scores from scikit-learn's neighbours on min-max scaled rows."""
    real, synthetic = scaled(real, real), scaled(synthetic, real)
    alpha = np.linspace(0, 1, N_LEVELS)
    centre = real.mean(axis=0)
    radius = np.quantile(np.linalg.norm(real - centre, axis=1), alpha)
    precision = (np.linalg.norm(synthetic - centre, axis=1)[:, None] <= radius).mean(axis=0)
    other, distance, index = searches_by_scikit_learn(real, synthetic)
    depth = np.linalg.norm(synthetic[index] - synthetic.mean(axis=0), axis=1)
    covered = (distance <= other)[:, None] & (depth[:, None] <= np.quantile(depth, alpha))
    return {
        "alpha_precision": score(alpha, precision),
        "beta_recall": score(alpha, covered.mean(axis=0)),
        "authenticity": float(np.mean(other[index] < distance)),
    }


def scaled(rows: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Min-max scaled rows, float64."""
    return (rows - real.min(axis=0)) / column_ranges(real)


def compare(real: np.ndarray, synthetic: np.ndarray, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Both implementations' scores, and what scikit-learn's rounding changes."""
    ranges = column_ranges(real)
    other = nearest(real, real, same=True, scale=ranges, mesh=mesh).squared[:, 0]
    found = nearest(real, synthetic, scale=ranges, mesh=mesh)
    peer = searches_by_scikit_learn(scaled(real, real), scaled(synthetic, real))
    duplicates = other == 0
    return {
        OURS: alpha_beta(real, synthetic, peer=True, mesh=mesh),
        MINMAX: alpha_beta(real, synthetic, scale="minmax", peer=True, mesh=mesh),
        SKLEARN: by_scikit_learn(real, synthetic),
        "n_real": len(real),
        "n_duplicates": int(duplicates.sum()),
        "n_duplicates_not_at_distance_0": int((peer[0][duplicates] > 0).sum()),
        "n_covered_differently": int(((found.squared[:, 0] <= other) != (peer[1] <= peer[0])).sum()),
        "largest_error_of_distance": float(np.abs(np.sqrt(found.squared[:, 0]) - peer[1]).max()),
    }


def measure_growth(n: int, options: Options) -> dict[str, Any]:
    """Time and memory of one size in a fresh process."""
    code = f"import evaluate; evaluate.one_size({n}, {options.packets}, {options.devices})"
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the run of {n} flows failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def one_size(n: int, packets: int, devices: int | None) -> None:
    """Prints time and memory of `alpha_beta` on n flows a side as JSON; for a process of its own."""
    mesh = parallel.make_mesh(devices=devices)
    real, synthetic = (random_rows(n, packets, 0.0, seed) for seed in (1, 2))
    alpha_beta(real[:100], synthetic[:100], mesh=mesh)
    before = peak_bytes()
    alpha_beta(real, synthetic, mesh=mesh)
    seconds = []
    for _ in range(2):
        clock = time.perf_counter()
        alpha_beta(real, synthetic, mesh=mesh)
        seconds.append(time.perf_counter() - clock)
    more = peak_bytes() - before
    found = {"flows": n, "seconds": min(seconds), "data_bytes": real.nbytes + synthetic.nbytes, "resident_bytes": more}
    sys.stdout.write(json.dumps(found | {"ns_a_pair": min(seconds) / (3 * n * n) * 1e9}))


def peak_bytes() -> int:
    """High-water mark of resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def show(options: Options, document: dict[str, Any]) -> None:
    """Prints the tables."""
    table = []
    for made in document["rows"]:
        setting = f"{made['duplicates']:.0%} duplicates"
        middle, low, high = document["ratios"][setting].get(f"{SKLEARN} / {made['name']}", (1.0, 1.0, 1.0))
        found = document["accuracy"][setting].get(made["name"])
        spread = f"{quantity(made['min_s'], 's')} .. {quantity(made['max_s'], 's')}"
        table.append(
            [
                f"{setting}: {made['name']}",
                quantity(made["median_s"], "s"),
                spread,
                quantity(made["first_call_s"], "s"),
                f"{middle:.2f} ({low:.2f} .. {high:.2f})",
                f"{found['beta_recall']:.6f}" if found else "-",
            ]
        )
    columns = [
        "contender",
        "median",
        "min .. max",
        "first call",
        f"times as fast as {SKLEARN} (quartiles)",
        "beta-recall",
    ]
    measure.show(f"alpha/beta of {options.flows} x {options.flows} flows of {options.packets} packets", columns, table)
    names = ("n_duplicates", "n_duplicates_not_at_distance_0", "n_covered_differently")
    table = [[setting, *(str(found[name]) for name in names)] for setting, found in document["accuracy"].items()]
    measure.show(f"What {SKLEARN} gets wrong", ["rows", *(name[2:].replace("_", " ") for name in names)], table)
    table = [
        [str(g["flows"]), quantity(g["seconds"], "s"), f"{g['ns_a_pair']:.2f}", *(quantity(g[k], "B") for k in BYTES)]
        for g in document["growth"]
    ]
    measure.show(
        "Growth, three searches", ["flows a side", "time", "ns a pair", "rows", "resident beyond start"], table
    )


BYTES = ("data_bytes", "resident_bytes")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
