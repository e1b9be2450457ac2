"""The user's command: run folder, report, refusals, resume; in this process, on a small set."""

import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import jaxtraffic as jt
from jaxtraffic.series import from_signed_size

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "ddpm_s4.py"
KEYS = [
    "data.n_train",
    "utility.weighted_f1_real",
    "utility.weighted_f1_synthetic",
    "utility.weighted_f1_gap",
    "utility.macro_f1_gap",
    "augmentation.weighted_f1_gain",
    "discriminative.score",
    "discriminative.stderr",
    "timing.train_flows_per_s",
    "timing.sample_flows_per_s",
]


@pytest.fixture(scope="module")
def experiment():
    """experiments/ddpm_s4.py as a module, found as Python finds it when the script is run."""
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("ddpm_s4", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """600 flows of three classes that differ in their first sizes."""
    rng = np.random.default_rng(0)
    label = rng.choice(3, 600, p=[0.6, 0.3, 0.1])
    signed = np.where(rng.random((600, 30)) < 0.5, 60 + 40 * label[:, None], -1500).astype(np.int16)
    signed[np.arange(30) >= rng.integers(12, 31, 600)[:, None]] = 0
    path = tmp_path_factory.mktemp("data") / "toy.parquet"
    jt.write_parquet(from_signed_size(signed, label, class_names=("a", "b", "c"), name="toy", source="real"), path)
    return path


def small(parquet, out, *more):
    arguments = ["--dataset", "parquet", "--path", parquet, "--preset", "tiny", "--steps", 40, "--num-samples", 150]
    return [str(part) for part in [*arguments, "--batch-size", 32, "--devices", 1, "--out", out, *more]]


def call(experiment, monkeypatch, arguments):
    """Runs the script's main as the command line would; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["ddpm_s4.py", *arguments])
    try:
        experiment.command_line(experiment.Options, experiment.run, "test")
    except SystemExit as stop:
        return stop.code
    return 0


def test_leaves_a_complete_run_folder_and_resume_is_a_no_op(experiment, monkeypatch, parquet, tmp_path, capsys):
    out = tmp_path / "run"
    assert call(experiment, monkeypatch, small(parquet, out)) == 0
    shown = capsys.readouterr().out
    assert "600 flows of 3 classes" in shown and "training" in shown and "report.html" in shown
    config, report = (json.loads((out / name).read_text()) for name in ("config.json", "report.json"))
    assert config["data"]["source"] == report["data.source"] == "real"
    assert config["versions"]["jax"] and config["command"] and config["device"]["count"] >= 1
    samples = pl.read_parquet(out / "samples.parquet")
    assert samples.columns[:4] == ["size", "direction", "label", "class_name"] and len(samples) == 150
    for key in KEYS:
        assert isinstance(report[key], int | float), key
    assert report["judge.xgboost.n_estimators"] == 100
    for reference in ("fresh_real", "bootstrap", "marginals"):
        for key in ("utility.weighted_f1_gap", "augmentation.weighted_f1_gain", "discriminative.score"):
            assert isinstance(report[f"reference.{reference}.{key}"], int | float)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40]
    assert list((out / "figures").glob("*.png")) and "<html" in (out / "report.html").read_text()
    before = (out / "report.json").stat().st_mtime_ns
    assert call(experiment, monkeypatch, small(parquet, out, "--resume")) == 0
    assert (out / "report.json").stat().st_mtime_ns == before and "complete" in capsys.readouterr().out
    assert call(experiment, monkeypatch, small(parquet, out)) == 2
    assert "--resume" in capsys.readouterr().err
    assert call(experiment, monkeypatch, [*small(parquet, out, "--resume"), "--seed", "1"]) == 2
    assert "other options (seed: 0 there, 1 now)" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--dataset", "no_such_set"], "no_such_set"),
        (["--dataset", "cesnet_quic", "--tier", "7x"], "7x"),
        (["--dataset", "cesnet_quic", "--real", "--data-root", "{tmp}/none"], "none"),
        (["--dataset", "parquet", "--path", "{tmp}/absent.parquet"], "absent.parquet"),
        (["--dataset", "parquet"], "needs a path"),
        (["--dataset", "parquet", "--path", "{tmp}/empty.parquet"], "empty.parquet"),
        (["--dataset", "parquet", "--path", "{toy}", "--fold", "11"], "fold"),
        (["--dataset", "parquet", "--path", "{toy}", "--group", "capture"], "capture"),
        (["--dataset", "parquet", "--path", "{toy}", "--preset", "huge"], "huge"),
        (["--dataset", "parquet", "--path", "{toy}", "--scaling", "log"], "log"),
        (["--dataset", "parquet", "--path", "{toy}", "--precision", "int4"], "int4"),
        (["--dataset", "parquet", "--path", "{toy}", "--prediction", "x0"], "x0"),
        (["--dataset", "parquet", "--path", "{toy}", "--guidance", "2"], "class-dropout"),
        (["--dataset", "parquet", "--path", "{toy}", "--num-samples", "0"], "num-samples"),
        (["--dataset", "parquet", "--path", "{toy}", "--mesh", "rows=2"], "mesh"),
        (["--dataset", "parquet", "--path", "{toy}", "--devices", "99"], "devices"),
        (["--dataset", "parquet", "--path", "{toy}", "--steps", "0"], "steps"),
        (["--no-such-flag"], "no-such-flag"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(experiment, monkeypatch, parquet, tmp_path, capsys, arguments, words):
    (tmp_path / "empty.parquet").touch()
    out = tmp_path / "run"
    filled = [part.format(tmp=tmp_path, toy=parquet) for part in arguments]
    assert call(experiment, monkeypatch, [*filled, "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert words in printed.err + printed.out and "Traceback" not in printed.err
    assert not (out / "report.json").exists() and not (out / "config.json").exists()


@pytest.mark.parametrize("place", ["{toy}/run", "{toy}", "{full}"])
def test_a_run_folder_that_cannot_be_used_is_refused(experiment, monkeypatch, parquet, tmp_path, capsys, place):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    out = place.format(toy=parquet, full=tmp_path / "full")
    assert call(experiment, monkeypatch, small(parquet, out)) == 2
    assert "choose another" in capsys.readouterr().err
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


def command(arguments):
    return [sys.executable, str(SCRIPT), *arguments]


def environment(**more):
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"} | more


def same_samples(one, other):
    return pl.read_parquet(one / "samples.parquet").equals(pl.read_parquet(other / "samples.parquet"))


@pytest.mark.slow
def test_killed_at_five_random_moments_and_resumed_is_bit_identical(parquet, tmp_path):
    more = ["--steps", "400"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    begin = time.monotonic()
    subprocess.run(command(small(parquet, whole, *more)), check=True, env=environment(), capture_output=True)
    length = time.monotonic() - begin
    moments = random.Random(0)
    for _ in range(5):
        process = subprocess.Popen(
            command(small(parquet, cut, *more, "--resume")), env=environment(), stdout=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0.2, 0.8) * length)
        process.kill()
        process.wait()
        if (cut / "report.json").exists():
            break  # it had finished, or was on its way out, before the kill reached it
    subprocess.run(command(small(parquet, cut, *more, "--resume")), check=True, env=environment(), capture_output=True)
    assert same_samples(whole, cut)
    import jax

    one, other = (jax.tree.leaves(jt.generate.load_run(folder).params) for folder in (whole, cut))
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_sigterm_saves_and_says_so(parquet, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(small(parquet, out, "--steps", "100000")), env=environment(), stderr=subprocess.PIPE, text=True
    )
    log, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_text()):
        time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "interrupted: stopped at step" in errors
    assert [path for path in (out / "checkpoints").iterdir() if path.name.isdigit()]


@pytest.mark.slow
def test_two_processes_agree_with_one(parquet, tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    arguments = [part for part in small(parquet, tmp_path / "two") if part not in ("--devices", "1")]
    processes = [
        subprocess.Popen(
            command([*arguments, "--coordinator", f"localhost:{port}", "--num-processes", "2", "--process-id", str(i)]),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    subprocess.run(command(small(parquet, tmp_path / "one")), check=True, env=environment(), capture_output=True)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    one, two = (pl.read_parquet(tmp_path / name / "samples.parquet") for name in ("one", "two"))
    same = np.mean([a == b for a, b in zip(one["size"].to_list(), two["size"].to_list(), strict=True)])
    # Training differs in the last bits between one and two processes, so a few sizes fall on the other side of an edge.
    assert same > 0.8 and one["label"].equals(two["label"])
