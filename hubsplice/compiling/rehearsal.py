"""Lowering a splice with stand-ins for its features: what the recipe alone says of its edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hubsplice.compiling.contradictions import contradictions
from hubsplice.compiling.far import far_amounts, far_factors
from hubsplice.compiling.lowered_edits import LoweredEdit, lowered_edits
from hubsplice.compiling.neurons_needed import require_room
from hubsplice.compiling.stand_ins import StandIns
from hubsplice.constructions.marking import UnmarkableError, require_markable
from hubsplice.edits.base import Edit
from hubsplice.edits.clamp_projection import ClampProjection
from hubsplice.edits.project import Project
from hubsplice.errors import HubspliceError, RecipeError, UnsupportedError
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.references import SaeSource
from hubsplice.features.sae_config import SaeConfig
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Term
from hubsplice.recipe.models import Splice


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What can be said of a splice's edits before any weight is loaded.

    Attributes:
        problems: what would stop the build.
        amounts: what the strengths come to, as far as the recipe says, for edits that have one.
        warnings: what would build, and may not be what was meant.
        conditions: what reports call the edits that have one, or a gate of their own.
        in_two_layers: those of them that need two layers.
    """

    problems: tuple[HubspliceError, ...]
    amounts: tuple[EditAmounts, ...]
    warnings: tuple[str, ...]
    conditions: tuple[str, ...] = ()
    in_two_layers: tuple[str, ...] = ()


def rehearse(
    splice: Splice,
    place: Place,
    sae: SaeConfig | None,
    hidden_size: int,
    room: int | None,
    field: str,
    gates: Mapping[SaeSource, SaeConfig] | None = None,
) -> Rehearsal:
    """Lower all edits of a splice, and keep what was found on the way.

    Args:
        splice: the recipe's splice.
        place: where the stream is edited.
        sae: the configuration of its SAE, if it names one.
        hidden_size: the width of the base's residual stream.
        room: how many neurons a layer has; None where no layer carries the splice.
        field: how the recipe calls the splice, for messages (`splices[0]`).
        gates: the configurations of the SAEs that only conditions read.
    """
    sources = StandIns(sae, hidden_size, place.after, gates)
    lowered, problems = lowered_edits(splice.edits, sources, field)
    together = contradictions(lowered)
    problems += map(RecipeError, together.problems)
    try:
        # A stand-in's decoder row is its encoder, and what reads along the row reads another thing.
        known = [edit for edit in lowered if not _reads_a_row(edit.edit)]
        require_markable([term for edit in known for term in edit.terms])
    except UnmarkableError as error:
        problems.append(UnsupportedError(f"{_field_of(error.term, lowered)}: {error}"))
    if room is not None:
        try:
            require_room(lowered, room, field)
        except HubspliceError as error:
            problems.append(error)
    return Rehearsal(
        tuple(problems),
        tuple(edit.amounts for edit in lowered if edit.resolved),
        (*(doubt for edit in lowered for doubt in _doubts(edit)), *together.doubts),
        tuple(edit.terms[0].label for edit in lowered if edit.edit.openings(sources)),
        tuple(
            edit.terms[0].label
            for edit in lowered
            if any(term.condition is not None for term in edit.terms)
        ),
    )


def _field_of(term: Term, edits: Sequence[LoweredEdit]) -> str:
    """How the recipe calls the condition of a term's edit, or the edit if it has none."""
    (edit,) = (edit for edit in edits if any(own is term for own in edit.terms))
    return edit.field if edit.edit.condition is None else f"{edit.field}.when"


def _reads_a_row(edit: Edit) -> bool:
    return isinstance(edit, Project | ClampProjection) and edit.feature is not None


def _doubts(edit: LoweredEdit) -> Iterator[str]:
    for doubt in (*far_amounts(edit.resolved), *far_factors(edit.edit)):
        yield f"{edit.field}: {doubt}"
