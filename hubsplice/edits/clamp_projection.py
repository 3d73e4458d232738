"""Clamp a projection: hold the stream's component along a direction at a value."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hubsplice.edits.base import Role
from hubsplice.edits.directed import DirectedEdit
from hubsplice.edits.lookup import Sources
from hubsplice.edits.registry import EDITS
from hubsplice.edits.strength import StatedMaximum, Strength
from hubsplice.edits.units import stream_units
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Term


@EDITS.register("clamp_projection")
class ClampProjection(DirectedEdit):
    """Set ⟨h, v⟩ to a value, v being the unit vector along the direction."""

    summary: ClassVar[str] = "hold the stream's component along a unit direction at a value"
    formula: ClassVar[str] = "h − ⟨h, v⟩·v + to·v, v = d/‖d‖"
    role: ClassVar[Role] = Role.HOLDS

    kind: Literal["clamp_projection"] = "clamp_projection"
    to: Strength = Field(
        description="The component along the unit direction, as a length in the residual stream. "
        "`x norm` and `x max` mean the same as for steer."
    )
    max: StatedMaximum = None

    def lower(self, sources: Sources) -> tuple[Term, ...]:
        direction = self.direction(sources)
        length = float(direction.vector.norm())
        unit = direction.vector / length
        # `x max` counts activations, which are multiples of the whole direction.
        in_multiples = self.to.unit == "max"
        written = direction.vector if in_multiples else unit
        value = stream_units(sources, self.to, written, direction.feature, self.max)
        value *= length if in_multiples else 1.0
        return (
            Term(self.name(direction.name), unit, 0.0, PiecewiseLinear.linear(-1.0, value), unit),
        )
