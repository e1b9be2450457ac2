"""The laws of the draws of operations on one flow. Seeds are fixed; every test of a law has to reach p > 1e-4."""

import itertools
import math
from fractions import Fraction

import jax
import numpy as np
import pytest
from scipy import stats

from tests.augment import flows
from tests.augment.laws import (
    DRAWS,
    FLAT_STD,
    SMALLEST_P,
    coded,
    draw,
    equally_often,
    follows,
    frequencies,
    rate,
    uncorrelated,
    uniform,
)


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_gaussian_noise_has_variance_alpha_sigma_squared(alpha):
    params, std = draw("gaussian_noise", alpha, features="both")
    z = params["noise"] / (np.sqrt(alpha) * std)
    follows(z, "norm")
    total = np.sum(z.astype(np.float64) ** 2)
    assert 2 * min(stats.chi2.cdf(total, z.size), stats.chi2.sf(total, z.size)) > SMALLEST_P
    each = np.sum(z.astype(np.float64) ** 2, axis=0)
    assert 80 * min(stats.chi2.cdf(each, DRAWS).min(), stats.chi2.sf(each, DRAWS).min()) > SMALLEST_P
    uncorrelated(z[..., 0], z[..., 1])
    uncorrelated(z[..., 0] ** 2, z[..., 1] ** 2)
    uncorrelated(z[:, :-1], z[:, 1:])
    uncorrelated(z[:-1], z[1:])
    assert 4.2 < np.abs(z).max() < 7, "sixteen bits a value end at 4.32; 800,000 exact ones reach 4.9"


def test_gaussian_wrapup_factor():
    for alpha in (0.3, 1.0):
        params, std = draw("gaussian_wrapup", alpha, features="both")
        z = (params["factor"].astype(np.float64) - (1 + 0.01 * alpha)) / (np.sqrt(0.02 * alpha) * std)
        follows(z, "norm")
        uncorrelated(z[..., 0], z[..., 1])
        uncorrelated(z[:, :-1], z[:, 1:])


def test_spike_noise_draws():
    params, std = draw("spike_noise", 0.36, features="both")
    assert params["noise"].shape == params["u"].shape == (DRAWS, 3, 2)
    np.testing.assert_allclose(params["scale"], np.broadcast_to(0.6 * std, params["scale"].shape), rtol=1e-6)
    follows(params["noise"], "norm")
    uniform(params["u"], 0, 1)
    assert params["u"].max() < 1
    uncorrelated(params["u"], params["noise"])
    uncorrelated(params["noise"][..., 0], params["noise"][..., 1])
    uncorrelated(params["u"][..., 0], params["u"][..., 1])
    uncorrelated(params["u"][:, 0], params["u"][:, 1])


@pytest.mark.parametrize("most", [1, 3])
def test_spikes_hit_distinct_nonzero_packets_uniformly(most):
    params, _ = draw("spike_noise", 1.0, n=8, seed=1, max_spikes=most, features="both")
    x = np.zeros((DRAWS, flows.T, 3), np.float32)
    x[..., 0] = 0.5
    x[:, [1, 4], 0] = 0
    x[:, [2, 3], 2] = 0.5
    mask = np.broadcast_to(np.arange(flows.T) < 8, (DRAWS, flows.T))
    op = flows.operation("spike_noise", max_spikes=most, clip=None)
    out, _ = jax.jit(jax.vmap(op.apply), compiler_options=flows.QUICKLY)(x, mask, params)
    hit = np.asarray(out) != x
    size = hit[..., 0]
    assert (size.sum(axis=1) == most).all() and not hit[..., 1].any() and not size[:, [1, 4]].any()
    assert not size[:, 8:].any() and (hit[..., 2].sum(axis=1) == min(most, 2)).all()
    places = itertools.combinations([0, 2, 3, 5, 6, 7], most)
    equally_often(size[:, :8] @ (1 << np.arange(8)), [sum(1 << t for t in place) for place in places])
    equally_often(hit[:, 2, 2] + 2 * hit[:, 3, 2], [1, 2] if most == 1 else [3])
    rate((np.asarray(out) - x)[hit] > 0, 0.5)


def test_sine_wrapup_has_one_uniform_phase_a_flow():
    alpha = 0.7
    params, _ = draw("sine_wrapup", alpha, features="both")
    angle = 4 * np.pi * np.arange(flows.T) / flows.T
    basis = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    phases = []
    for d, flat in enumerate((FLAT_STD, 2 * FLAT_STD)):
        wave = (params["factor"][..., d].astype(np.float64) - 1) / (0.02 * alpha * flat)
        parts = np.linalg.lstsq(basis, wave.T, rcond=None)[0]
        np.testing.assert_allclose(basis @ parts, wave.T, atol=1e-4)
        np.testing.assert_allclose(np.hypot(*parts), 1, atol=1e-4)
        phases.append(np.arctan2(parts[0], parts[1]) % (2 * np.pi))
    between = np.abs(phases[0] - phases[1])
    assert np.minimum(between, 2 * np.pi - between).max() < 1e-3
    uniform(phases[0], 0, 2 * np.pi)


BY_FEATURE = {"gaussian_noise": "noise", "spike_noise": "scale", "gaussian_wrapup": "factor", "sine_wrapup": "factor"}
"""Operations with the option `features`, and the parameter that is neutral where a feature does not change."""


def columns_of(name, features):
    """Parameters at alpha = 0.5, which columns change [flow, 2], and what each changed one does, in standard units."""
    params, std = draw(name, 0.5, features=features)
    effect = params[BY_FEATURE[name]].astype(np.float64) - (BY_FEATURE[name] == "factor")
    if name == "gaussian_wrapup":
        effect = np.where(effect != 0, effect - 0.005, 0) / (0.1 * std)
    elif name == "sine_wrapup":
        effect = effect / (0.01 * FLAT_STD * np.array([1, 2]))
    else:
        effect = effect / (np.sqrt(0.5) * std)
    return params, (effect != 0).any(axis=1), effect


@pytest.mark.parametrize("name", BY_FEATURE)
def test_one_feature_changes_by_a_fair_coin(name):
    params, chosen, effect = columns_of(name, "one")
    assert (chosen.sum(axis=1) == 1).all() and not effect[~chosen[:, 0], :, 0].any()
    size = chosen[:, 0]
    rate(size, 0.5)
    rate(size[:-1] == size[1:], 0.5)
    drawn = np.where(size[:, None], effect[..., 0], effect[..., 1])
    if name == "spike_noise":
        np.testing.assert_allclose(drawn, 1, rtol=1e-6)
        follows(params["noise"], "norm")
        uniform(params["u"], 0, 1)
        drawn = np.concatenate([params["noise"].reshape(DRAWS, -1), params["u"].reshape(DRAWS, -1) - 0.5], axis=1)
    elif name == "sine_wrapup":
        assert np.abs(drawn).max() < 1 + 1e-4
        assert stats.ks_2samp(drawn[size, 0], drawn[~size, 0]).pvalue > SMALLEST_P
    else:
        follows(drawn, "norm")
        uncorrelated(drawn[:, :-1], drawn[:, 1:])
    coin = np.broadcast_to(size[:, None], drawn.shape)
    uncorrelated(coin, drawn)
    uncorrelated(coin, drawn**2)
    for column in range(drawn.shape[1]):
        if np.ptp(drawn[:, column]):
            assert drawn.shape[1] * stats.pearsonr(size, drawn[:, column]).pvalue > SMALLEST_P


@pytest.mark.parametrize("features", ["size", "iat"])
@pytest.mark.parametrize("name", BY_FEATURE)
def test_a_given_feature_changes_alone(name, features):
    _, chosen, effect = columns_of(name, features)
    column = ("size", "iat").index(features)
    assert chosen[:, column].all() and not chosen[:, 1 - column].any()
    if name.startswith("gaussian"):
        follows(effect[..., column], "norm")
        uncorrelated(effect[:, :-1, column], effect[:, 1:, column])


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_constant_wrapup_is_uniform(alpha):
    s = 2 * FLAT_STD
    params, _ = draw("constant_wrapup", alpha)
    assert params["factor"].shape == (DRAWS,)
    uniform(params["factor"], 1 + s * (0.06 - 0.02 * alpha), 1 + s * (0.14 + 0.02 * alpha))


@pytest.mark.parametrize("alpha", [0.1, 0.55, 1.0])
def test_bernoulli_mask_hides_elements_independently(alpha):
    params, _ = draw("bernoulli_mask", alpha)
    hidden, p = params["hidden"], 0.6 * alpha
    for column in range(3):
        rate(hidden[..., column], p)
    odds = {code: np.prod([p if code >> i & 1 else 1 - p for i in range(3)]) for code in range(8)}
    frequencies(hidden @ np.array([1, 2, 4]), odds)
    neighbours = np.stack([hidden[:, :-1, 0], hidden[:, 1:, 0], hidden[:, 1:, 1]], axis=-1)
    frequencies((neighbours @ np.array([1, 2, 4]))[:, ::2], odds)
    whole = draw("bernoulli_mask", alpha, per_packet=True)[0]["hidden"]
    assert (whole == whole[..., :1]).all()
    rate(whole[..., 0], p)


def test_window_mask_width_and_start():
    for alpha, widest, nearest in ((0.0, 1, 1), (0.25, 1, 2), (0.39, 1, 2), (0.41, 2, 2), (0.61, 2, 3), (0.81, 3, 3)):
        assert draw("window_mask", alpha)[0]["width"].max() == widest
        assert draw("window_mask", alpha, rounding="nearest")[0]["width"].max() == nearest
    for options, widest in (({}, 3), ({"rounding": "nearest"}, 4)):
        for n in (flows.T, 5, 2):
            params, _ = draw("window_mask", 1.0, n=n, **options)
            equally_often(params["width"], range(1, widest + 1))
            for width in range(1, widest + 1):
                equally_often(params["start"][params["width"] == width], range(max(n - width, 0) + 1))


def test_interpolation_start():
    for n, latest in ((flows.T, flows.T - 1), (15, 9), (11, 1), (10, 0), (1, 0), (0, 0)):
        equally_often(draw("interpolation", n=n)[0]["start"], range(latest + 1))


TRANSLATIONS = [(0.0, 1), (0.149, 1), (0.15, 2), (0.29, 2), (0.3, 3), (0.49, 3), (0.5, 4), (0.79, 4), (0.8, 5), (1, 5)]


@pytest.mark.parametrize("alpha,most", TRANSLATIONS)
def test_translation_amount_side_and_start_are_uniform(alpha, most):
    for n in (flows.T, 3):
        params, _ = draw("translation", alpha, n=n)
        equally_often(params["amount"], range(1, most + 1))
        rate(params["right"], 0.5)
        equally_often(params["start"], range(n))
        joint = coded((params["amount"] - 1, params["right"], params["start"]), (most, 2, n))
        equally_often(joint, range(most * 2 * n))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_wrap_mixture(alpha):
    emit = draw("wrap", alpha)[0]["emit"]
    odds = np.array([alpha / 2, 1 - alpha, alpha / 2])
    frequencies(emit, {e: odds[e] for e in range(3) if odds[e]})
    pairs = {3 * a + b: odds[a] * odds[b] for a in range(3) for b in range(3) if odds[a] * odds[b]}
    frequencies((3 * emit[:, :-1] + emit[:, 1:])[:, ::2], pairs)


PERMUTATIONS = [(0.0, 2), (0.14, 2), (0.15, 3), (0.44, 3), (0.45, 4), (0.74, 4), (0.75, 5), (0.89, 5), (0.9, 6), (1, 6)]


@pytest.mark.parametrize("alpha,most", PERMUTATIONS)
def test_permutation_segments_cuts_and_order(alpha, most):
    for n in (flows.T, 6, 4, 2):
        params, _ = draw("permutation", alpha, n=n)
        boundary, place = params["boundary"], params["place"]
        assert not boundary[:, 0].any() and not boundary[:, n:].any()
        segments = boundary.sum(axis=1) + 1
        equally_often(segments, range(2, min(most, n) + 1))
        for s in range(2, min(most, n) + 1):
            those = segments == s
            assert (np.sort(place[those, :s]) == np.arange(s)).all()
            if s <= 4:
                orders = [coded(order, (s,) * s) for order in itertools.permutations(range(s))]
                equally_often(coded(place[those, :s].T, (s,) * s), orders)
            if n <= 6:
                sets = [sum(1 << t for t in cut) for cut in itertools.combinations(range(1, n), s - 1)]
                equally_often(boundary[those] @ (1 << np.arange(flows.T)), sets)
        if n == flows.T:
            equally_often(np.nonzero(boundary)[1], range(1, n))


def test_permutation_cuts_and_order_are_independent():
    params, _ = draw("permutation", 0.0, n=flows.T)
    cut, swapped = params["boundary"].argmax(axis=1), params["place"][:, 0]
    equally_often(coded((cut - 1, swapped), (flows.T - 1, 2)), range(2 * (flows.T - 1)))


def test_short_flows_are_not_permuted():
    for n in (0, 1):
        assert not draw("permutation", 1.0, n=n)[0]["boundary"].any()


def test_mss_variation_ranges():
    for alpha, lowest in ((0.0, 1460), (0.25, 1220), (0.5, 980), (1.0, 500)):
        params, _ = draw("mss_variation", alpha)
        assert lowest <= params["mss"].min() and params["mss"].max() <= 1460
        bins = 20 if alpha else 1
        width = (1461 - lowest) / bins
        edges = np.ceil(lowest + width * np.arange(bins + 1)).astype(int)
        odds = {i: (edges[i + 1] - edges[i]) / (1461 - lowest) for i in range(bins)}
        frequencies(np.searchsorted(edges, params["mss"], side="right") - 1, odds)
        if alpha:
            uniform(params["rtt"], 0, 0.2 * alpha)
            uncorrelated(params["rtt"], params["mss"])
        else:
            assert not params["rtt"].any()
    assert (draw("mss_variation", 1.0, mss=(700, 700))[0]["mss"] == 700).all()
    uniform(draw("mss_variation", 0.5, rtt_max=3.0)[0]["rtt"], 0, 1.5)


def test_time_and_scale_ranges():
    uniform(draw("iat_scale", 0.6)[0]["factor"], 0.7, 1.3)
    uniform(draw("iat_scale", 0.5, width=1.0)[0]["factor"], 0.5, 1.5)
    uniform(draw("time_shift", 0.4)[0]["shift"], -0.4, 0.4)
    uniform(draw("time_shift", 1.0, max_shift=5.0)[0]["shift"], -5, 5)
    assert not draw("time_shift", 0.0)[0]["shift"].any()
    for n, alpha, keep in ((20, 1.0, 10), (20, 0.0, 20), (7, 1.0, 4), (7, 0.5, 6), (1, 1.0, 1), (0, 1.0, 0)):
        assert (draw("tail_occlusion", alpha, n=n)[0]["keep"] == keep).all()
    assert (draw("tail_occlusion", 1.0, n=7, fraction=1.0)[0]["keep"] == 0).all()


@pytest.mark.parametrize("fraction", ["0.5", "1", "0.3"])
def test_tail_occlusion_is_the_exact_ceiling(fraction):
    """In rational numbers: rounding never moves a product that is whole across it."""
    n, percent = (axis.ravel() for axis in np.meshgrid(np.arange(65), np.arange(101), indexing="ij"))
    op = flows.operation("tail_occlusion", **({} if fraction == "0.5" else {"fraction": float(fraction)}))
    mask = np.arange(64) < n[:, None]
    sample = jax.jit(jax.vmap(op.sample, in_axes=(None, 0, 0)), compiler_options=flows.QUICKLY)
    keep = np.asarray(sample(jax.random.key(0), mask, (percent / 100).astype(np.float32))["keep"])
    exact = [math.ceil(int(i) * (1 - Fraction(fraction) * Fraction(int(a), 100))) for i, a in zip(n, percent)]
    np.testing.assert_array_equal(keep, exact)


@pytest.mark.parametrize("name", flows.PER_FLOW)
def test_flows_are_drawn_independently_and_reproducibly(name):
    params, _ = draw(name, 1.0, seed=3)
    again, _ = draw(name, 1.0, seed=3)
    other, _ = draw(name, 1.0, seed=4)
    assert bool(params) == (name != "horizontal_flip")
    for field, value in params.items():
        np.testing.assert_array_equal(value, again[field])
        if (value != value[0]).any():
            assert (value != other[field]).any()
            values = value.reshape(DRAWS, -1).astype(np.float64)
            column = values[:, values.std(axis=0).argmax()]
            uncorrelated(column[:-1], column[1:])
