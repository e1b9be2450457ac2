"""Figures of a report, drawn with matplotlib's objects: no global state, no display."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxtraffic.report.loss_log import series_of

REAL_COLOUR, SYNTHETIC_COLOUR = "#1f5a99", "#d9580d"
_GREY = "#777777"
_DPI = 110
_BARS_PER_PAGE = 30


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure with the name of its file, its caption, whether the page shows it folded, and the section it is for."""

    name: str
    figure: Figure
    caption: str
    folded: bool = False
    section: str = ""


def new_figure(width: float, height: float, *, dpi: int = _DPI, **grid: Any) -> tuple[Figure, Any]:
    """A figure in inches with its own Agg canvas, and its axes."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(**grid)
    for ax in np.ravel(axes):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9)
    return figure, axes


def loss_curve(lines: list[dict[str, Any]]) -> list[Drawing]:
    """Loss against step, raw and smoothed, with the learning rate below where it was logged."""
    steps, losses = series_of(lines, "loss")
    if len(losses) < 2:
        return []
    rate_steps, rates = series_of(lines, "learning_rate")
    heights = [4, 1] if len(rates) > 1 else [1]
    figure, axes = new_figure(7.5, 3.8, nrows=len(heights), sharex=True, squeeze=False, height_ratios=heights)
    top = axes[0, 0]
    window = max(1, len(losses) // 40)
    light = 0.3 if window > 1 else 1.0
    every = max(1, len(losses) // 4000)
    top.plot(steps[::every], losses[::every], color=REAL_COLOUR, alpha=light, linewidth=0.8, label="logged")
    if window > 1:
        smooth = moving_average(np.array(losses), window)
        top.plot(steps, smooth, color=REAL_COLOUR, linewidth=1.8, label=f"mean of {window} logged values")
        top.legend(frameon=False, fontsize=9)
    if min(losses) > 0 and max(losses) > 10 * min(losses):
        top.set_yscale("log")
    top.set_ylabel("training loss")
    if len(rates) > 1:
        axes[1, 0].plot(rate_steps, rates, color=_GREY, linewidth=1.2)
        axes[1, 0].set_ylim(0, 1.1 * max(rates) or 1)
        axes[1, 0].yaxis.set_major_locator(MaxNLocator(2))
        axes[1, 0].ticklabel_format(axis="y", scilimits=(-2, 3))
        axes[1, 0].set_ylabel("learning\nrate", fontsize=9)
    axes[-1, 0].set_xlabel("step")
    caption = "Training loss by step" + (
        "; the dark line is the moving average of what was logged." if window > 1 else "."
    )
    return [Drawing("loss", figure, caption, section="training")]


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Centred means over `window` values, over fewer at both ends."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index - window // 2 + window, len(values))
    return (total[high] - total[low]) / (high - low)


def packets_inside(signed: np.ndarray) -> np.ndarray:
    """[flow, packet] bool, up to the last non-zero value of each row."""
    return np.cumsum((signed != 0)[:, ::-1], axis=1)[:, ::-1] > 0


def sizes_by_position(real: np.ndarray, synthetic: np.ndarray) -> list[Drawing]:
    """Histograms of the signed size at eight positions, padding left out."""
    length = real.shape[1]
    positions = [p for p in (1, 2, 3, 4, 6, 10, 15, 20) if p <= length]
    limit = size_limit(real, synthetic)
    edges = np.linspace(-limit, limit, 61)
    rows = math.ceil(len(positions) / 2)
    figure, axes = new_figure(7.5, 1.75 * rows + 0.4, nrows=rows, ncols=2, squeeze=False, sharex=True, sharey=True)
    for ax, position in zip(axes.flat, positions):
        for signed, colour, name in ((real, REAL_COLOUR, "real"), (synthetic, SYNTHETIC_COLOUR, "generated")):
            values = signed[packets_inside(signed)[:, position - 1], position - 1]
            counts, _ = np.histogram(values, edges)
            share = np.where(counts > 0, counts / len(signed), np.nan)
            filled = name == "real"
            ax.stairs(
                np.nan_to_num(share, nan=0.0 if filled else 1e-9),
                edges,
                color=colour,
                alpha=0.4 if filled else 1.0,
                fill=filled,
                linewidth=1.2,
                baseline=1e-9,
                label=name,
            )
        ax.set_yscale("log")
        ax.set_ylim(0.5 / max(len(real), len(synthetic)), 1.3)
        ax.set_title(f"packet {position}", fontsize=10, loc="left")
    for ax in axes.flat[len(positions) :]:
        ax.set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.supxlabel("signed size (bytes; above 0 from the client, below 0 from the server)", fontsize=10)
    figure.supylabel("share of flows", fontsize=10)
    caption = (
        "Packet sizes at single positions, shares of all flows on a log scale, without the flows that ended before."
    )
    return [Drawing("sizes_by_position", figure, caption, section="density")]


def position_images(real: np.ndarray, synthetic: np.ndarray) -> list[Drawing]:
    """Signed size against position as images: real, generated, and their difference."""
    limit, length = size_limit(real, synthetic), real.shape[1]
    edges = np.linspace(-limit, limit, 61)
    shares = []
    for signed in (real, synthetic):
        inside = packets_inside(signed)
        columns = [np.histogram(signed[inside[:, t], t], edges)[0] for t in range(length)]
        shares.append(np.stack(columns, axis=1) / len(signed))
    figure, axes = new_figure(7.5, 3.6, ncols=3, sharex=True, sharey=True)
    extent = (0.5, length + 0.5, -limit, limit)
    style = {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "nearest"}
    # The square root keeps rare sizes visible beside the few that rule.
    highest = max(math.sqrt(max(share.max() for share in shares)), 1e-6)
    for ax, share, title in zip(axes, shares, ("real", "generated")):
        image = ax.imshow(np.sqrt(share), cmap="Greys", vmin=0, vmax=highest, **style)
        ax.set_title(title, fontsize=10)
    difference = shares[1] - shares[0]
    largest = max(float(np.abs(difference).max()), 1e-6)
    signed_root = np.sign(difference) * np.sqrt(np.abs(difference))
    bound = math.sqrt(largest)
    change = axes[2].imshow(signed_root, cmap="RdBu_r", vmin=-bound, vmax=bound, **style)
    axes[2].set_title("generated \N{MINUS SIGN} real", fontsize=10)
    for ax, mappable, top in ((axes[:2], image, highest), (axes[2], change, bound)):
        bar = figure.colorbar(mappable, ax=ax, orientation="horizontal", shrink=0.8, aspect=30, pad=0.03)
        ticks = np.array([0, 0.5, 1]) * top if mappable is image else np.array([-1, -0.5, 0, 0.5, 1]) * top
        bar.set_ticks(ticks, labels=[f"{np.sign(t) * t * t:.1%}" for t in ticks], fontsize=8)
    axes[0].set_ylabel("signed size (bytes)", fontsize=9)
    figure.supxlabel("packet position; colour: share of flows", fontsize=10)
    caption = (
        "Share of flows by packet position and signed size, square-root colour scale. Red in the right image: "
        "generated too often; blue: too rarely."
    )
    return [Drawing("position_images", figure, caption, section="density")]


def lengths_and_directions(real: np.ndarray, synthetic: np.ndarray) -> list[Drawing]:
    """Number of packets of a flow, and the share of packets from the client by position."""
    length = real.shape[1]
    figure, (left, right) = new_figure(7.5, 3.0, ncols=2)
    for signed, colour, name in ((real, REAL_COLOUR, "real"), (synthetic, SYNTHETIC_COLOUR, "generated")):
        inside = packets_inside(signed)
        share = np.bincount(inside.sum(axis=1), minlength=length + 1) / len(signed)
        edges = np.arange(length + 2) - 0.5
        filled = name == "real"
        left.stairs(share, edges, color=colour, alpha=0.4 if filled else 1.0, fill=filled, linewidth=1.2, label=name)
        there = inside.sum(axis=0)
        client = np.where(there > 0, ((signed >= 0) & inside).sum(axis=0) / np.maximum(there, 1), np.nan)
        right.plot(np.arange(1, length + 1), client, color=colour, marker=".", linewidth=1.2, label=name)
    left.set_xlabel("packets a flow", fontsize=10)
    left.set_ylabel("share of flows", fontsize=10)
    right.set_xlabel("packet position", fontsize=10)
    right.set_ylabel("share from the client", fontsize=10)
    right.set_ylim(-0.03, 1.03)
    for ax in (left, right):
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False, fontsize=9)
    caption = (
        f"Left: packets of a flow among the first {length}, up to the last of non-zero size. Right: of the flows that "
        "reach a position, the share whose packet comes from the client."
    )
    return [Drawing("lengths_and_directions", figure, caption, section="semantics")]


def per_class_f1_bars(rows: Sequence[tuple[str, float, float, int]]) -> list[Drawing]:
    """F1 of each class trained on real and on generated flows and their difference, most frequent class first.

    30 classes a page.
    """
    rows = sorted(rows, key=lambda row: -row[3])
    pages = [rows[start : start + _BARS_PER_PAGE] for start in range(0, len(rows), _BARS_PER_PAGE)]
    widest = max((abs(synthetic - real) for _, real, synthetic, _ in rows), default=0.0)
    drawings = []
    for number, page in enumerate(pages, start=1):
        figure, (left, right) = new_figure(7.5, 0.9 + 0.27 * len(page), ncols=2, sharey=True, width_ratios=[3, 2])
        y = np.arange(len(page))
        real, synthetic = (np.array([row[i] for row in page]) for i in (1, 2))
        left.barh(y - 0.19, real, 0.36, color=REAL_COLOUR, label="trained on real")
        left.barh(y + 0.19, synthetic, 0.36, color=SYNTHETIC_COLOUR, label="trained on generated")
        labels = [f"{shorten(name)}  ({n:,})" for name, _, _, n in page]
        left.set_yticks(y, labels, fontsize=9, parse_math=False)
        left.set_ylim(len(page) - 0.4, -0.6)
        left.set_xlim(0, 1)
        left.set_xlabel("F1 on real test flows", fontsize=10)
        change = synthetic - real
        right.barh(y, change, 0.6, color=np.where(change < 0, SYNTHETIC_COLOUR, REAL_COLOUR))
        right.axvline(0, color="#333333", linewidth=0.8)
        right.set_xlim(-1.05 * max(widest, 0.01), 1.05 * max(widest, 0.01))
        right.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
        right.set_xlabel("difference", fontsize=10)
        right.tick_params(axis="y", length=0)
        for ax in (left, right):
            ax.grid(axis="x", color="#dddddd", linewidth=0.7)
            ax.set_axisbelow(True)
        figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
        part = f" Part {number} of {len(pages)}." if len(pages) > 1 else ""
        caption = (
            "F1 of each class by what the classifier was trained on, and generated minus real; in brackets the test "
            f"flows.{part}"
        )
        drawings.append(Drawing(f"per_class_f1_{number}", figure, caption, number > 2, section="utility"))
    return drawings


def size_limit(real: np.ndarray, synthetic: np.ndarray) -> int:
    """Half-width in bytes of a size axis: the largest real size, so that one wild generated packet cannot widen it."""
    largest, instead = (int(np.abs(signed.astype(np.int32)).max(initial=0)) for signed in (real, synthetic))
    return max(50, 50 * math.ceil((largest or instead) / 50))


def shorten(name: str, most: int = 26) -> str:
    """A class name that fits beside an axis, on one line."""
    name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
