"""Figures of judgements: positions one by one, scaling curves, confusion, frequent sizes and runs of one direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxtraffic.report.figures import REAL_COLOUR, SYNTHETIC_COLOUR, Drawing, shorten
from jaxtraffic.report.judgements import GENERATED, THIS_RUN, multiples_of
from jaxtraffic.report.set_lines import dress, line_panel, new_panel, numbers_of, set_title, style_of

_NAMED_CLASSES = 30
_COUNTED_CLASSES = 10


def by_position(curves: Mapping[str, Any]) -> list[Drawing]:
    """Kolmogorov-Smirnov complement, Wasserstein distance and divergence of direction at each position, of all sets."""
    drawings = []
    for curve, y, caption in (
        (
            "ks_complement",
            "KS complement",
            "Kolmogorov-Smirnov complement by packet position; 1 is equal. The reference lines say how much of the "
            "distance is chance, and how much a change of captures.",
        ),
        ("wasserstein", "Wasserstein distance (bytes)", "Wasserstein distance of signed sizes by packet position."),
        (
            "js_direction",
            "divergence (nats)",
            "Jensen-Shannon divergence of direction (client, server, none) by packet position.",
        ),
    ):
        lines = {}
        for name in curves:
            values = numbers_of(curves, name, "density", curve)
            if values.size:
                lines[name] = (np.arange(1, values.size + 1), values)
        drawn, ax = line_panel(curve, lines, x="packet position", y=y, caption=caption, section="density")
        if ax is not None:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_ylim(**({"top": 1.005} if curve == "ks_complement" else {"bottom": 0}))
        drawings += drawn
    return drawings


def scaling_curves(judgements: Mapping[str, Any], sets: Sequence[str] = (THIS_RUN,)) -> list[Drawing]:
    """Utility and augmentation against the number of generated flows, as Figures 8.9 and 8.10 of the thesis.

    Args:
        judgements: flat keys.
        sets: keys of the columns that may have been scaled; "" is this run.
    """
    drawings = []
    for test, what, y, caption in (
        ("utility", "gap", "F1 gap", "Utility by the number of generated flows (Figure 8.9 of the thesis)."),
        ("augmentation", "gain", "F1 gain", "Augmentation by the number of generated flows (Figure 8.10)."),
    ):
        figure, ax = new_panel()
        seen: set[int] = set()
        for name in sets:
            style = style_of(name or GENERATED)
            for mean, marker, dashes in (("weighted", "o", "-"), ("macro", "s", (0, (4, 1.5)))):
                pattern = f"scaling.{test}.x*.{mean}_f1_{what}"
                found = [(int(times), value) for times, value in multiples_of(judgements, pattern, name)]
                if found:
                    seen |= {times for times, _ in found}
                    label = f"{set_title(name or GENERATED)}, {mean}"
                    ax.plot(
                        *zip(*found, strict=True),
                        color=style.colour,
                        linestyle=dashes,
                        marker=marker,
                        markersize=5,
                        linewidth=1.6,
                        markerfacecolor=style.colour if mean == "weighted" else "white",
                        label=label,
                    )
        if not seen:
            continue
        ax.axhline(0, color="#333333", linewidth=0.8)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(seen), [f"{times} \N{MULTIPLICATION SIGN}" for times in sorted(seen)])
        ax.minorticks_off()
        dress(ax, "generated flows, times training flows", y, columns=2)
        caption += " 0 is as good as real flows." if what == "gap" else " 0 is what real flows alone reach."
        drawings.append(Drawing(f"scaling_{test}", figure, caption, section="scaling"))
    return drawings


def confusion_matrices(curves: Mapping[str, Any], class_names: Sequence[str]) -> list[Drawing]:
    """Confusion of the classifiers trained on real and on generated flows, rows as shares; most tested class first."""
    found = {side: numbers_of(curves, GENERATED, "confusion", side) for side in ("real", "synthetic")}
    n = len(class_names)
    found = {side: np.nan_to_num(matrix) for side, matrix in found.items() if matrix.shape == (n, n)}
    if not found:
        return []
    tested = next(iter(found.values())).sum(axis=1)
    # Classes without test flows that are predicted have a column, and an empty row.
    there = sum(matrix.sum(axis=0) + matrix.sum(axis=1) for matrix in found.values())
    order = [label for label in np.argsort(-tested, kind="stable") if there[label] > 0]
    drawings = []
    for side, matrix in found.items():
        counts = matrix[np.ix_(order, order)]
        total = counts.sum(axis=1, keepdims=True)
        share = counts / np.where(total == 0, 1, total)
        named = len(order) <= _NAMED_CLASSES
        margins = {"left": 1.25, "bottom": 1.25} if named else {}
        figure, ax = new_panel(4.2, 4.0, top=0.1, right=0.45, **margins)
        image = ax.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="auto")
        _name_axes(ax, [class_names[label] for label in order])
        if len(order) <= _COUNTED_CLASSES:
            for row, column in np.ndindex(*share.shape):
                if share[row, column] >= 0.005:
                    colour = "white" if share[row, column] > 0.4 else "black"
                    text = f"{100 * share[row, column]:.0f}"
                    ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
        bar = figure.colorbar(image, ax=ax, aspect=28, pad=0.03, fraction=0.08)
        bar.set_ticks([0, 0.05, 0.25, 0.5, 1], labels=["0%", "5%", "25%", "50%", "100%"], fontsize=7)
        word = "real" if side == "real" else "generated"
        caption = f"Confusion on real test flows, trained on {word} flows: rows are true classes, in percent of each."
        caption += _largest_confusion(share, [class_names[label] for label in order])
        drawings.append(Drawing(f"confusion_{side}", figure, caption, section="utility"))
    return drawings


def frequent_sizes(curves: Mapping[str, Any]) -> list[Drawing]:
    """Shares of the most frequent exact sizes, real against generated, and against fresh real flows."""
    sizes, real, synthetic = (
        numbers_of(curves, GENERATED, "semantics", name) for name in ("atom_sizes", "atom_real", "atom_synthetic")
    )
    if not sizes.size or not sizes.shape == real.shape == synthetic.shape:
        return []
    figure, ax = new_panel(4.2, 0.9 + 0.17 * len(sizes), top=0.35)
    y = np.arange(len(sizes))
    ax.barh(y - 0.2, real, 0.38, color=REAL_COLOUR, label="training flows")
    ax.barh(y + 0.2, synthetic, 0.38, color=SYNTHETIC_COLOUR, label="generated")
    fresh = numbers_of(curves, "fresh_real", "semantics", "atom_synthetic")
    if fresh.shape == sizes.shape:
        ax.plot(fresh, y, linestyle="", marker="|", color="black", markersize=7, label="fresh real")
    labels = [f"{size:+.0f}".replace("-", "\N{MINUS SIGN}") for size in sizes]
    ax.set_yticks(y, labels)
    ax.set_ylim(len(sizes) - 0.4, -0.6)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    dress(ax, "share of packets", "signed size (bytes)")
    ax.tick_params(axis="y", labelsize=7.5)
    caption = (
        f"The {len(sizes)} most frequent exact sizes of training flows, as shares of all packets; + from the client, "
        "\N{MINUS SIGN} from the server."
    )
    return [Drawing("frequent_sizes", figure, caption, section="semantics")]


def run_lengths(curves: Mapping[str, Any]) -> list[Drawing]:
    """Shares of runs of one direction by their number of packets."""
    real, synthetic = (
        numbers_of(curves, GENERATED, "semantics", f"run_lengths_{side}") for side in ("real", "synthetic")
    )
    if not real.size or real.shape != synthetic.shape:
        return []
    figure, ax = new_panel()
    edges = np.arange(len(real) + 1) + 0.5
    for values, colour, name in ((real, REAL_COLOUR, "training flows"), (synthetic, SYNTHETIC_COLOUR, "generated")):
        filled = name != "generated"
        shown = np.where(values > 0, values, np.nan)
        ax.stairs(
            np.nan_to_num(shown, nan=1e-9),
            edges,
            color=colour,
            alpha=0.4 if filled else 1.0,
            fill=filled,
            baseline=1e-9,
            linewidth=1.4,
            label=name,
        )
    positive = np.concatenate([real, synthetic])
    positive = positive[positive > 0]
    ax.set_yscale("log")
    ax.set_ylim(0.5 * float(positive.min(initial=1.0)), 1.3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(ax, "packets in a row from one side", "share of runs")
    return [Drawing("run_lengths", figure, "Runs of one direction, on a log scale.", section="semantics")]


def _name_axes(ax: Axes, names: Sequence[str]) -> None:
    """Class names where they fit, otherwise the rank of every so many."""
    ax.set_xlabel("predicted", fontsize=9)
    ax.set_ylabel("true class", fontsize=9)
    if len(names) <= _NAMED_CLASSES:
        ticks = np.arange(len(names))
        size = 7 if len(names) <= 15 else 5.5
        ax.set_yticks(ticks, [shorten(name, 18) for name in names], fontsize=size, parse_math=False)
        labels = [shorten(name, 18) for name in names]
        ax.set_xticks(ticks, labels, fontsize=size, rotation=90, parse_math=False)
    else:
        ax.tick_params(labelsize=8)
        ax.set_xlabel("predicted, classes by test flows", fontsize=9)


def _largest_confusion(share: np.ndarray, names: Sequence[str]) -> str:
    """The pair of classes confused most, in words."""
    wrong = share.copy()
    np.fill_diagonal(wrong, 0)
    row, column = np.unravel_index(np.argmax(wrong), wrong.shape)
    if wrong[row, column] < 0.005:
        return " No class is confused with another."
    return f" Most often confused: {names[row]} taken for {names[column]} ({wrong[row, column]:.0%})."
