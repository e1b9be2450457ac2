"""The examples of the README run as they stand."""

from pathlib import Path

import jax
import numpy as np

from jaxtraffic.series import from_signed_size


def test_example_of_augmentations():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    block = next(part for part in text.split("```") if part.startswith("python") and "augment, scaling" in part)
    rng = np.random.default_rng(0)
    signed = rng.integers(40, 1460, (48, 8)) * rng.choice([-1, 1], (48, 8))
    signed[np.arange(8) >= rng.integers(2, 9, 48)[:, None]] = 0
    flows = from_signed_size(signed.astype(np.int16), label=np.arange(48) % 3, class_names=("a", "b", "c"))
    names = {"jax": jax, "flows": flows}
    exec(block.removeprefix("python"), names)
    assert names["batch"].x.shape == (96, 8, 3) and names["y2"].shape == (8, 3)
    assert callable(names["transform"].random_map)
