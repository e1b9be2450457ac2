"""The benchmark of generators: units, resuming, what is made once, hand-crafted fakes, refusals."""

import importlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxtraffic as jt
from jaxtraffic import evaluate
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

SCRIPT = Path(__file__).parents[2] / "experiments" / "generative_benchmark.py"
sys.path.insert(0, str(SCRIPT.parent))
script = importlib.import_module("generative_benchmark")
made = importlib.import_module("generative_benchmark_sets")

LENGTH = 10
CHEAP = ("marginals", "bootstrap", "translation")


def toy(n=180, seed=0):
    """Flows of three classes that sizes tell apart in part, every packet of at least 40 bytes."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 3).astype(np.int32)
    mask = np.arange(LENGTH) < rng.integers(LENGTH // 2, LENGTH + 1, n)[:, None]
    size = rng.integers(40, 1400, (n, LENGTH)) + 60 * label[:, None]
    return PacketSeries(
        size=np.where(mask, size, 0).astype(np.int16),
        direction=np.where(mask, rng.choice([-1, 1], (n, LENGTH)), 0).astype(np.int8),
        iat=np.where(mask, rng.exponential(0.1, (n, LENGTH)), 0).astype(np.float32),
        label=label,
        group=rng.integers(0, 40, n).astype(np.int32),
        class_names=("a", "b", "c"),
        name="toy",
    ).check()


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "toy.parquet"
    jt.write_parquet(toy(), path)
    return path


def call(monkeypatch, arguments):
    """Runs the script's main as the command line would; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["generative_benchmark.py", *map(str, arguments)])
    try:
        script.command_line(script.Options, script.run, "test")
    except SystemExit as stop:
        return stop.code
    return 0


def arguments_of(parquet, out, *more, models=CHEAP):
    words = ["--datasets", "parquet", "--path", parquet, "--min-packets", 1, "--n-folds", 4, "--folds", 2, "--seeds", 2]
    return [*words, "--models", ",".join(models), "--trees", 5, "--out", out, *more]


@pytest.fixture
def judged(monkeypatch):
    """A judge that notes what it is given and answers at once, by what it sees; the real one has its own tests."""
    calls = []

    def judge_sets(train, held_out, test, sets, *, seed, params, mesh):
        calls.append(
            (len(train), len(held_out), len(test), {name: one.signed_size for name, one in sets.items()}, seed)
        )
        figures = {
            name: {
                "utility.weighted_f1_real": 0.9,
                "utility.weighted_f1_gap": -float(one.size.mean()) / 1e4 - seed / 100,
                "discriminative.score": float((one.signed_size != train.signed_size).mean()),
                "data.n_synthetic": len(one),
            }
            for name, one in (sets | {"fresh_real": train}).items()
        }
        return evaluate.Judgement({"data.n_train": len(train), "data.n_test": len(test)}, figures, {"wrap": {}})

    monkeypatch.setattr(script.evaluate, "judge_sets", judge_sets)
    return calls


def test_a_killed_run_goes_on_without_making_or_judging_anything_again(monkeypatch, parquet, tmp_path, capsys, judged):
    out, crafted = tmp_path / "run", []

    def hand_crafted(name, train, key):
        crafted.append(name)
        return train.replace(size=np.where(train.mask, train.size + 1, 0).astype(np.int16), source="simulated")

    monkeypatch.setattr(made, "hand_crafted", hand_crafted)
    assert call(monkeypatch, arguments_of(parquet, out)) == 0
    shown = capsys.readouterr().out
    assert "180 flows of 3 classes" in shown and "unit 4 of 4: parquet, fold 1, seed 1" in shown
    report, config = (json.loads((out / name).read_text()) for name in ("report.json", "config.json"))
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["set"] for line in lines] == [*CHEAP, "fresh_real"] * 4
    assert {(line["fold"], line["seed"]) for line in lines} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert report["data.source"] == "real" and report["n"] == 4 and report["folds"] == report["seeds"] == 2
    assert report["parquet.translation.discriminative.score.n"] == 4 and config["models"] == list(CHEAP)
    assert "Real data: parquet" in (out / "report.html").read_text()
    assert "| *thesis, average* |" in (out / "tables.md").read_text()
    # what is judged is what is on disk, one flow for each training flow
    n_train, n_held_out, n_test, sets, _ = judged[0]
    assert n_train + n_held_out == 180 and n_test < n_held_out
    unit = out / "units" / "parquet-fold0-seed0"
    for name in CHEAP:
        kept = jt.read_parquet(unit / name / "samples.parquet")
        assert len(kept) == n_train and (kept.signed_size == sets[name]).all() and kept.class_names == ("a", "b", "c")
    assert (unit / "curves.json").exists()

    assert call(monkeypatch, arguments_of(parquet, out)) == 2 and "--resume" in capsys.readouterr().err
    assert call(monkeypatch, arguments_of(parquet, out, "--resume")) == 0 and "is complete" in capsys.readouterr().out
    assert call(monkeypatch, arguments_of(parquet, out, "--resume", "--trees", 6)) == 2
    assert "other options (trees: 5 there, 6 now)" in " ".join(capsys.readouterr().err.split())
    # killed while the last unit was judged, with one of its sets still to be made and a torn line of results
    (out / "report.json").unlink()
    last = out / "units" / "parquet-fold1-seed1"
    for name in ("judgement.json", "translation/samples.parquet"):
        (last / name).unlink()
    with (out / "results.jsonl").open("a") as file:
        file.write('{"dataset": "par')
    before = len(judged)
    assert crafted == ["translation"] * 4
    assert call(monkeypatch, arguments_of(parquet, out, "--resume")) == 0
    assert crafted == ["translation"] * 5 and len(judged) == before + 1 and judged[-1][-1] == 1
    assert [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()] == lines
    assert json.loads((out / "report.json").read_text()) == report


def test_ctrl_c_says_how_to_go_on(monkeypatch, parquet, tmp_path, capsys):
    def judge_sets(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(script.evaluate, "judge_sets", judge_sets)
    out = tmp_path / "run"
    assert call(monkeypatch, arguments_of(parquet, out, models=("bootstrap",))) == 130
    shown = " ".join(capsys.readouterr().out.split())
    assert "--resume --out" in shown and not (out / "report.json").exists()
    assert (out / "units" / "parquet-fold0-seed0" / "bootstrap" / "samples.parquet").exists()


@pytest.mark.parametrize("name", ["translation", pytest.param("wrap", marks=pytest.mark.slow), "gaussian_noise"])
def test_hand_crafted_fakes_are_changed_training_flows(name):
    train = toy(120)
    fake = made.hand_crafted(name, train, jax.random.key(0))
    assert (fake.label == train.label).all() and fake.class_names == train.class_names and fake.source == "simulated"
    changed = (fake.signed_size != train.signed_size).any(axis=1)
    assert changed.mean() > 0.8 and fake.size.max() <= train.size.max() and fake.group is None
    again = made.hand_crafted(name, train, jax.random.key(0))
    assert (again.signed_size == fake.signed_size).all()
    if name == "gaussian_noise":
        assert (fake.direction == train.direction).all() and (fake.iat == train.iat).all()
        # sizes above 1460 bytes are not cut: the noise is about them as about others
        large = train.size > 1460
        assert large.any() and np.abs(fake.size[large].astype(int) - train.size[large]).mean() < 400
        assert (fake.size[large] != train.size[large]).mean() > 0.3
    else:
        assert not (fake.n_packets > LENGTH).any() and np.isfinite(fake.iat).all()


def test_data_sets_by_name_tier_and_column():
    options = script.Options(datasets=("cesnet_tls:50", "cesnet_tls,iot@source", "toy"), group="capture", max_flows=9)
    found = script.data_options(options)
    assert list(found) == ["cesnet_tls:50", "cesnet_tls", "iot", "toy"]
    assert [(one.dataset, one.tier, one.group) for one in found.values()] == [
        ("cesnet_tls", "50", None),
        ("cesnet_tls", "all", None),
        ("iot", "all", "source"),
        ("toy", "all", "capture"),
    ]
    assert all(one.max_flows == 9 for one in found.values())
    for words, error in ((("toy", "toy"), "each once"), (("toy", "toy@capture"), "twice"), (("@capture",), "NAME")):
        with pytest.raises(ConfigError, match=error):
            script.data_options(script.Options(datasets=words))
    with pytest.raises(ConfigError, match="one data set"):
        script.data_options(script.Options(datasets=("parquet", "toy"), path=Path("toy.parquet")))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "gan"], "gan"),
        (["--models", "wrap,wrap"], "each once"),
        (["--folds", "0"], "--folds"),
        (["--folds", "5"], "--n-folds 4"),
        (["--seeds", "0"], "--seeds"),
        (["--trees", "0"], "--trees"),
        (["--n-folds", "2", "--folds", "1"], "--n-folds"),
        (["--preset", "huge", "--models", "ddpm_s4"], "huge"),
        (["--group", "source"], "source"),
        (["--fold", "1"], "fold"),
        (["--dataset", "toy"], "dataset"),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(monkeypatch, parquet, tmp_path, capsys, arguments, words):
    out = tmp_path / "run"
    assert call(monkeypatch, arguments_of(parquet, out, *arguments)) == 2
    printed = capsys.readouterr()
    assert words in printed.err + printed.out and "Traceback" not in printed.err
    assert not out.exists()


@pytest.mark.slow
def test_trained_models_are_kept_judged_and_not_trained_again(monkeypatch, parquet, tmp_path, judged):
    out = tmp_path / "run"
    more = ["--folds", 1, "--seeds", 1, "--preset", "tiny", "--steps", 2, "--batch-size", 16, "--devices", 1]
    arguments = arguments_of(parquet, out, *more, models=("ddpm_s4", "flow_s4", "marginals"))
    assert call(monkeypatch, [*arguments, "--keep-checkpoints"]) == 0
    lines = {line["set"]: line for line in map(json.loads, (out / "results.jsonl").read_text().splitlines())}
    assert set(lines) == {"ddpm_s4", "flow_s4", "marginals", "fresh_real"}
    for name in ("ddpm_s4", "flow_s4"):
        assert lines[name]["cost"]["train_seconds"] > 0 and lines[name]["cost"]["sample_seconds"] > 0
        place = out / "units" / "parquet-fold0-seed0" / name
        model = jt.generate.load_run(place)
        assert model.config.diffusion.process == made.PROCESSES[name] and model.card.name == "toy"
    assert "Training, s" in (out / "report.html").read_text()
    report = json.loads((out / "report.json").read_text())
    # killed before the judgement: no model is trained or sampled again, and the checkpoints may go
    for name in ("report.json", "units/parquet-fold0-seed0/judgement.json"):
        (out / name).unlink()
    monkeypatch.setattr(jt.generate.Generator, "fit", None)
    assert call(monkeypatch, [*arguments, "--resume"]) == 0
    assert json.loads((out / "report.json").read_text()) == report
    assert not (out / "units" / "parquet-fold0-seed0" / "ddpm_s4" / "checkpoints").exists()


@pytest.mark.slow
def test_cheap_sets_end_to_end_with_the_real_judge(monkeypatch, parquet, tmp_path):
    out = tmp_path / "run"
    assert call(monkeypatch, arguments_of(parquet, out, "--folds", 1, "--seeds", 1, models=made.MODELS[2:])) == 0
    report = json.loads((out / "report.json").read_text())
    score = {name: report[f"parquet.{name}.discriminative.score"] for name in ("bootstrap", "wrap", "random_half")}
    assert score["bootstrap"] < score["wrap"] and report["parquet.bootstrap.fidelity.copy_rate"] == 1
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {*made.MODELS[2:], "fresh_real", "random_half", "capture_half"} == {line["set"] for line in lines}
    for key in ("utility.weighted_f1_gap", "density.ks_complement", "coverage.beta_recall", "correlation.similarity"):
        assert all(isinstance(line["figures"][key], float) for line in lines), key
    page = (out / "report.html").read_text()
    for number in ("8.10", "8.11", "8.12", "8.13", "8.14"):
        assert f"Table {number}" in page
