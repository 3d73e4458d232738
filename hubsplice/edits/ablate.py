"""Ablate: take the feature's contribution out of the residual stream."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt

from hubsplice.edits.base import Edit, Sources
from hubsplice.edits.registry import EDITS
from hubsplice.intervention import Term


@EDITS.register("ablate")
class Ablate(Edit):
    """Set the feature's activation to zero."""

    summary: ClassVar[str] = "set the feature to zero"
    formula: ClassVar[str] = "h − f·d"

    kind: Literal["ablate"] = "ablate"
    feature: NonNegativeInt = Field(description="The feature's index in the SAE.")

    def lower(self, sources: Sources) -> tuple[Term, ...]:
        feature = sources.feature(self.feature)
        return (
            Term(
                self.name(feature.name),
                feature.encoder,
                feature.bias,
                feature.activation.scaled(-1.0),
                feature.decoder,
                feature.normalization,
            ),
        )

    def feature_indices(self) -> tuple[int, ...]:
        return (self.feature,)
