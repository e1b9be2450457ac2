"""Configuration of a token generator."""

from __future__ import annotations

import dataclasses

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.token_net import TokenNetConfig
from jaxtraffic.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class TokenConfig:
    """Everything that decides what a token generator is and how it is trained."""

    net: TokenNetConfig = TokenNetConfig()
    train: TrainConfig = TrainConfig(
        epochs=60,
        batch_size=64,
        learning_rate=2e-3,
        warmup=0.05,
        weight_decay=1.0,
        clip_norm=1.0,
        ema=0.99,
        class_dropout=0.1,
        log_steps=25,
        checkpoint_steps=500,
    )
    """The schedule; `epochs` is the most that early stopping may take. Weight decay is the regulariser that held-out
    likelihood asks for, and how much depends on the set: up to 3 on 1,500 flows, at most 1 on 5,000."""
    patience: int = 6
    """Epochs without a better validation before training stops."""
    hidden: float = 0.2
    """Share of the packets that the network reads as unseen in training, which also teaches it what unseen means."""
    members: int = 1
    """Networks, trained one by one; each packet is drawn from the mean of their probabilities."""
    atom_share: float = 0.001
    """Least share of the training packets for a signed size to have a token of its own."""
    bin_bytes: int = 16
    """Width of the bins of all other sizes, bytes."""
    size_features: bool = True
    """Tell the network which size a token stands for (`token_features`), rather than let it learn every one afresh."""
    iat: bool = False
    """Model inter-arrival times too."""

    def check(self) -> TokenConfig:
        """Returns itself, or raises ConfigError for values that cannot work."""
        self.net.check()
        for name in ("epochs", "batch_size", "log_steps", "checkpoint_steps"):
            if getattr(self.train, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self.train, name)}")
        if self.train.steps is not None:
            raise ConfigError("a token generator trains whole epochs; give epochs, not steps")
        for name, value in (
            ("ema", self.train.ema),
            ("class_dropout", self.train.class_dropout),
            ("hidden", self.hidden),
        ):
            if not 0 <= value < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {value}")
        for name in ("patience", "members"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        return self
