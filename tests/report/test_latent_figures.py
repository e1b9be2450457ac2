"""Structure of the figures of a feature space: what is drawn where, and bad input."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.latent import AnchorReport, SourceShare
from jaxtraffic.report import latent_figures
from jaxtraffic.report.latent_figures import density_from_zero, draw_anchor_shares, draw_distance_kde, draw_tsne


def labels_of(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_anchor_shares_has_a_row_for_each_source():
    report = AnchorReport(
        k=10,
        metric="cosine",
        sources=(
            SourceShare("original", 0.25, 0.3, 0.9, 0.95),
            SourceShare("$wrap$", 0.25, 0.7, 0.8, 0.9),
            SourceShare("none near", 0.5, 0.0, math.nan, math.nan),
        ),
        augmented_only=(
            SourceShare("$wrap$", 1 / 3, 1.0, 0.7, 0.85),
            SourceShare("none near", 2 / 3, 0.0, math.nan, math.nan),
        ),
        right=0.83,
        augmented_right=0.7,
        ratio=np.array([0.5, 2.0, np.inf, 0.25]),
    )
    drawing = draw_anchor_shares(report)
    shares, right, similar = drawing.figure.axes
    assert labels_of(shares) == ["original", "$wrap$", "none near"]
    bars = {(round(bar.get_y() + bar.get_height() / 2), to_hex(bar.get_facecolor())): bar for bar in shares.patches}
    both = (latent_figures.ALL_COLOUR, latent_figures.AUGMENTED_COLOUR)
    assert [bars[0, both[0]].get_width(), bars[1, both[0]].get_width()] == [0.3, 0.7]
    assert bars[1, both[1]].get_width() == 1.0
    assert (0, both[1]) not in bars
    assert [line.get_xdata()[0] for line in shares.lines] == [0.25, 0.25, 0.5, 1 / 3, 2 / 3]
    assert [line.get_xdata()[0] for line in right.lines] == [0.9, 0.8, 0.7]
    assert [line.get_xdata()[0] for line in similar.lines] == [0.95, 0.9, 0.85]
    assert "83.0% among all anchors, 70.0% among augmented" in drawing.caption
    assert "For 50% of the test flows" in drawing.caption
    assert "median ratio of the two distances 0.50" in drawing.caption
    drawing.figure.canvas.draw()


def test_density_is_one_in_all_although_it_ends_at_zero():
    generator = np.random.default_rng(0)
    values = generator.exponential(size=500)
    grid = np.linspace(0, 20, 4001)
    density = density_from_zero(values, grid, generator)
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
    # Twice what the kernel alone would put there.
    width = values.std(ddof=1) * 500 ** (-1 / 5)
    alone = np.exp(-0.5 * (values / width) ** 2).mean() / (width * math.sqrt(2 * math.pi))
    assert density[0] == pytest.approx(2 * alone)
    many = density_from_zero(np.tile(values, 30), grid, generator)
    assert np.trapezoid(many, grid) == pytest.approx(1, abs=1e-3)
    assert density_from_zero(np.full(9, 2.0), grid, generator) is None
    assert density_from_zero(np.zeros(0), grid, generator) is None


def test_distances_are_sorted_and_zeros_told():
    generator = np.random.default_rng(1)
    far, near = 20 + generator.gamma(9, size=80), 5 + generator.gamma(2, size=80)
    near[:20] = 0
    drawing = draw_distance_kde({"far": far, "all the same": np.zeros(4), "near": near})
    ax = drawing.figure.axes[0]
    assert labels_of(ax) == ["all the same", "near", "far"]
    assert [text.get_text() for text in ax.texts] == ["100%", "25%", "\N{EN DASH}", "unchanged"]
    medians = [line for line in ax.lines if line.get_color() == latent_figures.CHANCE_COLOUR]
    assert [line.get_xdata()[0] for line in medians] == [0, np.median(near), np.median(far)]
    ridges = [line for line in ax.lines if line.get_color() == latent_figures.ALL_COLOUR]
    assert [np.nanmin(line.get_ydata()) for line in ridges] == pytest.approx([1 - 0.85, 2 - 0.85])
    assert np.isnan(ridges[0].get_ydata()[0]), "zeros have no part in the density"
    drawing.figure.canvas.draw()


def test_tsne_has_a_colour_for_frequent_classes_and_grey_for_the_rest():
    generator = np.random.default_rng(2)
    labels = np.concatenate([np.repeat(np.arange(25), 3), [26, 27, 27]])
    points = generator.normal(size=(len(labels), 2))
    augmented = np.arange(len(labels)) % 3 == 0
    drawing = draw_tsne(points, labels, [f"c{i}" for i in range(28)], augmented=augmented)
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == [*(f"c{i}" for i in range(25)), "2 other classes", "original", "augmentation"]
    drawn = [np.asarray(one.get_offsets()) for one in drawing.figure.axes[0].collections]
    assert sum(map(len, drawn)) == len(labels)
    np.testing.assert_array_equal(drawn[0], points[75:])
    hollow = [one for one in drawing.figure.axes[0].collections if len(one.get_facecolor()) == 0]
    np.testing.assert_array_equal(np.concatenate([one.get_offsets() for one in hollow]), points[:75][augmented[:75]])
    styles = set()
    for handle in drawing.figure.legends[0].legend_handles[:25]:
        styles.add((to_hex(handle.get_color()), handle.get_marker()))
    assert len(styles) == 25
    drawing.figure.canvas.draw()
    plain = draw_tsne(points[:6], labels[:6], ["$a$", "b"])
    assert [text.get_text() for text in plain.figure.legends[0].get_texts()] == ["$a$", "b"]
    assert "hollow" not in plain.caption
    plain.figure.canvas.draw()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_distance_kde({}), "one augmentation or more"),
        (lambda: draw_distance_kde({"a": np.zeros(0)}), "'a'"),
        (lambda: draw_distance_kde({"a": np.array([-1.0])}), "'a'"),
        (lambda: draw_distance_kde({"a": np.array([np.nan])}), "'a'"),
        (lambda: draw_tsne(np.ones((3, 3)), np.zeros(3, int), ["a"]), "point, 2"),
        (lambda: draw_tsne(np.ones((3, 2)), np.zeros(2, int), ["a"]), "as many labels"),
        (lambda: draw_tsne(np.full((3, 2), np.nan), np.zeros(3, int), ["a"]), "finite"),
        (lambda: draw_tsne(np.ones((3, 2)), np.ones(3, int), ["a"]), "between 0 and 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
