"""Sequence operations that move packets: flips, shifts, cuts, repeats (PAM'24); all features move together."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxtraffic.augment import draws
from jaxtraffic.augment.emission import (
    SHORT,
    close,
    length,
    middle,
    pick,
    positions,
    running_count,
    source_of,
    take,
)
from jaxtraffic.augment.operation import Operation, Params, check_choice, check_flag

TRANSLATION_STEPS = (0.15, 0.3, 0.5, 0.8)
PERMUTATION_STEPS = (0.15, 0.45, 0.75, 0.9)
SEGMENTS = 2 + len(PERMUTATION_STEPS)


def _steps(alpha: jax.Array, thresholds: tuple[float, ...]) -> jax.Array:
    """#{i: thresholds[i] <= alpha}, [] int32."""
    return jnp.sum(jnp.asarray(thresholds, jnp.float32) <= alpha, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HorizontalFlip(Operation):
    """Reverses the order of the packets.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T]; padding stays at the tail.
    Units: any. No magnitude: alpha is not used.

    Options:
        padding_first: flip the array itself, so that padding comes first; the mask is then no prefix. Default False.
        pad: value of padding, one number or one a feature; default 0.

    Source: PAM'24.
    """

    name: ClassVar[str] = "horizontal_flip"

    padding_first: bool = False

    def _check_options(self) -> None:
        check_flag(self.name, "padding_first", self.padding_first)

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        return {}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        if self.padding_first:
            return jnp.where(mask[::-1, None], x[::-1], self._pad_row(x.dtype)), mask[::-1]
        count = length(mask)
        return take(x, count - 1 - positions(mask.shape[0]), count, self._pad_row(x.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolation(Operation):
    """Stretches a flow to twice its length by means of neighbours, and takes a window of it.

    The stretched flow has 2n - 1 packets, the originals at even places and the means of neighbours between them; T of
    them from s ~ U{0..max(0, 2n - 1 - T)} on are kept.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T], of min(T, 2n - 1) packets.
    Units: any. No magnitude: alpha is not used. Means of IATs do not conserve time, as in the paper.

    Options:
        direction: "mean" (default, literal: +1 and -1 give 0) or "hold" (that of the earlier packet).
        pad: value of padding, one number or one a feature; default 0.

    Source: PAM'24; for n = T the start is exactly the paper's U{0..T-1}; shorter flows are kept whole.
    """

    name: ClassVar[str] = "interpolation"

    direction: str = "mean"

    def _check_options(self) -> None:
        check_choice(self.name, "direction", self.direction, ("mean", "hold"))

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        return {"start": draws.below(draws.words(key), 2 * length(mask) - mask.shape[0])}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        packets, count = mask.shape[0], length(mask)
        place = params["start"] + positions(packets)
        out = middle(pick(x, place // 2), pick(x, (place + 1) // 2), self.direction)
        return close(out, jnp.minimum(packets, 2 * count - 1), self._pad_row(x.dtype))


class Translation(Operation):
    """Repeats one packet up to N times, or drops up to N packets from a place on.

    N = 1 + #{.15, .3, .5, .8 <= alpha}, s ~ U{1..N}, t ~ U{0..n-1}, either side with probability 1/2. Right: packet t
    is repeated s times before packet t, the flow is cut at T. Left: s packets from t on are dropped.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T], longer or shorter by up to s packets.
    Units: any. alpha = 0 still moves by one. A flow that would be left empty is returned as it is.

    Options:
        pad: value of padding, one number or one a feature; default 0.

    Source: PAM'24; N as the 1-based arg max, empty 0: the only reading where all four thresholds matter.
    """

    name: ClassVar[str] = "translation"

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        word = draws.words(key, 2)
        side, amount = draws.halves(word[0])
        span = (1 + _steps(alpha, TRANSLATION_STEPS)).astype(jnp.uint32)
        amount = 1 + ((amount * span) >> 16).astype(jnp.int32)
        return {"start": draws.below(word[1], length(mask)), "amount": amount, "right": draws.happens(side, 0.5)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        start, amount, right = params["start"], params["amount"], params["right"]
        packets, count = mask.shape[0], length(mask)
        j = positions(packets)
        shorter = start + jnp.maximum(count - start - amount, 0)
        empty = ~right & (shorter == 0)
        repeated = jnp.where(j < start, j, jnp.maximum(start, j - amount))
        dropped = jnp.where((j < start) | empty, j, j + amount)
        grown = jnp.where(count > 0, jnp.minimum(packets, count + amount), 0)
        total = jnp.where(right, grown, jnp.where(empty, count, shorter))
        return take(x, jnp.where(right, repeated, dropped), total, self._pad_row(x.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrap(Operation):
    """Keeps, doubles by interpolation, or drops each packet on its own.

    With probability 1 - alpha packet t is kept, with alpha / 2 it is kept and the mean of packets t and t + 1 put
    behind it, with alpha / 2 it is dropped; the result is cut at T.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T], of n - alpha / 2 packets in expectation before the
    cut at T.
    Units: any. At alpha = 0 the flow is unchanged. The last packet has no successor: it is kept or dropped. Where all
    are dropped the first stays.

    Options:
        direction: of means: "mean" (default, literal: +1 and -1 give 0) or "hold" (that of the earlier packet).
        pad: value of padding, one number or one a feature; default 0.

    Source: thesis (the second "nochange" in PAM'24's listing is "discard" there).
    """

    name: ClassVar[str] = "wrap"

    direction: str = "mean"

    def _check_options(self) -> None:
        check_choice(self.name, "direction", self.direction, ("mean", "hold"))

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        half = draws.half_words(key, mask.shape[0])
        emit = jnp.where(draws.happens(half, alpha / 2), 0, jnp.where(draws.happens(half, alpha), 2, 1))
        return {"emit": emit.astype(jnp.int32)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        packets, count = mask.shape[0], length(mask)
        t = positions(packets)
        emit = jnp.where(t == count - 1, jnp.minimum(params["emit"], 1), params["emit"])
        emit = jnp.where(mask, emit, 0)
        emit = jnp.where((t == 0) & mask & ~jnp.any(emit > 0), 1, emit)
        ends = running_count(emit > 0) + running_count(emit > 1)
        source = source_of(ends)
        second = (t == pick(ends, source) - 1) & (pick(emit, source) == 2)
        out = middle(pick(x, source), pick(x, source + second.astype(jnp.int32)), self.direction)
        return close(out, jnp.minimum(packets, ends[-1]), self._pad_row(x.dtype))


class Permutation(Operation):
    """Cuts a flow into a few segments and puts them in random order.

    N = 2 + #{.15, .45, .75, .9 <= alpha}, s ~ U{2..min(N, n)} segments, s - 1 distinct cuts out of 1..n-1, the order of
    the segments uniform over all s! (the identity is one of them).

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T] as it was; padding stays at the tail.
    Units: any. alpha = 0 still cuts in two. Flows of one packet are unchanged.

    Options:
        pad: value of padding, one number or one a feature; default 0.

    Source: PAM'24 (re-implementations cut into equal parts, which is not the text).
    """

    name: ClassVar[str] = "permutation"

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        word = draws.words(key, 2 * SEGMENTS)
        count = length(mask)
        most = jnp.minimum(2 + _steps(alpha, PERMUTATION_STEPS), count)
        cuts = jnp.where(count >= 2, 1 + draws.below(word[0], most - 1), 0)
        boundary = _distinct_cuts(word[1:SEGMENTS], cuts, count, mask.shape[0])
        return {"boundary": boundary, "place": _random_places(word[SEGMENTS:], cuts + 1)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        count, j = length(mask), positions(mask.shape[0])
        segment = running_count(params["boundary"])
        index = j
        for g in range(SEGMENTS):
            # Segment g lies at start..start+size-1 and moves behind all segments of lower place.
            start = jnp.sum(mask & (segment < g), dtype=jnp.int32)
            size = jnp.sum(mask & (segment == g), dtype=jnp.int32)
            before = jnp.sum(mask & (pick(params["place"], segment) < params["place"][g]), dtype=jnp.int32)
            index = jnp.where((j >= before) & (j < before + size), j - before + start, index)
        return take(x, index, count, self._pad_row(x.dtype))


def _distinct_cuts(word: jax.Array, cuts: jax.Array, count: jax.Array, packets: int) -> jax.Array:
    """[SEGMENTS - 1] words -> [T] bool: `cuts` distinct places out of 1..count-1, by Floyd's sampling (no sort)."""
    t = positions(packets)
    boundary = jnp.zeros(packets, bool)
    for i in range(SEGMENTS - 1):
        last = count - cuts + i
        one = 1 + draws.below(word[i], last)
        taken = jnp.any(boundary & (t == one))
        boundary |= (t == jnp.where(taken, last, one)) & (i < cuts)
    return boundary


def _random_places(word: jax.Array, segments: jax.Array) -> jax.Array:
    """[SEGMENTS] words -> [SEGMENTS] int32: a uniform permutation of 0..segments-1 in front, SEGMENTS behind."""
    present = positions(SEGMENTS) < segments
    return jnp.where(present, draws.ranks(word, present), SEGMENTS)


class Shuffle(Operation):
    """Puts the packets of a flow in random order, uniform over all n!.

    Shapes: x [T, 3] in any units, mask [T] -> x [T, 3], mask [T] as it was; padding stays at the tail.
    Units: any. No magnitude: alpha is not used.

    Options:
        pad: value of padding, one number or one a feature; default 0.

    Source: TMA'23 (thesis chapter on few-shot learning), a view for contrastive learning.
    """

    name: ClassVar[str] = "shuffle"

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        packets = mask.shape[0]
        word, t = draws.words(key, packets), positions(packets)
        if packets > SHORT:
            word = jnp.where(mask, word >> 1, jnp.uint32(2**32 - 1))
            return {"order": jnp.argsort(word, stable=True).astype(jnp.int32)}
        # The rank of each packet's word is a uniform permutation; so is its inverse, and no sort is needed.
        return {"order": jnp.where(mask, draws.ranks(word, mask), t)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        return take(x, params["order"], length(mask), self._pad_row(x.dtype))


horizontal_flip = HorizontalFlip()
interpolation = Interpolation()
translation = Translation()
wrap = Wrap()
permutation = Permutation()
shuffle = Shuffle()
