"""Which configurations the studies of PAM'24 consist of; report/campaign_results.py reads their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxtraffic import augment
from jaxtraffic.classify import ClassifierConfig
from jaxtraffic.errors import ConfigError

PAPER = tuple(name for name, entry in augment.AUGMENTATIONS.items() if entry.in_paper)
"""The 18 augmentations of PAM'24."""
CONTROL = "baseline_steps"
"""No augmentation, with as many optimiser steps as Inject n = 1 takes: what its further steps alone are worth."""
BEST_OF_PAPER = ("translation", "wrap", "permutation")
"""The best three of PAM'24 on MIRAGE-19."""
FIXED_ALPHA = 0.5
STACK_SHARES = (0.3, 0.5, 0.7)

PRESETS = {
    # As published.
    "paper": ClassifierConfig(),
    # For thousands of flows and a CPU: small batches, so that few flows make enough steps.
    "small": ClassifierConfig(batch_size=128, max_epochs=30),
    "tiny": ClassifierConfig(batch_size=64, max_epochs=6, model="mlp"),
}


def injected(base: ClassifierConfig, name: str, augmentation: object = None, **changes: object) -> ClassifierConfig:
    """A configuration with Inject n = 1, which is what G1, G3 and G4 use."""
    op = augment.get(name) if augmentation is None else augmentation
    return dataclasses.replace(base, **({"name": name, "augmentation": op, "policy": "inject"} | changes))


def check_names(names: Sequence[str]) -> None:
    """Raises ConfigError for a name that is no augmentation, or none that a campaign can use."""
    for name in names:
        injected(ClassifierConfig(), name).check()


def g1(base: ClassifierConfig, names: Sequence[str], *, magnitude: bool) -> list[ClassifierConfig]:
    """Baseline, control, every augmentation with random magnitude, and with `magnitude` with the fixed one too."""
    control = dataclasses.replace(base, name=CONTROL, batch_size=base.batch_size // 2)
    fixed = [name for name in names if magnitude and augment.AUGMENTATIONS[name].has_magnitude]
    return [
        base,
        control,
        *(injected(base, name) for name in names),
        *(injected(base, f"{name}@{FIXED_ALPHA}", augment.get(name), alpha=FIXED_ALPHA) for name in fixed),
    ]


def g2(base: ClassifierConfig, name: str) -> list[ClassifierConfig]:
    """Batching policies of one augmentation at a constant step batch, and the class-weighted sampler."""
    op = augment.get(name)

    def policy(kind: str, amount: float) -> ClassifierConfig:
        return dataclasses.replace(base, name=f"{name}/{kind}-{amount:g}", augmentation=op, policy=kind, amount=amount)

    return [
        base,
        injected(base, name),
        *(policy("replace", p) for p in (0.3, 0.5, 1)),
        *(policy("inject", n) for n in (2, 4, 8)),
        policy("pre_augment", 10),
        dataclasses.replace(base, name="baseline/weighted", class_weighted=True),
        injected(base, f"{name}/weighted", op, class_weighted=True),
    ]


def g3(base: ClassifierConfig, names: Sequence[str]) -> list[ClassifierConfig]:
    """The networks whose latent spaces are looked at."""
    return [base, *(injected(base, name) for name in names)]


def g4(base: ClassifierConfig, best: Sequence[str]) -> list[ClassifierConfig]:
    """Combinations of the best augmentations beside each of them alone.

    The paper's p is given to `augment.masked_stack` as `p_apply`; see there for the other reading.
    """
    ops = [augment.get(name) for name in best]
    return [
        base,
        *(injected(base, name) for name in best),
        injected(base, "ensemble", augment.ensemble(*ops)),
        injected(base, "random_stack", augment.random_stack(*ops)),
        *(injected(base, f"masked_stack-{p}", augment.masked_stack(*ops, p_apply=p)) for p in STACK_SHARES),
    ]


def best_of(gains: dict[str, float], count: int = 3) -> tuple[str, ...]:
    """Names by gain, best first.

    Raises:
        ConfigError: fewer names than asked for.
    """
    if len(gains) < count:
        raise ConfigError(f"the best {count} augmentations are asked for and {len(gains)} were run; give --best")
    return tuple(sorted(gains, key=gains.get, reverse=True)[:count])
