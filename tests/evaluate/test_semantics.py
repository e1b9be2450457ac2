import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.semantics import handshake_violations, semantics
from jaxtraffic.series import from_signed_size

LENGTH = 6


def series(rows, labels=0, n_classes=2, layer="ip"):
    rows = np.array([list(row) + [0] * (LENGTH - len(row)) for row in rows])
    labels = np.broadcast_to(labels, len(rows))
    return from_signed_size(rows, labels, class_names=[f"c{i}" for i in range(n_classes)], size_layer=layer)


def random_series(seed, n, n_values=30, shift=0):
    rng = np.random.default_rng(seed)
    size = 40 + (rng.integers(0, n_values, (n, LENGTH)) * rng.integers(0, n_values, (n, LENGTH))) // n_values + shift
    rows = size * np.where(rng.random((n, LENGTH)) < 0.6, 1, -1) * (rng.random((n, LENGTH)) < 0.95)
    rows[np.arange(LENGTH) >= rng.integers(0, LENGTH + 1, n)[:, None]] = 0
    return series(rows, rng.integers(0, 2, n))


def packets(flows):
    """Signed sizes of each flow up to the last that is not zero, as lists."""
    for row in flows.signed_size.tolist():
        while row and row[-1] == 0:
            row.pop()
        yield row


def atoms_in_words(train, flows):
    counts = [Counter(itertools.chain.from_iterable(packets(side))) for side in (train, flows)]
    atoms = sorted(counts[0], key=lambda size: (-counts[0][size], size))[:20]
    return atoms, [[side[size] / side.total() for size in atoms] for side in counts]


@pytest.mark.parametrize("seed", range(3))
def test_distributions_agree_with_loops_and_scipy(seed):
    train, flows = random_series(seed, 80), random_series(seed + 50, 45, n_values=40)
    figures, curves = semantics(train, flows)
    atoms, shares = atoms_in_words(train, flows)
    assert len(atoms) == 20
    assert curves["atom_sizes"] == atoms
    assert curves["atom_real"] == pytest.approx(shares[0], abs=1e-12)
    assert curves["atom_synthetic"] == pytest.approx(shares[1], abs=1e-12)
    lumped = [[*side, 1 - sum(side)] for side in shares]
    assert figures["atom_distance"] == pytest.approx(np.abs(np.subtract(*lumped)).sum() / 2, abs=1e-12)
    runs = [
        [len(list(run)) for row in packets(side) for _, run in itertools.groupby(np.sign(row))]
        for side in (train, flows)
    ]
    lengths = [[len(row) for row in packets(side)] for side in (train, flows)]
    assert figures["run_length_wasserstein"] == pytest.approx(wasserstein_distance(*runs), abs=1e-12)
    assert figures["length_wasserstein"] == pytest.approx(wasserstein_distance(*lengths), abs=1e-12)
    for at, side in enumerate(("real", "synthetic")):
        expected = [np.mean(np.array(runs[at]) == n) for n in range(1, LENGTH + 1)]
        assert curves[f"run_lengths_{side}"] == pytest.approx(expected, abs=1e-12)
        expected = [np.mean(np.array(lengths[at]) == n) for n in range(LENGTH + 1)]
        assert curves[f"lengths_{side}"] == pytest.approx(expected, abs=1e-12)


def many_sizes():
    rng = np.random.default_rng(5)
    rows = [rng.integers(1, 46, (n, LENGTH)) * rng.integers(1, 46, (n, LENGTH)) // 45 for n in (60, 40)]
    return series(rows[0] + 1), series(rows[1] + 2)


def lumped(train, flows):
    """All packets of both sides, those that are no atom as 0."""
    atoms, _ = atoms_in_words(train, flows)
    return [np.where(np.isin(side.signed_size, atoms), side.signed_size, 0).ravel() for side in (train, flows)]


# sdmetrics 0.32.0 in a venv of its own: 1 - TVComplement.compute(*lumped(*many_sizes()))
SDMETRICS_TV = 0.19444444444444442


def test_atom_distance_is_the_total_variation_of_sdmetrics():
    assert semantics(*many_sizes())[0]["atom_distance"] == pytest.approx(SDMETRICS_TV, abs=1e-12)


def test_sdmetrics_says_the_same():
    pytest.importorskip("sdmetrics")
    from sdmetrics.single_column import TVComplement

    assert 1 - TVComplement.compute(*lumped(*many_sizes())) == pytest.approx(SDMETRICS_TV, abs=1e-12)


def test_the_training_set_itself_has_no_fault_and_no_distance():
    for seed in range(3):
        train = random_series(seed, 60)
        figures, _ = semantics(train, train)
        assert figures.pop("zero_inside_share") > 0
        assert set(figures.values()) == {0}


HANDSHAKES = [[60, -60, 52, 300], [52, -52, 40, 200], [60, -52, 40, 100]]


def violations(flows, train=None):
    train = series(HANDSHAKES) if train is None else train
    return handshake_violations(train, flows)[0].tolist()


def test_handshakes_are_judged_as_a_whole():
    good = [[60, -60, 52, 77], [52, -52, 40], [60, -52, 40, -40, -40]]
    assert violations(series(good)) == [False] * 3
    # an ACK without the options agreed on, a size one byte off, other directions, too few packets
    bad = [[60, -60, 40], [61, -60, 52], [60, 60, 52], [-60, 60, -52], [60, -60], [], [60, 0, 52], [300, 1, 1]]
    assert violations(series(bad)) == [True] * len(bad)
    # a value in another place is no carry into the next
    assert violations(series([[60, -61, 52], [59, -60, 52], [59, -58, 52], [60, -60, 51], [60, -60, 53]])) == [True] * 5


def test_a_handshake_of_another_class_is_one():
    train = series([*HANDSHAKES, [44, -44, 40]], [0, 0, 0, 1])
    assert violations(series([[44, -44, 40]]), train) == [False]
    figures, _ = semantics(train, series([[44, -44, 40], [44, -44, 44]]))
    assert (figures["handshake_violation_share"], figures["handshake_classes"]) == (0.5, 2)


def test_the_rest_of_a_class_may_begin_as_it_did_in_training():
    train = series(HANDSHAKES * 3 + [[334, 334, 343], [74, -78, 126]], [0] * 10 + [1])
    flows = [[334, 334, 343, 9], [334, 334, 344], [74, -78, 126]]
    assert violations(series(flows), train) == [False, True, True]


def test_only_classes_that_keep_the_handshake_are_judged():
    # nine of ten flows are just enough
    for n_others, keeps in ((1, 1), (2, 0)):
        train = series(HANDSHAKES * 3 + [[334, 334, 343]] * n_others + [[1, 2, 3]], [0] * (9 + n_others) + [1])
        figures, _ = semantics(train, series([[9, 9, 9], [9, 9, 9]], [0, 1]))
        assert figures["handshake_classes"] == keeps
        assert figures.get("handshake_violation_share") == (1 if keeps else None)
        assert figures["impossible_share"] == keeps / 2
    train = series(HANDSHAKES + [[1, 2, 3]], [0, 0, 0, 1])
    # no flow of such a class to judge
    figures, _ = semantics(train, series([[9, 9, 9]], [1]))
    assert (figures["handshake_classes"], "handshake_violation_share" in figures) == (1, False)
    # a class without training flows keeps nothing
    assert violations(series([[9, 9, 9]], [1]), series(HANDSHAKES)) == [False]


@pytest.mark.parametrize(
    "begin",
    [[62, -60, 52], [60, -62, 52], [60, -60, 50], [36, -60, 52], [60, -36, 36], [104, -60, 52], [60, -104, 52]]
    + [[60, -60, 64], [84, -84, 84], [60, 60, 52], [-60, -60, 52], [60, -60, -52], [60, -60, 36], [0, 0, 40]],
    ids=str,
)
def test_what_is_no_handshake_is_not_taken_for_one(begin):
    train = series([begin + [100]] * 3)
    assert semantics(train, train)[0]["handshake_classes"] == 0


def test_handshakes_of_ipv6_are_handshakes():
    train = series([[80, -80, 72], [100, -100, 80], [40, -40, 40]])
    assert semantics(train, train)[0]["handshake_classes"] == 1


def test_series_too_short_for_a_handshake():
    train = series([[60, -60]])
    short = from_signed_size(train.signed_size[:, :2], train.label, class_names=train.class_names)
    figures, _ = semantics(short, short)
    assert figures["handshake_classes"] == 0
    assert "handshake_violation_share" not in figures


def test_sizes_over_the_limit():
    flows = series([[1501], [1500], [-1501], [40, 40, 2000], [1461], [-1460]])
    assert semantics(series([[900]]), flows)[0]["over_mtu_share"] == pytest.approx(3 / 6)
    # segments joined by the network card were captured so
    assert semantics(series([[-2000]]), flows)[0]["over_mtu_share"] == 0
    assert semantics(series([[900]], layer="payload"), flows)[0]["over_mtu_share"] == pytest.approx(5 / 6)
    assert semantics(series([[-1461]], layer="payload"), flows)[0]["over_mtu_share"] == pytest.approx(4 / 6)
    figures, _ = semantics(series([[900]]), series([[np.iinfo(np.int16).min + 1], [5]]))
    assert (figures["over_mtu_share"], figures["impossible_share"]) == (0.5, 0.5)


def test_zeros_inside_are_impossible_where_training_has_none():
    flows = series([[60, 0, 60], [60, 60], [60], [0, 60]])
    figures, _ = semantics(series([[60, 60], [60]]), flows)
    assert (figures["zero_inside_share"], figures["impossible_share"]) == (0.5, 0.5)
    figures, _ = semantics(series([[60, 0, 60], [60]]), flows)
    assert (figures["zero_inside_share"], figures["impossible_share"]) == (0.5, 0)


def test_flows_without_packets_are_impossible_where_training_has_none():
    assert semantics(series([[60]]), series([[], [60]]))[0]["impossible_share"] == 0.5
    assert semantics(series([[60], []]), series([[], [60]]))[0]["impossible_share"] == 0


def test_a_flow_with_several_faults_counts_once():
    figures, _ = semantics(series(HANDSHAKES), series([[2000, 0, 2000], [60, -60, 52]]))
    names = ("impossible_share", "zero_inside_share", "over_mtu_share", "handshake_violation_share")
    assert [figures[name] for name in names] == [0.5] * 4


def test_sets_without_any_packet():
    train, empty = series([[60, 60, -60]]), series([[], []])
    figures, curves = semantics(train, empty)
    assert (figures["atom_distance"], figures["length_wasserstein"]) == (1, 3)
    # runs of 2 and 1 against none
    assert figures["run_length_wasserstein"] == pytest.approx(1.5)
    assert curves["run_lengths_synthetic"] == [0] * LENGTH
    figures, curves = semantics(empty, train)
    assert (figures["atom_distance"], curves["atom_sizes"]) == (0, [])
    assert semantics(empty, empty)[0]["run_length_wasserstein"] == 0


def test_frequent_sizes_that_were_smeared_are_seen():
    rng = np.random.default_rng(0)
    rows = rng.choice([52, -52, 1448, -1448, 333], (200, LENGTH))
    smeared = np.where(rng.random(rows.shape) < 0.5, rows + rng.integers(1, 9, rows.shape), rows)
    assert semantics(series(rows), series(smeared))[0]["atom_distance"] == pytest.approx(0.5, abs=0.05)
    assert semantics(series(rows), series(rng.permutation(rows)))[0]["atom_distance"] == 0


def test_runs_of_direction_are_seen():
    there_and_back = np.tile([60, -60], (50, LENGTH // 2))
    in_blocks = np.repeat([[60, -60]], LENGTH // 2, axis=1).repeat(50, axis=0)
    figures, curves = semantics(series(there_and_back), series(in_blocks))
    assert (figures["atom_distance"], figures["length_wasserstein"]) == (0, 0)
    assert figures["run_length_wasserstein"] == LENGTH // 2 - 1
    assert curves["run_lengths_real"][0] == curves["run_lengths_synthetic"][LENGTH // 2 - 1] == 1


def test_what_cannot_be_compared_is_refused():
    train = series([[60, -60]])
    other_classes, none = series([[60]], n_classes=3), train[np.array([], int)]
    for wrong in (train.signed_size, other_classes, none):
        for pair in ((train, wrong), (wrong, train)):
            with pytest.raises(ConfigError):
                semantics(*pair)
