"""Tables that fit into the terminal: columns are left out by rank, and only the first one is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

#: Width in characters that the first column keeps as long as other columns can be left out.
NAME_WIDTH: Final = 26
#: From this width of the terminal on, columns are two spaces apart.
WIDE: Final = 96

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class TableColumn(Generic[_Row]):
    """A column of a table of ``watchout-ctl``.

    `cell` returns the text of a cell from a row. Where the terminal is too narrow, the columns of the highest `rank`
    are left out first; those of rank 0 always stay. `max_width` is in characters.
    """

    title: str
    cell: Callable[[_Row], str | Text]
    rank: int = 0
    right: bool = True
    max_width: int | None = None


def table(
    what: str, rows: Sequence[_Row], columns: Sequence[TableColumn[_Row]], width: int, limit: int
) -> list[RenderableType]:
    """Lay out a table of `limit` rows at most that fits into `width` characters.

    Columns are left out by rank until the first one has `NAME_WIDTH` characters or no column is dispensable. Only the
    first column is cut: a number that is cut is a wrong number.
    """
    if not rows:
        return [Text(f"no {what}", "bright_black")]
    cells = {column.title: [_cell(column, row) for row in rows[:limit]] for column in columns}
    widths = {
        column.title: min(
            max(map(cell_len, [column.title, *(cell.plain for cell in cells[column.title])])), column.max_width or width
        )
        for column in columns
    }
    gap = 2 if width >= WIDE else 1
    shown, first = list(columns), columns[0]
    while True:
        room = width - sum(widths[column.title] + gap for column in shown[1:])
        dispensable = max(shown[1:], key=lambda column: column.rank, default=first)
        if room >= min(widths[first.title], NAME_WIDTH) or not dispensable.rank:
            break
        shown.remove(dispensable)
    widths[first.title] = max(1, min(widths[first.title], room))
    drawn = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), collapse_padding=True, header_style="bold")
    for column in shown:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        at = widths[column.title]
        drawn.add_column(Text(column.title), justify=justify, no_wrap=True, overflow="ellipsis", width=at)
    for number in range(len(rows[:limit])):
        drawn.add_row(*(cells[column.title][number] for column in shown))
    more = len(rows) - limit
    return [drawn, Text(f"… and {more} more", "bright_black")] if more > 0 else [drawn]


def _cell(column: TableColumn[_Row], row: _Row) -> Text:
    """Make a cell. `rich` never interprets markup in a `Text`."""
    content = column.cell(row)
    return content if isinstance(content, Text) else Text(content)
