"""The critical-distance diagram: mean ranks of methods, and which of them a Nemenyi test cannot tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxtraffic.report.figures import Drawing, new_figure, shorten

if TYPE_CHECKING:
    from jaxtraffic.evaluate.statistics import Comparison

INDEPENDENCE_CAVEAT = (
    "Friedman and Nemenyi take blocks for independent. Folds of one data set share training flows and are not, so "
    "their number overstates significance; read the ranks beside the paired differences with their intervals."
)
BAR_COLOUR, LINE_COLOUR, NAME_COLOUR = "#1f5a99", "#8a8a8a", "#111111"
_LONGEST_NAME = 36
_FONT = 9.5
# All in inches: the diagram is drawn at its true size, and grows with names and methods.
_MARGIN, _GAP, _AXIS_WIDTH = 0.12, 0.1, 5.0
_TOP, _BAR_STEP, _LABEL_STEP, _BARS_APART = 0.95, 0.13, 0.235, 0.12


def draw_critical_distance(comparison: Comparison, *, baseline: str | None = None, name: str = "ranks") -> Drawing:
    """Demsar's diagram: the best rank on the right, the critical distance on top, bars over methods that are not apart.

    The better half of the methods is named on the right and the other on the left, from the outermost down, so that no
    two lines cross. Bars are drawn only where the Friedman test finds a difference.

    Args:
        comparison: `evaluate.compare`'s answer, best method first.
        baseline: the method whose name is set in bold, if any.
        name: of the drawing's file.
    """
    names, mean = comparison.names, comparison.mean_ranks
    k = len(names)
    bars = comparison.cliques if comparison.significant else ()
    low, high = axis_ends(mean, comparison.distance)
    a_rank = _AXIS_WIDTH / (high - low)
    levels = bar_levels([(a_rank * mean[first], a_rank * mean[last]) for first, last in bars], _BARS_APART)
    right = (k + 1) // 2
    texts = [f"{shorten(one, _LONGEST_NAME)} ({rank:.2f})" for one, rank in zip(names, mean)]
    # Rows count from the first label down: the best on the right, the worst on the left.
    rows = [place if place < right else k - 1 - place for place in range(k)]
    first_row = _TOP + 0.2 + _BAR_STEP * (1 + max(levels, default=-1))
    height = first_row + _LABEL_STEP * (right - 1) + 0.2

    figure, ax = new_figure(6, height)
    figure.set_layout_engine("none")
    ax.set_position([0, 0, 1, 1])
    ax.axis("off")
    style: dict[str, Any] = {"fontsize": _FONT, "va": "center", "parse_math": False, "color": NAME_COLOUR}
    labels = [
        ax.text(0, 0, text, fontweight="bold" if one == baseline else "normal", **style)
        for one, text in zip(names, texts)
    ]
    widths = [label.get_window_extent().width / figure.dpi for label in labels]
    ends = [_MARGIN + max(widths[right:], default=0) + _GAP, _MARGIN + max(widths[:right]) + _GAP]
    left_edge, right_edge = ends[0] + 0.15, ends[0] + 0.15 + _AXIS_WIDTH
    width = right_edge + 0.15 + ends[1]
    figure.set_size_inches(width, height)
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)

    def at(rank: float) -> float:
        return right_edge - a_rank * (rank - low)

    _draw_axis(ax, at, low, high)
    _draw_distance(ax, left_edge, right_edge, a_rank, comparison.distance)
    for place, (label, rank, row) in enumerate(zip(labels, mean, rows)):
        y = first_row + _LABEL_STEP * row
        end = width - ends[1] + _GAP / 2 if place < right else ends[0] - _GAP / 2
        ax.plot([at(rank), at(rank), end], [_TOP, y, y], color=LINE_COLOUR, linewidth=0.8, zorder=1)
        label.set_position((end + _GAP / 2 if place < right else end - _GAP / 2, y))
        label.set_horizontalalignment("left" if place < right else "right")
    for (first, last), level in zip(bars, levels):
        y = _TOP + 0.15 + _BAR_STEP * level
        inside = [at(rank) for rank in mean[first : last + 1]]
        ax.plot([inside[0], inside[-1]], [y, y], color=BAR_COLOUR, linewidth=2.4, zorder=2)
        ax.plot(inside, [y] * len(inside), color=BAR_COLOUR, marker="o", markersize=4.2, linestyle="", zorder=3)
    return Drawing(name, figure, _caption(comparison))


def bar_levels(spans: Sequence[tuple[float, float]], apart: float = 0.0) -> list[int]:
    """The level of each bar, 0 nearest to the axis: each takes the first where it stays `apart` from all others.

    Args:
        spans: (low, high) of each bar on the axis.
        apart: the least distance of two bars of one level: nearer ones would look joined.
    """
    levels: list[list[tuple[float, float]]] = []
    found = []
    for low, high in spans:
        free = (
            i
            for i, level in enumerate(levels)
            if all(high + apart < other_low or low > other_high + apart for other_low, other_high in level)
        )
        place = next(free, len(levels))
        if place == len(levels):
            levels.append([])
        levels[place].append((low, high))
        found.append(place)
    return found


def axis_ends(mean_ranks: Sequence[float], distance: float) -> tuple[int, int]:
    """Whole ranks between which all lie, far enough apart for the critical distance where there are enough ranks.

    The axis ends there: methods are seldom far from one another, and nothing is to be seen beyond.
    """
    low, high = math.floor(min(mean_ranks)), math.ceil(max(mean_ranks))
    high = min(max(high, math.ceil(low + distance)), len(mean_ranks))
    return max(min(low, math.floor(high - distance), high - 1), 1), high


def _draw_axis(ax: Any, at: Any, low: int, high: int) -> None:
    ax.plot([at(low), at(high)], [_TOP, _TOP], color="#333333", linewidth=1.2, zorder=4)
    step = math.ceil((high - low) / 20)
    for rank in range(low, high + 1, step):
        ax.plot([at(rank), at(rank)], [_TOP - 0.07, _TOP], color="#333333", linewidth=1.0, zorder=4)
        ax.text(at(rank), _TOP - 0.1, str(rank), fontsize=8.5, ha="center", va="bottom", color="#333333")
    text = "mean rank" + (" (1 is the best)" if low == 1 else " (low is good)")
    ax.text(at((low + high) / 2), _TOP - 0.28, text, fontsize=8.5, ha="center", va="bottom", color="#555555")


def _draw_distance(ax: Any, left_edge: float, right: float, a_rank: float, distance: float) -> None:
    """A ruler of the critical distance, from the right end of the axis on; open where the axis is too short for it."""
    y = 0.3
    left = max(right - a_rank * distance, left_edge)
    whole = right - left > a_rank * distance - 1e-9
    ax.plot([left, right], [y, y], color="#333333", linewidth=1.6)
    for x in (left, right) if whole else (right,):
        ax.plot([x, x], [y - 0.05, y + 0.05], color="#333333", linewidth=1.6)
    text = f"CD = {distance:.2f}" + ("" if whole else ", more than the axis is long")
    ax.text((left + right) / 2, y - 0.07, text, fontsize=9, ha="center", va="bottom", color="#333333")


def _caption(comparison: Comparison) -> str:
    p = comparison.p_value
    chance = f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
    level = f"{comparison.alpha:g}"
    text = (
        f"Mean ranks of {len(comparison.names)} methods over {comparison.n_blocks} blocks, best on the right; "
        f"Friedman test {chance}. "
    )
    if not comparison.significant:
        text += f"The test finds no difference at {level}, so no groups are drawn. "
    elif comparison.cliques:
        text += f"Bars join methods that the Nemenyi test cannot tell apart at {level}. "
    else:
        text += f"The Nemenyi test tells all methods apart at {level}. "
    return text + INDEPENDENCE_CAVEAT
