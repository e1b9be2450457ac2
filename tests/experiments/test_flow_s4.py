"""The rectified flow's command: the same run folder as ddpm_s4.py, with information and a round of reflow."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import jaxtraffic as jt
from jaxtraffic.series import from_signed_size

SCRIPT = Path(__file__).parents[2] / "experiments" / "flow_s4.py"


@pytest.fixture(scope="module")
def experiment():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("flow_s4", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """400 flows of three classes that differ in their sizes."""
    rng = np.random.default_rng(0)
    label = rng.choice(3, 400, p=[0.6, 0.3, 0.1])
    signed = np.where(rng.random((400, 30)) < 0.5, 60 + 40 * label[:, None], -1500).astype(np.int16)
    signed[np.arange(30) >= rng.integers(12, 31, 400)[:, None]] = 0
    path = tmp_path_factory.mktemp("data") / "toy.parquet"
    jt.write_parquet(from_signed_size(signed, label, class_names=("a", "b", "c"), name="toy", source="real"), path)
    return path


def call(experiment, monkeypatch, parquet, out, *more):
    arguments = ["--dataset", "parquet", "--path", parquet, "--preset", "tiny", "--steps", 20, "--num-samples", 100]
    arguments += ["--batch-size", 32, "--devices", 1, "--sampling-steps", 4, "--out", out, *more]
    monkeypatch.setattr(sys, "argv", ["flow_s4.py", *map(str, arguments)])
    try:
        experiment.command_line(experiment.Options, experiment.run, "test")
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.mark.slow
def test_leaves_a_complete_run_folder(experiment, monkeypatch, parquet, tmp_path):
    out = tmp_path / "run"
    assert call(experiment, monkeypatch, parquet, out, "--information", "--reflow", 1) == 0
    config, report = (json.loads((out / name).read_text()) for name in ("config.json", "report.json"))
    assert config["generator"]["diffusion"]["process"] == "flow" and config["experiment"] == "flow_s4"
    assert config["generator"]["train"]["class_dropout"] == 0.1
    assert (out / "reflow-1" / "checkpoints").is_dir() and len(pl.read_parquet(out / "samples.parquet")) == 100
    page = (out / "report.html").read_text()
    assert "Flow-S4 on toy" in page and "DDPMS4" not in page
    share = np.array(config["card"]["class_counts"]) / sum(config["card"]["class_counts"])
    assert report["information.ceiling"] == pytest.approx(-(share * np.log(share)).sum())
    with np.load(out / "information.npz") as stored:
        mi, label = stored["mi"], stored["label"]
    assert mi.shape == (100,) and report["information.mean"] == pytest.approx(mi.astype(np.float64).mean())
    assert report["information.class.a"] == pytest.approx(mi[label == 0].astype(np.float64).mean())
    assert report["information.stderr"] == pytest.approx(mi.astype(np.float64).std(ddof=1) / 10)
    loaded = jt.generate.load_run(out)
    assert loaded.title == "Flow-S4" and loaded.plan().steps == 4


@pytest.mark.parametrize(
    "more, words",
    [
        (["--prediction", "v"], "--prediction is for ddpm and vp"),
        (["--process", "edm", "--reflow", "1"], "--reflow"),
        (["--information", "--class-dropout", "0"], "--class-dropout"),
        (["--solver", "ancestral"], "choose from heun, euler, midpoint"),
        (["--process", "gan"], "unknown process"),
        (["--churn", "3"], "churn"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(experiment, monkeypatch, parquet, tmp_path, capsys, more, words):
    assert call(experiment, monkeypatch, parquet, tmp_path / "run", *more) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
