"""Content in a terminal, by rich; no text is ever markup."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from hubsplice.rendering.content import Code, Part, Table, Tone
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

_WIDEST_WORD = 24
"""Of a column of text beside numbers, in characters; longer words are broken."""


def drawn(content: Iterable[Part]) -> RenderableType:
    """What rich prints of it."""
    return Group(*map(_part, content))


def as_text(content: Iterable[Part]) -> str:
    """The same without colours, as wide as the terminal, without an empty end."""
    # Inside a notebook, rich would show it there instead of writing it.
    console = Console(file=io.StringIO(), color_system=None, force_jupyter=False)
    with console.capture() as capture:
        console.print(drawn(content))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip()


def _part(part: Part) -> RenderableType:
    if isinstance(part, Table):
        return _of_text(part) if part.text_columns >= len(part.columns) else _of_numbers(part)
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


def _of_numbers(table: Table) -> RichTable:
    drawn = RichTable(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=_title(table),
        title_justify="left",
    )
    for index, (name, *cells) in enumerate(zip(table.columns, *table.rows, strict=True)):
        is_text = index < table.text_columns
        longest = max((len(word) for cell in (name, *cells) for word in cell.split()), default=0)
        drawn.add_column(
            _cell(name),
            justify="left" if is_text else "right",
            overflow="fold",
            # On a narrow terminal lines are broken between words, and numbers never. A word such as
            # a regular expression may be as long as a line, and would push numbers off it.
            min_width=min(longest, _WIDEST_WORD) if is_text else longest,
        )
    for row in table.rows:
        drawn.add_row(*map(_cell, row))
    return drawn


def _cell(text: str) -> Text:
    cell = Text(visible(text))
    cell.highlight_regex(_MARKED, "bold")
    return cell


def _title(table: Table) -> Text | None:
    return Text(visible(table.title), style="table.title") if table.title else None
