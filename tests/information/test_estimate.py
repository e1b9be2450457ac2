"""`estimate` itself: splits, labels, errors, seeds in one program, and the maps before it."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import METHODS, estimate, estimate_many
from jaxtraffic.information import preprocess as maps
from jaxtraffic.information.result import Method, Outcome

SHORT = {"steps": 40, "hidden": (8,)}
KEY = jax.random.key(0)


def pairs(seed, n=400):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1))
    return x, 0.75 * x + 0.66 * rng.normal(size=(n, 1))


def spying_method(monkeypatch, trains=True):
    """A method that tells what it was given, and how often it was traced."""
    traced = []

    def program(options, n_classes, key, train, test):
        traced.append(n_classes)
        mean = test.x.mean()
        learnt = mean * 0 if train is None else train.x.mean()
        return Outcome(mean, mean * 0 + 2, test.x[:, 0], {"train": learnt, "y": test.y, "x": test.x})

    method = Method("spy", METHODS["cca"].options, program, trains, "none", True, lambda *all_: ["seen"], "")
    monkeypatch.setitem(METHODS, "spy", method)
    return traced


def test_split_uses_every_sample_once(monkeypatch):
    spying_method(monkeypatch)
    x = np.arange(40.0)
    result = estimate(x, x, method="spy", key=KEY, test=0.25)
    assert (result.n_train, result.n_test) == (30, 10)
    held = set(result.pointwise.tolist())
    assert len(held) == 10 and result.diagnostics["train"] * 30 == pytest.approx(sum(range(40)) - sum(held))
    np.testing.assert_array_equal(result.diagnostics["y"][:, 0], result.pointwise)
    again = estimate(x, x, method="spy", key=KEY, test=0.25)
    other = estimate(x, x, method="spy", key=jax.random.key(1), test=0.25)
    assert set(again.pointwise.tolist()) == held != set(other.pointwise.tolist())
    assert result.warnings == ("seen",) and result.ci == pytest.approx((result.value - 3.92, result.value + 3.92))


def test_given_test_samples_stay_in_order_and_are_mapped_as_the_training_samples(monkeypatch):
    spying_method(monkeypatch)
    x, test = np.arange(40.0), np.arange(12.0)[::-1].copy()
    result = estimate(x, x, method="spy", key=KEY, test=(test, test), preprocess="standardise")
    np.testing.assert_allclose(result.pointwise, (test - x.mean()) / x.std(), rtol=1e-5)
    assert (result.n_train, result.n_test) == (40, 12)


def test_methods_that_do_not_train_see_all_samples(monkeypatch):
    spying_method(monkeypatch, trains=False)
    x = np.arange(40.0)
    result = estimate(x, x, method="spy", key=KEY, test=0.25)
    assert (result.n_train, result.n_test) == (0, 40)
    np.testing.assert_array_equal(result.pointwise, x)


@pytest.mark.parametrize(
    ("y", "discrete", "classes"),
    [
        (np.arange(40) % 3, None, 3),
        ((np.arange(40) % 3).astype(np.uint8), None, 3),
        ((np.arange(40) % 3)[:, None], None, 0),
        ((np.arange(40) % 3).astype(float), None, 0),
        (np.arange(40) % 3, False, 0),
        (np.arange(40) % 5, True, 5),
    ],
    ids=["int", "uint8", "column", "float", "said-continuous", "said-discrete"],
)
def test_labels_are_told_from_numbers(monkeypatch, y, discrete, classes):
    traced = spying_method(monkeypatch)
    result = estimate(np.arange(40.0), y, method="spy", key=KEY, discrete=discrete)
    assert traced == [classes]
    assert result.diagnostics["y"].dtype == (np.int32 if classes else np.float32)
    assert result.diagnostics["y"].ndim == (1 if classes else 2)


def test_one_program_for_seeds_and_for_calls_alike(monkeypatch):
    traced = spying_method(monkeypatch)
    x = [np.arange(40.0) + i for i in range(3)]
    keys = [jax.random.key(i) for i in range(3)]
    many = estimate_many(x, x, method="spy", keys=keys)
    assert len(traced) == 1
    estimate_many(x[::-1], x, method="spy", keys=keys)
    assert len(traced) == 1
    one = [estimate(x[i], x[i], method="spy", key=keys[i]) for i in range(3)]
    assert len(traced) == 2
    for a, b in zip(many, one, strict=True):
        np.testing.assert_array_equal(a.pointwise, b.pointwise)


@pytest.mark.parametrize(
    "method", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("mine", "doe")), "ksg", "cca"]
)
def test_seeds_together_equal_seeds_alone(method):
    options = SHORT if method in ("mine", "doe") else {}
    data = [pairs(i, 200) for i in range(3)]
    keys = [jax.random.key(i) for i in range(3)]
    many = estimate_many([x for x, _ in data], [y for _, y in data], method=method, keys=keys, **options)
    for i, (x, y) in enumerate(data):
        alone = estimate(x, y, method=method, key=keys[i], **options)
        assert many[i].value == pytest.approx(alone.value, abs=2e-4)
        np.testing.assert_allclose(many[i].pointwise, alone.pointwise, atol=2e-3)
    assert len({result.value for result in many}) == 3


def with_nan(x):
    x = x.copy()
    x[3] = np.nan
    return x


X, Y = pairs(9, 60)
WRONG = {
    "unknown method": ({"method": "magic"}, X, Y),
    "no option": ({"method": "cca", "k": 3}, X, Y),
    "options of mine": ({"method": "mine", "options": METHODS["ksg"].options()}, X, Y),
    "not finite": ({"method": "cca"}, with_nan(X), Y),
    "y holds 1 values": ({"method": "cca"}, X, with_nan(Y)),
    "as many samples": ({"method": "cca"}, X, Y[:50]),
    "must be .n, dim. or .n.": ({"method": "cca"}, X[:, :, None], Y),
    "real numbers": ({"method": "cca"}, X.astype(complex), Y),
    "needs continuous y": ({"method": "cca"}, X, np.arange(60)),
    "labels .n. of integers from 0": ({"method": "ksg"}, X, np.arange(60) - 1),
    "too few samples": ({"method": "mine"}, X[:15], Y[:15]),
    "test must be a share": ({"method": "mine", "test": 1.5}, X, Y),
    "other dimensions": ({"method": "mine", "test": (np.hstack([X, X]), Y)}, X, Y),
    "unknown preprocess": ({"method": "cca", "preprocess": "rank"}, X, Y),
    "unknown critic": ({"method": "mine", "critic": "best"}, X, Y),
}


@pytest.mark.parametrize("message", WRONG)
def test_errors_name_what_was_expected(message):
    options, x, y = WRONG[message]
    with pytest.raises(ConfigError, match=message):
        estimate(x, y, key=KEY, **options)


def test_samples_that_cannot_share_a_program():
    with pytest.raises(ConfigError, match="different shapes"):
        estimate_many([X, X[:50]], [Y, Y[:50]], method="cca", keys=[KEY, KEY])
    with pytest.raises(ConfigError, match="as many x as y and keys"):
        estimate_many([X], [Y], method="cca", keys=[])


@pytest.mark.slow
def test_lists_among_options_do():
    assert np.isfinite(estimate(X, Y, method="mine", key=KEY, steps=2, hidden=[8, 4]).value)


def test_results_read_as_bmi_reads_them():
    result = estimate(X, Y, method="cca", key=KEY)
    assert result.mi_estimate == result.value and result.time_in_seconds == result.seconds > 0
    assert result.additional_information["stderr"] == result.stderr


@pytest.mark.parametrize("kind", maps.PREPROCESS)
def test_maps_are_strictly_increasing_and_know_the_training_samples_only(kind):
    rng = np.random.default_rng(0)
    train = np.stack([rng.standard_cauchy(5000), np.round(rng.exponential(20, 5000)), rng.normal(size=5000)], axis=1)
    mapped = maps.fit(kind, train)
    # Also beyond the training samples, and between them where a gap of one atom's width is all there is.
    grid = np.stack([np.linspace(3 * column.min() - 9, 3 * column.max() + 9, 4001) for column in train.T], axis=1)
    out = mapped.apply(grid)
    assert out.dtype == np.float32 and np.isfinite(out).all()
    assert (np.diff(out.astype(float), axis=0) > 0).all()
    np.testing.assert_array_equal(mapped.apply(grid[:7]), out[:7])


def test_gaussianised_margins_are_normal_and_atoms_stay_apart():
    rng = np.random.default_rng(1)
    train = np.stack([rng.standard_cauchy(20000), np.where(rng.random(20000) < 0.6, 0.0, rng.exponential(1, 20000))], 1)
    out = maps.fit("gaussianise", train).apply(train)
    assert stats.kstest(out[:, 0], "norm").statistic < 0.005
    # The atom holds 60 % and goes to the middle of its share; what lies above stays above, and no two values merge.
    atom = out[train[:, 1] == 0, 1]
    assert np.ptp(atom) == 0 and atom[0] == pytest.approx(stats.norm.ppf(0.3), abs=0.02)
    assert out[train[:, 1] > 0, 1].min() > atom[0]
    assert stats.spearmanr(train[:, 0], out[:, 0]).statistic == pytest.approx(1.0, abs=1e-6)


def test_maps_of_few_values():
    column = np.array([[3.0]] * 20)
    for kind in maps.PREPROCESS:
        assert np.isfinite(maps.fit(kind, column).apply(np.array([[2.0], [3.0], [4.0]]))).all()
    two = maps.fit("gaussianise", np.array([[0.0]] * 5 + [[1.0]] * 15)).apply(np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(two[:, 0], stats.norm.ppf([0.125, 0.625]), atol=1e-6)
