"""Nearest neighbours: against scipy's tree, scikit-learn and closed forms."""

import jax
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import estimate


def pairs(seed, n, dim=1, rho=0.75):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)).astype(np.float32)
    return x, (rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(n, dim))).astype(np.float32)


def ksg_by_trees(x, y, k):
    """KSG-1 term by term (Kraskov et al. 2004, Eq. 8), with trees in float64."""
    joint = cKDTree(np.hstack([x, y]).astype(float))
    terms = []
    for a, b, both in zip(x.astype(float), y.astype(float), joint.data, strict=True):
        radius = joint.query(both, k + 1, p=np.inf)[0][-1]
        n_x = (np.abs(x - a).max(axis=1) < radius).sum() - 1
        n_y = (np.abs(y - b).max(axis=1) < radius).sum() - 1
        terms.append(digamma(k) + digamma(len(x)) - digamma(n_x + 1) - digamma(n_y + 1))
    return np.array(terms)


@pytest.mark.parametrize(("dim", "k", "n"), [(1, 3, 300), (4, 10, 257)], ids=["1d", "4d"])
def test_equals_trees(dim, k, n, monkeypatch):
    monkeypatch.setattr("jaxtraffic.information.ksg.TILE_VALUES", 64 * n)  # the last tile is not full
    x, y = pairs(0, n, dim)
    result = estimate(x, y, method="ksg", key=jax.random.key(0), preprocess="none", k=k)
    expected = ksg_by_trees(x, y, k)
    # A distance that float32 rounds to the radius moves one count by one.
    assert np.isclose(result.pointwise, expected, atol=1e-4).mean() > 0.98
    assert result.value == pytest.approx(expected.mean(), abs=2e-3)
    assert result.stderr == pytest.approx(expected.std() / np.sqrt(n), rel=0.02)


def test_near_scikit_learn_which_counts_the_boundary_otherwise():
    x, y = pairs(1, 1500)
    mine = estimate(x, y, method="ksg", key=jax.random.key(0), preprocess="standardise", k=3).value
    # scikit-learn adds noise of 1e-10 and scales without centring; its counts are the same, up to ties.
    assert mine == pytest.approx(mutual_info_regression(x, y[:, 0], n_neighbors=3, random_state=0)[0], abs=5e-3)


def test_labels_equal_scikit_learn():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 3, 900)
    x = (rng.normal(size=(900, 1)) + label[:, None]).astype(np.float32)
    mine = estimate(x, label, method="ksg", key=jax.random.key(0), preprocess="standardise", k=5).value
    assert mine == pytest.approx(mutual_info_classif(x, label, n_neighbors=5, random_state=0)[0], abs=2e-3)


def test_labels_of_small_classes_count_their_own_neighbours():
    rng = np.random.default_rng(3)
    label = np.array([0] * 60 + [1] * 4 + [2])
    x = rng.normal(size=(65, 1)).astype(np.float32)
    result = estimate(x, label, method="ksg", key=jax.random.key(0), preprocess="none", k=5)
    terms = []
    for i in range(64):
        distance = np.abs(x - x[i]).max(axis=1)
        in_class = np.sort(distance[label == label[i]])
        k = min(5, len(in_class) - 1)
        terms.append(digamma(64) + digamma(k) - digamma(len(in_class)) - digamma((distance < in_class[k]).sum()))
    np.testing.assert_allclose(result.pointwise[:64], terms, atol=1e-4)
    assert np.isnan(result.pointwise[64])
    assert result.value == pytest.approx(np.mean(terms), abs=1e-4)
    assert any("alone in their class" in warning for warning in result.warnings)


@pytest.mark.parametrize("labels", [False, True], ids=["numbers", "labels"])
def test_ties_give_the_information_of_discrete_variables(labels):
    rng = np.random.default_rng(4)
    y = rng.integers(0, 4, 3000)
    x = np.where(rng.random(3000) < 0.8, y, rng.integers(0, 4, 3000)).astype(float)
    table = np.histogram2d(x, y, bins=4)[0] / 3000
    plug_in = (table * np.log(table / table.sum(0) / table.sum(1, keepdims=True))).sum()
    # Labels get 3 dimensions of copies, which changes nothing.
    x = np.stack([x] * 3, axis=1) if labels else x
    result = estimate(x, y if labels else y.astype(float), method="ksg", key=jax.random.key(0), k=5)
    assert result.value == pytest.approx(plug_in, abs=0.01)
    assert any("ties" in warning for warning in result.warnings)


def test_gaussian_and_independent_pairs():
    x, y = pairs(5, 3000)
    result = estimate(x, y, method="ksg", key=jax.random.key(0))
    sample = -0.5 * np.log(1 - np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2)
    assert result.value == pytest.approx(sample, abs=0.03)
    assert abs(estimate(x, y[::-1], method="ksg", key=jax.random.key(0)).value) < 0.03
    assert result.n_train == 0 and result.n_test == 3000 and not result.warnings


def test_too_few_samples_for_k():
    with pytest.raises(ConfigError, match="k must be below"):
        estimate(*pairs(0, 20), method="ksg", key=jax.random.key(0), k=20)
    with pytest.raises(ConfigError, match="k must be at least 1"):
        estimate(*pairs(0, 20), method="ksg", key=jax.random.key(0), k=0)
