"""Figures of a classifier's feature space: where neighbours come from, how far augmentations move, a picture of all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.figures import Drawing, new_figure, shorten

if TYPE_CHECKING:
    from jaxtraffic.evaluate.latent import AnchorReport

ALL_COLOUR, AUGMENTED_COLOUR, CHANCE_COLOUR = "#1f5a99", "#d9580d", "#111111"
_REST_COLOUR = "#c4c4c4"
_PALETTE = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#bcbd22", "#17becf", "#1a1a1a"),
)
_MARKERS = "o^sDv"
_MOST_CLASSES = len(_PALETTE) * len(_MARKERS) // 2
_MOST_DISTANCES = 4000
"""Distances of which a density is drawn: its cost grows with each."""
_GRID = 300


def draw_anchor_shares(report: AnchorReport, *, name: str = "anchor_shares") -> Drawing:
    """A row for each source: its share of the neighbours, how many have the right label, how near they are.

    Args:
        report: `evaluate.latent.anchor_report`'s answer.
        name: of the drawing's file.
    """
    rows = {row.source: index for index, row in enumerate(report.sources)}
    figure, axes = new_figure(8.2, 1.35 + 0.42 * len(rows), ncols=3, sharey=True, width_ratios=[3, 2, 2])
    near = "cosine similarity" if report.metric == "cosine" else "Euclidean distance"
    fields = (
        ("of_nearest", f"share of the {report.k} nearest"),
        ("right", "of these, right label"),
        ("similarity", f"mean {near}"),
    )
    sets = ((report.sources, ALL_COLOUR, -0.19), (report.augmented_only, AUGMENTED_COLOUR, 0.19))
    for ax, (field, title) in zip(axes, fields):
        for sources, colour, shift in sets:
            for row in sources:
                y, value = rows[row.source] + shift, getattr(row, field)
                if field == "of_nearest":
                    ax.barh(y, value, 0.34, color=colour)
                    ax.plot([row.of_anchors] * 2, [y - 0.19, y + 0.19], color=CHANCE_COLOUR, linewidth=1.4)
                elif math.isfinite(value):
                    ax.plot(value, y, marker="o", markersize=6, color=colour, linestyle="")
        ax.set_xlabel(title, fontsize=9.5)
        ax.grid(axis="x", color="#e2e2e2", linewidth=0.7)
        ax.set_axisbelow(True)
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes[0].xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0].set_xlim(left=0)
    axes[1].xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    for ax in axes[1:]:
        ax.margins(x=0.15)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), [shorten(source, 30) for source in rows], fontsize=9.5, parse_math=False)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = [
        Line2D([], [], color=ALL_COLOUR, marker="o", linewidth=5, markersize=6, label="among all anchors"),
        Line2D(
            [], [], color=AUGMENTED_COLOUR, marker="o", linewidth=5, markersize=6, label="among augmented ones only"
        ),
        Line2D([], [], color=CHANCE_COLOUR, marker="|", linestyle="", markersize=10, label="share of the anchors"),
    ]
    low, high = axes[1].get_xlim()
    axes[1].set_xlim(max(low, -0.06), min(high, 1.06))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9.5)
    finite = report.ratio[np.isfinite(report.ratio)]
    nearer = f"{np.mean(report.ratio < 1):.0%}"
    caption = (
        f"Where the {report.k} anchors nearest to each of {len(report.ratio):,} test flows by {near} come from. "
        f"Right labels: {report.right:.1%} among all anchors, {report.augmented_right:.1%} among augmented ones only. "
        f"For {nearer} of the test flows an augmentation lies nearer (Euclidean) than any original"
    )
    caption += f"; median ratio of the two distances {np.median(finite):.2f}." if len(finite) else "."
    return Drawing(name, figure, caption)


def draw_distance_kde(distances: Mapping[str, np.ndarray], *, name: str = "distances", seed: int = 0) -> Drawing:
    """A ridge for each augmentation: the density of distances between originals and their augmentations.

    Sorted by median, the least first. Distances of 0 (the augmentation changed nothing) have no density and are given
    as a share. At most 4000 others, drawn at random, make a density.

    Args:
        distances: name of the augmentation -> [flow] Euclidean distances >= 0, in the model's units.
        name: of the drawing's file.
        seed: of that draw.

    Raises:
        ConfigError: no augmentation, one without distances, or distances that are negative or not finite.
    """
    sets = {one: np.asarray(values, np.float64).ravel() for one, values in distances.items()}
    for one, values in sets.items():
        if not len(values) or not np.isfinite(values).all() or values.min() < 0:
            raise ConfigError(f"distances of {one!r} must be one or more finite numbers of 0 or more")
    if not sets:
        raise ConfigError("draw_distance_kde needs the distances of one augmentation or more")
    order = sorted(sets, key=lambda one: float(np.median(sets[one])))
    top = max(float(np.quantile(values, 0.995)) for values in sets.values()) or 1.0
    grid = np.linspace(0, 1.04 * top, _GRID)
    figure, ax = new_figure(7.5, 1.0 + 0.42 * len(order))
    generator = np.random.default_rng(seed)
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
    beside |= {"fontsize": 8.5, "color": "#555555"}
    for row, one in enumerate(order):
        values = sets[one]
        density = density_from_zero(values[values > 0], grid, generator)
        ax.axhline(row, color="#dddddd", linewidth=0.6, zorder=1)
        if density is not None:
            share = density / density.max()
            height = np.where(share > 1e-3, row - 0.85 * share, np.nan)
            ax.fill_between(grid, row, height, color=ALL_COLOUR, alpha=0.35, linewidth=0, zorder=2)
            ax.plot(grid, height, color=ALL_COLOUR, linewidth=1.1, zorder=3)
        median = float(np.median(values))
        ax.plot([median, median], [row - 0.3, row], color=CHANCE_COLOUR, linewidth=1.6, zorder=4, clip_on=False)
        text = f"{np.mean(values == 0):.0%}" if (values == 0).any() else "\N{EN DASH}"
        ax.annotate(text, (1.015, row - 0.15), **beside)
    ax.annotate("unchanged", (1.015, -0.85), **beside)
    ax.set_yticks(np.arange(len(order)) - 0.15, [shorten(one, 34) for one in order], fontsize=9.5, parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(len(order) - 0.7, -1.0)
    ax.set_xlim(0, grid[-1])
    ax.set_xlabel("Euclidean distance of an augmentation to its original, in feature space", fontsize=10)
    caption = (
        "Density of the distances between the features of a flow and of its augmentations, each scaled to its own "
        "highest point; black: median of all, those of 0 included. Right: share of augmentations at distance 0, which "
        "the densities leave out."
    )
    return Drawing(name, figure, caption)


def density_from_zero(values: np.ndarray, grid: np.ndarray, generator: np.random.Generator) -> np.ndarray | None:
    """Gaussian kernel density of positive values on a grid from 0, mirrored at 0; None where there is no spread.

    Args:
        values: [value] above 0.
        grid: [point] of 0 or more.
        generator: draws values where there are too many.
    """
    from scipy.stats import gaussian_kde

    if len(values) > _MOST_DISTANCES:
        values = generator.choice(values, _MOST_DISTANCES, replace=False)
    if len(values) < 3 or np.ptp(values) <= 1e-6 * values.max():
        return None
    # What a kernel puts below 0 comes back above it.
    kernel = gaussian_kde(values)
    return kernel(grid) + kernel(-grid)


def draw_tsne(
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    augmented: np.ndarray | None = None,
    name: str = "tsne",
) -> Drawing:
    """A picture of features in two dimensions, colour and marker by class; augmentations hollow.

    Args:
        points: [point, 2] coordinates, of `evaluate.latent.tsne`.
        labels: [point] indices into `class_names`.
        class_names: names of the classes; the 25 most frequent are told apart, the others are grey.
        augmented: [point] bool, or None where all are originals.
        name: of the drawing's file.

    Raises:
        ConfigError: arrays that do not fit each other, labels without a name, or coordinates that are not finite.
    """
    points, labels = np.asarray(points, np.float64), np.asarray(labels)
    hollow = np.zeros(len(points), bool) if augmented is None else np.asarray(augmented, bool)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != (len(points),) or hollow.shape != labels.shape:
        raise ConfigError(
            "draw_tsne: expected points [point, 2] with as many labels and flags, got "
            f"{list(points.shape)}, {list(labels.shape)} and {list(hollow.shape)}"
        )
    if not len(points) or not np.isfinite(points).all():
        raise ConfigError("draw_tsne: expected one point or more, all coordinates finite")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ConfigError(f"draw_tsne: labels must lie between 0 and {len(class_names) - 1}, the classes named")
    counts = np.bincount(labels, minlength=len(class_names))
    shown = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]][:_MOST_CLASSES]
    figure, ax = new_figure(8.6, 5.6)
    size = float(np.clip(9000 / len(points), 6, 30))
    rest = ~np.isin(labels, shown)
    handles: list[Any] = []
    if rest.any():
        ax.scatter(*points[rest].T, s=size, color=_REST_COLOUR, linewidths=0, zorder=1)
    for place, label in enumerate(shown):
        colour, marker = _PALETTE[place % len(_PALETTE)], _MARKERS[place // len(_PALETTE)]
        mine = labels == label
        style = {"marker": marker, "s": size}
        ax.scatter(*points[mine & hollow].T, facecolors="none", edgecolors=colour, linewidths=0.7, alpha=0.6, **style)
        ax.scatter(*points[mine & ~hollow].T, color=colour, linewidths=0, alpha=0.85, zorder=3, **style)
        handles.append(
            Line2D(
                [], [], marker=marker, color=colour, linestyle="", markersize=6, label=shorten(class_names[label], 24)
            )
        )
    if rest.any():
        others = len(np.unique(labels[rest]))
        handles.append(Line2D([], [], marker="o", color=_REST_COLOUR, linestyle="", label=f"{others} other classes"))
    if hollow.any():
        style = {"marker": "o", "color": "#444444", "linestyle": "", "markersize": 6}
        handles.append(Line2D([], [], label="original", **style))
        handles.append(Line2D([], [], markerfacecolor="none", label="augmentation", **style))
    legend = figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9, labelspacing=0.35)
    for text in legend.get_texts():
        text.set_parse_math(False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("#bbbbbb")
    caption = (
        f"t-SNE of {len(points):,} feature vectors"
        + (f", {int(hollow.sum()):,} of them of augmentations (hollow)" if hollow.any() else "")
        + ". Only neighbourhoods mean something: distances between groups, their sizes and the axes do not."
    )
    return Drawing(name, figure, caption)
