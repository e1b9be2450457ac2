"""Times: probabilities that sum to one over all of them, a bound on what is drawn, and times of real traffic."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxtraffic import datasets
from jaxtraffic.generate import token_times
from jaxtraffic.generate.token_probability import iat_log_prob
from jaxtraffic.generate.token_times import fit_times
from jaxtraffic.generate.token_vocabulary import Tables
from jaxtraffic.series import PacketSeries

CENTISECOND = 1e-2


def small():
    """A code in steps of 10 ms: a timer of 0.5 s, and times up to 3 s."""
    iat = np.random.default_rng(0).exponential(0.4, (200, 6)).clip(0, 3)
    iat[:, 2], iat[0, 1] = 0.5, 3.0
    return fit_times(iat, np.full(200, 6), atom_share=0.1, resolution=CENTISECOND)


def everything(code):
    """Every time of the code as one flow, with tokens and fractions."""
    ticks = np.arange(code.longest + 1)
    return ticks, *code.encode(ticks[None] * code.resolution, np.array([ticks.size]))


@pytest.mark.parametrize("share", [1e-4, 0.3])
def test_the_probabilities_of_all_times_sum_to_one(share):
    code = small()
    ticks, token, fraction = everything(code)
    assert ticks.size == 3001 and set(token[0]) == set(range(1, code.n_tokens))
    logits = np.random.default_rng(1).normal(0, 3, code.n_tokens).astype(np.float32)
    tables = Tables(np.ones((1, 1), bool), np.float32(0.1), np.float32(share))
    of_token = np.asarray(iat_log_prob(jax.numpy.asarray(logits), tables), np.float64)
    total = np.exp(of_token[token[0]] + code.log_prob(token, fraction)[0])
    np.testing.assert_allclose(total.sum(), 1, rtol=2e-6)
    # The sum over ticks is the integral of a density on the log scale, piece by piece: a plain numerical integration.
    index = token[0, -1] - 1 - code.n_atoms
    low, high = code.bin_low[index] - 0.5, code.bin_high[index] + 0.5
    grid = np.exp(np.linspace(np.log(low), np.log(high), 200_001))
    density = np.exp(of_token[token[0, -1]]) / np.log(high / low) / grid
    inside = total[token[0] == token[0, -1]].sum()
    np.testing.assert_allclose(np.trapezoid(density, grid), inside, rtol=1e-6)


def test_nothing_is_drawn_beyond_ten_times_the_longest_seen():
    code = small()
    assert code.longest == token_times.BEYOND * 300
    place = np.random.default_rng(0).random((code.n_tokens, 500))
    drawn = code.decode(np.arange(code.n_tokens)[:, None].repeat(500, axis=1), place)
    assert np.isfinite(drawn).all() and drawn.min() == 0 and 25 < drawn.max() <= 30
    assert (drawn > 3).any(axis=1).sum() > 5 and code.counts[drawn.min(axis=1) > 3].sum() == 0
    top = code.decode(np.array([[code.n_tokens - 1]]), np.array([[np.nextafter(1.0, 0)]]))
    assert top == np.float32(30)


def test_longer_times_count_as_the_longest():
    code = small()
    (token, fraction) = code.encode(np.array([[0, 30.0, 31.0, 1e6]]), np.array([4]))
    assert (token[0, 1:] == code.n_tokens - 1).all() and len(set(fraction[0, 1:])) == 1
    np.testing.assert_array_equal(code.decode(token, fraction), np.float32([[0, 30, 30, 30]]))


def test_flows_without_times_leave_a_second_possible():
    code = fit_times(np.zeros((5, 4)), np.full(5, 4))
    assert code.longest == 10**6 and code.atoms.tolist() == [0]
    token, fraction = code.encode(np.array([[0.0, 0.25]]), np.array([2]))
    np.testing.assert_allclose(code.decode(token, fraction), [[0, 0.25]])
    seen = fit_times(np.full((5, 4), 2.0**52 * 1e-6), np.full(5, 4))
    assert seen.longest == token_times.MOST_TICKS


@pytest.mark.slow
def test_times_of_real_flows_come_back_to_half_a_microsecond():
    folder = os.environ.get("JAXTRAFFIC_DATA")
    if not folder or not (Path(folder) / "iot_sentinel.parquet").exists():
        pytest.skip("JAXTRAFFIC_DATA is not set to a folder with iot_sentinel.parquet")
    flows: PacketSeries = datasets.load("iot_sentinel", data_root=Path(folder), group="capture")
    parts = datasets.split(flows, fold=0, seed=0)
    train, test = parts.train, parts.test
    code = fit_times(np.asarray(train.iat), np.asarray(train.n_packets))
    token, fraction = code.encode(np.asarray(test.iat), np.asarray(test.n_packets))
    back, iat, mask = code.decode(token, fraction), np.asarray(test.iat), np.asarray(test.mask)
    longest = code.longest * code.resolution
    assert mask.sum() > 5000 and (iat[mask] > 0).mean() > 0.5 and (iat[mask] <= longest).mean() > 0.999
    error = np.abs(back.astype(np.float64) - np.minimum(iat, longest))[mask]
    assert (error <= 0.5001e-6 + 0.5 * np.spacing(iat[mask])).all()
    assert (back[~mask] == 0).all()
