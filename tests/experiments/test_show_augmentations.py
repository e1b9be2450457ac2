"""The gallery of augmentations: its two files, what they say, repeatability, refusals; on a small stand-in."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import augment, scaling
from jaxtraffic.datasets import catalogue, write_parquet
from jaxtraffic.datasets.simulated import cesnet_quic as simulate
from jaxtraffic.errors import ConfigError
from jaxtraffic.report.augmentation_pages import (
    TRAITS,
    DrawnFlow,
    ShownAugmentation,
    document,
    share_text,
    write_augmentations,
)
from jaxtraffic.series import PacketSeries

SCRIPT = Path(__file__).parents[2] / "experiments" / "show_augmentations.py"
FEW = ("gaussian_noise", "window_mask", "cutmix", "horizontal_flip", "perm_rto", "time_shift", "masked_stack")


@pytest.fixture(scope="module")
def experiment():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("show_augmentations", SCRIPT)
    module = sys.modules["show_augmentations"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["show_augmentations"]
    sys.path.remove(str(SCRIPT.parent))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with a stand-in of 1,500 flows."""
    folder = tmp_path_factory.mktemp("root")
    simulate.simulate_cesnet(folder, n_flows=1500)
    return folder


@pytest.fixture
def few(experiment, monkeypatch):
    """The experiment on one or two operations of each family (all of them take a while to compile), small stand-in."""
    every = experiment._operations
    monkeypatch.setattr(experiment, "_operations", lambda layer: {name: every(layer)[name] for name in FEW})
    entry = dataclasses.replace(
        catalogue.DATASETS["cesnet_quic"], stand_in=lambda root: simulate.simulate_cesnet(root, n_flows=1500)
    )
    monkeypatch.setitem(catalogue.DATASETS, "cesnet_quic", entry)
    experiment._program.cache_clear()
    yield experiment
    experiment._program.cache_clear()


def call(experiment, monkeypatch, arguments):
    """Runs the script's main as the command line would; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["show_augmentations.py", *map(str, arguments)])
    try:
        experiment.command_line(experiment.Options, experiment.show_augmentations, "test")
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.mark.slow
def test_gallery_and_page_on_the_stand_in(few, monkeypatch, root, tmp_path, capsys):
    arguments = ["--data-root", root, "--out", tmp_path, "--max-flows", 400, "--seed", 3, "--draws", 2]
    assert call(few, monkeypatch, arguments) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "cesnet_quic (simulated): 400 flows" in shown and "seed: 3" in shown and "alpha = 0.5" in shown
    picture, page = (tmp_path / name for name in ("gallery.png", "augmentations.html"))
    before = picture.read_bytes(), page.read_bytes()
    text = page.read_text()
    assert before[0].startswith(b"\x89PNG") and len(before[0]) > 20_000
    assert (
        "Simulated data" in text
        and "zenodo.org" in text
        and "http" not in text.split("<style>")[1].split("</style>")[0]
    )
    assert text.count("data:image/png;base64,") == len(FEW) and "<script" not in text
    for name in FEW:
        assert f'id="{name}"' in text and name in shown
    for words in (*TRAITS, "Adds normal noise of the class", "one packet", "PAM&#39;24", "Partner for cutmix"):
        assert words.replace("_", " ") in text or words in text
    assert call(few, monkeypatch, arguments) == 0
    assert (picture.read_bytes(), page.read_bytes()) == before, "the same seed gives the same bytes"
    assert call(few, monkeypatch, [*arguments, "--seed", 4]) == 0
    assert picture.read_bytes() != before[0]


def test_every_augmentation_and_composition_is_augmented_in_one_program(experiment):
    flows, packets = 7 + experiment.POOL, 12
    like = jax.ShapeDtypeStruct
    x, mask = like((flows, packets, 3), jnp.float32), like((flows, packets), jnp.bool_)
    stats = augment.FlowStatistics(x, like((flows, 3), jnp.float32))
    pair, alpha = like((2,), jnp.int32), like((flows,), jnp.float32)
    for layer in ("ip", "payload"):
        augmented = jax.eval_shape(
            lambda *arrays, layer=layer: experiment._augment(*arrays, size_layer=layer),
            *(jax.random.key(0), x, x, mask, alpha, stats, pair),
        )
        drawn, shares = augmented
        assert set(drawn) == set(shares) == set(augment.AUGMENTATIONS) | set(experiment.COMPOSITIONS)
        for new, kept in drawn.values():
            assert new.shape == (experiment.POOL, packets, 3) and kept.shape == (experiment.POOL, packets)
    headers = [experiment._operations(layer)["mss_variation"].header for layer in ("ip", "payload")]
    assert headers == [40, 0]


def test_shares_and_draws_are_those_of_the_operations(few):
    rng = np.random.default_rng(0)
    flows, packets, pool = 300, 12, few.POOL
    mask = np.arange(packets) < np.r_[rng.integers(1, packets + 1, flows - 2), 5, 12][:, None]
    raw = np.stack([rng.integers(0, 1460, mask.shape), rng.choice([-1, 1], mask.shape), rng.random(mask.shape)], -1)
    raw = np.where(mask[..., None], raw, 0).astype(np.float32)
    scaled = np.asarray(scaling.fit_features(raw, mask).apply(raw, mask))
    many = np.concatenate([np.arange(flows), np.full(pool, 298)])
    stats = scaling.class_statistics(scaled, mask)[np.zeros(len(many), np.int32)]
    arrays = raw[many], scaled[many], mask[many], np.zeros(len(many), np.float32), stats, np.array([298, 299])
    drawn, shares = few._program()(jax.random.key(0), *arrays, size_layer="ip")
    # At alpha = 0 these are identities, and the flip changes nearly all flows of two packets and more.
    assert [float(shares[name]) for name in ("gaussian_noise", "perm_rto", "time_shift")] == [0, 0, 0]
    assert float(shares["window_mask"]) == 1
    assert np.isclose(shares["horizontal_flip"], (mask.sum(axis=1) > 1).mean(), atol=0.01)
    np.testing.assert_array_equal(drawn["gaussian_noise"][0], scaled[many[flows:]])
    count = 5
    np.testing.assert_array_equal(drawn["horizontal_flip"][0][0, :count], raw[298, :count][::-1])
    both = {row.tobytes() for flow in (298, 299) for row in raw[flow][mask[flow]]}
    mixed, kept = (np.asarray(part) for part in drawn["cutmix"])
    assert {row.tobytes() for row in mixed[kept]} <= both and len(np.unique(kept.sum(axis=1))) > 1


def series(n_flows=60, packets=30, names=("a", "b")):
    rng = np.random.default_rng(1)
    direction = rng.choice([-1, 1], (n_flows, packets)).astype(np.int8)
    count = rng.integers(12, packets + 1, n_flows)
    count[:5] = 20
    direction[np.arange(packets) >= count[:, None]] = 0
    size = (rng.integers(40, 1500, direction.shape) * np.abs(direction)).astype(np.int16)
    iat = (rng.random(direction.shape) * (direction != 0)).astype(np.float32)
    iat[:, 0] = 0
    label = (np.arange(n_flows) % len(names)).astype(np.int32)
    return PacketSeries(size, direction, iat, label, class_names=names, name="toy", source="real")


def test_a_parquet_file_of_the_data_root_is_found_by_its_name(few, monkeypatch, tmp_path, capsys):
    write_parquet(series(), tmp_path / "mine.parquet")
    monkeypatch.setattr(few, "_operations", lambda layer: {"wrap": augment.wrap, "shuffle": augment.shuffle})
    arguments = ["--dataset", "mine", "--data-root", tmp_path, "--out", tmp_path / "out", "--alpha", 0]
    assert call(few, monkeypatch, [*arguments, "--class-name", "b"]) == 0
    shown = capsys.readouterr().out
    assert "(real): 60 flows of 2 classes" in shown and "class: b" in shown and "0/64 draws" in shown
    text = (tmp_path / "out" / "augmentations.html").read_text()
    assert "Real data" in text and "imulated" not in text and "this flow in 0 of 64 draws" in text


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--dataset", "no_such_set"], "no_such_set"),
        (["--class-name", "no such class"], "its classes: "),
        (["--flow", "123456"], "--flow 123456"),
        (["--flow", "0", "--class-name", "x"], "not both"),
        (["--alpha", "1.5"], "[0, 1]"),
        (["--draws", "0"], "--draws 0"),
        (["--dataset", "parquet"], "needs a path"),
        (["--dataset", "cesnet_quic", "--real"], "zenodo.org"),
        (["--max-flows", "0"], "max_flows"),
        (["--no-such-flag"], "no-such-flag"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(few, monkeypatch, root, tmp_path, capsys, arguments, words):
    out = tmp_path / "out"
    assert call(few, monkeypatch, ["--data-root", root, "--out", out, *arguments]) == 2
    printed = capsys.readouterr()
    assert words in printed.err + printed.out and "Traceback" not in printed.err and not out.exists()


def test_an_out_that_is_a_file_is_refused_before_the_work(few, monkeypatch, root, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert call(few, monkeypatch, ["--data-root", root, "--out", tmp_path / "file"]) == 2
    assert "choose another" in capsys.readouterr().err


def shown(name="wrap", family="sequence", flows=None, **more):
    x, mask = series().arrays()
    after = flows or [DrawnFlow(x[i], mask[i]) for i in (1, 2)]
    values = {"changed": {"alpha = 1": 0.5}, "drawn": (64, 60), "source": "S & Co", "traits": {"needs_stats": True}}
    return ShownAugmentation(
        name, family, DrawnFlow(x[0], mask[0]), after, documentation=augment.get("wrap").__doc__, **values | more
    )


def test_a_page_of_hostile_text_flows_and_shares(tmp_path):
    nasty = "<script>alert('x')</script>"
    odd = DrawnFlow(np.full((30, 3), 0.5, np.float32), np.arange(30) < 3)
    none = DrawnFlow(np.zeros((30, 3), np.float32), np.zeros(30, bool))
    entries = [shown(f"op{i}", "one" if i < 5 else "two") for i in range(7)]
    entries += [shown("exchanged", "three", partner=odd, in_paper=False, flows=[none])]
    words = {"data_name": nasty, "facts": {"Class": nasty}, "gallery_lines": ["$x_1$", nasty], "notes": [nasty]}
    paths = write_augmentations(tmp_path / "new", entries, source="real", command=nasty, **words)
    assert [path.name for path in paths] == ["gallery.png", "augmentations.html"]
    assert "<script" not in paths[1].read_text() and "S &amp; Co" in paths[1].read_text()
    for problem, source, out in (
        (entries, "unknown", tmp_path),
        ([], "real", tmp_path),
        (entries[:1], "real", paths[0]),
    ):
        with pytest.raises(ConfigError):
            write_augmentations(out, problem, source=source, **words)


def test_docstrings_are_taken_apart():
    entry = document(augment.AUGMENTATIONS["dup_rto"].op.__doc__)
    assert (
        entry.summary.startswith("Duplicates bursts")
        and entry.definition
        and {"Shapes", "Units", "Source"} <= set(entry.sections)
    )
    assert set(entry.options) == {"lmin, lmax", "first", "iat", "pad"} and "seconds" in entry.options["iat"]
    for name, one in augment.AUGMENTATIONS.items():
        found = document(one.op.__doc__)
        assert found.summary.endswith(".") and "Source" in found.sections and "Shapes" in found.sections, name
    assert document("") == document(None) and document("One line.").summary == "One line."


def test_shares_say_all_and_none_only_where_it_is_so():
    assert [share_text(share) for share in (0, 1e-5, 0.5, 0.99999, 1)] == [
        "0 %",
        "< 0.1 %",
        "50.0 %",
        "> 99.9 %",
        "100 %",
    ]
