"""The benchmark of fused information at its smallest size: structure and equality of contenders, no timing."""

import json
import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import information  # noqa: E402


@pytest.fixture(autouse=True)
def quick_compiles():
    """Structure is what is tested, so XLA need not optimise."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(
    "process, path_wise", [("ddpm", []), pytest.param("flow", ["path-wise"], marks=pytest.mark.slow)]
)
def test_information(tmp_path, process, path_wise):
    out = tmp_path / "information.json"
    returned = information.main(
        information.Options(process=process, blocks=1, flows=5, block=4, steps=3, rounds=1, out=out)
    )
    document = json.loads(out.read_text())
    assert document["benchmark"] == "information" and document["rows"] == json.loads(json.dumps(returned["rows"]))
    assert document["steps"] == 3
    rows = {row["name"]: row for row in document["rows"]}
    names = ["guided", "fused", "fused, by packet and step", "stored", *path_wise]
    assert list(rows) == names
    assert set(document["ratios"]) == {f"{name} / guided" for name in names[1:]}
    wanted = {"median_s", "min_s", "max_s", "rounds", "first_call_s", "lower_s", "compile_s", "memory", "flows_per_s"}
    assert all(set(row) >= wanted for row in rows.values())
    assert document["stored_minus_fused_max"] < 1e-4
    # Both predictions of 3 steps of 4 flows of 30 packets.
    more = rows["stored"]["memory"]["output_bytes"] - rows["guided"]["memory"]["output_bytes"]
    assert more >= 2 * 3 * 4 * 30 * 4
    assert "second_program" in rows["stored"] and "second_program" not in rows["fused"]
