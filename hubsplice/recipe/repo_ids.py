"""Names that the Hub takes for a repository, by the rules of its client; nothing is asked."""

from __future__ import annotations

import re

from hubsplice.errors import RecipeError

_LONGEST = 96
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*[A-Za-z0-9_]|[A-Za-z0-9_]")


def require_repo_id(repo_id: str, field: str) -> None:
    """Raise `RecipeError` unless the Hub takes a name for a repository, `name` or `owner/name`."""
    parts = repo_id.split("/")
    if (
        len(parts) <= 2
        and len(parts[-1]) <= _LONGEST
        and all(_PART.fullmatch(part) for part in parts)
        and not any(never in repo_id for never in ("--", ".."))
        and not repo_id.endswith(".git")
    ):
        return
    raise RecipeError(
        f"{field}: {repo_id!r} is no name of a repository on the Hub; expected `owner/name` of "
        f"letters, digits, -, _ and ., a name of at most {_LONGEST}, with no -- or .. in it, no - "
        "or . at either end, and no .git behind it"
    )
