"""Times written as text in UTC, as seconds since 1970."""

from __future__ import annotations

import numpy as np
import polars as pl

_ISO = "%Y-%m-%dT%H:%M:%S%.f"
_DASHED = "%Y-%m-%dT%H-%M-%S%.f"
_NUMBERS = {"year": (0, 4), "month": (5, 7), "day": (8, 10), "hour": (11, 13), "minute": (14, 16), "second": (17, 19)}
_MICROSECONDS = (20, 26)


def epoch_seconds(text: pl.Series) -> pl.Series:
    """Float64 seconds since 1970 of UTC times such as 2022-10-31T10:00:00.000001 or 2022-10-31T10-00-00.000001.

    The README of CESNET-QUIC22 names the second spelling, samples of CESNET-TLS-Year22 show the first. Digits beyond
    microseconds are cut off; what is neither spelling is null.
    """
    quick = _of_one_spelling(text)
    if quick is not None:
        return quick
    first = text.head(1).drop_nulls().to_list()
    spellings = (_DASHED, _ISO) if first and first[0][13:14] == "-" else (_ISO, _DASHED)
    time = text.str.to_datetime(spellings[0], time_unit="us", strict=False)
    if time.null_count() > text.null_count():
        time = time.zip_with(time.is_not_null(), text.str.to_datetime(spellings[1], time_unit="us", strict=False))
    return time.dt.epoch("us").cast(pl.Float64) / 1e6


def _of_one_spelling(text: pl.Series) -> pl.Series | None:
    """Seconds where every text is a valid time of six decimals in the spelling of the first; None where any is not."""
    width = _MICROSECONDS[1]
    if not len(text) or text.null_count() or not (text.str.len_bytes() == width).all():
        return None
    cells = np.frombuffer(text.str.join("").item().encode(), np.uint8).reshape(-1, width)
    marks = {4: "-", 7: "-", 10: "T", 13: text[0][13:14], 16: text[0][13:14], 19: "."}
    if marks[13] not in ("-", ":") or any((cells[:, at] != ord(mark)).any() for at, mark in marks.items()):
        return None
    # what is no digit becomes 10 or more
    digits = cells - np.uint8(ord("0"))
    if (digits[:, [at for at in range(width) if at not in marks]] > 9).any():
        return None
    year, month, day, hour, minute, second = (_number(digits, *span) for span in _NUMBERS.values())
    starts = ((year - 1970) * 12 + month - 1).astype("M8[M]")
    first_day, next_month = (value.astype("M8[D]").astype(np.int64) for value in (starts, starts + 1))
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (day <= next_month - first_day)
    valid &= (year >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    if not valid.all():
        return None
    seconds = ((first_day + day - 1) * 24 + hour) * 3600 + minute * 60 + second
    return pl.Series(text.name, (seconds * 1_000_000 + _number(digits, *_MICROSECONDS)) / 1e6)


def _number(digits: np.ndarray, begin: int, end: int) -> np.ndarray:
    """[row] int64 of the decimal digits in the columns from `begin` to `end`."""
    number = np.zeros(len(digits), np.int64)
    for at in range(begin, end):
        number = number * 10 + digits[:, at]
    return number
