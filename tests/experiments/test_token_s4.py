"""The token generator's command: the same run folder as ddpm_s4.py, with the likelihood of flows."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest

import jaxtraffic as jt
from jaxtraffic.generate.masked_model import MaskedGenerator
from jaxtraffic.generate.token_model import TokenGenerator
from jaxtraffic.series import from_signed_size

SCRIPT = Path(__file__).parents[2] / "experiments" / "token_s4.py"


@pytest.fixture(scope="module")
def experiment():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("token_s4", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["token_s4"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """400 flows of three classes, each with a size of its own among others."""
    rng = np.random.default_rng(0)
    label = rng.choice(3, 400, p=[0.6, 0.3, 0.1])
    signed = np.where(rng.random((400, 12)) < 0.5, 60 + 40 * label[:, None], -1500).astype(np.int16)
    signed[np.arange(12) >= rng.integers(10, 13, 400)[:, None]] = 0
    path = tmp_path_factory.mktemp("data") / "toy.parquet"
    jt.write_parquet(from_signed_size(signed, label, class_names=("a", "b", "c"), name="toy", source="real"), path)
    return path


def call(experiment, monkeypatch, parquet, out, *more):
    arguments = ["--dataset", "parquet", "--path", parquet, "--width", 16, "--blocks", 1, "--batch-size", 32]
    arguments += ["--devices", 1, "--out", out, *more]
    monkeypatch.setattr(sys, "argv", ["token_s4.py", *map(str, arguments)])
    try:
        experiment.command_line(experiment.Options, experiment.run, "test")
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.mark.slow
def test_leaves_a_complete_run_folder_that_load_run_opens(experiment, monkeypatch, parquet, tmp_path, capsys):
    out = tmp_path / "run"
    assert call(experiment, monkeypatch, parquet, out, "--fixed-epochs", 3, "--num-samples", 100) == 0
    report = json.loads((out / "report.json").read_text())
    for key in ("utility.weighted_f1_gap", "discriminative.score", "coverage.beta_recall", "timing.sample_flows_per_s"):
        assert np.isfinite(report[key])
    # two sizes, equally likely, for almost every packet: a bit each, and more with so little training
    assert 0.8 < report["likelihood.bits_per_packet_test"] < 3
    assert report["information.mean"] < report["information.ceiling"] + 3 * report["information.stderr"]
    assert "token S4 on toy" in (out / "report.html").read_text()
    samples = pl.read_parquet(out / "samples.parquet")
    model = jt.generate.load_run(out)
    assert isinstance(model, TokenGenerator) and len(samples) == 100
    assert len(model.sample(jax.random.key(3), np.zeros(5, np.int32))) == 5
    assert call(experiment, monkeypatch, parquet, out, "--fixed-epochs", 3, "--num-samples", 100, "--resume") == 0
    assert "complete" in capsys.readouterr().out


@pytest.mark.slow
def test_the_masked_model_leaves_the_same_folder(experiment, monkeypatch, parquet, tmp_path):
    out = tmp_path / "run"
    more = ("--model", "masked", "--fixed-epochs", 3, "--num-samples", 100)
    assert call(experiment, monkeypatch, parquet, out, *more) == 0
    report = json.loads((out / "report.json").read_text())
    assert np.isfinite(report["utility.weighted_f1_gap"]) and "information.mean" not in report
    # a bound: no fewer than the bit a packet that the source needs
    assert 0.8 < report["likelihood.most_bits_per_packet_test"] < 5
    assert "masked token S4 on toy" in (out / "report.html").read_text()
    model = jt.generate.load_run(out)
    assert isinstance(model, MaskedGenerator) and len(pl.read_parquet(out / "samples.parquet")) == 100


@pytest.mark.slow
def test_the_number_of_epochs_is_found_on_flows_held_out(experiment, monkeypatch, parquet, tmp_path, capsys):
    out = tmp_path / "run"
    assert call(experiment, monkeypatch, parquet, out, "--epochs", 4, "--patience", 1, "--num-samples", 100) == 0
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    values = np.load(out / "selection" / "validation.npy")
    assert last["epoch"] in range(int(np.argmin(values.mean(axis=1))) + 1, len(values) + 1)
    assert "held out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--temperature", 0], "--temperature"), (["--patience", 0], "patience"), (["--downstream", "x"], "--downstream")],
)
def test_what_cannot_work_is_one_line(experiment, monkeypatch, parquet, tmp_path, capsys, arguments, words):
    assert call(experiment, monkeypatch, parquet, tmp_path / "run", *arguments) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()
