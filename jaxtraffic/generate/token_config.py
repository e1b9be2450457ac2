"""Configuration of a token generator, and what it shares with that of a masked one."""

from __future__ import annotations

import dataclasses
from typing import Self

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.token_net import TokenNetConfig
from jaxtraffic.train import TrainConfig

MOST_DECAY = 4.0
"""Weight decay at most, so that sets of a few hundred flows are learnt at all."""


def weight_decay(decay: float, n_flows: int) -> float:
    """Weight decay for so many training flows: decay / n_flows, at most `MOST_DECAY`."""
    return min(decay / n_flows, MOST_DECAY)


@dataclasses.dataclass(frozen=True)
class TokenFamilyConfig:
    """What the causal and the masked generator of tokens have alike."""

    net: TokenNetConfig = TokenNetConfig()
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
    """The schedule; `epochs` is the most that early stopping may take, and `weight_decay` is not read."""
    decay: float = 4500.0
    """Weight decay times training flows. It is the regulariser that held-out likelihood asks for, and less the more
    flows there are, as a prior's weight does: of 1, 3 and 6 the best is 3 for 1,400 flows, of 1 and 2 it is 2 for
    2,500, and 0.5 and 1 are alike for 4,200 (causal generator, three real sets, one run each). See `weight_decay`."""
    patience: int = 6
    """Epochs after the one to stop at (`token_training.best_epoch`) before training stops."""
    atom_share: float = 0.001
    """Least share of the training packets for a signed size to have a token of its own."""
    bin_bytes: int = 16
    """Width of the bins of all other sizes, bytes."""
    size_features: bool = True
    """Tell the network which size a token stands for (`token_features`), rather than let it learn every one afresh."""

    def check(self) -> Self:
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
        if self.patience < 1:
            raise ConfigError(f"patience must be at least 1, got {self.patience}")
        return self


@dataclasses.dataclass(frozen=True)
class TokenConfig(TokenFamilyConfig):
    """Everything that decides what a token generator is and how it is trained."""

    hidden: float = 0.2
    """Share of the packets that the network reads as unseen in training, which also teaches it what unseen means."""
    members: int = 1
    """Networks, trained one by one; each packet is drawn from the mean of their probabilities."""
    iat: bool = False
    """Model inter-arrival times too."""

    def check(self) -> Self:
        """Returns itself, or raises ConfigError for values that cannot work."""
        if not 0 <= self.hidden < 1:
            raise ConfigError(f"hidden must be in [0, 1), got {self.hidden}")
        if self.members < 1:
            raise ConfigError(f"members must be at least 1, got {self.members}")
        return super().check()
