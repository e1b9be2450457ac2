"""Figures of a campaign: gains with intervals, gains of every class, gains by batching policy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from jaxtraffic.report.campaign_results import POLICIES, title_of
from jaxtraffic.report.campaign_summary import Benchmark, PolicyGain
from jaxtraffic.report.figures import Drawing, new_figure, shorten
from jaxtraffic.report.traffic_figures import COLOURS

__all__ = ["FAMILY_COLOURS", "draw_class_gains", "draw_gains", "draw_policies"]

FAMILY_COLOURS = {"Amplitude": "#8a5a00", "Masking": "#2a7a3f", "Sequence": "#1f5a99", "Other": "#7a3f98"}
_MARKERS = {"Amplitude": "D", "Masking": "s", "Sequence": "o", "Other": "^"}
_CLASSES_A_PAGE = 40
_MOST_NUMBERS = 24
"""Columns up to which the cells of the map of classes have room for a number."""


def draw_gains(benchmark: Benchmark) -> Drawing:
    """Mean gain of each augmentation with its interval, best on top, coloured by family."""
    rows = sorted(benchmark.rows, key=lambda row: row.gain.mean)
    # Narrow, so that a phone shows it whole in letters that can be read.
    figure, ax = new_figure(5.8, 1.0 + 0.25 * len(rows))
    for y, row in enumerate(rows):
        colour = FAMILY_COLOURS[row.family]
        mean, half = 100 * row.gain.mean, 100 * row.gain.half_width
        if math.isfinite(half):
            ax.plot([mean - half, mean + half], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
        face = colour if row.sign else "white"
        ax.plot(mean, y, marker=_MARKERS[row.family], color=colour, markerfacecolor=face, markersize=5.5)
    ax.axvline(0, color="#333333", linewidth=1)
    ax.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=9, parse_math=False)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
    ax.set_xlabel("difference of weighted F1 to no augmentation (percentage points)", fontsize=9)
    ax.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    ax.set_axisbelow(True)
    present = [family for family in FAMILY_COLOURS if any(row.family == family for row in rows)]
    handles = [
        Line2D([], [], color=FAMILY_COLOURS[family], marker=_MARKERS[family], linewidth=1.8, label=family)
        for family in present
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, fontsize=8.5, columnspacing=1.2)
    caption = (
        "Gain of each augmentation over the baseline with its 95 % interval, paired by fold and seed. Filled: beyond "
        "chance by Wilcoxon's test after Holm's correction."
    )
    return Drawing("gains", figure, caption)


def draw_class_gains(benchmark: Benchmark, class_names: Sequence[str], class_counts: Sequence[int]) -> list[Drawing]:
    """Class against augmentation as an image of differences in F1: frequent classes and large gains first."""
    columns = np.argsort([-row.gain.mean for row in benchmark.rows], kind="stable")
    titles = [benchmark.rows[column].title for column in columns]
    points = 100 * benchmark.per_class[columns].T
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    finite = np.abs(points[np.isfinite(points)])
    # One class that collapses must not pale all the others.
    limit = max(1.0, float(np.quantile(finite, 0.97))) if finite.size else 1.0
    drawings = []
    pages = [order[start : start + _CLASSES_A_PAGE] for start in range(0, len(order), _CLASSES_A_PAGE)]
    for number, page in enumerate(pages, start=1):
        figure, ax = new_figure(7.5, 1.75 + 0.235 * len(page))
        ax.set_facecolor("#d4d4d4")
        mesh = ax.pcolormesh(np.ma.masked_invalid(points[page]), cmap="RdBu", vmin=-limit, vmax=limit, edgecolor="none")
        if len(titles) <= _MOST_NUMBERS:
            _write_numbers(ax, points[page], limit)
        labels = [f"{shorten(class_names[index], 20)}  ({class_counts[index]:,})" for index in page]
        ax.set_yticks(np.arange(len(page)) + 0.5, labels, fontsize=8, parse_math=False)
        ax.set_ylim(len(page), 0)
        ax.set_xticks(np.arange(len(titles)) + 0.5, titles, fontsize=8, rotation=55, ha="right", rotation_mode="anchor")
        ax.tick_params(length=0)
        ax.spines[["left", "bottom"]].set_visible(False)
        bar = figure.colorbar(
            mesh, ax=ax, fraction=0.025, pad=0.015, extend="both" if _beyond(finite, limit) else "neither"
        )
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
        bar.ax.tick_params(labelsize=8)
        bar.set_label("points of F1", fontsize=8)
        part = f" Part {number} of {len(pages)}." if len(pages) > 1 else ""
        caption = (
            "Difference of F1 to the baseline, class by class, in percentage points (numbers: rounded); mean over the "
            "folds and seeds in which the class has test flows; in brackets its flows. Grey: in no test set. No "
            f"intervals here: for a class with few flows a cell is mostly noise.{part}"
        )
        drawings.append(Drawing(f"class_gains_{number}", figure, caption, folded=number > 1))
    return drawings


def _write_numbers(ax, points: np.ndarray, limit: float) -> None:
    for (y, x), value in np.ndenumerate(points):
        if math.isfinite(value):
            ink = "white" if abs(value) > 0.7 * limit else "#222222"
            text = _signed(round(value)) if round(value) else "0"
            ax.text(x + 0.5, y + 0.5, text, fontsize=6.5, color=ink, ha="center", va="center")


def _beyond(finite: np.ndarray, limit: float) -> bool:
    return bool((finite > limit).any())


def draw_policies(gains: Sequence[PolicyGain]) -> Drawing:
    """Gain by policy and amount, one colour an augmentation."""
    amounts = {key: sorted({gain.policy.amount for gain in gains if gain.policy.policy == key}) for key in POLICIES}
    groups = {key: values for key, values in amounts.items() if values}
    augmentations = list(dict.fromkeys(gain.policy.augmentation for gain in gains))
    widths = [max(len(values), 1) + 0.6 for values in groups.values()]
    figure, axes = new_figure(6.2, 3.3, ncols=len(groups), sharey=True, squeeze=False, width_ratios=widths)
    for ax, (policy, values) in zip(axes[0], groups.items()):
        for index, augmentation in enumerate(augmentations):
            mine = {gain.policy.amount: gain.gain for gain in gains if gain.policy[1:3] == (augmentation, policy)}
            there = [amount for amount in values if amount in mine]
            x = np.array([values.index(amount) for amount in there]) + 0.12 * (index - (len(augmentations) - 1) / 2)
            y = [100 * mine[amount].mean for amount in there]
            half = np.nan_to_num([100 * mine[amount].half_width for amount in there])
            ax.errorbar(
                x,
                y,
                half,
                color=COLOURS[index % len(COLOURS)],
                marker="osD^vP"[index % 6],
                markersize=5,
                linewidth=1.2,
                capsize=2.5,
                label=title_of(augmentation) if ax is axes[0, 0] else None,
            )
        ax.axhline(0, color="#333333", linewidth=1)
        ax.set_xlim(-0.6, len(values) - 0.4)
        ax.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        ax.set_title(POLICIES[policy], fontsize=10)
        ax.set_xlabel("p" if policy == "replace" else "copies", fontsize=9)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
        ax.grid(axis="y", color="#e4e4e4", linewidth=0.7)
        ax.set_axisbelow(True)
    axes[0, 0].set_ylabel("difference of weighted F1\n(percentage points)", fontsize=9)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)
    caption = (
        "Gain over the baseline by batching policy, with 95 % intervals, paired by fold and seed; a step sees the same "
        "number of flows under all of them."
    )
    return Drawing("policies", figure, caption)


def _signed(value: float) -> str:
    return "0" if abs(value) < 1e-9 else f"{value:+g}".replace("-", "\N{MINUS SIGN}")
