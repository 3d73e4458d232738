"""Edits that ask for far more than a feature ever reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hubsplice.edits.base import Edit
from hubsplice.features.amounts import Activity, ResolvedAmount

FAR = 10.0
"""More than this many times the largest activation is far."""

_LONGER = 1.0 + 1e-6


def far_amounts(amounts: Sequence[ResolvedAmount]) -> Iterator[str]:
    """Strengths of one edit that are far outside, as far as is known."""
    for amount in amounts:
        if amount.of_max is not None and abs(amount.of_max) > FAR:
            known = amount.stated_max
            if known is None and amount.activity is not None:
                known = amount.activity.maximum
            largest = "" if known is None else f", {known:.4g}"
            yield (
                f"{amount.stated} is {abs(amount.of_max):,.4g} times the largest activation of the "
                f"feature{largest}"
            )
        if amount.share is not None and amount.share > _LONGER:
            yield (
                f"{amount.stated} writes a change that is {amount.share:,.3g} times as long as the "
                "residual stream itself; few texts survive that"
            )


def far_factors(edit: Edit) -> Iterator[str]:
    """Factors of an edit that are far outside, which the recipe alone says."""
    for factor in edit.factors():
        if abs(factor) > FAR:
            yield f"factor: {factor:g} makes it {abs(factor):,.4g} times what it is"


def far_changes(
    edit: Edit, activity: Activity, direction_norm: float, median_norm: float
) -> Iterator[str]:
    """Factors whose change of an active feature is longer than the stream itself.

    Args:
        edit: an edit of one feature.
        activity: of the feature, in calibration.
        direction_norm: the length of its decoder row.
        median_norm: the median norm of the stream, in which the decoder row is written.
    """
    for factor in edit.factors():
        change = abs(factor - 1.0) * activity.maximum * direction_norm
        if median_norm and change > _LONGER * median_norm:
            yield (
                f"factor: {factor:g} writes a change that is up to {change / median_norm:,.3g} "
                f"times as long as the residual stream itself (max {activity}); few texts survive "
                "that"
            )
