"""Figures of a benchmark of mutual information: estimates against the truth, and the bias of each method."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator

from jaxtraffic.report.figures import Drawing, new_figure, shorten
from jaxtraffic.report.information_tables import TOLERANCE_NATS, TOLERANCE_SHARE, Cell, Grid, nats

POINT_COLOUR, AWAY_COLOUR, BAND_COLOUR = "#1f5a99", "#d9580d", "#dfe8df"
_COLUMNS = 3
_LINEAR = 0.2
"""Nats up to which axes of estimates are linear: beyond they are logarithmic, for truths from 0 to 15 nats."""
_WIDEST = 20.0
"""Bias in nats at which the axis ends."""


def estimates_against_truth(grid: Grid) -> list[Drawing]:
    """A panel for each method: its estimate of each task (mean over seeds, and their spread) against the truth."""
    methods = [method for method in grid.methods if any(not cell.failed for cell in grid.column(method))]
    if not methods:
        return []
    top = 1.3 * max(task.mutual_information for task in grid.tasks) + 0.1
    floor = -_LINEAR / 2
    left = max(0.6 * min(task.mutual_information for task in grid.tasks) - 0.02, floor)
    columns = min(_COLUMNS, len(methods))
    rows = math.ceil(len(methods) / columns)
    width = 7.5 if columns > 1 else 4.2
    figure, axes = new_figure(
        width, 0.5 + rows * (width / columns), nrows=rows, ncols=columns, squeeze=False, sharex=True, sharey=True
    )
    truth = np.concatenate([np.linspace(0, _LINEAR, 50), np.geomspace(_LINEAR, top, 100)])
    tolerance = np.maximum(TOLERANCE_SHARE * truth, TOLERANCE_NATS)
    ticks = [tick for tick in (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if tick < top]
    for index, (ax, method) in enumerate(zip(axes.flat, methods)):
        ax.fill_between(truth, truth - tolerance, truth + tolerance, color=BAND_COLOUR, linewidth=0)
        ax.plot(truth, truth, color="#777777", linewidth=0.8)
        for scale, lines in (("x", ax.xaxis), ("y", ax.yaxis)):
            getattr(ax, f"set_{scale}scale")("symlog", linthresh=_LINEAR, linscale=0.5)
            lines.set_ticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
            lines.set_minor_locator(NullLocator())
        for cell in grid.column(method):
            if not cell.failed:
                _point(ax, cell, floor, top)
        ax.set_xlim(left, top)
        ax.set_ylim(floor, top)
        ax.set_title(shorten(method, 30), fontsize=10, loc="left", parse_math=False)
        # The lowest panel of a column may stand above an empty place.
        ax.tick_params(labelbottom=index + columns >= len(methods))
    for ax in axes.flat[len(methods) :]:
        ax.set_visible(False)
    figure.supxlabel("true mutual information (nats)", fontsize=10)
    figure.supylabel("estimate (nats)", fontsize=10)
    caption = (
        f"Estimates against the truth, one point a task, bars: standard deviation over seeds; axes logarithmic from "
        f"{_LINEAR:g} nats on. Green: within {TOLERANCE_SHARE:.0%} or {TOLERANCE_NATS:g} nats of the truth; orange "
        "points lie outside it; triangles at the edge lie beyond it."
    )
    return [Drawing("estimates_against_truth", figure, caption)]


def _point(ax: Any, cell: Cell, floor: float, top: float) -> None:
    colour = POINT_COLOUR if cell.within else AWAY_COLOUR
    truth, height = cell.task.mutual_information, min(max(cell.mean, floor), top)
    marker = "^" if cell.mean > top else "v" if cell.mean < floor else "o"
    if marker == "o" and math.isfinite(cell.sd):
        ax.errorbar(truth, height, yerr=cell.sd, color=colour, linewidth=1, capsize=2)
    ax.plot(
        truth, height, marker=marker, markersize=5, color=colour, markeredgecolor="white", clip_on=False, linestyle=""
    )


def bias_by_method(grid: Grid) -> list[Drawing]:
    """A row for each method: the bias of each task in nats, the worst task named."""
    methods = [method for method in grid.methods if any(not cell.failed for cell in grid.column(method))]
    if not methods:
        return []
    figure, ax = new_figure(7.5, 1.1 + 0.52 * len(methods))
    biases = [cell.bias for method in methods for cell in grid.column(method) if not cell.failed]
    limit = min(max(1.2 * float(np.max(np.abs(biases))), 3 * TOLERANCE_NATS), _WIDEST)
    ax.set_xscale("symlog", linthresh=2 * TOLERANCE_NATS, linscale=1.2)
    ax.axvspan(-TOLERANCE_NATS, TOLERANCE_NATS, color=BAND_COLOUR, linewidth=0)
    ax.axvline(0, color="#777777", linewidth=0.8)
    for row, method in enumerate(methods):
        cells = [cell for cell in grid.column(method) if not cell.failed]
        for index, cell in enumerate(cells):
            beyond = abs(cell.bias) > limit
            ax.plot(
                min(max(cell.bias, -limit), limit),
                # A little apart, so that equal ones are all seen.
                row + (0.3 * (index / (len(cells) - 1) - 0.5) if len(cells) > 1 else 0),
                marker=(">" if cell.bias > 0 else "<") if beyond else "o",
                markersize=5,
                color=POINT_COLOUR if cell.within else AWAY_COLOUR,
                markeredgecolor="white",
                markeredgewidth=0.6,
                linestyle="",
                clip_on=False,
            )
        mean = float(np.mean([cell.bias for cell in cells]))
        if abs(mean) <= limit:
            ax.plot([mean, mean], [row - 0.28, row + 0.28], color="#111111", linewidth=1.6)
        worst = max(cells, key=lambda cell: abs(cell.bias))
        ax.annotate(
            f"{shorten(worst.task.name, 44)} {'+' if worst.bias > 0 else ''}{nats(worst.bias)}",
            (1.01, row),
            xycoords=("axes fraction", "data"),
            fontsize=7.5,
            color="#5c5c5c",
            va="center",
            annotation_clip=False,
            parse_math=False,
        )
    ax.set_yticks(range(len(methods)), [shorten(method, 30) for method in methods], fontsize=9, parse_math=False)
    ax.set_ylim(len(methods) - 0.45, -0.6)
    ax.set_xlim(-limit, limit)
    steps = [tick for tick in (0.05, 0.2, 1, 5, 20) if tick <= limit]
    ticks = [*(-tick for tick in reversed(steps)), 0, *steps]
    ax.set_xticks(ticks, [f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in ticks], fontsize=8)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_title("worst task", loc="right", x=1.01, ha="left", fontsize=8, color="#5c5c5c")
    ax.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel("estimate less truth (nats)", fontsize=10)
    caption = (
        "Bias of each method, one point a task (the first of the table above, the last below); black: mean over tasks; "
        f"green: \N{PLUS-MINUS SIGN}{TOLERANCE_NATS:g} nats; orange: outside both {TOLERANCE_SHARE:.0%} and "
        f"{TOLERANCE_NATS:g} nats. The axis is logarithmic from {2 * TOLERANCE_NATS:g} nats on; triangles at its ends "
        "lie beyond it."
    )
    return [Drawing("bias_by_method", figure, caption)]
