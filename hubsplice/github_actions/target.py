"""Where a run publishes, and where its files are."""

from __future__ import annotations

from pathlib import Path

from hubsplice.errors import RecipeError
from hubsplice.recipe.reading import load_recipe


def resolve_target(recipe: Path, *, repo_id: str, tag: str, state: Path) -> dict[str, str]:
    """The outputs that the steps of a run share.

    Args:
        recipe: the recipe's file.
        repo_id: the target; where empty, the recipe's.
        tag: the tag; where empty, the recipe's, or none.
        state: an empty folder for what the run leaves.

    Raises:
        RecipeError: the recipe is malformed, or no target, or a malformed one, is named.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    publish = load_recipe(recipe).publish
    target = repo_id or publish.repo_id
    if not target:
        raise RecipeError(
            f"{recipe}: publish.repo_id: missing, and the action was not given repo-id; expected "
            "`owner/name`"
        )
    try:
        validate_repo_id(target)
    except HFValidationError as error:
        raise RecipeError(f"repo-id: {target!r}: expected `owner/name`: {error}") from None
    return {
        "folder": str(state / target.rpartition("/")[2]),
        "hub-cache": constants.HF_HUB_CACHE,
        "repo-id": target,
        "state": str(state),
        "tag": tag or publish.tag or "",
        "xet-cache": constants.HF_XET_CACHE,
    }
