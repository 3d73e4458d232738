"""The probability that an answer begins with one of some words."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hubsplice.explore.scorers.base import SCORERS, Scorable, Scorer


@SCORERS.register("tokens")
class Tokens(Scorer):
    """The probability of some words' first tokens as the first token of the answer."""

    argument: ClassVar[str | None] = "words"

    kind: Literal["tokens"] = "tokens"
    words: str = Field(min_length=1, description="Words, with commas between them.")

    def watched(self) -> tuple[str, ...]:
        return tuple(word for word in map(str.strip, self.words.split(",")) if word)

    def score(self, answer: Scorable) -> float:
        return answer.watched
