"""Lost and retransmitted packets: two loss processes times two emissions (Rosetta, Xie et al. 2023; PAM'24).

A loss process marks packets; each lost packet is retransmitted behind the next packet that is delivered. Captured
before the loss point the retransmission is a duplicate (`dup`), captured behind it the packet comes late (`perm`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxtraffic.augment import draws
from jaxtraffic.augment.emission import (
    following,
    length,
    pick,
    positions,
    preceding,
    running_count,
    source_of,
    take,
    wide,
    with_column,
)
from jaxtraffic.augment.operation import IAT, Operation, Params, check_choice, check_count
from jaxtraffic.errors import ConfigError

LOSS_AT_FULL_MAGNITUDE = 0.1
"""Loss probability at alpha = 1: the maximum of Rosetta's range (PAM'24: p = 0.1 alpha)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retransmission(Operation):
    """What the four operations share: exempt packets, single losses, and what becomes of the IATs."""

    first: int = 0
    iat: str = "carry"

    def _check_options(self) -> None:
        check_count(self.name, "first", self.first, 0)
        check_choice(self.name, "iat", self.iat, ("carry", "recompute"))

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        packets = mask.shape[0]
        lost = draws.happens(draws.half_words(key, packets), LOSS_AT_FULL_MAGNITUDE * alpha)
        return {"lost": lost & mask & (positions(packets) >= self.first)}

    def _emit(
        self, x: jax.Array, mask: jax.Array, source: jax.Array, seen: jax.Array, total: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Packets `source` in order; `seen` is the packet at whose arrival each of them is captured."""
        out, new = take(x, source, total, self._pad_row(x.dtype))
        if self.iat == "carry":
            return out, new
        seen = jnp.clip(seen, 0, jnp.maximum(length(mask) - 1, 0))
        iat = jnp.where(mask, wide(x[:, IAT]), 0)
        time = pick(jnp.cumsum(iat), seen)
        ahead = seen[1:] - seen[:-1]
        # Moments of neighbours are an IAT apart, to the bit; only over longer gaps sums are subtracted.
        gap = jnp.where(ahead == 1, pick(iat, seen)[1:], jnp.where(ahead == 0, 0, jnp.maximum(time[1:] - time[:-1], 0)))
        return jnp.where(new[:, None], with_column(out, IAT, jnp.concatenate([iat[:1], gap])), out), new


@dataclasses.dataclass(frozen=True, kw_only=True)
class BurstLoss(Retransmission):
    """Loss in bursts: a retransmission timeout (RTO) covers a range of packets."""

    lmin: int = 2
    lmax: int = 6

    def _check_options(self) -> None:
        super()._check_options()
        check_count(self.name, "lmin", self.lmin, 1)
        check_count(self.name, "lmax", self.lmax, 1)
        if self.lmax < self.lmin:
            raise ConfigError(f"{self.name}: lmin={self.lmin} above lmax={self.lmax}; bursts last lmin to lmax packets")
        if self.lmax - self.lmin >= 2**15:
            raise ConfigError(f"{self.name}: lmax={self.lmax} too far above lmin={self.lmin}; stay within {2**15}")

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        packets = mask.shape[0]
        upper, lower = draws.halves(draws.words(key, packets))
        begins = draws.happens(upper, LOSS_AT_FULL_MAGNITUDE * alpha) & (positions(packets) >= self.first)
        duration = self.lmin + draws.below_half(lower, self.lmax - self.lmin + 1)
        return {"lost": burst(begins, duration) & mask}


def burst(begins: jax.Array, duration: jax.Array) -> jax.Array:
    """Packets within bursts: one begins where its flag is set and none is under way, and lasts `duration` packets.

    Args:
        begins: [T] bool.
        duration: [T] int32 >= 1, of a burst that would begin there.

    Returns:
        [T] bool.
    """

    def step(left: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left = jnp.where((left == 0) & now[0], now[1], left)
        return jnp.maximum(left - 1, 0), left > 0

    return jax.lax.scan(step, jnp.zeros((), jnp.int32), (begins, duration))[1]


class _Late(Retransmission):
    """Lost packets come behind the next delivered one; a lost tail stays where it is."""

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        lost = params["lost"] & mask
        packets = mask.shape[0]
        j = positions(packets)
        anchor = following(mask & ~lost)
        # A block is a run of lost packets and the one delivered behind them, which moves to the front of it.
        behind_lost = jnp.concatenate([jnp.zeros(1, bool), lost[:-1]])
        source = jnp.where(anchor == packets, j, jnp.where(behind_lost, j - 1, anchor))
        return self._emit(x, mask, source, anchor, length(mask))


class _Copies(Retransmission):
    """Copies of the lost packets behind the next delivered one, or at the end; the flow is cut at T."""

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        lost = params["lost"] & mask
        packets, j = mask.shape[0], positions(mask.shape[0])
        anchor = following(mask & ~lost)
        # A block ends with a delivered packet. Packet t is emitted at t + the losses of earlier blocks; behind the
        # block come the copies of its losses, which are its first packets.
        first = preceding(mask & ~lost) + 1
        copied = pick(running_count(lost) - lost.astype(jnp.int32), first)
        starts = jnp.where(mask, j + copied, 3 * packets)
        item = source_of(starts) - 1
        offset = j - pick(starts, item)
        source = jnp.where(offset == 0, item, pick(first, item) + offset - 1)
        seen = jnp.where(offset == 0, item, pick(anchor, item))
        total = jnp.minimum(packets, length(mask) + jnp.sum(lost, dtype=jnp.int32))
        return self._emit(x, mask, source, seen, total)


class DupRTO(_Copies, BurstLoss):
    """Duplicates bursts of packets, as a capture before the loss point shows a retransmission timeout.

    A burst begins at a packet with probability 0.1 alpha and lasts U{lmin..lmax} packets. Lost packets stay where they
    are and a copy of each is put, in order, behind the next packet that is delivered; at the end of the flow behind the
    last packet.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T], of min(T, n + lost) packets.
    Units: any. At alpha = 0 the flow is unchanged. Where all packets are lost the flow comes twice, cut at T.

    Options:
        lmin, lmax: range of burst lengths, default 2 and 6, the midpoints of Rosetta's published ranges (1-3, 2-10).
        first: so many packets at the start cannot begin a burst, default 0 (the official code protects one or two).
        iat: "carry" (default: the IAT travels with its packet, as in PAM'24) or "recompute" from capture times, raw
            seconds.
        pad: value of padding, one number or one a feature; default 0.

    Source: Rosetta figures 3 and 4 (emission order 1 2 3 4 5 | 2 3 4), PAM'24 (p = 0.1 alpha).
    """

    name: ClassVar[str] = "dup_rto"


class PermRTO(_Late, BurstLoss):
    """Delays bursts of packets, as a capture behind the loss point shows a retransmission timeout.

    A burst begins at a packet with probability 0.1 alpha and lasts U{lmin..lmax} packets. Lost packets come, in order,
    behind the next packet that is delivered; a lost tail stays in place.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T] as it was.
    Units: any. At alpha = 0 the flow is unchanged, and so it is where all packets are lost.

    Options:
        lmin, lmax: range of burst lengths, default 2 and 6, the midpoints of Rosetta's published ranges (1-3, 2-10).
        first: so many packets at the start cannot begin a burst, default 0 (the official code protects one or two).
        iat: "carry" (default: the IAT travels with its packet, as in PAM'24) or "recompute" from capture times, raw
            seconds.
        pad: value of padding, one number or one a feature; default 0.

    Source: Rosetta figures 3 and 4, PAM'24 (p = 0.1 alpha).
    """

    name: ClassVar[str] = "perm_rto"


class DupFastRetransmit(_Copies):
    """Duplicates single packets, as a capture before the loss point shows a fast retransmit.

    Each packet is lost with probability 0.1 alpha, independently. Lost packets stay where they are and a copy is put
    behind the next packet that is delivered: x1 x2 x3 x4 x3.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T], of min(T, n + lost) packets.
    Units: any. At alpha = 0 the flow is unchanged.

    Options:
        first: so many packets at the start are never lost, default 0 (the official code protects one or two).
        iat: "carry" (default: the IAT travels with its packet, as in PAM'24) or "recompute" from capture times, raw
            seconds.
        pad: value of padding, one number or one a feature; default 0.

    Source: Rosetta figure 4, PAM'24 (p = 0.1 alpha).
    """

    name: ClassVar[str] = "dup_fast_retransmit"


class PermFastRetransmit(_Late):
    """Delays single packets, as a capture behind the loss point shows a fast retransmit.

    Each packet is lost with probability 0.1 alpha, independently, and comes behind the next one delivered: x1 x2 x4 x3.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T] as it was.
    Units: any. At alpha = 0 the flow is unchanged.

    Options:
        first: so many packets at the start are never lost, default 0 (the official code protects one or two).
        iat: "carry" (default: the IAT travels with its packet, as in PAM'24) or "recompute" from capture times, raw
            seconds.
        pad: value of padding, one number or one a feature; default 0.

    Source: Rosetta figure 4, PAM'24 (p = 0.1 alpha). A retransmission is not lost again (second order in p).
    """

    name: ClassVar[str] = "perm_fast_retransmit"


dup_rto = DupRTO()
perm_rto = PermRTO()
dup_fast_retransmit = DupFastRetransmit()
perm_fast_retransmit = PermFastRetransmit()
