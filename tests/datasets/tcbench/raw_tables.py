"""Simulated and hand-made tables of tcbench, for the tests of their reader."""

import numpy as np
import polars as pl

from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.simulated import tcbench as simulated
from jaxtraffic.datasets.simulated.traffic import simulate_traffic
from jaxtraffic.datasets.tcbench import tables as tcbench

N = 120
WHOLE = ReadOptions(length=1000)
TABLES = [(dataset, generation) for dataset in simulated.SETS for generation in ("v1", "dev")]


def simulate_tables(tmp_path_factory, tables):
    """Folder of each simulated table."""
    made = {}
    for dataset, generation in tables:
        made[dataset, generation] = tmp_path_factory.mktemp(f"{dataset}-{generation}")
        simulated.simulate(made[dataset, generation], N, 5, dataset=dataset, generation=generation)
    return made


def traffic_of(dataset):
    """The traffic that `simulate` wrote."""
    transport = "udp" if dataset == "ucdavis19" else "both"
    return simulate_traffic(N, seed=(5, simulated.SETS.index(dataset)), transport=transport)


def read_all(paths, options=WHOLE):
    """Blocks as lists: sizes, directions, iats of each flow, labels, and facts."""
    blocks = [block for path in paths for block in tcbench.read(path, options)]
    flows = []
    for block in blocks:
        ends = np.cumsum(block.packets.counts)
        flows += [
            tuple(
                values[end - count : end] for values in (block.packets.size, block.packets.direction, block.packets.iat)
            )
            for end, count in zip(ends, block.packets.counts, strict=True)
        ]
    labels = [label for block in blocks for label in block.label]
    return flows, labels, pl.concat([block.facts for block in blocks]), {block.size_layer for block in blocks}


def write(path, rows, **kinds):
    """A table out of rows, with types where they matter."""
    frame = pl.DataFrame(rows, schema_overrides=kinds, strict=False)
    frame.write_parquet(path)
    return path


def v1_rows(**columns):
    """Two flows in the five columns that all tables of v1 share."""
    rows = {
        "row_id": [0, 1],
        "app": ["a", "b"],
        "pkts_size": [[100, 0, 300], [50]],
        "pkts_dir": [[1, 0, 1], [0]],
        "timetofirst": [[0.0, 0.0, 2.5], [0.0]],
    }
    return rows | columns


def single(path, options=WHOLE):
    """Size, direction and iat of the first flow."""
    return tuple(values.tolist() for values in read_all([path], options)[0][0])
