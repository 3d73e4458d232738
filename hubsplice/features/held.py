"""On how much calibration text the conditions of edits hold.

Manifests and reports hold these records, so they need no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True)
class HeldGate:
    """One of several gates of a condition.

    Attributes:
        words: where it is open, such as "feature 3 is active".
        tokens: on how many tokens it was.
    """

    words: str
    tokens: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Held:
    """On how many tokens of a text a condition held.

    Attributes:
        tokens: so many.
        scanned_tokens: the tokens that were looked at, sinks left out.
        gates: what it is put together of; empty for a condition of one gate.
    """

    tokens: Annotated[int, Field(ge=0)]
    scanned_tokens: Annotated[int, Field(ge=0)]
    gates: tuple[HeldGate, ...] = ()

    def with_more(self, other: Held) -> Held:
        """The same condition on both texts together."""
        return Held(
            self.tokens + other.tokens,
            self.scanned_tokens + other.scanned_tokens,
            tuple(
                replace(one, tokens=one.tokens + more.tokens)
                for one, more in zip(self.gates, other.gates, strict=True)
            ),
        )

    def __str__(self) -> str:
        """`held on 12 of 20,000 scanned tokens (feature 3 is active: 90; …)`."""
        parts = "; ".join(f"{gate.words}: {gate.tokens:,}" for gate in self.gates)
        whole = f"held on {self.tokens:,} of {self.scanned_tokens:,} scanned tokens"
        return f"{whole} ({parts})" if parts else whole


@dataclass(frozen=True)
class EditHeld:
    """On how many tokens of calibration text the condition of one edit held.

    Attributes:
        label: what a report calls the edit.
        held: on how many.
    """

    label: str
    held: Held

    def __str__(self) -> str:
        return f"{self.label}: the condition {self.held}"
