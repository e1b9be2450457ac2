"""Does a generator give its training flows away? Distances to them against distances to flows it never saw."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.sharding import Mesh
from scipy.stats import rankdata

from jaxtraffic.evaluate.distances import nearest
from jaxtraffic.evaluate.rows import pair_of
from jaxtraffic.series import PacketSeries

_QUANTILES = np.linspace(0, 1, 101)


def privacy(
    train: PacketSeries | np.ndarray,
    holdout: PacketSeries | np.ndarray,
    synthetic: PacketSeries | np.ndarray,
    seed: int = 0,
    *,
    mesh: Mesh | None = None,
) -> tuple[dict[str, float | int], dict[str, Any]]:
    """Whether generated flows are nearer to the training flows than to flows that had no part in the training.

    The distance to the closest record (DCR) shrinks as a set grows, so both sets are drawn at random, without
    replacement, to the size of the smaller. All distances are Euclidean on the raw numbers, whose columns share a unit
    (bytes), so that ties of integers are exact. Duplicates make ties frequent: they are split half and half, and 0.5
    is what a generator that knows only the distribution scores, if hold-out and training flows come from the same one.
    Flows of other captures do not, so that the shift between captures alone lifts `closer_to_train` above 0.5; fresh
    real flows in the place of the generated ones say by how much. Give a hold-out about as large as the training set:
    with a tenth of it, nine of ten copies are copies of flows outside the draw, and `closer_to_train` hardly rises.
    `membership_auc` suffers less, because the nearest generated flow is sought among all of them.

    The peers differ: TabSyn takes L1 after division by the range of the training column (0 / 0 where it is constant),
    sdmetrics' DCROverfittingProtection the same by the range of each set for itself, on sets of any sizes, and reports
    min(2 - 2 share, 1). Both count a tie for the hold-out side (`closer_to_train_strict`), so that duplicates hide
    copying: with many the share falls below 0.5 for every generator.

    Args:
        train: the flows that the generator learnt from; PacketSeries or numbers [flow, feature].
        holdout: real flows that it never saw.
        synthetic: generated flows.
        seed: seed of the draws.
        mesh: devices for the distances, all where None.

    Returns:
        Figures:

        - `closer_to_train`: share of generated flows nearer to the draw of `train` than to that of `holdout`, ties
          half; 0.5 is best, 1 a copy. `closer_to_train_strict`: without the ties. `tie_share`: flows with a tie.
        - `closer_to_train_stderr`: standard error under chance, for these generated flows and all ways to split the
          real ones: a real record that is the nearest of several generated flows wins or loses them together.
        - `copy_rate`, `holdout_copy_rate`: share of generated flows that are in the draw of `train`, or of `holdout`,
          number for number. `fidelity.copy_rate` takes all of `train`.
        - `membership_auc`: area under the curve of an attacker who calls the real flows nearest to a generated one
          members of the training set, over both draws; 0.5 is best. `membership_auc_stderr`: under chance, with ties.
        - `n`: flows of each draw.

        Curves: `distance_to_train_quantiles`, `distance_to_holdout_quantiles`: distance of the generated flows to
        their nearest record of either draw at 0, 1, ..., 100%.

    Raises:
        ConfigError: what `rows.pair_of` refuses.
    """
    known, generated = pair_of(train, synthetic, ("train", "synthetic"))
    unknown, _ = pair_of(holdout, synthetic, ("holdout", "synthetic"))
    n = min(len(known), len(unknown))
    generator = np.random.default_rng(seed)
    members, others = (side[np.sort(generator.permutation(len(side))[:n])] for side in (known, unknown))
    to_train, to_holdout = (nearest(generated, side, mesh=mesh) for side in (members, others))
    squared = np.stack([to_train.squared[:, 0], to_holdout.squared[:, 0]])
    nearer, tied = squared[0] < squared[1], squared[0] == squared[1]
    # a record by its index in both draws; duplicates of it in one draw give the lowest, and in both a tie
    record = np.where(nearer, to_train.index[:, 0], n + to_holdout.index[:, 0])
    won = np.bincount(record[~tied]).astype(np.float64)
    # exactly half of the 2 n records are of either draw: if each had won as many flows, the share would be fixed
    variance = max(won @ won - won.sum() ** 2 / (2 * n), 0.0) / 4 * (2 * n / (2 * n - 1))
    attack = [nearest(side, generated, mesh=mesh).squared[:, 0] for side in (members, others)]
    auc, auc_stderr = _separation(*attack)
    figures = {
        "closer_to_train": float(nearer.mean() + tied.mean() / 2),
        "closer_to_train_strict": float(nearer.mean()),
        "closer_to_train_stderr": float(np.sqrt(variance) / len(generated)),
        "tie_share": float(tied.mean()),
        "copy_rate": float((squared[0] == 0).mean()),
        "holdout_copy_rate": float((squared[1] == 0).mean()),
        "membership_auc": auc,
        "membership_auc_stderr": auc_stderr,
        "n": n,
    }
    quantiles = [np.quantile(np.sqrt(side), _QUANTILES).tolist() for side in squared]
    names = ("distance_to_train_quantiles", "distance_to_holdout_quantiles")
    return figures, dict(zip(names, quantiles, strict=True))


def _separation(members: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """P(member < other) with ties half, as many of both, and its standard error if labels meant nothing."""
    n = len(members)
    ranks = rankdata(np.concatenate([members, others]))
    auc = 1 - (ranks[:n].sum() - n * (n + 1) / 2) / n**2
    # variance of ranks drawn without replacement, which holds with ties as they are
    return float(auc), float(np.sqrt(ranks.var(ddof=1) * n / 2) / n**2)
