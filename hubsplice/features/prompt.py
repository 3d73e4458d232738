"""Prompts, as recipes have them."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Message(_Part):
    """One message of a conversation."""

    role: str = Field(min_length=1, description="`user`, `assistant` or `system`.")
    content: str = Field(description="What it says.")


class Prompt(_Part):
    """Text for the model to read, as the recipe's author writes it. One of three forms."""

    user: str | None = Field(
        None,
        min_length=1,
        description="A question, put through the chat template; plain text for a model that has "
        "none. A prompt that is a string means this.",
    )
    chat: tuple[Message, ...] | None = Field(
        None, min_length=1, description="A conversation, put through the chat template."
    )
    text: str | None = Field(None, min_length=1, description="Plain text, as it stands.")

    @model_validator(mode="after")
    def _one_form(self) -> Prompt:
        given = [name for name in ("user", "chat", "text") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "nothing"
            raise ValueError(f"found {found}, expected one of user, chat and text")
        return self


def _question(value: Any, info: ValidationInfo) -> Any:
    given = {"user": value} if isinstance(value, str) else value
    if info.mode == "json":
        return Prompt.model_validate_json(json.dumps(given), strict=True)
    return given


AnyPrompt = Annotated[Prompt, BeforeValidator(_question)]
"""A prompt in any form, a string among them."""
