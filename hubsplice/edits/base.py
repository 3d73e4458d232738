"""What an edit kind is: a small pydantic model that lowers itself to ridge functions."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hubsplice.edits.strength import Amount
from hubsplice.features.base import Feature, Probe
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.references import ProbeSource, TensorSource
from hubsplice.intervention.site import Term


class Role(enum.Enum):
    """What an edit says of the activation or component that it edits."""

    ADDS = "adds"
    """It becomes larger or smaller by an amount; two such edits plainly add up."""

    HOLDS = "holds"
    """It becomes a value, or stays within a bound."""

    SCALES = "scales"
    """It becomes a multiple of what it is."""


class Lookup(Protocol):
    """Where features, vectors, contrasts and probes are found.

    Every method raises `RecipeError` naming the field, the value and the valid range.
    """

    def feature(self, index: int) -> Feature:
        """The feature with this index in the splice's SAE."""

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


class Edit(BaseModel, ABC):
    """Base of all edits; subclasses are registered with `EDITS.register(kind)`.

    Class attributes:
        summary: one line that says what the edit does.
        formula: φ(p), or the whole edit, in the words of the documentation.
        constant: whether it adds the same to every token, and its terms read nothing.
        role: what it says, by which two edits of one thing are found to contradict each other;
            None for a kind that only cancels others by accident.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: ClassVar[str]
    formula: ClassVar[str]
    constant: ClassVar[bool] = False
    role: ClassVar[Role | None] = None

    kind: str
    label: str | None = Field(None, description="What the feature means, for the card.")

    @abstractmethod
    def lower(self, sources: Sources) -> tuple[Term, ...]:
        """The terms that this edit adds at its site."""

    def feature_indices(self) -> tuple[int, ...]:
        """The SAE features that the edit reads or writes, for checks and statistics."""
        return ()

    def factors(self) -> tuple[float, ...]:
        """What the edit multiplies a feature or a component by."""
        return ()

    def name(self, what: str) -> str:
        """How a report calls a term: `ablate feature 12 (regular expressions)`."""
        return f"{self.kind} {what}" + (f" ({self.label})" if self.label else "")
