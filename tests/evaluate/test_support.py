import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.support import support, zeros_inside
from jaxtraffic.series import from_signed_size

NAMES = ("a", "b", "c")


def series(rows, labels=None, names=NAMES):
    return from_signed_size(np.array(rows), [0] * len(rows) if labels is None else labels, class_names=names)


def shares(train, flows):
    figures, curves = support(train, flows)
    assert curves == {}
    return tuple(figures[name] for name in ("new_bigram_share", "new_value_share", "zero_inside_share"))


def random_series(seed, n, n_values=5, length=6):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-n_values, n_values, (n, length)) * 300
    rows[np.arange(length) >= rng.integers(0, length + 1, n)[:, None]] = 0
    return series(rows, rng.integers(0, len(NAMES), n))


def in_words(train, flows):
    """The definition in sets and loops."""

    def packets(row):
        row = list(row)
        while row and row[-1] == 0:
            row.pop()
        return row

    pairs, values = set(), set()
    for row, label in zip(train.signed_size.tolist(), train.label.tolist(), strict=True):
        pairs |= set(zip(packets(row), packets(row)[1:], strict=False))
        values |= {(label, at, value) for at, value in enumerate(row)}
    counts = np.zeros(3)
    for row, label in zip(flows.signed_size.tolist(), flows.label.tolist(), strict=True):
        counts[0] += any(pair not in pairs for pair in zip(packets(row), packets(row)[1:], strict=False))
        counts[1] += any((label, at, value) not in values for at, value in enumerate(row))
        counts[2] += 0 in packets(row)
    return tuple(counts / len(flows))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_sets_and_loops(seed):
    train, flows = random_series(seed, 25), random_series(seed + 100, 60)
    expected = in_words(train, flows)
    assert all(0.05 < share < 0.95 for share in expected)
    assert shares(train, flows) == pytest.approx(expected, abs=1e-12)


def test_training_flows_have_nothing_new():
    train = random_series(0, 40)
    assert shares(train, train)[:2] == (0, 0)
    assert shares(train, train[np.array([3, 3, 3])])[:2] == (0, 0)


def test_values_of_a_class_at_other_places_are_new_pairs_and_not_new_values():
    train = series([[60, -60, 52], [40, -1500, 40]])
    mixed = series([[60, -1500, 52]])
    assert shares(train, mixed) == (1, 0, 0)
    # the same pairs one packet later: new values, and no new pair
    assert shares(series([[60, -60, 52, 0], [52, 1, 0, 0]]), series([[-60, 52, 1, 0]])) == (0, 1, 0)


def test_pairs_are_of_the_whole_set_and_values_of_the_class():
    train = series([[60, -60], [40, -40]], [0, 1])
    assert shares(train, series([[40, -40]], [0])) == (0, 1, 0)
    # class c has no training flow
    assert shares(train, series([[40, -40], [40, -40]], [2, 1])) == (0, 0.5, 0)


def test_an_end_is_a_value_and_no_pair():
    train = series([[60, -60, 52]])
    assert shares(train, series([[60, -60, 0], [60, -60, 52]])) == (0, 0.5, 0)
    assert shares(train, series([[60, 0, 0]])) == (0, 1, 0)
    assert shares(train, series([[0, 0, 0]])) == (0, 1, 0)


def test_zeros_inside():
    rows = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 2], [0, 0, -1], [1, 2, 3]])
    assert zeros_inside(rows).tolist() == [False, False, True, True, False]
    train = series([[60, -60, 52]])
    assert shares(train, series([[60, 0, 52], [0, 0, 52], [60, -60, 52], [60, -60, 0]])) == (0.5, 0.75, 0.5)


def test_neighbouring_sizes_do_not_share_a_key():
    edge = np.iinfo(np.int16)
    train = series([[1, edge.max]])
    for other in ([2, edge.min + 1], [33, 767], [1, edge.max - 1], [0, edge.max], [-1, edge.max]):
        assert shares(train, series([other]))[:2] == (1, 1)


def test_single_packets_have_no_pairs():
    assert shares(series([[60]]), series([[52], [60]])) == (0, 0.5, 0)
    assert shares(series([[60, 0]]), series([[60, 52]])) == (1, 1, 0)


def test_what_cannot_be_compared_is_refused():
    train = series([[60, -60]])
    for wrong in (
        np.array([[60, -60]]),
        series([[60, -60]], names=("a", "c", "b")),
        series([[60, -60, 52]]),
        train[np.array([], int)],
    ):
        with pytest.raises(ConfigError):
            support(train, wrong)
        with pytest.raises(ConfigError):
            support(wrong, train)
