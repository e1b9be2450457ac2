"""The tables of a campaign for a terminal."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from jaxtraffic.evaluate.statistics import Interval
from jaxtraffic.report.campaign_results import BASELINE, CONTROL, title_of
from jaxtraffic.report.campaign_summary import LEVEL, Summary
from jaxtraffic.report.mi_tune_pages import number
from jaxtraffic.report.published import AUGMENTATIONS, COMBINATIONS, DATASETS, Published

__all__ = [
    "augmentation_table",
    "campaign_tables",
    "combination_table",
    "convergence_table",
    "interval_text",
    "magnitude_table",
    "p_text",
    "paper_column",
    "policy_table",
    "published_text",
    "sampler_table",
]


def paper_column(data_name: str | None) -> str:
    """Key of the paper's data set to show beside ours: the same one where it has it, else MIRAGE-19."""
    name = "".join(letter for letter in (data_name or "").lower() if letter.isalnum())
    return next((key for key in DATASETS if name.startswith(key)), "mirage19")


def interval_text(interval: Interval, *, sign: bool = True, digits: int = 2) -> str:
    """A mean with its half-width in percentage points; the half-width is left out where there is none."""
    text = number(100 * interval.mean, digits, sign=sign)
    if math.isfinite(interval.half_width):
        text += f" \N{PLUS-MINUS SIGN} {number(100 * interval.half_width, digits)}"
    return text


def published_text(published: Published | None, *, sign: bool = True) -> str:
    """A figure of the paper, or nothing."""
    if published is None:
        return ""
    return f"{number(published.value, 2, sign=sign)} \N{PLUS-MINUS SIGN} {number(published.half_width, 2)}"


def p_text(p: float) -> str:
    """A p-value."""
    if not math.isfinite(p):
        return "\N{EN DASH}"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def campaign_tables(summary: Summary, data_name: str | None = None) -> list[Table]:
    """The tables of all studies that have results, in the paper's order."""
    makers = (augmentation_table, magnitude_table, policy_table, sampler_table, combination_table)
    tables = [make(summary, data_name) for make in makers]
    return [table for table in tables if table is not None] + [convergence_table(summary)]


def augmentation_table(summary: Summary, data_name: str | None = None) -> Table | None:
    """G1: gain of each augmentation, its rank and p, and the paper's figure; None without results."""
    benchmark, paper = summary.benchmark, paper_column(data_name)
    if benchmark is None:
        return None
    table = _table("Augmentations: difference of weighted F1 to the baseline, percentage points")
    table.add_column("family", style="dim")
    table.add_column("augmentation", no_wrap=True)
    for title in ("gain, 95 %", "mean rank", "p (Holm)"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column(f"paper, {DATASETS[paper]}", justify="right", style="dim", no_wrap=True)
    control = benchmark.control
    if control is not None:
        table.add_column("over as many steps", justify="right", no_wrap=True)
    absolute, rank = interval_text(benchmark.baseline, sign=False), number(benchmark.baseline_rank, 1)
    table.add_row("", title_of(BASELINE), absolute, rank, end_section=control is None)
    if control is not None:
        table.add_row("", title_of(CONTROL), interval_text(control), end_section=True)
    best = {row.config for row in sorted(benchmark.rows, key=lambda row: -row.gain.mean)[:3]}
    for row in benchmark.rows:
        published = AUGMENTATIONS[row.config].gain.get(paper) if row.config in AUGMENTATIONS else None
        table.add_row(
            row.family,
            Text(row.title, "bold" if row.config in best else ""),
            Text(interval_text(row.gain), "green" if row.sign > 0 else "red" if row.sign < 0 else ""),
            number(row.mean_rank, 1),
            p_text(row.p_holm),
            published_text(published),
            *([interval_text(row.over_control)] if control is not None and row.over_control is not None else []),
        )
    found = benchmark.comparison
    words = f"{benchmark.baseline.n} pairs of fold and seed, not independent"
    if found is not None:
        words += f"; Friedman p {p_text(found.p_value)}, Nemenyi critical distance {found.distance:.2f}"
    table.caption = Text(words)
    return table


def magnitude_table(summary: Summary, data_name: str | None = None) -> Table | None:
    """G1: magnitude drawn for each flow against a fixed one; None without results."""
    del data_name
    if not summary.magnitude:
        return None
    table = _table("Magnitude: drawn from U[0, 1] against fixed, weighted F1 in per cent")
    for title in ("augmentation", "drawn", "fixed", "drawn \N{MINUS SIGN} fixed", "p (Holm)"):
        table.add_column(title, justify="left" if title == "augmentation" else "right", no_wrap=True)
    for row in summary.magnitude:
        scores = [number(100 * score, 2) for score in row.scores]
        table.add_row(row.title, *scores, interval_text(row.difference), p_text(row.p_holm))
    table.caption = Text(f"Wilcoxon over the means of the augmentations: p {p_text(summary.magnitude_p)}")
    return table


def policy_table(summary: Summary, data_name: str | None = None) -> Table | None:
    """G2: gain by batching policy; None without results."""
    del data_name
    if not summary.policies:
        return None
    names = list(dict.fromkeys(gain.policy.augmentation for gain in summary.policies))
    table = _table("Policies: difference of weighted F1 to the baseline, percentage points")
    table.add_column("policy", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for title, cells in policy_rows(summary):
        table.add_row(title, *(cells.get(name, "") for name in names))
    return table


def policy_rows(summary: Summary) -> list[tuple[str, dict[str, str]]]:
    """(policy, augmentation -> gain) in the order of the study."""
    rows: dict[str, dict[str, str]] = {}
    for gain in summary.policies:
        rows.setdefault(gain.policy.title, {})[gain.policy.augmentation] = interval_text(gain.gain)
    return list(rows.items())


def sampler_table(summary: Summary, data_name: str | None = None) -> Table | None:
    """G2: precision, recall and weighted F1 of majority and minority classes; None without results."""
    del data_name
    if not summary.sampler:
        return None
    table = _table("Class-weighted sampler, per cent")
    table.add_column("augmentation", no_wrap=True)
    table.add_column("sampler", no_wrap=True)
    for group in ("majority", "minority"):
        for title in ("precision", "recall", "weighted F1"):
            table.add_column(f"{group}\n{title}", justify="right", no_wrap=True)
    for sampler in summary.sampler:
        for key in ("with", "without", "difference"):
            cells = [
                interval_text(value, sign=key == "difference")
                for group in ("majority", "minority")
                for value in sampler.groups[group][key]
            ]
            first = sampler.title if key == "with" else ""
            table.add_row(first, key, *cells, end_section=key == "difference")
    return table


def combination_table(summary: Summary, data_name: str | None = None) -> Table | None:
    """G4: combinations beside the single augmentations, and the paper's figures; None without results."""
    if not summary.combined:
        return None
    paper = paper_column(data_name)
    table = _table("Combinations: difference of weighted F1, percentage points")
    table.add_column("", style="dim")
    table.add_column("augmentation", no_wrap=True)
    for title in ("to the baseline", "to the best single", "p (Holm)"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column(f"paper, {DATASETS[paper]}", justify="right", style="dim", no_wrap=True)
    for index, row in enumerate(summary.combined):
        best = index == 0
        style = "" if not row.p_holm < LEVEL else "green" if row.over_best.mean > 0 else "red"
        over = "" if best else interval_text(row.over_best)
        p = "" if row.single else p_text(row.p_holm)
        kind = "single" if row.single else "combined"
        cells = (interval_text(row.gain), Text(over, style), p, published_text(published_gain(row.config, paper)))
        table.add_row(kind, row.title, *cells)
    return table


def published_gain(config: str, paper: str) -> Published | None:
    """The paper's gain of an augmentation or combination on one of its data sets."""
    if config in AUGMENTATIONS:
        return AUGMENTATIONS[config].gain.get(paper)
    return COMBINATIONS.get(config, {}).get(paper)


def convergence_table(summary: Summary, data_name: str | None = None) -> Table:
    """Epochs, runs stopped by the limit, and seconds, config by config."""
    del data_name
    table = _table("Convergence")
    table.add_column("config", no_wrap=True)
    for title in ("runs", "epochs", "best epoch", "at the limit", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in summary.convergence:
        low, median, high = row.epochs
        epochs = f"{median:g} ({low} to {high})"
        stopped = "" if row.stopped is None else str(row.stopped)
        table.add_row(row.config, str(row.runs), epochs, number(row.best_epoch, 0), stopped, f"{row.seconds:,.0f}")
    total = f"{summary.n_runs} runs in {summary.seconds:,.0f} s"
    if summary.seconds > 0:
        total += f", {3600 * summary.n_runs / summary.seconds:,.0f} an hour"
    table.caption = Text(total)
    return table


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", caption_justify="left", show_lines=False)
