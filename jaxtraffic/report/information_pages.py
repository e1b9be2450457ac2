"""The page of a benchmark of mutual information: estimates coloured by bias, figures, checks, what the methods are."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.information_figures import bias_by_method, estimates_against_truth
from jaxtraffic.report.information_tables import (
    OVER,
    PUBLISHED,
    PUBLISHED_NOTE,
    SATURATION,
    TOLERANCE_NATS,
    TOLERANCE_SHARE,
    UNDER,
    Grid,
    bias_colours,
    flat_results,
    nats,
    seconds_text,
    summary_rows,
)
from jaxtraffic.report.page import fact_text, flatten
from jaxtraffic.report.write import write_atomically, write_picture

METHODS: dict[str, tuple[str, str]] = {
    "rf": (
        "Rectified flow: one network learns the velocity with and without y, beside that of the Gaussian of the same "
        "moments; the information is the integral of the gap between their errors, weighted by t/(1 - t).",
        "Where x given y is much narrower than x (several nats a dimension) and not Gaussian, the information lies "
        "next to t = 1 and part of it is lost; a network that does not fit shows as an estimate that is too low.",
    ),
    "ddpm": (
        "MINDE: one network learns scores of a diffusion with and without y (or of the joint), beside those of the "
        "Gaussian of the same moments; the information is the integral of half the squared difference between them.",
        "A squared difference turns errors of the network into information: too high where there is little. What lies "
        "in the last, least noisy part of the diffusion is cut off: too low where there is much.",
    ),
    "mine": (
        "Donsker-Varadhan bound from a learned critic, with a moving average in its gradient.",
        "Its variance grows as exp(MI)/n, so it stalls at a few nats; a critic that does not fit gives too little.",
    ),
    "infonce": (
        "Contrastive bound: the critic has to find the right y among those of a batch.",
        "Can never exceed the logarithm of the number of candidates, and gives too little long before.",
    ),
    "nwj": (
        "Bound of Nguyen, Wainwright and Jordan (f-divergence) from a learned critic.",
        "Its variance grows as exp(MI)/n, faster than MINE's; a critic that does not fit gives too little.",
    ),
    "smile": (
        "Donsker-Varadhan value with clipped critic, trained on the Jensen-Shannon bound.",
        "No bound in either direction: clipping trades variance for bias, and can give too much.",
    ),
    "doe": (
        "Difference of two cross-entropies, of y and of y given x, under parametric densities.",
        "Neither a bound nor consistent unless both families hold the truth; may be too high, too low or negative.",
    ),
    "ksg": (
        "Nearest neighbours (Kraskov, Stoegbauer and Grassberger); nothing is learned.",
        "Gives too little in many dimensions and where dependence is strong: neighbours are too far away.",
    ),
    "cca": (
        "Canonical correlations, exact for Gaussian pairs; nothing is learned.",
        "Sees linear dependence of the (preprocessed) coordinates only and is blind to all other.",
    ),
}
"""By method: what it is, in a line, and its known blind spot."""


CHECKS: dict[str, str] = {
    "independence": "With y permuted there is no information; what is found then is the floor of the estimator.",
    "data_processing": "A function of y beside y adds nothing: I(X; [Y, h(Y)]) / I(X; Y) is 1.",
    "chain": "Noise on y cannot add information: I(X; Y + noise) / I(X; Y) is at most 1.",
    "additivity": "Two independent copies hold twice the information: the ratio is 2.",
    "symmetry": "I(Y; X) / I(X; Y) is 1.",
    "invariance": "Injective maps of x and of y change nothing: the ratio of after to before is 1.",
    "permutation": "How far the estimate stands out from permuted ones, in their standard deviations: 1.645 or more.",
}
"""What each check of a method against itself asks."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One check of a method against itself.

    Attributes:
        test: which, such as "independence".
        task: on the samples of which task.
        method: label.
        wanted: what a consistent estimator gives.
        found: what it gave; NaN where it gave nothing.
        unit: "nats", or "ratio" for quotients.
        bound: "" where `wanted` is the value itself, "most" or "least" where it is a bound.
        values: the estimates behind it, nats by name.
        note: what else to say, such as why there is no value.
    """

    test: str
    task: str
    method: str
    wanted: float
    found: float
    unit: str = "ratio"
    bound: str = ""
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def tolerances(self) -> float:
        """The error in units of what is near: 10 % of what is wanted, or 0.05 nats where that is an information."""
        away = self.found - self.wanted
        away = max(away, 0.0) if self.bound == "most" else min(away, 0.0) if self.bound == "least" else away
        return away / (TOLERANCE_NATS if self.unit == "nats" else TOLERANCE_SHARE * abs(self.wanted))

    @property
    def near(self) -> bool:
        """Whether the error is within its tolerance; false where nothing was found."""
        return math.isfinite(self.found) and abs(self.tolerances) <= 1

    @property
    def colours(self) -> tuple[str, str]:
        """Background and ink as #rrggbb."""
        return bias_colours(self.tolerances) if math.isfinite(self.found) else ("#eeeeee", "#444444")

    @property
    def wanted_text(self) -> str:
        """What is wanted, with the sign of a bound."""
        sign = {"most": "\N{LESS-THAN OR EQUAL TO} ", "least": "\N{GREATER-THAN OR EQUAL TO} "}.get(self.bound, "")
        return f"{sign}{self.wanted:g}"


def write_benchmark(
    folder: str | Path,
    grid: Grid,
    *,
    facts: Mapping[str, Any],
    config: Mapping[str, Any],
    kinds: Mapping[str, str],
    checks: Sequence[Check] = (),
    sources: Mapping[str, str] | None = None,
    budget_seconds: float = math.inf,
    timing: Mapping[str, float] | None = None,
) -> Path:
    """Writes figures/*.png, report.html and, last, report.json into a run folder; old ones are replaced.

    Args:
        folder: the run folder, which exists.
        grid: the results.
        facts: title -> value: samples, seeds, budget and the like, for the head of the page.
        config: what config.json holds; its command, device, versions and git_revision are shown where they are there.
        kinds: name of the estimator by label, such as {"rf:form=squared": "rf"}.
        checks: what the self-consistency tests gave.
        sources: paper and equation, by name of the estimator.
        budget_seconds: time that a task may take a method; longer ones are marked.
        timing: seconds of the whole run, for report.json (keys "timing.*").

    Returns:
        The path of report.html.

    Raises:
        ConfigError: nothing to show, or a folder that cannot be written.
    """
    folder = Path(folder)
    if not any(grid.column(method) for method in grid.methods):
        raise ConfigError("a page of a benchmark needs at least one result")
    try:
        (folder / "report.json").unlink(missing_ok=True)
        drawings = (*estimates_against_truth(grid), *bias_by_method(grid))
        figures = [write_picture(folder / "figures", drawing) for drawing in drawings]
        page = _render(
            grid=grid,
            facts=facts,
            config=config,
            checks=checks,
            check_meanings={test: CHECKS.get(test, "") for test in dict.fromkeys(check.test for check in checks)},
            figures=figures,
            budget_seconds=budget_seconds,
            descriptions=[_description(method, kinds[method], sources or {}) for method in grid.methods],
        )
        write_atomically(folder / "report.html", page.encode("utf-8", errors="backslashreplace"))
        text = json.dumps(_report(grid, config, checks, timing or {}), indent=2, allow_nan=False) + "\n"
        write_atomically(folder / "report.json", text.encode("ascii"))
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror or error}; choose another") from error
    return folder / "report.html"


def check_results(checks: Sequence[Check]) -> dict[str, Any]:
    """The figures of report.json: "consistency.<method>.<test>.<task>.found" and so on."""
    flat: dict[str, Any] = {}
    for check in checks:
        prefix = f"consistency.{check.method}.{check.test}.{check.task}"
        for key in ("wanted", "found", "near"):
            value = getattr(check, key)
            flat[f"{prefix}.{key}"] = value if not isinstance(value, float) or math.isfinite(value) else None
    return flat


def _report(
    grid: Grid, config: Mapping[str, Any], checks: Sequence[Check], timing: Mapping[str, float]
) -> dict[str, Any]:
    head = {"data.source": "simulated", "data.name": "benchmark tasks of known mutual information"}
    sizes = {key: config[key] for key in ("n_train", "n_test", "n_untrained", "seeds", "first_seed") if key in config}
    return head | sizes | flat_results(grid) | check_results(checks) | dict(timing)


def _description(method: str, kind: str, sources: Mapping[str, str]) -> dict[str, str]:
    meaning, blind_spot = METHODS.get(kind, ("", ""))
    return {"method": method, "meaning": meaning, "blind_spot": blind_spot, "source": sources.get(kind, "")}


def _render(*, grid: Grid, config: Mapping[str, Any], budget_seconds: float, **values: Any) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"fact": fact_text, "nats": nats, "seconds": seconds_text, "breakable": _breakable}
    template = importlib.resources.files(__package__).joinpath("mi_benchmark.html.j2").read_text(encoding="utf-8")
    reference = {
        method: values_by_task
        for method, values_by_task in PUBLISHED.items()
        if any(task.name in values_by_task for task in grid.tasks)
    }
    device = config.get("device") or {}
    origin = {"Git revision": config.get("git_revision"), "Started": config.get("started")}
    if isinstance(device, Mapping):
        origin["Device"] = f"{device['count']} x {device['kind']}" if {"count", "kind"} <= set(device) else None
    legend = [(step, *bias_colours(step)) for step in range(-SATURATION, SATURATION + 1)]
    return environment.from_string(template).render(
        grid=grid,
        cells={(task.name, method): grid.cell(task, method) for task in grid.tasks for method in grid.methods},
        summaries=grid.summaries(),
        summary_rows=summary_rows(grid.summaries(), budget_seconds),
        reference=reference,
        reference_colours={
            (task.name, method): bias_colours((by_task[task.name] - task.mutual_information) / task.tolerance)
            for method, by_task in reference.items()
            for task in grid.tasks
            if task.name in by_task
        },
        reference_note=PUBLISHED_NOTE,
        remarks=_remarks(grid),
        legend=legend,
        over=OVER,
        under=UNDER,
        share=f"{TOLERANCE_SHARE:.0%}",
        tolerance_nats=f"{TOLERANCE_NATS:g}",
        budget_seconds=budget_seconds,
        origin={title: value for title, value in origin.items() if value} | flatten(config.get("versions") or {}),
        command=config.get("command"),
        config_text=json.dumps(config, indent=2, default=str, ensure_ascii=False),
        **values,
    )


def _breakable(label: str) -> Markup:
    """A label that may be broken after the marks that part its options."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.split(r"(?<=[:,])", label))


def _remarks(grid: Grid) -> list[dict[str, Any]]:
    """Errors first, then warnings, by method and words, with the tasks that share them."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for method in grid.methods:
        for cell in grid.column(method):
            if cell.error:
                found.setdefault(("no estimate", method, cell.error), []).append(cell.task.name)
            elif cell.failed:
                words = "the estimate is not a finite number"
                found.setdefault(("no estimate", method, words), []).append(cell.task.name)
            for words in cell.warnings:
                found.setdefault(("warning", method, words), []).append(cell.task.name)
    ordered = sorted(found, key=lambda key: key[0] != "no estimate")
    return [{"kind": kind, "method": method, "words": words, "tasks": found[kind, method, words]}
            for kind, method, words in ordered]  # fmt: skip
