"""A recipe at another strength."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubsplice.edits.strength import Amount
from hubsplice.errors import RecipeError
from hubsplice.recipe.models import Recipe


def with_strength(recipe: Recipe, value: float) -> Recipe:
    """The recipe with a number in place of every edit's strength or factor, in its unit.

    Raises:
        RecipeError: no edit has a strength.
    """
    changed = False

    def at(edit: Any) -> Any:
        nonlocal changed
        amounts: dict[str, Any] = {
            name: replace(amount, value=value)
            for name in type(edit).model_fields
            if isinstance(amount := getattr(edit, name), Amount)
        }
        if "factor" in type(edit).model_fields:
            amounts["factor"] = value
        changed |= bool(amounts)
        return edit.model_copy(update=amounts)

    splices = tuple(
        splice.model_copy(update={"edits": tuple(map(at, splice.edits))})
        for splice in recipe.splices
    )
    if not changed:
        raise RecipeError("--strengths: no edit of the recipe has a strength; an ablation has none")
    return recipe.model_copy(update={"splices": splices})
