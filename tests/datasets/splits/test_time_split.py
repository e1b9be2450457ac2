"""Splits by time: periods against the calendar, sides against a loop over flows, what is refused."""

import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtraffic.datasets.splits.folds import Split
from jaxtraffic.datasets.splits.time_split import (
    UNKNOWN_DAY,
    drift_periods,
    parse_period,
    period_of,
    split_by_time,
    unseen_classes,
)
from jaxtraffic.errors import ConfigError
from tests.datasets.test_curation import make

EPOCH = datetime.date(1970, 1, 1)
dates = st.dates(datetime.date(1970, 1, 1), datetime.date(2100, 12, 31))


def number(text):
    return (datetime.date.fromisoformat(text) - EPOCH).days


def ends(text):
    return tuple((EPOCH + datetime.timedelta(days=day)).isoformat() for day in parse_period(text))


def flow_numbers(part):
    return part.size[:, 0].tolist()


def two_weeks(seed=0, n=420):
    """Flows of three classes over 31 October to 13 November 2022, in no order."""
    flows = make({"a": n // 2, "b": n // 3, "c": n - n // 2 - n // 3})
    day = np.random.default_rng(seed).integers(number("2022-10-31"), number("2022-11-14"), n).astype(np.int32)
    return flows, day


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2022-W44", "2022-10-31", "2022-11-06"),
        ("W-2022-44", "2022-10-31", "2022-11-06"),
        ("WEEK-2022-44", "2022-10-31", "2022-11-06"),
        ("W-2021-40", "2021-10-04", "2021-10-10"),
        ("2021-W52", "2021-12-27", "2022-01-02"),
        ("WEEK-2022-00", "2022-01-01", "2022-01-02"),
        ("WEEK-2022-01", "2022-01-03", "2022-01-09"),
        ("WEEK-2022-18", "2022-05-02", "2022-05-08"),
        ("WEEK-2022-52", "2022-12-26", "2022-12-31"),
        ("2022-W52", "2022-12-26", "2023-01-01"),
        ("W-2025-1", "2024-12-30", "2025-01-05"),
        ("2020-W53", "2020-12-28", "2021-01-03"),
        ("2022-09", "2022-09-01", "2022-09-30"),
        ("M-2022-9", "2022-09-01", "2022-09-30"),
        ("M-2022-12", "2022-12-01", "2022-12-31"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2022-10-31", "2022-10-31", "2022-10-31"),
        ("20221031", "2022-10-31", "2022-10-31"),
        ("2022-10-31..2022-11-06", "2022-10-31", "2022-11-06"),
        ("2022-W11..2022-W52", "2022-03-14", "2023-01-01"),
        ("2022-09 .. 2022-W44", "2022-09-01", "2022-11-06"),
    ],
)
def test_periods(text, first, last):
    assert ends(text) == (first, last)


@given(dates)
def test_every_day_lies_in_the_period_named_after_it(date):
    day = (date - EPOCH).days
    for unit in ("day", "week", "month"):
        first, last = parse_period(period_of(day, unit))
        assert first <= day <= last
        assert period_of(first, unit) == period_of(last, unit) == period_of(day, unit)
        assert period_of(last + 1, unit) != period_of(day, unit)
    assert period_of(day, "week") == f"{date.strftime('%G-W%V')}"


@given(dates)
def test_folders_of_year22_are_weeks_as_c_numbers_them(date):
    day = (date - EPOCH).days
    first, last = parse_period(date.strftime("WEEK-%Y-%W"))
    assert first <= day <= last
    inside = {(EPOCH + datetime.timedelta(days=other)).strftime("%Y-%W") for other in range(first, last + 1)}
    assert inside == {date.strftime("%Y-%W")}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "2022",
            "2022-W54",
            "2022-W00",
            "W-2022-0",
            "WEEK-2022-53",
            "2022-13",
            "2022-02-30",
            "2022-1-1",
            "W45-47",
        ),
        *("2022-W44..", "2022-10-31..2022-11-01..2022-11-02", "0000-01-01", "9999-12", "next week", 20221031, None),
    ],
)
def test_what_is_no_period(text):
    with pytest.raises(ConfigError, match="period"):
        parse_period(text)


def test_a_range_backwards():
    with pytest.raises(ConfigError, match="ends before it begins"):
        parse_period("2022-11-06..2022-10-31")


def test_sides_are_those_of_a_loop_over_flows():
    flows, day = two_weeks()
    parts = split_by_time(
        flows, day, train="2022-W44", validation="2022-11-07", test=["2022-11-08..2022-11-10", "20221113"]
    )
    expected = {"train": [], "validation": [], "test": []}
    for flow, value in enumerate(day):
        date = EPOCH + datetime.timedelta(days=int(value))
        if date <= datetime.date(2022, 11, 6):
            expected["train"].append(flow)
        elif date == datetime.date(2022, 11, 7):
            expected["validation"].append(flow)
        elif date.day in (8, 9, 10, 13):
            expected["test"].append(flow)
    for side, numbers in expected.items():
        assert flow_numbers(getattr(parts, side)) == numbers
    assert parts.left_out == {"outside every period": 420 - sum(map(len, expected.values()))}
    assert isinstance(parts, Split)
    assert parts.test.class_names == flows.class_names


@given(share=st.floats(0.01, 0.99), n_days=st.integers(2, 13))
@settings(max_examples=30, deadline=None)
def test_validation_is_the_last_days_of_train(share, n_days):
    flows, day = two_weeks(n=120)
    day = (day - day.min()) % (n_days + 1) + number("2022-03-01")
    test = period_of(number("2022-03-01") + n_days, "day")
    train = f"2022-03-01..{period_of(number('2022-03-01') + n_days - 1, 'day')}"
    parts = split_by_time(flows, day, train=train, test=test, validation_share=share)
    in_train, in_validation = (set(day[flow_numbers(part)].tolist()) for part in (parts.train, parts.validation))
    assert max(in_train) < min(in_validation) <= max(in_validation) < number(test)
    assert len(parts.train) + len(parts.validation) + len(parts.test) == 120
    by_closeness = sorted(range(1, n_days), key=lambda count: (abs(count - share * n_days), -count))
    assert len(in_validation) == by_closeness[0]
    assert len(in_train) == n_days - len(in_validation)


def test_a_train_of_one_day_gives_a_stratified_share_of_its_flows():
    flows = make({"a": 200, "b": 100, "one": 1, "z": 30})
    day = np.where(flows.label == 3, number("2022-11-01"), number("2022-10-31"))
    wanted = {"train": "2022-10-31", "test": "2022-11-01"}
    parts = split_by_time(flows, day, **wanted, seed=3)
    assert parts.train.counts().tolist() == [180, 90, 1, 0]
    assert parts.validation.counts().tolist() == [20, 10, 0, 0]
    assert sorted(flow_numbers(parts.train) + flow_numbers(parts.validation)) == list(range(301))
    assert flow_numbers(parts.validation) == flow_numbers(split_by_time(flows, day, **wanted, seed=3).validation)
    assert flow_numbers(parts.validation) != flow_numbers(split_by_time(flows, day, **wanted, seed=4).validation)
    assert split_by_time(flows, day, **wanted, validation_share=0.2).validation.counts().tolist() == [40, 20, 0, 0]
    with pytest.raises(ConfigError, match=r"one day only, 2022-10-31 \(1 day\).*at most 1/3"):
        split_by_time(flows, day, **wanted, validation_share=0.5)


def test_groups_of_a_one_day_train_stay_whole():
    flows = make({"a": 200, "b": 100, "z": 30})
    day = np.where(flows.label == 2, number("2022-11-01"), number("2022-10-31"))
    flows = flows.replace(group=np.where(flows.label == 2, 99, np.arange(330) % 40).astype(np.int32))
    parts = split_by_time(flows, day, train="2022-10-31", test="2022-11-01")
    assert set(parts.train.group.tolist()).isdisjoint(parts.validation.group.tolist())
    assert len(parts.validation) > 10
    assert len(parts.train) + len(parts.validation) == 300


def test_groups_over_two_sides_are_refused():
    flows, day = two_weeks()
    group = day.copy()
    group[day >= number("2022-11-06")] = number("2022-11-06")
    periods = {"train": "2022-W44", "test": "2022-W45"}
    with pytest.raises(ConfigError, match="1 of 7 groups.*in validation and test.*group=None"):
        split_by_time(flows.replace(group=group), day, **periods)
    with pytest.raises(ConfigError, match="1 of 7 groups.*in 2022-W44 and 2022-W45"):
        drift_periods(flows.replace(group=group), day, "week")
    assert len(split_by_time(flows.replace(group=day), day, **periods).test) > 0


def test_unseen_classes_are_named_and_can_be_left_out(caplog):
    flows = make({"a": 40, "b": 40, "late": 20, "latest": 20})
    day = np.repeat([0, 1, 2, 0, 1, 2, 1, 2], [20, 10, 10, 20, 10, 10, 20, 20])
    periods = {"train": "1970-01-01", "validation": "1970-01-02", "test": "1970-01-03"}
    parts = split_by_time(flows, day, **periods)
    assert parts.unseen == ("late", "latest")
    assert "late, latest" in caplog.text
    assert (len(parts.validation), len(parts.test), parts.left_out) == (40, 40, {})
    parts = split_by_time(flows, day, **periods, drop_unseen=True)
    assert parts.unseen == ("late", "latest")
    assert (parts.validation.counts().tolist(), parts.test.counts().tolist()) == ([10, 10, 0, 0], [10, 10, 0, 0])
    assert parts.left_out == {"classes unseen in train": 40}
    assert unseen_classes(parts.train, flows) == ("late", "latest")
    assert unseen_classes(flows, parts.train) == ()
    assert split_by_time(flows[:80], day[:80], **periods).unseen == ()


def test_unknown_days_are_refused_or_counted():
    flows, day = two_weeks()
    periods = {"train": "2022-W44", "test": "2022-W45"}
    missing = np.zeros(420, bool)
    missing[[3, 50, 419]] = True
    plain = np.where(missing, UNKNOWN_DAY, day)
    kinds = {
        "sentinel": plain,
        "int32": plain.astype(np.int32),
        "floats": np.where(missing, np.nan, day),
        "masked": np.ma.MaskedArray(np.where(missing, -7, day), missing),
        "dates": np.where(missing, np.datetime64("NaT"), day.astype("datetime64[D]")),
        "polars": pl.Series([None if lost else int(value) for lost, value in zip(missing, day)], dtype=pl.Int32),
        "polars dates": pl.Series([None if lost else int(v) for lost, v in zip(missing, day)]).cast(pl.Date),
    }
    expected = split_by_time(flows[~missing], day[~missing], **periods)
    for kind, values in kinds.items():
        with pytest.raises(ConfigError, match="day of 3 of 420 flows is not known.*leave_out"):
            split_by_time(flows, values, **periods)
        parts = split_by_time(flows, values, **periods, unknown_days="leave_out")
        assert parts.left_out == {"unknown day": 3}, kind
        for side in ("train", "validation", "test"):
            assert flow_numbers(getattr(parts, side)) == flow_numbers(getattr(expected, side)), kind
        with pytest.raises(ConfigError, match="not known"):
            drift_periods(flows, values, "week")
        assert sum(len(part) for _, part in drift_periods(flows, values, "week", unknown_days="leave_out")) == 417


@pytest.mark.parametrize(
    ("day", "message"),
    [
        (np.full(419, 19000), "one value a flow"),
        (np.full((420, 1), 19000), "one value a flow"),
        (np.full(420, 19000.5), "whole days"),
        (np.full(420, "2022-10-31"), "as integers"),
        (np.full(420, True), "as integers"),
        (np.full(420, None), "as integers"),
        (np.full(420, -1), "from 0 to"),
        (np.full(420, 20221031), "from 0 to"),
        (np.full(420, 1667174400), "from 0 to"),
        (np.full(420, np.inf), "from 0 to"),
        (np.full(420, 2**64 - 1, np.uint64), "from 0 to"),
    ],
)
def test_days_that_are_none(day, message):
    with pytest.raises(ConfigError, match=message):
        split_by_time(two_weeks()[0], day, train="2022-W44", test="2022-W45")


def test_narrow_integers_are_days_too():
    flows = make({"a": 4})
    parts = split_by_time(flows, np.array([0, 1, 2, 3], np.int8), train="1970-01-01..1970-01-03", test="1970-01-04")
    assert [flow_numbers(part) for part in (parts.train, parts.validation, parts.test)] == [[0, 1], [2], [3]]


def test_refused_periods_name_what_exists():
    flows, day = two_weeks()
    gone = day != number("2022-11-03")
    flows, day = flows[gone], day[gone]
    exists = r"2022-10-31..2022-11-02, 2022-11-04..2022-11-13 \(13 days\)"
    with pytest.raises(ConfigError, match=f"'2022-11-03' of test has no flows; days that have: {exists}"):
        split_by_time(flows, day, train="2022-10-31", test="2022-11-03")
    with pytest.raises(ConfigError, match="'2022-W50' of train has no flows"):
        split_by_time(flows, day, train=["2022-W44", "2022-W50"], test="2022-W45")
    with pytest.raises(ConfigError, match="train '2022-10' and test '2022-W44' overlap on 2022-10-31$"):
        split_by_time(flows, day, train="2022-10", test="2022-W44")
    with pytest.raises(ConfigError, match="overlap on 2022-11-05..2022-11-06"):
        split_by_time(flows, day, train="2022-W44", validation="2022-11-05..2022-11-08", test="2022-11-09")
    with pytest.raises(ConfigError, match="test needs at least one period"):
        split_by_time(flows, day, train="2022-W44", test=[])
    with pytest.raises(ConfigError, match="validation_share"):
        split_by_time(flows, day, train="2022-W44", test="2022-W45", validation_share=1.0)
    with pytest.raises(ConfigError, match="unknown_days"):
        split_by_time(flows, day, train="2022-W44", test="2022-W45", unknown_days="drop")


def test_periods_of_one_side_may_overlap():
    flows, day = two_weeks()
    once = split_by_time(flows, day, train="2022-W44", test="2022-W45")
    twice = split_by_time(flows, day, train=["2022-W44", "2022-11-01"], test="2022-W45")
    assert flow_numbers(once.train) == flow_numbers(twice.train)


@given(st.lists(st.integers(0, 800), min_size=1, max_size=60), st.sampled_from(["day", "week", "month"]))
@settings(max_examples=60, deadline=None)
def test_drift_periods_are_those_of_a_loop(offsets, unit):
    start = number("2021-12-20")
    flows = make({"a": len(offsets)})
    expected = {}
    for flow, offset in sorted(enumerate(offsets), key=lambda pair: pair[1]):
        date = EPOCH + datetime.timedelta(days=start + offset)
        name = date.strftime({"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}[unit])
        expected.setdefault(name, []).append(flow)
    periods = drift_periods(flows, np.array(offsets, np.int32) + start, unit)
    assert [(name, flow_numbers(part)) for name, part in periods] == [
        (name, sorted(numbers)) for name, numbers in expected.items()
    ]


def test_named_periods_in_order_of_time():
    flows, day = two_weeks()
    periods = drift_periods(flows, day, periods=["2022-W45", "2022-10-31..2022-11-04"])
    assert [name for name, _ in periods] == ["2022-10-31..2022-11-04", "2022-W45"]
    assert flow_numbers(periods[0][1]) == np.flatnonzero(day <= number("2022-11-04")).tolist()
    assert flow_numbers(periods[1][1]) == np.flatnonzero(day >= number("2022-11-07")).tolist()
    with pytest.raises(ConfigError, match="overlap on 2022-11-06"):
        drift_periods(flows, day, periods=["2022-W44", "2022-11-06"])
    with pytest.raises(ConfigError, match="fewer than 1 flows: 2022-W50; days that have flows: 2022-10-31"):
        drift_periods(flows, day, periods=["2022-W44", "2022-W50"])


def test_small_periods_are_left_out(caplog):
    flows = make({"a": 30})
    day = np.repeat([0, 1, 2], [20, 3, 7])
    with caplog.at_level("INFO", "jaxtraffic.datasets"):
        assert [name for name, _ in drift_periods(flows, day, min_flows=5)] == ["1970-01-01", "1970-01-03"]
    assert "left out 3 flows" in caplog.text
    with pytest.raises(ConfigError, match="no day has 21 flows"):
        drift_periods(flows, day, min_flows=21)
    with pytest.raises(ConfigError, match="unknown unit 'year'"):
        drift_periods(flows, day, "year")
    with pytest.raises(ConfigError, match="days that have flows: none"):
        drift_periods(flows, np.full(30, UNKNOWN_DAY), unknown_days="leave_out")
