"""Content in a notebook, as HTML; all text is escaped, and no colour needs a light background."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from hubsplice.rendering.content import Code, Line, Part, Table, Tone
from hubsplice.visible import visible

_STYLES = {
    Tone.PLAIN: "",
    Tone.STRONG: "font-weight:bold",
    Tone.GOOD: "font-weight:bold;color:#2e9d4f",
    Tone.BAD: "font-weight:bold;color:#d9534f",
    Tone.CAUTION: "color:#c08000",
    Tone.FAINT: "opacity:0.7",
}


def as_html(content: Iterable[Part]) -> str:
    """The content as one HTML element."""
    return f"<div>{''.join(map(_part, content))}</div>"


def _part(part: Part) -> str:
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Code):
        return f"<pre>{escape(visible(part.text))}</pre>"
    return _line(part)


def _line(line: Line) -> str:
    if not line.text:
        return ""
    return f"<p{_style(_STYLES[line.tone])}>{_text(line.text)}</p>"


def _table(table: Table) -> str:
    caption = f"<caption>{_text(table.title)}</caption>" if table.title else ""
    rows = "".join(_row(table, row, "td") for row in table.rows)
    head = _row(table, table.columns, "th")
    return f"<table>{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>"


def _row(table: Table, cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(_cell(table, i, cell, tag) for i, cell in enumerate(cells))}</tr>"


def _cell(table: Table, index: int, text: str, tag: str) -> str:
    side = "left" if index < table.text_columns else "right"
    return f"<{tag}{_style(f'text-align:{side}')}>{_text(text)}</{tag}>"


def _text(text: str) -> str:
    return escape(visible(text)).replace("\n", "<br>")


def _style(css: str) -> str:
    return f' style="{css}"' if css else ""
