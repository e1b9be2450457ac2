"""Augmentations of packet series as pure functions for jit and vmap; needs jax and numpy only.

    from jaxtraffic import augment

    # x [flow, packet, 3], mask [flow, packet] bool, keys and alpha [flow]
    x2, mask2 = jax.jit(jax.vmap(augment.translation))(keys, x, mask, alpha)
    # one key for a batch; a composition runs one branch a flow, not all of them
    x2, mask2 = jax.jit(augment.batched(augment.ensemble(augment.wrap, augment.dup_rto)))(key, x, mask, alpha)

An operation takes one flow: `op(key, x, mask, alpha=1.0, *, ...) -> (x, mask)`, x [packet, 3] in the order size,
direction, IAT, mask [packet] bool, a prefix. `alpha` [] in [0, 1] is traced (give float32: thresholds such as 0.45 are
compared with it). `op.sample` draws and `op.apply` replays; `op.with_options` sets options for good. Masks travel with
their flows and are never made again from x: some operations write 0 into a packet's features. Bad input raises
`jaxtraffic.errors.ConfigError` while tracing.
"""

from jaxtraffic.augment.amplitude import constant_wrapup, gaussian_noise, gaussian_wrapup, sine_wrapup, spike_noise
from jaxtraffic.augment.compose import batched, ensemble, masked_stack, maybe, one_of, random_stack, sequential
from jaxtraffic.augment.exchange import cutmix
from jaxtraffic.augment.loss import dup_fast_retransmit, dup_rto, perm_fast_retransmit, perm_rto
from jaxtraffic.augment.masking import bernoulli_mask, tail_occlusion, window_mask
from jaxtraffic.augment.operation import FlowStatistics, Operation
from jaxtraffic.augment.pipeline import as_grain
from jaxtraffic.augment.policies import (
    Batch,
    ClassWeightedSampler,
    changed_fraction,
    class_weighted,
    inject,
    pre_augment,
    replace,
)
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
    "changed_fraction",
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
