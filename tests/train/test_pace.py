"""The pace of training: the median of whole chunks, without compilation and without the first one."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxtraffic import parallel
from jaxtraffic.errors import ConfigError
from jaxtraffic.train import TrainConfig, pace

CONFIG = TrainConfig(steps=10, batch_size=8, log_steps=6)
DATA = {"x": np.ones((20, 3), np.float32)}


def measure(config=CONFIG, **options):
    return pace.steps_per_second(
        lambda params, batch, key: (batch["x"] @ params["w"]) ** 2,
        lambda key: {"w": jax.random.normal(key, (3,))},
        DATA,
        config,
        mesh=parallel.make_mesh(devices=1),
        **options,
    )


class Clock:
    """A clock by which chunk i takes as many seconds as told."""

    def __init__(self, *seconds):
        self.readings = [reading for taken in seconds for reading in (0.0, taken)]

    def perf_counter(self):
        return self.readings.pop(0)


@pytest.mark.parametrize(
    ("taken", "seconds", "median"),
    [
        ((2.0, 50.0, 3.0), 1.0, 3.0),  # three chunks at least; one that was disturbed does not decide
        ((1.0, 1.0, 1.0, 4.0, 4.0), 10.0, 1.0),  # as many as the seconds ask for
    ],
)
def test_the_median_chunk_decides(monkeypatch, tmp_path, taken, seconds, median):
    clock = Clock(*taken)
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.chdir(tmp_path)
    assert measure(seconds=seconds) == pytest.approx(CONFIG.log_steps / median)
    assert not clock.readings, "compiling and warming up are not timed, and every chunk is"
    assert not list(tmp_path.iterdir())


def test_a_set_that_streams_is_refused():
    with pytest.raises(ConfigError, match="resident_bytes"):
        measure(dataclasses.replace(CONFIG, resident_bytes=10))
