"""One page on what augmentations are worth: the tables and figures of PAM'24 in their order, for our own runs."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.statistics import Interval
from jaxtraffic.report.campaign_figures import draw_class_gains, draw_gains, draw_policies
from jaxtraffic.report.campaign_latent import NETWORKS, LatentRow, latent_drawings, latent_figures, read_latent
from jaxtraffic.report.campaign_results import BASELINE, CONTROL, Study, title_of
from jaxtraffic.report.campaign_studies import summarise
from jaxtraffic.report.campaign_summary import LEVEL, Summary
from jaxtraffic.report.campaign_tables import (
    interval_text,
    p_text,
    paper_column,
    policy_rows,
    published_gain,
    published_text,
)
from jaxtraffic.report.figures import Drawing
from jaxtraffic.report.mi_tune_pages import number
from jaxtraffic.report.page import command_text, fact_text, flatten
from jaxtraffic.report.published import BASELINE as PUBLISHED_BASELINE
from jaxtraffic.report.published import DATASETS, SAMPLER
from jaxtraffic.report.rank_figures import draw_critical_distance
from jaxtraffic.report.write import write_atomically, write_picture

__all__ = ["answer", "figures_of", "remarks", "write_campaign"]


def write_campaign(
    folder: str | Path,
    *,
    results: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    class_counts: Sequence[int],
    study: Study | None = None,
    latent: Sequence[Mapping[str, Any]] | None = None,
    config: Mapping[str, Any],
) -> Path:
    """Writes figures/*.png, report.html and, last of all, report.json.

    Scores in report.json are fractions, not per cent: "g1.<config>.weighted_f1_gain" with ".ci_low", ".ci_high",
    ".mean_rank", ".p" and ".p_holm", "g1.friedman.p", "g1.critical_distance"; likewise g2, g3 and g4; n counts the
    blocks (fold and seed) of the baseline, or the runs where no augmentation is compared with it.

    Args:
        folder: the run folder, which exists.
        results: dicts as `dataclasses.asdict(classify.RunResult)`; studies without results are left out of the page.
        class_names: of the confusion matrices.
        class_counts: [class] flows of the whole set.
        study: which config belongs to which table; None: what the names say (`Study.of`).
        latent: what evaluate.latent found, a dict an augmentation as `read_latent` takes it, or None.
        config: what config.json holds; `data.source` must be "real" or "simulated".

    Returns:
        The path of report.html.

    Raises:
        ConfigError: no results, results or features that do not fit each other, or no `data.source`.
    """
    folder, data = Path(folder), config.get("data") or {}
    if data.get("source") not in ("real", "simulated"):
        raise ConfigError(f'config data.source must be "real" or "simulated", got {data.get("source")!r}')
    latent = latent or ()
    if not results and not latent:
        raise ConfigError("a report of a campaign needs at least one result")
    summary = summarise(results, class_names, class_counts, study)
    (folder / "report.json").unlink(missing_ok=True)
    seen = read_latent(latent)
    drawings = [*_drawings(summary), *latent_drawings(seen, latent, class_names)]
    pictures = {drawing.name: write_picture(folder / "figures", drawing) for drawing in drawings}
    page = _render(summary, seen, config, pictures)
    path = folder / "report.html"
    write_atomically(path, page.encode("utf-8", errors="backslashreplace"))
    text = json.dumps(figures_of(summary, config, seen), indent=2, allow_nan=False) + "\n"
    write_atomically(folder / "report.json", text.encode("ascii"))
    return path


def answer(summary: Summary) -> str:
    """What the campaign found, in a sentence or three."""
    found = summary.benchmark
    if found is None:
        return _answer_of_others(summary)
    better, worse = (sum(row.sign == sign for row in found.rows) for sign in (1, -1))
    best = found.best
    sure = "beyond chance" if best.sign else "which may be chance"
    words = (
        f"{best.title} gains most: {interval_text(best.gain)} points of weighted F1 over the "
        f"{number(100 * found.baseline.mean, 2)} % without augmentation, {sure}. Of {len(found.rows)} augmentations "
        f"{better} help and {worse} hurt beyond chance (Wilcoxon with Holm's correction, p < {LEVEL:g})."
    )
    if best.over_control is not None:
        words += f" Over a baseline with as many optimiser steps it gains {interval_text(best.over_control)}."
    if found.comparison is not None and not found.comparison.significant:
        words += " Over all of them the Friedman test finds no difference."
    return words


def _answer_of_others(summary: Summary) -> str:
    """Of the studies that come after the first."""
    said = []
    if summary.policies:
        best = max(summary.policies, key=lambda one: one.gain.mean)
        gain = f"{interval_text(best.gain)} points of weighted F1 over the baseline"
        said.append(f"{title_of(best.policy.augmentation)} gains most with {best.policy.title}: {gain}.")
    mixed = [row for row in summary.combined if not row.single]
    if mixed:
        best_mix = max(mixed, key=lambda row: row.gain.mean)
        said.append(
            f"The best combination, {best_mix.title}, gains {interval_text(best_mix.gain)} points of weighted F1 over "
            f"the baseline and {interval_text(best_mix.over_best)} over {summary.combined[0].title} alone."
        )
    if not said and summary.n_runs:
        said.append(f"{summary.n_runs} runs; none of them compares an augmentation with the baseline.")
    return " ".join(said)


def remarks(summary: Summary) -> list[str]:
    """What a reader must know before believing the tables."""
    said = list(summary.study.notes)
    stopped = summary.stopped
    if stopped is not None and stopped > summary.n_runs / 2:
        said.append(
            f"{stopped} of {summary.n_runs} runs were stopped by the limit of {summary.study.max_epochs} epochs, "
            "not by early stopping: they may be under-trained, and with more epochs gains may grow, shrink or change "
            "sign."
        )
    found = summary.benchmark
    if found is not None and found.left_out:
        said.append(
            f"{found.left_out} blocks (fold and seed) lack some of the configs and take no part in ranks; differences "
            "use every block that both sides have."
        )
    if found is not None and found.comparison is None:
        said.append("One block only: there are no intervals, ranks or tests.")
    elif found is not None and found.baseline.n < found.least_pairs:
        said.append(
            f"{found.baseline.n} pairs are too few for the test: with {len(found.rows)} augmentations Holm's "
            f"correction leaves no p below {LEVEL:g} under {found.least_pairs} pairs, so nothing can be called beyond "
            "chance. Read the intervals."
        )
    return said


def figures_of(summary: Summary, config: Mapping[str, Any], latent: Sequence[LatentRow] = ()) -> dict[str, Any]:
    """Flat keys for report.json; what is not finite is null."""
    found, data = summary.benchmark, config["data"]
    flat: dict[str, Any] = {}
    if found is not None:
        flat |= _interval("g1.baseline", "weighted_f1", found.baseline)
        flat["g1.baseline.mean_rank"] = found.baseline_rank
        flat |= {} if found.control is None else _interval(f"g1.{CONTROL}", "weighted_f1_gain", found.control)
        paper = paper_column(data.get("name"))
        for row in found.rows:
            base = f"g1.{row.config}"
            flat |= _interval(base, "weighted_f1_gain", row.gain)
            flat |= {f"{base}.macro_f1_gain": row.macro.mean, f"{base}.mean_rank": row.mean_rank}
            flat |= {f"{base}.p": row.p, f"{base}.p_holm": row.p_holm}
            if row.over_control is not None:
                flat[f"{base}.weighted_f1_gain_over_control"] = row.over_control.mean
            published = published_gain(row.config, paper)
            if published is not None:
                flat[f"{base}.published.{paper}.weighted_f1_gain"] = published.value / 100
        flat |= {"g1.n_blocks": len(found.blocks), "g1.correction": found.widening}
        for start, comparison in (("g1", found.comparison), ("g1.by_fold", found.by_fold)):
            if comparison is not None:
                flat |= {
                    f"{start}.friedman.statistic": comparison.statistic,
                    f"{start}.friedman.p": comparison.p_value,
                    f"{start}.critical_distance": comparison.distance,
                }
    for row in summary.magnitude:
        base = f"g1.magnitude.{row.fixed}"
        flat |= _interval(base, "weighted_f1_gain_of_drawn", row.difference)
        flat |= {f"{base}.p": row.p, f"{base}.p_holm": row.p_holm}
    if summary.magnitude:
        flat["g1.magnitude.p"] = summary.magnitude_p
    for gain in summary.policies:
        policy = gain.policy
        base = f"g2.{policy.augmentation}/{policy.policy}-{policy.amount:g}"
        flat |= _interval(base, "weighted_f1_gain", gain.gain)
    for sampler in summary.sampler:
        base = f"g2.sampler.{sampler.config}"
        flat |= _interval(base, "weighted_f1_gain", sampler.weighted_f1)
        for group, rows in sampler.groups.items():
            for key, values in rows.items():
                for score, value in zip(("precision", "recall", "weighted_f1"), values):
                    flat[f"{base}.{group}.{key}.{score}"] = value.mean
    flat |= latent_figures(latent)
    for row in summary.combined:
        flat |= _interval(f"g4.{row.config}", "weighted_f1_gain", row.gain)
        flat |= {f"g4.{row.config}.over_best_single": row.over_best.mean, f"g4.{row.config}.p_holm": row.p_holm}
    flat |= {"convergence.runs": summary.n_runs, "convergence.stopped_by_limit": summary.stopped}
    flat |= {"timing.campaign_seconds": summary.seconds, "timing.runs_per_hour": _runs_per_hour(summary)}
    head = {
        "data.source": data["source"],
        "data.name": data.get("name"),
        "data.n_flows": sum(summary.class_counts),
        "n": found.baseline.n if found is not None else summary.n_runs,
        "folds": summary.n_folds,
        "seeds": summary.n_seeds,
        "seed": config.get("seed"),
    }
    return {key: _plain(value) for key, value in (head | flat).items()}


def _drawings(summary: Summary) -> list[Drawing]:
    drawings: list[Drawing] = []
    found = summary.benchmark
    if found is not None:
        drawings.append(draw_gains(found))
        if found.comparison is not None:
            drawings.append(draw_critical_distance(found.comparison, baseline=title_of(BASELINE)))
        drawings += draw_class_gains(found, summary.class_names, summary.class_counts)
    if summary.policies:
        drawings.append(draw_policies(summary.policies))
    return drawings


def _render(
    summary: Summary, latent: Sequence[LatentRow], config: Mapping[str, Any], pictures: Mapping[str, Any]
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "fact": fact_text,
        "number": number,
        "interval": interval_text,
        "p": p_text,
        "share": _share,
        "published": published_text,
        "zip": zip,
    }
    template = importlib.resources.files(__package__).joinpath("campaign.html.j2").read_text(encoding="utf-8")
    data = config["data"]
    paper = paper_column(data.get("name"))
    named = "".join(letter for letter in str(data.get("name") or "").lower() if letter.isalnum())
    found = summary.benchmark
    return environment.from_string(template).render(
        simulated=data["source"] == "simulated",
        data_name=str(data.get("name") or "unnamed"),
        notice=data.get("notice"),
        answer=answer(summary),
        remarks=remarks(summary),
        summary=summary,
        found=found,
        latent=latent,
        networks=NETWORKS,
        best={row.config for row in sorted(found.rows, key=lambda row: -row.gain.mean)[:3]} if found else set(),
        paper=paper,
        paper_name=DATASETS[paper],
        paper_is_ours=named.startswith(paper) and data["source"] == "real",
        paper_baseline=PUBLISHED_BASELINE[paper],
        published_gain=published_gain,
        paper_sampler=SAMPLER,
        title_of=title_of,
        fixed_at=sorted({row.fixed.partition("@")[2] for row in summary.magnitude}),
        policy_names=list(dict.fromkeys(gain.policy.augmentation for gain in summary.policies)),
        policy_rows=policy_rows(summary),
        majority_from=_majority_from(summary),
        runs_per_hour=_runs_per_hour(summary),
        pictures=pictures,
        data_facts=_data_facts(summary, data),
        run_facts=_run_facts(config),
        command=command_text(config.get("command")),
        config_text=json.dumps(config, indent=2, default=str, ensure_ascii=False),
    )


def _majority_from(summary: Summary) -> float:
    """Median of the classes' flows."""
    counts = sorted(summary.class_counts)
    half = len(counts) // 2
    return counts[half] if len(counts) % 2 else (counts[half - 1] + counts[half]) / 2


def _runs_per_hour(summary: Summary) -> float | None:
    return 3600 * summary.n_runs / summary.seconds if summary.seconds > 0 else None


def _data_facts(summary: Summary, data: Mapping[str, Any]) -> dict[str, Any]:
    counts = [count for count in summary.class_counts if count]
    facts = {
        "Data set": data.get("name"),
        "Flows": sum(counts),
        "Classes": len(counts),
        "Largest to smallest class": max(counts) / min(counts) if counts else None,
        "Kept together by": data.get("group"),
        "Folds": summary.n_folds,
        "Seeds a fold": summary.n_seeds,
        "Runs": summary.n_runs,
    }
    return {title: value for title, value in facts.items() if value is not None}


def _run_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    device = config.get("device")
    if isinstance(device, Mapping):
        device = f"{device['count']} x {device['kind']}"
    facts = {"Device": device, "Git revision": config.get("git_revision"), "Seed": config.get("seed")}
    return {title: value for title, value in facts.items() if value is not None} | flatten(config.get("versions") or {})


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "\N{EN DASH}"


def _interval(base: str, key: str, interval: Interval) -> dict[str, Any]:
    return {
        f"{base}.{key}": interval.mean,
        f"{base}.ci_low": interval.low,
        f"{base}.ci_high": interval.high,
        f"{base}.n": interval.n,
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
