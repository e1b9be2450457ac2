"""Frechet distance of two sets of flows in the latent space of a classifier: the Frechet Inception Distance's analogue.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (2017), whose
network of images is here a classifier of packet series that was trained on the real flows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.rows import pair_of
from jaxtraffic.series import PacketSeries

EPOCHS = 10
"""Passes over the training flows of the classifier: features, not the last point of accuracy, are wanted."""


def frechet_distance(mean: np.ndarray, cov: np.ndarray, other_mean: np.ndarray, other_cov: np.ndarray) -> float:
    """Squared 2-Wasserstein distance of two Gaussians: |m - m'|^2 + tr C + tr C' - 2 tr((C^1/2 C' C^1/2)^1/2).

    The last trace is the sum of the singular values of C^1/2 C'^1/2. Eigenvalues that are 0 but for rounding are taken
    as 0: their roots would cost singular covariances half of the digits.

    Args:
        mean: [feature].
        cov: [feature, feature], symmetric, without negative eigenvalues (beyond rounding).
        other_mean: [feature].
        other_cov: [feature, feature].

    Raises:
        ConfigError: shapes that do not fit, numbers that are not finite, a covariance that is none.
    """
    means, roots, traces = [], [], []
    for m, c in ((mean, cov), (other_mean, other_cov)):
        m, c = np.asarray(m, np.float64), np.asarray(c, np.float64)
        if m.ndim != 1 or c.shape != (m.size, m.size) or not m.size or m.shape != np.shape(mean):
            raise ConfigError(
                "frechet_distance takes means [feature] and covariances [feature, feature] of one size, "
                f"got {list(m.shape)} and {list(c.shape)}"
            )
        if not (np.isfinite(m).all() and np.isfinite(c).all()):
            raise ConfigError("frechet_distance: a mean or a covariance holds NaN or infinity")
        values, vectors = np.linalg.eigh((c + c.T) / 2)
        tolerance = 1e-6 * max(np.abs(c).max(), np.finfo(np.float64).tiny)
        if np.abs(c - c.T).max() > tolerance or values[0] < -len(values) * tolerance:
            raise ConfigError("frechet_distance: a covariance must be symmetric and have no negative eigenvalues")
        means.append(m)
        rounding = len(values) * np.finfo(np.float64).eps * values[-1]
        roots.append((vectors * np.sqrt(np.where(values > rounding, values, 0.0))) @ vectors.T)
        traces.append(np.trace(c))
    shared = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    return float(max(np.sum((means[0] - means[1]) ** 2) + traces[0] + traces[1] - 2 * shared, 0.0))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """`frechet_distance` of the Gaussians with the means and (unbiased) covariances of the rows of a and b.

    Fewer rows raise it, whatever they are: compare values of equally many rows only.

    Args:
        a: [row, feature], at least two rows.
        b: the same, as many features.

    Raises:
        ConfigError: fewer than two rows, different numbers of features, NaN or infinity.
    """
    sides = [rows.astype(np.float64) for rows in pair_of(a, b, ("a", "b"))]
    if min(map(len, sides)) < 2:
        raise ConfigError(f"frechet needs at least two rows on each side, got {len(sides[0])} and {len(sides[1])}")
    moments = [(rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False))) for rows in sides]
    return frechet_distance(*moments[0], *moments[1])


def latent_classifier(
    train: PacketSeries,
    validation: PacketSeries,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    model: str = "resnet",
    width: int | None = None,
) -> Any:
    """Trains the classifier whose latent space `frechet_of` compares in, on size and direction of the first 30 packets.

    See `classify.single.fit_network`: a fixed number of epochs in batches of 64 (400 steps at least), and of ten states
    the one that is best on the validation flows. Distances in the spaces of two classifiers have nothing to do with
    each other: train one on real flows and hold all sets against it.

    Args:
        train: real flows with labels.
        validation: real flows of the same classes that choose the parameters.
        seed: of the parameters and the order of the flows.
        epochs: passes over the training flows.
        model: one of nn.CLASSIFIERS.
        width: as `make_classifier` takes it; features follow from it (ResNet: twice the width of 64).

    Returns:
        The `classify.single.Network`: `.latent(flows)` gives [flow, feature] float32, `.predict(flows)` labels.

    Raises:
        ConfigError: an empty set, other class names or another length, an unknown model.
    """
    # The networks load on first use, for most judges need none.
    from jaxtraffic.classify.single import fit_network

    return fit_network(train, model=model, seed=seed, validation=validation, epochs=epochs, width=width)


def frechet_of(classifier: Any, real: PacketSeries, synthetic: PacketSeries) -> tuple[dict[str, float], dict[str, Any]]:
    """`frechet` of the latent features of two sets: 0 is best; it has no unit and no meaning but beside a reference.

    Args:
        classifier: of `latent_classifier`, or anything with `.latent(flows)`.
        real: at least two flows.
        synthetic: at least two flows.

    Returns:
        Figures: `frechet`. No curves.
    """
    return {"frechet": frechet(classifier.latent(real), classifier.latent(synthetic))}, {}
