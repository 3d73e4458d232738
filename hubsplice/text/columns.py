"""Text from rows of named values, as JSON lines and Hub datasets give them."""

from __future__ import annotations

from collections.abc import Mapping

from hubsplice.errors import RecipeError, unknown_name


def text_of(row: Mapping[str, object], column: str, *, field: str, where: str) -> str:
    """The text in `column`; empty where it is null.

    Args:
        row: the values by column.
        column: the column wanted.
        field: where the recipe names the column.
        where: the row, for messages.

    Raises:
        RecipeError: no such column, with the nearest; or it holds something else than text.
    """
    if column not in row:
        raise RecipeError(f"{where}: {unknown_name(field, column, row)}")
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecipeError(
            f"{where}: {field}: {column!r} holds {type(value).__name__}, expected text"
        )
    return value
