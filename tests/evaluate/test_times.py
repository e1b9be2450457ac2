"""Figures of times against SciPy, one column at a time."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from jaxtraffic.evaluate.times import has_times, times
from jaxtraffic.series import PacketSeries


def flows(seed, n=60, length=5, scale=1.0):
    rng = np.random.default_rng(seed)
    n_packets = rng.integers(1, length, n)  # the last position stays empty
    mask = np.arange(length) < n_packets[:, None]
    iat = np.where(mask, np.round(rng.exponential(scale, (n, length)), 1), 0)
    iat[:, 0] = 0
    return PacketSeries(
        size=np.where(mask, 100, 0).astype(np.int16),
        direction=mask.astype(np.int8),
        iat=iat.astype(np.float32),
        label=np.repeat([0, 1], [n // 3, n - n // 3]).astype(np.int32),
        class_names=("a", "b", "never"),
    ).check()


def complement(a, b):
    return 1 - scipy.stats.ks_2samp(a, b).statistic


def test_figures_are_those_of_scipy():
    real, made = flows(0), flows(1, n=45, scale=2.0)
    figures, curves = times(real, made)
    by_position = []
    for at in range(1, 4):
        by_position.append(complement(*(side.iat[side.mask[:, at], at] for side in (real, made))))
    np.testing.assert_allclose(curves["iat_ks_complement"][:3], by_position, atol=1e-12)
    assert curves["iat_ks_complement"][3] is None and figures["n_positions"] == 3
    assert figures["iat_ks_complement"] == pytest.approx(np.mean(by_position))
    durations = [side.iat.astype(np.float64).sum(axis=1) for side in (real, made)]
    assert figures["duration_ks_complement"] == pytest.approx(complement(*durations))
    iats, seconds = [], []
    for number in (0, 1):
        own = [side.label == number for side in (real, made)]
        later = [side.iat[rows][:, 1:][side.mask[rows][:, 1:]] for side, rows in zip((real, made), own, strict=True)]
        iats.append(complement(*later))
        seconds.append(complement(*(all_of[rows] for all_of, rows in zip(durations, own, strict=True))))
    assert figures["class_iat_ks_complement"] == pytest.approx(np.mean(iats))
    assert figures["class_duration_ks_complement"] == pytest.approx(np.mean(seconds))


def test_equal_flows_score_one_and_sizes_alone_have_no_times():
    real = flows(0)
    figures, _ = times(real, real)
    assert all(value == 1 for name, value in figures.items() if name.endswith("ks_complement"))
    bare = real.replace(iat=np.zeros_like(real.iat))
    assert has_times(real) and not has_times(bare)
    assert times(real, bare)[0]["iat_ks_complement"] < 0.2


def test_flows_of_one_packet_have_no_figures():
    real = flows(0)
    first = np.arange(5) < 1
    short = real.replace(
        size=real.size * first.astype(np.int16), direction=real.direction * first.astype(np.int8), iat=real.iat * 0
    )
    assert times(real, short) == ({"n_positions": 0}, {})
