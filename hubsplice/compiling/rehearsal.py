"""Lowering a splice with stand-ins for its features: what the recipe alone says of its edits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hubsplice.compiling.contradictions import contradictions
from hubsplice.compiling.far import far_amounts, far_factors
from hubsplice.compiling.lowered_edits import LoweredEdit, lowered_edits
from hubsplice.compiling.neurons_needed import require_room
from hubsplice.compiling.stand_ins import StandIns
from hubsplice.constructions.marking import require_markable
from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.sae_config import SaeConfig
from hubsplice.intervention.place import Place
from hubsplice.recipe.models import Splice


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What can be said of a splice's edits before any weight is loaded.

    Attributes:
        problems: what would stop the build.
        amounts: what the strengths come to, as far as the recipe says, for edits that have one.
        warnings: what would build, and may not be what was meant.
        conditional: whether edits need two layers.
    """

    problems: tuple[HubspliceError, ...]
    amounts: tuple[EditAmounts, ...]
    warnings: tuple[str, ...]
    conditional: bool = False


def rehearse(
    splice: Splice,
    place: Place,
    sae: SaeConfig | None,
    hidden_size: int,
    room: int | None,
    field: str,
) -> Rehearsal:
    """Lower all edits of a splice, and keep what was found on the way.

    Args:
        splice: the recipe's splice.
        place: where the stream is edited.
        sae: the configuration of its SAE, if it names one.
        hidden_size: the width of the base's residual stream.
        room: how many neurons a layer has; None where no layer carries the splice.
        field: how the recipe calls the splice, for messages (`splices[0]`).
    """
    lowered, problems = lowered_edits(splice.edits, StandIns(sae, hidden_size, place.after), field)
    together = contradictions(lowered)
    problems += map(RecipeError, together.problems)
    terms = [term for edit in lowered for term in edit.terms]
    try:
        require_markable(terms)
    except HubspliceError as error:
        problems.append(type(error)(f"{field}.edits: {error}"))
    if room is not None:
        try:
            require_room(lowered, room, field)
        except HubspliceError as error:
            problems.append(error)
    return Rehearsal(
        tuple(problems),
        tuple(edit.amounts for edit in lowered if edit.resolved),
        (*(doubt for edit in lowered for doubt in _doubts(edit)), *together.doubts),
        any(term.condition is not None for term in terms),
    )


def _doubts(edit: LoweredEdit) -> Iterator[str]:
    for doubt in (*far_amounts(edit.resolved), *far_factors(edit.edit)):
        yield f"{edit.field}: {doubt}"
