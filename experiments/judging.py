"""What generative experiments do once flows are sampled: judge them beside their references, and write the report."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from data_options import DataOptions
from rich.console import Console

from jaxtraffic import datasets, evaluate, generate, report
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.times import has_times
from jaxtraffic.series import PacketSeries, concatenate


@dataclasses.dataclass(frozen=True)
class JudgingOptions(DataOptions):
    """How many flows are generated, and how they are judged."""

    num_samples: int | None = None
    """Flows to generate, labels drawn from the training shares; default: one for each training flow."""
    multiple: int = 1
    """Generate up to so many times the training flows, and measure how utility and augmentation grow (1 is off)."""
    downstream: tuple[str, ...] = ()
    """Downstream models beside XGBoost: random_forest, naive_bayes, mlp, resnet."""
    tune: bool = False
    """Search the parameters of XGBoost (30 Optuna trials) instead of the fixed ones."""


def check_judging(options: JudgingOptions) -> None:
    """Refuses options that do not fit, before anything is trained.

    Raises:
        ConfigError: an option out of its range, or an unknown downstream model.
    """
    if options.num_samples is not None and options.num_samples < 2:
        raise ConfigError(f"--num-samples must be at least 2, got {options.num_samples}")
    if options.multiple < 1 or (options.multiple > 1 and options.num_samples is not None):
        raise ConfigError("--multiple takes a number of at least 1, and no --num-samples beside it")
    unknown = sorted(set(options.downstream) - set(evaluate.DOWNSTREAM_MODELS))
    if unknown:
        raise ConfigError(
            f"unknown --downstream {', '.join(unknown)}; known are {', '.join(evaluate.DOWNSTREAM_MODELS)}"
        )


def described_judging(options: JudgingOptions) -> dict[str, Any]:
    """What config.json says of them."""
    return {
        "num_samples": options.num_samples,
        "tune": options.tune,
        "downstream": list(options.downstream),
        "multiple": options.multiple,
    }


def judge_and_report(
    options: JudgingOptions,
    console: Console,
    folder: Path,
    parts: datasets.Split,
    synthetic: PacketSeries,
    *,
    larger: PacketSeries | None,
    measured: dict[str, Any],
    config: dict[str, Any],
) -> None:
    """Writes samples.parquet (with IATs where the model has any), judges, writes the report, prints the table.

    Args:
        options: of the command line.
        console: where to print.
        folder: the run folder.
        parts: real flows.
        synthetic: generated flows.
        larger: several times as many generated flows as training flows, for scaling curves, or None.
        measured: further keys of report.json.
        config: what the page says of the run.
    """
    datasets.write_parquet(synthetic, folder / "samples.parquet", iat=has_times(synthetic))
    console.print("judging: XGBoost and distances on real, generated and reference flows")
    clock = time.perf_counter()
    labels = np.asarray(synthetic.label)
    references = {
        "bootstrap": evaluate.bootstrap(parts.train, labels, seed=options.seed),
        "marginals": generate.marginals(parts.train, labels, seed=options.seed),
    }
    params = evaluate.tune(parts.train, parts.validation, seed=options.seed) if options.tune else None
    used = evaluate.XGBOOST_PARAMETERS | (params or {})
    judged = evaluate.judge(
        parts.train,
        concatenate([parts.validation, parts.test]),
        parts.test,
        synthetic,
        references=references,
        larger=larger,
        seed=options.seed,
        params=params,
        models=options.downstream,
    )
    judgements = judged.figures | {f"judge.xgboost.{name}": value for name, value in used.items()} | measured
    judgements["timing.judge_seconds"] = time.perf_counter() - clock
    report.write_report(
        folder,
        real_signed=np.asarray(parts.train.signed_size),
        real_label=np.asarray(parts.train.label),
        synthetic_signed=np.asarray(synthetic.signed_size),
        synthetic_label=labels,
        class_names=parts.train.class_names,
        judgements=judgements,
        curves=judged.curves,
        config=config,
    )
    console.print(report.judgement_table(judgements))
    console.print(f"report: {folder / 'report.html'}", highlight=False, soft_wrap=True)


def timing(folder: Path, n_samples: int, sampling_seconds: float) -> dict[str, float]:
    """Training rate: median over chunks, without compilation; sampling rate: the whole run, compilation included."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "timing.train_flows_per_s": float(np.median([line["flows_per_s"] for line in lines])),
        "timing.train_seconds": sum(line["seconds"] for line in lines),
        "timing.train_compile_seconds": lines[-1]["compile_seconds"],
        "timing.sample_flows_per_s": n_samples / sampling_seconds,
        "timing.sample_seconds": sampling_seconds,
    }
