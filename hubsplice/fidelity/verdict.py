"""The one sentence that a report begins with."""

from __future__ import annotations

from hubsplice.fidelity.report import Interval, PrecisionFidelity

INDISTINGUISHABLE = 1.05
"""The ratio to the noise floor up to which a splice counts as no worse than the hook itself."""

ENOUGH_OVER_ERROR = 100.0
"""In float32, where there is no noise floor: how many times the effect must exceed the error."""


def verdict(served: PrecisionFidelity, require: float | None) -> tuple[str, bool | None]:
    """The verdict at the serving precision, and whether the requirement is met.

    Args:
        served: the measurements at the precision that the layers were compiled for.
        require: the largest ratio that passes; None asks for nothing.

    Returns:
        The sentence, and None where nothing was asked.
    """
    if served.ratio is None:
        return _without_floor(served, require)
    ratio = served.ratio
    sentence = (
        f"In {served.dtype} the splice is as close to the float32 hook as the hook itself is: "
        if ratio.value <= INDISTINGUISHABLE
        else f"In {served.dtype} the splice is farther from the float32 hook than the hook "
        "itself is: "
    )
    sentence += f"its error is {_shown(ratio)} times the noise floor"
    if require is None:
        return f"{sentence}.", None
    passed = ratio.value <= require
    return f"{sentence}; required: at most {require:g}, {_outcome(passed)}.", passed


def _without_floor(served: PrecisionFidelity, require: float | None) -> tuple[str, bool | None]:
    over = served.effect_over_error
    if served.splice_error.mean == 0:
        sentence, good = f"In {served.dtype} the splice and the hook give equal logits", True
    elif over is None:
        sentence, good = (
            f"In {served.dtype} the edit has no effect on this text, and the splice's error is "
            f"{served.splice_error.mean:.3g} nat per token",
            False,
        )
    else:
        sentence = (
            f"In {served.dtype} the splice's error is {over:,.0f} times smaller than the edit's "
            "effect"
        )
        good = over >= ENOUGH_OVER_ERROR
    if require is None:
        return f"{sentence}.", None
    return (
        f"{sentence}; required where there is no noise floor: at least "
        f"{ENOUGH_OVER_ERROR:g} times, {_outcome(good)}.",
        good,
    )


def _shown(ratio: Interval) -> str:
    return f"{ratio.value:.2f} (95%: {ratio.low:.2f} to {ratio.high:.2f})"


def _outcome(passed: bool) -> str:
    return "met" if passed else "NOT met"
