"""What more generated flows bring: utility and augmentation at multiples of the training set.

Source: thesis, Figures 8.9 and 8.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxtraffic.classify.scores import f1_scores
from jaxtraffic.classify.trees import n_cores
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.classification import features
from jaxtraffic.evaluate.train_on_synthetic import check_alike, predict
from jaxtraffic.series import PacketSeries

MULTIPLES = (1, 2, 4, 8, 16)


def scaling(
    train: PacketSeries,
    generated: PacketSeries,
    test: PacketSeries,
    *,
    multiples: Sequence[int] = MULTIPLES,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """XGBoost trained on k times as many generated flows as there are real ones, alone and beside the real ones.

    Each fit sees the first k x len(train) generated flows, so larger sets hold the smaller ones. Multiples beyond the
    generated flows are left out. The fits run side by side; each takes time in proportion to its flows x classes.

    Args:
        train: real flows, the ones that the generator learnt from.
        generated: generated flows in blocks of len(train), each block with the mix of classes that is wanted.
        test: real flows that neither saw.
        multiples: whole numbers from 1.
        seed: seed of XGBoost.
        params: changes to `XGBOOST_PARAMETERS`.

    Returns:
        Figures, fractions, for each multiple k there are flows for: `utility.x<k>.weighted_f1_gap` (generated - real)
        and `augmentation.x<k>.weighted_f1_gain` (real and generated - real), and the same with `macro`.
        Curves: `multiples` [k], and [k] under each of `utility.weighted_f1_gap`, `utility.macro_f1_gap`,
        `augmentation.weighted_f1_gain` and `augmentation.macro_f1_gain`.

    Raises:
        ConfigError: fewer generated flows than the smallest multiple needs, multiples that are no whole numbers from 1
            or occur twice, an empty set, other class names or another length.
    """
    check_alike(train=train, generated=generated, test=test)
    wanted = sorted(multiples)
    if not wanted or len(set(wanted)) < len(wanted) or any(int(k) != k or k < 1 for k in wanted):
        raise ConfigError(f"multiples must be whole numbers from 1, each once, got {list(multiples)}")
    used = [int(k) for k in wanted if k * len(train) <= len(generated)]
    if not used:
        raise ConfigError(
            f"{wanted[0]} x {len(train)} generated flows are needed at least, got {len(generated)}; generate more"
        )
    x, y = features(test), np.asarray(test.label)
    jobs: list[tuple[str, int]] = [("real", 0), *((kind, k) for k in used for kind in ("utility", "augmentation"))]
    workers = n_cores()
    params = {"nthread": max(1, workers // len(jobs))} | dict(params or {})

    def score(job: tuple[str, int]) -> dict[str, float]:
        kind, k = job
        block = generated[: k * len(train)]
        flows = {"real": (train,), "utility": (block,), "augmentation": (train, block)}[kind]
        return f1_scores(y, predict(flows, x, seed, params))

    # The largest first, so that none of them is left to run alone at the end.
    jobs.reverse()
    with ThreadPoolExecutor(workers) as pool:
        scores = dict(zip(jobs, pool.map(score, jobs), strict=True))
    figures: dict[str, float] = {}
    curves: dict[str, list[float]] = {"multiples": used}
    for kind, end in (("utility", "gap"), ("augmentation", "gain")):
        for name, real in scores["real", 0].items():
            differences = [scores[kind, k][name] - real for k in used]
            figures |= {f"{kind}.x{k}.{name}_{end}": value for k, value in zip(used, differences, strict=True)}
            curves[f"{kind}.{name}_{end}"] = differences
    return figures, curves
