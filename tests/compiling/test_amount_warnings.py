"""Doubts about maxima: over few tokens, or far from what the recipe states."""

from __future__ import annotations

import pytest

from hubsplice.compiling.amount_warnings import amount_warnings
from hubsplice.features.amounts import Activity, ResolvedAmount


def amount(
    stated: str, maximum: float, active: int, stated_max: float | None, length: float = 1.0
) -> ResolvedAmount:
    activity = Activity(maximum, maximum / 2, active, 20_000)
    return ResolvedAmount(stated, 1.0, 0.1, False, length, stated_max, activity)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (amount("0.5 x max", 2.7, 19, None), "maximum 2.7, over 19 active of 20,000 scanned"),
        (amount("0.5 x max", 17.6, 200, 8.0), "8 is stated, and calibration measured 17.6"),
        (amount("3", 17.6, 5, 8.0), "8 is stated, and calibration measured 17.6 over 5"),
        (amount("0.5 x max", 2.0, 200, 10.1), "10.1 is stated, and calibration measured 2"),
    ],
)
def test_doubts(found: ResolvedAmount, message: str) -> None:
    (warning,) = amount_warnings([found])
    assert message in warning
    assert "decoder" not in warning


@pytest.mark.parametrize(
    "found",
    [
        amount("0.5 x max", 2.7, 20, None),
        amount("3", 2.7, 3, None),
        amount("0.3 x norm", 2.7, 3, None),
        amount("0.5 x max", 2.7, 3, 17.6),
        amount("0.5 x max", 15.0, 200, 8.0),
        amount("0.5 x max", 2.1, 200, 10.0),
        ResolvedAmount("2", 2.0, 0.1, False, 1.0),
    ],
)
def test_nothing_to_doubt(found: ResolvedAmount) -> None:
    assert list(amount_warnings([found])) == []


def test_a_long_decoder_row_is_named() -> None:
    """Neuronpedia's activations are multiplied by it."""
    (warning,) = amount_warnings([amount("1 x max", 5.0, 200, 40.0, length=8.0)])
    assert "the decoder row's length is 8" in warning
    assert "divided" in warning
