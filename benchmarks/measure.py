"""What the benchmarks share: timing compiled programs, counting their FLOPs, the device's matmul peak, JSON out.

Two rules hold everywhere. Compilation and running are timed apart. A claim about speed is a ratio of contenders that
took turns in the same process (`race`), because the clock of a shared machine is worth little on its own.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parent / "results"
TORCH_VERSION = "2.13.0"
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program and what XLA says of it.

    Attributes:
        call: the executable; takes the arguments it was compiled for.
        lower_s: seconds of tracing and lowering.
        compile_s: seconds of XLA.
        flops: XLA's count (see `count_flops`); the body of a loop is in it once, whatever its trip count.
        flops_source: "compiled" or "lowered".
        memory: bytes of arguments, outputs and temporaries.
    """

    call: Callable[..., Any]
    lower_s: float
    compile_s: float
    flops: float
    flops_source: str
    memory: dict[str, int]

    def row(self) -> dict[str, Any]:
        """Its part of a JSON row."""
        return {
            "lower_s": self.lower_s,
            "compile_s": self.compile_s,
            "xla_flops_bodies_once": self.flops,
            "flops_source": self.flops_source,
            "memory": self.memory,
        }


@dataclasses.dataclass
class Timing:
    """Seconds of one contender: the first call apart, then one figure a round.

    `error` holds the text of a failed first call, and there are no rounds then.
    """

    first_s: float = math.nan
    rounds: list[float] = dataclasses.field(default_factory=list)
    error: str | None = None

    @property
    def median(self) -> float:
        """Median over the rounds, seconds."""
        return statistics.median(self.rounds)

    def row(self) -> dict[str, Any]:
        """Its part of a JSON row."""
        if self.error is not None:
            return {"error": self.error}
        return {
            "first_call_s": self.first_s,
            "median_s": self.median,
            "min_s": min(self.rounds),
            "max_s": max(self.rounds),
            "rounds": len(self.rounds),
        }


def paired_ratio(timing: Timing, reference: Timing) -> tuple[float, float, float]:
    """Median, lower and upper quartile of the ratios of time within the same round of a `race`.

    A machine that is busy for a while slows a whole round, so ratios within rounds differ less than medians do.
    """
    ratios = [own / other for own, other in zip(timing.rounds, reference.rounds, strict=True)]
    if len(ratios) < 2:
        return (ratios[0],) * 3
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, low, high


def start(against_torch: bool = False) -> None:
    """To be called before the first JAX operation: cold compiles, and a GPU that torch can share."""
    jax.config.update("jax_enable_compilation_cache", False)
    if against_torch:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def compile_program(jitted: Any, *args: Any) -> Program:
    """Lowers and compiles a jitted function for these arguments, each timed, and takes XLA's counts."""
    clock = time.perf_counter()
    lowered = jitted.lower(*args)
    lower_s, clock = time.perf_counter() - clock, time.perf_counter()
    compiled = lowered.compile()
    compile_s = time.perf_counter() - clock
    flops, source = count_flops(lowered, compiled)
    return Program(compiled, lower_s, compile_s, flops, source, _memory(compiled))


def count_flops(lowered: Any, compiled: Any) -> tuple[float, str]:
    """XLA's FLOP count of a program and where it comes from.

    The count of the compiled program is taken, except where it misses more than half of the count before optimisation:
    a backend that turns products into library calls (cuBLAS) does not count those.
    """
    before, after = (_flops(stage.cost_analysis()) for stage in (lowered, compiled))
    return (after, "compiled") if after >= 0.5 * before else (before, "lowered")


def _flops(analysis: Any) -> float:
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    return max(0.0, float((analysis or {}).get("flops", 0.0)))


def _memory(compiled: Any) -> dict[str, int]:
    analysis = compiled.memory_analysis()
    names = ("argument", "output", "temp", "alias")
    return {f"{name}_bytes": int(getattr(analysis, f"{name}_size_in_bytes", 0)) for name in names}


def device_peak_bytes() -> int | None:
    """High-water mark of device memory in this process, or None where the backend does not report it (CPU)."""
    stats = jax.devices()[0].memory_stats()
    return None if not stats else stats.get("peak_bytes_in_use")


def race(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    min_seconds: float = 0.0,
    may_fail: tuple[str, ...] = (),
) -> dict[str, Timing]:
    """Times the contenders in turns: warm-up, then `rounds` times each, one after the other.

    Args:
        calls: contenders; a call returns arrays to wait for, or waits itself (torch).
        rounds: figures to take of each.
        min_seconds: repeat short calls until a round takes so long; the figure is seconds a call.
        may_fail: contenders whose failure is a result (its text is kept) and not the end of the run.
    """
    timings = {name: Timing() for name in calls}
    repeats = {}
    for name, call in calls.items():
        try:
            timings[name].first_s = _seconds(call, 1)
            repeats[name] = max(1, min(1000, math.ceil(min_seconds / max(_seconds(call, 1), 1e-7))))
        except Exception as error:  # whatever a compiler or allocator of another framework raises
            if name not in may_fail:
                raise
            timings[name].error = f"{type(error).__name__}: {error}"[:500]
    for _ in range(rounds):
        for name, count in repeats.items():
            timings[name].rounds.append(_seconds(calls[name], count))
    return timings


def _seconds(call: Callable[[], Any], count: int) -> float:
    # Accelerators run a queue in order, so the last result is enough; on CPU each call is waited for.
    each = jax.default_backend() == "cpu"
    clock = time.perf_counter()
    for _ in range(count):
        result = call()
        if each:
            jax.block_until_ready(result)
    jax.block_until_ready(result)
    return (time.perf_counter() - clock) / count


def matmul_peak(dtype: str, before: dict[str, Any] | None = None, *, rounds: int = 5) -> dict[str, Any]:
    """Best FLOP/s of a chain of square products in `dtype` at JAX's default precision: what this device can do.

    Ask again after the run, with the first answer as `before`: on a busy machine one burst of figures misses the best.
    The default precision of float32 on recent NVIDIA GPUs is TF32, here as in the programs measured against it.
    """
    on_cpu = jax.default_backend() == "cpu"
    size, chain = (1024, 4) if on_cpu else (8192, 16)
    a = jnp.full((size, size), 1 / size, DTYPES[dtype])

    @jax.jit
    def multiply(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, chain, lambda _, y: a @ y, x)

    timing = race({"matmul": lambda: multiply(a)}, rounds=rounds)["matmul"]
    best = chain * 2 * size**3 / min(timing.rounds)
    return {"dtype": dtype, "size": size, "flops_per_s": max(best, before["flops_per_s"] if before else 0.0)}


def switch_length(lengths: list[int], short: list[float], long: list[float]) -> dict[str, Any]:
    """The length up to which the first form should be taken: the threshold with the least total log time.

    A single noisy length does not move it, as it would move "the first length where the other is quicker".

    Returns:
        "max_length" (0: never take the first form) and "crossed": False if one form won the whole grid.
    """
    order = np.argsort(lengths)
    first, second = np.log(np.asarray(short)[order]), np.log(np.asarray(long)[order])
    costs = [first[:k].sum() + second[k:].sum() for k in range(len(order) + 1)]
    best = int(np.argmin(costs))
    return {"max_length": int(np.asarray(lengths)[order][best - 1]) if best else 0, "crossed": 0 < best < len(order)}


def describe_device(count: int = 1) -> dict[str, Any]:
    """The device and the machine, and how busy it was."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": count,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    """Versions of what was measured."""
    found = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def require_torch() -> Any:
    """The torch module, or a one-line exit that says how to get it."""
    try:
        import torch
    except ImportError:
        sys.exit(f"--against torch needs PyTorch: pip install torch=={TORCH_VERSION}")
    return torch


def result(name: str, options: Any, device: dict[str, Any], rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The JSON document of one run."""
    return {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "versions": versions(),
        "options": {key: str(v) if isinstance(v, Path) else v for key, v in dataclasses.asdict(options).items()},
        "rows": rows,
        **more,
    }


def default_path(name: str) -> Path:
    """benchmarks/results/<name>-<device kind>.json."""
    slug = re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")
    return RESULTS / f"{name}-{slug}.json"


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Writes a document whole or not at all (temporary file, then rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    temporary.replace(path)


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table; the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 150)
    console.print(table)


def quantity(value: float | None, unit: str) -> str:
    """A figure with an SI prefix, such as 12.3 GFLOP/s; "-" for None."""
    if value is None or math.isnan(value):
        return "-"
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value * 1e6:.3g} u{unit}"
