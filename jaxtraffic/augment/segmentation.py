"""Packet size variation: the bytes of a flow cut into segments of another size (Rosetta, Xie et al. 2023)."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxtraffic.augment import draws
from jaxtraffic.augment.emission import close, length, pick, positions, running_count, source_of
from jaxtraffic.augment.operation import DIRECTION, IAT, SIZE, Operation, Params, check_count
from jaxtraffic.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MSSVariation(Operation):
    """Merges the payload of consecutive packets of one direction and cuts it by another maximum segment size (MSS).

    A packet with payload (size > header) joins the group before it if that has payload, the same direction, and began
    less than rtt ago; a packet without payload (a pure ACK) stays as it is and ends a group. The bytes of a group
    become pieces of MSS bytes and a remainder, each with a header; the first piece has the IAT of the group's first
    packet, the others 0. MSS ~ U{hi - alpha (hi - lo)..hi}, rtt ~ U[0, alpha rtt_max].

    Shapes: x [T, 3] in bytes and seconds, mask [T] -> x [T, 3], mask [T], longer or shorter, cut at T.
    Units: bytes (whole ones; others are rounded), seconds. At alpha = 0 flows with sizes up to hi + header are
    unchanged.

    What a group took in time vanishes, but for the IAT of its first packet. The ranges by alpha and the rule that a
    group has one direction are ours.

    Options:
        mss: (lo, hi) bytes, default (500, 1460). Rosetta has 500-1500; 1460 + 40 is what fits an Ethernet frame.
        rtt_max: seconds, default 0.2, Rosetta's largest RTTmax.
        header: bytes of a packet that are not payload, default 40 (IPv4 and TCP); 28 for UDP and QUIC, and 0 where
            sizes are payload (PacketSeries.size_layer).
        pad: value of padding, one number or one a feature; default 0.

    Source: Rosetta section 5.1, its fifth augmentation; the official code has no directions and cuts by 1448 bytes.
    """

    name: ClassVar[str] = "mss_variation"

    mss: tuple[int, int] = (500, 1460)
    rtt_max: float = 0.2
    header: int = 40

    def _check_options(self) -> None:
        if not isinstance(self.mss, tuple) or len(self.mss) != 2:
            raise ConfigError(f"{self.name}: mss={self.mss!r}; give a tuple (low, high) of bytes")
        for value in self.mss:
            check_count(self.name, "mss", value, 1)
        if self.mss[1] - self.mss[0] >= 2**15:
            raise ConfigError(f"{self.name}: mss={self.mss!r}; keep the range under {2**15} bytes")
        if self.mss[0] > self.mss[1]:
            raise ConfigError(f"{self.name}: mss={self.mss!r}; low must not lie above high")
        if not isinstance(self.rtt_max, numbers.Real) or self.rtt_max < 0:
            raise ConfigError(f"{self.name}: rtt_max={self.rtt_max!r}; give seconds >= 0")
        check_count(self.name, "header", self.header, 0)

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        word = draws.words(key, 2)
        low, high = self.mss
        spread = jnp.floor(alpha * (high - low)).astype(jnp.int32) + 1
        return {"mss": high - draws.below(word[0], spread), "rtt": alpha * self.rtt_max * draws.unit(word[1])}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        packets, mss = mask.shape[0], params["mss"]
        size = jnp.where(mask, x[:, SIZE], 0).astype(jnp.float32)
        payload = jnp.maximum(jnp.round(size).astype(jnp.int32) - self.header, 0)
        begins = mask & ~_joins(x.astype(jnp.float32), payload > 0, params["rtt"])
        group = jnp.where(mask, running_count(begins) - 1, packets)
        # Group g holds packets first[g]..first[g + 1] - 1; groups that do not exist begin at n and hold nothing.
        first = jnp.sum(group[None, :] < positions(packets)[:, None], axis=1, dtype=jnp.int32)
        after = jnp.concatenate([first[1:], length(mask)[None]])
        sent = jnp.cumsum(payload)
        total = _up_to(sent, after) - _up_to(sent, first)
        whole = total // mss
        rest = total - whole * mss
        pieces = jnp.where(total > 0, whole + (rest > 0).astype(jnp.int32), (after > first).astype(jnp.int32))
        ends = jnp.cumsum(pieces)
        owner = source_of(ends)
        piece = positions(packets) - (pick(ends, owner) - pick(pieces, owner))
        lead = pick(x, pick(first, owner))
        full = piece < pick(whole, owner)
        size = jnp.where(full, mss, pick(rest, owner)) + self.header
        size = jnp.where(pick(total, owner) > 0, size.astype(x.dtype), lead[:, SIZE])
        iat = jnp.where(piece == 0, lead[:, IAT], 0)
        out = jnp.stack([size, lead[:, DIRECTION], iat], axis=1)
        return close(out, jnp.minimum(packets, ends[-1]), self._pad_row(x.dtype))


def _up_to(sums: jax.Array, end: jax.Array) -> jax.Array:
    """Running sums [T] -> the sums before positions `end` [T]."""
    return jnp.where(end > 0, pick(sums, end - 1), 0)


def _joins(x: jax.Array, has_payload: jax.Array, rtt: jax.Array) -> jax.Array:
    """[T] bool: the packet belongs to the group of the one before it."""
    nothing = (jnp.zeros((), bool), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    def step(
        group: tuple[jax.Array, jax.Array, jax.Array], packet: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        payload, direction, age = group
        carries, towards, iat = packet
        joins = payload & carries & (direction == towards) & (age + iat < rtt)
        return (carries, towards, jnp.where(joins, age + iat, 0.0)), joins

    return jax.lax.scan(step, nothing, (has_payload, x[:, DIRECTION], x[:, IAT]))[1]


mss_variation = MSSVariation()
