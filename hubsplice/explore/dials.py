"""What a page lets somebody turn of a recipe: a strength for each edit, or whether it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hubsplice.edits.base import Edit
from hubsplice.edits.strength import Amount
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.strengths import Knob, edits_of, knob_of, with_strength

_SIGNED = ("steer", "add", "gated_steer", "clamp_projection")
"""Kinds whose strength says a direction, so that a negative one turns it."""

_STEPS = 100
_NO_LARGEST = 10.0


@dataclass(frozen=True)
class Dial:
    """One edit's strength and its range; 0 or 1 for an edit that has no strength.

    Attributes:
        splice: which splice of the recipe, as a number.
        edit: which edit of it.
        name: what the edit is.
        knob: the field that holds the strength; None for an edit without.
        value: what the recipe says, in its own unit; 1 for an edit without a strength.
        low: the least that can be set.
        high: the most.
    """

    splice: int
    edit: int
    name: str
    knob: Knob | None
    value: float
    low: float
    high: float

    @property
    def step(self) -> float:
        """By how much it moves at a time."""
        return 1.0 if self.knob is None else (self.high - self.low) / _STEPS

    @property
    def unit(self) -> str:
        """What the numbers count in, such as `x max`; empty for plain numbers."""
        amount = None if self.knob is None else self.knob.value
        return f"x {amount.unit}" if isinstance(amount, Amount) and amount.unit != "sae" else ""


def dials(recipe: Recipe, largest: Mapping[int, float]) -> tuple[Dial, ...]:
    """A dial for each edit.

    Args:
        recipe: the recipe.
        largest: the largest activations that are known, by the features' numbers. They say how
            far a strength of zero can be turned.
    """
    return tuple(_dial(s, e, edit, largest) for s, e, edit in edits_of(recipe))


def turned(recipe: Recipe, of: Sequence[Dial], values: Sequence[float]) -> Recipe:
    """The recipe as the dials have it; edits without a strength are left out at 0.

    Raises:
        RecipeError: an edit can't have its strength.
    """
    off: set[tuple[int, int]] = set()
    for dial, value in zip(of, values, strict=True):
        if dial.knob is None:
            if not value:
                off.add((dial.splice, dial.edit))
            continue
        stated = dial.knob.value
        amount = Amount(value, stated.unit) if isinstance(stated, Amount) else value
        recipe = with_strength(recipe, dial.knob, amount)
    splices = tuple(
        splice.model_copy(
            update={"edits": tuple(x for e, x in enumerate(splice.edits) if (s, e) not in off)}
        )
        for s, splice in enumerate(recipe.splices)
    )
    return recipe.model_copy(update={"splices": splices})


def _dial(splice: int, number: int, edit: Edit, largest: Mapping[int, float]) -> Dial:
    features = edit.feature_indices()
    what = ", ".join(f"feature {index}" for index in features)
    name = edit.name(what).replace("  ", " ").strip()
    knob = knob_of(splice, number, edit)
    if knob is None:
        return Dial(splice, number, name, None, 1.0, 0.0, 1.0)
    unit = knob.value.unit if isinstance(knob.value, Amount) else None
    value = knob.value.value if isinstance(knob.value, Amount) else knob.value
    # Twice what the recipe says: enough to see an edit come and go too far.
    high = 2 * abs(value) or _usual(edit, unit, [largest[i] for i in features if i in largest])
    low = -high if value < 0 or edit.kind in _SIGNED else 0.0
    return Dial(splice, number, name, knob, value, low, high)


def _usual(edit: Edit, unit: str | None, largest: Sequence[float]) -> float:
    """How far a strength can be turned that is zero in the recipe."""
    if unit != "sae":
        return 2.0
    stated: float | None = getattr(edit, "max", None)
    return 2 * (stated or max(largest, default=0.0) or _NO_LARGEST / 2)
