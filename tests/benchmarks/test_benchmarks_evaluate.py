"""The benchmark of distances at its smallest size: structure and equality of contenders, no timing."""

import json
import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import evaluate  # noqa: E402


@pytest.fixture(autouse=True)
def quick_compiles():
    """Structure is what is tested, so XLA need not optimise."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_evaluate(tmp_path, capsys):
    out = tmp_path / "evaluate.json"
    returned = evaluate.main(
        evaluate.Options(flows=80, packets=5, duplicates=(0.5,), sizes=(), rounds=1, devices=1, out=out)
    )
    document = json.loads(out.read_text())
    assert document["benchmark"] == "evaluate" and document["rows"] == json.loads(json.dumps(returned["rows"]))
    names = [evaluate.OURS, evaluate.MINMAX, evaluate.THREE, evaluate.SKLEARN]
    assert [row["name"] for row in document["rows"]] == names
    assert set(document["ratios"]["50% duplicates"]) == {f"scikit-learn / {name}" for name in names[:3]}
    accuracy = document["accuracy"]["50% duplicates"]
    # With 5 columns scikit-learn takes a tree and direct differences, which are right.
    assert accuracy["n_duplicates"] > 0 and accuracy["n_duplicates_not_at_distance_0"] == 0
    assert accuracy[evaluate.MINMAX] == pytest.approx(accuracy[evaluate.SKLEARN], abs=1e-12)
    capsys.readouterr()
    evaluate.one_size(80, 5, 1)
    made = json.loads(capsys.readouterr().out)
    assert made["flows"] == 80 and made["seconds"] > 0 and made["data_bytes"] == 2 * 80 * 5 * 4
