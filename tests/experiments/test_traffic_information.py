"""How many packets are enough: a set whose third packet decides, the run folder, refusals, intervals."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxtraffic as jt
from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

SCRIPT = Path(__file__).parents[2] / "experiments" / "traffic_information.py"
sys.path.insert(0, str(SCRIPT.parent))
curves, methods, script = (
    importlib.import_module(name) for name in ("traffic_curve", "traffic_methods", "traffic_information")
)

SIZES = np.array([60, 300, 700, 1400])
LENGTH = 12


def decided_by_the_third(n, seed=0, **changes):
    """Flows of four classes, a size and direction of packet 3 for each; all else is the same for all classes."""
    rng = np.random.default_rng(seed)
    label = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int32)
    size = rng.choice([52, 100, 1500], (n, LENGTH)).astype(np.int16)
    direction = rng.choice([-1, 1], (n, LENGTH)).astype(np.int8)
    size[:, 2], direction[:, 2] = SIZES[label], 1
    fields = {
        "size": size,
        "direction": direction,
        "iat": rng.exponential(0.1, (n, LENGTH)).astype(np.float32),
        "label": label,
        "group": rng.integers(0, 60, n).astype(np.int32),
        "class_names": ("a", "b", "c", "d"),
        "name": "third",
    }
    return PacketSeries(**(fields | changes)).check()


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "third.parquet"
    jt.write_parquet(decided_by_the_third(900), path)
    return path


def call(monkeypatch, arguments):
    """Runs the script's main as the command line would; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["traffic_information.py", *map(str, arguments)])
    try:
        script.command_line(script.Options, script.run, "test")
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.mark.slow
def test_run_finds_the_packet_that_decides_and_leaves_a_complete_folder(monkeypatch, parquet, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["--dataset", "parquet", "--path", parquet, "--packets", 4, "--out", out]
    assert call(monkeypatch, [*arguments, "--methods", "doe", "ksg", "--steps", 300]) == 0
    shown = capsys.readouterr().out
    assert "900 flows of 4 classes" in shown and "3 packets hold 90 %" in shown and "report.html" in shown
    report = json.loads((out / "report.json").read_text())
    ceiling = report["information.ceiling"]
    assert ceiling == pytest.approx(1.28, abs=0.1) and report["information.ceiling_corrected"] > ceiling
    for r in (1, 2):
        assert abs(report[f"information.doe.r{r}.value"]) < 0.08
        assert abs(report[f"information.ksg.r{r}.value"]) < 0.15
    for r in (3, 4):
        assert ceiling - 0.15 < report[f"information.doe.r{r}.value"] < ceiling + 1e-4
    assert report["information.doe.r3.increment_ci_low"] > 1 > 0.15 > abs(report["information.doe.r4.increment"])
    assert [report[f"enough.doe.{share}{end}"] for share in (90, 95) for end in ("", ".ci_high")] == [3] * 4
    assert abs(report["information.doe.shuffled"]) < 0.15
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["source"] == report["data.source"] == "real" and config["versions"]["jax"]
    assert config["data"]["n_test"] + config["data"]["n_train"] == 900
    assert "Real data: third" in (out / "report.html").read_text()
    assert {"information.png", "increments.png", "classes_1.png"} == {p.name for p in (out / "figures").iterdir()}
    assert call(monkeypatch, [*arguments, "--methods", "doe"]) == 2
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_rf_finds_the_packet_that_decides():
    train, held = decided_by_the_third(900), decided_by_the_third(400, seed=1)
    cut = [methods.feature_codes(flows, "signed_sizes", 4) for flows in (train, held)]
    found = methods.Direct("rf", 400).measure(jax.random.key(0), *cut)
    value = dict(zip(found.packets, found.pointwise.mean(axis=1)))
    ceiling, _ = curves.entropy(np.asarray(held.label))
    assert abs(value[1]) < 0.1 and abs(value[2]) < 0.1 and abs(found.control) < 0.15
    assert value[3] == pytest.approx(ceiling, abs=0.2) and value[4] == pytest.approx(ceiling, abs=0.25)


@pytest.mark.slow
def test_the_generator_finds_the_packet_that_decides(tmp_path):
    train, held = decided_by_the_third(4000), decided_by_the_third(400, seed=1)
    cut = [methods.feature_codes(flows, "signed_sizes", 5) for flows in (train, held)]
    method = methods.GeneratorMethod("tiny", "flow", 1500, 16)

    class Quiet:
        def update(self, *arguments, **words):
            pass

    found = method.measure(
        jax.random.key(0),
        *cut,
        mesh=parallel.make_mesh(devices=1),
        folder=tmp_path / "generator",
        progress=Quiet(),
        packets=(1, 2, 3, 5),
    )
    value = dict(zip(found.packets, found.pointwise.mean(axis=1)))
    ceiling, _ = curves.entropy(np.asarray(held.label))
    assert abs(value[1]) < 0.1 and abs(value[2]) < 0.15
    assert value[3] == pytest.approx(ceiling, abs=0.3) and value[5] == pytest.approx(ceiling, abs=0.3)


@pytest.mark.slow
def test_the_token_generator_finds_the_packet_that_decides(tmp_path):
    train, held = decided_by_the_third(2000), decided_by_the_third(400, seed=1)
    cut = [methods.feature_codes(flows, "signed_sizes", 5) for flows in (train, held)]
    config = methods.TokenConfig(patience=2)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=8))
    lines = []
    found = methods.TokenMethod(config).measure(
        jax.random.key(0),
        *cut,
        mesh=parallel.make_mesh(devices=1),
        folder=tmp_path / "tokens",
        progress=lines.append,
    )
    assert found.packets == (1, 2, 3, 4, 5) and {line["phase"] for line in lines} == {"selection", "refit"}
    value = dict(zip(found.packets, found.pointwise.mean(axis=1)))
    ceiling, _ = curves.entropy(np.asarray(held.label))
    assert abs(value[1]) < 0.05 and abs(value[2]) < 0.05
    assert value[3] == pytest.approx(ceiling, abs=0.1) and value[5] == pytest.approx(ceiling, abs=0.1)


def test_what_may_be_looked_at():
    flows = decided_by_the_third(50)
    flows.direction[:, 9:], flows.size[:, 9:], flows.iat[:, 9:] = 0, 0, 0
    flows.size[0, 1], flows.iat[0, 1] = 0, 0.0
    sizes, directions, iats = (
        np.asarray(methods.feature_codes(flows, name, 10).check().signed_size) for name in methods.FEATURES[1:]
    )
    assert sizes.shape == (50, 10) and (sizes[:, :9] == flows.size[:, :9] + 1).all() and sizes[0, 1] == 1
    np.testing.assert_array_equal(directions, flows.direction[:, :10])
    assert iats[0, 1] == 1 and (iats[:, 9] == 0).all() and (sizes[:, 9] == 0).all()
    seconds = 1e-6 * (10 ** ((iats[:, 2] - 1) / 1000) - 1)
    np.testing.assert_allclose(seconds, flows.iat[:, 2], rtol=2e-3, atol=1e-6)
    with pytest.raises(ConfigError, match="payload"):
        methods.feature_codes(flows, "payload", 3)


def test_the_largest_number_of_packets_ends_every_grid():
    assert methods.grid_of("doe", 4) == (1, 2, 3, 4)
    assert methods.grid_of("rf", 5) == (1, 2, 3, 4, 5) and methods.grid_of("generator", 30)[-1] == 30
    assert methods.grid_of("rf", 7) == (1, 2, 3, 4, 6, 7) and methods.grid_of("nwj", 1) == (1,)


def test_intervals_resample_whole_captures_at_fixed_class_shares():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 25)
    label = rng.integers(0, 2, 40)[group]
    # All flows of a capture share one value, and the classes lie far apart.
    values = (3.0 * label + rng.normal(size=40)[group])[None]
    held_out = curves.HeldOut(label, group, ("a", "b"))
    draws = curves.resample(values, held_out, seed=0)[:, 0]
    # Spread of a stratified mean of capture means, by hand; flows one by one would give a fifth of it, and shares
    # that vary with the draw three times as much.
    share = np.bincount(label) / 1000
    each = np.array([values[0][group == g].mean() for g in range(40)])
    of = label[::25]
    expected = np.sqrt(sum(share[y] ** 2 * each[of == y].var() / (of == y).sum() for y in (0, 1)))
    assert draws.mean() == pytest.approx(values.mean(), abs=0.02)
    assert draws.std() == pytest.approx(expected, rel=0.15)
    alone = curves.resample(values, curves.HeldOut(label, None, ("a", "b")), seed=0)[:, 0]
    assert alone.std() == pytest.approx(expected / 5, rel=0.2)


def test_resampling_equals_a_plain_loop_and_leaves_out_what_has_no_value(monkeypatch):
    rng = np.random.default_rng(1)
    label, group = rng.integers(0, 3, 60), rng.integers(0, 12, 60)
    values = rng.normal(size=(2, 60))
    values[1, :7] = np.nan
    held_out = curves.HeldOut(label, group, ("a", "b", "c"))
    monkeypatch.setattr(curves, "BLOCK", 12 * 7)
    found = curves.resample(values, held_out, seed=4, resamples=7)
    cluster = np.unique(group, return_inverse=True)[1]
    weights = np.random.default_rng(4).multinomial(12, np.full(12, 1 / 12), 7)
    for b in range(7):
        for row in range(2):
            total, shares = 0.0, 0
            for y in range(3):
                flows = [i for i in range(60) if label[i] == y and np.isfinite(values[row, i])]
                weight = [weights[b, cluster[i]] for i in flows]
                mean = np.average(values[row, flows], weights=weight if sum(weight) else None)
                total, shares = total + len(flows) * mean, shares + len(flows)
            assert found[b, row] == pytest.approx(total / shares)


def test_increments_have_paired_intervals_and_enough_counts_packets():
    rng = np.random.default_rng(2)
    label = np.repeat([0, 1], 100)
    noise = rng.normal(size=200)
    # The second point is the first plus 0.1 for every flow: what they share must not widen the difference.
    pointwise = np.stack([1 + noise, 1.1 + noise, 2 + noise])
    made = curves.make_curve(
        "doe", pointwise, (1, 2, 5), curves.HeldOut(label, None, ("a", "b", "c")), seed=0, seconds=1.0
    )
    assert made.high[0] - made.low[0] > 0.2
    np.testing.assert_allclose([made.increment_low[1], made.increment_high[1]], 0.1, atol=1e-9)
    np.testing.assert_allclose(made.value, pointwise.mean(axis=1))
    assert np.isnan(made.per_class[2]).all() and made.per_class[1, 2] == pytest.approx(pointwise[2, 100:].mean())
    assert curves.enough([0.5, 0.96, 0.94, 1.0], (1, 2, 4, 8), 0.95) == 2
    assert list(curves.enough([[0.1, 1.0, 0.2], [1.0, 0.0, 0.0]], (1, 2, 3), 0.9)) == [2, 1]
    assert curves.enough([-0.5, -0.1, -0.2], (1, 2, 3), 0.9) == 2


def test_values_that_are_not_numbers_are_refused():
    held_out = curves.HeldOut(np.arange(10) % 2, None, ("a", "b"))
    for bad in (np.full((1, 10), np.nan), np.full((1, 10), np.inf), np.zeros((2, 10))):
        with pytest.raises(ConfigError, match="doe"):
            curves.make_curve("doe", bad, (3,), held_out, seed=0, seconds=0.0)


def test_entropy_of_labels():
    plain, corrected = curves.entropy(np.array([0, 0, 0, 2]))
    assert plain == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert corrected == pytest.approx(plain + 1 / 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "cca"], "cca"),
        (["--methods", "doe", "doe"], "once"),
        (["--features", "payload"], "payload"),
        (["--packets", "0"], "--packets"),
        (["--packets", "31"], "--packets"),
        (["--steps", "0"], "--steps"),
        (["--draws", "0"], "--draws"),
        (["--devices", "99"], "--devices"),
        (["--group", "nothing"], "nothing"),
        (["--preset", "huge"], "huge"),
        (["--process", "gan"], "gan"),
        (["--path", "{tmp}/none.parquet"], "none.parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].strip("-"),
)
def test_bad_input_is_one_line_and_exit_code_2(monkeypatch, parquet, tmp_path, capsys, arguments, words):
    out = tmp_path / "run"
    filled = [part.format(tmp=tmp_path) for part in arguments]
    path = [] if "--path" in filled else ["--path", parquet]
    assert call(monkeypatch, ["--dataset", "parquet", *path, *filled, "--out", out]) == 2
    printed = capsys.readouterr()
    assert words in printed.err + printed.out and "Traceback" not in printed.err
    assert not out.exists()
