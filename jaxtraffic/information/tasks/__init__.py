"""Pairs of variables whose mutual information is known: the 40 tasks of Beyond Normal and a high-information sweep."""

from jaxtraffic.information.tasks.catalogue import (
    GRID,
    HIGH_MI,
    PAIRS,
    PANEL,
    TASKS,
    Pair,
    high_mi_task,
    task_named,
)
from jaxtraffic.information.tasks.consistency import (
    Check,
    additivity,
    chain,
    check_task,
    data_processing,
    independence,
    invariance,
    permutation,
    symmetry,
)
from jaxtraffic.information.tasks.task import Task

__all__ = [
    "GRID",
    "HIGH_MI",
    "PAIRS",
    "PANEL",
    "TASKS",
    "Check",
    "Pair",
    "Task",
    "additivity",
    "chain",
    "check_task",
    "data_processing",
    "high_mi_task",
    "independence",
    "invariance",
    "permutation",
    "symmetry",
    "task_named",
]
