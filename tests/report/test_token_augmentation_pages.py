"""The page of the augmentation test: what it answers, tables, files, refusals."""

import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from jaxtraffic.errors import ConfigError
from jaxtraffic.report import token_augmentation_pages as pages
from jaxtraffic.report.token_augmentation_results import Cell, Choice, Difference, Kind, answer, kind_text

NOTHING = Kind("none", None, "training", 0.0)
WORSE, LEVEL, BETTER = (Difference(mean, mean - 0.01, mean + 0.01) for mean in (-0.05, 0.002, 0.03))


def cells(lead=LEVEL, classifiers=("xgboost",)):
    found = []
    for classifier in classifiers:
        for metric in ("weighted_f1", "macro_f1"):
            found.append(Cell(classifier, metric, NOTHING, 0.8, Difference(0.0, 0.0, 0.0), WORSE))
            for method, temperature in (("token_s4", 0.7), ("token_s4", 1.0), ("translation", None)):
                for labels in ("training", "balanced"):
                    for ratio in (0.5, 2.0):
                        kind = Kind(method, temperature, labels, ratio)
                        found.append(Cell(classifier, metric, kind, 0.81, BETTER, lead))
    return found


def choices(leads=(LEVEL, LEVEL), copy=LEVEL):
    kinds = (Kind("token_s4", 0.7, "training", 0.5), Kind("token_s4", 1.0, "balanced", 2.0))
    found = []
    for metric, lead in zip(("weighted_f1", "macro_f1"), leads, strict=True):
        found.append(Choice("xgboost", metric, "token_s4", kinds, 0.8123, BETTER, lead, WORSE))
        found.append(Choice("xgboost", metric, "bootstrap", kinds[:1] * 2, 0.79, copy, WORSE, WORSE))
    return found


def config(source="real", **changes):
    data = {"source": source, "name": "toy <1>", "notice": "a stand-in", "n_flows": 100, "class_names": ["a", "b"]}
    return {"data": data, "folds": [0, 1], "seeds": [0], "train_share": 0.1, "seed": 3, "command": ["a b"]} | changes


@pytest.mark.parametrize(
    ("leads", "start", "middle"),
    [
        ((BETTER, BETTER), "Yes: ", "throughout (0 of 2"),
        ((BETTER, LEVEL), "In part: ", "for XGBoost (weighted F1) (1 of 2"),
        ((BETTER, WORSE), "In part: ", "for XGBoost (weighted F1); they lose to it for XGBoost (macro F1) (0 of 2"),
        ((LEVEL, LEVEL), "Not shown: ", "ahead by more than chance (2 of 2 comparisons cannot be told from chance)."),
        ((LEVEL, WORSE), "No: ", "nowhere beat Translate; they lose to it for XGBoost (macro F1) (1 of 2"),
        ((WORSE, WORSE), "No: ", "they lose to it for XGBoost (weighted F1) and XGBoost (macro F1) (0 of 2"),
        ((Difference(0.1, None, None),) * 2, "One unit only", "not decided"),
    ],
)
def test_the_answer_follows_the_intervals_of_what_validation_flows_chose(leads, start, middle):
    said = answer(cells(), choices(leads))[0]
    assert said.startswith(start) and middle in said


def test_the_answer_tells_of_luck_and_of_the_bootstrap_copy():
    said = " ".join(answer(cells(BETTER), choices()))
    assert "Of the 16 cells of token samples, 16 have a higher mean" in said and "16 of them by more" in said
    assert "81.23 % with token samples, +3.00 [+2.00, +4.00] points on no augmentation" in said
    assert "bootstrap copy" not in said
    gains = " ".join(answer(cells(WORSE), choices(copy=BETTER)))
    assert "0 have a higher mean" in gains and "A bootstrap copy, which adds no new flow, gains too" in gains
    others = [one for one in choices() if one.method == "bootstrap"]
    assert "not among the methods" in answer(cells(), others)[0]


def test_kinds_and_differences_in_words():
    assert kind_text(Kind("token_s4", 0.85, "balanced", 0.25)) == "T 0.85 x 0.25 balanced"
    assert kind_text(Kind("translation", None, "training", 4.0)) == "4" and kind_text(NOTHING) == ""
    assert WORSE.text == "\N{MINUS SIGN}5.00 [\N{MINUS SIGN}6.00, \N{MINUS SIGN}4.00]" and WORSE.sign == -1
    assert Difference(0.01, None, None).text == "+1.00" and Difference(0.01, None, None).sign == 0


def test_the_page_is_whole_and_the_tables_have_every_mix(tmp_path):
    pages.write_token_augmentation(
        tmp_path, cells=cells(classifiers=("xgboost", "mlp")), choices=choices((BETTER, WORSE)), config=config()
    )
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', text) and "<script" not in text
    places = [text.index(part) for part in ("Real data: toy &lt;1&gt;", "In part: ", "Chosen on", "All mixes")]
    assert places == sorted(places) and "toy <1>" not in text and "10 % of the real training flows" in text
    assert text.count("<details><summary>") == 5 and "T 0.7 x 0.5, T 1 x 2 balanced" in text
    markdown = (tmp_path / "tables.md").read_text()
    assert "| token S4, T 0.7, balanced | **+3.00 [+2.00, +4.00]** | **+3.00" in markdown
    assert markdown.count("| 0.5 x | 2 x |") == 4 and "MLP, macro F1: points on no augmentation (80.00 %)" in markdown
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["gains.png"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["chosen.xgboost.token_s4.weighted_f1"] == 0.8123 and report["n"] == 2
    assert report["chosen.xgboost.token_s4.macro_f1_lead_high"] == pytest.approx(-0.04)
    assert report["cell.mlp.token_s4-t0.7-balanced-x2.macro_f1_gain_low"] == pytest.approx(0.02)
    assert all(not isinstance(value, dict | list) for value in report.values())


def test_simulated_data_and_single_units_are_said(tmp_path):
    alone = Difference(0.01, None, None)
    few = [cell._replace(gain=alone, lead=alone) for cell in cells()]
    one = [choice._replace(gain=alone, lead=alone, lead_best=alone) for choice in choices()]
    path = pages.write_token_augmentation(tmp_path, cells=few, choices=one, config=config("simulated"))
    text = path.read_text()
    assert text.index("Simulated data: every figure below") < text.index("One unit only") and "a stand-in" in text
    assert json.loads((tmp_path / "report.json").read_text())["chosen.xgboost.token_s4.weighted_f1_lead_low"] is None


def test_the_screen_table_keeps_its_brackets():
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(pages.choice_table(choices((BETTER, WORSE))))
    assert "+3.00 [+2.00, +4.00]" in console.export_text()


def test_a_page_without_cells_or_source_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs cells"):
        pages.write_token_augmentation(tmp_path, cells=[], choices=[], config=config())
    with pytest.raises(ConfigError, match="real"):
        pages.write_token_augmentation(tmp_path, cells=cells(), choices=choices(), config=config("guessed"))
    assert not list(tmp_path.iterdir())


def test_the_page_needs_no_jax():
    code = "import sys; import jaxtraffic.report.token_augmentation_pages; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
