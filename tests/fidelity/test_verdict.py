"""The first line of a report, and what each edit's outcome is made from."""

from __future__ import annotations

from typing import Any

import pytest

from hubsplice.errors import FidelityError, NotShownError
from hubsplice.fidelity.report import (
    Distribution,
    EditFidelity,
    GroupFidelity,
    Interval,
    PrecisionFidelity,
    SiteEvidence,
    SiteFidelity,
)
from hubsplice.fidelity.verdict import ENOUGH_TOKENS, Outcome, judged, verdict
from tests.card.examples import report


def about(value: float, width: float = 0.01) -> Interval:
    return Interval(value=value, low=value - width, high=value + width)


def group(ratio: Interval | None) -> GroupFidelity:
    return GroupFidelity(
        tokens=400, edit_effect=0.1, noise_floor=0.01, splice_error=0.01, ratio=ratio
    )


def edit(**fields: Any) -> EditFidelity:
    """An edit that is made as the hook makes it, but for some figures."""
    figures = {
        "acted_tokens": 400,
        "acted_sequences": 30,
        "strength": about(0.995),
        "residual_error": 0.08,
        "false_firing": 1,
        "missed": 3,
        "error_over_hook": about(1.2, 0.2),
    }
    ratios = {"acted": group(about(1.01, 0.05)), "behind": group(about(0.99, 0.05))}
    site = figures | {key: value for key, value in fields.items() if key in figures}
    others = ratios | {key: value for key, value in fields.items() if key not in figures}
    return EditFidelity(
        layer=13, site=SiteEvidence(**site), **{"label": "ablate feature 1"} | others
    )


def measured(
    *edits: EditFidelity, dtype: str = "bfloat16", ratio: float | None = 1.0, **site: Any
) -> PrecisionFidelity:
    spread = Distribution(mean=0.01, median=0.01, p99=0.01, max=0.01, mean_without_top=0.01)
    place = {
        "layer": 13,
        "edited_tokens": 400,
        "residual_error": None,
        "overall_residual_error": None,
        "sink_tokens": 0,
        "largest_sink_change": None,
        "elsewhere_change": 0.3,
        "elsewhere_noise": 1.5,
        "entering_error": 0.01,
        "hook_entering_error": 0.01,
    }
    return PrecisionFidelity(
        dtype=dtype,
        noise_floor=None if ratio is None else spread,
        splice_error=spread,
        ratio=None if ratio is None else about(ratio),
        clipped_ratio=None,
        effect_over_error=None,
        hook_top1_agreement=1.0,
        splice_top1_agreement=1.0,
        sites=(SiteFidelity(**place | site),),
        edits=edits,
    )


def told(precision: PrecisionFidelity, require: float | None) -> tuple[str, Outcome, bool | None]:
    return verdict(judged(precision), require)


def test_an_edit_that_is_made() -> None:
    sentence, outcome, passed = told(measured(edit()), 1.05)
    assert (outcome, passed) == ("shown", True)
    assert sentence == (
        "In bfloat16, every edit is made as the hook makes it; the worst is ablate feature 1: the "
        "layer makes 0.99 (95%: 0.98 to 1.00) times the edit where it acts. There and behind that, "
        "the model's error is 1.01 (95%: 0.96 to 1.06) times the noise floor; "
        "required: at most 1.05, met."
    )
    assert told(measured(edit()), None)[2] is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"strength": about(0.0)}, "the layer makes 0.00"),
        ({"strength": about(0.5)}, "the layer makes 0.50"),
        ({"strength": about(1.1, 0.03)}, "the layer makes 1.10"),
        ({"strength": about(-1.0)}, "the layer makes -1.00"),
        ({"false_firing": 80}, "fires on 80 tokens"),
        ({"missed": 80}, "misses 80 of 400"),
        ({"residual_error": 0.8}, "is 80% off"),
    ],
)
def test_an_edit_that_is_not_made(fields: dict[str, Any], reason: str) -> None:
    right, wrong = edit(label="a right edit"), edit(**fields)
    (_, found) = judged(measured(right, wrong)).edits
    assert found.outcome == "fails"
    assert reason in found.reason
    # The worst edit decides, and is named.
    for require in (None, 1.05, 100.0):
        sentence, outcome, passed = told(measured(right, wrong), require)
        assert outcome == "fails"
        assert "ablate feature 1" in sentence
        assert not passed


@pytest.mark.parametrize(
    "site",
    [
        {"entering_error": 0.03},
        {"elsewhere_change": 2.0},
        {"entering_error": 0.02, "hook_entering_error": None},
    ],
)
def test_a_layer_that_is_not_where_the_edit_is(site: dict[str, Any]) -> None:
    assert told(measured(edit(), **site), None)[1] == "fails"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"acted_tokens": 8}, f"it acted on 8 tokens, {ENOUGH_TOKENS} are needed"),
        ({"acted_sequences": 2}, "it acted in 2 sequences"),
        ({"strength": about(0.95, 0.2)}, "its strength can't be told"),
        ({"strength": None, "acted_tokens": 0}, "it acted on 0 tokens"),
    ],
)
def test_an_edit_that_the_text_does_not_show(fields: dict[str, Any], reason: str) -> None:
    sentence, outcome, passed = told(measured(edit(**fields)), 1.05)
    assert (outcome, passed) == ("not shown", False)
    assert reason in sentence


def test_few_tokens_that_show_a_failure_are_enough() -> None:
    few = edit(acted_tokens=8, strength=about(0.0))
    assert told(measured(few), None)[1] == "fails"


@pytest.mark.parametrize(
    ("acted", "behind", "passed"),
    [(1.2, 1.0, False), (1.0, 1.2, False), (1.08, 1.0, True), (1.0, 1.0, True)],
)
def test_the_requirement_holds_where_the_edit_acts_and_behind(
    acted: float, behind: float, passed: bool
) -> None:
    ratios = {"acted": group(about(acted, 0.05)), "behind": group(about(behind, 0.05))}
    sentence, outcome, met = told(measured(edit(**ratios)), 1.05)
    assert (outcome, met) == ("shown", passed)
    assert ("NOT met" in sentence) is not passed


def test_a_ratio_that_could_be_anything_meets_nothing() -> None:
    wide = edit(acted=group(Interval(value=1.0, low=0.3, high=2.4)))
    assert told(measured(wide), 1.05)[2] is False


def test_in_float32_there_is_no_floor() -> None:
    exact = edit(acted=group(None), behind=group(None), error_over_hook=None, residual_error=0.005)
    site = {"hook_entering_error": None, "entering_error": 1e-6}
    found = told(measured(exact, dtype="float32", ratio=None, **site), 1.05)
    assert found[1:] == ("shown", True)
    off = exact.model_copy(update={"site": exact.site.model_copy(update={"residual_error": 0.5})})
    assert told(measured(off, dtype="float32", ratio=None, **site), 1.05)[1] == "fails"


def test_without_edits_the_model_should_be_the_base() -> None:
    assert told(measured(), 1.05)[1:] == ("shown", True)
    assert told(measured(ratio=2.0), 1.05)[1:] == ("fails", False)


def test_what_is_not_shown_has_an_error_and_an_advice_of_its_own() -> None:
    report(passed=None).require_passed()
    with pytest.raises(NotShownError, match="Give text in which the feature is active"):
        report(passed=False, outcome="not shown").require_passed()
    with pytest.raises(FidelityError) as caught:
        report(passed=False, outcome="fails").require_passed()
    assert caught.value.exit_code != NotShownError.exit_code
