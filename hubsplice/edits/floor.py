"""Floor: the feature may not fall below a value."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from hubsplice.edits.base import Role
from hubsplice.edits.feature_edit import FeatureEdit
from hubsplice.edits.lookup import Sources
from hubsplice.edits.registry import EDITS
from hubsplice.edits.strength import StatedMaximum, Strength
from hubsplice.edits.units import activation_units
from hubsplice.features.base import Feature
from hubsplice.intervention.piecewise_linear import PiecewiseLinear


@EDITS.register("floor")
class Floor(FeatureEdit):
    """Replace the feature's activation f by max(f, at)."""

    summary: ClassVar[str] = "keep the feature from falling below a value"
    formula: ClassVar[str] = "h + relu(at − f)·d"
    role: ClassVar[Role] = Role.HOLDS

    kind: Literal["floor"] = "floor"
    at: Strength = Field(description="The smallest activation, also where f is inactive.")
    max: StatedMaximum = None

    @override
    def function(self, feature: Feature, sources: Sources) -> PiecewiseLinear:
        at = activation_units(sources, self.at, feature, self.max)
        return feature.activation.then(PiecewiseLinear((at,), (-1.0, 0.0), (at, 0.0)))
