"""The table of judgements for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from jaxtraffic.report.judgements import Row, columns_of, headline_rows, sections_of


def judgement_table(
    judgements: Mapping[str, Any], *, name: str = "generated", title: str = "Judgements", full: bool = False
) -> Table:
    """A rich table of the judgements beside their references: real columns dim, the best generated set bold.

    Args:
        judgements: flat keys, as `evaluate.judge` gives them or report.json holds them.
        name: name of the generator, heading of its column.
        title: title of the table.
        full: every row, under the headings of their groups; otherwise the few that are read first.
    """
    columns = columns_of(judgements, name)
    table = Table(title=Text(title), title_justify="left", show_lines=False)
    table.add_column("metric", overflow="fold", min_width=22)
    table.add_column("good", style="dim", no_wrap=True)
    for column in columns:
        table.add_column(Text(column.title), justify="right", no_wrap=False, style="dim" if column.real else "")
    table.add_column("n", justify="right", style="dim")
    if not full:
        for row in headline_rows(judgements, columns):
            table.add_row(*_texts(row, row.metric.title))
        return table
    for section in sections_of(judgements, columns):
        table.add_section()
        table.add_row(Text(section.group.title, "bold underline"))
        for row in section.rows:
            table.add_row(*_texts(row, f"  {row.metric.short}" if row.below else row.metric.title))
    return table


def _texts(row: Row, title: str) -> list[str | Text]:
    if not row.cells:
        return [title]
    cells = [
        Text(cell.text + (f" \N{PLUS-MINUS SIGN}{cell.stderr}" if cell.stderr else ""), "bold" if cell.best else "")
        for cell in row.cells
    ]
    return [title, row.metric.goal_text, *cells, "" if row.n is None else f"{row.n:,}"]
