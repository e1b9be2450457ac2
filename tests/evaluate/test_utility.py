import numpy as np
import pytest
import xgboost
from sklearn.metrics import f1_score

from jaxtraffic import evaluate
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate import classification
from jaxtraffic.evaluate.resample import bootstrap, halves
from jaxtraffic.evaluate.train_on_synthetic import augmentation_of, utility_of
from jaxtraffic.series import from_signed_size

FAST = {"n_estimators": 15, "nthread": 1}


def make(n=300, n_classes=3, length=12, seed=0, overlap=0):
    """Labelled series with structure that trees can learn; overlap widens the sizes, so that classes mix."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % n_classes
    size = rng.integers(40, 160 + overlap, (n, length)) + 60 * label[:, None]
    packets = rng.integers(4, length + 1, n)
    sign = np.where(np.arange(length) % 2 == 0, 1, -1)
    signed = np.where(np.arange(length) < packets[:, None], size * sign, 0)
    return from_signed_size(signed, label, class_names=[f"c{i}" for i in range(n_classes)])


def test_features_are_the_first_30_signed_sizes():
    flows = make(length=40)
    x = evaluate.features(flows)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, flows.signed_size[:, :30])
    assert evaluate.features(make(length=12)).shape == (300, 12)


def test_utility_agrees_with_xgboost_and_sklearn_used_directly():
    train, other, test = make(seed=1, overlap=200), make(seed=2, overlap=300), make(150, seed=3, overlap=200)
    got = evaluate.utility(train, other, test)
    expected = {}
    for name, flows in (("real", train), ("synthetic", other)):
        model = xgboost.XGBClassifier(n_estimators=100, max_depth=6, learning_rate=0.3, tree_method="hist", n_jobs=1)
        predicted = model.fit(flows.signed_size.astype(np.float32), flows.label).predict(test.signed_size)
        for average in ("weighted", "macro"):
            expected[f"{average}_f1_{name}"] = f1_score(test.label, predicted, average=average)
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    for average in ("weighted_f1", "macro_f1"):
        assert 0.1 < got[f"{average}_real"] < 0.99
        assert got[f"{average}_gap"] == got[f"{average}_synthetic"] - got[f"{average}_real"]


def test_a_copy_of_the_training_set_has_no_gap_and_no_gap_error():
    train, test = make(seed=1, overlap=200), make(90, seed=2, overlap=200)
    got = evaluate.utility(train, train, test, params=FAST)
    for name in ("weighted_f1_gap", "macro_f1_gap", "weighted_f1_gap_stderr"):
        assert got[name] == 0.0


def test_shuffled_labels_collapse_the_utility_and_real_flows_do_not():
    train, fresh, test = make(seed=1), make(seed=2), make(150, seed=3)
    shuffled = fresh.replace(label=np.random.default_rng(0).permutation(fresh.label))
    assert evaluate.utility(train, shuffled, test, params=FAST)["weighted_f1_gap"] < -0.3
    assert abs(evaluate.utility(train, fresh, test, params=FAST)["weighted_f1_gap"]) < 0.1


def test_more_real_flows_help_and_the_gain_is_against_real_alone():
    train, more, test = make(30, seed=1, overlap=100), make(600, seed=2, overlap=100), make(300, seed=3, overlap=100)
    got = evaluate.augmentation(train, more, test, params=FAST)
    alone = evaluate.utility(train, more, test, params=FAST)
    assert got["weighted_f1_gain"] == pytest.approx(got["weighted_f1"] - alone["weighted_f1_real"], abs=1e-12)
    assert got["weighted_f1_gain"] > 2 * got["weighted_f1_gain_stderr"] > 0
    assert got["macro_f1_gain"] > 0


def test_a_class_missing_from_training_lowers_the_utility():
    train, test = make(seed=1), make(150, seed=2)
    without = train[train.label != 1]
    assert set(classification.fit(without, FAST).classes) == {0, 2}
    assert evaluate.utility(train, without, test, params=FAST)["macro_f1_gap"] < -0.2
    assert set(evaluate.utility(train, train[train.label == 2], test, params=FAST)) >= {"weighted_f1_gap"}


def test_the_standard_error_of_a_gap_is_that_of_repeated_tests():
    rng = np.random.default_rng(0)
    spread, errors = [], []
    for _ in range(60):
        y = rng.integers(0, 3, 300)
        first = np.where(rng.random(300) < 0.8, y, rng.integers(0, 3, 300))
        second = np.where(rng.random(300) < 0.7, y, rng.integers(0, 3, 300))
        figures = utility_of(y, first, second)
        spread.append(figures["weighted_f1_gap"])
        errors.append(figures["weighted_f1_gap_stderr"])
    assert np.mean(errors) == pytest.approx(np.std(spread), rel=0.3)
    assert set(augmentation_of(y, first, second)) == {
        f"{average}_f1{end}" for average in ("weighted", "macro") for end in ("", "_gain", "_gain_stderr")
    }


def test_the_same_seed_gives_the_same_figures():
    train, other, test = make(seed=1, overlap=200), make(seed=2, overlap=200), make(150, seed=3, overlap=200)
    params = FAST | {"subsample": 0.6}
    first, again = (evaluate.utility(train, other, test, seed=5, params=params) for _ in range(2))
    assert first == again
    assert first != evaluate.utility(train, other, test, seed=6, params=params)


def test_tuning_searches_the_published_space_and_repeats():
    train, validation = make(150, seed=1, overlap=200), make(90, seed=2, overlap=200)
    found, again = (evaluate.tune(train, validation, trials=3, seed=1) for _ in range(2))
    assert found == again
    limits = {
        "n_estimators": (50, 300),
        "learning_rate": (0.1, 1),
        "max_depth": (4, 10),
        "min_child_weight": (1, 50),
        "subsample": (0.5, 1),
        "lambda": (0, 3),
    }
    assert set(found) == set(limits)
    for name, (low, high) in limits.items():
        assert low <= found[name] <= high
    evaluate.utility(train, train, validation, params=found)


def test_a_bootstrap_holds_rows_of_the_right_class_only():
    train = make(60, seed=1)
    labels = np.array([2, 2, 0, 1, 2] * 20)
    copy = bootstrap(train, labels, seed=3)
    np.testing.assert_array_equal(copy.label, labels)
    rows = {(label, row.tobytes()) for label, row in zip(train.label, train.signed_size)}
    assert all((label, row.tobytes()) in rows for label, row in zip(copy.label, copy.signed_size))
    np.testing.assert_array_equal(copy.signed_size, bootstrap(train, labels, seed=3).signed_size)
    assert len({row.tobytes() for row in copy.signed_size}) > 10
    assert len(bootstrap(train, 500)) == 500


def test_halves_are_disjoint_and_alike():
    flows = make(101, seed=1)
    first, second = halves(flows, seed=2)
    together = np.concatenate([first.signed_size, second.signed_size])
    assert sorted(map(bytes, together)) == sorted(map(bytes, flows.signed_size))
    assert np.abs(first.counts() - second.counts()).max() <= 1


def logistic_by_hand(real, other, seed):
    """The documented split, and the regression's own optimality condition solved by Newton's method."""
    generator = np.random.default_rng(seed)
    n = min(len(real), len(other))
    real, other = (side[generator.permutation(len(side))[:n]] for side in (real, other))
    cut = int(0.8 * n)
    train, test = np.concatenate([real[:cut], other[:cut]]), np.concatenate([real[cut:], other[cut:]])
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = ((rows - mean) / deviation for rows in (train, test))
    train, test = (np.column_stack([rows, np.ones(len(rows))]) for rows in (train, test))
    y, penalty, weight = np.repeat([0, 1], cut), np.array([1.0] * real.shape[1] + [0.0]), np.zeros(train.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-train @ weight))
        slope = train.T @ (p - y) + penalty * weight
        weight = weight - np.linalg.solve((train.T * (p * (1 - p))) @ train + np.diag(penalty), slope)
    return np.mean((test @ weight > 0) == np.repeat([0, 1], n - cut)) - 0.5


def test_the_logistic_score_is_that_of_a_standardised_regression_on_the_same_split():
    rng = np.random.default_rng(0)
    real, other = (rng.normal(place, [1e-3, 50, 900], (n, 3)) for place, n in ([0, 240], [[9e-4, 0, 300], 300]))
    for seed in range(3):
        got = evaluate.logistic_discriminative_score(real, other, seed)
        assert got["score"] == pytest.approx(logistic_by_hand(real, other, seed), abs=1e-12)
        assert (got["n_test"], got["stderr"]) == (96, pytest.approx(np.sqrt(0.25 / 96)))
        assert got["score"] > 0
    constant = [np.column_stack([rows, np.full(len(rows), 7.0)]) for rows in (real, other)]
    assert evaluate.logistic_discriminative_score(*constant, 2) == got


def test_the_logistic_score_sees_means_where_trees_see_more():
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 1, (600, 2))
    same, wider = rng.normal(0, 1, (600, 2)), rng.normal(0, 4, (600, 2))
    weak, strong = (evaluate.logistic_discriminative_score(rows, other)["score"] for other in (wider, rows + 9))
    assert abs(evaluate.logistic_discriminative_score(rows, same)["score"]) < 0.1
    assert strong == 0.5 and weak < 0.15 < evaluate.discriminative_score(rows, wider, params=FAST)["score"]
    flows = make(60, seed=1), make(60, seed=2)
    signed = [series.signed_size for series in flows]
    assert evaluate.logistic_discriminative_score(*flows) == evaluate.logistic_discriminative_score(*signed)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: evaluate.utility(f, f[:0], f), "synthetic holds no flows"),
        (lambda f: evaluate.utility(f, make(length=9), f), "packet positions"),
        (lambda f: evaluate.utility(f, make(n_classes=4), f), "class names"),
        (lambda f: evaluate.utility(f, f, f, params={"trees": 3}), "trees"),
        (lambda f: evaluate.utility(f, f, f, params={"max_depth": "deep"}), "max_depth"),
        (lambda f: evaluate.tune(f, f, trials=0), "at least one trial"),
        (lambda f: bootstrap(f[f.label == 0], np.array([1])), "label 1"),
        (lambda f: bootstrap(f, 0), "at least one flow"),
        (lambda f: halves(f[:1]), "two flows"),
        (lambda f: evaluate.features(f[:0]), "at least one flow"),
        (lambda f: evaluate.logistic_discriminative_score(f[:4], f), "5 flows on each side"),
        (lambda f: evaluate.logistic_discriminative_score(np.full((9, 2), np.nan), np.ones((9, 2))), "NaN"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call(make(30))
