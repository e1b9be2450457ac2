"""Figures of closeness, coverage and privacy: curves of alpha and beta, and distributions of nearest distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from jaxtraffic.report.figures import REAL_COLOUR, SYNTHETIC_COLOUR, Drawing
from jaxtraffic.report.judgements import GENERATED
from jaxtraffic.report.set_lines import dress, line_panel, new_panel, numbers_of, set_title

_GROUP = "coverage"


def alpha_beta_curves(curves: Mapping[str, Any]) -> list[Drawing]:
    """Curves of alpha-precision and beta-recall of all sets, with the diagonal."""
    drawings = []
    for curve, x, y, caption in (
        (
            "alpha_curve",
            "share \N{GREEK SMALL LETTER ALPHA} of real flows in the sphere",
            "share of generated flows in it",
            "Alpha-precision: above the dotted diagonal, generated flows crowd the centre; below, they lie outside.",
        ),
        (
            "beta_curve",
            "share \N{GREEK SMALL LETTER BETA} of generated flows in the sphere",
            "share of real flows covered",
            "Beta-recall: without repeated sequences even fresh real flows end at about one half.",
        ),
    ):
        lines = {}
        for name in curves:
            values = numbers_of(curves, name, _GROUP, curve)
            alpha = numbers_of(curves, name, _GROUP, "alpha")
            if values.size:
                lines[name] = (alpha if alpha.shape == values.shape else np.linspace(0, 1, values.size), values)
        drawn, ax = line_panel(curve, lines, x=x, y=y, caption=caption, section=_GROUP, diagonal=True)
        if ax is not None:
            ax.set_xlim(-0.01, 1.01)
            ax.set_ylim(-0.01, 1.01)
        drawings += drawn
    return drawings


def nearest_records(curves: Mapping[str, Any]) -> list[Drawing]:
    """Distributions of the distance to the nearest record in both directions, and of how often each is used."""
    drawings = []
    for curve, y, caption in (
        (
            "nearest_quantiles",
            "share of generated flows",
            "Distance from each generated flow to its nearest real one. Far left: copies of training flows; right of "
            "fresh real: flows where no real ones are.",
        ),
        (
            "nearest_real_quantiles",
            "share of real flows",
            "Distance from each real flow to its nearest generated one. Right of fresh real: real flows that the "
            "generator misses.",
        ),
    ):
        lines = {name: found for name in curves if (found := _cumulative(numbers_of(curves, name, _GROUP, curve)))}
        drawn, ax = line_panel(curve, lines, x="distance (bytes)", y=y, caption=caption, section=_GROUP)
        if ax is not None:
            _scale_distances(ax)
        drawings += drawn
    lines = {}
    for name in curves:
        values = numbers_of(curves, name, _GROUP, "index_share")
        if values.size:
            lines[name] = (np.linspace(0, 1, values.size), values)
    drawn, ax = line_panel(
        "index_share",
        lines,
        x="share of real flows, most used first",
        y="share of generated flows",
        caption="How many real flows are the nearest of any generated one (Figure 8.11 of the thesis): the sooner the "
        "line rises, the fewer real flows the generator lives on.",
        section=_GROUP,
    )
    if ax is not None:
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_ylim(-0.01, 1.01)
    return drawings + drawn


def privacy_distances(curves: Mapping[str, Any]) -> list[Drawing]:
    """Distances of generated flows to training and to held-out flows, and of a copy of the training set."""
    figure, ax = new_panel()
    drawn = False
    for name, width, alpha in ((GENERATED, 2.2, 1.0), ("bootstrap", 1.2, 0.55)):
        for side, colour, dashes in (("train", SYNTHETIC_COLOUR, "-"), ("holdout", REAL_COLOUR, (0, (4, 1.5)))):
            found = _cumulative(numbers_of(curves, name, "privacy", f"distance_to_{side}_quantiles"))
            if found:
                drawn = True
                label = f"{set_title(name)}, to {'training' if side == 'train' else 'hold-out'}"
                ax.plot(*found, color=colour, linestyle=dashes, linewidth=width, alpha=alpha, label=label)
    if not drawn:
        return []
    _scale_distances(ax)
    dress(ax, "distance to the nearest real flow (bytes)", "share of flows", columns=2)
    caption = (
        "Distance from each generated flow to the nearest training and the nearest hold-out flow. Lines on top of each "
        "other: no memory. The line of training further left, as that of the bootstrap copy: training flows repeated."
    )
    return [Drawing("privacy_distances", figure, caption, section="privacy")]


def _cumulative(quantiles: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Distances and the share of flows up to each."""
    return (quantiles, np.linspace(0, 1, quantiles.size)) if quantiles.size else None


def _scale_distances(ax: Axes) -> None:
    """Linear up to a byte, then logarithmic, so that copies at 0 have a place."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ax.set_xlim(left=0)
    ax.set_ylim(-0.01, 1.01)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xticks([tick for tick in (0, 1, 10, 100, 1000, 10000) if tick <= max(ax.get_xlim()[1], 10)])
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.minorticks_off()
