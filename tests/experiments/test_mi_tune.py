"""MI-TUNE as a command: the comparison with its errors, the page, and one run end to end at a tiny size."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxtraffic as jt
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate.mi_tune import Candidates
from jaxtraffic.report import mi_tune_pages as pages
from jaxtraffic.series import from_signed_size

FOLDER = Path(__file__).parents[2] / "experiments"
NAMES = ("a", "b.c", "<i>d</i>")


def module(name):
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def judging():
    return module("mi_tune_judging")


@pytest.fixture(scope="module")
def experiment(judging):
    return module("mi_tune")


def toy(n=300, seed=0, source="real", flip=0.0, length=12):
    """Flows of three classes that differ in their sizes; a share `flip` of them has the size of another class."""
    rng = np.random.default_rng(seed)
    label = np.sort(rng.choice(3, n, p=[0.5, 0.3, 0.2]))
    shown = np.where(rng.random(n) < flip, rng.integers(0, 3, n), label)
    signed = np.where(rng.random((n, length)) < 0.5, 60 + 40 * shown[:, None], -1500).astype(np.int16)
    signed[np.arange(length) >= rng.integers(8, length + 1, n)[:, None]] = 0
    return from_signed_size(signed, label, class_names=NAMES, name="toy", source=source)


@pytest.fixture(scope="module")
def judge(judging):
    return judging.Judge.of(toy(seed=1), toy(100, seed=2), toy(200, seed=3), 0)


def judged(judging, judge, seed, flip, mi):
    flows = toy(200, seed, "simulated", flip)
    draws = np.random.default_rng(seed)
    return judging.judge_set(judge, flows, draws.normal(mi, 0.5, 200), draws.normal(1 + flip, 0.1, 100))


def test_changes_are_right_and_so_are_their_errors(judging, judge):
    old, new = judged(judging, judge, 5, 0.7, 1.0), judged(judging, judge, 6, 0.0, 1.5)
    found = judging.changes(judge, old, new)
    assert found["weighted_f1"][0] > 5 * found["weighted_f1"][1] > 0
    truth = new.figures["utility.weighted_f1_synthetic"] - old.figures["utility.weighted_f1_synthetic"]
    assert found["weighted_f1"][0] == pytest.approx(truth)
    difference = new.mi - old.mi
    assert found["information"] == pytest.approx((difference.mean(), np.std(difference, ddof=1) / math.sqrt(200)))
    assert found["mean_packets"][0] == pytest.approx(new.flows.n_packets.mean() - old.flows.n_packets.mean())
    assert found["held_out_loss"][0] == pytest.approx(new.loss.mean() - old.loss.mean())
    same = judging.changes(judge, old, old)
    for metric, (change, stderr) in same.items():
        assert change == 0 and (stderr == 0 or metric == "discriminative"), metric
    assert set(found) == {metric.key for metric in pages.METRICS}


def test_the_jackknife_of_a_mean_is_its_standard_error(judging):
    values = np.random.default_rng(0).normal(size=4000)
    mean, stderr = judging._jackknife(4000, lambda use: values[use].mean())
    assert mean == pytest.approx(values.mean()) and stderr == pytest.approx(1 / math.sqrt(4000), rel=0.5)


def test_the_error_over_repeats_holds_both_spreads(judging):
    assert judging.over_repeats([(0.3, 0.1)]) == pytest.approx((0.3, 0.1))
    mean, stderr = judging.over_repeats([(0.1, 0.3), (0.3, 0.1), (0.5, 0.2)])
    assert mean == pytest.approx(0.3)
    assert stderr == pytest.approx(math.sqrt((0.09 + 0.01 + 0.04) / 3 + 0.04 / 3))


def test_agreement_is_the_mean_correlation_within_classes(judging):
    flows = toy(40)
    label = np.asarray(flows.label)
    score = np.arange(40.0)
    # Within classes opposite, over all flows far from it: classes are sorted.
    drawn = Candidates(flows, {"squared": score, "path_wise": 100 * label - score})
    assert judging.agreement(drawn)["squared_path_wise"] == pytest.approx(-1)
    constant = Candidates(flows, {"squared": score, "path_wise": np.zeros(40)})
    assert judging.agreement(constant) == {}


@pytest.fixture(scope="module")
def figures(judging, judge):
    before = judged(judging, judge, 5, 0.7, 1.0)
    arms = {
        "tuned": [judged(judging, judge, seed, 0.0, 1.6) for seed in (6, 7)],
        "random": [judged(judging, judge, seed, 0.7, 1.0) for seed in (8, 9)],
    }
    return judging.figures_of(judge, before, arms, NAMES)


def test_figures_hold_levels_changes_and_classes(figures):
    for key in ("utility.weighted_f1_gap", "discriminative.score", "discriminative.stderr", "information.mean"):
        for prefix in ("", "reference.before.", "reference.random."):
            assert isinstance(figures[prefix + key], int | float), prefix + key
    assert figures["reference.fresh_real.fidelity.mean_packets"] > 8
    assert 0 < figures["information.ceiling"] < math.log(3)
    level = figures["utility.weighted_f1_synthetic"] - figures["reference.before.utility.weighted_f1_synthetic"]
    assert figures["change.tuned_minus_before.weighted_f1"] == pytest.approx(level)
    assert figures["change.tuned_minus_random.weighted_f1_stderr"] > 0
    rows = pages.class_rows(figures)
    assert [row["name"] for row in rows] == sorted(NAMES, key=lambda name: -figures[f"per_class.{name}.n_test"])
    assert all({"f1_real", "f1_before", "f1_tuned", "mi_random"} <= set(row) for row in rows)


def test_the_verdict_says_what_changed_and_what_did_not(figures):
    answer, after, control, selection, ceiling = pages.verdict(figures)
    assert "(tuned) is above H(label) = 1.0" in ceiling
    assert len(pages.verdict(figures | {"information.ceiling": 2.0})) == 4
    assert "raised" in answer and "selection by information itself helped" in answer
    assert "weighted F1 rose" in after and "information (nats) rose by 0.6" in after
    assert "weighted F1 fell" not in control and "weighted F1 rose" in selection
    still = figures | {"change.tuned_minus_before.weighted_f1": 0.01, "change.tuned_minus_before.weighted_f1_stderr": 1}
    still |= {"change.tuned_minus_random.weighted_f1": -0.5, "change.tuned_minus_random.weighted_f1_stderr": 0.1}
    answer = pages.verdict(still)[0]
    assert "did not measurably change" in answer and "random flows would have been the better choice" in answer
    nothing = {key: value for key, value in figures.items() if not key.startswith("change.")}
    nothing |= {f"change.{pair}.weighted_f1": 0.0 for pair in pages._PAIRS}
    nothing |= {f"change.{pair}.weighted_f1_stderr": 0.0 for pair in pages._PAIRS}
    assert all("nothing changed" in sentence for sentence in pages.verdict(nothing)[1:4])


def test_the_page_shows_levels_changes_and_says_what_is_simulated(figures, tmp_path):
    found = figures | {"round.0.tuned.candidates_mi": 1.0, "round.0.tuned.kept_mi": float("nan")}
    found |= {f"round.0.tuned.{name}": 0.5 for name in ("candidates_distinct_share", "kept_distinct_share")}
    found |= {"round.0.tuned.first_loss": 1.0, "round.0.tuned.last_loss": 0.9, "tuning.repeats": 2}
    config = {"data": {"source": "simulated", "name": "toy", "notice": "a toy"}, "tuning": {"rank": "squared"}}
    page = pages.write_mi_tune(tmp_path, found, config).read_text()
    assert "Simulated data" in page and "a toy" in page and "&lt;i&gt;d" in page and "<i>d</i>" not in page
    assert "2 tunings" in page and page.count('class="value beyond"') >= 4
    assert (tmp_path / "figures" / "classes.png").stat().st_size > 1000
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["data.source"] == "simulated" and report["round.0.tuned.kept_mi"] is None
    assert "Spearman" not in page
    again = pages.write_mi_tune(tmp_path, found | {"candidates.spearman.squared_path_wise": -0.25}, config)
    assert "\N{MINUS SIGN}0.25" in again.read_text()
    for broken in ({"data": {"source": "guessed"}}, {"data": {}}):
        with pytest.raises(ConfigError, match="data.source"):
            pages.write_mi_tune(tmp_path, found, broken)
    with pytest.raises(ConfigError, match="changes"):
        pages.write_mi_tune(tmp_path, {}, config)


def test_the_page_needs_no_jax():
    code = "import sys; import jaxtraffic.report.mi_tune_pages; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


SMALL = ["--preset", "tiny", "--process", "flow", "--solver", "euler", "--sampling-steps", "6", "--steps", "30"]
SMALL += ["--batch-size", "32", "--num-samples", "64", "--devices", "1", "--candidates", "8", "--keep", "2"]
SMALL += ["--rounds", "1", "--repeats", "1", "--tune-steps", "6", "--tune-batch-size", "16"]


def call(experiment, monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["mi_tune.py", *map(str, arguments)])
    try:
        experiment.command_line(experiment.Options, experiment.run_mi_tune, "test")
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "toy.parquet"
    jt.write_parquet(toy(400), path)
    return path


@pytest.mark.slow
def test_trains_tunes_and_leaves_run_folders_that_load(experiment, monkeypatch, parquet, tmp_path, capsys):
    out, data = tmp_path / "run", ["--dataset", "parquet", "--path", parquet]
    assert call(experiment, monkeypatch, [*data, *SMALL, "--out", out]) == 0
    printed = capsys.readouterr().out
    assert "What tuning changed" in printed and "report.html" in printed
    report, config = (json.loads((out / name).read_text()) for name in ("report.json", "config.json"))
    assert report["data.source"] == "real" and config["tuning"]["rank"] == "squared"
    assert -1 <= report["candidates.spearman.squared_path_wise"] <= 1
    assert report["round.0.tuned.kept_mi"] > report["round.0.tuned.candidates_mi"]
    assert report["loss.held_out"] > 0 and report["change.tuned_minus_before.held_out_loss_stderr"] > 0
    assert report["round.0.tuned.candidates_mi"] == report["round.0.random.candidates_mi"]
    before, tuned = jt.generate.load_run(out / "base"), jt.generate.load_run(out)
    same = jax.tree.map(lambda one, other: bool((one == other).all()), before.params, tuned.params)
    assert not same["blocks"][0]["mix"]["kernel"] and same["blocks"][0]["s4"]["c"]
    # From the run that was just trained: the same generator, so the same first candidates and the same figures.
    again = tmp_path / "again"
    assert call(experiment, monkeypatch, [*data, *SMALL, "--run", out / "base", "--out", again]) == 0
    second = json.loads((again / "report.json").read_text())
    assert second["reference.before.information.mean"] == pytest.approx(report["reference.before.information.mean"])
    assert second["information.mean"] == pytest.approx(report["information.mean"], rel=1e-4)
    assert call(experiment, monkeypatch, [*data, *SMALL, "--run", out / "base", "--out", again]) == 2
    assert "not empty" in capsys.readouterr().err
    jt.write_parquet(toy(380, seed=7), tmp_path / "other.parquet")
    other = ["--dataset", "parquet", "--path", tmp_path / "other.parquet", "--run", out / "base"]
    assert call(experiment, monkeypatch, [*other, *SMALL, "--out", tmp_path / "third"]) == 2
    assert "class_counts differs" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--rank", "random"], "control"),
        (["--rank", "best"], "squared_ascending"),
        (["--rank", "path_wise", "--process", "ddpm", "--solver", "ancestral", "--sampling-steps", "100"], "flows"),
        (["--keep", "9"], "keep 9 of 8"),
        (["--adapters", "full"], "lora, dora"),
        (["--adapter-rank", "65"], "above 64"),
        (["--repeats", "0"], "repeats"),
        (["--num-samples", "10"], "num-samples"),
        (["--resume"], "no option"),
        (["--run", "{tmp}/none"], "not a run folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].strip("-") + "-" + "-".join(value[1:2]),
)
def test_bad_input_is_one_line_and_exit_code_2(experiment, monkeypatch, parquet, tmp_path, capsys, arguments, words):
    given = ["--dataset", "parquet", "--path", parquet, *SMALL, "--out", tmp_path / "run"]
    filled = [part.format(tmp=tmp_path) for part in arguments]
    assert call(experiment, monkeypatch, [*given, *filled]) == 2
    printed = capsys.readouterr()
    assert words in " ".join(printed.err.split()) and "Traceback" not in printed.err
    assert not (tmp_path / "run").exists()
