"""Pictures of augmented flows: the original in black, the augmented in red, the partner of an exchange in grey."""

from __future__ import annotations

import dataclasses
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxtraffic.report.figures import shorten, size_limit

ORIGINAL_COLOUR, AUGMENTED_COLOUR, PARTNER_COLOUR = "#111111", "#d1171e", "#9a9a9a"
_BAND_COLOUR = "#eef0f3"
_DPI = 110
_COLUMNS = 4
# Inches.
_PANEL_WIDTH, _GUTTER, _LEFT, _RIGHT = 3.1, 0.3, 0.86, 0.14
_SIZE_HEIGHT, _IAT_HEIGHT, _BETWEEN, _TITLE, _BELOW = 1.2, 0.74, 0.1, 0.28, 0.42
_BAND, _HEAD, _BAND_GAP = 0.27, 1.2, 0.04
_ROW = _TITLE + _SIZE_HEIGHT + _BETWEEN + _IAT_HEIGHT + _BELOW
_LOWEST_MS = 0.01
"""Below 0.01 ms the axis of IATs is linear down to 0."""


@dataclasses.dataclass(frozen=True)
class DrawnFlow:
    """One flow in bytes and seconds.

    Attributes:
        x: [T, 3] size (bytes), direction (+1 client to server, -1 back, between them where an operation makes it so),
            IAT (seconds).
        mask: [T] bool, True at packets.
    """

    x: np.ndarray
    mask: np.ndarray

    @property
    def n_packets(self) -> int:
        """Packets of the flow."""
        return int(self.mask.sum())


@dataclasses.dataclass(frozen=True)
class ShownAugmentation:
    """What the gallery and the page show of one augmentation.

    Attributes:
        name: of the operation or composition.
        family: heading under which it stands.
        before: the flow as the operation is given it.
        after: results of draws, at least one; the gallery shows the first.
        partner: the flow that takes part in an exchange.
        changed: shares of flows in [0, 1] that the operation changes, by the magnitude in words.
        drawn: how many draws were looked at, and how many of them changed this flow.
        documentation: docstring of the operation.
        source: where its definition comes from.
        traits: flags by name.
        in_paper: whether it is one of PAM'24's 18.
        units: what the operation was given, such as "bytes and seconds".
    """

    name: str
    family: str
    before: DrawnFlow
    after: Sequence[DrawnFlow]
    changed: Mapping[str, float]
    drawn: tuple[int, int]
    documentation: str
    source: str
    traits: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    in_paper: bool = True
    partner: DrawnFlow | None = None
    units: str = "bytes and seconds"


@dataclasses.dataclass(frozen=True)
class Axes:
    """Ranges that all pictures of a page share.

    Attributes:
        packets: T.
        size: half-width of the axis of signed sizes, bytes.
        iat_ms: top of the axis of IATs, milliseconds.
    """

    packets: int
    size: float
    iat_ms: float

    @classmethod
    def of(cls, shown: Sequence[ShownAugmentation]) -> Axes:
        """Ranges that hold everything shown."""
        flows = [flow for one in shown for flow in (one.before, *one.after, one.partner) if flow is not None]
        sizes = np.array([np.abs(flow.x[flow.mask, 0]).max(initial=0) for flow in flows])
        longest = max(float(flow.x[flow.mask, 2].max(initial=0)) for flow in flows)
        limit = size_limit(np.ceil(sizes), np.zeros(1))
        return cls(len(flows[0].mask), 1.06 * limit, 10 ** math.ceil(math.log10(max(2000 * longest, 1.0))))


def draw_gallery(shown: Sequence[ShownAugmentation], heading: str, lines: Sequence[str]) -> bytes:
    """PNG of the first draw of every augmentation, four in a row, by family in the order given.

    Args:
        shown: at least one; those of a family side by side.
        heading: first line, bold.
        lines: up to two lines below it.
    """
    ranges = Axes.of(shown)
    places, bands, rows = _arrange([one.family for one in shown])
    band_rows = sorted({row for row, *_ in bands})
    width = _LEFT + _COLUMNS * _PANEL_WIDTH + (_COLUMNS - 1) * _GUTTER + _RIGHT
    height = _HEAD + rows * _ROW + len(band_rows) * (_BAND + _BAND_GAP)
    figure = _new_figure(width, height)
    tops, y = [], _HEAD
    for row in range(rows):
        y += (_BAND + _BAND_GAP) if row in band_rows else 0
        tops.append(y)
        y += _ROW
    for row, first, last, family in bands:
        left = _LEFT + first * (_PANEL_WIDTH + _GUTTER)
        right = _LEFT + last * (_PANEL_WIDTH + _GUTTER) + _PANEL_WIDTH
        _band(figure, left, tops[row] - _BAND - _BAND_GAP, right - left, family)
    family_at = {place: one.family for one, place in zip(shown, places)}
    for one, (row, column) in zip(shown, places):
        left = _LEFT + column * (_PANEL_WIDTH + _GUTTER)
        size_ax, iat_ax = _panel(figure, left, tops[row], ranges, labelled=column == 0)
        draw_flow(size_ax, iat_ax, one.before, one.after[0], one.partner)
        dagger = "" if one.in_paper else " \N{DAGGER}"
        _title(size_ax, f"{one.name}{dagger}", _counts(one.before, one.after[0]))
        if family_at.get((row + 1, column)) != one.family:
            iat_ax.set_xlabel("packet", fontsize=8.5, labelpad=1)
    _write_head(figure, heading, lines, any(one.partner for one in shown), any(not one.in_paper for one in shown))
    return _png(figure)


def draw_draws(shown: Sequence[ShownAugmentation]) -> list[bytes]:
    """PNG of all draws of each augmentation, side by side; all pictures have the same axes."""
    ranges = Axes.of(shown)
    # Axes and ticks cost more than bars, so that pictures of as many draws share one figure.
    figures: dict[int, tuple[Figure, list[tuple[Any, Any]]]] = {}
    pictures = []
    for one in shown:
        count = len(one.after)
        if count not in figures:
            figure = _new_figure(_LEFT + count * _PANEL_WIDTH + (count - 1) * _GUTTER + _RIGHT, _ROW)
            lefts = [_LEFT + number * (_PANEL_WIDTH + _GUTTER) for number in range(count)]
            panels = [_panel(figure, left, 0.0, ranges, labelled=left == _LEFT) for left in lefts]
            for _, iat_ax in panels:
                iat_ax.set_xlabel("packet", fontsize=8.5, labelpad=1)
            figures[count] = figure, panels
        figure, panels = figures[count]
        artists = []
        for number, (after, (size_ax, iat_ax)) in enumerate(zip(one.after, panels)):
            artists += draw_flow(size_ax, iat_ax, one.before, after, one.partner)
            _title(size_ax, f"draw {number + 1}" if count > 1 else "", _counts(one.before, after), bold=False)
        pictures.append(_png(figure))
        for artist in artists:
            artist.remove()
    return pictures


def draw_flow(
    size_ax: Any, iat_ax: Any, before: DrawnFlow, after: DrawnFlow, partner: DrawnFlow | None = None
) -> list[Any]:
    """Signed sizes and IATs of one flow before and after, packet by packet side by side; returns what was drawn."""
    layers = [(before, ORIGINAL_COLOUR), (after, AUGMENTED_COLOUR)]
    if partner is not None:
        layers.insert(0, (partner, PARTNER_COLOUR))
    step = 0.8 / len(layers)
    width = step * _PANEL_WIDTH * 72 / (len(before.mask) + 0.6)
    artists = []
    for number, (flow, colour) in enumerate(layers):
        place = np.flatnonzero(flow.mask)
        packet = place + 1 + step * (number - (len(layers) - 1) / 2)
        size, direction, iat = flow.x[place].T.astype(np.float64)
        signed, iat_ms = size * direction, 1000 * iat
        undirected, empty, instant = (direction == 0) & (size != 0), size == 0, iat_ms < _LOWEST_MS / 5
        artists.append(size_ax.vlines(packet, 0, signed, colors=colour, linewidths=width))
        artists.append(iat_ax.vlines(packet, 0, iat_ms, colors=colour, linewidths=width))
        style = {"linestyle": "none", "color": colour, "markersize": 2.6, "markeredgewidth": 0.7, "clip_on": False}
        if undirected.any():
            low, high = -size[undirected], size[undirected]
            artists.append(size_ax.vlines(packet[undirected], low, high, colors=colour, linewidths=0.8, alpha=0.6))
            artists += size_ax.plot(packet[undirected], 0 * high, marker="D", markerfacecolor="white", **style)
        if empty.any():
            artists += size_ax.plot(packet[empty], signed[empty], marker="o", **style)
        if instant.any():
            artists += iat_ax.plot(packet[instant], iat_ms[instant], marker="o", **style)
    return artists


def _arrange(families: Sequence[str]) -> tuple[list[tuple[int, int]], list[tuple[int, int, int, str]], int]:
    """Places (row, column), bands (row, first and last column, family), rows.

    A family begins a row, or stands beside the one before it where it fits there whole.
    """
    places: list[tuple[int, int]] = []
    begins: list[tuple[int, int, str]] = []
    row, column = 0, 0
    for family, count in Counter(families).items():
        if column and column + count > _COLUMNS:
            row, column = row + 1, 0
        begins.append((row, column, family))
        for _ in range(count):
            if column == _COLUMNS:
                row, column = row + 1, 0
            places.append((row, column))
            column += 1
    bands = []
    for row, first, family in begins:
        right = [other for one, other, _ in begins if one == row and other > first]
        bands.append((row, first, min(right, default=_COLUMNS) - 1, family))
    return places, bands, places[-1][0] + 1


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def _rectangle(figure: Figure, left: float, top: float, width: float, height: float) -> tuple[float, ...]:
    """Inches from the upper left corner -> fractions from the lower left one."""
    total_width, total_height = figure.get_size_inches()
    return left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height


def _panel(figure: Figure, left: float, top: float, ranges: Axes, *, labelled: bool) -> tuple[Any, Any]:
    size_ax = figure.add_axes(_rectangle(figure, left, top + _TITLE, _PANEL_WIDTH, _SIZE_HEIGHT))
    iat_top = top + _TITLE + _SIZE_HEIGHT + _BETWEEN
    iat_ax = figure.add_axes(_rectangle(figure, left, iat_top, _PANEL_WIDTH, _IAT_HEIGHT))
    for ax in (size_ax, iat_ax):
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color("#888888")
        ax.tick_params(labelsize=8, length=2.5, pad=2, color="#888888")
        ax.set_xlim(0.2, ranges.packets + 0.8)
        ax.set_xticks(_packet_ticks(ranges.packets))
        ax.set_axisbelow(True)
        ax.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    size_ax.tick_params(labelbottom=False, length=0, axis="x")
    size_ax.spines["bottom"].set_visible(False)
    size_ax.axhline(0, color="#888888", linewidth=0.7, zorder=0.9)
    size_ax.set_ylim(-ranges.size, ranges.size)
    size_ax.set_yticks(_size_ticks(ranges.size))
    iat_ax.set_yscale("symlog", linthresh=_LOWEST_MS, linscale=0.4)
    iat_ax.set_ylim(0, ranges.iat_ms)
    iat_ax.set_yticks(_iat_ticks(ranges.iat_ms), minor=False)
    iat_ax.set_yticks([], minor=True)
    iat_ax.set_yticklabels([_short_number(tick) for tick in _iat_ticks(ranges.iat_ms)])
    if labelled:
        for ax, text in ((size_ax, "signed size\n(bytes)"), (iat_ax, "IAT (ms)")):
            # At one distance from the axes, whatever the width of the tick labels.
            place = -0.62 / _PANEL_WIDTH
            ax.text(place, 0.5, text, transform=ax.transAxes, rotation=90, ha="center", va="center", fontsize=8.5)
    else:
        size_ax.tick_params(labelleft=False, axis="y")
        iat_ax.tick_params(labelleft=False, axis="y")
    return size_ax, iat_ax


def _packet_ticks(packets: int) -> list[int]:
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if packets / step <= 8), 200)
    return [1, *range(max(step, 2), packets + 1, step)] if step > 1 else list(range(1, packets + 1))


def _size_ticks(limit: float) -> list[float]:
    step = next((step for step in (20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if limit / step < 2.2), 20000)
    return [step * k for k in range(-int(limit // step), int(limit // step) + 1)]


def _iat_ticks(top: float) -> list[float]:
    decades = range(round(math.log10(_LOWEST_MS)), round(math.log10(top)) + 1)
    return [0.0, *(10.0**decade for decade in decades[1::2])]


def _short_number(value: float) -> str:
    return "0" if value == 0 else f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _counts(before: DrawnFlow, after: DrawnFlow) -> str:
    one, other = before.n_packets, after.n_packets
    return f"n = {one}" if one == other else f"n = {one} \N{RIGHTWARDS ARROW} {other}"


def _title(ax: Any, left: str, right: str, *, bold: bool = True) -> None:
    weight = "bold" if bold else "normal"
    ax.set_title(left, fontsize=9.5, fontweight=weight, loc="left", pad=4, parse_math=False)
    ax.set_title(right, fontsize=8, loc="right", pad=4, color="#555555", parse_math=False)


def _band(figure: Figure, left: float, top: float, width: float, family: str) -> None:
    ax = figure.add_axes(_rectangle(figure, left, top, width, _BAND))
    ax.set_facecolor(_BAND_COLOUR)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.text(
        0.08 / width, 0.47, family, transform=ax.transAxes, ha="left", va="center", fontsize=10.5, fontweight="bold"
    )


def _write_head(figure: Figure, heading: str, lines: Sequence[str], partner: bool, beyond: bool) -> None:
    width, height = figure.get_size_inches()
    place = {"ha": "left", "va": "top", "parse_math": False}
    figure.text(0.2 / width, 1 - 0.14 / height, shorten(heading, 110), fontsize=14, fontweight="bold", **place)
    for number, line in enumerate(lines[:2]):
        y = 1 - (0.46 + 0.21 * number) / height
        figure.text(0.2 / width, y, shorten(line, 200), fontsize=9.5, color="#333333", **place)
    entries = [("original", ORIGINAL_COLOUR), ("augmented", AUGMENTED_COLOUR)]
    entries += [("partner of the exchange", PARTNER_COLOUR)] if partner else []
    handles = [Line2D([], [], color=colour, linewidth=5, label=name) for name, colour in entries]
    marks = {"linestyle": "none", "color": "#444444"}
    handles.append(Line2D([], [], marker="o", markersize=3.5, label="value 0", **marks))
    handles.append(Line2D([], [], marker="D", markersize=4, markerfacecolor="white", label="direction 0", **marks))
    if beyond:
        handles.append(Line2D([], [], marker="$\N{DAGGER}$", markersize=6, label="not among PAM'24's 18", **marks))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.12 / width, 1 - 0.84 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=9.5,
        handlelength=1.2,
        columnspacing=1.6,
        borderpad=0.1,
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.canvas.print_png(buffer)
    return buffer.getvalue()
