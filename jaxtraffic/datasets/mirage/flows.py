"""One flow of a MIRAGE document: its lists of packets and its metadata, judged and named.

The words of the formats are those of `mirage`; messages name the document, the number of the flow in it and the field.
"""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

import numpy as np

from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.mirage.apps import BACKGROUND, FLOWS19, FLOWS22
from jaxtraffic.datasets.ragged import MAX_SIZE, REMEDY
from jaxtraffic.errors import DataError

CAPPED = 32
"""Packets that MIRAGE-2019 keeps of a flow."""

SIZES = {"payload": "L4_payload_bytes", "ip": "IP_packet_bytes"}
"""Layer -> list of sizes in `packet_data`."""

_KEY = re.compile(r"[^,]+,([0-9]{1,5}),[^,]+,([0-9]{1,5}),([0-9]{1,3})")
_EXACT = 1 << 53
_MISSING = object()
_MAX_IP = 0xFFFF
_SPELLING = {name.casefold(): name for name in (*FLOWS19, *FLOWS22)}


class Flow(NamedTuple):
    """Packets [packet], class and facts of a flow; n_clipped packets were larger than a series holds."""

    size: np.ndarray
    direction: np.ndarray
    iat: np.ndarray
    label: str
    facts: dict[str, object]
    n_clipped: int


@dataclasses.dataclass(frozen=True)
class Capture:
    """A document: path for messages, package of its file name (None: of no app), folder and name."""

    where: str
    package: str | None
    folder: str | None
    name: str


def judge(key: str, value: object, layer: str, options: ReadOptions, capture: Capture, row: int) -> Flow:
    """One flow as it stands in its document.

    Args:
        key: of the flow.
        value: of the flow.
        layer: of the sizes, "payload" or "ip".
        options: of the reading.
        capture: the document.
        row: 1-based number of the flow in the document.

    Raises:
        DataError: something is missing, or no flow can have it.
    """
    ports = _KEY.fullmatch(key)
    if not ports or max(int(ports[1]), int(ports[2])) > 0xFFFF or int(ports[3]) > 0xFF:
        raise DataError(
            capture.where,
            f"{key[:60]!r} is no key of a flow",
            row=row,
            expected="source address, port, destination address, port, protocol number, with commas between",
            remedy=REMEDY,
        )
    packets, metadata = (_member(value, name, capture, row) for name in ("packet_data", "flow_metadata"))
    names = ["packet_dir", "L4_payload_bytes", "iat"]
    names += [name for name in (SIZES[layer], "timestamp") if name in packets and name not in names]
    if SIZES[layer] not in names:
        raise _missing(f"packet_data.{SIZES[layer]}", capture, row)
    columns = {name: _numbers(packets, name, capture, row) for name in names}
    lengths = {name: column.size for name, column in columns.items()}
    n = lengths["packet_dir"]
    if len(set(lengths.values())) > 1:
        stated = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(
            capture.where,
            f"lists of unequal length ({stated})",
            row=row,
            field="packet_data",
            expected="one value a packet in each list",
            remedy=REMEDY,
        )
    raw, payload = columns["packet_dir"], columns["L4_payload_bytes"]
    wrong = (raw != 0) & (raw != 1)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            capture.where,
            f"direction of packet {at + 1} is {raw[at]:g}",
            row=row,
            field="packet_data.packet_dir",
            expected="0 (upload) or 1 (download)",
            remedy=REMEDY,
        )
    # sizes beyond int16 appear where the phone's kernel joined segments; an IP packet cannot be larger than 65535
    size = columns[SIZES[layer]]
    over = (size > MAX_SIZE) & (size <= _MAX_IP)
    size = np.where(over, MAX_SIZE, size)
    if layer == "ip" and options.payload_only:
        # `make_block` leaves out packets of size 0, which pure acknowledgements have at the payload layer only
        size = np.where(payload > 0, size, 0)
    protocol = int(ports[3])
    label, activity = _label(metadata, capture, row)
    facts = {
        "is_background": label == BACKGROUND,
        "protocol": protocol,
        "client_port": int(ports[1]),
        "server_port": int(ports[2]),
        "packets": _whole(_value(metadata, "num_packets"), n),
        "has_handshake": _has_handshake(raw, payload) if protocol == 6 else None,
        "activity": activity,
        "device": _text(_value(metadata, "device")) or capture.folder,
        "start": float(columns["timestamp"][0]) if lengths.get("timestamp") else None,
    }
    return Flow(size, 1 - 2 * raw.astype(np.int8), columns["iat"], label, facts, int(np.count_nonzero(over)))


def _has_handshake(raw: np.ndarray, payload: np.ndarray) -> bool:
    """Whether the first three packets are without payload, and go up, down and up."""
    return raw[:3].tolist() == [0, 1, 0] and not payload[:3].any()


def _whole(stated: object, n: int) -> int | None:
    """Packets of the whole flow, where the stated number and the list agree: a list of 32 may have been cut."""
    if isinstance(stated, bool) or not isinstance(stated, int | float) or stated != stated // 1:
        stated = None
    if stated is None:
        return n if n < CAPPED else None
    return int(stated) if stated == n or (n >= CAPPED and n < stated < _EXACT) else None


def _label(metadata: dict, capture: Capture, row: int) -> tuple[str, str | None]:
    """Class and activity of a flow."""
    found = _value(metadata, "label", missing=_MISSING)
    if found is _MISSING:
        raise _missing("flow_metadata.BF_label", capture, row)
    package, activity = _text(found), _text(_value(metadata, "activity"))
    is_own = package and capture.package and package.casefold() == capture.package.casefold()
    if not is_own or activity == "Unknown":
        return BACKGROUND, activity
    return _SPELLING.get(package.casefold(), package), activity


def _member(value: object, name: str, capture: Capture, row: int) -> dict:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise _missing(name, capture, row, "an object of that name in each flow")
    return found


def _numbers(packets: dict, name: str, capture: Capture, row: int) -> np.ndarray:
    """[packet] float64 of a list of numbers; NaN and infinity are no values of a packet."""
    values = packets.get(name)
    if not isinstance(values, list):
        raise _missing(f"packet_data.{name}", capture, row)
    problem = None
    if not set(map(type, values)) <= {int, float}:
        at = next(at for at, value in enumerate(values) if type(value) not in (int, float))
        problem = f"value of packet {at + 1} is {str(values[at])[:40]!r}"
    else:
        try:
            column = np.array(values, np.float64)
        except OverflowError:
            problem = "a number beyond measure"
        else:
            if not (finite := np.isfinite(column)).all():
                at = int(np.argmin(finite))
                problem = f"value of packet {at + 1} is {values[at]}"
    if problem:
        raise DataError(
            capture.where, problem, row=row, field=f"packet_data.{name}", expected="finite numbers", remedy=REMEDY
        )
    return column


def _missing(field: str, capture: Capture, row: int, expected: str = "it in each flow") -> DataError:
    return DataError(capture.where, "missing", row=row, field=field, expected=expected, remedy=REMEDY)


def _value(metadata: dict, name: str, missing: object = None) -> object:
    """A value of both directions together, from flat or nested metadata."""
    nested = metadata.get("BF")
    found = metadata.get(f"BF_{name}", missing)
    return nested.get(name, missing) if found is missing and isinstance(nested, dict) else found


def _text(value: object) -> str | None:
    """A text that says something; the publishers write NaN, bare or quoted, where nothing is known."""
    return without_surrogates(value) if isinstance(value, str) and value not in ("", "NaN") else None


def without_surrogates(text: str | None) -> str:
    """Without halves of surrogate pairs, which JSON and tar names can hold and UTF-8 cannot."""
    return (text or "").encode("utf-8", "replace").decode()
