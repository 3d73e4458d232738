"""The shape of an edit along a direction that is a feature's decoder row or a plain vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator
from torch import Tensor

from hubsplice.edits.base import Edit
from hubsplice.edits.lookup import Sources, source_name
from hubsplice.features.base import Feature
from hubsplice.features.examples import ContrastSource
from hubsplice.features.references import FeatureIndex, TensorSource


@dataclass(frozen=True, eq=False)
class Direction:
    """What an edit writes along: a vector of shape [d], float32, and the feature it is of."""

    name: str
    vector: Tensor
    feature: Feature | None


class DirectedEdit(Edit):
    """An edit whose direction comes from exactly one of `feature`, `vector` and `contrast`."""

    feature: FeatureIndex | None = Field(
        None, description="Write along the decoder row of this feature of the SAE."
    )
    vector: TensorSource | None = Field(None, description="Write along a vector from a file.")
    contrast: ContrastSource | None = Field(
        None, description="Write along a direction that is learned from examples."
    )

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        names = ("feature", "vector", "contrast")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "the direction is exactly one of feature, vector and contrast; "
                f"found {' and '.join(given) or 'none of them'}"
            )
        return self

    def direction(self, sources: Sources) -> Direction:
        """The direction, looked up."""
        if self.vector is not None:
            return Direction(source_name("vector", self.vector), sources.vector(self.vector), None)
        if self.contrast is not None:
            learned = sources.contrast(self.contrast)
            return Direction(self.contrast.title, learned.vector, None)
        assert self.feature is not None
        feature = sources.feature(self.feature)
        return Direction(feature.name, feature.decoder, feature)

    def feature_indices(self) -> tuple[int, ...]:
        return () if self.feature is None else (self.feature,)
