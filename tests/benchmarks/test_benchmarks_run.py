"""Each benchmark runs at its smallest size and writes a document of the promised structure; no timing is asserted."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import measure  # noqa: E402
import s4_kernel  # noqa: E402
import sampler  # noqa: E402
import subject  # noqa: E402
import train_step  # noqa: E402

HAS_TORCH = importlib.util.find_spec("torch") is not None
against_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs torch")
TIMED = {"median_s", "min_s", "max_s", "rounds", "first_call_s"}
COMPILED = {"lower_s", "compile_s", "memory", "xla_flops_bodies_once"}
RATED = {"flows_per_s", "flops_per_s", "flops_per_call", "share_of_matmul_peak"}


@pytest.fixture(autouse=True)
def quick_compiles():
    """Structure is what is tested, so XLA need not optimise."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def read(path, name):
    document = json.loads(path.read_text())
    assert document["benchmark"] == name
    assert document["device"]["platform"] == jax.default_backend()
    assert document["versions"]["jax"] == jax.__version__
    assert {"date", "options", "rows"} <= set(document)
    return document


@pytest.mark.slow
def test_s4_kernel(tmp_path):
    out = tmp_path / "kernel.json"
    options = s4_kernel.Options(lengths=(5,), channels=4, batch=2, state=8, rounds=1, min_seconds=0.0, out=out)
    returned = s4_kernel.main(options)
    document = read(out, "s4_kernel")
    assert document["rows"] == json.loads(json.dumps(returned["rows"]))
    made = {(row["question"], row["form"]) for row in document["rows"]}
    forms = ("powers", "generating", "vandermonde")
    assert made == {(q, form) for q in ("kernel", "kernel_gradient") for form in forms} | {
        (q, form) for q in ("build", "apply", "train") for form in ("toeplitz", "fft")
    }
    assert all(set(row) >= TIMED | COMPILED for row in document["rows"])
    switches = document["switch_lengths"]
    assert switches["ssm.POWERS_MAX_LENGTH"]["now"] > 0
    assert set(switches["convolution.TOEPLITZ_MAX_LENGTH"]["applying"]["fft_over_toeplitz"]) == {"5"}


def test_s4_kernel_names_what_it_skips():
    options = s4_kernel.Options(channels=4, batch=2, state=8, rounds=1, min_seconds=0.0, max_bytes=4 * 4 * 50)
    rows = s4_kernel.convolution_rows(options, 8)
    assert {row["form"] for row in rows if "median_s" in row} == {"fft"}
    assert {row["question"] for row in rows if row.get("skipped")} == {"build", "apply", "train"}


def check_contest(document, names):
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == names
    assert all(set(row) >= TIMED | RATED for row in rows.values())
    assert set(rows["jaxtraffic"]) >= COMPILED
    assert set(document["ratios"]) == {f"{name} / jaxtraffic" for name in names[1:]}
    assert document["matmul_peak"]["flops_per_s"] > 0
    assert document["step"]["flops"] > 0
    assert rows["jaxtraffic"]["flops_per_call"] >= document["step"]["flops"]


def sampler_options(out, **more):
    return sampler.Options(preset="tiny", blocks=1, flows=5, block=4, diffusion_steps=3, rounds=1, out=out, **more)


@pytest.mark.slow
def test_sampler(tmp_path):
    out = tmp_path / "sampler.json"
    sampler.main(sampler_options(out))
    document = read(out, "sampler")
    check_contest(document, ["jaxtraffic", "jaxtraffic, kernel in every step", "token S4"])
    # as much work as the packets of five flows are, and a vocabulary with all frequent sizes
    token, row = document["token"], document["rows"][2]
    assert row["flops_per_call"] == pytest.approx(token["packet"]["flops"] * 5 / 4 * 30)
    assert token["symbols"] > subject.FREQUENT and token["config"]["width"] == document["config"]["denoiser"]["width"]
    assert token["times_as_fast"]["median"] == pytest.approx(document["rows"][0]["median_s"] / row["median_s"])
    # The program of 3 steps holds a scan, whose body XLA counts once: that is why a step is counted on its own.
    program = document["rows"][0]["xla_flops_bodies_once"]
    assert document["step"]["flops"] <= program < 2 * document["step"]["flops"]


def train_options(out, **more):
    return train_step.Options(preset="tiny", blocks=1, batch_size=4, steps=2, rounds=1, out=out, **more)


@pytest.mark.slow
def test_train_step(tmp_path):
    out = tmp_path / "train.json"
    train_step.main(train_options(out))
    check_contest(read(out, "train_step"), ["jaxtraffic"])


@pytest.mark.slow
@against_torch
def test_sampler_against_torch(tmp_path):
    out = tmp_path / "sampler.json"
    sampler.main(sampler_options(out, against="torch", torch_compile=False))
    names = ["jaxtraffic", "jaxtraffic, kernel in every step", "token S4", "torch eager"]
    check_contest(read(out, "sampler"), names)


@pytest.mark.slow
@against_torch
def test_train_step_against_torch(tmp_path):
    out = tmp_path / "train.json"
    train_step.main(train_options(out, against="torch", torch_compile=False))
    check_contest(read(out, "train_step"), ["jaxtraffic", "torch eager"])


@pytest.mark.skipif(HAS_TORCH, reason="torch is here")
def test_missing_torch_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"pip install torch==\d"):
        sampler.main(sampler_options(tmp_path / "none.json", against="torch"))
    assert not (tmp_path / "none.json").exists()


def test_xla_counts_a_loop_body_once():
    def loop(x):
        return jax.lax.scan(lambda y, _: (y @ x, None), x, None, length=10)[0]

    x = jnp.ones((64, 64))
    once = measure.compile_program(jax.jit(lambda x: x @ x), x).flops
    assert once == pytest.approx(2 * 64**3)
    assert measure.compile_program(jax.jit(loop), x).flops == pytest.approx(once, rel=0.1)


def test_failing_contender_is_a_result():
    def broken():
        raise RuntimeError("no compiler")

    timings = measure.race({"good": lambda: jnp.ones(3), "bad": broken}, rounds=2, may_fail=("bad",))
    assert len(timings["good"].rounds) == 2
    assert timings["bad"].row() == {"error": "RuntimeError: no compiler"}
    with pytest.raises(RuntimeError):
        measure.race({"bad": broken}, rounds=1)


@pytest.mark.parametrize(
    "short, long, expected",
    [
        ([1, 2, 4, 9], [3, 3, 3, 3], {"max_length": 20, "crossed": True}),
        ([1, 4, 1, 9], [3, 3, 3, 3], {"max_length": 30, "crossed": True}),
        ([1, 1, 1, 1], [3, 3, 3, 3], {"max_length": 40, "crossed": False}),
        ([9, 9, 9, 9], [3, 3, 3, 3], {"max_length": 0, "crossed": False}),
    ],
)
def test_switch_length(short, long, expected):
    assert measure.switch_length([10, 20, 30, 40], short, long) == expected
