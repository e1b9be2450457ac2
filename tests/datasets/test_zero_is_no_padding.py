"""Size 0 and IAT 0 are values of packets and never padding: in every format, on every way, and in the source code."""

import ast
import dataclasses
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import jaxtraffic
from jaxtraffic.datasets.catalogue import DATASETS
from jaxtraffic.datasets.conversion import convert, read_converted
from jaxtraffic.datasets.export.tables import read_npz, write_npz, write_tcbench_parquet
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.interchange import read_parquet, write_parquet
from jaxtraffic.datasets.labelled import LabelledFlows
from jaxtraffic.datasets.loading import load_labelled
from jaxtraffic.datasets.netflow.records import read_flow_records
from jaxtraffic.datasets.reading import read_source
from jaxtraffic.datasets.writing import export_flows
from jaxtraffic.series import PacketSeries
from tests.datasets.zero_packets import CASES, DIRECTION, IAT, SIZE, series

LENGTH = 6
WITHOUT = "packets without payload"


def assert_flow(flows: PacketSeries, size, direction, iat, row=0):
    """One flow of a series: its packets, its mask, and zeros behind them and nowhere else."""
    n = len(direction)
    assert flows.check().n_packets[row] == n
    assert flows.mask[row].tolist() == [True] * n + [False] * (flows.length - n)
    assert flows.size[row, :n].tolist() == list(size)
    assert flows.direction[row, :n].tolist() == list(direction)
    np.testing.assert_allclose(flows.iat[row, :n], iat, rtol=0, atol=2e-6)
    # exactly, not about: an IAT of 0 stays one
    assert (flows.iat[row, :n] == 0).tolist() == [value == 0 for value in iat]


def with_headers(case):
    return [size + case.header for size in case.size]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_reader_keeps_packets_of_size_0_and_iat_0(tmp_path, case):
    dataset = DATASETS[case.dataset]
    source = case.write(tmp_path)
    layer = None if case.dataset == "parquet" else case.layer
    options = ReadOptions(LENGTH, size_layer=layer)
    assert {block.size_layer for block in dataset.read(source, options)} == {case.layer}
    assert case.layer in dataset.size_layers
    [found] = dataset.find(source)
    assert_flow(read_source(dataset, found, options).flows, with_headers(case), case.direction, case.iat)
    # conversion
    convert(dataset, source, tmp_path / "out", options=options, workers=1)
    assert_flow(read_converted(tmp_path / "out").flows, with_headers(case), case.direction, case.iat)
    # cut within: the first packet without payload is the last that stays
    cut = read_source(dataset, found, dataclasses.replace(options, length=2)).flows
    assert_flow(cut, with_headers(case)[:2], case.direction[:2], case.iat[:2])


@pytest.mark.parametrize("case", [case for case in CASES.values() if not case.header], ids=lambda case: case.dataset)
def test_payload_only_drops_those_of_size_0_and_keeps_the_clock(tmp_path, case):
    dataset = DATASETS[case.dataset]
    layer = None if case.dataset == "parquet" else case.layer
    table = read_source(dataset, case.write(tmp_path), ReadOptions(LENGTH, payload_only=True, size_layer=layer))
    kept = [at for at, size in enumerate(case.size) if size]
    clock = np.cumsum(case.iat)[kept]
    expected = [case.size[at] for at in kept], [case.direction[at] for at in kept], np.diff(clock, prepend=clock[0])
    assert_flow(table.flows, *expected)
    assert table.left_out[WITHOUT] == case.size.count(0) == 2


@pytest.mark.parametrize(
    "name", ["cesnet_quic", "mirage19", "mirage22", "utmobilenet21", "ucdavis19", "pcap", "tcbench mirage19 v1"]
)
@pytest.mark.parametrize("curated", [True, False])
def test_loading_drops_them_where_the_set_says_so_and_nowhere_else(tmp_path, name, curated):
    case = CASES[name]
    more = {"min_packets": 1, "min_flows": 1} if curated else {}
    table, _ = load_labelled(
        case.dataset,
        path=case.write(tmp_path),
        length=LENGTH,
        size_layer=case.layer,
        curated=curated,
        workers=1,
        **more,
    )
    if curated and DATASETS[case.dataset].payload_only:
        assert_flow(table.flows, [100, 300], [1, 1], [0, 0.25])
        assert table.left_out[WITHOUT] == 2
    else:
        assert_flow(table.flows, case.size, case.direction, case.iat)
        assert WITHOUT not in table.left_out


def test_files_of_our_own_keep_them(tmp_path):
    flows = series()
    write_parquet(flows, tmp_path / "a.parquet")
    write_npz(flows, tmp_path / "a.npz")
    for back in (read_parquet(tmp_path / "a.parquet"), read_npz(tmp_path / "a.npz")):
        assert_flow(back, SIZE, DIRECTION, IAT)
        assert_flow(back, [0], [1], [0], row=1)
    for generation in ("dev", "v1"):
        write_tcbench_parquet(flows, tmp_path / f"{generation}.parquet", generation)
        back = read_source(DATASETS["tcbench"], tmp_path / f"{generation}.parquet", ReadOptions(LENGTH)).flows
        order = [back.class_names[label] for label in back.label]
        assert_flow(back, SIZE, DIRECTION, IAT, row=order.index("web"))
        assert_flow(back, [0], [1], [0], row=order.index("mail"))


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_captures_that_we_write_keep_them(tmp_path, transport):
    table = LabelledFlows(series()[np.array([0])], pl.DataFrame({"packets": [4]}))
    export_flows(table, tmp_path / "a.pcap", "pcap", transport=transport)
    labels = next(tmp_path.glob("*.labels.csv"))
    [found] = [path for path in DATASETS["pcap"].find(tmp_path) if path.name == "a.pcap"]
    reader = {"label": str(labels), "client_network": "10.0.0.0/8"}
    flows = load_labelled("pcap", path=found, curated=False, size_layer="payload", length=LENGTH, reader=reader)[
        0
    ].flows
    assert_flow(flows, SIZE, DIRECTION, IAT)


def test_records_without_packets_bytes_or_duration_are_records(tmp_path):
    text = "srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,label\n"
    text += "10.0.0.1,10.0.0.2,1,2,UDP,1600000000000000,0,0,0,a\n10.0.0.1,10.0.0.2,1,2,UDP,1600000000000000,0,0,0,a\n"
    (tmp_path / "a.csv").write_text(text)
    records = read_flow_records(tmp_path / "a.csv")
    assert (records.packets.tolist(), records.bytes.tolist(), records.duration.tolist()) == ([0, 0], [0, 0], [0, 0])


def test_appclassnet_has_no_times_and_an_iat_of_0_is_no_padding_there(tmp_path):
    x = np.zeros((1, 20), np.float32)
    x[0, :3] = 0.2, -1e-6, 0.1
    np.save(tmp_path / "train_x.npy", x)
    np.save(tmp_path / "train_y.npy", np.array([7]))
    entry = DATASETS["appclassnet"]
    assert not entry.has_times
    flows = read_source(entry, tmp_path / "train_x.npy", ReadOptions(LENGTH)).flows
    assert_flow(flows, [600, 0, 300], [1, -1, 1], [0, 0, 0])
    assert flows.size_layer in entry.size_layers


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_every_set_states_what_its_sizes_are(dataset):
    assert dataset.size_layers
    assert set(dataset.size_layers) <= {"ip", "payload"}
    assert len(set(dataset.size_layers)) == len(dataset.size_layers)
    assert dataset.name == "appclassnet" or dataset.name in {case.dataset for case in CASES.values()}
    layers = {case.layer for case in CASES.values() if case.dataset == dataset.name}
    assert layers <= set(dataset.size_layers)


ALLOWED = {
    (
        "classify/folds.py",
        "np.asarray(flows.iat) > 0",
    ): "whether a set has times at all, not which packets are there",
    ("evaluate/times.py", "np.asarray(flows.iat) > 0"): "whether a set has times at all, not which packets are there",
    ("quantile_scaling.py", "sizes > 0"): "counts of sizes, not sizes",
    ("report/base_classifier_pages.py", "gap.low <= 0"): "the end of an interval of scores",
    (
        "datasets/flow_block.py",
        "packets.size > 0",
    ): "payload_only leaves acknowledgements out on purpose, and counts them",
    ("datasets/mirage/flows.py", "payload > 0"): "payload_only at the IP layer",
    ("datasets/capture/flow_table.py", "packets.payload > 0"): "payload_only",
    ("datasets/utmobilenet.py", "flat['payload'].to_numpy() == 0"): "whether a flow begins with a TCP handshake",
    ("datasets/tcbench/tables.py", "size == 0"): "v1 writes IP length 0 for fragments: not refused as too short",
    ("datasets/cesnet/day_files.py", "np.count_nonzero(packets.iat[np.cumsum(counts) - counts])"): "says that a first "
    "time is not 0",
    ("datasets/ucdavis.py", "np.where(np.isfinite(size), size, 0.5) % 1 == 0"): "whole numbers",
    ("datasets/export/series_packets.py", "payload > 0"): "flags of TCP segments that hold data",
    ("datasets/simulated/appclassnet.py", "traffic.payload > 0"): "the format has no packets of size 0",
    ("datasets/simulated/cesnet_tls.py", "traffic.payload > 0"): "the exporter leaves acknowledgements out",
    ("datasets/simulated/tcbench.py", "traffic.payload > 0"): "tcbench leaves acknowledgements out",
    ("datasets/simulated/tcbench.py", "traffic.payload == 0"): "its column pkts_is_ack",
    ("series.py", "self.size != 0"): "refuses a size in the padding, which the direction tells",
    ("augment/segmentation.py", "payload > 0"): "segments that hold data; the mask is the direction",
    ("generate/card.py", "np.asarray(train.signed_size) == 0"): "whether real flows hold size 0, by the mask",
    ("generate/token_times.py", "np.arange(iat.shape[1]) > 0"): "positions, all but the first packet's",
    ("nn/tied.py", "size < 1"): "sizes of the network: classes, tokens, packets",
    ("generate/model.py", "signed_size == 0"): "drawn sizes, whose sign is their direction; never flows that were read",
    ("report/augmentation_figures.py", "size == 0"): "marks packets without payload in a figure",
    ("report/augmentation_figures.py", "size != 0"): "marks sizes without direction in a figure",
    ("augment/policies.py", "size > 0"): "flows of a class, no bytes",
    ("augment/policies.py", "np.flatnonzero(size)"): "flows of a class, no bytes",
    ("train/stream.py", "share % size == 0"): "flows of a share, no bytes",
}
"""Comparisons of sizes or times with 0, and why each tells no padding."""

_WORD = re.compile(r"(?:^|_)(?:sizes?|iats?|piat|gaps?|payload|ps|intervals?)(?:_|$)")


def _names(node):
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def zero_tests(source):
    """Comparisons that tell 0 from the rest in a name of sizes or times, and calls that take 0 for False."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            terms = [node.left, *node.comparators]
            constants = {(type(one.value), one.value) for one in terms if isinstance(one, ast.Constant)}
            apart = isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.Gt | ast.LtE) and constants & {
                (int, 0),
                (float, 0.0),
            }
            apart = apart or (isinstance(node.ops[0], ast.GtE | ast.Lt) and constants & {(int, 1), (float, 1.0)})
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            apart = called.endswith((".nonzero", ".flatnonzero", ".count_nonzero", ".trim_zeros", ".astype"))
            apart = apart and (not called.endswith(".astype") or "bool" in ast.unparse(node.args[0]))
            # a mask that was compared already is judged where it was compared
            apart = apart and not any(isinstance(part, ast.Compare) for part in ast.walk(node))
        else:
            continue
        if apart and any(_WORD.search(name.lower()) for name in _names(node)):
            yield ast.unparse(node)


def test_no_code_takes_size_0_or_iat_0_for_padding():
    root = Path(jaxtraffic.__file__).parent
    found = {
        (path.relative_to(root).as_posix(), text)
        for path in root.rglob("*.py")
        for text in zero_tests(path.read_text())
    }
    assert found - set(ALLOWED) == set(), "a mask is direction != 0 or the length of a list; else say here why not"
    assert set(ALLOWED) - found == set(), "no longer in the code"


def test_the_search_finds_what_it_should():
    source = "a = size != 0\nb = flows.iat > 0\nc = pl.col('splt_ps') == 0\nd = x['iat'].astype(bool)\n"
    source += "e = np.flatnonzero(size)\nf = sizes >= 1\ng = direction != 0\nh = size >= 0\ni = iat < 0\nj = 0 != gap\n"
    assert len(list(zero_tests(source))) == 7
