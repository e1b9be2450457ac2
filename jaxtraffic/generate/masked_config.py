"""Configuration of a masked token generator."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.masked_net import MaskedNetConfig
from jaxtraffic.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class MaskedConfig:
    """Everything that decides what a masked token generator is and how it is trained and sampled."""

    members: ClassVar[int] = 1
    iat: ClassVar[bool] = False

    net: MaskedNetConfig = MaskedNetConfig()
    train: TrainConfig = TrainConfig(
        epochs=60,
        batch_size=64,
        learning_rate=2e-3,
        warmup=0.05,
        clip_norm=1.0,
        ema=0.99,
        class_dropout=0.1,
        log_steps=25,
        checkpoint_steps=500,
    )
    """The schedule; `epochs` is the most that early stopping may take, and `weight_decay` is not read. A flow shows one
    of its many masks an epoch, so that training takes several times the epochs of the causal network."""
    decay: float = 4500.0
    """Weight decay times training flows, as in `TokenConfig`; not tried otherwise here."""
    patience: int = 12
    """Epochs without a better validation before training stops."""
    validation_draws: int = 4
    """Masks of each held-out flow that the validation averages over; the same ones after each epoch."""
    atom_share: float = 0.001
    """Least share of the training packets for a signed size to have a token of its own."""
    bin_bytes: int = 16
    """Width of the bins of all other sizes, bytes."""
    size_features: bool = True
    """Tell the network which size a token stands for, as in `TokenConfig`."""
    steps: int = 64
    """Passes of the network that sampling takes at most; a flow of T packets takes no more than T."""

    def check(self) -> MaskedConfig:
        """Returns itself, or raises ConfigError for values that cannot work."""
        self.net.check()
        for name in ("epochs", "batch_size", "log_steps", "checkpoint_steps"):
            if getattr(self.train, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self.train, name)}")
        if not self.decay >= 0:
            raise ConfigError(f"decay must be at least 0, got {self.decay}")
        if self.train.steps is not None:
            raise ConfigError("a token generator trains whole epochs; give epochs, not steps")
        for name in ("ema", "class_dropout"):
            if not 0 <= getattr(self.train, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self.train, name)}")
        for name in ("patience", "validation_draws", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        return self
