"""What a reader asks first of a generated set, answered in a sentence each with the references beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtraffic.report.judgements import TITLES, number_of, number_text

_COMPARED = ("fresh_real", "bootstrap", "marginals")


class Answer(NamedTuple):
    """A sentence about this run, and the same figure of the references ("" where there is none)."""

    text: str
    beside: str


def answers_of(judgements: Mapping[str, Any]) -> list[tuple[str, list[Answer]]]:
    """(question, answers) of what was judged; what was not is left out."""
    questions = (
        ("Do they teach a classifier?", (_utility,)),
        ("Do they help beside real flows?", (_augmentation,)),
        ("Can they be told apart from real flows?", (_discriminative,)),
        ("Do they lie where real flows lie?", (_coverage,)),
        ("Are they copies?", (_copies, _memory)),
        ("Could they have been on a wire?", (_rules, _atoms)),
    )
    found = [(question, [one for ask in asked if (one := ask(judgements))]) for question, asked in questions]
    return [(question, answers) for question, answers in found if answers]


def _utility(judgements: Mapping[str, Any]) -> Answer | None:
    real, synthetic, gap, error = (
        number_of(judgements, f"utility.weighted_f1_{name}") for name in ("real", "synthetic", "gap", "gap_stderr")
    )
    if gap is None:
        return None
    text = f"Weighted F1 gap {number_text(gap, signed=True)}{_noise(gap, error)}"
    if real is not None and synthetic is not None:
        text += (
            f": XGBoost reaches {number_text(synthetic)} on real test flows when trained on generated ones, "
            f"{number_text(real)} when trained on real ones"
        )
    return Answer(f"{text}.", _beside(judgements, "utility.weighted_f1_gap", _change))


def _augmentation(judgements: Mapping[str, Any]) -> Answer | None:
    gain, error = (number_of(judgements, f"augmentation.weighted_f1_{name}") for name in ("gain", "gain_stderr"))
    if gain is None:
        return None
    text = f"Trained on both, weighted F1 changes by {number_text(gain, signed=True)}{_noise(gain, error)}."
    return Answer(text, _beside(judgements, "augmentation.weighted_f1_gain", _change))


def _discriminative(judgements: Mapping[str, Any]) -> Answer | None:
    score, error = (number_of(judgements, f"discriminative.{name}") for name in ("score", "stderr"))
    if score is None:
        return None
    text = (
        f"XGBoost is right about {_share(0.5 + score)} of flows, where guessing is right about half: score "
        f"{number_text(score, signed=True)}{_noise(score, error)}."
    )
    return Answer(text, _beside(judgements, "discriminative.score", _change))


def _coverage(judgements: Mapping[str, Any]) -> Answer | None:
    for prefix, where in (("coverage.matched", " (equal numbers of flows)"), ("coverage", "")):
        keys = [f"{prefix}.{name}" for name in ("alpha_precision", "beta_recall")]
        precision, recall = (number_of(judgements, key) for key in keys)
        if precision is not None and recall is not None:
            pairs = {name: [number_of(judgements, key, name) for key in keys] for name in _COMPARED}
            beside = [
                f"{TITLES[name]} {number_text(pair[0])} and {number_text(pair[1])}"
                for name, pair in pairs.items()
                if None not in pair
            ]
            text = f"Alpha-precision {number_text(precision)}, beta-recall {number_text(recall)}{where}."
            return Answer(text, ", ".join(beside))
    return None


def _copies(judgements: Mapping[str, Any]) -> Answer | None:
    rate = number_of(judgements, "fidelity.copy_rate")
    if rate is None:
        return None
    text = f"{_share(rate)} of the flows are in the training set bit for bit."
    return Answer(text, _beside(judgements, "fidelity.copy_rate", _share))


def _memory(judgements: Mapping[str, Any]) -> Answer | None:
    closer, error = (number_of(judgements, f"privacy.closer_to_train{end}") for end in ("", "_stderr"))
    if closer is None:
        return None
    chance = ", which noise explains" if error and abs(closer - 0.5) <= 2 * error else ""
    text = f"{_share(closer)} lie nearer to training flows than to held-out ones (50% means no memory){chance}."
    return Answer(text, _beside(judgements, "privacy.closer_to_train", _share))


def _rules(judgements: Mapping[str, Any]) -> Answer | None:
    impossible = number_of(judgements, "semantics.impossible_share")
    if impossible is None:
        return None
    text = f"{_share(impossible)} of the flows break a rule that training flows keep."
    return Answer(text, _beside(judgements, "semantics.impossible_share", _share))


def _atoms(judgements: Mapping[str, Any]) -> Answer | None:
    atoms = number_of(judgements, "semantics.atom_distance")
    if atoms is None:
        return None
    text = f"{_share(atoms)} of the packets would have to change for the frequent exact sizes to fit."
    return Answer(text, _beside(judgements, "semantics.atom_distance", _share))


def _noise(value: float, error: float | None) -> str:
    """The standard error in brackets, and whether the value can be told from 0 by it."""
    if not error:
        return ""
    near = ", within noise of 0" if abs(value) <= 2 * error else ""
    return f" (\N{PLUS-MINUS SIGN}\N{NO-BREAK SPACE}{number_text(error)}{near})"


def _beside(judgements: Mapping[str, Any], key: str, text: Callable[[float], str]) -> str:
    found = ((TITLES[name], number_of(judgements, key, name)) for name in _COMPARED)
    return ", ".join(f"{title} {text(value)}" for title, value in found if value is not None)


def _change(value: float) -> str:
    return number_text(value, signed=True)


def _share(value: float) -> str:
    return f"{value:.1%}"
