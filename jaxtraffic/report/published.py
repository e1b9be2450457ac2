"""What the papers measured, for the grey rows and columns of our tables: plain numbers, no code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "AUGMENTATIONS",
    "BASELINE",
    "BASE_CLASSIFIERS",
    "COMBINATIONS",
    "DATASETS",
    "SAMPLER",
    "Published",
    "PublishedAugmentation",
    "PublishedClassifier",
    "PublishedDataset",
    "SamplerRow",
]


class Published(NamedTuple):
    """A mean and the half-width of its 95 % interval, both in per cent or percentage points as printed."""

    value: float
    half_width: float


class PublishedAugmentation(NamedTuple):
    """An augmentation of PAM'24: its name there, its family there, and what it gained by data set."""

    title: str
    family: str
    gain: Mapping[str, Published]


class SamplerRow(NamedTuple):
    """A row of Table 3.7: precision, recall and weighted F1 of majority and of minority classes, in per cent."""

    majority: tuple[Published, Published, Published]
    minority: tuple[Published, Published, Published]


DATASETS = {"mirage19": "MIRAGE-19", "mirage22": "MIRAGE-22", "enterprise": "Enterprise-100"}
"""Data sets of the augmentation benchmark by our names; the last is not public."""

BASELINE = {
    "mirage19": Published(75.43, 0.10),
    "mirage22": Published(94.92, 0.07),
    "enterprise": Published(92.43, 0.33),
}
"""Weighted F1 in per cent without augmentation. Source: Table 5 of PAM'24, Table 3.6 of Wang 2025."""


def _augmentation(title: str, family: str, *pairs: tuple[float, float]) -> PublishedAugmentation:
    return PublishedAugmentation(title, family, {key: Published(*pair) for key, pair in zip(DATASETS, pairs)})


AUGMENTATIONS = {
    "constant_wrapup": _augmentation("Constant WrapUp", "Amplitude", (0.61, 0.12), (0.36, 0.09), (-0.02, 0.15)),
    "gaussian_noise": _augmentation("Gaussian Noise", "Amplitude", (0.89, 0.11), (0.24, 0.09), (0.15, 0.14)),
    "gaussian_wrapup": _augmentation("Gaussian WrapUp", "Amplitude", (1.01, 0.13), (0.74, 0.09), (0.24, 0.12)),
    "spike_noise": _augmentation("Spike Noise", "Amplitude", (1.66, 0.12), (0.91, 0.09), (0.93, 0.13)),
    "sine_wrapup": _augmentation("Sine WrapUp", "Amplitude", (0.63, 0.11), (0.25, 0.09), (-0.06, 0.16)),
    "bernoulli_mask": _augmentation("Bernoulli Mask", "Masking", (2.55, 0.12), (1.29, 0.09), (1.25, 0.16)),
    "window_mask": _augmentation("Window Mask", "Masking", (2.37, 0.13), (1.08, 0.09), (1.18, 0.16)),
    "cutmix": _augmentation("CutMix", "Sequence", (2.65, 0.13), (1.40, 0.10), (-0.21, 0.10)),
    "dup_fast_retransmit": _augmentation("Dup-FastRetr", "Sequence", (3.23, 0.13), (1.56, 0.09), (0.83, 0.15)),
    "dup_rto": _augmentation("Dup-RTO", "Sequence", (2.89, 0.13), (1.33, 0.09), (0.91, 0.15)),
    "horizontal_flip": _augmentation("Horizontal Flip", "Sequence", (-0.71, 0.11), (-0.52, 0.09), (-0.88, 0.15)),
    "interpolation": _augmentation("Interpolation", "Sequence", (0.44, 0.12), (0.53, 0.10), (-0.61, 0.14)),
    "packet_loss": _augmentation("Packet Loss", "Sequence", (0.88, 0.12), (0.66, 0.09), (0.60, 0.22)),
    "permutation": _augmentation("Permutation", "Sequence", (3.67, 0.13), (1.97, 0.09), (0.89, 0.08)),
    "perm_rto": _augmentation("Perm-RTO", "Sequence", (3.15, 0.12), (1.54, 0.09), (0.88, 0.12)),
    "perm_fast_retransmit": _augmentation("Perm-FastRetr", "Sequence", (2.11, 0.12), (1.00, 0.09), (0.74, 0.26)),
    "translation": _augmentation("Translation", "Sequence", (4.40, 0.13), (2.02, 0.09), (0.95, 0.15)),
    "wrap": _augmentation("Wrap", "Sequence", (4.11, 0.13), (2.09, 0.08), (0.57, 0.12)),
}
"""Difference of weighted F1 to the baseline in percentage points, Inject with one copy; in the order of the paper.

Source: Table 5 of PAM'24 (Wang et al. 2024), Table 3.6 of Wang 2025.
"""

COMBINATIONS = {
    "ensemble": {"mirage19": Published(4.44, 0.12), "mirage22": Published(2.18, 0.09)},
    "random_stack": {"mirage19": Published(4.17, 0.12), "mirage22": Published(2.18, 0.09)},
    "masked_stack-0.3": {"mirage19": Published(4.45, 0.13), "mirage22": Published(2.26, 0.09)},
    "masked_stack-0.5": {"mirage19": Published(4.60, 0.15), "mirage22": Published(2.24, 0.09)},
    "masked_stack-0.7": {"mirage19": Published(4.63, 0.14), "mirage22": Published(2.18, 0.10)},
}
"""Difference of weighted F1 to the baseline in percentage points, combinations of Translation, Wrap and Permutation.

Source: Table 7 of PAM'24, Table 3.8 of Wang 2025. Their p is a "masking probability"; whether it is the chance to
apply or to skip an augmentation is not said.
"""


def _row(*pairs: tuple[float, float]) -> SamplerRow:
    first, second = [Published(*pair) for pair in pairs[:3]], [Published(*pair) for pair in pairs[3:]]
    return SamplerRow((first[0], first[1], first[2]), (second[0], second[1], second[2]))


SAMPLER = {
    "baseline": {
        "with": _row((83.90, 0.21), (81.01, 0.21), (82.36, 0.14), (56.63, 0.38), (60.78, 0.26), (58.18, 0.21)),
        "without": _row((81.60, 0.23), (82.93, 0.19), (82.16, 0.12), (62.29, 0.48), (58.02, 0.38), (59.78, 0.27)),
        "difference": _row((2.30, 0.32), (-1.92, 0.28), (0.20, 0.20), (-5.66, 0.60), (2.76, 0.46), (-1.60, 0.35)),
    },
    "translation": {
        "with": _row((89.12, 0.09), (84.26, 0.11), (86.43, 0.08), (60.71, 0.24), (68.64, 0.17), (63.65, 0.19)),
        "without": _row((85.36, 0.14), (86.73, 0.10), (85.86, 0.09), (69.69, 0.25), (64.14, 0.25), (66.20, 0.22)),
        "difference": _row((3.77, 0.04), (-2.48, 0.02), (0.57, 0.02), (-8.98, 0.04), (4.50, 0.09), (-2.55, 0.05)),
    },
}
"""The class-weighted sampler on MIRAGE-19, in per cent. Source: Table 3.7 of Wang 2025."""


class PublishedClassifier(NamedTuple):
    """A classifier of Table 8.8: F1 scores in per cent with standard deviations over 15 runs (5 folds, 3 seeds).

    `size` is in thousands, of nodes of trees or parameters of a network by our reading; `train_time` as printed.
    """

    weighted_f1: float
    weighted_f1_sd: float
    macro_f1: float
    macro_f1_sd: float
    size: int
    train_time: str


class PublishedDataset(NamedTuple):
    """A data set of Table 8.8: its name and flows after curation as printed, and the classifiers by our names."""

    title: str
    n_flows: str
    classifiers: Mapping[str, PublishedClassifier]


def _dataset(title: str, n_flows: str, **rows: tuple[float, float, float, float, int, str]) -> PublishedDataset:
    return PublishedDataset(title, n_flows, {name: PublishedClassifier(*row) for name, row in rows.items()})


BASE_CLASSIFIERS = {
    ("unsw24", "all"): _dataset(
        "UNSW24",
        "6.6k",
        xgboost=(99.56, 0.21, 99.38, 0.35, 10, "1 s"),
        resnet=(99.15, 0.37, 98.71, 0.47, 115, "2 min"),
        resnet2x=(99.30, 0.40, 98.78, 0.78, 238, "5 min"),
    ),
    ("mirage22", "all"): _dataset(
        "Mirage22",
        "11.5k",
        xgboost=(96.17, 0.26, 96.16, 0.33, 37, "2 s"),
        resnet=(93.07, 0.41, 92.88, 0.52, 118, "1 min"),
        resnet2x=(93.18, 0.52, 93.02, 0.67, 241, "6 min"),
    ),
    ("utmobilenet21", "all"): _dataset(
        "UTMOBILENET21",
        "5.6k",
        xgboost=(87.67, 1.81, 83.00, 2.24, 44, "3 s"),
        resnet=(84.77, 2.29, 79.87, 3.26, 118, "1 min"),
        resnet2x=(84.47, 2.13, 79.75, 2.67, 241, "5 min"),
    ),
    ("cesnet_tls", "50"): _dataset(
        "CESNET-TLS22",
        "2.1M",
        xgboost=(98.85, 0.02, 98.64, 0.03, 974, "1 min"),
        resnet=(97.80, 0.06, 97.27, 0.08, 144, "1 h"),
        resnet2x=(98.53, 0.02, 98.19, 0.03, 268, "12 h"),
    ),
    ("cesnet_tls", "100"): _dataset(
        "CESNET-TLS22",
        "2.4M",
        xgboost=(98.44, 0.02, 97.64, 0.04, 3_054, "4 min"),
        resnet=(97.30, 0.05, 95.99, 0.11, 176, "1 h"),
        resnet2x=(98.18, 0.03, 97.25, 0.08, 300, "14 h"),
    ),
    ("cesnet_tls", "all"): _dataset(
        "CESNET-TLS22",
        "2.5M",
        xgboost=(98.26, 0.03, 96.62, 0.09, 4_126, "6 min"),
        resnet=(97.10, 0.06, 94.81, 0.11, 199, "1 h"),
        resnet2x=(98.05, 0.03, 96.37, 0.10, 322, "14 h"),
    ),
    ("cesnet_quic", "50"): _dataset(
        "CESNET-QUIC22",
        "1.5M",
        xgboost=(91.75, 0.08, 88.81, 0.15, 4_136, "2 min"),
        resnet=(90.32, 0.11, 86.72, 0.17, 144, "45 min"),
        resnet2x=(91.70, 0.09, 88.79, 0.17, 268, "3 h"),
    ),
    ("cesnet_quic", "all"): _dataset(
        "CESNET-QUIC22",
        "1.5M",
        xgboost=(90.79, 0.06, 82.61, 0.15, 5_078, "3 min"),
        resnet=(89.37, 0.06, 80.66, 0.20, 164, "36 min"),
        resnet2x=(90.86, 0.08, 83.17, 0.24, 288, "3 h"),
    ),
    ("enterprise", "50"): _dataset(
        "Enterprise",
        "9.3M",
        xgboost=(97.58, 0.01, 96.26, 0.02, 7_309, "3 min"),
        resnet=(95.95, 0.73, 93.60, 1.19, 151, "11 h"),
        resnet2x=(97.52, 0.07, 96.10, 0.11, 268, "19 h"),
    ),
    ("enterprise", "100"): _dataset(
        "Enterprise",
        "10.8M",
        xgboost=(96.30, 0.02, 94.24, 0.03, 15_160, "8 min"),
        resnet=(94.55, 0.05, 91.33, 0.08, 176, "8 h"),
        resnet2x=(96.27, 0.23, 94.02, 0.31, 300, "22 h"),
    ),
    ("enterprise", "300"): _dataset(
        "Enterprise",
        "12.2M",
        xgboost=(92.62, 0.03, 83.87, 0.05, 5_553, "22 min"),
        resnet=(91.51, 0.48, 80.59, 0.88, 304, "10 h"),
        resnet2x=(94.07, 0.32, 85.76, 0.61, 428, "25 h"),
    ),
    ("enterprise", "all"): _dataset(
        "Enterprise",
        "12.4M",
        xgboost=(92.48, 0.05, 78.88, 0.16, 10_894, "41 min"),
        resnet=(91.12, 0.04, 75.94, 0.12, 433, "14 h"),
        resnet2x=(93.87, 0.06, 81.86, 0.16, 556, "26 h"),
    ),
}
"""The base classifiers by data set (our name) and tier of classes; enterprise is not public.

Source: Table 8.8 of Wang 2025 (XGB, ResNet, ResNet(2x)), flows from its Table 8.4.
"""
