"""Tables, colours, figures and page of a benchmark of mutual information, from fixed numbers."""

import html.parser
import json
import math
import re

import numpy as np
import pytest
from rich.console import Console

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.information_figures import bias_by_method, estimates_against_truth
from jaxtraffic.report.information_pages import METHODS, Check, check_results, write_benchmark
from jaxtraffic.report.information_tables import (
    PUBLISHED,
    SATURATION,
    Cell,
    Grid,
    TaskRow,
    benchmark_table,
    bias_colours,
    flat_results,
    nats,
    seconds_text,
)

NASTY = "<script>alert('x')</script>"
SMALL = TaskRow("1v1-normal-0.75", 1, 1, 0.4, "Bivariate normal")
LARGE = TaskRow("2-pair-3-3-mi-5", 3, 3, 5.0)
EMPTY = TaskRow("nothing", 1, 2, 0.0)


def line(task, method, value, *, seed=0, stderr=0.004, seconds=10.0, **more):
    return {
        "task": task.name,
        "method": method,
        "seed": seed,
        "value": value,
        "stderr": stderr,
        "seconds": seconds,
        "warnings": [],
        "n_train": 1000,
        "n_test": 100,
    } | more


@pytest.fixture
def grid():
    lines = [
        *(line(SMALL, "rf", value, seed=seed) for seed, value in enumerate((0.41, 0.43, 0.45))),
        line(LARGE, "rf", 4.2, seconds=400.0, warnings=[f"still rising {NASTY}"]),
        line(SMALL, "ksg", 0.2, stderr=None),
        line(LARGE, "ksg", None, stderr=None, error=f"out of memory {NASTY}"),
        line(SMALL, "cca", None),
        line(SMALL, "left out", 1.0),
        line(TaskRow("left out too", 1, 1, 1.0), "rf", 1.0),
    ]
    return Grid([SMALL, LARGE], ["rf", "ksg", "cca"], lines)


def test_near_is_the_larger_of_a_tenth_and_a_twentieth_of_a_nat():
    assert (EMPTY.tolerance, SMALL.tolerance, LARGE.tolerance) == (0.05, 0.05, 0.5)
    assert Cell(SMALL, (0.449,)).within and not Cell(SMALL, (0.451,)).within
    assert Cell(LARGE, (4.51,)).within and not Cell(LARGE, (4.49,)).within
    assert not Cell(SMALL, (math.nan,)).within and not Cell(SMALL, ()).within


def test_cells_hold_means_spreads_and_failures(grid):
    cell = grid.cell(SMALL, "rf")
    assert np.isclose(cell.mean, 0.43) and np.isclose(cell.sd, 0.02) and np.isclose(cell.bias, 0.03)
    assert np.isclose(cell.absolute_error, (0.01 + 0.03 + 0.05) / 3) and cell.seconds == 30
    assert cell.within and cell.text == "0.430" and cell.spread_text == "±0.020 sd"
    low = grid.cell(LARGE, "rf")
    assert math.isnan(low.sd) and low.spread_text == "±0.004 se"
    assert low.text == "▼4.200" and not low.within
    assert Cell(SMALL, (0.9,)).text == "▲0.900" and Cell(SMALL, (-0.5,)).text == "▼\N{MINUS SIGN}0.500"
    assert grid.cell(LARGE, "ksg").text == "no estimate" and grid.cell(SMALL, "cca").text == "not finite"
    assert grid.cell(LARGE, "cca") is None
    # Errors of opposite sign do not cancel.
    assert np.isclose(Cell(SMALL, (0.3, 0.5)).absolute_error, 0.1) and np.isclose(Cell(SMALL, (0.3, 0.5)).bias, 0)


def test_colours_are_white_at_the_truth_red_above_blue_below():
    assert bias_colours(0.0) == ("#ffffff", "#000000")
    assert bias_colours(SATURATION) == bias_colours(100.0) == ("#b2182b", "#ffffff")
    assert bias_colours(-SATURATION) == bias_colours(-100.0) == ("#2166ac", "#ffffff")

    def channels(tolerances):
        text = bias_colours(tolerances)[0]
        return [int(text[i : i + 2], 16) for i in (1, 3, 5)]

    for tolerances in (1.0, 2.5, 4.0):
        red, green, blue = channels(tolerances)
        assert red > blue >= green
        red, green, blue = channels(-tolerances)
        assert blue > green > red
    assert channels(1.0)[1] > channels(2.0)[1] > channels(3.0)[1]
    assert Cell(LARGE, (4.5,)).colours[0] == bias_colours(-1.0)[0]
    assert Cell(SMALL, ()).colours[0] == "#eeeeee"


def test_text_on_every_colour_is_readable():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for tolerances in np.linspace(-6, 6, 121):
        light, dark = sorted(map(luminance, bias_colours(float(tolerances))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, tolerances


def test_summaries_compare_methods_on_the_tasks_they_share(grid):
    rf, ksg, cca = grid.summaries()
    assert (rf.tasks, rf.failed, rf.within, rf.seconds, rf.slowest) == (2, 0, 1, 430, 400)
    assert np.isclose(rf.mean_absolute_error, (0.03 + 0.8) / 2)
    assert (ksg.tasks, ksg.failed, ksg.within) == (2, 1, 0)
    assert np.isclose(ksg.mean_absolute_error, 0.2)
    assert (cca.tasks, cca.failed) == (1, 1) and math.isnan(cca.mean_absolute_error)
    assert rf.common == 0
    rf, ksg = Grid([SMALL, LARGE], ["rf", "ksg"], [
        *(line(task, "rf", task.mutual_information + 0.1) for task in (SMALL, LARGE)), line(SMALL, "ksg", 0.7),
    ]).summaries()  # fmt: skip
    assert rf.common == ksg.common == 1
    assert np.isclose(rf.mean_absolute_error_common, 0.1) and np.isclose(ksg.mean_absolute_error_common, 0.3)


def test_flat_results_are_strict_json_with_the_published_keys(grid):
    flat = flat_results(grid)
    json.dumps(flat, allow_nan=False)
    assert flat["task.1v1-normal-0.75.mutual_information"] == 0.4
    assert np.isclose(flat["rf.mean_absolute_error"], 0.415) and flat["rf.within"] == 1
    assert np.isclose(flat["rf.1v1-normal-0.75.mean"], 0.43) and flat["rf.1v1-normal-0.75.n_seeds"] == 3
    assert flat["rf.1v1-normal-0.75.within"] is True and flat["rf.2-pair-3-3-mi-5.within"] is False
    assert flat["ksg.2-pair-3-3-mi-5.mean"] is None and "out of memory" in flat["ksg.2-pair-3-3-mi-5.error"]
    assert flat["cca.mean_absolute_error"] is None and "cca.2-pair-3-3-mi-5.mean" not in flat
    assert flat["reference.bmi_ksg.1v1-normal-0.75"] == 0.425
    assert {len(by_task) for by_task in PUBLISHED.values()} == {12}


def test_terminal_table_shows_all_and_colours_by_bias(grid):
    console = Console(width=140, force_terminal=True, color_system="truecolor")
    with console.capture() as captured:
        console.print(benchmark_table(grid, budget_seconds=360))
    coloured = captured.get()
    text = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    for words in ("1v1-normal-0.75 (1x1)", "0.430", "±0.020 sd", "▼4.200 !", "no estimate", "not finite", "not run"):
        assert words in text
    assert "1 of 2" in text and "6.7 min (!)" in text and "0.415" in text
    red, green, blue = (int(bias_colours(-0.8 / 0.5)[0][i : i + 2], 16) for i in (1, 3, 5))
    assert f"48;2;{red};{green};{blue}" in coloured


def test_checks_know_values_from_bounds():
    def check(found, wanted=1.0, **more):
        return Check("test", "task", "rf", wanted, found, **more)

    assert check(1.09).near and not check(1.11).near and not check(0.89).near and not check(math.nan).near
    assert check(2.19, 2.0).near and not check(2.21, 2.0).near
    assert check(0.2, bound="most").near and not check(1.2, bound="most").near
    assert check(9.0, 1.645, bound="least").near and not check(1.0, 1.645, bound="least").near
    assert check(0.049, 0.0, unit="nats").near and not check(-0.051, 0.0, unit="nats").near
    assert check(0.2, bound="most").colours[0] == "#ffffff" and check(1.5).colours == bias_colours(5.0)
    assert check(1.0, bound="most").wanted_text == "≤ 1"
    flat = check_results([check(math.nan)])
    prefix = "consistency.rf.test.task"
    assert flat == {f"{prefix}.wanted": 1.0, f"{prefix}.found": None, f"{prefix}.near": False}


class Page(html.parser.HTMLParser):
    """Tags that are open, links and the text outside of the style sheet."""

    def __init__(self, text):
        super().__init__()
        self.depth, self.links, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "wbr"):
            self.depth.append(tag)

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.depth:
            self.text.append(" ".join(data.split()))


def write(folder, grid, **changes):
    arguments = {
        "facts": {"Seeds": 3, "Samples to train": 1000, "Note": NASTY},
        "config": {
            "command": f"python experiments/mi_benchmark.py {NASTY}",
            "git_revision": "abc123",
            "device": {"count": 1, "kind": "cpu"},
            "versions": {"jax": "0.10"},
            "n_train": 1000,
        },
        "kinds": {"rf": "rf", "ksg": "ksg", "cca": "cca"},
        "checks": [Check("data_processing", "a task", "rf", 1.0, 1.5, values={"information": 0.4, "beside": 0.6})],
        "sources": {"rf": "Some & others, 2023"},
        "budget_seconds": 360,
        "timing": {"timing.seconds": 12.5},
    }
    return write_benchmark(folder, grid, **(arguments | changes))


def test_the_page_is_self_contained_escaped_and_complete(grid, tmp_path):
    path = write(tmp_path, grid)
    text = path.read_text()
    page = Page(text)
    words = " ".join(page.text)
    assert page.depth == [] and "<script" not in text and "url(" not in text and "@import" not in text
    assert len(page.links) == 2 and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert words.count(NASTY) >= 5, "in facts, command, configuration, error and warning"
    for wanted in (
        "0.430",
        "±0.020 sd",
        "▼4.200 !",
        "no estimate",
        "not run",
        "abc123",
        "1 x cpu",
        "Some & others, 2023",
    ):
        assert wanted in words
    assert page.text[1].startswith("Simulated data")
    blind = [METHODS[name][1] for name in ("rf", "ksg", "cca")]
    assert all(each in words for each in blind) and METHODS["doe"][1] not in words
    assert "data processing" in words and "1.500" in words and "information 0.400" in words
    assert "0.425" in words and "not comparable" in words, "published values are marked"
    background = bias_colours((4.2 - 5) / 0.5)[0]
    assert re.search(rf'style="background:{background};color:#\w+"[^>]*>▼4.200', text)
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        "estimates_against_truth.png",
        "bias_by_method.png",
    }
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["data.source"] == "simulated" and report["timing.seconds"] == 12.5 and report["n_train"] == 1000
    assert report["rf.within"] == 1 and report["consistency.rf.data_processing.a task.near"] is False


def test_a_page_without_estimates_or_checks_still_stands(tmp_path):
    grid = Grid([EMPTY], ["rf:form=squared,steps=5"], [line(EMPTY, "rf:form=squared,steps=5", None, error="no")])
    text = write(tmp_path, grid, kinds={"rf:form=squared,steps=5": "rf"}, checks=[], sources=None).read_text()
    assert Page(text).depth == [] and "No method gave a finite estimate" in text and "Self-consistency" not in text
    assert "rf:<wbr>form=squared,<wbr>steps=5" in text and "bmi" not in text
    with pytest.raises(ConfigError, match="at least one result"):
        write(tmp_path, Grid([EMPTY], ["rf"], []))


def test_a_folder_that_cannot_be_written_is_refused(grid, tmp_path):
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tmp_path, grid)
    assert not (tmp_path / "report.json").exists()


def test_figures_hold_every_point_and_mark_those_beyond():
    tasks = [EMPTY, SMALL, LARGE]
    values = {"nothing": 0.01, SMALL.name: 0.9, LARGE.name: 60.0}
    grid = Grid(tasks, ["rf", "none"], [line(task, "rf", values[task.name]) for task in tasks])
    (drawing,) = estimates_against_truth(grid)
    axes = [ax for ax in drawing.figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in axes] == ["rf"]
    points = [artist for artist in axes[0].lines if artist.get_marker() in ("o", "^", "v")]
    assert [(p.get_marker(), float(p.get_xdata()[0])) for p in points] == [("o", 0.0), ("o", 0.4), ("^", 5.0)]
    assert len({p.get_color() for p in points[1:]}) == 1 != len({p.get_color() for p in points[:2]})
    (drawing,) = bias_by_method(grid)
    ax = drawing.figure.axes[0]
    markers = [artist.get_marker() for artist in ax.lines if artist.get_marker() in ("o", "<", ">")]
    assert markers == ["o", "o", ">"]
    assert any("2-pair-3-3-mi-5 +55.000" in text.get_text() for text in ax.texts)
    assert not estimates_against_truth(Grid(tasks, ["none"], [])) and not bias_by_method(Grid(tasks, ["none"], []))


def test_numbers_in_words():
    assert [nats(value) for value in (0.0, -1.23456, math.nan)] == ["0.000", "\N{MINUS SIGN}1.235", "\N{EN DASH}"]
    assert [seconds_text(value) for value in (0.04, 59.6, 119.0, 360.0)] == ["0.0 s", "60 s", "119 s", "6.0 min"]
