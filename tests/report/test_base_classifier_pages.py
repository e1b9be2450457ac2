"""The page of base classifiers: what it says, the thesis' figures, files, refusals."""

import json
import math
import re

import numpy as np
import pytest
from rich.console import Console

from jaxtraffic.errors import ConfigError
from jaxtraffic.report import base_classifier_pages as pages
from jaxtraffic.report.base_classifier_results import Gap, summarise
from jaxtraffic.report.published import BASE_CLASSIFIERS

NAMES = ("cam <1>", "hub", "silent")


def result(config, fold, seed, weighted, **changes):
    fields = {
        "config": config,
        "fold": fold,
        "seed": seed,
        "epochs": 100,
        "weighted_f1": weighted,
        "macro_f1": weighted - 0.1,
        "accuracy": weighted,
        "per_class_f1": [weighted, math.nan if fold else 0.5, math.nan],
        "n_train": 80,
        "n_test": 10 + fold,
        "model_size": 28_500 if config == "xgboost" else 115_028,
        "train_seconds": 2.0,
    }
    return fields | changes


RESULTS = [
    *(result("xgboost", fold, seed, 0.8 + 0.02 * fold, tune_seconds=7.0) for fold in (0, 1) for seed in (0, 1)),
    *(result("resnet", fold, 0, 0.7 + 0.1 * fold, train_seconds=120.0) for fold in (0, 1)),
]
GAPS = [
    Gap("xgboost", "resnet", "weighted_f1", 0.06, -0.4, 0.5, 2),
    Gap("xgboost", "resnet", "macro_f1", 0.06, 0.01, 0.1, 2),
]


def config(source="real", dataset="unsw24"):
    return {
        "data": {
            "source": source,
            "name": "toy",
            "dataset": dataset,
            "tier": "all",
            "notice": "a stand-in of cams",
            "n_flows": 100,
            "group": "capture",
            "class_names": list(NAMES),
            "class_counts": [30, 60, 10],
        },
        "folds": [0, 1],
        "seeds": [0, 1],
        "n_folds": 10,
        "packets": 30,
        "view": "signed_size",
        "tune_trials": 30,
        "models": {"resnet": {"batch_size": 512}},
        "command": ["python", "base_classifiers.py", "--out", "a b"],
    }


def write(folder, gaps=GAPS, **changes):
    return pages.write_base_classifiers(folder, results=RESULTS, gaps=gaps, config=config(**changes))


def test_summaries_are_means_and_deviations_over_runs():
    trees, network = summarise(RESULTS)
    assert (trees.name, trees.title, trees.n_runs, network.n_runs) == ("xgboost", "XGBoost", 4, 2)
    assert trees.weighted_f1 == pytest.approx(0.81)
    assert trees.weighted_f1_sd == pytest.approx(np.std([0.8, 0.8, 0.82, 0.82], ddof=1))
    assert network.macro_f1 == pytest.approx(0.65) and network.macro_f1_sd == pytest.approx(math.sqrt(0.005))
    # a search serves all seeds of a fold, so that it counts once a fold
    assert trees.tune_seconds == 14 and network.tune_seconds == 0
    assert trees.per_class_f1[:2] == pytest.approx((0.81, 0.5)) and math.isnan(trees.per_class_f1[2])
    assert math.isnan(summarise(RESULTS[:1])[0].weighted_f1_sd)


def test_page_has_our_figures_beside_those_of_the_thesis(tmp_path):
    text = write(tmp_path).read_text()
    assert not re.search(r'(src|href)="(?!data:)', text) and "<script" not in text
    order = [
        "Real data: toy",
        "XGBoost is best by weighted F1, 81.00 %, and by macro F1, 71.00 %. The lead of XGBoost in weighted F1 over "
        "ResNet may be chance.",
        "81.00 ± 1.15",
        "99.56 ± 0.21",
        "28",
        "10",
        "2.0 s",
        "75.00 ± 7.07",
        "99.15 ± 0.37",
        "2 min",
        "6.6k flows of UNSW24 (here 100)",
        "XGBoost &minus; ResNet",
        "+6.00",
        "\N{MINUS SIGN}40.00 to +50.00",
        "Whole captures lie on one side",
        "cam &lt;1&gt;",
        "python base_classifiers.py --out &#39;a b&#39;",
    ]
    place = 0
    for part in order:
        assert part in text[place:], part
        place = text.index(part, place)
    assert "cam <1>" not in text and "641 parameters a class" in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["xgboost.weighted_f1"] == pytest.approx(0.81) and report["resnet.model_size"] == 115_028
    assert (
        report["published.resnet.macro_f1"] == pytest.approx(0.9871) and report["published.xgboost.model_size"] == 1e4
    )
    assert (report["data.source"], report["n"], report["folds"], report["seeds"]) == ("real", 21, 2, 2)
    assert report["difference.xgboost_minus_resnet.weighted_f1.ci_low"] == -0.4
    assert report["xgboost.per_class.silent.f1"] is None and report["xgboost.per_class.hub.f1"] == 0.5
    assert all(not isinstance(value, dict | list) for value in report.values())
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 6 and lines[2]["per_class_f1"] == [pytest.approx(0.82), None, None]
    assert (tmp_path / "figures" / "base_classifiers.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("source", "dataset"), [("simulated", "unsw24"), ("real", "parquet")])
def test_other_sets_and_stand_ins_stand_beside_no_published_figure(tmp_path, source, dataset):
    text = write(tmp_path, gaps=[], source=source, dataset=dataset).read_text()
    assert "thesis</th>" not in text and "99.56" not in text and "Is the best one better?" not in text
    assert not [key for key in json.loads((tmp_path / "report.json").read_text()) if key.startswith("published")]
    assert ("<p>a stand-in of cams</p>" in text) == (source == "simulated")
    assert ("Simulated data: every figure below" in text) == (source == "simulated")


def test_the_answer_names_the_best_of_each_score():
    one, two = summarise(RESULTS)
    assert pages.answer([one], []) == "XGBoost has a weighted F1 of 81.00 % and a macro F1 of 71.00 %."
    said = pages.answer([one, two._replace(macro_f1=0.9)], [GAPS[1]])
    assert said == "XGBoost is best by weighted F1, 81.00 %, ResNet by macro F1, 90.00 %."


def test_the_screen_table_shows_the_thesis_only_where_it_has_figures():
    def shown(published):
        console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(pages.base_classifier_table(summarise(RESULTS), published))
        return console.export_text()

    with_thesis = shown(BASE_CLASSIFIERS["unsw24", "all"])
    assert "81.00 ± 1.15" in with_thesis and "99.15 ± 0.37" in with_thesis and "thesis" in with_thesis
    assert "28" in with_thesis and "115" in with_thesis
    plain = shown(None)
    assert "81.00 ± 1.15" in plain and "thesis" not in plain
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(pages.base_classifier_table(summarise(RESULTS[:1])))
    assert "80.00 " in console.export_text(clear=False) and "±" not in console.export_text()


def test_the_published_rows_add_up_as_the_table_does():
    # sums of the columns of Table 8.8, taken from the printed rows
    expected = {
        "xgboost": (1140.47, 2.6, 1096.11, 3.64, 56_375, 5_406),
        "resnet": (1122.01, 4.71, 1068.37, 7.19, 2_242, 170_700),
        "resnet2x": (1136.0, 3.98, 1093.06, 5.93, 3_718, 497_760),
    }
    seconds = {"s": 1, "min": 60, "h": 3600}
    assert len(BASE_CLASSIFIERS) == 12
    for name, sums in expected.items():
        rows = [dataset.classifiers[name] for dataset in BASE_CLASSIFIERS.values()]
        times = [row.train_time.split() for row in rows]
        found = [sum(column) for column in zip(*(row[:5] for row in rows))]
        assert [*found, sum(int(count) * seconds[unit] for count, unit in times)] == pytest.approx(sums)
    assert BASE_CLASSIFIERS["cesnet_quic", "all"].classifiers["resnet2x"] == (90.86, 0.08, 83.17, 0.24, 288, "3 h")


def test_a_page_without_results_or_source_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one result"):
        pages.write_base_classifiers(tmp_path, results=[], gaps=[], config=config())
    with pytest.raises(ConfigError, match="real"):
        write(tmp_path, source="unknown")
    assert not list(tmp_path.iterdir())
