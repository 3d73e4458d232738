"""What was found in the weights of one inserted layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recovered:
    """A part of an edit that neurons make, with what their weights say of it.

    Attributes:
        label: the edit's.
        part: `jump`, `bend`, `line` or `constant`.
        neurons: how many make it.
        strength: what is written, over what the intervention asks for; None where the weights
            leave it to a read-out of the stream.
        at: the p at which it begins, as the weights have it where no read-out has a say in it.
        reads: the cosine between what its neurons read and the term's encoder.
        writes: the same of what they write and the term's direction.
    """

    label: str
    part: str
    neurons: int
    strength: float | None
    at: float | None
    reads: float | None
    writes: float


@dataclass(eq=False)
class Findings:
    """What is wrong with a layer, and what was recovered from it.

    Attributes:
        names: the tensor that each role lies in.
        problems: each with the tensor, and the neuron where there is one.
        loose: those of them that a read-out would explain that was fitted to little text.
        recovered: the parts of its edits.
        used: how many neurons the layer uses.
        guard: how many of them are there for attention sinks.
        unproven: what the weights alone can't prove, one sentence each.
    """

    names: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    recovered: list[Recovered] = field(default_factory=list)
    used: int = 0
    guard: int = 0
    unproven: list[str] = field(default_factory=list)

    def wrong(self, role: str, neuron: int | None, what: str, *, loose: bool = False) -> None:
        """Note what is wrong with a neuron's part of a role's tensor."""
        place = "" if neuron is None else f"neuron {neuron}: "
        problem = f"{self.names[role]}: {place}{what}"
        self.problems.append(problem)
        if loose:
            self.loose.append(problem)

    def wrong_at(self, role: str, at: Sequence[int], what: str, *, loose: bool = False) -> None:
        """Note what is wrong with one element: a neuron, and a channel of the stream."""
        neuron, channel = at
        self.wrong(role, neuron, f"channel {channel} {what}", loose=loose)
