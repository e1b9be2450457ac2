import io

import pytest
from rich.console import Console

from jaxtraffic.report import judgement_table
from jaxtraffic.report.answers import answers_of
from jaxtraffic.report.goals import Metric
from jaxtraffic.report.judgements import (
    columns_of,
    headline_rows,
    multiples_of,
    number_text,
    rows_of,
    sections_of,
)
from jaxtraffic.report.metrics import GROUPS, METRICS
from tests.report.full_judgement import FIGURES, MODELS, make_judgement

MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def judgements():
    return make_judgement(["a", "b"])[0]


def test_the_metrics_are_told_apart_explained_and_grouped():
    keys = [metric.key for metric in METRICS]
    assert len(set(keys)) == len(keys)
    assert {metric.group for metric in METRICS} == {group.key for group in GROUPS}
    headings = [metric for metric in METRICS if not metric.short]
    assert not [metric.key for metric in headings if not metric.meaning]
    assert not [metric.key for metric in headings if metric.goal and not metric.blind_spot]
    assert 15 <= sum(metric.headline for metric in METRICS) <= 20
    order = [group.key for group in GROUPS]
    places = [order.index(metric.group) for metric in METRICS]
    assert places == sorted(places)


def test_a_row_that_varies_another_stands_below_one_of_its_group():
    for above, metric in zip(METRICS, METRICS[1:]):
        if metric.short:
            assert above.group == metric.group


def test_every_figure_of_the_contract_has_a_row(judgements):
    shown = {row.metric.key for row in rows_of(judgements, columns_of(judgements, "x"))}
    wanted = {f"{group}.{figure}" for group, figures in FIGURES.items() for figure in figures}
    assert wanted <= shown
    assert {f"downstream.{model}.utility.weighted_f1_gap" for model in MODELS} <= shown
    assert {f"scaling.augmentation.x{times}.macro_f1_gain" for times in (1, 16)} <= shown


@pytest.mark.parametrize(
    ("goal", "values", "fresh", "best"),
    [
        ("higher", (0.1, 0.3, None, 0.2), None, {1}),
        ("lower", (0.1, 0.3, 0.2), None, {0}),
        ("zero", (-0.2, 0.3, -0.1), None, {2}),
        ("half", (0.9, 0.4, 0.2), None, {1}),
        ("real", (0.9, 0.4, 0.2), 0.7, {0}),
        ("real", (0.9, 0.4, 0.2), None, set()),
        ("lower", (0.10001, 0.1, 0.2), None, {0, 1}),
        ("higher", (0.1, None), None, set()),
        ("", (0.1, 0.2), 0.1, set()),
    ],
)
def test_the_best_is_where_the_goal_says(goal, values, fresh, best):
    assert Metric("a.b", "", goal, "", "").best(values, fresh) == best


def test_real_sets_never_win(judgements):
    columns = columns_of(judgements, "x")
    assert [column.title for column in columns if column.real] == [
        "fresh real",
        "bootstrap copy",
        "random half",
        "capture half",
    ]
    won = {columns[i].title for row in rows_of(judgements, columns) for i, cell in enumerate(row.cells) if cell.best}
    assert won == {"x (this run)", "marginals"}


def test_models_and_multiples_have_a_row_each_in_their_order(judgements):
    judgements = judgements | {"downstream.a.b.weighted_f1_real": 0.5, "reference.marginals.downstream.svm.x": 1}
    found = [name for name, _ in multiples_of(judgements, "scaling.utility.x*.weighted_f1_gap")]
    assert found == ["1", "2", "4", "8", "16"]
    [section] = [one for one in sections_of(judgements, columns_of(judgements, "x")) if one.group.key == "downstream"]
    first = section.rows[:5]
    assert [row.metric.short for row in first] == ["", "random forest", "naive Bayes", "MLP", "ResNet"]
    assert [bool(row.cells) for row in first] == [False, True, True, True, True]
    assert all(row.metric.meaning for row in first[:1])
    assert not any(row.metric.meaning for row in first[1:])


def test_groups_that_were_not_judged_have_no_section(judgements):
    some = {key: value for key, value in judgements.items() if key.startswith(("kernel", "latent", "fidelity.copy"))}
    sections = sections_of(some, columns_of(some, "x"))
    assert [section.group.key for section in sections] == ["kernel", "privacy"]
    assert [row.metric.key for row in sections[0].rows][-1] == "latent.frechet"
    assert sections_of({"kernel.mmd": float("nan"), "privacy.n": 3}, columns_of({}, "x")) == []


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (-0.1234, {}, f"{MINUS}0.123"),
        (0.1, {"signed": True}, "+0.100"),
        (-0.0001, {"signed": True}, "0.000"),
        (435.0, {"digits": 0}, "435"),
        (10.0, {"digits": 0}, "10"),
    ],
)
def test_figures_have_true_signs(value, options, text):
    assert number_text(value, **options) == text


def terminal(judgements, **options):
    console = Console(width=170, record=True, file=io.StringIO())
    console.print(judgement_table(judgements, name="x", **options))
    return console.export_text()


def test_the_terminal_shows_the_headline_and_all_when_asked(judgements):
    few, full = terminal(judgements), terminal(judgements, full=True)
    headline = headline_rows(judgements, columns_of(judgements, "x"))
    assert len(headline) == sum(metric.headline for metric in METRICS)
    assert not any(row.below for row in headline)
    assert "Beta-recall, equal numbers" in " ".join(few.split())
    assert "Authenticity" not in few
    for piece in ("Authenticity", "random forest", "16 \N{MULTIPLICATION SIGN}", "every sequence once", "Privacy"):
        assert piece in full
    assert full.count("\n") > 3 * few.count("\n")
    assert "Authenticity" in terminal({"coverage.authenticity": 0.4})


def test_the_first_answers_say_what_was_found_and_what_noise_is():
    found = {
        "utility.weighted_f1_real": 0.9,
        "utility.weighted_f1_synthetic": 0.88,
        "utility.weighted_f1_gap": -0.02,
        "utility.weighted_f1_gap_stderr": 0.015,
        "reference.fresh_real.utility.weighted_f1_gap": 0.004,
        "discriminative.score": 0.2,
        "discriminative.stderr": 0.01,
        "coverage.alpha_precision": 0.7,
        "coverage.beta_recall": 0.3,
        "privacy.closer_to_train": 0.61,
        "privacy.closer_to_train_stderr": 0.01,
    }
    answers = dict(answers_of(found))
    assert len(answers) == 4
    [utility] = answers["Do they teach a classifier?"]
    assert f"gap {MINUS}0.020 (±\N{NO-BREAK SPACE}0.015, within noise of 0)" in utility.text
    assert "0.880" in utility.text
    assert utility.beside == "fresh real +0.004"
    [score] = answers["Can they be told apart from real flows?"]
    assert "70.0% of flows" in score.text
    assert "noise" not in score.text
    [coverage] = answers["Do they lie where real flows lie?"]
    assert "0.700" in coverage.text
    matched = found | {"coverage.matched.alpha_precision": 0.75, "coverage.matched.beta_recall": 0.35}
    assert "0.750" in dict(answers_of(matched))["Do they lie where real flows lie?"][0].text
    [memory] = answers["Are they copies?"]
    assert "61.0%" in memory.text
    assert "noise" not in memory.text
    assert answers_of({}) == []
