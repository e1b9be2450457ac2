"""Judging a tuned generator against what it was before and against tuning on random flows, with standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from jaxtraffic import evaluate
from jaxtraffic.classify.scores import f1_difference_stderr, f1_per_class, f1_scores
from jaxtraffic.evaluate.classification import features
from jaxtraffic.evaluate.rows import n_packets, row_keys
from jaxtraffic.evaluate.train_on_synthetic import predict, utility_of
from jaxtraffic.generate.mi_tune import Candidates, Round
from jaxtraffic.information import observers
from jaxtraffic.series import PacketSeries

_GROUPS = 20
"""Groups of the jackknife."""
PAIRS = {"tuned_minus_before": ("before", "tuned"), "random_minus_before": ("before", "random")} | {
    "tuned_minus_random": ("random", "tuned")
}


class Judge(NamedTuple):
    """The real flows that every set is judged with; `on_real` are the labels [flow] XGBoost gives `test`."""

    train: PacketSeries
    held_out: PacketSeries
    test: PacketSeries
    on_real: np.ndarray
    seed: int

    @classmethod
    def of(cls, train: PacketSeries, held_out: PacketSeries, test: PacketSeries, seed: int) -> Judge:
        """Trains XGBoost on the training flows, once for all sets."""
        return cls(train, held_out, test, predict(train, features(test), seed, None), seed)


class Judged(NamedTuple):
    """One generated set with what was found about it.

    Attributes:
        flows: the set.
        mi: [flow] nats, squared form.
        loss: [held-out flow] loss of the generator that made the set, on real flows.
        predicted: [test flow] labels by XGBoost trained on the set.
        figures: flat keys.
    """

    flows: PacketSeries
    mi: np.ndarray
    loss: np.ndarray
    predicted: np.ndarray
    figures: dict[str, float | int]


def judge_set(judge: Judge, flows: PacketSeries, mi: np.ndarray, loss: np.ndarray) -> Judged:
    """Utility, discriminative score, fidelity, information and held-out loss of one generated set."""
    y = np.asarray(judge.test.label)
    predicted = predict(flows, features(judge.test), judge.seed, None)
    told = observers.summary(mi, np.asarray(flows.label), len(flows.class_names))
    figures = (
        _under("utility", utility_of(y, judge.on_real, predicted, judge.seed))
        | _under("discriminative", evaluate.discriminative_score(judge.train, flows, judge.seed))
        | _under("fidelity", evaluate.fidelity(judge.train, flows, _n_distinct(judge, flows), judge.seed))
        | {"information.mean": told.mean, "information.stderr": told.stderr, "loss.held_out": float(loss.mean())}
    )
    return Judged(flows, mi, loss, predicted, figures)


def fresh_real(judge: Judge, n_flows: int) -> dict[str, float | int]:
    """The same figures of real flows that training did not see, as far as they exist for real flows."""
    distinct = min(n_flows, len(judge.held_out))
    score = evaluate.discriminative_score(judge.train, judge.held_out, judge.seed)
    return _under("discriminative", score) | _under(
        "fidelity", evaluate.fidelity(judge.train, judge.held_out, distinct, judge.seed)
    )


def changes(judge: Judge, old: Judged, new: Judged) -> dict[str, tuple[float, float]]:
    """Metric -> (new - old, its standard error), for two sets sampled with the same keys and labels.

    Standard errors are over test flows for F1 (paired bootstrap), over held-out flows for the loss (paired), and over
    generated flows for the rest (paired, but for the discriminative score, whose classifiers count as independent).
    """
    y = np.asarray(judge.test.label)
    stderr = f1_difference_stderr(y, old.predicted, new.predicted, judge.seed)
    before, after = f1_scores(y, old.predicted), f1_scores(y, new.predicted)
    found = {name: (after[name] - before[name], stderr[name]) for name in after}
    scores = [each.figures["discriminative.score"] for each in (old, new)]
    errors = [each.figures["discriminative.stderr"] for each in (old, new)]
    found["discriminative"] = (scores[1] - scores[0], math.hypot(*errors))
    found["information"] = _paired(new.mi - old.mi)
    rows = [features(each.flows) for each in (old, new)]
    known = row_keys(features(judge.train))
    copies = [np.isin(row_keys(part), known).astype(float) for part in rows]
    found["copy_rate"] = _paired(copies[1] - copies[0])
    keys = [row_keys(part) for part in rows]
    found["distinct_share"] = _jackknife(len(rows[0]), lambda use: _distinct(keys[1][use]) - _distinct(keys[0][use]))
    found["mean_packets"] = _paired(n_packets(rows[1]) - n_packets(rows[0]))
    found["held_out_loss"] = _paired(new.loss - old.loss)
    return found


def over_repeats(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean over repeated tunings, and a standard error that holds the errors within and the spread between repeats.

    All repeats are judged on the same test flows and keys, so the error within does not shrink with their number.
    """
    mean = float(np.mean([value for value, _ in values]))
    within = float(np.mean([error**2 for _, error in values]))
    between = float(np.var([value for value, _ in values], ddof=1)) / len(values) if len(values) > 1 else 0.0
    return mean, math.sqrt(within + between)


def figures_of(
    judge: Judge, before: Judged, arms: Mapping[str, Sequence[Judged]], class_names: Sequence[str]
) -> dict[str, float | int]:
    """Flat keys of report.json: levels of every set, changes between them, and figures per class.

    Args:
        judge: the real flows.
        before: the generator as it was.
        arms: "tuned" and "random", a set for each repeat.
        class_names: names of the classes.
    """
    sets = {"before": [before]} | {name: list(made) for name, made in arms.items()}
    prefixes = {"tuned": "", "before": "reference.before.", "random": "reference.random."}
    found: dict[str, float | int] = {}
    for name, made in sets.items():
        for key in made[0].figures:
            values = [one.figures[key] for one in made]
            found[prefixes[name] + key] = values[0] if isinstance(values[0], int) else float(np.mean(values))
    found |= _under("reference.fresh_real", fresh_real(judge, len(before.flows)))
    found["information.ceiling"] = observers.ceiling(judge.train.counts())
    for pair, (old, new) in PAIRS.items():
        count = max(len(sets[old]), len(sets[new]))
        each = [changes(judge, sets[old][r % len(sets[old])], sets[new][r % len(sets[new])]) for r in range(count)]
        for metric in each[0]:
            mean, stderr = over_repeats([one[metric] for one in each])
            found |= {f"change.{pair}.{metric}": mean, f"change.{pair}.{metric}_stderr": stderr}
    return found | _per_class(judge, sets, class_names)


def _per_class(judge: Judge, sets: Mapping[str, Sequence[Judged]], class_names: Sequence[str]) -> dict[str, Any]:
    y = np.asarray(judge.test.label)
    count, found = np.bincount(y, minlength=len(class_names)), {}
    share = judge.train.counts() / len(judge.train)
    real = f1_per_class(y, judge.on_real)
    f1 = {name: [f1_per_class(y, one.predicted) for one in made] for name, made in sets.items()}
    for label, class_name in enumerate(class_names):
        own = {"n_test": int(count[label])} | ({"f1_real": real[label]} if label in real else {})
        if share[label] > 0:
            # p(x) is at least p(y) p(x | y), so that no log-ratio of the class is above this.
            own["mi_ceiling"] = float(-np.log(share[label]))
        for name, made in sets.items():
            mi = [one.mi[np.asarray(one.flows.label) == label] for one in made]
            if mi[0].size:
                own[f"mi_{name}"] = float(np.mean([part.mean() for part in mi]))
            if label in real:
                own[f"f1_{name}"] = float(np.mean([scores[label] for scores in f1[name]]))
        found |= _under(f"per_class.{class_name}", own)
    return found


def agreement(drawn: Candidates) -> dict[str, float]:
    """Spearman correlations of the forms on candidates of one class, averaged over classes; keys "squared_path_wise".

    Within classes, because that is where tuning ranks. A class whose scores are all equal is left out.
    """
    label, forms, found = np.asarray(drawn.flows.label), list(drawn.mi), {}
    for i, one in enumerate(forms):
        for other in forms[i + 1 :]:
            values = []
            for value in np.unique(label):
                pair = [drawn.mi[form][label == value] for form in (one, other)]
                if all(np.ptp(scores) > 0 for scores in pair):
                    values.append(spearmanr(*pair).statistic)
            if values:
                found[f"{one}_{other}"] = float(np.mean(values))
                found[f"{one}_{other}_stderr"] = float(np.std(values, ddof=1) / len(values) ** 0.5) if values[1:] else 0
    return found


def rounds_of(arm: str, history: Sequence[Round]) -> dict[str, float]:
    """Flat keys of what happened in each round of one tuning."""
    found = {}
    for number, one in enumerate(history):
        mi, rows = one.candidates.mi["squared"], features(one.candidates.flows)
        found |= _under(
            f"round.{number}.{arm}",
            {
                "candidates_mi": float(mi.mean()),
                "kept_mi": float(mi[one.kept].mean()),
                "candidates_distinct_share": _distinct(row_keys(rows)),
                "kept_distinct_share": _distinct(row_keys(rows[one.kept])),
                "first_loss": float(one.losses[0]),
                "last_loss": float(one.losses[-1]),
            },
        )
    return found


def _n_distinct(judge: Judge, flows: PacketSeries) -> int:
    """Distinct sequences are comparable among equally many flows only."""
    return min(len(flows), len(judge.held_out))


def _distinct(keys: np.ndarray) -> float:
    return len(np.unique(keys)) / len(keys)


def _paired(difference: np.ndarray) -> tuple[float, float]:
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


def _jackknife(n: int, statistic: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """A statistic of all n rows and its standard error, leaving one of 20 groups of rows out at a time."""
    group = np.arange(n) % min(_GROUPS, n)
    without = np.array([statistic(group != one) for one in np.unique(group)])
    return statistic(np.ones(n, bool)), float(np.sqrt((len(without) - 1) * without.var()))


def _under(prefix: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in figures.items()}
