"""Add: raise the feature by a constant wherever it is active."""

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


@EDITS.register("add")
class Add(FeatureEdit):
    """Add a constant to the feature's activation where it is active."""

    summary: ClassVar[str] = "add a constant to the feature where it is active"
    formula: ClassVar[str] = "h + strength·1[f active]·d"
    role: ClassVar[Role] = Role.ADDS

    kind: Literal["add"] = "add"
    strength: Strength = Field(description="The number to add to the activation.")
    max: StatedMaximum = None

    @override
    def function(self, feature: Feature, sources: Sources) -> PiecewiseLinear:
        return feature.active.scaled(activation_units(sources, self.strength, feature, self.max))
