"""The page of an augmentation campaign: its numbers against hand computation, its files, what is missing, refusals."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from sklearn.metrics import precision_recall_fscore_support

from jaxtraffic.augment.registry import AUGMENTATIONS as REGISTRY
from jaxtraffic.errors import ConfigError
from jaxtraffic.report import campaign_pages as pages
from jaxtraffic.report.campaign_results import Runs, Study, group_scores, per_class_gains, title_of
from jaxtraffic.report.campaign_studies import summarise
from jaxtraffic.report.campaign_tables import campaign_tables, p_text, paper_column
from jaxtraffic.report.published import AUGMENTATIONS, BASELINE, COMBINATIONS, SAMPLER

NAMES = ("cam <1>", "plug & play", "hub", "silent")
COUNTS = (50, 30, 20, 10)


def run(config, fold=0, seed=0, weighted_f1=0.5, per_class=(0.5, 0.5, 0.5, math.nan), **others):
    fields = {
        "config": config,
        "fold": fold,
        "seed": seed,
        "epochs": 10,
        "best_epoch": 6,
        "validation_accuracy": 0.6,
        "weighted_f1": weighted_f1,
        "macro_f1": weighted_f1 - 0.1,
        "accuracy": 0.5,
        "per_class_f1": list(per_class),
        "confusion": [[4, 1, 0, 0], [2, 3, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]],
        "n_train": 90,
        "n_validation": 10,
        "n_test": 10,
        "seconds": 2.0,
    }
    return fields | others


def runs_of(scores, seeds=1):
    """{config: [score of each fold]} as results; with seeds, folds repeat."""
    return [
        run(config, index // seeds, index % seeds, value)
        for config, values in scores.items()
        for index, value in enumerate(values)
    ]


SCORES = {
    "baseline": [0.50, 0.60, 0.55, 0.52],
    "translation": [0.54, 0.63, 0.60, 0.58],
    "wrap": [0.53, 0.64, 0.54, 0.55],
    "horizontal_flip": [0.48, 0.59, 0.55, 0.50],
}


def config(source="real", name="mirage19"):
    return {
        "data": {"source": source, "name": name, "notice": "a stand-in of cams"},
        "seed": 3,
        "command": "python augment_benchmark.py --out 'a b'",
        "device": {"platform": "cpu", "kind": "cpu", "count": 2},
        "versions": {"jax": "0.10"},
    }


def write(folder, results, **others):
    options = {"config": config()} | others
    path = pages.write_campaign(folder, results=results, class_names=NAMES, class_counts=COUNTS, **options)
    text = re.sub("data:image/png;base64,[A-Za-z0-9+/=]+", "PNG", path.read_text())
    return text, json.loads((folder / "report.json").read_text())


def test_published_augmentations_are_the_eighteen_of_the_registry():
    assert set(AUGMENTATIONS) == {name for name, entry in REGISTRY.items() if entry.in_paper}
    for name, entry in AUGMENTATIONS.items():
        if REGISTRY[name].family != "batch":
            assert entry.family.lower() == REGISTRY[name].family
    # Sums of the columns of Table 3.6, added up from the papers' text by another program.
    columns = [[entry.gain[key] for entry in AUGMENTATIONS.values()] for key in BASELINE]
    assert [sum(one.value for one in column) for column in columns] == pytest.approx([36.54, 18.45, 8.34])
    assert [sum(one.half_width for one in column) for column in columns] == pytest.approx([2.21, 1.63, 2.66])
    assert COMBINATIONS["masked_stack-0.7"]["mirage19"].value == 4.63
    for rows in SAMPLER.values():
        for with_, without, difference in zip(*(rows[key].majority for key in ("with", "without", "difference"))):
            assert with_.value - without.value == pytest.approx(difference.value, abs=0.011)


def test_names_say_their_study():
    names = ["wrap", "baseline", "translation", "my_own", "translation@0.5", "wrap/inject-2", "wrap/replace-0.3"]
    names += ["wrap/pre_augment-10", "baseline/weighted", "masked_stack-0.3", "ensemble", "wrap/weighted"]
    study = Study.of(names, max_epochs=7)
    assert study.augmentations == ("translation", "wrap", "my_own")
    assert study.fixed == {"translation@0.5": "translation"}
    assert [tuple(policy)[:3] + (policy.amount,) for policy in study.policies] == [
        ("wrap/replace-0.3", "wrap", "replace", 0.3),
        ("wrap", "wrap", "inject", 1.0),
        ("wrap/inject-2", "wrap", "inject", 2.0),
        ("wrap/pre_augment-10", "wrap", "pre_augment", 10.0),
    ]
    assert study.weighted == {"baseline/weighted": "baseline", "wrap/weighted": "wrap"}
    assert study.combinations == ("masked_stack-0.3", "ensemble") and study.max_epochs == 7
    with pytest.raises(ConfigError, match="belongs to no table"):
        Study.of(["baseline", "wrap/inject"])
    assert title_of("translation@0.5") == "Translation, \N{GREEK SMALL LETTER ALPHA} = 0.5"
    assert title_of("masked_stack-0.3") == "MaskedStack (p = 0.3)"


def test_gains_are_paired_and_ranked():
    found = summarise(runs_of(SCORES), NAMES, COUNTS).benchmark
    rows = {row.config: row for row in found.rows}
    difference = np.array(SCORES["translation"]) - np.array(SCORES["baseline"])
    half = stats.t.ppf(0.975, 3) * difference.std(ddof=1) / 2
    gain = rows["translation"].gain
    assert (gain.mean, gain.low, gain.high, gain.n) == pytest.approx((0.045, 0.045 - half, 0.045 + half, 4))
    # By hand: baseline, translation, wrap and flip rank 3 1 2 4, 3 2 1 4, 2.5 1 4 2.5, 3 1 2 4.
    assert found.baseline_rank == pytest.approx((3 + 3 + 2.5 + 3) / 4)
    assert [rows[name].mean_rank for name in SCORES if name != "baseline"] == [1.25, 2.25, 3.625]
    assert found.comparison.names[0] == "Translation" and found.best.config == "translation"
    assert found.comparison.distance == pytest.approx(2.569 * math.sqrt(4 * 5 / 24), abs=1e-3)
    # Four pairs of one sign: 2 / 2^4, times three tests.
    assert rows["translation"].p == pytest.approx(0.125) and rows["translation"].p_holm == pytest.approx(0.375)
    assert found.least_pairs == 7 and found.by_fold is None
    assert found.widening == pytest.approx(math.sqrt(1 + 4 * 10 / 90))
    assert not any(row.sign for row in found.rows)


def test_significant_gains_are_called_so():
    noise = np.random.default_rng(0).normal(size=(3, 8))
    base = 0.5 + 0.01 * noise[0]
    scores = {
        "baseline": base,
        "wrap": base + 0.05 + 0.001 * noise[1],
        "horizontal_flip": base - 0.05 + 0.001 * noise[2],
    }
    summary = summarise(runs_of(scores), NAMES, COUNTS)
    assert {row.config: row.sign for row in summary.benchmark.rows} == {"wrap": 1, "horizontal_flip": -1}
    assert [row.p_holm for row in summary.benchmark.rows] == pytest.approx([4 / 256, 4 / 256])
    assert "Of 2 augmentations 1 help and 1 hurt" in pages.answer(summary)
    assert re.search("^Wrap gains most: [+]4.9.*augmentation, beyond chance[.] Of", pages.answer(summary))
    assert not pages.remarks(summary)


def test_seeds_are_averaged_within_folds_for_a_second_opinion():
    found = summarise(runs_of(SCORES, seeds=2), NAMES, COUNTS).benchmark
    assert found.comparison.n_blocks == 4 and found.by_fold.n_blocks == 2
    # Fold means: baseline .55 .535, translation .585 .59, wrap .585 .545, flip .535 .525; ranks 3 3, 1.5 1, 1.5 2, 4 4.
    assert dict(zip(found.by_fold.names, found.by_fold.mean_ranks)) == pytest.approx(
        {"Translation": 1.25, "Wrap": 1.75, "No augmentation": 3.0, "Horizontal Flip": 4.0}
    )


def test_blocks_that_a_config_lacks_are_left_out_of_ranks_only():
    results = [one for one in runs_of(SCORES) if not (one["config"] == "wrap" and one["fold"] == 3)]
    summary = summarise(results, NAMES, COUNTS)
    found = summary.benchmark
    assert len(found.blocks) == 3 and found.left_out == 1
    assert {row.config: row.gain.n for row in found.rows} == {"translation": 4, "wrap": 3, "horizontal_flip": 4}
    assert any("lack some of the configs" in text for text in pages.remarks(summary))


def test_classes_absent_in_a_fold_do_not_count():
    nan = math.nan
    results = [
        run("baseline", 0, per_class=(0.5, 0.4, nan, nan)),
        run("baseline", 1, per_class=(0.7, None, 0.3, nan)),
        run("wrap", 0, per_class=(0.6, 0.6, nan, nan)),
        run("wrap", 1, per_class=(0.9, None, 0.2, nan)),
    ]
    gains = per_class_gains(Runs(results, NAMES), ["wrap"])
    np.testing.assert_allclose(gains, [[0.15, 0.2, -0.1, nan]])


def test_group_scores_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    y, predicted = generator.integers(5, size=200), generator.integers(5, size=200)
    y[y == 3] = 2
    predicted[predicted == 4] = 0
    confusion = np.zeros((5, 5), int)
    np.add.at(confusion, (y, predicted), 1)
    for members in ([0, 2], [1, 3, 4]):
        mask = np.isin(np.arange(5), members)
        wanted = precision_recall_fscore_support(y, predicted, labels=members, average="weighted", zero_division=0)[:3]
        assert group_scores(confusion, mask) == pytest.approx(wanted)
    assert all(math.isnan(value) for value in group_scores(confusion, np.arange(5) == 3))


def test_sampler_splits_at_the_median():
    better = [[5, 0, 0, 0], [2, 3, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    results = [run(name, fold) for name in ("baseline", "wrap") for fold in (0, 1)]
    results += [run("baseline/weighted", fold, weighted_f1=0.52, confusion=better) for fold in (0, 1)]
    (sampler,) = summarise(results, NAMES, COUNTS).sampler
    assert sampler.n_classes == (2, 2) and sampler.weighted_f1.mean == pytest.approx(0.02)
    with_, without = (sampler.groups["majority"][key] for key in ("with", "without"))
    # Two classes with 5 test flows each: recall (5 + 3) / 10; precision of the first 5 / 8 with, 4 / 6 without.
    assert [value.mean for value in with_[:2]] == pytest.approx([(5 / 8 + 1) / 2, 0.8])
    assert [value.mean for value in without[:2]] == pytest.approx([(4 / 6 + 3 / 4) / 2, 0.7])
    minority = sampler.groups["minority"]["difference"]
    assert [value.mean for value in minority] == pytest.approx([0, -0.5, 2 / 3 - 1])
    assert summarise(results, NAMES, (50, 30, 30, 10)).sampler[0].n_classes == (3, 1)


def test_magnitude_policies_and_combinations(tmp_path):
    scores = SCORES | {
        "translation@0.5": [0.53, 0.62, 0.60, 0.55],
        "wrap@0.5": [0.50, 0.61, 0.56, 0.55],
        "wrap/replace-0.5": [0.51, 0.60, 0.57, 0.52],
        "wrap/inject-2": [0.54, 0.66, 0.57, 0.55],
        "ensemble": [0.55, 0.66, 0.60, 0.59],
    }
    results = runs_of(scores)
    summary = summarise(results, NAMES, COUNTS)
    rows = {row.config: row for row in summary.magnitude}
    assert rows["translation"].difference.mean == pytest.approx(0.0125)
    assert rows["translation"].scores == pytest.approx((0.5875, 0.575))
    assert [(gain.policy.title, round(gain.gain.mean, 4)) for gain in summary.policies] == [
        ("Replace p = 0.5", 0.0075),
        ("Inject n = 1", 0.0225),
        ("Inject n = 2", 0.0375),
    ]
    assert [(row.config, row.single, round(row.over_best.mean, 4)) for row in summary.combined] == [
        ("translation", True, 0.0),
        ("wrap", True, -0.0225),
        ("horizontal_flip", True, -0.0575),
        ("ensemble", False, 0.0125),
    ]
    text, flat = write(tmp_path, results)
    for heading in ("one by one", "drawn or fixed", "How copies enter", "Combinations", "Convergence"):
        assert heading in text
    assert "Class-weighted" not in text and "(G3)" not in text
    assert flat["g2.wrap/inject-1.weighted_f1_gain"] == pytest.approx(0.0225)
    assert flat["g4.ensemble.over_best_single"] == pytest.approx(0.0125)
    assert flat["g1.magnitude.translation@0.5.weighted_f1_gain_of_drawn"] == pytest.approx(0.0125)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "gains.png",
        "ranks.png",
        "class_gains_1.png",
        "policies.png",
    }


def test_page_and_report_say_the_same(tmp_path):
    text, flat = write(tmp_path, runs_of(SCORES), study=Study.of(SCORES, max_epochs=10, notes=("Only <four> folds.",)))
    row = re.search(r"<tr[^>]*><th scope=\"row\">Translation</th>.*?</tr>", text, re.S).group()
    cells = [re.sub("<[^>]*>", "", cell).strip() for cell in re.findall("<td.*?</td>", row, re.S)]
    gain = flat["g1.translation.weighted_f1_gain"]
    half = (flat["g1.translation.ci_high"] - flat["g1.translation.ci_low"]) / 2
    plus_minus = "\N{PLUS-MINUS SIGN}"
    assert cells == [
        "Sequence",
        f"+{100 * gain:.2f} {plus_minus} {100 * half:.2f}",
        "1.2",
        "0.375",
        f"+4.40 {plus_minus} 0.13",
    ]
    assert flat["g1.translation.published.mirage19.weighted_f1_gain"] == pytest.approx(0.044)
    assert flat["n"] == 4 and flat["folds"] == 4 and flat["seeds"] == 1 and flat["data.n_flows"] == 110
    assert flat["g1.critical_distance"] == pytest.approx(2.345, abs=1e-3)
    assert flat["g1.friedman.p"] == pytest.approx(
        stats.friedmanchisquare(*(np.array(values) for values in SCORES.values())).pvalue
    )
    assert flat["timing.runs_per_hour"] == pytest.approx(1800) and flat["convergence.stopped_by_limit"] == 16
    assert text.count("Real data: ") == 2 and "its folds, epochs and hardware are not ours" in text
    assert "16 of 16 runs were stopped by the limit of 10 epochs" in text
    assert "Only &lt;four&gt; folds." in text and "cam &lt;1&gt;" in text and "4 pairs are too few" in text


def test_other_and_simulated_sets_do_not_pass_for_the_papers(tmp_path):
    other, _ = write(tmp_path, runs_of(SCORES), config=config(name="iot_sentinel"))
    assert "MIRAGE-19: another data set, for orientation only" in other
    text, flat = write(tmp_path, runs_of(SCORES), config=config("simulated", "mirage22"))
    assert "every figure below is about a stand-in" in text and "are not ours" not in text
    assert flat["data.source"] == "simulated" and "g1.translation.published.mirage22.weighted_f1_gain" in flat
    assert [paper_column(name) for name in ("mirage19", "MIRAGE-22", "iot", None)] == [
        "mirage19",
        "mirage22",
        "mirage19",
        "mirage19",
    ]


def test_studies_without_results_are_left_out(tmp_path):
    text, flat = write(tmp_path, runs_of({"baseline": [0.5, 0.6]}))
    assert "none of them compares" in text and "(G1)" not in text and "Combinations" not in text
    assert flat["n"] == 2 and not any(key.startswith("g") for key in flat)
    # One block: gains, no intervals, no ranks.
    text, flat = write(tmp_path, runs_of({name: values[:1] for name, values in SCORES.items()}))
    assert "One block only" in text and flat["g1.translation.weighted_f1_gain"] == pytest.approx(0.04)
    assert flat["g1.translation.ci_low"] is None and flat["g1.translation.p"] is None
    assert "g1.friedman.p" not in flat
    # Features without runs.
    text, flat = write(tmp_path, [], latent=[space("wrap", 0.5)])
    assert "(G3)" in text and "Convergence" not in text and "Scores are" not in text and flat["n"] == 0
    # Combinations without the campaign of single ones.
    study = Study.of(["baseline", "ensemble"], members=("wrap",))
    scores = {name: SCORES[name] for name in ("baseline", "wrap")} | {"ensemble": [0.6, 0.7, 0.6, 0.6]}
    summary = summarise(runs_of(scores), NAMES, COUNTS, study)
    assert [row.config for row in summary.combined] == ["wrap", "ensemble"]
    assert pages.answer(summary).startswith("The best combination, Ensemble, gains +8.25")
    summary = summarise(runs_of(SCORES | {"wrap/inject-2": SCORES["wrap"]}), NAMES, COUNTS, Study.of(["wrap/inject-2"]))
    assert pages.answer(summary).startswith("Wrap gains most with Inject n = 2: +2.25")


def source(*values):
    return dict(zip(("source", "of_anchors", "of_nearest", "right", "similarity"), values))


def space(name, nearest):
    report = {
        "k": 10,
        "metric": "cosine",
        "sources": [source("original", 0.5, 1 - nearest, 0.8, 0.9), source("augmented", 0.5, nearest, 0.4, 0.75)],
        "augmented_only": [source("augmented", 1.0, 1.0, 0.35, None)],
        "right": 0.65,
        "augmented_right": 0.35,
        "ratio": [0.5, 0.8, 1.2, math.inf],
    }
    return {
        "augmentation": name,
        "own_report": report,
        "baseline_report": SimpleNamespace(**report | {"right": 0.6}),
        "to_augmented": [0.0, 1.0, 2.0, 4.0, 5.0],
        "coordinates": np.random.default_rng(0).normal(size=(12, 2)),
        "kind": [0, 1, 2] * 4,
        "label": [0, 1] * 6,
    }


def test_feature_space_is_shown_where_it_is_given(tmp_path):
    latent = [space("wrap", 0.375), space("translation", 0.5)]
    text, flat = write(tmp_path, runs_of({"baseline": [0.5, 0.6]}), latent=latent)
    assert "(G3)" in text and text.count("t-SNE of 12") == 4 and "Test flows are drawn as originals" in text
    assert flat["g3.wrap.own.augmented_share"] == 0.375 and flat["g3.wrap.own.original.right"] == 0.8
    assert flat["g3.wrap.own.right"] == 0.65 and flat["g3.wrap.baseline.right"] == 0.6
    assert flat["g3.wrap.own.distance.median"] == 2.0 and flat["g3.wrap.own.ratio.share_below_1"] == 0.5
    assert flat["g3.translation.own.ratio.median"] == 0.8 and flat["g3.wrap.own.n_test"] == 4
    assert flat["g3.wrap.own.augmented_only.similarity"] is None
    row = re.search(r"<th scope=\"row\">Wrap</th>.*?</tr>", text, re.S).group()
    cells = re.findall(r">([^<>\n]*)</td>", row)
    assert cells[:6] == ["trained with it", "50.0 %", "37.5 %", "80.0 %", "40.0 %", "35.0 %"]
    assert cells[6:] == ["\N{EN DASH}", "0.80", "50.0 %", "2.00"]
    names = {"anchor_shares.png", "distances.png", "tsne_1.png", "tsne_2.png"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names
    broken = space("wrap", 0.5)
    del broken["own_report"]["ratio"]
    for latent, words in (([broken], "lacks ratio"), ([{"augmentation": "wrap"}], "no own_report")):
        with pytest.raises(ConfigError, match=words):
            write(tmp_path, runs_of({"baseline": [0.5]}), latent=latent)


def test_control_with_as_many_steps_is_no_augmentation(tmp_path):
    text, flat = write(tmp_path, runs_of(SCORES | {"baseline_steps": [0.52, 0.61, 0.56, 0.53]}))
    assert flat["g1.baseline_steps.weighted_f1_gain"] == pytest.approx(0.0125)
    assert flat["g1.translation.weighted_f1_gain_over_control"] == pytest.approx(0.0325)
    assert "g1.baseline_steps.mean_rank" not in flat and flat["g1.translation.mean_rank"] == 1.25
    assert "Over a baseline with as many optimiser steps it gains +3.25" in text
    assert flat["g1.critical_distance"] == pytest.approx(2.345, abs=1e-3)


def test_single_augmentations_of_other_studies_are_no_benchmark():
    assert Study.of(["baseline", "wrap", "wrap/inject-2", "wrap/weighted"]).augmentations == ()
    assert Study.of(["baseline", "wrap", "ensemble"], members=("wrap",)).augmentations == ()
    assert Study.of(["baseline", "wrap", "translation", "wrap/inject-2"]).augmentations == ("translation", "wrap")
    assert Study.of(["baseline", "baseline_steps", "wrap", "wrap/inject-2"]).augmentations == ("wrap",)


def test_terminal_tables():
    scores = SCORES | {"wrap@0.5": SCORES["wrap"], "wrap/replace-1": SCORES["wrap"], "ensemble": SCORES["wrap"]}
    scores |= {"wrap/weighted": SCORES["translation"]}
    summary = summarise(runs_of(scores), NAMES, COUNTS)
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in campaign_tables(summary, "mirage22"):
        console.print(table)
    text = console.export_text()
    for part in ("+4.50", "+2.02", "Friedman p", "Replace p = 1", "minority", "Ensemble", "1,800 an hour"):
        assert part in text, part
    assert [p_text(p) for p in (0.00001, 0.04567, math.nan)] == ["<0.001", "0.046", "\N{EN DASH}"]


def test_bad_results_are_refused(tmp_path):
    good = runs_of(SCORES)
    with pytest.raises(ConfigError, match="data.source"):
        write(tmp_path, good, config={"data": {"source": "guessed"}})
    for results, words in (
        ([], "at least one result"),
        ([*good, good[0]], "two results"),
        ([{"config": "baseline"}], "lacks fold"),
        ([run("baseline", confusion=[[1]])], "confusion matrix is"),
    ):
        with pytest.raises(ConfigError, match=words):
            write(tmp_path, results)
    with pytest.raises(ConfigError, match="class_counts"):
        summarise(good, NAMES, (1, 2))
    assert not (tmp_path / "report.json").exists()
