"""The benchmark of mutual information: run folder, samples, resuming, refusals; on few samples and quick methods."""

import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import registry, tasks
from jaxtraffic.information.result import Method, Outcome

FOLDER = Path(__file__).parents[2] / "experiments"
MODULES = ("mi_benchmark", "mi_consistency", "mi_variants", "mi_results")
TWO = ("1v1-normal-0.75", "multinormal-dense-2-2-0.5")


@pytest.fixture(scope="module")
def experiment():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("mi_benchmark")
    for name in (*MODULES, "generative"):
        sys.modules.pop(name, None)
    sys.path.remove(str(FOLDER))


@dataclasses.dataclass(frozen=True)
class LineOptions:
    """What the stand-in takes."""

    shrink: float = 1.0
    rounds: int = 1
    kind: str = "plain"
    widths: tuple[int, ...] = (4, 4)
    rate: float | None = None
    squared: bool = False


def line_program(options, n_classes, key, train, test):
    """Correlation of the first coordinates, fitted on the training pairs; -1/2 ln(1 - r^2)."""
    r = options.shrink * jnp.corrcoef(train.x[:, 0], train.y[:, 0])[0, 1]
    return Outcome(-0.5 * jnp.log1p(-(r**2)), jnp.float32(math.nan), None, {"noise": jax.random.normal(key)})


@pytest.fixture
def line(monkeypatch):
    """A method that trains and is quick, registered for one test; counts how often it is compiled."""
    calls = []

    def program(*arguments):
        calls.append(jax.tree.map(jnp.shape, arguments[3:]))
        return line_program(*arguments)

    def warn(options, diagnostics, value):
        return [f"shrunk to {options.shrink}"] if options.shrink < 1 else []

    method = Method("line", LineOptions, program, True, "none", False, warn, "a test")
    monkeypatch.setitem(registry.METHODS, "line", method)
    return calls


@pytest.fixture
def broken(monkeypatch):
    """Methods that refuse, that run out of memory, and that give no number."""

    def refuse(options, n_classes, key, train, test):
        raise ConfigError("needs more coordinates")

    def exhaust(options, n_classes, key, train, test):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 80 GB")

    def wander(options, n_classes, key, train, test):
        return Outcome(jnp.log(-jnp.ones(())), jnp.float32(0), None, {})

    for name, program in {"refuse": refuse, "exhaust": exhaust, "wander": wander}.items():
        method = Method(name, LineOptions, program, True, "none", False, lambda *_: [], "a test")
        monkeypatch.setitem(registry.METHODS, name, method)


def call(experiment, monkeypatch, *arguments):
    """Runs the script's main as the command line would; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["mi_benchmark.py", *map(str, arguments)])
    try:
        experiment.command_line(experiment.Options, experiment.run_benchmark, "test")
    except SystemExit as stop:
        return stop.code
    return 0


SIZES = ("--n-train", 400, "--n-test", 200, "--n-untrained", 300)


def read(folder, name="results.jsonl"):
    text = (folder / name).read_text()
    return json.loads(text) if name.endswith(".json") else [json.loads(one) for one in text.splitlines()]


def test_two_tasks_and_two_methods_end_to_end(experiment, monkeypatch, line, tmp_path, capsys):
    arguments = ("--tasks", *TWO, "--methods", "line", "cca", "--seeds", 2, "--budget-minutes", 3, *SIZES)
    assert call(experiment, monkeypatch, *arguments, "--out", tmp_path / "run") == 0
    shown = capsys.readouterr().out
    assert "2 tasks, 2 methods, 2 seeds: 4 programs to run, 0 there already; budget 3.0 min each" in shown
    assert "1v1-normal-0.75 (1x1)" in shown and "report:" in shown
    folder = tmp_path / "run"
    lines = read(folder)
    assert [(one["task"], one["method"], one["seed"]) for one in lines] == [
        (task, method, seed) for task in TWO for method in ("line", "cca") for seed in (0, 1)
    ]
    assert {(one["method"], one["n_train"], one["n_test"]) for one in lines} >= {("line", 400, 200)}
    assert {one["n_test"] for one in lines if one["method"] == "cca"} == {300}
    assert all(one["stderr"] is None for one in lines if one["method"] == "line")
    # The value is that of the training samples which (task, seed) give.
    x, y = experiment.draw(tasks.TASKS[TWO[0]], 1, experiment.Options(n_train=400, n_test=200))["train"]
    wanted = -0.5 * math.log1p(-(np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2))
    assert np.isclose(lines[1]["value"], wanted, rtol=1e-4)
    # One program for both seeds of a task.
    assert len(line) == 2 and line[0][0].x == (400, 1)
    config, report = read(folder, "config.json"), read(folder, "report.json")
    assert config["methods"]["line"]["widths"] == [4, 4] and config["tasks"] == list(TWO) and config["n_train"] == 400
    assert {"command", "versions", "device", "git_revision"} <= set(config)
    values = [one["value"] for one in lines if one["task"] == TWO[0] and one["method"] == "line"]
    assert np.isclose(report[f"line.{TWO[0]}.mean"], np.mean(values))
    assert np.isclose(report[f"line.{TWO[0]}.sd"], np.std(values, ddof=1))
    truth = [one.mutual_information for one in map(tasks.task_named, TWO)]
    by_task = [np.abs(np.array([one["value"] for one in lines if one["task"] == name and one["method"] == "line"]) - mi)
               for name, mi in zip(TWO, truth)]  # fmt: skip
    assert np.isclose(report["line.mean_absolute_error"], np.mean(by_task))
    page = (folder / "report.html").read_text()
    assert "mi_benchmark.py --tasks 1v1-normal-0.75" in page and "10,000 samples of one seed" in page


@pytest.mark.slow
def test_samples_are_a_function_of_task_and_seed(experiment):
    task, options = tasks.TASKS[TWO[1]], experiment.Options(n_train=400, n_test=200)
    first, again, other = (experiment.draw(task, seed, options) for seed in (3, 3, 4))
    elsewhere = experiment.draw(tasks.TASKS["multinormal-sparse-2-2-2-2.0"], 3, options)
    for part, n in (("train", 400), ("test", 200)):
        assert first[part][0].shape == first[part][1].shape == (n, 2)
        np.testing.assert_array_equal(first[part], again[part])
        # Of 800 float32 draws hardly any agree by chance.
        assert np.isin(first[part], other[part]).mean() < 0.01 > np.isin(first[part], elsewhere[part]).mean()
    assert np.isin(first["train"][0], first["test"][0]).mean() < 0.01


@pytest.mark.slow
def test_seeds_in_smaller_programs_give_the_same(experiment, monkeypatch, line, tmp_path):
    found = []
    for name, chunk in (("all", ()), ("two", ("--seeds-per-program", 2))):
        arguments = ("--tasks", TWO[0], "--methods", "line", "--seeds", 3, "--first-seed", 5, *chunk, *SIZES)
        assert call(experiment, monkeypatch, *arguments, "--out", tmp_path / name) == 0
        found.append({one["seed"]: one["value"] for one in read(tmp_path / name)})
    assert list(found[0]) == [5, 6, 7]
    np.testing.assert_allclose(list(found[0].values()), list(found[1].values()), rtol=1e-5)


@pytest.mark.slow
def test_resume_keeps_what_is_there_and_runs_the_rest(experiment, monkeypatch, line, broken, tmp_path, capsys):
    folder = tmp_path / "run"
    base = ("--tasks", TWO[0], "--seeds", 2, *SIZES, "--out", folder)
    assert call(experiment, monkeypatch, *base, "--methods", "line", "refuse") == 0
    assert call(experiment, monkeypatch, *base, "--methods", "line") == 2
    assert "add --resume" in capsys.readouterr().err
    kept = read(folder)[:2]
    # A result that a new run would not give, a line cut short, and one seed of two.
    kept[1]["value"] = 0.125
    marked = json.dumps(kept[1]) + "\n"
    (folder / "results.jsonl").write_text(marked + json.dumps(kept[0])[:40])
    calls = len(line)
    more = ("--tasks", TWO[0], TWO[1], "--methods", "line", "line:shrink=0.5", "--resume")
    assert call(experiment, monkeypatch, *base, *more, "--seeds-per-program", 1) == 0
    assert "7 programs to run, 1 there already" in capsys.readouterr().out
    lines = read(folder)
    assert (folder / "results.jsonl").read_text().startswith(marked)
    places = [(one["task"], one["method"], one["seed"]) for one in lines]
    wanted = {(task, method, seed) for task in TWO for method in ("line", "line:shrink=0.5") for seed in (0, 1)}
    assert set(places) == wanted and len(places) == len(wanted)
    assert len(line) > calls and lines[1]["value"] == pytest.approx(kept[0]["value"])
    assert read(folder, "report.json")[f"line.{TWO[0]}.mean"] == pytest.approx((0.125 + kept[0]["value"]) / 2)
    calls = len(line)
    assert call(experiment, monkeypatch, *base, *more) == 0
    assert "0 programs to run, 4 there already" in capsys.readouterr().out and len(line) == calls
    # A program of two seeds of which one is missing is run again.
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines if one is not lines[-1]))
    assert lines[-1]["seed"] == 1 and call(experiment, monkeypatch, *base, *more) == 0
    assert "1 program to run, 3 there already" in capsys.readouterr().out
    assert read(folder)[:-1] == lines[:-1] and read(folder)[-1]["value"] == pytest.approx(lines[-1]["value"])
    assert len(read(folder)) == len(lines)
    # Other samples or options are another run, which leaves this one as it is.
    assert call(experiment, monkeypatch, *base, *more, "--n-train", 500) == 2
    assert "n_train = 400, now 500" in capsys.readouterr().err and (folder / "report.json").exists()
    lines[0]["options"]["rounds"] = 7
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert call(experiment, monkeypatch, *base, *more) == 2
    assert "rounds = 7, now 1" in " ".join(capsys.readouterr().err.split())
    (folder / "results.jsonl").write_text("{]\n")
    assert call(experiment, monkeypatch, *base, *more) == 2
    assert "is not a run of this benchmark" in " ".join(capsys.readouterr().err.split())


def test_methods_that_fail_are_shown_and_tried_again(experiment, monkeypatch, line, broken, tmp_path, capsys):
    base = ("--tasks", TWO[0], *SIZES, "--out", tmp_path, "--resume")
    methods = ("--methods", "refuse", "exhaust", "wander", "line:shrink=0.9")
    assert call(experiment, monkeypatch, *base, *methods) == 0
    by_method = {one["method"]: one for one in read(tmp_path)}
    assert by_method["refuse"]["error"] == "needs more coordinates" and by_method["refuse"]["value"] is None
    assert "out of memory" in by_method["exhaust"]["error"]
    assert by_method["wander"]["value"] is None and "error" not in by_method["wander"]
    report, page = read(tmp_path, "report.json"), (tmp_path / "report.html").read_text()
    assert report["refuse.failed"] == report["exhaust.failed"] == report["wander.failed"] == 1
    assert report["line:shrink=0.9.failed"] == 0 and report["refuse.mean_absolute_error"] is None
    for words in ("needs more coordinates", "out of memory", "not finite", "shrunk to 0.9"):
        assert words in page
    capsys.readouterr()
    assert call(experiment, monkeypatch, *base, *methods) == 0
    assert "2 programs to run, 2 there already" in capsys.readouterr().out
    assert len(read(tmp_path)) == 4


def test_errors_of_the_runtime_that_are_not_about_memory_stop_the_run(experiment, monkeypatch, broken):
    def crash(*arguments, **options):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    options = experiment.Options(n_train=400, n_test=200)
    task, (variant,) = tasks.TASKS[TWO[0]], experiment.chosen_variants(["refuse"])
    samples = [experiment.draw(task, 0, options)]
    monkeypatch.setattr(experiment.information, "estimate_many", crash)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        experiment.run_cell(task, variant, [0], samples, options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tasks", "no-such-task"), "no-such-task"),
        (("--methods", "no-such-method"), "no-such-method"),
        (("--methods", "cca:no_such_option=1"), "no_such_option"),
        (("--methods", "cca", "cca"), "cca twice"),
        (("--methods", "cca:preprocess=whiten"), "preprocess is one of"),
        (("--consistency", "no-such-task"), "no-such-task"),
        (("--seeds", "0"), "--seeds must be at least 1"),
        (("--n-train", "3"), "--n-train must be at least 10"),
        (("--seeds-per-program", "0"), "--seeds-per-program"),
        (("--budget-minutes", "0"), "--budget-minutes"),
        (("--resume",), "--resume needs --out"),
    ],
    ids=lambda value: value[-1].removeprefix("--") if isinstance(value, tuple) else "",
)
def test_what_does_not_exist_is_refused_in_one_line(experiment, monkeypatch, tmp_path, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert call(experiment, monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error
    assert not list(tmp_path.iterdir())


def test_options_of_methods_are_read_by_their_type(experiment, line):
    (variant,) = experiment.chosen_variants(
        ["line:shrink=1,rounds=3,kind=3,widths=(8, 16),rate=0.1,squared=true,preprocess=asinh"]
    )
    assert variant.options == LineOptions(1.0, 3, "3", (8, 16), 0.1, True)
    assert isinstance(variant.options.shrink, float) and variant.preprocess == "asinh"
    assert experiment.chosen_variants(["line:rate=none,widths=[2]"])[0].options == LineOptions(widths=(2,))
    assert variant.described()["preprocess"] == "asinh"
    assert experiment.chosen_variants(["line"])[0].described()["preprocess"] == "none"
    for bad in ("line:rounds=2.5", "line:squared=1", "line:shrink=big", "line:rounds=none", "line:widths=3", "line:x"):
        with pytest.raises(ConfigError, match="--methods"):
            experiment.chosen_variants([bad])


def test_suites_name_the_tasks(experiment):
    names = {suite: [task.name for task in experiment.chosen_tasks("--tasks", [suite])] for suite in experiment.SUITES}
    assert names["panel"] == [task.name for task in tasks.PANEL] and len(names["panel"]) == 10
    assert names["all"] == list(tasks.TASKS) and len(names["all"]) == 40
    assert names["high-mi"] == list(tasks.HIGH_MI)
    assert "half_cube-1v1-normal-0.75" in names["pairs"] and len(set(names["pairs"])) == len(names["pairs"])
    both = experiment.chosen_tasks("--tasks", ["1v1-normal-0.75", "panel", "2-pair-3-3-mi-4.5"])
    assert [task.name for task in both] == [*names["panel"], "2-pair-3-3-mi-4.5"]


@pytest.mark.slow
def test_consistency_is_checked_once_and_shown(experiment, monkeypatch, line, tmp_path, capsys):
    task = "half_cube-1v1-normal-0.75"
    arguments = ("--tasks", task, "--methods", "line", *SIZES, "--n-consistency", 400, "--out", tmp_path)
    arguments = (*arguments, "--consistency", task)
    assert call(experiment, monkeypatch, *arguments) == 0
    found = {one["method"]: one for one in read(tmp_path, "consistency.jsonl")}
    assert list(found) == ["line"]
    assert {one["test"] for one in found["line"]["checks"]} == {
        "independence", "data_processing", "chain", "symmetry", "additivity", "invariance",
    }  # fmt: skip
    assert found["line"]["options"]["n"] == 400
    by_test = {one["test"]: one for one in found["line"]["checks"]}
    # Correlation is symmetric, and the first coordinates of two copies are the first copy's.
    assert by_test["symmetry"]["ratio"] == pytest.approx(1, abs=1e-4)
    assert by_test["additivity"]["ratio"] == pytest.approx(1, abs=1e-4)
    report, page = read(tmp_path, "report.json"), (tmp_path / "report.html").read_text()
    assert report[f"consistency.line.symmetry.{task}.near"] is True
    assert report[f"consistency.line.additivity.{task}.near"] is False
    floor = by_test["independence"]["values"]["floor"]
    assert report[f"consistency.line.independence.{task}.found"] == pytest.approx(floor)
    assert "Self-consistency" in page and "two copies" in page
    calls = len(line)
    assert call(experiment, monkeypatch, *arguments, "--resume") == 0
    assert len(line) == calls and len(read(tmp_path, "consistency.jsonl")) == 1
    assert "Self-consistency" in (tmp_path / "report.html").read_text()
    # Other samples are another check; methods that do not train get fewer.
    used = []

    def instead(task, variant, *, n, seed):
        used.append((variant.label, n, seed))
        return [{"test": "all", "values": {}, "ratio": None, "expected": 1.0, "error": "it <b>cannot</b>"}]

    monkeypatch.setattr(sys.modules["mi_consistency"], "check_one", instead)
    checks = sys.modules["mi_consistency"].run_checks(
        [tasks.TASKS[task]], experiment.chosen_variants(["line", "cca"]), tmp_path, Console(), n=350, n_untrained=300,
        seed=0,
    )  # fmt: skip
    assert used == [("line", 350, 0), ("cca", 300, 0)]
    assert [(one.method, math.isnan(one.found), one.note) for one in checks] == [
        (label, True, "it <b>cannot</b>") for label in ("line", "cca")
    ]
