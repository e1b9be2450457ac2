"""The benchmark of campaigns: its contenders do the same work, and its document holds them; no timing is asserted."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxtraffic.nn import classifiers
from jaxtraffic.nn.dense_convolution import dense_convolution

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import campaign as benchmark  # noqa: E402
import campaign_contenders as contenders  # noqa: E402
from campaign_contenders import IN_TURNS, LAX, MAPPED, VMAPPED  # noqa: E402

HEAD = 3 * 2 * 2 * 20


@pytest.fixture(autouse=True)
def quick_compiles():
    """Structure is what is tested, so XLA need not optimise."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_flops_of_a_step():
    # By hand from the shapes: 710,400 products of two numbers forward, the stem's 11,520 of them twice and not thrice.
    assert contenders.step_flops() == 2 * (3 * 710_400 - 11_520)
    programs = {}
    calls = contenders.product_calls(2, 3, programs, length=7, width=4)
    per_flow = contenders.step_flops(length=7, width=4) - HEAD * 4
    assert programs[contenders.PRODUCTS].flops == 3 * per_flow
    assert programs[contenders.BATCHED_PRODUCTS].flops == 2 * 3 * per_flow
    for ours, theirs in zip(*(calls[name]() for name in (contenders.PRODUCTS, contenders.BLAS)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_layers_are_those_of_the_network():
    params, _ = jax.eval_shape(classifiers.make_classifier("resnet", 20, 20).init, jax.random.key(0))
    made = {one.name: (one.taps, one.inputs, one.outputs) for one in contenders.layers()}
    assert made == {name: own["kernel"].shape for name, own in params.items() if name != "head"}


@pytest.mark.parametrize("taps, length, stride", [(3, 5, 1), (3, 5, 2), (3, 4, 2), (1, 5, 2)])
def test_both_convolutions_are_one(taps, length, stride):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((2, length, 3), (taps, 3, 4)))
    theirs = contenders.lax_convolution(x, kernel, stride)
    np.testing.assert_allclose(theirs, dense_convolution(x, kernel, stride), rtol=1e-5, atol=1e-5)


def test_convolutions_are_swapped_inside_the_block_only():
    with contenders.convolutions(LAX):
        assert classifiers.dense_convolution is contenders.lax_convolution
    assert classifiers.dense_convolution is dense_convolution


@pytest.mark.slow
def test_ways_take_the_same_step():
    steps, programs = contenders.Steps(2, 3, length=5, width=2), {}
    calls = steps.calls(programs, ways=(IN_TURNS, VMAPPED, MAPPED), steps=1)
    other = contenders.Steps(2, 3, form=LAX, length=5, width=2)
    calls |= other.calls(programs, ways=(VMAPPED,), steps=1)
    assert set(calls) == set(programs) and f"{LAX}, {VMAPPED}, a call a step" in calls
    want, *others = (call() for call in calls.values())
    want = jax.tree.map(lambda *leaves: np.stack(leaves), *want)
    before = jax.tree.leaves(steps.carry[0])
    assert all(np.any(new != old) for new, old in zip(jax.tree.leaves(want[0]), before, strict=True))
    for (other,) in others:
        # Statistics and gradients, before AdamW divides by their size.
        for a, b in zip(jax.tree.leaves(want[1]), jax.tree.leaves(other[1]), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
        for a, b in zip(jax.tree.leaves(want[2]), jax.tree.leaves(other[2]), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-6)


def test_random_flows_have_every_class():
    flows = contenders.random_series(205)
    assert flows.counts().min() == 10 and flows.counts().max() == 11
    assert flows.n_packets.min() >= 10


def test_mirage_refuses_a_cpu():
    with pytest.raises(SystemExit, match="1520 runs on 64000 flows: it needs an accelerator"):
        benchmark.main(benchmark.Options(mirage=True))


def test_unknown_configuration_is_one_line():
    with pytest.raises(SystemExit, match="unknown configuration flip"):
        benchmark.main(benchmark.Options(augmentations=("flip",)))


@pytest.mark.slow
def test_document(tmp_path):
    out = tmp_path / "campaign.json"
    sizes = {"batches": (3,), "seeds": (2,), "convolution_batches": (3,), "convolution_seeds": (2,)}
    runs = {"flows": 400, "batch_size": 128, "epochs": 1, "campaign_seeds": 2, "slots": (1, 2), "loop_runs": 1}
    choice = {"augmentations": ("translation",), "mixture": ("baseline", "wrap")}
    benchmark.main(benchmark.Options(rounds=2, min_seconds=0, out=out, **sizes, **runs, **choice))
    document = json.loads(out.read_text())
    assert document["benchmark"] == "campaign" and document["step_flops_per_flow"] == contenders.step_flops()
    parts = {part: [row for row in document["rows"] if row["part"] == part] for part in benchmark.PARTS}
    assert len(parts["steps"]) == 8 and len(parts["convolutions"]) == 8
    for row in parts["steps"] + parts["convolutions"]:
        assert row["step_s"] == pytest.approx(row["median_s"] / row["steps"], rel=1e-6)
        assert row["flows_per_s"] == pytest.approx(2 * 3 / row["step_s"])
        assert row["flops_per_s"] == pytest.approx(contenders.step_flops() * row["flows_per_s"])
    first = parts["steps"][0]
    assert first["name"] == IN_TURNS and first["times_as_fast"] == [1, 1, 1] and first["steps"] == 2
    assert first["most_possible"] == pytest.approx(1 / first["share_of_products"])
    assert max(row["share_of_products"] for row in parts["steps"] if row["name"] != contenders.BLAS) == 1
    names = {(row["workload"], row["name"]) for row in parts["campaign"]}
    ways = ["campaign, 1 a program", "campaign, 2 a program"]
    assert names == {("2 seeds, translation", name) for name in (*ways, benchmark.PLAIN)} | {
        ("1 seeds x 2 configurations", name) for name in ways
    }
    for row in parts["campaign"]:
        assert row["epochs"] == 1 and row["runs_per_hour"] == pytest.approx(3600 * row["runs"] / row["median_s"])
    # Runs of the same seeds are the same runs, however many share a program.
    one, two = (row["accuracy"] for row in parts["campaign"][:2])
    assert one == pytest.approx(two, abs=0.03)


@pytest.mark.slow
def test_the_whole_benchmark_of_pam():
    made = benchmark.mirage(
        benchmark.Options(mirage_folds=1, mirage_flows=400, mirage_epochs=1, mirage_slots=1, batch_size=128)
    )
    assert made["runs"] == made["configurations"] == 19
    assert made["epochs"] == {"mean": 1, "least": 1, "most": 1}
    # 18 configurations see every flow twice, the baseline once.
    assert made["trained_flows_per_s"] * made["seconds"] == pytest.approx(37 * 320, rel=0.1)


@pytest.fixture
def torch_classifier():
    """The PyTorch side, on one thread: its threads wait for each other where the machine does other work."""
    torch = pytest.importorskip("torch")
    import torch_classifier

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch_classifier
    torch.set_num_threads(threads)


def test_torch_is_the_same_network(torch_classifier):
    import torch

    rng = np.random.default_rng(0)
    net = classifiers.make_classifier("resnet", 5, 9, width=4)
    params, state = net.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), params)
    model = torch_classifier.ResNet(5, width=4).load_jax(params, state)
    x, mask = rng.random((6, 9, 3), np.float32), np.ones((6, 9), bool)
    for train in (True, False):
        ours, _, state = net.apply(params, state, x, mask, train=train)
        theirs = model.train(train)(torch.from_numpy(x))
        np.testing.assert_allclose(theirs.detach().numpy(), ours, rtol=1e-4, atol=1e-5)
    # The second forward used what the first recorded.
    np.testing.assert_allclose(model.stem[1].running_var.numpy(), state["stem"]["variance"], rtol=1e-5)


@pytest.mark.parametrize("name", ["baseline", "translation"])
def test_torch_learns(torch_classifier, name):
    flows = contenders.random_series(600, classes=3)
    x, mask = flows.arrays()
    x = x / np.float32([1460, 1, 1])
    sides = {"train": slice(0, 400), "validation": slice(400, 500), "test": slice(500, 600)}
    put = torch_classifier.put({side: (x[rows], mask[rows], flows.label[rows]) for side, rows in sides.items()})
    config = contenders.configuration(name, batch=100, epochs=6)
    done = torch_classifier.train(config, put, 3, 4, seed=0)
    assert done["epochs"] == 6 and done["accuracy"] > 0.6
    stopped = torch_classifier.train(
        contenders.configuration(name, batch=100, epochs=40, patience=2), put, 3, 4, seed=0
    )
    assert 3 <= stopped["epochs"] < 40
