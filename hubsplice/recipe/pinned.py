"""A recipe with what its names and open revisions stood for, so that it means the same later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubsplice.edits.base import Edit
from hubsplice.features.references import SaeSource
from hubsplice.recipe.local_paths import TEXTS
from hubsplice.recipe.models import Recipe


def with_base_commit(recipe: Recipe, commit: str | None) -> Recipe:
    """The recipe whose base is at a commit of the Hub; None for a local base."""
    return recipe if commit is None else recipe.model_copy(update={"revision": commit})


def with_saes(recipe: Recipe, saes: Mapping[int, SaeSource]) -> Recipe:
    """The recipe with the SAEs that its names stood for, by the splice's index."""
    return _with_field(recipe, "sae", saes)


def with_edits(recipe: Recipe, edits: Mapping[int, tuple[Edit, ...]]) -> Recipe:
    """The recipe with other edits in some splices, by the splice's index."""
    return _with_field(recipe, "edits", edits)


def with_sae_commits(recipe: Recipe, commits: Mapping[int, str | None]) -> Recipe:
    """The recipe whose SAEs are at commits of the Hub.

    Args:
        recipe: the recipe.
        commits: by the splice's index; None for an SAE from no repository of its own.
    """
    saes = {
        i: splice.sae.model_copy(update={"revision": commit})
        for i, splice in enumerate(recipe.splices)
        if splice.sae is not None and (commit := commits.get(i)) is not None
    }
    return with_saes(recipe, saes)


def with_text_commits(recipe: Recipe, commits: Mapping[str, str]) -> Recipe:
    """The recipe whose texts are at commits of the Hub, by section.

    A section that was not read, as in a build without a measurement, gets the commit of the
    other one where both name the same dataset and revision.
    """
    found = dict(commits)
    for section, other in (TEXTS, TEXTS[::-1]):
        here, there = getattr(recipe, section), getattr(recipe, other)
        same = (here.dataset, here.revision) == (there.dataset, there.revision)
        if section not in found and other in found and same:
            found[section] = found[other]
    return recipe.model_copy(
        update={
            section: getattr(recipe, section).model_copy(update={"revision": commit})
            for section, commit in found.items()
        }
    )


def _with_field(recipe: Recipe, field: str, values: Mapping[int, Any]) -> Recipe:
    """The recipe with another value of a field in some splices, by the splice's index."""
    return recipe.model_copy(
        update={
            "splices": tuple(
                splice.model_copy(update={field: values[i]}) if i in values else splice
                for i, splice in enumerate(recipe.splices)
            )
        }
    )
