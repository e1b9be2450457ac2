"""Generators that are bad in one known way, each exposed by the figure that is there to expose it."""

import numpy as np
import pytest

from jaxtraffic import evaluate
from jaxtraffic.classify.scores import f1_per_class
from jaxtraffic.evaluate.train_on_synthetic import predict
from jaxtraffic.series import from_signed_size

FAST = {"n_estimators": 15, "nthread": 1}
LENGTH, CLASSES, N = 12, 4, 600


def traffic(seed):
    """Set-up traffic: a class has templates that repeat to the byte, some with one size that varies."""
    fixed = np.random.default_rng(99).integers(40, 1400, (CLASSES, 30, LENGTH))
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, N)
    size = fixed[label, rng.integers(0, 30, N)]
    varies = rng.random(N) < 0.5
    size[varies, 5] = rng.integers(40, 1400, varies.sum())
    signed = size * np.where(np.arange(LENGTH) % 2, -1, 1)
    signed[np.arange(LENGTH) >= rng.integers(8, LENGTH + 1, N)[:, None]] = 0
    return from_signed_size(signed, label, class_names=[f"c{i}" for i in range(CLASSES)])


@pytest.fixture(scope="module")
def train():
    return traffic(1)


@pytest.fixture(scope="module")
def held_out():
    return traffic(2)


@pytest.fixture(scope="module")
def good():
    """A perfect generator: the process itself."""
    return traffic(3)


def test_noise_of_half_a_byte_is_seen_by_density_and_the_discriminative_score(train, held_out):
    noisy = train.signed_size + np.random.default_rng(0).normal(0, 0.5, train.signed_size.shape)
    found, fresh = (evaluate.density(train.signed_size, rows)[0] for rows in (noisy, held_out.signed_size))
    # Zero padding is gone: every flow is as long as the longest, and a column with many zeros is off by half of them.
    assert found["js_length"] > 0.3 > 0.02 > fresh["js_length"]
    assert found["ks_complement"] < 0.92 < 0.94 < fresh["ks_complement"]
    # Half a byte of 1,400: distances between distributions in bytes do not see it.
    assert found["wasserstein"] < fresh["wasserstein"]
    score = evaluate.discriminative_score(train.signed_size, noisy, params=FAST)
    assert score["score"] > 8 * score["stderr"]
    # Nor does it leave a copy, where rounding would bring back those of flows with little noise.
    assert np.isin(noisy, train.signed_size).mean() == 0


def test_a_collapsed_class_is_seen_by_recall_and_its_own_f1(train, held_out, good):
    signed, first = good.signed_size.copy(), good.label == 0
    signed[first] = signed[np.flatnonzero(first)[0]]
    collapsed = from_signed_size(signed, good.label, class_names=good.class_names)
    found, fair = (evaluate.coverage(train, flows)[0] for flows in (collapsed, good))
    for name, least in {"coverage": 0.05, "beta_recall": 0.08, "used_share": 0.08}.items():
        assert found[name] < fair[name] - least
    assert found["precision"] > 0.97  # each generated flow is right, and precision knows no more
    f1 = f1_per_class(held_out.label, predict(collapsed, evaluate.features(held_out), 0, FAST))
    assert f1[0] < 0.6
    assert (
        evaluate.fidelity(train, collapsed)["distinct_share"] < evaluate.fidelity(train, good)["distinct_share"] - 0.1
    )


def test_a_copied_training_set_is_seen_by_privacy_and_not_by_utility(train, held_out, good):
    copied = train[np.random.default_rng(0).permutation(N)]
    found, fair = (evaluate.privacy(train, held_out, flows)[0] for flows in (copied, good))
    assert found["copy_rate"] == 1.0
    assert fair["copy_rate"] < 0.3
    assert found["closer_to_train"] > 0.85
    assert abs(fair["closer_to_train"] - 0.5) < 3 * fair["closer_to_train_stderr"]
    assert found["membership_auc"] > 0.85
    assert abs(fair["membership_auc"] - 0.5) < 3 * fair["membership_auc_stderr"]
    assert evaluate.coverage(train, copied)[0]["authenticity"] == 0.0
    assert evaluate.utility(train, copied, held_out, params=FAST)["macro_f1_gap"] == pytest.approx(0, abs=0.02)
    assert evaluate.discriminative_score(train, copied, params=FAST)["score"] < -0.1


def test_shuffled_labels_are_seen_by_utility_and_values_new_to_a_class_only(train, held_out, good):
    shuffled = good.replace(label=np.random.default_rng(0).permutation(good.label))
    assert evaluate.utility(train, shuffled, held_out, params=FAST)["macro_f1_gap"] < -0.5
    assert evaluate.utility(train, good, held_out, params=FAST)["macro_f1_gap"] > -0.05
    found, fair = (evaluate.support(train, flows)[0] for flows in (shuffled, good))
    assert found["new_value_share"] > fair["new_value_share"] + 0.2
    assert found["new_bigram_share"] == fair["new_bigram_share"]
    assert evaluate.coverage(train, shuffled) == evaluate.coverage(train, good)  # knows no labels
