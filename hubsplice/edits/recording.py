"""The sources of an edit, which remember what its strengths came to."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from hubsplice.edits.lookup import Lookup
from hubsplice.edits.strength import Amount
from hubsplice.features.amounts import ResolvedAmount
from hubsplice.features.base import Feature, Probe
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.references import ProbeSource, SaeSource, TensorSource


class Resolving(Lookup, Protocol):
    """Sources that say what an amount comes to."""

    def resolve(
        self,
        amount: Amount,
        *,
        direction: Tensor,
        feature: Feature | None,
        stated_max: float | None,
    ) -> ResolvedAmount:
        """What `amount` of `direction` [d] comes to.

        Raises:
            RecipeError: `x max` or `max` without a feature, or `x max` of a feature that
                calibration never saw active, if the recipe states no maximum.
        """


class Recording:
    """Sources that remember every amount that was asked for.

    Attributes:
        amounts: what they came to, in the order in which they were asked for.
    """

    def __init__(self, sources: Resolving) -> None:
        self._sources = sources
        self.amounts: list[ResolvedAmount] = []

    def feature(self, index: int) -> Feature:
        return self._sources.feature(index)

    def gate_feature(self, index: int, sae: SaeSource) -> Feature:
        return self._sources.gate_feature(index, sae)

    def vector(self, source: TensorSource) -> Tensor:
        return self._sources.vector(source)

    def subspace(self, source: TensorSource) -> Tensor:
        return self._sources.subspace(source)

    def contrast(self, source: ContrastSource) -> Contrast:
        return self._sources.contrast(source)

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:
        return self._sources.probe(source)

    def amount(
        self,
        amount: Amount,
        *,
        direction: Tensor,
        feature: Feature | None,
        stated_max: float | None = None,
    ) -> float:
        found = self._sources.resolve(
            amount, direction=direction, feature=feature, stated_max=stated_max
        )
        self.amounts.append(found)
        # A stand-in has no number yet, and what it is used for is thrown away.
        return amount.value if found.value is None else found.value
