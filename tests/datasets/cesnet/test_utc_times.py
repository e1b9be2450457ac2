"""Times written as text, against the standard library."""

import datetime

import numpy as np
import polars as pl
import pytest

from jaxtraffic.datasets.cesnet.utc_times import epoch_seconds

TIMES = [
    "2022-10-31T10:00:00.000001",
    "2022-10-31T10-00-00.000001",
    "2021-12-31T22:00:00",
    "2020-02-29T23:59:59.999999",
    "2024-12-31T00:00:00.5",
]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("text", TIMES)
def test_times_equal_those_of_the_standard_library(n, text):
    iso = text[:11] + text[11:].replace("-", ":")
    expected = datetime.datetime.fromisoformat(iso).replace(tzinfo=datetime.UTC).timestamp()
    np.testing.assert_allclose(epoch_seconds(pl.Series([text] * n)), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("first", [0, 1])
def test_times_in_a_mixture_of_spellings(first):
    texts = TIMES[first:] + [None, "", "rubbish", "2022-10-31T25:00:00.000001", "2022-02-30T10:00:00.000001"]
    seconds = epoch_seconds(pl.Series(texts)).to_list()
    assert seconds[: len(TIMES) - first] == [epoch_seconds(pl.Series([text]))[0] for text in TIMES[first:]]
    assert seconds[len(TIMES) - first :] == [None] * 5


@pytest.mark.parametrize(
    "wrong",
    [
        "2022-13-31T10:00:00.000001",
        "2022-11-31T10:00:00.000001",
        "2022-10-31T24:00:00.000001",
        "2022-10-31T10:60:00.000001",
        "2022-10-31T10:00:00.00000x",
        "2022-10-3\u00e4T10:00:00.00000",
        "2022-10-00T10:00:00.000001",
    ],
)
def test_times_that_are_none_are_null_among_good_ones(wrong):
    good = TIMES[0]
    assert [value is None for value in epoch_seconds(pl.Series([good, wrong, good]))] == [False, True, False]
    assert epoch_seconds(pl.Series([wrong])).to_list() == [None]
    assert epoch_seconds(pl.Series([], dtype=pl.String)).to_list() == []
