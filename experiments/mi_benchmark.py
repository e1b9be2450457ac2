"""Estimators of mutual information on tasks of known truth: tasks x methods x seeds, a table coloured by bias.

Claim (thesis, chapter 6, Figure 6.1): estimates from generative models, MINDE (here ddpm) and rectified flow (rf),
follow the truth over the tasks of Beyond Normal where MINE and its kin fall short.

    python experiments/mi_benchmark.py --tasks panel --methods rf ddpm mine --n-train 100000 --n-test 10000 --out DIR
    python experiments/mi_benchmark.py --tasks all --methods cca ksg --seeds 10
    python experiments/mi_benchmark.py --tasks 1v1-normal-0.75 --methods rf "rf:form=squared" "mine:steps=2000"

All seeds of a task are trained in one program. Every finished pair of task and method is written to results.jsonl at
once, and --resume goes on from there, also with further tasks and methods. Cost: minutes for each task and trained
method at 100,000 samples on 2 CPU cores; the budget shown is 6.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from mi_consistency import run_checks
from mi_results import append_lines, finite, read_lines
from mi_variants import Variant, chosen_variants
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jaxtraffic import information, prng
from jaxtraffic.command import command_line
from jaxtraffic.command.run_folder import environment
from jaxtraffic.errors import ConfigError, JaxTrafficError
from jaxtraffic.information import tasks as benchmark
from jaxtraffic.information.registry import method_named
from jaxtraffic.information.result import MIResult
from jaxtraffic.report import information_pages as pages
from jaxtraffic.report.information_tables import Grid, TaskRow, benchmark_table, nats, seconds_text
from jaxtraffic.report.write import write_atomically

SUITES = ("panel", "all", "high-mi", "grid", "pairs")
SAMPLING = ("n_train", "n_test", "n_untrained", "seeds", "first_seed")
"""Options that decide the samples: a run folder holds results of one value of each."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the benchmark."""

    tasks: tuple[str, ...] = ("panel",)
    """Names of tasks, or suites: panel (ten that differ), all (the 40), high-mi (2 to 10 nats), grid (0 to 5 nats),
    pairs (tasks of the 40 before and after a change of coordinates that leaves the truth as it is)."""
    methods: tuple[str, ...] = ("rf", "ddpm", "mine")
    """Estimators, with options after a colon: rf, rf:form=squared, ddpm:variant=joint, mine:steps=2000,tau=5."""
    seeds: int = 1
    """How many seeds: samples, parameters and noise are drawn anew for each."""
    first_seed: int = 0
    """The first of them."""
    n_train: int = 100_000
    """Samples to train on."""
    n_test: int = 10_000
    """Samples to estimate on."""
    n_untrained: int = 10_000
    """Samples for methods that do not train (the first of those to train on)."""
    seeds_per_program: int | None = None
    """Seeds that are trained in one program; default: all. Fewer take less memory."""
    budget_minutes: float = 6.0
    """Time that a task may take a method; more is marked, not stopped."""
    consistency: tuple[str, ...] = ()
    """Tasks (or suites) on which to check the methods against themselves too: independence, data processing, chain,
    symmetry, additivity, invariance; eight or nine estimates for each task and method."""
    n_consistency: int = 20_000
    """Samples for each of these estimates; half of them train."""
    out: Path | None = None
    """Run folder; default: runs/mi_benchmark-<time>."""
    resume: bool = False
    """Go on with a run folder: what is there is kept, what failed or is missing is run."""


def run_benchmark(options: Options, console: Console) -> None:
    """Runs what is not there yet, writes the run folder, prints the table."""
    clock = time.perf_counter()
    _check(options)
    tasks = chosen_tasks("--tasks", options.tasks)
    checked = chosen_tasks("--consistency", options.consistency) if options.consistency else []
    variants = chosen_variants(options.methods)
    folder = options.out or Path("runs") / f"mi_benchmark-{datetime.now():%Y%m%d-%H%M%S}"
    config, lines = _open(folder, options, tasks, variants)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    size = options.seeds_per_program or options.seeds
    chunks = [tuple(seeds[start : start + size]) for start in range(0, len(seeds), size)]
    done = {_place(line) for line in lines}
    todo = [
        (task, chunk, [v for v in variants if any((task.name, v.label, seed) not in done for seed in chunk)])
        for task in tasks
        for chunk in chunks
    ]
    total = sum(len(missing) for _, _, missing in todo)
    budget = 60 * options.budget_minutes
    console.print(
        f"{_counted(len(tasks), 'task')}, {_counted(len(variants), 'method')}, {_counted(options.seeds, 'seed')}: "
        f"{_counted(total, 'program')} to run, "
        f"{len(tasks) * len(chunks) * len(variants) - total} there already; budget {seconds_text(budget)} each, "
        f"{seconds_text(budget * total)} in all",
        highlight=False,
        soft_wrap=True,
    )
    with _bar(console) as bar:
        row = bar.add_task("", total=total)
        for task, chunk, missing in todo:
            samples = [draw(task, seed, options) for seed in chunk] if missing else []
            for variant in missing:
                bar.update(row, description=escape(f"{variant.label} on {task.name}"))
                fresh = run_cell(task, variant, chunk, samples, options)
                # Of a program whose seeds were there in part, what was there stands.
                fresh = [line for line in fresh if _place(line) not in done]
                lines += fresh
                append_lines(folder / "results.jsonl", fresh)
                console.print(_said(task, variant, fresh, budget), highlight=False, markup=False, soft_wrap=True)
                bar.advance(row)
    checks = run_checks(
        checked,
        variants,
        folder,
        console,
        n=options.n_consistency,
        n_untrained=options.n_untrained,
        seed=options.first_seed,
    )
    rows = [TaskRow(task.name, task.dim_x, task.dim_y, task.mutual_information, task.title) for task in tasks]
    grid = Grid(rows, [variant.label for variant in variants], lines)
    page = pages.write_benchmark(
        folder,
        grid,
        facts=_facts(options, variants),
        config=config,
        kinds={variant.label: variant.method for variant in variants},
        checks=checks,
        sources={variant.method: method_named(variant.method).source for variant in variants},
        budget_seconds=budget,
        timing={"timing.seconds": time.perf_counter() - clock, "timing.budget_seconds": budget},
    )
    console.print(benchmark_table(grid, budget_seconds=budget))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def chosen_tasks(option: str, names: Sequence[str]) -> list[benchmark.Task]:
    """The tasks of names and suites, each once, in their order.

    Raises:
        ConfigError: an unknown name.
    """
    suites = {
        "panel": benchmark.PANEL,
        "all": benchmark.TASKS.values(),
        "high-mi": benchmark.HIGH_MI.values(),
        "grid": benchmark.GRID.values(),
        "pairs": [task for pair in benchmark.PAIRS for task in pair],
    }
    found: dict[str, benchmark.Task] = {}
    for name in names:
        try:
            chosen = suites[name] if name in suites else [benchmark.task_named(name)]
        except ConfigError as error:
            raise ConfigError(f"{option}: {error}; or a suite: {', '.join(SUITES)}") from error
        found |= {task.name: task for task in chosen}
    if not found:
        raise ConfigError(f"{option} needs a task or a suite: {', '.join(SUITES)}")
    return list(found.values())


def draw(task: benchmark.Task, seed: int, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training and test samples; a pure function of task, seed and how many."""
    key = prng.stream(prng.stream(jax.random.key(seed), "samples"), task.name)
    drawn = {
        part: task.sample(prng.stream(key, part), n)
        for part, n in (("train", options.n_train), ("test", options.n_test))
    }
    return {part: (np.asarray(x), np.asarray(y)) for part, (x, y) in drawn.items()}


def run_cell(
    task: benchmark.Task,
    variant: Variant,
    seeds: Sequence[int],
    samples: Sequence[Mapping[str, tuple[np.ndarray, np.ndarray]]],
    options: Options,
) -> list[dict[str, Any]]:
    """Lines of results.jsonl: one estimate for each seed, or why there is none."""
    trains = method_named(variant.method).trains
    clock = time.perf_counter()
    shown = {"task": task.name, "method": variant.label, "options": variant.described()}
    try:
        results = information.estimate_many(
            [sample["train"][0] if trains else sample["train"][0][: options.n_untrained] for sample in samples],
            [sample["train"][1] if trains else sample["train"][1][: options.n_untrained] for sample in samples],
            method=variant.method,
            keys=[prng.stream(prng.stream(jax.random.key(seed), "estimate"), task.name) for seed in seeds],
            tests=[sample["test"] for sample in samples] if trains else 0.5,
            preprocess=variant.preprocess,
            options=variant.options,
        )
    except JaxTrafficError as error:
        reason = str(error)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = "out of memory; fewer --seeds-per-program need less"
    else:
        return [shown | {"seed": seed} | _line(result) for seed, result in zip(seeds, results, strict=True)]
    seconds = (time.perf_counter() - clock) / len(seeds)
    failed = {"value": None, "stderr": None, "seconds": seconds, "warnings": [], "error": reason}
    return [shown | {"seed": seed} | failed for seed in seeds]


def _line(result: MIResult) -> dict[str, Any]:
    return finite(
        {
            "value": result.value,
            "stderr": result.stderr,
            "seconds": result.seconds,
            "warnings": list(result.warnings),
            "n_train": result.n_train,
            "n_test": result.n_test,
        }
    )


def _check(options: Options) -> None:
    for name in ("n_train", "n_test", "n_untrained", "n_consistency"):
        if getattr(options, name) < 10:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 10, got {getattr(options, name)}")
    if options.seeds < 1 or options.first_seed < 0:
        raise ConfigError(f"--seeds must be at least 1 and --first-seed at least 0, got {options.seeds} and "
                          f"{options.first_seed}")  # fmt: skip
    if options.seeds_per_program is not None and options.seeds_per_program < 1:
        raise ConfigError(f"--seeds-per-program must be at least 1, got {options.seeds_per_program}")
    if not options.budget_minutes > 0:
        raise ConfigError(f"--budget-minutes must be above 0, got {options.budget_minutes:g}")
    if options.resume and options.out is None:
        raise ConfigError("--resume needs --out, the run folder that is meant")


def _open(
    folder: Path, options: Options, tasks: Sequence[Any], variants: Sequence[Variant]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Writes config.json; returns it with the lines that stay."""
    path, results = folder / "config.json", folder / "results.jsonl"
    config: dict[str, Any] = {"experiment": "mi_benchmark"} | {name: getattr(options, name) for name in SAMPLING}
    lines: list[dict[str, Any]] = []
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not options.resume:
                raise ConfigError(f"{folder} is not empty; add --resume to go on with it, or choose another --out")
            lines = _kept(path, results, config, variants)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").unlink(missing_ok=True)
        config |= {
            "tasks": [task.name for task in tasks],
            "methods": {variant.label: variant.described() for variant in variants},
            "seeds_per_program": options.seeds_per_program,
            "budget_minutes": options.budget_minutes,
            "consistency": list(options.consistency),
            "n_consistency": options.n_consistency,
            "data": {"source": "simulated", "name": "benchmark tasks of known mutual information"},
        } | environment()
        write_atomically(path, (json.dumps(config, indent=2) + "\n").encode())
        # Anew, without failures and a line that a kill cut short.
        write_atomically(results, "".join(json.dumps(line) + "\n" for line in lines).encode())
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror or error}; choose another") from error
    return config, lines


def _kept(path: Path, results: Path, config: Mapping[str, Any], variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """The estimates of an earlier run, after checking that it drew the same samples and meant the same methods."""
    try:
        stored = json.loads(path.read_text())
        lines = read_lines(results) if results.exists() else []
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--resume: {path.parent} is not a run of this benchmark ({error}); choose another"
        ) from error
    for name, value in config.items():
        if stored.get(name) != value:
            raise ConfigError(f"--resume: {path} was written with {name} = {stored.get(name)}, now {value}; "
                              "choose another --out")  # fmt: skip
    now = {variant.label: variant.described() for variant in variants}
    for line in lines:
        wanted = now.get(line["method"], line["options"])
        for name in wanted.keys() | line["options"].keys():
            if wanted.get(name) != line["options"].get(name):
                raise ConfigError(
                    f"--resume: {line['method']} of {line['task']} in {results} was run with {name} = "
                    f"{line['options'].get(name)}, now {wanted.get(name)}; choose another --out"
                )
    return [line for line in lines if not line.get("error")]


def _place(line: Mapping[str, Any]) -> tuple[str, str, int]:
    return line["task"], line["method"], line["seed"]


def _bar(console: Console) -> Progress:
    """A bar on a terminal, nothing elsewhere: there the lines of finished pairs tell."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=console, disable=not console.is_terminal)


def _said(task: benchmark.Task, variant: Variant, lines: Sequence[Mapping[str, Any]], budget: float) -> str:
    seconds = sum(line["seconds"] for line in lines)
    spent = f"{seconds_text(seconds)}{' (over budget)' if seconds > budget else ''}"
    if error := lines[0].get("error"):
        return f"{task.name}  {variant.label}  no estimate: {error}  {spent}"
    values = [math.nan if line["value"] is None else line["value"] for line in lines]
    warned = f"  {_counted(len({text for line in lines for text in line['warnings']}), 'warning')}"
    return (
        f"{task.name}  {variant.label}  {', '.join(map(nats, values))} (truth {nats(task.mutual_information)})  {spent}"
        f"{'' if warned.startswith('  0') else warned}"
    )


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _facts(options: Options, variants: Sequence[Variant]) -> dict[str, Any]:
    facts: dict[str, Any] = {"Seeds": options.seeds if not options.first_seed else
                             f"{options.seeds}, from {options.first_seed}"}  # fmt: skip
    trained = [variant.label for variant in variants if method_named(variant.method).trains]
    untrained = [variant.label for variant in variants if variant.label not in trained]
    if trained:
        facts["Samples to train"] = options.n_train
        facts["Samples to test"] = options.n_test
    if untrained:
        facts["Samples where nothing is trained"] = (
            f"{min(options.n_untrained, options.n_train):,} ({', '.join(untrained)})"
        )
    if options.consistency:
        facts["Samples for self-consistency"] = options.n_consistency
    facts["Time budget"] = f"{options.budget_minutes:g} minutes for each task and method"
    return facts


if __name__ == "__main__":
    command_line(Options, run_benchmark, __doc__)
