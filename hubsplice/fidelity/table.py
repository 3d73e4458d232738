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
        f"{count(report.scored_tokens)} tokens scored of {report.text.dataset}, on {report.device}"
        f"{_chosen(report)}",
        Tone.FAINT,
    )
    yield from _effect(report)
    for place, fit in report.sae_fit.items():
        yield Line(f"after layer {place}: {fit}")
    for amounts in report.amounts:
        yield Line(str(amounts))
    for condition in report.conditions:
        yield Line(str(condition))
    edits = summary.edits(report)
    if edits.rows:
        yield edits
        yield Line()
    curves = summary.curves(report)
    if curves.rows:
        yield curves
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


def _chosen(report: FidelityReport) -> str:
    text = report.text
    if text.drawn_sequences is None or text.drawn_sequences == text.sequences:
        return ""
    searched = (
        f" ({count(text.scanned_tokens)} tokens were searched)" if text.scanned_tokens else ""
    )
    return (
        f"; beside them {count(text.sequences - text.drawn_sequences)} sequences that were chosen "
        f"since edits act there{searched}"
    )


def _effect(report: FidelityReport) -> Iterator[Part]:
    if report.effect is None:
        return
    yield Line(summary.effect_sentence(report.effect))
    warning = summary.effect_warning(report.effect)
    if warning is not None:
        yield Line(f"warning: {warning}", Tone.CAUTION)
