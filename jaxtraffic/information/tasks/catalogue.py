"""The tasks by name: the 40 of the bmi package, a panel of ten, invariance pairs and the high-information sweep."""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

from jaxtraffic.errors import ConfigError
from jaxtraffic.information.tasks import distributions, transforms
from jaxtraffic.information.tasks.distributions import Distribution
from jaxtraffic.information.tasks.task import Task, changed

SPIRAL_SPEED = 1 / 3
"""Of the high-information spirals, as `transforms.spiral` takes it; the 40 tasks use 1."""


class Pair(NamedTuple):
    """Two tasks with the same truth, the second being a change of the first."""

    base: Task
    changed: Task


def task_named(name: str) -> Task:
    """The task called `name`: one of the 40, or "2-pair-3-3-mi-5" and "spiral-2-pair-3-3-mi-5" with any number of nats.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in TASKS:
        return TASKS[name]
    if name in SWEEP:
        return SWEEP[name]
    if found := re.fullmatch(r"(spiral-)?2-pair-3-3-mi-(\d+(?:\.\d+)?)", name):
        return high_mi_task(float(found[2]), spiral=bool(found[1]))
    raise ConfigError(f"unknown task {name!r}; choose from {', '.join([*TASKS, *SWEEP])}")


def high_mi_task(mi: float, *, spiral: bool = False) -> Task:
    """Two correlated pairs among 3 x 3 standard normal coordinates, with correlation sqrt(1 - exp(-mi)).

    Args:
        mi: nats, at least 0; above about 15 float32 samples no longer resolve the correlation.
        spiral: turned as in `transforms.spiral`, with speed 1/3 (a third of that of the 40 tasks).

    Raises:
        ConfigError: mi below 0 or above 15.
    """
    if not 0 <= mi <= 15:
        raise ConfigError(f"the mutual information must be from 0 to 15 nats, got {mi}")
    return _high_mi_task(float(mi), bool(spiral))


@functools.lru_cache(maxsize=256)
def _high_mi_task(mi: float, spiral: bool) -> Task:
    if spiral:
        return changed(_high_mi_task(mi, False), transforms.spiral(SPIRAL_SPEED))
    return _task(
        f"2-pair-3-3-mi-{mi:g}",
        f"Multinormal 3 × 3 (2-pair, {mi:g} nats)",
        distributions.sparse_normal(3, 3, math.sqrt(-math.expm1(-mi)), pairs=2),
        "Two strongly correlated pairs of normal coordinates.",
    )


def _task(name: str, title: str, distribution: Distribution, description: str) -> Task:
    dims = distribution.dim_x, distribution.dim_y
    return Task(name, title, *dims, distribution.mutual_information, description, distribution)


def _student(dim: int, dof: int) -> Task:
    return _task(
        f"student-identity-{dim}-{dim}-{dof}",
        f"Student-t {dim} × {dim} (dof={dof})",
        distributions.student(dim, dim, dof),
        "Long tails; uncorrelated, and dependent through the common scale alone.",
    )


def _dense(dim: int) -> Task:
    return _task(
        f"multinormal-dense-{dim}-{dim}-0.5",
        f"Multinormal {dim} × {dim} (dense)",
        distributions.dense_normal(dim, dim, 0.5),
        "All coordinates correlate with 0.5: many weak interactions.",
    )


def _two_pairs(dim: int) -> Task:
    strength = 2.0
    return _task(
        f"multinormal-sparse-{dim}-{dim}-2-{strength}",
        f"Multinormal {dim} × {dim} (2-pair)",
        distributions.sparse_normal(dim, dim, strength**2 / (1 + strength**2), pairs=2),
        "Two pairs of coordinates correlate with 0.8, all others are noise.",
    )


def _the_forty() -> dict[str, Task]:
    """In the order of the bmi package."""
    normal = _task(
        "1v1-normal-0.75",
        "Bivariate normal 1 × 1",
        distributions.sparse_normal(1, 1, 0.75, pairs=1),
        "Normal variables of correlation 0.75.",
    )
    uniform = changed(normal, transforms.normal_cdf())
    additive = [
        _task(
            f"1v1-additive-{epsilon}",
            f"Uniform 1 × 1 (additive noise={epsilon})",
            distributions.additive_uniform(epsilon),
            "A uniform variable and the same plus uniform noise: a support with sharp edges.",
        )
        for epsilon in (0.1, 0.75)
    ]
    bimodal = changed(
        normal,
        transforms.bimodal(),
        name="1v1-bimodal-0.75",
        title="Bimodal 1 × 1",
        description="Mixtures of two normal distributions, coupled as normal variables of correlation 0.75.",
    )
    cauchy = _student(1, 1)
    roll = changed(
        uniform,
        transforms.swissroll(),
        title="Swiss roll 2 × 1",
        description="X lies on a curve in the plane.",
    )
    two, three, five, wide = (_two_pairs(dim) for dim in (2, 3, 5, 25))
    heavy = {(dim, dof): _student(dim, dof) for dim, dof in ((2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3))}
    cdfs = [changed(base, transforms.normal_cdf()) for base in (three, five, wide)]
    tasks = [
        normal,
        uniform,
        *additive,
        bimodal,
        changed(normal, transforms.wiggly()),
        changed(normal, transforms.half_cube()),
        cauchy,
        changed(cauchy, transforms.asinh()),
        roll,
        *(_dense(dim) for dim in (2, 3, 5, 25, 50)),
        *(two, three, five, wide),
        *heavy.values(),
        *cdfs,
        *(changed(base, transforms.half_cube()) for base in (three, five, wide)),
        *(changed(base, transforms.spiral()) for base in (three, five, wide)),
        *(changed(base, transforms.spiral()) for base in cdfs),
        *(changed(heavy[which], transforms.asinh()) for which in ((2, 1), (3, 2), (5, 2))),
    ]
    return {task.name: task for task in tasks}


def _both(*information: float) -> dict[str, Task]:
    tasks = [high_mi_task(mi, spiral=spiral) for spiral in (False, True) for mi in information]
    return {task.name: task for task in tasks}


TASKS: dict[str, Task] = _the_forty()
"""The 40 tasks of the bmi package, by its names and in its order."""

HIGH_MI: dict[str, Task] = _both(2, 3, 5, 8, 10)
"""Two normal pairs of 2 to 10 nats, then their spirals; not among the 40."""

GRID: dict[str, Task] = _both(0, 0.5, 1, 1.5, 2, 3, 4, 5)
"""The same at the values of the figure on high information in Beyond Normal; not among the 40."""

SWEEP: dict[str, Task] = {**HIGH_MI, **GRID}

PANEL: tuple[Task, ...] = (
    TASKS["1v1-normal-0.75"],
    TASKS["1v1-bimodal-0.75"],
    TASKS["1v1-additive-0.1"],
    TASKS["swissroll_x-normal_cdf-1v1-normal-0.75"],
    TASKS["student-identity-2-2-1"],
    TASKS["student-identity-5-5-2"],
    TASKS["spiral-multinormal-sparse-3-3-2-2.0"],
    TASKS["multinormal-sparse-25-25-2-2.0"],
    TASKS["multinormal-dense-50-50-0.5"],
    HIGH_MI["2-pair-3-3-mi-5"],
)
"""Ten tasks, one for each difficulty: normal, bimodal, sharp edges, a manifold, long tails of dof 1 and 2, a spiral,
sparse, dense, high information."""

PAIRS: tuple[Pair, ...] = tuple(Pair(task.base, task) for task in TASKS.values() if task.base)
"""Invariance pairs among the 40: an estimator should give the same for both."""
