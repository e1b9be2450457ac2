"""G3 of PAM'24: what augmentations do to the latent space of the network that is trained with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxtraffic import augment, classify, prng, scaling
from jaxtraffic.augment import policies
from jaxtraffic.classify import ClassifierConfig, models
from jaxtraffic.classify.folds import split_of
from jaxtraffic.classify.program import with_scale
from jaxtraffic.evaluate import latent
from jaxtraffic.series import PacketSeries

if TYPE_CHECKING:
    from augment_benchmark import Work

COPIES = 5
"""Augmentations of each training flow (PAM'24)."""
MOST_ANCHORS, MOST_TEST, MOST_SHOWN = 20_000, 2_000, 1_500
"""Training flows, test flows and points of a picture at most; drawn at random."""


def latent_spaces(work: Work, configs: list[ClassifierConfig]) -> list[dict[str, Any]]:
    """Trains the networks on the first fold and looks at the latent space of each augmented one.

    Returns:
        For each augmentation: name, the `evaluate.latent.AnchorReport` of the network trained with it and of the
        baseline's network, Euclidean distances of flows to their augmentations and to their nearest other original, and
        coordinates for a picture.
    """
    fold = work.folds[0]
    work.run("g3", configs, folds=[fold], seeds=[0], keep_models=[config.name for config in configs])
    parts = split_of(work.flows, fold, work.options.n_folds)
    baseline, *others = [
        classify.load_model(work.folder / "g3" / "models" / models.file_name(config.name, fold, 0))
        for config in configs
    ]
    return [
        one_space(config, fitted, baseline, parts.train, parts.test, work.options.packets)
        for config, fitted in zip(configs[1:], others, strict=True)
    ]


def one_space(
    config: ClassifierConfig,
    fitted: classify.Fitted,
    baseline: classify.Fitted,
    train: PacketSeries,
    test: PacketSeries,
    length: int,
) -> dict[str, Any]:
    """The geometry of one augmentation, with its own network and with the baseline's."""
    rng = np.random.default_rng(0)
    train = train[np.sort(rng.permutation(len(train))[: MOST_ANCHORS // (COPIES + 1)])]
    test = test[np.sort(rng.permutation(len(test))[:MOST_TEST])]
    x, mask = normalised(train, fitted.scale, length)
    test_x, test_mask = normalised(test, fitted.scale, length)
    label = np.asarray(train.label)
    made = augmented(config, fitted.scale, x, mask, label, len(train.class_names))
    source = np.tile(np.arange(COPIES + 1) > 0, len(train)).astype(np.int64)
    flow = np.repeat(np.arange(len(train)), COPIES + 1)
    found: dict[str, Any] = {"augmentation": config.name}
    for who, network in (("own", fitted), ("baseline", baseline)):
        anchors = network.latent(np.asarray(made.x), np.asarray(made.mask))
        of_test = network.latent(test_x, test_mask)
        found[f"{who}_report"] = latent.anchor_report(
            of_test,
            np.asarray(test.label),
            anchors,
            np.repeat(label, COPIES + 1),
            source,
            source_names=("original", "augmented"),
        )
        if who == "own":
            found["to_augmented"] = latent.distances_to_own(anchors, source, flow)[1]
            found |= picture(rng, anchors, source, np.repeat(label, COPIES + 1), of_test, np.asarray(test.label))
    return found


def picture(
    rng: np.random.Generator,
    anchors: np.ndarray,
    source: np.ndarray,
    label: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray,
) -> dict[str, np.ndarray]:
    """t-SNE of originals, augmented and test flows together, as many of each as there is room for."""
    each = MOST_SHOWN // 3
    rows = [
        rng.permutation(np.flatnonzero(source == 0))[:each],
        rng.permutation(np.flatnonzero(source == 1))[:each],
    ]
    shown = rng.permutation(len(test))[:each]
    features = np.concatenate([anchors[rows[0]], anchors[rows[1]], test[shown]])
    return {
        "coordinates": latent.tsne(features),
        "kind": np.repeat([0, 1, 2], [len(rows[0]), len(rows[1]), len(shown)]),
        "label": np.concatenate([label[rows[0]], label[rows[1]], test_label[shown]]),
    }


def normalised(flows: PacketSeries, scale: scaling.FeatureScaling, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and mask of the first packets."""
    x, mask = flows.arrays()
    x, mask = x[:, :length], mask[:, :length]
    return np.asarray(scale.apply(x, mask)), mask


def augmented(
    config: ClassifierConfig,
    scale: scaling.FeatureScaling,
    x: np.ndarray,
    mask: np.ndarray,
    label: np.ndarray,
    classes: int,
) -> augment.Batch:
    """Each flow followed by its augmentations."""
    statistics = scaling.class_statistics(x, mask, label, classes)
    policy = policies.pre_augment(with_scale(config.augmentation, scale.high), COPIES)
    batch = policies.Batch(x, mask, label.astype(np.int32))
    return jax.jit(policy)(prng.stream(jax.random.key(0), "latent"), batch, stats=statistics)
