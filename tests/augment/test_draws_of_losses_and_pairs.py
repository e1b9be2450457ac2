"""The laws of lost packets, of orders and of CutMix's pairs. Fixed seeds; every test has to reach p > 1e-4."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.augment import flows
from tests.augment.laws import DRAWS, SMALLEST_P, coded, draw, equally_often, frequencies, rate, uncorrelated, uniform
from tests.reference.augmentations import SAMPLE


@pytest.mark.parametrize("name", ["dup_fast_retransmit", "perm_fast_retransmit"])
def test_single_losses_are_independent(name):
    for alpha in (0.2, 1.0):
        lost = draw(name, alpha, n=16)[0]["lost"]
        assert not lost[:, 16:].any()
        p = 0.1 * alpha
        rate(lost[:, :16], p)
        odds = {0: (1 - p) ** 2, 1: p * (1 - p), 2: p * (1 - p), 3: p * p}
        frequencies(lost[:, 0:16:2] + 2 * lost[:, 1:16:2], odds)
        frequencies(lost[:, 1:15:2] + 2 * lost[:, 2:16:2], odds)
    spared = draw(name, 1.0, first=2)[0]["lost"]
    assert not spared[:, :2].any()
    rate(spared[:, 2:], 0.1)


def run_lengths(lost, after):
    """Length of the first run of losses, of flows that begin it early enough not to be cut."""
    begins = np.where(lost.any(axis=1), lost.argmax(axis=1), flows.T)
    lost, begins = lost[begins <= flows.T - after], begins[begins <= flows.T - after]
    rolled = np.take_along_axis(lost, np.minimum(begins[:, None] + np.arange(after), flows.T - 1), axis=1)
    return np.where(rolled.all(axis=1), after, (~rolled).argmax(axis=1))


@pytest.mark.parametrize("name", ["dup_rto", "perm_rto"])
@pytest.mark.parametrize("alpha,lmin,lmax", [(1.0, 2, 6), (0.4, 2, 6), (1.0, 1, 3), (1.0, 4, 4)])
def test_bursts_start_at_the_rate_and_last_uniformly(name, alpha, lmin, lmax):
    options = {} if (lmin, lmax) == (2, 6) else {"lmin": lmin, "lmax": lmax}
    lost, p = draw(name, alpha, **options)[0]["lost"], 0.1 * alpha
    begins = np.where(lost.any(axis=1), lost.argmax(axis=1), flows.T)
    start = {t: p * (1 - p) ** t for t in range(flows.T)}
    frequencies(begins, {**start, flows.T: (1 - p) ** flows.T})
    # A run is a burst, and w.p. p another one right behind it.
    after, run = 10, np.zeros(10)
    for r in range(1, after):
        for length in range(lmin, min(lmax, r) + 1):
            run[r] += ((1 - p) if length == r else p * run_any(r - length, lmin, lmax, p)) / (lmax - lmin + 1)
    odds = {r: run[r] for r in range(after) if run[r]}
    rest = 1 - sum(odds.values())
    frequencies(run_lengths(lost, after), {**odds, after: rest} if rest > 1e-9 else odds)


def run_any(r, lmin, lmax, p):
    """Probability that a run that has just begun a burst lasts exactly r packets."""
    total = 0.0
    for length in range(lmin, min(lmax, r) + 1):
        total += ((1 - p) if length == r else p * run_any(r - length, lmin, lmax, p)) / (lmax - lmin + 1)
    return total


@pytest.mark.parametrize("n", [flows.T, 9])
def test_burst_masks_have_the_law_of_the_sequential_definition(n):
    lost = draw("dup_rto", 1.0, n=n)[0]["lost"]
    assert not lost[:, n:].any()
    rng, mask = np.random.default_rng(0), np.arange(flows.T) < n
    loops = np.stack([SAMPLE["dup_rto"](rng, mask, 1.0)["lost"] for _ in range(DRAWS)])
    for summary in (
        lambda lost: lost.sum(axis=1),
        lambda lost: lost[:, n - 8 : n] @ (1 << np.arange(8)),
        lambda lost: (
            (lost[:, 1:] & ~lost[:, :-1]).sum(axis=1) * flows.T + lost[:, n - 1] * 10 + lost[:, :3].sum(axis=1)
        ),
    ):
        ours, theirs = summary(lost), summary(loops)
        values = np.unique(np.concatenate([ours, theirs]))
        table = np.array([[np.sum(side == value) for value in values] for side in (ours, theirs)])
        rare = table.sum(axis=0) < 20
        table = np.concatenate([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)], axis=1)
        table = table[:, table.sum(axis=0) > 0]
        assert stats.chi2_contingency(table).pvalue > SMALLEST_P


@pytest.mark.parametrize("name", ["dup_rto", "perm_rto"])
def test_first_packets_are_exempt_from_bursts(name):
    lost = draw(name, 1.0, first=2)[0]["lost"]
    assert not lost[:, :2].any()
    begins = lost.argmax(axis=1)
    rate(begins[lost.any(axis=1)] >= 2, 1.0)
    rate(lost[:, 2], 0.1)
    rate(lost[:, 3], 0.1 + 0.9 * 0.1)


def test_packet_loss_window():
    for alpha in (0.0, 0.5, 1.0):
        params, _ = draw("packet_loss", alpha)
        uniform(params["u"], 0, 1)
        np.testing.assert_allclose(params["half_width"], 0.05 + 0.1 * alpha, rtol=1e-6)
        seconds, _ = draw("packet_loss", alpha, mode="seconds")
        np.testing.assert_allclose(seconds["half_width"], 5 + 10 * alpha, rtol=1e-6)


def test_shuffle_is_uniform_over_permutations():
    for n in (0, 1, 4, flows.T):
        order = draw("shuffle", n=n)[0]["order"]
        assert (order[:, n:] == np.arange(n, flows.T)).all() and (np.sort(order) == np.arange(flows.T)).all()
        if n == 4:
            possible = [coded(values, (4,) * 4) for values in itertools.permutations(range(4))]
            equally_often(coded(order[:, :4].T, (4,) * 4), possible)
        if n == flows.T:
            for j in (0, 7, n - 1):
                equally_often(order[:, j], range(n))
            equally_often(
                coded((order[:, 3], order[:, 4]), (n, n)), [n * a + b for a, b in itertools.permutations(range(n), 2)]
            )


def cutmix_draws(count, length, label=None, **options):
    op, mask = flows.operation("cutmix", **options), jnp.ones((count, length), bool)
    sample = jax.jit(jax.vmap(lambda key: op.sample(key, mask, label=label)))
    return flows.as_numpy(sample(flows.keys(DRAWS)))


def matchings(rows):
    """All ways to pair rows up, as tuples of partners; one row is left alone if their number is odd."""
    if len(rows) < 2:
        return [{row: row for row in rows}]
    found = []
    first, others = rows[0], rows[1:]
    for other in others:
        rest = [row for row in others if row != other]
        found += [{first: other, other: first, **pairs} for pairs in matchings(rest)]
    if len(rows) % 2:
        found += [{first: first, **pairs} for pairs in matchings(others)]
    return found


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_cutmix_pairs_uniformly(count):
    params = cutmix_draws(count, 4)
    partner = params["partner"]
    assert (np.take_along_axis(partner, partner, axis=1) == np.arange(count)).all()
    assert ((partner == np.arange(count)).sum(axis=1) == count % 2).all()
    pairings = [coded([pairs[i] for i in range(count)], (count,) * count) for pairs in matchings(list(range(count)))]
    equally_often(coded(partner.T, (count,) * count), pairings)
    alone = partner == np.arange(count)
    np.testing.assert_allclose(params["lam"], np.where(alone, 1, 1 - params["width"] / 4), rtol=1e-6)
    for name in ("width", "start"):
        assert (np.take_along_axis(params[name], partner, axis=1) == params[name]).all()


@pytest.mark.parametrize("literal", [False, True])
def test_cutmix_window(literal):
    length = 4
    params = cutmix_draws(4, length, **({"literal": True} if literal else {}))
    width, start = params["width"][:, 0], params["start"][:, 0]
    equally_often(width, range(length))
    for w in range(length):
        equally_often(start[width == w], range(length - w if literal else length - w + 1))
    other = (params["partner"] != 0) & (np.arange(4) != 0)
    j = other.argmax(axis=1)
    uncorrelated(width, params["width"][np.arange(DRAWS), j])


def test_cutmix_within_class():
    label = np.int32([0, 1, 0, 2, 1, 0, 1, 1])
    partner = cutmix_draws(8, 4, label=jnp.asarray(label), within_class=True)["partner"]
    assert (label[partner] == label).all()
    assert (np.take_along_axis(partner, partner, axis=1) == np.arange(8)).all()
    assert (partner[:, 3] == 3).all()
    equally_often(partner[:, 0], [0, 2, 5])
    equally_often(partner[:, 1], [4, 6, 7])
