"""The whole judgement of generated sets, with the same figures for sets that are known to be good or bad."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxtraffic.classify.scores import capture_accuracy_gap, f1_per_class
from jaxtraffic.classify.trees import n_cores
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.classification import features
from jaxtraffic.evaluate.discriminate import (
    FEWEST_FLOWS,
    discriminative_score,
    distinct_discriminative_score,
    logistic_discriminative_score,
)
from jaxtraffic.evaluate.downstream import downstream, predict_with
from jaxtraffic.evaluate.frechet import frechet_of, latent_classifier
from jaxtraffic.evaluate.panel import panel, under
from jaxtraffic.evaluate.privacy import privacy
from jaxtraffic.evaluate.resample import capture_halves, halves
from jaxtraffic.evaluate.rows import first_of_each
from jaxtraffic.evaluate.scaling_curves import scaling
from jaxtraffic.evaluate.times import has_times
from jaxtraffic.evaluate.train_on_synthetic import augmentation_of, check_alike, predict, utility_of
from jaxtraffic.series import PacketSeries

GENERATED = "generated"
"""The set whose figures stand in report.json without a prefix."""
_FRESH, _RANDOM, _CAPTURE = REAL_REFERENCES = ("fresh_real", "random_half", "capture_half")


class Judgement(NamedTuple):
    """What was found.

    Attributes:
        data: counts of flows and classes, flat keys "data.n_train" and so on.
        sets: set name -> flat keys "group.metric"; the real references are sets too.
        curves: set name -> group -> curve -> list, JSON-able; for the page.
    """

    data: dict[str, float | int]
    sets: dict[str, dict[str, float | int]]
    curves: dict[str, dict[str, dict[str, Any]]]

    @property
    def figures(self) -> dict[str, float | int]:
        """Flat keys of report.json: those of `generated` as they stand, of the others under `reference.<name>.`."""
        flat = self.data | self.sets.get(GENERATED, {})
        for name, figures in self.sets.items():
            if name != GENERATED:
                flat |= under(f"reference.{name}", figures)
        return flat


def judge(
    train: PacketSeries,
    held_out: PacketSeries,
    test: PacketSeries,
    synthetic: PacketSeries,
    *,
    references: Mapping[str, PacketSeries],
    larger: PacketSeries | None = None,
    **options: Any,
) -> Judgement:
    """`judge_sets` of generated flows and of references such as "marginals" and "bootstrap"; times where it has any.

    Args:
        train: the real flows that the generator learnt from.
        held_out: all real flows that it did not see, validation and test.
        test: the real test flows.
        synthetic: the generated flows.
        references: further generated sets by name; may be empty.
        larger: several times as many generated flows as `train`, for scaling curves (see `scaling`).
        options: of `judge_sets`.

    Raises:
        ConfigError: what `judge_sets` refuses.
    """
    sets = {GENERATED: synthetic} | dict(references)
    judged = judge_sets(train, held_out, test, sets, with_times=has_times(synthetic), **options)
    if larger is not None:
        shared = {name: options[name] for name in ("seed", "params") if name in options}
        figures, curves = scaling(train, larger, test, **shared)
        judged.sets[GENERATED].update(under("scaling", figures))
        judged.curves[GENERATED]["scaling"] = curves
    return judged


def judge_sets(
    train: PacketSeries,
    held_out: PacketSeries,
    test: PacketSeries,
    sets: Mapping[str, PacketSeries],
    *,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
    models: Sequence[str] = (),
    unseen: bool = True,
    real_references: bool = True,
    with_times: bool = False,
    mesh: Mesh | None = None,
) -> Judgement:
    """Judges generated sets and, beside them, real flows.

    Groups of keys of each set:

    * `utility.*`: see `utility`; also `utility.distinct.*`, on test flows of which no two share sequence and label;
      `utility.capture_accuracy_gap` (and `_stderr`, `utility.n_captures`), where test flows come from several captures;
      and `utility.per_class.<class name>.f1_real`, `.f1_synthetic`, `.n_test` for the classes in `test`.
    * `augmentation.*`: see `augmentation`.
    * `discriminative.score`, `.stderr`, `.n_test` against `train`; `.held_out_score` (and `_stderr`, `_n_test`)
      against `held_out`, where copies of training flows gain nothing; `.distinct_score` (and `_stderr`, `_n_test`)
      against `train`, every sequence once; `.logistic_score`, the same as the first by logistic regression. The first
      is comparable with published scores; compare the second with the first of fresh real flows, whose classifier
      learns from as few flows.
    * `fidelity`, `density`, `correlation`, `coverage`, `kernel`, `support`, `semantics`: see `panel`.
    * `latent.frechet`: see `frechet_of`; all sets at the same number of flows, `data.n_matched`.
    * `privacy.*`: see `privacy`.
    * `downstream.<model>.*` for each of `models`: see `downstream`.

    Real references, judged as if they were generated:

    * `fresh_real`, a perfect generator: `held_out` against `train`. Where folds are grouped by capture it holds the
      shift between captures. Its utility and augmentation come from two disjoint halves A and B of `train`, alike in
      classes: utility is training on B against training on A, augmentation is training on A and B against training on
      A. Its privacy is that of one half of `held_out` with the other as the hold-out.
    * `random_half`: B against A, without any shift; utility and augmentation are those of fresh_real.
    * `capture_half`: the same with halves that share no capture (see `capture_halves`), where captures are known.

    Args:
        train: the real flows that the generators learnt from.
        held_out: all real flows that they did not see, validation and test.
        test: the real test flows.
        sets: generated flows by name, at least one.
        seed: seed of every draw.
        params: changes to `XGBOOST_PARAMETERS`.
        models: further downstream models (`downstream.MODELS`) beside XGBoost.
        unseen: False where the generators may have seen `held_out`; then privacy and scores against it are left out.
        real_references: False leaves the real references out.
        with_times: compare inter-arrival times too (`times.*`, see `times`), in sets that have some.
        mesh: devices for distances between all pairs; default: all.

    Raises:
        ConfigError: an empty set, other class names or another length, too few flows, a set with the name of a real
            reference.
    """
    taken = sorted(set(sets) & set(REAL_REFERENCES))
    if taken or not sets:
        raise ConfigError(f"judge needs at least one set, none called {', '.join(taken or REAL_REFERENCES)}")
    check_alike(train=train, held_out=held_out, test=test, **sets)
    x, y = features(test), np.asarray(test.label)
    distinct = first_of_each(np.column_stack([x, y.astype(np.float32)]))
    pairs = _real_pairs(train, held_out, seed) if real_references else {}
    compared = {name: (train, flows) for name, flows in sets.items()} | pairs
    n_matched = min([len(held_out), *(len(flows) for pair in compared.values() for flows in pair)])
    # One fit gains little from several threads (see XGBOOST_PARAMETERS), so the fits run side by side instead.
    workers = n_cores()
    params = {"nthread": max(1, workers // (5 * len(compared) + 1))} | dict(params or {})

    def classify(*flows: PacketSeries) -> np.ndarray:
        return predict(flows, x, seed, params)

    def tell_apart(real: PacketSeries, flows: PacketSeries) -> dict[str, float | int]:
        score = discriminative_score(real, flows, seed, params)
        logistic = logistic_discriminative_score(real, flows, seed)
        return score | _distinct_score(real, flows, seed, params) | {f"logistic_{k}": v for k, v in logistic.items()}

    def tell_apart_held_out(flows: PacketSeries) -> dict[str, float | int]:
        score = discriminative_score(held_out, flows, seed, params)
        return {f"held_out_{name}": value for name, value in score.items()}

    several_captures = test.group is not None and len(np.unique(test.group)) > 1
    figures: dict[str, dict[str, float | int]] = {}
    curves: dict[str, dict[str, dict[str, Any]]] = {}
    with ThreadPoolExecutor(workers) as pool:
        trained: dict[str, tuple[Future, Future, Future]] = {}
        real = pool.submit(classify, train)
        for name, (own, flows) in compared.items():
            if name != _FRESH:
                base = real if own is train else pool.submit(classify, own)
                # Both random halves together are the training set, whose classifier is there already.
                joined = real if name == _RANDOM else pool.submit(classify, own, flows)
                trained[name] = (base, joined, pool.submit(classify, flows))
        apart = {name: pool.submit(tell_apart, own, flows) for name, (own, flows) in compared.items()}
        apart_held_out = {name: pool.submit(tell_apart_held_out, flows) for name, flows in sets.items() if unseen}
        try:
            # A ResNet costs several times as much.
            latent = latent_classifier(train, held_out, seed=seed, model="mlp")
            by_model = {model: predict_with(model, train, test, seed=seed) for model in models}
            for name, (own, flows) in compared.items():
                found = panel(own, flows, n_matched=n_matched, with_times=with_times, seed=seed, mesh=mesh)
                figures[name], curves[name] = dict(found.figures), dict(found.curves)
                # Fewer flows raise it, so that sets are comparable at one number only.
                alike = (side[_draw(len(side), n_matched, seed)] for side in (own, flows))
                figures[name] |= under("latent", frechet_of(latent, *alike)[0])
                sides = _privacy_sides(name, train, held_out, flows, seed) if unseen else None
                if sides:
                    measured, curves[name]["privacy"] = privacy(*sides, seed=seed)
                    figures[name] |= under("privacy", measured)
                if models and name != _FRESH:
                    known = by_model if own is train else None
                    scores, _ = downstream(own, flows, test, models=models, seed=seed, real=known)
                    figures[name] |= under("downstream", scores)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for name in compared:
        figures[name] |= under("discriminative", apart[name].result())
        if name in apart_held_out:
            figures[name] |= under("discriminative", apart_held_out[name].result())
    for name, futures in trained.items():
        base, joined, alone = (future.result() for future in futures)
        figures[name] |= under("utility", utility_of(y, base, alone, seed))
        figures[name] |= under("utility.distinct", utility_of(y[distinct], base[distinct], alone[distinct], seed))
        if several_captures:
            figures[name] |= under("utility", capture_accuracy_gap(y, base, alone, test.group))
        figures[name] |= under("augmentation", augmentation_of(y, base, joined, seed))
        if name in sets:
            figures[name] |= _per_class(train.class_names, y, base, alone)
            n = len(train.class_names)
            curves[name]["confusion"] = {"real": _confusion(y, base, n), "synthetic": _confusion(y, alone, n)}
    if real_references:
        by_training = ("utility.", "augmentation.", "downstream.")
        figures[_FRESH] |= {key: value for key, value in figures[_RANDOM].items() if key.startswith(by_training)}
    data = {
        "data.n_train": len(train),
        "data.n_held_out": len(held_out),
        "data.n_test": len(test),
        "data.n_test_distinct": len(distinct),
        "data.n_classes": len(train.class_names),
        "data.n_matched": n_matched,
    }
    for name, (_, flows) in compared.items():
        figures[name]["data.n_synthetic"] = len(flows)
    return Judgement(data, figures, curves)


def _real_pairs(train: PacketSeries, held_out: PacketSeries, seed: int) -> dict[str, tuple[PacketSeries, PacketSeries]]:
    """Real reference -> (what stands for the training set, what stands for generated flows)."""
    pairs = {_FRESH: (train, held_out), _RANDOM: halves(train, seed)}
    if train.group is not None:
        # One capture, or each class from one: there is no such reference then.
        with contextlib.suppress(ConfigError):
            pairs[_CAPTURE] = capture_halves(train, seed)
    return pairs


def _privacy_sides(
    name: str, train: PacketSeries, held_out: PacketSeries, flows: PacketSeries, seed: int
) -> tuple[PacketSeries, PacketSeries, PacketSeries] | None:
    """(train, hold-out, what is judged); fresh real flows need a hold-out of their own, halves of train have none."""
    if name in (_RANDOM, _CAPTURE):
        return None
    if name != _FRESH:
        return train, held_out, flows
    if len(held_out) < 2:
        return None
    other, judged = halves(held_out, seed)
    return train, other, judged


def _distinct_score(
    train: PacketSeries, flows: PacketSeries, seed: int, params: Mapping[str, Any] | None
) -> dict[str, float | int]:
    """Left out where too few distinct sequences remain, as with a generator that has collapsed to a few."""
    sides = [rows[first_of_each(rows)] for rows in (features(train), features(flows))]
    if min(map(len, sides)) < FEWEST_FLOWS:
        return {}
    score = distinct_discriminative_score(*sides, seed, params)
    return {f"distinct_{name}": value for name, value in score.items()}


def _per_class(
    class_names: tuple[str, ...], y: np.ndarray, real: np.ndarray, synthetic: np.ndarray
) -> dict[str, float | int]:
    f1_real, f1_synthetic, count = f1_per_class(y, real), f1_per_class(y, synthetic), np.bincount(y)
    figures: dict[str, float | int] = {}
    for label in f1_real:
        figures |= under(
            f"utility.per_class.{class_names[label]}",
            {"f1_real": f1_real[label], "f1_synthetic": f1_synthetic[label], "n_test": int(count[label])},
        )
    return figures


def _draw(n_rows: int, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(n_rows)[:n]


def _confusion(y: np.ndarray, predicted: np.ndarray, n_classes: int) -> list[list[int]]:
    """[true class][predicted class] test flows."""
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (y, predicted), 1)
    return counts.tolist()
