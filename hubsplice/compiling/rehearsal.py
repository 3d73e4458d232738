"""Lowering a splice with stand-ins for its features: what the recipe alone says of its edits."""

from __future__ import annotations

from dataclasses import dataclass

from hubsplice.compiling.contradictions import NamedEdit, contradictions
from hubsplice.compiling.far import far_amounts, far_factors
from hubsplice.compiling.stand_ins import StandIns
from hubsplice.edits.recording import Recording
from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.sae_config import SaeConfig
from hubsplice.recipe.models import Splice


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What can be said of a splice's edits before any weight is loaded.

    Attributes:
        problems: what would stop the build.
        amounts: what the strengths come to, as far as the recipe says, for edits that have one.
        warnings: what would build, and may not be what was meant.
    """

    problems: tuple[HubspliceError, ...]
    amounts: tuple[EditAmounts, ...]
    warnings: tuple[str, ...]


def rehearse(splice: Splice, sae: SaeConfig | None, hidden_size: int, field: str) -> Rehearsal:
    """Lower all edits of a splice, and keep what was found on the way.

    Args:
        splice: the recipe's splice.
        sae: the configuration of its SAE, if it names one.
        hidden_size: the width of the base's residual stream.
        field: how the recipe calls the splice, for messages (`splices[0]`).
    """
    sources = StandIns(sae, hidden_size)
    problems: list[HubspliceError] = []
    amounts: list[EditAmounts] = []
    named: list[NamedEdit] = []
    warnings: list[str] = []
    for i, edit in enumerate(splice.edits):
        recording = Recording(sources)
        try:
            lowered = edit.lower(recording)
        except HubspliceError as error:
            problems.append(type(error)(f"{field}.edits[{i}]: {error}"))
            continue
        name = f"{field}.edits[{i}]"
        certain = all(amount.value is not None for amount in recording.amounts)
        named.append(NamedEdit(name, edit, lowered, certain))
        if recording.amounts:
            amounts.append(EditAmounts(lowered[0].label, tuple(recording.amounts)))
        doubts = (*far_amounts(recording.amounts), *far_factors(edit))
        warnings += [f"{name}: {doubt}" for doubt in doubts]
    together = contradictions(named)
    problems += map(RecipeError, together.problems)
    return Rehearsal(tuple(problems), tuple(amounts), (*warnings, *together.doubts))
