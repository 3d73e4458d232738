"""Whether a recipe would build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubsplice.interface.sources import RecipeSource, as_recipe

if TYPE_CHECKING:
    from hubsplice.compiling.check import CheckReport


def check(recipe: RecipeSource) -> CheckReport:
    """Say whether a recipe would build, from configurations alone, without loading weights.

    Args:
        recipe: a `Recipe`, its fields as a mapping, or the path of a YAML file.

    Returns:
        What would be spliced where, what the build would take of this machine, and warnings.

    Raises:
        HubspliceError: everything that would stop the build, one line per problem. It is a
            `RecipeError` for a mistake in the recipe, an `UnsupportedError` for a model or an SAE
            that can't be spliced, and a `CheckpointError` for missing or damaged files.
    """
    parsed = as_recipe(recipe)
    # A mistake in the recipe is shown before the compiler's imports, which take seconds.
    from hubsplice.building.estimate import check as check_recipe

    return check_recipe(parsed)
