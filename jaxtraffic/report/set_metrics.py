"""Rows of the tables of judgements that compare two sets of flows, without classes or classifiers."""

from __future__ import annotations

from typing import Any

from jaxtraffic.report.goals import Metric, matched, once

_REAL = "real"


_SHOWN_AT_EQUAL_NUMBERS = "coverage.beta_recall"


def _with_variants(metric: Metric, *, at_equal_numbers: bool = False) -> tuple[Metric, ...]:
    """A metric, the same with equal numbers of flows where judged so, and with every sequence once."""
    group, name = metric.key.split(".")
    shared: dict[str, Any] = {"digits": metric.digits, "signed": metric.signed}
    rows = [metric]
    if at_equal_numbers:
        key, shown = f"{group}.matched.{name}", metric.key == _SHOWN_AT_EQUAL_NUMBERS
        rows.append(matched(key, metric.title, metric.goal, n="coverage.matched.n", headline=shown, **shared))
    return (*rows, once(f"{group}.distinct.{name}", metric.title, metric.goal, **shared))


_DENSITY = (
    Metric(
        "density.ks_complement",
        "Kolmogorov-Smirnov complement",
        "higher",
        "1 minus the largest difference of the two cumulative distributions, mean over positions; 1 is equal.",
        "Sees one position at a time: marginals, which join sizes that never met, score as real flows do.",
        headline=True,
    ),
    Metric(
        "density.wasserstein",
        "Wasserstein distance, bytes",
        "lower",
        "Mean number of bytes by which sizes must move to become the real distribution, mean over positions.",
        "One position at a time. Forgives many small errors that betray every flow, such as a byte off.",
        digits=1,
    ),
    Metric(
        "density.js_direction",
        "Jensen-Shannon divergence of direction, nats",
        "lower",
        "Difference of the shares of client, server and no packet, mean over positions; 0 is equal, ln 2 disjoint.",
        "One position at a time, whatever the sizes.",
        digits=4,
    ),
    Metric(
        "density.js_length",
        "Jensen-Shannon divergence of flow length, nats",
        "lower",
        "Difference of the shares of flows with each number of packets; 0 is equal, ln 2 disjoint.",
        "Lengths only; one packet too many counts as much as twenty.",
        digits=4,
    ),
)

_CORRELATION = (
    *_with_variants(
        Metric(
            "correlation.similarity",
            "Pearson similarity",
            "higher",
            "1 minus half the difference of Pearson's correlations, mean over pairs of positions; 1 is equal.",
            "Linear, and pairs only. Noise on real flows scores highest of all published sets (99.88 %), above every "
            "generator.",
            headline=True,
        ),
    ),
    Metric(
        "correlation.n_pairs",
        "Pairs compared",
        "",
        "Pairs of positions behind the figure above.",
        "",
        digits=0,
    ),
    Metric(
        "correlation.n_constant_columns",
        "Constant positions, skipped",
        "",
        "Positions that hold one value only on a side, which have no correlation.",
        "",
        digits=0,
    ),
)

_COVERAGE = (
    Metric(
        "coverage.alpha_precision",
        "Alpha-precision",
        _REAL,
        "Share of generated flows inside the sphere that holds a share alpha of real ones, for 30 alphas; 1 "
        "where the curve is the diagonal (Alaa et al. 2022).",
        "Sees the distance from the centre of all flows only: published, Wrap and Gaussian noise score 95 to "
        "99 % although useless.",
        headline=True,
    ),
    Metric(
        "coverage.beta_recall",
        "Beta-recall",
        _REAL,
        "Share of real flows whose nearest generated flow is no further than their nearest other real flow, "
        "for 30 spheres.",
        "A perfect generator scores about 0.5 where no sequence repeats, and more where they do; a copy of the "
        "training set scores higher (0.82). Published, Gaussian noise has the highest of all (68 %, real "
        "52 %), because it stays next to training rows. So: near real flows, not high.",
        headline=True,
    ),
    Metric(
        "coverage.alpha_precision_minmax",
        "Alpha-precision, positions scaled alike",
        _REAL,
        "The same with every position scaled to 0 to 1, as the peers compute it.",
        "As alpha-precision; a single wild real packet shrinks its position.",
    ),
    Metric(
        "coverage.beta_recall_minmax",
        "Beta-recall, positions scaled alike",
        _REAL,
        "The same with every position scaled to 0 to 1, as the peers compute it.",
        "As beta-recall; a single wild real packet shrinks its position.",
    ),
    Metric(
        "coverage.authenticity",
        "Authenticity",
        _REAL,
        "Share of generated flows that lie further from their nearest real flow than that one from its own "
        "nearest: low where flows are copied.",
        "Noise is authentic. Where real flows repeat, the flows that repeat count as copied.",
    ),
    Metric(
        "coverage.precision",
        "Precision, 5 neighbours",
        _REAL,
        "Share of generated flows within the 5-neighbour sphere of some real flow (PRDC, Naeem et al. 2020).",
        "One remote real flow has a sphere that forgives everything inside it.",
    ),
    Metric(
        "coverage.recall",
        "Recall, 5 neighbours",
        _REAL,
        "Share of real flows within the 5-neighbour sphere of some generated flow.",
        "A few remote generated flows have spheres that cover everything.",
    ),
    Metric(
        "coverage.density",
        "Density, 5 neighbours",
        _REAL,
        "How many real spheres a generated flow lies in, over 5; about 1 for real flows that do not repeat.",
        "Has no upper end: a generator that stays with the frequent sequences exceeds 1.",
    ),
    Metric(
        "coverage.coverage",
        "Coverage, 5 neighbours",
        _REAL,
        "Share of real flows with a generated flow in their 5-neighbour sphere.",
        "A copy of the training set has it whole. Repeated sequences have spheres of radius 0.",
    ),
    Metric(
        "coverage.used_share",
        "Real flows that are nearest to any",
        _REAL,
        "Share of real flows that are the nearest of some generated flow.",
        "Of equal sequences only the first counts, so sets with repeats stay far below 1.",
    ),
    Metric(
        "coverage.mean_nearest",
        "Distance to the nearest real flow, bytes",
        _REAL,
        "Mean over generated flows.",
        "0 for a copy of the training set.",
        digits=1,
    ),
    Metric(
        "coverage.mean_nearest_real",
        "Distance to the nearest generated flow, bytes",
        _REAL,
        "Mean over real flows.",
        "0 for a copy of the training set; remote flows rule the mean.",
        digits=1,
    ),
)

_KERNEL = (
    *_with_variants(
        Metric(
            "kernel.mmd",
            "Maximum mean discrepancy",
            "lower",
            "Root of the squared MMD, mean of Gaussian kernels of five widths around the median distance.",
            "Bandwidths of hundreds of bytes do not see errors of a few bytes.",
            digits=4,
        ),
    ),
    *_with_variants(
        Metric(
            "kernel.mmd_squared",
            "The same, squared",
            "zero",
            "The unbiased estimate before its root: below 0 where the sets are closer than two samples of one law.",
            "As the row above.",
            digits=5,
            signed=True,
        ),
    ),
    Metric(
        "latent.frechet",
        "Frechet distance in latent space",
        "lower",
        "Distance of two Gaussians fitted to what a classifier of real flows sees in them (FID's analogue).",
        "Two moments only, and the eyes of one small network; comparable within this page alone.",
        section="kernel",
        headline=True,
    ),
)

SET_METRICS = (
    *(row for metric in _DENSITY for row in _with_variants(metric)),
    *_CORRELATION,
    *(row for metric in _COVERAGE for row in _with_variants(metric, at_equal_numbers=True)),
    *_KERNEL,
)
"""Density, correlation, coverage, kernel and latent distance."""
