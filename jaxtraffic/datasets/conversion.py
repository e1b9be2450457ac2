"""Raw sets into folders of plain parquet shards, in parallel, and resumable after any kill.

A converted folder holds

    settings.json           what is converted and how; written first
    shards/NAME-NNN.parquet flows of one source, in our columns (interchange.py) and with the facts (flow_block.py)
    sources/NUMBER.json     one record for each source that is done: its fingerprint, its shards, its counts
    manifest.json           all records; written last, so that a folder without it is not complete

No flow is dropped here but what `ReadOptions` leaves out; rules of curation are applied when the folder is loaded, so
that one conversion serves every curation. Any engine reads the shards: they are plain parquet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from jaxtraffic.datasets.dataset import Dataset
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions
from jaxtraffic.datasets.interchange import read_labelled, write_parquet
from jaxtraffic.datasets.labelled import LabelledFlows, from_blocks, merge
from jaxtraffic.datasets.reading import DAMAGED, bound_options, each
from jaxtraffic.datasets.roots import replacing
from jaxtraffic.errors import ConfigError, DataError

FORMAT = 1
"""Version of the layout of a converted folder."""

SHARD_FLOWS = 500_000
"""Flows of a shard at most: what a conversion holds in memory."""

MANIFEST = "manifest.json"

_RESUME = "run the same conversion again: it goes on where it stopped"


@dataclasses.dataclass(frozen=True)
class Converted:
    """What was done with a source.

    Attributes:
        source: its path below the place that was converted.
        fingerprint: of the names, sizes and times of change of its files.
        shards: names of its shards.
        flows: flows in them.
        left_out: what the reader left out.
        fresh: False where an earlier run had done it.
    """

    source: str
    fingerprint: str
    shards: tuple[str, ...]
    flows: int
    left_out: dict[str, int]
    fresh: bool = True


@dataclasses.dataclass(frozen=True)
class _Job:
    """What a converting process needs besides the source."""

    place: Path
    out: Path
    options: ReadOptions
    simulated: bool
    shard_flows: int


def convert(
    dataset: Dataset,
    place: Path,
    out: Path,
    *,
    options: ReadOptions,
    simulated: bool = False,
    sources: Sequence[Path] | None = None,
    workers: int | None = None,
    shard_flows: int = SHARD_FLOWS,
    report: Callable[[Converted], None] | None = None,
) -> list[Converted]:
    """Converts every source of a set into shards under `out`.

    Sources that an earlier run has done, and that have not changed since, are passed over. One conversion at a time may
    write to a folder.

    Args:
        dataset: entry of the catalogue.
        place: folder or file to look in.
        out: folder of the result.
        options: packets to keep.
        simulated: whether the files are simulated, which the shards then say.
        sources: what to convert, in order; None: all that `dataset.find` finds in `place`.
        workers: processes; None: one for each core.
        shard_flows: flows of a shard at most.
        report: called after each source, in order.

    Returns:
        One record for each source.

    Raises:
        ConfigError: `out` holds a conversion with other settings.
        DataError: nothing to convert, a source that cannot be read, or a folder that cannot be written.
    """
    sources = dataset.find(place) if sources is None else list(sources)
    if not sources:
        raise DataError(place, f"no files of {dataset.title}", remedy=dataset.obtain)
    settings = {
        "format": FORMAT,
        "dataset": dataset.name,
        "simulated": simulated,
        **dataclasses.asdict(options),
        **_reader_settings(dataset),
    }
    try:
        _open(out, settings)
        job = _Job(place, out, options, simulated, shard_flows)
        records = []
        for record in each(_convert_source, dataset, sources, job, workers=workers):
            records.append(record)
            if report is not None:
                report(record)
        _remove_others(out, records)
        content = {**settings, "flows": sum(record.flows for record in records)}
        content["sources"] = [_as_json(record) for record in records]
        _write_json(out / MANIFEST, content)
    except OSError as error:
        raise DataError(
            out, f"cannot be written: {error.strerror or error}", remedy="choose another folder; " + _RESUME
        ) from error
    return records


def is_converted(place: Path) -> bool:
    """Whether a folder was made by `convert`, complete or not."""
    return (place / "settings.json").is_file()


def converted_sources(place: Path, name: str | None = None) -> tuple[dict[str, Any], list[Path]]:
    """Settings and shards of a complete converted folder.

    Args:
        place: the folder.
        name: the set that is wanted; None: any.

    Raises:
        DataError: a folder that is not complete, of another set, or whose shards are missing.
    """
    manifest = _read_json(place / MANIFEST)
    if manifest is None:
        raise DataError(place, "the conversion is not complete", expected=MANIFEST, remedy=_RESUME)
    if name is not None and manifest.get("dataset") != name:
        raise DataError(place, f"holds {manifest.get('dataset')}", expected=name, remedy="name that set")
    if not _is_manifest(manifest):
        raise DataError(place / MANIFEST, "not the JSON that conversion writes", remedy=_RESUME)
    shards = [place / "shards" / shard for entry in manifest["sources"] for shard in entry["shards"]]
    for shard in shards:
        if shard.parent != place / "shards" or not _is_there(shard):
            raise DataError(shard, "shard of the manifest is missing", remedy=_RESUME)
    return manifest, shards


def _is_manifest(content: dict[str, Any]) -> bool:
    sources = content.get("sources")
    if not isinstance(content.get("payload_only"), bool) or not isinstance(sources, list):
        return False
    for entry in sources:
        shards, counts = (entry.get(name) for name in ("shards", "left_out")) if isinstance(entry, dict) else (0, 0)
        if not isinstance(shards, list) or not all(isinstance(shard, str) for shard in shards):
            return False
        if not isinstance(counts, dict) or not all(type(count) is int for count in counts.values()):
            return False
    return True


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # a name that no file can have
        return False


def read_converted(place: Path, name: str | None = None) -> LabelledFlows:
    """Reads a complete converted folder, shards in order."""
    manifest, shards = converted_sources(place, name)
    if not shards:
        raise DataError(place, "no flows: every source was empty")
    table = merge([read_labelled(shard, allow_empty=True) for shard in shards], place)
    counts: Counter[str] = Counter()
    for entry in manifest["sources"]:
        counts.update(entry.get("left_out", {}))
    return dataclasses.replace(table, left_out=dict(counts))


def _convert_source(dataset: Dataset, source: Path, job: _Job) -> Converted:
    """Converts one source, in whichever process; its record is written after its shards."""
    relative = _relative(source, job.place)
    stem = _stem(relative)
    record_file = job.out / "sources" / _record_name(stem)
    fingerprint = _fingerprint(source)
    for path in dataset.beside(source) if dataset.beside is not None else []:
        fingerprint += _fingerprint(path)
    done = _done(record_file, relative, fingerprint, job.out)
    if done is not None:
        return done
    record_file.unlink(missing_ok=True)
    shards: list[str] = []
    counts: Counter[str] = Counter()
    flows = 0
    for table in _tables(dataset, source, job):
        counts.update(table.left_out)
        if not len(table):
            continue
        shards.append(f"{stem}-{len(shards):03d}.parquet")
        series = table.flows.replace(source="simulated") if job.simulated else table.flows
        write_parquet(series, job.out / "shards" / shards[-1], iat=dataset.has_times, facts=table.facts)
        flows += len(table)
    record = Converted(relative, fingerprint, tuple(shards), flows, dict(counts))
    _write_json(record_file, _as_json(record))
    return record


def _tables(dataset: Dataset, source: Path, job: _Job) -> Iterator[LabelledFlows]:
    """Blocks gathered up to the size of a shard."""

    def gather(blocks: list[FlowBlock]) -> LabelledFlows:
        return from_blocks(blocks, source, name=dataset.name, length=job.options.length)

    held: list[FlowBlock] = []
    for block in dataset.read(source, job.options):
        if held and sum(map(len, held)) + len(block) > job.shard_flows:
            yield gather(held)
            held = []
        held.append(block)
    yield gather(held)


def _open(out: Path, settings: dict[str, Any]) -> None:
    """Makes the folder, or finds one of the same settings; removes what a killed run left half written."""
    settings = json.loads(json.dumps(settings))
    old = _read_json(out / "settings.json")
    if old is not None and old != settings:
        changed = sorted(key for key in {*old, *settings} if old.get(key) != settings.get(key))
        raise ConfigError(f"{out} holds a conversion with other settings ({', '.join(changed)}); choose another folder")
    if old is None and out.is_dir() and any(not _is_half(path) for path in out.iterdir()):
        raise ConfigError(f"{out} holds other files; choose a new folder")
    if old is None:
        # before anything else: a folder without settings is refused
        _write_json(out / "settings.json", settings)
    for folder in ("shards", "sources", "."):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for left in filter(_is_half, (out / folder).iterdir()):
            left.unlink()
    (out / MANIFEST).unlink(missing_ok=True)


def _is_half(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _remove_others(out: Path, records: Sequence[Converted]) -> None:
    """Removes shards and records that no source has any more, so that all shards in the folder are those of the set."""
    shards = {shard for record in records for shard in record.shards}
    names = {_record_name(_stem(record.source)) for record in records}
    for pattern, wanted in (("shards/*.parquet", shards), ("sources/*.json", names)):
        for path in out.glob(pattern):
            if path.name not in wanted:
                path.unlink()


def _reader_settings(dataset: Dataset) -> dict[str, Any]:
    """Options that are bound to the reader, and what is in the files that they name, as JSON."""
    options: dict[str, Any] = {}
    for name, value in sorted(bound_options(dataset.read).items()):
        options[name] = value if isinstance(value, int | float | bool | None) else str(value)
        with contextlib.suppress(OSError, ValueError):
            if isinstance(value, str | Path) and Path(value).is_file():
                options[f"{name} (file)"] = _fingerprint(Path(value))
    return {"reader": options} if options else {}


def _done(record_file: Path, source: str, fingerprint: str, out: Path) -> Converted | None:
    """The record of an earlier run, if it still holds; a source that was left out as damaged is not done."""
    entry = _read_json(record_file)
    try:
        if entry is None or (entry["source"], entry["fingerprint"]) != (source, fingerprint):
            return None
        if DAMAGED in entry["left_out"] or not all((out / "shards" / shard).is_file() for shard in entry["shards"]):
            return None
        shards, flows, left_out = tuple(entry["shards"]), int(entry["flows"]), dict(entry["left_out"])
    except (KeyError, TypeError, ValueError):
        return None
    return Converted(source, fingerprint, shards, flows, left_out, fresh=False)


def _fingerprint(source: Path) -> str:
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    found = hashlib.sha256()
    for path in files:
        # the names count: labels come from them
        stat = path.stat()
        found.update(b"%d %d " % (stat.st_size, stat.st_mtime_ns) + os.fsencode(path.relative_to(source)) + b"\0")
    return found.hexdigest()


def _relative(source: Path, place: Path) -> str:
    """The path below the place; sources from elsewhere, which may share their names, keep their whole path."""
    if source == place:
        return source.name
    return (source.relative_to(place) if source.is_relative_to(place) else source.absolute()).as_posix()


def _stem(relative: str) -> str:
    """A file name that says where a shard comes from and that no other source shares."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", relative).strip("._")[-60:]
    return f"{readable}-{hashlib.sha256(relative.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"


def _record_name(stem: str) -> str:
    """Only the number of a stem: a record with the name of a raw JSON file would be found as one."""
    return f"{stem.rpartition('-')[2]}.json"


def _as_json(record: Converted) -> dict[str, Any]:
    content = dataclasses.asdict(record)
    del content["fresh"]
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def scan_shards(place: Path) -> pl.LazyFrame:
    """The shards of a complete converted folder as one lazy frame, for engines of one's own.

    Raises:
        DataError: see `converted_sources`.
    """
    shards = converted_sources(place)[1]
    if not shards:
        raise DataError(place, "no flows: every source was empty")
    # a fact that some sources know only is a column of their shards only
    columns: dict[str, pl.DataType] = {}
    for shard in shards:
        columns |= pl.scan_parquet(shard, glob=False, hive_partitioning=False).collect_schema()
    return pl.scan_parquet(shards, schema=columns, missing_columns="insert", glob=False, hive_partitioning=False)
