"""Augmentations of packet series as jitted pure functions; needs jax and numpy only.

    from jaxtraffic import augment
    x2, mask2 = jax.jit(jax.vmap(augment.translation))(keys, x, mask, alpha)     # x [flow, packet, 3], mask [flow,
    packet] x2, mask2 = augment.batched(augment.ensemble(augment.wrap, augment.dup_rto))(key, x, mask, alpha)

An operation takes one flow: `op(key, x, mask, alpha=1.0, *, ...) -> (x, mask)`, x [packet, 3] in the order size,
direction, IAT, mask [packet] bool, a prefix. `op.sample` draws and `op.apply` replays; `op.with_options` sets options
for good.
"""

from jaxtraffic.augment.amplitude import constant_wrapup, gaussian_noise, gaussian_wrapup, sine_wrapup, spike_noise
from jaxtraffic.augment.compose import batched, ensemble, masked_stack, maybe, one_of, random_stack, sequential
from jaxtraffic.augment.exchange import cutmix
from jaxtraffic.augment.loss import dup_fast_retransmit, dup_rto, perm_fast_retransmit, perm_rto
from jaxtraffic.augment.masking import bernoulli_mask, tail_occlusion, window_mask
from jaxtraffic.augment.operation import FlowStatistics, Operation
from jaxtraffic.augment.pipeline import as_grain
from jaxtraffic.augment.policies import Batch, ClassWeightedSampler, class_weighted, inject, pre_augment, replace
from jaxtraffic.augment.registry import AUGMENTATIONS, Augmentation, get
from jaxtraffic.augment.segmentation import mss_variation
from jaxtraffic.augment.sequence import horizontal_flip, interpolation, permutation, shuffle, translation, wrap
from jaxtraffic.augment.timing import iat_scale, packet_loss, time_shift

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "Batch",
    "ClassWeightedSampler",
    "FlowStatistics",
    "Operation",
    "as_grain",
    "batched",
    "bernoulli_mask",
    "class_weighted",
    "constant_wrapup",
    "cutmix",
    "dup_fast_retransmit",
    "dup_rto",
    "ensemble",
    "gaussian_noise",
    "gaussian_wrapup",
    "get",
    "horizontal_flip",
    "iat_scale",
    "inject",
    "interpolation",
    "masked_stack",
    "maybe",
    "mss_variation",
    "one_of",
    "packet_loss",
    "perm_fast_retransmit",
    "perm_rto",
    "permutation",
    "pre_augment",
    "random_stack",
    "replace",
    "sequential",
    "shuffle",
    "sine_wrapup",
    "spike_noise",
    "tail_occlusion",
    "time_shift",
    "translation",
    "window_mask",
    "wrap",
]
