"""A repository that releases a model: the recipe, the workflow, what to set up."""

from __future__ import annotations

import re

from hubsplice.errors import RecipeError
from hubsplice.recipe.starter import NAME, RECIPE, recipe_starter, require_repo_id
from hubsplice.templates import load_template

WORKFLOW = ".github/workflows/release.yml"
_TEMPLATES = {
    WORKFLOW: "release/release.yml.j2",
    "README.md": "release/README.md.j2",
    ".gitignore": "release/gitignore.j2",
}

# A folder of a repository at a commit, branch or tag, as `uses:` takes it.
_ACTION = re.compile(rf"{NAME}/{NAME}(?:/[\w.-]+)*@[\w./-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def release_repository(repo_id: str, *, action: str) -> dict[str, str]:
    """The files of a repository that releases a model.

    Args:
        repo_id: the repository on the Hub, `owner/name`.
        action: hubsplice's action as `uses:` names it, `owner/repo/path@ref`.

    Returns:
        Texts by relative path.

    Raises:
        RecipeError: an argument is malformed.
    """
    require_repo_id(repo_id)
    if not _ACTION.fullmatch(action):
        raise RecipeError(f"--action: {action!r} is not `owner/repo/path@ref`")
    pinned = _COMMIT.fullmatch(action.rpartition("@")[2]) is not None
    values = {
        "action": action,
        "action_comment": "" if pinned else " # pin it to a commit: a tag can be moved",
        "name": RECIPE,
        "repo_id": repo_id,
    }
    files = {path: load_template(name).render(values) for path, name in _TEMPLATES.items()}
    return {RECIPE: recipe_starter(RECIPE, repo_id=repo_id), **files}
