import json
import re

import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.report import write, write_report
from jaxtraffic.report.metrics import GROUPS, METRICS
from jaxtraffic.report.page import render_page
from tests.report.full_judgement import FIGURES, make_judgement, make_series
from tests.report.test_report import NAMES, NASTY, Page, make_config, write_log

INFORMATION = {
    "information.mean": 2.31,
    "information.stderr": 0.02,
    "information.ceiling": 2.2,
    "information.class.a.b": 1.25,
    f"information.class.{NASTY}": 1.5,
}


def write_full(folder, names, n_flows, *, length=12, **changes):
    judgements, curves = make_judgement(names)
    real, real_label = make_series(n_flows, 1, len(names), length)
    synthetic, synthetic_label = make_series(n_flows, 2, len(names), length)
    arguments = {
        "real_signed": real,
        "real_label": real_label,
        "synthetic_signed": synthetic,
        "synthetic_label": synthetic_label,
        "class_names": names,
        "judgements": judgements | INFORMATION,
        "curves": curves,
        "config": make_config(class_names=list(names), class_counts=[1] * len(names)),
    }
    return write_report(folder, **(arguments | changes))


@pytest.fixture(scope="module")
def full_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    write_log(folder)
    # The figures that every run has are drawn in test_report.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "series_pages", lambda *_: [])
        patch.setattr(write.figures, "sizes_by_position", lambda *_: [])
        patch.setattr(write.figures, "position_images", lambda *_: [])
        write_full(folder, NAMES, 60)
    return folder


def render(judgements, figures=()):
    return render_page(make_config(), judgements, list(figures), {})


def parsed(text, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(text)
    return Page(path)


def test_the_full_page_has_every_section_row_and_figure(full_run):
    page = Page(full_run / "report.html")
    assert page.depth == []
    assert {group.key for group in GROUPS} <= set(page.ids)
    text = " ".join(page.text)
    titles = {metric.title for metric in METRICS if "*" not in metric.key and not metric.short}
    assert not [title for title in titles if title not in text]
    assert not [metric.key for metric in METRICS if metric.meaning not in text or metric.blind_spot not in text]
    for column in ("fresh real", "bootstrap copy", "marginals", "random half", "capture half"):
        assert column in text
    drawn = {path.stem for path in (full_run / "figures").glob("*.png")}
    assert drawn >= {
        "alpha_curve",
        "beta_curve",
        "nearest_quantiles",
        "nearest_real_quantiles",
        "index_share",
        "ks_complement",
        "confusion_real",
        "confusion_synthetic",
        "scaling_utility",
        "scaling_augmentation",
        "frequent_sizes",
        "run_lengths",
        "lengths_and_directions",
        "privacy_distances",
        "per_class_f1_1",
    }
    assert page.tags.count("img") == len(drawn)


def test_a_figure_stands_in_the_section_of_its_metrics(full_run):
    text = (full_run / "report.html").read_text()
    sections = dict(re.findall(r'<h2 id="(\w+)">(.*?)(?=<h2|\Z)', text, flags=re.S))
    for section, caption in (
        ("coverage", "Figure 8.11"),
        ("scaling", "Figure 8.9"),
        ("privacy", "no memory."),
        ("utility", "Confusion on real test flows"),
        ("semantics", "most frequent exact sizes"),
        ("run", "Training loss by step"),
    ):
        assert caption in sections[section]
    assert "<script" not in text
    assert NASTY in " ".join(Page(full_run / "report.html").text)


def test_curves_are_strict_json_with_whole_numbers_kept(full_run):
    def refuse(constant):
        raise AssertionError(constant)

    curves = json.loads((full_run / "curves.json").read_text(), parse_constant=refuse)
    _, given = make_judgement(NAMES)
    assert set(curves) == set(given)
    assert curves["generated"]["kernel"]["squared"] == [0.1, None]
    assert curves["generated"]["confusion"] == given["generated"]["confusion"]
    assert isinstance(curves["generated"]["scaling"]["multiples"][0], int)
    assert curves["marginals"]["coverage"] == given["marginals"]["coverage"]


def test_curves_come_before_the_report_and_old_ones_go(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(write, "write_atomically", lambda path, content: order.append(path.name))
    monkeypatch.setattr(write, "_write_figure", lambda *_: None)
    monkeypatch.setattr(write, "series_pages", lambda *_: [])
    monkeypatch.setattr(write, "render_page", lambda *_: "")
    (tmp_path / "curves.json").write_text("{}")
    write_full(tmp_path, NAMES, 20, curves=None)
    assert order == ["report.html", "report.json"]
    assert not (tmp_path / "curves.json").exists()
    order.clear()
    write_full(tmp_path, NAMES, 20)
    assert order == ["curves.json", "report.html", "report.json"]


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ([], "curves must be a dict"),
        ({"generated": [1.0]}, "curves generated must be a dict"),
        ({"generated": {"density": [1.0]}}, "curves generated.density must be a dict"),
        ({"generated": {"density": {"ks": ["x"]}}}, "generated.density.ks must be a list"),
        ({"generated": {"density": {"ks": [[1.0], [1.0, 2.0]]}}}, "generated.density.ks must be a list"),
    ],
)
def test_curves_that_are_none_are_refused(tmp_path, curves, message):
    with pytest.raises(ConfigError, match=message):
        write_full(tmp_path, NAMES, 20, curves=curves)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("group", [*FIGURES, "downstream", "scaling"])
def test_each_group_makes_a_page_by_itself(group, tmp_path):
    judgements, _ = make_judgement(NAMES)
    found = {key: value for key, value in judgements.items() if f".{key}".split(f".{group}.")[0] in ("", ".reference")}
    found |= {key: value for key, value in judgements.items() if key.startswith(f"reference.marginals.{group}.")}
    page = parsed(render(found), tmp_path)
    assert page.depth == []
    sections = {metric.group for metric in METRICS if metric.key.startswith(f"{group}.")}
    assert sections == set(page.ids) & {one.key for one in GROUPS}


def test_figures_that_are_not_finite_are_dashes(tmp_path):
    judgements, _ = make_judgement(NAMES)
    broken = {
        key: float("nan") if key.startswith("reference.marginals") else value for key, value in judgements.items()
    }
    page = parsed(render(broken), tmp_path)
    text = " ".join(page.text)
    assert "nan" not in text.split()
    assert "Authenticity" in text


def test_a_table_shows_the_sets_that_were_judged_and_multiples_side_by_side():
    judgements, _ = make_judgement(NAMES)
    text = render({key: value for key, value in judgements.items() if "coverage" not in key or "reference" not in key})
    sections = dict(re.findall(r'<h2 id="(\w+)">(.*?)(?=<h2|\Z)', text, flags=re.S))
    heads = {
        name: re.findall(r'<th scope="col" class="value[^"]*">([^<]*)</th>', part) for name, part in sections.items()
    }
    assert heads["coverage"] == ["DDPMS4 (this\N{NO-BREAK SPACE}run)", "n"]
    assert heads["scaling"] == [f"{times} \N{MULTIPLICATION SIGN}" for times in (1, 2, 4, 8, 16)] + ["n"]
    assert len(heads["kernel"]) == 7
    row = re.search(r"Utility: weighted F1 gap</th>(.*?)</tr>", sections["scaling"], flags=re.S)[1]
    values = re.findall(r'data-title="(\d+)[^>]*>(\S+)</td>', row)
    expected = [judgements[f"scaling.utility.x{times}.weighted_f1_gap"] for times in (1, 2, 4, 8, 16)]
    assert [float(value.replace("\N{MINUS SIGN}", "-")) for _, value in values] == pytest.approx(expected, abs=6e-4)


def test_information_is_shown_where_it_was_measured(tmp_path):
    judgements, _ = make_judgement(NAMES)
    page = parsed(render(judgements | INFORMATION), tmp_path)
    text = " ".join(page.text)
    assert "2.31 ± 0.02 nats a flow" in text
    assert "more than there is to know" in text
    assert f"{NASTY} 1.50 a.b 1.25" in text
    below = " ".join(parsed(render(judgements | INFORMATION | {"information.mean": 1.0}), tmp_path).text)
    assert "more than there is to know" not in below
    assert "information" not in parsed(render(judgements), tmp_path).ids


def test_cards_say_what_was_judged_and_by_which_classifier(tmp_path):
    judgements = {"judge.xgboost.max_depth": 6, "data.n_held_out": 4321, "coverage.matched.n": 318}
    text = " ".join(parsed(render(judgements), tmp_path).text)
    for piece in ("The XGBoost that judges max depth 6", "Held-out flows (fresh real) 4,321", "equal numbers 318"):
        assert piece in text


@pytest.mark.slow
def test_a_hundred_classes_stay_under_ten_megabytes(tmp_path):
    names = [f"service-{i:03d}.example.com <&>" for i in range(100)]
    write_log(tmp_path)
    # Noise is what PNG packs worst.
    noise = np.random.default_rng(0).integers(-1460, 1461, (20_000, 30)).astype(np.int16)
    labels = np.arange(20_000) % 100
    path = write_full(
        tmp_path, names, 10, real_signed=noise, real_label=labels, synthetic_signed=noise, synthetic_label=labels
    )
    assert path.stat().st_size < 10_000_000
    page = Page(path)
    assert page.depth == []
    assert page.tags.count("img") == len(list((tmp_path / "figures").glob("*.png"))) > 30
