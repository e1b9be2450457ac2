"""Draws of many flows at once, and tests that they follow a law: each has to reach p > 1e-4."""

import numpy as np
from scipy import stats

from jaxtraffic import augment
from tests.augment import flows

SMALLEST_P = 1e-4
DRAWS = 20_000
STD, FLAT_STD = 0.3, 2.0


def draw(name, alpha=1.0, n=flows.T, seed=0, **options):
    """Params of 20,000 flows of n packets at one alpha (traced: one program an operation)."""
    mask = np.broadcast_to(np.arange(flows.T) < n, (DRAWS, flows.T))
    rows = np.linspace(0.5, 1.5, flows.T)[:, None] * np.float32([STD, 0.0, 2 * STD])
    std = np.broadcast_to(rows.astype(np.float32), (DRAWS, flows.T, 3))
    flat = np.broadcast_to(np.float32([FLAT_STD, 1.0, 2 * FLAT_STD]), (DRAWS, 3))
    sample = flows.sampler(flows.operation(name, **options))
    alphas = np.full(DRAWS, alpha, np.float32)
    params = flows.as_numpy(sample(flows.keys(DRAWS, seed), mask, alphas, augment.FlowStatistics(std, flat)))
    return params, rows[:, [0, 2]]


def follows(values, law, *arguments):
    """Kolmogorov-Smirnov against a continuous law."""
    assert stats.kstest(np.ravel(values), law, args=arguments).pvalue > SMALLEST_P


def uniform(values, low, high):
    """Kolmogorov-Smirnov against U[low, high]; the ends hold strictly up to rounding."""
    values = np.ravel(values).astype(np.float64)
    slack = 1e-6 * max(abs(low), abs(high))
    assert low - slack <= values.min() and values.max() <= high + slack
    follows(values, "uniform", low, high - low)


def frequencies(values, expected):
    """Chi-squared of discrete values against {value: probability}; nothing else may occur."""
    seen, counts = np.unique(np.asarray(values), return_counts=True)
    table = dict(zip(seen.tolist(), counts.tolist()))
    assert set(table) <= set(expected), f"{sorted(set(table) - set(expected))} cannot occur"
    if len(expected) > 1:
        total = sum(table.values())
        observed = [table.get(value, 0) for value in expected]
        assert stats.chisquare(observed, [p * total for p in expected.values()]).pvalue > SMALLEST_P


def equally_often(values, possible):
    frequencies(values, {value: 1 / len(possible) for value in possible})


def rate(hits, probability):
    """Two-sided binomial test of booleans."""
    hits = np.ravel(hits)
    assert stats.binomtest(int(hits.sum()), hits.size, probability).pvalue > SMALLEST_P


def uncorrelated(left, right):
    assert stats.pearsonr(np.ravel(left), np.ravel(right)).pvalue > SMALLEST_P


def coded(columns, sizes):
    """One integer from several small ones, for joint laws."""
    return np.ravel_multi_index(tuple(np.asarray(column).astype(int) for column in columns), sizes)
