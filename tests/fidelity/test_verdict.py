"""The first line of a report."""

from __future__ import annotations

import pytest

from hubsplice.fidelity.report import Distribution, Interval, PrecisionFidelity
from hubsplice.fidelity.verdict import verdict


def measured(
    ratio: float | None, *, error: float = 0.01, over: float | None = None
) -> PrecisionFidelity:
    spread = Distribution(mean=error, median=error, p99=error, max=error, mean_without_top=error)
    floor = None if ratio is None else spread
    interval = None if ratio is None else Interval(value=ratio, low=ratio - 0.1, high=ratio + 0.1)
    return PrecisionFidelity(
        dtype="float32" if ratio is None else "bfloat16",
        noise_floor=floor,
        splice_error=spread,
        ratio=interval,
        clipped_ratio=interval,
        effect_over_error=over,
        hook_top1_agreement=1.0,
        splice_top1_agreement=1.0,
        sites=(),
    )


CLOSE = "In bfloat16 the splice is as close to the float32 hook as the hook itself is: "
FARTHER = "In bfloat16 the splice is farther from the float32 hook than the hook itself is: "


@pytest.mark.parametrize(
    ("ratio", "require", "sentence", "passed"),
    [
        (0.98, None, CLOSE + "its error is 0.98 (95%: 0.88 to 1.08) times the noise floor.", None),
        (1.05, None, CLOSE + "its error is 1.05 (95%: 0.95 to 1.15) times the noise floor.", None),
        (
            1.06,
            None,
            FARTHER + "its error is 1.06 (95%: 0.96 to 1.16) times the noise floor.",
            None,
        ),
        (
            1.05,
            1.05,
            CLOSE
            + "its error is 1.05 (95%: 0.95 to 1.15) times the noise floor; required: at most "
            "1.05, met.",
            True,
        ),
        (
            1.04,
            1.03,
            CLOSE
            + "its error is 1.04 (95%: 0.94 to 1.14) times the noise floor; required: at most "
            "1.03, NOT met.",
            False,
        ),
        (
            1.40,
            1.5,
            FARTHER + "its error is 1.40 (95%: 1.30 to 1.50) times the noise floor; required: at "
            "most 1.5, met.",
            True,
        ),
        (
            12.0,
            1.05,
            FARTHER + "its error is 12.00 (95%: 11.90 to 12.10) times the noise floor; required: "
            "at most 1.05, NOT met.",
            False,
        ),
    ],
)
def test_where_there_is_a_noise_floor(
    ratio: float, require: float | None, sentence: str, passed: bool | None
) -> None:
    assert verdict(measured(ratio), require) == (sentence, passed)


NO_EFFECT = (
    "In float32 the edit has no effect on this text, and the splice's error is 0.01 nat per token"
)
REQUIRED = "; required where there is no noise floor: at least 100 times, "


@pytest.mark.parametrize(
    ("error", "over", "require", "sentence", "passed"),
    [
        (0.0, None, None, "In float32 the splice and the hook give equal logits.", None),
        (
            0.0,
            None,
            1.05,
            f"In float32 the splice and the hook give equal logits{REQUIRED}met.",
            True,
        ),
        (0.01, None, None, f"{NO_EFFECT}.", None),
        (0.01, None, 1.05, f"{NO_EFFECT}{REQUIRED}NOT met.", False),
        (
            0.01,
            12345.6,
            None,
            "In float32 the splice's error is 12,346 times smaller than the edit's effect.",
            None,
        ),
        (
            0.01,
            100.0,
            1.05,
            "In float32 the splice's error is 100 times smaller than the edit's effect"
            f"{REQUIRED}met.",
            True,
        ),
        (
            0.01,
            99.0,
            1.05,
            f"In float32 the splice's error is 99 times smaller than the edit's effect{REQUIRED}"
            "NOT met.",
            False,
        ),
    ],
)
def test_where_there_is_none(
    error: float, over: float | None, require: float | None, sentence: str, passed: bool | None
) -> None:
    assert verdict(measured(None, error=error, over=over), require) == (sentence, passed)
