"""Content in a terminal, by rich; no text is ever markup."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich import box
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from hubsplice.rendering.content import Code, Part, Table, Tone
from hubsplice.rendering.fitting import Fitted, fitted
from hubsplice.visible import visible

_STYLES = {
    Tone.PLAIN: "",
    Tone.STRONG: "bold",
    Tone.GOOD: "bold green",
    Tone.BAD: "bold red",
    Tone.CAUTION: "yellow",
    Tone.FAINT: "dim",
}

_MARKED = r"‹[^›]*›|«[^»]*»"
"""Tokens and words that a table marks; where there are no colours the marks are seen alone."""


def drawn(content: Iterable[Part]) -> RenderableType:
    """What rich prints of it."""
    return Group(*map(_part, content))


def as_text(content: Iterable[Part]) -> str:
    """The same without colours, as wide as the terminal, without an empty end."""
    # Inside a notebook, rich would show it there instead of writing it.
    console = Console(file=io.StringIO(), color_system=None, force_jupyter=False)
    with console.capture() as capture:
        console.print(drawn(content), crop=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip()


def _part(part: Part) -> RenderableType:
    if isinstance(part, Table):
        return _of_text(part) if part.text_columns >= len(part.columns) else _OfNumbers(part)
    if isinstance(part, Code):
        return Text(visible(part.text), no_wrap=True, overflow="ignore")
    return Text(visible(part.text), style=_STYLES[part.tone])


def _of_text(table: Table) -> RichTable:
    drawn = RichTable(title=_title(table), box=box.SIMPLE_HEAD, title_justify="left")
    for column in table.columns:
        # A path or a digest that is longer than its column goes on in the next line.
        drawn.add_column(_cell(column), overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(_cell, row))
    return drawn


class _OfNumbers:
    """A table of numbers, drawn once the width is known."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for piece in fitted(_visible(self._table), options.max_width):
            yield _piece(piece)


def _piece(piece: Fitted) -> RichTable:
    table = piece.table
    drawn = RichTable(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=_title(table),
        title_justify="left",
    )
    for index, (name, width) in enumerate(zip(table.columns, piece.widths, strict=True)):
        justify: JustifyMethod = "left" if index < table.text_columns else "right"
        # rich would narrow some columns, and then cut others off, to get at the same width.
        drawn.add_column(_cell(name), justify=justify, overflow="fold", width=width)
    for row in table.rows:
        drawn.add_row(*map(_cell, row))
    return drawn


def _visible(table: Table) -> Table:
    """The table as it will be read; what is spelled out takes more room."""
    rows = tuple(tuple(map(visible, row)) for row in table.rows)
    return Table(tuple(map(visible, table.columns)), rows, table.text_columns, table.title)


def _cell(text: str) -> Text:
    cell = Text(visible(text))
    cell.highlight_regex(_MARKED, "bold")
    return cell


def _title(table: Table) -> Text | None:
    return Text(visible(table.title), style="table.title") if table.title else None
