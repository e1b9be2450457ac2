"""Tokens of packet series, invertible to the byte: exact atoms for frequent signed sizes, bins for the rest, an end.

Packet sizes are mostly atoms (reference/generative.md, section 0), which no Gaussian resolves. A packet becomes a
(token, offset) pair, and a flow of fewer than T packets gets an end token:

    token 0             end of flow, absorbing; a flow of T packets has none
    tokens 1..A         one signed size each, exact: those with a share of at least `atom_share`; offset 0
    tokens A+1..V-1     bins of O = `bin_bytes` signed sizes each, in ascending order; size = low + offset

Bins tile the whole int16 range, so that every size stays possible; an atom is excluded from the bin around it, so that
each size has exactly one code. Most bins are then sizes that no training flow has: a network takes the tokens whose
count is above 0 and gives all others one symbol (`token_vocabulary`), or a softmax over them is most of its cost.

The order of factorisation is token, offset, then the inter-arrival time (see `token_times`).
A size of 0 has no sign: its direction is not kept, and comes back as client to server, as in `from_signed_size`.
"""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.generate.token_times import TimeTokens, fit_times
from jaxtraffic.series import PacketSeries

END = 0
"""Token of the end of a flow, and of all padding after it."""
VALUES = 65536
"""Values of int16."""
LOWEST = -32768
"""The first of them."""
BIN_BYTES = (2, 4, 8, 16, 32, 64, 128, 256)
"""Widths of bins that tile the int16 range."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tokeniser:
    """The code of signed sizes, and of IATs where fitted; NumPy arrays and plain numbers only.

    Attributes:
        length: T, packet positions.
        bin_bytes: O, signed sizes of a bin.
        atoms: [A] int32 ascending, the signed sizes that have a token of their own.
        bin_low: [B] int32 ascending, lowest signed size of each bin.
        token_counts: [V] int64, how often training flows have each token; the end counts once a flow.
        offset_counts: [V, O] int64, how often with each offset.
        times: code of IATs, or None.
    """

    length: int
    bin_bytes: int
    atoms: np.ndarray
    bin_low: np.ndarray
    token_counts: np.ndarray
    offset_counts: np.ndarray
    times: TimeTokens | None = None

    @property
    def n_atoms(self) -> int:
        """A, the number of exact sizes."""
        return len(self.atoms)

    @property
    def n_tokens(self) -> int:
        """V, the size of the vocabulary, the end included."""
        return 1 + len(self.atoms) + len(self.bin_low)

    @property
    def n_offsets(self) -> int:
        """O, the offsets of a bin."""
        return self.bin_bytes

    @functools.cached_property
    def low(self) -> np.ndarray:
        """[V] int32: signed size of each token at offset 0; 0 for the end."""
        return np.concatenate([[0], self.atoms, self.bin_low]).astype(np.int32)

    @functools.cached_property
    def offset_mask(self) -> np.ndarray:
        """[V, O] bool: the offsets that a token has; the end and atoms have offset 0 only."""
        mask = np.zeros((self.n_tokens, self.n_offsets), bool)
        mask[: 1 + self.n_atoms, 0] = True
        value = self.bin_low[:, None] + np.arange(self.n_offsets)
        mask[1 + self.n_atoms :] = ~np.isin(value, self.atoms)
        return mask

    @functools.cached_property
    def _token_of(self) -> np.ndarray:
        """[65536] int32: token of each signed size, from -32768 on."""
        bins = np.searchsorted(self.bin_low, np.arange(LOWEST, LOWEST + VALUES), side="right")
        table = (bins + self.n_atoms).astype(np.int32)
        table[self.atoms - LOWEST] = 1 + np.arange(self.n_atoms)
        return table

    def encode(self, signed_size: np.ndarray, n_packets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed sizes -> tokens and offsets.

        Args:
            signed_size: [flow, T] int16, 0 in padding.
            n_packets: [flow] integers, 0..T; zeros before it are packets of size 0.

        Returns:
            token [flow, T] int32 and offset [flow, T] int32; 0 and 0 from n_packets on.

        Raises:
            ConfigError: other shapes or types, n_packets outside 0..T, or sizes in padding.
        """
        signed, n_packets = np.asarray(signed_size), np.asarray(n_packets)
        mask = self._mask(signed, n_packets)
        if signed.dtype != np.int16:
            raise ConfigError(f"signed sizes must be int16, got {signed.dtype}")
        if signed[~mask].any():
            raise ConfigError("signed sizes must be 0 in padding, from n_packets on")
        token = np.where(mask, self._token_of[signed.astype(np.int32) - LOWEST], END)
        offset = np.where(mask, signed - self.low[token], 0)
        return token.astype(np.int32), offset.astype(np.int32)

    def decode(self, token: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and offsets -> signed sizes [flow, T] int16 and n_packets [flow] int32; the inverse of `encode`.

        What follows the first end of a flow is padding, whatever it is.

        Raises:
            ConfigError: other shapes, or a packet whose token or offset does not exist.
        """
        token, offset = np.asarray(token), np.asarray(offset)
        if token.ndim != 2 or token.shape[1] != self.length or offset.shape != token.shape:
            raise ConfigError(f"tokens and offsets must be [flow, {self.length}], got {token.shape}, {offset.shape}")
        inside = np.logical_and.accumulate(token != END, axis=1)
        token, offset = np.where(inside, token, END), np.where(inside, offset, 0)
        if token.size and (token.min() < 0 or token.max() >= self.n_tokens):
            raise ConfigError(f"tokens must be from 0 to {self.n_tokens - 1}, got {token.min()}..{token.max()}")
        exists = (offset >= 0) & (offset < self.n_offsets)
        exists &= self.offset_mask[token, np.where(exists, offset, 0)]
        if not exists.all():
            row, column = np.argwhere(~exists)[0]
            raise ConfigError(
                f"flow {row}, packet {column}: token {token[row, column]} has no offset {offset[row, column]}"
            )
        return (self.low[token] + offset).astype(np.int16), inside.sum(axis=1, dtype=np.int32)

    def encode_series(self, flows: PacketSeries) -> tuple[np.ndarray, np.ndarray]:
        """`encode` of a series."""
        return self.encode(np.asarray(flows.signed_size), np.asarray(flows.n_packets))

    def decode_series(
        self,
        token: np.ndarray,
        offset: np.ndarray,
        label: np.ndarray,
        *,
        class_names: Sequence[str],
        iat: np.ndarray | None = None,
        name: str = "synthetic",
        size_layer: str = "ip",
    ) -> PacketSeries:
        """`decode` into a series; packets of size 0, inside a flow and at its end, stay packets, client to server.

        Args:
            token: [flow, T].
            offset: [flow, T].
            label: [flow] integers.
            class_names: names of the classes.
            iat: [flow, T] seconds, as `times.decode` gives them; None: 0.
            name: name of the data set.
            size_layer: "ip" or "payload".

        Returns:
            PacketSeries, source "simulated". The signed size -32768, which a series cannot hold, becomes -32767.
        """
        signed, n_packets = self.decode(token, offset)
        mask = np.arange(self.length) < n_packets[:, None]
        return PacketSeries(
            size=np.abs(np.maximum(signed, LOWEST + 1)),
            direction=np.where(mask, np.where(signed < 0, -1, 1), 0).astype(np.int8),
            iat=np.where(mask, 0.0 if iat is None else iat, 0.0).astype(np.float32),
            label=np.asarray(label, np.int32),
            class_names=tuple(class_names),
            name=name,
            size_layer=size_layer,
            source="simulated",
        ).check()

    def token_log_prior(self, pseudo_count: float = 0.1) -> np.ndarray:
        """[V] float32 log shares of the tokens in training, each token `pseudo_count` up; a start for output biases."""
        counts = self.token_counts + float(pseudo_count)
        return np.log(counts / counts.sum()).astype(np.float32)

    def offset_log_prior(self, pseudo_count: float = 0.5) -> np.ndarray:
        """[V, O] float32 log shares of the offsets within each token, `pseudo_count` up; -inf where there is none."""
        counts = np.where(self.offset_mask, self.offset_counts + float(pseudo_count), 0.0)
        with np.errstate(divide="ignore"):
            return np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)

    def atom_share(self, flows: PacketSeries) -> float:
        """Share of the packets of a series whose size is an atom."""
        signed = np.asarray(flows.signed_size)[np.asarray(flows.mask)]
        return float(np.isin(signed, self.atoms).mean()) if signed.size else 0.0

    def _mask(self, signed: np.ndarray, n_packets: np.ndarray) -> np.ndarray:
        if signed.ndim != 2 or signed.shape[1] != self.length or n_packets.shape != signed.shape[:1]:
            raise ConfigError(
                f"expected signed sizes [flow, {self.length}] and n_packets [flow], got {signed.shape} and "
                f"{n_packets.shape}"
            )
        if n_packets.size and (n_packets.min() < 0 or n_packets.max() > self.length):
            raise ConfigError(f"n_packets must be from 0 to {self.length}")
        return np.arange(self.length) < n_packets[:, None]

    def save(self, path: Path) -> None:
        """Writes the code as .npz (plain arrays, no pickle); atomic."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "times"}
        if self.times is not None:
            times = self.times
            fields |= {f"times.{field.name}": getattr(times, field.name) for field in dataclasses.fields(times)}
        temporary = path.with_name(path.name + ".tmp.npz")
        np.savez_compressed(temporary, **{name: np.asarray(value) for name, value in fields.items()})
        temporary.replace(path)


def load(path: Path) -> Tokeniser:
    """Reads a code that `Tokeniser.save` wrote.

    Raises:
        DataError: the file is absent or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            # 0-dimensional arrays are plain numbers.
            fields = {name: value[()] if not value.ndim else value for name, value in stored.items()}
        times = {name.removeprefix("times."): fields.pop(name) for name in list(fields) if name.startswith("times.")}
        fields |= {name: int(fields[name]) for name in ("length", "bin_bytes")}
        if times:
            times["resolution"] = float(times["resolution"])
        code = Tokeniser(**fields, times=TimeTokens(**times) if times else None)
        if code.offset_counts.shape != code.offset_mask.shape:
            raise ValueError("counts of another number of tokens")
        return code
    except (OSError, KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(path, f"not a stored tokeniser ({error})", remedy="train the run again") from error


def fit(
    train: PacketSeries,
    *,
    atom_share: float = 0.001,
    bin_bytes: int = 16,
    iat: bool = False,
    iat_atom_share: float = 0.001,
    iat_resolution: float = 1e-6,
    iat_bins_per_decade: int = 10,
) -> Tokeniser:
    """Fits the code on training flows.

    Args:
        train: training flows.
        atom_share: least share of the training packets for a size to be an atom.
        bin_bytes: O, signed sizes of a bin, a power of two up to 256; bins start at multiples of it.
        iat: whether to fit the code of IATs too, with the three options that follow (see `token_times.fit_times`).
        iat_atom_share: least share of the IATs for a time to be an atom.
        iat_resolution: seconds to which IATs are kept.
        iat_bins_per_decade: log-spaced bins of a factor of ten.

    Raises:
        ConfigError: no packets, or options out of range.
    """
    if not 0 < atom_share <= 1:
        raise ConfigError(f"atom_share must be in (0, 1], got {atom_share}")
    if bin_bytes not in BIN_BYTES:
        raise ConfigError(f"bin_bytes must be one of {BIN_BYTES}, got {bin_bytes}")
    signed, n_packets = np.asarray(train.signed_size), np.asarray(train.n_packets)
    packets = signed[np.asarray(train.mask)].astype(np.int32)
    if not packets.size:
        raise ConfigError("fitting tokens needs flows with at least one packet")
    counts = np.bincount(packets - LOWEST, minlength=VALUES)
    is_atom = counts >= max(atom_share * packets.size, 1)
    atoms = (np.flatnonzero(is_atom) + LOWEST).astype(np.int32)
    # A bin of nothing but atoms would be a token without a size.
    used = ~is_atom.reshape(-1, bin_bytes).all(axis=1)
    bin_low = np.arange(LOWEST, LOWEST + VALUES, bin_bytes, dtype=np.int32)[used]
    code = Tokeniser(
        length=train.length,
        bin_bytes=bin_bytes,
        atoms=atoms,
        bin_low=bin_low,
        token_counts=np.zeros(0, np.int64),
        offset_counts=np.zeros((0, 0), np.int64),
        times=fit_times(
            np.asarray(train.iat),
            n_packets,
            atom_share=iat_atom_share,
            resolution=iat_resolution,
            bins_per_decade=iat_bins_per_decade,
        )
        if iat
        else None,
    )
    token, offset = code.encode(signed, n_packets)
    coded = np.arange(train.length) <= n_packets[:, None]
    pair = token[coded].astype(np.int64) * code.n_offsets + offset[coded]
    offset_counts = np.bincount(pair, minlength=code.n_tokens * code.n_offsets).reshape(code.n_tokens, -1)
    return dataclasses.replace(code, token_counts=offset_counts.sum(axis=1), offset_counts=offset_counts)
