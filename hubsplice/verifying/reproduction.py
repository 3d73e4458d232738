"""Whether the recipe, the intervention and the report are those that the manifest speaks of."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hubsplice.building.record import summary
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.saved import INTERVENTION, RECIPE
from hubsplice.intervention.site import Site
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.contents import Contents


def intervention_problems(intervention: Intervention, claim: Claim) -> list[str]:
    """Where an intervention edits otherwise than the manifest says."""
    edits = claim.manifest.edits
    sites = [site.place for site in intervention.sites]
    declared = [edit.place for edit in edits]
    if sites != declared:
        shown = [", ".join(map(str, places)) or "none" for places in (sites, declared)]
        return [f"{INTERVENTION}: it edits after layers {shown[0]}, expected {shown[1]}"]
    problems = []
    for site, edit in zip(intervention.sites, edits, strict=True):
        found, expected = [t.label for t in site.terms], [t.label for t in edit.terms]
        if found != expected:
            problems.append(
                f"{INTERVENTION}: layer {site.place}: it edits {found}, expected {expected}"
            )
        width = claim.architecture.hidden_size
        problems += [
            f"{INTERVENTION}: layer {site.place}: {term.label!r} has {len(term.encoder)} "
            f"dimensions, expected {width}"
            for term in site.terms
            if len(term.encoder) != width
        ]
    return problems


def edits_anything(site: Site) -> bool:
    """Whether a site has a term that is not zero everywhere."""
    return any(
        (any(term.function.slopes) or any(term.function.intercepts)) and bool(term.direction.any())
        for term in site.terms
    )


def recipe_problems(contents: Contents, claim: Claim) -> list[str]:
    """Where reproduce/recipe.yaml asks for other edits than the manifest lists."""
    recipe, unreadable = contents.recipe
    if recipe is None:
        return unreadable
    # One edit may be several terms, and a splice may leave its layer to the SAE: both lists are
    # compared as sets.
    asked = {
        _canonical(edit.model_dump(mode="json", exclude_none=True))
        for splice in recipe.splices
        for edit in splice.edits
    }
    listed = {_canonical(term.edit) for layer in claim.manifest.edits for term in layer.terms}
    problems = [f"{RECIPE}: {edit}: the manifest lists no such edit" for edit in asked - listed]
    problems += [f"{RECIPE}: {edit}: in the manifest alone" for edit in listed - asked]
    if len(recipe.splices) != len(claim.manifest.edits):
        problems.append(
            f"{RECIPE}: {len(recipe.splices)} splices, and the manifest lists "
            f"{len(claim.manifest.edits)} edited layers"
        )
    return sorted(problems)


def report_problems(contents: Contents, claim: Claim) -> list[str]:
    """Where fidelity.json and the manifest's summary of it differ."""
    report, unreadable = contents.report
    if unreadable:
        return unreadable
    expected = summary(report) if report else {}
    declared = claim.manifest.fidelity
    return [
        f"fidelity.{key}: found {declared.get(key)!r}, expected {expected.get(key)!r} from the "
        "report"
        for key in sorted({*expected, *declared})
        if key not in declared or key not in expected or declared[key] != expected[key]
    ]


def _canonical(content: Mapping[str, object]) -> str:
    return json.dumps(content, sort_keys=True)
