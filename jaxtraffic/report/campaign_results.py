"""What the runs of an augmentation campaign say, as numbers: which run belongs to which study, gains, ranks, groups."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.published import AUGMENTATIONS

__all__ = ["POLICIES", "Policy", "Runs", "Study", "family_of", "per_class_gains", "title_of"]

BASELINE, CONTROL = "baseline", "baseline_steps"
"""Without augmentation; and the same with as many optimiser steps as Inject with one copy takes."""
POLICIES = {"replace": "Replace", "inject": "Inject", "pre_augment": "Pre-augment"}
"""Batching policies by their name in a config's name, in the paper's order."""
_TITLES = {
    BASELINE: "No augmentation",
    CONTROL: "None, as many steps",
    "ensemble": "Ensemble",
    "random_stack": "RandomStack",
}
_COMBINATION = re.compile(r"ensemble|random_stack|masked_stack(-.+)?")
_POLICY = re.compile(r"(?P<augmentation>[^/]+)/(?P<policy>replace|inject|pre_augment)-(?P<amount>[0-9.]+)")
_FIELDS = ("config", "fold", "seed", "epochs", "weighted_f1", "macro_f1", "per_class_f1", "confusion")


class Policy(NamedTuple):
    """A config of the study of policies: `amount` is p of Replace, or the copies of Inject and Pre-augment."""

    config: str
    augmentation: str
    policy: str
    amount: float

    @property
    def title(self) -> str:
        """As the paper writes it."""
        return f"{POLICIES[self.policy]} {'p' if self.policy == 'replace' else 'n'} = {self.amount:g}"


@dataclasses.dataclass(frozen=True)
class Study:
    """Which config belongs to which table.

    Attributes:
        augmentations: configs of G1, one an augmentation, in the order of the table.
        fixed: config with a fixed magnitude -> the config that draws it.
        policies: configs of G2.
        weighted: config with the class-weighted sampler -> the same without.
        combinations: configs of G4.
        members: augmentations that were combined; empty: the three of `augmentations` that gain most.
        max_epochs: limit of a run, None where it is not known.
        notes: sentences for the head of the page, such as what was reduced.
    """

    augmentations: tuple[str, ...] = ()
    fixed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    policies: tuple[Policy, ...] = ()
    weighted: Mapping[str, str] = dataclasses.field(default_factory=dict)
    combinations: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    max_epochs: int | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Iterable[str], **others: Any) -> Study:
        """The study that config names say by themselves.

        Args:
            names: "baseline"; "wrap"; "wrap@0.5"; "wrap/replace-0.3", "wrap/inject-2", "wrap/pre_augment-10";
                "wrap/weighted"; "ensemble", "random_stack", "masked_stack-0.3"; "baseline_steps", the control of G1.
                "wrap" is Inject with one copy, too.
            others: members, max_epochs, notes.

        Raises:
            ConfigError: a name that says none of these.
        """
        names = list(dict.fromkeys(names))
        single = [name for name in names if not re.search("[/@]", name) and not _COMBINATION.fullmatch(name)]
        single = [name for name in single if name not in (BASELINE, CONTROL)]
        order = {name: index for index, name in enumerate(AUGMENTATIONS)}
        augmentations = sorted(single, key=lambda name: order.get(name, len(order)))
        fixed, weighted, policies, combined = {}, {}, [], []
        for name in names:
            found = _POLICY.fullmatch(name)
            if found:
                policies.append(Policy(name, found["augmentation"], found["policy"], float(found["amount"])))
            elif name.endswith("/weighted"):
                weighted[name] = name.removesuffix("/weighted")
            elif "@" in name and "/" not in name:
                fixed[name] = name.partition("@")[0]
            elif _COMBINATION.fullmatch(name):
                combined.append(name)
            elif name not in (BASELINE, CONTROL, *single):
                raise ConfigError(
                    f"config {name!r} belongs to no table; names are like wrap, wrap@0.5, wrap/replace-0.3, "
                    "wrap/inject-2, wrap/pre_augment-10, wrap/weighted, ensemble, random_stack, masked_stack-0.3"
                )
        for augmentation in dict.fromkeys(policy.augmentation for policy in policies):
            one = (augmentation, "inject", 1.0)
            if augmentation in single and not any(policy[1:] == one for policy in policies):
                policies.append(Policy(augmentation, *one))
        # Single ones that another study brought along are no G1, which has its control or augmentations of its own.
        brought = {policy.augmentation for policy in policies} | {*weighted.values(), *others.get("members", ())}
        if brought and brought.issuperset(augmentations) and CONTROL not in names and not fixed:
            augmentations = []
        policies.sort(key=lambda policy: (list(POLICIES).index(policy.policy), policy.amount))
        return cls(tuple(augmentations), fixed, tuple(policies), weighted, tuple(combined), **others)

    @property
    def configs(self) -> set[str]:
        """All names that some table shows."""
        named = {BASELINE, CONTROL, *self.augmentations, *self.combinations, *self.members}
        for pairs in (self.fixed, self.weighted):
            named |= {*pairs, *pairs.values()}
        return named | {policy.config for policy in self.policies}


class Runs:
    """Results by config and block, a block being one fold with one seed: the unit that is paired.

    Args:
        results: dicts as `dataclasses.asdict(RunResult)`.
        class_names: of the confusion matrices.

    Raises:
        ConfigError: a missing field, a matrix that does not fit the classes, or a config that was run twice
            on the same fold and seed.
    """

    def __init__(self, results: Sequence[Mapping[str, Any]], class_names: Sequence[str]):
        self.class_names, self.all = tuple(class_names), list(results)
        self._by: dict[str, dict[tuple[int, int], Mapping[str, Any]]] = {}
        for result in results:
            missing = [name for name in _FIELDS if name not in result]
            if missing:
                raise ConfigError(f"a result lacks {', '.join(missing)}; expected the fields of classify.RunResult")
            shape, wanted = np.shape(result["confusion"]), (len(self.class_names),) * 2
            block = (int(result["fold"]), int(result["seed"]))
            where = f"{result['config']}, fold {block[0]}, seed {block[1]}"
            if shape != wanted or len(result["per_class_f1"]) != wanted[0]:
                raise ConfigError(f"{where}: the confusion matrix is {shape}, {wanted} was expected for the classes")
            if block in self._by.setdefault(result["config"], {}):
                raise ConfigError(f"{where}: there are two results; keep one of them")
            self._by[result["config"]][block] = result

    @property
    def names(self) -> list[str]:
        """Configs, in the order of the results."""
        return list(self._by)

    def has(self, *names: str) -> bool:
        """Whether all of these configs were run on some block that they share."""
        return bool(self.blocks(names))

    def blocks(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """(fold, seed) pairs on which all of the configs have a finite score, sorted."""
        shared: set[tuple[int, int]] | None = None
        for name in names:
            mine = {block for block, run in self._by.get(name, {}).items() if math.isfinite(real(run["weighted_f1"]))}
            shared = mine if shared is None else shared & mine
        return sorted(shared or ())

    def runs(self, name: str) -> list[Mapping[str, Any]]:
        """All results of a config."""
        return list(self._by.get(name, {}).values())

    def values(self, name: str, blocks: Iterable[tuple[int, int]], field: str = "weighted_f1") -> np.ndarray:
        """[block] one number of each run."""
        return np.array([real(self._by[name][block][field]) for block in blocks], dtype=np.float64)

    def per_class(self, name: str, blocks: Iterable[tuple[int, int]]) -> np.ndarray:
        """[block, class] F1; NaN where a class is absent."""
        return np.array([[real(value) for value in self._by[name][block]["per_class_f1"]] for block in blocks])

    def grouped(self, name: str, blocks: Iterable[tuple[int, int]], members: np.ndarray) -> np.ndarray:
        """[block, 3] precision, recall and F1 over the classes of a group, as `group_scores` has them."""
        return np.array([group_scores(self._by[name][block]["confusion"], members) for block in blocks]).reshape(-1, 3)


def group_scores(confusion: Any, members: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of some classes, each class weighted by its test flows.

    Args:
        confusion: [class, class] flows by true and by predicted class; all classes, so that flows of others that were
            taken for a member count against its precision.
        members: [class] bool.

    Returns:
        Fractions; NaN where no member has a test flow. A class that was never predicted has precision 0.
    """
    matrix = np.asarray(confusion, dtype=np.float64)
    hits, support, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    weight = np.where(members, support, 0.0)
    if not weight.sum():
        return (math.nan,) * 3
    each = (
        hits / np.where(predicted > 0, predicted, 1),
        hits / np.where(support > 0, support, 1),
        2 * hits / np.where(predicted + support > 0, predicted + support, 1),
    )
    precision, recall, f1 = (float((weight * value).sum() / weight.sum()) for value in each)
    return precision, recall, f1


def per_class_gains(runs: Runs, names: Sequence[str]) -> np.ndarray:
    """[config, class] mean difference of F1 to the baseline over the blocks where both have the class; NaN: none."""
    rows = []
    for name in names:
        blocks = runs.blocks((BASELINE, name))
        difference = runs.per_class(name, blocks) - runs.per_class(BASELINE, blocks)
        there = np.isfinite(difference)
        count = there.sum(axis=0)
        total = np.where(there, difference, 0.0).sum(axis=0)
        rows.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return np.array(rows).reshape(len(names), len(runs.class_names))


def title_of(name: str) -> str:
    """What people call a config: the paper's name of an augmentation, else the name in words."""
    if name in AUGMENTATIONS:
        return AUGMENTATIONS[name].title
    if name in _TITLES:
        return _TITLES[name]
    stem, _, rest = name.partition("-")
    if stem == "masked_stack":
        return f"MaskedStack (p = {rest})" if rest else "MaskedStack"
    for mark, words in (("@", ", \N{GREEK SMALL LETTER ALPHA} = {}"), ("/", ", {}")):
        if mark in name:
            stem, _, rest = name.partition(mark)
            return title_of(stem) + words.format(rest)
    return name.replace("_", " ").capitalize()


def family_of(name: str) -> str:
    """The paper's family of an augmentation; "Other" for one that is not in it."""
    return AUGMENTATIONS[name].family if name in AUGMENTATIONS else "Other"


def real(value: Any) -> float:
    """A number that may have been null in JSON."""
    return math.nan if value is None else float(value)
