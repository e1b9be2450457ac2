"""How long should a series be before the FFT pays, and before the generating function pays?

Question 1: making the convolution kernel: powers against the generating function (S4), and the Vandermonde form (S4D).
Question 2: applying it: a Toeplitz product against the FFT, with the operator made beforehand (sampling), and from
kernel to gradients (training); the cost of making the operator apart.

    python benchmarks/s4_kernel.py --lengths 16 30 64 128 256 512

The switch lengths it prints are what `jaxtraffic.nn.ssm.POWERS_MAX_LENGTH` and
`jaxtraffic.nn.convolution.TOEPLITZ_MAX_LENGTH` should be on this device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import tyro
from measure import quantity

from jaxtraffic.nn import convolution, ssm
from jaxtraffic.nn.functional import functional
from jaxtraffic.nn.s4 import S4

GRID = (16, 30, 32, 64, 100, 128, 256, 512, 1024)


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the benchmark."""

    lengths: tuple[int, ...] = GRID
    """Series lengths L."""
    channels: int = 64
    """State spaces, one a channel."""
    batch: int = 32
    """Series in a batch."""
    state: int = 64
    """Real state size N."""
    precision: str = "float32"
    """Precision of the Toeplitz product: float32 or bfloat16 (the FFT is always float32)."""
    rounds: int = 5
    """Figures to take of each contender."""
    min_seconds: float = 0.02
    """Shorter calls are repeated until a round takes so long."""
    max_bytes: int = 2**29
    """Skip Toeplitz operators above this size; their gradient needs several times as much."""
    out: Path | None = None
    """JSON file; default: benchmarks/results/s4_kernel-<device kind>.json."""


def main(options: Options) -> dict[str, Any]:
    """Measures, prints, writes and returns the document."""
    measure.start()
    device = measure.describe_device()
    lengths = sorted(set(options.lengths))
    rows = [row for length in lengths for row in (*kernel_rows(options, length), *convolution_rows(options, length))]
    switches = {
        "ssm.POWERS_MAX_LENGTH": {
            "now": ssm.POWERS_MAX_LENGTH,
            "making": _switch(rows, "kernel", "powers", "generating"),
            "making_with_gradient": _switch(rows, "kernel_gradient", "powers", "generating"),
        },
        "convolution.TOEPLITZ_MAX_LENGTH": {
            "now": convolution.TOEPLITZ_MAX_LENGTH,
            "applying": _switch(rows, "apply", "toeplitz", "fft"),
            "training": _switch(rows, "train", "toeplitz", "fft"),
        },
    }
    document = measure.result("s4_kernel", options, device, rows, switch_lengths=switches)
    _print(document)
    measure.write_json(options.out or measure.default_path("s4_kernel"), document)
    return document


def kernel_rows(options: Options, length: int) -> list[dict[str, Any]]:
    """Rows of question 1: the kernel, and the kernel with the gradient of a loss on it."""
    forms = {"powers": "dplr", "generating": "dplr", "vandermonde": "diag-lin"}
    values, gradients = {}, {}
    for form, space in forms.items():
        bank = _bank(options, space)

        def make(bank: ssm.Ssm, form: str = form) -> jax.Array:
            return ssm.kernel(bank, length, form=form)

        def loss(bank: ssm.Ssm, make: Callable[[ssm.Ssm], jax.Array] = make) -> jax.Array:
            return jnp.sum(make(bank) ** 2)

        values[form] = (jax.jit(make), (bank,))
        gradients[form] = (jax.jit(jax.grad(loss)), (bank,))
    return [*_race(options, "kernel", length, values), *_race(options, "kernel_gradient", length, gradients)]


def convolution_rows(options: Options, length: int) -> list[dict[str, Any]]:
    """Rows of question 2: the operator, its application, and everything from kernel to gradients."""
    dtype = measure.DTYPES[options.precision]
    series = jax.random.normal(jax.random.key(1), (options.batch, length, options.channels), dtype)
    kernel = 0.1 * jax.random.normal(jax.random.key(2), (2, options.channels, length))
    builds, applies, trains = {}, {}, {}
    too_large = options.channels * length**2 * 4 > options.max_bytes
    for method in ("fft",) if too_large else ("toeplitz", "fft"):

        def build(kernel: jax.Array, method: str = method) -> jax.Array:
            return convolution.operator(kernel, method)

        def loss(kernel: jax.Array, u: jax.Array, build: Callable[[jax.Array], jax.Array] = build) -> jax.Array:
            return jnp.sum(convolution.convolve(build(kernel), u).astype(jnp.float32) ** 2)

        builds[method] = (jax.jit(build), (kernel,))
        # A sampler makes the operator once, so it is cast once too.
        made = builds[method][0](kernel)
        made = made if jnp.iscomplexobj(made) else made.astype(dtype)
        applies[method] = (jax.jit(convolution.convolve), (made, series))
        trains[method] = (jax.jit(jax.value_and_grad(loss, (0, 1))), (kernel, series))
    rows = [
        *_race(options, "build", length, builds),
        *_race(options, "apply", length, applies),
        *_race(options, "train", length, trains),
    ]
    if too_large:
        skipped = {"form": "toeplitz", "length": length, "skipped": f"operator above {options.max_bytes} bytes"}
        rows += [{"question": question} | skipped for question in ("build", "apply", "train")]
    return rows


def _bank(options: Options, space: str) -> ssm.Ssm:
    init, apply = functional(lambda rngs: S4(options.channels, state=options.state, space=space, rngs=rngs))
    return apply(jax.jit(init)(jax.random.key(0)), method="parameters")


def _race(
    options: Options, question: str, length: int, contenders: dict[str, tuple[Any, tuple[Any, ...]]]
) -> list[dict[str, Any]]:
    programs = {name: measure.compile_program(jitted, *args) for name, (jitted, args) in contenders.items()}
    calls = {name: (lambda name=name: programs[name].call(*contenders[name][1])) for name in programs}
    timings = measure.race(calls, rounds=options.rounds, min_seconds=options.min_seconds)
    return [
        {"question": question, "form": name, "length": length} | programs[name].row() | timings[name].row()
        for name in programs
    ]


def _switch(rows: list[dict[str, Any]], question: str, short: str, long: str) -> dict[str, Any]:
    """The switch length of one question, over the lengths at which both forms were measured."""
    found = {
        form: {row["length"]: row["median_s"] for row in rows if _is(row, question, form)} for form in (short, long)
    }
    lengths = sorted(set(found[short]) & set(found[long]))
    seconds = [[found[form][length] for length in lengths] for form in (short, long)]
    ratios = {str(length): b / a for length, a, b in zip(lengths, *seconds, strict=True)}
    return measure.switch_length(lengths, *seconds) | {f"{long}_over_{short}": ratios}


def _is(row: dict[str, Any], question: str, form: str) -> bool:
    return row["question"] == question and row["form"] == form and "median_s" in row


def _print(document: dict[str, Any]) -> None:
    table = []
    for row in document["rows"]:
        name = [row["question"], row["form"], str(row["length"])]
        if "skipped" in row:
            table.append([*name, row["skipped"], "", "", ""])
            continue
        spread = f"{quantity(row['min_s'], 's')} .. {quantity(row['max_s'], 's')}"
        compile_s, temp = quantity(row["lower_s"] + row["compile_s"], "s"), quantity(row["memory"]["temp_bytes"], "B")
        table.append([*name, quantity(row["median_s"], "s"), spread, compile_s, temp])
    measure.show("S4 kernels", ["question", "form", "L", "median", "min .. max", "compile", "temporaries"], table)
    table = []
    for constant, found in document["switch_lengths"].items():
        for question, switch in found.items():
            if question == "now":
                continue
            ratios = next(value for key, value in switch.items() if "_over_" in key)
            best = f"{switch['max_length']}" + ("" if switch["crossed"] else " (end of the grid: no crossing)")
            text = "  ".join(f"{length}: {ratio:.2f}" for length, ratio in ratios.items())
            table.append([constant, question, str(found["now"]), best, text])
    columns = ["constant", "question", "now", "best here", "time of the long form / of the short form, by L"]
    measure.show("Switch lengths", columns, table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
