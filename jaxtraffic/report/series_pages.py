"""Pages of real and generated series of each class, side by side as images."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize

from jaxtraffic.report.figures import Drawing, new_figure, shorten, size_limit

_CLASSES_PER_PAGE = 8
_CLASSES_PER_ROW = 2
_MOST_FLOWS = 200
_UNFOLDED_PAGES = 2
_CLIENT = ((0.99, 0.80, 0.62), (0.45, 0.05, 0.02))
_SERVER = ((0.72, 0.85, 0.95), (0.02, 0.13, 0.38))


def series_pages(
    real: np.ndarray,
    real_label: np.ndarray,
    synthetic: np.ndarray,
    synthetic_label: np.ndarray,
    class_names: tuple[str, ...],
    seed: int = 0,
) -> list[Drawing]:
    """Up to 200 real and 200 generated series of each class, eight classes a page, most frequent class first.

    Rows are sorted by their series in both images of a class, so that like rows come to lie at like heights.
    """
    counts = np.bincount(real_label, minlength=len(class_names))
    counts = counts + 1e-9 * np.bincount(synthetic_label, minlength=len(class_names))
    classes = [label for label in np.argsort(-counts, kind="stable") if counts[label] > 0]
    limit = size_limit(real, synthetic)
    colours, norm = signed_size_colours(limit)
    generator = np.random.default_rng(seed)
    pages = [classes[start : start + _CLASSES_PER_PAGE] for start in range(0, len(classes), _CLASSES_PER_PAGE)]
    drawings = []
    for number, page in enumerate(pages, start=1):
        rows = math.ceil(len(page) / _CLASSES_PER_ROW)
        figure, axes = new_figure(
            7.5, 1.9 * rows + 0.9, nrows=rows, ncols=2 * _CLASSES_PER_ROW, sharex=True, squeeze=False
        )
        for ax in axes.flat:
            ax.set_visible(False)
        for place, label in enumerate(page):
            row, column = divmod(place, _CLASSES_PER_ROW)
            pair = axes[row, 2 * column : 2 * column + 2]
            sides = ((real[real_label == label], "real"), (synthetic[synthetic_label == label], "generated"))
            for ax, (signed, name) in zip(pair, sides):
                _draw(ax, sorted_sample(signed, generator), f"{name}, {len(signed):,} flows", colours, norm)
            title = shorten(class_names[label], 24)
            pair[0].set_title(title, fontsize=10, fontweight="bold", loc="left", parse_math=False)
        bar = figure.colorbar(
            ScalarMappable(norm, colours), ax=axes, orientation="horizontal", shrink=0.6, aspect=50, pad=0.02
        )
        bar.set_label(
            "signed size (bytes): above 0 from the client, below 0 from the server, white padding or 0", fontsize=9
        )
        bar.ax.tick_params(labelsize=8)
        part = f" Page {number} of {len(pages)}." if len(pages) > 1 else ""
        caption = (
            f"Series of each class, real left and generated right, at most {_MOST_FLOWS} of each drawn at random: one "
            f"row a flow, one column a packet, rows sorted by their series.{part}"
        )
        drawings.append(
            Drawing(f"series_{number:02d}", figure, caption, folded=number > _UNFOLDED_PAGES, section="series")
        )
    return drawings


def sorted_sample(signed: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """At most 200 rows drawn at random, in lexicographic order."""
    chosen = signed[generator.permutation(len(signed))[:_MOST_FLOWS]]
    return chosen[np.lexsort(chosen.T[::-1])]


def signed_size_colours(limit: int) -> tuple[ListedColormap, Normalize]:
    """One colour a byte: white at exactly 0, and clearly tinted from the smallest packet on."""
    strength = np.sqrt(np.linspace(0, 1, limit))[:, None]
    client, server = (np.array(low) + strength * (np.array(high) - low) for low, high in (_CLIENT, _SERVER))
    colours = ListedColormap(np.concatenate([server[::-1], np.ones((1, 3)), client]), name="signed_size")
    return colours, Normalize(-limit - 0.5, limit + 0.5)


def _draw(ax, signed: np.ndarray, caption: str, colours: ListedColormap, norm: Normalize) -> None:
    ax.set_visible(True)
    ax.set_yticks([])
    ax.spines[["top", "right", "bottom", "left"]].set_visible(True)
    ax.spines[["top", "right", "bottom", "left"]].set_color("#aaaaaa")
    ax.tick_params(labelsize=8)
    ax.set_xlabel(caption, fontsize=8.5)
    ax.set_xlim(0.5, signed.shape[1] + 0.5)
    if len(signed):
        extent = (0.5, signed.shape[1] + 0.5, len(signed), 0)
        ax.imshow(signed, cmap=colours, norm=norm, aspect="auto", interpolation="nearest", extent=extent)
    else:
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", va="center", fontsize=9, color="#777777")
