"""What an edit kind is: a small pydantic model that lowers itself to ridge functions."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from hubsplice.edits.conditioned import conditioned
from hubsplice.edits.gate import Gate
from hubsplice.edits.lookup import Lookup as Lookup
from hubsplice.edits.lookup import Sources as Sources
from hubsplice.edits.opening import Opening
from hubsplice.edits.when import When
from hubsplice.intervention.site import Term


class Role(enum.Enum):
    """What an edit says of the activation or component that it edits."""

    ADDS = "adds"
    """It becomes larger or smaller by an amount; two such edits plainly add up."""

    HOLDS = "holds"
    """It becomes a value, or stays within a bound."""

    SCALES = "scales"
    """It becomes a multiple of what it is."""


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
    when: When | None = Field(
        None, description="Act only at tokens at which this holds. Default: at every token."
    )

    @abstractmethod
    def lower(self, sources: Sources) -> tuple[Term, ...]:
        """The terms that this edit would add at its site if it acted at every token."""

    def terms(self, sources: Sources) -> tuple[Term, ...]:
        """The terms that this edit adds at its site."""
        terms = self.lower(sources)
        if self.condition is None:
            return terms
        return conditioned(terms, self.condition, self.read_feature, sources)

    @property
    def condition(self) -> When | None:
        """At which tokens it acts; None for all."""
        return self.when

    @property
    def own_gate(self) -> Gate | None:
        """The gate that is a part of the edit itself, if its recipe gives one."""
        return None

    def openings(self, sources: Lookup) -> tuple[Opening, ...]:
        """The gates of its condition, and its own, unless that is more than one read-out's."""
        found = () if self.condition is None else self.condition.openings(sources)
        own = None if self.own_gate is None else self.own_gate.opening(sources)
        return found if own is None else (*found, own)

    @property
    def read_feature(self) -> int | None:
        """The SAE feature whose pre-activation its terms read, if they read one."""
        return None

    def feature_indices(self) -> tuple[int, ...]:
        """The SAE features that the edit itself reads or writes."""
        return ()

    def all_indices(self) -> tuple[int, ...]:
        """The SAE features that the edit and its condition name, for checks and statistics."""
        named = () if self.condition is None else self.condition.feature_indices()
        return tuple(dict.fromkeys((*self.feature_indices(), *named)))

    def factors(self) -> tuple[float, ...]:
        """What the edit multiplies a feature or a component by."""
        return ()

    def name(self, what: str) -> str:
        """How a report calls a term: `ablate feature 12 (regular expressions)`."""
        return f"{self.kind} {what}" + (f" ({self.label})" if self.label else "")
