"""From the name of a data set to curated flows."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtraffic.datasets.capture.reader import read_capture
from jaxtraffic.datasets.catalogue import DATASETS, describe, stand_in_notice
from jaxtraffic.datasets.conversion import converted_sources, is_converted, read_converted
from jaxtraffic.datasets.curation import Dropped, check_tier, curate, draw
from jaxtraffic.datasets.dataset import Dataset
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.labelled import LabelledFlows, cut_to, dated, grouped_by_capture, merge
from jaxtraffic.datasets.parquet_set import PARQUET, read_place
from jaxtraffic.datasets.reading import read_sources, skipping_damaged
from jaxtraffic.datasets.roots import data_root as resolve_root
from jaxtraffic.datasets.simulated.marker import is_simulated
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.series import PacketSeries

log = logging.getLogger("jaxtraffic.datasets")

_SIMULATED = "simulated"  # folder of a data root for simulated sets


def load(name: str, **options: Any) -> PacketSeries:
    """Loads a data set, curated: see `load_labelled`, which also gives facts and what was dropped."""
    return load_labelled(name, **options)[0].flows


def load_with_counts(name: str, **options: Any) -> tuple[PacketSeries, list[Dropped]]:
    """Loads a data set, curated, with what was dropped: see `load_labelled`."""
    table, dropped = load_labelled(name, **options)
    return table.flows, dropped


def read_pcap(
    path: str | Path, *, size_layer: str = "ip", length: int = 30, workers: int | None = None, **reader: Any
) -> PacketSeries:
    """Reads the flows of a capture, or of a folder of them, without any curation.

    Args:
        path: pcap or pcapng, plain or gzip; or a folder.
        size_layer: "ip" (IP total length) or "payload" (TCP or UDP payload).
        length: packets of a flow that are kept.
        workers: processes that read; None: one for each core where it pays.
        reader: label, idle_timeout, active_timeout, client_network and so on: see `capture.sets.read_pcap`.

    Returns:
        Flows; classes by popularity.

    Raises:
        ConfigError: an option that does not fit.
        DataError: a capture that cannot be read to its end.
    """
    options = {"size_layer": size_layer, "length": length, "workers": workers, "reader": reader}
    return load("pcap", path=path, curated=False, **options)


def load_labelled(
    name: str,
    *,
    data_root: str | Path | None = None,
    path: str | Path | None = None,
    tier: str = "all",
    max_flows: int | None = None,
    seed: int = 0,
    group: str | None = None,
    real: bool = False,
    curated: bool = True,
    min_packets: int | None = None,
    min_flows: int | None = None,
    days: int | None = None,
    length: int | None = None,
    size_layer: str | None = None,
    workers: int | None = None,
    skip_damaged: bool = False,
    reader: Mapping[str, Any] | None = None,
) -> tuple[LabelledFlows, list[Dropped]]:
    """Loads a data set, curated, with the facts of its flows and what each rule of curation dropped.

    The files are looked for below the data root, or at `path`, which may also be a folder that `convert` made. Where
    "cesnet_quic" is not there and `real` is False, a simulated stand-in is made in the data root and the flows say
    source "simulated". A name that is no data set but that of a parquet file in the data root means that file.

    Args:
        name: a key of `DATASETS`.
        data_root: folder of the data sets; None: $JAXTRAFFIC_DATA, else the user's cache folder.
        path: a file or folder to read in place of the usual ones; needed by formats without a usual place.
        tier: "all", or "50" for the 50 most popular classes.
        max_flows: a stratified draw of so many flows after curation; None: all.
        seed: of that draw (a stand-in is the same for every seed).
        group: "parquet": column whose values say which flows belong together, so that folds keep them on one side.
            Other sets are grouped by capture where they have captures.
        real: refuse simulated files.
        curated: False applies no rule of curation: every flow and packet of the files, but for flows without packets.
        min_packets: packets a flow needs; None: as the data set says.
        min_flows: flows a class needs; None: as the data set says.
        days: sets organised by day: days to read, earliest first; None: as the data set says, or all of a converted
            folder.
        length: packet positions; None: as the data set says, or all that a converted folder holds.
        size_layer: "ip" or "payload", for sets that know both; None: as the data set says.
        workers: processes that read; None: one for each core where it pays.
        skip_damaged: leave out sources that cannot be read, count and log them; False refuses the set.
        reader: further keyword arguments of the reader, such as `idle_timeout` for captures.

    Returns:
        Flows whose classes are ordered by popularity, ties by name, with their facts; and one entry for each rule
        applied, after what the reader left out.

    Raises:
        ConfigError: an unknown name or tier, an option that does not fit, or rules that leave no flow.
        DataError: files that are not there or cannot be read whole and right.
    """
    check_tier(tier)
    for option, value in (
        *(("max_flows", max_flows), ("min_packets", min_packets), ("min_flows", min_flows)),
        *(("days", days), ("length", length)),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{option} must be at least 1, got {value}")
    if not curated and (min_packets, min_flows, tier) != (None, None, "all"):
        raise ConfigError("min_packets, min_flows and tier are rules of curation; leave them out, or curate")
    root = resolve_root(data_root)
    place = None if path is None else Path(path)
    if name not in DATASETS and place is None and (root / f"{name}.parquet").is_file():
        name, place = PARQUET.name, root / f"{name}.parquet"
    dataset = describe(name)
    if dataset.needs_path and place is None:
        raise ConfigError(f"the dataset {name} needs a path: the file or folder to read")
    if days is not None and dataset.days is None:
        raise ConfigError(f"{name} is not organised by day; leave days out")
    if dataset is PARQUET:
        table = read_place(place, group=group, length=length)
        if size_layer not in (None, table.flows.size_layer):
            raise ConfigError(f"{place} has sizes of the layer {table.flows.size_layer}, not {size_layer!r}")
    else:
        if group is not None:
            raise ConfigError(f"{name} has no column to group by; leave group out")
        options = ReadOptions(length or dataset.length, dataset.payload_only and curated, size_layer)
        if reader:
            dataset = dataclasses.replace(dataset, read=functools.partial(dataset.read, **reader))
        if skip_damaged:
            dataset = skipping_damaged(dataset)
        if reader and place is not None and is_converted(place):
            raise ConfigError(f"{place} is converted: options of the reader ({', '.join(reader)}) came before")
        table = _read(dataset, place, root, options, length=length, real=real, days=days, workers=workers)
    table = dated(grouped_by_capture(table) if table.flows.group is None else table)
    if dataset.warn is not None:
        dataset.warn(table.facts)
    dropped = [
        Dropped(rule, n if rule.startswith("flows") else 0, 0, f"{n:,} {rule}") for rule, n in table.left_out.items()
    ]
    if curated:
        least = dataset.min_flows if min_flows is None else min_flows
        shortest = dataset.min_packets if min_packets is None else min_packets
        table, judged = curate(table, rules=dataset.rules, min_packets=shortest, min_flows=least, tier=tier)
    else:
        table, judged = curate(table, min_flows=1)
    dropped += judged
    if max_flows is not None:
        table, drawn = draw(table, max_flows, seed=seed)
        dropped.append(drawn)
    return table, dropped


def reader_options(name: str, *, label: str | None = None, more: Sequence[str] = ()) -> dict[str, Any]:
    """Keyword arguments of the reader of a set out of the words of a command line.

    Args:
        name: a key of `DATASETS`.
        label: where labels come from, for readers that can choose.
        more: such as "idle_timeout=120": a value is JSON where it can be read so, else text.

    Raises:
        ConfigError: an option that the reader does not have.
    """
    known = _reader_parameters(describe(name).read)
    given = {"label": label} if label is not None else {}
    for word in more:
        key, sign, text = word.partition("=")
        if not sign:
            raise ConfigError(f"an option of a reader is NAME=VALUE; got {word!r}")
        try:
            given[key] = json.loads(text)
        except ValueError:
            given[key] = text
    for key in given:
        if key not in known:
            raise ConfigError(f"the reader of {name} has no option {key!r}; it has: {', '.join(known) or 'none'}")
    return given


def _reader_parameters(read: Callable[..., Any]) -> list[str]:
    """Keyword-only arguments of a reader, and those of captures where it passes them on."""
    parameters = inspect.signature(read).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        names += [name for name in _reader_parameters(read_capture) if name not in (*names, "capture", "label")]
    return names


def find_sources(dataset: Dataset, place: Path | None, root: Path, *, real: bool = False) -> tuple[list[Path], bool]:
    """Sources of a set, and whether they are simulated; makes the stand-in of a set that has one.

    Args:
        dataset: entry of the catalogue.
        place: where the user says they are; None: below the data root.
        root: the data root.
        real: refuse simulated files.

    Raises:
        DataError: nothing found, or simulated files where real ones were asked for.
    """
    where = root if place is None else place
    if place is not None and not place.exists():
        raise DataError(place, "no such file or folder", remedy="check the path; " + dataset.obtain)
    found = sources_at(dataset, where)
    if not found and is_converted(where):
        remedy = "give the raw files; to look at this folder: python -m jaxtraffic data head"
        raise DataError(where, "a converted folder", expected=f"raw files of {dataset.title}", remedy=remedy)
    if not found and (place is not None or real or dataset.stand_in is None):
        remedy = dataset.obtain
        if dataset.simulate is not None:
            remedy += f"; or try the set on simulated files: python -m jaxtraffic data simulate {dataset.name}"
        raise DataError(where, f"no files of {dataset.title}", remedy=remedy)
    if not found:
        log.warning("%s", stand_in_notice(dataset.name))
        found = dataset.find(dataset.stand_in(root))
    simulated = [path for path in found if is_simulated(path)]
    if simulated and len(simulated) < len(found):
        raise DataError(
            where,
            f"holds simulated files beside real ones, such as {simulated[0]}",
            expected=f"files of {dataset.title} of one kind",
            remedy="give the path of those that are wanted",
        )
    if simulated and real:
        raise DataError(simulated[0], "simulated, but real data were asked for", remedy=dataset.obtain)
    return found, bool(simulated)


def sources_at(dataset: Dataset, where: Path) -> list[Path]:
    """Sources of a set in a place, without simulated sets that lie in a folder `simulated` below it.

    Raises:
        DataError: a folder that cannot be searched.
    """
    try:
        found = dataset.find(where)
    except OSError as error:
        raise DataError(where, f"cannot be searched: {error.strerror or error}", remedy="check the path") from error

    def apart(path: Path) -> bool:
        return path.is_relative_to(where) and _SIMULATED in path.relative_to(where).parts and is_simulated(path)

    return [path for path in found if not apart(path)]


def _read_converted(
    dataset: Dataset, place: Path, options: ReadOptions, length: int | None, days: int | None
) -> LabelledFlows:
    """A converted folder, if it was made as it is to be read; longer series are cut."""
    settings, _ = converted_sources(place, dataset.name)
    if settings["payload_only"] != options.payload_only:
        done = "without" if settings["payload_only"] else "with"
        raise ConfigError(
            f"{place} was converted {done} packets without payload; convert it again, or load it "
            + ("with curation" if settings["payload_only"] else "without curation")
        )
    table = read_converted(place, dataset.name)
    if options.size_layer not in (None, table.flows.size_layer):
        raise ConfigError(f"{place} has sizes of the layer {table.flows.size_layer}, not {options.size_layer!r}")
    table = cut_to(table, length, place)
    return table if days is None else _days_of(table, days)


def _days_of(table: LabelledFlows, days: int) -> LabelledFlows:
    """Flows of the earliest days."""
    if "day" not in table.facts.columns:
        return table
    day = table.facts["day"]
    return table[day.is_in(day.unique().drop_nulls().sort().head(days).to_list()).fill_null(False).to_numpy()]


def _read(
    dataset: Dataset,
    place: Path | None,
    root: Path,
    options: ReadOptions,
    *,
    length: int | None,
    real: bool,
    days: int | None,
    workers: int | None,
) -> LabelledFlows:
    if place is not None and is_converted(place):
        table = _read_converted(dataset, place, options, length, days)
        if real and table.flows.source == "simulated":
            raise DataError(place, "simulated, but real data were asked for", remedy=dataset.obtain)
        return table
    sources, simulated = find_sources(dataset, place, root, real=real)
    wanted = dataset.days if days is None else days
    parts: list[LabelledFlows] = []
    found: set[int] = set()
    for part in read_sources(dataset, sources, options, days=wanted, workers=1 if wanted == 1 else workers):
        parts.append(part)
        found |= _days_in(part, len(parts))
        if wanted is not None and len(found) >= wanted:
            break
    if wanted is not None and len(found) < wanted:
        log.warning("%d day(s) asked for, %d found and read", wanted, len(found))
    if not any(map(len, parts)):
        remedy = "choose other files, or fetch them again"
        raise DataError(sources[0], "no flows", expected=f"flows of {dataset.title}", remedy=remedy)
    table = merge(parts, sources[0])
    if wanted is not None and len(found) > wanted:
        table = _days_of(table, wanted)
    return dataclasses.replace(table, flows=table.flows.replace(source="simulated")) if simulated else table


def _days_in(part: LabelledFlows, number: int) -> set[int]:
    """Days that a source held; for one that does not say, its number stands for one day (no day is negative)."""
    if not len(part):
        return set()
    return set(part.facts["day"].drop_nulls().unique()) if "day" in part.facts.columns else {-number}
