import html.parser
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.report import figures, judgement_table, write, write_report
from jaxtraffic.report.judgements import columns_of, per_class_f1, rows_of
from jaxtraffic.report.page import fact_text
from jaxtraffic.report.series_pages import series_pages, signed_size_colours, sorted_sample

NASTY = "<script>alert('x')</script>"
NAMES = [NASTY, "$x_1$ & co", "a.b", "plain"]


def make_series(n, seed, n_classes=4, length=12):
    rng = np.random.default_rng(seed)
    signed = rng.integers(-1400, 1400, (n, length))
    signed[np.arange(length) >= rng.integers(1, length + 1, n)[:, None]] = 0
    return signed.astype(np.int16), rng.integers(0, n_classes, n)


def make_judgements():
    judgements = {
        "data.n_train": 60,
        "data.n_test": 20,
        "data.n_synthetic": 60,
        "discriminative.n_test": np.int64(24),
        "timing.train_flows_per_s": 1234.5,
        "timing.sample_flows_per_s": float("nan"),
    }
    values = {"": 0.11, "reference.fresh_real.": 0.0, "reference.bootstrap.": -0.01, "reference.marginals.": 0.3}
    for prefix, value in values.items():
        judgements |= {
            f"{prefix}utility.weighted_f1_gap": -value,
            f"{prefix}utility.weighted_f1_gap_stderr": 0.012,
            f"{prefix}discriminative.score": np.float32(value),
            f"{prefix}discriminative.stderr": 0.1,
            f"{prefix}fidelity.copy_rate": 0.5 + value,
        }
    for index, name in enumerate(NAMES):
        judgements |= {
            f"utility.per_class.{name}.f1_real": 0.9 - 0.1 * index,
            f"utility.per_class.{name}.f1_synthetic": 0.8 - 0.1 * index,
            f"utility.per_class.{name}.n_test": 5 + index,
        }
    return judgements


def make_config(source="real", **data):
    return {
        "experiment": "ddpm_s4",
        "command": ["python", "experiments/ddpm_s4.py", "--out", "runs/a b"],
        "seed": 7,
        "device": "cpu",
        "git_revision": "abc123",
        "versions": {"jax": "0.10"},
        "data": {
            "name": "toy <set>",
            "source": source,
            "size_layer": "ip",
            "n_flows": 80,
            "n_train": 60,
            "n_validation": 0,
            "n_test": 20,
            "class_names": NAMES,
            "class_counts": [30, 20, 20, 10],
            "dropped": [{"rule": "fewer than <10> packets", "flows": 1234, "detail": "short & odd"}],
            "notice": None,
        }
        | data,
        "model": {"name": "DDPMS4", "schedule": {"name": "cosine"}},
        "training": {"batch_size": 512},
    }


def report_into(folder, **changes):
    real, real_label = make_series(60, 1)
    synthetic, synthetic_label = make_series(50, 2)
    arguments = {
        "real_signed": real,
        "real_label": real_label,
        "synthetic_signed": synthetic,
        "synthetic_label": synthetic_label,
        "class_names": NAMES,
        "judgements": make_judgements(),
        "config": make_config(),
    }
    return write_report(folder, **(arguments | changes))


def write_log(folder, n=200):
    lines = [{"step": 10 * i, "loss": 2.0 / (1 + i), "learning_rate": 1e-3, "seconds": 0.1 * i} for i in range(n)]
    lines[5]["loss"] = None
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_log(folder)
    report_into(folder)
    return folder


class Page(html.parser.HTMLParser):
    """Tags, attributes and the text outside of them."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.links, self.text, self.depth, self.ids = [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in ("meta", "img", "link", "br"):
            self.depth.append(tag)

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.depth:
            self.text.append(data.strip())


def test_the_page_is_one_self_contained_well_formed_file(run_dir):
    page = Page(run_dir / "report.html")
    assert page.depth == []
    pictures = [link for link in page.links if link.startswith("data:image/png;base64,")]
    assert pictures
    assert {link for link in page.links if link not in pictures} == {f"#{name}" for name in page.ids}
    assert len(set(page.ids)) == len(page.ids)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    text = (run_dir / "report.html").read_text()
    assert "@import" not in text
    assert "url(" not in text
    assert page.tags.count("img") == len(list((run_dir / "figures").glob("*.png"))) >= 6


def test_names_from_files_are_escaped(run_dir):
    text = (run_dir / "report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    page = " ".join(Page(run_dir / "report.html").text)
    assert NASTY in page
    assert "fewer than <10> packets" in page
    assert "toy <set>" in page


def test_the_page_says_what_the_run_was(run_dir):
    text = " ".join(Page(run_dir / "report.html").text)
    expected = [
        "1,234",
        "short & odd",
        "DDPMS4",
        "cosine",
        "512",
        "fresh real",
        "bootstrap copy",
        "marginals",
        "abc123",
    ]
    assert not [piece for piece in expected if piece not in text]
    assert "python experiments/ddpm_s4.py --out 'runs/a b'" in text
    assert "Blind spot" in text


def test_the_first_line_says_real_or_simulated(run_dir, tmp_path):
    notice = "Drawn from a model. Get the real data from https://example.org/data."
    path = report_into(tmp_path, config=make_config("simulated", notice=notice))
    page = Page(path)
    body = page.text[1:]
    assert page.text[0].startswith("Simulated data")
    assert body[0].startswith("Simulated data")
    assert body[1] == notice
    assert page.links == [link for link in page.links if link.startswith(("data:", "#"))]
    real = Page(run_dir / "report.html").text
    assert real[0].startswith("Real data")
    assert real[1] == "Real data: toy <set>"
    assert json.loads((tmp_path / "report.json").read_text())["data.source"] == "simulated"


def test_report_json_is_strict_flat_and_complete(run_dir):
    def refuse(constant):
        raise AssertionError(constant)

    report = json.loads((run_dir / "report.json").read_text(), parse_constant=refuse)
    assert report["data.source"] == "real"
    assert report["data.name"] == "toy <set>"
    assert (report["n"], report["seed"]) == (50, 7)
    assert report["timing.sample_flows_per_s"] is None
    assert report["discriminative.n_test"] == 24
    assert report["discriminative.score"] == pytest.approx(0.11)
    assert report["reference.marginals.utility.weighted_f1_gap"] == -0.3
    assert set(make_judgements()) <= set(report)
    assert not any(isinstance(value, dict | list) for value in report.values())


def test_report_json_comes_last_and_nothing_half_written_stays(tmp_path, monkeypatch):
    order = []
    replace = os.replace

    def watch(source, target):
        assert os.path.getsize(source) > 0
        order.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(write.os, "replace", watch)
    write_log(tmp_path)
    report_into(tmp_path)
    assert order[-2:] == ["report.html", "report.json"]
    assert all(name.endswith(".png") for name in order[:-2])
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {*order, "metrics.jsonl"}

    def fail(*_, **__):
        raise RuntimeError("power cut")

    monkeypatch.setattr(write, "render_page", fail)
    monkeypatch.setattr(write, "_write_figure", lambda *_: {})
    with pytest.raises(RuntimeError):
        report_into(tmp_path)
    assert not (tmp_path / "report.json").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file"
    write.write_atomically(path, b"old")

    def fail(*_):
        raise OSError("full")

    monkeypatch.setattr(write.os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_bare_run_is_reported_too(tmp_path):
    config = {"data": {"source": "real"}}
    report_into(tmp_path, judgements={}, config=config)
    assert "not judged" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "figures" / "loss.png").exists()
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "data.source": "real",
        "data.name": None,
        "n": 50,
        "seed": None,
    }


def test_an_empty_generated_class_and_constant_flows_are_drawn(tmp_path):
    ones = np.ones((6, 1), np.int16)
    zeros = np.zeros((6, 1), np.int16)
    label = np.array([0, 0, 1, 1, 2, 3])
    report_into(
        tmp_path, real_signed=ones, real_label=label, synthetic_signed=zeros, synthetic_label=np.zeros(6, np.int64)
    )
    assert (tmp_path / "report.json").exists()


def test_many_classes_come_in_pages_and_the_later_ones_folded():
    signed, label = make_series(200, 0, n_classes=20)
    pages = series_pages(signed, label, signed, label, tuple(f"c{i}" for i in range(20)))
    assert [page.name for page in pages] == ["series_01", "series_02", "series_03"]
    assert [page.folded for page in pages] == [False, False, True]
    bars = figures.per_class_f1_bars([(f"c{i}", 0.5, 0.4, i) for i in range(65)])
    assert len(bars) == 3


def test_series_are_sampled_sorted_and_coloured_symmetrically():
    signed = np.array([[2, 1], [-1, 5], [2, -1], [0, 0]], np.int16)
    chosen = sorted_sample(signed, np.random.default_rng(0))
    np.testing.assert_array_equal(chosen, sorted(signed.tolist()))
    assert len(sorted_sample(np.zeros((500, 3), np.int16), np.random.default_rng(0))) == 200
    colours, norm = signed_size_colours(1500)
    assert colours(norm(0)) == (1.0, 1.0, 1.0, 1.0)
    for size in (1, 1500):
        red, _, blue, _ = colours(norm(size))
        assert red > blue + 0.2
        red, _, blue, _ = colours(norm(-size))
        assert blue > red + 0.2


def test_the_packets_of_a_flow_end_at_the_last_non_zero_size():
    inside = figures.packets_inside(np.array([[1, 0, 2, 0], [0, 0, 0, 0], [1, 1, 1, 1]]))
    np.testing.assert_array_equal(inside.sum(axis=1), [3, 0, 4])


def test_the_moving_average_is_that_of_a_loop():
    values = np.random.default_rng(0).normal(size=50)
    for window in (1, 4, 7):
        expected = [values[max(i - window // 2, 0) : i - window // 2 + window].mean() for i in range(50)]
        np.testing.assert_allclose(figures.moving_average(values, window), expected)


def test_the_best_is_chosen_among_generated_sets_by_the_goal_of_the_row():
    judgements = make_judgements() | {"reference.other.discriminative.score": -0.05}
    columns = columns_of(judgements, "DDPMS4")
    titles = ["DDPMS4 (this run)", "fresh real", "bootstrap copy", "marginals", "other"]
    assert [column.title for column in columns] == titles
    rows = {row.metric.key: row for row in rows_of(judgements, columns)}
    best = {key: [cell.best for cell in row.cells] for key, row in rows.items()}
    assert best["utility.weighted_f1_gap"] == [True, False, False, False, False]
    assert best["discriminative.score"] == [False, False, False, False, True]
    assert best["fidelity.copy_rate"] == [True, False, False, False, False]
    cells = rows["discriminative.score"].cells
    assert (cells[0].text, cells[0].stderr) == ("+0.110", "0.100")
    assert cells[2].text == "\N{MINUS SIGN}0.010"
    assert rows["utility.weighted_f1_gap"].cells[4].text == "\N{EN DASH}"
    assert rows["discriminative.score"].n == 24


def test_per_class_figures_survive_dots_in_names():
    rows = per_class_f1(make_judgements())
    assert [row[0] for row in rows] == NAMES
    assert rows[2] == ("a.b", pytest.approx(0.7), pytest.approx(0.6), 7)


def test_the_terminal_table_shows_every_column():
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(judgement_table(make_judgements(), name="[red]x"))
    text = console.export_text()
    for piece in ("[red]x (this run)", "fresh real", "bootstrap copy", "marginals", "+0.110 ±0.100", "24"):
        assert piece in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (3e-4, "0.0003"), (51234.5, "51,234"), (True, "yes"), ([1, "a"], "1, a"), (None, "–")],
)
def test_facts_read_well(value, text):
    assert fact_text(value) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real_signed": np.zeros((60, 9), np.int16)}, "packet positions"),
        ({"real_signed": np.zeros((60, 12))}, "real_signed must be integers"),
        ({"synthetic_label": np.zeros(3, np.int64)}, "synthetic_label"),
        ({"real_label": np.full(60, 4)}, "4 class names"),
        ({"config": {}}, "data.source"),
        ({"judgements": {"utility": {"gap": 1}}}, "judgement utility"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        report_into(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_bad_files_are_refused_by_name_and_row(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        report_into(tmp_path / "none")
    for line in ("{oops", "3"):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n' + line)
        with pytest.raises(DataError, match=re.escape("metrics.jsonl, row 2")):
            report_into(tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_the_room_imports_no_jax_and_no_display():
    code = (
        "import sys, jaxtraffic.report;"
        "print([name for name in ('jax', 'flax', 'xgboost', 'sklearn', 'matplotlib.pyplot', 'tkinter')"
        " if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
