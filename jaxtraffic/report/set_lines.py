"""Small figures with a line for each set of flows: this run and its references, told apart without colour too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxtraffic.report.figures import REAL_COLOUR, SYNTHETIC_COLOUR, Drawing
from jaxtraffic.report.judgements import GENERATED, TITLES

_PANEL_DPI = 140


class Style(NamedTuple):
    """How the lines of a set look."""

    colour: str
    dashes: str | tuple[int, tuple[float, ...]]
    width: float


_STYLES = {
    GENERATED: Style(SYNTHETIC_COLOUR, "-", 2.2),
    "fresh_real": Style(REAL_COLOUR, "-", 1.5),
    "bootstrap": Style("#7fa8d6", (0, (5, 1.5)), 1.5),
    "marginals": Style("#4c8c4a", (0, (3, 1, 1, 1)), 1.5),
    "random_half": Style("#8a8a8a", (0, (1, 1.2)), 1.3),
    "capture_half": Style("#55506b", (0, (6, 2)), 1.2),
}
_OTHER = Style("#a06cb0", (0, (2, 2)), 1.2)


def new_panel(
    width: float = 4.2,
    height: float = 3.4,
    *,
    left: float = 0.68,
    right: float = 0.12,
    bottom: float = 0.52,
    top: float = 0.5,
) -> tuple[Figure, Axes]:
    """A figure narrow enough for a phone; two stand side by side on a wider page.

    Margins are in inches and fixed: fitting them to the labels takes longer than drawing the rest.
    """
    figure = Figure(figsize=(width, height), dpi=_PANEL_DPI)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def dress(ax: Axes, x: str, y: str, *, columns: int = 3) -> None:
    """Labels of both axes, a light grid, and the legend above, where no line runs through it."""
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=7.5,
        handlelength=2.4,
        columnspacing=1.2,
        labelspacing=0.3,
        borderaxespad=0.2,
    )


def set_title(name: str) -> str:
    """The name of a set as legends show it."""
    return "generated" if name == GENERATED else TITLES.get(name, name.replace("_", " "))


def style_of(name: str) -> Style:
    """The style of a set; sets that nobody foresaw share one."""
    return _STYLES.get(name, _OTHER)


def numbers_of(curves: Mapping[str, Any], name: str, group: str, curve: str) -> np.ndarray:
    """One curve of one set as float64, NaN where null; empty where it is missing or holds no number at all."""
    values = ((curves.get(name) or {}).get(group) or {}).get(curve)
    if values is None:
        return np.zeros(0)
    found = np.array(values, dtype=np.float64)
    return found if np.isfinite(found).any() else np.zeros(0)


def line_panel(
    name: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    caption: str,
    section: str,
    diagonal: bool = False,
) -> tuple[list[Drawing], Axes | None]:
    """A panel with one line a set, this run on top, and its axes to adorn; nothing where there is no line.

    Args:
        name: of the file.
        lines: set name -> x and y values.
        x: label of the axis.
        y: label of the axis.
        caption: below the figure.
        section: of the page.
        diagonal: whether to draw the diagonal of the unit square, dotted.
    """
    if not lines:
        return [], None
    figure, ax = new_panel()
    if diagonal:
        ax.plot([0, 1], [0, 1], color="#222222", linewidth=0.9, linestyle=":")
    for place, (one, (across, up)) in enumerate(lines.items()):
        style = style_of(one)
        order = 20 if one == GENERATED else 10 - place
        ax.plot(
            across,
            up,
            color=style.colour,
            linestyle=style.dashes,
            linewidth=style.width,
            label=set_title(one),
            zorder=order,
        )
    dress(ax, x, y)
    return [Drawing(name, figure, caption, section=section)], ax
