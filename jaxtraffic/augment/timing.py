"""Operations on the clock: losses around a moment, a longer round trip, a later start. They need seconds."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxtraffic.augment import draws
from jaxtraffic.augment.emission import kept, length, pick, positions, preceding, wide, with_column
from jaxtraffic.augment.operation import IAT, Operation, Params, check_choice, check_count, check_flag, check_share
from jaxtraffic.errors import ConfigError

Convert = Callable[[jax.Array], jax.Array] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing(Operation):
    """What these operations share: the way from the IAT column to seconds and back.

    Attributes:
        to_seconds: maps the IAT feature [T] to seconds where x is not raw; None: x holds seconds.
        from_seconds: its inverse, finite at 0 seconds; for log10 features for example
            lambda s: (jnp.log10(jnp.maximum(s, 1e-7)) + 7) / 8, with to_seconds=lambda v: 10 ** (8 * v - 7).
    """

    to_seconds: Convert = None
    from_seconds: Convert = None

    def _check_options(self) -> None:
        if (self.to_seconds is None) != (self.from_seconds is None):
            raise ConfigError(
                f"{self.name}: to_seconds and from_seconds come together; give both, or none for raw seconds"
            )
        for option in ("to_seconds", "from_seconds"):
            convert = getattr(self, option)
            if convert is not None and not callable(convert):
                raise ConfigError(f"{self.name}: {option}={convert!r}; give a function of the IAT column, or None")

    def _seconds(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """IATs of valid packets in seconds, [T] float32, 0 at padding."""
        iat = jnp.where(mask, wide(x[:, IAT]), 0)
        if self.to_seconds is None:
            return iat
        return jnp.where(mask, jnp.asarray(self.to_seconds(iat)).astype(iat.dtype), 0)

    def _feature(self, seconds: jax.Array) -> jax.Array:
        return seconds if self.from_seconds is None else jnp.asarray(self.from_seconds(seconds))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PacketLoss(Timing):
    """Drops all packets around a random moment of the flow.

    With t_k the time since the first packet and Delta the duration, delta ~ U[0, Delta]: packets with
    |t_k - delta| <= h are dropped, and the IATs of the others are derived again (the first 0).

    Shapes: x [T, 3] with IATs in seconds, mask [T] -> x [T, 3], mask [T], shorter.
    Units: seconds (or to_seconds and from_seconds). alpha = 0 still drops.

    Options:
        mode: "fraction" (default): h = (0.05 + 0.10 alpha) Delta. "seconds": h = 5 + 10 alpha, literal, which empties
            every flow of up to 5 + 10 alpha seconds for certain.
        keep_min: flows that would keep fewer packets are returned as they are, default 1.
        to_seconds, from_seconds: elementwise maps between the IAT column and seconds, for features that are not raw.
        pad: value of padding, one number or one a feature; default 0.

    Source: PAM'24 and the thesis ("delta +- 10 s" at alpha = 0.5); the fraction is ours, for series that
    cover the first seconds of a flow.
    """

    name: ClassVar[str] = "packet_loss"

    mode: str = "fraction"
    keep_min: int = 1

    def _check_options(self) -> None:
        super()._check_options()
        check_choice(self.name, "mode", self.mode, ("fraction", "seconds"))
        check_count(self.name, "keep_min", self.keep_min, 1)

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        half_width = 0.05 + 0.10 * alpha if self.mode == "fraction" else 5 + 10 * alpha
        return {"u": draws.unit(draws.words(key)), "half_width": half_width}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        seconds = self._seconds(x, mask)
        # Only the choice of packets depends on the times here: no gradient passes through a comparison.
        time = jnp.cumsum(jnp.where(positions(mask.shape[0]) == 0, 0.0, seconds))
        duration = time[-1]
        half_width = params["half_width"].astype(time.dtype) * (duration if self.mode == "fraction" else 1.0)
        keep = mask & (jnp.abs(time - params["u"].astype(time.dtype) * duration) > half_width)
        spared = length(keep) < self.keep_min
        keep = jnp.where(spared, mask, keep)
        out, new, source = kept(x, keep, self._pad_row(x.dtype))
        last = pick(preceding(keep), source)
        gap = jnp.where(last < 0, 0.0, pick(time, source) - pick(time, last))
        # A packet right behind its predecessor keeps its IAT to the bit.
        moved = new & (last != source - 1)
        first = new & (positions(mask.shape[0]) == 0)
        gap = jnp.where((moved | first) & ~spared, self._feature(gap).astype(x.dtype), out[:, IAT])
        return with_column(out, IAT, gap), new


@dataclasses.dataclass(frozen=True, kw_only=True)
class IATScale(Timing):
    """Multiplies the IATs of a flow with one factor: another round-trip time.

    iat *= f, f ~ U[1 - width alpha, 1 + width alpha].

    Shapes: x [T, 3] with IATs in seconds, mask [T] -> x [T, 3], mask [T] as it was.
    Units: seconds (or to_seconds and from_seconds). At alpha = 0 the flow is unchanged.

    Options:
        width: half the width of the range at alpha = 1, default 0.5 (tcbench's U[0.5, 1.5]).
        to_seconds, from_seconds: elementwise maps between the IAT column and seconds, for features that are not raw.
        pad: for the sake of one signature; padding is never touched here.

    Source: "Change RTT" of Horowicz et al. 2022 as in tcbench; the magnitude is ours.
    """

    name: ClassVar[str] = "iat_scale"

    width: float = 0.5

    def _check_options(self) -> None:
        super()._check_options()
        check_share(self.name, "width", self.width)

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        return {"factor": 1 + self.width * alpha * (2 * draws.unit(draws.words(key)) - 1)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        seconds = self._seconds(x, mask)
        scaled = self._feature(seconds * params["factor"].astype(seconds.dtype)).astype(x.dtype)
        return with_column(x, IAT, jnp.where(mask & (params["factor"] != 1), scaled, x[:, IAT])), mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeShift(Timing):
    """Moves a flow on the clock of its observation window; what falls before the start is not seen.

    shift = alpha max_shift U[-1, 1] is added to the time of every packet (the first packet's IAT is its time since the
    start of the window); packets before 0 are dropped, and the first one left holds its new time as IAT.

    Shapes: x [T, 3] with IATs in seconds, mask [T] -> x [T, 3], mask [T], shorter where the shift is negative.
    Units: seconds (or to_seconds and from_seconds). At alpha = 0 the flow is unchanged. A flow that would be left empty
    is returned as it is.

    Options:
        max_shift: seconds at alpha = 1, default 1 (tcbench).
        rebase: start the clock anew at the first packet left, default False; True hides positive shifts, as the
            official mini-flowpic code does.
        to_seconds, from_seconds: elementwise maps between the IAT column and seconds, for features that are not raw.
        pad: value of padding, one number or one a feature; default 0.

    Source: "Time shift" of Horowicz et al. 2022 as in tcbench, U[-1, 1] s; the magnitude is ours.
    """

    name: ClassVar[str] = "time_shift"

    max_shift: float = 1.0
    rebase: bool = False

    def _check_options(self) -> None:
        super()._check_options()
        check_flag(self.name, "rebase", self.rebase)
        if not isinstance(self.max_shift, numbers.Real) or self.max_shift < 0:
            raise ConfigError(f"{self.name}: max_shift={self.max_shift!r}; give seconds >= 0")

    def _draw(self, key: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> Params:
        return {"shift": alpha * self.max_shift * (2 * draws.unit(draws.words(key)) - 1)}

    def _apply(self, x: jax.Array, mask: jax.Array, params: Params) -> tuple[jax.Array, jax.Array]:
        seconds = self._seconds(x, mask)
        time = jnp.cumsum(seconds) + params["shift"].astype(seconds.dtype)
        keep = mask & (time >= 0)
        empty = ~jnp.any(keep)
        keep = jnp.where(empty, mask, keep)
        out, new, source = kept(x, keep, self._pad_row(x.dtype))
        first = new & (positions(mask.shape[0]) == 0)
        start = jnp.where(first & ~jnp.asarray(self.rebase), pick(time, source), 0.0)
        start = self._feature(start).astype(x.dtype)
        restarts = first & ~empty & ((params["shift"] != 0) | self.rebase)
        return with_column(out, IAT, jnp.where(restarts, start, out[:, IAT])), new


packet_loss = PacketLoss()
iat_scale = IATScale()
time_shift = TimeShift()
