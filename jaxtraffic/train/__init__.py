"""Training: state, compiled program, loop, checkpoints, streaming, and whole runs in memory."""

from jaxtraffic.train.checkpoint import Checkpoints
from jaxtraffic.train.fit import Fitted, fit
from jaxtraffic.train.loop import Interrupted, total_steps, train
from jaxtraffic.train.program import make_chunk, steps_per_epoch
from jaxtraffic.train.progress import ProgressReport
from jaxtraffic.train.state import TrainConfig, TrainState, init_state, make_optimizer

__all__ = [
    "Checkpoints",
    "Fitted",
    "Interrupted",
    "ProgressReport",
    "TrainConfig",
    "TrainState",
    "fit",
    "init_state",
    "make_chunk",
    "make_optimizer",
    "steps_per_epoch",
    "total_steps",
    "train",
]
