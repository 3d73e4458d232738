"""A fidelity report on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from hubsplice.fidelity import summary
from hubsplice.fidelity.format import count
from hubsplice.fidelity.report import FidelityReport


def render_report(report: FidelityReport) -> RenderableType:
    """The verdict, then tables per precision and per edited layer; labels are never markup."""
    colour = {True: "bold green", False: "bold red", None: "bold"}[report.passed]
    parts: list[RenderableType] = [
        Text(report.verdict, style=colour),
        Text(
            f"{count(report.scored_tokens)} tokens scored of {report.text.dataset}, "
            f"on {report.device}",
            style="dim",
        ),
        _table(summary.agreement(report)),
        _table(summary.divergences(report)),
    ]
    greedy = summary.greedy_match(report)
    if greedy is not None:
        parts.append(Text(f"{summary.GREEDY_MATCH}: {greedy}"))
    for table in (summary.sites(report), summary.sinks(report)):
        if table.rows:
            parts += [Text(), _table(table)]
    parts += [Text(f"not exact: {line}", style="yellow") for line in report.approximations]
    return Group(*parts)


def _table(table: summary.Table) -> RichTable:
    drawn = RichTable(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=table.title or None,
        title_justify="left",
    )
    for index, (name, *cells) in enumerate(zip(table.columns, *table.rows, strict=True)):
        drawn.add_column(
            name,
            justify="left" if index < table.text_columns else "right",
            # On a narrow terminal lines are broken between words, and numbers never.
            min_width=max(len(word) for cell in (name, *cells) for word in cell.split()),
        )
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn
