"""Structure of the critical-distance diagram: positions, labels, bars, and that no two lines cross."""

import dataclasses
import itertools

import numpy as np
import pytest

from jaxtraffic.evaluate.statistics import Comparison, compare
from jaxtraffic.report import rank_figures
from jaxtraffic.report.rank_figures import INDEPENDENCE_CAVEAT, axis_ends, bar_levels, draw_critical_distance


def comparison(k, n, spread, seed=0):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(n, k)) + generator.permutation(np.linspace(0, spread, k))
    return compare(scores, [f"method {i} with a name that is rather long" for i in range(k)])


def lines_of(drawing, colour):
    return [np.array(line.get_xydata()) for line in drawing.figure.axes[0].lines if line.get_color() == colour]


def elbows(drawing):
    return [points for points in lines_of(drawing, rank_figures.LINE_COLOUR) if len(points) == 3]


def bars(drawing):
    """Every second line is the beads of a bar."""
    return lines_of(drawing, rank_figures.BAR_COLOUR)[::2]


@pytest.fixture(scope="module", params=[(7, 30, 2.0), (19, 80, 2.0)], ids=["7", "19"])
def drawn(request):
    found = comparison(*request.param)
    assert found.significant
    return found, draw_critical_distance(found, baseline=found.names[2])


def test_every_method_stands_at_its_rank(drawn):
    found, drawing = drawn
    x = np.array([points[0, 0] for points in elbows(drawing)])
    # The place is linear in the rank, and the best is the furthest to the right.
    slope, _ = np.polyfit(found.mean_ranks, x, 1)
    assert slope < 0
    np.testing.assert_allclose(np.diff(x), slope * np.diff(found.mean_ranks), atol=1e-6)
    # The numbers of the axis stand on the same line.
    ticks = {int(text.get_text()): text.get_position()[0] for text in texts(drawing) if text.get_text().isdigit()}
    for rank, place in ticks.items():
        assert place == pytest.approx(x[0] + slope * (rank - found.mean_ranks[0]), abs=1e-6)
    assert min(ticks) <= found.mean_ranks[0]
    assert max(ticks) >= found.mean_ranks[-1]


def texts(drawing):
    return drawing.figure.axes[0].texts


def labels_of(found, drawing):
    return [text for text in texts(drawing) if text.get_text().startswith("method ")]


def test_labels_have_name_and_rank_and_keep_apart(drawn):
    found, drawing = drawn
    labels = labels_of(found, drawing)
    assert len(labels) == len(found.names)
    for label, name, rank in zip(labels, found.names, found.mean_ranks):
        assert label.get_text().startswith(name[:9])
        assert label.get_text().endswith(f"({rank:.2f})")
    assert [label.get_fontweight() for label in labels].index("bold") == 2
    width, height = drawing.figure.get_size_inches() * drawing.figure.dpi
    boxes = [label.get_window_extent() for label in labels]
    for box in boxes:
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    right = (len(labels) + 1) // 2
    assert all(label.get_horizontalalignment() == "left" for label in labels[:right])
    assert all(label.get_horizontalalignment() == "right" for label in labels[right:])


def test_no_two_elbows_cross(drawn):
    """A horizontal piece never meets the vertical piece of another method."""
    _, drawing = drawn
    for one, other in itertools.permutations(elbows(drawing), 2):
        low, high = sorted((one[1, 0], one[2, 0]))
        assert not (low < other[0, 0] < high and other[0, 1] < one[1, 1] < other[1, 1])


def test_bars_span_their_methods_and_keep_apart(drawn):
    found, drawing = drawn
    place = [points[0, 0] for points in elbows(drawing)]
    drawn_bars = bars(drawing)
    assert len(drawn_bars) == len(found.cliques) > 0
    for (first, last), bar in zip(found.cliques, drawn_bars):
        np.testing.assert_allclose(bar[:, 0], [place[first], place[last]])
    for one, other in itertools.combinations(drawn_bars, 2):
        if one[0, 1] == other[0, 1]:
            assert min(one[:, 0]) > max(other[:, 0]) + 0.1 or min(other[:, 0]) > max(one[:, 0]) + 0.1
    first_label = min(points[1, 1] for points in elbows(drawing))
    assert max(bar[0, 1] for bar in drawn_bars) < first_label


def test_ruler_has_the_length_of_the_distance(drawn):
    found, drawing = drawn
    x = [points[0, 0] for points in elbows(drawing)]
    a_rank = (x[0] - x[-1]) / (found.mean_ranks[-1] - found.mean_ranks[0])
    ruler = drawing.figure.axes[0].lines
    lengths = [np.ptp(line.get_xdata()) for line in ruler if line.get_linewidth() == 1.6]
    assert max(lengths) == pytest.approx(found.distance * a_rank)
    assert f"CD = {found.distance:.2f}" in [text.get_text() for text in texts(drawing)]


def test_no_bars_without_a_significant_friedman_test(drawn):
    found, drawing = drawn
    assert "cannot tell apart at 0.05" in drawing.caption
    alike = dataclasses.replace(found, p_value=0.05)
    without = draw_critical_distance(alike)
    assert bars(without) == []
    assert len(elbows(without)) == len(found.names)
    assert "no difference at 0.05" in without.caption
    assert drawing.caption.endswith(INDEPENDENCE_CAVEAT)
    assert without.caption.endswith(INDEPENDENCE_CAVEAT)


def test_odd_cases():
    two = draw_critical_distance(Comparison(("a", "$b$"), (1.0, 2.0), 0.001, 0.5, (), 9.0, 20))
    assert "tells all methods apart" in two.caption
    assert bars(two) == []
    tied = draw_critical_distance(Comparison(("a", "b", "c"), (2.0, 2.0, 2.0), 1.0, 0.7, ((0, 2),), 0.0, 20))
    assert len({points[0, 0] for points in elbows(tied)}) == 1
    wide = draw_critical_distance(comparison(7, 2, 0.0))
    assert any("more than the axis is long" in text.get_text() for text in texts(wide))


@pytest.mark.parametrize(
    ("mean", "distance", "ends"),
    [
        ((2.5, 6.2, 6.9, 7.1, 7.2, 7.3, 7.4, 7.5), 1.0, (2, 8)),
        ((3.3, 3.5, 3.6, 3.7, 3.9), 2.2, (2, 5)),
        ((2.0, 2.0, 2.0), 0.5, (2, 3)),
        ((1.0, 2.0), 5.0, (1, 2)),
        ((4.2, 4.3, 4.4, 4.5, 4.6, 4.7, 4.8, 4.9), 3.1, (4, 8)),
    ],
)
def test_axis_ends_at_whole_ranks_around_all(mean, distance, ends):
    assert axis_ends(mean, distance) == ends


def test_bars_take_the_first_free_level():
    assert bar_levels([(0, 3), (1, 4), (4, 6), (5, 7)]) == [0, 1, 0, 1]
    assert bar_levels([(0, 3), (1, 4), (4, 6), (5, 7)], apart=1.5) == [0, 1, 2, 0]
    assert bar_levels([(5, 6), (0, 4)]) == [0, 0]
    assert bar_levels([(5, 6), (0, 4)], apart=1.5) == [0, 1]
    assert bar_levels([]) == []
