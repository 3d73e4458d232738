"""Scale: multiply the feature's contribution."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, FiniteFloat
from typing_extensions import override

from hubsplice.edits.base import Role
from hubsplice.edits.feature_edit import FeatureEdit
from hubsplice.edits.lookup import Sources
from hubsplice.edits.registry import EDITS
from hubsplice.features.base import Feature
from hubsplice.intervention.piecewise_linear import PiecewiseLinear


@EDITS.register("scale")
class Scale(FeatureEdit):
    """Multiply the feature's activation by a factor."""

    summary: ClassVar[str] = "multiply the feature by a factor"
    formula: ClassVar[str] = "h + (factor − 1)·f·d"
    role: ClassVar[Role] = Role.SCALES

    kind: Literal["scale"] = "scale"
    factor: FiniteFloat = Field(
        description="0 ablates, 1 changes nothing, 4 amplifies fourfold, a negative factor inverts."
    )

    @override
    def factors(self) -> tuple[float, ...]:
        return (self.factor,)

    @override
    def function(self, feature: Feature, sources: Sources) -> PiecewiseLinear:
        return feature.activation.scaled(self.factor - 1.0)
