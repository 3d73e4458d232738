"""The verdict: what the evidence shows of each edit, and one sentence on the worst of them.

The limits are set where right and wrong layers part; `tests/fidelity/test_wrong_layers.py` holds
the cases. The wrong layers that are nearest to right make 1.1 times the edit, and their strength
tells. The other limits are wide: on tiny models, tokens lie densely around a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from hubsplice.errors import RecipeError
from hubsplice.fidelity.format import significant
from hubsplice.fidelity.report import (
    CurveFigures,
    EditFidelity,
    Interval,
    PrecisionFidelity,
    SiteEvidence,
    SiteFidelity,
)

Outcome = Literal["shown", "fails", "not shown"]

_NO_WORSE = 1.05
"""The ratio to the noise floor up to which a model without edits counts as its base."""

ENOUGH_TOKENS, ENOUGH_SEQUENCES = 50, 5
"""On how many tokens, in how many sequences, an edit must act for a verdict that it is right."""

_STRENGTH = 0.05
"""How far from 1 an edit's strength may be."""

_RESIDUAL = {"float32": 0.35, "bfloat16": 0.7}
"""The largest residual error of an edit that is made, by the precision it was compiled for."""

_GATES, _FEW_GATES = 0.15, 4
"""Tokens on a jump's ramp are neither edited nor not: this share of them, and so many besides."""

_ENTERING, _FLOAT32_ENTERING = 2.0, 0.01
"""How far the stream that enters may be from the hook's, against the hook's own at the precision,
and by itself in float32: a layer at another place reads another stream."""

_ELSEWHERE = 3.0
"""The ratio to the noise floor on tokens that the edit does not reach."""

_CURVE = {"float32": 0.15, "bfloat16": 0.42}
"""The largest deviation of a layer's response curve from the edit's, likewise."""

_HEIGHT = {"float32": 0.05, "bfloat16": 0.4}
"""How far from 1 the height of that curve may be."""

_WIDEST = 0.5
"""The largest half-width of a ratio's interval that tells anything."""


def judged(precision: PrecisionFidelity, compiled_for: str | None = None) -> PrecisionFidelity:
    """The same measurements with an outcome and a reason for each edit.

    Args:
        precision: at one precision.
        compiled_for: the precision that the layers were compiled for, whose rounding their weights
            have in any other too; that of the measurements where it is None.
    """
    sites = {site.place: site for site in precision.sites}
    edits = []
    for edit in precision.edits:
        failures = (
            *_site_failures(sites.get(edit.place)),
            *_edit_failures(edit, compiled_for or precision.dtype),
        )
        outcome: Outcome = "fails"
        if failures:
            reason = failures[0]
        else:
            doubt = next(_doubts(edit), None)
            outcome, reason = ("shown", _shown(edit)) if doubt is None else ("not shown", doubt)
        edits.append(edit.model_copy(update={"outcome": outcome, "reason": reason}))
    return precision.model_copy(update={"edits": tuple(edits)})


def _site_failures(site: SiteFidelity | None) -> Iterator[str]:
    if site is None or site.entering_error is None:
        return
    of_hook = site.hook_entering_error
    limit = _FLOAT32_ENTERING if of_hook is None else _ENTERING * of_hook
    if site.entering_error > limit:
        yield (
            f"the stream that enters the layer is {site.entering_error:.1%} from the float32 "
            "hook's at the edit's place: the layer is elsewhere, or the model is another"
        )
    change, noise = site.elsewhere_change, site.elsewhere_noise
    if change is not None and noise and of_hook is not None and change > noise:
        yield (
            f"where no edit acts, the layer changes the stream by {significant(change)}, and the "
            f"precision's own noise there is {significant(noise)}"
        )


def _edit_failures(edit: EditFidelity, compiled_for: str) -> Iterator[str]:
    site, strength = edit.site, edit.site.strength
    least, most = _attainable(site)
    if strength is not None and (strength.low > most or strength.high < least):
        yield f"the layer makes {_with(strength)} times the edit where it acts"
    allowed = _FEW_GATES + _GATES * site.acted_tokens
    if site.false_firing > allowed:
        yield f"the layer fires on {site.false_firing} tokens where the edit does not act"
    if site.missed > allowed + (site.hook.missed if site.hook else 0):
        yield f"the layer misses {site.missed} of {site.acted_tokens} tokens where the edit acts"
    elsewhere = None if edit.elsewhere is None else edit.elsewhere.ratio
    if elsewhere is not None and elsewhere.low > _ELSEWHERE:
        yield (
            f"where it neither acts nor has acted, the model's error is {_with(elsewhere)} times "
            "the noise floor"
        )
    error, limit = site.residual_error, _RESIDUAL.get(compiled_for, _RESIDUAL["bfloat16"])
    if site.hook is not None and site.hook.residual_error is not None:
        limit = math.hypot(limit, site.hook.residual_error)
    if error is not None and error > limit:
        yield f"the layer's change is {error:.0%} off where the edit acts"
    yield from curve_failures(edit.curve, compiled_for)


def _attainable(site: SiteEvidence) -> tuple[float, float]:
    """The least and the largest strength of a layer that is as good as the hook."""
    least = most = 1.0
    if site.hook is not None and site.hook.strength is not None:
        least, most = min(1, site.hook.strength.low), max(1, site.hook.strength.high)
    return least - _STRENGTH, most + _STRENGTH


def curve_failures(curve: CurveFigures | None, compiled_for: str) -> Iterator[str]:
    """What is clearly wrong with the response curve of a layer compiled for a precision."""
    if curve is None:
        return
    # What rounding takes from h + dh by itself is no fault of the layer.
    heights = [1.0] if curve.hook_height is None else [1.0, curve.hook_height]
    height, room = curve.height, _HEIGHT.get(compiled_for, _HEIGHT["bfloat16"])
    if height is not None and not min(heights) - room <= height <= max(heights) + room:
        yield f"the layer by itself makes {height:.2f} times the edit, as p sweeps over its range"
    limit = _CURVE.get(compiled_for, _CURVE["bfloat16"])
    if curve.deviation > limit + curve.hook_deviation:
        yield (
            f"the layer by itself is {curve.deviation:.0%} off the edit where the pre-activation "
            f"is {significant(curve.at)}"
        )


def _doubts(edit: EditFidelity) -> Iterator[str]:
    site = edit.site
    if site.acted_tokens < ENOUGH_TOKENS:
        yield f"it acted on {site.acted_tokens} tokens, {ENOUGH_TOKENS} are needed"
    if site.acted_sequences < ENOUGH_SEQUENCES:
        yield (
            f"it acted in {site.acted_sequences} sequences of text, {ENOUGH_SEQUENCES} are needed"
        )
    strength, of_hook = site.strength, site.hook.strength if site.hook else None
    if of_hook is not None and _off(of_hook) > _STRENGTH:
        yield (
            f"at this precision the hook itself makes {_with(of_hook)} times the edit, and the "
            f"layer {_with(strength) if strength else 'none of it'}: rounding takes the rest"
        )
    if strength is None or _off(strength) > _STRENGTH:
        yield "its strength can't be told from this text" + (
            f": {_with(strength)}" if strength else ""
        )


def _off(strength: Interval) -> float:
    """How far from 1 a strength may be, by its interval."""
    return max(strength.high - 1, 1 - strength.low)


def _shown(edit: EditFidelity) -> str:
    assert edit.site.strength is not None
    return f"the layer makes {_with(edit.site.strength)} times the edit where it acts"


def _cost(edit: EditFidelity) -> Interval | None:
    """The worse of the ratios where an edit acts and behind that; None where there is none."""
    groups = (edit.acted, edit.behind)
    ratios = [group.ratio for group in groups if group is not None and group.ratio is not None]
    return max(ratios, key=lambda ratio: ratio.value, default=None)


def worst(edits: Sequence[EditFidelity]) -> EditFidelity | None:
    """The edit with the worst outcome, and among equals with the largest ratio."""
    order = {"fails": 2, "not shown": 1, "shown": 0}

    def badness(edit: EditFidelity) -> tuple[int, float]:
        cost = _cost(edit)
        return order[edit.outcome], cost.value if cost else 0.0

    return max(edits, key=badness, default=None)


def refuse_no_ratio(require: float | None) -> None:
    """Raise `RecipeError` for what is no ratio that a model can be held to: NaN, infinity, -1."""
    if require is not None and not 0 <= require < math.inf:
        raise RecipeError(
            f"require_fidelity: found {require:g}, expected a finite number, 0 or more"
        )


def verdict(served: PrecisionFidelity, require: float | None) -> tuple[str, Outcome, bool | None]:
    """The verdict at the serving precision, and whether the requirement is met.

    Args:
        served: the measurements at the precision that the layers were compiled for, judged.
        require: the largest ratio to the noise floor that passes, where an edit acts and behind
            that; None asks for nothing.

    Returns:
        The sentence, the worst edit's outcome, and None where nothing was asked.
    """
    edit = worst(served.edits)
    if edit is None:
        sentence = f"In {served.dtype}, there is no edit, and the model should be the base"
        same = served.splice_error.mean == 0 or (
            served.ratio is not None and served.ratio.low <= _NO_WORSE
        )
        outcome: Outcome = "shown" if same else "fails"
        if require is None:
            return f"{sentence}.", outcome, None
        met = same and (served.ratio is None or served.ratio.low <= require)
        return f"{sentence}; required: at most {require:g}, {_met(met)}.", outcome, met
    words = {
        "shown": f"In {served.dtype}, every edit is made as the hook makes it",
        "fails": f"In {served.dtype}, an edit is NOT made as the hook makes it",
        "not shown": f"In {served.dtype}, it is not shown that every edit is made",
    }
    sentence = f"{words[edit.outcome]}; the worst is {edit.label}: {edit.reason}"
    costs = [cost for cost in map(_cost, served.edits) if cost is not None]
    if edit.outcome == "shown" and costs:
        worst_cost = max(costs, key=lambda cost: cost.value)
        sentence += (
            f". There and behind that, the model's error is {_with(worst_cost)} times the noise "
            "floor"
        )
    if require is None:
        return f"{sentence}.", edit.outcome, None
    told = all(cost.high <= require or cost.high - cost.low <= 2 * _WIDEST for cost in costs)
    passed = edit.outcome == "shown" and told and all(cost.low <= require for cost in costs)
    if edit.outcome == "shown" and not told:
        sentence += ", which this text is too short to tell"
    return f"{sentence}; required: at most {require:g}, {_met(passed)}.", edit.outcome, passed


def _met(passed: bool) -> str:
    return "met" if passed else "NOT met"


def _with(estimate: Interval) -> str:
    return f"{estimate.value:.2f} (95%: {estimate.low:.2f} to {estimate.high:.2f})"
