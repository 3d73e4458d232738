"""What a recipe calls a direction or a probe by that is learned from examples."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hubsplice.features.prompt import AnyPrompt

Prompts = Path | Annotated[tuple[AnyPrompt, ...], Field(min_length=1)]


class Examples(BaseModel):
    """Two sets of prompts, read on the base where the splice edits, before any edit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    positive: Prompts = Field(
        description="Prompts that have it: a list as in `prompts`, or a file of them, .txt with a "
        "prompt on each line, or .jsonl with a prompt in each row (`text`, `user` or `messages`)."
    )
    negative: Prompts = Field(description="Prompts that lack it, likewise.")
    read: Literal["last", "all"] = Field(
        "last", description="The last token of each prompt, or all of them."
    )
    chat_template: bool = Field(
        True,
        description="Whether prompts that are plain strings go through the chat template, if the "
        "model has one; they stand for what a user says.",
    )

    @property
    def sets(self) -> str:
        """How reports call the two sets."""
        sides = (self.positive, self.negative)
        names = [s.name if isinstance(s, Path) else f"{len(s)} prompts" for s in sides]
        text = " and ".join(names)
        if any(isinstance(side, Path) for side in sides):
            return text
        # Others may be as many.
        return f"{text} ({hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:6]})"


class ContrastSource(Examples):
    """A direction from prompts that have something and prompts that lack it.

    At a strength of 1, it carries the mean of the negative examples to that of the positive ones,
    as far as that lies along the direction.
    """

    method: Literal["mean", "pca"] = Field(
        "mean",
        description="`mean`: the difference of the two means. `pca`: the first principal axis of "
        "the differences between the n-th positive and the n-th negative prompt, about zero.",
    )

    @property
    def title(self) -> str:
        """How reports call it."""
        return f"contrast ({self.method}, {self.read}) of {self.sets}"


class LearnedProbe(Examples):
    """A probe that tells prompts that have something from prompts that lack it.

    A logistic regression on coordinates of unit variance, with an L2 penalty of 1: what
    scikit-learn's `StandardScaler` and `LogisticRegression` give. With `read: all`, each token is
    an example.
    """

    @property
    def title(self) -> str:
        """How reports call it."""
        return f"probe ({self.read}) of {self.sets}"
