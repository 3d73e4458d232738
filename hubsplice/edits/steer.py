"""Steer: add the same vector at every token."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from hubsplice.edits.base import Role
from hubsplice.edits.directed import DirectedEdit
from hubsplice.edits.lookup import Sources
from hubsplice.edits.registry import EDITS
from hubsplice.edits.strength import StatedMaximum, Strength
from hubsplice.edits.units import stream_units
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Term


@EDITS.register("steer")
class Steer(DirectedEdit):
    """Add a constant multiple of a feature's decoder row or of a vector."""

    summary: ClassVar[str] = "add a constant multiple of a direction at every token"
    formula: ClassVar[str] = "h + strength·d"
    role: ClassVar[Role] = Role.ADDS
    constant: ClassVar[bool] = True

    kind: Literal["steer"] = "steer"
    strength: Strength = Field(description="The multiple of the direction that is added.")
    max: StatedMaximum = None

    def lower(self, sources: Sources) -> tuple[Term, ...]:
        direction = self.direction(sources)
        multiple = stream_units(
            sources, self.strength, direction.vector, direction.feature, self.max
        )
        return (
            Term(
                self.name(direction.name),
                torch.zeros_like(direction.vector),
                0.0,
                PiecewiseLinear.constant(multiple),
                direction.vector,
            ),
        )
