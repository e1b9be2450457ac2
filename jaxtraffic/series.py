"""PacketSeries, the one data type: the first T packets of many flows, with their labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxtraffic.errors import ConfigError

FEATURES = ("size", "direction", "iat")
"""Order of the last axis of `x [flow, packet, 3]`."""


def _static(default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class PacketSeries:
    """Packet series of labelled flows; a frozen pytree whose first axis is the flow.

    The mask is `direction != 0`, a prefix of each row, and nothing else: size 0 is a real ACK and IAT 0 is real.

    Attributes:
        size: [flow, packet] int16, bytes, >= 0, 0 in padding.
        direction: [flow, packet] int8, +1 client to server, -1 server to client, 0 padding.
        iat: [flow, packet] float32, seconds since the previous packet, first packet 0, 0 in padding.
        label: [flow] int32, index into `class_names`.
        group: [flow] int32 or None: flows of one capture share a number, so that folds can keep them together.
        class_names: names of the classes, index = label.
        name: name of the data set.
        size_layer: "ip" (IP total length) or "payload" (transport payload).
        source: "real" or "simulated".
    """

    size: Any
    direction: Any
    iat: Any
    label: Any
    group: Any = None
    class_names: tuple[str, ...] = _static(())
    name: str = _static("unnamed")
    size_layer: str = _static("ip")
    source: str = _static("real")

    def __len__(self) -> int:
        """Number of flows."""
        return self.size.shape[0]

    @property
    def length(self) -> int:
        """T, the number of packet positions."""
        return self.size.shape[1]

    @property
    def mask(self) -> Any:
        """[flow, packet] bool, True on packets and False on padding."""
        return self.direction != 0

    @property
    def n_packets(self) -> Any:
        """[flow] int32, packets of each flow among the first T."""
        return self.mask.sum(axis=1, dtype=np.int32)

    @property
    def signed_size(self) -> Any:
        """[flow, packet] int16, size times direction: the view that generators and judges use."""
        return self.size * self.direction.astype(np.int16)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """x [flow, packet, 3] float32 in the order of `FEATURES`, and mask [flow, packet] bool, as NumPy arrays."""
        x = np.stack([np.asarray(getattr(self, name), np.float32) for name in FEATURES], axis=-1)
        return x, np.asarray(self.mask)

    def __getitem__(self, index: Any) -> PacketSeries:
        """Flows chosen by a slice, an integer array or a boolean array; metadata stay."""
        if isinstance(index, int | np.integer):
            index = slice(index, index + 1) if index != -1 else slice(-1, None)
        return jax.tree.map(lambda leaf: leaf[index], self)

    def replace(self, **changes: Any) -> PacketSeries:
        """A copy with other fields."""
        return dataclasses.replace(self, **changes)

    def counts(self) -> np.ndarray:
        """[class] int64, flows of each class."""
        return np.bincount(np.asarray(self.label), minlength=len(self.class_names))

    def check(self) -> PacketSeries:
        """Returns itself, or raises ConfigError naming the first field that breaks the contract of the class."""
        shape = self.size.shape
        problems = [
            ("size", len(shape) != 2 or self.size.dtype != np.int16, "[flow, packet] int16"),
            (
                "direction",
                self.direction.shape != shape or self.direction.dtype != np.int8,
                "int8 of the shape of size",
            ),
            ("iat", self.iat.shape != shape or self.iat.dtype != np.float32, "float32 of the shape of size"),
            ("label", self.label.shape != shape[:1] or self.label.dtype != np.int32, "[flow] int32"),
            ("group", self.group is not None and self.group.shape != shape[:1], "[flow] int32 or None"),
            ("size_layer", self.size_layer not in ("ip", "payload"), '"ip" or "payload"'),
            ("source", self.source not in ("real", "simulated"), '"real" or "simulated"'),
        ]
        _raise_first(problems)
        mask = self.mask
        _raise_first(
            [
                ("size", bool((self.size < 0).any()), "bytes >= 0"),
                ("direction", bool((np.abs(self.direction) > 1).any()), "-1, 0 or +1"),
                ("direction", bool((mask[:, 1:] & ~mask[:, :-1]).any()), "padding after the packets only"),
                ("size", bool((self.size != 0)[~mask].any()), "0 in padding"),
                ("iat", not bool(np.isfinite(self.iat).all()) or bool((self.iat < 0).any()), "finite seconds >= 0"),
                (
                    "label",
                    bool(((self.label < 0) | (self.label >= len(self.class_names))).any()),
                    f"an index into the {len(self.class_names)} class names",
                ),
            ]
        )
        return self


def _raise_first(problems: list[tuple[str, bool, str]]) -> None:
    for field, wrong, expected in problems:
        if wrong:
            raise ConfigError(f"PacketSeries.{field} must be {expected}")


def from_signed_size(
    signed_size: np.ndarray,
    label: np.ndarray,
    *,
    class_names: Sequence[str],
    name: str = "synthetic",
    size_layer: str = "ip",
    source: str = "simulated",
) -> PacketSeries:
    """Builds a series from signed sizes, so that `.signed_size` gives them back bit for bit.

    Zeros after the last non-zero value are padding; a zero before it is a packet of size 0 from the client (its
    direction is not recorded in a signed size). IATs are 0.

    Args:
        signed_size: [flow, packet] integers within int16.
        label: [flow] integers, index into `class_names`.
        class_names: names of the classes.
        name: name of the data set.
        size_layer: "ip" or "payload".
        source: "real" or "simulated".
    """
    signed = np.asarray(signed_size).astype(np.int16)
    position = np.arange(signed.shape[1])
    last = np.max(np.where(signed != 0, position, -1), axis=1, initial=-1)
    mask = position <= last[:, None]
    direction = np.where(mask, np.where(signed < 0, -1, 1), 0).astype(np.int8)
    return PacketSeries(
        size=np.abs(signed),
        direction=direction,
        iat=np.zeros(signed.shape, np.float32),
        label=np.asarray(label, np.int32),
        class_names=tuple(class_names),
        name=name,
        size_layer=size_layer,
        source=source,
    ).check()


def concatenate(parts: Sequence[PacketSeries]) -> PacketSeries:
    """Joins series of the same classes and length, flow after flow; metadata of the first, groups dropped.

    Raises:
        ConfigError: no parts, other class names or another length.
    """
    if not parts:
        raise ConfigError("concatenate needs at least one PacketSeries")
    first = parts[0]
    for part in parts[1:]:
        if part.class_names != first.class_names or part.length != first.length:
            raise ConfigError("concatenate needs series of the same class names and the same length")
    parts = [part.replace(group=None, **_metadata(first)) for part in parts]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _metadata(flows: PacketSeries) -> dict[str, Any]:
    return {name: getattr(flows, name) for name in ("class_names", "name", "size_layer", "source")}
