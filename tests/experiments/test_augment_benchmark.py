"""The campaign's command: the run folder of all studies, resuming, the configurations, refusals."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxtraffic as jt
from jaxtraffic import augment
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

SCRIPT = Path(__file__).parents[2] / "experiments" / "augment_benchmark.py"
sys.path.insert(0, str(SCRIPT.parent))
script = importlib.import_module("augment_benchmark")
configs = importlib.import_module("campaign_configs")


def write_flows(folder, *, small_class=40, iat=True):
    """A parquet file of three classes that sizes tell apart in part."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], [80, 60, small_class]).astype(np.int32)
    shape = (len(label), 10)
    flows = PacketSeries(
        size=(rng.integers(40, 400, shape) + 100 * label[:, None]).astype(np.int16),
        direction=rng.choice([-1, 1], shape).astype(np.int8),
        iat=(rng.exponential(0.1, shape) * iat).astype(np.float32),
        label=label,
        class_names=("a", "b", "c"),
        name="toy",
    ).check()
    path = folder / "toy.parquet"
    jt.write_parquet(flows, path)
    return path


def arguments(path, out, *more):
    common = ["--dataset", "parquet", "--path", path, "--min-flows", 1, "--packets", 8, "--preset", "tiny"]
    return [str(one) for one in [*common, "--epochs", 2, "--folds", 2, "--n-folds", 5, "--out", out, *more]]


def call(monkeypatch, args):
    """Runs the script as the command line would; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["augment_benchmark.py", *args])
    try:
        script.command_line(script.Options, script.run, "test")
    except SystemExit as stop:
        return stop.code
    return 0


def test_studies_have_the_configurations_of_the_paper():
    base = configs.PRESETS["paper"]
    assert (base.batch_size, base.max_epochs, base.learning_rate, base.weight_decay) == (1024, 500, 1e-3, 1e-4)
    assert len(configs.PAPER) == 18
    g1 = configs.g1(base, configs.PAPER, magnitude=True)
    injected = [one for one in g1 if one.name in configs.PAPER]
    assert len(injected) == 18 and {(one.policy, one.amount, one.fresh, one.alpha) for one in injected} == {
        ("inject", 1, 512, None)
    }
    fixed = {one.name for one in g1 if one.alpha is not None}
    flat = {name for name, entry in augment.AUGMENTATIONS.items() if entry.in_paper and not entry.has_magnitude}
    assert {name.removesuffix("@0.5") for name in fixed} == set(configs.PAPER) - flat
    assert {one.name: one.fresh for one in configs.g2(base, "wrap")} == {
        "baseline": 1024,
        "wrap": 512,
        "wrap/replace-0.3": 1024,
        "wrap/replace-0.5": 1024,
        "wrap/replace-1": 1024,
        "wrap/inject-2": 341,
        "wrap/inject-4": 204,
        "wrap/inject-8": 113,
        "wrap/pre_augment-10": 1024,
        "baseline/weighted": 1024,
        "wrap/weighted": 512,
    }
    g4 = {one.name: one.augmentation for one in configs.g4(base, configs.BEST_OF_PAPER)}
    assert g4["masked_stack-0.3"].p_apply == 0.3 and g4["ensemble"].ops == g4["random_stack"].ops
    assert configs.best_of({"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.0}) == ("b", "c", "a")
    with pytest.raises(ConfigError, match="best 3"):
        configs.best_of({"a": 1.0})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--augmentations", "wrapp"], "unknown augmentation 'wrapp'"),
        (["--augmentations", "mss_variation"], "mss_variation needs sizes in bytes"),
        (["--study", "g5"], "unknown study"),
        (["--preset", "large"], "unknown preset"),
        (["--n-folds", "90", "--folds", "2"], "class c of toy has 40 flows, fewer than the 90 folds"),
        (["--packets", "11"], "length must be from 1 to 10"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, monkeypatch, capfd, more, message):
    out = tmp_path / "run"
    assert call(monkeypatch, arguments(write_flows(tmp_path), out, *more)) == 2
    assert message in " ".join(capfd.readouterr().err.split())
    assert not (out / "g1" / "results.jsonl").exists()


def test_flows_without_times_are_refused_where_times_are_needed(tmp_path, monkeypatch, capfd):
    path, out = write_flows(tmp_path, iat=False), tmp_path / "run"
    assert call(monkeypatch, arguments(path, out, "--augmentations", "wrap", "packet_loss")) == 2
    assert "packet_loss needs inter-arrival times" in " ".join(capfd.readouterr().err.split())
    assert not (out / "g1" / "results.jsonl").exists()


@pytest.mark.slow
def test_all_studies_end_to_end_and_again_after_a_kill(tmp_path):
    path = write_flows(tmp_path)
    names = ("translation", "wrap", "permutation", "packet_loss")

    def command(out, *more):
        return [sys.executable, str(SCRIPT), *arguments(path, out, "--study", "all", "--augmentations", *names, *more)]

    whole = tmp_path / "whole"
    subprocess.run(command(whole), check=True, capture_output=True)
    report = json.loads((whole / "report.json").read_text())
    assert report["data.name"] == "toy" and np.isfinite(report["g1.wrap.weighted_f1_gain"])
    assert (whole / "report.html").stat().st_size > 50_000
    assert {one.name for one in (whole / "figures").iterdir()} >= {
        "ranks.png",
        "gains.png",
        "policies.png",
        "tsne_1.png",
    }

    killed = tmp_path / "killed"
    process = subprocess.Popen(command(killed), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if line.startswith("g2: runs"):
            process.kill()
            break
    process.wait()
    assert not (killed / "report.json").exists()
    subprocess.run(command(killed, "--resume"), check=True, capture_output=True)
    for study in ("g1", "g2", "g3", "g4"):
        one, other = (
            [json.loads(line) for line in (folder / study / "results.jsonl").read_text().splitlines()]
            for folder in (whole, killed)
        )
        for result in (*one, *other):
            result.pop("seconds")
        assert one == other
    done = subprocess.run(command(killed, "--resume"), check=True, capture_output=True, text=True)
    assert "is complete" in done.stdout


def test_the_page_says_what_was_reduced():
    options = script.Options(folds=3, max_train=100)
    base = dataclasses.replace(configs.PRESETS["small"], max_epochs=7)
    first, control = script.notes_of(options, base)
    assert "epochs at most 7 (paper: 500)" in first and "folds: 3 (paper: 80)" in first and "100" in first
    assert configs.CONTROL in control
