"""The conditions of a splice's edits, looked up, to count the tokens on which they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.compiling.lowered_edits import LoweredEdit
from hubsplice.edits.lookup import Lookup
from hubsplice.features.held import EditHeld, Held, HeldGate
from hubsplice.intervention.condition import Condition

_TOKENS_AT_ONCE = 4096
_NOT_COUNTED = Held(0, 0)


@dataclass(frozen=True, eq=False)
class LoweredCondition:
    """Where an edit acts, looked up: its `when`, its own gate, or both.

    Also of a condition that became a part of the edit's φ.

    Attributes:
        edit: which of the splice's edits it is of.
        field: how the recipe calls it (`splices[0].edits[1].when`).
        label: what a report calls the edit.
        words: where each of its gates is open.
        condition: the gates.
        held: on how many tokens of the calibration text it held.
    """

    edit: int
    field: str
    label: str
    words: tuple[str, ...]
    condition: Condition
    held: Held = _NOT_COUNTED

    def count(self, h: Tensor) -> Held:
        """On how many tokens of h [tokens, d], float32, sinks left out, it holds."""
        parts = torch.split(h, _TOKENS_AT_ONCE)
        opened = torch.cat([self.condition.opened(part) for part in parts], dim=1)
        whole = int((opened.sum(dim=0) >= self.condition.needed).sum())
        gates = tuple(map(HeldGate, self.words, opened.sum(dim=1).tolist()))
        return Held(whole, len(h), gates if len(gates) > 1 else ())

    @property
    def told(self) -> EditHeld:
        """For reports."""
        return EditHeld(self.label, self.held)

    @property
    def doubt(self) -> str | None:
        """What may not be meant, if it held on no token."""
        if self.held.tokens or not self.held.scanned_tokens:
            return None
        never = [gate.words for gate in self.held.gates if not gate.tokens]
        if never or not self.held.gates:
            what = f"{' and '.join(never or self.words)} on none of them"
        else:
            what = "never all together"
        return (
            f"{self.field}: it held on none of the {self.held.scanned_tokens:,} tokens of "
            f"calibration text that were scanned ({what}), so that the edit may never act; give "
            "text on which it holds as the recipe's `prompts`, or lower its threshold"
        )


def lowered_conditions(
    edits: Sequence[LoweredEdit], sources: Lookup
) -> tuple[LoweredCondition, ...]:
    """The conditions and gates of those edits that have some, in their order.

    Args:
        edits: every edit of a splice.
        sources: what conditions look up.
    """
    found = []
    for number, lowered in enumerate(edits):
        openings, when = lowered.edit.openings(sources), lowered.edit.condition
        if not openings:
            continue
        members, needed = (0, 0) if when is None else (len(when.members), when.needed)
        # Beside a gate, conditions that are joined by `any` are refused.
        own = len(openings) - members
        fields = [name for name, gates in (("when", members), ("gate", own)) if gates]
        found.append(
            LoweredCondition(
                number,
                f"{lowered.field}.{' and '.join(fields)}",
                lowered.terms[0].label,
                tuple(opening.words for opening in openings),
                Condition(tuple(opening.read_out for opening in openings), needed + own),
            )
        )
    return tuple(found)


def condition_doubts(conditions: Iterable[LoweredCondition]) -> Iterator[str]:
    """What may not be meant of them."""
    yield from (doubt for condition in conditions if (doubt := condition.doubt) is not None)
