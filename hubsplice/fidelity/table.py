"""What a fidelity report shows of itself."""

from __future__ import annotations

from collections.abc import Iterator

from hubsplice.fidelity import summary
from hubsplice.fidelity.format import count
from hubsplice.fidelity.report import FidelityReport
from hubsplice.rendering.content import Line, Part, Tone


def report_content(report: FidelityReport) -> Iterator[Part]:
    """The verdict, then tables per precision and per edited layer."""
    yield Line(report.verdict, Tone.of(report.passed))
    yield Line(
        f"{count(report.scored_tokens)} tokens scored of {report.text.dataset}, on {report.device}",
        Tone.FAINT,
    )
    for place, fit in report.sae_fit.items():
        yield Line(f"after layer {place}: {fit}")
    for amounts in report.amounts:
        yield Line(str(amounts))
    edits = summary.edits(report)
    if edits.rows:
        yield edits
        yield Line()
    yield summary.agreement(report)
    yield summary.divergences(report)
    greedy = summary.greedy_match(report)
    if greedy is not None:
        yield Line(f"{summary.GREEDY_MATCH}: {greedy}")
    for table in (summary.sites(report), summary.sinks(report)):
        if table.rows:
            yield Line()
            yield table
    for warning in report.warnings:
        yield Line(f"warning: {warning}", Tone.CAUTION)
    for line in report.approximations:
        yield Line(f"not exact: {line}", Tone.CAUTION)
