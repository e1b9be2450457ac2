"""Every metric that needs no classifier, of one set of flows against real ones: plain, distinct, and at one size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxtraffic.evaluate.coverage import coverage
from jaxtraffic.evaluate.distributions import correlation, density
from jaxtraffic.evaluate.fidelity import fidelity
from jaxtraffic.evaluate.mmd import mmd
from jaxtraffic.evaluate.rows import first_of_each, pair_of
from jaxtraffic.evaluate.semantics import semantics
from jaxtraffic.evaluate.support import support
from jaxtraffic.evaluate.times import has_times, times
from jaxtraffic.series import PacketSeries

FEWEST_DISTINCT = 10
"""Distinct sequences that both sides need before metrics of distinct sequences say anything."""


class Panel(NamedTuple):
    """What was found about one set.

    Attributes:
        figures: flat keys "group.metric", or "group.distinct.metric" and "group.matched.metric".
        curves: group -> curve -> list, JSON-able.
    """

    figures: dict[str, float | int]
    curves: dict[str, dict[str, Any]]


def panel(
    real: PacketSeries,
    flows: PacketSeries,
    *,
    n_matched: int | None = None,
    with_times: bool = False,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> Panel:
    """Fidelity, density, correlation, coverage, kernel distance, support and semantics of `flows` against `real`.

    Coverage and kernel distance compare equally many flows: of the larger side so many are drawn as the smaller has.
    The `distinct` figures are those of the same flows with every sequence once a side. The `matched` figures of
    coverage are at `n_matched` flows a side, since beta-recall and its kin depend on the number of flows where
    sequences repeat, and sets are comparable at one number only.

    Args:
        real: the real flows, usually the training set.
        flows: generated flows, or real ones as reference.
        n_matched: flows a side of the matched figures and of the count of distinct sequences; None leaves the former
            out and takes all flows for the latter.
        with_times: compare inter-arrival times too, where both sides have some.
        seed: of the draws.
        mesh: devices for distances between all pairs; default: all.

    Raises:
        ConfigError: an empty set, different lengths, or `n_matched` beyond the number of flows.
    """
    figures: dict[str, float | int] = under("fidelity", fidelity(real, flows, n_matched, seed))
    curves: dict[str, dict[str, Any]] = {}

    def add(group: str, found: tuple[Mapping[str, float | int], Mapping[str, Any]], variant: str = "") -> None:
        prefix = f"{group}.{variant}" if variant else group
        figures.update(under(prefix, found[0]))
        if found[1]:
            curves[prefix] = dict(found[1])

    add("support", support(real, flows))
    add("semantics", semantics(real, flows))
    if with_times and has_times(real) and has_times(flows):
        add("times", times(real, flows))
    x, y = pair_of(real, flows)
    add("density", density(x, y))
    add("correlation", correlation(x, y))
    x, y = draw_equal(x, y, seed)
    add("coverage", coverage(x, y, mesh=mesh))
    add("kernel", mmd(x, y, mesh=mesh))
    if n_matched is not None:
        add("coverage", (coverage(*(rows[:n_matched] for rows in (x, y)), mesh=mesh)[0], {}), "matched")
        figures["coverage.matched.n"] = n_matched
    once = [rows[first_of_each(rows)] for rows in (x, y)]
    figures |= {"data.n_distinct": len(once[1]), "data.n_distinct_real": len(once[0])}
    if min(map(len, once)) >= FEWEST_DISTINCT:
        add("density", (density(*once)[0], {}), "distinct")
        add("correlation", (correlation(*once)[0], {}), "distinct")
        add("coverage", (coverage(*once, mesh=mesh)[0], {}), "distinct")
        add("kernel", (mmd(*once, mesh=mesh)[0], {}), "distinct")
    return Panel(figures, curves)


def draw_equal(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many rows of both, in random order."""
    n = min(len(x), len(y))
    return tuple(
        rows[np.random.default_rng((seed, side)).permutation(len(rows))[:n]] for side, rows in enumerate((x, y))
    )


def under(prefix: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The same figures with `prefix` and a dot before each key."""
    return {f"{prefix}.{name}" if prefix else name: value for name, value in figures.items()}
