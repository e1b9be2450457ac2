"""All augmentations by name, with what a caller must know before using one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from jaxtraffic.augment import amplitude, exchange, loss, masking, segmentation, sequence, timing
from jaxtraffic.augment.operation import Operation
from jaxtraffic.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """One augmentation and its traits.

    Attributes:
        op: the operation itself.
        family: "amplitude", "masking", "sequence" or "batch".
        needs_stats: takes stats=, the standard deviations of the flow's class.
        needs_seconds: needs IATs in seconds (and, for mss_variation, sizes in bytes): run it before normalisation.
        has_magnitude: alpha changes it.
        identity_at_zero: alpha = 0, and default options, return the packets as they are (mss_variation: sizes to 1500).
        source: where its definition comes from.
        in_paper: one of the 18 of PAM'24.
    """

    op: Operation
    family: str
    needs_stats: bool
    needs_seconds: bool
    has_magnitude: bool
    identity_at_zero: bool
    source: str
    in_paper: bool

    @property
    def name(self) -> str:
        """Its key in `AUGMENTATIONS`."""
        return self.op.name

    @property
    def batch(self) -> bool:
        """Takes a whole batch [flow, packet, 3] instead of one flow."""
        return self.op.batch

    @property
    def summary(self) -> str:
        """The first line of its documentation."""
        return (self.op.__doc__ or "").strip().splitlines()[0]


_PAM = "Data Augmentation for Traffic Classification (PAM'24), table 1"
_ROSETTA = "Rosetta (Xie et al., USENIX Security 2023), figures 3 and 4; PAM'24"
_THESIS = "Toward Automated Augmentation for Traffic Classification (Wang 2025); PAM'24"
_FLOWPIC = "A Few Shots Traffic Classification with mini-FlowPic Augmentations (Horowicz et al. 2022), as in tcbench"
_FEW_SHOT = "few-shot views of TMA'23, in Wang 2025"


def _entries() -> list[Augmentation]:
    # family, traits of: seconds, magnitude, identity at zero; source; in the paper
    table = [
        (amplitude.gaussian_noise, "amplitude", False, True, True, _PAM, True),
        (amplitude.spike_noise, "amplitude", False, True, True, _PAM, True),
        (amplitude.gaussian_wrapup, "amplitude", False, True, True, _PAM, True),
        (amplitude.sine_wrapup, "amplitude", False, True, True, _PAM, True),
        (amplitude.constant_wrapup, "amplitude", False, True, False, _PAM, True),
        (masking.bernoulli_mask, "masking", False, True, True, _PAM, True),
        (masking.window_mask, "masking", False, True, False, _THESIS, True),
        (sequence.horizontal_flip, "sequence", False, False, False, _PAM, True),
        (sequence.interpolation, "sequence", False, False, False, _PAM, True),
        (exchange.cutmix, "batch", False, False, False, _PAM, True),
        (timing.packet_loss, "sequence", True, True, False, _THESIS, True),
        (sequence.translation, "sequence", False, True, False, _PAM, True),
        (sequence.wrap, "sequence", False, True, True, _THESIS, True),
        (sequence.permutation, "sequence", False, True, False, _PAM, True),
        (loss.dup_rto, "sequence", False, True, True, _ROSETTA, True),
        (loss.dup_fast_retransmit, "sequence", False, True, True, _ROSETTA, True),
        (loss.perm_rto, "sequence", False, True, True, _ROSETTA, True),
        (loss.perm_fast_retransmit, "sequence", False, True, True, _ROSETTA, True),
        (segmentation.mss_variation, "sequence", True, True, True, "Rosetta (Xie et al. 2023), section 5.1", False),
        (timing.iat_scale, "amplitude", True, True, True, _FLOWPIC, False),
        (timing.time_shift, "sequence", True, True, True, _FLOWPIC, False),
        (masking.tail_occlusion, "masking", False, True, True, _FEW_SHOT, False),
        (sequence.shuffle, "sequence", False, False, False, _FEW_SHOT, False),
    ]
    return [
        Augmentation(op, family, op.needs_stats, seconds, magnitude, identity, source, in_paper)
        for op, family, seconds, magnitude, identity, source, in_paper in table
    ]


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType({entry.name: entry for entry in _entries()})
"""The 18 augmentations of PAM'24 and five more, by name."""


def get(name: str) -> Operation:
    """The operation called `name`.

    Raises:
        ConfigError: unknown name.
    """
    if name not in AUGMENTATIONS:
        raise ConfigError(f"unknown augmentation {name!r}; choose from {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name].op
