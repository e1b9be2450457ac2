"""The sets of the benchmark of generators: hand-crafted fakes, and what fits into seconds of training."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.train import TrainConfig
from tests.experiments.test_generative_benchmark import LENGTH, toy

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
made = importlib.import_module("generative_benchmark_sets")


@pytest.mark.parametrize("name", ["translation", pytest.param("wrap", marks=pytest.mark.slow), "gaussian_noise"])
def test_hand_crafted_fakes_are_changed_training_flows(name):
    train = toy(120)
    fake = made.hand_crafted(name, train, jax.random.key(0))
    assert (fake.label == train.label).all() and fake.class_names == train.class_names and fake.source == "simulated"
    changed = (fake.signed_size != train.signed_size).any(axis=1)
    assert changed.mean() > 0.8 and fake.size.max() <= train.size.max() and fake.group is None
    again = made.hand_crafted(name, train, jax.random.key(0))
    assert (again.signed_size == fake.signed_size).all()
    if name == "gaussian_noise":
        assert (fake.direction == train.direction).all() and (fake.iat == train.iat).all()
        # sizes above 1460 bytes are not cut: the noise is about them as about others
        large = train.size > 1460
        assert large.any() and np.abs(fake.size[large].astype(int) - train.size[large]).mean() < 400
        assert (fake.size[large] != train.size[large]).mean() > 0.3
    else:
        assert not (fake.n_packets > LENGTH).any() and np.isfinite(fake.iat).all()


def test_what_fits_into_seconds():
    tokens = TokenConfig(train=TrainConfig(batch_size=50, epochs=60))
    assert made.within(9.99, 2.0, 120, tokens, epochs=False) == {"steps": 19}
    assert made.within(0.1, 2.0, 120, tokens, epochs=False) == {"steps": 1}
    assert made.within(36.0, 2.0, 120, tokens, epochs=True) == {"epochs": 36}  # 72 steps over 2 an epoch
    assert made.within(29.0, 2.0, 20, tokens, epochs=True) == {"epochs": 58}  # one batch of all flows
    assert made.within(99.0, 2.0, 120, tokens, epochs=True) == {"epochs": 60}, "no more than configured"
    assert made.within(0.5, 2.0, 120, tokens, epochs=True) == {"epochs": 1}
