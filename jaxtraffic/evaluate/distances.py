"""Distances between all pairs of rows, on every device, exact, and without sampling.

Matrix products in float32 with a bound of their rounding error (`tiles`) say which points can be among the nearest.
These few are compared exactly on the host, rows of integers in 64-bit integers and others by direct differences in
float64. Duplicates are folded first. Memory grows with the rows and not with the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.rows import pair_of, row_keys
from jaxtraffic.evaluate.tiles import (
    FAR,
    GROUP,
    TILE,
    UNIT,
    count_inside,
    gaussian_kernels,
    lay_out,
    look_again,
    members,
    nearest_of_groups,
    nearest_other_of_groups,
    sweep,
)
from jaxtraffic.series import PacketSeries

LOOK = 1024
"""Groups that a device looks at again at a time."""
PAIRS = 1 << 16
"""Pairs of rows that the host compares exactly at a time."""

Rows = PacketSeries | np.ndarray


class Nearest(NamedTuple):
    """Neighbours of each query, the nearest first; of equal distances the lowest index.

    Attributes:
        squared: [n, k] squared Euclidean distances, int64 for rows of integers, else float64.
        index: [n, k] int64, rows of the points.
    """

    squared: np.ndarray
    index: np.ndarray


class Folded(NamedTuple):
    """Distinct rows and where they occur: row u is at order[start[u] : start[u] + count[u]], ascending."""

    rows: np.ndarray
    of: np.ndarray
    order: np.ndarray
    start: np.ndarray
    count: np.ndarray


def nearest(
    queries: Rows,
    points: Rows,
    k: int = 1,
    *,
    same: bool = False,
    scale: np.ndarray | None = None,
    mesh: Mesh | None = None,
) -> Nearest:
    """The k nearest points of each query in Euclidean distance, exactly.

    Args:
        queries: flows or rows [n, d].
        points: flows or rows [m, d].
        k: neighbours of each query.
        same: the queries are the points; a row is no neighbour of itself, but its duplicates are.
        scale: [d] what columns are divided by, after differences are taken, so that equal differences stay equal;
            squared distances are float64 then.
        mesh: devices to use; all of this process where None.

    Raises:
        ConfigError: what `rows.pair_of` refuses, k beyond the points, `same` with different rows, a scale that is not
            positive, or integers so far apart that their squared distance passes 63 bits.
    """
    queries, points = _checked(queries, points)
    if not 1 <= k <= len(points) - same:
        raise ConfigError(f"k must be between 1 and the {len(points) - same} neighbours there are, got {k}")
    if same and not np.array_equal(queries, points):
        raise ConfigError("same=True needs queries and points to be the same rows")
    if scale is not None:
        scale = np.asarray(scale, np.float64)
        if scale.shape != queries.shape[1:] or not (np.isfinite(scale) & (scale > 0)).all():
            raise ConfigError(f"scale must be {queries.shape[1]} positive numbers")
    mesh = parallel.local_mesh() if mesh is None else mesh
    known = fold(points)
    asked = known if same else fold(queries)
    # The neighbours of a row with more than k copies are copies.
    search = np.flatnonzero(asked.count <= k) if same else np.arange(len(asked.rows))
    exact = np.issubdtype(queries.dtype, np.integer) and scale is None
    squared = np.zeros((len(asked.rows), k), np.int64 if exact else np.float64)
    index = np.zeros((len(asked.rows), k), np.int64)
    if len(search) and len(known.rows) > same:
        for found in _candidates(asked.rows[search], known.rows, k, search if same else None, scale, mesh):
            _rank(found, search, known, squared, index)
    return _with_copies(known, squared, index) if same else Nearest(squared[asked.of], index[asked.of])


def within(queries: Rows, points: Rows, squared_radius: np.ndarray, *, mesh: Mesh | None = None) -> np.ndarray:
    """[n queries] int64: the number of points whose ball holds the query, border included, exactly.

    Args:
        queries: flows or rows [n, d].
        points: flows or rows [m, d].
        squared_radius: [m] squared radius of the ball around each point; negative for no ball.
        mesh: devices to use; all of this process where None.

    Raises:
        ConfigError: what `nearest` refuses in rows, or radii that are not one finite number a point.
    """
    queries, points = _checked(queries, points)
    squared_radius = np.asarray(squared_radius)
    if squared_radius.shape != (len(points),) or not np.isfinite(squared_radius).all():
        raise ConfigError(f"squared_radius must be one finite number for each of the {len(points)} points")
    if np.issubdtype(points.dtype, np.integer):
        squared_radius = np.floor(np.clip(squared_radius, -1, 2**62)).astype(np.int64)
    mesh = parallel.local_mesh() if mesh is None else mesh
    asked = fold(queries)
    balls = np.concatenate([_bytes(points), _bytes(squared_radius[:, None])], axis=1)
    _, first, count = np.unique(row_keys(balls), return_index=True, return_counts=True)
    points, squared_radius = points[first], squared_radius[first]
    layout = lay_out(asked.rows, points, None, mesh, squared_radius, count)
    n_within = np.zeros(len(asked.rows), np.int64)
    for start, (sure, unsure) in sweep(count_inside, layout, mesh):
        rows = slice(start, start + len(sure))
        n_within[rows] += sure.sum(axis=1)
        row, tile, group = np.nonzero(unsure)
        row, column = members(start + row, tile, group, len(points))
        for part in range(0, len(row), PAIRS):
            i, j = row[part : part + PAIRS], layout.order[column[part : part + PAIRS]]
            inside = _exactly(asked.rows, points, i, j) <= squared_radius[j]
            np.add.at(n_within, i[inside], count[j[inside]])
    return n_within[asked.of]


def gaussian_sums(a: Rows, b: Rows, bandwidths: np.ndarray, *, mesh: Mesh | None = None) -> np.ndarray:
    """[bandwidth] float64: sums of exp(-|a_i - b_j|^2 / (2 bandwidth^2)) over all pairs.

    Kernels and sums over a tile are float32, sums of tiles float64. Rounding moves the exponent of a pair by about
    1e-7 (spread of the rows / bandwidth)^2, so with bandwidths near typical distances the relative error is about 1e-6.

    Args:
        a: flows or rows [n, d].
        b: flows or rows [m, d].
        bandwidths: in the unit of the rows, positive.
        mesh: devices to use; all of this process where None.

    Raises:
        ConfigError: what `nearest` refuses in rows, or bandwidths that are not positive.
    """
    a, b = _checked(a, b)
    bandwidths = np.asarray(bandwidths, np.float64)
    if bandwidths.ndim != 1 or not (np.isfinite(bandwidths) & (bandwidths > 0)).all():
        raise ConfigError("bandwidths must be positive numbers [bandwidth]")
    mesh = parallel.local_mesh() if mesh is None else mesh
    left, right = fold(a), fold(b)
    layout = lay_out(left.rows, right.rows, None, mesh, weight=right.count)
    exponents = (-0.5 * (layout.unit / bandwidths) ** 2).astype(np.float32)
    total = np.zeros(len(bandwidths))
    for start, (sums,) in sweep(gaussian_kernels, layout, mesh, exponents):
        total += np.einsum("rtb,r->b", sums.astype(np.float64), left.count[start : start + len(sums)])
    return total


def fold(rows: np.ndarray) -> Folded:
    """Folds equal rows [n, d]; the distinct ones are in no meaningful order."""
    _, first, of, count = np.unique(row_keys(rows), return_index=True, return_inverse=True, return_counts=True)
    return Folded(rows[first], of, np.argsort(of, kind="stable"), np.cumsum(count) - count, count)


def _candidates(
    queries: np.ndarray, points: np.ndarray, k: int, same: np.ndarray | None, scale: np.ndarray | None, mesh: Mesh
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs (query, point, exact squared distance) that hold the k nearest points of each query, block by block.

    Args:
        queries: distinct rows [n, d].
        points: distinct rows [m, d].
        k: neighbours wanted; fewer where there are fewer.
        same: [n] the point that is the query itself, or None.
        scale: [d] what columns are divided by, or None.
        mesh: devices to use.
    """
    layout = lay_out(queries, points, scale, mesh)
    (n, d), n_groups = points.shape, TILE // GROUP
    place = np.empty(n, np.int64)
    place[layout.order] = np.arange(n)
    padded = np.full((len(layout.tiles.bias) * TILE, d), np.sqrt(FAR / d), np.float32)
    padded[:n] = layout.points[layout.order]
    grouped = padded.reshape(-1, GROUP, n_groups, d).transpose(0, 2, 1, 3).reshape(-1, GROUP, d)
    look, grouped = look_again(mesh), parallel.put_replicated(np.ascontiguousarray(grouped), mesh)
    step = LOOK * mesh.shape["data"]
    kind = nearest_of_groups if same is None else nearest_other_of_groups
    for start, (value, error) in sweep(kind, layout, mesh, own=None if same is None else place[same]):
        error = np.repeat(error, n_groups, axis=1)
        value = value.reshape(len(error), -1)
        # Each of k groups holds a point so near, so the k-th nearest point is no further.
        upper = value + error
        if k > upper.shape[1]:
            limit = np.full(len(upper), FAR, np.float32)
        else:
            limit = upper.min(axis=1) if k == 1 else np.partition(upper, k - 1, axis=1)[:, k - 1]
        limit = np.minimum(limit, np.float32(FAR / 2))
        row, group = np.divmod(np.flatnonzero(value - error <= limit[:, None]), upper.shape[1])
        # Direct differences err by a share of the distance and by the rounding of the rows.
        limit = (np.sqrt(np.maximum(limit, 0).astype(np.float64)) + layout.slack) ** 2 * (1 + (2 * d + 10) * UNIT)
        limit = np.minimum(limit, FAR / 2)
        pairs = []
        for part in range(0, len(row), step):
            i, g = row[part : part + step], group[part : part + step]
            missing = step - len(i)
            asked = np.pad(layout.queries[start + i], ((0, missing), (0, 0)))
            again = look(*parallel.put_over_data((asked, np.pad(g, (0, missing)).astype(np.int32)), mesh), grouped)
            near, member = np.nonzero(parallel.to_host(again)[: len(i)] <= limit[i, None])
            tile, inside = np.divmod(g[near], n_groups)
            pairs.append((start + i[near], tile * TILE + member * n_groups + inside))
        row, column = (np.concatenate(part) for part in zip(*pairs, strict=True))
        point = layout.order[column]
        if same is not None:
            row, point = (part[same[row] != point] for part in (row, point))
        yield row, point, _exactly(queries, points, row, point, scale)


def _rank(found: tuple[np.ndarray, ...], search: np.ndarray, known: Folded, squared: np.ndarray, index: np.ndarray):
    """Writes the first k of the candidates found and of their copies into rows `search` of `squared` and `index`."""
    k = index.shape[1]
    row, point, distance = found
    copies = np.minimum(known.count[point], k)
    of = np.repeat(np.arange(len(row)), copies)
    copy = np.arange(len(of)) - np.repeat(np.cumsum(copies) - copies, copies)
    original = known.order[known.start[point[of]] + copy]
    row, distance = row[of], distance[of]
    order = np.lexsort((original, distance, row))
    row = row[order]
    new = np.flatnonzero(np.diff(row, prepend=-1))
    rank = np.arange(len(row)) - np.repeat(new, np.diff(new, append=len(row)))
    kept = rank < k
    at = search[row[kept]], rank[kept]
    squared[at], index[at] = distance[order[kept]], original[order[kept]]


def _with_copies(known: Folded, squared: np.ndarray, index: np.ndarray) -> Nearest:
    """Neighbours of every row from those of distinct rows: first its own copies, at distance 0, then the others."""
    n, k = len(known.of), index.shape[1]
    column = np.arange(k)
    own = known.count[known.of] - 1
    place = known.start[known.of][:, None] + column
    copy = known.order[np.minimum(place, n - 1)]
    copy = np.where(copy >= np.arange(n)[:, None], known.order[np.minimum(place + 1, n - 1)], copy)
    is_copy = column < own[:, None]
    other = np.maximum(column - own[:, None], 0)
    of_others = (np.take_along_axis(values[known.of], other, axis=1) for values in (squared, index))
    squared, index = next(of_others), next(of_others)
    return Nearest(np.where(is_copy, squared.dtype.type(0), squared), np.where(is_copy, copy, index))


def _exactly(
    queries: np.ndarray, points: np.ndarray, row: np.ndarray, point: np.ndarray, scale: np.ndarray | None = None
) -> np.ndarray:
    """[pair] squared distances of queries[row] to points[point], int64 for integers without scale, else float64."""
    wide = np.result_type(queries.dtype, np.int64)
    found = [np.zeros(0, wide if scale is None else np.float64)]
    for part in range(0, len(row), PAIRS):
        pairs = slice(part, part + PAIRS)
        offset = queries[row[pairs]].astype(wide) - points[point[pairs]]
        offset = offset if scale is None else offset / scale
        found.append((offset * offset).sum(axis=1))
    return np.concatenate(found)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


def _checked(queries: Rows, points: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one type whose squared distances int64 holds; without -0.0, so that equal rows are equal bit for bit."""
    queries, points = pair_of(queries, points, ("queries", "points"))
    if not np.issubdtype(queries.dtype, np.integer):
        return queries + 0.0, points + 0.0
    ends = [
        (min(int(q[0]), int(p[0])), max(int(q[1]), int(p[1])))
        for q, p in zip(*(np.stack([x.min(axis=0), x.max(axis=0)], axis=1) for x in (queries, points)), strict=True)
    ]
    if sum((high - low) ** 2 for low, high in ends) >= 2**63:
        raise ConfigError("integers lie so far apart that squared distances pass 63 bits; give floating point numbers")
    return queries, points
