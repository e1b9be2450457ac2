"""Every real capture is read to its end or refused with a reason."""

from collections import Counter

import pytest

from jaxtraffic.datasets.capture import containers, network, reader
from jaxtraffic.datasets.capture.flow_table import FlowSettings, FlowTable
from jaxtraffic.datasets.capture.fragments import Fragments
from jaxtraffic.datasets.capture.reader import read_capture
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.errors import DataError
from tests.datasets.capture.plain_flows import SECOND, plain_flows
from tests.datasets.capture.real_files import PATHS, REFUSED, index, needs_real_files
from tests.datasets.capture.test_flow_table import flows_of

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


@pytest.mark.parametrize("path", [path for path in PATHS if path.name not in REFUSED], ids=lambda path: path.name)
def test_flows_are_those_of_a_dictionary(path):
    rows, stage, table = [], Fragments(), FlowTable(FlowSettings(), round_packets=50)
    blocks = []
    with path.open("rb") as stream:
        for block in containers.packet_blocks(stream, str(path), block_bytes=5000):
            packets = stage.add(network.decode(block)[0], block.first + block.offset.size - 1)
            rows += as_rows_of_packets(packets)
            blocks += table.add(packets)
    rest = stage.finish()
    if rest is not None:
        rows += as_rows_of_packets(rest)
        blocks += table.add(rest)
    blocks += table.finish()
    expected, _ = plain_flows(rows, length=30, payload_only=False, layer="ip", idle=65 * SECOND, active=300 * SECOND)
    assert flows_of(blocks) == expected


def as_rows_of_packets(packets):
    one = {name: getattr(packets, name).tolist() for name in packets.__dataclass_fields__}
    source = [high << 64 | low for high, low in zip(one["source_high"], one["source_low"])]
    target = [high << 64 | low for high, low in zip(one["target_high"], one["target_low"])]
    return list(
        zip(
            *(one["number"], one["time"], one["version"], one["protocol"], source, one["source_port"]),
            *(target, one["target_port"], one["flags"], one["size"], one["payload"]),
        )
    )


def test_the_refused_ones_are_there():
    assert set(REFUSED) <= {path.name for path in PATHS}
