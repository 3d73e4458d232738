"""Cap: the feature may not exceed a value."""

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


@EDITS.register("cap")
class Cap(FeatureEdit):
    """Replace the feature's activation f by min(f, at)."""

    summary: ClassVar[str] = "keep the feature from exceeding a value"
    formula: ClassVar[str] = "h − relu(f − at)·d"
    role: ClassVar[Role] = Role.HOLDS

    kind: Literal["cap"] = "cap"
    at: Strength = Field(description="The largest activation that is allowed.")
    max: StatedMaximum = None

    @override
    def function(self, feature: Feature, sources: Sources) -> PiecewiseLinear:
        at = activation_units(sources, self.at, feature, self.max)
        return feature.activation.then(PiecewiseLinear.relu(at)).scaled(-1.0)
