"""What the augmentation test found: kinds of added flows, their gains, and the answer in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

METRICS = {"weighted_f1": "weighted F1", "macro_f1": "macro F1"}
TOKENS = "token_s4"
_METHODS = {
    "none": "no augmentation",
    TOKENS: "token S4",
    "translation": "Translate",
    "wrap": "Wrap",
    "gaussian_noise": "Gaussian",
    "marginals": "marginals",
    "bootstrap": "bootstrap copy",
}
_CLASSIFIERS = {
    "xgboost": "XGBoost",
    "random_forest": "random forest",
    "naive_bayes": "naive Bayes",
    "mlp": "MLP",
    "resnet": "ResNet",
}


class Kind(NamedTuple):
    """What is added to real flows.

    Attributes:
        method: "token_s4", "translation" and so on, or "none".
        temperature: of sampling, or None.
        labels: "training" (in the shares of the training flows) or "balanced" (evenly over classes).
        ratio: added flows for each real one.
    """

    method: str
    temperature: float | None
    labels: str
    ratio: float


class Difference(NamedTuple):
    """A mean difference of F1 (a fraction) over units with its 95 % interval; None without one, from a single unit."""

    mean: float
    low: float | None
    high: float | None

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)

    @property
    def text(self) -> str:
        """Points with their interval."""
        points = _points(self.mean)
        return points if self.low is None else f"{points} [{_points(self.low)}, {_points(self.high)}]"


class Cell(NamedTuple):
    """One kind by one classifier and metric.

    Attributes:
        classifier: name.
        metric: key of METRICS.
        kind: what is added.
        score: mean F1 on test flows, a fraction.
        gain: over no augmentation.
        lead: over that cell of Translate which has the best mean on the test flows.
    """

    classifier: str
    metric: str
    kind: Kind
    score: float
    gain: Difference
    lead: Difference


class Choice(NamedTuple):
    """One method by one classifier and metric, with the cell that the validation flows of each fold choose.

    Attributes:
        classifier: name.
        metric: key of METRICS.
        method: name.
        kinds: [fold] what was chosen.
        score: mean F1 on test flows, a fraction.
        gain: over no augmentation.
        lead: over Translate chosen alike.
        lead_best: over that cell of Translate which has the best mean on the test flows.
    """

    classifier: str
    metric: str
    method: str
    kinds: tuple[Kind, ...]
    score: float
    gain: Difference
    lead: Difference
    lead_best: Difference


def title_of(name: str) -> str:
    """Heading of a method or classifier."""
    return _METHODS.get(name) or _CLASSIFIERS.get(name, name)


def kind_text(kind: Kind) -> str:
    """A kind in a few characters: temperature, ratio and labels."""
    if kind.method == "none":
        return ""
    words = [f"{kind.ratio:g}"]
    if kind.temperature is not None:
        words.insert(0, f"T {kind.temperature:g}")
    return " x ".join(words) + (" balanced" if kind.labels == "balanced" else "")


def answer(cells: Sequence[Cell], choices: Sequence[Choice]) -> list[str]:
    """Whether samples of the token generator beat Translate, in sentences; the first is the answer."""
    own = [one for one in choices if one.method == TOKENS]
    if not own:
        return ["The token generator was not among the methods, so nothing is said of it."]
    above = [one for one in own if one.lead.sign > 0]
    below = [one for one in own if one.lead.sign < 0]
    if all(one.lead.low is None for one in own):
        said = "One unit only, so no intervals: whether token samples beat Translate is not decided."
    elif len(above) == len(own):
        said = "Yes: with mix and temperature chosen on validation flows, token samples beat Translate throughout"
    elif above:
        said = "In part: with mix and temperature chosen on validation flows, token samples beat Translate for "
        said += _listed(above)
    elif not below:
        said = (
            "Not shown: with mix and temperature chosen on validation flows, neither of token samples and Translate is "
        )
        said += "ahead by more than chance"
    else:
        said = "No: with mix and temperature chosen on validation flows, token samples nowhere beat Translate"
    if below:
        said += f"; they lose to it for {_listed(below)}"
    level = len(own) - len(above) - len(below)
    if own[0].lead.low is not None:
        said += f" ({level} of {len(own)} comparisons cannot be told from chance)."
    sentences = [said]
    for one in own:
        sentences.append(
            f"{title_of(one.classifier)}, {METRICS[one.metric]}: {100 * one.score:.2f} % with token samples, "
            f"{one.gain.text} points on no augmentation, {one.lead.text} on Translate chosen alike."
        )
    tried = [cell for cell in cells if cell.kind.method == TOKENS]
    better = [cell for cell in tried if cell.lead.mean > 0]
    surely = [cell for cell in tried if cell.lead.sign > 0]
    sentences.append(
        f"Of the {len(tried)} cells of token samples, {len(better)} have a higher mean on the test flows than "
        f"Translate's best cell, {len(surely)} of them by more than their interval; with that many cells, some do by "
        "luck."
    )
    copy = [one for one in choices if one.method == "bootstrap" and one.gain.sign > 0]
    if copy:
        sentences.append(
            f"A bootstrap copy, which adds no new flow, gains too for {_listed(copy)}: so much is weighing and "
            "training alone."
        )
    return sentences


def grouped(cells: Sequence[Cell]) -> list[tuple[str, str, list[Cell]]]:
    """(classifier, metric, its cells), titles as the page shows them."""
    names = dict.fromkeys(cell.classifier for cell in cells)
    return [
        (title_of(name), METRICS[metric], [cell for cell in cells if (cell.classifier, cell.metric) == (name, metric)])
        for name in names
        for metric in METRICS
    ]


def ratios_of(own: Sequence[Cell]) -> list[float]:
    """The ratios of added flows among the cells, in order."""
    return sorted({cell.kind.ratio for cell in own if cell.kind.method != "none"})


def rows_of(own: Sequence[Cell]) -> list[tuple[str, dict[float, Cell]]]:
    """Rows of a grid: method, temperature and labels in words, and its cells by ratio."""
    rows: dict[str, dict[float, Cell]] = {}
    for cell in own:
        kind = cell.kind
        if kind.method != "none":
            title = title_of(kind.method) + ("" if kind.temperature is None else f", T {kind.temperature:g}")
            rows.setdefault(title + (", balanced" if kind.labels == "balanced" else ""), {})[kind.ratio] = cell
    return list(rows.items())


def _listed(choices: Sequence[Choice]) -> str:
    names = [f"{title_of(one.classifier)} ({METRICS[one.metric]})" for one in choices]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.2f}".replace("-", "\N{MINUS SIGN}")
