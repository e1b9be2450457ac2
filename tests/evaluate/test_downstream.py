import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from jaxtraffic import evaluate
from jaxtraffic.classify import single
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.downstream import MODELS, downstream, predict_with
from jaxtraffic.series import from_signed_size

FAST = {
    "xgboost": {"n_estimators": 8, "nthread": 1},
    "random_forest": {"n_estimators": 10},
    "naive_bayes": {},
    "mlp": {"steps": 100, "width": 8, "learning_rate": 1e-2},
    "resnet": {"steps": 50, "width": 4, "learning_rate": 1e-2},
}
QUICK = ("xgboost", "random_forest", "naive_bayes", "mlp")


def make(n=90, seed=0, overlap=0, length=6, n_classes=3):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % n_classes
    signed = rng.integers(40, 300 + overlap, (n, length)) + 350 * label[:, None]
    return from_signed_size(signed * np.resize([1, -1], length), label, class_names=[f"c{i}" for i in range(n_classes)])


@pytest.mark.parametrize("model", [*QUICK, pytest.param("resnet", marks=pytest.mark.slow)])
def test_every_model_learns_and_never_names_a_class_that_it_did_not_see(model):
    train, test = make(), make(60, seed=1)
    got = predict_with(model, train, test, seed=1, params=FAST[model])
    assert got.shape == (60,) and got.dtype.kind == "i"
    assert np.mean(got == test.label) > 0.8
    np.testing.assert_array_equal(got, predict_with(model, train, test, seed=1, params=FAST[model]))
    without = predict_with(model, train[train.label != 1], test, params=FAST[model])
    assert set(without) == {0, 2}
    only = predict_with(model, (train[train.label == 2], train[train.label == 2][:1]), test, params=FAST[model])
    assert set(only) == {2}


def test_naive_bayes_is_the_product_of_smoothed_cell_frequencies():
    rng = np.random.default_rng(0)
    train, test = (rng.choice([-1500, -52, -51, 0, 8, 9, 60, 2000], (n, 3)) for n in (40, 30))
    label = rng.integers(0, 3, 40)
    series = [
        from_signed_size(signed, y, class_names=["a", "b", "c", "d"])
        for signed, y in ((train, label), (test, np.zeros(30)))
    ]
    got = predict_with("naive_bayes", *series, params={"cell_bytes": 8, "alpha": 0.5})

    def cell(v):
        if abs(v) > 1536:
            return 193 if v > 0 else -193
        return (abs(v) + 7) // 8 * (1 if v > 0 else -1)

    cells = 2 * 193 + 1
    for row, answer in zip(test, got):
        scores = []
        for c in range(3):
            mine = train[label == c]
            score = np.log(len(mine) / 40)
            for position, value in enumerate(row):
                same = sum(cell(v) == cell(value) for v in mine[:, position])
                score += np.log((same + 0.5) / (len(mine) + 0.5 * cells))
            scores.append(score)
        assert answer == np.argmax(scores)


def test_the_forest_is_scikit_learns():
    train, test = make(overlap=500), make(60, seed=1, overlap=500)
    forest = RandomForestClassifier(10, random_state=3).fit(train.signed_size.astype(np.float32), train.label)
    got = predict_with("random_forest", train, test, seed=3, params=FAST["random_forest"])
    np.testing.assert_array_equal(got, forest.predict(test.signed_size.astype(np.float32)))


def test_figures_are_differences_to_the_real_flows():
    train, test = make(45, seed=1, overlap=400), make(60, seed=2, overlap=400)
    synthetic = make(90, seed=3, overlap=600)
    figures, curves = downstream(train, synthetic, test, models=QUICK, seed=4, params=FAST)
    assert curves == {} and len(figures) == 6 * len(QUICK)
    for model in QUICK:
        real, alone, joined = (
            predict_with(model, flows, test, seed=4, params=FAST[model])
            for flows in (train, synthetic, (train, synthetic))
        )
        for name in ("weighted", "macro"):
            base, utility, augmented = (f1_score(test.label, p, average=name) for p in (real, alone, joined))
            assert figures[f"{model}.{name}_f1_real"] == pytest.approx(base, abs=1e-12)
            assert figures[f"{model}.utility.{name}_f1_gap"] == pytest.approx(utility - base, abs=1e-12)
            assert figures[f"{model}.augmentation.{name}_f1_gain"] == pytest.approx(augmented - base, abs=1e-12)
    judged = evaluate.utility(train, synthetic, test, seed=4, params=FAST["xgboost"])
    assert figures["xgboost.utility.macro_f1_gap"] == judged["macro_f1_gap"]


def test_copies_have_no_gap_and_shuffled_labels_a_large_one():
    train, test = make(), make(60, seed=1)
    models = ("random_forest", "naive_bayes")
    figures, _ = downstream(train, train, test, models=models, params=FAST)
    assert {figures[f"{model}.utility.weighted_f1_gap"] for model in models} == {0.0}
    shuffled = train.replace(label=np.random.default_rng(0).permutation(train.label))
    figures, _ = downstream(train, shuffled, test, models=models, params=FAST)
    assert max(figures[f"{model}.utility.weighted_f1_gap"] for model in models) < -0.3


def test_networks_train_as_long_on_more_flows_and_known_answers_are_used(monkeypatch):
    asked = []

    class Constant:
        def predict(self, test):
            return np.zeros(len(test), np.int32)

    monkeypatch.setattr(single, "fit_network", lambda parts, **options: asked.append((parts, options)) or Constant())
    train, synthetic, test = make(3000), make(6000, seed=1), make(30, seed=2)
    downstream(train, synthetic, test, models=["mlp"], seed=7, params={"mlp": {"epochs": 10}})
    assert [sum(map(len, parts)) for parts, _ in asked] == [3000, 6000, 9000]
    for _, options in asked:
        assert options == {"model": "mlp", "seed": 7, "epochs": 10, "steps": 469}
    asked.clear()
    figures, _ = downstream(train, synthetic, test, models=["mlp"], real={"mlp": test.label})
    assert len(asked) == 2 and figures["mlp.weighted_f1_real"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("model", "least"), [("naive_bayes", 0.9), ("resnet", 0.8), ("mlp", 0.4)])
def test_flows_of_the_usual_size_are_learnt_within_the_budget(model, least):
    """Classes share sizes and differ in how often they come up at the first positions, in directions and in length."""
    train, test = long_flows(5000, seed=0), long_flows(1500, seed=1)
    assert f1_score(test.label, predict_with(model, train, test, seed=0), average="macro") > least


def long_flows(n, seed, n_classes=8):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, n_classes, n)
    packets = rng.integers(6, 20 + label, n)
    turns = rng.random((n, 30)) < (0.2 + 0.08 * label)[:, None]
    size = np.where(rng.random((n, 30)) < 0.3, 1460, rng.integers(40, 400 + 60 * label[:, None], (n, 30)))
    shared = np.random.default_rng(99).choice(np.arange(60, 600, 45), (n_classes, 6, 4))
    size[:, :6] = shared[label[:, None], np.arange(6), rng.integers(0, 4, (n, 6))]
    signed = np.where(np.arange(30) < packets[:, None], np.where(turns, -size, size), 0)
    return from_signed_size(signed, label, class_names=[str(i) for i in range(n_classes)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: predict_with("svm", f, f), "unknown downstream model"),
        (lambda f: predict_with("random_forest", f, f, params={"trees": 3}), "unknown parameter trees"),
        (lambda f: predict_with("random_forest", f, f, params={"n_estimators": 0}), "refuses its parameters"),
        (lambda f: predict_with("naive_bayes", f, f, params={"cell_bytes": 0}), "cell_bytes"),
        (lambda f: predict_with("mlp", f, f, params={"depth": 3}), "unknown parameter depth of mlp"),
        (lambda f: predict_with("xgboost", f, f, params={"trees": 3}), "trees"),
        (lambda f: predict_with("naive_bayes", f[:0], f), "holds no flows"),
        (lambda f: predict_with("naive_bayes", (), f), "at least one set"),
        (lambda f: predict_with("naive_bayes", (f, make(9, n_classes=2)), f), "class names"),
        (lambda f: downstream(f, f, make(9, length=4)), "packet positions"),
        (lambda f: downstream(f, f, f, models=()), "each once"),
        (lambda f: downstream(f, f, f, models=("mlp", "mlp")), "each once"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call(make(12))


def test_all_models_are_documented():
    assert all(f'"{model}"' in predict_with.__doc__ for model in MODELS)
