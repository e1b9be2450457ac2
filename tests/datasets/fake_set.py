"""A data set of our own for the tests of what is common to all sets: one JSON list of flows a source."""

import dataclasses
import json
import time

import numpy as np
import polars as pl

from jaxtraffic.datasets.curation import NO_DNS
from jaxtraffic.datasets.dataset import Dataset, Published
from jaxtraffic.datasets.flow_block import make_block
from jaxtraffic.datasets.ragged import Fields, Ragged
from jaxtraffic.errors import DataError

FIELDS = Fields(size="size", direction="direction", iat="iat", iat_unit="seconds")


def find(place):
    return sorted(place.glob("*.flows")) if place.is_dir() else [place]


def read(path, options):
    """Yields blocks of 7 flows."""
    try:
        flows = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(path, "not JSON", row=3, field="all", expected="JSON", remedy="write it again") from error
    for start in range(0, len(flows), 7):
        chunk = flows[start : start + 7]
        packets = Ragged(
            np.array([len(flow["size"]) for flow in chunk]),
            *(np.concatenate([np.array(flow[name], float) for flow in chunk]) for name in ("size", "direction", "iat")),
        )
        facts = {
            "capture": path.name,
            "day": 100,
            "is_dns": [flow["label"] == "dns" for flow in chunk],
            "partition": ["odd" if (start + i) % 2 else "even" for i in range(len(chunk))],
        }
        yield make_block(
            packets, pl.Series([flow["label"] for flow in chunk]), facts, options, path, FIELDS,
            size_layer="payload", dropped={"rows of no flow": 1},
        )  # fmt: skip


def simulate(folder, n_flows, seed):
    write(folder, [n_flows // 2, n_flows - n_flows // 2], seed)


def write(folder, counts, seed=0):
    """One file for each count."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(counts):
        flows = []
        for index in range(count):
            n = int(rng.integers(1, 40))
            flows.append(
                {
                    "label": ["web", "mail", "dns"][index % 3],
                    "size": rng.integers(0, 1400, n).tolist(),
                    "direction": rng.choice([1, -1], n).tolist(),
                    "iat": rng.exponential(0.1, n).round(3).tolist(),
                }
            )
        (folder / f"{number}.flows").write_text(json.dumps(flows))


FAKE = Dataset(
    name="fake",
    title="a set of the tests",
    obtain="write it",
    licence="none",
    find=find,
    read=read,
    size_layers=("payload",),
    rules=(NO_DNS,),
    min_flows=1,
    published=Published(
        source="here", files=3, flows=60, classes=3, flows_per_class={"web": 20, "mail": 20, "dns": 20},
        flows_per_partition={"odd": 28, "even": 32},
    ),
    simulate=simulate,
)  # fmt: skip


def read_called(path, options, *, label="auto", last=""):
    """The same with an option that changes nothing, and another fact in one file."""
    for block in read(path, options):
        more = block.facts.with_columns(start=pl.lit(1.5e9)) if path.name == last else block.facts
        yield dataclasses.replace(block, facts=more)


def read_without_days(path, options):
    for block in read(path, options):
        yield dataclasses.replace(block, facts=block.facts.with_columns(day=pl.lit(None, pl.Int32)))


def read_slowly(path, options):
    time.sleep(0.3)
    yield from read(path, options)


SLOW = dataclasses.replace(FAKE, read=read_slowly)
