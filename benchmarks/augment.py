"""How many flows a second do the augmentations take, what bounds each, and what do the ways of composing them cost?

    python benchmarks/augment.py                                          # batches of 1,024 and 32,768 flows
    python benchmarks/augment.py --against torch
    python benchmarks/augment.py --flows 1048576 --packets 30 --rounds 3  # a few GB of memory

A contender is one program from (key, x, mask, alpha, stats) to (x, mask): splitting the key, drawing and applying, with
alpha ~ U[0, 1] and a length ~ U{1..T} for each flow. Side by side in one process: `batched` (`augment.batched(op)`),
`vmap` (`jit` of `vmap(op)` over split keys), the plain NumPy loop over flows (on a subset, its time a flow) and,
against torch, batched PyTorch, eager, on one thread and on all cores. The parts of a program (split keys, draws alone,
application alone) and a copy of the same arrays take their turns too: they say what bounds it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import measure
import tyro
from augment_contenders import (
    COMPOSITIONS,
    MEMBERS,
    Batch,
    Call,
    common_calls,
    numpy_call,
    programs,
    strategies,
    torch_calls,
)
from measure import quantity

from jaxtraffic import augment

KEYS = 8
"""Keys that a call of a way of composing goes through."""
NEAR_COPY = 0.5
"""From this share of the speed of a copy on, a program is said to be bound by it."""
NOTES = [
    "bytes are x and mask, read and written once; statistics, keys and temporaries are not counted.",
    "draw and apply are programs of their own, so draw writes its params and apply reads them; fused, the whole can "
    "be quicker than their sum. bound_by: 'copy' if the whole runs at half the speed of a copy of the same arrays or "
    "more, else the longer of draw and apply.",
    "The loop draws and applies for one flow after the other on the first numpy_flows flows; the ratio is of times a "
    "flow. torch counts with the quicker of one thread and all cores, chosen for each row.",
]


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the benchmark."""

    flows: tuple[int, ...] = (1024, 32768)
    """Flows in a batch."""
    packets: tuple[int, ...] = (20, 30)
    """Packets T of a flow."""
    ops: tuple[str, ...] = ()
    """Operations and compositions by name; default: all."""
    strategies: bool = True
    """Also measure the ways of running one_of, random_stack and maybe on a batch."""
    rounds: int = 5
    """Figures to take of each contender."""
    min_seconds: float = 0.03
    """Shorter calls are repeated until a round takes so long."""
    numpy_flows: int = 1000
    """Flows that the NumPy loop takes in a call."""
    copy_bytes: int = 2**28
    """Size of the large array whose copy gives the bandwidth of the device."""
    against: Literal["nothing", "torch"] = "nothing"
    """Also run the PyTorch versions of the operations that have one."""
    torch_threads: int | None = None
    """torch's threads on CPU; default: one and all cores, both measured."""
    out: Path | None = None
    """JSON file; default: benchmarks/results/augment-<device kind>.json."""


def main(options: Options) -> dict[str, Any]:
    """Measures, prints, writes and returns the document."""
    against = options.against == "torch"
    if against:
        measure.require_torch()
    unknown = sorted(set(options.ops) - {*augment.AUGMENTATIONS, *COMPOSITIONS})
    if unknown:
        sys.exit(f"unknown operation {unknown[0]}; choose from {', '.join((*augment.AUGMENTATIONS, *COMPOSITIONS))}")
    measure.start(against)
    device, rows, ways = measure.describe_device(), [], []
    bandwidth = copy_bandwidth(options.copy_bytes, options.rounds)
    for flows in sorted(set(options.flows)):
        for packets in sorted(set(options.packets)):
            batch = Batch(flows, packets)
            common = common_calls(batch)
            for name in options.ops or (*augment.AUGMENTATIONS, *COMPOSITIONS):
                rows.append(measure_one(options, name, batch, common))
            if options.strategies:
                ways += measure_strategies(options, batch)
    bandwidth = max(bandwidth, copy_bandwidth(options.copy_bytes, options.rounds))
    for row in rows:
        row["share_of_bandwidth"] = row["bytes_per_s"] / bandwidth
    document = measure.result(
        "augment",
        options,
        device,
        rows,
        strategies=ways,
        summary=summarise(rows),
        copy_bytes_per_s=bandwidth,
        notes=NOTES,
        load_average_1min_after=os.getloadavg()[0],
    )
    _print(document)
    measure.write_json(options.out or measure.default_path("augment"), document)
    return document


def measure_one(options: Options, name: str, batch: Batch, common: dict[str, Call]) -> dict[str, Any]:
    """One row: all contenders of one operation or composition on one batch, in turns."""
    made, calls = programs(name, batch)
    looped_flows = min(options.numpy_flows, batch.flows)
    rivals = torch_calls(name, batch, options.torch_threads) if options.against == "torch" else {}
    # The loop comes last: it gives the threads that torch leaves spinning time to rest before JAX's turn, and the short
    # common programs go first, to wake those of JAX.
    contenders = common | calls | rivals | {"numpy": numpy_call(name, batch, looped_flows)}
    timings = measure.race(contenders, rounds=options.rounds, min_seconds=options.min_seconds)
    seconds = {title: timing.median for title, timing in timings.items()}
    row = {
        "name": name,
        "family": augment.AUGMENTATIONS[name].family if name in augment.AUGMENTATIONS else "composition",
        "in_paper": name in augment.AUGMENTATIONS and augment.AUGMENTATIONS[name].in_paper,
        "flows": batch.flows,
        "packets": batch.packets,
        "flows_per_s": {title: batch.flows / seconds[title] for title in ("batched", "vmap") if title in seconds},
        "bytes_per_s": batch.bytes / seconds["batched"],
        "share_of_copy": seconds["copy"] / seconds["batched"],
        "compile_s": made["batched"].lower_s + made["batched"].compile_s,
    }
    row["flows_per_s"]["numpy"] = looped_flows / seconds["numpy"]
    row["numpy_ratio"] = row["flows_per_s"]["batched"] / row["flows_per_s"]["numpy"]
    if rivals:
        best = min(rivals, key=seconds.get)
        row["flows_per_s"]["torch"] = batch.flows / seconds[best]
        row |= {"torch_ratio": seconds[best] / seconds["batched"], "torch_best": best}
    row["shares"] = {part: seconds[part] / seconds["batched"] for part in ("split", "draw", "apply") if part in seconds}
    if row["share_of_copy"] >= NEAR_COPY:
        row["bound_by"] = "copy"
    elif "draw" in row["shares"]:
        row["bound_by"] = max("draw", "apply", key=row["shares"].get)
    row["contenders"] = {title: timing.row() for title, timing in timings.items()}
    for title, program in made.items():
        row["contenders"][title] |= {"lower_s": program.lower_s, "compile_s": program.compile_s}
        row["contenders"][title]["temp_bytes"] = program.memory["temp_bytes"]
    return row


def measure_strategies(options: Options, batch: Batch) -> list[dict[str, Any]]:
    """Rows of the ways of composing, each composition's ways in turns."""
    key, x, mask, alpha = jax.random.key(3), batch.device("scaled"), batch.device("mask"), batch.device("alpha")
    arguments, keys, rows = (key, x, mask, alpha, batch.device("stats")), list(jax.random.split(key, KEYS)), []
    for composition, ways in strategies().items():
        made = {title: measure.compile_program(jax.jit(run), *arguments) for title, run in ways.items()}
        # With one switch a batch the key says which branch runs, so each call goes through several keys.
        calls = {title: _over_keys(program, keys, arguments[1:]) for title, program in made.items()}
        timings = measure.race(calls, rounds=options.rounds, min_seconds=options.min_seconds)
        seconds = {title: timing.median / len(keys) for title, timing in timings.items()}
        base = seconds[next(iter(ways))]
        rows += [
            {"composition": composition, "strategy": title, "flows": batch.flows, "packets": batch.packets}
            | {"seconds": seconds[title], "over_default": seconds[title] / base}
            | {"flows_per_s": batch.flows / seconds[title], "compile_s": made[title].lower_s + made[title].compile_s}
            for title in ways
        ]
    return rows


def _over_keys(program: measure.Program, keys: list[jax.Array], flows: tuple[Any, ...]) -> Call:
    return lambda: [program.call(key, *flows) for key in keys]


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By batch, over the operations: least and geometric mean of the ratios, and who misses what is asked."""
    made = []
    for size in sorted({(row["flows"], row["packets"]) for row in rows}):
        mine = [row for row in rows if (row["flows"], row["packets"]) == size and row["family"] != "composition"]
        entry: dict[str, Any] = {"flows": size[0], "packets": size[1], "operations": len(mine)}
        for rival, asked in (("numpy", 10.0), ("torch", 1.0)):
            ratios = {row["name"]: row[f"{rival}_ratio"] for row in mine if f"{rival}_ratio" in row}
            if ratios:
                entry[rival] = {
                    "geometric_mean": math.exp(statistics.fmean(map(math.log, ratios.values()))),
                    "least": min(ratios.items(), key=lambda item: item[1]),
                    f"below_{asked:g}": {name: ratio for name, ratio in ratios.items() if ratio < asked},
                }
        made.append(entry)
    return made


def _print(document: dict[str, Any]) -> None:
    def rate(value: float | None) -> str:
        return quantity(value, "").strip()

    for entry in document["summary"]:
        table = []
        for row in document["rows"]:
            if (row["flows"], row["packets"]) != (entry["flows"], entry["packets"]):
                continue
            speed, shares = row["flows_per_s"], row["shares"]
            table.append(
                [
                    row["name"],
                    *(rate(speed.get(title)) for title in ("batched", "vmap", "numpy", "torch")),
                    f"{row['numpy_ratio']:.1f}",
                    f"{row['torch_ratio']:.2f}" if "torch_ratio" in row else "-",
                    quantity(row["bytes_per_s"], "B/s"),
                    f"{100 * row['share_of_copy']:.0f} / {100 * row['share_of_bandwidth']:.0f} %",
                    " ".join(f"{100 * shares[part]:.0f}" if part in shares else "-" for part in shares),
                    row.get("bound_by", "-"),
                    quantity(row["compile_s"], "s"),
                ]
            )
        columns = ["flows/s", "batched", "vmap", "NumPy", "torch", "x NumPy", "x torch", "moved", "of copy"]
        columns += ["split draw apply %", "bound by", "compile"]
        measure.show(f"{entry['flows']} flows of {entry['packets']} packets", columns, table)
        for rival in ("numpy", "torch"):
            if rival in entry:
                (name, least), mean = entry[rival]["least"], entry[rival]["geometric_mean"]
                print(f"against {rival}: geometric mean {mean:.1f}, least {least:.2f} ({name})")
    print(f"copy of a large array: {quantity(document['copy_bytes_per_s'], 'B/s')}\n")
    table = [
        [row["composition"], row["strategy"], f"{row['flows']} x {row['packets']}", quantity(row["seconds"], "s")]
        + [f"{row['over_default']:.2f}", quantity(row["compile_s"], "s")]
        for row in document["strategies"]
    ]
    if table:
        columns = ["composition", "way", "batch", "time", "of default", "compile"]
        measure.show(f"Ways of composing {', '.join(MEMBERS)}", columns, table)


def copy_bandwidth(size: int, rounds: int) -> float:
    """Bytes a second, read and written, of a compiled x + 1 on a large array: the best of the rounds.

    In place: on CPU a new array of this size costs page faults, several times the time of the copy itself.
    """
    x = [jnp.zeros(size // 4, jnp.float32)]
    add = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x[0]).compile()

    def call() -> jax.Array:
        x[0] = add(x[0])
        return x[0]

    return 2 * x[0].nbytes / min(measure.race({"copy": call}, rounds=max(3, rounds))["copy"].rounds)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
