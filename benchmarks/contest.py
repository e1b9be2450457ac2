"""One contest between JAX and torch: who takes turns with whom, rows from timings, ratios, the printed table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import measure
from measure import quantity

NOTES = [
    "XLA counts the body of a while or scan loop once, whatever its trip count; flops_per_call is therefore the count "
    "of one step compiled on its own times the steps taken, the same useful work for every contender.",
    "In training, the scan that makes a DPLR kernel by powers is itself counted once; by arithmetic that leaves out "
    "under 1 % at the batch sizes of the presets, more at tiny batches. "
    "Random numbers, scaling and the update of x in the sampler are not in the count.",
]

Calls = dict[str, Callable[[], Any]]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command lines of both contests share."""

    preset: str = "tiny"
    """Generator preset: tiny, small or thesis."""
    precision: str | None = None
    """float32 or bfloat16; default: the preset's."""
    blocks: int | None = None
    """Blocks of the network; default: the preset's."""
    devices: int = 1
    """Devices to use."""
    rounds: int = 3
    """Figures to take of each contender."""
    against: Literal["nothing", "torch"] = "nothing"
    """Also run the PyTorch model."""
    torch_matmul: Literal["high", "highest"] = "high"
    """torch's float32 products: high is TF32 on NVIDIA GPUs, which is JAX's default there."""
    torch_threads: int | None = None
    """torch's threads on CPU; default: the quicker of one and all cores, tried before the run."""
    torch_compile: bool = True
    """Also run it with torch.compile."""


def run(
    make_jax: Callable[[], Calls], make_torch: Callable[[], Calls] | None, *, rounds: int
) -> tuple[dict[str, measure.Timing], dict[str, Any]]:
    """Times all contenders (torch ones may fail) and says how they took turns and what memory they held at most.

    On CPU both frameworks take turns, so that a busy machine slows both. An accelerator's memory does not hold both:
    there torch goes first and gives its memory back.
    """
    if make_torch is None:
        return measure.race(make_jax(), rounds=rounds), _peaks("in turns", None)
    torch_calls = make_torch()
    names = tuple(torch_calls)
    if jax.default_backend() == "cpu":
        return measure.race(make_jax() | torch_calls, rounds=rounds, may_fail=names), _peaks("in turns", None)
    import torch_ddpms4

    timings = measure.race(torch_calls, rounds=rounds, may_fail=names)
    torch_peak = torch_ddpms4.peak_bytes()
    torch_calls.clear()
    torch_ddpms4.release()
    timings |= measure.race(make_jax(), rounds=rounds)
    return timings, _peaks("torch first", torch_peak)


def _peaks(order: str, torch_peak: int | None) -> dict[str, Any]:
    """High-water marks of the process, over all its contenders; None where the backend does not report them."""
    return {"order": order, "device_peak_bytes": measure.device_peak_bytes(), "torch_peak_bytes": torch_peak}


def rows(
    timings: dict[str, measure.Timing],
    programs: dict[str, measure.Program],
    *,
    flows: int,
    flops: float,
    peak: float,
) -> list[dict[str, Any]]:
    """JSON rows of contenders that each handle `flows` flows and `flops` useful FLOPs a call."""
    made = []
    for name, timing in timings.items():
        row = {"name": name} | timing.row()
        if timing.error is None:
            rate = flops / timing.median
            row |= {
                "flows_per_s": flows / timing.median,
                "flops_per_call": flops,
                "flops_per_s": rate,
                "share_of_matmul_peak": rate / peak,
            }
        if name in programs:
            row |= programs[name].row()
        made.append(row)
    return made


def ratios(timings: dict[str, measure.Timing], reference: str) -> dict[str, float]:
    """How many times as long as the reference each other contender took (medians)."""
    base = timings[reference].median
    return {
        f"{name} / {reference}": timing.median / base
        for name, timing in timings.items()
        if name != reference and timing.error is None
    }


def show(title: str, document: dict[str, Any]) -> None:
    """Prints rows and ratios."""
    table = []
    for row in document["rows"]:
        if "error" in row:
            table.append([row["name"], "failed: " + row["error"].splitlines()[0][:60], *[""] * 6])
            continue
        build = row["lower_s"] + row["compile_s"] if "compile_s" in row else row["first_call_s"] - row["median_s"]
        memory = row.get("memory", {})
        table.append(
            [
                row["name"],
                quantity(row["median_s"], "s"),
                f"{quantity(row['min_s'], 's')} .. {quantity(row['max_s'], 's')}",
                quantity(max(build, 0.0), "s"),
                quantity(row["flows_per_s"], "flow/s"),
                quantity(row["flops_per_s"], "FLOP/s"),
                f"{100 * row['share_of_matmul_peak']:.1f} %",
                quantity(memory.get("temp_bytes"), "B"),
            ]
        )
    columns = ["contender", "median", "min .. max", "compile", "flows", "FLOPs", "of matmul peak", "temporaries"]
    measure.show(title, columns, table)
    pairs = [[name, f"{value:.2f}"] for name, value in document["ratios"].items()]
    if pairs:
        measure.show("Ratios of time, side by side in this run", ["ratio", "times"], pairs)
