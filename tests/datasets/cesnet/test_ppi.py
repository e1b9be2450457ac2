"""The vectorised PPI parser against `json.loads`."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtraffic.datasets.cesnet import ppi
from jaxtraffic.errors import DataError

FLOW = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 300_000), min_size=n, max_size=n),
        st.lists(st.sampled_from([1, -1]), min_size=n, max_size=n),
        st.lists(st.integers(0, 32_767), min_size=n, max_size=n),
    )
)


def assert_same(block, cells):
    triplets = [json.loads(cell) for cell in cells]
    assert block.counts.tolist() == [len(triplet[0]) for triplet in triplets]
    for name, index in (("iat", 0), ("direction", 1), ("size", 2)):
        assert getattr(block, name).tolist() == [value for triplet in triplets for value in triplet[index]]


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOW, min_size=1, max_size=20), st.sampled_from([", ", ","]))
def test_equal_to_json(flows, comma):
    cells = [json.dumps(flow, separators=(comma, ": ")) for flow in flows]
    assert ppi._parse_common(pl.Series(cells)) is not None, "the common spelling must take the quick way"
    assert_same(ppi.parse_ppi(pl.Series(cells), "f"), cells)


def test_mixed_spellings_take_the_slow_way_with_the_same_values():
    cells = ["[[0, 5], [1, -1], [7, 40]]", "[[0,5], [1,-1], [7,40]]", "[[0, 5], [1, -1], [7.0, 4e1]]", "[[], [], []]"]
    assert_same(ppi.parse_ppi(pl.Series(cells), "f"), cells)


@pytest.mark.parametrize("directions", [[11, 1], [1, 0], [-1, 10], [1, 2], [-11, -1]])
def test_directions_that_are_no_signs_are_kept_for_the_check(directions):
    block = ppi.parse_ppi(pl.Series([f"[[0, 5], {directions}, [7, 40]]", "[[0], [-1], [7]]"]), "f")
    assert block.direction.tolist() == [*directions, -1]


@pytest.mark.parametrize(
    "cell", ["[[0 5], [1, -1], [7, 40]]", "[[0, 05], [1, -1], [7, 40]]", "[[0, 5], [1, -1], [7, 40]]]"]
)
def test_what_json_refuses_is_refused(cell):
    with pytest.raises(DataError, match=r"f, row 4, field PPI"):
        ppi.parse_ppi(pl.Series(["[[0, 5], [1, -1], [7, 40]]", cell]), "f", first_row=3)


def test_unequal_lists_whose_sum_fits_are_refused():
    with pytest.raises(DataError, match=r"row 1, .*unequal length \(1, 2 and 3\)"):
        ppi.parse_ppi(pl.Series(["[[0], [1, -1], [7, 40, 5]]"]), "f")


def test_no_cells_give_no_packets():
    block = ppi.parse_ppi(pl.Series([], dtype=pl.String), "f")
    assert block.counts.size == block.size.size == 0
    assert np.issubdtype(block.counts.dtype, np.integer)


PUSHED = "[[0, 5], [1, -1], [7, 40], [1, 0]]"


@pytest.mark.parametrize("spelling", [PUSHED, PUSHED.replace(" ", ""), PUSHED.replace("40", "4e1")])
@pytest.mark.parametrize("lists", [(4,), (3, 4)])
def test_a_fourth_list_is_counted_and_not_kept(spelling, lists):
    block = ppi.parse_ppi(pl.Series([spelling, spelling]), "f", lists=lists)
    assert block.counts.tolist() == [2, 2]
    assert block.size.tolist() == [7, 40] * 2
    assert (ppi._parse_common(pl.Series([spelling]), lists) is None) == ("e" in spelling)


def test_cells_of_three_and_of_four_lists_where_both_may_be():
    cells = ["[[0, 5], [1, -1], [7, 40]]", PUSHED]
    for order in (cells, cells[::-1]):
        assert ppi.parse_ppi(pl.Series(order), "f", lists=(3, 4)).size.tolist() == [7, 40] * 2


@pytest.mark.parametrize(
    ("cells", "lists", "words"),
    [
        ([PUSHED], (3,), "row 1, .*4 lists; expected three lists"),
        (["[[0], [1], [7]]"], (4,), "row 1, .*3 lists; expected four lists"),
        ([PUSHED, "[[0, 5], [1, -1], [7, 40], [1]]"], (4,), "row 2, .*unequal length"),
        ([PUSHED, "[[0, 5], [1, -1], [7, 40], [1, 0, 1]]", "[[0, 5], [1, -1], [7, 40], [1]]"], (3, 4), "row 2"),
        (["[[0], [1]]"], (3, 4), "2 lists; expected three or four"),
    ],
)
def test_other_numbers_and_lengths_of_lists_are_refused(cells, lists, words):
    with pytest.raises(DataError, match=words):
        ppi.parse_ppi(pl.Series(cells), "f", lists=lists)
