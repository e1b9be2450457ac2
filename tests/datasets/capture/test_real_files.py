"""Every real capture is read to its end or refused with a reason."""

from collections import Counter

import pytest

from jaxtraffic.datasets.capture import reader
from jaxtraffic.datasets.capture.reader import read_capture
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.errors import DataError
from tests.datasets.capture.real_files import PATHS, REFUSED, index, needs_real_files

pytestmark = needs_real_files
_CHANGED_ONLY = (reader.UNTIMED, reader.CLIPPED, "packets earlier")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_read_to_the_end_or_refused(path):
    if path.name in REFUSED:
        with pytest.raises(DataError) as caught:
            list(read_capture(path, ReadOptions(), label="x"))
        assert REFUSED[path.name] in str(caught.value) and str(path) in str(caught.value)
        return
    dropped, packets = Counter(), 0
    for block in read_capture(path, ReadOptions(), label="x"):
        packets += int(block.facts["packets"].sum())
        dropped.update(block.dropped)
    left_out = sum(number for name, number in dropped.items() if not name.startswith(_CHANGED_ONLY))
    row = index().get(path.name)
    if row is not None:
        assert packets + left_out == int(row["packets"])
    else:
        assert packets + left_out > 0


def test_the_refused_ones_are_there():
    assert set(REFUSED) <= {path.name for path in PATHS}
