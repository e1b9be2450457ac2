import jax
import numpy as np
import pytest

from jaxtraffic import scaling
from jaxtraffic.classify import models
from jaxtraffic.errors import DataError
from jaxtraffic.nn.classifiers import make_classifier
from tests.classify.test_folds import make_flows

NAMES = ("web", "mail | chat", "日本")


def fitted(name):
    """A classifier of arrays drawn by NumPy, in the structure of the network."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(make_classifier(name, len(NAMES), 6).init, jax.random.key(0))
    params, state = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype), shapes)
    return models.Fitted(name, params, jax.tree.map(np.abs, state), -1.25, NAMES)


@pytest.mark.parametrize("name", ["mlp", "resnet", "s4"])
def test_a_stored_classifier_comes_back(tmp_path, name):
    own, path = fitted(name), tmp_path / "new" / models.file_name("wrap/p=0.5", 3, 1)
    models.save_model(path, own)
    back = models.load_model(path)
    assert back[3:] == own[3:] and back.model == name
    assert jax.tree.structure((back.params, back.state)) == jax.tree.structure((own.params, own.state))
    for here, there in zip(jax.tree.leaves(back[1:3]), jax.tree.leaves(own[1:3])):
        assert here.dtype == there.dtype
        np.testing.assert_array_equal(here, there)
    assert [one.name for one in path.parent.iterdir()] == ["wrap_p=0.5-fold3-seed1.npz"]
    assert back.scale == scaling.FeatureScaling(-7.0, -1.25)


def test_what_is_no_classifier_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    models.save_model(path, fitted("mlp"))
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a stored classifier"):
            models.load_model(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match="not a stored classifier"):
        models.load_model(path)
    with pytest.raises(DataError, match="not a stored classifier"):
        models.load_model(tmp_path / "absent.npz")


def latent_by_hand(own, x):
    h = x.reshape(len(x), -1).astype(np.float64)
    for name in ("hidden1", "hidden2"):
        h = np.maximum(h @ own.params[name]["kernel"] + own.params[name]["bias"], 0)
    return h


def test_latent_is_what_the_last_layer_sees_whatever_the_tile():
    own, flows = fitted("mlp"), make_flows(n=23, classes=3, length=6)
    x, mask = flows.arrays()
    x = np.asarray(own.scale.apply(x, mask))
    for tile in (5, 100):
        np.testing.assert_allclose(own.latent(x, mask, tile=tile), latent_by_hand(own, x), rtol=1e-4, atol=1e-5)
    assert own.latent(x[:1], mask[:1]).shape == (1, 128)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "s4"])
def test_latent_equals_the_features_of_the_network(tmp_path, name):
    own, flows = fitted(name), make_flows(n=11, classes=3, length=6)
    models.save_model(tmp_path / "model.npz", own)
    x, mask = flows.arrays()
    x = np.asarray(own.scale.apply(x, mask))
    wanted = make_classifier(name, 3, 6).apply(own.params, own.state, x, mask, train=False)[1]
    got = models.load_model(tmp_path / "model.npz").latent(x, mask, tile=4)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert got.std(axis=0).max() > 0
