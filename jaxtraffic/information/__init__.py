"""Mutual information: estimators on data, benchmark tasks with closed-form truth, observers for the sampling scan."""

from jaxtraffic.information.estimate import estimate, estimate_many
from jaxtraffic.information.estimators import Estimator
from jaxtraffic.information.observers import path_wise, product, squared, summary
from jaxtraffic.information.registry import METHODS
from jaxtraffic.information.result import MIResult
from jaxtraffic.information.tasks import GRID, HIGH_MI, PAIRS, PANEL, TASKS, Task, high_mi_task, task_named

__all__ = [
    "GRID",
    "HIGH_MI",
    "METHODS",
    "PAIRS",
    "PANEL",
    "TASKS",
    "Estimator",
    "MIResult",
    "Task",
    "estimate",
    "estimate_many",
    "high_mi_task",
    "path_wise",
    "product",
    "squared",
    "summary",
    "task_named",
]
