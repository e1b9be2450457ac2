"""The benchmark of the augmentations: its document, and that its contenders do the same work; no timing is asserted."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxtraffic import augment

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import augment as benchmark  # noqa: E402
import augment_contenders  # noqa: E402

HAS_TORCH = importlib.util.find_spec("torch") is not None
NAMES = (*augment.AUGMENTATIONS, *augment_contenders.COMPOSITIONS)


@pytest.fixture(autouse=True)
def quick_compiles():
    """Structure is what is tested, so XLA need not optimise."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def options(out, *ops, **more):
    tiny = {"flows": (8,), "packets": (5,), "rounds": 1, "min_seconds": 0.0, "numpy_flows": 4, "copy_bytes": 4096}
    return benchmark.Options(ops=ops, out=out, **tiny | more)


def run(out, *ops, **more):
    returned = benchmark.main(options(out, *ops, **more))
    document = json.loads(out.read_text())
    assert document["benchmark"] == "augment"
    assert document["device"]["platform"] == jax.default_backend()
    assert document["rows"] == json.loads(json.dumps(returned["rows"]))
    assert document["copy_bytes_per_s"] > 0
    return document


def test_rows(tmp_path):
    document = run(tmp_path / "a.json", "gaussian_noise", "time_shift", "cutmix", "maybe", strategies=False)
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == ["gaussian_noise", "time_shift", "cutmix", "maybe"]
    common = {"batched", "numpy", "copy", "split"}
    assert set(rows["time_shift"]["contenders"]) == common | {"vmap", "draw", "apply"}
    assert set(rows["cutmix"]["contenders"]) == common | {"draw", "apply"}
    assert set(rows["maybe"]["contenders"]) == common | {"vmap"}
    for row in rows.values():
        contenders = row["contenders"]
        assert row["flows_per_s"]["batched"] == pytest.approx(8 / contenders["batched"]["median_s"])
        # The loop takes half of the flows, so the ratio is twice that of the times of the calls.
        ratio = 2 * contenders["numpy"]["median_s"] / contenders["batched"]["median_s"]
        assert row["numpy_ratio"] == pytest.approx(ratio)
        assert row["bytes_per_s"] == pytest.approx(2 * 8 * 5 * 13 / contenders["batched"]["median_s"])
        assert row["compile_s"] > 0 and row["share_of_bandwidth"] > 0 and row["share_of_copy"] > 0
    assert all(
        rows[name]["bound_by"] in ("copy", "draw", "apply") for name in ("gaussian_noise", "time_shift", "cutmix")
    )
    assert document["strategies"] == []
    assert document["summary"][0]["operations"] == 3


def test_summary():
    rows = [
        {"name": name, "family": "sequence", "flows": 8, "packets": 5, "numpy_ratio": ratio, "torch_ratio": ratio / 20}
        for name, ratio in {"wrap": 40.0, "permutation": 2.5}.items()
    ]
    rows.append(rows[0] | {"family": "composition", "numpy_ratio": 1.0})
    entry = benchmark.summarise(rows)[0]
    assert entry["numpy"]["geometric_mean"] == pytest.approx(10)
    assert entry["numpy"]["least"] == ("permutation", 2.5)
    assert entry["numpy"]["below_10"] == {"permutation": 2.5}
    assert entry["torch"]["below_1"] == {"permutation": 0.125}


@pytest.mark.parametrize("name", ["gaussian_noise", "packet_loss", "cutmix"])
def test_parts_make_the_whole(name):
    batch = augment_contenders.Batch(16, 7)
    _, calls = augment_contenders.programs(name, batch)
    for whole, parts in zip(calls["batched"](), calls["apply"](), strict=True):
        np.testing.assert_allclose(whole, parts, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_loop_runs_everything(name):
    batch = augment_contenders.Batch(12, 7)
    done = augment_contenders.numpy_call(name, batch, 12)()
    x, mask = done if name == "cutmix" else zip(*done, strict=True)
    x, mask = np.stack(x), np.stack(mask)
    assert x.shape == (12, 7, 3) and x.dtype == np.float32
    assert (mask[:, 1:] <= mask[:, :-1]).all()


def test_strategies_compute_the_composition():
    batch = augment_contenders.Batch(24, 5)
    flows = tuple(batch.device(name) for name in ("scaled", "mask", "alpha", "stats"))
    for ways in augment_contenders.strategies().values():
        for run in ways.values():
            x, mask = jax.eval_shape(run, jax.random.key(0), *flows)
            assert (x.shape, mask.shape) == ((24, 5, 3), (24, 5))


def test_shuffled_flows_come_back_to_their_place():
    batch = augment_contenders.Batch(24, 5)
    x, mask, _, stats = (batch.device(name) for name in ("scaled", "mask", "alpha", "stats"))
    ways = augment_contenders.strategies()
    new_x, new_mask = jax.jit(ways["ensemble"]["shuffled thirds"])(jax.random.key(0), x, mask, 0 * batch.alpha, stats)
    # At alpha = 0 only translation, a third of the flows, does anything.
    same = (np.asarray(new_x) == np.asarray(x)).all((1, 2)) & (np.asarray(new_mask) == np.asarray(mask)).all(1)
    assert same.sum() >= 16
    new_x, new_mask = jax.jit(ways["maybe"]["every second flow"])(jax.random.key(0), x, mask, batch.alpha, stats)
    np.testing.assert_array_equal(new_x[1::2], x[1::2])


@pytest.mark.slow
def test_measured_strategies(tmp_path):
    document = run(tmp_path / "a.json", "horizontal_flip")
    made = {(row["composition"], row["strategy"]) for row in document["strategies"]}
    assert made == {(name, way) for name, ways in augment_contenders.strategies().items() for way in ways}
    assert all(row["over_default"] > 0 and row["compile_s"] > 0 for row in document["strategies"])


@pytest.mark.skipif(not HAS_TORCH, reason="needs torch")
def test_against_torch(tmp_path):
    document = run(tmp_path / "a.json", "wrap", "time_shift", strategies=False, against="torch")
    wrap, time_shift = document["rows"]
    assert wrap["torch_ratio"] > 0 and wrap["torch_best"] in wrap["contenders"]
    assert "torch_ratio" not in time_shift
    assert set(document["summary"][0]["torch"]) == {"geometric_mean", "least", "below_1"}


def test_unknown_name_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="unknown operation flip; choose from gaussian_noise"):
        benchmark.main(options(tmp_path / "none.json", "flip"))
