"""From a splice of the recipe to a site of the intervention, once calibration has been there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubsplice.compiling.amount_warnings import amount_warnings
from hubsplice.compiling.conditions import LoweredCondition, lowered_conditions
from hubsplice.compiling.contradictions import contradictions
from hubsplice.compiling.far import far_amounts, far_changes, far_factors
from hubsplice.compiling.learned import Learned
from hubsplice.compiling.lowered_edits import LoweredEdit, lowered_edits
from hubsplice.compiling.sources import SpliceSources
from hubsplice.edits.base import Edit
from hubsplice.edits.feature_edit import FeatureEdit
from hubsplice.errors import RecipeError
from hubsplice.features.activity import feature_activity
from hubsplice.features.amounts import Activity, EditAmounts
from hubsplice.features.base import Feature, SiteStatistics
from hubsplice.features.extract import CalibratedGate
from hubsplice.features.fit import measure_fit
from hubsplice.features.fit_record import SaeFit
from hubsplice.features.held import Held
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae
from hubsplice.features.topk import calibrate_thresholds
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site
from hubsplice.recipe.models import Splice
from hubsplice.streams.calibration import median_norm


@dataclass(frozen=True, eq=False)
class LoweredSplice:
    """A splice as ridge functions.

    Attributes:
        site: the terms, and the norm above which tokens are left alone.
        origins: the edit that each term came from, in the order of the terms.
        features: those that the edits name.
        sink_norm: tokens above this are sinks, whether the edits leave them alone or not.
        statistics: what strengths were measured in.
        approximations: what the terms do not reproduce of the features.
        amounts: what the strengths of each of the splice's edits came to, in their order.
        warnings: what was lowered, and may not be what was meant.
        conditions: those of its edits, and on how many tokens they held.
        fit: whether the SAE fits; None where no edit is of one of its features.
    """

    site: Site
    origins: tuple[Edit, ...]
    features: tuple[Feature, ...]
    sink_norm: float
    statistics: SiteStatistics
    approximations: tuple[str, ...]
    amounts: tuple[EditAmounts, ...]
    warnings: tuple[str, ...]
    conditions: tuple[LoweredCondition, ...] = ()
    fit: SaeFit | None = None


def lower_splice(
    splice: Splice,
    place: Place,
    sae: LoadedSae | None,
    h: Tensor,
    field: str,
    *,
    drawn: int,
    seen: Mapping[str, Activity] | None,
    learned: Learned,
    held: Mapping[int, Held] | None = None,
    gate_saes: Mapping[SaeSource, LoadedSae] | None = None,
) -> LoweredSplice:
    """Lower all edits of a splice.

    Args:
        splice: the recipe's splice.
        place: where the stream is edited.
        sae: the splice's SAE, if it names one.
        h: the float32 calibration stream at the site, shape [tokens, d].
        field: how the recipe calls the splice, for messages (`splices[0]`).
        drawn: how many of the tokens, the first ones, were drawn at random.
        seen: how active the features are in other text, by their names; None where the edits
            serve only to look for text, so that 1 can stand for a maximum of zero.
        learned: what was learned from the splice's examples.
        held: on how many tokens of other text the condition of an edit held, by the edit's number.
        gate_saes: the SAEs that only conditions read.

    Raises:
        HubspliceError: of the class of the first problem, one line per edit that has one.
    """
    norm = median_norm(h[:drawn])
    sink_norm = splice.sink_multiple * norm
    is_ordinary = torch.linalg.vector_norm(h, dim=-1) <= sink_norm
    ordinary = h[is_ordinary]
    indices = sorted({index for edit in splice.edits for index in edit.all_indices()})
    gates: dict[int, CalibratedGate] = {}
    if sae is not None and sae.config.competes:
        gates = calibrate_thresholds(sae, ordinary, indices)
    unmeasured = SpliceSources(sae, h.shape[1], SiteStatistics(norm, {}), gates)
    features = [unmeasured.feature(index) for index in indices]
    by_chance = ordinary[: int(is_ordinary[:drawn].sum())]
    activity = feature_activity(features, by_chance)
    if seen is None:
        activity = {name: found.or_else(1.0) for name, found in activity.items()}
    else:
        activity = {
            name: found.with_more(seen[name]) if name in seen else found
            for name, found in activity.items()
        }
    statistics = SiteStatistics(norm, activity)
    sources = SpliceSources(
        sae, h.shape[1], statistics, gates, learned, place.after, gate_saes or {}
    )
    fit = None
    if seen is not None and sae is not None and indices:
        fit = measure_fit(sae, by_chance, statistics.activity)

    lowered, problems = lowered_edits(splice.edits, sources, field)
    together = contradictions(lowered)
    problems += map(RecipeError, together.problems)
    if problems:
        raise type(problems[0])("\n".join(map(str, problems)))
    warnings = [f"{field}.sae: {doubt}" for doubt in (fit.doubts if fit else ())]
    for edit in lowered:
        warnings += [f"{edit.field}: {doubt}" for doubt in _doubts(edit, statistics)]
    warnings += together.doubts
    conditions = []
    for condition in lowered_conditions(lowered, sources):
        found, elsewhere = condition.count(by_chance), (held or {}).get(condition.edit)
        found = found if elsewhere is None else found.with_more(elsewhere)
        conditions.append(replace(condition, held=found))
    return LoweredSplice(
        Site(
            place.layer,
            tuple(term for edit in lowered for term in edit.terms),
            sink_norm if splice.sinks == "skip" else math.inf,
            place.block,
        ),
        tuple(edit.edit for edit in lowered for _ in edit.terms),
        tuple(features),
        sink_norm,
        statistics,
        tuple(f"{f.name}: {f.approximation}" for f in features if f.approximation),
        tuple(edit.amounts for edit in lowered),
        tuple(warnings),
        tuple(conditions),
        fit,
    )


def _doubts(lowered: LoweredEdit, statistics: SiteStatistics) -> Iterator[str]:
    """What may not be meant of one edit by itself."""
    edit = lowered.edit
    yield from amount_warnings(lowered.resolved)
    yield from far_amounts(lowered.resolved)
    yield from far_factors(edit)
    if isinstance(edit, FeatureEdit):
        activity, (term, *_) = statistics.activity[f"feature {edit.feature}"], lowered.terms
        # A normalised stream has the norm √d.
        normalised = term.normalization is not Normalization.NONE
        norm = math.sqrt(len(term.direction)) if normalised else statistics.median_norm
        yield from far_changes(edit, activity, float(term.direction.norm()), norm)
