import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.classify import single
from jaxtraffic.errors import ConfigError, TrainingError
from jaxtraffic.nn.classifiers import Classifier
from jaxtraffic.series import from_signed_size

SMALL = {"model": "mlp", "steps": 100, "width": 8, "learning_rate": 1e-2}


def make(n=60, seed=0, length=6, n_classes=3):
    """Classes differ in size."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % n_classes
    signed = (rng.integers(40, 300, (n, length)) + 350 * label[:, None]) * rng.choice([-1, 1], (n, length))
    return from_signed_size(signed, label, class_names=[f"c{i}" for i in range(n_classes)])


def test_it_learns_repeats_itself_and_never_names_a_class_that_it_did_not_see():
    train, test = make(), make(45, seed=1)
    some = train[train.label != 1]
    net, again, other = (single.fit_network([some, some], seed=seed, **SMALL | {"steps": 300}) for seed in (1, 1, 2))
    np.testing.assert_array_equal(net.latent(test), again.latent(test))
    assert (net.latent(test) != other.latent(test)).any()
    got = net.predict(test)
    known = test.label != 1
    assert set(got) == {0, 2}
    assert np.mean(got[known] == test.label[known]) > 0.9
    for label in range(3):
        untrained = single.fit_network(train[train.label == label][:1], **SMALL | {"learning_rate": 1e-9})
        assert set(untrained.predict(test)) == {label}


def test_training_is_adamw_with_a_cosine_over_shuffled_passes_and_carries_statistics(monkeypatch):
    """A linear softmax against a plain loop in NumPy; its statistics count the steps."""

    # Not 0, where some gradients are 0 but for rounding and Adam makes whole steps of them.
    begin = np.random.default_rng(0).normal(0, 0.3, (18, 3)).astype(np.float32)

    def init(key):
        return {"kernel": jnp.asarray(begin)}, {"seen": jnp.float32(0)}

    def apply(params, state, x, mask, *, train):
        flat = x.reshape(len(x), -1)
        return flat @ params["kernel"], flat - state["seen"], {"seen": state["seen"] + 1} if train else {}

    monkeypatch.setattr(single, "make_classifier", lambda *_, **__: Classifier(init, apply, 18))
    flows, steps = make(20, seed=3), 100
    net = single.fit_network(flows, model="linear", seed=4, steps=steps, batch_size=16, learning_rate=1e-2)
    rows = np.stack([np.minimum(flows.size, 1460) / 1460, flows.direction, np.zeros((20, 6))], -1).reshape(20, 18)
    generator = np.random.default_rng(4)
    order = np.concatenate([generator.permutation(20) for _ in range(steps * 16 // 20)]).reshape(steps, 16)
    kernel, first, second = begin, 0.0, 0.0
    for i, chosen in enumerate(order):
        share = np.exp(rows[chosen] @ kernel)
        share /= share.sum(axis=1, keepdims=True)
        gradient = rows[chosen].T @ (share - np.eye(3)[flows.label[chosen]]) / 16
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        adam = first / (1 - 0.9 ** (i + 1)) / (np.sqrt(second / (1 - 0.999 ** (i + 1))) + 1e-8)
        kernel = kernel - 1e-2 * 0.5 * (1 + math.cos(math.pi * i / steps)) * (adam + 1e-4 * kernel)
    assert np.abs(kernel - begin).max() > 0.2
    np.testing.assert_allclose(net.params["kernel"], kernel, atol=1e-5)
    np.testing.assert_allclose(net.latent(flows), rows - 100, rtol=1e-5)


def test_only_signed_sizes_of_the_first_packets_are_seen(monkeypatch):
    assert single.N_PACKETS == 30
    monkeypatch.setattr(single, "N_PACKETS", 6)
    flows = make(12, length=9)
    net = single.fit_network(flows, **SMALL)
    assert net.length == 6
    rng = np.random.default_rng(0)
    late = np.asarray(flows.signed_size).copy()
    late[:, 6:] = 7
    timed = from_signed_size(late, flows.label, class_names=flows.class_names)
    timed = timed.replace(iat=rng.random(timed.iat.shape).astype(np.float32))
    np.testing.assert_array_equal(net.latent(timed), net.latent(flows))
    # Acknowledgements of the server without payload: a signed size knows no direction of theirs.
    empty = np.asarray(flows.size).copy()
    empty[:, 3] = 0
    real = flows.replace(size=empty, direction=np.where(empty == 0, -1, flows.direction).astype(np.int8))
    generated = from_signed_size(real.signed_size, real.label, class_names=real.class_names)
    np.testing.assert_array_equal(net.latent(real), net.latent(generated))
    assert (net.latent(real) != net.latent(flows)).any()


def test_tiles_change_nothing_and_programs_are_shared(monkeypatch):
    test, program = make(25, seed=1), single._program("mlp", 3, 6, 8)
    net = single.fit_network(make(60), **SMALL)
    whole = net.latent(test)
    compiled = program.train._cache_size(), program.outputs._cache_size()
    single.fit_network(make(33), **SMALL | {"steps": 150}).predict(make(7))
    assert (program.train._cache_size(), program.outputs._cache_size()) == compiled
    monkeypatch.setattr(single, "_TILE", 10)
    np.testing.assert_allclose(net.latent(test), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("right", [False, True])
def test_validation_chooses_among_ten_states(monkeypatch, right):
    """With wrong labels an early state is the best one; with right ones many are equally good and the last is taken."""
    train, validation = make(60), make(40, seed=5)
    if not right:
        validation = validation.replace(label=(validation.label + 1) % 3)
    seen = []
    monkeypatch.setattr(single, "_accuracy", _recorded(single._accuracy, seen))
    net = single.fit_network(train, validation=validation, **SMALL | {"steps": 500})
    accuracies = [accuracy for accuracy, _ in seen]
    assert len(seen) == 10
    best = max(i for i, accuracy in enumerate(accuracies) if accuracy == max(accuracies))
    assert best > accuracies.index(max(accuracies)) if right else best < 9, "this run tells nothing"
    np.testing.assert_array_equal(net.params["head"]["bias"], seen[best][1])
    assert np.mean(net.predict(validation) == validation.label) == max(accuracies)


def _recorded(function, seen):
    def record(program, training, *rest):
        accuracy = function(program, training, *rest)
        seen.append((accuracy, np.asarray(training.params["head"]["bias"])))
        return accuracy

    return record


def test_the_budget_follows_the_number_of_flows():
    assert single.n_steps(6400) == 2000
    assert single.n_steps(6401) == 2001
    assert single.n_steps(10) == 400
    assert single.n_steps(10**6) == 10_000
    assert single.n_steps(6400, epochs=10, batch_size=128) == 500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"model": "vgg"}, "unknown classifier"),
        ({"validation": make(9)[:0]}, "one to validate on"),
        ({"validation": make(9, length=5)}, "same length"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        single.fit_network(make(12), **SMALL | options)


def test_bad_flows_are_refused():
    flows = make(12)
    with pytest.raises(ConfigError, match="at least one flow"):
        single.fit_network(flows[:0], **SMALL)
    with pytest.raises(ConfigError, match="same class names"):
        single.fit_network([flows, make(12, n_classes=2)], **SMALL)
    net = single.fit_network(flows, **SMALL)
    with pytest.raises(ConfigError, match="6 packets of 3 classes"):
        net.predict(make(12, length=5))
    with pytest.raises(TrainingError, match="smaller learning rate"):
        single.fit_network(flows, **SMALL | {"learning_rate": 1e30})
