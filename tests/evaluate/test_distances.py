"""Distances between all pairs against plain loops in 64-bit integers and float64, scikit-learn, and on 1 device."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate import tiles
from jaxtraffic.evaluate.distances import gaussian_sums, nearest, within

D = 4


def rows(n, limit, seed=0, d=D):
    """Random integers with a tenth of exact duplicates."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(-limit, limit + 1, (n, d))
    again = rng.integers(0, n, n // 10)
    drawn[rng.permutation(n)[: len(again)]] = drawn[again]
    return drawn


def all_pairs(queries, points):
    """[n, m] squared distances, one query at a time; exact for integers."""
    wide = np.int64 if np.issubdtype(queries.dtype, np.integer) else np.float64
    return np.stack([((q.astype(wide) - points) ** 2).sum(axis=1) for q in queries])


def expected(queries, points, k, same=False):
    """Neighbours by a stable sort of all pairs."""
    squared = all_pairs(queries, points)
    if same:
        np.fill_diagonal(squared, np.iinfo(np.int64).max if squared.dtype == np.int64 else np.inf)
    index = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, index, axis=1), index


def check(found, wanted):
    assert found.index.dtype == np.int64 and found.squared.dtype == wanted[0].dtype
    np.testing.assert_array_equal(found.squared, wanted[0])
    np.testing.assert_array_equal(found.index, wanted[1])


# Many ties; sizes of packets; the ends of int16, beyond what float32 sums exactly; integers that float32 does not hold.
@pytest.mark.parametrize("limit", [2, 1500, 32767, 2**29])
@pytest.mark.parametrize("k", [1, 5])
def test_nearest_of_integers_is_exact(limit, k):
    queries, points = rows(700, limit, 1), rows(1000, limit, 2)
    points[-50:] = queries[:50]
    check(nearest(queries, points, k), expected(queries, points, k))
    check(nearest(points, points, k, same=True), expected(points, points, k, same=True))


def test_distances_that_float32_cannot_tell_apart():
    """Two far clusters in one tile: products of 10^9 with differences of 1 between distances."""
    rng = np.random.default_rng(0)
    points = np.where(rng.random((600, 1)) < 0.5, 32760, -32760) + rng.integers(-7, 8, (600, D))
    queries = np.where(rng.random((300, 1)) < 0.5, 32760, -32760) + rng.integers(-7, 8, (300, D))
    check(nearest(queries, points, 3), expected(queries, points, 3))
    squared = all_pairs(queries, points)
    radius = np.where(np.arange(600) % 2, 60, 40)
    np.testing.assert_array_equal(within(queries, points, radius), (squared <= radius).sum(axis=1))


def test_nearest_of_flows_of_30_packets():
    rng = np.random.default_rng(0)
    points = rng.choice([0, 52, 1460, 1500, -52, -1460], (600, 30))
    queries = points[rng.permutation(600)] + (rng.random((600, 30)) < 0.05)
    check(nearest(queries, points, 2), expected(queries, points, 2))
    reference = NearestNeighbors(n_neighbors=2, algorithm="kd_tree").fit(points).kneighbors(queries)[0]
    np.testing.assert_allclose(np.sqrt(nearest(queries, points, 2).squared), reference, rtol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_nearest_of_floating_point_rows(offset):
    rng = np.random.default_rng(0)
    queries, points = rng.standard_normal((300, D)) + offset, 2 * rng.standard_normal((600, D)) + offset
    points[100:150] = queries[:50] = points[:50]
    for k in (1, 4):
        check(nearest(queries, points, k), expected(queries, points, k))
        check(nearest(points, points, k, same=True), expected(points, points, k, same=True))
    assert (nearest(points, points, same=True).squared[:50] == 0).all()


def test_scale_divides_differences():
    queries, points = rows(300, 50, 1), rows(600, 50, 2)
    scale = np.array([100.0, 30.0, 7.0, 1.0])
    found = nearest(queries, points, scale=scale)
    squared = np.stack([(((q - points) / scale) ** 2).sum(axis=1) for q in queries])
    check(found, (squared.min(axis=1)[:, None], squared.argmin(axis=1)[:, None]))


def test_padding_is_nobodys_neighbour():
    """The origin is the centre of the tile, where its padding lies, and far from every point."""
    points = np.concatenate([1000 * np.eye(D, dtype=int), -1000 * np.eye(D, dtype=int)])
    found = nearest(np.zeros((1, D), int), points, 8)
    assert found.index.tolist() == [list(range(8))] and (found.squared == 10**6).all()
    assert within(np.zeros((1, D), int), points, np.full(8, 10**6 - 1)).tolist() == [0]


def test_within_counts_borders_and_copies():
    for limit in (3, 1500, 32767):
        queries, points = rows(300, limit, 1), rows(600, limit, 2)
        squared = all_pairs(queries, points)
        radius = np.sort(squared, axis=0)[np.arange(600) % 200, np.arange(600)]  # the border goes through a query
        radius[::7] -= 1
        radius[:3] = -1
        np.testing.assert_array_equal(within(queries, points, radius), (squared <= radius).sum(axis=1))
        np.testing.assert_array_equal(within(queries, points, radius + 0.5), (squared <= radius).sum(axis=1))
    assert (within(queries, points, np.full(600, 1e300)) == 600).all()
    assert (within(queries, points, np.full(600, -1e18)) == 0).all()
    queries, points = queries / 7, points / 7
    squared = all_pairs(queries, points)
    radius = np.sort(squared, axis=0)[np.arange(600) % 200, np.arange(600)]
    np.testing.assert_array_equal(within(queries, points, radius), (squared <= radius).sum(axis=1))


@pytest.mark.parametrize("unit", [1, 1e-3, 300])
def test_gaussian_sums(unit):
    a, b = rows(300, 5, 1) * unit, rows(600, 5, 2) * unit
    bandwidths = np.array([0.5, 2, 8]) * unit
    squared = cdist(a, b, "sqeuclidean")
    wanted = [np.exp(-squared / (2 * h * h)).sum() for h in bandwidths]
    np.testing.assert_allclose(gaussian_sums(a, b, bandwidths), wanted, rtol=3e-6)


def test_one_device_finds_the_same():
    queries, points = rows(1100, 20, 1), rows(600, 20, 2)
    one = parallel.make_mesh(devices=1)
    check(nearest(queries, points, 2, mesh=one), nearest(queries, points, 2))
    radius = np.full(600, 90)
    np.testing.assert_array_equal(within(queries, points, radius, mesh=one), within(queries, points, radius))


def test_few_programs_for_many_sizes():
    mesh = parallel.make_mesh()
    made = [tiles.program(kind, mesh) for kind in (tiles.nearest_of_groups, tiles.nearest_other_of_groups)]
    made.append(tiles.look_again(mesh))
    before = None
    for n in (1000, 640, 777, 1013):
        points = np.unique(rows(n + 100, 1500), axis=0)[:n]
        nearest(points[: n // 2], points, mesh=mesh)
        nearest(points, points, 3, same=True, mesh=mesh)
        before = before or [one._cache_size() for one in made]
    assert [one._cache_size() for one in made] == before


def test_leaves_are_full_and_whole():
    for n in (1, 511, 512, 513, 1700):
        order = tiles.leaves(rows(n, 1500).astype(float), 512)
        assert sorted(order) == list(range(n))
    apart = np.repeat([0.0, 9.0, 1.0, 5.0], 4)[:, None]
    assert [set(apart[part, 0]) for part in tiles.leaves(apart, 4).reshape(4, 4)] == [{0}, {1}, {5}, {9}]


def test_what_is_refused():
    good = np.zeros((4, 2), int)
    for bad in (np.zeros((0, 2)), np.full((4, 2), np.nan), np.zeros((4, 3)), np.zeros(4)):
        with pytest.raises(ConfigError):
            nearest(good, bad)
        with pytest.raises(ConfigError):
            gaussian_sums(bad, good, [1.0])
    for k in (0, 5):
        with pytest.raises(ConfigError, match="k must be between 1 and the 4"):
            nearest(good, good, k)
    with pytest.raises(ConfigError, match="the 3 neighbours"):
        nearest(good, good, 4, same=True)
    with pytest.raises(ConfigError, match="same rows"):
        nearest(good, good + 1, same=True)
    with pytest.raises(ConfigError, match="scale"):
        nearest(good, good, scale=np.array([1.0, 0.0]))
    with pytest.raises(ConfigError, match="63 bits"):
        nearest(np.full((1, 2), -(2**31)), np.full((1, 2), 2**31 - 1))
    for radius in (np.zeros(3), np.full(4, np.nan)):
        with pytest.raises(ConfigError, match="squared_radius"):
            within(good, good, radius)
    for bandwidths in ([0.0], [np.nan], 1.0):
        with pytest.raises(ConfigError, match="bandwidths"):
            gaussian_sums(good, good, bandwidths)


def test_all_rows_equal():
    same = np.full((700, D), 5)
    found = nearest(same, same, 3, same=True)
    check(found, expected(same, same, 3, same=True))
    assert (within(same, same, np.zeros(700)) == 700).all()
