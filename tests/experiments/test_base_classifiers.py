"""Base classifiers: the run folder, resuming, leads, what networks see, refusals."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import jaxtraffic as jt
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

SCRIPT = Path(__file__).parents[2] / "experiments" / "base_classifiers.py"
sys.path.insert(0, str(SCRIPT.parent))
script = importlib.import_module("base_classifiers")

LENGTH = 8


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """180 flows of three classes that sizes tell apart in part, ten packets at least."""
    rng = np.random.default_rng(0)
    n, length = 180, 10
    label = (np.arange(n) % 3).astype(np.int32)
    flows = PacketSeries(
        size=(rng.integers(40, 400, (n, length)) + 60 * label[:, None]).astype(np.int16),
        direction=rng.choice([-1, 1], (n, length)).astype(np.int8),
        iat=rng.exponential(0.1, (n, length)).astype(np.float32),
        label=label,
        group=rng.integers(0, 40, n).astype(np.int32),
        class_names=("a", "b", "c"),
        name="toy",
    ).check()
    path = tmp_path_factory.mktemp("data") / "toy.parquet"
    jt.write_parquet(flows, path)
    return path


def call(monkeypatch, arguments):
    """Runs the script's main as the command line would; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["base_classifiers.py", *map(str, arguments)])
    try:
        script.command_line(script.Options, script.run, "test")
    except SystemExit as stop:
        return stop.code
    return 0


def test_trees_leave_a_complete_folder_and_a_killed_run_goes_on(monkeypatch, parquet, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["--dataset", "parquet", "--path", parquet, "--out", out, "--n-folds", 4, "--packets", 2]
    arguments += ["--models", "xgboost", "--folds", 2, "--seeds", 2, "--tune-trials", 0]
    assert call(monkeypatch, arguments) == 0
    shown = capsys.readouterr().out
    assert (
        "180 flows of 3 classes, 2 packets" in shown
        and "xgboost 4/4" in shown
        and "XGBoost has a weighted F1 of" in shown
    )
    report = json.loads((out / "report.json").read_text())
    written = json.loads((out / "config.json").read_text())
    assert report["data.source"] == "real" and report["xgboost.n_runs"] == 4 and 0.3 < report["xgboost.weighted_f1"] < 1
    assert written["folds"] == [0, 1] and written["models"] == {"xgboost": {"search": "none"}}
    assert written["versions"]["xgboost"] and "fold" not in written["data"]
    page = (out / "report.html").read_text()
    assert "Real data: toy" in page and "Fixed parameters, without a search" in page

    assert call(monkeypatch, arguments) == 2 and "--resume" in capsys.readouterr().err
    assert call(monkeypatch, [*arguments, "--resume"]) == 0 and "is complete" in capsys.readouterr().out
    assert call(monkeypatch, [*arguments, "--resume", "--view", "features"]) == 2
    assert "other options (view" in capsys.readouterr().err
    # killed after the first fold: that one stays, the second is run again
    for name in ("report.json", "xgboost/fold-1.json"):
        (out / name).unlink()
    trained = []
    campaign = script.tree_campaign
    monkeypatch.setattr(
        script,
        "tree_campaign",
        lambda flows, folds, *more, **words: trained.append(folds) or campaign(flows, folds, *more, **words),
    )
    assert call(monkeypatch, [*arguments, "--resume"]) == 0
    again = json.loads((out / "report.json").read_text())
    assert trained == [[1]]
    assert {key: value for key, value in again.items() if not key.endswith("seconds")} == {
        key: value for key, value in report.items() if not key.endswith("seconds")
    }


@pytest.mark.slow
def test_networks_and_trees_side_by_side(monkeypatch, parquet, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["--dataset", "parquet", "--path", parquet, "--out", out, "--n-folds", 4, "--devices", 1]
    arguments += ["--models", "mlp", "xgboost", "--folds", 2, "--seeds", 1, "--tune-trials", 1]
    arguments += ["--max-epochs", 10, "--batch-size", 32]
    assert call(monkeypatch, arguments) == 0
    assert "MLP" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["mlp.model_size"] == script.n_parameters("mlp", 3, 10) and 1 <= report["mlp.epochs"] <= 10
    assert report["xgboost.tune_seconds"] > 0 and report["mlp.train_seconds"] > 0
    assert any(key.startswith("difference.") and key.endswith("weighted_f1") for key in report)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["config"] for line in lines] == ["mlp"] * 2 + ["xgboost"] * 2
    assert [line["n_test"] for line in lines[:2]] == [line["n_test"] for line in lines[2:]]
    assert "Is the best one better?" in (out / "report.html").read_text()


@pytest.mark.parametrize("view", ["signed_size", "features"])
def test_networks_see_times_only_where_trees_do(monkeypatch, parquet, tmp_path, view):
    seen = []

    def campaign(flows, configs, folds, seeds, **options):
        seen.append((flows, [config.model for config in configs], list(folds), list(seeds), options["length"]))
        raise ConfigError("far enough")

    monkeypatch.setattr(script.classify, "campaign", campaign)
    arguments = ["--dataset", "parquet", "--path", parquet, "--out", tmp_path / "run", "--view", view]
    assert call(monkeypatch, [*arguments, "--models", "resnet", "s4", "--seeds", 2]) == 2
    ((flows, *others),) = seen
    assert others == [["resnet", "s4"], [0, 1, 2, 3, 4], [0, 1], 10] and (flows.size > 0).all()
    assert (flows.iat > 0).any() == (view == "features")


def test_leads_are_paired_over_folds_after_seeds_are_averaged():
    rng = np.random.default_rng(0)
    scores = {"resnet": rng.random((4, 3)), "xgboost": 0.2 + rng.random((4, 3))}
    results = [
        {"config": name, "fold": fold, "seed": seed, "weighted_f1": scores[name][fold, seed], "macro_f1": 0.5}
        for name in scores
        for fold in range(4)
        for seed in range(3)
    ]
    weighted, macro = script.leads(results)
    assert (weighted.first, weighted.second, weighted.metric, weighted.n_folds) == (
        "xgboost",
        "resnet",
        "weighted_f1",
        4,
    )
    difference = scores["xgboost"].mean(axis=1) - scores["resnet"].mean(axis=1)
    low, high = stats.t.interval(0.95, 3, difference.mean(), stats.sem(difference))
    assert (weighted.mean, weighted.low, weighted.high) == pytest.approx((difference.mean(), low, high))
    assert macro.metric == "macro_f1" and macro.mean == 0
    assert script.leads(results[:12]) == [] and script.leads([run for run in results if run["fold"] == 1]) == []


def test_the_size_of_a_network_is_its_number_of_parameters():
    # 10 packets of 3 features to 256, 128 and 3 units, with biases
    assert script.n_parameters("mlp", 3, 10) == 30 * 256 + 256 + 256 * 128 + 128 + 128 * 3 + 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "forest"], "forest"),
        (["--models", "xgboost", "xgboost"], "each once"),
        (["--folds", "0"], "--folds"),
        (["--seeds", "0"], "--seeds"),
        (["--n-folds", "2"], "--n-folds"),
        (["--n-folds", "61"], "fewer than the 61 folds"),
        (["--packets", "11"], "length must be from 1 to 10"),
        (["--tune-trials", "-1"], "--tune-trials"),
        (["--view", "sizes"], "sizes"),
        (["--max-epochs", "0"], "max_epochs"),
        (["--schedule", "step"], "step"),
        (["--fold", "1"], "fold"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].strip("-"),
)
def test_bad_input_is_one_line_and_exit_code_2(monkeypatch, parquet, tmp_path, capsys, arguments, words):
    out = tmp_path / "run"
    assert call(monkeypatch, ["--dataset", "parquet", "--path", parquet, *arguments, "--out", out]) == 2
    printed = capsys.readouterr()
    assert words in printed.err + printed.out and "Traceback" not in printed.err
    assert not out.exists()
