"""Neighbours and shares against plain loops in float64, with tiles that do not divide."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate import latent

N_TEST, N_ANCHORS, N_FEATURES, K = 11, 150, 5, 4


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(8)
    test = generator.normal(2, 1, size=(N_TEST, N_FEATURES)).astype(np.float32)
    flow = np.tile(np.arange(N_ANCHORS // 3), 3)
    source = np.repeat(np.arange(3), N_ANCHORS // 3)
    original = generator.normal(2, 1, size=(N_ANCHORS // 3, N_FEATURES))
    anchors = original[flow] + (source * 0.3)[:, None] * generator.normal(size=(N_ANCHORS, N_FEATURES))
    labels = generator.integers(3, size=N_ANCHORS // 3)[flow]
    shuffled = generator.permutation(N_ANCHORS)
    return {
        "test": test,
        "test_labels": generator.integers(3, size=N_TEST),
        "anchors": anchors[shuffled].astype(np.float32),
        "anchor_labels": labels[shuffled],
        "anchor_source": source[shuffled],
        "flow": flow[shuffled],
    }


def similarity(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def distance(a, b):
    return float(np.sqrt(((a.astype(np.float64) - b.astype(np.float64)) ** 2).sum()))


def neighbours(row, anchors, k, metric):
    """Places of the nearest and what they are worth, from one comparison after the other."""
    worth = [similarity(row, a) if metric == "cosine" else distance(row, a) for a in anchors]
    order = sorted(range(len(anchors)), key=lambda i: -worth[i] if metric == "cosine" else worth[i])[:k]
    return order, [worth[i] for i in order]


@pytest.mark.parametrize("metric", latent.METRICS)
def test_neighbours_equal_plain_loops_whatever_the_tiles(data, metric):
    """Tiles of 4 rows of 11; and one row at a time."""
    expected = [neighbours(row, data["anchors"], K, metric) for row in data["test"]]
    for tile_values in (4 * N_ANCHORS + 7, 1):
        index, value = latent.nearest_anchors(data["test"], data["anchors"], K, metric, tile_values=tile_values)
        assert index.shape == value.shape == (N_TEST, K)
        np.testing.assert_array_equal(index, [one for one, _ in expected])
        np.testing.assert_allclose(value, [one for _, one in expected], rtol=1e-5)


def test_neighbours_of_far_away_points_keep_their_digits():
    """Squares of 1e4 leave no digits for a distance of 1e-1 unless the centre is taken off."""
    generator = np.random.default_rng(1)
    anchors = (1e4 + generator.normal(size=(70, 3))).astype(np.float32)
    test = (1e4 + generator.normal(size=(5, 3))).astype(np.float32)
    value, index = NearestNeighbors(n_neighbors=K).fit(anchors.astype(np.float64)).kneighbors(test.astype(np.float64))
    found, distances = latent.nearest_anchors(test, anchors, K, "euclidean")
    np.testing.assert_array_equal(found, index)
    np.testing.assert_allclose(distances, value, rtol=1e-4)


def test_of_equal_anchors_the_first_ones_are_taken():
    test = np.array([[1.0, 0.0]], np.float32)
    anchors = np.tile(np.array([[0.0, 1.0]], np.float32), (140, 1))
    anchors[[130, 70, 5]] = 2 * test
    anchors[3] = 0
    index, value = latent.nearest_anchors(test, anchors, 5)
    np.testing.assert_array_equal(index, [[5, 70, 130, 0, 1]])
    np.testing.assert_allclose(value, [[1, 1, 1, 0, 0]], atol=1e-6)
    index, value = latent.nearest_anchors(test, anchors[:4], 4)
    np.testing.assert_array_equal(index, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(value, [[0, 0, 0, 0]])


def test_report_equals_plain_loops(data):
    arguments = {name: data[name] for name in data if name != "flow"}
    report = latent.anchor_report(**arguments, k=K, source_names=("original", "translation", "wrap"))
    for rows, total, sources in (
        (report.sources, report.right, (0, 1, 2)),
        (report.augmented_only, report.augmented_right, (1, 2)),
    ):
        allowed = [i for i in range(N_ANCHORS) if data["anchor_source"][i] in sources]
        seen = []
        for row, label in zip(data["test"], data["test_labels"]):
            places, worth = neighbours(row, data["anchors"][allowed], K, "cosine")
            for place, value in zip(places, worth):
                anchor = allowed[place]
                seen.append((data["anchor_source"][anchor], data["anchor_labels"][anchor] == label, value))
        assert total == pytest.approx(np.mean([right for _, right, _ in seen]))
        assert [row.source for row in rows] == [("original", "translation", "wrap")[s] for s in sources]
        for row, s in zip(rows, sources):
            mine = [one for one in seen if one[0] == s]
            assert row.of_anchors == pytest.approx(1 / len(sources))
            assert row.of_nearest == pytest.approx(len(mine) / len(seen))
            assert row.right == pytest.approx(np.mean([right for _, right, _ in mine]))
            assert row.similarity == pytest.approx(np.mean([value for _, _, value in mine]))
    original = data["anchors"][data["anchor_source"] == 0]
    augmented = data["anchors"][data["anchor_source"] > 0]
    expected = [min(distance(t, a) for a in augmented) / min(distance(t, a) for a in original) for t in data["test"]]
    np.testing.assert_allclose(report.ratio, expected, rtol=1e-4)


def test_ratio_where_test_flows_equal_anchors_and_sources_without_neighbours():
    """Flow 0 equals an original and an augmentation, 1 only an original, 2 only an augmentation."""
    test = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    anchors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-5.0, -5.0]])
    report = latent.anchor_report(
        test, np.zeros(3, int), anchors, np.array([0, 1, 1, 0, 0]), np.array([0, 1, 0, 1, 2]), k=1
    )
    np.testing.assert_array_equal(report.ratio, [1.0, np.inf, 0.0])
    assert [row.source for row in report.sources] == ["original", "augmentation 1", "augmentation 2"]
    assert [row.of_nearest for row in report.sources] == pytest.approx([2 / 3, 1 / 3, 0])
    assert [row.right for row in report.sources][:2] == [0.5, 1.0]
    assert np.isnan(report.sources[2].right)
    assert np.isnan(report.sources[2].similarity)


def test_distances_to_own_original(data):
    found = latent.distances_to_own(data["anchors"], data["anchor_source"], data["flow"])
    assert sorted(found) == [1, 2]
    for s, distances in found.items():
        rows = np.flatnonzero(data["anchor_source"] == s)
        for i, value in zip(rows, distances, strict=True):
            own = np.flatnonzero((data["anchor_source"] == 0) & (data["flow"] == data["flow"][i])).item()
            assert value == pytest.approx(distance(data["anchors"][i], data["anchors"][own]), rel=1e-5)


def test_tsne_keeps_groups_apart_and_repeats():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 15)
    features = generator.normal(size=(30, 4)) + 30 * labels[:, None]
    found = latent.tsne(features, seed=1)
    assert found.shape == (30, 2)
    _, nearest = NearestNeighbors(n_neighbors=4).fit(found).kneighbors(found)
    assert (labels[nearest] == labels[:, None]).all()
    np.testing.assert_array_equal(found, latent.tsne(features, seed=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": np.ones((3, 4))}, "4 and 5 features"),
        ({"test": np.ones(3)}, "flow, feature"),
        ({"anchors": np.full((N_ANCHORS, N_FEATURES), np.nan)}, "row 0"),
        ({"k": 0}, "k must"),
        ({"k": N_ANCHORS + 1}, "k must"),
        ({"metric": "manhattan"}, "cosine, euclidean"),
        ({"test_labels": np.zeros(2, int)}, "test_labels must be 11 integers"),
        ({"anchor_labels": np.zeros(N_ANCHORS)}, "anchor_labels must be 150 integers"),
        ({"anchor_source": np.zeros(N_ANCHORS, int)}, "some of each"),
        ({"anchor_source": np.ones(N_ANCHORS, int)}, "some of each"),
        ({"source_names": ("original",)}, "sources 0 to 2"),
    ],
)
def test_bad_input_is_refused(data, change, message):
    arguments = {name: data[name] for name in data if name != "flow"} | change
    if change.get("test", np.ones((N_TEST, 1))).shape[0] == 3:
        arguments["test_labels"] = np.zeros(3, int)
    with pytest.raises(ConfigError, match=message):
        latent.anchor_report(**arguments)


def test_flows_without_their_original_are_refused():
    x = np.ones((3, 2))
    with pytest.raises(ConfigError, match="flow 7 has augmentations but no original"):
        latent.distances_to_own(x, np.array([0, 1, 1]), np.array([4, 4, 7]))
    with pytest.raises(ConfigError, match="flow 4 has two originals"):
        latent.distances_to_own(x, np.array([0, 0, 1]), np.array([4, 4, 4]))
    with pytest.raises(ConfigError, match="5 rows"):
        latent.tsne(x)
