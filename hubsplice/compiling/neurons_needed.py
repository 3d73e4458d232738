"""How many neurons edits need at the least, before anything is calibrated."""

from __future__ import annotations

from collections.abc import Sequence

from hubsplice.compiling.lowered_edits import LoweredEdit
from hubsplice.errors import UnsupportedError
from hubsplice.intervention.piecewise_linear import PiecewiseLinear


def require_room(lowered: Sequence[LoweredEdit], room: int, field: str) -> None:
    """Refuse a splice whose edits can't fit in one layer, whatever calibration finds.

    A construction may need more neurons than are counted here, and a build says how many edits
    fit; what is refused here would be refused there.

    Args:
        lowered: the splice's edits.
        room: how many neurons a layer has.
        field: how the recipe calls the splice, for messages (`splices[0]`).

    Raises:
        UnsupportedError: there are too many.
    """
    needed = sum(_least(term.function) for edit in lowered for term in edit.terms)
    if needed > room:
        raise UnsupportedError(
            f"{field}.edits: {len(lowered)} edits need {needed} neurons or more, and a layer of "
            f"this model has {room}; give fewer, or put some after another layer"
        )


def _least(function: PiecewiseLinear) -> int:
    """One neuron for each bend and each jump, or for a slope alone; a constant needs none."""
    bends = sum(bool(kink.slope_change) + bool(kink.jump) for kink in function.kinks)
    return bends or int(any(function.slopes))
