"""Every row of the tables of judgements: what it is, where a good generator ends, and what it cannot see."""

from __future__ import annotations

from jaxtraffic.report.flow_metrics import FLOW_METRICS
from jaxtraffic.report.goals import Group, Metric, once
from jaxtraffic.report.set_metrics import SET_METRICS

GROUPS = (
    Group(
        "utility",
        "Utility: training on generated flows",
        "XGBoost learns from generated flows and is tested on real ones.",
    ),
    Group(
        "augmentation",
        "Augmentation: generated flows beside real ones",
        "XGBoost learns from real and generated flows together.",
    ),
    Group(
        "downstream",
        "Other classifiers",
        "The tests of utility and augmentation with other classifiers than XGBoost: a generator is not worth more than "
        "the classifiers that profit from it.",
    ),
    Group(
        "scaling",
        "More generated flows",
        "The same tests with several times as many generated flows as there are training flows (XGBoost).",
    ),
    Group(
        "discriminative",
        "Telling generated flows from real ones",
        "A classifier learns which flows are generated. Its accuracy above one half on flows that it has not seen.",
    ),
    Group(
        "density",
        "Packet sizes by position",
        "Each packet position by itself: how far the generated sizes are distributed as the real ones.",
    ),
    Group("correlation", "Pairs of positions", "Whether two packet positions vary together as in real flows."),
    Group(
        "coverage",
        "Closeness and coverage",
        "Nearest records: whether generated flows lie where real ones do, and whether every real flow has a generated "
        "one near it. Distances are Euclidean, in bytes, over the signed sizes of all positions.",
    ),
    Group("kernel", "Distances between the two sets", "One number for the distance between two sets of flows."),
    Group(
        "privacy",
        "Privacy: are training flows repeated?",
        "Whether generated flows lie nearer to the flows that the generator learnt from than to others of their kind.",
    ),
    Group("support", "What was never seen", "Sequences and values that training flows do not hold, or hold too often."),
    Group(
        "semantics",
        "Could it have been traffic?",
        "Flows that no network could have carried, and habits of packets: frequent exact sizes, runs, lengths.",
    ),
    Group(
        "times", "Times", "When packets follow each other, where the generator says so; other judges see sizes only."
    ),
)
"""Sections of the page, in order."""

_NOISY = "Classes with a handful of test flows make it noisy."
_F1 = "macro F1"
_ALIKE = "The same, every class counting alike."

_BY_CLASS = (
    Metric(
        "utility.weighted_f1_real",
        "Weighted F1, trained on real flows",
        "",
        "XGBoost on real test flows: the level that the gaps below start from. Fresh real: trained on one half.",
        "Says how hard the data is, nothing about the generator.",
        n="data.n_test",
        headline=True,
    ),
    Metric(
        "utility.weighted_f1_synthetic",
        "Weighted F1, trained on generated flows",
        "higher",
        "The same, trained on generated flows instead. Fresh real: trained on the other half of the training set.",
        "A copy of the training set scores as real flows do.",
        n="data.n_test",
    ),
    Metric(
        "utility.weighted_f1_gap",
        "Utility: weighted F1 gap",
        "higher",
        "The second row minus the first: 0 is as useful as real flows. Fresh real: one half against the other.",
        "Frequent classes and repeated flows rule it; a copy of the training set scores about 0.",
        stderr="utility.weighted_f1_gap_stderr",
        n="data.n_test",
        signed=True,
        headline=True,
    ),
    Metric(
        "utility.macro_f1_gap",
        f"Utility: {_F1} gap",
        "higher",
        _ALIKE,
        _NOISY,
        stderr="utility.macro_f1_gap_stderr",
        n="data.n_test",
        signed=True,
        headline=True,
    ),
    Metric(
        "utility.capture_accuracy_gap",
        "Utility: accuracy gap, captures alike",
        "higher",
        "Share of the test flows that are classified right, averaged over captures, as a difference like the others.",
        "Captures of a single flow count as much as large ones.",
        stderr="utility.capture_accuracy_gap_stderr",
        n="utility.n_captures",
        signed=True,
    ),
    Metric(
        "utility.distinct.weighted_f1_gap",
        "Utility, distinct test flows: weighted F1 gap",
        "higher",
        "The same on test flows of which no two share sequence and label.",
        "Weights rare sequences as much as frequent ones, which traffic does not.",
        stderr="utility.distinct.weighted_f1_gap_stderr",
        n="data.n_test_distinct",
        signed=True,
    ),
    Metric(
        "utility.distinct.macro_f1_gap",
        f"Utility, distinct test flows: {_F1} gap",
        "higher",
        _ALIKE,
        _NOISY,
        stderr="utility.distinct.macro_f1_gap_stderr",
        n="data.n_test_distinct",
        signed=True,
    ),
    Metric(
        "augmentation.weighted_f1_gain",
        "Augmentation: weighted F1 gain",
        "higher",
        "Trained on real and generated flows together minus trained on real ones alone. Fresh real: what the second "
        "half of the training set adds to the first.",
        "Little to gain where real flows are plenty. Published: translated copies of real flows gain more (0.49 "
        "points) than the best generator (\N{MINUS SIGN}0.06), so a gain says little about realism.",
        stderr="augmentation.weighted_f1_gain_stderr",
        n="data.n_test",
        signed=True,
        headline=True,
    ),
    Metric(
        "augmentation.macro_f1_gain",
        f"Augmentation: {_F1} gain",
        "higher",
        _ALIKE,
        _NOISY,
        stderr="augmentation.macro_f1_gain_stderr",
        n="data.n_test",
        signed=True,
    ),
    Metric(
        "downstream.*.weighted_f1_real",
        "Weighted F1, trained on real flows",
        "",
        "The level that the gaps and gains of each classifier start from.",
        "A gap of a poor classifier says little: a model that learns nothing has none.",
        n="data.n_test",
    ),
    Metric(
        "downstream.*.utility.weighted_f1_gap",
        "Utility: weighted F1 gap",
        "higher",
        "Trained on generated flows minus trained on real ones, both tested on real flows.",
        "One fit each at fixed settings: the networks are noisy, and none is tuned for the set.",
        n="data.n_test",
        signed=True,
    ),
    Metric(
        "downstream.*.utility.macro_f1_gap",
        f"Utility: {_F1} gap",
        "higher",
        _ALIKE,
        _NOISY,
        n="data.n_test",
        signed=True,
    ),
    Metric(
        "downstream.*.augmentation.weighted_f1_gain",
        "Augmentation: weighted F1 gain",
        "higher",
        "Trained on real and generated flows together minus trained on real ones alone.",
        "Networks may gain from more steps or more noise alone, whatever the flows are worth.",
        n="data.n_test",
        signed=True,
    ),
    Metric(
        "downstream.*.augmentation.macro_f1_gain",
        f"Augmentation: {_F1} gain",
        "higher",
        _ALIKE,
        _NOISY,
        n="data.n_test",
        signed=True,
    ),
    Metric(
        "scaling.utility.x*.weighted_f1_gap",
        "Utility: weighted F1 gap",
        "higher",
        "Trained on so many times as many generated flows as there are training flows, minus trained on real ones.",
        "Larger sets help a model with few flows a class, whether or not they add variety.",
        n="data.n_test",
        signed=True,
    ),
    Metric("scaling.utility.x*.macro_f1_gap", f"Utility: {_F1} gap", "higher", _ALIKE, _NOISY, signed=True),
    Metric(
        "scaling.augmentation.x*.weighted_f1_gain",
        "Augmentation: weighted F1 gain",
        "higher",
        "So many times as many generated flows beside the real ones, minus real ones alone.",
        "Real flows drown as generated ones multiply: published curves are flat on one set and fall on another.",
        n="data.n_test",
        signed=True,
    ),
    Metric("scaling.augmentation.x*.macro_f1_gain", f"Augmentation: {_F1} gain", "higher", _ALIKE, _NOISY, signed=True),
)

_TOLD_APART = (
    Metric(
        "discriminative.score",
        "Discriminative score",
        "zero",
        "Accuracy above one half of XGBoost at telling generated flows from training flows; 0.5 is worst.",
        "Copies of training flows pull it below 0. It grows with the number of flows the classifier learns from. "
        "A size that is off by one byte is enough for a tree, even where no classifier of traffic would mind.",
        stderr="discriminative.stderr",
        n="discriminative.n_test",
        signed=True,
        headline=True,
    ),
    once(
        "discriminative.distinct_score",
        "Discriminative score",
        "zero",
        stderr="discriminative.distinct_stderr",
        n="discriminative.distinct_n_test",
        signed=True,
        headline=True,
    ),
    Metric(
        "discriminative.held_out_score",
        "Discriminative score, held-out flows",
        "zero",
        "The same against real flows that the generator never saw.",
        "Compare with fresh real in the first row: both learn from as many flows. Fewer flows, so noisier.",
        stderr="discriminative.held_out_stderr",
        n="discriminative.held_out_n_test",
        signed=True,
        headline=True,
    ),
    Metric(
        "discriminative.logistic_score",
        "Discriminative score, logistic regression",
        "zero",
        "The same by a linear classifier on standardised sizes, a weak second opinion.",
        "Sees linear differences only: right means with wrong values pass, as marginals do.",
        stderr="discriminative.logistic_stderr",
        n="discriminative.n_test",
        signed=True,
    ),
)

METRICS: tuple[Metric, ...] = (*_BY_CLASS, *_TOLD_APART, *SET_METRICS, *FLOW_METRICS)
"""Rows of the tables, in order; a `*` in a key stands for a model or a multiple, and gives one row each."""
