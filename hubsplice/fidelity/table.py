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
    sites = summary.sites(report)
    if sites.rows:
        parts.append(_table(sites))
    parts += [Text(f"not exact: {line}", style="yellow") for line in report.approximations]
    return Group(*parts)


def _table(table: summary.Table) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD)
    for index, name in enumerate(table.columns):
        drawn.add_column(
            name,
            justify="left" if index < table.text_columns else "right",
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn
