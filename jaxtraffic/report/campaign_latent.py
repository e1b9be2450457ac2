"""The part of a campaign's page on feature space: neighbours, distances and pictures of classifiers' features."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.campaign_results import title_of
from jaxtraffic.report.figures import Drawing
from jaxtraffic.report.latent_figures import draw_anchor_shares, draw_distance_kde, draw_tsne

__all__ = ["NETWORKS", "LatentRow", "latent_drawings", "latent_figures", "read_latent"]

NETWORKS = {"own": "trained with it", "baseline": "trained without"}
"""Whose features: of the network that was trained with the augmentation, or of the baseline's."""
_SHARES = ("of_anchors", "of_nearest", "right", "similarity")
_PICTURE = ("coordinates", "kind", "label")


@dataclasses.dataclass(frozen=True)
class Shares:
    """Neighbours from one source: see evaluate.latent.SourceShare; NaN where there are none."""

    of_anchors: float
    of_nearest: float
    right: float
    similarity: float


@dataclasses.dataclass(frozen=True, eq=False)
class LatentRow:
    """One augmentation in the feature space of one network.

    Attributes:
        augmentation: config name.
        network: "own" or "baseline".
        k: neighbours of each test flow.
        original, augmented: neighbours among all anchors, by where they come from.
        right: share of right labels among all of them.
        only: neighbours when augmented anchors alone are searched.
        ratio: [test flow] distance to the nearest augmented anchor over that to the nearest original.
        distance: [copy] Euclidean distance to the own original; None where it was not measured.
    """

    augmentation: str
    network: str
    k: int
    original: Shares
    augmented: Shares
    right: float
    only: Shares
    ratio: np.ndarray
    distance: np.ndarray | None

    @property
    def title(self) -> str:
        """Of the augmentation."""
        return title_of(self.augmentation)

    @property
    def nearer(self) -> float:
        """Share of test flows that have an augmented anchor nearer than any original."""
        return float(np.mean(self.ratio < 1))

    @property
    def ratio_median(self) -> float:
        """Median of `ratio`."""
        return _median(self.ratio)

    @property
    def distance_median(self) -> float:
        """Median of `distance`; NaN where there is none."""
        return math.nan if self.distance is None else _median(self.distance)


def read_latent(latent: Sequence[Mapping[str, Any]]) -> tuple[LatentRow, ...]:
    """Rows of the table, own network first, from what evaluate.latent found.

    Args:
        latent: for each augmentation a dict: "augmentation", its config name; "own_report" and "baseline_report",
            `evaluate.latent.AnchorReport`s (or their fields as dicts) with two sources, originals and augmented; either
            may be missing. Optional: "to_augmented" [copy], distances of the own network; "coordinates" [point, 2],
            "kind" [point] (0 original, 1 augmented, 2 test flow) and "label" [point] of a picture.

    Raises:
        ConfigError: an augmentation without a report, or a report of another shape.
    """
    rows = []
    for space in latent:
        name = str(space.get("augmentation"))
        reports = {network: space[f"{network}_report"] for network in NETWORKS if space.get(f"{network}_report")}
        if not reports:
            raise ConfigError(f"latent space of {name!r}: no own_report or baseline_report (evaluate.latent)")
        for network, report in reports.items():
            sources, only = _field(report, "sources"), _field(report, "augmented_only")
            if len(sources) != 2 or len(only) != 1:
                raise ConfigError(
                    f"latent space of {name!r}: expected two sources of anchors, originals and augmented ones, got "
                    f"{len(sources)}"
                )
            distance = space.get("to_augmented") if network == "own" else None
            rows.append(
                LatentRow(
                    name,
                    network,
                    int(_field(report, "k")),
                    _shares(sources[0]),
                    _shares(sources[1]),
                    float(_field(report, "right")),
                    _shares(only[0]),
                    np.asarray(_field(report, "ratio"), np.float64),
                    None if distance is None else np.asarray(distance, np.float64),
                )
            )
    return tuple(rows)


def latent_drawings(
    rows: Sequence[LatentRow], latent: Sequence[Mapping[str, Any]], class_names: Sequence[str]
) -> list[Drawing]:
    """anchor_shares, distances and tsne_1, tsne_2, ... as far as there is something to draw."""
    shown = [row for row in rows if row.network == "own"] or list(rows)
    found = [_draw_shares(shown)] if shown else []
    distances = {row.title: row.distance for row in shown if row.distance is not None}
    if distances:
        found.append(draw_distance_kde(distances))
    pictures = [space for space in latent if all(space.get(key) is not None for key in _PICTURE)]
    for number, space in enumerate(pictures, start=1):
        points, kind, labels = (np.asarray(space[key]) for key in _PICTURE)
        drawing = draw_tsne(points, labels, class_names, augmented=kind == 1, name=f"tsne_{number}")
        tests = " Test flows are drawn as originals." if (kind == 2).any() else ""
        caption = f"{title_of(str(space['augmentation']))}. {drawing.caption}{tests}"
        found.append(dataclasses.replace(drawing, caption=caption, folded=number > 1))
    return found


def latent_figures(rows: Sequence[LatentRow]) -> dict[str, Any]:
    """Flat keys for report.json: "g3.<augmentation>.<network>.augmented_share" and so on."""
    flat: dict[str, Any] = {}
    for row in rows:
        base = f"g3.{row.augmentation}.{row.network}"
        flat |= {
            f"{base}.k": row.k,
            f"{base}.n_test": len(row.ratio),
            f"{base}.augmented_share": row.augmented.of_nearest,
            f"{base}.augmented_share_of_anchors": row.augmented.of_anchors,
            f"{base}.right": row.right,
            f"{base}.augmented_only.right": row.only.right,
            f"{base}.augmented_only.similarity": row.only.similarity,
            f"{base}.ratio.median": row.ratio_median,
            f"{base}.ratio.share_below_1": row.nearer,
        }
        for source, shares in (("original", row.original), ("augmented", row.augmented)):
            flat |= {f"{base}.{source}.right": shares.right, f"{base}.{source}.similarity": shares.similarity}
        if row.distance is not None:
            flat[f"{base}.distance.median"] = row.distance_median
    return flat


def _draw_shares(rows: Sequence[LatentRow]) -> Drawing:
    """The shares of all augmentations in one figure, two rows for each."""

    def source(row: LatentRow, kind: str, shares: Shares) -> SimpleNamespace:
        return SimpleNamespace(source=f"{row.title}: {kind}", **dataclasses.asdict(shares))

    both = [source(row, kind, getattr(row, kind)) for row in rows for kind in ("original", "augmented")]
    report = SimpleNamespace(
        k=rows[0].k,
        metric="cosine",
        sources=both,
        augmented_only=[source(row, "augmented", row.only) for row in rows],
        right=rows[0].right,
        augmented_right=rows[0].only.right,
        ratio=rows[0].ratio,
    )
    caption = (
        f"The {rows[0].k} anchors nearest to each test flow by cosine similarity, each augmentation with the network "
        f"{NETWORKS[rows[0].network]}. Black: the share of the anchors, which is what chance would give."
    )
    return dataclasses.replace(draw_anchor_shares(report), caption=caption)


def _field(report: Any, name: str) -> Any:
    value = report.get(name) if isinstance(report, Mapping) else getattr(report, name, None)
    if value is None:
        raise ConfigError(f"a report of a latent space lacks {name}; expected evaluate.latent.AnchorReport")
    return value


def _shares(source: Any) -> Shares:
    values = [source.get(name) if isinstance(source, Mapping) else getattr(source, name) for name in _SHARES]
    return Shares(*(math.nan if value is None else float(value) for value in values))


def _median(values: np.ndarray) -> float:
    # Ratios may be infinite, of which no mean of two middle ones can be made.
    return float(np.quantile(values, 0.5, method="lower")) if len(values) else math.nan
