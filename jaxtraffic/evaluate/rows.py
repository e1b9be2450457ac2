"""Flows as rows of numbers, what every metric that knows no classes compares."""

from __future__ import annotations

import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

N_PACKETS = 30
"""Packets of a flow that the judges see, as in the published results."""


def rows_of(flows: PacketSeries | np.ndarray, name: str = "rows") -> np.ndarray:
    """Rows [flow, feature]: int32 signed sizes (bytes) of the first 30 packets of a PacketSeries, or numbers as given.

    Integers become int32 and stay exact; other numbers become float64.

    Raises:
        ConfigError: no rows or no columns, NaN or infinity, integers beyond int32, or no numbers [flow, feature].
    """
    rows = np.asarray(flows.signed_size)[:, :N_PACKETS] if isinstance(flows, PacketSeries) else np.asarray(flows)
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.number) or np.iscomplexobj(rows):
        raise ConfigError(f"{name} must be a PacketSeries or numbers [flow, feature], got shape {rows.shape}")
    if 0 in rows.shape:
        raise ConfigError(f"{name} needs at least one flow and one packet, got shape {rows.shape}")
    if np.issubdtype(rows.dtype, np.integer):
        limits = np.iinfo(np.int32)
        if rows.min() < limits.min or rows.max() > limits.max:
            raise ConfigError(f"{name} holds integers beyond 32 bits; give them as floating point numbers")
        return np.ascontiguousarray(rows, np.int32)
    rows = np.ascontiguousarray(rows, np.float64)
    if not np.isfinite(rows).all():
        raise ConfigError(f"{name} holds NaN or infinity")
    return rows


def pair_of(
    real: PacketSeries | np.ndarray,
    synthetic: PacketSeries | np.ndarray,
    names: tuple[str, str] = ("real", "synthetic"),
) -> tuple[np.ndarray, np.ndarray]:
    """`rows_of` both, of one type and with as many columns.

    Raises:
        ConfigError: what `rows_of` refuses, or different numbers of columns.
    """
    rows = [rows_of(flows, name) for flows, name in zip((real, synthetic), names, strict=True)]
    if rows[0].shape[1] != rows[1].shape[1]:
        raise ConfigError(f"{names[0]} has {rows[0].shape[1]} columns, {names[1]} has {rows[1].shape[1]}")
    shared = np.result_type(*rows)
    return rows[0].astype(shared, copy=False), rows[1].astype(shared, copy=False)


def n_packets(rows: np.ndarray) -> np.ndarray:
    """[flow] packets up to the last non-zero signed size, since a generated series knows no other padding."""
    position = np.arange(1, rows.shape[1] + 1)
    return np.max(np.where(rows != 0, position, 0), axis=1)


def packets_inside(rows: np.ndarray) -> np.ndarray:
    """[flow, packet] bool, up to the last non-zero signed size."""
    return np.arange(rows.shape[1]) < n_packets(rows)[:, None]


def row_keys(rows: np.ndarray) -> np.ndarray:
    """[row] one opaque key a row, equal where the rows are equal bit for bit; for np.unique and np.isin."""
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()


def first_of_each(rows: np.ndarray) -> np.ndarray:
    """Indices, in order, of the first row of each distinct row."""
    return np.sort(np.unique(row_keys(rows), return_index=True)[1])
