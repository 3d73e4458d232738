"""Clamp: hold the feature at a value, everywhere or where it is active."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from hubsplice.edits.base import Role, Sources
from hubsplice.edits.feature_edit import FeatureEdit
from hubsplice.edits.registry import EDITS
from hubsplice.edits.strength import StatedMaximum, Strength
from hubsplice.edits.units import activation_units
from hubsplice.features.base import Feature
from hubsplice.intervention.piecewise_linear import PiecewiseLinear


@EDITS.register("clamp")
class Clamp(FeatureEdit):
    """Replace the feature's activation by a constant."""

    summary: ClassVar[str] = "hold the feature at a value, always or only where it is active"
    formula: ClassVar[str] = "always: h + (to − f)·d; when active: h + 1[f active]·(to − f)·d"
    role: ClassVar[Role] = Role.HOLDS

    kind: Literal["clamp"] = "clamp"
    to: Strength = Field(description="The activation to hold the feature at.")
    max: StatedMaximum = None
    when: Literal["always", "active"] = Field(
        "always", description="At every token, or only where the feature is active."
    )

    @override
    def function(self, feature: Feature, sources: Sources) -> PiecewiseLinear:
        value = activation_units(sources, self.to, feature, self.max)
        where = PiecewiseLinear.constant(1.0) if self.when == "always" else feature.active
        return where.scaled(value) + feature.activation.scaled(-1.0)
