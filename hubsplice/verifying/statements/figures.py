"""What follows from the figures of fidelity.json, worked out again; the figures stay a claim."""

from __future__ import annotations

from collections.abc import Iterator

from hubsplice import __version__
from hubsplice.fidelity.report import FidelityReport, ResponseCurve
from hubsplice.fidelity.verdict import judged, verdict
from hubsplice.intervention.edits import edits_of
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.site import Term
from hubsplice.recipe.models import Recipe
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.statements.ledger import as_json

_ROUNDED = 2e-3
"""Curves are stored with four digits, and φ was evaluated before p was rounded."""


def figure_problems(
    report: FidelityReport, claim: Claim, recipe: Recipe, intervention: Intervention
) -> list[str]:
    """Where a report contradicts itself, the recipe, the manifest or the exact edit.

    Args:
        report: the measurements.
        claim: the manifest.
        recipe: as it travels with the model.
        intervention: the exact edit.
    """
    problems = [*_verdict_problems(report, claim)]
    dataset, length = recipe.fidelity.dataset, recipe.fidelity.sequence_length
    for field, found, expected in (
        ("text.seed", report.text.seed, recipe.seed),
        ("text.dataset", report.text.dataset, dataset),
        ("text.sequence_length", report.text.sequence_length, length),
    ):
        if found != expected:
            problems.append(f"{field}: found {as_json(found)}, expected {as_json(expected)}")
    if report.amounts != claim.manifest.amounts:
        problems.append("amounts: not what the manifest says of it")
    if report.conditions != claim.manifest.conditions:
        problems.append("conditions: not what the manifest says of them")
    problems += _edit_problems(report, intervention)
    for number, curve in enumerate(report.curves):
        if (problem := _curve_problem(curve, intervention)) is not None:
            problems.append(f"curves[{number}]: {problem}")
    return problems


def _verdict_problems(report: FidelityReport, claim: Claim) -> Iterator[str]:
    dtype = claim.manifest.dtype
    names = [precision.dtype for precision in report.precisions]
    expected = list(dict.fromkeys((dtype, "float32")))
    if names != expected:
        yield f"precisions: found {names}, expected {expected}"
        return
    if claim.manifest.hubsplice != __version__:
        # Another version may judge otherwise, or say it in other words.
        return
    for number, precision in enumerate(report.precisions):
        for found, made in zip(precision.edits, judged(precision, dtype).edits, strict=True):
            if (found.outcome, found.reason) != (made.outcome, made.reason):
                yield (
                    f"precisions[{number}]: {found.label}: found {found.outcome}, and its figures "
                    f"say {made.outcome}: {made.reason}"
                )
    sentence, outcome, passed = verdict(report.precisions[0], report.required_ratio)
    for field, told, follows in (
        ("verdict", report.verdict, sentence),
        ("outcome", report.outcome, outcome),
        ("passed", report.passed, passed),
    ):
        if told != follows:
            yield f"{field}: found {as_json(told)}, expected {as_json(follows)} by its figures"


def _edit_problems(report: FidelityReport, intervention: Intervention) -> Iterator[str]:
    made = [(label, site.place) for site in intervention.sites for label, _ in edits_of(site)]
    for number, precision in enumerate(report.precisions):
        found = [(edit.label, edit.place) for edit in precision.edits]
        if found != made:
            yield f"precisions[{number}].edits: not the edits of the intervention"


def _curve_problem(curve: ResponseCurve, intervention: Intervention) -> str | None:
    terms = [
        term
        for site in intervention.sites
        for term in site.terms
        if (term.label, site.place.layer, site.place.block)
        == (curve.label, curve.layer, curve.block)
    ]
    if not terms:
        return f"the intervention has no edit {curve.label!r} there"
    if len(curve.p) != len(curve.exact) or not any(_is_of(curve, term) for term in terms):
        return f"what it calls exact is not {curve.label!r} as the intervention has it"
    return None


def _is_of(curve: ResponseCurve, term: Term) -> bool:
    size = max(map(abs, curve.exact), default=0.0)
    reach = max(map(abs, curve.p), default=0.0)
    return all(
        any(
            abs(term.function(p + shift) - exact) <= _ROUNDED * size
            # At a jump, rounding p may have carried it to the other side.
            for shift in (0.0, -_ROUNDED * reach, _ROUNDED * reach)
        )
        for p, exact in zip(curve.p, curve.exact, strict=True)
    )
