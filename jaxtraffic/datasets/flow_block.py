"""What every reader yields: a block of flows with their packets end to end, one label each, and what else is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl

from jaxtraffic.datasets.ragged import MAX_SIZE, REMEDY, Fields, Ragged, check_values, locate, starts_of
from jaxtraffic.errors import ConfigError, DataError

FACTS: dict[str, pl.DataType] = {
    "start": pl.Float64(),
    "day": pl.Int32(),
    "capture": pl.String(),
    "partition": pl.String(),
    "category": pl.String(),
    "device": pl.String(),
    "activity": pl.String(),
    "protocol": pl.Int16(),
    "client_port": pl.Int32(),
    "server_port": pl.Int32(),
    "packets": pl.Int64(),
    "is_dns": pl.Boolean(),
    "is_background": pl.Boolean(),
    "has_handshake": pl.Boolean(),
}
"""What a reader may say of a flow beside its packets; a column that a format does not know is left out, a value that is
not known is null.

start: seconds since 1970 (UTC) of the first packet, float64 because float32 has a spacing of 128 s there. day: days
since 1970 of the recording period, from the file name where a set is organised by day. capture: the file that the flow
came from; flows of one capture belong on one side of a fold. partition: a part that the publishers made (train, human).
category, device, activity: further labels. protocol: 6 TCP, 17 UDP. packets: of the whole flow, before cutting. is_dns,
is_background, has_handshake: what rules of curation ask.
"""


@dataclasses.dataclass(frozen=True)
class FlowBlock:
    """A block of flows.

    Attributes:
        packets: flat values that passed `check_values`; iat in seconds, the first of each flow 0.
        label: [flow] strings without nulls.
        facts: one row a flow, columns out of `FACTS` with the types given there.
        size_layer: "ip" (IP total length) or "payload" (transport payload): what the sizes of this block are.
        dropped: rule -> number of what the reader left out on purpose since the block before (rows, packets or flows:
            the name of the rule says which, as in "packets without payload"). It may come with a block of no flows.
        source: "real", or "simulated" where the file itself says so.
    """

    packets: Ragged
    label: pl.Series
    facts: pl.DataFrame
    size_layer: str
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    source: str = "real"

    def __len__(self) -> int:
        """Number of flows."""
        return self.packets.counts.size


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What every reader is asked for.

    Attributes:
        length: packets of a flow to keep, from its start.
        payload_only: leave out packets without payload (pure acknowledgements) before counting and cutting; the time
            between the packets that stay is kept right.
        size_layer: "ip" or "payload" where the format knows both, None for what it has or prefers; a reader that cannot
            give what is asked for raises ConfigError.
    """

    length: int = 30
    payload_only: bool = False
    size_layer: str | None = None


def make_block(
    packets: Ragged,
    label: pl.Series,
    facts: dict[str, object],
    options: ReadOptions,
    path: str | Path,
    fields: Fields,
    *,
    size_layer: str,
    first_row: int = 1,
    iat_per_second: float = 1.0,
    dropped: dict[str, int] | None = None,
    source: str = "real",
) -> FlowBlock:
    """Judges raw flows and brings them into the form of a block: how every reader ends.

    In this order: values are checked, times become seconds, the first IAT of a flow becomes 0, packets without payload
    are left out where `options` say so, the fact "packets" is counted where the reader does not state it, flows are
    cut.

    Args:
        packets: raw values, iat in the unit of the format, whole flows.
        label: [flow] strings without nulls.
        facts: name in `FACTS` -> [flow] values (an array, a list, a series), or one value for all flows.
        options: of the reading.
        path: file, for messages.
        fields: names of the columns, for messages.
        size_layer: "ip" or "payload": what the sizes are.
        first_row: 1-based number of the first flow of the block in its file.
        iat_per_second: units of `packets.iat` in a second, 1000 for milliseconds.
        dropped: what the reader left out.
        source: "real", or "simulated" where the file itself says so.

    Raises:
        DataError: a value that no packet can have.
    """
    check_values(packets, path, fields, first_row=first_row)
    check_times(packets, path, fields, first_row=first_row, iat_per_second=iat_per_second)
    dropped = dict(dropped or {})
    iat = packets.iat.astype(np.float64) / iat_per_second
    first = starts_of(packets.counts)[packets.counts > 0]
    iat[first] = 0.0
    packets = Ragged(packets.counts, packets.size.astype(np.int16), packets.direction.astype(np.int8), iat)
    if options.payload_only:
        packets, n_empty = without_empty(packets)
        if n_empty:
            dropped["packets without payload"] = dropped.get("packets without payload", 0) + n_empty
    facts = {"packets": packets.counts} | facts
    frame = facts_frame(facts, packets.counts.size)
    return FlowBlock(
        cut(packets, options.length), label.cast(pl.String).rename("label"), frame, size_layer, dropped, source
    )


def check_times(
    packets: Ragged, path: str | Path, fields: Fields, *, first_row: int = 1, iat_per_second: float = 1.0
) -> None:
    """Raises DataError for the first time that is finite and yet more seconds than a float32 holds."""
    wrong = packets.iat > np.float64(np.finfo(np.float32).max) * iat_per_second
    if wrong.any():
        at = int(np.argmax(wrong))
        row, packet = locate(packets.counts, at)
        problem = f"inter-packet time of packet {packet + 1} is {packets.iat[at]}"
        expected = f"{fields.iat_unit} that a flow can last"
        raise DataError(path, problem, row=first_row + row, field=fields.iat, expected=expected, remedy=REMEDY)


def no_flows(dropped: dict[str, int], size_layer: str) -> FlowBlock:
    """A block of no flows, which says what was left out."""
    packets = Ragged(np.zeros(0, np.int64), np.zeros(0, np.int16), np.zeros(0, np.int8), np.zeros(0))
    facts = facts_frame({"packets": packets.counts}, 0)
    return FlowBlock(packets, pl.Series("label", [], pl.String), facts, size_layer, dropped)


def check_layer(options: ReadOptions, known: tuple[str, ...], title: str) -> str:
    """The size layer to read: what is asked for, else the first that the format knows.

    Raises:
        ConfigError: the format does not know the layer that is asked for.
    """
    if options.size_layer is None:
        return known[0]
    if options.size_layer not in known:
        raise ConfigError(f"{title} has sizes of the layer {' or '.join(known)} only, not {options.size_layer!r}")
    return options.size_layer


def facts_frame(facts: dict[str, object], n: int) -> pl.DataFrame:
    """[flow] frame of facts with the types of `FACTS`; one value stands for all flows, NaN in a float is null."""
    columns = []
    for name, values in facts.items():
        if isinstance(values, str):
            # names of files need not be UTF-8
            values = values.encode("utf-8", "backslashreplace").decode()
        if values is None or isinstance(values, str | int | float | bool | np.generic):
            series = pl.Series(name, [values], dtype=FACTS[name], strict=False).new_from_index(0, n)
        else:
            series = pl.Series(name, values).cast(FACTS[name])
        columns.append(series.fill_nan(None) if FACTS[name] == pl.Float64 else series)
    return pl.DataFrame(columns) if columns else pl.DataFrame({"packets": pl.Series([], dtype=pl.Int64)}).head(0)


def without_empty(packets: Ragged) -> tuple[Ragged, int]:
    """Leaves out packets of size 0, adding their IAT to the next packet that stays; also how many those were.

    The first packet that stays gets IAT 0. Only for sizes of the payload layer, where 0 means a pure acknowledgement.
    """
    keep = packets.size > 0
    n_empty = int(keep.size - np.count_nonzero(keep))
    if not n_empty:
        return packets, 0
    kept = np.flatnonzero(keep)
    flow = np.repeat(np.arange(packets.counts.size), packets.counts)[kept]
    iat = packets.iat[:0]
    if kept.size:
        # sums of what lies between two packets that stay: no flow's times touch those of another
        iat = np.add.reduceat(packets.iat[: kept[-1] + 1], np.concatenate([[0], kept[:-1] + 1]))
        iat[np.diff(flow, prepend=-1) != 0] = 0.0
    counts = np.bincount(flow, minlength=packets.counts.size).astype(np.int64)
    return Ragged(counts, packets.size[kept], packets.direction[kept], iat), n_empty


def cut(packets: Ragged, length: int) -> Ragged:
    """The first `length` packets of each flow."""
    if not (packets.counts > length).any():
        return packets
    position = np.arange(packets.size.size) - np.repeat(starts_of(packets.counts), packets.counts)
    keep = position < length
    return Ragged(np.minimum(packets.counts, length), packets.size[keep], packets.direction[keep], packets.iat[keep])


def clip_sizes(size: np.ndarray) -> tuple[np.ndarray, int]:
    """Sizes above what a packet series holds (segmentation offload on the capturing host) set to it; also how many."""
    over = size > MAX_SIZE
    return np.where(over, MAX_SIZE, size), int(np.count_nonzero(over))
