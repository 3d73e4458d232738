"""Ablate: take the feature's contribution out of the residual stream."""

from __future__ import annotations

from typing import ClassVar, Literal

from typing_extensions import override

from hubsplice.edits.base import Role
from hubsplice.edits.feature_edit import FeatureEdit
from hubsplice.edits.lookup import Sources
from hubsplice.edits.registry import EDITS
from hubsplice.features.base import Feature
from hubsplice.intervention.piecewise_linear import PiecewiseLinear


@EDITS.register("ablate")
class Ablate(FeatureEdit):
    """Set the feature's activation to zero."""

    summary: ClassVar[str] = "set the feature to zero"
    formula: ClassVar[str] = "h − f·d"
    role: ClassVar[Role] = Role.HOLDS

    kind: Literal["ablate"] = "ablate"

    @override
    def function(self, feature: Feature, sources: Sources) -> PiecewiseLinear:
        return feature.activation.scaled(-1.0)
