import time

import numpy as np
import pytest

from jaxtraffic import evaluate
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.rows import first_of_each, n_packets
from jaxtraffic.series import from_signed_size

FAST = {"n_estimators": 15, "nthread": 1}


def templates(n, seed, n_classes=3, length=10, n_templates=40):
    """Flows that repeat a few templates a class, as set-up traffic does."""
    fixed = np.random.default_rng(99).integers(1, 1400, (n_classes, n_templates, length))
    rng = np.random.default_rng(seed)
    label = rng.integers(0, n_classes, n)
    signed = fixed[label, rng.integers(0, n_templates, n)] * np.where(np.arange(length) % 2, -1, 1)
    return from_signed_size(signed, label, class_names=[f"a.{i}" for i in range(n_classes)])


def test_two_halves_of_one_set_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 1500, (2000, 10))
    scores = [evaluate.discriminative_score(rows[:1000], rows[1000:], seed, FAST) for seed in range(3)]
    for score in scores:
        assert score["n_test"] == 400
        assert score["stderr"] == pytest.approx(0.025)
        assert abs(score["score"]) < 3 * score["stderr"]
    assert len({score["score"] for score in scores}) > 1
    assert evaluate.discriminative_score(rows[:1000], rows[1000:], 2, FAST) == scores[2]


def test_two_different_sets_are_told_apart_and_the_larger_is_cut():
    rng = np.random.default_rng(0)
    real, other = rng.normal(0, 1, (300, 4)), rng.normal(9, 1, (900, 4))
    assert evaluate.discriminative_score(real, other, params=FAST) == {
        "score": 0.5,
        "stderr": pytest.approx(np.sqrt(0.25 / 120)),
        "n_test": 120,
    }


def test_a_half_visible_difference_scores_in_between():
    rng = np.random.default_rng(0)
    real, other = rng.normal(0, 1, (4000, 1)), rng.normal(1, 1, (4000, 1))
    score = evaluate.discriminative_score(real, other, params={"n_estimators": 10, "max_depth": 2})
    # The best classifier cuts at 0.5 and is right with probability Phi(0.5) = 0.691.
    assert score["score"] == pytest.approx(0.191, abs=3 * score["stderr"])


def test_series_and_arrays_score_alike_and_constants_score_zero():
    first, second = templates(200, 1), templates(200, 2)
    as_arrays = evaluate.discriminative_score(first.signed_size, second.signed_size, params=FAST)
    assert evaluate.discriminative_score(first, second, params=FAST) == as_arrays
    assert evaluate.discriminative_score(np.ones((50, 3)), np.ones((50, 3)), params=FAST)["score"] == 0.0


def test_the_distinct_score_is_fair_to_sets_that_share_sequences():
    plain, distinct = [], []
    for seed in range(6):
        first, second = templates(150, seed, n_templates=60), templates(150, seed + 50, n_templates=60)
        distinct.append(evaluate.distinct_discriminative_score(first, second, seed, FAST))
        once = [rows[first_of_each(rows)] for rows in (first.signed_size, second.signed_size)]
        plain.append(evaluate.discriminative_score(*once, seed, FAST))
    mean, error = (np.mean([s[name] for s in distinct]) for name in ("score", "stderr"))
    assert abs(mean) < 3 * error / np.sqrt(6)
    # Dropping repeats alone leaves a twin in the other part with the other answer.
    assert np.mean([s["score"] for s in plain]) < -3 * error / np.sqrt(6)
    far = evaluate.distinct_discriminative_score(first, second.signed_size * 2, 0, FAST)
    assert far["score"] > 0.25


def test_fidelity_by_hand():
    names = ["a"]
    train = from_signed_size([[1, -2, 0, 3], [5, 0, 0, 0]], [0, 0], class_names=names)
    flows = from_signed_size([[1, -2, 0, 3], [1, -2, 0, 3], [7, 7, 0, 0], [0, 0, 0, 0]], [0] * 4, class_names=names)
    assert evaluate.fidelity(train, flows) == {
        "copy_rate": 0.5,
        "distinct_share": 0.75,
        "n_distinct": 4,
        "zero_share": 0.2,
        "mean_packets": 2.5,
    }
    np.testing.assert_array_equal(n_packets(flows.signed_size), [4, 4, 2, 0])
    assert evaluate.fidelity(train, flows, n_distinct=1)["distinct_share"] == 1.0
    with pytest.raises(ConfigError, match="n_distinct"):
        evaluate.fidelity(train, flows, n_distinct=5)


@pytest.fixture(scope="module")
def sets():
    train, held_out = templates(400, 1), templates(200, 2)
    return {
        "train": train,
        "held_out": held_out,
        "test": held_out[:120].replace(group=np.arange(120, dtype=np.int32) // 10),
        "synthetic": templates(400, 3),
        "references": {"bootstrap": evaluate.bootstrap(train, train.label, 4), "marginals": templates(300, 9)},
    }


@pytest.fixture(scope="module")
def judged(sets):
    return evaluate.judge(**sets, params=FAST).figures


def test_the_judgement_has_the_keys_that_others_script_against(judged):
    groups = ["", "reference.fresh_real.", "reference.bootstrap.", "reference.marginals."]
    keys = [
        *(f"utility.{a}_f1_{e}" for a in ("weighted", "macro") for e in ("real", "synthetic", "gap", "gap_stderr")),
        *(f"utility.distinct.{a}_f1_gap" for a in ("weighted", "macro")),
        *(f"utility.{name}" for name in ("capture_accuracy_gap", "capture_accuracy_gap_stderr", "n_captures")),
        *(f"augmentation.{a}_f1{e}" for a in ("weighted", "macro") for e in ("", "_gain", "_gain_stderr")),
        *(f"discriminative.{name}" for name in ("score", "stderr", "n_test", "distinct_score", "distinct_stderr")),
        *(f"fidelity.{name}" for name in ("copy_rate", "distinct_share", "n_distinct", "zero_share", "mean_packets")),
    ]
    assert not [group + key for group in groups for key in keys if group + key not in judged]
    for group in ("", "reference.bootstrap.", "reference.marginals."):
        assert f"{group}discriminative.held_out_score" in judged
    assert all(type(value) in (int, float) and np.isfinite(value) for value in judged.values())
    assert judged["data.n_train"] == 400
    assert judged["data.n_test"] == 120
    assert judged["utility.per_class.a.0.n_test"] + judged["utility.per_class.a.1.n_test"] < 120
    assert 0 <= judged["utility.per_class.a.2.f1_synthetic"] <= 1


def test_the_judgement_agrees_with_its_parts(sets, judged):
    train, test, synthetic = sets["train"], sets["test"], sets["synthetic"]
    parts = {"utility": evaluate.utility, "augmentation": evaluate.augmentation}
    for group, function in parts.items():
        for name, value in function(train, synthetic, test, params=FAST).items():
            assert judged[f"{group}.{name}"] == value
    for name, value in evaluate.discriminative_score(train, sets["held_out"], params=FAST).items():
        assert judged[f"reference.fresh_real.discriminative.{name}"] == value
    assert judged["reference.bootstrap.fidelity.copy_rate"] == 1.0
    first, second = evaluate.halves(train)
    fresh = evaluate.utility(first, second, test, params=FAST)
    assert judged["reference.fresh_real.utility.macro_f1_gap"] == fresh["macro_f1_gap"]
    gain = evaluate.augmentation(first, second, test, params=FAST)["weighted_f1_gain"]
    assert judged["reference.fresh_real.augmentation.weighted_f1_gain"] == pytest.approx(gain, abs=0.05)


def test_repeated_test_flows_count_once_in_the_distinct_figures(sets, judged):
    test = sets["test"]
    distinct = {(int(label), row.tobytes()) for label, row in zip(test.label, test.signed_size)}
    assert judged["data.n_test_distinct"] == len(distinct) < len(test)
    again = evaluate.judge(**(sets | {"test": test[np.tile(np.arange(120), 2)], "references": {}}), params=FAST).figures
    for name in ("weighted_f1_gap", "macro_f1_real"):
        assert again[f"utility.distinct.{name}"] == judged[f"utility.distinct.{name}"]


def test_a_collapsed_generator_is_judged(sets):
    one = sets["synthetic"][np.zeros(400, int)]
    figures = evaluate.judge(**(sets | {"synthetic": one, "references": {}}), params=FAST).figures
    assert "discriminative.distinct_score" not in figures
    assert figures["fidelity.distinct_share"] < 0.01
    assert figures["utility.weighted_f1_gap"] < -0.3
    assert figures["discriminative.score"] > 0.4


def test_the_judge_refuses_what_does_not_fit(sets):
    with pytest.raises(ConfigError, match="fresh_real"):
        evaluate.judge(**(sets | {"references": {"fresh_real": sets["train"]}}))
    with pytest.raises(ConfigError, match="bootstrap holds no flows"):
        evaluate.judge(**(sets | {"references": {"bootstrap": sets["train"][:0]}}))
    with pytest.raises(ConfigError, match="5 flows"):
        evaluate.discriminative_score(np.ones((4, 2)), np.ones((9, 2)))
    with pytest.raises(ConfigError, match="NaN"):
        evaluate.discriminative_score(np.full((9, 2), np.nan), np.ones((9, 2)))
    with pytest.raises(ConfigError, match="features"):
        evaluate.discriminative_score(np.ones((9, 2)), np.ones((9, 3)))
    with pytest.raises(ConfigError, match="flow, feature"):
        evaluate.discriminative_score(np.ones(9), np.ones((9, 3)))


@pytest.mark.slow
def test_the_judge_takes_well_under_a_minute_on_a_real_size():
    train = templates(10000, 1, n_classes=25, length=30)
    started = time.perf_counter()
    evaluate.judge(
        train, templates(2000, 2, 25, 30), templates(1000, 3, 25, 30), train, references={"bootstrap": train}
    )
    assert time.perf_counter() - started < 60
