"""The lines of a text file that the user named."""

from __future__ import annotations

from pathlib import Path

from hubsplice.errors import RecipeError
from hubsplice.files.plain import read_plain


def text_lines(path: Path, field: str) -> list[str]:
    """All lines of a file, empty ones among them.

    Args:
        path: the file.
        field: the field or the option that names it, for messages.

    Raises:
        RecipeError: it can't be read, or is not UTF-8.
    """
    try:
        return read_plain(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"expected UTF-8 text: {error}"
        raise RecipeError(f"{field}: {path} can't be read: {reason}") from None
