"""Edits that ask for far more than a feature ever reaches."""

from __future__ import annotations

from typing import Any

import pytest

from hubsplice.compiling.far import far_amounts, far_changes, far_factors
from hubsplice.edits.base import Edit
from hubsplice.edits.registry import EDITS
from hubsplice.features.amounts import Activity, ResolvedAmount

ACTIVITY = Activity(17.6, 5.0, 214, 20_000)


def edit(**fields: Any) -> Edit:
    return EDITS.get(fields["kind"], "kind").model_validate(fields)


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        (ResolvedAmount("1e+09", 1e9, of_max=1e9 / 17.6, activity=ACTIVITY), "feature, 17.6"),
        (ResolvedAmount("-11 x max", None, of_max=-11.0), "-11 x max is 11 times the largest"),
        (ResolvedAmount("180", 180.0, of_max=10.2, stated_max=17.6), "10.2 times"),
        (ResolvedAmount("3 x norm", None, 3.0), "3 times as long as the residual stream"),
    ],
)
def test_far_amounts(amount: ResolvedAmount, message: str) -> None:
    (warning,) = far_amounts([amount])
    assert message in warning


def test_amounts_in_range() -> None:
    amounts = [
        ResolvedAmount("170", 170.0, 0.9, of_max=9.7),
        ResolvedAmount("1 x norm", 40.0, 1.0 + 1e-7),
        ResolvedAmount("0.5 x max", None),
    ]
    assert list(far_amounts(amounts)) == []


def test_far_factors() -> None:
    (warning,) = far_factors(edit(kind="scale", feature=1, factor=-200))
    assert warning.startswith("factor: -200 makes it 200 times")
    assert list(far_factors(edit(kind="project", feature=1, factor=11)))
    for factor in (-10, 0, 1, 4, 10):
        assert not list(far_factors(edit(kind="scale", feature=1, factor=factor)))
    assert not list(far_factors(edit(kind="ablate", feature=1)))


def test_changes_longer_than_the_stream() -> None:
    """At its maximum, the feature writes 17.6 · 2 of 140, a quarter; six more are longer."""
    scale = [edit(kind="scale", feature=1, factor=factor) for factor in (4.9, 5.1, -3.1)]
    shown = [list(far_changes(e, ACTIVITY, 2.0, 140.0)) for e in scale]
    assert [len(found) for found in shown] == [0, 1, 1]
    assert "up to 1.03 times as long" in shown[1][0]
    assert "17.6, over 214 active" in shown[1][0]
