"""Project: take a direction or a subspace out of the stream, or rescale the stream along it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, FiniteFloat
from torch import Tensor

from hubsplice.edits.base import Role
from hubsplice.edits.directed import DirectedEdit
from hubsplice.edits.lookup import Sources, source_name
from hubsplice.edits.registry import EDITS
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Term


@EDITS.register("project")
class Project(DirectedEdit):
    """Multiply the stream's component P h in a subspace by a factor.

    Here `vector` may also be a tensor of shape [k, d]: the subspace that its rows span.
    """

    summary: ClassVar[str] = "project a direction or subspace out, or rescale the stream along it"
    formula: ClassVar[str] = "h + (factor − 1)·P h"
    role: ClassVar[Role] = Role.SCALES

    kind: Literal["project"] = "project"
    factor: FiniteFloat = Field(
        0.0, description="0 takes the component out, 1 changes nothing, 2 doubles it."
    )

    def factors(self) -> tuple[float, ...]:
        return (self.factor,)

    def lower(self, sources: Sources) -> tuple[Term, ...]:
        what, basis = self._subspace(sources)
        function = PiecewiseLinear.linear(self.factor - 1.0)
        return tuple(
            Term(
                self.name(what if len(basis) == 1 else f"{what} [{i + 1} of {len(basis)}]"),
                axis,
                0.0,
                function,
                axis,
            )
            for i, axis in enumerate(basis)
        )

    def _subspace(self, sources: Sources) -> tuple[str, Tensor]:
        if self.vector is not None:
            return source_name("subspace", self.vector), sources.subspace(self.vector)
        direction = self.direction(sources)
        return direction.name, (direction.vector / direction.vector.norm())[None]
