"""One page on how well plain classifiers do on a data set, beside the thesis' Table 8.8."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from rich.table import Table
from rich.text import Text

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.base_classifier_results import Gap, Summary, published_for, summarise, title_of
from jaxtraffic.report.figures import Drawing, new_figure
from jaxtraffic.report.page import command_text, fact_text, flatten
from jaxtraffic.report.published import PublishedClassifier, PublishedDataset
from jaxtraffic.report.write import write_atomically, write_picture

__all__ = ["answer", "base_classifier_table", "write_base_classifiers"]

_COLOURS = ("#1f5a99", "#d9580d", "#2a7a3f", "#7a3f98", "#8a5a00")
_VIEWS = {
    "signed_size": "packet sizes with their directions",
    "features": "packet sizes, directions and inter-arrival times",
}
_FEW_CLASSES = 30


def base_classifier_table(summaries: Sequence[Summary], published: PublishedDataset | None = None) -> Table:
    """A rich table in the form of Table 8.8; the thesis' figures dim beside ours."""
    table = Table(title=Text("Base classifiers"), title_justify="left")
    table.add_column("classifier")
    for heading in ("weighted F1, %", "macro F1, %", "model size, k", "train time"):
        table.add_column(heading, justify="right")
        if published:
            table.add_column(Text("thesis"), justify="right", style="dim")
    for one in summaries:
        row = published.classifiers.get(one.name) if published else None
        cells: list[str] = []
        for ours, theirs in zip(_cells(one), _published_cells(row), strict=True):
            cells += [ours, theirs] if published else [ours]
        table.add_row(Text(one.title), *cells)
    return table


def answer(summaries: Sequence[Summary], gaps: Sequence[Gap]) -> str:
    """Which classifier is best, as a sentence or two."""
    best = max(summaries, key=lambda one: one.weighted_f1)
    weighted, macro = _percent(best.weighted_f1), _percent(best.macro_f1)
    if len(summaries) == 1:
        return f"{best.title} has a weighted F1 of {weighted} % and a macro F1 of {macro} %."
    other = max(summaries, key=lambda one: one.macro_f1)
    if other is best:
        said = f"{best.title} is best by weighted F1, {weighted} %, and by macro F1, {macro} %."
    else:
        said = f"{best.title} is best by weighted F1, {weighted} %, {other.title} by macro F1, "
        said += f"{_percent(other.macro_f1)} %."
    close = [title_of(gap.second) for gap in gaps if gap.metric == "weighted_f1" and gap.low <= 0]
    if close:
        said += f" The lead of {best.title} in weighted F1 over {' and '.join(close)} may be chance."
    return said


def write_base_classifiers(
    folder: str | Path,
    *,
    results: Sequence[Mapping[str, Any]],
    gaps: Sequence[Gap],
    config: Mapping[str, Any],
) -> Path:
    """Writes figures/base_classifiers.png, results.jsonl, report.html and, last of all, report.json.

    Args:
        folder: the run folder, which exists.
        results: see `summarise`.
        gaps: leads of the best classifier over the others.
        config: what config.json holds; `data.source` must be "real" or "simulated". `data.dataset` and `data.tier` say
            whether the thesis has figures for the set.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: no results, or no `data.source`.
    """
    folder, data = Path(folder), config.get("data") or {}
    if data.get("source") not in ("real", "simulated"):
        raise ConfigError(f'config data.source must be "real" or "simulated", got {data.get("source")!r}')
    summaries, published = summarise(results), published_for(data)
    (folder / "report.json").unlink(missing_ok=True)
    picture = write_picture(folder / "figures", draw_scores(results, summaries, published))
    page = _render(summaries, gaps, published, config, picture)
    lines = "".join(json.dumps(_plain(run), allow_nan=False) + "\n" for run in results)
    write_atomically(folder / "results.jsonl", lines.encode("ascii"))
    path = folder / "report.html"
    write_atomically(path, page.encode("utf-8", errors="backslashreplace"))
    flat = _plain(_flat(results, summaries, gaps, published, config))
    write_atomically(folder / "report.json", (json.dumps(flat, indent=2, allow_nan=False) + "\n").encode("ascii"))
    return path


def draw_scores(
    results: Sequence[Mapping[str, Any]], summaries: Sequence[Summary], published: PublishedDataset | None
) -> Drawing:
    """Weighted and macro F1 of every run, with the mean of each classifier and the thesis' value."""
    figure, axes = new_figure(7.0, 0.9 + 0.55 * len(summaries), ncols=2, sharey=True)
    for ax, metric, heading in zip(axes, ("weighted_f1", "macro_f1"), ("weighted F1, %", "macro F1, %"), strict=True):
        for row, one in enumerate(summaries):
            colour = _COLOURS[row % len(_COLOURS)]
            values = 100 * np.array([run[metric] for run in results if run["config"] == one.name])
            # spread by order, so that runs of equal score can be told apart
            offset = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else np.zeros(1)
            ax.plot(values, row + offset, "o", color=colour, markersize=4, alpha=0.55, markeredgewidth=0)
            ax.plot([values.mean()] * 2, [row - 0.32, row + 0.32], color=colour, linewidth=2)
            theirs = published.classifiers.get(one.name) if published else None
            if theirs is not None:
                ax.plot([getattr(theirs, metric)], [row], "D", color="#777777", markersize=6, fillstyle="none")
        ax.set_xlabel(heading, fontsize=10)
        ax.grid(axis="x", color="#dddddd", linewidth=0.7)
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(summaries)), [one.title for one in summaries], fontsize=10)
    axes[0].set_ylim(len(summaries) - 0.5, -0.5)
    caption = "Every dot is a run on the test flows of its fold; the bar is their mean."
    caption += " Grey diamond: the thesis." if published else ""
    return Drawing("base_classifiers", figure, caption)


def _render(
    summaries: Sequence[Summary],
    gaps: Sequence[Gap],
    published: PublishedDataset | None,
    config: Mapping[str, Any],
    picture: Mapping[str, str],
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["fact"] = fact_text
    environment.filters["percent"] = _percent
    environment.filters["points"] = _points
    template = importlib.resources.files(__package__).joinpath("base_classifiers.html.j2").read_text(encoding="utf-8")
    data = config["data"]
    best = max(summaries, key=lambda one: one.weighted_f1)
    return environment.from_string(template).render(
        simulated=data["source"] == "simulated",
        data_name=str(data.get("name", "unnamed")),
        notice=data.get("notice"),
        grouped=data.get("group") is not None,
        data=data,
        folds=config.get("folds") or [],
        n_folds=config.get("n_folds"),
        seeds=config.get("seeds") or [],
        packets=config.get("packets"),
        view=_VIEWS.get(str(config.get("view")), str(config.get("view"))),
        tune_trials=config.get("tune_trials") or 0,
        answer=answer(summaries, gaps),
        published=published,
        rows=[
            {
                "title": one.title,
                "best": one is best and len(summaries) > 1,
                "cells": _cells(one),
                "published": _published_cells(published.classifiers.get(one.name) if published else None),
            }
            for one in summaries
        ],
        gaps=[gap._replace(first=title_of(gap.first), second=title_of(gap.second)) for gap in gaps],
        picture=picture,
        summaries=summaries,
        trees=[one for one in summaries if one.name == "xgboost"],
        networks=[one for one in summaries if one.name != "xgboost"],
        classes=_classes(summaries, data),
        few_classes=_FEW_CLASSES,
        settings=flatten(config.get("models") or {}),
        run_facts=_run_facts(config),
        command=command_text(config.get("command")),
        config_text=json.dumps(config, indent=2, default=str, ensure_ascii=False),
    )


def _flat(
    results: Sequence[Mapping[str, Any]],
    summaries: Sequence[Summary],
    gaps: Sequence[Gap],
    published: PublishedDataset | None,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Flat keys for report.json; F1 scores are fractions, the thesis' too."""
    data = config["data"]
    flat: dict[str, Any] = {
        "data.source": data["source"],
        "data.name": data.get("name"),
        "data.n_flows": data.get("n_flows"),
        "data.n_train": round(float(np.mean([run["n_train"] for run in results]))),
        "n": int(sum({run["fold"]: run["n_test"] for run in results}.values())),
        "folds": len({run["fold"] for run in results}),
        "seeds": len({run["seed"] for run in results}),
        "seed": config.get("seed"),
    }
    for one in summaries:
        values = one._asdict()
        for key in ("name", "per_class_f1"):
            values.pop(key)
        flat |= {f"{one.name}.{key}": value for key, value in values.items()}
        names = data.get("class_names") or []
        flat |= {f"{one.name}.per_class.{name}.f1": f1 for name, f1 in zip(names, one.per_class_f1)}
        row = published.classifiers.get(one.name) if published else None
        if row is not None:
            for key in ("weighted_f1", "weighted_f1_sd", "macro_f1", "macro_f1_sd"):
                flat[f"published.{one.name}.{key}"] = getattr(row, key) / 100
            flat[f"published.{one.name}.model_size"] = 1000 * row.size
    for gap in gaps:
        base = f"difference.{gap.first}_minus_{gap.second}.{gap.metric}"
        flat |= {base: gap.mean, f"{base}.ci_low": gap.low, f"{base}.ci_high": gap.high, f"{base}.n": gap.n_folds}
    return flat


def _cells(one: Summary) -> list[str]:
    """Weighted F1, macro F1, size and time as Table 8.8 has them."""
    size = one.model_size / 1000
    return [
        _with_deviation(one.weighted_f1, one.weighted_f1_sd),
        _with_deviation(one.macro_f1, one.macro_f1_sd),
        f"{size:,.0f}" if size >= 10 else f"{size:.1f}",
        _time(one.train_seconds),
    ]


def _with_deviation(mean: float, deviation: float) -> str:
    """In per cent; one run has no deviation."""
    return _percent(mean) + (f" \N{PLUS-MINUS SIGN} {_percent(deviation)}" if math.isfinite(deviation) else "")


def _published_cells(row: PublishedClassifier | None) -> list[str]:
    if row is None:
        return ["\N{EN DASH}"] * 4
    sign = "\N{PLUS-MINUS SIGN}"
    return [
        f"{row.weighted_f1:.2f} {sign} {row.weighted_f1_sd:.2f}",
        f"{row.macro_f1:.2f} {sign} {row.macro_f1_sd:.2f}",
        f"{row.size:,}",
        row.train_time,
    ]


def _classes(summaries: Sequence[Summary], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Classes with their flows and the F1 of each classifier, most frequent first."""
    names, counts = list(data.get("class_names") or []), list(data.get("class_counts") or [])
    if len(names) != len(summaries[0].per_class_f1) or len(counts) != len(names):
        return []
    order = sorted(range(len(names)), key=lambda index: -counts[index])
    return [{"name": names[i], "flows": counts[i], "values": [one.per_class_f1[i] for one in summaries]} for i in order]


def _run_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        title: config[key]
        for key, title in (("git_revision", "Git revision"), ("seed", "Seed of the data"))
        if config.get(key) is not None
    }
    device = config.get("device") or {}
    if device:
        facts["Device"] = f"{device.get('count')} x {device.get('kind')}"
    return facts | flatten(config.get("versions") or {})


def _percent(value: float) -> str:
    return f"{100 * value:.2f}" if math.isfinite(value) else "\N{EN DASH}"


def _points(value: float) -> str:
    return f"{100 * value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plain(value: Any) -> Any:
    """JSON without what is not finite: null instead."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
