"""AppClassNet: the first 20 packets of millions of flows of a network operator, with sizes and directions only.

Wang, Finamore, Michiardi, Gallo and Rossi, "AppClassNet: a commercial-grade dataset for application identification
research" (CCR 2022; figshare article 20375580). A folder, such as `top200`, holds `train_x.npy`, `train_y.npy` and the
same for `valid` and `test`: x is [flow, 20] floats, y [flow] class numbers, whose names were not published. There are
no times: every inter-arrival time is 0 and means nothing.

The values are normalised: their sign is taken as the direction, and their magnitude times 3000 as the size. Both are
CESNET's reading (tc-transfer, load_appclassnet); the true factor, which sign is upstream, and the layer of the sizes
(taken as payload) are not settled by any source.

0 is padding: this format has no other way to say it, so that a real packet of size 0 cannot be told from it, and a
packet is there where the value is not 0, however small its size becomes. A 0 before a later packet is a packet without
direction: it is left out and counted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.csv_blocks import FETCH_AGAIN
from jaxtraffic.datasets.dataset import Dataset, Published
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, check_layer, make_block
from jaxtraffic.datasets.ragged import REMEDY, Fields, Ragged
from jaxtraffic.datasets.simulated.appclassnet import LENGTH, PARTITIONS, SCALE, simulate
from jaxtraffic.errors import DataError

log = logging.getLogger("jaxtraffic.datasets")

BLOCK_FLOWS = 65_536
"""Flows converted at a time."""

INTERIOR = "zeros before a later packet (packets without direction)"

_USUAL = "top200"


def find(place: Path) -> list[Path]:
    """Sources of the set: `train_x.npy`, `valid_x.npy` and `test_x.npy` of one folder, as far as they are there.

    Args:
        place: a data root, the folder of the set, a folder of its arrays, or one of the arrays x. Where several folders
            hold arrays, `top200` is taken, else the first by name, with a warning.
    """
    if place.is_file():
        return [place] if _partition(place) else []
    for depth in range(4):
        arrays = [path for part in PARTITIONS for path in place.glob("*/" * depth + f"{part}_x.npy") if path.is_file()]
        # stand-ins lie apart and are not mixed in; arrays x without y belong to something else
        arrays = [
            path for path in arrays if "simulated" not in path.relative_to(place).parts and _labels(path).is_file()
        ]
        if arrays:
            folders = sorted({path.parent for path in arrays}, key=lambda folder: (folder.name != _USUAL, folder))
            if len(folders) > 1:
                log.warning("%s: %d folders of arrays, %s is read", place, len(folders), folders[0])
            return [path for path in arrays if path.parent == folders[0]]
    return []


def _partition(path: Path) -> str | None:
    return next((part for part in PARTITIONS if path.name == f"{part}_x.npy"), None)


def _labels(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('_x.npy')}_y.npy")


def read(path: Path, options: ReadOptions) -> Iterator[FlowBlock]:
    """Yields the flows of `<partition>_x.npy` and the `_y.npy` beside it, in blocks; the files are memory mapped.

    Raises:
        DataError: an array that is not whole or not of the right form, or a value that no packet can have.
        ConfigError: sizes of another layer are asked for.
    """
    check_layer(options, APPCLASSNET.size_layers, APPCLASSNET.title)
    partition = _partition(path)
    if partition is None:
        raise DataError(path, "not an array of AppClassNet", expected="train_x.npy, valid_x.npy or test_x.npy")
    labels = _labels(path)
    x = _mapped(path, "f", f"[flow, {LENGTH}] floats")
    y = _mapped(labels, "iuf", "[flow] class numbers")
    if x.ndim != 2 or x.shape[1] != LENGTH:
        raise DataError(path, f"shape {x.shape}", expected=f"[flow, {LENGTH}] floats", remedy=FETCH_AGAIN)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.shape[0] != x.shape[0]:
        raise DataError(labels, f"shape {y.shape}", expected=f"({x.shape[0]},), a class for each row of {path.name}")
    for first in range(0, x.shape[0], BLOCK_FLOWS):
        part = slice(first, first + BLOCK_FLOWS)
        yield _block(x[part].astype(np.float64), y[part], partition, path, labels, first + 1, options)


def _mapped(path: Path, kinds: str, expected: str) -> np.ndarray:
    """The array of a file, mapped, after its header was compared with the bytes that are there.

    Mapping does not look at the size of a file in every case, and reading beyond the end of one kills the process.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version}")
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, fortran_order, dtype = read_header(file)
            n_bytes = os.fstat(file.fileno()).st_size - file.tell()
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise DataError(path, problem, expected="a readable .npy file", remedy="check the path") from error
    except Exception as error:  # the header is a Python literal: damage shows in any error of the parser
        reason = str(error)[:100] or type(error).__name__
        raise DataError(path, f"no .npy header ({reason})", expected=expected, remedy=FETCH_AGAIN) from error
    if dtype.kind not in kinds or dtype.names or dtype.subdtype or fortran_order:
        order = " in Fortran order" if fortran_order else ""
        raise DataError(
            path, f"an array of {str(dtype)[:60]}{order}", expected=f"{expected} in C order", remedy=FETCH_AGAIN
        )
    # numbers of Python, which do not overflow
    if any(type(length) is not int or length < 0 for length in shape):
        raise DataError(path, f"shape {shape}", expected=expected, remedy=FETCH_AGAIN)
    stated = dtype.itemsize
    for length in shape:
        stated *= length
    if stated != n_bytes or len(shape) > 2:
        problem = f"the header states an array of shape {shape}, {stated} bytes, and {n_bytes} follow"
        raise DataError(path, problem[:200], expected=f"{expected}, whole", remedy=FETCH_AGAIN)
    if not stated:
        raise DataError(path, "no flows", expected=expected, remedy=FETCH_AGAIN)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be mapped ({error})", expected=expected, remedy=FETCH_AGAIN) from error


def _block(
    x: np.ndarray, y: np.ndarray, partition: str, path: Path, labels: Path, first_row: int, options: ReadOptions
) -> FlowBlock:
    """Flows from a block of rows."""
    wrong = ~np.isfinite(x)
    if wrong.any():
        row, packet = np.argwhere(wrong)[0]
        raise DataError(
            path,
            f"value of packet {packet + 1} is {x[row, packet]}",
            row=first_row + int(row),
            expected="finite numbers",
            remedy=REMEDY,
        )
    here = x != 0
    # the last packet of each flow, found from the end; everything behind it is padding
    ends = np.where(here.any(axis=1), LENGTH - np.argmax(here[:, ::-1], axis=1), 0)
    n_interior = int(ends.sum() - np.count_nonzero(here))
    values = x[here]
    packets = Ragged(
        here.sum(axis=1).astype(np.int64),
        np.round(np.abs(values) * SCALE),
        np.sign(values),
        np.zeros(values.size),
    )
    return make_block(
        packets,
        _class_numbers(y, labels, first_row),
        {"partition": partition},
        options,
        path,
        Fields(f"x (times {SCALE:g})", "x", "x", "seconds"),
        size_layer="payload",
        first_row=first_row,
        dropped={INTERIOR: n_interior} if n_interior else None,
    )


def _class_numbers(y: np.ndarray, path: Path, first_row: int) -> pl.Series:
    """[flow] class numbers as text."""
    numbers = y.astype(np.float64)
    wrong = ~((numbers >= 0) & (numbers < 1 << 31)) | (np.where(np.isfinite(numbers), numbers, 0) % 1 != 0)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(path, f"class {y[at]}", row=first_row + at, expected="a whole number, 0 or more", remedy=REMEDY)
    return pl.Series("label", numbers.astype(np.int64)).cast(pl.String)


APPCLASSNET = Dataset(
    name="appclassnet",
    title="AppClassNet (classes without names in the network of an operator, first 20 packets, no times)",
    obtain="download the archive of figshare article 20375580, unpack it, and put its folders (such as top200, with "
    "train_x.npy, train_y.npy, ...) into the folder appclassnet of the data root",
    licence="not known: see figshare article 20375580",
    find=find,
    read=read,
    size_layers=("payload",),
    length=LENGTH,
    min_packets=1,
    # few-shot studies use classes down to 383 flows (Wang 2025, Table 4.8)
    min_flows=1,
    has_times=False,
    published=Published(
        "Wang 2025, Table 4.8, all 500 classes and rounded; top200 holds 200 of them", flows=9_900_000, classes=500,
        complete=False,
    ),
    simulate=simulate,
)  # fmt: skip
"""AppClassNet."""
