"""What an edit looks up while it is lowered, as far as a checkpoint holds it.

Neither SAE nor vectors travel with a model. So features, vectors and probes are names here, and
strengths come to what they must from the figures that the manifest records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hubsplice.compiling.sources import SpliceSources
from hubsplice.edits.strength import Amount
from hubsplice.features.amounts import ResolvedAmount
from hubsplice.features.base import Feature, Probe, SiteStatistics
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.references import ProbeSource, SaeSource, TensorSource
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear


class OnPaper:
    """The sources of one edit.

    Args:
        terms: how many terms the edit has.
        width: of the stream.
        median_norm: the median residual norm at its place, as the manifest has it.
        recorded: what its strengths come to, likewise.

    Attributes:
        features: the name of the feature that each strength is of; None for a vector's.
    """

    def __init__(
        self, terms: int, width: int, median_norm: float, recorded: Sequence[ResolvedAmount]
    ) -> None:
        self._terms, self._width = terms, width
        self._median_norm, self._recorded = median_norm, recorded
        self.features: list[str | None] = []

    def feature(self, index: int) -> Feature:
        scaled = any(amount.own_norm for amount in self._recorded)
        normalization = Normalization.LAYER_NORM if scaled else Normalization.NONE
        return replace(self._feature(f"feature {index}"), normalization=normalization)

    def gate_feature(self, index: int, sae: SaeSource) -> Feature:
        return self._feature(f"feature {index} of {sae.title}")

    def vector(self, _source: TensorSource) -> Tensor:
        return self._axis

    def subspace(self, _source: TensorSource) -> Tensor:
        return torch.eye(self._terms, self._width)

    def contrast(self, _source: ContrastSource) -> Contrast:
        return Contrast(self._axis, 0.0)

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:
        return Probe(source.title, self._axis, 0.0)

    def resolve(
        self,
        amount: Amount,
        *,
        direction: Tensor,
        feature: Feature | None,
        stated_max: float | None,
    ) -> ResolvedAmount:
        """What an amount comes to by the length and the activity that are recorded for it."""
        del direction
        index = len(self.features)
        self.features.append(None if feature is None else feature.name)
        if index >= len(self._recorded):
            return ResolvedAmount(stated=str(amount), value=None)
        recorded = self._recorded[index]
        activity = {}
        if feature is not None and recorded.activity is not None:
            activity[feature.name] = recorded.activity
        statistics = SiteStatistics(self._median_norm, activity)
        length = torch.tensor([recorded.direction_norm or 1.0])
        return SpliceSources(None, self._width, statistics).resolve(
            amount, direction=length, feature=feature, stated_max=stated_max
        )

    def _feature(self, name: str) -> Feature:
        return Feature(
            name=name,
            encoder=self._axis,
            bias=0.0,
            activation=PiecewiseLinear.relu(),
            threshold=0.0,
            decoder=self._axis,
        )

    @property
    def _axis(self) -> Tensor:
        return torch.eye(1, self._width)[0]
