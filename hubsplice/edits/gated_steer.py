"""Gated steer: add a vector at the tokens that a gate picks."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from hubsplice.edits.base import Role
from hubsplice.edits.directed import DirectedEdit, Direction
from hubsplice.edits.gate import Gate, GateFunction, feature_gate
from hubsplice.edits.lookup import Sources
from hubsplice.edits.registry import EDITS
from hubsplice.edits.strength import StatedMaximum, Strength
from hubsplice.edits.units import activation_units, stream_units
from hubsplice.errors import UnsupportedError, within
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Term


@EDITS.register("gated_steer")
class GatedSteer(DirectedEdit):
    """Add a multiple of a direction where a feature, a vector or a probe says so."""

    summary: ClassVar[str] = "add a multiple of a direction at the tokens that a gate picks"
    formula: ClassVar[str] = "h + strength·1[p > threshold]·d"
    role: ClassVar[Role] = Role.ADDS

    kind: Literal["gated_steer"] = "gated_steer"
    strength: Strength = Field(description="The multiple of the direction that is added.")
    max: StatedMaximum = None
    gate: Gate | None = Field(
        None, description="When to act. Default: where the direction's feature is active."
    )

    @model_validator(mode="after")
    def _vector_has_gate(self) -> Self:
        if self.feature is None and self.gate is None:
            what = "vector" if self.contrast is None else "contrast"
            raise ValueError(
                f"a {what} has no activation of its own: give a gate that says where to act"
            )
        return self

    def lower(self, sources: Sources) -> tuple[Term, ...]:
        direction = self.direction(sources)
        gate = self._gate(direction, sources)
        return (
            Term(
                self.name(f"{direction.name} where {gate.name}"),
                gate.encoder,
                gate.bias,
                gate.open.scaled(self._multiple(direction, gate, sources)),
                direction.vector,
                gate.normalization,
            ),
        )

    @property
    def own_gate(self) -> Gate | None:
        return self.gate

    def feature_indices(self) -> tuple[int, ...]:
        gate = None if self.gate is None else self.gate.feature
        given = (self.feature, gate)
        return tuple(dict.fromkeys(index for index in given if index is not None))

    def _gate(self, direction: Direction, sources: Sources) -> GateFunction:
        if self.gate is not None:
            with within("gate", Gate.model_fields):
                return self.gate.function(sources)
        assert direction.feature is not None
        return feature_gate(direction.feature)

    def _multiple(self, direction: Direction, gate: GateFunction, sources: Sources) -> float:
        if gate.normalization is Normalization.NONE:
            return stream_units(
                sources, self.strength, direction.vector, direction.feature, self.max
            )
        # A ridge function whose input is normalised writes at the token's own scale too, which
        # is what an activation of the same SAE means, and is not what a plain vector means.
        if direction.feature is None:
            raise UnsupportedError(
                f"{gate.name}: a gate of an SAE that normalises its input "
                f"({gate.normalization.value}) writes at each token's own scale, so that a plain "
                "vector has no fixed length; use a feature as the direction, or a gate with "
                "read: raw, a vector or a probe"
            )
        return activation_units(sources, self.strength, direction.feature, self.max)
