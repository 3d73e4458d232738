"""What a result says, before it is drawn: lines of text, code, and tables."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Tone(enum.Enum):
    """How a line is meant."""

    PLAIN = "plain"
    STRONG = "strong"
    GOOD = "good"
    BAD = "bad"
    CAUTION = "caution"
    FAINT = "faint"

    @staticmethod
    def of(passed: bool | None) -> Tone:
        """The tone of a verdict; None where nothing was required."""
        return {True: Tone.GOOD, False: Tone.BAD, None: Tone.STRONG}[passed]


@dataclass(frozen=True)
class Line:
    """One paragraph of plain text; an empty one separates what stands around it."""

    text: str = ""
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Code:
    """Text whose line breaks stay as they are, such as a command or YAML."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of plain text.

    Attributes:
        columns: the headings.
        rows: cells, as many in each row as there are columns.
        text_columns: how many columns from the left hold text; the others hold numbers.
        title: what the table is about, where its columns don't say.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    title: str = ""

    @staticmethod
    def of_text(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...], title: str) -> Table:
        """A table in which no column is for numbers alone."""
        return Table(columns, rows, len(columns), title)


Part = Line | Code | Table
