"""The table of judgements for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from jaxtraffic.report.judgements import columns_of, rows_of


def judgement_table(judgements: Mapping[str, Any], *, name: str = "generated", title: str = "Judgements") -> Table:
    """A rich table of the judgements beside their references: real columns dim, the best generated set bold.

    Args:
        judgements: flat keys, as `evaluate.judge` gives them or report.json holds them.
        name: name of the generator, heading of its column.
        title: title of the table.
    """
    columns = columns_of(judgements, name)
    table = Table(title=Text(title), title_justify="left", show_lines=False)
    table.add_column("metric", overflow="fold")
    table.add_column("good", style="dim", no_wrap=True)
    for column in columns:
        table.add_column(Text(column.title), justify="right", no_wrap=False, style="dim" if column.real else "")
    table.add_column("n", justify="right", style="dim")
    for row in rows_of(judgements, columns):
        cells = [
            Text(cell.text + (f" \N{PLUS-MINUS SIGN}{cell.stderr}" if cell.stderr else ""), "bold" if cell.best else "")
            for cell in row.cells
        ]
        table.add_row(row.metric.title, row.metric.goal_text, *cells, "" if row.n is None else f"{row.n:,}")
    return table
