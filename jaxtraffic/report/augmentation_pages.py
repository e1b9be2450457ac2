"""One page and one gallery of what augmentations do to a flow."""

from __future__ import annotations

import base64
import dataclasses
import importlib.resources
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from rich.table import Table

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.augmentation_figures import DrawnFlow, ShownAugmentation, draw_draws, draw_gallery
from jaxtraffic.report.page import fact_text
from jaxtraffic.report.write import write_atomically

__all__ = [
    "TRAITS",
    "DrawnFlow",
    "ShownAugmentation",
    "augmentation_table",
    "document",
    "share_text",
    "write_augmentations",
]

TRAITS = {
    "needs_stats": "takes the standard deviations of the flow's class, of features scaled to [0, 1]",
    "needs_seconds": "takes inter-arrival times in seconds, before normalisation",
    "has_magnitude": "alpha changes how strong it is",
    "identity_at_zero": "alpha = 0 returns the flow as it is",
}
"""Flags of the registry that the page explains."""


@dataclasses.dataclass(frozen=True)
class Documentation:
    """A docstring of an operation in its parts.

    Attributes:
        summary: first line.
        definition: paragraphs that follow it.
        sections: text by heading (Shapes, Units, Source).
        options: text by name of the option.
    """

    summary: str
    definition: tuple[str, ...]
    sections: Mapping[str, str]
    options: Mapping[str, str]


def document(docstring: str) -> Documentation:
    """Takes the docstring of an operation apart: summary, definition, headed lines, options."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    summary = lines[0] if lines else ""
    parts: dict[str, list[str]] = {"": []}
    heading = ""
    for line in lines[1:]:
        found = re.match(r"([A-Z][a-z]+):(?: |$)", line)
        if found:
            heading = found[1]
            line = line[found.end() :]
            parts[heading] = []
        parts[heading].append(line)
    options: dict[str, str] = {}
    for line in inspect.cleandoc("\n".join(parts.pop("Options", []))).splitlines():
        found = re.match(r"(\w+(?:, \w+)*): ", line)
        if found:
            options[found[1]] = line[found.end() :]
        elif options:
            options[next(reversed(options))] += f" {line.strip()}"
    paragraphs = [" ".join(text.split()) for text in "\n".join(parts.pop("")).split("\n\n")]
    sections = {name: " ".join(" ".join(text).split()) for name, text in parts.items()}
    return Documentation(summary, tuple(filter(None, paragraphs)), sections, options)


def write_augmentations(
    folder: str | Path,
    shown: Sequence[ShownAugmentation],
    *,
    data_name: str,
    source: str,
    notice: str = "",
    facts: Mapping[str, Any],
    gallery_lines: Sequence[str],
    notes: Sequence[str] = (),
    command: str | None = None,
) -> tuple[Path, Path]:
    """Draws gallery.png and writes augmentations.html, which holds every picture itself; old ones are replaced.

    Args:
        folder: made where it is not there.
        shown: the augmentations, those of a family side by side.
        data_name: name of the data set.
        source: "real" or "simulated".
        notice: what to say of a simulated set.
        facts: title -> value, shown in a table: the flow, its class, magnitude, seed.
        gallery_lines: up to two lines below the gallery's heading.
        notes: paragraphs on how to read the pictures.
        command: command line that made the page.

    Returns:
        Paths of the gallery and the page.

    Raises:
        ConfigError: nothing to show, another source, or a folder that cannot be written.
    """
    if source not in ("real", "simulated"):
        raise ConfigError(f'source must be "real" or "simulated", got {source!r}')
    if not shown or not all(one.after for one in shown):
        raise ConfigError("a page of augmentations needs at least one of them, and a draw of each")
    heading = f"Augmentations of one flow of {data_name} ({source} data)"
    gallery = draw_gallery(shown, heading, gallery_lines)
    page = _render(
        shown,
        title=f"Augmentations of one flow of {data_name}",
        data_name=data_name,
        simulated=source == "simulated",
        notice=notice,
        facts=facts,
        notes=notes,
        command=command,
    )
    folder = Path(folder)
    paths = folder / "gallery.png", folder / "augmentations.html"
    try:
        write_atomically(paths[0], gallery)
        write_atomically(paths[1], page.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror or error}; choose another") from error
    return paths


def augmentation_table(shown: Sequence[ShownAugmentation]) -> Table:
    """A rich table of the shares of flows that each augmentation changes, with its traits."""
    table = Table(title="Share of flows that each augmentation changes", title_justify="left")
    for column in ("augmentation", "family"):
        table.add_column(column, no_wrap=True)
    for words in shown[0].changed:
        table.add_column(words, justify="right", no_wrap=True)
    table.add_column("this flow", justify="right", no_wrap=True)
    table.add_column("traits")
    family = shown[0].family
    for one in shown:
        if one.family != family:
            table.add_section()
            family = one.family
        traits = ", ".join(trait for trait, value in one.traits.items() if value)
        shares = [share_text(share) for share in one.changed.values()]
        table.add_row(one.name, one.family, *shares, f"{one.drawn[1]}/{one.drawn[0]} draws", traits)
    return table


def _render(shown: Sequence[ShownAugmentation], **values: Any) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["fact"] = fact_text
    environment.filters["share"] = share_text
    environment.filters["code"] = _code
    template = importlib.resources.files(__package__).joinpath("augmentations.html.j2").read_text(encoding="utf-8")
    entries = [
        {
            "shown": one,
            "documentation": document(one.documentation),
            "picture": base64.b64encode(picture).decode("ascii"),
            "columns": len(one.after),
        }
        for one, picture in zip(shown, draw_draws(shown))
    ]
    families = {family: [e for e in entries if e["shown"].family == family] for family in _families(shown)}
    return environment.from_string(template).render(
        families=families, traits=TRAITS, magnitudes=list(shown[0].changed), **values
    )


def share_text(share: float) -> str:
    """A share as a percentage; only none and all are 0 % and 100 %."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.1f} %"


def _code(text: str) -> Markup:
    """Escaped text with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _families(shown: Sequence[ShownAugmentation]) -> list[str]:
    return list(dict.fromkeys(one.family for one in shown))
