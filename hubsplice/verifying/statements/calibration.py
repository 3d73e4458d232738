"""What a manifest says of calibration: the norms are in the edit; the rest only a rebuild shows."""

from __future__ import annotations

import math

from hubsplice.fidelity.report import FidelityReport
from hubsplice.intervention.intervention import Intervention
from hubsplice.recipe.models import Recipe, Splice
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.statements.ledger import Comparison

_BY_SITE = ("median_norm", "sink_norm")


def calibration_record(
    claim: Claim,
    recipe: Recipe,
    splices: tuple[Splice, ...],
    intervention: Intervention,
    report: FidelityReport | None,
) -> Comparison:
    """Compare what the manifest says of calibration with the recipe, the edit and the report.

    Args:
        claim: the manifest.
        recipe: as it travels with the model.
        splices: the recipe's, in the order of the intervention's sites.
        intervention: the exact edit; it edits where the manifest says.
        report: the measurements; None where there are none.
    """
    found = Comparison(claim.manifest)
    found.agrees("seeds", expected={"recipe": recipe.seed}, source="from the recipe")
    record = claim.manifest.calibration
    if record is None:
        if splices:
            found.problems.append("calibration: missing, and every splice is calibrated")
        return found
    found.agrees("calibration", "seed", expected=recipe.seed, source="from the recipe")
    dataset = recipe.calibration.dataset
    found.agrees("calibration", "dataset", expected=dataset, source="from the recipe")
    places = {str(site.place) for site in intervention.sites}
    for name in _BY_SITE:
        wrong = sorted(found.at("calibration", name).keys() ^ places)
        found.problems += [
            f"calibration.{name}: {place}: expected one for each edited layer" for place in wrong
        ]
    for site, splice in zip(intervention.sites, splices, strict=True):
        place = str(site.place)
        limit = None if math.isinf(site.sink_norm) else site.sink_norm
        source = "from the intervention"
        found.shows("calibration", "sink_norm", place, expected=limit, source=source)
        if (limit is None) != (splice.sinks == "edit"):
            found.problems.append(
                f"calibration.sink_norm.{place}: found {limit}, and the recipe says "
                f"sinks: {splice.sinks}"
            )
        elif limit is not None:
            median = limit / splice.sink_multiple
            found.shows("calibration", "median_norm", place, expected=median, source=source)
    if report is not None:
        told = report.model_dump(mode="json", include={"sae_fit", "warnings"})
        # Measuring may have warnings of its own behind these.
        told["warnings"] = told["warnings"][: len(record.warnings)]
        for name, value in told.items():
            found.agrees("calibration", name, expected=value, source="from the report")
    return found
