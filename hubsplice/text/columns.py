"""Text from rows of named values, as JSON lines and Hub datasets give them."""

from __future__ import annotations

from collections.abc import Mapping

from hubsplice.errors import RecipeError, unknown_name

DEFAULT_COLUMN = "text"
MESSAGES = "messages"


def text_of(row: Mapping[str, object], column: str, *, field: str, where: str) -> str:
    """The text in `column`; empty where it is null.

    A conversation, a list of messages with a role and a content, is what they say, one below the
    other: conversations are put into the model's own form later. Rows with `messages` and no
    `text` are conversations.

    Args:
        row: the values by column.
        column: the column wanted.
        field: where the recipe names the column.
        where: the row, for messages.

    Raises:
        RecipeError: no such column, with the nearest; or it holds something else than text.
    """
    if column not in row and column == DEFAULT_COLUMN and MESSAGES in row:
        column = MESSAGES
    if column not in row:
        raise RecipeError(f"{where}: {unknown_name(field, column, row)}")
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, list) and value and all(map(_is_message, value)):
        return "\n\n".join(message["content"] for message in value)
    if not isinstance(value, str):
        raise RecipeError(
            f"{where}: {field}: {column!r} holds {type(value).__name__}, expected text"
        )
    return value


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str) and "role" in value
