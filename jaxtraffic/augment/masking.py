"""Masking operations: values of packets set to padding, the packets themselves stay (PAM'24)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxtraffic.augment import draws
from jaxtraffic.augment.emission import length, positions
from jaxtraffic.augment.operation import Operation, Params, check_choice, check_flag, check_share


@dataclasses.dataclass(frozen=True, kw_only=True)
class BernoulliMask(Operation):
    """Sets each feature of each packet to padding with probability 0.6 alpha.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3]; the mask is returned as it is: a hidden packet is still one.
    Units: any. At alpha = 0 the flow is unchanged. Directions are hidden too: the mask cannot be made again from them.

    Options:
        per_packet: hide whole packets instead of single features, default False.
        pad: value of a hidden feature, one number or one a feature; default 0.

    Source: PAM'24, "independently masks feature values" (a re-implementation keeps with probability 0.6 alpha,
    the inverse).
    """

    name: ClassVar[str] = "bernoulli_mask"

    per_packet: bool = False

    def _check_options(self) -> None:
        check_flag(self.name, "per_packet", self.per_packet)

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        packets, columns = mask.shape[0], 1 if self.per_packet else 3
        half = draws.half_words(key, packets * columns).reshape(packets, columns)
        return {"hidden": jnp.broadcast_to(draws.happens(half, 0.6 * alpha), (packets, 3))}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        return jnp.where(params["hidden"] & mask[:, None], self._pad_row(x.dtype), x), mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowMask(Operation):
    """Sets all features of one to three consecutive packets to padding.

    W = floor(1 + 2.5 alpha), w ~ U{1..W}, t ~ U{0..max(n - w, 0)}: packets t..t+w-1 are hidden.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3]; the mask is returned as it is: a hidden packet is still one.
    Units: any. alpha = 0 still hides one packet.

    Options:
        rounding: "floor" (default, the thesis' text) or "nearest" (a re-implementation's quotation: W = 4 at alpha =
            1).
        pad: value of a hidden feature, one number or one a feature; default 0.

    Source: PAM'24 and the thesis.
    """

    name: ClassVar[str] = "window_mask"

    rounding: str = "floor"

    def _check_options(self) -> None:
        check_choice(self.name, "rounding", self.rounding, ("floor", "nearest"))

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        word = draws.words(key, 2)
        # Halves go up, as people round; jnp.round would take 3.5 to 4 and 2.5 to 2.
        largest = jnp.floor(1 + 2.5 * alpha + (0.5 if self.rounding == "nearest" else 0.0)).astype(jnp.int32)
        width = 1 + draws.below(word[0], largest)
        return {"start": draws.below(word[1], length(mask) - width + 1), "width": width}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        t = positions(mask.shape[0])
        hidden = mask & (t >= params["start"]) & (t < params["start"] + params["width"])
        return jnp.where(hidden[:, None], self._pad_row(x.dtype), x), mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class TailOcclusion(Operation):
    """Cuts the tail of a flow off: at alpha = 1 its second half becomes padding.

    ceil(n (1 - fraction alpha)) packets stay.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T], shorter.
    Units: any. At alpha = 0 the flow is unchanged.

    Options:
        fraction: share that is cut off at alpha = 1, default 0.5.
        pad: value of padding, one number or one a feature; default 0.

    Source: TMA'23 (thesis chapter on few-shot learning), "tail occlusion (second half)"; the magnitude is ours.
    """

    name: ClassVar[str] = "tail_occlusion"

    fraction: float = 0.5

    def _check_options(self) -> None:
        check_share(self.name, "fraction", self.fraction)

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        del key
        count = length(mask)
        # The small term undoes rounding below a whole number: 25 packets at 0.4 lose 10, not 9.
        cut = jnp.floor(count.astype(jnp.float32) * (self.fraction * alpha) + 1e-4)
        return {"keep": count - cut.astype(jnp.int32)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        mask = mask & (positions(mask.shape[0]) < params["keep"])
        return jnp.where(mask[:, None], x, self._pad_row(x.dtype)), mask


bernoulli_mask = BernoulliMask()
window_mask = WindowMask()
tail_occlusion = TailOcclusion()
