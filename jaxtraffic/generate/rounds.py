"""Loading the model of a run folder: of its training, or of the last round of reflow after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax

from jaxtraffic import parallel, scaling
from jaxtraffic.errors import DataError
from jaxtraffic.generate import token_runs
from jaxtraffic.generate.card import DataCard
from jaxtraffic.generate.config import from_dict
from jaxtraffic.generate.model import Generator
from jaxtraffic.generate.token_family import TokenFamily
from jaxtraffic.nn import is_state_space
from jaxtraffic.train import Checkpoints, init_state, make_optimizer, total_steps


def folder_of(folder: Path, number: int) -> Path:
    """Where a round of training keeps metrics.jsonl and checkpoints/: round 0 is the first, others are reflow."""
    return folder if number == 0 else folder / f"reflow-{number}"


def load_run(folder: str | Path) -> Generator | TokenFamily:
    """Loads the generator of a run folder: newest checkpoint (of the last round of reflow), scale and class names.

    A folder of `experiments/token_s4.py` gives its `TokenGenerator` or `MaskedGenerator`.

    Raises:
        DataError: the folder is not a run folder, or holds no finished checkpoint.
    """
    folder = Path(folder)
    if (folder / token_runs.MODEL_FILE).exists():
        return token_runs.load(folder)
    try:
        stored = json.loads((folder / "config.json").read_text())
        config = from_dict(stored["generator"])
        card = DataCard(**{name: _tupled(stored["card"][name]) for name in DataCard.__dataclass_fields__})
        n_train = sum(card.class_counts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(folder, f"not a run folder ({error})", expected="config.json of a training run") from error
    generator = Generator(config, card, scaling.load(folder / "scaling.npz"))
    transform, _ = make_optimizer(config.train, total_steps(config.train, n_train), is_state_space)
    like = jax.eval_shape(lambda: init_state(generator.init(jax.random.key(0)), transform, config.train))
    keep = parallel.replicated(parallel.make_mesh())
    number = stored.get("reflow", 0)
    while number and not (folder_of(folder, number) / "checkpoints").is_dir():
        number -= 1
    with Checkpoints(folder_of(folder, number) / "checkpoints") as checkpoints:
        state = checkpoints.restore(like, keep)
    generator.params = state.averaged
    return generator


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
