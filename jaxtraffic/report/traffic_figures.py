"""Figures of what packets tell about the application: curves, increments, classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxtraffic.report.figures import Drawing, new_figure, shorten

COLOURS = ("#1f5a99", "#d9580d", "#2a7a3f", "#7a3f98", "#8a5a00", "#c2185b")
_MARKERS = "osD^vP"
_MOST_CLASSES = 40
MOST_ABOVE = 1.5
"""How far above the ceiling, as a multiple of it, the picture of the curves reaches."""


@dataclasses.dataclass(frozen=True)
class Enough:
    """The least number of packets that hold a share of the information, with its 95 % interval."""

    packets: int
    low: int
    high: int


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """What one method found; all values in nats, intervals 95 % from resampled captures.

    Attributes:
        name: of the method.
        packets: [point] numbers of packets, increasing.
        value, low, high: [point] information about the label.
        increment, increment_low, increment_high: [point] what a point adds to the point before it.
        enough: share in per cent -> number of packets.
        per_class: [class, point] mean over the held-out flows of a class; NaN where there are none.
        fall: value of the last point less the largest, with its interval.
        seconds: wall time.
        warnings: of the method, in words.
        control: the estimate from all packets after the labels were shuffled, or None.
    """

    name: str
    packets: tuple[int, ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    increment: np.ndarray
    increment_low: np.ndarray
    increment_high: np.ndarray
    enough: Mapping[int, Enough]
    per_class: np.ndarray
    fall: tuple[float, float, float]
    seconds: float
    warnings: tuple[str, ...] = ()
    control: float | None = None

    @property
    def peak(self) -> int:
        """Index of the largest value."""
        return int(self.value.argmax())

    @property
    def falls(self) -> bool:
        """Whether the curve ends below its largest value by more than a rounding, 1 % of it."""
        return self.fall[0] < -0.01 * abs(float(self.value[self.peak]))


def draw_curves(curves: Sequence[Curve], ceiling: float, titles: Mapping[str, str]) -> Drawing:
    """Information against the number of packets, with bands and the entropy of the label as the ceiling."""
    # Narrow, so that a phone shows it whole in letters that can be read.
    figure, ax = new_figure(5.8, 4.4)
    for index, curve in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        x, y = np.r_[0, curve.packets], np.r_[0.0, curve.value]
        few = len(curve.packets) <= 4
        ax.fill_between(x, np.r_[0.0, curve.low], np.r_[0.0, curve.high], color=colour, alpha=0.15, linewidth=0)
        ax.plot(
            x,
            y,
            color=colour,
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=4 if len(x) < 20 else 3,
            linewidth=1.8 if index == 0 else 1.2,
            linestyle="" if few else "-",
            label=titles[curve.name],
        )
    ax.axhline(ceiling, color="#333333", linewidth=1, linestyle="--")
    ax.text(0.3, ceiling, f"all there is to know: H(label) = {ceiling:.2f} nats", fontsize=9, va="bottom")
    main, length = curves[0], max(curve.packets[-1] for curve in curves)
    bottom = min(0.0, min(float(curve.low.min()) for curve in curves) - 0.03 * ceiling)
    bottom = max(bottom, -ceiling)
    for answer in main.enough.values():
        at = main.packets.index(answer.packets)
        ax.plot([answer.packets] * 2, [bottom, main.value[at]], color=COLOURS[0], linewidth=0.8, linestyle=":")
    by_packets: dict[int, list[int]] = {}
    for share, answer in main.enough.items():
        by_packets.setdefault(answer.packets, []).append(share)
    for row, (packets, shares) in enumerate(by_packets.items()):
        words = ", ".join(map(str, shares)) + " %"
        ax.annotate(
            words,
            (packets, bottom),
            (3, 4 + 11 * (row % 3)),
            textcoords="offset points",
            fontsize=8,
            color=COLOURS[0],
        )
    ax.set_xlim(0, length * 1.01)
    # A method that breaks through the ceiling may leave the picture, so that the others can still be read.
    highest = max(float(curve.high.max()) for curve in curves)
    ax.set_ylim(bottom, min(max(ceiling, highest), MOST_ABOVE * ceiling) * 1.1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("first packets of a flow, r", fontsize=10)
    ax.set_ylabel("I(first r packets; application), nats", fontsize=10)
    right = ax.secondary_yaxis("right", functions=(lambda v: v / ceiling, lambda v: v * ceiling))
    right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    right.tick_params(labelsize=9)
    right.spines["right"].set_visible(False)
    right.set_ylabel("of the ceiling", fontsize=9)
    ax.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    ax.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8.5, columnspacing=1.2)
    caption = (
        "Information that the first r packets hold about the application, on held-out flows. Bands: 95 %, captures "
        f"resampled as a whole. Dotted: where the {titles[main.name]} has 90, 95 and 99 % of its largest value."
    )
    return Drawing("information", figure, caption)


def draw_increments(curves: Sequence[Curve], titles: Mapping[str, str]) -> Drawing:
    """What each packet adds to those before it, with intervals; one panel a method that has more than a few points."""
    shown = [curve for curve in curves if len(curve.packets) > 4] or list(curves)
    figure, axes = new_figure(7.5, 0.7 + 1.9 * len(shown), nrows=len(shown), squeeze=False, sharex=True, sharey=True)
    averaged = False
    for ax, curve in zip(axes[:, 0], shown):
        edges = np.r_[0, curve.packets]
        width = np.diff(edges)
        averaged |= bool((width > 1).any())
        centre = edges[:-1] + (width + 1) / 2
        bars = curve.increment / width
        spread = np.abs(np.stack([curve.increment_low, curve.increment_high]) / width - bars)
        colour = COLOURS[list(curves).index(curve) % len(COLOURS)]
        ax.bar(centre, bars, width * 0.86, color=colour, alpha=0.75)
        ax.errorbar(centre, bars, spread, fmt="none", ecolor="#222222", elinewidth=1, capsize=2)
        ax.axhline(0, color="#333333", linewidth=0.8)
        ax.set_title(titles[curve.name], fontsize=10, loc="left")
        ax.grid(axis="y", color="#e4e4e4", linewidth=0.7)
        ax.set_axisbelow(True)
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1, 0].set_xlabel("packet", fontsize=10)
    figure.supylabel("nats a packet", fontsize=10)
    blocks = " Wide bars stand for several packets and show their mean." if averaged else ""
    caption = (
        "What packet r adds to the packets before it: I(packet r; application | packets 1..r\N{MINUS SIGN}1). "
        f"Whiskers: 95 %, from differences flow by flow, captures resampled as a whole.{blocks}"
    )
    return Drawing("increments", figure, caption)


def draw_classes(curve: Curve, rows: Sequence[tuple[int, str, int, float]], title: str) -> list[Drawing]:
    """Class against number of packets as an image: share of the class's own ceiling.

    Args:
        curve: of the main method.
        rows: (class, name, held-out flows, ceiling in nats), in the order of the image.
        title: of the method.
    """
    drawings = []
    pages = [rows[start : start + _MOST_CLASSES] for start in range(0, len(rows), _MOST_CLASSES)]
    for number, page in enumerate(pages, start=1):
        figure, ax = new_figure(7.5, 1.3 + 0.24 * len(page))
        share = np.stack([curve.per_class[index] / max(limit, 1e-9) for index, _, _, limit in page])
        # Each point fills the packets from the point before it.
        edges = np.r_[0.5, np.array(curve.packets) + 0.5]
        mesh = ax.pcolormesh(
            edges, np.arange(len(page) + 1), np.clip(share, -1, 1), cmap="RdBu", vmin=-1, vmax=1, edgecolor="none"
        )
        labels = [f"{shorten(name, 22)}  ({n:,})" for _, name, n, _ in page]
        ax.set_yticks(np.arange(len(page)) + 0.5, labels, fontsize=8.5, parse_math=False)
        ax.set_ylim(len(page), 0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("first packets of a flow, r", fontsize=10)
        bar = figure.colorbar(mesh, ax=ax, fraction=min(0.03, 1 / math.sqrt(len(page) + 40)), pad=0.02)
        bar.set_ticks([-1, 0, 0.5, 1], labels=["\N{LESS-THAN OR EQUAL TO} \N{MINUS SIGN}100 %", "0", "50 %", "100 %"])
        bar.ax.tick_params(labelsize=8)
        part = f" Part {number} of {len(pages)}." if len(pages) > 1 else ""
        caption = (
            f"How soon an application is told apart ({title}): KL of the class's flows against all flows, mean over "
            "its held-out flows (their number in brackets), as a share of \N{MINUS SIGN}ln(share of the class), the "
            f"most that can be known. Red: the packets point to another class.{part}"
        )
        drawings.append(Drawing(f"classes_{number}", figure, caption, folded=number > 1))
    return drawings
