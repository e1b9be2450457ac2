"""What a run of a campaign is, and what comes out of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtraffic.augment.compose import Composition
from jaxtraffic.augment.operation import Operation
from jaxtraffic.augment.timing import Timing
from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.classifiers import CLASSIFIERS

POLICIES = ("none", "replace", "inject", "pre_augment")
SCHEDULES = ("cosine", "infinite_cosine", "constant")
UNITS = ("points", "fraction")


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """How a classifier is trained; the defaults are PAM'24's."""

    name: str = "baseline"
    """Name of the configuration in tables; unique in a campaign."""
    model: str = "resnet"
    """Network: one of nn.CLASSIFIERS."""
    augmentation: Operation | Composition | None = None
    """Operation or composition of `augment`, or None."""
    policy: str = "none"
    """none, replace, inject or pre_augment."""
    amount: float = 1
    """Probability of replace, or number of copies of inject and pre_augment."""
    alpha: float | None = None
    """Magnitude in [0, 1]; None draws U[0, 1] for each flow."""
    class_weighted: bool = False
    """Draw flows so that all classes come up equally often."""
    batch_size: int = 1024
    """Flows that a step sees, copies included: inject draws batch_size // (amount + 1) flows."""
    max_epochs: int = 500
    """Epochs at most."""
    patience: int = 20
    """Stop after so many epochs without improvement of the validation accuracy."""
    min_improvement: float = 0.02
    """What counts as improvement, above the accuracy of the last improvement."""
    improvement_unit: str = "points"
    """Unit of min_improvement: percentage points (0.02 is one flow in 5,000), or fraction (0.02 is two points).

    PAM'24 says "by 0.02" and no more. Read as a fraction it ends most runs at the first plateau.
    """
    learning_rate: float = 1e-3
    """Peak rate of AdamW."""
    weight_decay: float = 1e-4
    """Of AdamW, on all parameters as in PyTorch."""
    schedule: str = "cosine"
    """cosine (annealed to 0 over max_epochs), infinite_cosine (restarted every `period` epochs) or constant."""
    period: int = 50
    """Epochs of one cosine of infinite_cosine. The thesis does not define it; warm restarts (SGDR) are our reading."""

    def check(self) -> ClassifierConfig:
        """Itself.

        Raises:
            ConfigError: an option out of its range, or options that do not fit each other.
        """
        for option, value, choices in (
            ("model", self.model, CLASSIFIERS),
            ("policy", self.policy, POLICIES),
            ("schedule", self.schedule, SCHEDULES),
            ("improvement_unit", self.improvement_unit, UNITS),
        ):
            if value not in choices:
                raise ConfigError(f"{self.name}: unknown {option} {value!r}; choose from {', '.join(choices)}")
        for option in ("batch_size", "max_epochs", "patience", "period"):
            if getattr(self, option) < 1:
                raise ConfigError(f"{self.name}: {option} must be at least 1, got {getattr(self, option)}")
        if (self.augmentation is None) != (self.policy == "none"):
            raise ConfigError(f"{self.name}: policy {self.policy!r} with augmentation {self.augmentation!r}; give both")
        if self.augmentation is not None and not isinstance(self.augmentation, Operation | Composition):
            raise ConfigError(
                f"{self.name}: {self.augmentation!r} is no operation; take augment.get('wrap') or a composition"
            )
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ConfigError(f"{self.name}: alpha={self.alpha}; the magnitude lies in [0, 1]")
        if self.policy == "replace" and not 0 <= self.amount <= 1:
            raise ConfigError(f"{self.name}: amount={self.amount}; replace takes a probability")
        if self.policy in ("inject", "pre_augment") and (self.amount < 1 or self.amount != int(self.amount)):
            raise ConfigError(f"{self.name}: amount={self.amount}; {self.policy} takes a number of copies, at least 1")
        if self.fresh < 1:
            raise ConfigError(f"{self.name}: batches of {self.batch_size} have no room for {self.amount} copies")
        if self.policy == "pre_augment" and self.class_weighted:
            raise ConfigError(f"{self.name}: pre_augment and class_weighted do not go together")
        if any(op.name == "mss_variation" for op in operations(self.augmentation)):
            raise ConfigError(f"{self.name}: mss_variation needs sizes in bytes, and networks see them scaled")
        if any(getattr(op, "iat", "carry") == "recompute" for op in operations(self.augmentation)):
            raise ConfigError(f"{self.name}: iat='recompute' needs seconds, and networks see them scaled; take 'carry'")
        return self

    @property
    def copies(self) -> int:
        """Augmented copies of a flow within a step."""
        return int(self.amount) if self.policy == "inject" else 0

    @property
    def fresh(self) -> int:
        """Flows drawn for a step."""
        return self.batch_size // (self.copies + 1)

    @property
    def made_before(self) -> int:
        """Augmented copies of a flow made before training."""
        return int(self.amount) if self.policy == "pre_augment" else 0

    @property
    def threshold(self) -> float:
        """min_improvement as a fraction."""
        return self.min_improvement * (0.01 if self.improvement_unit == "points" else 1.0)

    @property
    def needs_iat(self) -> bool:
        """Whether the augmentation means nothing without inter-arrival times."""
        ops = operations(self.augmentation)
        return any(isinstance(op, Timing) or op.name == "constant_wrapup" for op in ops)


def operations(augmentation: Any) -> list[Operation]:
    """The operations that an augmentation consists of."""
    if augmentation is None:
        return []
    if isinstance(augmentation, Composition):
        return [op for part in augmentation.ops for op in operations(part)]
    return [augmentation]


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One finished run, judged on the test flows of its fold.

    Attributes:
        config: name of the configuration.
        fold: number of the fold.
        seed: of parameters, order and augmentation.
        epochs: epochs trained.
        best_epoch: the one, from 0, whose parameters are judged: the first with the best validation accuracy.
        validation_accuracy: at that epoch.
        weighted_f1: over the classes among the test flows, each weighted by its flows.
        macro_f1: their plain mean.
        accuracy: share of right answers.
        per_class_f1: [class], NaN for classes without test flows.
        confusion: [class][class] counts, true class first.
        n_train: flows trained on, without copies.
        n_validation: flows of early stopping.
        n_test: flows judged.
        seconds: share of the campaign's time.
    """

    config: str
    fold: int
    seed: int
    epochs: int
    best_epoch: int
    validation_accuracy: float
    weighted_f1: float
    macro_f1: float
    accuracy: float
    per_class_f1: list[float]
    confusion: list[list[int]]
    n_train: int
    n_validation: int
    n_test: int
    seconds: float
