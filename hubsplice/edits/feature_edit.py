"""The shape of an edit that reads one SAE feature and writes along its own decoder row."""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field
from typing_extensions import override

from hubsplice.edits.base import Edit
from hubsplice.edits.lookup import Sources
from hubsplice.features.base import Feature
from hubsplice.features.references import FeatureIndex
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Term


class FeatureEdit(Edit):
    """An edit h + s(h)·φ(p)·d in which p and d belong to one feature."""

    feature: FeatureIndex = Field(
        description="The feature's index in the SAE, or the address of its page on Neuronpedia."
    )

    @abstractmethod
    def function(self, feature: Feature, sources: Sources) -> PiecewiseLinear:
        """φ, as a function of the feature's pre-activation p."""

    def lower(self, sources: Sources) -> tuple[Term, ...]:
        feature = sources.feature(self.feature)
        return (
            Term(
                self.name(feature.name),
                feature.encoder,
                feature.bias,
                self.function(feature, sources),
                feature.decoder,
                feature.normalization,
            ),
        )

    @property
    @override
    def read_feature(self) -> int | None:
        return self.feature

    @override
    def feature_indices(self) -> tuple[int, ...]:
        return (self.feature,)
