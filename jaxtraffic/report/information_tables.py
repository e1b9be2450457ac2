"""What a benchmark of mutual information found, as tables: estimates by task and method, coloured by their bias."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.style import Style
from rich.table import Table
from rich.text import Text

TOLERANCE_SHARE, TOLERANCE_NATS = 0.1, 0.05
"""An estimate is near where its error is at most the larger of this share of the truth and these nats."""
SATURATION = 5
"""Error, in tolerances, at which the colour of a cell is fullest."""
OVER, UNDER = "\N{BLACK UP-POINTING TRIANGLE}", "\N{BLACK DOWN-POINTING TRIANGLE}"
"""Marks of estimates that are not near, for those who do not see the colours."""
_RED, _BLUE = (178, 24, 43), (33, 102, 172)

PUBLISHED: dict[str, dict[str, float]] = {
    "CCA": {
        "1v1-normal-0.75": 0.415,
        "1v1-bimodal-0.75": 0.338,
        "1v1-additive-0.1": 1.629,
        "swissroll_x-normal_cdf-1v1-normal-0.75": 0.022,
        "student-identity-2-2-1": 1.609,
        "asinh-student-identity-2-2-1": 0.001,
        "student-identity-5-5-2": 0.250,
        "multinormal-sparse-3-3-2-2.0": 1.035,
        "spiral-multinormal-sparse-3-3-2-2.0": 0.238,
        "multinormal-sparse-25-25-2-2.0": 1.054,
        "spiral-multinormal-sparse-25-25-2-2.0": 0.857,
        "multinormal-dense-50-50-0.5": 1.734,
    },
    "KSG": {
        "1v1-normal-0.75": 0.425,
        "1v1-bimodal-0.75": 0.428,
        "1v1-additive-0.1": 1.672,
        "swissroll_x-normal_cdf-1v1-normal-0.75": 0.424,
        "student-identity-2-2-1": 0.184,
        "asinh-student-identity-2-2-1": 0.358,
        "student-identity-5-5-2": 0.204,
        "multinormal-sparse-3-3-2-2.0": 0.945,
        "spiral-multinormal-sparse-3-3-2-2.0": 0.662,
        "multinormal-sparse-25-25-2-2.0": 0.181,
        "spiral-multinormal-sparse-25-25-2-2.0": 0.168,
        "multinormal-dense-50-50-0.5": 1.244,
    },
    "MINE": {
        "1v1-normal-0.75": 0.437,
        "1v1-bimodal-0.75": 0.431,
        "1v1-additive-0.1": 1.681,
        "swissroll_x-normal_cdf-1v1-normal-0.75": 0.414,
        "student-identity-2-2-1": 0.101,
        "asinh-student-identity-2-2-1": 0.408,
        "student-identity-5-5-2": 0.259,
        "multinormal-sparse-3-3-2-2.0": 1.037,
        "spiral-multinormal-sparse-3-3-2-2.0": 0.687,
        "multinormal-sparse-25-25-2-2.0": 0.888,
        "spiral-multinormal-sparse-25-25-2-2.0": 0.710,
        "multinormal-dense-50-50-0.5": 1.532,
    },
}
"""Nats that the estimators of bmi (cbg-ethz/bmi 0.1.3) gave on 10,000 samples of one seed: CCA on all, KSG with k = 10
on the first 5,000, MINE with critic (32, 32, 8), learning rate 1e-3, half of the samples to train."""
PUBLISHED_NOTE = (
    "values of another code (bmi 0.1.3: CCA; KSG with k = 10 on 5,000; MINE with critic 32-32-8) on 10,000 samples of "
    "one seed; not comparable seed by seed"
)


@dataclasses.dataclass(frozen=True)
class TaskRow:
    """A task of the benchmark.

    Attributes:
        name: its key.
        dim_x, dim_y: dimensions.
        mutual_information: the truth, nats.
        title: what people call it.
    """

    name: str
    dim_x: int
    dim_y: int
    mutual_information: float
    title: str = ""

    @property
    def tolerance(self) -> float:
        """Nats within which an estimate is near."""
        return max(TOLERANCE_SHARE * abs(self.mutual_information), TOLERANCE_NATS)


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one method made of one task, over the seeds.

    Attributes:
        task: the task.
        values: nats by seed; empty where the method gave up.
        stderrs: the estimator's own standard errors over test points, by seed; NaN where it has none.
        seconds: wall time of all seeds.
        warnings: of the estimator, each once.
        error: why there is no estimate; empty otherwise.
        n_train, n_test: samples of one seed.
    """

    task: TaskRow
    values: tuple[float, ...]
    stderrs: tuple[float, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str = ""
    n_train: int = 0
    n_test: int = 0

    @property
    def mean(self) -> float:
        """Over seeds, nats; NaN where any seed is not finite or there is none."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation over seeds (n - 1), nats; NaN for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def stderr(self) -> float:
        """Mean of the estimator's own standard errors."""
        return float(np.mean(self.stderrs)) if self.stderrs else math.nan

    @property
    def bias(self) -> float:
        """Mean less truth, nats."""
        return self.mean - self.task.mutual_information

    @property
    def absolute_error(self) -> float:
        """Mean over seeds of the distance to the truth, nats."""
        return float(np.mean(np.abs(np.array(self.values) - self.task.mutual_information))) if self.values else math.nan

    @property
    def failed(self) -> bool:
        """Whether there is no finite estimate."""
        return not math.isfinite(self.mean)

    @property
    def within(self) -> bool:
        """Whether the mean over seeds is near the truth; see `TaskRow.tolerance`."""
        return abs(self.bias) <= self.task.tolerance

    @property
    def text(self) -> str:
        """The estimate, with an arrow where it is not near."""
        if self.error:
            return "no estimate"
        if self.failed:
            return "not finite"
        return ("" if self.within else OVER if self.bias > 0 else UNDER) + nats(self.mean)

    @property
    def spread_text(self) -> str:
        """Standard deviation over seeds, or the estimator's standard error where there is one seed."""
        for value, kind in ((self.sd, "sd"), (self.stderr, "se")):
            if math.isfinite(value):
                return f"\N{PLUS-MINUS SIGN}{nats(value)} {kind}"
        return ""

    @property
    def colours(self) -> tuple[str, str]:
        """Background and ink as #rrggbb."""
        return ("#eeeeee", "#444444") if self.failed else bias_colours(self.bias / self.task.tolerance)


@dataclasses.dataclass(frozen=True)
class Summary:
    """A method over the tasks.

    Attributes:
        method: its label.
        tasks: tasks that were tried.
        failed: tasks without a finite estimate.
        mean_absolute_error: nats, over the tasks with an estimate; NaN where there is none.
        mean_absolute_error_common: nats, over the tasks for which every method has an estimate.
        common: how many those are.
        within: tasks whose estimate is near.
        seconds: of all its tasks and seeds.
        slowest: seconds of the slowest task.
    """

    method: str
    tasks: int
    failed: int
    mean_absolute_error: float
    mean_absolute_error_common: float
    common: int
    within: int
    seconds: float
    slowest: float


class Grid:
    """Cells by task and method; a pair that was not run has none."""

    def __init__(self, tasks: Sequence[TaskRow], methods: Sequence[str], lines: Iterable[Mapping[str, Any]]):
        """Puts the lines of results.jsonl (task, method, seed, value, ...) in their cells; others are left out."""
        self.tasks, self.methods = tuple(tasks), tuple(methods)
        found: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
        for line in lines:
            found.setdefault((line["task"], line["method"]), {})[line["seed"]] = line
        self._cells = {
            (task.name, method): _cell(task, found[task.name, method])
            for task in self.tasks
            for method in self.methods
            if (task.name, method) in found
        }

    def cell(self, task: TaskRow, method: str) -> Cell | None:
        """The cell, None where the pair was not run."""
        return self._cells.get((task.name, method))

    def column(self, method: str) -> list[Cell]:
        """The cells of a method, in the order of the tasks."""
        return [cell for task in self.tasks if (cell := self.cell(task, method)) is not None]

    def summaries(self) -> list[Summary]:
        """Every method over its tasks."""
        good = {method: {cell.task.name for cell in self.column(method) if not cell.failed} for method in self.methods}
        common = set.intersection(*good.values()) if good else set()
        return [self._summary(method, common) for method in self.methods]

    def _summary(self, method: str, common: set[str]) -> Summary:
        cells = self.column(method)
        errors = {cell.task.name: cell.absolute_error for cell in cells if not cell.failed}
        shared = [error for name, error in errors.items() if name in common]
        return Summary(
            method=method,
            tasks=len(cells),
            failed=len(cells) - len(errors),
            mean_absolute_error=float(np.mean(list(errors.values()))) if errors else math.nan,
            mean_absolute_error_common=float(np.mean(shared)) if shared else math.nan,
            common=len(common),
            within=sum(cell.within for cell in cells),
            seconds=sum(cell.seconds for cell in cells),
            slowest=max((cell.seconds for cell in cells), default=0.0),
        )


def _cell(task: TaskRow, by_seed: Mapping[int, Mapping[str, Any]]) -> Cell:
    lines = [by_seed[seed] for seed in sorted(by_seed)]
    error = next((line["error"] for line in lines if line.get("error")), "")
    return Cell(
        task=task,
        values=() if error else tuple(_number(line["value"]) for line in lines),
        stderrs=() if error else tuple(_number(line["stderr"]) for line in lines),
        seconds=sum(line["seconds"] for line in lines),
        warnings=tuple(dict.fromkeys(text for line in lines for text in line.get("warnings", ()))),
        error=error,
        n_train=max(line.get("n_train", 0) for line in lines),
        n_test=max(line.get("n_test", 0) for line in lines),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def bias_colours(tolerances: float) -> tuple[str, str]:
    """Background and ink for an error in tolerances: white at 0, red above, blue below, full from `SATURATION` on."""
    strength = min(abs(tolerances) / SATURATION, 1.0)
    full = _RED if tolerances > 0 else _BLUE
    mixed = [round(255 + strength * (part - 255)) for part in full]
    # The ink with more contrast (WCAG 2, relative luminance): black or white gives 4.5 to 1 on every background.
    parts = [((part / 255 + 0.055) / 1.055) ** 2.4 for part in mixed]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    ink = "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"
    return "#{:02x}{:02x}{:02x}".format(*mixed), ink


def nats(value: float) -> str:
    """Three decimals, with a proper minus sign."""
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "\N{EN DASH}"


def seconds_text(seconds: float) -> str:
    """Seconds, or minutes from two on."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def benchmark_table(grid: Grid, *, budget_seconds: float = math.inf) -> Table:
    """A rich table: tasks as rows, the truth, each method's estimate coloured by bias, and the rows over all tasks."""
    title = f"Mutual information in nats; near: within {TOLERANCE_SHARE:.0%} or {TOLERANCE_NATS:g} nats of the truth"
    table = Table(title=title, title_justify="left")
    table.add_column("task", overflow="fold", min_width=16)
    table.add_column("truth", justify="right", no_wrap=True, style="bold")
    for method in grid.methods:
        # Broken where options begin, and narrow cells: names of tasks are long.
        heading = method.replace(":", ":\n").replace(",", ",\n")
        table.add_column(Text(heading), justify="right", no_wrap=True, overflow="fold")
    for task in grid.tasks:
        cells = [_rich_cell(grid.cell(task, method)) for method in grid.methods]
        table.add_row(Text(f"{task.name} ({task.dim_x}x{task.dim_y})"), nats(task.mutual_information), *cells)
    table.add_section()
    for title, cells in summary_rows(grid.summaries(), budget_seconds):
        table.add_row(title, "", *[Text(cell.text, "bold" if cell.best else "") for cell in cells])
    return table


def _rich_cell(cell: Cell | None) -> Text:
    if cell is None:
        return Text("not run", "dim")
    background, ink = cell.colours
    mark = " !" if cell.warnings else ""
    spread = f"\n{cell.spread_text}" if cell.spread_text else ""
    return Text(f"{cell.text}{mark}{spread}", Style(color=ink, bgcolor=background))


@dataclasses.dataclass(frozen=True)
class SummaryCell:
    """One figure of a summary row, and whether no other method has a better one."""

    text: str
    best: bool = False


def summary_rows(summaries: Sequence[Summary], budget_seconds: float = math.inf) -> list[tuple[str, list[SummaryCell]]]:
    """The rows below the tasks: title and a figure for each method."""
    errors = [one.mean_absolute_error for one in summaries]
    common_errors = [one.mean_absolute_error_common for one in summaries]
    near = [one.within for one in summaries]
    rows = []
    if any(one.failed or one.tasks != summaries[0].tasks for one in summaries):
        # Errors over different tasks do not compare; those over the tasks that all share do.
        rows.append(("mean absolute error, its own tasks", [SummaryCell(nats(error)) for error in errors]))
        title = f"mean absolute error, the {summaries[0].common} tasks of all"
        rows.append((title, [SummaryCell(nats(error), error == _least(common_errors)) for error in common_errors]))
    else:
        rows.append(("mean absolute error", [SummaryCell(nats(error), error == _least(errors)) for error in errors]))
    rows.append(
        ("near the truth", [SummaryCell(f"{one.within} of {one.tasks}", one.within == max(near)) for one in summaries])
    )
    if any(one.failed for one in summaries):
        rows.append(("no estimate", [SummaryCell(str(one.failed)) for one in summaries]))
    rows.append(("time", [SummaryCell(seconds_text(one.seconds)) for one in summaries]))
    mark = " (!)"
    slowest = [seconds_text(one.slowest) + (mark if one.slowest > budget_seconds else "") for one in summaries]
    rows.append(("slowest task", [SummaryCell(text) for text in slowest]))
    return rows


def _least(values: Sequence[float]) -> float:
    return min((value for value in values if math.isfinite(value)), default=math.nan)


def flat_results(grid: Grid) -> dict[str, Any]:
    """The figures of report.json: "task.<task>.mutual_information", "<method>.mean_absolute_error", "<method>.within",
    "<method>.<task>.mean" and so on, and "reference.bmi_<method>.<task>"; null where there is none.
    """
    flat: dict[str, Any] = {}
    for task in grid.tasks:
        flat[f"task.{task.name}.mutual_information"] = task.mutual_information
    for one in grid.summaries():
        values = dataclasses.asdict(one)
        del values["method"]
        flat |= {f"{one.method}.{key}": _finite(value) for key, value in values.items()}
        for cell in grid.column(one.method):
            prefix = f"{one.method}.{cell.task.name}"
            for key in ("mean", "sd", "stderr", "bias", "absolute_error", "within", "seconds", "n_train", "n_test"):
                flat[f"{prefix}.{key}"] = _finite(getattr(cell, key))
            flat[f"{prefix}.n_seeds"] = len(cell.values)
            if cell.error:
                flat[f"{prefix}.error"] = cell.error
    for method, values in PUBLISHED.items():
        for task in grid.tasks:
            if task.name in values:
                flat[f"reference.bmi_{method.lower()}.{task.name}"] = values[task.name]
    return flat


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
