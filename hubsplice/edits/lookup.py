"""What edits and their conditions look up while they are lowered."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from hubsplice.edits.strength import Amount
from hubsplice.features.base import Feature, Probe
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.references import ProbeSource, SaeSource, TensorSource


class Lookup(Protocol):
    """Where features, vectors, contrasts and probes are found.

    Every method raises `RecipeError` naming the field, the value and the valid range.
    """

    def feature(self, index: int) -> Feature:
        """The feature with this index in the splice's SAE."""

    def gate_feature(self, index: int, sae: SaeSource) -> Feature:
        """A feature of another SAE, which a condition reads."""

    def vector(self, source: TensorSource) -> Tensor:
        """A steering vector, shape [d], float32."""

    def subspace(self, source: TensorSource) -> Tensor:
        """An orthonormal basis, shape [k, d], float32, of the span of a [d] or [k, d] tensor."""

    def contrast(self, source: ContrastSource) -> Contrast:
        """A direction that is learned from examples."""

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:
        """A linear probe, from a file or learned from examples."""


class Sources(Lookup, Protocol):
    """What an edit may look up while it lowers itself."""

    def amount(
        self,
        amount: Amount,
        *,
        direction: Tensor,
        feature: Feature | None,
        stated_max: float | None = None,
    ) -> float:
        """The multiple of `direction` that `amount` means, in calibration's units."""


def source_name(what: str, source: TensorSource) -> str:
    """How a report calls a tensor from a file: its name and its file's, without the folder."""
    return f"{what} {source.tensor or source.path.stem} of {source.path.name}"
