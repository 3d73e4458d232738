"""What a model and its base answer, as a report and a card have it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Said(_Record):
    """What two models say to one prompt, with everything else alike."""

    base: str = Field(description="By the base. An end that was cut is an ellipsis.")
    edited: str = Field(description="By the spliced checkpoint, loaded as it is.")


class Answer(_Record):
    """One prompt and what came of it."""

    prompt: str
    form: Literal["chat", "text"] = Field(
        description="Put through the chat template, or continued as plain text."
    )
    greedy: Said
    hook: str | None = Field(
        None,
        description="What the exact hook on the base says greedily; null where that is what the "
        "checkpoint says.",
    )
    sampled: Said | None = Field(
        None, description="The same with random numbers, for one of the prompts."
    )


class Answers(_Record):
    """Prompts as base and spliced checkpoint answer them, at the serving precision."""

    chosen: Literal["by the author", "by effect"] = Field(
        description="Who chose the prompts: the recipe, or hubsplice, by how much the edit changes "
        "what is said first."
    )
    candidates: int = Field(0, description="From how many prompts the latter were chosen.")
    dtype: str
    device: str
    new_tokens: int = Field(description="The longest answer.")
    temperature: float = Field(description="Of the sampled answers.")
    top_p: float
    seed: int
    prompts: tuple[Answer, ...]
