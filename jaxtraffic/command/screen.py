"""What the commands print: rich tables or JSON on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from jaxtraffic.datasets import Dropped


def show(content: Any, shown: Iterable[Any], *, as_json: bool) -> None:
    """Prints `content` as JSON, or else what is to be shown to people: rich tables and lines of text."""
    if as_json:
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for part in shown:
        console.print(part, highlight=False, **({"markup": False, "soft_wrap": True} if isinstance(part, str) else {}))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[str] = ()) -> Table:
    """A table of text; the columns named in `numbers` are aligned right, whole numbers get thousands separators."""
    grid = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        # a name is there to be copied: it stays in one piece
        right = "right" if column in numbers else "left"
        grid.add_column(column, justify=right, overflow="fold", no_wrap=column == "name")
    for row in rows:
        grid.add_row(*(_cell(value) for value in row))
    return grid


def _cell(value: Any) -> Text:
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, Text):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Text(f"{value:,}")
    return Text(str(value))


def progress() -> Progress:
    """A bar over sources, weighted by their bytes, with the time left; on standard error if that is a terminal."""
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[done]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def dropped_lines(dropped: Sequence[Dropped]) -> list[str]:
    """One line for each rule that dropped something, and for what the reader left out."""
    return [
        f"dropped by {entry.rule}: {entry.flows:,} flows, {entry.classes} classes ({entry.detail})"
        if entry.flows or entry.classes
        else f"left out: {entry.detail}"
        for entry in dropped
        if entry.flows or entry.classes or entry.detail[:1].isdigit()
    ]
