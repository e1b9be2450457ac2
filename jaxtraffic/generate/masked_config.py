"""Configuration of a masked token generator."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from jaxtraffic.errors import ConfigError
from jaxtraffic.generate.token_config import TokenFamilyConfig
from jaxtraffic.nn.masked_net import MaskedNetConfig


@dataclasses.dataclass(frozen=True)
class MaskedConfig(TokenFamilyConfig):
    """Everything that decides what a masked token generator is and how it is trained and sampled.

    A flow shows one of its many masks an epoch, so that training takes several times the epochs of the causal network.
    """

    members: ClassVar[int] = 1
    iat: ClassVar[bool] = False

    net: MaskedNetConfig = MaskedNetConfig()
    patience: int = 12
    """Epochs after the one to stop at (`token_training.best_epoch`) before training stops."""
    validation_draws: int = 4
    """Masks of each held-out flow that the validation averages over; the same ones after each epoch."""
    steps: int = 64
    """Passes of the network that sampling takes at most; a flow of T packets takes no more than T."""

    def check(self) -> Self:
        """Returns itself, or raises ConfigError for values that cannot work."""
        for name in ("validation_draws", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        return super().check()
