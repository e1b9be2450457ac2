"""Small MIRAGE documents, for the tests of the reader."""

import io
import json
import zipfile

import pytest

from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.mirage.sets import MIRAGE19
from jaxtraffic.errors import DataError

NAN = float("nan")
WHOLE = ReadOptions(length=10_000)
NAME19 = "1494596297_{}_MIRAGE-2019_traffic_dataset_labeled_biflows.json"
WAZE = NAME19.format("com.waze")
NAME22 = "1619005750_{}_mirage2020dataset_labeled_biflows_all_packets_encryption_metadata.json"


def entry(n=4, label="com.waze", **changes):
    """A flow with bare and quoted NaN; changes go to the lists of packets."""
    lists = {
        "src_port": [51221] * n,
        "packet_dir": [0, 1, 0, 1] * n,
        "L4_payload_bytes": [517, 0, 1400, 33] * n,
        "iat": [0, 0.05, 0.0, 1.5] * n,
        "L4_raw_payload": [[22, 3, 1], [], [23], []] * n,
    }
    lists = {name: values[:n] for name, values in lists.items()} | changes
    return {
        "packet_data": {name: values for name, values in lists.items() if values is not None},
        "flow_features": {"iat": {"biflow": {"min": NAN, "skew": "NaN"}, "upstream_flow": {}}},
        "flow_metadata": {"BF_label": label, "BF_num_packets": n, "BF_duration": NAN, "UF_MSS": "NaN"},
    }


def document(*entries):
    return {f"10.0.0.1,{50_000 + at},198.18.0.1,443,6": value for at, value in enumerate(entries)}


def write(folder, content, name=WAZE, **kwargs):
    folder.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else json.dumps(content, **kwargs).encode()
    (folder / name).write_bytes(data)
    return folder / name


def one(path, options=WHOLE, dataset=MIRAGE19):
    """The only block of a file."""
    (block,) = dataset.read(path, options)
    return block


def refused(path, *words, dataset=MIRAGE19):
    with pytest.raises(DataError) as caught:
        list(dataset.read(path, WHOLE))
    for word in (path.name, *words):
        assert word in str(caught.value)


def make_zip(members, **kwargs):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", **kwargs) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()
