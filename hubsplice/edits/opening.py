"""A gate, looked up: what it reads, and where it is open."""

from __future__ import annotations

from dataclasses import dataclass

from hubsplice.intervention.condition import GateReadOut


@dataclass(frozen=True, eq=False)
class Opening:
    """A gate, looked up.

    Attributes:
        words: where it is open, such as "feature 5 is above 3".
        read_out: what it reads, and from where on it is open.
        feature: the feature of the splice's SAE that it reads, if it reads one.
    """

    words: str
    read_out: GateReadOut
    feature: int | None = None
