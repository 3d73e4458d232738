"""`dataset: sae`: the text that an SAE names as its own, as a recipe's source of text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hubsplice.errors import RecipeError
from hubsplice.features.sae_config import SaeConfig
from hubsplice.recipe.models import OF_THE_SAE, Recipe

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def with_sae_dataset(recipe: Recipe, saes: Iterable[SaeConfig]) -> Recipe:
    """The recipe with the dataset's name wherever it says `sae`.

    Args:
        recipe: the recipe.
        saes: its SAEs; the first that names a dataset decides.

    Raises:
        RecipeError: none of them does, or what it names is no Hub dataset.
    """
    sections = [
        name for name in ("calibration", "fidelity") if getattr(recipe, name).dataset == OF_THE_SAE
    ]
    if not sections:
        return recipe
    sae = next((sae for sae in saes if sae.dataset), None)
    if sae is None or sae.dataset is None:
        raise RecipeError(
            f"{sections[0]}.dataset: 'sae' means the dataset that the SAE's configuration names, "
            "and none of the recipe's SAEs names one; give `builtin`, a file or a Hub dataset"
        )
    if not _HUB_ID.fullmatch(sae.dataset):
        raise RecipeError(
            f"{sections[0]}.dataset: 'sae' means {sae.dataset!r} here, as {sae.origin} says, and "
            "that is no Hub dataset; give `builtin`, a file or a Hub dataset"
        )
    return recipe.model_copy(
        update={
            name: getattr(recipe, name).model_copy(update={"dataset": sae.dataset})
            for name in sections
        }
    )
