"""The strengths of a recipe's edits: which field holds each, and recipes with other ones.

A strength that is tried **sets** that field, in the unit that the recipe counts in: of
`to: 1 x max`, 0.5 makes `to: 0.5 x max`. So what was tried can be written into the recipe as it
stands. A strength may also name its unit itself (`8`, `0.5 x max`, `0.3 x norm`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from hubsplice.edits.base import Edit
from hubsplice.edits.strength import Amount, parse_amount
from hubsplice.errors import RecipeError
from hubsplice.recipe.models import Recipe

_FIELDS = ("to", "strength", "at", "factor")


@dataclass(frozen=True)
class Knob:
    """The field that holds an edit's strength.

    Attributes:
        splice: which splice of the recipe, as a number.
        edit: which edit of it.
        field: the name of the field.
        value: what the recipe says.
    """

    splice: int
    edit: int
    field: str
    value: Amount | float

    @property
    def path(self) -> str:
        """How messages call it."""
        return f"splices[{self.splice}].edits[{self.edit}].{self.field}"

    def parse(self, text: str, option: str = "--strengths") -> Amount | float:
        """A strength as somebody writes it, a number in this field's own unit.

        Args:
            text: what was written.
            option: where, for messages.

        Raises:
            RecipeError: it is none.
        """
        try:
            amount = parse_amount(text)
        except ValueError as error:
            raise RecipeError(f"{option}: {error}") from None
        if isinstance(self.value, float):
            if amount.unit != "sae":
                raise RecipeError(
                    f"{option}: found {text!r}, expected a plain number, as {self.path} is one"
                )
            return amount.value
        return Amount(amount.value, self.value.unit) if amount.unit == "sae" else amount

    def shown(self, value: Amount | float) -> str:
        """A strength in words."""
        return f"{value:g}" if isinstance(value, float) else str(value)


def knob(recipe: Recipe, number: int | None) -> Knob:
    """The strength of the edit with this number, counted over all splices.

    Args:
        recipe: the recipe.
        number: which edit; None for the only one that has a strength.

    Raises:
        RecipeError: no such edit, it has no strength, or several have one and none is named.
    """
    edits = list(edits_of(recipe))
    known = ", ".join(
        f"{i} ({edit.kind}{f', {edit.label!r}' if edit.label else ''})"
        for i, (_, _, edit) in enumerate(edits)
    )
    if number is None:
        found = [k for s, e, edit in edits if (k := knob_of(s, e, edit)) is not None]
        if len(found) == 1:
            return found[0]
        raise RecipeError(
            f"--edit: missing; the recipe has {len(found)} edits with a strength, expected one; "
            f"its edits: {known}"
        )
    if not 0 <= number < len(edits):
        raise RecipeError(f"--edit: found {number}; the recipe's edits: {known}")
    splice, index, edit = edits[number]
    found_knob = knob_of(splice, index, edit)
    if found_knob is None:
        hint = "; `scale` with a `factor` can be tried" if edit.kind == "ablate" else ""
        raise RecipeError(f"--edit: {number} ({edit.kind}) has no strength{hint}")
    return found_knob


def with_strength(recipe: Recipe, found: Knob, value: Amount | float) -> Recipe:
    """The recipe with another strength.

    Raises:
        RecipeError: the edit can't have it.
    """
    splice = recipe.splices[found.splice]
    edit = splice.edits[found.edit]
    fields = edit.model_dump(exclude_unset=True) | {"kind": edit.kind, found.field: value}
    try:
        changed = type(edit).model_validate(fields)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{found.path}: {found.shown(value)}: {said}") from None
    edits = (*splice.edits[: found.edit], changed, *splice.edits[found.edit + 1 :])
    splices = list(recipe.splices)
    splices[found.splice] = splice.model_copy(update={"edits": edits})
    return recipe.model_copy(update={"splices": tuple(splices)})


def with_strengths(recipe: Recipe, text: str) -> Recipe:
    """The recipe with one strength for every edit that has any, each in its own unit.

    Args:
        recipe: the recipe.
        text: the strength as somebody writes it.

    Raises:
        RecipeError: it is none, an edit can't have it, or no edit has a strength.
    """
    knobs = [found for s, e, edit in edits_of(recipe) if (found := knob_of(s, e, edit)) is not None]
    if not knobs:
        raise RecipeError("--strengths: no edit of the recipe has a strength; an ablation has none")
    for found in knobs:
        recipe = with_strength(recipe, found, found.parse(text))
    return recipe


def counts_in_maximum(recipe: Recipe) -> bool:
    """Whether any strength counts in a largest activation that the recipe doesn't state."""
    return any(_of_maximum(edit) for _, _, edit in edits_of(recipe))


def _of_maximum(model: BaseModel) -> bool:
    stated = getattr(model, "max", None) is not None
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Amount) and value.unit == "max" and not stated:
            return True
        if isinstance(value, BaseModel) and _of_maximum(value):
            return True
    return False


def edits_of(recipe: Recipe) -> Iterator[tuple[int, int, Edit]]:
    """All edits, each with the number of its splice and its own in there."""
    for s, splice in enumerate(recipe.splices):
        for e, edit in enumerate(splice.edits):
            yield s, e, edit


def knob_of(splice: int, index: int, edit: Edit) -> Knob | None:
    """An edit's strength; None where it has none."""
    for name in _FIELDS:
        value = getattr(edit, name, None)
        if isinstance(value, Amount) or (isinstance(value, float) and name == "factor"):
            return Knob(splice, index, name, value)
    return None
