"""The augmentation test: mixing real and added flows, choosing on validation flows, and the command at a tiny size."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

import jaxtraffic as jt
from jaxtraffic.errors import ConfigError
from jaxtraffic.report.token_augmentation_results import Kind
from jaxtraffic.series import from_signed_size

FOLDER = Path(__file__).parents[2] / "experiments"


def module(name):
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def sets():
    return module("token_augmentation_sets")


@pytest.fixture(scope="module")
def gains(sets):
    return module("token_augmentation_gains")


@pytest.fixture(scope="module")
def experiment(gains):
    return module("token_augmentation")


def toy(n=300, seed=0, length=8):
    """Flows of three classes that differ in their sizes; no two flows are alike in their first packet."""
    rng = np.random.default_rng(seed)
    label = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    signed = np.where(rng.random((n, length)) < 0.5, 60 + 40 * label[:, None], -1500).astype(np.int16)
    signed[:, 0] = 1 + np.arange(n)
    return from_signed_size(signed, label, class_names=("a", "b", "c"), name="toy", source="real")


def first(flows):
    """What tells the flows of `toy` apart."""
    return np.asarray(flows.signed_size)[:, 0].tolist()


def test_a_share_keeps_every_class_and_its_proportion(sets):
    flows = toy()
    few = sets.share_of(flows, 0.1, 0)
    assert few.counts().tolist() == [max(1, round(0.1 * count)) for count in flows.counts()]
    assert sets.share_of(flows, 0.001, 0).counts().tolist() == [1, 1, 1]
    assert first(sets.share_of(flows, 1.0, 0)) == first(flows)
    assert set(first(few)) <= set(first(flows)) and first(few) != first(sets.share_of(flows, 0.1, 1))


@pytest.mark.parametrize("n", [1, 40, 100, 230])
def test_the_labels_of_added_flows_are_those_of_training_or_even(sets, n):
    label = np.asarray(toy(100).label)
    counts = np.bincount(label)
    rows = sets.source_rows(label, 500, "training", 3)[:n]
    # whole rounds through the flows, each once
    assert np.bincount(rows, minlength=100).max() - np.bincount(rows, minlength=100).min() <= 1
    even = np.bincount(label[sets.source_rows(label, 500, "balanced", 3)[:n]], minlength=3)
    assert even.max() - even.min() <= 1 and even.sum() == n
    whole = label[sets.source_rows(label, 500, "training", 3)]
    assert np.bincount(whole).tolist() == (5 * counts).tolist()


@pytest.mark.parametrize("ratio", [0.25, 1, 4])
def test_trees_see_each_real_flow_once_and_networks_as_many_flows_at_any_ratio(sets, ratio):
    flows, pool = toy(100), toy(1000, seed=1)
    real, added = sets.tree_parts(flows, pool, ratio)
    assert first(real) == first(flows) and first(added) == first(pool)[: int(100 * ratio)]
    real, added = sets.network_parts(flows, pool, ratio, 1250, seed=0)
    assert len(real) + len(added) == 1250 and len(added) == 1250 * ratio / (1 + ratio)
    seen = np.bincount(first(real), minlength=101)[1:]
    assert seen.max() - seen.min() <= 1 and first(added) == first(pool)[: len(added)]
    # a pool that is too small is gone through again
    again = sets.network_parts(flows, pool[:7], ratio, 1250, seed=0)[1]
    assert np.bincount(first(again), minlength=8)[1:].min() >= len(again) // 7
    assert sets.tree_parts(flows, None, 0.0) == (flows,)
    (alone,) = sets.network_parts(flows, None, 0.0, 1250, seed=0)
    assert len(alone) == 1250


def test_added_flows_have_the_labels_of_their_sources_and_every_prefix_serves(sets, tmp_path):
    flows = toy(60)
    made = {}
    for method in ("translation", "marginals", "bootstrap"):
        pools = sets.Pools(flows, jax.random.key(0), 5, tmp_path, None, None, None)
        added = made[method] = pools.make(sets.Added(method), 150)
        assert np.asarray(added.label).tolist() == np.asarray(made["translation"].label).tolist()
        assert added[:120].counts().tolist() == (2 * flows.counts()).tolist()
    assert set(first(made["bootstrap"])) <= set(first(flows))
    assert not np.array_equal(made["translation"].signed_size, made["bootstrap"].signed_size)
    assert pools.make(sets.Added("none"), 10) is None


def test_small_sets_get_smaller_batches(sets):
    from jaxtraffic.generate.token_config import TokenConfig

    for n, expected in ((5000, 64), (512, 64), (100, 12), (3, 1)):
        assert sets.fitted_to(TokenConfig(), n).train.batch_size == expected


def lines(scores, method="token_s4", classifier="xgboost", temperature=1.0):
    """Lines of results from {ratio: [(fold, seed, validation, test), ...]}."""
    return [
        {
            "fold": fold,
            "seed": seed,
            "classifier": classifier,
            "method": method,
            "temperature": temperature if method == "token_s4" else None,
            "labels": "training",
            "ratio": ratio,
            "validation": {"weighted_f1": validation, "macro_f1": validation / 2},
            "test": {"weighted_f1": test, "macro_f1": test / 2},
        }
        for ratio, units in scores.items()
        for fold, seed, validation, test in units
    ]


RESULTS = [
    *lines({0.0: [(0, 0, 0.5, 0.50), (0, 1, 0.5, 0.52), (1, 0, 0.5, 0.60), (1, 1, 0.5, 0.62)]}, "none"),
    *lines({1.0: [(0, 0, 0.6, 0.55), (0, 1, 0.6, 0.56), (1, 0, 0.6, 0.66), (1, 1, 0.6, 0.67)]}, "translation"),
    # fold 0 chooses ratio 2 (by the mean of its seeds, though seed 0 alone would not), fold 1 the first of two equals
    *lines({1.0: [(0, 0, 0.6, 0.90), (0, 1, 0.4, 0.90), (1, 0, 0.7, 0.58), (1, 1, 0.7, 0.59)]}),
    *lines({2.0: [(0, 0, 0.5, 0.51), (0, 1, 0.6, 0.53), (1, 0, 0.8, 0.99), (1, 1, 0.6, 0.99)]}),
]


def test_validation_flows_choose_and_test_flows_only_score(gains):
    every = gains.scores(RESULTS, "xgboost", "weighted_f1")
    chosen, score = gains.choose(every.of("token_s4"))
    assert [every.of("token_s4").kinds[chosen[fold]].ratio for fold in (0, 1)] == [2.0, 1.0]
    assert score.tolist() == [0.51, 0.53, 0.58, 0.59]
    choices = {(one.method, one.metric): one for one in gains.choices_of(RESULTS)}
    own = choices["token_s4", "weighted_f1"]
    assert [kind.ratio for kind in own.kinds] == [2.0, 1.0] and own.score == pytest.approx(np.mean(score))
    difference = np.array([0.51, 0.53, 0.58, 0.59]) - [0.50, 0.52, 0.60, 0.62]
    low, high = stats.t.interval(0.95, 3, difference.mean(), stats.sem(difference))
    assert own.gain == pytest.approx((difference.mean(), low, high))
    assert own.lead.mean == pytest.approx(np.mean([0.51 - 0.55, 0.53 - 0.56, 0.58 - 0.66, 0.59 - 0.67]))
    assert own.lead.sign == -1 and choices["token_s4", "macro_f1"].score == pytest.approx(own.score / 2)
    assert choices["translation", "weighted_f1"].lead.mean == 0


def test_cells_are_measured_against_the_best_of_translate(gains):
    more = lines({2.0: [(0, 0, 0.1, 0.7), (0, 1, 0.1, 0.7), (1, 0, 0.1, 0.7), (1, 1, 0.1, 0.7)]}, "translation")
    cells = {(cell.kind, cell.metric): cell for cell in gains.cells_of([*RESULTS, *more])}
    one = cells[Kind("token_s4", 1.0, "training", 1.0), "weighted_f1"]
    assert one.score == pytest.approx(0.7425) and one.lead.mean == pytest.approx(0.7425 - 0.7)
    assert one.gain.mean == pytest.approx(0.7425 - 0.56)
    # Translate is chosen on validation flows as well, where its better cell looks worse
    assert gains.choices_of([*RESULTS, *more])[0].lead_best.mean == pytest.approx(0.61 - 0.7)


def test_one_unit_has_no_interval_and_a_hole_is_refused(gains):
    one = [line for line in RESULTS if (line["fold"], line["seed"]) == (0, 0)]
    assert gains.choices_of(one)[1].gain == (pytest.approx(0.4), None, None)
    with pytest.raises(ConfigError, match="fold 1, seed 1 has no result for xgboost"):
        gains.cells_of(RESULTS[:-1])


def test_pools_are_as_large_as_the_most_that_is_drawn(experiment, sets):
    options = experiment.Options(ratios=(1, 4), pool=300, classifiers=("xgboost", "mlp"))
    assert experiment.pool_size(sets.Added("translation"), 100, 1000, options) == 800
    assert experiment.pool_size(sets.Added("token_s4", 1.0), 100, 1000, options) == 400
    networks = experiment.Options(ratios=(1, 4), pool=300, classifiers=("mlp",))
    assert experiment.pool_size(sets.Added("token_s4", 1.0), 100, 1000, networks) == 300
    kinds = experiment.kinds_of(experiment.Options(methods=("token_s4",), temperatures=(0.7, 1.0), balance=True))
    assert [(kind.method, kind.temperature) for kind in kinds[1:4]] == [
        ("token_s4", 0.7),
        ("token_s4", 1.0),
        ("translation", None),
    ]
    assert len(kinds) == 7 and kinds[0].method == "none" and [kind.labels for kind in kinds[4:]] == ["balanced"] * 3


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "toy.parquet"
    jt.write_parquet(toy(240, length=12), path)
    return path


def call(experiment, monkeypatch, parquet, out, *more):
    arguments = ["--dataset", "parquet", "--path", parquet, "--folds", 2, "--trees", 3, "--devices", 1, "--out", out]
    monkeypatch.setattr(sys, "argv", ["token_augmentation.py", *map(str, [*arguments, *more])])
    try:
        experiment.command_line(experiment.Options, experiment.run, "test")
    except SystemExit as stop:
        return stop.code
    return 0


SMALL = ["--methods", "bootstrap", "--ratios", 1, "--classifiers", "xgboost"]


def without_seconds(path):
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]


def test_the_command_leaves_a_run_folder_and_goes_on_after_a_kill(experiment, monkeypatch, parquet, tmp_path, capsys):
    out = tmp_path / "run"
    assert call(experiment, monkeypatch, parquet, out, *SMALL) == 0
    assert "not among the methods" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["data.source"] == "real" and np.isfinite(report["chosen.xgboost.bootstrap.weighted_f1_gain"])
    assert "bootstrap copy" in (out / "tables.md").read_text() and (out / "report.html").exists()
    whole = without_seconds(out / "results.jsonl")
    assert len(whole) == 6 and {line["method"] for line in whole} == {"none", "bootstrap", "translation"}
    assert call(experiment, monkeypatch, parquet, out, *SMALL, "--resume") == 0
    assert "complete" in capsys.readouterr().out
    # killed within the fourth line
    text = (out / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text("".join(text[:3]) + text[3][:20])
    (out / "report.json").unlink()
    assert call(experiment, monkeypatch, parquet, out, *SMALL, "--resume") == 0
    assert without_seconds(out / "results.jsonl") == whole
    assert json.loads((out / "report.json").read_text()) == report


@pytest.mark.slow
def test_token_samples_are_drawn_anew_after_a_kill(experiment, monkeypatch, parquet, tmp_path, capsys):
    out = tmp_path / "run"
    small = ["--methods", "token_s4", "--temperatures", 1, "--ratios", 1, "--classifiers", "xgboost", "mlp"]
    small += ["--steps", 50, "--repeats", 2, "--width", 16, "--blocks", 1, "--fixed-epochs", 2, "--batch-size", 32]
    small += ["--train-share", 0.5, "--pool", 64, "--folds", 1]
    assert call(experiment, monkeypatch, parquet, out, *small) == 0
    assert "whether token samples beat Translate is not decided" in " ".join(capsys.readouterr().out.split())
    whole = without_seconds(out / "results.jsonl")
    assert len(whole) == 6 and all(line["n_train"] in (96, 97) for line in whole)
    assert (out / "units" / "fold0-seed0" / "token_model.json").exists()
    assert not list((out / "units").rglob("checkpoints"))
    (out / "results.jsonl").write_text("".join((out / "results.jsonl").read_text().splitlines(keepends=True)[:3]))
    (out / "report.json").unlink()
    assert call(experiment, monkeypatch, parquet, out, *small, "--resume") == 0
    assert without_seconds(out / "results.jsonl") == whole


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "none"], "--methods takes some of"),
        (["--classifiers", "xgboost", "xgboost"], "each once"),
        (["--ratios", 0], "--ratios takes numbers above 0"),
        (["--temperatures", -1], "--temperatures"),
        (["--train-share", 0], "--train-share"),
        (["--repeats", 0], "--repeats must be at least 1"),
        (["--n-folds", 3, "--folds", 4], "more than the --n-folds"),
        (["--patience", 0], "patience"),
    ],
)
def test_what_cannot_work_is_one_line(experiment, monkeypatch, parquet, tmp_path, capsys, arguments, words):
    assert call(experiment, monkeypatch, parquet, tmp_path / "run", *arguments) == 2
    assert words in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "run").exists()
