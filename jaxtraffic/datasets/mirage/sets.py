"""MIRAGE-2019 and MIRAGE-COVID-CCMA-2022: labelled biflows of Android apps, one JSON document a capture.

MIRAGE-2019 (Aceto et al., ICCCS 2019) is a tar.gz, or a folder, of
`MIRAGE-2019_traffic_dataset_downloadable/<device>/<time>_<package>_MIRAGE-2019_traffic_dataset_labeled_biflows.json`,
with at most 32 packets a flow. MIRAGE-COVID-CCMA-2022 (Guarino et al., CAMAD 2021) is a zip with one zip an app inside,
`MIRAGE-COVID-CCMA-2022/Raw_JSON/Slack.zip`, with all packets. In both, `packet_dir` is 0 for upload and 1 for download
and `iat` is in seconds; `L4_payload_bytes` is the transport payload, 0 for a pure acknowledgement.

The class of a flow is that of tcbench (Finamore et al., IMC 2023): `BF_label`, the package that held the socket, where
it is the package that the capture was made for (which the file name says), else "background". Letter case does not
count (`com.Slack` is spelt in two ways), a capture of "None" has background only, and so has the activity "Unknown".
Code that reads the real files finds the metadata flat (`flow_metadata.BF_label`); nested metadata
(`flow_metadata.BF.label`) are read as well.

The curation is that of the same paper, and of Wang's thesis (2025, Table 4.1): pure acknowledgements and background are
left out, flows have more than 10 packets (at least 11), classes more than 100 flows (at least 101).

The start of a flow is known in MIRAGE-22 only: the time in the file names is that of a capture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.curation import NO_BACKGROUND
from jaxtraffic.datasets.dataset import Dataset, Published
from jaxtraffic.datasets.documents import Document, documents
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, check_layer, make_block
from jaxtraffic.datasets.mirage.apps import FLOWS19, FLOWS22
from jaxtraffic.datasets.mirage.flows import SIZES, Capture, Flow, judge, without_surrogates
from jaxtraffic.datasets.mirage.json_flows import flows
from jaxtraffic.datasets.ragged import MAX_SIZE, Fields, Ragged
from jaxtraffic.datasets.simulated.mirage import simulate_mirage19, simulate_mirage22
from jaxtraffic.errors import DataError

BLOCK_FLOWS = 4_096
BLOCK_PACKETS = 1 << 20
"""A block is full with so many flows or packets, whichever comes first."""

_CLIPPED = f"packets over {MAX_SIZE} bytes, kept with that size"


def find_mirage19(place: Path) -> list[Path]:
    """Sources of MIRAGE-2019: its JSON files, one by one, or where there are none, the archive as downloaded.

    Args:
        place: a data root, the folder of the set, of a device, a JSON file or the archive.
    """
    if place.is_file():
        return [place] if _is_json19(place) or _is_archive19(place) else []
    return _shallowest(place, "*.json", _is_json19) or _shallowest(place, "*", _is_archive19)[-1:]


def find_mirage22(place: Path) -> list[Path]:
    """Sources of MIRAGE-22: per app its JSON files where unpacked, else its zip; or the outer zip as downloaded.

    The folder `Preprocessed_pickle` is never looked into.

    Args:
        place: a data root, the folder of the set, of an app, a JSON file, the zip of an app or the outer one.
    """
    if place.is_file():
        inside = "Raw_JSON" in place.absolute().parts and place.name.lower().endswith((".json", ".zip"))
        return [place] if inside or _is_archive22(place) else []
    raw = [place] if "Raw_JSON" in place.absolute().parts else _shallowest(place, "Raw_JSON", Path.is_dir)[:1]
    sources = []
    for folder in raw:
        files = [path for path in folder.rglob("*.json") if path.is_file() and not path.name.startswith(".")]
        unpacked = {path.relative_to(folder).parts[0] for path in files}
        zips = [path for path in folder.glob("*.zip") if path.is_file() and path.stem not in unpacked]
        sources = sorted([*files, *zips])
    return sources or _shallowest(place, "*.zip", _is_archive22)[-1:]


def _shallowest(place: Path, pattern: str, wanted: Callable[[Path], bool]) -> list[Path]:
    """What fits in the place or up to four folders below, all of one depth; simulated sets are not mixed in."""
    for depth in range(5):
        found = [path for path in place.glob("*/" * depth + pattern) if wanted(path)]
        found = [path for path in found if "simulated" not in path.relative_to(place).parts]
        if found:
            return sorted(found)
    return []


def _is_json19(path: Path) -> bool:
    return bool(re.fullmatch(r"[^.].*_MIRAGE-2019_.*\.json", path.name)) and path.is_file()


def _is_archive19(path: Path) -> bool:
    return bool(re.fullmatch(r"MIRAGE-2019.*\.(tar|tar\.gz|tgz|tar\.xz|zip)", path.name)) and path.is_file()


def _is_archive22(path: Path) -> bool:
    return bool(re.fullmatch(r"MIRAGE-COVID-CCMA-2022.*\.zip", path.name)) and path.is_file()


def read_mirage19(path: Path, options: ReadOptions) -> Iterator[FlowBlock]:
    """Yields the flows of a JSON file or of the archive of MIRAGE-2019; sizes are transport payload bytes.

    Raises:
        DataError: a document that cannot be read whole and right.
        ConfigError: sizes of another layer are asked for.
    """
    # neither is in the documents of 2019
    unknown = ("activity", "start")
    return _read(path, options, check_layer(options, MIRAGE19.size_layers, MIRAGE19.title), unknown)


def read_mirage22(path: Path, options: ReadOptions) -> Iterator[FlowBlock]:
    """Yields the flows of a JSON file or of a zip (of an app, or the outer one) of MIRAGE-COVID-CCMA-2022.

    Raises:
        DataError: a document that cannot be read whole and right.
    """
    return _read(path, options, check_layer(options, MIRAGE22.size_layers, MIRAGE22.title))


def _read(path: Path, options: ReadOptions, layer: str, unknown: tuple[str, ...] = ()) -> Iterator[FlowBlock]:
    n_documents = 0
    for document in documents(path, (".json",)):
        # an archive packed on a Mac holds a shadow `._name` of every file
        if "Preprocessed_pickle" in document.name.parts or document.name.name.startswith("."):
            continue
        n_documents += 1
        capture = _capture(document, path)
        batch: list[Flow] = []
        row = n_packets = 0
        for row, (key, value) in enumerate(flows(document.stream, document.where), 1):
            batch.append(judge(key, value, layer, options, capture, row))
            n_packets += batch[-1].size.size
            if len(batch) == BLOCK_FLOWS or n_packets >= BLOCK_PACKETS:
                yield _block(batch, row, layer, options, capture, unknown)
                batch, n_packets = [], 0
        if batch:
            yield _block(batch, row, layer, options, capture, unknown)
    if not n_documents:
        raise DataError(path, "no JSON document in it", expected="captures of MIRAGE", remedy="fetch the file again")


def _capture(document: Document, path: Path) -> Capture:
    """What the name of a document says; the folder is the same for a file and for a member of an archive."""
    parts = document.name.parts
    name, folder = parts[-1], parts[-2] if len(parts) > 1 else path.absolute().parent.name
    words = name.split("_")
    if "None" in name:
        package = None
    elif len(words) < 2 or not words[1]:
        raise DataError(
            document.where,
            f"the file name {name!r} says no package",
            expected="<time>_<package>_....json, as published",
            remedy="give the file its name back: the classes come from it",
        )
    else:
        package = words[1]
    name = without_surrogates(f"{folder}/{name}" if folder else name)
    return Capture(document.where, package, without_surrogates(folder) or None, name)


def _block(
    batch: list[Flow], last_row: int, layer: str, options: ReadOptions, capture: Capture, unknown: tuple[str, ...]
) -> FlowBlock:
    facts = {name: [flow.facts[name] for flow in batch] for name in batch[0].facts if name not in unknown}
    size, direction, iat = (np.concatenate(column) for column in list(zip(*batch, strict=True))[:3])
    counts = np.array([flow.size.size for flow in batch], np.int64)
    n_clipped = sum(flow.n_clipped for flow in batch)
    return make_block(
        Ragged(counts, size, direction, iat),
        pl.Series("label", [flow.label for flow in batch], dtype=pl.String),
        facts | {"capture": capture.name},
        options,
        capture.where,
        Fields(f"packet_data.{SIZES[layer]}", "packet_data.packet_dir", "packet_data.iat", "seconds"),
        size_layer=layer,
        first_row=last_row - len(batch) + 1,
        dropped={_CLIPPED: n_clipped} if n_clipped else None,
    )


_LICENCE = "CC BY-NC-ND 4.0: no commercial use, no passing on of changed copies"
_SOURCE = "tcbench, counts of the unfiltered set (Finamore et al., IMC 2023; Wang 2025, Table 4.1)"

MIRAGE19 = Dataset(
    name="mirage19",
    title="MIRAGE-2019 (20 Android apps on two phones, first 32 packets of each flow)",
    obtain="download MIRAGE-2019_traffic_dataset_downloadable_v2.tar.gz (1.4 GB) from "
    "https://traffic.comics.unina.it/mirage and put it, as it is or unpacked (then files are read in parallel), into "
    "the folder mirage19 of the data root",
    licence=_LICENCE,
    find=find_mirage19,
    read=read_mirage19,
    size_layers=("payload",),
    payload_only=True,
    rules=(NO_BACKGROUND,),
    min_packets=11,
    min_flows=101,
    published=Published(
        _SOURCE, files=1_642, flows=sum(FLOWS19.values()), classes=len(FLOWS19), flows_per_class=FLOWS19
    ),
    simulate=simulate_mirage19,
)
"""MIRAGE-2019."""

MIRAGE22 = Dataset(
    name="mirage22",
    title="MIRAGE-COVID-CCMA-2022 (9 Android apps for meetings and messages, whole flows)",
    obtain="download MIRAGE-COVID-CCMA-2022.zip (3.1 GB) from https://traffic.comics.unina.it/mirage and put it, as it "
    "is or unpacked (then apps are read in parallel), into the folder mirage22 of the data root",
    licence=_LICENCE,
    find=find_mirage22,
    read=read_mirage22,
    size_layers=("payload", "ip"),
    payload_only=True,
    rules=(NO_BACKGROUND,),
    min_packets=11,
    min_flows=101,
    published=Published(_SOURCE, files=998, flows=sum(FLOWS22.values()), classes=len(FLOWS22), flows_per_class=FLOWS22),
    simulate=simulate_mirage22,
)
"""MIRAGE-COVID-CCMA-2022."""
