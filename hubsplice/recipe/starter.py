"""The commented recipe that `hubsplice init` writes."""

from __future__ import annotations

import re

from hubsplice.errors import RecipeError
from hubsplice.templates import load_template

RECIPE = "recipe.yaml"

NAME = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
"""What an owner or a repository may be called, as a regular expression."""

_REPO_ID = re.compile(f"{NAME}/{NAME}", re.ASCII)


def recipe_starter(name: str, *, repo_id: str | None = None) -> str:
    """A commented recipe.

    Args:
        name: of its file.
        repo_id: the repository that it is published to; None leaves that out.

    Raises:
        RecipeError: `repo_id` is not `owner/name`.
    """
    if repo_id is not None:
        require_repo_id(repo_id)
    return load_template("recipe.yaml.j2").render(name=name, repo_id=repo_id)


def require_repo_id(repo_id: str) -> None:
    """Raise `RecipeError` unless this is `owner/name`."""
    if not _REPO_ID.fullmatch(repo_id):
        raise RecipeError(f"--repo-id: {repo_id!r} is not `owner/name`")
