"""The benchmark of generators: units, draws, resuming, what is made once, seconds of training, refusals."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxtraffic as jt
from jaxtraffic import evaluate, parallel, prng
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.nn.token_net import TokenNetConfig
from jaxtraffic.series import PacketSeries
from jaxtraffic.train import TrainConfig

SCRIPT = Path(__file__).parents[2] / "experiments" / "generative_benchmark.py"
sys.path.insert(0, str(SCRIPT.parent))
script = importlib.import_module("generative_benchmark")
made = importlib.import_module("generative_benchmark_sets")

LENGTH = 10
CHEAP = ("marginals", "bootstrap", "translation")
CHEAP_MODELS = (*made.RESAMPLED, *made.HAND_CRAFTED)


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


class FakeTokens:
    """Stands for a token-like model: flows that hold the number that the key was made of, and how it was trained."""

    def __init__(self, folder):
        self.folder, self.fits, self.sampled = folder, [], []

    def fit(self, config, train, *, key, mesh, folder, epochs, seed, resume, report):
        self.train = train
        assert epochs in (None, config.train.epochs)
        self.fits.append((config.train.epochs, resume))
        for place, seconds in ((folder / "selection", 2.0), (folder, 3.0)):
            place.mkdir(exist_ok=True)
            (place / "checkpoints").mkdir(exist_ok=True)
            line = {"step": 40, "epoch": 4.0, "loss": 1.0, "seconds": seconds, "phase": "refit"}
            (place / "metrics.jsonl").write_text(json.dumps(line) + "\n")
            report(line)
        return self

    def sample(self, key, labels, *, mesh, report=None):
        self.sampled.append((jax.random.key_data(key).tolist(), len(labels)))
        size = np.full_like(self.train.size, 50 + len(self.sampled)) * self.train.mask
        return self.train.replace(size=size.astype(np.int16), source="simulated")[: len(labels)]


@pytest.fixture
def fake(monkeypatch, tmp_path):
    made_up = FakeTokens(tmp_path)
    monkeypatch.setattr(made.token_runs, "fit", made_up.fit)
    return made_up


def test_every_draw_is_a_set_of_its_own_and_a_lost_one_is_drawn_again(monkeypatch, parquet, tmp_path, judged, fake):
    def hand_crafted(name, train, key):
        return train.replace(size=np.where(train.mask, jax.random.randint(key, (), 1, 1000), 0).astype(np.int16))

    monkeypatch.setattr(made, "hand_crafted", hand_crafted)
    out = tmp_path / "run"
    models = ("token_s4", "marginals", "bootstrap", "translation")
    arguments = arguments_of(parquet, out, "--folds", 1, "--seeds", 1, "--draws", 3, "--devices", 1, models=models)
    assert call(monkeypatch, arguments) == 0
    read = (out / "results.jsonl").read_text()
    lines = list(map(json.loads, read.splitlines()))
    expected = [(model, draw) for model in models for draw in range(3)] + [("fresh_real", 0)]
    assert [(line["set"], line["draw"]) for line in lines] == expected
    # one judgement for all of them, and no two draws alike
    assert len(judged) == 1 and len(judged[0][3]) == 12 and "token_s4#2" in judged[0][3]
    assert len({sizes.tobytes() for sizes in judged[0][3].values()}) == 12
    key = prng.stream(prng.stream(prng.at_step(jax.random.key(0), 0), "token_s4"), "sample")
    keys = [key, key, prng.at_step(key, 1), prng.at_step(key, 2)]
    # one flow compiles, then draw 0 as ever
    n = judged[0][0]
    assert fake.sampled == [(jax.random.key_data(k).tolist(), 1 if i == 0 else n) for i, k in enumerate(keys)]
    cost = [line["cost"] for line in lines if line["set"] == "token_s4"]
    assert all((one["train_seconds"], one["steps"], one["epochs"]) == (5.0, 40, 4.0) for one in cost)
    assert len({one["sample_seconds"] for one in cost}) == 3 and lines[-1]["cost"] == {} == lines[4]["cost"]
    report = json.loads((out / "report.json").read_text())
    assert report["draws"] == 3 and report["n"] == 1 and report["parquet.token_s4.discriminative.score.n"] == 3
    assert "1 fold, 1 seed and 3 draws" in (out / "tables.md").read_text()
    unit = out / "units" / "parquet-fold0-seed0"
    assert not list(unit.rglob("checkpoints"))

    draw = unit / "marginals" / "samples-2.parquet"
    before = jt.read_parquet(draw)
    for path in (draw, unit / "token_s4" / "samples-1.parquet", unit / "judgement.json", out / "report.json"):
        path.unlink()
    assert call(monkeypatch, [*arguments, "--resume"]) == 0
    assert (jt.read_parquet(draw).size == before.size).all()
    assert fake.sampled[4:] == [fake.sampled[0], fake.sampled[2]] and fake.fits == [(60, True)] * 2
    assert call(monkeypatch, [*arguments, "--resume", "--draws", 2]) == 2


def test_training_time_is_made_into_steps_and_epochs_once(monkeypatch, parquet, tmp_path, judged, fake):
    paces = [10.0, 7.0]

    def steps_per_second(loss, init, arrays, config, **options):
        return paces.pop(0)

    monkeypatch.setattr(made, "steps_per_second", steps_per_second)
    out = tmp_path / "run"
    more = ("--folds", 1, "--seeds", 1, "--train-seconds", 5)
    arguments = arguments_of(parquet, out, *more, models=("token_s4",))
    assert call(monkeypatch, arguments) == 0
    n_train = judged[0][0]
    # 50 steps, and an epoch is one of 64 flows
    assert n_train // 64 == 1 and fake.fits == [(50, True)]
    unit = out / "units" / "parquet-fold0-seed0"
    plan = json.loads((unit / "token_s4" / "plan.json").read_text())
    assert plan == {"train_seconds": 5.0, "steps_per_second": 10.0, "train": {"epochs": 50}}
    assert "Equal training time: 5 s" in (out / "tables.md").read_text()
    # killed while it trained: the machine is quicker now, and the plan is still the same
    for path in (unit / "token_s4" / "samples.parquet", unit / "judgement.json", out / "report.json"):
        path.unlink()
    assert call(monkeypatch, [*arguments, "--resume"]) == 0 and fake.fits == [(50, True)] * 2 and paces == [7.0]


def test_a_broken_file_of_a_model_is_named(tmp_path, fake):
    maker = made.Maker({"token_s4": TokenConfig()}, parallel.make_mesh(devices=1), script.Console(quiet=True), False)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(DataError, match=r"plan\.json"):
        maker.make("token_s4", toy(100), tmp_path, fold=0, seed=0, seconds=5.0)


def test_folds_that_choices_were_made_on_are_skipped():
    assert script._folds(dataclasses.replace(script.Options(), folds=3, skip_folds=(1, 2))) == [0, 3, 4]
    assert script._folds(script.Options()) == [0, 1, 2, 3, 4]


def test_seconds_of_each_data_set():
    def seconds(*given):
        return script._seconds(dataclasses.replace(script.Options(), train_seconds=given), ("a", "b"))

    assert seconds() == {} and seconds(5.0) == {"a": 5.0, "b": 5.0} and seconds(5.0, 7.0) == {"a": 5.0, "b": 7.0}
    for wrong in ((1.0, 2.0, 3.0), (0.0,), (float("nan"), 1.0), (float("inf"),)):
        with pytest.raises(ConfigError, match="--train-seconds"):
            seconds(*wrong)


def test_ctrl_c_says_how_to_go_on(monkeypatch, parquet, tmp_path, capsys):
    def judge_sets(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(script.evaluate, "judge_sets", judge_sets)
    out = tmp_path / "run"
    assert call(monkeypatch, arguments_of(parquet, out, models=("bootstrap",))) == 130
    shown = " ".join(capsys.readouterr().out.split())
    assert "--resume --out" in shown and not (out / "report.json").exists()
    assert (out / "units" / "parquet-fold0-seed0" / "bootstrap" / "samples.parquet").exists()


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
        (["--folds", "5"], "--n-folds"),
        (["--folds", "2", "--skip-folds", "0", "1", "2"], "--skip-folds"),
        (["--seeds", "0"], "--seeds"),
        (["--draws", "0"], "--draws"),
        (["--token-epochs", "0"], "--token-epochs"),
        (["--train-seconds", "5", "--steps", "9"], "--steps"),
        (["--train-seconds", "5", "6"], "--train-seconds"),
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


@pytest.fixture
def quick_compiles():
    """What is made of the programs' results is tested, so XLA need not optimise."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.slow
def test_a_token_model_is_paced_trained_and_drawn_from_twice(monkeypatch, parquet, tmp_path, judged, quick_compiles):
    def config():
        net = TokenNetConfig(width=8, blocks=1, embedding=8, head=8, state=4, space="diag-lin", dropout=0.0)
        return TokenConfig(net=net, train=TrainConfig(batch_size=32, log_steps=2), patience=1)

    monkeypatch.setitem(made.TOKENS, "token_s4", config)
    out = tmp_path / "run"
    more = ["--folds", 1, "--seeds", 1, "--devices", 1, "--draws", 2, "--train-seconds", 0.5]
    assert call(monkeypatch, arguments_of(parquet, out, *more, models=("token_s4",))) == 0
    place = out / "units" / "parquet-fold0-seed0" / "token_s4"
    plan = json.loads((place / "plan.json").read_text())
    n_train = judged[0][0]
    expected = int(0.5 * plan["steps_per_second"] / (n_train // 32))
    assert plan["train"] == {"epochs": min(60, max(1, expected))}
    costs = [json.loads(line)["cost"] for line in (out / "results.jsonl").read_text().splitlines()][:2]
    taken = sum(json.loads(line)["seconds"] for line in (place / "metrics.jsonl").read_text().splitlines())
    assert all(one["train_seconds"] == pytest.approx(taken) and one["sample_seconds"] > 0 for one in costs)
    assert costs[0]["epochs"] == plan["train"]["epochs"] and not (place / "selection").exists()
    assert costs[0]["steps"] == costs[0]["epochs"] * (n_train // 32)
    # the folder opens, and the same keys give the same draws
    model = jt.generate.load_run(place)
    key = prng.stream(prng.stream(prng.at_step(jax.random.key(0), 0), "token_s4"), "sample")
    for own, file in ((key, "samples.parquet"), (prng.at_step(key, 1), "samples-1.parquet")):
        flows = jt.read_parquet(place / file)
        again = model.sample(own, np.asarray(flows.label), mesh=parallel.make_mesh(devices=1))
        assert (again.signed_size == flows.signed_size).all()


@pytest.mark.slow
def test_cheap_sets_end_to_end_with_the_real_judge(monkeypatch, parquet, tmp_path):
    out = tmp_path / "run"
    assert call(monkeypatch, arguments_of(parquet, out, "--folds", 1, "--seeds", 1, models=CHEAP_MODELS)) == 0
    report = json.loads((out / "report.json").read_text())
    score = {name: report[f"parquet.{name}.discriminative.score"] for name in ("bootstrap", "wrap", "random_half")}
    assert score["bootstrap"] < score["wrap"] and report["parquet.bootstrap.fidelity.copy_rate"] == 1
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {*CHEAP_MODELS, "fresh_real", "random_half", "capture_half"} == {line["set"] for line in lines}
    for key in ("utility.weighted_f1_gap", "density.ks_complement", "coverage.beta_recall", "correlation.similarity"):
        assert all(isinstance(line["figures"][key], float) for line in lines), key
    page = (out / "report.html").read_text()
    for number in ("8.10", "8.11", "8.12", "8.13", "8.14"):
        assert f"Table {number}" in page
