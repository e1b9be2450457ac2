"""Queries against tiles of points: what distances between all pairs run on the devices.

Matrix products in float32 give squared distances, with a bound of their rounding error for every query and tile; it is
0 for integers whose sums stay below 2^23, which float32 holds. Tiles are made of points that lie together and are
centred on themselves, which keeps sums and bounds small where they matter, near the query.

Memory beside the rows is, on each device, a few blocks (`AHEAD`) of `BLOCK` times one value for every `GROUP` points.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxtraffic import parallel

BLOCK, TILE = 1024, 512
"""Queries and points of one matrix product; on a CPU its result stays in cache."""
GROUP = 32
"""Points of which a device returns the nearest only, to be looked at again where it can be among the nearest of all."""
AHEAD = 2
"""Blocks that the devices work on while the host looks at one; on a CPU they also run beside each other."""
UNIT = 2.0**-24
"""Unit roundoff of float32."""
FAR = 1e30
"""A squared distance that stands for none."""


class Tiles(NamedTuple):
    """Points on the devices.

    Attributes:
        columns: [tile, d, TILE] float32, coordinates from the centre of the tile, 0 for padding.
        bias: [tile, TILE] (squared radius - squared norm) / 2, without radii radius 0; -FAR for padding.
        weight: [tile, TILE] int32, how often the point counts; 0 for padding.
        centre: [tile, d].
        reach: [tile] largest norm of a point.
        largest: [tile] largest |bias|.
    """

    columns: Any
    bias: Any
    weight: Any
    centre: Any
    reach: Any
    largest: Any


class Layout(NamedTuple):
    """Queries and points as the devices take them.

    Attributes:
        queries: [n, d] float32.
        points: [m, d] float32, both in the same unit and from the same origin.
        unit: how many of the caller's units (after `scale`) this unit is.
        slack: how far a query and a point together may have moved when they were rounded; 0 for integers that fit.
        exact: all coordinates are integers that fit.
        order: [m] points in the order of the tiles.
        tiles: on the devices.
    """

    queries: np.ndarray
    points: np.ndarray
    unit: float
    slack: float
    exact: bool
    order: np.ndarray
    tiles: Tiles


def leaves(rows: np.ndarray, size: int) -> np.ndarray:
    """An order of rows [n, d] in which each `size` consecutive ones lie together: halved at the widest column."""
    done, waiting = [], [np.arange(len(rows))]
    while waiting:
        part = waiting.pop()
        n_leaves = -(-len(part) // size)
        if n_leaves == 1:
            done.append(part)
            continue
        middle = (n_leaves + 1) // 2 * size
        column = int(rows[part].var(axis=0).argmax())
        halved = part[np.argpartition(rows[part, column], middle - 1)]
        waiting += [halved[middle:], halved[:middle]]
    return np.concatenate(done)


def lay_out(
    queries: np.ndarray,
    points: np.ndarray,
    scale: np.ndarray | None,
    mesh: Mesh,
    squared_radius: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Layout:
    """Brings rows into float32 and points into tiles; the number of tiles is a power of 2, so few programs compile."""
    both = (queries, points)
    largest = max(max(-float(x.min()), float(x.max())) for x in both)
    exact = scale is None and np.issubdtype(queries.dtype, np.integer) and largest < 2**22
    if exact:
        unit, (queries, points) = 1.0, (rows.astype(np.float64) for rows in both)
    else:
        queries, points = (rows / (1.0 if scale is None else scale) for rows in both)
        queries, points = queries - (origin := points.mean(axis=0)), points - origin
        unit = 2.0 ** np.ceil(np.log2(max(np.abs(queries).max(), np.abs(points).max(), np.finfo(np.float64).tiny)))
        queries, points = queries / unit, points / unit
    extent = sum(np.sqrt((x**2).sum(axis=1).max()) for x in (queries, points))
    slack = 0.0 if exact else 1.01 * UNIT * extent
    order = leaves(points, TILE)
    n, d = points.shape
    starts = np.arange(0, n, TILE)
    lengths = np.minimum(TILE, n - starts)
    centre = np.add.reduceat(points[order], starts) / lengths[:, None]
    centre = np.rint(centre) if exact else centre.astype(np.float32).astype(np.float64)
    local = points[order] - np.repeat(centre, lengths, axis=0)
    norms = (local**2).sum(axis=1)
    radius = 0.0
    if squared_radius is not None:
        # Twice the largest distance holds everything, and float32 holds it.
        radius = np.clip(squared_radius[order] / unit**2, -1 - 4 * extent**2, 1 + 4 * extent**2)
    bias = (radius - norms) / 2
    n_tiles = 1 << (len(starts) - 1).bit_length()

    def tiled(values: np.ndarray, padding: float, dtype: Any = np.float32) -> np.ndarray:
        filled = np.full((n_tiles * TILE, *values.shape[1:]), padding, dtype)
        filled[:n] = values
        return filled.reshape(n_tiles, TILE, *values.shape[1:])

    def of_tiles(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros((n_tiles - len(starts), *values.shape[1:]))]).astype(np.float32)

    tiles = Tiles(
        columns=np.ascontiguousarray(tiled(local, 0.0).transpose(0, 2, 1)),
        bias=tiled(bias, -FAR),
        weight=tiled(np.ones(n) if weight is None else weight[order], 0, np.int32),
        centre=of_tiles(centre),
        reach=of_tiles(np.sqrt(np.maximum.reduceat(norms, starts)) * (1 + 1e-6)),
        largest=of_tiles(np.maximum.reduceat(np.abs(bias), starts) * (1 + 1e-6)),
    )
    placed = parallel.put_replicated(tiles, mesh)
    return Layout(queries.astype(np.float32), points.astype(np.float32), unit, slack, exact, order, placed)


def nearest_of_groups(product, norm, error, tile, own, extra):
    """The smallest squared distance in each group, and the bound of its error."""
    closest = product.reshape(len(own), GROUP, -1).max(axis=1)
    return norm[:, None] - 2 * closest, error


def nearest_other_of_groups(product, norm, error, tile, own, extra):
    """`nearest_of_groups` without the query itself, which is point `own` of the tile."""
    itself = jnp.arange(TILE, dtype=jnp.int32) == own[:, None]
    return nearest_of_groups(jnp.where(itself, -FAR, product), norm, error, tile, own, extra)


def count_inside(product, norm, error, tile, own, extra):
    """The weight of the points that are inside for sure, and the groups where rounding leaves it open."""
    shape = (len(own), GROUP, -1)
    squared = norm[:, None] - 2 * product
    unsure = (jnp.abs(squared) <= error[:, None]).reshape(shape).any(axis=1) & (error > 0)[:, None]
    sure = jnp.where(squared <= 0, tile.weight, 0).reshape(shape).sum(axis=1)
    return jnp.where(unsure, 0, sure).sum(axis=1), unsure


def gaussian_kernels(product, norm, error, tile, own, exponents):
    """The sums of Gaussian kernels over the tile, by query and bandwidth."""
    weight = tile.weight.astype(jnp.float32)
    squared = jnp.maximum(norm[:, None] - 2 * product, 0.0)
    return (jnp.stack([(jnp.exp(squared * exponents[i]) * weight).sum(axis=1) for i in range(len(exponents))], axis=1),)


@functools.cache
def program(kind: Any, mesh: Mesh) -> Any:
    """The compiled loop over tiles: what `kind` makes of each query and tile, [query, tile, ...]."""

    def of_device(queries, own, n_tiles, tiles, slack, extra):
        def visit(t, outputs):
            tile = jax.tree.map(lambda leaf: leaf[t], tiles)
            away = queries - tile.centre
            norm = (away * away).sum(axis=1)
            product = jnp.dot(away, tile.columns, precision=jax.lax.Precision.HIGHEST) + tile.bias
            length = jnp.sqrt(norm)
            bound = length * tile.reach + tile.largest
            moved = jnp.maximum(slack, 0.0)
            error = (queries.shape[1] + 6) * UNIT * (norm + 2 * bound) + moved * (2 * (length + tile.reach) + moved)
            # Every partial sum is a multiple of 1/2 below 2^23 there, so float32 holds it.
            exact = (slack < 0) & (bound < 2**22) & (norm < 2**22)
            made = kind(product, norm, jnp.where(exact, 0.0, 1.01 * error), tile, own - t * TILE, extra)
            return tuple(out.at[:, t].set(new) for out, new in zip(outputs, made, strict=True))

        first = jax.eval_shape(lambda: kind(*_shapes(queries, tiles, own), extra))
        outputs = tuple(jnp.zeros((BLOCK, len(tiles.bias), *out.shape[1:]), out.dtype) for out in first)
        return jax.lax.fori_loop(0, n_tiles[0], visit, outputs)

    split, whole = P("data"), P()
    return jax.jit(
        jax.shard_map(
            of_device,
            mesh=mesh,
            in_specs=(split, split, split, whole, whole, whole),
            out_specs=split,
            check_vma=False,
        )
    )


def _shapes(queries, tiles, own):
    tile = jax.tree.map(lambda leaf: leaf[0], tiles)
    return jnp.zeros((BLOCK, TILE)), jnp.zeros(BLOCK), jnp.zeros(BLOCK), tile, own


def sweep(
    kind: Any, layout: Layout, mesh: Mesh, extra: np.ndarray | None = None, own: np.ndarray | None = None
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Runs `kind` over all tiles, a block of queries on each device at a time; yields the first query and the outputs.

    Args:
        kind: `nearest_of_groups` or another of those above; products are half of what is missing from the norm.
        layout: queries and points.
        mesh: devices to use.
        extra: what `kind` takes besides.
        own: [n] place of each query in the order of the tiles, where queries are points.
    """
    run = program(kind, mesh)
    n, n_devices = len(layout.queries), mesh.shape["data"]
    n_tiles = -(-len(layout.points) // TILE)
    own = np.full(n, -1, np.int32) if own is None else own.astype(np.int32)
    whole = parallel.put_replicated(
        (np.float32(-1.0 if layout.exact else layout.slack), np.zeros(0, np.float32) if extra is None else extra), mesh
    )

    def launch(start: int) -> tuple[int, Any]:
        stop = min(n, start + BLOCK * n_devices)
        missing = BLOCK * n_devices - (stop - start)
        queries = np.pad(layout.queries[start:stop], ((0, missing), (0, 0)))
        places = np.pad(own[start:stop], (0, missing), constant_values=-1)
        # A device without a query visits no tile.
        visits = np.where(np.arange(n_devices) * BLOCK < stop - start, n_tiles, 0).astype(np.int32)
        return start, run(*parallel.put_over_data((queries, places, visits), mesh), layout.tiles, *whole)

    def finish(started: tuple[int, Any]) -> tuple[int, tuple[np.ndarray, ...]]:
        start, outputs = started
        return start, tuple(parallel.to_host(out)[: n - start, :n_tiles] for out in outputs)

    waiting = collections.deque()
    for start in range(0, n, BLOCK * n_devices):
        waiting.append(launch(start))
        if len(waiting) > AHEAD:
            yield finish(waiting.popleft())
    while waiting:
        yield finish(waiting.popleft())


@functools.cache
def look_again(mesh: Mesh) -> Any:
    """Compiled: squared distances [pair, GROUP] of queries to all points of a group, by direct differences."""

    def of_device(queries, group, grouped):
        offset = queries[:, None] - grouped[group]
        return (offset * offset).sum(axis=2)

    split = P("data")
    mapped = jax.shard_map(of_device, mesh=mesh, in_specs=(split, split, P()), out_specs=split, check_vma=False)
    return jax.jit(mapped)


def members(row: np.ndarray, tile: np.ndarray, group: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, place) of a row and the places of all points of a group, without padding."""
    n_groups = TILE // GROUP
    place = (tile * TILE + group)[:, None] + np.arange(GROUP) * n_groups
    real = place < n
    return np.repeat(row, real.sum(axis=1)), place[real]
