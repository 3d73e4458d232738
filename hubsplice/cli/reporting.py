"""A fidelity report on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubsplice.fidelity.report import FidelityReport


def print_report(report: FidelityReport) -> None:
    """Print a report as tables on stdout."""
    from rich.console import Console

    from hubsplice.fidelity.table import render_report

    Console().print(render_report(report))
