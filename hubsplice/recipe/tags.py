"""Names that git takes for a tag, by the rules of `git check-ref-format`."""

from __future__ import annotations

import re

from hubsplice.errors import RecipeError

_NEVER = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")


def require_tag(tag: str, field: str) -> None:
    """Raise `RecipeError` unless git takes a name for a tag; the Hub keeps tags as git does."""
    refused = _NEVER.search(tag)
    if refused is not None:
        what = refused[0]
    elif tag in ("", "@") or tag.startswith(("-", "/", ".")) or tag.endswith(("/", ".")):
        what = tag
    else:
        return
    raise RecipeError(
        f"{field}: {tag!r} is no name for a tag, since git refuses {what!r} there; give one such "
        "as 'v1.0'"
    )
