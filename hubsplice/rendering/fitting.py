"""Tables of numbers as wide as a terminal is: lines are broken, and no column is ever cut off."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from hubsplice.rendering.content import Table

GAP = 2
"""Characters that a column takes beside its text."""

_WIDEST_WORDS = (24, 12, 6, 1)
"""Of a column of text beside numbers, in characters, the first that leaves room for a number;
longer words are broken. A word such as a regular expression may be as long as a line."""

_WORDS = re.compile(r"\S*(?:\[[^\]]*\]|\([^)]*\))\S*|\S+")
"""An interval is one word."""


@dataclass(frozen=True)
class Fitted:
    """A table whose columns stand beside each other in the width.

    Attributes:
        table: the whole table, or some of its columns behind those that say what a row is.
        widths: of each column, in characters.
    """

    table: Table
    widths: tuple[int, ...]


def fitted(table: Table, width: int) -> Iterator[Fitted]:
    """A table in one piece; in several, one below the other, where it has too many columns.

    Args:
        table: the table. Its text is broken between words, and its numbers nowhere, or in front
            of a bracket.
        width: what there is, in characters.
    """
    text = min(max(table.text_columns, 1), len(table.columns))
    columns = list(zip(table.columns, *table.rows, strict=True))
    words = [
        max(_longest(name.split()), *(_longest(_WORDS.findall(cell)) for cell in cells), 0)
        for name, *cells in columns
    ]
    room = width - GAP * (text + 1) - max(words[text:], default=0)
    widest = next((n for n in _WIDEST_WORDS if sum(min(w, n) for w in words[:text]) <= room), 1)
    least = [*(min(w, widest) for w in words[: table.text_columns]), *words[table.text_columns :]]
    for number, block in enumerate(_blocks(least, text, width)):
        part = Table(
            tuple(table.columns[i] for i in block),
            tuple(tuple(row[i] for i in block) for row in table.rows),
            table.text_columns,
            table.title if number == 0 else "",
        )
        widths = _widths(part, [least[i] for i in block], width)
        yield Fitted(_broken(part, widths), widths)


def _blocks(least: Sequence[int], text: int, width: int) -> Iterator[list[int]]:
    """The columns of each piece: the first `text` ones, and as many others as there is room for."""
    first = list(range(text))
    block = list(first)
    for column in range(text, len(least)):
        wanted = [*block, column]
        if len(block) > text and sum(least[i] + GAP for i in wanted) > width:
            yield block
            wanted = [*first, column]
        block = wanted
    yield block


def _widths(table: Table, least: Sequence[int], width: int) -> tuple[int, ...]:
    """What is left over goes to numbers that would be broken, and then to text."""
    widths = list(least)
    left = width - sum(widths) - GAP * len(widths)
    whole = [_longest(column) for column in zip(table.columns, *table.rows, strict=True)]
    for column in range(table.text_columns, len(widths)):
        more = whole[column] - widths[column]
        if 0 < more <= left:
            widths[column] += more
            left -= more
    for column in range(table.text_columns):
        more = max(0, min(whole[column] - widths[column], left))
        widths[column] += more
        left -= more
    return tuple(widths)


def _broken(table: Table, widths: Sequence[int]) -> Table:
    """The table with an interval below its number, where both have no room in a line."""
    rows = tuple(
        tuple(
            re.sub(r" (?=[\[(])", "\n", cell)
            if column >= table.text_columns and cell_len(cell) > width
            else cell
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table.rows
    )
    return Table(table.columns, rows, table.text_columns, table.title)


def _longest(words: Sequence[str]) -> int:
    return max(map(cell_len, words), default=0)
