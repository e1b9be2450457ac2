"""The whole judgement of one generated set, with the same figures for sets that are known to be good or bad."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxtraffic.classify.scores import f1_per_class
from jaxtraffic.classify.trees import n_cores
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.classification import features
from jaxtraffic.evaluate.discriminate import FEWEST_FLOWS, discriminative_score, distinct_discriminative_score
from jaxtraffic.evaluate.fidelity import fidelity
from jaxtraffic.evaluate.resample import halves
from jaxtraffic.evaluate.rows import first_of_each
from jaxtraffic.evaluate.train_on_synthetic import augmentation_of, check_alike, predict, utility_of
from jaxtraffic.series import PacketSeries

_FRESH = "fresh_real"


def judge(
    train: PacketSeries,
    held_out: PacketSeries,
    test: PacketSeries,
    synthetic: PacketSeries,
    *,
    references: Mapping[str, PacketSeries],
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> dict[str, float | int]:
    """Judges generated flows, and beside them each reference set and fresh real flows.

    Groups of keys, for `synthetic` as they stand and for each reference under `reference.<name>.`:

    * `utility.*`: see `utility`; also `utility.distinct.*`, on test flows of which no two share sequence and label.
    * `augmentation.*`: see `augmentation`.
    * `discriminative.score`, `.stderr`, `.n_test` against `train`; `.held_out_score` (and `_stderr`, `_n_test`)
      against `held_out`, where copies of training flows gain nothing; `.distinct_score` (and `_stderr`, `_n_test`)
      against `train`, every sequence once. The first is comparable with published scores; compare the second with
      the first of fresh real flows, whose classifier learns from as few flows.
    * `fidelity.*`: see `fidelity`.

    Fresh real flows stand for a perfect generator, under `reference.fresh_real.`: the discriminative and fidelity
    figures are those of `held_out` against `train`. Their utility and augmentation come from two disjoint halves A and
    B of `train`, alike in classes: utility is training on B against training on A, augmentation is training on A and B
    against training on A. So they say what a perfect generator would score at half the size of `train`: its gap is
    noise around 0, and its gain is what doubling real data brings.

    Only for `synthetic`: `utility.per_class.<class name>.f1_real`, `.f1_synthetic` and `.n_test` for the classes in
    `test`. For the sets: `data.n_train`, `data.n_held_out`, `data.n_test`, `data.n_test_distinct`, `data.n_synthetic`,
    `data.n_classes`.

    The time goes into a dozen fits, each in proportion to classes x trees: seconds with 25 classes, minutes on two
    cores with 100, where `params={"n_estimators": 30}` is a way out.

    Args:
        train: the real flows that the generator learnt from.
        held_out: all real flows that it did not see, validation and test.
        test: the real test flows.
        synthetic: the generated flows.
        references: further generated sets by name, such as "marginals" and "bootstrap"; may be empty.
        seed: seed of every draw.
        params: changes to `XGBOOST_PARAMETERS`.

    Raises:
        ConfigError: an empty set, other class names or another length, too few flows, a reference called fresh_real.
    """
    if _FRESH in references:
        raise ConfigError(f"a reference cannot be called {_FRESH}, judge makes that one itself")
    check_alike(train=train, held_out=held_out, test=test, synthetic=synthetic, **references)
    x, y = features(test), np.asarray(test.label)
    distinct = first_of_each(np.column_stack([x, y.astype(np.float32)]))
    n_distinct = min(map(len, (train, held_out, synthetic, *references.values())))
    generated = {"": synthetic} | {f"reference.{name}": flows for name, flows in references.items()}
    # One fit gains little from several threads (see XGBOOST_PARAMETERS), so the fits run side by side instead.
    workers = n_cores()
    params = {"nthread": max(1, workers // (5 * len(generated) + 4))} | dict(params or {})

    def classify(flows: PacketSeries | tuple[PacketSeries, ...]) -> np.ndarray:
        return predict(flows, x, seed, params)

    def compare(flows: PacketSeries) -> dict[str, float | int]:
        score = discriminative_score(train, flows, seed, params) | _distinct_score(train, flows, seed, params)
        return _under("discriminative", score) | _under("fidelity", fidelity(train, flows, n_distinct, seed))

    def compare_held_out(flows: PacketSeries) -> dict[str, float | int]:
        score = discriminative_score(held_out, flows, seed, params)
        return {f"discriminative.held_out_{name}": value for name, value in score.items()}

    first, second = halves(train, seed)
    with ThreadPoolExecutor(workers) as pool:
        joined = {prefix: pool.submit(classify, (train, flows)) for prefix, flows in generated.items()}
        alone = {prefix: pool.submit(classify, flows) for prefix, flows in generated.items()}
        real, on_first, on_second = (pool.submit(classify, flows) for flows in (train, first, second))
        compared = {prefix: pool.submit(compare, flows) for prefix, flows in generated.items()}
        compared_held_out = {prefix: pool.submit(compare_held_out, flows) for prefix, flows in generated.items()}
        fresh = pool.submit(compare, held_out)

    def by_training(base: Future, alone: Future, joined: Future) -> dict[str, float]:
        """Utility and augmentation from predictions: base is the real classifier that the others are held against."""
        base, alone, joined = base.result(), alone.result(), joined.result()
        return (
            _under("utility", utility_of(y, base, alone, seed))
            | _under("utility.distinct", utility_of(y[distinct], base[distinct], alone[distinct], seed))
            | _under("augmentation", augmentation_of(y, base, joined, seed))
        )

    figures: dict[str, float | int] = {
        "data.n_train": len(train),
        "data.n_held_out": len(held_out),
        "data.n_test": len(test),
        "data.n_test_distinct": len(distinct),
        "data.n_synthetic": len(synthetic),
        "data.n_classes": len(train.class_names),
    }
    for prefix in generated:
        figures |= _under(prefix, by_training(real, alone[prefix], joined[prefix]))
        figures |= _under(prefix, compared[prefix].result() | compared_held_out[prefix].result())
    figures |= _per_class(train.class_names, y, real.result(), alone[""].result())
    # Both halves together are the training set, whose classifier is there already.
    figures |= _under(f"reference.{_FRESH}", by_training(on_first, on_second, real) | fresh.result())
    return figures


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
        figures |= _under(
            f"utility.per_class.{class_names[label]}",
            {"f1_real": f1_real[label], "f1_synthetic": f1_synthetic[label], "n_test": int(count[label])},
        )
    return figures


def _under(prefix: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}" if prefix else name: value for name, value in figures.items()}
