"""Refusing SAEs that do not fit the base."""

from __future__ import annotations

from collections.abc import Sequence

from hubsplice.compiling.lowering import LoweredSplice
from hubsplice.compiling.plan import PlannedSplice
from hubsplice.errors import UnsupportedError


def require_fit(planned: Sequence[PlannedSplice], lowered: Sequence[LoweredSplice]) -> None:
    """Refuse SAEs that explain nothing of the stream at their place.

    Args:
        planned: the splices of a plan.
        lowered: the same splices, calibrated.

    Raises:
        UnsupportedError: one line for each; the message says what lifts the refusal.
    """
    problems = [
        f"{plan.field}.sae: after layer {splice.site.place}, {doubt}"
        for plan, splice in zip(planned, lowered, strict=True)
        if splice.fit is not None and splice.fit.misfit
        for doubt in splice.fit.doubts
    ]
    if problems:
        lift = "with --allow-misfit (allow_misfit=True in Python), it is used all the same"
        raise UnsupportedError("\n".join((*problems, lift)))
