"""Options of TCP headers (RFC 9293, RFC 2018, RFC 7323), of many packets at a time."""

from __future__ import annotations

import numpy as np

SYN = 2
"""Flag of the packets that open a connection (RFC 9293 section 3.1)."""

MAX_OPTIONS = 40
"""Bytes of TCP options at most."""

TIMESTAMPS = 12
"""Bytes of the timestamps option with its two NOP, as on every packet of a connection that agreed on it."""

_MSS, _WINDOW_SCALE, _SACK, _STAMPS, _NOP = b"\2\4\x05\xb4", b"\3\3\7", b"\4\2", b"\x08\x0a" + bytes(8), b"\1"
_SYN_OPTIONS = {
    0: b"",
    4: _MSS,
    8: _MSS + _NOP + _WINDOW_SCALE,
    12: _MSS + _NOP + _WINDOW_SCALE + _NOP * 2 + _SACK,
    16: _MSS + _NOP * 2 + _STAMPS,
    20: _MSS + _SACK + _STAMPS + _NOP + _WINDOW_SCALE,
    24: _MSS + _NOP + _WINDOW_SCALE + _NOP * 2 + _STAMPS + _SACK,
}
"""Options of a SYN by their bytes, as systems send them; what is missing at the end is end-of-list and padding."""


def option_bytes(n_options: np.ndarray, flags: np.ndarray, time: np.ndarray, echo: np.ndarray) -> np.ndarray:
    """[packet, 40] uint8 TCP options, zeros behind those that a packet has.

    Args:
        n_options: [packet] bytes, multiples of 4 up to 40.
        flags: [packet] TCP flags: a SYN has other options.
        time: [packet] int64 nanoseconds, for the timestamps option.
        echo: [packet] uint32 timestamp of the other side.
    """
    is_syn = (flags & SYN > 0).astype(np.int64)
    options = _TEMPLATES[is_syn, n_options // 4]
    stamped = np.flatnonzero(_STAMPS_AT[is_syn, n_options // 4] >= 0)
    at = _STAMPS_AT[is_syn, n_options // 4][stamped]
    values = np.stack([milliseconds(time[stamped]), echo[stamped]], axis=1).astype(">u4")
    options[stamped[:, None], at[:, None] + np.arange(2, 10)] = values.view(np.uint8).reshape(-1, 8)
    return options


def has_timestamps(n_options: np.ndarray) -> np.ndarray:
    """Whether so many bytes of options of a SYN hold the timestamps option."""
    return _STAMPS_AT[1, np.asarray(n_options) // 4] >= 0


def _templates() -> tuple[np.ndarray, np.ndarray]:
    """Options by (SYN or not, bytes / 4): [2, 11, 40] uint8, and where their timestamps are, -1 for nowhere."""
    templates = np.zeros((2, MAX_OPTIONS // 4 + 1, MAX_OPTIONS), np.uint8)
    at = np.full(templates.shape[:2], -1)
    for n in range(0, MAX_OPTIONS + 1, 4):
        other = _NOP * 2 + _STAMPS if n >= TIMESTAMPS else b""
        for is_syn, text in ((1, _SYN_OPTIONS.get(n, _SYN_OPTIONS[20])), (0, other)):
            templates[is_syn, n // 4, : len(text)] = np.frombuffer(text, np.uint8)
            at[is_syn, n // 4] = text.find(_STAMPS)
    return templates, at


_TEMPLATES, _STAMPS_AT = _templates()


def milliseconds(time: np.ndarray) -> np.ndarray:
    """Clock of the timestamps option at a time in nanoseconds."""
    return (time // 1_000_000) & 0xFFFFFFFF
