"""Splits by recording time, and the periods of a drift study: train on the past, judge on what came later.

A period is written as a day ("2022-10-31" or "20221031"), a month ("2022-09", or "M-2022-9" as in CESNET DataZoo), an
ISO week ("2022-W44", or "W-2022-44" as in CESNET-QUIC22 and DataZoo), a folder of CESNET-TLS-Year22 ("WEEK-2022-18"),
or a range of two of these, both ends included ("2022-W11..2022-W52").

Two numberings of weeks are in use. "2022-W44" and "W-2022-44" are ISO 8601: weeks begin on Monday, week 1 holds the
first Thursday, and DataZoo's W-2025-1 is 30 December 2024 to 5 January 2025. The folders of CESNET-TLS-Year22 are C's
"%W": week 1 begins on the first Monday, the days before it are week 0 (WEEK-2022-00 is 1 and 2 January, which ISO calls
2021-W52), and weeks end with the year (WEEK-2022-52 is 26 to 31 December). The other weeks of 2022 are the same in
both.

Months are whole calendar months. DataZoo's months of CESNET-TLS-Year22 end one day early ("M-2022-9" is 1 to 29
September); "2022-09-01..2022-09-29" is that.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import re
from collections.abc import Sequence

import numpy as np

from jaxtraffic.datasets.splits.folds import Split, split
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

log = logging.getLogger("jaxtraffic.datasets")

UNKNOWN_DAY = int(np.iinfo(np.int32).min)
"""The day of a flow whose recording period is not known, in an integer array."""

FORMS = '"2022-W44", "W-2022-44", "WEEK-2022-44", "2022-10", "M-2022-10", "2022-10-31" or a range "2022-W44..2022-W46"'

UNITS = ("day", "week", "month")

_EPOCH = datetime.date(1970, 1, 1).toordinal()
_LAST_DAY = datetime.date.max.toordinal() - _EPOCH
_SIDES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class TimeSplit(Split):
    """The three sides of a split by time.

    Attributes:
        unseen: classes that have flows in validation or test and none in train, by name; their flows stay where they
            are unless they were to be left out.
        left_out: reason -> flows that are on no side: "outside every period", "unknown day", "classes unseen in train".
    """

    unseen: tuple[str, ...] = ()
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)


def split_by_time(
    flows: PacketSeries,
    day: object,
    *,
    train: str | Sequence[str],
    test: str | Sequence[str],
    validation: str | Sequence[str] | None = None,
    validation_share: float = 0.1,
    seed: int = 0,
    unknown_days: str = "refuse",
    drop_unseen: bool = False,
) -> TimeSplit:
    """Splits flows by the period in which they were recorded.

    Without `validation`, the last days of train become validation: `validation_share` of the days of train that have
    flows, at least one, never all. Where train has one day only, validation is a stratified draw from its flows (by
    `folds.split`, so that every class and whole groups stay in train; the share is rounded to one in a whole number, at
    least 3). Labels and class names stay as they are. Test may lie before train.

    Args:
        flows: labelled flows.
        day: [flow] days since 1 January 1970 of the recording period, from file names rather than from times (files of
            a day hold flows that began before midnight UTC): integers with `UNKNOWN_DAY` where it is not known, or
            anything that `numpy.asarray` turns into floats with NaN or into datetime64, such as a polars series with
            nulls, or a masked array.
        train: one period or several.
        test: one period or several.
        validation: one period or several; None: taken from train.
        validation_share: of train, above 0 and under 1; for a one-day train at most 1/3.
        seed: of the draw from a one-day train.
        unknown_days: "refuse", or "leave_out" to count flows of unknown days and go on.
        drop_unseen: leave classes without flows in train out of validation and test.

    Raises:
        ConfigError: a period that cannot be read, that has no flows or that overlaps one of another side, with the days
            that exist; unknown days; a group (`flows.group`) with flows on more than one side.
    """
    if not 0 < validation_share < 1:
        raise ConfigError(f"validation_share must be above 0 and under 1; got {validation_share}")
    days = _days(day, len(flows), unknown_days)
    wanted = {"train": train, "validation": validation, "test": test}
    spans = {
        name: [(text, *parse_period(text)) for text in _listed(periods, name)]
        for name, periods in wanted.items()
        if periods is not None
    }
    _refuse_overlaps([(f"{name} {text!r}", *span) for name in spans for text, *span in spans[name]], across=spans)
    side = np.full(len(flows), -1)
    for name, periods in spans.items():
        for text, first, last in periods:
            inside = (days >= first) & (days <= last)
            if not inside.any():
                raise ConfigError(f"period {text!r} of {name} has no flows; days that have: {days_text(days)}")
            side[inside] = _SIDES.index(name)
    left_out = {
        "outside every period": int(((side < 0) & (days != UNKNOWN_DAY)).sum()),
        "unknown day": int((days == UNKNOWN_DAY).sum()),
    }
    if validation is None:
        _take_validation(side, days, flows, validation_share, seed)
    _refuse_straddling(flows, side, _SIDES)
    label = np.asarray(flows.label)
    seen = np.bincount(label[side == 0], minlength=len(flows.class_names)) > 0
    late = ~seen[label] & (side > 0)
    unseen = tuple(flows.class_names[index] for index in np.unique(label[late]))
    if unseen:
        log.warning("%d flows of validation and test are of classes unseen in train: %s", late.sum(), _listing(unseen))
    if drop_unseen:
        side[late] = -1
        left_out["classes unseen in train"] = int(late.sum())
    parts = [flows[np.flatnonzero(side == number)] for number in range(3)]
    return TimeSplit(*parts, unseen, {reason: count for reason, count in left_out.items() if count})


def drift_periods(
    flows: PacketSeries,
    day: object,
    unit: str = "day",
    *,
    periods: Sequence[str] | None = None,
    min_flows: int = 1,
    unknown_days: str = "refuse",
) -> list[tuple[str, PacketSeries]]:
    """Cuts flows into periods, oldest first: train on the first, judge on each later one.

    Labels and class names stay as they are; `unseen_classes` says which classes a period has that train had not.

    Args:
        flows: labelled flows.
        day: [flow] days since 1 January 1970, see `split_by_time`.
        unit: "day", "week" (ISO) or "month": periods are all units that have flows, named "2022-10-31", "2022-W44" and
            "2022-10".
        periods: these periods in place of units, in any order; flows outside are left out and logged.
        min_flows: flows a period needs; units with fewer are left out and logged, `periods` with fewer are refused.
        unknown_days: "refuse", or "leave_out" to log flows of unknown days and go on.

    Raises:
        ConfigError: as `split_by_time`; an unknown unit; no period left.
    """
    if unit not in UNITS:
        raise ConfigError(f"unknown unit {unit!r}; choose from: {', '.join(UNITS)}")
    days = _days(day, len(flows), unknown_days)
    number = np.full(len(flows), -1)
    if periods is None:
        existing, of_flow = np.unique(days, return_inverse=True)
        units = ["" if value == UNKNOWN_DAY else period_of(int(value), unit) for value in existing]
        # the units of days in order are in order themselves, and repeats are neighbours
        names = [name for name in dict.fromkeys(units) if name]
        number = np.array([names.index(name) if name else -1 for name in units], np.int64)[of_flow]
    else:
        spans = sorted(((text, *parse_period(text)) for text in _listed(periods, "periods")), key=lambda span: span[1])
        _refuse_overlaps([(repr(text), *span) for text, *span in spans])
        names = [text for text, *_ in spans]
        for index, (_, first, last) in enumerate(spans):
            number[(days >= first) & (days <= last)] = index
    counts = np.bincount(number[number >= 0], minlength=len(names))
    small = [name for name, count in zip(names, counts) if count < max(min_flows, 1)]
    if periods is not None and small:
        raise ConfigError(
            f"periods with fewer than {max(min_flows, 1)} flows: {_listing(small)}; "
            f"days that have flows: {days_text(days)}"
        )
    if len(small) == len(names):
        raise ConfigError(f"no {unit} has {min_flows} flows or more; days that have flows: {days_text(days)}")
    kept = [index for index, name in enumerate(names) if name not in small]
    n_left_out = len(flows) - int(counts[kept].sum())
    if n_left_out:
        log.info("left out %d flows of unknown days, outside the periods or in periods that are too small", n_left_out)
    number[~np.isin(number, kept)] = -1
    _refuse_straddling(flows, number, names)
    return [(names[index], flows[np.flatnonzero(number == index)]) for index in kept]


def unseen_classes(train: PacketSeries, later: PacketSeries) -> tuple[str, ...]:
    """Names of the classes that have flows in `later` and none in `train`, in the order of `later`'s labels."""
    seen = {name for name, count in zip(train.class_names, train.counts()) if count}
    return tuple(name for name, count in zip(later.class_names, later.counts()) if count and name not in seen)


def parse_period(text: str) -> tuple[int, int]:
    """First and last day, both included, in days since 1 January 1970.

    Args:
        text: a period as the module's docstring says.

    Raises:
        ConfigError: text that is no period, a date that does not exist, or a range that ends before it begins.
    """
    if not isinstance(text, str):
        raise ConfigError(f"a period is text such as {FORMS}; got {text!r}")
    ends = [end.strip() for end in text.split("..")]
    try:
        if len(ends) > 2:
            raise ValueError("more than one range")
        spans = [_calendar(end) for end in ends]
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{text!r} is no period ({error}); write {FORMS}") from None
    first, last = spans[0][0], spans[-1][1]
    if last < first:
        raise ConfigError(f"period {text!r} ends before it begins")
    return first, last


def period_of(day: int, unit: str) -> str:
    """Name of the day, ISO week or month that a day (since 1 January 1970) lies in, as `parse_period` reads it."""
    date = datetime.date.fromordinal(_EPOCH + day)
    if unit == "day":
        return date.isoformat()
    if unit == "month":
        return f"{date.year:04d}-{date.month:02d}"
    year, week, _ = date.isocalendar()
    return f"{year:04d}-W{week:02d}"


def days_text(days: np.ndarray) -> str:
    """The days that exist, for people: runs of days as ranges, "2022-10-31..2022-11-06, 2022-11-09 (8 days)"."""
    existing = np.unique(days[days != UNKNOWN_DAY])
    if not existing.size:
        return "none"
    runs = np.split(existing, np.flatnonzero(np.diff(existing) > 1) + 1)
    texts = [
        period_of(int(run[0]), "day") + (f"..{period_of(int(run[-1]), 'day')}" if run.size > 1 else "") for run in runs
    ]
    return f"{_listing(texts)} ({existing.size} day{'s' if existing.size > 1 else ''})"


_WEEK = re.compile(r"(?:(\d{4})-W|(W|WEEK)-(\d{4})-)(\d{1,2})")
_MONTH = re.compile(r"(?:M-)?(\d{4})-(\d{1,2})")
_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})|(\d{4})(\d{2})(\d{2})")


def _calendar(text: str) -> tuple[int, int]:
    """First and last day of a week, month or day; ValueError for what is none."""
    if found := _WEEK.fullmatch(text):
        year, week = int(found[1] or found[3]), int(found[4])
        if found[2] == "WEEK":
            first, last = _week_of_folder(year, week)
        else:
            first = datetime.date.fromisocalendar(year, week, 1)
            last = datetime.date.fromisocalendar(year, week, 7)
    elif found := _MONTH.fullmatch(text):
        year, month = int(found[1]), int(found[2])
        first = datetime.date(year, month, 1)
        last = datetime.date(year + month // 12, month % 12 + 1, 1) - datetime.timedelta(days=1)
    elif found := _DAY.fullmatch(text):
        first = last = datetime.date(*(int(part) for part in found.groups() if part is not None))
    else:
        raise ValueError("unknown form")
    return first.toordinal() - _EPOCH, last.toordinal() - _EPOCH


def _week_of_folder(year: int, week: int) -> tuple[datetime.date, datetime.date]:
    """First and last day of week "%W": from Monday, days before the first one are week 0, cut at the year's ends."""
    new_year, end = datetime.date(year, 1, 1), datetime.date(year, 12, 31)
    monday = new_year + datetime.timedelta(days=-new_year.weekday() % 7 + 7 * (week - 1))
    first, last = max(monday, new_year), min(monday + datetime.timedelta(days=6), end)
    if last < first:
        raise ValueError(f"{year} has no such week")
    return first, last


def _days(day: object, n_flows: int, unknown_days: str) -> np.ndarray:
    """[flow] int64 days, UNKNOWN_DAY where not known."""
    if unknown_days not in ("refuse", "leave_out"):
        raise ConfigError(f'unknown_days must be "refuse" or "leave_out"; got {unknown_days!r}')
    unknown = np.ma.getmaskarray(day).copy() if isinstance(day, np.ma.MaskedArray) else None
    values = np.asarray(day)
    if values.shape != (n_flows,):
        raise ConfigError(f"day must have one value a flow, shape ({n_flows},); got shape {values.shape}")
    if values.dtype.kind == "M":
        unknown = np.isnat(values) if unknown is None else unknown | np.isnat(values)
        values = values.astype("datetime64[D]").astype(np.int64)
    elif values.dtype.kind == "f":
        unknown = np.isnan(values) if unknown is None else unknown | np.isnan(values)
        values = np.where(unknown, 0, values)
        if (values != np.floor(values)).any():
            raise ConfigError("day must be whole days since 1970-01-01 (seconds / 86400, rounded down)")
    elif values.dtype.kind not in "iu":
        raise ConfigError(f"day must be days since 1970-01-01 as integers; got {values.dtype}")
    unknown = values == UNKNOWN_DAY if unknown is None else unknown | (values == UNKNOWN_DAY)
    wrong = ~unknown & ((values < 0) | (values > _LAST_DAY))
    if wrong.any():
        raise ConfigError(f"day must be days since 1970-01-01, from 0 to {_LAST_DAY}; got {values[wrong][0]}")
    if unknown.any() and unknown_days == "refuse":
        raise ConfigError(
            f'the day of {unknown.sum()} of {n_flows} flows is not known; unknown_days="leave_out" goes on without them'
        )
    return np.where(unknown, UNKNOWN_DAY, values.astype(np.int64))


def _listed(periods: str | Sequence[str], name: str) -> list[str]:
    listed = [periods] if isinstance(periods, str) else list(periods)
    if not listed:
        raise ConfigError(f"{name} needs at least one period: {FORMS}")
    return listed


def _refuse_overlaps(spans: list[tuple[str, int, int]], *, across: dict[str, list] | None = None) -> None:
    """Raises for two spans (title, first, last) with a common day; with `across`, only for spans of different sides."""
    owner = [name for name, periods in across.items() for _ in periods] if across else range(len(spans))
    for later, (title, first, last) in enumerate(spans):
        for earlier, (other, other_first, other_last) in enumerate(spans[:later]):
            begin, end = max(first, other_first), min(last, other_last)
            if owner[earlier] != owner[later] and begin <= end:
                common = period_of(begin, "day") + (f"..{period_of(end, 'day')}" if end > begin else "")
                raise ConfigError(f"periods {other} and {title} overlap on {common}")


def _take_validation(side: np.ndarray, days: np.ndarray, flows: PacketSeries, share: float, seed: int) -> None:
    """Moves flows of train (side 0) to validation (side 1), in place."""
    chosen = np.flatnonzero(side == 0)
    existing = np.unique(days[chosen])
    if existing.size > 1:
        n_days = min(max(int(existing.size * share + 0.5), 1), existing.size - 1)
        side[chosen[days[chosen] >= existing[-n_days]]] = 1
        return
    if share > 1 / 3:
        raise ConfigError(
            f"train has one day only, {days_text(days[chosen])}: validation_share of its flows must be at most 1/3; "
            f"got {share}"
        )
    # positions in place of sizes: `split` hands them out, and so says where each flow went
    marked = flows[chosen].replace(size=np.arange(chosen.size))
    side[chosen[split(marked, seed=seed, n_folds=max(3, round(1 / share))).test.size]] = 1


def _refuse_straddling(flows: PacketSeries, side: np.ndarray, names: Sequence[str]) -> None:
    """Raises where a group has flows on more than one side; side -1 is none."""
    if flows.group is None:
        return
    used = side[side >= 0]
    groups, inverse = np.unique(np.asarray(flows.group)[side >= 0], return_inverse=True)
    lowest, highest = np.full(groups.size, len(names)), np.full(groups.size, -1)
    np.minimum.at(lowest, inverse, used)
    np.maximum.at(highest, inverse, used)
    divided = np.flatnonzero(lowest < highest)
    if divided.size:
        one = divided[0]
        raise ConfigError(
            f"{divided.size} of {groups.size} groups have flows in more than one period (group {groups[one]} in "
            f"{names[lowest[one]]} and {names[highest[one]]}); choose other periods, or give up the groups with "
            "flows.replace(group=None)"
        )


def _listing(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
