"""Labels of captures: from the name of a file or folder, from a template of paths, or from a table beside the captures.

A template is a path with fields in braces, such as `{service}_collection/pcap/{device}/{label}.pcapng`. It is compared
with the end of a path, part by part; a field stands for one or more characters of one part. Nothing in it is a regular
expression, and comparing takes time in proportion to the length of the path.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from jaxtraffic.datasets.capture.tables import LABEL_FACTS, Labelled, label_flows, read_table, unreadable
from jaxtraffic.errors import ConfigError

ENDINGS = (".pcap", ".pcapng", ".cap", ".dmp", ".trace")
"""Endings of captures; each may be followed by .gz."""

TABLES = ("labels.csv", "labels.json")
"""Names under which a table is found beside captures."""

_TABLE_LEVELS = 3  # folders above a capture in which a table is looked for


Labeller = Callable[[Path], Labelled | None]
"""Takes the path of a capture; None where it says nothing of it. All of them here can be pickled."""


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Text with fields: literals[0], fields[0], literals[1], ... literals[-1]; "" is a field without name."""

    literals: tuple[str, ...]
    fields: tuple[str, ...]


def capture_stem(name: str) -> str:
    """Name of a capture without its ending."""
    for endings in ((".gz",), ENDINGS):
        found = [ending for ending in endings if name.lower().endswith(ending) and len(name) > len(ending)]
        name = name[: -len(found[0])] if found else name
    return name


def by_name(path: Path) -> Labelled:
    """The name of the file without ending is the label."""
    return Labelled(capture_stem(path.name), is_class=True)


def by_folder(path: Path) -> Labelled:
    """The name of the folder that the file is in is the label."""
    return Labelled(path.absolute().parent.name or "captures")


def by_template(path: Path, *, template: tuple[Pattern, ...], label: Pattern) -> Labelled | None:
    """The label and facts are composed of what the fields of a template stand for."""
    fields = match_template(template, path)
    if fields is None:
        return None
    return Labelled(composed(label, fields), {name: fields[name] for name in LABEL_FACTS if name in fields})


def by_table(path: Path, *, table: Path) -> Labelled | None:
    """A table says what the label is."""
    stamp = _stamp(table)
    known = _read_cached(table, stamp)
    if isinstance(known, pl.DataFrame):
        return Labelled(functools.partial(label_flows, table=known))
    try:
        below = path.absolute().relative_to(table.absolute().parent).as_posix()
    except ValueError:
        below = path.name
    return known.get(below) or known.get(path.name)


def by_table_or_folder(path: Path) -> Labelled | None:
    """A table beside the capture, or up to three folders above, says what the label is; without one, the folder."""
    tables = tables_beside(path)
    return by_table(path, table=tables[0]) if tables else by_folder(path)


def tables_beside(path: Path) -> list[Path]:
    """The table that says the labels of a capture, beside it or up to three folders above; at most one."""
    for folder in path.absolute().parents[: _TABLE_LEVELS + 1]:
        for name in TABLES:
            if (folder / name).is_file():
                return [folder / name]
    return []


def labeller(spec: str, *, compose: str = "{label}") -> Labeller:
    """The labeller that a word, a template or the path of a table asks for.

    Args:
        spec: "auto" (a table beside the captures, else the folder), "file" (its name), "folder", a template (with
            braces), or the path of a `.csv` or `.json` table.
        compose: how the label is composed of the fields of a template, such as "{service}/{device}".

    Raises:
        ConfigError: none of these, or a template that cannot be used.
        DataError: a table that cannot be read.
    """
    words: dict[str, Labeller] = {"auto": by_table_or_folder, "file": by_name, "folder": by_folder}
    if spec in words:
        return words[spec]
    if "{" in spec:
        template = parse_template(spec)
        wanted = parse_pattern(compose)
        known = {name for part in template for name in part.fields}
        missing = [name for name in wanted.fields if name not in known]
        if missing or not wanted.fields:
            raise ConfigError(
                f"a label composed as {compose!r} must be made of fields of the template {spec!r}, which has "
                f"{', '.join(sorted(known - {''})) or 'none'}"
            )
        return functools.partial(by_template, template=template, label=wanted)
    if spec.lower().endswith((".csv", ".json")):
        _read_cached(Path(spec), _stamp(Path(spec)))
        return functools.partial(by_table, table=Path(spec))
    raise ConfigError(
        f"labels of captures come from {', '.join(words)}, a template such as {{device}}/{{label}}.pcap, or a .csv or "
        f".json table; got {spec!r}"
    )


def parse_pattern(text: str) -> Pattern:
    """Takes text with fields in braces apart.

    Raises:
        ConfigError: braces that do not match, a field whose name is no identifier, the same field twice, or fields
            with nothing between them.
    """
    literals, fields = [], []
    rest = text
    while True:
        literal, brace, rest = rest.partition("{")
        literals.append(literal)
        if "}" in literal:
            raise ConfigError(f"template {text!r} has a closing brace without an opening one")
        if not brace:
            break
        name, brace, rest = rest.partition("}")
        if not brace or (name and not name.isidentifier()):
            raise ConfigError(f"template {text!r} must have names in its braces, as in {{device}}")
        fields.append(name)
    if any(not between for between in literals[1:-1]):
        raise ConfigError(f"template {text!r} has fields with nothing between them: where one ends is not known")
    named = [name for name in fields if name]
    if len(set(named)) != len(named):
        raise ConfigError(f"template {text!r} has the same field twice")
    return Pattern(tuple(literals), tuple(fields))


def parse_template(text: str) -> tuple[Pattern, ...]:
    """Takes a template of paths apart, one pattern for each part.

    Raises:
        ConfigError: as `parse_pattern`, or a part that no path has.
    """
    whole = parse_pattern(text.replace("/", "\n"))  # the same field twice, in different parts
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts) or not whole.fields:
        raise ConfigError(
            f"template {text!r} must be names with fields, separated by single slashes, as in a/{{label}}.pcap"
        )
    return tuple(parse_pattern(part) for part in parts)


def match_template(template: tuple[Pattern, ...], path: Path) -> dict[str, str] | None:
    """What the named fields stand for where the end of the path fits the template, else None."""
    parts = path.absolute().parts[1:]
    if len(parts) < len(template):
        return None
    found: dict[str, str] = {}
    for pattern, part in zip(template, parts[len(parts) - len(template) :], strict=True):
        values = match_pattern(pattern, part)
        if values is None:
            return None
        found.update(values)
    return found


def match_pattern(pattern: Pattern, text: str) -> dict[str, str] | None:
    """What the named fields stand for where the text fits, each but the last as short as can be, else None."""
    first, *between = pattern.literals
    if not pattern.fields:
        return {} if text == first else None
    last = between.pop()
    end = len(text) - len(last)
    if not text.startswith(first) or not text.endswith(last) or end <= len(first):
        return None
    begin, found = len(first), {}
    for name, literal in zip(pattern.fields, [*between, None], strict=True):
        # the shortest that fits leaves the most for what follows: if this does not fit, nothing does
        until = end if literal is None else text.find(literal, begin + 1, end)
        if until <= begin:
            return None
        if name:
            found[name] = text[begin:until]
        begin = until + len(literal or "")
    return found


def composed(pattern: Pattern, fields: Mapping[str, str]) -> str:
    """The text with values in place of its fields."""
    values = [fields[name] for name in pattern.fields]
    return "".join(literal + value for literal, value in zip(pattern.literals, [*values, ""], strict=True))


@functools.lru_cache(maxsize=8)
def _read_cached(table: Path, stamp: tuple[int, int]) -> dict[str, Labelled] | pl.DataFrame:
    return read_table(table)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return state.st_mtime_ns, state.st_size
