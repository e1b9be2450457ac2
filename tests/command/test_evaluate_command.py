"""`python -m jaxtraffic evaluate`: whose files it takes, how it brings them together, what it refuses and writes."""

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import jaxtraffic as jt
from jaxtraffic import evaluate, report
from jaxtraffic.command.evaluate import Evaluate
from jaxtraffic.command.main import main
from jaxtraffic.series import PacketSeries

NAMES = ("camera", "lamp", "plug")


def flows(n, seed, *, names=NAMES, length=12, shortest=6, captures=None, **fields):
    """Flows of classes that sizes tell apart in part, of `shortest` packets or more."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % len(names)).astype(np.int32)
    mask = np.arange(length) < rng.integers(shortest, length + 1, n)[:, None]
    size = rng.choice([40, 52, 60, 1500], (n, length)) + 30 * label[:, None] * (rng.random((n, length)) < 0.5)
    return PacketSeries(
        size=np.where(mask, size, 0).astype(np.int16),
        direction=np.where(mask, rng.choice([-1, 1], (n, length)), 0).astype(np.int8),
        iat=np.where(mask, rng.exponential(0.1, (n, length)), 0).astype(np.float32),
        label=label,
        group=None if captures is None else rng.integers(0, captures, n).astype(np.int32),
        class_names=tuple(names),
        **{"name": "toy"} | fields,
    ).check()


@pytest.fixture
def write(tmp_path):
    """Writes flows to NAME.parquet and returns the path."""

    def to(name, series):
        path = tmp_path / f"{name}.parquet"
        jt.write_parquet(series, path)
        return path

    return to


def theirs(path, series, **columns):
    """Writes flows in the columns of other people, without our metadata."""
    rows = [np.flatnonzero(one) for one in series.mask]
    pl.DataFrame(
        {
            "app": [series.class_names[label] for label in series.label],
            "pkts_size": [series.size[i, row].tolist() for i, row in enumerate(rows)],
            "pkts_dir": [series.direction[i, row].tolist() for i, row in enumerate(rows)],
            **columns,
        }
    ).write_parquet(path)
    return path


def run(capsys, *arguments):
    """Exit code, standard output and standard error of the command."""
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *map(str, arguments)])
    out = capsys.readouterr()
    return stopped.value.code, out.out, out.err


def with_figures(monkeypatch, calls, *, page=False):
    """A judge that notes what it is given and answers at once; the real one has its own tests. So has the page."""

    def judge_sets(train, held_out, test, sets, **options):
        calls.append(SimpleNamespace(train=train, held_out=held_out, test=test, sets=sets, **options))
        figures = {"utility.weighted_f1_gap": -0.1, "discriminative.score": 0.2, "latent.frechet": 1.0}
        names = {name: dict(figures) for name in (*sets, "fresh_real")}
        return evaluate.Judgement({"data.n_train": len(train)}, names, {"generated": {}})

    def write_report(folder, *, judgements, config, **others):
        (folder / "report.json").write_text(json.dumps(judgements))
        (folder / "notice.txt").write_text(config["data"]["notice"])
        return folder / "report.html"

    monkeypatch.setattr(evaluate, "judge_sets", judge_sets)
    if not page:
        monkeypatch.setattr(report, "write_report", write_report)
    return calls


def test_with_a_holdout_the_generator_is_judged_on_flows_it_never_saw(monkeypatch, capsys, write, tmp_path):
    calls = with_figures(monkeypatch, [], page=True)
    short = {"length": 4, "shortest": 2}
    real, holdout = write("real", flows(90, 0, **short)), write("holdout", flows(30, 1, **short))
    made = write("samples", flows(60, 2, names=("plug", "camera", "lamp"), name="toy-gan", **short))
    out = tmp_path / "run"
    code, shown, _ = run(capsys, "--real", real, "--synthetic", made, "--holdout", holdout, "--out", out, "--trees", 7)
    assert code == 0 and "toy-gan" in shown and "report.html" in shown
    (call,) = calls
    assert (len(call.train), len(call.held_out), call.unseen, call.seed) == (90, 30, True, 0)
    assert call.test is call.held_out and call.params == {"n_estimators": 7}
    # matched by name, not by number
    generated = call.sets["generated"]
    assert generated.class_names == call.train.class_names and list(call.sets) == [
        "generated",
        "bootstrap",
        "marginals",
    ]
    names = np.array(generated.class_names)[generated.label]
    assert (names == np.array(("plug", "camera", "lamp"))[np.arange(60) % 3]).all()
    assert all((one.label == generated.label).all() for one in call.sets.values())
    config, report = (json.loads((out / name).read_text()) for name in ("config.json", "report.json"))
    assert config["data"]["files"] == {name: f"{path.stem}.parquet" for name, path in
                                       (("real", real), ("synthetic", made), ("holdout", holdout))}  # fmt: skip
    assert report["data.unseen"] and report["utility.weighted_f1_gap"] == -0.1
    assert report["reference.fresh_real.discriminative.score"] == 0.2 and report["data.source"] == "real"
    assert (out / "curves.json").exists() and "toy-gan" in (out / "report.html").read_text()
    assert run(capsys, "--real", real, "--synthetic", made, "--out", out)[0] == 2


def test_without_one_captures_stay_on_one_side_and_the_reader_is_told(monkeypatch, capsys, tmp_path, write):
    calls = with_figures(monkeypatch, [])
    series = flows(200, 0, captures=30)
    real = theirs(tmp_path / "real.parquet", series, capture=[f"c{number}" for number in series.group])
    made = theirs(tmp_path / "gan.parquet", flows(50, 1, length=9))
    code, shown, told = run(capsys, "--real", real, "--synthetic", made, "--out", tmp_path / "run", "--json")
    report = json.loads(shown)
    (call,) = calls
    assert code == 0 and not call.unseen and not report["data.unseen"]
    for place in (told, report["data.notice"], (tmp_path / "run" / "notice.txt").read_text()):
        assert "may have seen the flows it is tested on" in " ".join(place.split())
    assert len(call.train) + len(call.held_out) == 200 and 20 <= len(call.held_out) <= 60
    whole = [series.signed_size[series.group == number][:, :9].tolist() for number in range(30)]
    train, held_out = ({tuple(row) for row in side.signed_size.tolist()} for side in (call.train, call.held_out))
    assert call.train.length == 9
    on = [({tuple(row) for row in rows} <= train, {tuple(row) for row in rows} <= held_out) for rows in whole]
    assert all(one != other for one, other in on) and any(other for _, other in on)
    assert report == json.loads((tmp_path / "run" / "report.json").read_text())


def test_lengths_and_layers_are_brought_together_with_a_word(write, tmp_path):
    real = write("real", flows(60, 0, length=12, size_layer="payload"))
    made = theirs(tmp_path / "gan.parquet", flows(40, 1, length=9))
    jt.write_parquet(flows(30, 2, length=8, size_layer="payload"), tmp_path / "holdout.parquet")
    sets = Evaluate(real=real, synthetic=made, holdout=tmp_path / "holdout.parquet").sets()
    assert sets.train.length == sets.held_out.length == sets.synthetic.length == 8
    assert {one.size_layer for one in sets[:3]} == {"payload"}
    notices = " ".join(sets.notices)
    assert "cut to 8" in notices and "gan.parquet: sizes are taken to be of the layer payload" in notices
    for one in sets[:3]:
        one.check()


def test_short_flows_and_small_classes_can_be_left_out(write):
    series = flows(90, 0, shortest=2)
    keep = np.flatnonzero((series.label < 2) | (np.arange(90) < 12))
    real = write("real", series[keep])
    made, holdout = write("gan", flows(40, 1)), write("holdout", flows(30, 2))
    sets = Evaluate(real=real, synthetic=made, holdout=holdout, min_packets=6, min_flows=5).sets()
    assert set(sets.train.class_names) == {"camera", "lamp"} and sets.train.n_packets.min() >= 6
    assert len(sets.synthetic) == 27 and len(sets.held_out) == 20 and "gan.parquet: 13 flows" in " ".join(sets.notices)


def test_one_class_has_no_figures_by_class(monkeypatch, capsys, write, tmp_path):
    with_figures(monkeypatch, [])
    real, made = (write(name, flows(60, seed, names=("all",))) for name, seed in (("real", 0), ("gan", 1)))
    code, shown, told = run(capsys, "--real", real, "--synthetic", made, "--out", tmp_path / "run", "--json")
    report = json.loads(shown)
    assert code == 0 and report["discriminative.score"] == 0.2 and "One class only" in told
    assert not [key for key in report if "utility" in key or "latent" in key]


def test_after_a_refusal_the_folder_can_be_named_again(monkeypatch, capsys, write, tmp_path):
    real, made = write("real", flows(60, 0)), write("gan", flows(30, 1))

    def judge_sets(*given, **options):
        raise jt.errors.ConfigError("too few flows")

    for _ in range(2):
        monkeypatch.setattr(evaluate, "judge_sets", judge_sets)
        code, _, told = run(capsys, "--real", real, "--synthetic", made, "--out", tmp_path / "run")
        assert code == 2 and "too few flows" in told
    with_figures(monkeypatch, [])
    assert run(capsys, "--real", real, "--synthetic", made, "--out", tmp_path / "run")[0] == 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"names": ("camera", "toaster", "kettle")}, "classes that .*real.parquet has not: toaster, kettle"),
        ({"size_layer": "payload"}, "sizes of the layer payload"),
    ],
    ids=["classes", "layer"],
)
def test_files_that_do_not_fit_are_refused(capsys, write, tmp_path, changed, words):
    real, made = write("real", flows(60, 0)), write("gan", flows(30, 1, **changed))
    code, _, told = run(capsys, "--real", real, "--synthetic", made, "--out", tmp_path / "run")
    assert code == 2 and len(told.splitlines()) == 1
    with pytest.raises(jt.errors.ConfigError, match=words):
        Evaluate(real=real, synthetic=made).sets()
    assert not (tmp_path / "run").exists()


def test_bad_input_is_one_line_and_exit_code_2(capsys, write, tmp_path):
    real = write("real", flows(60, 0))
    few = write("few", flows(3, 0))
    unlabelled = tmp_path / "unlabelled.parquet"
    pl.read_parquet(real).drop("label").write_parquet(unlabelled)
    for arguments, words in (
        (["--real", real, "--synthetic", tmp_path / "absent.parquet"], "absent.parquet"),
        (["--real", real, "--synthetic", unlabelled], "label"),
        (["--real", real, "--synthetic", real, "--group", "capture"], "capture"),
        (["--real", real, "--synthetic", real, "--trees", "0"], "--trees"),
        (["--real", real, "--synthetic", real, "--min-packets", "99"], "min_packets"),
        (["--real", few, "--synthetic", few], "--holdout"),
    ):
        code, out, told = run(capsys, *arguments, "--out", tmp_path / "run")
        assert code == 2 and words in told + out and "Traceback" not in told, arguments
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_real_judge_of_a_copy_and_of_noise(capsys, write, tmp_path):
    real = flows(240, 0)
    paths = [write(name, series) for name, series in (("real", real), ("holdout", flows(90, 1)), ("copy", real))]
    noise = real.replace(size=np.where(real.mask, real.size + 1, 0).astype(np.int16), name="noise")
    reports = []
    for made in (paths[2], write("noise", noise)):
        arguments = ["--real", paths[0], "--synthetic", made, "--holdout", paths[1], "--trees", 20]
        code, shown, _ = run(capsys, *arguments, "--out", tmp_path / made.stem, "--json")
        assert code == 0
        reports.append(json.loads(shown))
    copy, off = reports
    assert copy["fidelity.copy_rate"] == 1 and copy["discriminative.score"] < 0
    # of copies of all training flows, those are found that are among as many as the hold-out has
    assert copy["privacy.copy_rate"] == 90 / 240 and copy["privacy.closer_to_train"] > 0.6
    assert off["fidelity.copy_rate"] == 0 and off["discriminative.score"] > 0.3
    assert (tmp_path / "copy" / "curves.json").exists()


@pytest.mark.slow
def test_the_real_judge_of_one_class(capsys, write, tmp_path):
    real, made = (write(name, flows(120, seed, names=("all",))) for name, seed in (("real", 0), ("gan", 1)))
    code, shown, _ = run(capsys, "--real", real, "--synthetic", made, "--out", tmp_path / "run", "--json")
    assert code == 0 and "discriminative.score" in json.loads(shown)
