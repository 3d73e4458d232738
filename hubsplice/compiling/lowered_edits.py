"""Lowering the edits of a splice, one by one: what each becomes, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubsplice.edits.base import Edit
from hubsplice.edits.recording import Recording, Resolving
from hubsplice.errors import HubspliceError
from hubsplice.features.amounts import EditAmounts, ResolvedAmount
from hubsplice.intervention.site import Term


@dataclass(frozen=True, eq=False)
class LoweredEdit:
    """An edit with what it lowers to.

    Attributes:
        field: how the recipe calls it (`splices[0].edits[1]`).
        edit: as the recipe has it.
        terms: its ridge functions.
        resolved: what its strengths come to, in the order in which it asks for them.
    """

    field: str
    edit: Edit
    terms: tuple[Term, ...]
    resolved: tuple[ResolvedAmount, ...] = ()

    @property
    def certain(self) -> bool:
        """Whether the terms are final; without weights, some strengths are not known yet."""
        return all(amount.value is not None for amount in self.resolved)

    @property
    def amounts(self) -> EditAmounts:
        """Its strengths, for reports."""
        return EditAmounts(self.terms[0].label, self.resolved)

    def __str__(self) -> str:
        return f"{self.field} ({self.terms[0].label})"


def lowered_edits(
    edits: Sequence[Edit], sources: Resolving, field: str
) -> tuple[list[LoweredEdit], list[HubspliceError]]:
    """Lower every edit of a splice that can be lowered.

    Args:
        edits: the splice's.
        sources: what they look up.
        field: how the recipe calls the splice, for messages (`splices[0]`).

    Returns:
        The lowered edits in their order, and what is wrong with the others.
    """
    lowered: list[LoweredEdit] = []
    problems: list[HubspliceError] = []
    for i, edit in enumerate(edits):
        name, recording = f"{field}.edits[{i}]", Recording(sources)
        try:
            terms = edit.terms(recording)
        except HubspliceError as error:
            problems.append(error.inside(name))
            continue
        lowered.append(LoweredEdit(name, edit, terms, tuple(recording.amounts)))
    return lowered, problems
