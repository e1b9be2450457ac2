"""Geometry of a classifier's features: which anchors lie nearest to test flows, originals or their augmentations.

Anchors are the features of training flows and of their augmentations. Source: Wang et al., "Data Augmentation for
Traffic Classification" (PAM 2024), analysis of the latent space: the 10 nearest anchors of each test flow by cosine
similarity, among the originals and 5 augmentations of each, and the Euclidean distances of originals to their
augmentations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.errors import ConfigError

METRICS = ("cosine", "euclidean")
TILE_VALUES = 1 << 22
"""Similarities held at once: test flows are taken in tiles of so many rows; one row of all anchors is the least."""
_EXACT_ROWS = 300
"""Rows up to which t-SNE compares all pairs."""
_HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class SourceShare:
    """How often the neighbours of test flows come from one source.

    Attributes:
        source: name of the source: the originals or an augmentation.
        of_anchors: share of the anchors that it provides: what chance would give.
        of_nearest: share of the neighbours that come from it.
        right: share of these neighbours that have the test flow's label; NaN where there are none.
        similarity: their mean similarity (cosine) or distance (euclidean); NaN where there are none.
    """

    source: str
    of_anchors: float
    of_nearest: float
    right: float
    similarity: float


@dataclasses.dataclass(frozen=True, eq=False)
class AnchorReport:
    """Neighbours of test flows among originals and augmentations.

    Attributes:
        k: neighbours of each test flow.
        metric: "cosine" or "euclidean", by which they were chosen.
        sources: one for each source, the originals first; and the same when only augmented anchors are searched.
        augmented_only: without the originals.
        right, augmented_right: share of right labels among all neighbours, of all anchors and of augmented ones.
        ratio: [test flow] Euclidean distance to the nearest augmented anchor over that to the nearest original: below 1
            where an augmentation lies nearer. 1 where both are 0, infinite where only the original is.
    """

    k: int
    metric: str
    sources: tuple[SourceShare, ...]
    augmented_only: tuple[SourceShare, ...]
    right: float
    augmented_right: float
    ratio: np.ndarray


def nearest_anchors(
    test: np.ndarray, anchors: np.ndarray, k: int = 10, metric: str = "cosine", *, tile_values: int = TILE_VALUES
) -> tuple[np.ndarray, np.ndarray]:
    """The k anchors nearest to each test flow, all pairs compared in one jitted program, tile by tile.

    Args:
        test: [test, feature] finite numbers.
        anchors: [anchor, feature].
        k: neighbours, at most the number of anchors.
        metric: "cosine" or "euclidean". The cosine with a vector of zeros is 0.
        tile_values: float32 values of the matrix of pairs that are held at once, at least one row of it.

    Returns:
        index [test, k] int32 into the anchors, nearest first (of equally near ones the first), and value [test, k]
        float32: cosine similarities, which fall, or Euclidean distances, which rise.

    Raises:
        ConfigError: arrays that do not fit each other, values that are not finite, k or metric out of range.
    """
    test, anchors = _features("test", test), _features("anchors", anchors)
    if test.shape[1] != anchors.shape[1]:
        raise ConfigError(
            f"test and anchors must come from one model, got {test.shape[1]} and {anchors.shape[1]} features"
        )
    if not 1 <= k <= len(anchors):
        raise ConfigError(f"k must lie between 1 and the number of anchors, {len(anchors)}, got {k}")
    if metric not in METRICS:
        raise ConfigError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    rows = max(1, min(len(test), tile_values // len(anchors)))
    tiles = -(-len(test) // rows)
    padded = np.pad(test, ((0, tiles * rows - len(test)), (0, 0))).reshape(tiles, rows, -1)
    index, value = _nearest(jnp.asarray(padded), jnp.asarray(anchors), k=int(k), metric=metric)
    return tuple(np.asarray(one).reshape(tiles * rows, k)[: len(test)] for one in (index, value))


@partial(jax.jit, static_argnames=("k", "metric"))
def _nearest(test: jax.Array, anchors: jax.Array, *, k: int, metric: str) -> tuple[jax.Array, jax.Array]:
    """Index and value [tile, row, k] from test [tile, row, feature] and anchors [anchor, feature]."""
    cosine = metric == "cosine"
    # Near the origin squares lose fewer digits.
    centre = anchors.mean(axis=0)
    compared = _unit(anchors) if cosine else anchors - centre
    # |row|^2 is the same for all anchors and left out.
    offset = jnp.zeros(len(anchors)) if cosine else -0.5 * (compared * compared).sum(axis=1)

    def of_tile(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        score = jnp.matmul(_unit(rows) if cosine else rows - centre, compared.T, precision=_HIGHEST) + offset
        # Of rows of float32 XLA selects the largest on a CPU too; of other shapes and types it sorts all.
        value, index = jax.lax.top_k(score, k)
        if not cosine:
            distance = jnp.sqrt(((anchors[index] - rows[:, None]) ** 2).sum(axis=-1))
            # Rounding may have put near ones in a wrong order.
            order = jnp.argsort(distance, axis=1, stable=True)
            index, value = (jnp.take_along_axis(one, order, axis=1) for one in (index, distance))
        return index, value

    return jax.lax.map(of_tile, test)


def _unit(x: jax.Array) -> jax.Array:
    norm = jnp.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / jnp.where(norm > 0, norm, 1)


def anchor_report(
    test: np.ndarray,
    test_labels: np.ndarray,
    anchors: np.ndarray,
    anchor_labels: np.ndarray,
    anchor_source: np.ndarray,
    *,
    source_names: Sequence[str] = (),
    k: int = 10,
    metric: str = "cosine",
) -> AnchorReport:
    """Where the nearest anchors of test flows come from, and how many of them have the right label.

    Args:
        test: [test, feature] features of test flows.
        test_labels: [test] integers.
        anchors: [anchor, feature] features of training flows and of their augmentations, by the same model.
        anchor_labels: [anchor] integers.
        anchor_source: [anchor] integers: 0 is an original, s >= 1 an augmentation.
        source_names: of the sources from 0 on; "original", "augmentation 1", ... where there are none.
        k: neighbours of each test flow.
        metric: "cosine" (as published) or "euclidean", by which neighbours are chosen.

    Raises:
        ConfigError: as `nearest_anchors`; labels or sources that do not fit; no original or no augmented anchor, or
            fewer than k augmented ones.
    """
    test, anchors = _features("test", test), _features("anchors", anchors)
    test_labels = _integers("test_labels", test_labels, len(test))
    anchor_labels = _integers("anchor_labels", anchor_labels, len(anchors))
    source = _integers("anchor_source", anchor_source, len(anchors))
    if source.min() != 0 or source.max() < 1:
        raise ConfigError(
            "anchor_source must be 0 for originals and 1 or more for augmentations, with some of each, got "
            f"{source.min()} to {source.max()}"
        )
    n_sources = int(source.max()) + 1
    names = list(source_names) or ["original", *(f"augmentation {s}" for s in range(1, n_sources))]
    if len(names) < n_sources:
        raise ConfigError(f"source_names must name sources 0 to {n_sources - 1}, got {len(names)} names")
    augmented = np.flatnonzero(source > 0)
    original = np.flatnonzero(source == 0)

    def shares(chosen: np.ndarray, wanted: Sequence[int]) -> tuple[tuple[SourceShare, ...], float]:
        index, value = nearest_anchors(test, anchors[chosen], k, metric)
        place = chosen[index]
        of, right = source[place], anchor_labels[place] == test_labels[:, None]
        rows = []
        for s in wanted:
            here = of == s
            rows.append(
                SourceShare(
                    source=str(names[s]),
                    of_anchors=float(np.mean(source[chosen] == s)),
                    of_nearest=float(here.mean()),
                    right=float(right[here].mean()) if here.any() else float("nan"),
                    similarity=float(value[here].mean(dtype=np.float64)) if here.any() else float("nan"),
                )
            )
        return tuple(rows), float(right.mean())

    sources, right = shares(np.arange(len(anchors)), range(n_sources))
    augmented_only, augmented_right = shares(augmented, range(1, n_sources))
    to_augmented, to_original = (
        nearest_anchors(test, anchors[chosen], 1, "euclidean")[1][:, 0].astype(np.float64)
        for chosen in (augmented, original)
    )
    ratio = np.divide(to_augmented, to_original, out=np.full(len(test), np.inf), where=to_original > 0)
    ratio[(to_original == 0) & (to_augmented == 0)] = 1.0
    return AnchorReport(int(k), metric, sources, augmented_only, right, augmented_right, ratio)


def distances_to_own(anchors: np.ndarray, anchor_source: np.ndarray, anchor_flow: np.ndarray) -> dict[int, np.ndarray]:
    """Euclidean distance of each augmented anchor to the original of the same flow, by source.

    Args:
        anchors: [anchor, feature].
        anchor_source: [anchor] integers: 0 is an original, s >= 1 an augmentation.
        anchor_flow: [anchor] integers: which flow it is or was made from; each flow has one original.

    Returns:
        source s >= 1 -> [anchor of s] float32, in the order of the anchors. 0 where an augmentation changed nothing.

    Raises:
        ConfigError: as `nearest_anchors`; a flow with two originals, or an augmented anchor without one.
    """
    anchors = _features("anchors", anchors)
    source = _integers("anchor_source", anchor_source, len(anchors))
    flow = _integers("anchor_flow", anchor_flow, len(anchors))
    original = np.flatnonzero(source == 0)
    original = original[np.argsort(flow[original], kind="stable")]
    known = flow[original]
    twice = known[1:][known[1:] == known[:-1]]
    if len(twice):
        raise ConfigError(f"anchor_flow: flow {twice[0]} has two originals, expected one for each flow")
    alone = np.setdiff1d(flow, known)
    if len(alone):
        raise ConfigError(f"anchor_flow: flow {alone[0]} has augmentations but no original among the anchors")
    own = original[np.searchsorted(known, flow)]
    found = {}
    for s in np.unique(source[source > 0]):
        rows = np.flatnonzero(source == s)
        found[int(s)] = np.linalg.norm(anchors[rows] - anchors[own[rows]], axis=1)
    return found


def tsne(features: np.ndarray, seed: int = 0, *, perplexity: float = 30.0) -> np.ndarray:
    """Two coordinates for each row by scikit-learn's t-SNE from a start by principal components, [row, 2] float32.

    Some thousand rows take a minute, and several where other programs use the cores: choose rows first. Distances
    between far groups mean nothing in such a picture.

    Args:
        features: [row, feature], 5 rows or more.
        seed: of the embedding.
        perplexity: about how many neighbours count, lowered for fewer than 4 times as many rows.

    Raises:
        ConfigError: fewer than 5 rows, fewer than 2 features, values that are not finite, perplexity not above 0.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    features = _features("features", features)
    if len(features) < 5 or features.shape[1] < 2:
        raise ConfigError(f"tsne needs 5 rows of 2 features or more, got an array of shape {list(features.shape)}")
    if not perplexity > 0:
        raise ConfigError(f"perplexity must be above 0, got {perplexity}")
    lowered = min(float(perplexity), (len(features) - 1) / 4)
    method = "exact" if len(features) <= _EXACT_ROWS else "barnes_hut"
    # Its threads wait for each other longer than they work on rows of this number.
    with threadpool_limits(limits=1):
        embedding = TSNE(perplexity=lowered, init="pca", random_state=seed, method=method).fit_transform(features)
    return np.asarray(embedding, np.float32)


def _features(what: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise ConfigError(
            f"{what} must be numbers [flow, feature] with at least one of each, got {values.dtype} {list(values.shape)}"
        )
    values = np.asarray(values, np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ConfigError(f"{what} must be finite, row {bad[0]} is not ({len(bad)} such rows); did training diverge?")
    return values


def _integers(what: str, values: np.ndarray, n: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (n,) or values.dtype.kind not in "iu":
        raise ConfigError(f"{what} must be {n} integers, got {values.dtype} of shape {list(values.shape)}")
    return values
