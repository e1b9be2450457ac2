"""The seam between sampling and measuring: what an observer of the sampling scan is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Observer(NamedTuple):
    """Folds what happens during sampling into a statistic, at no extra pass.

    Attributes:
        init: (x [batch, T], label [batch]) -> state; keep its leaves per sample (leading axis batch), so that no
            collective enters the program.
        update: (state, info) -> state; for info see `generate.sampler.run`.
        finish: state -> result, with leading axis batch.
        needs_unconditional: whether info["prediction"].unconditional must be there also without guidance.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    update: Callable[[Any, dict[str, Any]], Any]
    finish: Callable[[Any], Any] = lambda state: state
    needs_unconditional: bool = False
