import numpy as np
import pytest

from jaxtraffic.report import coverage_figures, judgement_figures
from jaxtraffic.report.figures import per_class_f1_bars
from jaxtraffic.report.set_lines import numbers_of, set_title
from tests.report.full_judgement import SETS, make_judgement

NAMES = ["$a$", "<b>", "c"]


@pytest.fixture(scope="module")
def judged():
    return make_judgement(NAMES)


def lines_of(drawing):
    return {line.get_label(): line for line in drawing.figure.axes[0].get_lines()}


def test_curves_of_alpha_and_beta_show_every_set_and_the_diagonal(judged):
    curves = judged[1]
    alpha, beta = coverage_figures.alpha_beta_curves(curves)
    assert (alpha.section, alpha.name, beta.name) == ("coverage", "alpha_curve", "beta_curve")
    lines = lines_of(beta)
    assert set(map(set_title, SETS)) <= set(lines)
    np.testing.assert_allclose(lines["generated"].get_ydata(), curves["generated"]["coverage"]["beta_curve"])
    np.testing.assert_allclose(lines["generated"].get_xdata(), curves["generated"]["coverage"]["alpha"])
    assert [line.get_linestyle() for line in beta.figure.axes[0].get_lines()][0] == ":"
    assert lines["generated"].get_zorder() == max(line.get_zorder() for line in lines.values())


def test_sets_are_told_apart_without_colour(judged):
    lines = lines_of(coverage_figures.alpha_beta_curves(judged[1])[0])
    looks = {(line.get_linestyle(), line.get_linewidth(), str(line._dash_pattern)) for line in lines.values()}
    assert len(looks) == len(lines)


def test_distances_are_drawn_as_distributions(judged):
    curves = judged[1]
    nearest, real, index = coverage_figures.nearest_records(curves)
    line = lines_of(nearest)["marginals"]
    np.testing.assert_allclose(line.get_xdata(), curves["marginals"]["coverage"]["nearest_quantiles"])
    np.testing.assert_allclose(line.get_ydata(), np.linspace(0, 1, 101))
    assert nearest.figure.axes[0].get_xscale() == "symlog"
    assert nearest.figure.axes[0].get_xlim()[0] == 0
    line = lines_of(index)["fresh real"]
    np.testing.assert_allclose(line.get_ydata(), curves["fresh_real"]["coverage"]["index_share"])
    assert real.name == "nearest_real_quantiles"
    [privacy] = coverage_figures.privacy_distances(curves)
    assert set(lines_of(privacy)) == {
        f"{name}, to {side}" for name in ("generated", "bootstrap copy") for side in ("training", "hold-out")
    }


def test_positions_are_counted_from_one(judged):
    ks, wasserstein, direction = judgement_figures.by_position(judged[1])
    line = lines_of(ks)["capture half"]
    assert (line.get_xdata()[0], line.get_xdata()[-1]) == (1, 30)
    np.testing.assert_allclose(line.get_ydata(), judged[1]["capture_half"]["density"]["ks_complement"])
    assert (wasserstein.section, direction.section) == ("density", "density")


def test_scaling_curves_rise_by_multiples(judged):
    utility, augmentation = judgement_figures.scaling_curves(judged[0], ["", "marginals"])
    line = lines_of(utility)["generated, macro"]
    assert list(line.get_xdata()) == [1, 2, 4, 8, 16]
    assert line.get_ydata()[1] == judged[0]["scaling.utility.x2.macro_f1_gap"]
    assert not [label for label in lines_of(augmentation) if label.startswith("marginals")]
    assert judgement_figures.scaling_curves({"scaling.utility.x3.weighted_f1_gap": 0.1})[0].name == "scaling_utility"
    assert judgement_figures.scaling_curves({}) == []


def test_confusion_is_in_shares_of_true_classes_most_tested_first():
    real = [[1, 1, 0, 0], [0, 0, 0, 0], [2, 0, 6, 0], [0, 0, 0, 0]]
    names = [*NAMES, "never"]
    drawings = judgement_figures.confusion_matrices({"generated": {"confusion": {"real": real}}}, names)
    assert [drawing.name for drawing in drawings] == ["confusion_real"]
    ax = drawings[0].figure.axes[0]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["c", "$a$", "<b>"]
    assert "$a$ taken for <b> (50%)" in drawings[0].caption
    wrong = {"generated": {"confusion": {"real": [[1, 0], [0, 1]]}}}
    assert judgement_figures.confusion_matrices(wrong, NAMES) == []
    right = {"generated": {"confusion": {"synthetic": np.eye(3).tolist()}}}
    assert "No class is confused" in judgement_figures.confusion_matrices(right, NAMES)[0].caption


def test_many_classes_have_a_confusion_without_names():
    curves = {"generated": {"confusion": {"real": np.eye(40).tolist()}}}
    [drawing] = judgement_figures.confusion_matrices(curves, [f"class {i}" for i in range(40)])
    assert "class" not in " ".join(tick.get_text() for tick in drawing.figure.axes[0].get_yticklabels())


def test_frequent_sizes_and_runs_are_those_of_the_curves(judged):
    found = judged[1]["generated"]["semantics"]
    [atoms] = judgement_figures.frequent_sizes(judged[1])
    real, synthetic = atoms.figure.axes[0].containers
    np.testing.assert_allclose([bar.get_width() for bar in real], found["atom_real"])
    np.testing.assert_allclose([bar.get_width() for bar in synthetic], found["atom_synthetic"])
    labels = [tick.get_text() for tick in atoms.figure.axes[0].get_yticklabels()]
    assert labels[0] == f"{found['atom_sizes'][0]:+d}".replace("-", "\N{MINUS SIGN}")
    [runs] = judgement_figures.run_lengths(judged[1])
    values, edges, _ = runs.figure.axes[0].patches[1].get_data()
    np.testing.assert_allclose(values, found["run_lengths_synthetic"])
    assert edges[0] == 0.5


def test_differences_of_f1_stand_beside_the_bars():
    [drawing] = per_class_f1_bars([("a", 0.5, 0.9, 3), ("b", 0.8, 0.2, 7)])
    _, right = drawing.figure.axes
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], [-0.6, 0.4])


@pytest.mark.parametrize(
    "curves",
    [
        {},
        {"generated": {}},
        {"generated": {"coverage": {}, "density": {"ks_complement": []}, "semantics": {"atom_sizes": [1.0]}}},
        {"marginals": {"coverage": {"alpha_curve": [None, None]}, "privacy": {}}},
    ],
)
def test_what_was_not_judged_is_not_drawn(curves):
    drawn = [
        *coverage_figures.alpha_beta_curves(curves),
        *coverage_figures.nearest_records(curves),
        *coverage_figures.privacy_distances(curves),
        *judgement_figures.by_position(curves),
        *judgement_figures.confusion_matrices(curves, NAMES),
        *judgement_figures.frequent_sizes(curves),
        *judgement_figures.run_lengths(curves),
    ]
    assert drawn == []


def test_nulls_in_a_curve_are_gaps():
    curves = {"generated": {"density": {"ks_complement": [1.0, None, 0.5]}}}
    np.testing.assert_array_equal(numbers_of(curves, "generated", "density", "ks_complement"), [1.0, np.nan, 0.5])
    [drawing] = judgement_figures.by_position(curves)
    assert np.isnan(lines_of(drawing)["generated"].get_ydata()[1])
