"""Text from recipes and files made inert: it can add no structure to a card's Markdown.

Everything that a card shows is escaped unless it is `Markdown`, which only this package makes.
"""

from __future__ import annotations

import re

from hubsplice.fidelity.format import MISSING
from hubsplice.rendering.content import Table
from hubsplice.visible import HIDDEN, visible


class Markdown(str):
    """Markdown that is meant as such; every other text is escaped."""

    __slots__ = ()


# A renderer may look for addresses and formulas in finished text, where escapes are gone.
_FOUND_IN_TEXT = re.compile(
    r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)(?=\S)|(?<=\\)(?=[()\[\]])|(?<=\$)(?=\$)", re.IGNORECASE
)
_WORD_JOINER = "\u2060"
_ESCAPES = str.maketrans(
    {
        # Not as two backslashes, which begin a formula on the Hub.
        "\\": "&#92;",
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        **{mark: f"\\{mark}" for mark in "`*_[]#|~"},
    }
)
_LIST_NUMBER = re.compile(r"^(\d+)([.)])(?=\s|$)")
_TABLE_PADDING = 72


def clean(text: str) -> str:
    """The text in one line, without control characters and what can't be seen."""
    kept = HIDDEN.sub(lambda found: " " if found[0].isspace() else "", text)
    return " ".join(kept.split())


def inline(text: str) -> Markdown:
    """The text as words in a paragraph, a heading or a table's cell; a dash where it is blank.

    Of an address or a formula only the letters remain: what would start it is broken by an
    invisible character.
    """
    if not clean(text):
        return Markdown(MISSING)
    escaped = _FOUND_IN_TEXT.sub(_WORD_JOINER, clean(text)).translate(_ESCAPES)
    if escaped.startswith(("-", "+", "=", ":")):
        escaped = f"\\{escaped}"
    return Markdown(_LIST_NUMBER.sub(r"\1\\\2", escaped))


def code(text: str) -> Markdown:
    """The text as a code span, or as words where it holds what could end one."""
    text = clean(text)
    if not text or set("`|") & set(text):
        return inline(text)
    return Markdown(f"`{text}`")


def words(text: str) -> Markdown:
    """Text of several lines as words in a table's cell; a break where a line ends."""
    lines = [inline(line) for line in text.splitlines() if clean(line)]
    return Markdown("<br>".join(lines)) if lines else Markdown(MISSING)


def fenced(text: str, language: str) -> Markdown:
    """The text as a block of code, whatever backticks it holds."""
    text = visible(text).rstrip("\n")
    fence = "`" * (1 + max(2, *(len(run) for run in re.findall(r"`+", text)), 0))
    return Markdown(f"{fence}{language}\n{text}\n{fence}")


def table(content: Table) -> Markdown:
    """The table in Markdown, aligned so that its source can be read too.

    Args:
        content: cells that are `Markdown` stay as they are.
    """
    heads = [as_markdown(name) for name in content.columns]
    rows = [[as_markdown(cell) for cell in row] for row in content.rows]
    lines = [heads, *rows]
    widths = [
        min(max(3, *(len(cells[index]) for cells in lines)), _TABLE_PADDING)
        for index in range(len(heads))
    ]

    def line(cells: list[Markdown]) -> str:
        padded = (
            cell.ljust(width) if index < content.text_columns else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        Markdown("-" * width if index < content.text_columns else "-" * (width - 1) + ":")
        for index, width in enumerate(widths)
    ]
    return Markdown("\n".join(map(line, (heads, rule, *rows))))


def as_markdown(value: object) -> Markdown:
    """What a template shows of a value: itself where it is `Markdown`, escaped otherwise."""
    return value if isinstance(value, Markdown) else inline(str(value))
