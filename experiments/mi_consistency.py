"""Self-consistency of estimators of mutual information, with what an earlier run found kept in consistency.jsonl."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from mi_results import append_lines, finite, read_lines
from mi_variants import Variant
from rich.console import Console

from jaxtraffic import information, prng
from jaxtraffic.errors import JaxTrafficError
from jaxtraffic.information import tasks as benchmark
from jaxtraffic.information.registry import method_named
from jaxtraffic.report import information_pages as pages


def run_checks(
    tasks: Sequence[benchmark.Task],
    variants: Sequence[Variant],
    folder: Path,
    console: Console,
    *,
    n: int,
    n_untrained: int,
    seed: int,
) -> list[pages.Check]:
    """The self-consistency tests; consistency.jsonl of the folder keeps them, and those of an earlier run stand.

    Args:
        tasks: what to draw from.
        variants: methods.
        folder: the run folder.
        console: where progress goes.
        n: samples for each estimate.
        n_untrained: at most so many where nothing is trained.
        seed: of samples and estimators.
    """
    path = folder / "consistency.jsonl"
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    if path.exists():
        for line in read_lines(path):
            kept[line["task"], line["method"]] = line
    checks: list[pages.Check] = []
    for task in tasks:
        for variant in variants:
            used = n if method_named(variant.method).trains else min(n, n_untrained)
            meant = {"n": used, "seed": seed} | variant.described()
            line = kept.get((task.name, variant.label))
            if line is None or line["options"] != meant:
                console.print(f"{task.name}  {variant.label}  self-consistency", highlight=False, markup=False)
                found = check_one(task, variant, n=used, seed=seed)
                line = {"task": task.name, "method": variant.label, "options": meant, "checks": found}
                append_lines(path, [line])
            checks += [_page_check(task, variant, one) for one in line["checks"]]
    return checks


def check_one(task: benchmark.Task, variant: Variant, *, n: int, seed: int) -> list[dict[str, Any]]:
    """What `information.tasks.check_task` finds, as JSON holds it; in place of it why there is nothing."""
    known: dict[bytes, float] = {}

    def estimate(x: np.ndarray, y: np.ndarray, key: jax.Array) -> float:
        # Several tests need I(X; Y) of the same samples and key.
        digest = hashlib.sha256(str((x.shape, y.shape, jax.random.key_data(key))).encode())
        digest.update(np.ascontiguousarray(x))
        digest.update(np.ascontiguousarray(y))
        if digest.digest() not in known:
            result = information.estimate(
                x, y, method=variant.method, key=key, preprocess=variant.preprocess, options=variant.options
            )
            known[digest.digest()] = result.value
        return known[digest.digest()]

    key = prng.stream(prng.stream(jax.random.key(seed), "consistency"), task.name)
    try:
        found = benchmark.check_task(estimate, task, key, n=n)
    except JaxTrafficError as error:
        return [{"test": "all", "values": {}, "ratio": None, "expected": 1.0, "error": str(error)}]
    return [json.loads(json.dumps(finite(dataclasses.asdict(check)))) for check in found]


def _page_check(task: benchmark.Task, variant: Variant, check: Mapping[str, Any]) -> pages.Check:
    values = {name: math.nan if value is None else value for name, value in check["values"].items()}
    found = math.nan if check["ratio"] is None else check["ratio"]
    shown = {"test": check["test"], "task": task.name, "method": variant.label, "values": values}
    if check["test"] == "independence":
        return pages.Check(**shown, wanted=0.0, found=values["floor"], unit="nats")
    bound = {"chain": "most", "permutation": "least"}.get(check["test"], "")
    return pages.Check(**shown, wanted=check["expected"], found=found, bound=bound, note=check.get("error", ""))
