import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.privacy import privacy
from jaxtraffic.series import from_signed_size

D = 6
"""Columns of all rows here, since distances are compiled for their number."""


def draws(seed=0, sizes=(40, 40, 50), n_values=3):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, n_values, (n, D)) for n in sizes]


def on_a_line(values):
    """Rows that differ in one column only."""
    return np.pad(np.array(values)[:, None], ((0, 0), (0, D - 1)))


def in_words(train, holdout, synthetic):
    """The definition for a hold-out as large as the training set."""
    to_train, to_holdout = (cdist(synthetic, side).min(axis=1) for side in (train, holdout))
    score = np.where(to_train == to_holdout, 0.5, to_train < to_holdout)
    attack = [-cdist(side, synthetic).min(axis=1) for side in (train, holdout)]
    member = np.repeat([1, 0], [len(train), len(holdout)])
    return {
        "closer_to_train": score.mean(),
        "closer_to_train_strict": (to_train < to_holdout).mean(),
        "tie_share": (to_train == to_holdout).mean(),
        "copy_rate": np.mean([(row == train).all(axis=1).any() for row in synthetic]),
        "holdout_copy_rate": np.mean([(row == holdout).all(axis=1).any() for row in synthetic]),
        "membership_auc": roc_auc_score(member, np.concatenate(attack)),
        "n": len(train),
    }


def test_agrees_with_loops_scipy_and_scikit_learn():
    train, holdout, synthetic = draws()
    figures, curves = privacy(train, holdout, synthetic)
    expected = in_words(train, holdout, synthetic)
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert min(expected.values()) > 0
    for side, name in ((train, "train"), (holdout, "holdout")):
        distance = cdist(synthetic, side).min(axis=1)
        quantiles = np.percentile(distance, range(101))
        assert curves[f"distance_to_{name}_quantiles"] == pytest.approx(quantiles.tolist(), abs=1e-12)
        assert quantiles[-1] > 1


def binary():
    """Columns of 0 and 1, where the L1 distance over the range orders as the Euclidean one; half the flows copied."""
    rng = np.random.default_rng(3)
    train, holdout, synthetic = (rng.integers(0, 2, (n, D)) for n in (40, 40, 50))
    synthetic[:20] = train[:20]
    return train, holdout, synthetic


def one_column():
    """One column that is not constant, of one range, where all distances order alike."""
    rng = np.random.default_rng(4)
    train, holdout, synthetic = (rng.integers(0, 200, n) for n in (40, 40, 50))
    train[:2] = holdout[:2] = 0, 200
    return on_a_line(train), on_a_line(holdout), on_a_line(synthetic)


def of_sdmetrics(train, holdout, synthetic):
    import pandas
    from sdmetrics.single_table import DCROverfittingProtection

    names = [str(i) for i in range(train.shape[1])]
    frames = [pandas.DataFrame(side, columns=names) for side in (train, synthetic, holdout)]
    metadata = {"tables": {"table": {"columns": {name: {"sdtype": "numerical"} for name in names}}}}
    found = DCROverfittingProtection.compute_breakdown(*frames, metadata, "table")
    return found["synthetic_data_percentages"]["closer_to_training"]


# of_sdmetrics with sdmetrics 0.32.0 in a venv of its own
SDMETRICS_CLOSER = [(binary, 0.3), (one_column, 0.46)]


@pytest.mark.parametrize(("make", "golden"), SDMETRICS_CLOSER)
def test_the_strict_share_is_that_of_sdmetrics(make, golden):
    figures, _ = privacy(*make())
    assert figures["closer_to_train_strict"] == pytest.approx(golden, abs=1e-12)
    # ties hide that copies are there
    assert figures["tie_share"] > 0.1
    assert figures["closer_to_train"] == pytest.approx(golden + figures["tie_share"] / 2, abs=1e-12)


@pytest.mark.parametrize(("make", "golden"), SDMETRICS_CLOSER)
def test_sdmetrics_says_the_same(make, golden):
    pytest.importorskip("sdmetrics")
    assert of_sdmetrics(*make()) == pytest.approx(golden, abs=1e-12)


def test_copies_are_exposed_and_fresh_flows_are_not():
    train, holdout, fresh = draws(n_values=1500)
    figures, curves = privacy(train, holdout, train)
    for name in ("closer_to_train", "closer_to_train_strict", "copy_rate", "membership_auc"):
        assert figures[name] == 1
    assert (figures["holdout_copy_rate"], figures["tie_share"]) == (0, 0)
    assert set(curves["distance_to_train_quantiles"]) == {0}
    # noise of a few bytes hides copies from the copy rate only
    figures, _ = privacy(train, holdout, train + 3)
    assert (figures["copy_rate"], figures["closer_to_train"], figures["membership_auc"]) == (0, 1, 1)
    figures, _ = privacy(train, holdout, fresh)
    for name in ("closer_to_train", "membership_auc"):
        assert abs(figures[name] - 0.5) < 4 * figures[f"{name}_stderr"] < 0.4
    # turned round, the hold-out is what was copied
    figures, _ = privacy(train, holdout, holdout)
    assert (figures["closer_to_train"], figures["membership_auc"], figures["holdout_copy_rate"]) == (0, 0, 1)


def test_duplicates_on_both_sides_are_ties():
    train = np.repeat([[60, -60, 52, 0, 0, 0]], 40, axis=0)
    figures, _ = privacy(train, train, train)
    assert (figures["closer_to_train"], figures["closer_to_train_strict"], figures["tie_share"]) == (0.5, 0, 1)
    assert (figures["copy_rate"], figures["holdout_copy_rate"], figures["membership_auc"]) == (1, 1, 0.5)
    assert figures["closer_to_train_stderr"] == figures["membership_auc_stderr"] == 0


def test_standard_errors_are_those_of_all_ways_to_split_the_real_flows():
    # distances without ties; the records win 2, 1, 1, 0, 1 and 2 flows
    real = on_a_line([0, 100, 211, 350, 461, 1000])
    synthetic = on_a_line([2, -5, 103, 200, 470, 989, 1018])
    assert np.bincount(cdist(synthetic, real).argmin(axis=1)).tolist() == [2, 1, 1, 0, 1, 2]
    splits = [np.array(chosen) for chosen in itertools.combinations(range(6), 3)]
    found = [privacy(real[part], np.delete(real, part, axis=0), synthetic)[0] for part in splits]
    for name in ("closer_to_train", "membership_auc"):
        spread = np.std([figures[name] for figures in found])
        claimed = [figures[f"{name}_stderr"] for figures in found]
        assert spread > 0.1
        assert claimed == pytest.approx([spread] * len(found), abs=1e-12)
        assert np.mean([figures[name] for figures in found]) == pytest.approx(0.5, abs=1e-12)


def test_flows_that_share_a_record_are_one_observation():
    together = privacy(on_a_line([0]), on_a_line([1000]), on_a_line([1, 2, 3, 4]))[0]
    assert (together["closer_to_train"], together["closer_to_train_stderr"]) == (1, 0.5)


@pytest.mark.parametrize("sizes", [(60, 25, 30), (25, 60, 30)])
def test_the_larger_real_set_is_drawn_down(sizes):
    train, holdout, synthetic = draws(1, sizes, n_values=1500)
    figures, _ = privacy(train, holdout, synthetic, seed=0)
    assert figures["n"] == 25
    assert figures == privacy(train, holdout, synthetic, seed=0)[0]
    others = [privacy(train, holdout, synthetic, seed=seed)[0]["closer_to_train"] for seed in range(1, 7)]
    assert len({figures["closer_to_train"], *others}) > 1
    # without the draw the larger set would be nearer, for 60 of 85 flows on average
    assert np.mean([figures["closer_to_train"], *others]) == pytest.approx(0.5, abs=0.15)
    # a draw without replacement: a hold-out that is the whole set ties with itself
    assert privacy(train, train, synthetic)[0]["tie_share"] == 1


def test_numbers_and_series():
    train, holdout, synthetic = draws(2, n_values=1500)
    series = [from_signed_size(side, np.zeros(len(side), int), class_names=["a"]) for side in (train, holdout)]
    assert privacy(*series, synthetic) == privacy(train, holdout, synthetic)
    halved = privacy(train / 2, holdout / 2, synthetic / 2)
    whole = privacy(train, holdout, synthetic)
    assert halved[0] == whole[0]
    quantiles = [np.array(curves["distance_to_train_quantiles"]) for _, curves in (halved, whole)]
    np.testing.assert_allclose(2 * quantiles[0], quantiles[1], rtol=1e-12)


def test_single_flows():
    figures, curves = privacy(on_a_line([3]), on_a_line([9]), on_a_line([5]))
    assert (figures["closer_to_train"], figures["membership_auc"], figures["n"]) == (1, 1, 1)
    assert curves["distance_to_train_quantiles"] == [2] * 101
    assert curves["distance_to_holdout_quantiles"] == [4] * 101


def test_rows_that_are_none_are_refused():
    good = draws()
    for at, wrong in itertools.product(range(3), ([[np.nan] * D], np.ones((0, D)), np.ones((4, D - 1)), [1, 2])):
        sides = [wrong if i == at else side for i, side in enumerate(good)]
        with pytest.raises(ConfigError):
            privacy(*sides)
