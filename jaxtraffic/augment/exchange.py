"""CutMix: flows of a batch exchange a window of packets (PAM'24)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxtraffic.augment import draws
from jaxtraffic.augment.emission import kept, positions
from jaxtraffic.augment.operation import (
    Operation,
    Params,
    check_alpha,
    check_features,
    check_flag,
    check_key,
    check_mask,
)
from jaxtraffic.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix(Operation):
    """Pairs the flows of a batch at random; each pair exchanges one window of packets. Takes a batch, not one flow.

    w ~ U{0..T-1}, t ~ U{0..T-w}: places t..t+w-1 of packets and mask change sides, then each flow is closed up (its
    packets in front, in order). With an odd number of flows one stays as it is. Within a composition of `batched`
    partners come from the same block of flows.

    Shapes: x [B, T, 3] in any units, mask [B, T] -> x [B, T, 3], mask [B, T].
    Units: any. No magnitude: alpha is not used. Labels are not mixed: PAM'24 does not say how; each row keeps its own.
    To mix them take `params = cutmix.sample(key, mask)`: params["partner"] [B] and params["lam"] [B] = 1 - w / T.

    Options:
        within_class: pair flows of one class only, default False; it takes label= [B], integers.
        literal: t ~ U{0..T-1-w} as printed, which never touches the last place; default False.
        pad: value of padding, one number or one a feature; default 0.

    Source: PAM'24; closing up and the range of t are ours.
    """

    name: ClassVar[str] = "cutmix"
    batch: ClassVar[bool] = True

    literal: bool = False
    within_class: bool = False

    def _check_options(self) -> None:
        check_flag(self.name, "literal", self.literal)
        check_flag(self.name, "within_class", self.within_class)

    def __call__(
        self,
        key: jax.Array,
        x: jax.Array,
        mask: jax.Array,
        alpha: Any = 1.0,
        *,
        stats: Any = None,
        label: jax.Array | None = None,
        **options: Any,
    ) -> tuple[jax.Array, jax.Array]:
        """Draws and applies on a batch: (x [B, T, 3], mask [B, T]) -> the same shapes and dtypes."""
        op = self.with_options(**options)
        op._check_flow(x, mask)
        x, mask = jnp.asarray(x), jnp.asarray(mask)
        return op._apply(x, mask, op.sample(key, mask, alpha, label=label))

    def sample(
        self,
        key: jax.Array,
        mask: jax.Array,
        alpha: Any = 1.0,
        *,
        stats: Any = None,
        label: jax.Array | None = None,
        **options: Any,
    ) -> Params:
        """Draws pairs and windows for a batch.

        Args:
            key: typed key, shape [].
            mask: [B, T] bool.
            alpha: not used; [] or [B].
            stats: not used.
            label: [B] integers, for within_class.
            options: options that differ from its own.

        Returns:
            "partner" [B] int32 (a flow's own index where it has none), "start", "width" [B] int32, "lam" [B] float32.

        Raises:
            ConfigError: at trace time: no batch, or within_class without labels.
        """
        op = self.with_options(**options)
        check_key(self.name, key)
        self._check_batch(mask)
        check_alpha(self.name, alpha, ((), mask.shape[:1]))
        if op.within_class and label is None:
            raise ConfigError(f"{self.name}: within_class needs label=, the class of each flow, integers [flow]")
        if label is not None and tuple(label.shape) != (mask.shape[0],):
            raise ConfigError(
                f"{self.name}: label of shape {tuple(label.shape)} for {mask.shape[0]} flows; give [flow]"
            )
        flows, packets = mask.shape
        word = draws.words(key, 3, flows)
        partner = _pairs(word[0], jnp.asarray(label) if op.within_class else None)
        # Both flows of a pair read the draw of the one with the lower index.
        lead = jnp.minimum(partner, positions(flows))
        width = draws.below(word[1], packets)
        start = draws.below(word[2], packets - width + (0 if op.literal else 1))
        paired = partner != positions(flows)
        width, start = jnp.where(paired, width[lead], 0), jnp.where(paired, start[lead], 0)
        return {"partner": partner, "start": start, "width": width, "lam": 1 - width.astype(jnp.float32) / packets}

    def _check_batch(self, mask: Any) -> None:
        if len(getattr(mask, "shape", ())) != 2:
            raise ConfigError(
                f"{self.name}: mask of shape {tuple(getattr(mask, 'shape', ()))}, expected [flow, packet]: it works on "
                "a batch and is not to be vmapped over flows"
            )
        check_mask(self.name, jax.ShapeDtypeStruct(mask.shape[1:], mask.dtype))

    def _check_flow(self, x: Any, mask: Any) -> None:
        self._check_batch(mask)
        if len(getattr(x, "shape", ())) != 3 or x.shape[0] != mask.shape[0]:
            raise ConfigError(
                f"{self.name}: x of shape {tuple(getattr(x, 'shape', ()))} with mask {tuple(mask.shape)}, expected "
                "[flow, packet, 3] and [flow, packet]"
            )
        check_features(self.name, jax.ShapeDtypeStruct(x.shape[1:], x.dtype), mask.shape[1])

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        if not x.shape[0]:
            return x, mask
        partner, start, width = params["partner"], params["start"], params["width"]
        pad, batch = self._pad_row(x.dtype), (x, mask)

        def mix(
            x: jax.Array, mask: jax.Array, other: jax.Array, start: jax.Array, width: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            j = positions(mask.shape[0])
            inside = (j >= start) & (j < start + width)
            y, m = (array.at[other].get(mode="promise_in_bounds") for array in batch)
            out, new, _ = kept(jnp.where(inside[:, None], y, x), jnp.where(inside, m, mask), pad)
            return out, new

        return jax.vmap(mix)(x, mask, partner, start, width)


def _pairs(word: jax.Array, label: jax.Array | None) -> jax.Array:
    """Words [B] -> [B] int32: neighbours in the order of the words (within a label) are partners."""
    flows = word.shape[0]
    i = positions(flows)
    if label is None:
        order = jnp.argsort(word)
        place = i
        last = jnp.full(flows, flows, jnp.int32)
    else:
        order = jnp.lexsort((word, label))
        grouped = label[order]
        changes = jnp.concatenate([jnp.ones(1, bool), grouped[1:] != grouped[:-1]])
        begin = jax.lax.cummax(jnp.where(changes, i, 0))
        ends = jnp.concatenate([changes[1:], jnp.ones(1, bool)])
        last = jax.lax.cummin(jnp.where(ends, i + 1, flows), reverse=True)
        place = i - begin
    beside = i + jnp.where(place % 2 == 0, 1, -1)
    beside = jnp.where(beside < last, beside, i)
    return jnp.zeros(flows, jnp.int32).at[order].set(order[beside].astype(jnp.int32), unique_indices=True)


cutmix = CutMix()
