"""Tables. A narrow terminal drops columns; if the output is no terminal, each row is one full line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Column:
    """A column. from_width: narrower terminals omit it. is_key: identifies the row in commands."""

    title: str
    from_width: int = 0
    max_width: int | None = None
    folds: bool = False
    is_key: bool = False


def print_table(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print rows, whose cells are in the order of all columns."""
    width = console.width
    shown = [number for number, column in enumerate(columns) if column.from_width <= width]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number in shown:
        column = columns[number]
        longest = max((len(row[number]) for row in rows), default=0)
        table.add_column(
            column.title,
            overflow="fold" if column.folds or column.is_key else "ellipsis",
            no_wrap=not column.folds,
            max_width=column.max_width if console.is_terminal else None,
            min_width=min(max(longest, len(column.title)), width) if column.is_key else None,
        )
    for row in rows:
        table.add_row(*(row[number] for number in shown))
    console.print(table)
